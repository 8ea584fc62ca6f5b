"""Which samples would a method train on next, and how surely? Functions of a history."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from budgetlab import methods, samplers
from budgetlab.budget import samples_per_epoch
from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers import simulated_inclusion
from budgetlab.samplers.candidates import KEPT

__all__ = ["Chances", "chances", "recorded_chances", "supported"]

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
    return [name for name in methods.names() if _can_be_foreseen(name)]


def _can_be_foreseen(name: str) -> bool:
    return samplers.lookup(name).forecast is not samplers.Sampler.forecast


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
    if not _can_be_foreseen(config.method):
        raise InputError(
            f"method '{config.method}' decides by what it sees within the epoch, so that it cannot "
            f"be foreseen: choose one of {', '.join(supported())}, or what was recorded"
        )
    generator = torch.Generator().manual_seed(0)
    context = samplers.SamplerContext(history.size, config, generator, torch.device("cpu"))
    forecast = samplers.build(config.method, context).forecast(history)
    if forecast.inclusion is None:
        return _drawn(forecast.q, forecast.draws, seed)
    return Chances(forecast.q.numpy(), forecast.inclusion.numpy(), forecast.how, True)


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
    method = methods.known(config.method)
    if method is not None and method.family == "passes":
        return chances(History(len(values)), config)
    count = samples_per_epoch(len(values), config.budget)
    read = _drawn(torch.from_numpy(values / values.sum()), count, seed)
    if config.method in supported():
        return read
    how = f"as if {count:,} were drawn ahead, which this method may not do; {read.how}"
    return replace(read, how=how, analytic=False)


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
