"""The outlines of the shapes, as functions of a point: negative inside, zero on the edge.

Coordinates are right and up, arrays of any shape. Each outline fits into the unit
circle, roughly. All look the same in a mirror, or stay what they are. Distances
are exact or nearly so close to the edge, which is what smooth edges need. Only
correctly rounded operations are used (see `budgetlab.data.shapes`). The
constructions are the usual ones of signed distance functions: half planes cut
(maximum) and parts joined (minimum), a mirror axis taken by the absolute value.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["OUTLINES"]

Array = np.ndarray
HALF = np.float32(0.5)
HALF_SQRT2 = np.float32(0.70710678)
HALF_SQRT3 = np.float32(0.8660254)
# Cosine and sine of 18 and 36 degrees: corners of the five-pointed star.
COS18, SIN18 = np.float32(0.95105652), np.float32(0.30901699)
COS36, SIN36 = np.float32(0.80901699), np.float32(0.58778525)


def length(x: Array, y: Array) -> Array:
    """Distance from the origin."""
    return np.sqrt(x * x + y * y)


def box(x: Array, y: Array, width: float, height: float) -> Array:
    """Upright box of half width and half height."""
    return np.maximum(abs(x) - width, abs(y) - height)


def circle(x: Array, y: Array) -> Array:
    """A disc."""
    return length(x, y) - 0.85


def ring(x: Array, y: Array) -> Array:
    """A disc with a hole."""
    return abs(length(x, y) - 0.7) - 0.2


def crescent(x: Array, y: Array) -> Array:
    """A disc less a smaller one, to its right."""
    return np.maximum(length(x, y) - 0.9, 0.72 - length(x - 0.42, y))


def triangle(x: Array, y: Array) -> Array:
    """Three equal sides, on its base."""
    return np.maximum(HALF_SQRT3 * abs(x) + HALF * y, -y) - HALF


def square(x: Array, y: Array) -> Array:
    """On its base."""
    return box(x, y, 0.72, 0.72)


def star(x: Array, y: Array) -> Array:
    """Five points: inside at least four of the five half planes of a pentagram.

    So the second largest of the five distances decides.
    """
    largest, second = y, np.full_like(y, -9)
    for plane in (
        COS18 * x + SIN18 * y,
        SIN18 * y - COS18 * x,
        SIN36 * x - COS36 * y,
        -SIN36 * x - COS36 * y,
    ):
        second = np.maximum(second, np.minimum(largest, plane))
        largest = np.maximum(largest, plane)
    return second - np.float32(0.34)


def heart(x: Array, y: Array) -> Array:
    """A square on its corner with a disc on each of the two upper edges."""
    x, y = abs(x), y + np.float32(0.08)
    lobes = length(x - np.float32(0.375), y - np.float32(0.375)) - np.float32(0.53)
    return np.minimum(lobes, (x + abs(y) - np.float32(0.75)) * HALF_SQRT2)


def cross(x: Array, y: Array) -> Array:
    """Two bars of equal length."""
    return np.minimum(box(x, y, 0.9, 0.28), box(x, y, 0.28, 0.9))


def arrow(x: Array, y: Array) -> Array:
    """Points up: a head over a shaft."""
    head = np.maximum((abs(x) + y - 0.95) * HALF_SQRT2, 0.1 - y)
    return np.minimum(head, box(x, y + 0.4, 0.22, 0.55))


def drop(x: Array, y: Array) -> Array:
    """A disc with a tip above it, along the two tangents."""
    y = y + 0.3
    ball = length(x, y) - 0.58
    tip = np.maximum(HALF_SQRT3 * abs(x) + HALF * y - 0.58, 0.29 - y)
    return np.minimum(ball, tip)


OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    function.__name__: function
    for function in (circle, ring, crescent, triangle, square, star, heart, cross, arrow, drop)
}
