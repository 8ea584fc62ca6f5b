"""Building blocks of widgets: labelled controls, status line, figures, tables."""

import base64
import contextlib
import dataclasses
import html
import io
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as W
import numpy as np
import pandas as pd
import traitlets
from PIL import Image

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 100
BELOW, BESIDE = 0.27, 0.52  # inches from the axes to their names
LABEL = {"description_width": "initial"}

# A transparent pixel, used for its load event, which runs the script.
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
NAMING = """(function name(pixel, tries) {
  const handle = pixel.closest('.bl-number')?.querySelector('[role=slider]');
  if (handle) handle.setAttribute('aria-label', pixel.dataset.name);
  else if (tries) setTimeout(name, 100, pixel, tries - 1);
})(this, 50)"""
CELL = "text-align:left;padding:0 0.4em 0 0"
HEAD = f"{CELL};font-weight:normal"
TABLE = "line-height:1.4;font-size:12px;font-weight:normal;width:100%;max-width:800px"


class Panel(W.VBox):
    """Base class of widgets with named controls and a status line; ``marker`` is its CSS class.

    ``offered`` names the settings with a control; ``elsewhere`` says what the others are.
    """

    elsewhere = ""

    def __init__(self, marker: str):
        super().__init__()
        self.offered: Collection[str] = ()
        self.status = StatusLine(advice=self._advice)
        self.add_class(marker)

    def control(self, **made: Any) -> None:
        """Store controls that call :meth:`changed`; ``a_b`` gets the CSS class ``bl-a-b``."""
        self.offered = made
        for name, one in made.items():
            setattr(self, name, one)
            one.add_class(f"bl-{name.replace('_', '-')}")
            one.observe(lambda _, name=name: self.changed(name), "value")

    def changed(self, name: str) -> None:
        """Handle a change of the named control."""
        self.update()

    def update(self) -> None:
        """Update the display to the values of the controls."""

    def _advice(self, message: str) -> str:
        """Say where to find a setting that an error names and that has no control."""
        for name in (field.name for field in dataclasses.fields(RunConfig)):
            spelled = name.replace("_", "[ _-]") if "_" in name else f"(--{name}|{name}=)"
            if name not in self.offered and re.search(rf"(?<!\w){spelled}", message):
                return f". A setting without a control, such as {name}, is {self.elsewhere}."
        return ""


class Number(W.HBox):
    """A labelled number field with a slider; values out of range are clipped."""

    value = traitlets.Any()

    def __init__(self, name: str, value: float, low: float, high: float, step: float):
        whole = all(isinstance(number, int) for number in (value, low, high, step))
        box, slider = (
            (W.BoundedIntText, W.IntSlider) if whole else (W.BoundedFloatText, W.FloatSlider)
        )
        limits = {"value": value, "min": low, "max": high, "step": step}
        width = f"{6.5 + 0.55 * len(name):.1f}em"
        self.box = box(**limits, description=name, style=LABEL, layout=W.Layout(width=width))
        self.slider = slider(**limits, readout=False, layout=W.Layout(width="8em"))
        parts = [self.box, self.slider, _name_of_slider(name)]
        super().__init__(parts, value=self.box.value)
        self.add_class("bl-number")
        for part in parts[:2]:
            part.observe(lambda change: setattr(self, "value", change["new"]), "value")

    @traitlets.validate("value")
    def _within(self, proposal: dict) -> Any:
        # A slider sums its steps: 0.10000000000000009 would be a different run from 0.1.
        nearest = min(max(proposal["value"], self.box.min), self.box.max)
        return type(self.box.value)(round(nearest, 9))

    @traitlets.observe("value")
    def _valued(self, change: dict) -> None:
        for part in (self.box, self.slider):
            # To correct the last digits of a slider would undo the keys pressed in the meantime.
            if round(part.value - change["new"], 9):
                part.value = change["new"]

    @property
    def disabled(self) -> bool:
        """Whether the control is disabled."""
        return self.box.disabled

    @disabled.setter
    def disabled(self, value: bool) -> None:
        self.box.disabled = self.slider.disabled = value

    def limit(self, low: float, high: float) -> None:
        """Change the range; a value outside is clipped."""
        for part in (self.box, self.slider):
            # Widen first: a minimum above the maximum is refused.
            part.max, part.min = max(high, part.min), low
            part.max = high


def _name_of_slider(name: str) -> W.HTML:
    """Make an invisible widget that gives the slider beside it an accessible name.

    Core ipywidgets cannot name a slider's handle, so a script in the page sets the name. Where a
    front end runs no scripts in widgets, the slider has no name.
    """
    markup = f'<img alt="" src="{PIXEL}" data-name="{html.escape(name)}" onload="{NAMING}">'
    return W.HTML(markup, layout=W.Layout(width="0", height="0", margin="0", overflow="hidden"))


def _alike(option: Any, asked: Any) -> bool:
    if isinstance(option, str) and isinstance(asked, str):
        return option.lower() == asked.lower()
    return option == asked


def choice(name: str, options: Sequence[Any], value: Any = None, width: str = "17em") -> W.Dropdown:
    """Make a labelled dropdown, which can be set to an option regardless of case."""
    made = W.Dropdown(options=options, description=name, style=LABEL, equals=_alike,
                      layout=W.Layout(width=width))  # fmt: skip
    if value is not None:
        made.value = value
    return made


def seed_box(value: int) -> W.BoundedIntText:
    """Make a field for a seed."""
    return W.BoundedIntText(value=value, min=0, max=2**31 - 1, description="Seed", style=LABEL,
                            layout=W.Layout(width="9em"))  # fmt: skip


def button(
    name: str, callback: Callable[[], None], marker: str, hint: str = "", *, primary: bool = False
) -> W.Button:
    """Make a button that calls a function; a primary one stands out."""
    made = W.Button(description=name, tooltip=hint or name, layout=W.Layout(width="auto"))
    if primary:
        # The primary colour of ipywidgets is too pale for white text.
        made.style.button_color, made.style.text_color = "#0b5394", "white"
        made.style.font_weight, made.layout.padding = "bold", "0 1.5em"
    # The second click of a double click arrives after the first has disabled the button.
    made.on_click(lambda _: None if made.disabled else callback())
    made.add_class(marker)
    return made


def group(title: str, *parts: Any) -> W.VBox:
    """Stack controls under a heading, with their labels in one column."""
    for part in parts:
        box = getattr(part, "box", part)
        box.style.description_width = "7.5em"
        box.layout.width = "14.5em" if isinstance(part, Number) else "22em"
        if isinstance(part, Number):
            part.slider.layout.width = "7em"
    heading = W.HTML(f'<div style="font-weight:bold;line-height:1.6">{html.escape(title)}</div>')
    return W.VBox([heading, *parts], layout=W.Layout(width="23em", margin="0 1em 0.3em 0"))


def row(*parts: W.Widget) -> W.HBox:
    """Put controls side by side, wrapping in a narrow window."""
    layout = W.Layout(flex_flow="row wrap", align_items="center", grid_gap="0 0.8em")
    return W.HBox(parts, layout=layout)


def markup() -> W.HTML:
    """Make an HTML area as wide as the widget, with a scroll bar for wider content."""
    return W.HTML(layout=W.Layout(width="100%", margin="0", overflow="auto"))


class StatusLine(W.HTML):
    """A sentence, ``text``, with ``role="status"``; problems are prefixed with "Problem:".

    ``advice`` is a function from the message of an error to what is said after it.
    """

    def __init__(self, text: str = "", advice: Callable[[str], str] = lambda message: ""):
        super().__init__(layout=W.Layout(width="100%", min_height="2.2em", margin="0"))
        self.advice = advice
        self.add_class("bl-status")
        self.say(text)

    def say(self, text: str, *, problem: bool = False) -> None:
        """Show a sentence in place of the last one."""
        self.text, self.is_problem = text, problem
        shown = f"{'<strong>Problem:</strong> ' * problem}{html.escape(text)}"
        self.value = f'<div role="status" aria-live="polite" style="line-height:1.3">{shown}</div>'

    def complain(self, error: BaseException) -> None:
        """Show an error; other errors than InputError and RunError are prefixed by their type."""
        known = isinstance(error, InputError | RunError)
        kind = "" if known else f"{type(error).__name__}: "
        self.say(f"{kind}{error}{self.advice(str(error))}", problem=True)

    @contextlib.contextmanager
    def showing_errors(self) -> Iterator[None]:
        """Show exceptions raised inside, so that the widget stays usable."""
        try:
            yield
        except Exception as error:
            # A widget's callback has no caller to handle it.
            self.complain(error)


class FigurePanel(W.HTML):
    """Displays a figure that is redrawn often, without flicker.

    Its size, ``width`` by ``height`` pixels, is fixed, except that it shrinks with a narrow
    window. Computing a layout would cost as much as drawing: axes and labels are placed by hand,
    with ``margins`` as for ``Figure.subplots_adjust``.
    """

    def __init__(self, width: int, height: int, rows: int = 1, columns: int = 1, **margins: float):
        # A figure outside pyplot is not displayed automatically.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.transforms import ScaledTranslation

        super().__init__(layout=W.Layout(width="100%", max_width=f"{width}px", margin="0"))
        self.figure = Figure((width / DPI, height / DPI), DPI, facecolor="white")
        self._canvas = FigureCanvasAgg(self.figure)
        self.axes: list[Axes] = list(self.figure.subplots(rows, columns, squeeze=False).flat)
        self.figure.subplots_adjust(**margins)
        for one in self.axes:
            for axis, at, shift in ((one.xaxis, (0.5, 0.0), (0.0, -BELOW)),
                                    (one.yaxis, (0.0, 0.5), (-BESIDE, 0.0))):  # fmt: skip
                moved = ScaledTranslation(*shift, self.figure.dpi_scale_trans)
                axis.set_label_coords(*at, transform=one.transAxes + moved)
        self.alt = ""
        self._style = (
            f"width:100%;height:auto;aspect-ratio:{width}/{height};display:block;background:white"
        )
        self._draw_lock = threading.Lock()
        self.add_class("bl-fig")

    def show(self, alt: str) -> None:
        """Draw the figure in its current state, with alternative text."""
        with self._draw_lock:
            self._canvas.draw()
            # Without the alpha channel: a quarter less to compress and send.
            pixels = np.asarray(self._canvas.buffer_rgba())[:, :, :3]
            self.alt = alt
            self.value = image_tag(data_uri(np.ascontiguousarray(pixels)), alt, self._style)


def ready(axes: "Axes") -> "Axes":
    """Clear axes for the next drawing. Ticks, which cost most to draw, are few and reused."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    drawn = (axes.lines, axes.collections, axes.patches, axes.images, axes.texts)
    for artist in [one for several in drawn for one in several]:
        artist.remove()
    if legend := axes.get_legend():
        legend.remove()
    axes.relim()
    axes.autoscale(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_visible(True)  # style.empty() hides it
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(ScalarFormatter())
    return axes


def data_uri(pixels: np.ndarray) -> str:
    """Encode an image uint8 ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3 or 4]`` as a ``data:`` URL.

    Lightly compressed, since speed matters more than size for a local browser.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def image_tag(address: str, alt: str, style: str) -> str:
    """Return an ``img`` element, decoded synchronously, so that it does not flicker on changes."""
    return f'<img alt="{html.escape(alt)}" src="{address}" style="{style}" decoding="sync">'


def table_markup(frame: pd.DataFrame) -> str:
    """Return a frame of text as an HTML table with row names from the index, all escaped."""
    made = frame.to_html(border=0, justify="left")
    made = made.replace("<th>", f'<th style="{HEAD}">').replace("<td>", f'<td style="{CELL}">')
    return made.replace('class="dataframe"', f'style="{TABLE}"')
