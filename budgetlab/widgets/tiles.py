"""A sheet of images, each with a button that chooses it."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets as W
import numpy as np

from budgetlab.widgets.panel import data_uri, image_tag

if TYPE_CHECKING:
    pass

__all__ = ["Tile", "TileSheet"]

SIDE = 80


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
