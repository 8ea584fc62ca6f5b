"""What was reached, at what cost, and where: learning curves, importance map, crossing curve."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.analysis import AXES, epochs
from budgetlab.analysis.conditions import condition_columns, method_order, require
from budgetlab.errors import InputError, unknown
from budgetlab.explore.chart import (
    Explorable,
    axis,
    choices,
    compact,
    hover,
    looks_of,
    mark,
    records_of,
    select,
    slider,
    specification,
    switches,
    words,
)
from budgetlab.plots import style
from budgetlab.plots.learning import crossed
from budgetlab.records import Records

__all__ = ["crossing", "importance_map", "learning"]

DATA = ("dataset", "method", "budget")
MAP_COLUMNS = ("dataset", "method", "label_noise", "difference", "ci_low", "ci_high", "n",
               "verdict")  # fmt: skip
CROSSING_COLUMNS = ("dataset", "augmentation", "epochs", "mean", "ci_low", "ci_high", "n")
ZERO_OUTSIDE = "datum.ci_low > 0 || datum.ci_high < 0"
NAMES = {"n": "seeds", "interval": "95% interval", "mean": "test accuracy (%)"}


def learning(
    records: Records | pd.DataFrame, cost: str = "steps", value: str = "test_accuracy"
) -> Explorable:
    """Accuracy over any cost: choose the axis, switch methods and seeds on and off.

    One line per run; hovering over a point names the run and what it had spent; a click in the
    legend fades all others. The axis of accuracies begins where a slider says: to begin with, so
    that the ends of the runs can be told apart.

    Parameters
    ----------
    records
        As for :func:`budgetlab.open_records`, or a frame as from
        :func:`budgetlab.analysis.epochs`.
    cost
        The axis to begin with: one of :data:`budgetlab.analysis.AXES`.
    value
        What to follow: an accuracy or a loss.

    Returns
    -------
    Explorable
        Its twin takes ``cost`` and what is switched on, ``condition`` (names of the legend) and
        ``seed``, all by default, and returns what is drawn: ``condition``, ``seed``, ``run``,
        ``epoch``, ``cost`` and ``value`` (accuracies in percent).

    Raises
    ------
    InputError
        If the cost is unknown, or no run holds a value.
    """
    frame = records if isinstance(records, pd.DataFrame) else epochs(records)
    if cost not in AXES:
        raise unknown("cost", cost, AXES)
    require(frame, ["run", "epoch", "seed", "method", value], "a frame of learning curves")
    axes = [name for name in AXES if name in frame and frame[name].notna().any()]
    frame = frame.dropna(subset=[value])
    if not len(frame):
        raise InputError(f"none of these runs holds a {value.replace('_', ' ')}: train for longer")
    order = method_order(frame["method"])
    frame = frame.sort_values("seed", kind="stable")
    frame = frame.sort_values("method", key=lambda c: c.map(order.index), kind="stable")
    table = pd.DataFrame({
        "condition": style.line_labels(frame, condition_columns(frame)),
        "seed": frame["seed"], "run": frame["run"], "epoch": frame["epoch"],
        "value": compact(style.fraction(value) * frame[value], 5),
        **{name: compact(frame[name], 6) for name in axes if name != "epoch"},
    })  # fmt: skip
    conditions = list(dict.fromkeys(table["condition"]))
    controls, test, rows = switches(table, {"condition": "", "seed": "seed "})

    def twin(cost: str = cost, **chosen: Any) -> pd.DataFrame:
        if cost not in axes:
            raise unknown("cost", cost, axes)
        kept = rows(**chosen)
        return kept.assign(cost=kept[cost])[[*table.columns[:4], "cost", "value"]]

    last = table.groupby(["condition", "run"], sort=False)["value"].last()
    ends = last.groupby("condition", sort=False)
    said = "; ".join(f"{name} ends at {group.mean():.4g} (n = {len(group)})"
                     for name, group in ends)  # fmt: skip
    names = {name: style.axis_name(name) for name in axes}
    what = style.capital(style.axis_name(value))
    alt = f"{what} over {names[cost]} of {frame['run'].nunique():,} runs. {said}."
    found = style.leader(ends.mean().to_dict(), value)
    hint = "Click in the legend to compare; hover for the run"
    title = f"{what.partition(' (')[0]} over what training costs"
    floor = _floor(table) if value.endswith("accuracy") else None
    scale = {"zero": False} if floor is None else {"zero": False, "domainMin": {"expr": "floor"}}
    at = {"x": axis("cost"), "y": axis("value", style.axis_name(value), scale=scale)}
    tooltip = hover({"condition": "run", "seed": "seed", "epoch": "epoch",
                     "value": style.axis_name(value)}
                    | {a: name for a, name in names.items() if a != "epoch"})  # fmt: skip
    tooltip[3]["format"] = ".2f"
    below = words(f"({json.dumps(names)})[cost]", align="center", x={"expr": "width / 2"},
                  y={"expr": "height + 26"}) | {"data": {"values": [{}]}}  # fmt: skip
    spec = specification(
        {"text": title, "subtitle": f"{found}. {hint}" if found else hint}, alt,
        params=[select("cost", "cost axis", {n: a for a, n in names.items()}, cost),
                *([] if floor is None else [slider("floor", "axis from (%)", floor, 0, 95, 1)]),
                *controls],
        width=560, height=330, data={"values": records_of(table)},
        transform=[{"filter": test}, {"calculate": "datum[cost]", "as": "cost"}],
        layer=[*_curves(conditions, "condition", at, tooltip,
                        {"detail": {"field": "run"}, "order": axis("epoch")}), below],
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=title)


def _floor(table: pd.DataFrame) -> float:
    """Where an axis of accuracies begins: below all but what the first third of each run shows."""
    late = table[table["epoch"] > table.groupby("run")["epoch"].transform("max") / 3]
    low = np.floor(float(late["value"].min()) / 5) * 5
    return float(np.clip(low, 0, 95)) if len(late) else 0.0


def _curves(
    names: Sequence[str],
    field: str,
    at: dict[str, Any],
    tooltip: list[dict[str, Any]],
    more: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Lines and their points; those that are not chosen in the legend are faded."""
    look = looks_of(names, field, symbolSize=220)  # large enough to show whose line is dashed
    faded = {"condition": {"param": "chosen", "value": 1}, "value": 0.12}
    chosen = {"name": "chosen", "bind": "legend",
              "select": {"type": "point", "fields": [field], "toggle": "true"}}  # fmt: skip
    points = {channel: look[channel] for channel in ("color", "shape")}
    lines = at | {"opacity": faded} | (more or {})
    lines |= {channel: look[channel] for channel in ("color", "strokeDash")}
    return [
        {"mark": mark("line", strokeWidth=1.8, clip=True), "encoding": lines},
        {"params": [chosen], "mark": mark("point", size=24, clip=True),
         "encoding": at | points | {"opacity": faded, "tooltip": tooltip}},
    ]  # fmt: skip


def importance_map(frame: pd.DataFrame) -> Explorable:
    """Where does a method help? Its difference from uniform sampling over two dials of the data.

    Choose data, method and, where there are several, the budget; hovering over a field gives
    number of seeds, interval and verdict. Colours are the same for all choices: purple helps,
    orange costs, as in the drawn map. An interval that holds zero is printed pale.

    Parameters
    ----------
    frame
        One row per field: ``dataset``, ``method``, ``redundancy`` or ``imbalance``,
        ``label_noise``, ``difference``, ``ci_low`` and ``ci_high`` (percentage points), ``n``
        (paired seeds), ``verdict`` (words), and ``budget`` where there are several.

    Returns
    -------
    Explorable
        Its twin takes ``dataset``, ``method`` and ``budget`` and returns the rows drawn.

    Raises
    ------
    InputError
        If a column is missing, or there is no row.
    """
    dial = "redundancy" if "redundancy" in frame else "imbalance"
    table, controls, test, twin = _choice(frame, [*MAP_COLUMNS, dial], "+.2f")
    reach = float(np.ceil(np.nanmax(np.abs(table["difference"])) * 2) / 2) or 1.0
    alt = _in_words(twin(), "difference", [dial, "label_noise"], "percentage points")
    title = "Differences from uniform sampling"
    heading = {"text": _found(table, _helps, title), "subtitle": "Percentage points of accuracy; "
               "pale where the interval holds zero. Hover for seeds and verdict"}  # fmt: skip
    at = {"x": {"field": dial, "type": "ordinal", "title": dial, "axis": {"labelAngle": 0}},
          "y": {"field": "label_noise", "type": "ordinal", "title": "label noise",
                "sort": "descending"}}  # fmt: skip
    colour = axis(
        "difference",
        "difference",
        scale={"domain": [-reach, 0, reach], "range": ["#e66101", "#f7f7f7", "#5e3c99"]},
    )
    shown = ["dataset", "method", dial, "label_noise", "n", "interval", "verdict"]
    cells = at | {"color": colour, "tooltip": _hover(shown)}
    numbers = at | {
        "text": axis("difference", format="+.1f"),
        "color": {"condition": {"test": f"datum.difference < {-0.7 * reach}", "value": "white"},
                  "value": style.INK},
        "opacity": {"condition": {"test": ZERO_OUTSIDE, "value": 1}, "value": 0.55},
    }  # fmt: skip
    spec = specification(
        heading, alt, params=controls, data={"values": records_of(table)},
        transform=[{"filter": test}], width={"step": 74}, height={"step": 46},
        layer=[{"mark": mark("rect", stroke="white"), "encoding": cells},
               {"mark": mark("text", fontSize=12), "encoding": numbers}],
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=title)


def _helps(rows: pd.DataFrame) -> str:
    """In how many cells a method helps and costs, as a title."""
    helps, costs = int((rows["ci_low"] > 0).sum()), int((rows["ci_high"] < 0).sum())
    return f"{rows['method'].iloc[0]} helps in {helps} of {len(rows)} cells and costs in {costs}"


def _found(
    table: pd.DataFrame, say: Callable[[pd.DataFrame], str], otherwise: str
) -> dict[str, str]:
    """A title that says what each choice of data shows."""
    keys = [name for name in DATA if name in table]
    said = {"".join(map(str, chosen)): say(rows) for chosen, rows in table.groupby(keys)}
    return {"expr": f"({json.dumps(said)})['' + {' + '.join(keys)}] || {json.dumps(otherwise)}"}


def crossing(frame: pd.DataFrame) -> Explorable:
    """Which augmentation is best for how long a training? Accuracy over the epochs of each.

    Parameters
    ----------
    frame
        One row per point: ``dataset``, ``augmentation``, ``epochs``, ``mean``, ``ci_low`` and
        ``ci_high`` (accuracy, percent; the interval may be NaN), ``n`` (seeds); ``method``,
        ``budget`` and ``verdict`` where there are several.

    Returns
    -------
    Explorable
        Its twin takes ``dataset``, ``method`` and ``budget`` and returns the rows drawn.

    Raises
    ------
    InputError
        If a column is missing, or there is no row.
    """
    table, controls, test, twin = _choice(frame, CROSSING_COLUMNS, ".2f")
    names = list(dict.fromkeys(table["augmentation"]))
    alt = _in_words(twin(), "mean", ["augmentation", "epochs"], "percent")
    title = "Accuracy of each augmentation over the length of training"
    hint = "Click in the legend to compare; hover for seeds and interval"
    heading = {"text": _found(table, crossed, title), "subtitle": hint}
    x = axis("epochs", "epochs of the full run",
             scale={"type": "log", "nice": False, "padding": 20},
             axis={"values": sorted(table["epochs"].unique().tolist())})  # fmt: skip
    middle, low = (axis(column, NAMES["mean"], zero=False) for column in ("mean", "ci_low"))
    band = {
        "mark": {"type": "errorband", "opacity": 0.15},
        "encoding": {"x": x, "y": low, "y2": {"field": "ci_high"},
                     "color": looks_of(names, "augmentation")["color"]},
        "transform": [{"filter": "isValid(datum.ci_low) && isValid(datum.ci_high)"}],
    }  # fmt: skip
    shown = ["dataset", "augmentation", "epochs", "mean", "n", "interval", "verdict"]
    tooltip = _hover([name for name in shown if name in table])
    spec = specification(
        heading, alt, params=controls, data={"values": records_of(table)}, width=520, height=320,
        transform=[{"filter": test}],
        layer=[band, *_curves(names, "augmentation", {"x": x, "y": middle}, tooltip)],
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=title)


def _choice(frame: pd.DataFrame, columns: Sequence[str], form: str) -> tuple[Any, ...]:
    """The rows with their interval in words, and what it takes to choose among the data."""
    require(frame, columns, "a frame of this chart")
    if not len(frame):
        raise InputError("this frame has no row: there is nothing to draw")
    extra = [name for name in ("method", "budget", "verdict") if name in frame]
    table = frame[list(dict.fromkeys([*columns, *extra]))].reset_index(drop=True)
    ends = zip(table["ci_low"], table["ci_high"], strict=True)
    said = [f"{low:{form}} to {high:{form}}" if low == low and high == high
            else "none with so few seeds" for low, high in ends]  # fmt: skip
    table = table.assign(interval=said)
    return table, *choices(table, [key for key in DATA if key in table])


def _hover(columns: Sequence[str]) -> list[dict[str, Any]]:
    return hover({name: NAMES.get(name, name.replace("_", " ")) for name in columns})


def _in_words(rows: pd.DataFrame, value: str, keys: Sequence[str], unit: str) -> str:
    """Every number that is drawn, for those who cannot see it."""
    said = [", ".join(f"{key.replace('_', ' ')} {row[key]}" for key in keys)
            + f": {row[value]:.1f} ({row['interval']}, n = {row['n']:g})"
            for row in rows.to_dict("records")]  # fmt: skip
    name = value.replace("_", " ").capitalize()
    return f"{name} in {unit}, {rows['dataset'].iloc[0]}. {'; '.join(said)}."
