"""Figures, images and tables of a fixed size, with words for those who cannot see them."""

import base64
import html
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets as W
import numpy as np
import pandas as pd
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PicturePanel", "TileSheet", "data_uri", "fixed_figure", "image_tag", "ready",
           "table_markup"]  # fmt: skip

DPI = 100


def fixed_figure(width: int, height: int) -> "Figure":
    """Make a figure of so many pixels whose axes are placed by hand.

    No window and no notebook shows it by itself. Finding a layout anew would cost as
    much as drawing does, at every picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def ready(axes: "Axes") -> "Axes":
    """Empty axes for the next picture, with few ticks: these are what drawing costs."""
    from matplotlib.ticker import MaxNLocator

    for inset in axes.child_axes[:]:
        inset.remove()
    axes.clear()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_visible(True)  # clearing leaves them hidden where there was nothing to show
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return axes


def data_uri(pixels: np.ndarray) -> str:
    """Return an image uint8 ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3 or 4]`` as a ``data:`` address.

    Lightly compressed: the reader is the browser beside, and time counts.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def image_tag(address: str, alt: str, style: str) -> str:
    """Return an ``img`` element that says in words what it shows.

    It appears together with what is around it; otherwise its place might be blank for a
    moment each time that the picture changes.
    """
    return f'<img alt="{html.escape(alt)}" src="{address}" style="{style}" decoding="sync">'


class PicturePanel(W.HTML):
    """Shows one figure again and again, without a jump or a blank in between.

    The place it takes never changes, and it shrinks with a narrow window.

    Parameters
    ----------
    figure
        Of the size in which it is shown; see :func:`fixed_figure`.

    Examples
    --------
    >>> panel = PicturePanel(fixed_figure(900, 320))
    >>> panel.figure.subplots().plot([1, 2])  # doctest: +SKIP
    >>> panel.show("A line that rises.")
    """

    def __init__(self, figure: "Figure"):
        width, height = (round(DPI * inches) for inches in figure.get_size_inches())
        super().__init__(layout=W.Layout(width="100%", max_width=f"{width}px", margin="0"))
        self.figure = figure
        self.alt = ""
        self._style = (
            f"width:100%;height:auto;aspect-ratio:{width}/{height};display:block;background:white"
        )
        self._drawing = threading.Lock()
        self.add_class("bl-fig")

    def show(self, alt: str) -> None:
        """Draw the figure as it is now, and say in words what it shows."""
        with self._drawing:
            canvas = self.figure.canvas
            canvas.draw()
            # Opaque: three channels are a quarter less to compress and to send.
            pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]  # type: ignore[attr-defined]
            address = data_uri(np.ascontiguousarray(pixels))
            self.alt = alt
            self.value = image_tag(address, alt, self._style)


def table_markup(frame: pd.DataFrame, *, head: bool = True) -> str:
    """Return a frame of text as an HTML table whose index names the rows; nothing is markup."""
    made = frame.to_html(border=0, justify="left", header=head)
    made = made.replace("<th>", f'<th style="{HEAD}">')
    return made.replace('class="dataframe"', f'style="{TABLE}"')


HEAD = "text-align:left;font-weight:normal;padding:0 1em 0 0"
TABLE = "line-height:1.4;font-size:12px;font-weight:normal;overflow-wrap:anywhere;max-width:100%"


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
