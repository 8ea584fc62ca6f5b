"""From scores to a draw: the part that p-SGD, c-SGD and your own methods share.

Definitions: Arazo et al., *How Important is Importance Sampling for Deep Budgeted
Training?*, BMVC 2021.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Forecast, Looker, Sampler, SamplerContext
from budgetlab.samplers.weighted_sampling import draw_without_replacement, unbiased_weights

__all__ = ["ScoreSampler", "replace_unseen", "smooth"]


def smooth(scores: Tensor, strength: float = 1.0, power: float = 1.0) -> Tensor:
    """Turn scores into sampling probabilities, from uniform to greedy.

    ``q_i = (s_i + c mean(s)) / sum_j (s_j + c mean(s))`` with ``s`` the scores to the
    power of the power, and ``c`` the strength. The paper has ``c = 1`` and no power,
    so that ``q_i >= 1 / (2 N)``.

    Parameters
    ----------
    scores
        ``[N]``, >= 0. All zero gives the uniform distribution.
    strength
        At least 0, finite: 0 leaves the scores as they are, a large one is uniform. At
        least ``c / (1 + c)`` of the uniform probability is left to everybody.
    power
        In [0, 100]: 0 is uniform, 1 leaves the scores as they are, a large one draws the
        highest scores only, if nothing is smoothed.

    Returns
    -------
    Tensor
        ``[N]``, float64, sums to one.

    Raises
    ------
    InputError
        If strength or power is out of its range.
    """
    if not 0 <= strength < math.inf:
        raise InputError(f"smoothing {strength} is not allowed: give a number of at least 0")
    if not 0 <= power <= 100:
        raise InputError(f"power {power} is not allowed: give a number in [0, 100]")
    scores = scores.double()
    # Sums of huge scores must not overflow; only their proportions count.
    scores = scores / scores.max().clamp(min=torch.finfo(torch.float64).tiny)
    if power != 1:
        scores = scores**power
    raised = scores + strength * scores.mean()
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
    scores, see :func:`smooth`; ``smoothing`` and ``power`` of the run lead from
    uniform to greedy. The first epoch is uniform. With ``weights="unbiased"`` every loss
    is weighted by :func:`~budgetlab.samplers.weighted_sampling.unbiased_weights`.
    """

    unseen = "highest"
    weighting = "offered"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        config = context.config
        self.draws = samples_per_epoch(self.size, config.budget)
        steps_per_epoch(self.size, config.budget, self.batch_size)
        self.unbiased = config.weights == "unbiased"
        if self.unbiased and config.smoothing == 0:
            raise InputError(
                "weights 'unbiased' need every sample to have a chance, and with smoothing 0 a "
                "score of zero has none: give a smoothing above 0"
            )

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
        return self.smooth(scores)

    def smooth(self, scores: Tensor) -> Tensor:
        """Return ``q`` of scores ``[N]``, as strongly smoothed as the run asks for."""
        config = self.context.config
        return smooth(scores, config.smoothing, config.power)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Draw, then yield the draw batch by batch."""
        self.probability = self.probabilities(history)
        drawn = draw_without_replacement(self.probability, self.draws, self.generator)
        weights = unbiased_weights(self.probability, self.draws) if self.unbiased else None
        for indices in self.full_batches(drawn):
            yield Batch(indices, None if weights is None else weights[indices])

    def forecast(self, history: History) -> Forecast:
        """Foresee the draw: its probabilities, and how many are drawn."""
        return Forecast(self.probabilities(history), draws=self.draws)
