"""Compact storage of numbers, images and sample histories in a chart."""

import base64
import io
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from budgetlab.analysis import measures
from budgetlab.analysis.conditions import require_data_of, require_same_data
from budgetlab.errors import InputError, a_kind, counted, few
from budgetlab.records import OneRecord, Record, open_record

if TYPE_CHECKING:
    from budgetlab.data import Splits

LONGEST_SIDE, MOST_BYTES = 40, 440_000  # of an image in pixels, and of all images of a chart
MOST_VALUES = 12_000  # samples times epochs of their lives, so that a chart stays under 1 MB


def compact(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """Round to significant digits; values that are not finite become None, for JSON."""
    given = np.asarray(list(values), float)
    rounded = (float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in given)
    return [int(v) if v is not None and v == int(v) else v for v in rounded]


def apart(values: pd.Series) -> list[float | None]:
    """Round to four significant digits of the range, so that distinct values stay distinct."""
    span, highest = float(values.max()) - float(values.min()), float(values.abs().max())
    return compact(values, 4 + (int(np.ceil(np.log10(highest / span))) if span else 0))


def slider_range(values: pd.Series) -> dict[str, float]:
    """Return slider ends that include all values, rounded outwards where possible."""
    low, high = float(values.min()), float(values.max())
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-6) / 20))
    ends = {"low": np.floor(low / step), "high": np.ceil(high / step)}
    short = {name: float(f"{step * end:.6g}") for name, end in ends.items()}
    return {"low": min(short["low"], low), "high": max(short["high"], high)}


def joined(values: Iterable[float], digits: int = 4) -> str:
    """Join numbers, rounded by :func:`compact`, into one string: JSON lists take a line each."""
    return " ".join("" if v is None else str(v) for v in compact(values, digits))


def parted(**fields: str) -> list[dict[str, Any]]:
    """Return transforms that split strings made by :func:`joined`; keywords name the results."""
    return [{"calculate": f"split(datum.{text}, ' ')", "as": name} for name, text in fields.items()]


def records_of(frame: pd.DataFrame, decimals: int = 6) -> list[dict[str, Any]]:
    """Convert a frame to JSON records: plain numbers, None for missing values."""
    return json.loads(frame.to_json(orient="records", double_precision=decimals))


def measured(record: Record, other: OneRecord | None, more: pd.DataFrame | None) -> pd.DataFrame:
    """Return the measures of a record by sample, joined with those of ``other`` and ``more``."""
    frame = measures(record)
    if other is not None:
        require_same_data([record, open_record(other)])
        counts = measures(other)["times_trained"]
        more_often = frame["times_trained"] - counts
        frame = frame.assign(times_trained_other=counts, trained_more=more_often)
    if more is None:
        return frame
    asked = "give one row per sample, indexed by sample number"
    if not isinstance(more, pd.DataFrame):
        raise InputError(f"more is {a_kind(more)} and no frame: {asked}")
    places = frame.get("recorded_as")
    if places is not None and len(more) != len(frame) and places.isin(more.index).all():
        # A thinned record of a run on all rows of ``more``.
        more = more.loc[places].set_axis(frame.index)
    if not more.index.equals(frame.index):
        raise InputError(
            f"more has {counted(len(more), 'row')} of index {few(map(str, more.index))} for "
            f"{counted(len(frame), 'sample')} of index {few(map(str, frame.index))}: {asked}"
        )
    return frame.drop(columns=more.columns, errors="ignore").join(more)


def images_of(record: Record, splits: "Splits | None") -> Mapping[int, np.ndarray]:
    """Return the training images of a record by sample number.

    Without ``splits``, the record's data set, only its thumbnails of some samples. Raises
    InputError if the data set is not that of the record.
    """
    if splits is None:
        return record.thumbnails
    require_data_of(record, splits)
    return _Images(splits.train.x.cpu().numpy())


class _Images(Mapping):
    """Images of samples, built on access."""

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


def _image_of_point(x: np.ndarray, sample: int) -> np.ndarray:
    """Draw all points ``[N, 2]`` in grey, one in orange: uint8 ``[42, 42, 3]``."""
    side = 42
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
    """Choose at most ``samples`` rows of a frame: those with images first, others at random."""
    if len(frame) <= samples:
        return frame
    order = np.random.default_rng(seed).permutation(len(frame))
    first = np.lexsort((order, ~frame.index.isin(np.fromiter(images, int))))
    return frame.iloc[np.sort(first[:samples])]


def packed(samples: Iterable[int], images: Mapping[int, np.ndarray]) -> list[str | None]:
    """Encode images as WebP ``data:`` URLs, up to ``MOST_BYTES`` in total."""
    found, taken = [], 0
    for sample in samples:
        image = images.get(int(sample)) if taken < MOST_BYTES else None
        found.append(None if image is None else webp(image))
        taken += len(found[-1] or "")
    return found


def webp(pixels: np.ndarray) -> str:
    """Encode an image, uint8 ``[H, W]`` or ``[H, W, 1 or 3]``, as a WebP ``data:`` URL."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image = Image.fromarray(pixels).convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=75, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def png(pixels: np.ndarray, colours: int = 48) -> str:
    """Encode a smooth image, uint8 ``[H, W, 3]``, in a few colours as a PNG ``data:`` URL.

    Magnified, and by decoders other than a browser's, WebP would show its blocks.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).quantize(colours).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


class SampleHistories:
    """Last known loss, probability and number of draws of samples, at the end of some epochs."""

    def __init__(self, record: Record, samples: np.ndarray):
        data = record.samples[["loss", "probability", "times_trained"]]
        size, total = data.sizes["sample"], data.sizes["epoch"]
        count = min(total, max(2, MOST_VALUES // len(samples)))
        self.epochs = np.unique(np.linspace(1, total, count).round().astype(int))
        data, kept = data.isel(sample=samples), self.epochs - 1
        factor = size if record.probability_kind == "draw" else 1
        found = {
            "loss": pd.DataFrame(data["loss"].to_numpy()).ffill().to_numpy()[kept],
            "chance": factor * data["probability"].to_numpy()[kept],
            "drawn": data["times_trained"].to_numpy().astype(int).cumsum(axis=0)[kept],
        }
        self.columns = {f"{name}_by": [joined(one, 9 if name == "drawn" else 3) for one in all_of.T]
                        for name, all_of in found.items()}  # fmt: skip
        self._places = {int(sample): place for place, sample in enumerate(samples)}

    def of(self, sample: int) -> pd.DataFrame:
        """Return one sample's history, read back from the chart's data."""
        if sample not in self._places:
            raise InputError(
                f"sample {sample} is not in this chart: give one that its twin returns"
            )
        life = pd.DataFrame({"epoch": self.epochs})
        for name, texts in self.columns.items():
            said = texts[self._places[sample]].split(" ")
            life[name.removesuffix("_by")] = [float(one) if one else np.nan for one in said]
        return life.astype({"drawn": int})
