"""One line that says what is going on, also to a screen reader."""

import contextlib
import html
from collections.abc import Iterator

import ipywidgets as W

from budgetlab.errors import InputError, RunError

__all__ = ["StatusLine"]


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
