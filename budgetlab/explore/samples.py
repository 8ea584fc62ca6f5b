"""Interactive scatter of two per-sample measures, with the images and history of samples."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.analysis.per_sample import check_measure
from budgetlab.errors import InputError, known, require_number, unknown, whole
from budgetlab.explore.chart import (
    SUBTITLE_LETTERS,
    Explorable,
    axis,
    hover,
    mark,
    select,
    slider,
    specification,
    style_encodings,
    words,
    wrap_title,
    wrapped,
)
from budgetlab.explore.packing import (
    SampleHistories,
    apart,
    compact,
    images_of,
    measured,
    packed,
    parted,
    records_of,
    slider_range,
    some_of,
)
from budgetlab.plots import style
from budgetlab.records import OneRecord, Record, open_record

if TYPE_CHECKING:
    from budgetlab.data import Splits

COLUMNS, ROWS, SIDE = 6, 4, 46  # of the images shown at once
ORIGINS = {"index": "place in the source", "true_label": "true class", "copy_of": "copy of",
           "difficulty": "difficulty"}  # fmt: skip
GROUPS = {"noisy": ("is_noisy", True), "not noisy": ("is_noisy", False),
          "ambiguous": ("is_ambiguous", True), "not ambiguous": ("is_ambiguous", False),
          "never trained on": ("visits", False)}  # fmt: skip
LETTERS = dict(zip(GROUPS, "nNaAv", strict=True))  # encode the groups of a sample in its row
CHANCES = {"draw": "chance, times uniform", "keep": "chance of being kept"}


def atlas(
    record: OneRecord,
    x: str = "mean_loss",
    y: str = "times_trained",
    *,
    splits: "Splits | None" = None,
    other: OneRecord | None = None,
    more: pd.DataFrame | None = None,
    colour: str = "",
    samples: int = 2_000,
    seed: int = 0,
) -> Explorable:
    """Explore a scatter of two measures; select samples to see their images and histories.

    Select with the mouse by dragging a rectangle, or with the sliders and lists below. The first 24
    selected samples are shown, those with an image and the highest ``x`` first; tooltips identify
    points and images. A click, or the slider *sample shown*, opens a sample's history: label,
    origin, and last known loss, probability and number of draws over the epochs. Raises InputError
    if a measure is unknown or holds no number, or an argument is invalid.

    Parameters
    ----------
    record
        A record, or its folder.
    x, y
        Measures: columns of :func:`budgetlab.analysis.measures`.
    splits
        The record's data set. Without it, only the record's thumbnails of some samples are
        shown.
    other
        A second record on the same data: adds the measures ``times_trained_other`` and
        ``trained_more``, how much more often the first run trained on a sample.
    more
        Further measures, one row per sample, such as from :func:`budgetlab.analysis.embedding`.
    colour
        Measure to colour points by; by default, the class.
    samples
        Maximum number of points: those with images first, then others at random.
    seed
        Seed of that choice.

    Returns
    -------
    Explorable
        Its twin takes ``label`` (a class name, or ``all``), ``group`` (such as ``noisy``, or
        ``all``), ``x_low``, ``x_high``, ``y_low`` and ``y_high`` and returns the selected samples
        as a frame indexed by ``sample``, highest ``x`` first: ``chart.twin(label="cat").to_csv(
        "cats.csv")`` saves a list. With ``life``, a sample number, it returns that sample's
        history: ``epoch``, ``loss`` (last known, nats), ``chance`` (relative to uniform, or of
        being kept) and ``drawn`` (times so far).
    """
    record = open_record(record)
    samples = whole("samples", samples, 1)
    seed = whole("seed", seed, 0)
    frame = measured(record, other, more)
    for name in (x, y, *filter(None, [colour])):
        check_measure(frame, name)
    finite = frame[np.isfinite(frame[[x, y]].astype(float)).all(axis=1)]
    if not len(finite):
        raise InputError(f"'{record.path}' holds no sample with a value of {x} and {y}: train on")
    images = images_of(record, splits)
    shown = some_of(finite, images, samples, seed)
    table = _table(record, shown, x, y).assign(image=packed(shown.index, images))
    lives = SampleHistories(record, shown.index.to_numpy())
    table = table.assign(**lives.columns)
    if colour:
        table["colour"] = compact(shown[colour])
    order = {name: place for place, name in enumerate(record.classes)}
    classes = sorted(table["label"].unique(), key=lambda name: (order.get(name, len(order)), name))
    groups = [name for name in GROUPS if table["groups"].str.contains(LETTERS[name]).any()]
    names = {"x": style.axis_name(x), "y": style.axis_name(y)}
    short = {"x": _short(x), "y": _short(y)}
    ends = {f"{a}_{end}": value for a in ("x", "y")
            for end, value in slider_range(table[a]).items()}  # fmt: skip

    def twin(
        label: str = "all", group: str = "all", life: int | None = None, **limits: float
    ) -> pd.DataFrame:
        label = known("class", label, ["all", *classes])
        group = known("group", group, ["all", *groups])
        for name in limits:
            if name not in ends:
                raise unknown("control", name, ["label", "group", "life", *ends])
        if life is not None:
            return lives.of(whole("life", life, 0))
        at = ends | {name: require_number(name, value) for name, value in limits.items()}
        inside = table["x"].between(at["x_low"], at["x_high"])
        inside &= table["y"].between(at["y_low"], at["y_high"])
        inside &= (label == "all") | (table["label"] == label)
        inside &= table["groups"].str.contains(LETTERS.get(group, ""))
        found = table[inside].sort_values(["x", "sample"], ascending=[False, True])
        return shown.loc[found["sample"]]

    counts = [a for a in ("x", "y") if table[a].map(lambda v: v == int(v)).all()]
    alt = (
        f"{names['y']} against {names['x']} of {len(shown):,} samples"
        f"{'' if len(shown) == len(frame) else f', of {len(frame):,}'}, by class; "
        f"{table['image'].notna().sum():,} of them with an image. A rectangle, a class, a group or "
        "four sliders select; the images of the selection stand beside, and the life of one below."
    )
    title = {"text": wrap_title(_title(shown, table["label"], x, y)),
             "subtitle": wrap_title(HINT, SUBTITLE_LETTERS)}  # fmt: skip
    tooltip = _tooltip(short)
    views = [_scatter(classes, names, colour, tooltip), _image_sheet(tooltip)]
    above = {"spacing": 24, "hconcat": views}
    spec = specification(
        title, alt, fits=FITS, data={"values": records_of(table, decimals=15)},
        # The names and numbers of the next sample may be longer.
        autosize={"type": "pad", "resize": True},
        params=[*_controls(classes, groups, ends, short, len(table)), BRUSH, PICK],
        transform=[*(_jitter(a, a in counts) for a in names), {"filter": INSIDE}], spacing=18,
        vconcat=[above, _history_view(lives.epochs, short, CHANCES[record.probability_kind])],
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=f"Samples by {short['x']} and {short['y']}")


def _short(measure: str) -> str:
    """Return the short name of a measure, for titles and controls."""
    return measure.replace("_", " ")


def _title(frame: pd.DataFrame, labels: pd.Series, x: str, y: str) -> str:
    """Title: for an embedding, the share of same-class neighbours; else a rank correlation."""
    if x.startswith("embedding") and y.startswith("embedding") and len(frame) > 1:
        from scipy.spatial import cKDTree

        places = frame[[x, y]].to_numpy(float)
        nearest = cKDTree(places).query(places, k=2)[1]
        # If two points coincide, either may come first.
        other = np.where(nearest[:, 0] == np.arange(len(frame)), nearest[:, 1], nearest[:, 0])
        alike = (labels.to_numpy() == labels.to_numpy()[other]).mean()
        return f"The nearest neighbour of {alike:.0%} of the samples is of their own class"
    relation = style.correlation(frame[x], frame[y])
    if not relation:
        return style.capitalise(f"{_short(y)} over {_short(x)}")
    return f"{relation} of {_short(x)} and {_short(y)}"


HINT = ("Drag a rectangle over the points, or set the limits below; click on a point or an image "
        "for its life")  # fmt: skip
FITS = wrapped(700, {"/marks/0": 2, "/marks/1": 3})
INSIDE = (
    "datum.x >= x_low && datum.x <= x_high && datum.y >= y_low && datum.y <= y_high"
    " && (label == 'all' || datum.label == label)"
    f" && (group == 'all' || indexof(datum.groups, ({json.dumps(LETTERS)})[group]) >= 0)"
)
BRUSH = {"name": "brush", "select": "interval", "views": ["points"]}
# A click holds until the slider *sample shown* is moved.
PICK = {
    "name": "pick", "views": ["points", "images"],
    "select": {"type": "point", "fields": ["sample"], "on": "click",
               "clear": {"source": "window", "type": "input",
                         "filter": "event.target && event.target.name == 'nth'"}},
}  # fmt: skip
IS_SHOWN = "pick.sample ? datum.sample == pick.sample[0] : datum.place == min(nth, datum.selected)"
# The brushed samples in display order: those with images come first.
IN_ORDER = [
    {"filter": {"param": "brush"}},
    {"calculate": "isValid(datum.image) ? 0 : 1", "as": "without"},
    {"window": [{"op": "row_number", "as": "place"}, {"op": "count", "as": "selected"},
                {"op": "valid", "field": "image", "as": "pictured"}], "frame": [None, None],
     "sort": [{"field": "without"}, {"field": "x", "order": "descending"}, {"field": "sample"}]},
]  # fmt: skip


def _table(record: Record, frame: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return the chart's rows, one per sample: both measures, class, origin and groups."""
    classes = {-1: "unknown"} | dict(enumerate(record.classes))

    def named(column: str) -> list[str]:
        return ["" if pd.isna(v) else str(classes.get(int(v), int(v))) for v in frame[column]]

    table = pd.DataFrame({"sample": frame.index, "x": apart(frame[x]), "y": apart(frame[y])})
    table["label"] = named("label") if "label" in frame else "all"
    for name in ORIGINS:
        if name in frame:
            table[name] = named(name) if name == "true_label" else compact(frame[name])
    if "true_label" in table:  # shown only where it differs
        table["true_label"] = table["true_label"].where(table["true_label"] != table["label"])
    groups = pd.Series("", index=frame.index)
    for name, (column, wanted) in GROUPS.items():
        if column in frame:
            # A sample of unknown status is in neither group.
            is_so = frame[column].notna() & (frame[column].fillna(False).astype(bool) == wanted)
            groups = groups.mask(is_so, groups + LETTERS[name])
    return table.assign(groups=groups.to_numpy())


def _controls(
    classes: Sequence[str], groups: Sequence[str], ends: dict[str, float], names: dict[str, str],
    count: int,
) -> list[dict[str, Any]]:  # fmt: skip
    made = [select(name, said, dict(zip(values, values, strict=True)))
            for name, said, values in (("label", "class", ["all", *classes]),
                                       ("group", "samples", ["all", *groups]))]  # fmt: skip
    for a, name in names.items():
        low, high = ends[f"{a}_low"], ends[f"{a}_high"]
        step = float(f"{(high - low) / 200:.6g}") or 1.0
        made.append(slider(f"{a}_low", f"{name}, from", low, low, high, step))
        made.append(slider(f"{a}_high", f"{name}, to", high, low, high, step))
    return [*made, slider("nth", "sample shown", 1, 1, count, 1)]


def _jitter(field: str, is_count: bool) -> dict[str, Any]:
    """Compute a point's coordinate; whole numbers are jittered, so that they do not overlap."""
    by = " + 0.7 * (datum.sample * 0.618034 % 1 - 0.5)" if is_count else ""
    return {"calculate": f"datum.{field}{by}", "as": f"{field}_at"}


def _tooltip(short: dict[str, str]) -> dict[str, dict[str, str]]:
    """Build a sample's tooltip from what is known of it."""
    always = {"sample": "sample", "label": "class", **short}
    parts = [f"{json.dumps(said)}: datum.{name}" for name, said in always.items()]
    known = [f"isValid(datum.{name}) ? {{{json.dumps(said)}: datum.{name}}} : {{}}"
             for name, said in ORIGINS.items()]  # fmt: skip
    return {"value": {"expr": f"merge({{{', '.join(parts)}}}, {', '.join(known)})"}}


def _scatter(
    classes: list[str], names: dict[str, str], colour: str, told: dict[str, dict[str, str]]
) -> dict[str, Any]:
    widest = max(len(name) for name in classes)
    columns = max(2, min(5, 44 // (4 + widest)))
    legend = {"symbolOpacity": 1, "orient": "top", "columns": columns}
    look = style_encodings(classes, "label", legend)
    if colour:
        look["color"] = axis("colour", style.axis_name(colour), scale={"scheme": "viridis"})
    return {
        "name": "points",
        "width": 300,
        "height": 300,
        "mark": mark("point", size=16),
        "encoding": {
            "x": axis("x_at", names["x"], zero=False),
            "y": axis("y_at", names["y"], zero=False),
            "shape": look["shape"],
            "color": {"condition": {"param": "brush", **look["color"]}, "value": "#c9c9c9"},
            "opacity": {"condition": {"param": "brush", "value": 0.8}, "value": 0.4},
            "tooltip": told,
        },
    }


def _image_sheet(told: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Build the sheet of the first selected images, and the counts above it."""
    cell = [
        *IN_ORDER,
        {"filter": f"isValid(datum.image) && datum.place <= {COLUMNS * ROWS}"},
        {"calculate": f"(datum.place - 1) % {COLUMNS}", "as": "column"},
        {"calculate": f"floor((datum.place - 1) / {COLUMNS})", "as": "row"},
        {"calculate": "slice(datum.label, 0, 8)", "as": "short"},
    ]  # fmt: skip
    places: dict[str, Any] = {
        "x": axis("column", axis=None, scale={"domain": [-0.5, COLUMNS - 0.5]}),
        "y": axis("row", axis=None, scale={"domain": [ROWS - 0.3, -0.6]}),
        "tooltip": told,
    }
    line = {"fontSize": 9, "color": style.INK}
    below = SIDE // 2 + 4
    frame = mark("square", size=SIDE**2, filled=False, strokeWidth=2)
    shown: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (mark("image", width=SIDE - 6, height=SIDE - 6, cursor="pointer"),
         {"url": {"field": "image", "type": "nominal"}}),
        (frame, {"stroke": {"condition": {"test": IS_SHOWN, "value": style.COLOURS[1]},
                            "value": "transparent"}}),
        (mark("text", dy=below, **line), {"text": {"field": "short", "type": "nominal"}}),
        (mark("text", dy=below + 11, **line), {"text": axis("sample")}),
    ]  # fmt: skip
    sheet = [{"transform": cell, "mark": m, "encoding": places | e} for m, e in shown]
    sheet[0]["name"] = "images"
    count = words(
        "format(datum.selected, ',') + ' selected, ' + format(datum.pictured, ',')"
        " + ' with an image' + (datum.pictured ? '' : ': give splits=')", y=-14, fontSize=11,
    ) | {"transform": [*IN_ORDER, {"filter": "datum.place == 1"}]}  # fmt: skip
    return {"width": COLUMNS * SIDE, "height": ROWS * (SIDE + 30), "layer": [*sheet, count]}


def _history_view(epochs: np.ndarray, names: dict[str, str], chance: str) -> dict[str, Any]:
    """Build the views of one sample: image and facts, and loss and probability by epoch."""
    one = [*IN_ORDER, {"filter": IS_SHOWN}]
    times = "slice(split(datum.drawn_by, ' '), -1)[0]"
    facts = [
        "'Sample ' + datum.sample + ': ' + datum.label"
        " + (datum.true_label ? ' (truly ' + datum.true_label + ')' : '')",
        f"'Drawn ' + {times} + ({times} == 1 ? ' time' : ' times') + ' in {epochs[-1]} epochs'",
        *(f"'{style.capitalise(name)}: ' + format(datum.{a}, '.4')" for a, name in names.items()),
        *(f"isValid(datum.{name}) ? '{style.capitalise(said)}: ' + datum.{name} : ''"
          for name, said in ORIGINS.items() if name != "true_label"),
    ]  # fmt: skip
    portrait = {"transform": [{"filter": "isValid(datum.image)"}],
                "mark": mark("image", x=40, y=46, width=80, height=80),
                "encoding": {"url": {"field": "image", "type": "nominal"}}}  # fmt: skip
    lines = [words(line, y=96 + 15 * row, fontSize=11) for row, line in enumerate(facts)]
    in_time = [
        *one,
        *parted(loss="loss_by", chance="chance_by", drawn="drawn_by"),
        {"flatten": ["loss", "chance", "drawn"]},
        *({"calculate": f"toNumber(datum.{name})", "as": name} for name in ("loss", "chance")),
        {"window": [{"op": "row_number", "as": "k"}, {"op": "lag", "field": "drawn", "as": "had"}]},
        {"calculate": f"{epochs.tolist()}[datum.k - 1]", "as": "epoch"},
        {"calculate": "datum.drawn - (datum.had || 0)", "as": "new"},
    ]
    views: list[dict[str, Any]] = [
        {"width": 170, "height": 170, "transform": one, "layer": [portrait, *lines]}
    ]
    at = axis("epoch", "epoch (a dot: drawn)", scale={"domain": [1, max(2, int(epochs[-1]))]},
              axis={"tickMinStep": 1, "tickCount": 5})  # fmt: skip
    said = hover(
        {
            "epoch": "epoch",
            "loss": "last known loss",
            "chance": chance,
            "new": "times drawn since the dot before",
            "drawn": "times drawn so far",
        }
    )
    for field, title, colour in (("loss", "last known loss (nats)", style.COLOURS[1]),
                                 ("chance", chance, style.COLOURS[0])):  # fmt: skip
        encoding = {"x": at, "y": axis(field, title, axis={"tickCount": 4}), "tooltip": said}
        dots = {"transform": [{"filter": "datum.new > 0"}],
                "mark": mark("point", size=22, color=colour), "encoding": encoding}  # fmt: skip
        line = {
            "mark": mark("line", color=colour, strokeWidth=1.5, interpolate="step-after"),
            "encoding": encoding,
        }
        views.append({"width": 150, "height": 140, "transform": in_time, "layer": [line, dots]})
    return {"spacing": 24, "hconcat": views}
