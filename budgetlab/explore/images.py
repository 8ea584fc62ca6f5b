"""Images of the samples of a record, and how they go into a chart."""

import base64
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from budgetlab.analysis.conditions import require_data_of
from budgetlab.errors import InputError
from budgetlab.records import Record

if TYPE_CHECKING:
    from budgetlab.data import Splits

__all__ = ["images_of", "packed", "some_of", "webp"]

# Of a chart: how large an image is, and how much of a file all of them may take.
LONGEST_SIDE, MOST_BYTES = 40, 440_000


def images_of(record: Record, splits: "Splits | None") -> Mapping[int, np.ndarray]:
    """Images of the training samples of a record, by sample number.

    Without the data set of the record, ``splits``, they are its own thumbnails: some only.

    Raises
    ------
    InputError
        If the data set is not that of the record.
    """
    if splits is None:
        return record.thumbnails
    require_data_of(record, splits)
    return _Images(splits.train.x.cpu().numpy())


class _Images(Mapping):
    """Images of samples, made when asked for."""

    def __init__(self, x: np.ndarray):
        self.x = x

    def __getitem__(self, sample: int) -> np.ndarray:
        if not 0 <= sample < len(self.x):
            raise KeyError(sample)
        if self.x.ndim == 2:
            return _image_of_point(self.x, sample)
        return self.x[sample].transpose(1, 2, 0)

    def __iter__(self):
        return iter(range(len(self.x)))

    def __len__(self) -> int:
        return len(self.x)


def _image_of_point(x: np.ndarray, sample: int, side: int = 42) -> np.ndarray:
    """Where a point lies among all ``[N, 2]``: uint8 ``[side, side, 3]``, grey, it in orange."""
    low, high = x.min(axis=0), x.max(axis=0)
    span = np.where(high > low, high - low, 1)
    places = ((x - low) / span * (side - 5) + 2).round().astype(int)
    image = np.full((side, side, 3), 255, np.uint8)
    image[side - 1 - places[:, 1], places[:, 0]] = 200
    column, row = places[sample, 0], side - 1 - places[sample, 1]
    image[row - 2 : row + 3, column - 2 : column + 3] = (213, 94, 0)
    return image


def some_of(
    frame: pd.DataFrame, images: Mapping[int, np.ndarray], samples: int, seed: int
) -> pd.DataFrame:
    """At most so many rows of a frame by sample: those with images first, others at random."""
    if samples < 1:
        raise InputError(f"samples {samples} is not allowed: give at least 1")
    if len(frame) <= samples:
        return frame
    order = np.random.default_rng(seed).permutation(len(frame))
    first = np.lexsort((order, ~frame.index.isin(np.fromiter(images, int))))
    return frame.iloc[np.sort(first[:samples])]


def packed(samples: Iterable[int], images: Mapping[int, np.ndarray]) -> list[str | None]:
    """Images as ``data:`` addresses of WebP, until they take too much of a file."""
    found, taken = [], 0
    for sample in samples:
        image = images.get(int(sample)) if taken < MOST_BYTES else None
        found.append(None if image is None else webp(image))
        taken += len(found[-1] or "")
    return found


def webp(pixels: np.ndarray, longest: int = LONGEST_SIDE, quality: int = 75) -> str:
    """Return an image uint8 ``[H, W]``, ``[H, W, 1 or 3]`` as a short ``data:`` address."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image = Image.fromarray(pixels).convert("RGB")
    image.thumbnail((longest, longest))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
