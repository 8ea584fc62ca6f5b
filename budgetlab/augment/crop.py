"""The augmentation of nearly every CIFAR recipe: padded random crop, horizontal flip."""

import torch
import torch.nn.functional as F
from torch import Tensor

from budgetlab.augment.augmented import AugmentedBatch, check_images, unmixed
from budgetlab.augment.windows import cut_windows

__all__ = ["Identity", "Standard", "crop_and_flip"]


def crop_and_flip(
    images: Tensor, top: Tensor, left: Tensor, flip: Tensor, padding: int = 4
) -> Tensor:
    """Pad with black, cut a window of the original size, mirror where asked.

    Parameters
    ----------
    images
        ``[B, C, H, W]``, any dtype.
    top, left
        int64 ``[B]`` in [0, 2 * padding]: the corner of the window in the padded
        image; ``padding`` cuts the image as it was.
    flip
        bool ``[B]``: mirror left to right, after cutting.
    padding
        Black pixels on each side, at least 0.

    Returns
    -------
    Tensor
        Same shape, dtype and memory format as ``images``.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4) if padding else images
    rows = torch.arange(height, device=images.device)
    sources = torch.arange(count, device=images.device).unsqueeze(1)
    cut = cut_windows(padded, sources, top.unsqueeze(1) + rows, left.unsqueeze(1), width)
    return torch.where(flip.view(-1, 1, 1, 1), cut.flip(3), cut)


class Identity:
    """No augmentation: the images as they are.

    Draws nothing from the generator.
    """

    name = "none"

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Wrap ``images``, which are not copied."""
        check_images(images, self.name)
        return unmixed(images)

    def __repr__(self) -> str:
        return "Identity()"


class Standard:
    """Random crop after zero padding, and a horizontal flip of half of the images.

    He et al., *Deep Residual Learning* (CVPR 2016), section 4.2.

    Parameters
    ----------
    flip
        Whether to flip; False for digits and house numbers, whose meaning would change.
    padding
        Black pixels on each side before cropping, at most an eighth of the shorter side
        of the image: 4 of 32 pixels as in the paper, 1 of 8.
    """

    name = "standard"

    def __init__(self, flip: bool = True, padding: int = 4):
        self.flip, self.padding = flip, padding

    def crop(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw and apply; each image gets its own place and its own coin."""
        count, device = len(images), images.device
        padding = min(self.padding, min(images.shape[2:]) // 8)
        corner = torch.randint(2 * padding + 1, (2, count), generator=generator, device=device)
        # The coin is tossed with flip=False too: the crops at a seed stay the same.
        heads = torch.rand(count, generator=generator, device=device) < (0.5 if self.flip else 0.0)
        return crop_and_flip(images, corner[0], corner[1], heads, padding)

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Augment uint8 ``[B, C, H, W]`` to the same shape."""
        check_images(images, self.name)
        return unmixed(self.crop(images, generator))

    def __repr__(self) -> str:
        return f"Standard(flip={self.flip}, padding={self.padding})"
