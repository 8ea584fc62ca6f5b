"""Interactive learning curves, and accuracy of augmentations by length of training."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.analysis import AXES, condition_columns, epochs, varying
from budgetlab.analysis.conditions import finished, labels, replicates, require, sorted_by_method
from budgetlab.analysis.statistics import MIN_PAIRS, mean_interval, paired_difference
from budgetlab.errors import InputError, known
from budgetlab.explore.chart import (
    SUBTITLE_LETTERS,
    Explorable,
    axis,
    checkbox,
    hover,
    mark,
    select,
    slider,
    specification,
    style_encodings,
    words,
    wrap_title,
)
from budgetlab.explore.maps import data_selector, finding_title, rows_alt_text, toggles, tooltip_for
from budgetlab.explore.packing import compact, records_of
from budgetlab.plots import style
from budgetlab.plots.learning import crossed
from budgetlab.records import Records

CROSSING_COLUMNS = ("dataset", "augmentation", "epochs", "mean", "ci_low", "ci_high", "n")
MARKS = 12  # per line, so that markers do not cover a line of a hundred epochs
# Names stand to the right of the lines, or below them on a narrow page.
NARROW = 400
NAMES_WIDE, NAME_LETTERS = 245, 25
NAME_STEP, LINE_STEP = 22, 13  # pixels from name to name, and from line to line
FITS = {"/width": f"room < {NARROW + NAMES_WIDE + 20} ? clamp(room - 90, 180, {NARROW - 1})"
                  f" : min(520, room - {NAMES_WIDE + 20})"}  # fmt: skip


def learning(
    records: Records | pd.DataFrame, cost: str = "steps", value: str = "test_accuracy"
) -> Explorable:
    """Explore accuracy over any cost: choose the axis, toggle methods and seeds.

    One line per condition: the mean over seeds with its 95% interval (Student's t, from three seeds
    on), in front of the single runs, which have tooltips. Clicking a name fades the others. The
    title names the finished condition that ends best and its paired difference to the next. A
    slider sets the lower end of an accuracy axis, initially so that the ends of runs are distinct.
    Raises InputError if the cost is unknown, or no run holds a value.

    - ``records``: as for :func:`budgetlab.open_records`, or a frame as returned by
      :func:`budgetlab.analysis.epochs`.
    - ``cost``: initial axis: one of :data:`budgetlab.analysis.AXES`.
    - ``value``: metric: an accuracy or a loss.

    Returns
    -------
    Explorable
        Its twin takes ``cost``, ``condition`` (names beside the lines) and ``seed``, the last two
        as lists (default: all), and returns the lines: ``condition``, ``epoch``, ``cost``,
        ``value`` (accuracies in percent), ``low``, ``high`` and ``n``; with ``single=True`` the
        runs: ``condition``, ``seed``, ``run``, ``epoch``, ``cost`` and ``value``.
    """
    frame = records if isinstance(records, pd.DataFrame) else epochs(records)
    table, axes = _table(frame, value)
    keys = condition_columns(frame)
    conditions = list(dict.fromkeys(table["condition"]))
    controls, test, rows = toggles(table, {"condition": "", "seed": "seed "})

    def twin(cost: str = cost, single: bool = False, **chosen: Any) -> pd.DataFrame:
        cost = known("cost", cost, axes)
        kept = rows(**chosen)
        kept = kept.assign(cost=kept[cost])[[*table.columns[:4], "cost", "value"]]
        return kept if single else _means(kept)

    lines = twin()
    names = {name: style.axis_name(name) for name in axes}
    what = style.axis_name(value)
    generic = f"{style.capitalise(what).partition(' (')[0]} over what training costs"
    # Runs on several data sets do not compare methods.
    apart = varying(frame, [name for name in ("dataset", "fingerprint") if name in keys])
    ended = table[~table["condition"].str.endswith(style.UNFINISHED)]
    about = "" if apart or ended.empty else _finding(ended, value)
    runs_shown = f"{table['run'].nunique():,} runs"
    said = [f"{style.capitalise(what)} over {names[cost]} of {runs_shown}", about]
    alt = f"{'. '.join(filter(None, said))}. {_ends_in_words(lines)}"
    switched = " && ".join(c["name"] for c in controls) or "true"
    said = [json.dumps(wrap_title(text)) for text in (about or generic, generic)]
    heading = {"text": {"expr": f"{switched} ? {said[0]} : {said[1]}"},
               "subtitle": wrap_title(_hint(lines), SUBTITLE_LETTERS)}  # fmt: skip
    floor = _floor(table) if value.endswith("accuracy") else None
    scale: dict[str, Any] = {"zero": False, "nice": True}
    scale |= {} if floor is None else {"domainMin": {"expr": "floor"}}
    several = int(lines["n"].max()) > 1
    x = axis("cost", axis={"tickCount": 8})
    heights = [NAME_STEP + LINE_STEP * _in_lines(name).count("\n") for name in conditions]
    down = [sum(heights[:n]) for n in range(len(heights))]
    place = {"calculate": f"{down}[indexof({json.dumps(conditions)}, datum.condition)]",
             "as": "down"}  # fmt: skip
    told = hover({"condition": "", "epoch": "epoch", "cost": "cost", "mean": what,
                  "interval": "95% interval", "n": "seeds"})  # fmt: skip
    means = {"transform": _in_the_page(int(lines["n"].max())), "layer": _curves(
        conditions, "condition", x, ("mean", "low", "high"), {"title": what, "scale": scale},
        "epoch", told, place=[place], marked=_marked(table["epoch"], floor),
        form=".1f" if floor is not None else ".3g")}  # fmt: skip
    single = _single(conditions, x, axis("value", what, scale=scale), names,
                     shown="runs" if several else "true")  # fmt: skip
    spec = specification(
        heading, alt, fits=FITS,
        params=[select("cost", "cost axis", {n: a for a, n in names.items()}, cost),
                *([] if floor is None else [slider("floor", "axis from (%)", floor, 0, 95, 1)]),
                *([checkbox("runs", "single runs", True)] if several else []), *controls],
        width=520, height=330, data={"values": records_of(table)},
        transform=[{"filter": test}, {"calculate": "datum[cost]", "as": "cost"}],
        layer=[
            # The pointer finds the top layer: a lone run's point, with all of its costs.
            *([single, means] if several else [means, single]),
            words(f"({json.dumps(names)})[cost]", align="center", x={"expr": "width / 2"},
                  y={"expr": "height + 26"}) | {"data": {"values": [{}]}},
        ],
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=generic)


def _table(frame: pd.DataFrame, value: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the chart's rows, one per run and epoch in order of method, and the known costs."""
    require(frame, ["run", "epoch", "seed", "method", value], "a frame of learning curves")
    axes = [name for name in AXES if name in frame and frame[name].notna().any()]
    keys = condition_columns(frame)
    frame = replicates(frame, keys, ("seed",), value).dropna(subset=[value])
    if not len(frame):
        raise InputError(f"none of these runs holds a {value.replace('_', ' ')}: train for longer")
    frame = sorted_by_method(frame, after=["seed"])
    table = pd.DataFrame({
        "condition": labels(frame, keys).where(finished(frame), lambda s: s + style.UNFINISHED),
        "seed": frame["seed"], "run": frame["run"], "epoch": frame["epoch"],
        "value": compact(style.fraction(value) * frame[value], 5),
        **{name: compact(frame[name], 6) for name in axes if name != "epoch"},
    })  # fmt: skip
    return table, axes


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean and interval of each condition at each epoch that all of its runs reached."""
    found = []
    for (condition, epoch), group in rows.groupby(["condition", "epoch"], sort=False):
        low, high = mean_interval(group["value"].to_numpy())
        found.append({"condition": condition, "epoch": epoch, "cost": group["cost"].mean(),
                      "value": group["value"].mean(), "low": low, "high": high,
                      "n": len(group)})  # fmt: skip
    table = pd.DataFrame(found, columns=["condition", "epoch", "cost", "value", "low", "high", "n"])
    # Means of fewer seeds are not comparable.
    most = table.groupby("condition")["n"].transform("max")
    return table[table["n"] == most].reset_index(drop=True)


def _in_the_page(most: int) -> list[dict[str, Any]]:
    """Compute the same as Vega transforms, from the runs that are switched on."""
    from scipy import stats

    few = f"datum.n < {MIN_PAIRS}"
    times = [0] * MIN_PAIRS + [round(float(stats.t.ppf(0.975, n - 1)), 6)
                            for n in range(MIN_PAIRS, most + 1)]  # fmt: skip
    half = f"{times}[datum.n] * datum.spread / sqrt(datum.n)"
    told = "format(datum.low, '.2f') + ' to ' + format(datum.high, '.2f')"
    return [
        {"joinaggregate": [{"op": "count", "as": "n"}], "groupby": ["condition", "epoch"]},
        {"joinaggregate": [{"op": "max", "field": "n", "as": "most"}], "groupby": ["condition"]},
        {"filter": "datum.n == datum.most"},
        {"aggregate": [{"op": "mean", "field": "value", "as": "mean"},
                       {"op": "mean", "field": "cost", "as": "cost"},
                       {"op": "stdev", "field": "value", "as": "spread"},
                       {"op": "count", "as": "n"}], "groupby": ["condition", "epoch"]},
        {"calculate": f"{few} ? null : datum.mean - {half}", "as": "low"},
        {"calculate": f"{few} ? null : datum.mean + {half}", "as": "high"},
        {"calculate": f"{few} ? 'none with so few seeds' : {told}", "as": "interval"},
    ]  # fmt: skip


def _finding(table: pd.DataFrame, value: str) -> str:
    """Title naming the condition that ends best and its paired difference to the runner-up."""
    last = table.groupby(["condition", "run"], sort=False)[["seed", "value"]].last().reset_index()
    ends = last.groupby("condition", sort=False)["value"].mean()
    best, *others = ends.sort_values(ascending=value.endswith("loss"), kind="stable").index
    unit, up = ("points", "above") if value.endswith("accuracy") else ("nats", "below")
    if not others:
        low, high = mean_interval(last["value"].to_numpy())
        sure = f"{low:.4g} to {high:.4g}, " if low == low else ""
        return f"{style.capitalise(best)} ends at {ends[best]:.4g} ({sure}n = {len(last)})"
    seeds = last.pivot_table(index="seed", columns="condition", values="value")
    pairs = seeds[[best, others[0]]].dropna()
    found = paired_difference(pairs[best], pairs[others[0]])
    # No title if the seeds that both share show the reverse.
    if not found.pairs or ((found.difference < 0) == (up == "above") and found.difference):
        return ""
    digits = ".1f" if abs(found.difference) >= 1 else ".2f"
    known = found.ci_low == found.ci_low
    sure = f"{found.ci_low:+{digits}} to {found.ci_high:+{digits}}, " if known else ""
    sure = f"({sure}n = {found.pairs})"
    if known and found.ci_low <= 0 <= found.ci_high:
        among = f"the best of {len(ends)}, " if len(ends) > 2 else ""
        return (f"No difference seen between {among}{best} and {others[0]}: "
                f"{found.difference:+{digits}} {unit} {sure}")  # fmt: skip
    size = f"{abs(found.difference):{digits}}"
    next_one = f"{others[0]}, the next of {len(ends)}" if len(ends) > 2 else others[0]
    return f"{style.capitalise(best)} ends {size} {unit} {up} {next_one} {sure}"


def _floor(table: pd.DataFrame) -> float:
    """Lower end of an accuracy axis: below all values after the first third of each run."""
    late = table[table["epoch"] > table.groupby("run")["epoch"].transform("max") / 3]
    low = np.floor(float(late["value"].min()) / 5) * 5
    return float(np.clip(low, 0, 95)) if len(late) else 0.0


def _hint(lines: pd.DataFrame) -> str:
    """Subtitle: what is drawn, and how to use it."""
    seeds = lines.groupby("condition")["n"].first()
    few, most = int(seeds.min()), int(seeds.max())
    how = "Click a name to compare; hover for numbers"
    if most == 1:
        return how
    of = f"{most} seeds" if few == most else f"{few} to {most} seeds"
    band = "and 95% interval " if most >= MIN_PAIRS else ""
    return f"Mean {band}of {of}, or of those switched on; single runs behind. {how}"


def _ends_in_words(lines: pd.DataFrame) -> str:
    said = []
    for row in lines.groupby("condition", sort=False).last().reset_index().to_dict("records"):
        sure = f"{row['low']:.4g} to {row['high']:.4g}, " if row["low"] == row["low"] else ""
        said.append(f"{row['condition']} ends at {row['value']:.4g} ({sure}n = {row['n']})")
    return f"{'; '.join(said)}."


def _single(
    conditions: Sequence[str], x: dict[str, Any], y: dict[str, Any], names: dict[str, str],
    shown: str,
) -> dict[str, Any]:  # fmt: skip
    """Draw single runs, pale; the one under the pointer is highlighted, with a tooltip."""
    look = style_encodings(conditions, "condition")
    near = {"name": "near", "select": {"type": "point", "on": "mouseover", "clear": "mouseout",
                                       "fields": ["run"]}}  # fmt: skip
    pale = {"condition": [{"param": "near", "empty": False, "value": 0.9},
                          {"param": "chosen", "value": 0.16}], "value": 0.03}  # fmt: skip
    at = {"x": x, "y": y, "color": look["color"], "detail": {"field": "run"}}
    costs = {name: text for name, text in names.items() if name != "epoch"}
    told = hover({"condition": "", "seed": "seed", "epoch": "epoch", "value": y["title"]} | costs)
    return {"transform": [{"filter": shown}], "layer": [
        {"mark": mark("line", strokeWidth=1, clip=True),
         "encoding": at | {"opacity": pale, "order": axis("epoch")}},
        {"params": [near], "mark": mark("point", size=50, opacity=0, clip=True),
         "encoding": at | {"tooltip": told}},
    ]}  # fmt: skip


def _in_lines(name: str) -> str:
    """Wrap a name to the room beside a chart, with its final value after the last word."""
    value = "\u2002" + 5 * "0"
    return style.wrap(f"{name}{value}", NAME_LETTERS).removesuffix(value)


def _curves(
    names: Sequence[str], field: str, x: dict[str, Any], columns: tuple[str, str, str],
    y: dict[str, Any], order: str, tooltip: list[dict[str, Any]], *,
    place: list[dict[str, Any]], marked: str = "true", form: str = ".1f",
) -> list[dict[str, Any]]:  # fmt: skip
    """Draw lines with bands and markers, and beside them their names and final values.

    ``columns`` holds the middle and both ends of a band; ``place`` transforms give the distance
    ``down`` of the names, ``marked`` tests which rows have a marker. Names not chosen are faded.
    """
    look = style_encodings(names, field)
    middle, low, high = columns
    at = {"x": x, "y": axis(middle, **y)}
    chosen = {"name": "chosen", "select": {"type": "point", "fields": [field], "toggle": "true"}}

    def faded(value: float, otherwise: float) -> dict[str, Any]:
        return {"condition": {"param": "chosen", "value": value}, "value": otherwise}

    line = {channel: look[channel] for channel in ("color", "strokeDash")}
    point = {channel: look[channel] for channel in ("color", "shape")}
    right = f"width > {NARROW - 1}"
    down = f"({right} ? 6 : height + 54) + datum.down"
    beside = {"y": {"expr": down}, "clip": False}
    across = [{"expr": f"{right} ? width + {wide} : {wide - 18}"} for wide in (32, 52)]
    end = [{"joinaggregate": [{"op": "max", "field": order, "as": "end"}], "groupby": [field]},
           {"filter": f"datum.{order} == datum.end"}, *place]  # fmt: skip
    lines = json.dumps({name: _in_lines(name) for name in map(str, names)})
    said = f"({lines})[datum.{field}] + '\u2002' + format(datum.{middle}, '{form}')"
    # Lines of a single point often have it at one cost: side by side, each is seen.
    step, centre = min(9, 150 / len(names)), (len(names) - 1) / 2
    apart = f"{step} * (indexof({json.dumps([*names])}, datum.{field}) - {centre})"
    alone = [{"joinaggregate": [{"op": "count", "as": "points"}], "groupby": [field]},
             {"calculate": f"datum.points == 1 ? {apart} : 0", "as": "apart"}]  # fmt: skip
    beside_others = {"xOffset": {"expr": "datum.apart"}}
    return [
        {"mark": mark("area", clip=True, line=False), "encoding": {
            "x": x, "y": axis(low, **y), "y2": {"field": high}, "color": look["color"],
            "opacity": faded(0.18, 0.03)}},
        # An area of a single point has no width: a rule instead.
        {"transform": [*alone, {"filter": "datum.points == 1"}],
         "mark": mark("rule", strokeWidth=2, clip=True, **beside_others), "encoding": {
             "x": x, "y": axis(low, **y), "y2": {"field": high}, "color": look["color"],
             "opacity": faded(0.6, 0.03)}},
        {"mark": mark("line", strokeWidth=2, clip=True),
         "encoding": at | line | {"opacity": faded(1, 0.12), "order": axis(order)}},
        {"transform": [*alone, {"filter": marked}], "mark": mark("point", size=30, **beside_others),
         "encoding": at | point | {"opacity": faded(1, 0.12), "tooltip": tooltip}},
        {"transform": end, "layer": [
            {"mark": mark("point", shape="stroke", filled=False, size=900, strokeWidth=2,
                          x=across[0], **beside), "encoding": line | {"opacity": faded(1, 0.3)}},
            {"mark": mark("point", size=50, x=across[0], **beside),
             "encoding": point | {"opacity": faded(1, 0.3)}},
            {"params": [chosen],
             "mark": mark("text", text={"expr": said}, align="left", baseline="middle",
                          fontSize=11, x=across[1], cursor="pointer", color=style.INK, **beside),
             "encoding": {"opacity": faded(1, 0.45)}},
        ]},
    ]  # fmt: skip


def _marked(epochs: pd.Series, floor: float | None) -> str:
    """Return the test for rows with a marker: the last, and some before within the axis."""
    kept = np.unique(epochs)[::-1]
    test = f"indexof({kept[:: -(-len(kept) // MARKS)].tolist()}, datum.epoch) >= 0"
    return test if floor is None else f"{test} && datum.mean >= floor"


def crossing(frame: pd.DataFrame) -> Explorable:
    """Which augmentation is best at which length of training? Accuracy by epochs of the full run.

    Names are in the order of the lines' right ends, as in :func:`budgetlab.plots.crossing`. Raises
    InputError if a column is missing, or there is no row.

    ``frame``: one row per point: ``dataset``, ``augmentation``, ``epochs``, ``mean``, ``ci_low``
    and ``ci_high`` (accuracy in percent; the interval may be NaN), ``n`` (seeds); optionally
    ``method``, ``budget`` and ``verdict``.

    The chart's twin takes ``dataset``, ``method`` and ``budget`` and returns the rows drawn.
    """
    table, controls, test, chosen_of = data_selector(frame, CROSSING_COLUMNS, ".2f")

    def twin(**chosen: Any) -> pd.DataFrame:
        rows = chosen_of(**chosen).sort_values("epochs", kind="stable")
        ends = rows.groupby("augmentation", sort=False)["mean"].last()
        ranks = ends.rank(ascending=False, method="first")
        place = rows["augmentation"].map(ranks).argsort(kind="stable")
        return rows.iloc[place].reset_index(drop=True)

    alt = rows_alt_text(twin(), "mean", ["augmentation", "epochs"], "percent")
    title = "Accuracy of each augmentation over the length of training"
    x = axis("epochs", "epochs of the full run (logarithmic)",
             scale={"type": "log", "nice": False, "padding": 20},
             axis={"values": sorted(table["epochs"].unique().tolist())})  # fmt: skip
    shown = [*CROSSING_COLUMNS[:4], "n", "interval", *(["verdict"] if "verdict" in table else [])]
    place = {"window": [{"op": "row_number", "as": "rank"}],
             "sort": [{"field": "mean", "order": "descending"}]}  # fmt: skip
    spec = specification(
        {"text": finding_title(table, crossed, title),
         "subtitle": "Click a name to compare; hover for seeds and interval"}, alt, fits=FITS,
        params=controls, data={"values": records_of(table)}, width=520, height=320,
        transform=[{"filter": test}],
        layer=_curves(
            list(dict.fromkeys(table["augmentation"])), "augmentation", x,
            ("mean", "ci_low", "ci_high"),
            {"title": "test accuracy (%)", "zero": False}, "epochs",
            tooltip_for(shown),
            place=[place, {"calculate": f"{NAME_STEP} * (datum.rank - 1)", "as": "down"}]),
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=title)
