"""Whom would a method train on next, and how surely? Functions of a history."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from budgetlab import samplers
from budgetlab.budget import samples_per_epoch
from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers import RS2, SGD, ScoreSampler, SelectiveBackprop, simulated_inclusion

__all__ = ["Chances", "chances", "recorded_chances", "supported"]

PAST = 1024
# Simulated draws: so many at least, and in small data, where few are drawn and the sum of
# their chances scatters by 1 / sqrt(drawn) from race to race, as many as take no time.
RACES, ARRIVALS, WORK = 16, 25_000, 500_000


@dataclass(frozen=True)
class Chances:
    """What a method would do in one epoch.

    Attributes
    ----------
    q
        float64 ``[N]``, sums to one: shares of the draw; for a filter method, shares of
        what it is expected to keep.
    inclusion
        float64 ``[N]``, in [0, 1]: chance of being drawn, or kept, in this epoch.
    how
        How the inclusion was found, as a sentence.
    analytic
        Whether it is exact; else it comes from a simulation.
    """

    q: np.ndarray
    inclusion: np.ndarray
    how: str
    analytic: bool


def supported() -> list[str]:
    """Names of the methods whose next epoch can be foreseen from a history.

    Others decide by what they see within the epoch; of those, only what was recorded
    can be shown.
    """
    return [name for name in samplers.names() if _can_be_foreseen(name)]


def _can_be_foreseen(name: str) -> bool:
    try:
        method = _build(name, 1, RunConfig(budget=1.0, batch_size=1))
    except InputError:
        # It needs more than a history, such as data held out.
        return False
    return isinstance(method, ScoreSampler | SGD | RS2 | SelectiveBackprop)


def chances(
    history: History,
    config: RunConfig,
    *,
    seed: int = 0,
) -> Chances:
    """Foresee the next epoch of a method.

    Parameters
    ----------
    history
        What is known as the epoch begins.
    config
        Gives ``method``, ``budget``, ``batch_size`` and the options of the method, such as
        ``smoothing`` or ``sb_beta``.
    seed
        Of the simulated draws; the same one gives the same result.

    Raises
    ------
    InputError
        If the method cannot be foreseen, or a value is out of its range.
    """
    size = history.size
    method = _build(config.method, size, config)
    if isinstance(method, SelectiveBackprop):
        return _kept(method, history)
    if isinstance(method, SGD):
        everybody = np.ones(size)
        how = "every sample comes once in a pass; analytic"
        return Chances(everybody / size, everybody, how, True)
    if isinstance(method, RS2):
        share = method.draws / size
        how = f"parts of one permutation: {method.draws:,} of {size:,}; analytic"
        return Chances(np.full(size, 1 / size), np.full(size, share), how, True)
    if isinstance(method, ScoreSampler):
        return _drawn(method.probabilities(history), method.draws, seed)
    raise InputError(
        f"method '{config.method}' decides by what it sees within the epoch, so that it cannot "
        f"be foreseen: choose one of {', '.join(supported())}, or what was recorded"
    )


def recorded_chances(
    probability: np.ndarray, kind: str, config: RunConfig, *, seed: int = 0
) -> Chances:
    """Read the chances off the probabilities that a run recorded.

    Parameters
    ----------
    probability
        ``[N]``; NaN where none was recorded.
    kind
        ``draw`` or ``keep``, as :attr:`budgetlab.records.Record.probability_kind`.
    config
        Of the run: gives the number of draws.

    Raises
    ------
    InputError
        If nothing was recorded in this epoch.
    """
    known = ~np.isnan(probability)
    if not known.any():
        raise InputError(
            "no probabilities were recorded in this epoch: choose another epoch, or a method"
        )
    values = np.where(known, probability, 0).astype(np.float64)
    if kind == "keep":
        return Chances(values / max(values.sum(), 1e-300), values, KEPT, True)
    if config.method in ("SGD", "RS2"):
        return chances(History(len(values)), config)
    count = samples_per_epoch(len(values), config.budget)
    read = _drawn(torch.from_numpy(values / values.sum()), count, seed)
    if config.method in supported():
        return read
    how = f"as if {count:,} were drawn ahead, which this method may not do; {read.how}"
    return replace(read, how=how, analytic=False)


KEPT = "the chance of being kept is the inclusion probability; analytic"


def _drawn(q: Tensor, count: int, seed: int) -> Chances:
    size = len(q)
    if float(q.max() - q.min()) <= 1e-12:
        how = f"uniform: k / N = {count:,} / {size:,}; analytic"
        return Chances(q.numpy(), np.full(size, count / size), how, True)
    generator = torch.Generator().manual_seed(seed)
    races = max(RACES, min(ARRIVALS // max(count, 1), WORK // size))
    inclusion = simulated_inclusion(q, count, generator, races).numpy()
    how = f"{count:,} of {size:,} without replacement: no closed form, {races} simulated draws"
    return Chances(q.numpy(), inclusion, how, False)


def _kept(method: SelectiveBackprop, history: History) -> Chances:
    """Foresee selective backprop: the last known loss stands for that of the look."""
    losses = history.last_loss
    seen = losses[~losses.isnan()].sort().values
    if not len(seen):
        everybody = np.ones(history.size)
        how = "the first epoch trains on everything; analytic"
        return Chances(everybody / history.size, everybody, how, True)
    places = torch.linspace(0, len(seen) - 1, min(PAST, len(seen))).round().long()
    keep = samplers.keep_probability(losses, seen[places], method.beta).double()
    keep[losses.isnan()] = 1.0
    values = keep.numpy()
    return Chances(values / max(values.sum(), 1e-300), values, KEPT, True)


def _build(name: str, size: int, config: RunConfig) -> samplers.Sampler:
    generator = torch.Generator().manual_seed(0)
    context = samplers.SamplerContext(
        size, config.replace(method=name), generator, torch.device("cpu")
    )
    return samplers.build(name, context)
