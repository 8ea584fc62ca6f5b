"""Curriculum: easy samples first. The opposite pole of training on what is hard."""

from collections.abc import Iterator

import torch
from torch import Tensor

from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Looker, Sampler, SamplerContext
from budgetlab.samplers.registry import sampler
from budgetlab.samplers.weighted_sampling import draw_without_replacement

__all__ = ["Curriculum"]


@sampler("curriculum")
class Curriculum(Sampler):
    """Easy to hard: draws uniformly from the easiest part of the data, which grows.

    Easy is a low mean of ``1 - p_y``, from the run itself: a self-paced curriculum (Bengio
    et al., *Curriculum Learning*, ICML 2009; Kumar et al., *Self-Paced Learning*, NeurIPS
    2010) with a linear pacing function (Hacohen & Weinshall, ICML 2019). At progress ``p``
    the part is ``b + (1 - b) p`` of the samples, so that it begins with those that one
    epoch takes and ends with all. The first epoch is uniform; later, a sample never seen
    stands in the middle, and among equals the choice is random.
    """

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        budget = context.config.budget
        self.draws = samples_per_epoch(self.size, budget)
        steps_per_epoch(self.size, budget, self.batch_size)

    def easiest(self, history: History) -> Tensor:
        """Return the samples to draw from, int64 ``[M]``."""
        budget, error = self.context.config.budget, history.error
        if not bool(history.seen.any()):
            return torch.arange(self.size, device=self.device)
        share = budget + (1 - budget) * self.context.spent()
        count = max(samples_per_epoch(self.size, share), self.draws)
        error = torch.where(history.seen, error, error.nanmedian())
        shuffled = self.shuffled()
        return shuffled[error[shuffled].argsort(stable=True)[:count]]

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Draw from the easiest, then yield the draw batch by batch."""
        easiest = self.easiest(history)
        self.probability = torch.zeros(self.size, device=self.device)
        self.probability[easiest] = 1 / len(easiest)
        drawn = draw_without_replacement(self.probability, self.draws, self.generator)
        for indices in self.full_batches(drawn):
            yield Batch(indices)
