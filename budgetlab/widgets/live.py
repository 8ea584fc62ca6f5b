"""How a run stands: plain arrays, from the run itself or from its record."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from budgetlab.analysis import one_epoch
from budgetlab.records import Record
from budgetlab.training import Run

__all__ = ["Standing", "ending", "minutes", "standing_of_record", "standing_of_run"]


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


def minutes(seconds: float) -> str:
    """Say a time in words: ``8 s``, ``3 min 20 s``, ``1 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def ending(run: Run | None, *, stopped: bool) -> str:
    """Say how a run has ended, and where its record is."""
    if run is None:
        return "Stopped before the first step: nothing was written."
    epochs = len(run.writer.epochs)
    if stopped:
        return (
            f"Stopped. The record holds {epochs} whole epochs, and Resume goes on from there: "
            f"{run.writer.path}."
        )
    summary = run.summary()
    return (
        f"Finished: test accuracy {100 * summary['test_accuracy']:.1f}% after {epochs} epochs, "
        f"{summary['steps']:,} steps and {minutes(summary['seconds'])} of training. Record: "
        f"{run.writer.path}."
    )
