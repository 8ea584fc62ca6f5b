"""Selective backprop: look at everything, train on the biggest losers.

Jiang et al., *Accelerating Deep Learning by Focusing on the Biggest Losers*, 2019
(arXiv 1910.00762).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from budgetlab.augment import AugmentedBatch
from budgetlab.budget import steps_per_epoch
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Looker, Sampler, SamplerContext
from budgetlab.samplers.registry import sampler

__all__ = ["SelectiveBackprop", "keep_probability"]

HISTORY = 1024
PUBLISHED_BETA = 3.0


def keep_probability(losses: Tensor, past: Tensor, beta: float) -> Tensor:
    """Probability of training on samples with these losses.

    ``P = (share of past losses strictly below) ** beta`` (Jiang et al. 2019, section 3).
    For losses that follow the past ones, ``1 / (beta + 1)`` of them are kept on average.

    Parameters
    ----------
    losses
        float32 ``[B]``.
    past
        float32 ``[H]``; NaN where there is none yet.
    beta
        Selectivity, >= 0; 0 keeps all.
    """
    below = (past[None, :] < losses[:, None]).sum(1)
    return (below / (~past.isnan()).sum().clamp(min=1)) ** beta


@sampler("selective-backprop")
class SelectiveBackprop(Sampler):
    """Looks at every candidate and keeps it with a probability that grows with its loss.

    Candidates come from a shuffled pass, batch by batch. Each batch is looked at (in
    evaluation mode, charged), its losses join the last 1,024, and each sample is kept
    with :func:`keep_probability`. Those kept wait until a full batch of them can be
    trained on, exactly as they were looked at; an incomplete rest is dropped at the end
    of the pass. The first epoch trains on everything without looking.

    ``sb_beta="auto"`` is ``1 / budget - 1``, which keeps the share ``budget``.
    ``sb_staleness=n`` looks only every n-th epoch and uses the old probabilities in
    between.

    With ``fidelity="published"`` the budget is ignored (full run, beta 3), the first
    epoch is looked at too, and the learning rate advances with the candidates.
    """

    STATE = ("past", "probability")
    probability: Tensor
    probability_kind = "keep"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        config = context.config
        self.published = config.fidelity == "published"
        if config.sb_beta != "auto":
            self.beta = float(config.sb_beta)
        else:
            self.beta = PUBLISHED_BETA if self.published else 1 / config.budget - 1
        if self.published:
            self.budget, self.last_epoch = 1.0, config.epochs
        self.steps_of_pass = steps_per_epoch(self.size, 1.0, self.batch_size)
        self.past = torch.full((HISTORY,), torch.nan, device=self.device)
        self.probability = torch.full((self.size,), torch.nan, device=self.device)
        self._candidate_batches = 0

    def progress(self, spent: float) -> float:
        """Share of the schedule; in the published code, of the candidates."""
        if not self.published:
            return spent
        last = self.context.config.epochs * self.steps_of_pass - 1
        return min(self._candidate_batches / max(last, 1), 1.0)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield what is kept of one pass over the candidates."""
        if epoch == 1 and not self.published:
            for indices in self.full_batches(self.shuffled()):
                yield Batch(indices)
            return
        self._candidate_batches = (epoch - 1) * self.steps_of_pass
        first_scored = 1 if self.published else 2
        looking = (epoch - first_scored) % self.context.config.sb_staleness == 0
        queue = _Queue(self.batch_size)
        for candidates in self.shuffled().split(self.batch_size):
            self._candidate_batches += 1
            augmented = self._score(candidates, look) if looking else None
            keep = self.probability[candidates].nan_to_num(nan=1.0)
            if epoch == 1:
                keep = torch.ones_like(keep)
            chance = torch.rand(len(keep), generator=self.generator, device=self.device)
            # The only wait for the device: one number a batch of candidates.
            kept = (chance < keep).nonzero()[:, 0]
            queue.add(candidates[kept], None if augmented is None else augmented.rows(kept))
            yield from queue.full_batches()

    def _score(self, candidates: Tensor, look: Looker) -> AugmentedBatch:
        seen = look(candidates)
        self.past = torch.cat([self.past, seen.losses])[-HISTORY:]
        self.probability[candidates] = keep_probability(seen.losses, self.past, self.beta)
        return seen.augmented


class _Queue:
    """Samples that were kept, until there are enough for a batch."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.indices: list[Tensor] = []
        self.augmented: list[AugmentedBatch] = []
        self.length = 0

    def add(self, indices: Tensor, augmented: AugmentedBatch | None) -> None:
        """Put samples, and what was looked at of them, at the end."""
        self.indices.append(indices)
        if augmented is not None:
            self.augmented.append(augmented)
        self.length += len(indices)

    def full_batches(self) -> Iterator[Batch]:
        """Take off as many full batches as there are."""
        while self.length >= self.batch_size:
            indices = torch.cat(self.indices)
            joined = AugmentedBatch.join(self.augmented) if self.augmented else None
            now, later = slice(self.batch_size), slice(self.batch_size, None)
            self.indices, self.length = [indices[later]], self.length - self.batch_size
            if joined is not None:
                self.augmented = [joined.rows(later)]
            yield Batch(indices[now], augmented=None if joined is None else joined.rows(now))
