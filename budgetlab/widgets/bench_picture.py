"""Four views of training: accuracy, loss, losses of the samples, probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from budgetlab import plots
from budgetlab.analysis import one_epoch
from budgetlab.plots import style
from budgetlab.plots.samples import histogram
from budgetlab.records import Record
from budgetlab.training import Run
from budgetlab.widgets.panel import PicturePanel, fixed_figure, ready

__all__ = ["MOST_CURVES", "BenchPicture", "Standing", "run_looks", "standing_of_record",
           "standing_of_run"]  # fmt: skip

MOST_CURVES = 7
NO_EPOCH = "no epoch yet"


@dataclass(frozen=True)
class Standing:
    """A run at one moment.

    Attributes
    ----------
    epoch
        Epoch that is being trained, or the last one.
    losses
        float ``[N]``: last known loss of each sample, NaN where none is.
    probability
        float ``[N]``: sampling probabilities, NaN where unknown; None without any.
    kind
        ``draw`` or ``keep``; see :attr:`budgetlab.records.Record.probability_kind`.
    rows
        One row a finished epoch, as ``epochs.csv``.
    """

    epoch: int
    losses: np.ndarray
    probability: np.ndarray | None
    kind: str
    rows: pd.DataFrame = field(repr=False)


def standing_of_run(run: Run) -> Standing:
    """Copy what there is to see of a run, between two of its steps."""
    probability = run.loop.sampler.probability
    return Standing(
        epoch=max(run.history.epoch, 1),
        losses=run.history.last_loss.cpu().numpy().copy(),
        probability=None if probability is None else probability.cpu().numpy().copy(),
        kind=run.loop.sampler.probability_kind,
        rows=pd.DataFrame(run.writer.epochs),
    )


def standing_of_record(record: Record) -> Standing | None:
    """Read how a run stood at its last whole epoch; None before the first."""
    if not len(record.epochs):
        return None
    last = one_epoch(record)
    probability = last["probability"].to_numpy()
    return Standing(
        epoch=int(last["epoch"].iloc[0]),
        losses=last["loss"].fillna(last["last_loss"]).to_numpy(),
        probability=None if np.isnan(probability).all() else probability,
        kind=record.probability_kind,
        rows=record.epochs,
    )


def run_looks(names: Sequence[str]) -> dict[str, style.LineStyle]:
    """How runs are drawn: the colour says the method, with which their names begin."""
    return style.condition_looks({name: name.partition(", ")[::2] for name in names})


class BenchPicture:
    """Curves of several runs over a cost, and the samples of one of them."""

    def __init__(self, width: int = 1180, height: int = 430):
        figure = fixed_figure(width, height)
        self.panel = PicturePanel(figure)
        self.axes = figure.subplots(2, 2).ravel()
        figure.subplots_adjust(left=0.06, right=0.985, top=0.94, bottom=0.11, wspace=0.16,
                               hspace=0.52)  # fmt: skip

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
        titles = ("Accuracy on the test set (%)", "Loss while training (nats)")
        said = [
            self._curves(ready(ax), curves, cost, value, title)
            for ax, value, title in zip(
                self.axes, ("test_accuracy", "train_loss"), titles, strict=False
            )
        ]
        self.panel.show(f"{said[0]} {self._samples(shown, now)}")

    def _curves(
        self, ax, curves: Mapping[str, pd.DataFrame], cost: str, value: str, title: str
    ) -> str:
        # Not every epoch is tested; what is known is joined.
        parts = {
            name: rows.dropna(subset=[value]) for name, rows in curves.items() if value in rows
        }
        frames = [
            pd.DataFrame({"method": name.partition(", ")[0], "run": name, "cost": rows[cost],
                          "mean": rows[value], "spread": np.nan, "n": 1})
            for name, rows in parts.items() if len(rows)
        ]  # fmt: skip
        if not frames:
            style.empty(ax, NO_EPOCH, title)
            return f"Training curves over {style.axis_name(cost)}. None yet."
        plots.learning_curves(
            pd.concat(frames), cost=cost, value=value, keys=("method", "run"),
            looks=run_looks(list(curves)), legend=False, ax=ax,
        )  # fmt: skip
        ax.set_title(title, loc="left", fontsize=11, color=style.INK)
        ax.set_ylabel("")
        ends = [f"{name}: {style.fraction(value) * rows[value].iloc[-1]:.1f}% after epoch "
                f"{len(curves[name])}" for name, rows in parts.items() if len(rows)]  # fmt: skip
        return f"Training curves over {style.axis_name(cost)}. {'; '.join(ends)}."

    def _samples(self, shown: str, now: Standing | None) -> str:
        titles = ("Losses of the samples", "Sampling probability")
        losses, chances = (ready(ax) for ax in self.axes[2:])
        if now is None:
            for ax, title in zip((losses, chances), titles, strict=True):
                style.empty(ax, NO_EPOCH, title)
            return "No samples yet."
        known = now.losses[~np.isnan(now.losses)]
        if len(known):
            histogram(known, x="last known loss (nats)", ax=losses)
            # In the title, which begins at the left: below, a long name would be cut off.
            losses.set_title(style.literal(f"{titles[0]}: {shown}, epoch {now.epoch}"), loc="left",
                             fontsize=11, color=style.INK)  # fmt: skip
        else:
            style.empty(losses, "no sample seen yet", titles[0])
        text = f"Samples of {shown} in epoch {now.epoch}: {len(known):,} seen"
        text += f", median loss {np.median(known):.3g}" if len(known) else ""
        q = np.empty(0) if now.probability is None else now.probability
        q = q[~np.isnan(q)]
        if not len(q):
            style.empty(chances, "this method has no probabilities yet", titles[1])
            return f"{text}; no probabilities."
        draws = now.kind == "draw"
        name = "times that of a uniform draw" if draws else "chance of being kept"
        q = q * len(q) if draws else q
        histogram(q, x=name, least=1.5 if draws else 1.0, colour=style.COLOURS[2], ax=chances)
        chances.set_title(titles[1], loc="left", fontsize=11, color=style.INK)
        return f"{text}; {name} from {q.min():.3g} to {q.max():.3g}."
