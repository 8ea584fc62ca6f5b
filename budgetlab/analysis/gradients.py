"""GraNd, the one measure that needs the model: a gradient for every sample."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from budgetlab.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["gradient_blocks", "grand"]


def grand(
    model: "torch.nn.Module",
    x: "torch.Tensor",
    y: "torch.Tensor",
    *,
    chunk: int = 64,
) -> np.ndarray:
    """Norm of the gradient of each sample's loss, over all parameters (Paul et al. 2021).

    The model is used in eval mode, so that batch norm does not mix the samples, and is
    left as it was. High is hard. Paul et al. take the mean over several models, early
    in training.

    Parameters
    ----------
    model
        From inputs to logits ``[B, C]``; its parameters that need a gradient count.
    x
        Inputs as the model takes them (normalised), ``[N, ...]``, float.
    y
        Labels, int64 ``[N]``.
    chunk
        Samples at a time; memory holds so many copies of the gradient.

    Returns
    -------
    numpy.ndarray
        float64 ``[N]``, at least 0.

    Raises
    ------
    InputError
        If ``x`` and ``y`` differ in length.
    """
    import torch

    if len(x) != len(y):
        raise InputError(f"x holds {len(x)} samples and y {len(y)} labels: give one label a sample")
    parts = []
    for found in gradient_blocks(model, x, y, chunk=chunk):
        squares = [g.flatten(1).double().square().sum(1) for g in found.values()]
        parts.append(torch.stack(squares).sum(0).sqrt().cpu())
    return torch.cat(parts).numpy() if parts else np.zeros(0)


def gradient_blocks(
    model: "torch.nn.Module", x: "torch.Tensor", y: "torch.Tensor", *, chunk: int = 64
) -> "Iterator[dict[str, torch.Tensor]]":
    """Compute the gradient of the cross-entropy of each sample, a few samples at a time.

    Parameters
    ----------
    model, x, y, chunk
        As for :func:`grand`.

    Yields
    ------
    dict of str to Tensor
        By name of the parameter, ``[at most chunk, *shape of the parameter]``.
    """
    import torch.nn.functional as F
    from torch.func import functional_call, grad, vmap

    parameters = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    fixed = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
    fixed |= {n: b.detach() for n, b in model.named_buffers()}

    def loss(weights: dict, sample: "torch.Tensor", label: "torch.Tensor") -> "torch.Tensor":
        logits = functional_call(model, weights | fixed, (sample[None],))
        return F.cross_entropy(logits, label[None])

    gradient = vmap(grad(loss), in_dims=(None, 0, 0))
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(x), chunk):
            yield gradient(parameters, x[start : start + chunk], y[start : start + chunk])
    finally:
        model.train(was_training)
