"""Methods that draw the samples of an epoch before it starts.

Definitions: Arazo et al., *How Important is Importance Sampling for Deep Budgeted
Training?*, BMVC 2021.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Looker, Sampler, Setup, sampler
from budgetlab.samplers.races import draw_without_replacement

__all__ = ["RS2", "SGD", "ConfidenceSGD", "ProbabilitySGD", "ScoreSampler", "UniformSGD",
           "replace_unseen", "smooth"]  # fmt: skip


def smooth(scores: Tensor) -> Tensor:
    """Turn scores into sampling probabilities that leave nobody out.

    ``q_i = (s_i + mean(s)) / sum_j (s_j + mean(s))``, so ``q_i >= 1 / (2 N)``.

    Parameters
    ----------
    scores
        ``[N]``, >= 0. All zero gives the uniform distribution.

    Returns
    -------
    Tensor
        ``[N]``, float64, sums to one.
    """
    scores = scores.double()
    # Sums of huge scores must not overflow; only their proportions count.
    scores = scores / scores.max().clamp(min=torch.finfo(torch.float64).tiny)
    raised = scores + scores.mean()
    total = raised.sum()
    return torch.where(total > 0, raised / total, 1 / len(scores))


def replace_unseen(scores: Tensor, seen: Tensor) -> Tensor:
    """Give samples never seen the highest score among the seen ones.

    Parameters
    ----------
    scores
        ``[N]``; entries of the unseen may hold anything, NaN too.
    seen
        bool ``[N]``. With nobody seen all scores become equal.
    """
    known = torch.where(seen, scores, -torch.inf)
    highest = torch.where(seen.any(), known.max(), 1.0)
    return torch.where(seen, scores, highest)


class ScoreSampler(Sampler):
    """Draw more often what scores higher; subclasses implement :meth:`score`.

    Each epoch draws ``round(N b)`` samples without replacement from the smoothed
    scores. The first epoch is uniform.
    """

    unseen = "highest"

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.draws = samples_per_epoch(self.size, setup.config.budget)
        steps_per_epoch(self.size, setup.config.budget, self.batch_size)

    def score(self, history: History) -> Tensor:
        """Return scores ``[N]`` >= 0; those of samples never seen do not matter."""
        raise NotImplementedError

    @classmethod
    def from_function(
        cls, function: Callable[[History], Tensor], unseen: str
    ) -> type["ScoreSampler"]:
        """Make a method from a function of the history."""

        def score(self: ScoreSampler, history: History) -> Tensor:
            return function(history)

        body = {"score": score, "unseen": unseen, "__doc__": function.__doc__ or "Your own"}
        body["__module__"] = function.__module__
        return type(getattr(function, "__name__", "score"), (cls,), body)

    def probabilities(self, history: History) -> Tensor:
        """Return ``q``, float64 ``[N]``, for the next draw.

        Raises
        ------
        InputError
            If the scores have another shape, or are negative or not finite.
        """
        scores = self.score(history)
        if not isinstance(scores, Tensor) or scores.shape != (self.size,):
            given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(f"a score must be a tensor of shape ({self.size},), not {given}")
        if self.unseen == "highest":
            scores = replace_unseen(scores, history.seen)
        if not bool(((scores >= 0) & torch.isfinite(scores)).all()):
            worst = scores[~((scores >= 0) & torch.isfinite(scores))][0].item()
            raise InputError(f"a score of {worst} cannot be used: scores are finite and >= 0")
        return smooth(scores)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Draw, then yield the draw batch by batch."""
        self.probability = self.probabilities(history)
        drawn = draw_without_replacement(self.probability, self.draws, self.generator)
        for indices in self.full_batches(drawn):
            yield Batch(indices)


@sampler("SGD")
class SGD(Sampler):
    """Short schedule: full passes over the shuffled set until the budget is spent.

    The published code spends the full run whatever the budget, while its learning rate
    counts ``int(N b / B)`` iterations an epoch: within an epoch the rate runs ahead, and
    it jumps back at the start of the next. With ``fidelity="published"`` so does this.
    """

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.steps_of_pass = steps_per_epoch(self.size, 1.0, self.batch_size)
        self.published = setup.config.fidelity == "published"
        if self.published:
            self.budget = 1.0
        self._epoch, self._step = 1, 0

    def progress(self, spent: float) -> float:
        """Share of the schedule; in the published code it saw-tooths."""
        if not self.published:
            return spent
        config = self.setup.config
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
        """Score ``m_i``, the lifetime mean of ``1 - p_y``."""
        return history.error


@sampler("c-SGD")
class ConfidenceSGD(ScoreSampler):
    """More of what the network is unsure of: score is m (1 - m), m the mean of 1 - p_y.

    The published code gives samples never seen the highest ``m`` before it takes
    ``m (1 - m)``, which starves them when that ``m`` is near one. With
    ``fidelity="published"`` so does this.
    """

    def score(self, history: History) -> Tensor:
        """Score ``m_i (1 - m_i)``."""
        error = history.error
        if self.setup.config.fidelity == "published":
            error = replace_unseen(error, history.seen)
        return error * (1 - error)

    def probabilities(self, history: History) -> Tensor:
        """Return ``q``; under the published rule the unseen keep their own score."""
        if self.setup.config.fidelity == "published":
            return smooth(self.score(history))
        return super().probabilities(history)


@sampler("rs2")
class RS2(Sampler):
    """Consecutive parts of one permutation, so that all are seen equally often.

    Repeated sampling of random subsets without replacement (Okanovic et al., ICLR
    2024): a new permutation is drawn when the last one is used up.
    """

    STATE = ("left",)

    def __init__(self, setup: Setup):
        super().__init__(setup)
        budget = setup.config.budget
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
