"""The gradient of every sample: exact where it fits in memory, sketched where not."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from budgetlab.analysis.gradients import gradient_blocks
from budgetlab.errors import InputError

__all__ = ["SampleGradients", "sample_gradients"]

# Bytes of gradients that are held as they are; beyond, they are sketched.
EXACT_BYTES = 256_000_000
SKETCH = 4_096


@dataclass(frozen=True)
class SampleGradients:
    """Gradients of the loss of each sample, by all weights of a network.

    Attributes
    ----------
    vectors
        float32 ``[N, K]``: the gradients themselves, or sketches of them.
    norms
        float64 ``[N]``: Euclidean norms, always exact.
    parameters
        Number of weights; ``K`` where nothing is sketched.
    """

    vectors: Tensor
    norms: Tensor
    parameters: int

    @cached_property
    def full(self) -> Tensor:
        """The full-batch gradient: the mean over all samples, float64 ``[K]``."""
        return self.mean(torch.full_like(self.norms, 1 / len(self.norms)))

    def mean(self, shares: Tensor) -> Tensor:
        """Sum of the gradients, each times its share ``[N]``; float64 ``[K]``."""
        # Products in float32: a copy of all gradients in float64 would cost more than the sum.
        return (shares.to(self.vectors) @ self.vectors).double()

    @property
    def relative_error(self) -> float:
        """Standard deviation of the squared length of a sketch, relative; 0 where exact.

        At most ``sqrt(2 / K)`` for any one vector (Charikar et al. 2002; Weinberger et
        al. 2009), so for the squared bias and the variance of an estimate too: a sketch
        of a mean is the mean of the sketches.
        """
        kept = self.vectors.shape[1]
        return 0.0 if kept == self.parameters else math.sqrt(2 / kept)


def sample_gradients(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    sketch: int | Literal["auto"] | None = "auto",
    seed: int = 0,
    chunk: int = 64,
) -> SampleGradients:
    """Compute the gradient of the cross-entropy of each sample by all weights.

    By ``torch.func`` (``vmap`` of ``grad``), in evaluation mode: batch norm takes its
    running statistics. In training mode a sample's loss depends on the other samples of
    its batch, so that no gradient of a sample exists and their mean is not that of the
    full batch; with frozen statistics both are well defined, at the price that the
    gradient is that of the network as it predicts, not as it is trained. No augmentation
    takes part.

    A sketch adds up the coordinates, each with a random sign, in ``sketch`` random
    buckets (Charikar et al., *Finding frequent items in data streams*, 2002): a random
    projection that costs one pass over the gradient and keeps squared lengths on average.

    Parameters
    ----------
    model
        From normalised samples to logits.
    x, y
        ``[N, ...]`` float32 and int64 ``[N]``, on the device of the model.
    sketch
        Length of the sketches; None keeps the gradients; ``auto`` sketches to 4,096
        where all gradients together exceed 256 MB.
    seed
        Seed of the signs and buckets.
    chunk
        Samples at a time.

    Raises
    ------
    InputError
        If there is no sample, or the sketch is no positive number.
    """
    if not len(x) or len(x) != len(y):
        raise InputError(f"{len(x)} samples and {len(y)} labels: give at least one, one label each")
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if sketch == "auto":
        sketch = None if 4 * size * len(x) <= EXACT_BYTES else SKETCH
    if sketch is not None and sketch < 1:
        raise InputError(f"sketch {sketch} is not allowed: give a length of 1 or more, or None")
    project = _Sketch(size, sketch, seed, x.device) if sketch and sketch < size else None
    vectors, norms = [], []
    for found in gradient_blocks(model, x, y, chunk=chunk):
        flat = torch.cat([gradient.flatten(1) for gradient in found.values()], dim=1).float()
        norms.append(flat.double().square().sum(1).sqrt())
        vectors.append(flat if project is None else project(flat))
    return SampleGradients(torch.cat(vectors), torch.cat(norms), size)


class _Sketch:
    """A linear map from ``size`` to ``length`` numbers with one entry ±1 a column."""

    def __init__(self, size: int, length: int, seed: int, device: torch.device):
        generator = torch.Generator().manual_seed(seed)
        self.length = length
        self.bucket = torch.randint(length, (size,), generator=generator).to(device)
        signs = torch.randint(2, (size,), generator=generator) * 2 - 1
        self.sign = signs.float().to(device)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Sketch vectors ``[M, size]``; float32 ``[M, length]``."""
        sums = vectors.new_zeros(self.length, len(vectors))
        # Along the first dimension whole rows are added, many times faster.
        return sums.index_add_(0, self.bucket, (vectors * self.sign).T.contiguous()).T.contiguous()
