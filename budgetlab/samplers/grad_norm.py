"""Importance sampling by a bound of the gradient norm, with the weights that make it fair.

Katharopoulos & Fleuret, *Not All Samples Are Created Equal: Deep Learning with Importance
Sampling*, ICML 2018, algorithm 1.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from budgetlab.budget import steps_per_epoch
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Looker, Sampler, SamplerContext
from budgetlab.samplers.registry import sampler

__all__ = ["GradientNorm", "gain"]

DECAY = 0.9


def gain(norms: Tensor) -> Tensor:
    """Factor by which a uniform batch would have to grow to vary as little.

    ``tau = (1 - sum((g - 1/n)^2) / sum(g^2)) ** -0.5`` with ``g = norms / sum(norms)``
    (equation 26 of the paper), which is ``sqrt(n sum(g^2))``.

    Parameters
    ----------
    norms
        ``[n]``, >= 0. All zero counts as uniform.

    Returns
    -------
    Tensor
        Scalar, from 1 (all the same) to ``sqrt(n)`` (all but one are zero).
    """
    g = shares(norms)
    return (len(g) * (g * g).sum()).sqrt()


def shares(norms: Tensor) -> Tensor:
    """Return ``[n]`` norms as a distribution; uniform where all are zero."""
    total = norms.sum()
    return torch.where(total > 0, norms / total.clamp(min=1e-30), 1 / len(norms))


@sampler("grad-norm")
class GradientNorm(Sampler):
    """Looks at three candidates for each sample, draws by a gradient bound, weights by 1/p.

    The bound is ``G = ||softmax - onehot||_2``. Of ``presample * B`` candidates from a
    shuffled pass, ``B`` are drawn with replacement by ``g = G / sum(G)``, and the loss of
    each is weighted by ``1 / (presample * B * g)``: the mean gradient of the batch is, in
    expectation, that of the candidates. ``power`` is a power of ``G``.

    This is done while the moving average (0.9, from 0) of :func:`gain` is above
    ``grad_norm_threshold``; before that, batches are uniform, and the gain is estimated from
    the losses of training itself, which costs nothing. Three candidates looked at cost about
    one step on them, so that the choice pays off in flops above a gain of 2.
    """

    STATE = ("average_gain", "probability")
    weighting = "own"
    probability: Tensor
    probability_kind = "keep"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        config = context.config
        steps_per_epoch(self.size, config.budget, self.batch_size)
        self.candidates = config.presample * self.batch_size
        if self.candidates > self.size:
            raise InputError(
                f"method 'grad-norm' looks at {config.presample} x {self.batch_size} candidates, "
                f"more than the {self.size:,} samples there are: lower --batch-size or --presample"
            )
        self.average_gain = 0.0
        self.probability = torch.full((self.size,), torch.nan, device=self.device)

    @property
    def is_on(self) -> bool:
        """Whether the next batch is chosen by importance."""
        return self.average_gain > self.context.config.grad_norm_threshold

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the batches of one pass; while switched on it is used up faster."""
        self.probability.fill_(torch.nan)
        left = self.shuffled()
        while len(left) >= (needed := self.candidates if self.is_on else self.batch_size):
            candidates, left = left[:needed], left[needed:]
            if self.is_on:
                yield self._choose(candidates, look)
            else:
                self.probability[candidates] = 1.0
                yield Batch(candidates)
                # By now the batch was trained on, and the history knows its outcome.
                norms = history.last_el2n[candidates]
                self._update(norms[~norms.isnan()])

    def _choose(self, candidates: Tensor, look: Looker) -> Batch:
        seen = look(candidates)
        norms = seen.error_norms.double()
        self._update(norms)
        # A power of what is near zero must not become zero: its weight would be infinite.
        g = shares((norms / norms.max().clamp(min=1e-30)).clamp(min=1e-6) ** self._power)
        drawn = torch.multinomial(g, self.batch_size, True, generator=self.generator)
        self.probability[candidates] = (1 - (1 - g) ** self.batch_size).float()
        weights = 1 / (len(candidates) * g[drawn])
        return Batch(candidates[drawn], weights.float(), seen.augmented.rows(drawn))

    @property
    def _power(self) -> float:
        return self.context.config.power

    def _update(self, norms: Tensor) -> None:
        if len(norms):
            now = gain(norms.double() ** self._power).item()
            self.average_gain = DECAY * self.average_gain + (1 - DECAY) * now
