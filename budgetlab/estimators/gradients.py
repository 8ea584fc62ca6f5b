"""Per-sample gradients: the quality of estimates of their mean, and the influence of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from budgetlab.analysis.gradients import gradient_blocks
from budgetlab.devices import sampling_device
from budgetlab.errors import InputError, a_kind, counted, known, whole

# Gradients of up to this many bytes are kept exactly; more are sketched.
EXACT_BYTES = 256_000_000
SKETCH = 4_096
PROJECTION = 256
LAST_SEED = 2**63 - 1
# Ridge, as a share of the mean of the diagonal of the Gram matrix.
DAMPING = 0.1
# Below this 1 - p_y, float32 cannot tell the gradient of a sample from rounding.
MIN_RESIDUAL = 1e-4


@dataclass(frozen=True)
class SampleGradients:
    """Gradients of each sample's loss with respect to all weights of a network."""

    vectors: Tensor
    """float32 ``[N, K]``: the gradients themselves, or sketches of them."""
    norms: Tensor
    """float64 ``[N]``: Euclidean norms, always exact."""
    parameters: int
    """Number of weights; ``K`` if nothing is sketched."""

    @cached_property
    def full(self) -> Tensor:
        """The full-batch gradient: the mean over all samples, float64 ``[K]``."""
        return self.mean(torch.full_like(self.norms, 1 / len(self.norms)))

    def mean(self, shares: Tensor) -> Tensor:
        """Sum the gradients, each times its share ``[N]``; float64 ``[K]``."""
        # In float32: a copy of all gradients in float64 would cost more than the sum.
        return (shares.to(self.vectors) @ self.vectors).double()


def sample_gradients(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    sketch: int | Literal["auto"] | None = "auto",
    seed: int = 0,
    chunk: int = 64,
) -> SampleGradients:
    """Compute the gradient of each sample's cross-entropy with respect to all weights.

    Uses ``torch.func`` (``vmap`` of ``grad``) in eval mode, where batch norm uses its running
    statistics. In training mode a sample's loss depends on the rest of its batch, so that
    per-sample gradients do not exist. With frozen statistics they do, and their mean is the
    full-batch gradient, but that of the network as it predicts, not as it is trained. No
    augmentation is applied.

    - ``model``, ``x``, ``y``: network from normalised samples to logits; samples, float32
      ``[N, ...]``; labels, int64 ``[N]``. The result is on the same device, or on the CPU if that
      has no float64.
    - ``sketch``, ``seed``: length of sketches: coordinates are summed, with random signs, into this
      many random buckets (Charikar et al., *Finding frequent items in data streams*, 2002), a
      random projection that preserves squared lengths, and so the squared bias and the variance of
      an estimate, on average, with a relative standard deviation of at most ``sqrt(2 / sketch)``
      (Weinberger et al. 2009). None keeps the gradients; ``auto`` sketches to 4,096 if all
      gradients together exceed 256 MB.
    - ``chunk``: samples per pass.
    """
    if not len(x) or len(x) != len(y):
        raise InputError(f"{len(x)} samples and {len(y)} labels: give at least one, one label each")
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if isinstance(sketch, str) and sketch == "auto":
        sketch = None if 4 * size * len(x) <= EXACT_BYTES else SKETCH
    if sketch is not None:
        sketch = whole("sketch", sketch, also=", 'auto' or None")
    seed = whole("seed", seed, 0, LAST_SEED)
    here = sampling_device(x.device)
    project = _Sketch(size, sketch, seed, here) if sketch and sketch < size else None
    vectors, norms = [], []
    for found in gradient_blocks(model, x, y, chunk=chunk):
        flat = torch.cat([gradient.flatten(1) for gradient in found.values()], dim=1)
        flat = flat.float().to(here)
        norms.append(flat.double().square().sum(1).sqrt())
        vectors.append(flat if project is None else project(flat))
    return SampleGradients(torch.cat(vectors), torch.cat(norms), size)


class _Sketch:
    """A random linear map from ``size`` to ``length`` dimensions, with one ±1 per column."""

    def __init__(self, size: int, length: int, seed: int, device: torch.device):
        generator = torch.Generator().manual_seed(seed)
        self.length = length
        self.bucket = torch.randint(length, (size,), generator=generator).to(device)
        signs = torch.randint(2, (size,), generator=generator) * 2 - 1
        self.sign = signs.float().to(device)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Sketch vectors ``[M, size]`` to float32 ``[M, length]``."""
        sums = vectors.new_zeros(self.length, len(vectors))
        # Adding whole rows along the first dimension is many times faster.
        return sums.index_add_(0, self.bucket, (vectors * self.sign).T.contiguous()).T.contiguous()


WEIGHTS = ("none", "unbiased")
BLOCKS = 20


@dataclass(frozen=True)
class Quality:
    """Bias and variance of a gradient estimate (squared lengths); standard errors 0 if exact."""

    bias2: float
    """``|E[estimate] - full|^2``. If simulated, it may fall below zero by chance."""
    variance: float
    """``E|estimate - E[estimate]|^2``."""
    mse: float
    """``E|estimate - full|^2``, the sum of the two."""
    cosine: float
    """Cosine between the mean estimate and the full gradient."""
    bias2_error: float = 0.0
    variance_error: float = 0.0
    mse_error: float = 0.0


def best_distribution(gradients: SampleGradients) -> Tensor:
    """Return the sampling probabilities that minimise the variance, float64 ``[N]``.

    They are proportional to the gradient norms, for sampling with replacement and unbiased
    weights (Zhao & Zhang, ICML 2015; Alain et al. 2015). Uniform if all norms are zero.
    """
    norms = gradients.norms.double()
    return norms / norms.sum() if norms.sum() > 0 else torch.full_like(norms, 1 / len(norms))


def with_replacement(
    gradients: SampleGradients,
    q: Tensor | np.ndarray | Sequence[float],
    *,
    batch_size: int,
    weights: str = "unbiased",
) -> Quality:
    """Compute the exact quality of batches drawn with replacement, without drawing any.

    With ``m = sum_i q_i w_i g_i``, the bias is ``m`` minus the full gradient and the
    variance is ``(sum_i q_i w_i^2 |g_i|^2 - |m|^2) / B``.

    - ``gradients``: of all ``N`` samples.
    - ``q``: probabilities ``[N]``, >= 0; normalised to sum to one. A sample of probability zero is
      never drawn, which biases the weighted estimate too.
    - ``batch_size``: ``B``.
    - ``weights``: ``none``: all one; ``unbiased``: ``1 / (N q_i)``.
    """
    weights = known("kind of weights", weights, WEIGHTS)
    size, batch_size = len(gradients.norms), whole("batch_size", batch_size)
    try:
        q = torch.as_tensor(q, dtype=torch.float64, device=gradients.norms.device)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"q is {a_kind(q)}: give {size} finite numbers >= 0") from None
    if q.shape != (size,) or not bool((q >= 0).all()) or not 0 < float(q.sum()) < float("inf"):
        raise InputError(
            f"q of shape {tuple(q.shape)} is not a distribution: give {size} finite numbers >= 0, "
            "not all zero"
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
    """Estimate the quality of a gradient estimator from many draws of it.

    The variance is the sample variance. The squared bias is the squared distance between the
    mean and the full gradient minus the variance of the mean, which makes it unbiased.
    Standard errors are by jackknife over 20 contiguous blocks, since batches of one epoch are
    not independent.

    - ``estimates``: ``[T, K]``, in the order of drawing; T at least 40.
    - ``full``: the full gradient, ``[K]``.
    """
    if len(estimates) < 2 * BLOCKS:
        raise InputError(f"{len(estimates)} draws are too few: give at least {2 * BLOCKS}")
    full = full.double()
    draws = estimates.double() - full
    total, squares, count = draws.sum(0), draws.square().sum(), len(draws)
    left_out = torch.tensor([
        _moments(total - part.sum(0), squares - part.square().sum(), count - len(part))
        for part in draws.tensor_split(BLOCKS)
    ])  # fmt: skip
    errors = (left_out.var(0, correction=0) * (BLOCKS - 1)).sqrt().tolist()
    return Quality(*_moments(total, squares, count), _cosine(total / count + full, full), *errors)


def _moments(total: Tensor, squares: Tensor, count: int) -> tuple[float, float, float]:
    """Return squared bias, variance and their sum, from sums of deviations from the gradient."""
    mean2 = float((total / count).square().sum())
    variance = (float(squares) - count * mean2) / (count - 1)
    bias2 = mean2 - variance / count
    return bias2, variance, bias2 + variance


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def possible_gain(variance: float, uniform: float, best: float) -> float:
    """Compute the share of the possible variance reduction that a distribution achieves.

    1 for the best distribution, 0 for uniform sampling, negative if worse than uniform; NaN if
    nothing can be gained.
    """
    return (uniform - variance) / (uniform - best) if uniform > best else float("nan")


def influence(
    models: nn.Module | Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    target_x: Tensor,
    target_y: Tensor,
    *,
    sketch: int = PROJECTION,
    damping: float = DAMPING,
    seed: int = 0,
    chunk: int = 64,
) -> np.ndarray:
    """Estimate how much each training sample raises the margin of each target, by TRAK.

    Park et al., *TRAK: Attributing Model Behavior at Scale*, ICML 2023. The network is treated
    as a logistic regression on random projections of its gradients, in which leaving a sample
    out is one Newton step.

    The margin is ``ln(p_y / (1 - p_y))``. With ``Phi [N, K]`` its projected gradients, ``phi_t``
    that of the target and ``p_i`` the label probability of a training sample,
    ``phi_t' (Phi' Phi + c I)^-1 phi_i (1 - p_i)`` ranks training samples by what the margin of
    ``t`` would lose without each (equation 13 of Park et al.; the ridge ``c`` is ours). Their
    estimate leaves the weights ``p (1 - p)`` out of the Newton step, so that values are smaller
    than the losses, and only their order and ratios are meaningful. Over several networks, both
    factors are averaged separately. Returns float64 ``[N, T]``, on an arbitrary scale.

    - ``models``: trained networks, from normalised samples to logits; several, trained with
      different seeds, give a better estimate.
    - ``x``, ``y``, ``target_x``, ``target_y``: training samples, float32 ``[N, ...]``, and labels,
      int64 ``[N]``; and the targets, ``[T, ...]`` and ``[T]``.
    - ``sketch``, ``seed``: length ``K`` of the projections, and the seed of the projection, shared
      by all networks.
    - ``damping``: ``c`` as a share of the mean of the diagonal of ``Phi' Phi``; above 0.
    - ``chunk``: samples per pass.
    """
    networks = [models] if isinstance(models, nn.Module) else list(models)
    if not networks or not damping > 0:
        raise InputError(
            f"damping {damping:g} with {counted(len(networks), 'network')} is not allowed: give at "
            "least one network and a damping above 0"
        )
    scores, residuals = [], []
    for network in networks:
        phi, residual = _features(network, x, y, sketch, seed, chunk)
        targets = _features(network, target_x, target_y, sketch, seed, chunk)[0]
        gram = phi.T @ phi
        ridge = damping * gram.diagonal().mean().clamp(min=1e-30)
        gram.diagonal().add_(ridge)
        scores.append(phi @ torch.linalg.solve(gram, targets.T))
        residuals.append(residual)
    found = torch.stack(scores).mean(0) * torch.stack(residuals).mean(0)[:, None]
    return found.cpu().numpy()


def self_influence(
    models: nn.Module | Sequence[nn.Module], x: Tensor, y: Tensor, **options: Any
) -> np.ndarray:
    """Estimate how much each sample raises its own margin: the diagonal of :func:`influence`.

    High for samples that the network had to memorise, such as wrong labels; float64 ``[N]``.
    """
    return influence(models, x, y, x, y, **options).diagonal().copy()


def _features(
    network: nn.Module, x: Tensor, y: Tensor, sketch: int, seed: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """Return projected gradients of the margin, float64 ``[M, K]``, and ``1 - p_y``, ``[M]``."""
    found = sample_gradients(network, x, y, sketch=sketch, seed=seed, chunk=chunk)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits = torch.cat([network(x[i : i + chunk]) for i in range(0, len(x), chunk)])
    finally:
        network.train(was_training)
    here = found.vectors.device
    p_y = logits.to(here).double().softmax(1).gather(1, y[:, None].to(here))[:, 0]
    residual = (1 - p_y).clamp(min=MIN_RESIDUAL)
    # The gradient of the loss is that of the margin times p_y - 1.
    return -found.vectors.double() / residual[:, None], residual
