"""A sheet of images, each with a button that chooses it."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets as W
import numpy as np

from budgetlab.errors import InputError
from budgetlab.records import Record
from budgetlab.widgets.panel import data_uri, image_tag

if TYPE_CHECKING:
    from budgetlab.data import Splits

__all__ = ["Tile", "TileSheet", "images_of", "picture_of_point"]

SIDE = 80


def images_of(record: Record, splits: "Splits | None") -> Mapping[int, np.ndarray]:
    """Find the images of the training samples of a record, by sample number.

    Parameters
    ----------
    record
        Its own thumbnails are used without ``splits``; they are some samples only.
    splits
        The data set of the record.

    Raises
    ------
    InputError
        If the data set is not that of the record.
    """
    if splits is None:
        return record.thumbnails
    if splits.fingerprint != record.fingerprint:
        raise InputError(
            f"these splits are not what '{record.path}' was trained on: load the data with the "
            "settings of the record"
        )
    return _Images(splits.train.x.cpu().numpy())


class _Images(Mapping):
    """Samples as pictures, made when asked for."""

    def __init__(self, x: np.ndarray):
        self.x = x

    def __getitem__(self, sample: int) -> np.ndarray:
        if not 0 <= sample < len(self.x):
            raise KeyError(sample)
        if self.x.ndim == 2:
            return picture_of_point(self.x, sample)
        return self.x[sample].transpose(1, 2, 0)

    def __iter__(self):
        return iter(range(len(self.x)))

    def __len__(self) -> int:
        return len(self.x)


def picture_of_point(x: np.ndarray, sample: int, side: int = 42) -> np.ndarray:
    """Draw where a point lies among all: uint8 ``[side, side, 3]``, all grey, it in orange.

    Parameters
    ----------
    x
        Points ``[N, 2]``.
    sample
        Its row.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    span = np.where(high > low, high - low, 1)
    places = ((x - low) / span * (side - 5) + 2).round().astype(int)
    picture = np.full((side, side, 3), 255, np.uint8)
    picture[side - 1 - places[:, 1], places[:, 0]] = 200
    column, row = places[sample, 0], side - 1 - places[sample, 1]
    picture[row - 2 : row + 3, column - 2 : column + 3] = (213, 94, 0)
    return picture


class Tile(W.VBox):
    """One image, a line under it, and a button with its number."""

    def __init__(self, choose: Callable[[int], None]):
        self.picture = W.HTML()
        self.button = W.Button(layout=W.Layout(width=f"{SIDE + 8}px", margin="0"))
        self.sample = -1
        self.button.on_click(lambda _: choose(self.sample))
        super().__init__(
            [self.picture, self.button], layout=W.Layout(width=f"{SIDE + 10}px", margin="2px")
        )

    def show(self, sample: int, image: np.ndarray | None, line: str) -> None:
        """Show a sample; without an image it says so."""
        self.sample = sample
        box = f"width:{SIDE}px;height:{SIDE}px;object-fit:contain;display:block;margin:0 auto"
        if image is None:
            picture = f'<div style="{box};border:1px dashed">no image kept</div>'
        else:
            alt = f"Sample {sample}: {line}"
            picture = image_tag(data_uri(image), alt, f"{box};image-rendering:pixelated")
        text = f'<div style="{CAPTION}" title="{html.escape(line)}">{html.escape(line)}</div>'
        self.picture.value = picture + text
        self.button.description = f"#{sample}"
        self.button.tooltip = f"Show the life of sample {sample}"
        self.layout.visibility = "visible"

    def hide(self) -> None:
        """Leave the place empty, without moving what lies below."""
        self.sample = -1
        self.layout.visibility = "hidden"


CAPTION = (
    "line-height:1.25;font-size:11px;height:2.5em;overflow:hidden;text-align:center;"
    "overflow-wrap:anywhere"
)


class TileSheet(W.HBox):
    """A fixed number of tiles that wrap in a narrow window."""

    def __init__(self, count: int, choose: Callable[[int], None]):
        self.tiles = [Tile(choose) for _ in range(count)]
        super().__init__(self.tiles, layout=W.Layout(flex_flow="row wrap", max_width="980px"))
        self.add_class("bl-tiles")

    def show(
        self, samples: Sequence[int], images: Mapping[int, np.ndarray], lines: Sequence[str]
    ) -> None:
        """Show samples, at most as many as there are tiles."""
        for place, tile in enumerate(self.tiles):
            if place < len(samples):
                sample = int(samples[place])
                tile.show(sample, images.get(sample), lines[place])
            else:
                tile.hide()
