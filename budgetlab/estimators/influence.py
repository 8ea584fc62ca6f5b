"""What would change if a sample were left out, as far as gradients can say it: TRAK.

Park et al., *TRAK: Attributing Model Behavior at Scale*, ICML 2023. The network is taken
for a logistic regression on the random projections of its gradients, and leaving a sample
out is one Newton step of that.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from budgetlab.errors import InputError
from budgetlab.estimators.gradients import sample_gradients

SKETCH = 256
# Share of the mean squared length by coordinate that is added to the diagonal.
DAMPING = 0.1
# Of a sample that is certain, float32 does not tell the gradient from rounding.
SUREST = 1e-4


def influence(
    models: nn.Module | Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    target_x: Tensor,
    target_y: Tensor,
    *,
    sketch: int = SKETCH,
    damping: float = DAMPING,
    seed: int = 0,
    chunk: int = 64,
) -> np.ndarray:
    """Estimate by how much each training sample raises the margin of each target.

    The margin is ``ln(p_y / (1 - p_y))``. With ``Phi [N, K]`` the projected gradients of it,
    ``phi_t`` that of the target and ``p_i`` the probability of the label of a training sample,
    ``phi_t' (Phi' Phi + c I)^-1 phi_i (1 - p_i)`` is what leaving sample ``i`` out would take
    from the margin of ``t`` (equation 13 of Park et al.; the ridge ``c`` is ours). Over several
    networks both factors are averaged by themselves.

    Parameters
    ----------
    models
        Trained networks, from normalised samples to logits; more than one, trained with other
        seeds, say more.
    x, y
        Training samples ``[N, ...]``, float32, and labels, int64 ``[N]``.
    target_x, target_y
        Samples ``[T, ...]`` whose margin is asked for, and their labels.
    sketch
        Length ``K`` of the projections.
    damping
        ``c`` as a share of the mean of the diagonal of ``Phi' Phi``; above 0.
    seed
        Of the projection, which all networks share.
    chunk
        Samples at a time.

    Returns
    -------
    numpy.ndarray
        float64 ``[N, T]``, in units of the margin.

    Raises
    ------
    InputError
        If there is no network, or ``damping`` is not above 0.
    """
    networks = [models] if isinstance(models, nn.Module) else list(models)
    if not networks or not damping > 0:
        raise InputError(
            f"{len(networks)} networks and damping {damping:g}: give one network or more, and a "
            "damping above 0"
        )
    scores, doubts = [], []
    for network in networks:
        phi, doubt = _features(network, x, y, sketch, seed, chunk)
        targets = _features(network, target_x, target_y, sketch, seed, chunk)[0]
        gram = phi.T @ phi
        ridge = damping * gram.diagonal().mean().clamp(min=1e-30)
        gram.diagonal().add_(ridge)
        scores.append(phi @ torch.linalg.solve(gram, targets.T))
        doubts.append(doubt)
    found = torch.stack(scores).mean(0) * torch.stack(doubts).mean(0)[:, None]
    return found.cpu().numpy()


def self_influence(
    models: nn.Module | Sequence[nn.Module], x: Tensor, y: Tensor, **options: Any
) -> np.ndarray:
    """Estimate by how much each sample raises its own margin: the diagonal of :func:`influence`.

    High for what is known only because it was trained on, such as wrong labels.

    Parameters
    ----------
    models, x, y, **options
        As for :func:`influence`.

    Returns
    -------
    numpy.ndarray
        float64 ``[N]``.
    """
    return influence(models, x, y, x, y, **options).diagonal().copy()


def _features(
    network: nn.Module, x: Tensor, y: Tensor, sketch: int, seed: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """Projected gradients of the margin, float64 ``[M, K]``, and ``1 - p_y``, ``[M]``."""
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
    doubt = (1 - p_y).clamp(min=SUREST)
    # The gradient of the loss is that of the margin times p_y - 1.
    return -found.vectors.double() / doubt[:, None], doubt
