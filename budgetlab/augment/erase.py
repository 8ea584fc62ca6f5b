"""Cutout: hide a square of each image."""

import torch
from torch import Tensor

from budgetlab.augment.augmented import AugmentedBatch, check_images, unmixed
from budgetlab.augment.crop import Standard
from budgetlab.augment.windows import box_mask

__all__ = ["Cutout", "cutout"]


def cutout(
    images: Tensor, row: Tensor, column: Tensor, size: tuple[int, int], fill: Tensor
) -> Tensor:
    """Fill a box around a centre; the part of it beyond an edge is lost.

    DeVries & Taylor, *Improved Regularization of Convolutional Neural Networks with
    Cutout* (2017), section 3.2.

    Parameters
    ----------
    images
        ``[B, C, H, W]``, any dtype, which is kept.
    row, column
        int64 ``[B]``: the centre, in [0, H) and [0, W).
    size
        Height and width of the box in pixels.
    fill
        ``[]`` or ``[C]``, of the dtype of the images.

    Returns
    -------
    Tensor
        ``[B, C, H, W]``.
    """
    top, left = row - size[0] // 2, column - size[1] // 2
    box = box_mask(top, top + size[0], left, left + size[1], *images.shape[2:])
    return torch.where(box, fill.reshape(1, -1, 1, 1), images)


class Cutout:
    """A box of half the side (16x16 of 32x32), centred anywhere, in the mean colour.

    The paper zeroes normalised images, which is the mean colour of the data. Here
    images are normalised later, so the mean of the batch stands for it.

    Parameters
    ----------
    flip
        Whether the crop before also flips.
    """

    name = "cutout"

    def __init__(self, flip: bool = True):
        self.flip = flip
        self.standard = Standard(flip)

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Crop, flip and hide a box of uint8 ``[B, C, H, W]``."""
        check_images(images, self.name)
        count, _, height, width = images.shape
        # Before the crop, whose black padding would darken the mean.
        fill = images.to(torch.float32).mean(dim=(0, 2, 3)).round().to(images.dtype)
        cropped = self.standard.crop(images, generator)
        row = torch.randint(height, (count,), generator=generator, device=images.device)
        column = torch.randint(width, (count,), generator=generator, device=images.device)
        return unmixed(cutout(cropped, row, column, (height // 2, width // 2), fill))

    def __repr__(self) -> str:
        return f"Cutout(flip={self.flip})"
