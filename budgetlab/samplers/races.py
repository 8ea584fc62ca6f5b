"""Weighted draws without replacement, on the device."""

import numpy as np
import torch
from torch import Tensor

from budgetlab.errors import InputError

__all__ = ["draw_without_replacement"]

# Weights below this count as zero: such a sample comes last, never first.
SMALLEST_WEIGHT = 1e-290
# From this size on a CPU sorts out who cannot win before it computes arrival times.
LARGE = 20_000
PART = 32_768
# Beyond this share nearly all arrive, and nothing is gained by sorting out.
LARGEST_SHARE = 0.9


def draw_without_replacement(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw different indices, each time in proportion to the weights that are left.

    An exponential race: every index runs for a time ``e_i / w_i`` with ``e_i``
    standard exponential, and the first ``count`` to arrive are drawn (Efraimidis &
    Spirakis, *Weighted random sampling with a reservoir*, 2006). The set has the
    same distribution as drawing one by one; time and memory are linear in ``N``.

    Parameters
    ----------
    weights
        ``[N]``, finite and >= 0; they need not sum to one. Indices of weight zero
        are drawn only when all others are.
    count
        How many to draw, at most ``N``.
    generator
        On the device of ``weights``.

    Returns
    -------
    Tensor
        int64 ``[count]``, in random order.

    Raises
    ------
    InputError
        If ``count`` is larger than ``N``.
    """
    size = len(weights)
    if not 0 <= count <= size:
        raise InputError(f"{count:,} of {size:,} samples cannot be drawn: draw at most {size:,}")
    if weights.device.type == "cpu" and size >= LARGE and count <= LARGEST_SHARE * size:
        uniform = torch.rand(size, dtype=torch.float64, generator=generator)
        positive = weights.double()
        if positive.min() < SMALLEST_WEIGHT:  # a copy only if needed: fresh memory is slow
            positive = positive.clamp(min=SMALLEST_WEIGHT)
        drawn = torch.from_numpy(first_to_arrive(positive.numpy(), count, uniform.numpy()))
    else:
        # float64: with float32, ties among ten million keys would favour low indices.
        keys = torch.empty(size, dtype=torch.float64, device=weights.device)
        keys.exponential_(generator=generator).div_(weights.double().clamp(min=SMALLEST_WEIGHT))
        drawn = keys.topk(count, largest=False, sorted=False).indices
    # The likely ones may stand in front; a batch must be a random part of the draw.
    order = torch.randperm(count, generator=generator, device=weights.device)
    return drawn.index_select(0, order)


def first_to_arrive(weights: np.ndarray, count: int, uniform: np.ndarray) -> np.ndarray:
    """Return who arrives first in a race, looking closely only at those who may.

    Index ``i`` arrives at ``t_i = -ln(1 - u_i) / w_i``, before a time ``T`` exactly if
    ``u_i < 1 - exp(-w_i T)``, which needs no logarithm. ``T`` is guessed such that a few
    more than ``count`` arrive before it. Where too few do, all times are computed: the
    guess decides how long the answer takes, never what it is.

    Parameters
    ----------
    weights
        float64 ``[N]``, positive.
    count
        How many, 0 to N.
    uniform
        float64 ``[N]`` in [0, 1): the random numbers ``u``.

    Returns
    -------
    ndarray
        int64 ``[count]``: the indices of the ``count`` smallest ``t_i``, ascending.
    """
    deadline = _guess_deadline(weights, count)
    candidates, times = _in_time(weights, deadline, uniform)
    if len(candidates) >= count:
        places, latest = _smallest(times, count, deadline)
        if latest <= deadline:
            return candidates[places]
    return _smallest(_arrival_times(weights, uniform), count)[0]


def _arrival_times(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    # In one array: asking the system for fresh memory takes as long as the logarithms.
    times = -uniform
    np.log1p(times, out=times)
    times /= weights
    return np.negative(times, out=times)


def _in_time(
    weights: np.ndarray, deadline: float, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all who arrive before a deadline, and of a few who just do not; and when."""
    found, times = [], []
    # Part by part, so that what is computed on the way stays in the cache.
    room = np.empty(min(PART, len(weights)), np.float32)
    for start in range(0, len(weights), PART):
        here, drawn = weights[start : start + PART], uniform[start : start + PART]
        with np.errstate(over="ignore"):  # to infinity, which is in time for certain
            chance = np.multiply(here, -deadline, out=room[: len(here)], casting="same_kind")
        np.expm1(chance, out=chance)
        # A little too high, so that rounding to float32 leaves out nobody who is in time.
        np.multiply(chance, np.float32(-1 - 1e-5), out=chance)
        places = np.flatnonzero(drawn < chance)
        times.append(_arrival_times(here[places], drawn[places]))
        found.append(places + start)
    return np.concatenate(found), np.concatenate(times)


def _smallest(times: np.ndarray, count: int, deadline: float = 0.0) -> tuple[np.ndarray, float]:
    """Places of the ``count`` smallest times, ascending, and the largest of these times.

    Of equal times the first count.

    Quick where most of them lie well before the deadline, for only the rest is sorted.
    """
    if count >= len(times) or count == 0:
        return np.arange(count), float(times[:count].max(initial=0.0))
    late = times[times > 0.9 * deadline]
    missing = count - (len(times) - len(late))
    if missing < 1:
        late, missing = times, count
    last = np.partition(late, missing - 1)[missing - 1]
    places = np.flatnonzero(times <= last)
    if len(places) > count:
        ties = np.flatnonzero(times[places] == last)
        places = np.delete(places, ties[len(ties) - (len(places) - count) :])
    return places, float(last)


def _guess_deadline(weights: np.ndarray, count: int, looked_at: int = 4096) -> float:
    """Guess a time by which ``count`` arrive, and hardly more; from a part of the weights."""
    size = len(weights)
    part = weights[:: max(1, size // looked_at)]

    def time_of(expected: float) -> float:
        # Newton's method from zero stays below the solution, for the sum is concave.
        time = 0.0
        for _ in range(30):
            late = np.exp(-part * time)
            missing = expected * len(part) / size - (1 - late).sum()
            if missing <= 1e-4 * len(part) * expected / size:
                break
            time += missing / max((part * late).sum(), 1e-300)
        return time

    with np.errstate(over="ignore", invalid="ignore"):
        chance = -np.expm1(-part * time_of(count))
        # Few of those in time are random, and so is what the part says of the whole.
        deviation = np.sqrt(size * (chance * (1 - chance)).mean())
        unsure = size * chance.std() / np.sqrt(len(part)) if len(part) < size else 0.0
        deadline = time_of(min(count + 5 * deviation + 3 * unsure + 1, 0.99 * size))
    return float(deadline) if np.isfinite(deadline) else 0.0
