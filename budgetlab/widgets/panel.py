"""A picture of fixed size with words for those who cannot see it."""

import base64
import html
import io
import threading
from typing import TYPE_CHECKING

import ipywidgets as W
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PicturePanel", "data_uri", "few_ticks", "fixed_figure", "image_tag"]

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


def few_ticks(axes: "Axes", count: int = 4, *, whole: bool = False) -> None:
    """Let an axis have at most so many steps: ticks and their texts are what drawing costs.

    With ``whole``, those of the x axis are whole numbers.
    """
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(count, steps=[1, 2, 5, 10], integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(count, steps=[1, 2, 5, 10]))


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
