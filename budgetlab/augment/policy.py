"""RandAugment: a few random operations an image, all of one magnitude.

Cubuk, Zoph, Shlens & Le, *RandAugment: Practical automated data augmentation with a
reduced search space* (NeurIPS 2020). Sixteen operations; magnitude M in 0..30 sets
how far each goes (:func:`level`). Operations follow one another as written, each on
the 8-bit result of the one before: two warps are not merged into one, because what
the first pushes out of the frame must not come back with the second.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from budgetlab.augment import operations as ops
from budgetlab.augment.crop import (
    AugmentedBatch,
    Standard,
    box_mask,
    check_images,
    is_interleaved,
    unmixed,
)
from budgetlab.augment.operations import WARPS, pixel_map, warp

__all__ = ["OPERATIONS", "RandAugment", "level", "randaugment"]

# What one table for the whole batch can do, as M is the same for every image.
TONES = ("Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness")
SINGLES = ("AutoContrast", "Equalize", "Contrast", "Color", "Sharpness")
OPERATIONS = (*TONES, *SINGLES, *WARPS, "Cutout")
GROUPS = (TONES, *((name,) for name in SINGLES), WARPS, ("Cutout",))

# The grey of the published list, the mean colour of ImageNet.
GREY = (125, 123, 114)


def level(operation: str, magnitude: float, side: int, fidelity: str = "default") -> float:
    """Return how far an operation goes at a magnitude.

    ==============================  =======================  ==========================
    operation                       default, M = 0 to 30     published, M = 0 to 30
    ==============================  =======================  ==========================
    Rotate                          0 to 30 degrees          same
    ShearX, ShearY                  0 to 0.3 (slope)         same
    TranslateX, TranslateY          0 to 0.33 of the side    0 to 100 pixels
    Cutout                          0 to 0.2 of the side     0 to 40 pixels
    Color, Contrast, Brightness,    0.1 to 1.9 (factor; 1    same
    Sharpness                       at M = 15 is no change)
    Posterize                       8 to 4 bits kept         0 (as 1) to 4 bits kept
    Solarize                        from 256 to from 0       from 0 to from 256
    SolarizeAdd                     0 to 110 added           same, then solarized
    Invert, AutoContrast, Equalize  no level                 same
    ==============================  =======================  ==========================

    The published Posterize and Solarize are strongest at M = 0. The published pixels
    were meant for images of ImageNet's size: on 32x32, M = 4 moves by 13 pixels.

    Parameters
    ----------
    operation
        One of :data:`OPERATIONS`.
    magnitude
        M, in [0, 30].
    side
        Width (or height, for TranslateY) of the image in pixels.
    fidelity
        ``"default"`` or ``"published"``.

    Returns
    -------
    float
        Degrees, slope, pixels, factor, bits, threshold or addition.
    """
    share = magnitude / 30
    published = fidelity == "published"
    if operation in ("Color", "Contrast", "Brightness", "Sharpness"):
        return 0.1 + 1.8 * share
    if operation == "Posterize":
        return max(1, int(4 * share)) if published else round(8 - 4 * share)
    if operation == "Solarize":
        return 256 * share if published else 256 - 256 * share
    if operation.startswith("Translate"):
        return 100 * share if published else 0.33 * share * side
    if operation == "Cutout":
        return 40 * share if published else 0.2 * share * side
    tops = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3, "SolarizeAdd": 110.0}
    return tops.get(operation, 0.0) * share


class Tables(NamedTuple):
    """Everything that the magnitude and the shape of an image settle, on one device."""

    group: Tensor  # int64 [16]: which of GROUPS an operation is in
    tones: Tensor  # uint8 [5, 256]: one for each of TONES
    maps: Tensor  # int64 [10, H * W]: each of WARPS, as it is and mirrored
    grey: Tensor  # uint8 [1, C, 1, 1]: what Cutout fills with
    factor: float  # of Contrast, Color and Sharpness
    square: float  # side of Cutout's square, in pixels
    inclusive: bool  # whether that square has its far edge too, as the published one


@lru_cache(maxsize=16)
def tables(
    magnitude: float, fidelity: str, shape: tuple[int, int, int], device: torch.device
) -> Tables:
    """Make the tables for images of ``shape`` (C, H, W); kept, so that no step makes them."""
    channels, height, width = shape
    published = fidelity == "published"

    def at(operation: str) -> float:
        side = height if operation == "TranslateY" else width
        return level(operation, magnitude, side, fidelity)

    group = [number for number, names in enumerate(GROUPS) for _ in names]
    tones = [
        ops.invert_table(),
        ops.posterize_table(int(at("Posterize"))),
        ops.solarize_table(at("Solarize")),
        ops.solarize_add_table(int(at("SolarizeAdd")), published),
        ops.brightness_table(at("Brightness")),
    ]
    maps = [pixel_map(name, sign * at(name), height, width) for name in WARPS for sign in (1, -1)]
    grey = GREY if channels == 3 else (round(sum(GREY) / 3),) * channels
    square = at("Cutout")
    return Tables(
        torch.tensor(group, device=device),
        torch.stack(tones).to(device),
        torch.stack(maps).to(device),
        torch.tensor(grey, dtype=torch.uint8, device=device).view(1, -1, 1, 1),
        at("Contrast"),
        square if published else round(square),
        published,
    )


def grey_square(images: Tensor, centre: Tensor, made: Tables) -> Tensor:
    """Fill a square around ``centre`` (``[B, 2]``, row and column in [0, 1)) with grey.

    A square that would begin before the upper or left edge begins at it, with its
    whole side; beyond the other edges it is cut. So does the published code.
    """
    height, width = images.shape[2:]
    top = (centre[:, 0] * height - made.square / 2).clamp(min=0).long()
    left = (centre[:, 1] * width - made.square / 2).clamp(min=0).long()
    side = int(made.square) + made.inclusive
    box = box_mask(top, top + side, left, left + side, height, width)
    return torch.where(box, made.grey, images)


def apply_group(
    number: int, images: Tensor, operation: Tensor, mirror: Tensor, centre: Tensor, made: Tables
) -> Tensor:
    """Apply the operations of one of GROUPS; rows whose operation is of another are undefined."""
    name = GROUPS[number][0]
    if GROUPS[number] is TONES:
        table = made.tones.index_select(0, operation.clamp(max=len(TONES) - 1))
        return ops.lookup(images, table.unsqueeze(1))
    if GROUPS[number] is WARPS:
        which = (operation - OPERATIONS.index(WARPS[0])).clamp(0, len(WARPS) - 1)
        return warp(images, made.maps.index_select(0, 2 * which + mirror))
    if name == "AutoContrast":
        return ops.lookup(images, ops.autocontrast_table(images))
    if name == "Equalize":
        return ops.lookup(images, ops.equalize_table(images))
    if name == "Contrast":
        return ops.lookup(images, ops.contrast_table(images, made.factor))
    if name == "Color":
        return ops.color(images, made.factor)
    if name == "Sharpness":
        return ops.sharpness(images, made.factor)
    return grey_square(images, centre, made)


def step_sorted(
    images: Tensor, operation: Tensor, mirror: Tensor, centre: Tensor, made: Tables
) -> Tensor:
    """Apply one operation an image, sorted by group: each image is worked on once.

    The group sizes are read on the host, which is free on a CPU.
    """
    order = operation.argsort()
    sizes = made.group.index_select(0, operation).bincount(minlength=len(GROUPS)).tolist()
    drawn = (images, operation, mirror, centre)
    # index_select copies whole images: much faster than images[order].
    chunks = (values.index_select(0, order).split(sizes) for values in drawn)
    done = [
        apply_group(number, part, of, mirrored, at, made)
        for number, (part, of, mirrored, at) in enumerate(zip(*chunks, strict=True))
        if len(part)
    ]
    return torch.cat(done).index_select(0, order.argsort())


def step_masked(
    images: Tensor, operation: Tensor, mirror: Tensor, centre: Tensor, made: Tables
) -> Tensor:
    """Apply one operation an image without the host knowing which: for a GPU.

    Every group works on the whole batch, and each image keeps the result of its own.
    """
    group = made.group.index_select(0, operation).view(-1, 1, 1, 1)
    result = images
    for number in range(len(GROUPS)):
        changed = apply_group(number, images, operation, mirror, centre, made)
        result = torch.where(group == number, changed, result)
    return result


def randaugment(
    images: Tensor,
    operations: Tensor,
    mirror: Tensor,
    centres: Tensor,
    magnitude: float,
    fidelity: str = "default",
) -> Tensor:
    """Apply to each image its own operations, one after the other.

    Parameters
    ----------
    images
        uint8 ``[B, C, H, W]``.
    operations
        int64 ``[N, B]``: positions in :data:`OPERATIONS`.
    mirror
        int64 ``[N, B]``, 0 or 1: whether rotations, shears and translations go the
        other way.
    centres
        float ``[N, B, 2]`` in [0, 1): where Cutout puts its square, row and column.
    magnitude
        M, in [0, 30].
    fidelity
        ``"default"`` or ``"published"``, see :func:`level`.

    Returns
    -------
    Tensor
        uint8 ``[B, C, H, W]``, in the memory format of ``images``.
    """
    made = tables(magnitude, fidelity, tuple(images.shape[1:]), images.device)
    step = step_sorted if images.device.type == "cpu" else step_masked
    result = images.contiguous()
    for drawn in zip(operations, mirror, centres, strict=True):
        result = step(result, *drawn, made)
    if is_interleaved(images):
        return result.contiguous(memory_format=torch.channels_last)
    return result


class RandAugment:
    """``n`` operations an image, uniformly with replacement of the 16; then crop and flip.

    The operations come first, as in the published code (and Cubuk et al.'s): the black
    padding of the crop would otherwise enter AutoContrast, Equalize and Contrast.

    Parameters
    ----------
    n
        Operations an image, at least 0.
    m
        Magnitude, in [0, 30]; :func:`level` says what it means for each operation.
    flip
        Whether the crop after also flips.
    fidelity
        ``"default"`` or ``"published"``, see :func:`level`.
    """

    name = "randaugment"

    def __init__(self, n: int = 2, m: float = 4, flip: bool = True, fidelity: str = "default"):
        self.n, self.m, self.flip, self.fidelity = n, m, flip, fidelity
        self.standard = Standard(flip)

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Augment uint8 ``[B, C, H, W]`` to the same shape."""
        check_images(images, self.name)
        shape, device = (self.n, len(images)), images.device
        operations = torch.randint(len(OPERATIONS), shape, generator=generator, device=device)
        mirror = torch.randint(2, shape, generator=generator, device=device)
        centres = torch.rand(*shape, 2, generator=generator, device=device)
        changed = randaugment(images, operations, mirror, centres, self.m, self.fidelity)
        return unmixed(self.standard.crop(changed, generator))

    def __repr__(self) -> str:
        return f"RandAugment(n={self.n}, m={self.m}, flip={self.flip}, fidelity={self.fidelity!r})"
