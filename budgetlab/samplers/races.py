"""Weighted draws without replacement, on the device."""

import torch
from torch import Tensor

from budgetlab.errors import InputError

__all__ = ["draw_without_replacement"]

# Weights below this count as zero: such a sample comes last, never first.
SMALLEST_WEIGHT = 1e-290


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
    # float64: with float32, ties among ten million keys would favour low indices.
    keys = torch.empty(size, dtype=torch.float64, device=weights.device)
    keys.exponential_(generator=generator).div_(weights.double().clamp(min=SMALLEST_WEIGHT))
    drawn = keys.topk(count, largest=False, sorted=False).indices
    # topk leaves the likely ones in front; a batch must be a random part of the draw.
    return drawn[torch.randperm(count, generator=generator, device=weights.device)]
