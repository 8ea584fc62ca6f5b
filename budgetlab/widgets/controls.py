"""Controls with a name that can be read, and a line that says what is going on."""

import contextlib
import html
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ipywidgets as W

from budgetlab.errors import InputError, RunError

__all__ = ["Number", "StatusLine", "button", "choice", "group", "row"]

LABEL = {"description_width": "initial"}

# One clear pixel; what counts is that the browser tells when it has loaded it.
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
NAMING = """(function name(pixel, tries) {
  const handle = pixel.closest('.bl-number')?.querySelector('[role=slider]');
  if (handle) handle.setAttribute('aria-label', pixel.dataset.name);
  else if (tries) setTimeout(name, 100, pixel, tries - 1);
})(this, 50)"""


class Number(W.HBox):
    """A number to type, with its name, and a slider beside it for the mouse.

    The typed field is the truth: it keeps its range.

    Parameters
    ----------
    name
        Visible name.
    value, low, high, step
        A whole number where all four are.
    marker
        CSS class, so that the control can be found on a page.
    """

    def __init__(
        self, name: str, value: float, low: float, high: float, step: float, marker: str = ""
    ):
        whole = all(isinstance(number, int) for number in (value, low, high, step))
        box, slider = (
            (W.BoundedIntText, W.IntSlider) if whole else (W.BoundedFloatText, W.FloatSlider)
        )
        limits = {"value": value, "min": low, "max": high, "step": step}
        width = f"{6.5 + 0.55 * len(name):.1f}em"
        self.box = box(**limits, description=name, style=LABEL, layout=W.Layout(width=width))
        self.slider = slider(**limits, readout=False, layout=W.Layout(width="8em"))
        self._callbacks: list[Callable[[], None]] = []
        super().__init__(
            [self.box, self.slider, _name_of_slider(name)], layout=W.Layout(margin="0 1em 0 0")
        )
        self.add_class("bl-number")
        self.slider.observe(self._slid, "value")
        self.box.observe(self._typed, "value")
        if marker:
            self.add_class(marker)

    def _slid(self, change: dict) -> None:
        # A slider adds up its steps: 0.10000000000000009 would be another run than 0.1.
        self.box.value = round(change["new"], 9)

    def _typed(self, change: dict) -> None:
        self.slider.value = change["new"]
        for callback in self._callbacks:
            callback()

    @property
    def value(self) -> Any:
        """The number; setting one out of the range gives the nearest end."""
        return self.box.value

    @value.setter
    def value(self, value: float) -> None:
        self.box.value = value

    @property
    def disabled(self) -> bool:
        """Whether it says nothing at the moment."""
        return self.box.disabled

    @disabled.setter
    def disabled(self, value: bool) -> None:
        self.box.disabled = self.slider.disabled = value

    def limit(self, low: float, high: float) -> None:
        """Change the range; a value outside moves to the nearest end."""
        for part in (self.box, self.slider):
            # The wider range first: a minimum above the maximum is refused.
            part.max, part.min = max(high, part.min), low
            part.max = high

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call a function after each change."""
        self._callbacks.append(callback)


def _name_of_slider(name: str) -> W.HTML:
    """Make an invisible widget that gives the slider beside it a name for screen readers.

    Core ipywidgets know no name of a slider's handle, so that the page itself has to write
    it. Where a front end runs no script of a widget, the slider has no name, as any other.
    """
    markup = f'<img alt="" src="{PIXEL}" data-name="{html.escape(name)}" onload="{NAMING}">'
    return W.HTML(markup, layout=W.Layout(width="0", height="0", margin="0", overflow="hidden"))


def choice(
    name: str, options: Sequence[Any], value: Any = None, marker: str = "", width: str = "17em"
) -> W.Dropdown:
    """Make a list to choose from, with a visible name."""
    made = W.Dropdown(options=options, description=name, style=LABEL, layout=W.Layout(width=width))
    if value is not None:
        made.value = value
    if marker:
        made.add_class(marker)
    return made


def button(
    name: str, callback: Callable[[], None], marker: str, hint: str = "", *, primary: bool = False
) -> W.Button:
    """Make a button that calls a function; the primary one of a widget stands out."""
    made = W.Button(description=name, tooltip=hint or name, layout=W.Layout(width="auto"))
    if primary:
        # The colour that ipywidgets has for it is too pale to read white on.
        made.style.button_color, made.style.text_color = "#0b5394", "white"
        made.style.font_weight, made.layout.padding = "bold", "0 1.5em"
    made.on_click(lambda _: callback())
    made.add_class(marker)
    return made


def group(title: str, *parts: Any) -> W.VBox:
    """Put controls under each other, their names in one column, under a heading."""
    for part in parts:
        box = getattr(part, "box", part)
        box.style.description_width = "7.5em"
        box.layout.width = "14.5em" if isinstance(part, Number) else "22em"
        if isinstance(part, Number):
            part.slider.layout.width, part.layout.margin = "7em", "0"
    heading = W.HTML(f'<div style="font-weight:bold;line-height:1.6">{html.escape(title)}</div>')
    return W.VBox([heading, *parts], layout=W.Layout(width="23em", margin="0 1em 0.3em 0"))


def row(*parts: W.Widget) -> W.HBox:
    """Put controls side by side; they wrap in a narrow window."""
    return W.HBox(parts, layout=W.Layout(flex_flow="row wrap", align_items="center"))


class StatusLine(W.HTML):
    """A sentence with ``role="status"``; problems are said to be problems in words.

    Attributes
    ----------
    text
        What it says.
    is_problem
        Whether it tells of something that went wrong.
    """

    def __init__(self, text: str = ""):
        super().__init__(layout=W.Layout(width="100%", min_height="2.2em", margin="0"))
        self.text, self.is_problem = "", False
        self.add_class("bl-status")
        self.say(text)

    def say(self, text: str, *, problem: bool = False) -> None:
        """Show a sentence in place of the last one."""
        self.text, self.is_problem = text, problem
        shown = html.escape(text)
        if problem:
            shown = f"<strong>Problem:</strong> {shown}"
        self.value = f'<div role="status" aria-live="polite" style="line-height:1.3">{shown}</div>'

    def complain(self, error: BaseException) -> None:
        """Say what went wrong: the sentence of an error of ours, the kind of any other."""
        known = isinstance(error, InputError | RunError)
        kind = "" if known else f"{type(error).__name__}: "
        self.say(f"{kind}{error}", problem=True)

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Say what goes wrong inside, so that the widget stays usable."""
        try:
            yield
        except Exception as error:
            # A callback of a widget has no caller that could read it.
            self.complain(error)
