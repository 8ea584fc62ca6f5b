"""The interface of augmentations and their registry; crop and flip, and Cutout.

A row of a window is contiguous in memory, so a batch of windows is one ``index_select`` of runs. On
a CPU that copies whole rows, several times faster than single pixels; on a GPU it is one kernel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from budgetlab.errors import InputError, known


@dataclass(frozen=True)
class AugmentedBatch:
    """Images as the network sees them, and the samples each is made of.

    The loss of row ``r`` is ``sum_k weights[r, k] * loss(output[r], y[sources[r, k]])``.

    - ``images``: ``[B, C, H, W]``, uint8, or float32 on the same 0..255 scale if values were
      blended, in the memory format of the images given; or ``[B, 2]`` points.
    - ``sources``: int64 ``[B, K]``: rows of the batch, in [0, B), as an augmentation returns them;
      :meth:`of_samples` converts them to indices of training samples.
    - ``weights``: float32 ``[B, K]``: the share of each source, in [0, 1]; each row sums to 1.
    """

    images: Tensor
    sources: Tensor
    weights: Tensor

    @property
    def mixed(self) -> bool:
        """Whether an image may hold more than one sample."""
        return self.sources.shape[1] > 1

    def of_samples(self, indices: Tensor) -> "AugmentedBatch":
        """Convert sources from batch rows to the samples, int64 ``[B]``, of these rows."""
        return AugmentedBatch(self.images, indices[self.sources], self.weights)

    def rows(self, rows: Tensor | slice) -> "AugmentedBatch":
        """Return some of the rows, int64 ``[M]`` or a slice."""
        return AugmentedBatch(self.images[rows], self.sources[rows], self.weights[rows])

    @staticmethod
    def join(batches: "list[AugmentedBatch]") -> "AugmentedBatch":
        """Concatenate the rows of several batches."""
        return AugmentedBatch(
            torch.cat([batch.images for batch in batches]),
            torch.cat([batch.sources for batch in batches]),
            torch.cat([batch.weights for batch in batches]),
        )


class Augmentation(Protocol):
    """A named function from a batch to an augmented batch."""

    @property
    def name(self) -> str:
        """Name as for :func:`budgetlab.augment.build`."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Augment uint8 ``[B, C, H, W]``; the generator is on the device of the images."""
        ...


def check_images(images: Tensor, name: str) -> None:
    """Raise InputError unless ``images`` is a non-empty uint8 batch ``[B, C, H, W]``."""
    if images.ndim != 4 or images.dtype != torch.uint8 or images.numel() == 0:
        shape = ", ".join(map(str, images.shape))
        dtype = str(images.dtype).removeprefix("torch.")
        raise InputError(
            f"augmentation '{name}' takes uint8 [B, C, H, W], B of 1 or more: not {dtype} [{shape}]"
        )


def unmixed(images: Tensor) -> AugmentedBatch:
    """Wrap a batch in which row ``r`` still shows sample ``r`` alone."""
    rows = len(images)
    return AugmentedBatch(
        images,
        torch.arange(rows, device=images.device).unsqueeze(1),
        torch.ones(rows, 1, device=images.device),
    )


def is_interleaved(images: Tensor) -> bool:
    """Tell whether the memory format is channels_last."""
    return not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)


def take(images: Tensor, rows: Tensor) -> Tensor:
    """Return ``images[rows]`` in the memory format of ``images``, whole images at a time."""
    if is_interleaved(images):
        return images.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return images.index_select(0, rows)


def cut_windows(images: Tensor, sources: Tensor, top: Tensor, left: Tensor, width: int) -> Tensor:
    """Cut ``out[b, :, h, w] = images[sources[b, h], :, top[b, h], left[b, h] + w]``.

    ``images [N, C, H, W]``, of any dtype, are contiguous or channels_last, as is the result.
    ``sources``, ``top`` and ``left``, int64 ``[B, rows]`` (the first and last may broadcast to it),
    give for each row of a window the image it shows, in [0, N); the row of that image, in [0, H);
    and the first column, in [-W, W]. Values beyond the left or right edge are unspecified: mask
    them. ``width`` is the number of columns, 1 to W.
    """
    _, channels, height, image_width = images.shape
    interleaved = is_interleaved(images)
    # C planes of rows per image, or one plane whose pixels are C values.
    if interleaved:
        planes, step, values = 1, channels, images.permute(0, 2, 3, 1).reshape(-1)
    else:
        planes, step, values = channels, 1, images.reshape(-1)
    margin = image_width * step
    size = height * margin
    plane = torch.arange(planes, device=images.device).unsqueeze(1)
    # Few operations, as each is a kernel on a GPU: this is (planes * source + plane) * size
    # + margin * top + step * left + margin.
    first = torch.add(plane * size + margin, sources.unsqueeze(-2), alpha=planes * size)
    first = first.add(top.unsqueeze(-2), alpha=margin).add(left.unsqueeze(-2), alpha=step)
    # The margin lets a run start before the first image or end after the last one.
    runs = F.pad(values, (margin, margin)).unfold(0, width * step, 1)
    cut = runs.index_select(0, first.flatten())
    count, rows = top.shape
    if interleaved:
        return cut.view(count, rows, width, channels).permute(0, 3, 1, 2)
    return cut.view(count, channels, rows, width)


def box_mask(
    top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, height: int, width: int
) -> Tensor:
    """Mark the pixels with ``top <= row < bottom`` and ``left <= column < right``.

    The edges are integers ``[B]``, or ``[]`` for one box, and may lie outside the image; the mask
    is bool ``[B, 1, height, width]`` (B = 1 for one box).
    """
    rows = torch.arange(height, device=top.device)
    columns = torch.arange(width, device=top.device)
    in_rows = (rows >= top.reshape(-1, 1)) & (rows < bottom.reshape(-1, 1))
    in_columns = (columns >= left.reshape(-1, 1)) & (columns < right.reshape(-1, 1))
    return (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1)


def crop_and_flip(
    images: Tensor, top: Tensor, left: Tensor, flip: Tensor, padding: int = 4
) -> Tensor:
    """Pad with black, cut a window of the original size, and mirror it if requested.

    - ``images``: ``[B, C, H, W]``; dtype and memory format are kept.
    - ``top``, ``left``: int64 ``[B]`` in [0, 2 * padding]: the corner of the window in the padded
      image; at ``padding`` the image is not shifted.
    - ``flip``: bool ``[B]``: mirror left to right, after cutting.
    - ``padding``: black pixels on each side, at least 0.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4) if padding else images
    rows = torch.arange(height, device=images.device)
    sources = torch.arange(count, device=images.device).unsqueeze(1)
    cut = cut_windows(padded, sources, top.unsqueeze(1) + rows, left.unsqueeze(1), width)
    return torch.where(flip.view(-1, 1, 1, 1), cut.flip(3), cut)


@dataclass
class Identity:
    """No augmentation; draws nothing from the generator."""

    name = "none"

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Wrap ``images`` without copying them."""
        check_images(images, self.name)
        return unmixed(images)


@dataclass
class Standard:
    """Random crop after zero padding, and a horizontal flip of half the images.

    He et al., *Deep Residual Learning* (CVPR 2016), section 4.2.

    - ``flip``: whether to flip; False for digits and house numbers, whose meaning would change.
    - ``padding``: black pixels on each side before cropping, at most an eighth of the shorter side
      of the image: 4 of 32 pixels as in the paper, 1 of 8. With 0 nothing is cropped.
    """

    flip: bool = True
    padding: int = 4

    @property
    def name(self) -> str:
        """``standard``, or ``flip`` if nothing is cropped."""
        return "standard" if self.padding else "flip"

    def crop(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and flip each image by an independent draw."""
        count, device = len(images), images.device
        padding = min(self.padding, min(images.shape[2:]) // 8)
        corner = torch.randint(2 * padding + 1, (2, count), generator=generator, device=device)
        # Drawn with flip=False too, so that the crops at a seed stay the same.
        heads = torch.rand(count, generator=generator, device=device) < (0.5 if self.flip else 0.0)
        return crop_and_flip(images, corner[0], corner[1], heads, padding)

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Augment uint8 ``[B, C, H, W]`` to the same shape."""
        check_images(images, self.name)
        return unmixed(self.crop(images, generator))


def cutout(
    images: Tensor, row: Tensor, column: Tensor, size: tuple[int, int], fill: Tensor
) -> Tensor:
    """Fill a box of ``size`` (rows, columns) around a centre, clipped at the edges.

    DeVries & Taylor, *Improved Regularization of Convolutional Neural Networks with Cutout* (2017),
    section 3.2. ``row`` and ``column``, int64 ``[B]``, are the centre, in [0, H) and [0, W);
    ``fill`` is ``[]`` or ``[C]``, of the dtype of the images ``[B, C, H, W]``, which is kept.
    """
    top, left = row - size[0] // 2, column - size[1] // 2
    box = box_mask(top, top + size[0], left, left + size[1], *images.shape[2:])
    return torch.where(box, fill.reshape(1, -1, 1, 1), images)


@dataclass
class Cutout:
    """A box of half the side (16x16 of 32x32), centred anywhere, in the mean colour.

    The paper zeroes normalised images, which is the mean colour of the data. Here images are
    normalised later, so the mean of the batch is used.
    """

    flip: bool = True
    """Whether the crop before it also flips."""

    name = "cutout"

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Crop, flip and mask a box of uint8 ``[B, C, H, W]``."""
        check_images(images, self.name)
        count, _, height, width = images.shape
        # Before the crop, whose black padding would darken the mean.
        fill = images.to(torch.float32).mean(dim=(0, 2, 3)).round().to(images.dtype)
        cropped = Standard(self.flip).crop(images, generator)
        row = torch.randint(height, (count,), generator=generator, device=images.device)
        column = torch.randint(width, (count,), generator=generator, device=images.device)
        return unmixed(cutout(cropped, row, column, (height // 2, width // 2), fill))


DESCRIPTIONS = {
    "none": "the images as they are",
    "standard": "crop with padding 4 and horizontal flip",
    "flip": "horizontal flip alone, where flips keep the label",
    "mixup": "standard, then a blend of two images (Zhang et al. 2018)",
    "ricap": "standard, then four crops patched together (Takahashi et al. 2018)",
    "cutmix": "standard, then a box of another image (Yun et al. 2019)",
    "randaugment": "N random operations of 16 at magnitude M, then standard (Cubuk et al. 2020)",
    "cutout": "standard, then a hidden square of half the side (DeVries & Taylor 2017)",
}


def names() -> list[str]:
    """List the names that ``--augmentation`` takes."""
    return list(DESCRIPTIONS)


def describe() -> dict[str, str]:
    """Describe each augmentation in one line, by name."""
    return dict(DESCRIPTIONS)


def build(
    name: str,
    *,
    flip: bool = True,
    alpha: float = 0.3,
    randaugment_n: int = 2,
    randaugment_m: float = 4,
    fidelity: str = "default",
    per_image: bool = False,
) -> Augmentation:
    """Make an augmentation by name.

    Returns a function of uint8 ``[B, C, H, W]`` and a generator on the same device.

    - ``name``: one of :func:`names`.
    - ``flip``: whether the standard part flips horizontally; False for digits.
    - ``alpha``: shape of the Beta(alpha, alpha) of mixup, ricap and cutmix; above 0.
    - ``randaugment_n``, ``randaugment_m``: operations per image (at least 0) and magnitude (0 to
      30).
    - ``fidelity``: ``"default"``, or ``"published"`` to reproduce the published code.
    - ``per_image``: whether mixup, ricap and cutmix draw one proportion per image, not one per
      batch.
    """
    name = known("augmentation", name, names())
    fidelity = known("fidelity", fidelity, ("default", "published"))
    if not 0 < alpha < float("inf"):
        raise InputError(f"alpha {alpha} is not allowed: give a number above 0, such as 0.3")
    if randaugment_n < 0 or not 0 <= randaugment_m <= 30:
        raise InputError(
            f"RandAugment with {randaugment_n} operations at magnitude {randaugment_m} is not "
            "possible: give a number of operations >= 0 and a magnitude between 0 and 30"
        )
    # Imported here, because both import this module.
    from budgetlab.augment.mixing import CutMix, Mixup, Ricap
    from budgetlab.augment.policy import RandAugment

    makers: dict[str, Callable[[], Augmentation]] = {
        "none": Identity,
        "standard": lambda: Standard(flip),
        "flip": lambda: Standard(flip, padding=0),
        "mixup": lambda: Mixup(alpha, flip, per_image, fidelity),
        "ricap": lambda: Ricap(alpha, flip, per_image, fidelity),
        "cutmix": lambda: CutMix(alpha, flip, per_image, fidelity),
        "randaugment": lambda: RandAugment(randaugment_n, randaugment_m, flip, fidelity),
        "cutout": lambda: Cutout(flip),
    }
    return makers[name]()
