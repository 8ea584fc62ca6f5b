"""What an augmentation takes and gives: the contract of every one of them."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from budgetlab.errors import InputError

__all__ = ["Augmentation", "Augmented", "check_images", "unmixed"]


@dataclass(frozen=True)
class Augmented:
    """An augmented batch, and which batch rows each image is made of.

    The loss of row ``r`` is ``sum_k weights[r, k] * loss(output[r], y[sources[r, k]])``.

    Attributes
    ----------
    images
        ``[B, C, H, W]``, uint8, or float32 on the same 0..255 scale where values
        were blended; in the memory format of the images given.
    sources
        int64 ``[B, K]``: positions in the given batch, in [0, B).
    weights
        float32 ``[B, K]``: the share of each source, in [0, 1]; a row sums to 1.
    """

    images: Tensor
    sources: Tensor
    weights: Tensor

    @property
    def mixed(self) -> bool:
        """Whether an image may hold more than one sample."""
        return self.sources.shape[1] > 1


class Augmentation(Protocol):
    """A function from a batch to an augmented batch, with a name."""

    name: str

    def __call__(self, images: Tensor, generator: torch.Generator) -> Augmented:
        """Augment uint8 ``[B, C, H, W]``; the generator is on the device of the images."""
        ...


def check_images(images: Tensor, name: str) -> None:
    """Raise InputError unless ``images`` is a uint8 batch ``[B, C, H, W]``, not empty."""
    if images.ndim != 4 or images.dtype != torch.uint8 or images.numel() == 0:
        shape = ", ".join(map(str, images.shape))
        dtype = str(images.dtype).removeprefix("torch.")
        raise InputError(
            f"augmentation '{name}' cannot take a {dtype} tensor of shape [{shape}]: "
            "give images as uint8 [B, C, H, W] with B >= 1"
        )


def unmixed(images: Tensor) -> Augmented:
    """Wrap a batch in which row ``r`` is still sample ``r`` alone."""
    rows = len(images)
    return Augmented(
        images,
        torch.arange(rows, device=images.device).unsqueeze(1),
        torch.ones(rows, 1, device=images.device),
    )
