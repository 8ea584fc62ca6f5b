"""Grids of images with their values, and maps of 2-D points with a network's decision surface."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.analysis import measures
from budgetlab.analysis.per_sample import check_measure
from budgetlab.errors import InputError, counted, unknown
from budgetlab.plots import style
from budgetlab.records import OneRecord, Record, open_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES, SHAPES = style.COLOURS[:3], ("o", "s", "^")
USUAL, SMALLEST, LARGEST = 14.0, 2.0, 90.0
MARGIN = 0.06


def image_grid(
    data: OneRecord | pd.DataFrame,
    by: str = "times_trained",
    *,
    highest: bool = True,
    count: int = 24,
    columns: int = 8,
    images: Mapping[int, np.ndarray] | np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Which samples are they? Images sorted by a measure, with its value and the class below.

    - ``data``: a record, or a frame as returned by :func:`budgetlab.analysis.measures`.
    - ``by``: column to sort by; samples without a value are left out.
    - ``highest``: if True, highest first; else lowest first.
    - ``count``, ``columns``: number of images in all, and per row.
    - ``images``: images by sample number, each ``uint8 [H, W, C]`` or ``[H, W]``: a dict, or an
      array ``[N, H, W, C]``. By default, the record's thumbnails, which exist for some samples
      only.
    - ``classes``: class names for the label under each image; by default those of the record. For a
      frame without names, class numbers are shown. A class suggested by the frame, as in
      :func:`budgetlab.analysis.triage` with held-out folds, is added below the label: ``cat?``
      under ``dog``.
    """
    record: Record | None = None
    if isinstance(data, pd.DataFrame):
        frame = data
    else:
        record = open_record(data)
        frame = measures(record)
    check_measure(frame, by)
    if images is None:
        images = {} if record is None else record.thumbnails
    held = images if isinstance(images, Mapping) else dict(enumerate(images))
    if not held:
        raise InputError("there are no images to show: give images=, by sample number")
    ranked = frame.loc[frame.index.isin(list(held)), by].dropna()
    ranked = ranked.sort_values(ascending=not highest, kind="stable").head(count)
    if classes is None:
        classes = () if record is None else record.classes
    names = _class_names(classes, frame)
    texts = [f"{v:.3g}\n{names[s]}" if s in names else f"{v:.3g}" for s, v in ranked.items()]
    height = 1.2 + 0.18 * (_lines(texts) - 1)
    rows = max(1, -(-len(ranked) // columns))
    ax = style.axes(ax, (columns * 0.95, rows * height * 0.95))
    for place, (sample, text) in enumerate(zip(ranked.index, texts, strict=True)):
        _image(ax, held[sample], place % columns, place // columns * height, text, 8)
    _hide_axes(ax, columns, rows * height)
    what = f"{style.axis_name(by)}, {'highest' if highest else 'lowest'} first"
    ends = f": {ranked.iloc[0]:.3g} to {ranked.iloc[-1]:.3g}" if len(ranked) else ""
    numbers = ", ".join(map(str, ranked.index[:5]))
    style.set_title(ax, f"{what}{ends}" if ends else "")
    style.describe(ax, f"{len(ranked)} images, {what}{ends}; the first are samples {numbers}.")
    return ax


def _image(
    ax: "Axes", image: np.ndarray, left: float, top: float, text: str = "", size: int = 7
) -> None:
    """Draw an image in a square of side 1, with its text below."""
    ax.imshow(np.squeeze(image), extent=(left + 0.03, left + 0.97, top + 0.97, top + 0.03),
              cmap="gray", interpolation="nearest", vmin=0, vmax=255)  # fmt: skip
    if text:
        ax.text(left + 0.5, top + 1.0, style.escape_text(text), ha="center", va="top",
                fontsize=size, color=style.INK, linespacing=1.1)  # fmt: skip


def _hide_axes(ax: "Axes", columns: int, height: float) -> None:
    ax.set_xlim(0, columns)
    ax.set_ylim(height, 0)
    ax.set_aspect("equal")
    ax.axis("off")


def _lines(texts: Sequence[str]) -> int:
    """Return the number of lines of the longest text."""
    return max((text.count("\n") + 1 for text in texts if text), default=0)


def _class_names(classes: Sequence[str], frame: pd.DataFrame) -> dict[Any, str]:
    """Map samples to short class names (``class 3`` without names); empty without labels."""
    if "label" not in frame:
        return {}
    most = int(frame.filter(["label", "suggested"]).max().max())
    if most >= len(classes):
        classes = [f"class {number}" for number in range(most + 1)]
    short = [name if len(name) <= 11 else f"{name[:10]}…" for name in classes]
    names = {sample: short[int(number)] if number >= 0 else "unknown"
             for sample, number in frame["label"].items()}  # fmt: skip
    if "suggested" in frame:
        other = frame.loc[frame["suggested"] != frame["label"], "suggested"]
        names |= {sample: f"{names[sample]}\n{short[int(n)]}?" for sample, n in other.items()}
    return names


def image_rows(
    rows: Mapping[str, Sequence[np.ndarray]],
    *,
    captions: Mapping[str, Sequence[str]] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """How do they differ? Named rows of images, such as one batch under several augmentations.

    Raises InputError if there is no image, or a row's number of captions differs from its number of
    images.

    - ``rows``: images by row name, ``uint8 [H, W, C]`` or ``[H, W]``; rows may differ in length.
    - ``captions``: short texts under the images, by row name; a row may be left out.
    """
    if not any(len(images) for images in rows.values()):
        raise InputError("there are no images to show: give rows={name: images}")
    for name, texts in (captions or {}).items():
        if name not in rows:
            raise unknown("row of captions", name, rows)
        if len(texts) != len(rows[name]):
            raise InputError(
                f"row '{name}' has {len(rows[name])} images, {len(texts)} captions: give one each"
            )
    said = {name: [""] * len(images) for name, images in rows.items()} | dict(captions or {})
    heights = {name: 1.0 + 0.17 * _lines(texts) for name, texts in said.items()}
    columns, total = max(map(len, rows.values())), sum(heights.values())
    ax = style.axes(ax, (1.2 + 0.8 * columns, 0.8 * total))
    top = 0.0
    for name, images in rows.items():
        for place, (image, text) in enumerate(zip(images, said[name], strict=True)):
            _image(ax, image, place, top, text)
        ax.text(-0.1, top + 0.5, style.escape_text(name), ha="right", va="center", fontsize=10,
                color=style.INK)  # fmt: skip
        top += heights[name]
    _hide_axes(ax, columns, total)
    texts = [f"{name} ({len(images)} images)" for name, images in rows.items()]
    style.describe(ax, f"{counted(len(rows), 'row')} of images, from the top: {', '.join(texts)}.")
    return ax


def points_map(
    x: np.ndarray,
    y: np.ndarray,
    *,
    chance: np.ndarray | None = None,
    picked: np.ndarray | None = None,
    surface: tuple[np.ndarray, np.ndarray] | None = None,
    shade: bool = False,
    title: str = "",
    ax: "Axes | None" = None,
) -> "Axes":
    """Which points are drawn, and how does the network decide? A map of both.

    The diameter of a point is proportional to its chance; a picked point has a dark edge. The
    background shows the predicted class, paler where the network is less sure. Raises InputError if
    the shapes do not match.

    - ``x``, ``y``: points ``[N, 2]`` and their labels ``[N]``, whole numbers from 0.
    - ``chance``: selection probability relative to a uniform draw, ``[N]``, at least 0; 1 where NaN
      or not given.
    - ``picked``: times trained on, or a boolean mask, ``[N]``.
    - ``surface``: two grids ``[G, G]`` over :func:`extent_of` the points, first row lowest: the
      predicted class and its probability, such as ``winner`` and ``sure`` of
      :class:`budgetlab.explore.Frame`.
    - ``shade``: if True, encode the chance by depth of colour instead of size.
    - ``title``: title above the points.
    """
    from matplotlib.colors import to_rgb

    x, y = np.asarray(x, float), np.asarray(y).astype(int)
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1] or not len(x):
        raise InputError(
            f"points {x.shape} and labels {y.shape} do not fit: give [N, 2] and [N], at least one"
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
    text = _alt_text(title, factor, taken, surface, chance is None)
    style.finish(ax, title=title, legend=False, text=text)
    ax.grid(False)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    return ax


def extent_of(x: np.ndarray) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of points ``[N, 2]``, with a margin."""
    x = np.asarray(x, float)
    low, high = x.min(axis=0), x.max(axis=0)
    room = MARGIN * (high - low)
    (left, bottom), (right, top) = low - room, high + room
    return float(left), float(right), float(bottom), float(top)


def sizes(chance: np.ndarray) -> np.ndarray:
    """Return marker areas, in square points: the diameter is proportional to the chance ``[N]``."""
    return np.clip(USUAL * np.asarray(chance, float) ** 2, SMALLEST, LARGEST)


def surface_colours(winner: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Colour each grid cell by its predicted class, paler where the network is less sure.

    ``winner``, ``sure``: grids ``[G, G]``: the predicted class, and its probability.

    Returns uint8 ``[G, G, 3]``.
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
            f"values of shape {values.shape} do not fit {len(x)} points: give one per point"
        )
    return values


def _alt_text(
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
