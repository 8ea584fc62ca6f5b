"""Four views of training: accuracy, loss, losses of the samples, probabilities."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.plots import style
from budgetlab.widgets.live import Standing
from budgetlab.widgets.panel import PicturePanel, few_ticks, fixed_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

__all__ = ["MOST_CURVES", "BenchPicture", "run_looks"]

MOST_CURVES = 7
BINS = 40


def run_looks(names: Sequence[str]) -> dict[str, style.LineStyle]:
    """How runs are drawn: the colour says the method, with which their names begin."""
    parts = {name: (name.partition(", ")[0], name.partition(", ")[2]) for name in names}
    return style.condition_looks(parts)


class BenchPicture:
    """Curves of several runs over a cost, and the samples of one of them.

    Artists are made once and get new data, which is several times faster than drawing
    a figure afresh.
    """

    def __init__(self, width: int = 1120, height: int = 430):
        figure = fixed_figure(width, height)
        self.panel = PicturePanel(figure)
        self.axes = figure.subplots(2, 2).ravel()
        figure.subplots_adjust(left=0.065, right=0.985, top=0.94, bottom=0.11, wspace=0.16,
                               hspace=0.52)  # fmt: skip
        titles = ("Accuracy on the test set (%)", "Loss while training (nats)",
                  "Losses of the training samples", "Sampling probability")  # fmt: skip
        for axes, title in zip(self.axes, titles, strict=True):
            style.finish(axes, title=title)
            few_ticks(axes)
        self._curves = [
            _Curves(self.axes[0]),
            _Curves(self.axes[1]),
        ]
        self._bars = [
            _Bars(axes, colour)
            for axes, colour in zip(self.axes[2:], (style.COLOURS[0], style.COLOURS[2]),
                                    strict=True)
        ]  # fmt: skip

    def draw(
        self, curves: Mapping[str, pd.DataFrame], cost: str, shown: str, now: Standing | None
    ) -> None:
        """Show runs.

        Parameters
        ----------
        curves
            One row an epoch, by the name of the run; at most :data:`MOST_CURVES`.
        cost
            Column that the curves go over; one of :data:`budgetlab.analysis.AXES`.
        shown
            Name of the run whose samples are shown.
        now
            How that run stands; None before its first step.
        """
        accuracy, loss = self._curves
        accuracy.draw(curves, cost, "test_accuracy", 100.0)
        loss.draw(curves, cost, "train_loss", 1.0)
        said = [
            f"{name}: {100 * known.iloc[-1]:.1f}% after epoch {len(rows)}"
            for name, rows in curves.items()
            if len(rows) and len(known := rows["test_accuracy"].dropna())
        ]
        text = f"Training curves over {style.axis_name(cost)}. " + "; ".join(said or ["none yet"])
        self.panel.show(f"{text}. {self._draw_samples(shown, now)}")

    def _draw_samples(self, shown: str, now: Standing | None) -> str:
        losses, probabilities = self._bars
        if now is None:
            losses.clear("no epoch yet")
            probabilities.clear("no epoch yet")
            return "No samples yet."
        known = now.losses[~np.isnan(now.losses)]
        losses.draw(known, "last known loss (nats)")
        # In the title, which begins at the left: below, a long name would be cut off.
        where = style.literal(f"{shown}, epoch {now.epoch}")
        losses.axes.set_title(f"Losses of the samples: {where}", loc="left", fontsize=11)
        text = f"Samples of {shown} in epoch {now.epoch}: {len(known):,} seen"
        text += f", median loss {np.median(known):.3g}" if len(known) else ""
        q = now.probability
        q = q[~np.isnan(q)] if q is not None else np.empty(0)
        if not len(q):
            probabilities.clear("this method has no probabilities yet")
            return f"{text}; no probabilities."
        if now.kind == "draw":
            q, name, least = q * len(q), "times that of a uniform draw", 1.5
        else:
            name, least = "chance of being kept", 1.0
        probabilities.draw(q, name, least)
        return f"{text}; {name} from {q.min():.3g} to {q.max():.3g}."


class _Curves:
    """One line a run, always as many artists."""

    def __init__(self, axes: "Axes"):
        self.axes = axes
        self.lines = [axes.plot([], [])[0] for _ in range(MOST_CURVES)]
        self.text = _message(axes)

    def draw(
        self, curves: Mapping[str, pd.DataFrame], cost: str, column: str, scale: float
    ) -> None:
        looks = run_looks(list(curves))
        for line in self.lines:
            line.set_data([], [])
        for line, (name, rows) in zip(self.lines, curves.items(), strict=False):
            if len(rows):
                line.set_data(rows[cost].to_numpy(), scale * rows[column].to_numpy())
            look = looks[name]
            line.set(color=look.colour, linestyle=look.line, marker=look.marker, markersize=4)
        drawn = any(len(rows) for rows in curves.values())
        _empty(self.axes, self.text, "" if drawn else "no epoch yet")
        self.axes.relim()
        self.axes.autoscale_view()
        self.axes.set_xlabel(style.axis_name(cost))


def _message(axes: "Axes") -> "Text":
    return axes.text(0.5, 0.5, "", ha="center", va="center", color=style.INK,
                     transform=axes.transAxes)  # fmt: skip


def _empty(axes: "Axes", text: "Text", why: str) -> None:
    """Say why there is nothing in place of axes that would mean nothing, or show them again."""
    text.set_text(why)
    for part in (axes.xaxis, axes.yaxis, axes.spines["left"], axes.spines["bottom"]):
        part.set_visible(not why)


class _Bars:
    """One histogram that gets new counts."""

    def __init__(self, axes: "Axes", colour: str):
        self.axes = axes
        self.stairs = axes.stairs([0, 0], [0, 1, 2], color=colour, fill=True, alpha=0.6)
        self.text = _message(axes)
        axes.set_ylabel("samples", color=style.INK)

    def draw(self, values: np.ndarray, name: str, least: float = 0.0) -> None:
        if not len(values):
            return self.clear("no sample seen yet")
        # A few extreme values would squeeze all others into one bar: they join the last one.
        top = float(np.quantile(values, 0.995)) * 1.02
        top = max(top, least) or 1.0
        counts, edges = np.histogram(np.minimum(values, top), BINS, (0, top))
        self.stairs.set_data(counts, edges, baseline=0)
        self.axes.set_xlim(0, top)
        self.axes.set_ylim(0, counts.max() * 1.05)
        self.axes.set_xlabel(style.literal(name))
        _empty(self.axes, self.text, "")
        return None

    def clear(self, text: str) -> None:
        self.stairs.set_data([0, 0], [0, 1, 2], baseline=0)
        self.axes.set_xlim(0, 2)
        self.axes.set_ylim(0, 1)
        self.axes.set_xlabel("")
        _empty(self.axes, self.text, text)
