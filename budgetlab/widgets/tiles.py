"""A sheet of images; a click on one chooses it."""

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
TALL = SIDE + 44  # with the caption


class Tile(W.VBox):
    """One image to click on, its number and a line under it."""

    def __init__(self, choose: Callable[[int], None]):
        self.picture = W.HTML(layout=W.Layout(height=f"{TALL}px", margin="0"))
        # Laid over the image, which is what one clicks on; its name is its tooltip.
        over = W.Layout(width=f"{SIDE + 8}px", height=f"{SIDE}px", margin=f"-{TALL}px 0 0 0")
        self.button = W.Button(layout=over, style={"button_color": "transparent"})
        self.sample = -1
        self.button.on_click(lambda _: choose(self.sample))
        size = W.Layout(
            width=f"{SIDE + 10}px", height=f"{TALL + 4}px", margin="2px", overflow="hidden"
        )
        super().__init__([self.picture, self.button], layout=size)

    def show(self, sample: int, image: np.ndarray | None, line: str) -> None:
        """Show a sample; without an image it says so."""
        self.sample = sample
        box = f"width:{SIDE}px;height:{SIDE}px;object-fit:contain;display:block;margin:0 auto"
        if image is None:
            picture = f'<div style="{box};border:1px dashed">no image kept</div>'
        else:
            alt = f"Sample {sample}: {line}"
            picture = image_tag(data_uri(image), alt, f"{box};image-rendering:pixelated")
        said = f"#{sample} {line}"
        text = f'<div style="{CAPTION}" title="{html.escape(line)}">{html.escape(said)}</div>'
        self.picture.value = picture + text
        self.button.tooltip = f"Show the life of sample {sample}"
        self.layout.visibility = "visible"

    def hide(self) -> None:
        """Leave the place empty, without moving what lies below."""
        self.sample = -1
        self.layout.visibility = "hidden"


CAPTION = (
    "line-height:1.25;font-size:11px;height:40px;overflow:hidden;text-align:center;"
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
