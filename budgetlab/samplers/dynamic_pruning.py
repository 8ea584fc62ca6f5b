"""InfoBatch: leave out some of what is well learned, and weight the rest of it up.

Qin et al., *InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning*,
ICLR 2024.
"""

from collections.abc import Iterator

import torch

from budgetlab.budget import steps_per_epoch
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Looker, Sampler, SamplerContext

__all__ = ["InfoBatch", "solve_prune_fraction"]

LAST_PART = 0.875
LARGEST_FRACTION = 0.75


def solve_prune_fraction(budget: float, epochs: int, well_learned: float) -> float:
    """Share ``r`` of the well-learned to leave out so that a budget lasts all epochs.

    In units of full passes, a budget ``b`` of ``E`` epochs is ``b E``. The first epoch is a
    full pass, and the last eighth of the budget is spent on full passes, ``b E / 8`` of
    them. What is left, ``7 b E / 8 - 1``, is spread over the ``E - 1 - b E / 8`` epochs
    between; each of them trains on ``1 - r h``, where ``h`` is the share of samples below
    the mean.

    Parameters
    ----------
    budget, epochs
        Of the run.
    well_learned
        ``h``, in [0, 1].

    Returns
    -------
    float
        In [0, 0.75]. Where the solution is larger, 0.75 (weights of 4): the budget is then
        spent in fewer epochs.
    """
    passes = budget * epochs
    between = epochs - 1 - passes / 8
    if between <= 0 or well_learned <= 0:
        return 0.0
    kept = (LAST_PART * passes - 1) / between
    return min(max((1 - kept) / well_learned, 0.0), LARGEST_FRACTION)


class InfoBatch(Sampler):
    """Leaves out part of the samples with a loss below the mean, weights the others of them up.

    The score is the last loss, and infinite before the first visit. In each epoch, of the
    samples with a score below the mean a random share ``r`` is left out, and each one kept
    is weighted by ``1 / (1 - r)``; all others are trained on with weight 1. So the gradients
    of an epoch sum, in expectation, to those of a full pass. From progress 0.875 on
    everything is trained on, with weight 1.

    ``prune_fraction="auto"`` solves ``r`` from the budget where that is possible, see
    :func:`solve_prune_fraction`.
    """

    STATE = ("prune_fraction",)
    weighting = "own"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        steps_per_epoch(self.size, context.config.budget, self.batch_size)
        self.prune_fraction = 0.0

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield what is kept of one pass, in random order."""
        losses = history.last_loss
        # Nobody who was not seen yet is below; comparisons with NaN are false.
        below = losses < losses.nanmean()
        self.prune_fraction = self._fraction(below.float().mean().item())
        chance = torch.rand(self.size, generator=self.generator, device=self.device)
        self.probability = torch.where(below, 1 - self.prune_fraction, 1.0)
        kept = self.shuffled()
        kept = kept[(chance < self.probability)[kept]]
        if len(kept) < self.batch_size:
            # So little is left of a small set: nothing can be left out of it.
            self.probability, kept = torch.ones_like(chance), self.shuffled()
        weights = 1 / self.probability
        for indices in self.full_batches(kept):
            yield Batch(indices, weights[indices])

    def _fraction(self, well_learned: float) -> float:
        config = self.context.config
        if self.context.spent() >= LAST_PART:
            return 0.0
        if config.prune_fraction == "auto":
            return solve_prune_fraction(config.budget, config.epochs, well_learned)
        return float(config.prune_fraction)
