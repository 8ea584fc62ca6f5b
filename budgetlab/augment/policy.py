"""RandAugment: a few random operations per image, all of one magnitude.

Cubuk, Zoph, Shlens & Le, *RandAugment: Practical automated data augmentation with a reduced search
space* (NeurIPS 2020). Sixteen operations; magnitude M in 0..30 sets the strength of each
(:func:`level`). Operations are applied in sequence, each to the 8-bit result of the one before:
warps are not merged, because what the first moves out of the frame must not return with the second.

Most operations map each value independently of its neighbours: a table of 256 entries, applied in
one gather. Values match those of Pillow's ``ImageOps`` and ``ImageEnhance`` within one grey level:
Pillow rounds some products of floats down where integers here do not. In a warp each pixel takes
the value of one source pixel (nearest neighbour), or black if the source lies outside, in 16.16
fixed point as in Pillow's ``Image.transform``, so that the pixels are Pillow's on every device.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from budgetlab.augment.crop import (
    AugmentedBatch,
    Standard,
    box_mask,
    check_images,
    is_interleaved,
    unmixed,
)

# Operations that share one table per batch, as M is the same for every image.
TONES = ("Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness")
SINGLES = ("AutoContrast", "Equalize", "Contrast", "Color", "Sharpness")
WARPS = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
OPERATIONS = (*TONES, *SINGLES, *WARPS, "Cutout")
GROUPS = (TONES, *((name,) for name in SINGLES), WARPS, ("Cutout",))

# The grey of the published code, the mean colour of ImageNet.
GREY = (125, 123, 114)


def level(operation: str, magnitude: float, side: int, fidelity: str = "default") -> float:
    """Return the strength of an operation at a magnitude, 0 to 30.

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

    ``side`` is the width of the image in pixels, for TranslateY the height. The published
    Posterize and Solarize are strongest at M = 0. The published pixels were meant for images of
    ImageNet's size: in 32x32, M = 4 moves them by 13 pixels.
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
    """Everything that the magnitude and the image shape determine, on one device."""

    group: Tensor  # int64 [16]: which of GROUPS an operation is in
    tones: Tensor  # uint8 [5, 256]: one for each of TONES
    maps: Tensor  # int64 [10, H * W]: each of WARPS, as it is and mirrored
    grey: Tensor  # uint8 [1, C, 1, 1]: what Cutout fills with
    factor: float  # of Contrast, Color and Sharpness
    square: float  # side of Cutout's square, in pixels
    inclusive: bool  # whether the square includes its far edge, as in the published code


@lru_cache(maxsize=16)
def tables(
    magnitude: float, fidelity: str, shape: tuple[int, int, int], device: torch.device
) -> Tables:
    """Make the tables for images of ``shape`` (C, H, W); cached, so that no step repeats it."""
    channels, height, width = shape
    published = fidelity == "published"

    def at(operation: str) -> float:
        side = height if operation == "TranslateY" else width
        return level(operation, magnitude, side, fidelity)

    value = torch.arange(256)
    brighter = (value + int(at("SolarizeAdd"))).clamp(max=255)
    # Cubuk et al. only add, to values below 128. The published code adds to every value, clips at
    # 255, and then inverts values of 128 or more.
    solarized = torch.where(brighter < 128, brighter, 255 - brighter)
    tones = (
        255 - value,
        value & (0xFF << (8 - int(at("Posterize")))),
        torch.where(value < at("Solarize"), value, 255 - value),
        solarized if published else torch.where(value < 128, brighter, value),
        (value * at("Brightness")).clamp(0, 255),
    )
    maps = [pixel_map(name, sign * at(name), height, width) for name in WARPS for sign in (1, -1)]
    group = [number for number, names in enumerate(GROUPS) for _ in names]
    grey = GREY if channels == 3 else (round(sum(GREY) / 3),) * channels
    return Tables(
        torch.tensor(group, device=device),
        torch.stack([tone.to(torch.uint8) for tone in tones]).to(device),
        torch.stack(maps).to(device),
        torch.tensor(grey, dtype=torch.uint8, device=device).view(1, -1, 1, 1),
        at("Contrast"),
        at("Cutout") if published else round(at("Cutout")),
        published,
    )


def pixel_map(operation: str, amount: float, height: int, width: int) -> Tensor:
    """Return each pixel's source position in the flattened image, int64 ``[H * W]``.

    It is ``H * W`` if the source lies outside. ``amount`` is signed: degrees counterclockwise about
    the centre for Rotate; the slope, about the top left corner, for the shears; pixels, leftward or
    upward if positive, for the translations.
    """
    # The source of (x, y) is (ax + by + c, dx + ey + f).
    a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0
    if operation == "Rotate":
        cosine, sine = math.cos(math.radians(amount)), math.sin(math.radians(amount))
        x, y = width / 2, height / 2
        a, b, c = cosine, -sine, x - cosine * x + sine * y
        d, e, f = sine, cosine, y - sine * x - cosine * y
    elif operation == "ShearX":
        b = amount
    elif operation == "ShearY":
        d = amount
    elif operation == "TranslateX":
        c = amount
    else:
        f = amount
    columns, rows = torch.arange(width), torch.arange(height).unsqueeze(1)

    def coordinate(across: float, down: float, offset: float) -> Tensor:
        def fixed(number: float) -> int:
            return math.floor(number * 65536 + 0.5)

        # Pixel centres lie at half-integers.
        start = fixed(offset + 0.5 * across + 0.5 * down)
        return (start + fixed(across) * columns + fixed(down) * rows) >> 16

    column, row = coordinate(a, b, c), coordinate(d, e, f)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return torch.where(inside, row * width + column, height * width).flatten()


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Move the pixels of each image by its own map, int64 ``[B, H * W]``."""
    framed = F.pad(images.flatten(2), (0, 1))  # black, for sources outside
    index = maps.unsqueeze(1).expand(-1, images.shape[1], -1)
    return framed.gather(2, index).view(images.shape)


def lookup(images: Tensor, table: Tensor) -> Tensor:
    """Replace each value by its entry in a table, uint8 ``[B, 256]`` or ``[B, C or 1, 256]``."""
    values = images.flatten(2).long()
    return table.expand(-1, images.shape[1], -1).gather(2, values).view(images.shape)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch the values of each channel to 0..255; a constant channel is unchanged."""
    flat = images.flatten(2)
    low = flat.amin(2, keepdim=True).int()
    span = flat.amax(2, keepdim=True).int() - low
    value = torch.arange(256, device=images.device, dtype=torch.int32)
    stretched = ((value - low) * 255).div(span.clamp(min=1), rounding_mode="floor").clamp(0, 255)
    return lookup(images, torch.where(span > 0, stretched, value).to(torch.uint8))


def equalize(images: Tensor) -> Tensor:
    """Equalise the histogram of each channel.

    With ``h`` the histogram and ``step = (sum(h) - h[highest]) // 255``, the value ``v`` becomes
    ``(step // 2 + sum(h[:v])) // step``. If ``step`` is 0, nothing changes.
    """
    flat = images.flatten(2).long()
    one = torch.ones((), dtype=torch.int32, device=images.device)
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(2, flat, one.expand(flat.shape))
    highest = histogram.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - highest).div(255, rounding_mode="floor")
    below = histogram.cumsum(2, dtype=torch.int32) - histogram
    start = step.div(2, rounding_mode="floor") + below
    spread = start.div(step.clamp(min=1), rounding_mode="floor")
    value = torch.arange(256, device=images.device, dtype=torch.int32)
    return lookup(images, torch.where(step > 0, spread.clamp(max=255), value).to(torch.uint8))


def luminance(images: Tensor) -> Tensor:
    """Return the luminance, int32 ``[B, 1, H, W]``.

    Three channels are weighted as red, green and blue (ITU-R 601-2: .299, .587, .114, in Pillow's
    16-bit integers); any other number of channels is averaged.
    """
    values = images.int()
    if images.shape[1] == 3:
        red, green, blue = values.split(1, dim=1)
        return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    channels = images.shape[1]
    total = values.sum(1, keepdim=True, dtype=torch.int32)
    return (2 * total + channels).div(2 * channels, rounding_mode="floor")


def blend(base: Tensor, images: Tensor, factor: float) -> Tensor:
    """Return ``base + factor * (images - base)``, clipped and rounded down, uint8."""
    return (base + factor * (images.to(torch.float32) - base)).clamp(0, 255).to(torch.uint8)


def contrast(images: Tensor, factor: float) -> Tensor:
    """Scale values about the mean luminance: 0 is plain grey, 1 changes nothing."""
    grey = luminance(images).flatten(1)
    count = grey.shape[1]
    mean = (2 * grey.sum(1) + count).div(2 * count, rounding_mode="floor")
    return lookup(
        images, blend(mean.view(-1, 1, 1), torch.arange(256, device=images.device), factor)
    )


def sharpness(images: Tensor, factor: float) -> Tensor:
    """Scale pixels about their smoothed value: 0 is smooth, 1 changes nothing.

    Smoothing weights a pixel by 5/13 and its eight neighbours by 1/13 each. Border pixels, which
    lack neighbours, are unchanged.
    """
    height, width = images.shape[2:]
    if height < 3 or width < 3:
        return images
    values = images.to(torch.float32)
    of_rows = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    of_all = of_rows[..., :-2] + of_rows[..., 1:-1] + of_rows[..., 2:]
    inner = values[:, :, 1:-1, 1:-1]
    smooth = ((of_all + 4 * inner + 6.5) / 13).floor()
    sharpened = images.clone()
    sharpened[:, :, 1:-1, 1:-1] = blend(smooth, inner, factor)
    return sharpened


def grey_square(images: Tensor, centre: Tensor, made: Tables) -> Tensor:
    """Fill a square around ``centre`` (``[B, 2]``, row and column in [0, 1)) with grey.

    As in the published code, a square that would begin before the upper or left edge begins at the
    edge, with its whole side; beyond the other edges it is clipped.
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
    """Apply the operations of one of GROUPS; rows with an operation of another are undefined."""
    name = GROUPS[number][0]
    if GROUPS[number] is TONES:
        table = made.tones.index_select(0, operation.clamp(max=len(TONES) - 1))
        return lookup(images, table.unsqueeze(1))
    if GROUPS[number] is WARPS:
        which = (operation - OPERATIONS.index(WARPS[0])).clamp(0, len(WARPS) - 1)
        return warp(images, made.maps.index_select(0, 2 * which + mirror))
    if name == "Cutout":
        return grey_square(images, centre, made)
    if name in ("AutoContrast", "Equalize"):
        return autocontrast(images) if name == "AutoContrast" else equalize(images)
    if name == "Color":
        return blend(luminance(images), images, made.factor)
    return (contrast if name == "Contrast" else sharpness)(images, made.factor)


def apply_sorted(
    images: Tensor, operation: Tensor, mirror: Tensor, centre: Tensor, made: Tables
) -> Tensor:
    """Apply one operation per image, sorted by group; the host reads group sizes: for a CPU."""
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


def apply_masked(
    images: Tensor, operation: Tensor, mirror: Tensor, centre: Tensor, made: Tables
) -> Tensor:
    """Apply one operation per image by running every group on the whole batch; for a GPU."""
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
    """Apply to each image its own operations, in sequence.

    - ``images``: uint8 ``[B, C, H, W]``; the memory format is kept.
    - ``operations``: int64 ``[N, B]``: positions in :data:`OPERATIONS`.
    - ``mirror``: int64 ``[N, B]``, 0 or 1: whether rotations, shears and translations are reversed.
    - ``centres``: float ``[N, B, 2]`` in [0, 1): row and column of the centre of Cutout's square.
    - ``magnitude``, ``fidelity``: as for :func:`level`.
    """
    made = tables(magnitude, fidelity, tuple(images.shape[1:]), images.device)
    step = apply_sorted if images.device.type == "cpu" else apply_masked
    result = images.contiguous()
    for drawn in zip(operations, mirror, centres, strict=True):
        result = step(result, *drawn, made)
    if is_interleaved(images):
        return result.contiguous(memory_format=torch.channels_last)
    return result


@dataclass
class RandAugment:
    """``n`` of the 16 operations per image, drawn uniformly with replacement; then crop and flip.

    The operations come first, as in the published code (and Cubuk et al.'s), because the black
    padding of the crop would affect AutoContrast, Equalize and Contrast.

    - ``n``: operations per image, at least 0.
    - ``m``, ``fidelity``: magnitude, in [0, 30], and the version of the levels: see :func:`level`.
    - ``flip``: whether the crop afterwards also flips.
    """

    n: int = 2
    m: float = 4
    flip: bool = True
    fidelity: str = "default"

    name = "randaugment"

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Augment uint8 ``[B, C, H, W]`` to the same shape."""
        check_images(images, self.name)
        shape, device = (self.n, len(images)), images.device
        operations = torch.randint(len(OPERATIONS), shape, generator=generator, device=device)
        mirror = torch.randint(2, shape, generator=generator, device=device)
        centres = torch.rand(*shape, 2, generator=generator, device=device)
        changed = randaugment(images, operations, mirror, centres, self.m, self.fidelity)
        return unmixed(Standard(self.flip).crop(changed, generator))
