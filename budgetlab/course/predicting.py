"""Predictions that a reader locks in before a result is shown.

In a notebook::

    guess = bl.course.predict("Which loses more?", ["the subset", "the redrawn part"])
    guess

and in a later cell::

    guess.reveal(ax, answer="the subset")

With a running kernel, the prediction must be locked before the result is shown and cannot be
changed afterwards, even by rerunning cells or restarting the kernel: it is stored in
``predictions.json`` beside the notebook. Without one, as on a web page, both are static.
"""

import base64
import contextlib
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from budgetlab.errors import InputError, known

PREDICTIONS_FILE = Path("predictions.json")

_locked: dict[str, str] = {}


class Prediction:
    """A question with two or more choices, one of which can be locked, once.

    The locked choice is stored under the text of the question.
    """

    def __init__(self, question: str, choices: Sequence[str]):
        if len(choices) < 2 or len(set(choices)) < len(choices):
            raise InputError(f"choices {list(choices)} are not enough: give two different ones")
        import ipywidgets as W

        self.question, self.choices = question, list(choices)
        self._waiting: list[tuple[Any, str]] = []
        # A missing or malformed file counts as holding no predictions.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            _locked.update(json.loads(PREDICTIONS_FILE.read_text(encoding="utf-8")).items())
        self.radio = W.RadioButtons(options=self.choices, value=self.locked,
                                    layout={"width": "auto"})  # fmt: skip
        self.button = W.Button(description="Lock my prediction", button_style="primary",
                               disabled=True, layout={"width": "auto"})  # fmt: skip
        self.status = W.HTML()
        self.radio.observe(lambda _: self._update(), "value")
        self.button.on_click(lambda _: self.lock())
        title = W.HTML(f"<b>Predict.</b> {html.escape(question)}")
        row = W.HBox([self.button, self.status])
        self.widget = W.VBox([title, self.radio, row]).add_class("bl-predict")
        self._update()

    @property
    def locked(self) -> str | None:
        """The locked choice, or None."""
        kept = _locked.get(self.question)
        return kept if kept in self.choices else None

    def lock(self, choice: str | None = None) -> None:
        """Lock one of the choices, by default the selected one; only the first call counts."""
        choice = known("choice", self.radio.value if choice is None else choice, self.choices)
        if self.locked is None:
            _locked[self.question] = choice
            with contextlib.suppress(OSError):  # a folder that cannot be written to
                PREDICTIONS_FILE.write_text(json.dumps(_locked, indent=1), encoding="utf-8")
        self.radio.value = self.locked
        self._update()
        for place, result in self._waiting:
            place.value = self._verdict() + result
        self._waiting.clear()

    def reveal(self, result: Any, answer: str, alt: str = "") -> "HiddenResult":
        """Show a result; with a running kernel, only once a choice is locked.

        Raises InputError if the answer is not one of the choices.

        - ``result``: a sentence, a frame, or a matplotlib figure or axes.
        - ``answer``: the choice that turned out to be right.
        - ``alt``: alternative text of a figure; by default that of
          :func:`budgetlab.plots.alt_text`.
        """
        import ipywidgets as W

        self.answer = known("answer", answer, self.choices)
        static, shown = _render(result, alt)
        place = W.HTML().add_class("bl-reveal")
        if self.locked is None:
            place.value = "<i>The result shows here once your prediction is locked.</i>"
            self._waiting.append((place, shown))
        else:
            place.value = self._verdict() + shown
        return HiddenResult(place, static)

    def _verdict(self) -> str:
        right = self.locked == self.answer
        said = "as you predicted" if right else f"you predicted: {self.locked}"
        return f"<p><b>{html.escape(self.answer)}</b> ({html.escape(said)})</p>"

    def _update(self) -> None:
        done = self.locked is not None
        self.radio.disabled = done
        self.button.disabled = done or self.radio.value is None
        self.status.value = '<span role="status">Locked.</span>' if done else ""

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        choices = "".join(f"<li>{html.escape(choice)}</li>" for choice in self.choices)
        text = f"<p><b>Predict.</b> {html.escape(self.question)}</p><ul>{choices}</ul>"
        return (self.widget._repr_mimebundle_() or {}) | {
            "text/html": text,
            "text/plain": self.question,
        }


predict = Prediction


class HiddenResult:
    """A result hidden until a prediction is locked; without a kernel, the result alone."""

    def __init__(self, widget: Any, static: dict[str, str]):
        self.widget, self.static = widget, static

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return (self.widget._repr_mimebundle_() or {}) | self.static


def _render(result: Any, alt: str) -> tuple[dict[str, str], str]:
    """Render a result as a MIME bundle for the notebook, and as HTML for the widget."""
    if isinstance(result, str):
        text = f"<p>{html.escape(result)}</p>"
        return {"text/html": text, "text/plain": result}, text
    if hasattr(result, "to_html"):
        table = result.to_html()
        return {"text/html": table, "text/plain": str(result)}, table
    import matplotlib.pyplot as plt

    from budgetlab.plots import alt_text

    figure = getattr(result, "figure", result)
    alt = alt or alt_text(result)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", bbox_inches="tight")
    plt.close(figure)
    picture = base64.b64encode(stream.getvalue()).decode()
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
    return {"image/png": picture, "text/plain": alt}, image
