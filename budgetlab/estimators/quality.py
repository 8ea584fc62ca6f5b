"""Bias, variance and mean squared error of an estimate of the full gradient.

An estimate is the mean over a batch of ``w_i g_i``, with ``g_i`` the gradient of sample
``i`` and ``w_i`` its importance weight. Its error is measured against the mean of all
``g_i``; the squared lengths below are sums over all weights of the network.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from budgetlab.errors import InputError, unknown
from budgetlab.estimators.gradients import SampleGradients

__all__ = ["Quality", "best_distribution", "of_estimates", "possible_gain", "with_replacement"]

WEIGHTS = ("none", "unbiased")
BLOCKS = 20


@dataclass(frozen=True)
class Quality:
    """How good an estimate is; squared lengths, standard errors 0 where exact.

    Attributes
    ----------
    bias2
        ``|E[estimate] - full|^2``. Simulated, it may fall below zero by chance.
    variance
        ``E|estimate - E[estimate]|^2``.
    mse
        ``E|estimate - full|^2``, the sum of the two.
    cosine
        Between the mean estimate and the full gradient.
    """

    bias2: float
    variance: float
    mse: float
    cosine: float
    bias2_error: float = 0.0
    variance_error: float = 0.0
    mse_error: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Return the numbers by name."""
        return asdict(self)


def best_distribution(gradients: SampleGradients) -> Tensor:
    """Probabilities that make the variance smallest, float64 ``[N]``.

    In proportion to the norm of each gradient, for draws with replacement and unbiased
    weights (Zhao & Zhang, ICML 2015; Alain et al. 2015). Uniform where all are zero.
    """
    norms = gradients.norms.double()
    return norms / norms.sum() if norms.sum() > 0 else torch.full_like(norms, 1 / len(norms))


def with_replacement(
    gradients: SampleGradients, q: Tensor, *, batch_size: int, weights: str = "unbiased"
) -> Quality:
    """Quality of a batch drawn with replacement: exact formulas, nothing is drawn.

    With ``m = sum_i q_i w_i g_i`` the bias is ``m`` less the full gradient and the
    variance is ``(sum_i q_i w_i^2 |g_i|^2 - |m|^2) / B``.

    Parameters
    ----------
    gradients
        Of all ``N`` samples.
    q
        Probabilities ``[N]``, >= 0; they are made to sum to one. A sample of probability
        zero is never drawn, which biases also the weighted estimate.
    batch_size
        ``B``.
    weights
        ``none``: all one; ``unbiased``: ``1 / (N q_i)``.

    Raises
    ------
    InputError
        If ``q`` is no distribution over the samples, or the weights are unknown.
    """
    if weights not in WEIGHTS:
        raise unknown("kind of weights", weights, WEIGHTS)
    size = len(gradients.norms)
    q = q.double().to(gradients.norms.device)
    if q.shape != (size,) or not bool((q >= 0).all()) or not 0 < float(q.sum()) < float("inf"):
        raise InputError(
            f"q of shape {tuple(q.shape)} is no distribution over {size} samples: give {size} "
            "finite numbers >= 0, not all zero"
        )
    q = q / q.sum()
    factor = (
        torch.where(q > 0, 1 / (size * q), 0.0) if weights == "unbiased" else torch.ones_like(q)
    )
    mean = gradients.mean(q * factor)
    full = gradients.full
    second = float((q * factor.square() * gradients.norms.square()).sum())
    bias2 = float((mean - full).square().sum())
    variance = max(second - float(mean.square().sum()), 0.0) / batch_size
    return Quality(bias2, variance, bias2 + variance, _cosine(mean, full))


def of_estimates(estimates: Tensor, full: Tensor) -> Quality:
    """Quality of an estimate that can be drawn only: from many draws of it.

    The variance is that of the sample; from the squared distance between the mean and
    the full gradient, the variance of the mean is taken off, so that the squared bias is
    right on average. Standard errors by jackknife over 20 blocks of neighbours, since
    batches of one epoch are not independent.

    Parameters
    ----------
    estimates
        ``[T, K]``, in the order in which they were drawn; T at least 40.
    full
        ``[K]``.
    """
    if len(estimates) < 2 * BLOCKS:
        raise InputError(f"{len(estimates)} draws are too few: give at least {2 * BLOCKS}")
    draws = estimates.double() - full.double()
    whole = _moments(draws.sum(0), draws.square().sum(), len(draws))
    parts = draws.tensor_split(BLOCKS)
    total, squares = draws.sum(0), draws.square().sum()
    left_out = torch.tensor(
        [
            _moments(total - part.sum(0), squares - part.square().sum(), len(draws) - len(part))
            for part in parts
        ]
    )
    spread = left_out.var(0, correction=0) * (BLOCKS - 1)
    errors = spread.sqrt().tolist()
    mean = total / len(draws) + full.double()
    return Quality(*whole, _cosine(mean, full.double()), *errors)


def _moments(total: Tensor, squares: Tensor, count: int) -> tuple[float, float, float]:
    """Squared bias, variance and their sum from sums of deviations from the full gradient."""
    mean2 = float((total / count).square().sum())
    variance = (float(squares) - count * mean2) / (count - 1)
    bias2 = mean2 - variance / count
    return bias2, variance, bias2 + variance


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def possible_gain(variance: float, uniform: float, best: float) -> float:
    """Share of the possible reduction of the variance that a distribution reaches.

    1 for the best distribution, 0 for the uniform one, below 0 for a worse one; NaN where
    nothing can be gained.
    """
    return (uniform - variance) / (uniform - best) if uniform > best else float("nan")
