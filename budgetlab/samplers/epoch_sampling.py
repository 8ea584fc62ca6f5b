"""Methods that draw the samples of an epoch before it starts.

Definitions: Arazo et al., *How Important is Importance Sampling for Deep Budgeted
Training?*, BMVC 2021.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from budgetlab.budget import steps_per_epoch
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Looker, Sampler, SamplerContext
from budgetlab.samplers.registry import sampler
from budgetlab.samplers.scores import ScoreSampler, replace_unseen

__all__ = ["RS2", "SGD", "ConfidenceSGD", "LossSGD", "ProbabilitySGD", "UniformSGD"]


@sampler("SGD")
class SGD(Sampler):
    """Short schedule: full passes over the shuffled set until the budget is spent.

    The published code spends the full run whatever the budget, while its learning rate
    counts ``int(N b / B)`` iterations an epoch: within an epoch the rate runs ahead, and
    it jumps back at the start of the next. With ``fidelity="published"`` so does this.
    """

    weighting = "own"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        self.steps_of_pass = steps_per_epoch(self.size, 1.0, self.batch_size)
        self.published = context.config.fidelity == "published"
        if self.published:
            self.budget = 1.0
        self._epoch, self._step = 1, 0

    def progress(self, spent: float) -> float:
        """Share of the schedule; in the published code it saw-tooths."""
        if not self.published:
            return spent
        config = self.context.config
        counted = int(self.size * config.budget / self.batch_size)
        ahead = (self._epoch - 1) * counted + self._step
        if self._step == 0 and self._epoch > 1:
            # The rate of an epoch's first step was set after the last one of the epoch before.
            ahead = (self._epoch - 2) * counted + self.steps_of_pass
        return min(ahead / max(config.epochs * counted - 1, 1), 1.0)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield one full pass."""
        self.probability = torch.full((self.size,), 1 / self.size, device=self.device)
        self._epoch = epoch
        for step, indices in enumerate(self.full_batches(self.shuffled())):
            self._step = step
            yield Batch(indices)


@sampler("unif-SGD")
class UniformSGD(ScoreSampler):
    """A new uniform draw of the budget every epoch."""

    def score(self, history: History) -> Tensor:
        """Score everybody 1."""
        return torch.ones(self.size, device=self.device)


@sampler("p-SGD")
class ProbabilitySGD(ScoreSampler):
    """More of what the network gets wrong: score is the mean of 1 - p_y."""

    def score(self, history: History) -> Tensor:
        """Score ``m_i``, the lifetime mean of ``1 - p_y`` or its last value."""
        return error_of(self.context.config.averaging, history)


@sampler("c-SGD")
class ConfidenceSGD(ScoreSampler):
    """More of what the network is unsure of: score is m (1 - m), m the mean of 1 - p_y.

    The published code gives samples never seen the highest ``m`` before it takes
    ``m (1 - m)``, which starves them when that ``m`` is near one. With
    ``fidelity="published"`` so does this.
    """

    def score(self, history: History) -> Tensor:
        """Score ``m_i (1 - m_i)``."""
        error = error_of(self.context.config.averaging, history)
        if self.context.config.fidelity == "published":
            error = replace_unseen(error, history.seen)
        return error * (1 - error)

    def probabilities(self, history: History) -> Tensor:
        """Return ``q``; under the published rule the unseen keep their own score."""
        if self.context.config.fidelity == "published":
            return self.smooth(self.score(history))
        return super().probabilities(history)


@sampler("loss")
class LossSGD(ScoreSampler):
    """More of what costs most: score is the loss at the last visit.

    Importance sampling by the loss, as in Katharopoulos & Fleuret (2018), section 4: with
    ``weights="unbiased"`` the expected gradient is that of uniform draws, without them the
    objective itself leans towards high losses.
    """

    def score(self, history: History) -> Tensor:
        """Score the cross-entropy of the last visit, in nats."""
        return history.last_loss


@sampler("rs2")
class RS2(Sampler):
    """Consecutive parts of one permutation, so that all are seen equally often.

    Repeated sampling of random subsets without replacement (Okanovic et al., ICLR
    2024): a new permutation is drawn when the last one is used up.
    """

    STATE = ("left",)
    weighting = "own"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        budget = context.config.budget
        self.draws = steps_per_epoch(self.size, budget, self.batch_size) * self.batch_size
        self.left = torch.empty(0, dtype=torch.int64, device=self.device)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the next part of the permutation."""
        self.probability = torch.full((self.size,), 1 / self.size, device=self.device)
        while len(self.left) < self.draws:
            self.left = torch.cat([self.left, self.shuffled()])
        drawn, self.left = self.left[: self.draws], self.left[self.draws :]
        for indices in self.full_batches(drawn):
            yield Batch(indices)


def error_of(averaging: str, history: History) -> Tensor:
    """Return ``1 - p_y`` of each sample ``[N]``: its lifetime mean, or its last value."""
    return history.error if averaging == "lifetime" else 1 - history.last_p_y
