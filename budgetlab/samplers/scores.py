"""From scores to a draw: the part that p-SGD, c-SGD and your own methods share.

Definitions: Arazo et al., *How Important is Importance Sampling for Deep Budgeted
Training?*, BMVC 2021.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Looker, Sampler, Setup
from budgetlab.samplers.races import draw_without_replacement

__all__ = ["ScoreSampler", "replace_unseen", "smooth"]


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

    Each epoch draws ``floor(N b)`` samples without replacement from the smoothed
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
