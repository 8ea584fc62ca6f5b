"""Which samples are they? Any two measures against each other, and the images of a selection."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from budgetlab.analysis import measures
from budgetlab.analysis.per_sample import check_measure
from budgetlab.errors import InputError, unknown
from budgetlab.explore.chart import (
    Explorable,
    axis,
    compact,
    hover,
    looks_of,
    mark,
    records_of,
    select,
    slider,
    specification,
    words,
)
from budgetlab.explore.ranking import images_of, with_more
from budgetlab.plots import style
from budgetlab.records import Record, open_record

if TYPE_CHECKING:
    from budgetlab.data import Splits

__all__ = ["atlas"]

# Of a chart: how many images at once, how large, and how much of a file they may take.
COLUMNS, ROWS, SIDE = 6, 4, 46
LONGEST_SIDE, MOST_BYTES = 40, 700_000
ORIGINS = {"index": "place in the source", "true_label": "true class", "copy_of": "copy of",
           "difficulty": "difficulty"}  # fmt: skip
TOLD = {"sample": "sample", "label": "class", "x": "", "y": "", **ORIGINS}


def atlas(
    record: Record | Path | str,
    x: str = "mean_loss",
    y: str = "times_trained",
    *,
    splits: "Splits | None" = None,
    more: pd.DataFrame | None = None,
    colour: str = "",
    samples: int = 2_000,
    seed: int = 0,
) -> Explorable:
    """A scatter of two measures, to brush over, beside the images of what was brushed.

    A rectangle is drawn with the mouse; the sliders and the list of classes below do the
    same with the keyboard. The first 24 samples selected are shown, those with the highest
    ``x`` first; hovering over a point or an image says which sample it is.

    Parameters
    ----------
    record
        A record, or the folder of one.
    x, y
        Measures: columns of :func:`budgetlab.analysis.measures`.
    splits
        The data set of the record. Without it there are images of some samples only: those
        that the record keeps.
    more
        Further measures, one row per sample, such as from :func:`budgetlab.analysis.embedding`.
    colour
        Measure by which points are coloured; by default by class.
    samples
        At most so many points: those with images first, then others at random.
    seed
        Of that choice.

    Returns
    -------
    Explorable
        Its twin takes ``label`` (name of a class, or ``all``), ``x_low``, ``x_high``,
        ``y_low`` and ``y_high`` and returns the samples selected as a frame, index ``sample``.

    Raises
    ------
    InputError
        If a measure is unknown or holds no number, or ``splits`` is another data set.
    """
    record = open_record(record)
    frame = with_more(measures(record), more)
    for name in (x, y, *filter(None, [colour])):
        check_measure(frame, name)
    finite = frame[np.isfinite(frame[[x, y]].astype(float)).all(axis=1)]
    if not len(finite):
        raise InputError(f"'{record.path}' holds no sample with a value of {x} and {y}: train on")
    images = images_of(record, splits)
    shown = _some_of(finite, images, samples, seed)
    addresses = _packed(shown.index, images)
    table = _table(record, shown, x, y).assign(image=addresses)
    if colour:
        table["colour"] = compact(shown[colour])
    order = {name: place for place, name in enumerate(record.classes)}
    classes = sorted(table["label"].unique(), key=lambda name: (order.get(name, len(order)), name))
    names = {"x": style.axis_name(x), "y": style.axis_name(y)}
    ends = {f"{a}_{end}": value for a, column in (("x", x), ("y", y))
            for end, value in _range(shown[column]).items()}  # fmt: skip

    def twin(label: str = "all", **limits: float) -> pd.DataFrame:
        wrong = set(limits) - set(ends)
        if wrong or (label != "all" and label not in classes):
            given = wrong.pop() if wrong else label
            raise unknown("control" if given != label else "class", given, [*ends, *classes])
        at = ends | limits
        inside = table["x"].between(at["x_low"], at["x_high"])
        inside &= table["y"].between(at["y_low"], at["y_high"])
        if label != "all":
            inside &= table["label"] == label
        found = table[inside].sort_values(["x", "sample"], ascending=[False, True])
        return shown.loc[found["sample"]]

    whole = [a for a in ("x", "y") if table[a].map(lambda v: v == int(v)).all()]
    left = "" if len(shown) == len(frame) else f", of {len(frame):,}"
    alt = (
        f"{names['y']} against {names['x']} of {len(shown):,} samples{left}, by class; "
        f"{sum(a is not None for a in addresses):,} of them with an image. A rectangle, a class or "
        "four sliders select, and the images of the selection stand beside."
    )
    relation = style.correlation(shown[x], shown[y])
    title = {"text": f"{style.capital(names['y'])} against {names['x']}",
             "subtitle": f"{relation and relation + '. '}Drag a rectangle over the points, or set "
                         "the limits below"}  # fmt: skip
    spec = specification(
        title, alt, data={"values": records_of(table)}, params=_controls(classes, ends, names),
        transform=[{"filter": INSIDE}], spacing=28,
        hconcat=[_scatter(classes, names, whole, colour), _sheet(names)],
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=title["text"])


INSIDE = (
    "datum.x >= x_low && datum.x <= x_high && datum.y >= y_low && datum.y <= y_high"
    " && (label == 'all' || datum.label == label)"
)


def _some_of(
    frame: pd.DataFrame, images: Mapping[int, np.ndarray], samples: int, seed: int
) -> pd.DataFrame:
    if samples < 1:
        raise InputError(f"samples {samples} is not allowed: give at least 1")
    if len(frame) <= samples:
        return frame
    order = pd.Series(np.random.default_rng(seed).permutation(len(frame)), index=frame.index)
    without = ~frame.index.isin(np.fromiter(images, int))
    chosen = pd.DataFrame({"without": without, "order": order}).sort_values(["without", "order"])
    return frame.loc[chosen.index[:samples].sort_values()]


def _table(record: Record, frame: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """What the chart knows of each sample: the two measures, its class and where it is from."""
    classes = dict(enumerate(record.classes))

    def named(column: str) -> list[str]:
        return [str(classes.get(int(v), int(v))) if v == v else "" for v in frame[column]]

    table = pd.DataFrame({"sample": frame.index, "x": compact(frame[x]), "y": compact(frame[y])})
    table["label"] = named("label") if "label" in frame else "all"
    for name in ORIGINS:
        if name in frame:
            table[name] = named(name) if name == "true_label" else compact(frame[name])
    return table


def _range(values: pd.Series) -> dict[str, float]:
    """Ends of a slider that lie outside of all values, and are short to read."""
    low, high = float(values.min()), float(values.max())
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-6) / 20))
    return {
        "low": float(f"{np.floor(low / step) * step:.6g}"),
        "high": float(f"{np.ceil(high / step) * step:.6g}"),
    }


def _controls(
    classes: list[str], ends: dict[str, float], names: dict[str, str]
) -> list[dict[str, Any]]:
    made = [select("label", "class", {"all": "all", **{name: name for name in classes}})]
    for a, name in names.items():
        low, high = ends[f"{a}_low"], ends[f"{a}_high"]
        step = float(f"{(high - low) / 200:.6g}") or 1.0
        made.append(slider(f"{a}_low", f"{name}, from", low, low, high, step))
        made.append(slider(f"{a}_high", f"{name}, to", high, low, high, step))
    return made


def _scatter(
    classes: list[str], names: dict[str, str], whole: Sequence[str], colour: str
) -> dict[str, Any]:
    look = looks_of(classes, "label", orient="bottom", columns=5)
    if colour:
        look["color"] = axis("colour", style.axis_name(colour), scale={"scheme": "viridis"})
    # Whole numbers lie on top of each other: spread by less than the way to the next one.
    spread = [{"calculate": f"datum.{a} + {0.7 if a in whole else 0} * "
                            "(datum.sample * 0.618034 % 1 - 0.5)", "as": f"{a}_at"}
              for a in ("x", "y")]  # fmt: skip
    return {
        "width": 330,
        "height": 330,
        "params": [{"name": "brush", "select": "interval"}],
        "transform": spread,
        "mark": mark("point", size=16),
        "encoding": {
            "x": axis("x_at", names["x"], zero=False),
            "y": axis("y_at", names["y"], zero=False),
            "shape": look["shape"],
            "color": {"condition": {"param": "brush", **look["color"]}, "value": "#c9c9c9"},
            "opacity": {"condition": {"param": "brush", "value": 0.8}, "value": 0.4},
            "tooltip": hover(TOLD | names),
        },
    }


def _sheet(names: dict[str, str]) -> dict[str, Any]:
    """The first images of the selection, in rows, and how many there are."""
    chosen = {"filter": {"param": "brush"}}
    cell = [
        chosen,
        {"filter": "isValid(datum.image)"},
        {"window": [{"op": "row_number", "as": "place"}],
         "sort": [{"field": "x", "order": "descending"}, {"field": "sample"}]},
        {"filter": f"datum.place <= {COLUMNS * ROWS}"},
        {"calculate": f"(datum.place - 1) % {COLUMNS}", "as": "column"},
        {"calculate": f"floor((datum.place - 1) / {COLUMNS})", "as": "row"},
        {"calculate": "slice(datum.label, 0, 8)", "as": "short"},
    ]  # fmt: skip
    places: dict[str, Any] = {
        "x": axis("column", axis=None, scale={"domain": [-0.5, COLUMNS - 0.5]}),
        "y": axis("row", axis=None, scale={"domain": [ROWS - 0.3, -0.7]}),
        "tooltip": hover(TOLD | names),
    }
    line = {"fontSize": 9, "color": style.INK}
    below = SIDE // 2 + 4
    shown: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (mark("image", width=SIDE - 6, height=SIDE - 6),
         {"url": {"field": "image", "type": "nominal"}}),
        (mark("text", dy=below, **line), {"text": {"field": "short", "type": "nominal"}}),
        (mark("text", dy=below + 11, **line), {"text": axis("sample")}),
    ]  # fmt: skip
    count = words(
        "format(datum.selected, ',') + ' selected, ' + format(datum.pictured, ',')"
        " + ' with an image' + (datum.pictured ? '' : ': give splits= for more')", y=-14,
    ) | {"transform": [
        chosen,
        {"aggregate": [{"op": "count", "as": "selected"},
                       {"op": "valid", "field": "image", "as": "pictured"}]},
    ]}  # fmt: skip
    sheet = [{"transform": cell, "mark": m, "encoding": places | e} for m, e in shown]
    return {"width": COLUMNS * SIDE, "height": ROWS * (SIDE + 30), "layer": [*sheet, count]}


def _packed(samples: pd.Index, images: Mapping[int, np.ndarray]) -> list[str | None]:
    """Images as ``data:`` addresses of WebP, until they take too much of a file."""
    packed, taken = [], 0
    for sample in samples:
        address = None
        image = images.get(int(sample)) if taken < MOST_BYTES else None
        if image is not None:
            address = webp(image)
            taken += len(address)
        packed.append(address)
    return packed


def webp(pixels: np.ndarray, longest: int = LONGEST_SIDE, quality: int = 75) -> str:
    """Return an image uint8 ``[H, W]``, ``[H, W, 1 or 3]`` as a short ``data:`` address."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    picture = Image.fromarray(pixels).convert("RGB")
    picture.thumbnail((longest, longest))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
