"""Two-dimensional points: what a network predicts around them, and which were picked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from budgetlab.errors import InputError
from budgetlab.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CLASSES", "MARGIN", "SHAPES", "extent_of", "points_map", "sizes", "surface_colours"]

CLASSES = style.COLOURS[:3]
SHAPES = ("o", "s", "^")
USUAL, SMALLEST, LARGEST = 14.0, 2.0, 90.0
MARGIN = 0.06


def points_map(
    x: np.ndarray,
    y: np.ndarray,
    *,
    chance: np.ndarray | None = None,
    picked: np.ndarray | None = None,
    surface: tuple[np.ndarray, np.ndarray] | None = None,
    numbered: Sequence[int] = (),
    shade: bool = False,
    title: str = "",
    ax: "Axes | None" = None,
) -> "Axes":
    """Which points are drawn, and where does the network stand? Their chance, the decision.

    The diameter of a point is in proportion to its chance; a picked point has a dark
    edge. Behind the points lies the predicted class, paler where the network is less
    sure.

    Parameters
    ----------
    x, y
        Points ``[N, 2]`` and their labels ``[N]``, whole numbers from 0.
    chance
        ``[N]``, at least 0: times that of a uniform draw, so that 1 is a usual point; 1
        where NaN or not given.
    picked
        ``[N]``: a number above 0, or True, for a point that is trained on.
    surface
        Two grids ``[G, G]`` over :func:`extent_of` the points, first row lowest: the
        predicted class and its probability, such as ``winner`` and ``sure`` of
        :class:`budgetlab.explore.points.Frame`.
    numbered
        Points to mark, by their number.
    shade
        Show the chance by how deep the colour of a point is, in place of its size.
    title
        Above the points.

    Raises
    ------
    InputError
        If the shapes do not fit each other.
    """
    from matplotlib.colors import to_rgb

    x, y = np.asarray(x, float), np.asarray(y).astype(int)
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1] or not len(x):
        raise InputError(
            f"points of shape {x.shape} and labels of shape {y.shape} do not fit: give "
            "[N, 2] and [N], at least one"
        )
    factor = np.ones(len(x)) if chance is None else np.nan_to_num(_each(chance, x), nan=1.0)
    taken = None if picked is None else _each(picked, x) > 0
    ax = style.axes(ax, (5.2, 4.4))
    left, right, bottom, top = extent_of(x)
    if surface is not None:
        ax.imshow(surface_colours(*surface), extent=(left, right, bottom, top), origin="lower",
                  aspect="auto", interpolation="bilinear")  # fmt: skip
    for k in range(int(y.max()) + 1):
        rows = y == k
        dark = np.zeros(rows.sum(), bool) if taken is None else taken[rows]
        edges = [style.INK if inside else "white" for inside in dark]
        area: Any = sizes(factor[rows])
        colours = np.tile(to_rgb(CLASSES[k % 3]), (len(area), 1))
        if shade:
            depth = np.clip(factor[rows] / max(2.0, factor.max()), 0.08, 1)[:, None]
            area, colours = 1.6 * USUAL, 1 - depth * (1 - colours)
        ax.scatter(x[rows, 0], x[rows, 1], s=area, marker=SHAPES[k % 3], facecolors=colours,
                   edgecolors=edges, linewidths=0.8, label=f"class {k}",
                   rasterized=True)  # fmt: skip
    for number in numbered:
        ax.annotate(str(number), x[number], xytext=(9, 7), textcoords="offset points",
                    fontsize=9, color=style.INK, arrowprops={"arrowstyle": "-", "lw": 0.8},
                    bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"})  # fmt: skip
    style.finish(ax, title=title, text=_in_words(title, factor, taken, surface, chance is None))
    ax.grid(False)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    return ax


def extent_of(x: np.ndarray) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of points ``[N, 2]``, with a margin around them."""
    x = np.asarray(x, float)
    low, high = x.min(axis=0), x.max(axis=0)
    room = MARGIN * (high - low)
    (left, bottom), (right, top) = low - room, high + room
    return float(left), float(right), float(bottom), float(top)


def sizes(chance: np.ndarray) -> np.ndarray:
    """Area of each point, in square points: the diameter grows with the chance ``[N]``."""
    return np.clip(USUAL * np.asarray(chance, float) ** 2, SMALLEST, LARGEST)


def surface_colours(winner: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Colour each place by its class, paler where the network is less sure.

    Parameters
    ----------
    winner, sure
        Grids ``[G, G]``: the class predicted at each place, and its probability.

    Returns
    -------
    numpy.ndarray
        uint8 ``[G, G, 3]``.
    """
    from matplotlib.colors import to_rgb

    colours = np.array([to_rgb(colour) for colour in CLASSES])[np.asarray(winner) % 3]
    lowest = 1 / max(2, int(np.max(winner)) + 1)
    strength = np.clip((np.asarray(sure) - lowest) / (1 - lowest), 0, 1)[:, :, None]
    return (255 * (1 - 0.4 * strength * (1 - colours))).astype(np.uint8)


def _each(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if values.shape != x.shape[:1]:
        raise InputError(
            f"values of shape {values.shape} do not fit {len(x)} points: give one a point"
        )
    return values


def _in_words(
    title: str, factor: np.ndarray, taken: np.ndarray | None, surface: object, even: bool
) -> str:
    parts = [f"{title or 'Points'}: {len(factor):,} points"]
    if not even:
        parts.append(f"their chance from {factor.min():.3g} to {factor.max():.3g} times usual")
    if taken is not None:
        parts.append(f"{int(taken.sum()):,} picked")
    if surface is not None:
        parts.append("before the classes that the network predicts")
    return ", ".join(parts) + "."
