"""Rendered images of ten shapes with known difficulty.

Every image has a difficulty in [0, 1], mostly near 0 and rarely near 1. It sets how far the shape
is moved, shrunk, turned and squashed, how faint it is, how much clutter surrounds and covers it,
and how much blur and noise is added. Hard images are also rarer in style (striped, dark on light,
far from upright): people still recognise them and a network learns them, but late, which is what
importance sampling hopes to exploit. A few are blends of two shapes, labelled as either one and
marked as ambiguous.

The same seed gives the same bytes on every machine: only operations that IEEE 754 rounds in one
way are used (+, -, *, /, square root, comparisons), one NumPy operation at a time; no sine,
exponential, matrix product or sum over an axis, whose last bit depends on the processor. Angles
are given by the tangent of their half, which needs no sine either.

The amounts were chosen so that longer training helps: with ``small``, from 12 to 30 epochs at full
budget, accuracy stays at 99 percent at difficulty 0.05 to 0.2, and rises from 82 to 91 at 0.2 to
0.5, from 44 to 56 at 0.5 to 0.8, and from 21 to 31 above.
"""

from collections.abc import Callable

import numpy as np

# Outlines as signed distances, exact or approximate: negative inside, zero on the edge.
# Coordinates point right and up; each shape roughly fits the unit circle, and is of the same class
# when mirrored. The maximum intersects half planes, the minimum joins parts, and the absolute
# value mirrors at an axis.
Array = np.ndarray
HALF = np.float32(0.5)
HALF_SQRT2 = np.float32(0.70710678)
HALF_SQRT3 = np.float32(0.8660254)
# Cosine and sine of 18 and 36 degrees: corners of the five-pointed star.
COS18, SIN18 = np.float32(0.95105652), np.float32(0.30901699)
COS36, SIN36 = np.float32(0.80901699), np.float32(0.58778525)


def length(x: Array, y: Array) -> Array:
    """Return the distance from the origin."""
    return np.sqrt(x * x + y * y)


def box(x: Array, y: Array, width: float, height: float) -> Array:
    """Upright box of half width and half height."""
    return np.maximum(abs(x) - width, abs(y) - height)


def star(x: Array, y: Array) -> Array:
    """Pentagram: inside at least four of its five half planes, so the second largest decides."""
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


def arrow(x: Array, y: Array) -> Array:
    """Arrow that points up: a head over a shaft."""
    head = np.maximum((abs(x) + y - 0.95) * HALF_SQRT2, 0.1 - y)
    return np.minimum(head, box(x, y + 0.4, 0.22, 0.55))


def drop(x: Array, y: Array) -> Array:
    """A disc with a tip above it, along the two tangents."""
    y = y + 0.3
    tip = np.maximum(HALF_SQRT3 * abs(x) + HALF * y - 0.58, 0.29 - y)
    return np.minimum(length(x, y) - 0.58, tip)


OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: length(x, y) - 0.85,
    "ring": lambda x, y: abs(length(x, y) - 0.7) - 0.2,
    # A disc minus a smaller one to its right.
    "crescent": lambda x, y: np.maximum(length(x, y) - 0.9, 0.72 - length(x - 0.42, y)),
    # Equilateral, on its base.
    "triangle": lambda x, y: np.maximum(HALF_SQRT3 * abs(x) + HALF * y, -y) - HALF,
    "square": lambda x, y: box(x, y, 0.72, 0.72),
    "star": star,
    "heart": heart,
    "cross": lambda x, y: np.minimum(box(x, y, 0.9, 0.28), box(x, y, 0.28, 0.9)),
    "arrow": arrow,
    "drop": drop,
}
CLASSES = tuple(OUTLINES)
SIZE = 32
AMBIGUOUS_SHARE = 0.03
CLUTTER, OCCLUDERS = 6, 3
# Images rendered at once: few enough for the work arrays to stay in cache.
# Random numbers are drawn chunk by chunk, so another value gives another data set.
CHUNK = 250


def draw(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Render ``count`` images of balanced classes in random order.

    ``x`` is uint8 ``[N, 3, 32, 32]``; ``y`` int64 ``[N]``; ``difficulty`` float64 ``[N]`` in
    [0, 1]; ``other_label`` int64 ``[N]``, the second class of a blend, else -1.
    """
    y = generator.permutation(np.arange(count) % len(CLASSES))
    u = generator.random(count)
    nuisance = u * u * u * u
    ambiguous = generator.random(count) < AMBIGUOUS_SHARE
    other = (y + generator.integers(1, len(CLASSES), count)) % len(CLASSES)
    share = np.where(ambiguous, 0.4 + 0.2 * generator.random(count), 0.0)
    x = np.empty((count, 3, SIZE, SIZE), np.uint8)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        x[part] = _images(y[part], other[part], share[part], nuisance[part], generator)
    # An even blend is ambiguous, however clean the image.
    blended = np.where(ambiguous, 1 - abs(1 - 2 * share), 0.0)
    difficulty, other = np.maximum(nuisance, blended), np.where(ambiguous, other, -1)
    return {"x": x, "y": y, "difficulty": difficulty, "other_label": other}


def _images(
    y: np.ndarray,
    other: np.ndarray,
    share: np.ndarray,
    nuisance: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Render one chunk, uint8 ``[n, 3, 32, 32]``."""
    brush = _Brush(nuisance, generator)
    shape_colour, ground_colour = brush.colours()
    image = brush.ground(ground_colour)
    for _ in range(CLUTTER):
        brush.speck(image, likely=brush.by_difficulty(0.05, 0.5), largest=4.0)
    coverage = brush.shape(y, other, share)
    _paint(image, shape_colour, coverage)
    for _ in range(OCCLUDERS):
        brush.speck(image, likely=brush.by_difficulty(0.0, 0.3), largest=3.0)
    return _to_bytes(brush.grain(brush.blur(image)))


class _Brush:
    """Renders the parts of a chunk of images, given the nuisance of each image.

    Arrays are float32 ``[n, 32, 32]``, with a leading axis for channels if there are any; one
    number per image is ``[n, 1, 1]``.
    """

    def __init__(self, nuisance: np.ndarray, generator: np.random.Generator):
        self.count = len(nuisance)
        self.nuisance = nuisance.astype(np.float32).reshape(-1, 1, 1)
        self.generator = generator
        middle = np.arange(SIZE, dtype=np.float32) - np.float32(SIZE / 2 - 0.5)
        self.right = middle.reshape(1, 1, SIZE)
        self.up = -middle.reshape(1, SIZE, 1)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Draw one number per image."""
        drawn = self.generator.random((self.count, 1, 1), np.float32)
        return np.float32(low) + np.float32(high - low) * drawn

    def by_difficulty(self, easy: float, hard: float) -> np.ndarray:
        """Interpolate a setting between two values by the nuisance."""
        return np.float32(easy) + np.float32(hard - easy) * self.nuisance

    def colours(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw colours of shape and ground, ``[3, n, 1, 1]``, with a contrast by difficulty."""
        direction = np.stack([self.by_difficulty(0.3, -1.0) for _ in range(3)])
        direction += (1 - direction) * np.stack([self.uniform() for _ in range(3)])
        direction /= abs(direction).max(axis=0)
        darker = self.uniform() < self.by_difficulty(0.05, 0.5)
        step = np.where(darker, -direction, direction) * self.by_difficulty(0.8, 0.4)
        # Draw the ground so that the shape's colour stays within [0, 1].
        room = np.stack([self.uniform() for _ in range(3)]) * (1 - abs(step))
        ground = room + np.maximum(-step, 0)
        return ground + step, ground

    def ground(self, colour: np.ndarray) -> np.ndarray:
        """Draw a background that fades across the image."""
        slope_x, slope_y = self.uniform(-1, 1), self.uniform(-1, 1)
        ramp = (slope_x * self.right + slope_y * self.up) * np.float32(1 / SIZE)
        strength = self.by_difficulty(0.15, 0.45)
        tint = np.stack([self.uniform(-1, 1) for _ in range(3)])
        return colour + tint * (ramp * strength)

    def random_rotation(self, limit: np.ndarray | np.float32) -> tuple[np.ndarray, np.ndarray]:
        """Draw angles by the tangent of their half, up to ``limit``; return cosine and sine."""
        tangent = limit * self.uniform(-1, 1)
        squared = tangent * tangent
        return (1 - squared) / (1 + squared), 2 * tangent / (1 + squared)

    def shape(self, y: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Compute how far the shape covers each pixel, in [0, 1]."""
        radius = self.by_difficulty(11.5, 7.5) * self.uniform(0.88, 1.12)
        max_shift = self.by_difficulty(2.0, 5.0)
        right = self.right - max_shift * self.uniform(-1, 1)
        up = self.up - max_shift * self.uniform(-1, 1)
        cosine, sine = self.random_rotation(self.by_difficulty(0.1, 1.0))
        squash = 1 + self.by_difficulty(0.05, 0.3) * self.uniform(-1, 1)
        x = (cosine * right + sine * up) / (radius * squash)
        z = (cosine * up - sine * right) * squash / radius
        distance = np.empty_like(x)
        for label, name in enumerate(CLASSES):
            mine = np.flatnonzero(y == label)
            distance[mine] = OUTLINES[name](x[mine], z[mine])
        for label, name in enumerate(CLASSES):
            blend = np.flatnonzero((other == label) & (share > 0))
            weight = share[blend].astype(np.float32).reshape(-1, 1, 1)
            second = OUTLINES[name](x[blend], z[blend])
            distance[blend] = (1 - weight) * distance[blend] + weight * second
        edge = np.clip(np.float32(0.5) - distance * radius, 0, 1)
        return edge * self.stripes(right, up)

    def stripes(self, right: np.ndarray, up: np.ndarray) -> np.ndarray:
        """Draw the opacity of the fill: 1, or in some images bars four to six pixels apart."""
        striped = (self.uniform() < self.by_difficulty(0.0, 0.6)).ravel()
        cosine, sine = self.random_rotation(np.float32(1))
        apart = self.uniform(4, 6)
        bars = np.ones((self.count, SIZE, SIZE), np.float32)
        along = cosine[striped] * right[striped] + sine[striped] * up[striped]
        along /= apart[striped]
        wave = abs(along - np.floor(along) - np.float32(0.5))
        bars[striped] = np.clip(wave * 6 - np.float32(0.5), 0, 1)
        return bars

    def speck(self, image: np.ndarray, likely: np.ndarray, largest: float) -> None:
        """Paint a small disc or bar of a random colour over some of the images."""
        has_speck = (self.uniform() < likely).ravel()
        # Numbers are drawn for every image, but only the few with the speck are painted.
        right = self.right - self.uniform(-SIZE / 2, SIZE / 2)[has_speck]
        up = self.up - self.uniform(-SIZE / 2, SIZE / 2)[has_speck]
        cosine, sine = (part[has_speck] for part in self.random_rotation(np.float32(1)))
        size = self.uniform(1, largest)[has_speck]
        along, across = cosine * right + sine * up, cosine * up - sine * right
        bar = np.maximum(abs(along) - 2 * size, abs(across) - size * np.float32(0.4))
        disc = np.sqrt(along * along + across * across) - size
        distance = np.where((self.uniform() < 0.5)[has_speck], bar, disc)
        colour = np.stack([self.uniform() for _ in range(3)])[:, has_speck]
        painted = image[:, has_speck]
        _paint(painted, colour, np.clip(np.float32(0.5) - distance, 0, 1))
        image[:, has_speck] = painted

    def blur(self, image: np.ndarray) -> np.ndarray:
        """Smooth with (1, 2, 1)/4 along both axes, up to three times, the last time in part."""
        amount = self.by_difficulty(0.0, 1.5) * self.uniform()
        for step in range(3):
            blurred = (amount > step).ravel()
            sharp = image[:, blurred]
            strength = np.clip(amount[blurred] - step, 0, 1)
            image[:, blurred] = sharp + strength * (_smooth(_smooth(sharp, 3), 2) - sharp)
        return image

    def grain(self, image: np.ndarray) -> np.ndarray:
        """Add noise, close to normal: the sum of four uniform bytes."""
        shape = (4, 3, self.count, SIZE, SIZE)
        first, second, third, fourth = self.generator.integers(0, 256, shape, np.uint8)
        total = first.astype(np.int16) + second + third + fourth - 510
        # Four uniform bytes have a standard deviation of 147.8.
        scale = self.by_difficulty(0.01, 0.06) * np.float32(1 / 147.8)
        return image + total.astype(np.float32) * scale


def _paint(image: np.ndarray, colour: np.ndarray, coverage: np.ndarray) -> None:
    """Blend a colour into an image, in place."""
    image += (colour - image) * coverage


def _smooth(image: np.ndarray, axis: int) -> np.ndarray:
    """Average each pixel with its two neighbours along an axis, repeating edges."""
    width = [(1, 1) if k == axis else (0, 0) for k in range(image.ndim)]
    padded = np.pad(image, width, mode="edge")
    before = np.take(padded, np.arange(SIZE), axis)
    after = np.take(padded, np.arange(2, SIZE + 2), axis)
    return (before + after) * np.float32(0.25) + image * np.float32(0.5)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    """Convert ``[3, n, 32, 32]`` on the 0..1 scale to uint8 ``[n, 3, 32, 32]``."""
    levels = np.floor(np.clip(image, 0, 1) * 255 + np.float32(0.5))
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 0, 2, 3))
