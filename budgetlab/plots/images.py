"""Images sorted by any measure, with their numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis import measures
from budgetlab.analysis.per_sample import check_measure
from budgetlab.errors import InputError, unknown
from budgetlab.plots import style
from budgetlab.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["image_grid", "image_rows"]


def image_grid(
    data: Record | pd.DataFrame,
    by: str = "times_trained",
    *,
    highest: bool = True,
    count: int = 24,
    columns: int = 8,
    images: Mapping[int, np.ndarray] | np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Which samples are they? Images sorted by a measure, its value and the class under each.

    Parameters
    ----------
    data
        A record, or a frame as from :func:`budgetlab.analysis.measures`.
    by
        Column to sort by; samples without a value are left out.
    highest
        Highest first, else lowest first.
    count, columns
        Images in all, and in a row.
    images
        By sample number, ``uint8 [H, W, C]`` or ``[H, W]`` each: a dict, or an array
        ``[N, H, W, C]``. By default the thumbnails of the record, which are some of its
        samples only.
    classes
        Names of the classes, for the label under each image; by default those of the
        record. A frame without them shows the number of the class. Where a frame suggests
        another class, as :func:`budgetlab.analysis.triage` does beside held-out folds, that is
        shown below: ``cat?`` under ``dog``.
    """
    frame = measures(data) if isinstance(data, Record) else data
    check_measure(frame, by)
    if images is None:
        images = data.thumbnails if isinstance(data, Record) else {}
    held = images if isinstance(images, Mapping) else dict(enumerate(images))
    if not held:
        raise InputError("there are no images to show: give images=, by sample number")
    ranked = frame.loc[frame.index.isin(list(held)), by].dropna()
    ranked = ranked.sort_values(ascending=not highest, kind="stable").head(count)
    if classes is None:
        classes = data.classes if isinstance(data, Record) else ()
    names = _class_names(classes, frame)
    height = 1.2 + 0.18 * (max((name.count("\n") + 1 for name in names.values()), default=0))
    rows = max(1, -(-len(ranked) // columns))
    ax = style.axes(ax, (columns * 0.95, rows * height * 0.95))
    for place, (sample, value) in enumerate(ranked.items()):
        left, top = place % columns, place // columns * height
        image = np.squeeze(held[sample])
        ax.imshow(image, extent=(left + 0.04, left + 0.96, top + 0.96, top + 0.04), cmap="gray",
                  interpolation="nearest", vmin=0, vmax=255)  # fmt: skip
        text = f"{value:.3g}" + (f"\n{names[sample]}" if names else "")
        ax.text(left + 0.5, top + 1.0, style.literal(text), ha="center", va="top", fontsize=8,
                color=style.INK, linespacing=1.1)  # fmt: skip
    ax.set_xlim(0, columns)
    ax.set_ylim(rows * height, 0)
    ax.set_aspect("equal")
    ax.axis("off")
    order = "highest" if highest else "lowest"
    ends = f", from {ranked.iloc[0]:.3g} to {ranked.iloc[-1]:.3g}" if len(ranked) else ""
    numbers = ", ".join(map(str, ranked.index[:5]))
    style.describe(
        ax,
        f"{len(ranked)} images with the {order} {style.axis_name(by)}{ends}; the first are "
        f"samples {numbers}.",
    )
    return ax


def image_rows(
    rows: Mapping[str, Sequence[np.ndarray]],
    *,
    captions: Mapping[str, Sequence[str]] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """How do they differ? Rows of images with a name each, such as one batch augmented in ways.

    Parameters
    ----------
    rows
        By name, images ``uint8 [H, W, C]`` or ``[H, W]``; rows may differ in length.
    captions
        By the same names, a short text under each image; rows without one have none.

    Raises
    ------
    InputError
        If there is no image, or a row has not one caption an image.
    """
    if not any(len(images) for images in rows.values()):
        raise InputError("there are no images to show: give rows={name: images}")
    said = _checked(rows, captions or {})
    columns = max(map(len, rows.values()))
    heights = {name: 1.0 + 0.17 * _lines(said.get(name, [])) for name in rows}
    total = sum(heights.values())
    ax = style.axes(ax, (1.2 + 0.8 * columns, 0.8 * total))
    top = 0.0
    for name, images in rows.items():
        for place, image in enumerate(images):
            box = (place + 0.03, place + 0.97, top + 0.97, top + 0.03)
            ax.imshow(np.squeeze(image), extent=box, cmap="gray", interpolation="nearest",
                      vmin=0, vmax=255)  # fmt: skip
        for place, text in enumerate(said.get(name, [])):
            ax.text(place + 0.5, top + 0.99, style.literal(text), ha="center", va="top", fontsize=7,
                    color=style.INK, linespacing=1.1)  # fmt: skip
        ax.text(-0.1, top + 0.5, style.literal(name), ha="right", va="center", fontsize=10,
                color=style.INK)  # fmt: skip
        top += heights[name]
    ax.set_xlim(0, columns)
    ax.set_ylim(total, 0)
    ax.set_aspect("equal")
    ax.axis("off")
    texts = [f"{name} ({len(images)} images)" for name, images in rows.items()]
    style.describe(ax, f"{len(rows)} rows of images, from the top: {', '.join(texts)}.")
    return ax


def _checked(
    rows: Mapping[str, Sequence[np.ndarray]], captions: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Captions of the rows that have some: one an image."""
    for name, texts in captions.items():
        if name not in rows:
            raise unknown("row of captions", name, rows)
        if len(texts) != len(rows[name]):
            raise InputError(
                f"row '{name}' has {len(rows[name])} images and {len(texts)} captions: give one "
                "caption an image"
            )
    return {name: list(texts) for name, texts in captions.items()}


def _lines(texts: Sequence[str]) -> int:
    """Lines that the longest of the texts takes."""
    return max((text.count("\n") + 1 for text in texts if text), default=0)


def _class_names(classes: Sequence[str], frame: pd.DataFrame) -> dict[int, str]:
    """Short name of the class of each sample, its number where it has none; empty if unknown."""
    if "label" not in frame:
        return {}
    told = ["label", "suggested"] if "suggested" in frame else ["label"]
    if frame[told].max().max() >= len(classes):
        classes = [f"class {number}" for number in range(int(frame[told].max().max()) + 1)]
    short = [name if len(name) <= 11 else f"{name[:10]}…" for name in classes]
    names = {sample: short[int(number)] for sample, number in frame["label"].items()}
    if "suggested" in frame:
        other = frame.loc[frame["suggested"] != frame["label"], "suggested"]
        names |= {sample: f"{names[sample]}\n{short[int(n)]}?" for sample, n in other.items()}
    return names
