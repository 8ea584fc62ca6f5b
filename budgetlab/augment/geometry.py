"""Operations that move pixels: rotation, shears and translations.

Each pixel of the result takes the value of one source pixel (nearest neighbour) or
black where the source lies outside. Coordinates are in 16.16 fixed point, as in
Pillow's ``Image.transform``, so the pixels are Pillow's and the same on every device.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["WARPS", "pixel_map", "warp"]

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
