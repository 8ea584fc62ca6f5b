"""Draws from the symmetric Beta distribution that come from a generator."""

import math

import torch
from torch import Tensor

__all__ = ["symmetric_beta"]


def symmetric_beta(
    alpha: float, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw from Beta(alpha, alpha), exactly, from four uniforms a value.

    ``torch.distributions`` takes no generator, and rejection methods need to look at
    the result before going on, which stalls a GPU. This one does neither:

    1. ``y ~ Beta(alpha + 1, alpha + 1)`` by the polar method (Ulrich, *Computer
       generation of distributions on the m-sphere*, Applied Statistics 1984):
       ``y = 1/2 + 1/2 sqrt(1 - u1^(2 / (2 alpha + 1))) cos(2 pi u2)``.
    2. ``G ~ Gamma(alpha + 1)`` and a uniform ``u`` give ``G u^(1/alpha) ~ Gamma(alpha)``,
       and a Beta is a ratio of Gammas. In the logit their sum cancels:
       ``logit(x) = logit(y) + (ln u3 - ln u4) / alpha``.

    Parameters
    ----------
    alpha
        Shape, above 0.
    shape
        Of the result.
    generator, device
        The generator, and the device it is on.

    Returns
    -------
    Tensor
        ``shape``, in [0, 1]; float64 (float32 on a device without it).
    """
    dtype = torch.float32 if device.type == "mps" else torch.float64
    # In (0, 1], so that the logarithms are finite.
    u1, u2, u3, u4 = 1 - torch.rand(4, *shape, generator=generator, device=device, dtype=dtype)
    spread = (1 - u1.pow(2 / (2 * alpha + 1))).sqrt()
    y = 0.5 + 0.5 * spread * torch.cos(2 * math.pi * u2)
    return torch.sigmoid(torch.logit(y, eps=1e-7) + (u3.log() - u4.log()) / alpha)
