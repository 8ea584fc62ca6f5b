"""Four views of training: accuracy, loss, losses of the samples, probabilities."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from budgetlab.plots import style
from budgetlab.widgets.live import Standing
from budgetlab.widgets.panel import PicturePanel, few_ticks, fixed_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST_CURVES", "BenchPicture"]

MOST_CURVES = 7
BINS = 40


class BenchPicture:
    """Curves of several runs over a cost, and the samples of one of them.

    Artists are made once and get new data, which is several times faster than drawing
    a figure afresh.
    """

    def __init__(self, width: int = 900, height: int = 560):
        figure = fixed_figure(width, height)
        self.panel = PicturePanel(figure)
        self.axes = figure.subplots(2, 2).ravel()
        figure.subplots_adjust(left=0.08, right=0.97, top=0.95, bottom=0.09, wspace=0.22,
                               hspace=0.38)  # fmt: skip
        titles = ("Accuracy on the test set (%)", "Loss while training (nats)",
                  "Losses of the training samples", "Sampling probability")  # fmt: skip
        for axes, title in zip(self.axes, titles, strict=True):
            style.finish(axes, title=title)
            few_ticks(axes)
        self._curves = [
            _Curves(self.axes[0], "lower right"),
            _Curves(self.axes[1], "upper right"),
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
        losses.draw(known, f"last known loss (nats), {shown}, epoch {now.epoch}")
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

    def __init__(self, axes: "Axes", legend_at: Literal["lower right", "upper right"]):
        self.axes, self.legend_at = axes, legend_at
        self.lines = [axes.plot([], [])[0] for _ in range(MOST_CURVES)]
        self.names: list[str] = []

    def draw(
        self, curves: Mapping[str, pd.DataFrame], cost: str, column: str, scale: float
    ) -> None:
        looks = style.looks(list(curves))
        for line in self.lines:
            line.set_data([], [])
        for line, (name, rows) in zip(self.lines, curves.items(), strict=False):
            if len(rows):
                line.set_data(rows[cost].to_numpy(), scale * rows[column].to_numpy())
            look = looks[name]
            line.set(color=look.colour, linestyle=look.line, marker=look.marker, markersize=4)
            line.set_label(style.literal(name))
        self.axes.relim()
        self.axes.autoscale_view()
        self.axes.set_xlabel(style.axis_name(cost))
        if self.names != list(curves):
            self._name(list(curves))

    def _name(self, names: list[str]) -> None:
        """Write a new legend; only where the runs changed, for it costs as much as a plot."""
        self.names = names
        if self.axes.get_legend() is not None:
            self.axes.get_legend().remove()  # type: ignore[union-attr]
        if names:
            self.axes.legend(handles=self.lines[: len(names)], loc=self.legend_at, fontsize=8,
                             framealpha=0.8, edgecolor="none", labelcolor=style.INK)  # fmt: skip


class _Bars:
    """One histogram that gets new counts."""

    def __init__(self, axes: "Axes", colour: str):
        self.axes = axes
        self.stairs = axes.stairs([0, 0], [0, 1, 2], color=colour, fill=True, alpha=0.6)
        self.text = axes.text(0.5, 0.5, "", ha="center", va="center", color=style.INK,
                              transform=axes.transAxes)  # fmt: skip
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
        self.text.set_text("")
        return None

    def clear(self, text: str) -> None:
        self.stairs.set_data([0, 0], [0, 1, 2], baseline=0)
        self.axes.set_xlim(0, 2)
        self.axes.set_ylim(0, 1)
        self.axes.set_xlabel("")
        self.text.set_text(text)
