"""What an augmentation takes and gives: the contract of every one of them."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from budgetlab.errors import InputError

__all__ = ["Augmentation", "AugmentedBatch", "check_images", "unmixed"]


@dataclass(frozen=True)
class AugmentedBatch:
    """Images as the network sees them, and what each is made of.

    The loss of row ``r`` is ``sum_k weights[r, k] * loss(output[r], y[sources[r, k]])``.

    Attributes
    ----------
    images
        ``[B, C, H, W]``, uint8, or float32 on the same 0..255 scale where values
        were blended, in the memory format of the images given; or ``[B, 2]`` points.
    sources
        int64 ``[B, K]``: an augmentation gives rows of its batch, in [0, B), and
        :meth:`of_samples` turns them into numbers of samples of the training set.
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

    def of_samples(self, indices: Tensor) -> "AugmentedBatch":
        """Name the sources by the samples, int64 ``[B]``, that the batch was made of."""
        return AugmentedBatch(self.images, indices[self.sources], self.weights)

    def rows(self, rows: Tensor | slice) -> "AugmentedBatch":
        """Return some of the rows, int64 ``[M]`` or a slice."""
        return AugmentedBatch(self.images[rows], self.sources[rows], self.weights[rows])

    @staticmethod
    def join(batches: "list[AugmentedBatch]") -> "AugmentedBatch":
        """Return the rows of several batches, one below the other."""
        return AugmentedBatch(
            torch.cat([batch.images for batch in batches]),
            torch.cat([batch.sources for batch in batches]),
            torch.cat([batch.weights for batch in batches]),
        )


class Augmentation(Protocol):
    """A function from a batch to an augmented batch, with a name."""

    name: str

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
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


def unmixed(images: Tensor) -> AugmentedBatch:
    """Wrap a batch in which row ``r`` is still sample ``r`` alone."""
    rows = len(images)
    return AugmentedBatch(
        images,
        torch.arange(rows, device=images.device).unsqueeze(1),
        torch.ones(rows, 1, device=images.device),
    )
