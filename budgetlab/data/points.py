"""Two-dimensional problems whose densities, and so whose difficulty, are known.

Each problem is a mixture: the density of every class can be written down, and
the difficulty of a point is how little the best possible classifier could be
sure of its label. numpy only.
"""

import numpy as np

from budgetlab.errors import unknown

__all__ = ["PROBLEMS", "draw", "posterior"]

PROBLEMS = {
    "moons": "two interleaved half circles that overlap",
    "spirals": "two noisy spiral arms",
    "blobs": "three round clouds, of 80%, 16% and 4% of the points",
}
MOON_NOISE = 0.22
SPIRAL_NOISE = 0.18
BLOB_CENTRES = ((0.0, 0.0), (2.2, 1.0), (-0.4, 2.4))
BLOB_SHARES = (0.80, 0.16, 0.04)
BLOB_SPREAD = 0.8
# Places along a curve at which its density is summed up: the curves are a few
# units long, so neighbours lie much closer than the noise is wide.
NODES = 200


def draw(problem: str, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw points of one problem.

    Difficulty is ``1 - P(y | x)`` under the true densities: near 0 deep inside a class, near 1
    for a point that fell among the others. A point is ambiguous where no class has over 60%.

    Parameters
    ----------
    problem
        One of :data:`PROBLEMS`.
    count
        Number of points.

    Returns
    -------
    dict
        ``x`` float32 ``[N, 2]``; ``y`` int64 ``[N]``; ``difficulty`` float64 ``[N]`` in [0, 1];
        ``other_label`` int64 ``[N]``, the class nearly as likely as ``y`` for an ambiguous
        point, else -1.
    """
    if problem not in PROBLEMS:
        raise unknown("points problem", problem, PROBLEMS)
    curves, spread, shares = _mixture(problem)
    y = _labels(count, shares, generator)
    place = generator.integers(0, len(curves[0]), count)
    x = np.stack(curves)[y, place] + spread * generator.standard_normal((count, 2))
    chance = posterior(problem, x)
    rows = np.arange(count)
    others = chance.copy()
    others[rows, y] = -1
    ambiguous = chance.max(axis=1) < 0.6
    return {
        "x": x.astype(np.float32), "y": y, "difficulty": np.clip(1 - chance[rows, y], 0.0, 1.0),
        "other_label": np.where(ambiguous, others.argmax(axis=1), -1),
    }  # fmt: skip


def posterior(problem: str, x: np.ndarray) -> np.ndarray:
    """Probability of each class at given points, under the true densities.

    Parameters
    ----------
    problem
        One of :data:`PROBLEMS`.
    x
        Points ``[N, 2]``.

    Returns
    -------
    numpy.ndarray
        float64 ``[N, C]``; rows sum to 1. The best possible classifier picks the
        largest.
    """
    curves, spread, shares = _mixture(problem)
    logs = []
    for curve, share in zip(curves, shares, strict=True):
        squared = ((x[:, None, :] - curve[None]) ** 2).sum(axis=2)
        exponent = -squared / (2 * spread**2)
        peak = exponent.max(axis=1)
        inside = np.exp(exponent - peak[:, None]).mean(axis=1)
        logs.append(np.log(share) + peak + np.log(inside))
    stacked = np.stack(logs, axis=1)
    weights = np.exp(stacked - stacked.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _mixture(problem: str) -> tuple[list[np.ndarray], float, tuple[float, ...]]:
    """Curves ``[nodes, 2]`` of each class, the noise around them, and class shares."""
    if problem == "blobs":
        return [np.array([centre]) for centre in BLOB_CENTRES], BLOB_SPREAD, BLOB_SHARES
    along = (np.arange(NODES) + 0.5) / NODES
    if problem == "moons":
        angle = np.pi * along
        upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return [upper, np.array([1.0, 0.5]) - upper], MOON_NOISE, (0.5, 0.5)
    # The radius grows with the angle; the square root spreads points evenly.
    turn = np.sqrt(0.04 + 0.96 * along)
    arms = []
    for arm in range(2):
        angle = 2 * np.pi * (1.4 * turn + arm / 2)
        arms.append(2 * turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return arms, SPIRAL_NOISE, (0.5, 0.5)


def _labels(count: int, shares: tuple[float, ...], generator: np.random.Generator) -> np.ndarray:
    """Labels in the given shares, exact up to rounding, in random order."""
    ends = np.rint(np.cumsum(shares) * count).astype(np.int64)
    sizes = np.diff(ends, prepend=0)
    return generator.permutation(np.repeat(np.arange(len(shares)), sizes))
