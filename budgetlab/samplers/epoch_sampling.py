"""Methods that draw the samples of an epoch before it starts.

Definitions: Arazo et al., *How Important is Importance Sampling for Deep Budgeted
Training?*, BMVC 2021.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Forecast, Looker, Sampler, SamplerContext
from budgetlab.samplers.scores import ScoreSampler, replace_unseen
from budgetlab.samplers.weighted_sampling import draw_without_replacement

__all__ = [
    "RS2", "SGD", "ConfidenceSGD", "Curriculum", "LossSGD", "ProbabilitySGD", "UniformSGD",
]  # fmt: skip


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
        self.epoch_steps = self.steps_of_pass
        self.published = context.config.fidelity == "published"
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

    def forecast(self, history: History) -> Forecast:
        """Every sample, once."""
        every = torch.ones(self.size, dtype=torch.float64, device=self.device)
        how = "every sample comes once in a pass; analytic"
        return Forecast(every / self.size, how, every)


class UniformSGD(ScoreSampler):
    """A new uniform draw of the budget every epoch."""

    def score(self, history: History) -> Tensor:
        """Score every sample 1."""
        return torch.ones(self.size, device=self.device)


class ProbabilitySGD(ScoreSampler):
    """More of what the network gets wrong: score is the mean of 1 - p_y."""

    def score(self, history: History) -> Tensor:
        """Score ``m_i``, the lifetime mean of ``1 - p_y`` or its last value."""
        return error_of(self.context.config.averaging, history)


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


class LossSGD(ScoreSampler):
    """More of what costs most: score is the loss at the last visit.

    Importance sampling by the loss, as in Katharopoulos & Fleuret (2018), section 4: with
    ``weights="unbiased"`` the expected gradient is that of uniform draws, without them the
    objective itself leans towards high losses.
    """

    def score(self, history: History) -> Tensor:
        """Score the cross-entropy of the last visit, in nats."""
        return history.last_loss


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
        self.epoch_steps = steps_per_epoch(self.size, budget, self.batch_size)
        self.draws = self.epoch_steps * self.batch_size
        self.left = torch.empty(0, dtype=torch.int64, device=self.device)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the next part of the permutation."""
        self.probability = torch.full((self.size,), 1 / self.size, device=self.device)
        while len(self.left) < self.draws:
            self.left = torch.cat([self.left, self.shuffled()])
        drawn, self.left = self.left[: self.draws], self.left[self.draws :]
        for indices in self.full_batches(drawn):
            yield Batch(indices)

    def forecast(self, history: History) -> Forecast:
        """The same chance for all."""
        every = torch.ones(self.size, dtype=torch.float64, device=self.device)
        how = f"parts of one permutation: {self.draws:,} of {self.size:,}; analytic"
        return Forecast(every / self.size, how, every * self.draws / self.size)


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
        self.epoch_steps = steps_per_epoch(self.size, budget, self.batch_size)

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


def error_of(averaging: str, history: History) -> Tensor:
    """Return ``1 - p_y`` of each sample ``[N]``: its lifetime mean, or its last value."""
    return history.error if averaging == "lifetime" else 1 - history.last_p_y
