"""The operations of RandAugment: those that change values, and those that move pixels.

Most of the first send each value to another one, whatever its neighbours are: a table
of 256 entries an image (or an image and channel), applied in one gather. The values
are those of Pillow's ``ImageOps`` and ``ImageEnhance`` on uint8 images, within one
grey level: Pillow rounds some products of floats down where integers here do not.

Of the second each pixel of the result takes the value of one source pixel (nearest
neighbour) or black where the source lies outside. Coordinates are in 16.16 fixed point, as
in Pillow's ``Image.transform``, so the pixels are Pillow's and the same on every device.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "WARPS",
    "autocontrast_table",
    "brightness_table",
    "color",
    "contrast_table",
    "equalize_table",
    "invert_table",
    "lookup",
    "luminance",
    "pixel_map",
    "posterize_table",
    "sharpness",
    "solarize_add_table",
    "solarize_table",
    "warp",
]


def lookup(images: Tensor, table: Tensor) -> Tensor:
    """Replace each value by its entry in a table.

    Parameters
    ----------
    images
        uint8 ``[B, C, H, W]``.
    table
        uint8 ``[B, C, 256]``, or ``[B, 1, 256]`` for the same in every channel.

    Returns
    -------
    Tensor
        uint8 ``[B, C, H, W]``.
    """
    values = images.flatten(2).long()
    return table.expand(-1, images.shape[1], -1).gather(2, values).view(images.shape)


def invert_table() -> Tensor:
    """Make the table ``[256]`` of ``255 - v``."""
    return torch.arange(255, -1, -1).to(torch.uint8)


def posterize_table(bits: int) -> Tensor:
    """Make the table ``[256]`` that keeps the highest ``bits`` (0 to 8) of a value."""
    return (torch.arange(256) & (0xFF << (8 - bits))).to(torch.uint8)


def solarize_table(threshold: float) -> Tensor:
    """Make the table ``[256]`` that inverts the values from ``threshold`` on."""
    value = torch.arange(256)
    return torch.where(value < threshold, value, 255 - value).to(torch.uint8)


def solarize_add_table(addition: int, published: bool = False) -> Tensor:
    """Make the table ``[256]`` of SolarizeAdd, which Pillow does not have.

    ``addition`` (0 to 110) is added to the values below 128, and only to them, as in
    the code of Cubuk et al. The published run used a re-implementation that adds to
    every value, clips at 255, and then inverts what is 128 or more.
    """
    value = torch.arange(256)
    brighter = (value + addition).clamp(max=255)
    if published:
        return torch.where(brighter < 128, brighter, 255 - brighter).to(torch.uint8)
    return torch.where(value < 128, brighter, value).to(torch.uint8)


def brightness_table(factor: float) -> Tensor:
    """Make the table ``[256]`` of ``factor * v``, clipped: 0 is black, 1 changes nothing."""
    return (torch.arange(256) * factor).clamp(0, 255).to(torch.uint8)


def autocontrast_table(images: Tensor) -> Tensor:
    """Make the tables ``[B, C, 256]`` that stretch each channel's values to 0..255.

    A channel of one value stays as it is.
    """
    flat = images.flatten(2)
    low = flat.amin(2, keepdim=True).int()
    span = flat.amax(2, keepdim=True).int() - low
    value = torch.arange(256, device=images.device, dtype=torch.int32)
    stretched = ((value - low) * 255).div(span.clamp(min=1), rounding_mode="floor").clamp(0, 255)
    return torch.where(span > 0, stretched, value).to(torch.uint8)


def equalize_table(images: Tensor) -> Tensor:
    """Make the tables ``[B, C, 256]`` that spread each channel's values evenly.

    With ``h`` the histogram and ``step = (sum(h) - h[highest]) // 255``, the value ``v``
    becomes ``(step // 2 + sum(h[:v])) // step``. Where ``step`` is 0, nothing changes.
    """
    flat = images.flatten(2).long()
    one = torch.ones((), dtype=torch.int32, device=images.device)
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(2, flat, one.expand(flat.shape))
    highest = histogram.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - highest).div(255, rounding_mode="floor")
    below = histogram.cumsum(2, dtype=torch.int32) - histogram
    spread = (step.div(2, rounding_mode="floor") + below).div(
        step.clamp(min=1), rounding_mode="floor"
    )
    value = torch.arange(256, device=images.device, dtype=torch.int32)
    return torch.where(step > 0, spread.clamp(max=255), value).to(torch.uint8)


def luminance(images: Tensor) -> Tensor:
    """Return the grey image, int32 ``[B, 1, H, W]``.

    Of three channels as red, green and blue (ITU-R 601-2: .299, .587, .114, in
    Pillow's 16-bit integers); of any other number, the plain mean.
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


def contrast_table(images: Tensor, factor: float) -> Tensor:
    """Make the tables ``[B, 1, 256]`` that pull values away from the mean luminance.

    A factor of 0 is plain grey, 1 changes nothing.
    """
    grey = luminance(images).flatten(1)
    count = grey.shape[1]
    mean = (2 * grey.sum(1) + count).div(2 * count, rounding_mode="floor")
    return blend(mean.view(-1, 1, 1), torch.arange(256, device=images.device), factor)


def color(images: Tensor, factor: float) -> Tensor:
    """Pull colours away from grey: a factor of 0 is a grey image, 1 changes nothing."""
    return blend(luminance(images), images, factor)


def sharpness(images: Tensor, factor: float) -> Tensor:
    """Pull pixels away from their smoothed value: 0 is smooth, 1 changes nothing.

    The smoothing weighs a pixel 5/13 and its eight neighbours 1/13 each. The pixels
    on the border, which lack neighbours, are left as they are.
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


WARPS = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")

Affine = tuple[float, float, float, float, float, float]


def affine(operation: str, amount: float, height: int, width: int) -> Affine:
    """Return ``(a, b, c, d, e, f)``: the source of ``(x, y)`` is ``(ax+by+c, dx+ey+f)``.

    Parameters
    ----------
    operation
        One of :data:`WARPS`.
    amount
        Signed: degrees counterclockwise about the centre for Rotate; the slope, about
        the top left corner, for the shears; pixels, leftward or upward where positive,
        for the translations.
    height, width
        Size of the image in pixels.
    """
    if operation == "Rotate":
        cosine, sine = math.cos(math.radians(amount)), math.sin(math.radians(amount))
        x, y = width / 2, height / 2
        return cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y
    slope_x = amount if operation == "ShearX" else 0.0
    slope_y = amount if operation == "ShearY" else 0.0
    shift_x = amount if operation == "TranslateX" else 0.0
    shift_y = amount if operation == "TranslateY" else 0.0
    return 1.0, slope_x, shift_x, slope_y, 1.0, shift_y


def pixel_map(operation: str, amount: float, height: int, width: int) -> Tensor:
    """Return where each pixel comes from.

    Parameters
    ----------
    operation, amount, height, width
        As for :func:`affine`.

    Returns
    -------
    Tensor
        int64 ``[H * W]`` on the CPU: the position of the source pixel in the flattened
        image, or ``H * W`` where the source lies outside.
    """
    a, b, c, d, e, f = affine(operation, amount, height, width)
    x, y = torch.arange(width), torch.arange(height).unsqueeze(1)

    def coordinate(across: float, down: float, offset: float) -> Tensor:
        def fixed(number: float) -> int:
            return math.floor(number * 65536 + 0.5)

        # Pixel centres lie at half-integers.
        start = fixed(offset + 0.5 * across + 0.5 * down)
        return (start + fixed(across) * x + fixed(down) * y) >> 16

    column, row = coordinate(a, b, c), coordinate(d, e, f)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return torch.where(inside, row * width + column, height * width).flatten()


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Move the pixels of each image by its own map.

    Parameters
    ----------
    images
        ``[B, C, H, W]``, any dtype.
    maps
        int64 ``[B, H * W]``, as of :func:`pixel_map`.

    Returns
    -------
    Tensor
        ``[B, C, H, W]``; black (0) where a map points outside.
    """
    framed = F.pad(images.flatten(2), (0, 1))
    index = maps.unsqueeze(1).expand(-1, images.shape[1], -1)
    return framed.gather(2, index).view(images.shape)
