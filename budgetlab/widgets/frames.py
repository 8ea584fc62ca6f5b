"""One epoch of a training on points: surface, probabilities, who was picked."""

from dataclasses import dataclass

import numpy as np
import torch

from budgetlab.data import Dataset
from budgetlab.errors import InputError
from budgetlab.plots.points import extent_of
from budgetlab.training import Run

__all__ = ["Frame", "frame_of", "grid_of"]

GRID = 60


@dataclass(frozen=True)
class Frame:
    """What there is to see of a run after one of its epochs.

    Attributes
    ----------
    winner
        uint8 ``[60, 60]``: class that the network predicts at each place of the grid;
        the first row has the lowest second feature.
    sure
        float32 ``[60, 60]``: its probability.
    chance
        float64 ``[N]``: of a draw, times that of a uniform one; of a filter method, the
        chance of being kept. NaN where there is none.
    picked, trained
        int ``[N]``: times in a batch, in this epoch and so far.
    accuracy
        On the test set, 0 to 1.
    steps
        Optimiser steps so far.
    """

    winner: np.ndarray
    sure: np.ndarray
    chance: np.ndarray
    picked: np.ndarray
    trained: np.ndarray
    accuracy: float
    steps: int


def grid_of(samples: Dataset) -> tuple[torch.Tensor, tuple[float, float, float, float]]:
    """Lay a grid over points.

    Returns
    -------
    grid, extent
        float32 ``[3600, 2]``, row by row from the lowest second feature; left, right,
        bottom and top.

    Raises
    ------
    InputError
        If the samples are not points.
    """
    if samples.x.ndim != 2 or samples.x.shape[1] != 2:
        raise InputError("this data set holds no points: choose points:moons or another of points")
    left, right, bottom, top = extent_of(samples.x.cpu().numpy())
    steps = (torch.arange(GRID) + 0.5) / GRID
    across, up = left + steps * (right - left), bottom + steps * (top - bottom)
    grid = torch.stack([across.repeat(GRID), up.repeat_interleave(GRID)], 1)
    return grid, (left, right, bottom, top)


def frame_of(run: Run, grid: torch.Tensor) -> Frame:
    """Take a picture of a run on points between two epochs; the run stays as it is."""
    engine, sampler, history = run.loop.engine, run.loop.sampler, run.history
    engine.network.eval()  # every step sets it to training again
    with torch.no_grad():
        best = engine.logits(grid.to(engine.device)).softmax(1).max(1)
    chance = np.full(history.size, np.nan)
    if sampler.probability is not None:
        factor = history.size if sampler.probability_kind == "draw" else 1
        chance = factor * sampler.probability.double().cpu().numpy()
    last = run.writer.epochs[-1]
    return Frame(
        winner=best.indices.reshape(GRID, GRID).byte().cpu().numpy(),
        sure=best.values.reshape(GRID, GRID).cpu().numpy(),
        chance=chance,
        picked=history.times_trained_this_epoch.cpu().numpy().copy(),
        trained=history.times_trained.cpu().numpy().copy(),
        accuracy=float(last["test_accuracy"]),
        steps=int(last["steps"]),
    )
