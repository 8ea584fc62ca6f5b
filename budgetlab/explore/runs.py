"""What was reached, at what cost, and where: learning curves, importance map, crossing curve."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.analysis import AXES, epochs
from budgetlab.analysis.conditions import condition_columns, method_order, require
from budgetlab.errors import InputError, unknown
from budgetlab.explore.chart import (
    Explorable,
    compact,
    looks_of,
    records_of,
    select,
    specification,
    words,
)
from budgetlab.plots import style
from budgetlab.plots.maps import crossed
from budgetlab.records import Records

__all__ = ["crossing", "importance_map", "learning"]

EVERY = "all"
ACCURACIES = ("test_accuracy", "val_accuracy", "train_accuracy")


def learning(
    records: Records | pd.DataFrame, cost: str = "steps", value: str = "test_accuracy"
) -> Explorable:
    """Accuracy over any cost: choose the axis and the seed, switch methods in the legend.

    One line a run; hovering over a point names the run and what it had spent.

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
        Its twin takes ``cost``, ``condition`` (a name of the legend, or ``all``) and ``seed``
        (a number, or ``all``) and returns what is drawn: ``condition``, ``seed``, ``run``,
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
    order = {name: place for place, name in enumerate(method_order(frame["method"]))}
    frame = frame.sort_values("method", key=lambda c: c.map(order), kind="stable")
    table = pd.DataFrame({
        "condition": style.line_labels(frame, condition_columns(frame)),
        "seed": frame["seed"], "run": frame["run"], "epoch": frame["epoch"],
        "value": compact(style.fraction(value) * frame[value], 5),
        **{name: compact(frame[name], 6) for name in axes if name != "epoch"},
    })  # fmt: skip
    conditions = list(dict.fromkeys(table["condition"]))
    seeds = sorted(int(seed) for seed in table["seed"].unique())

    def twin(cost: str = cost, condition: str = EVERY, seed: int | str = EVERY) -> pd.DataFrame:
        if cost not in axes:
            raise unknown("cost", cost, axes)
        rows = table.assign(cost=table[cost])
        if condition != EVERY:
            rows = rows[rows["condition"] == condition]
        if seed != EVERY:
            rows = rows[rows["seed"] == seed]
        return rows[["condition", "seed", "run", "epoch", "cost", "value"]].reset_index(drop=True)

    last = table.groupby(["condition", "run"], sort=False)["value"].last()
    ends = last.groupby("condition", sort=False)
    said = "; ".join(f"{name} ends at {group.mean():.4g} (n = {len(group)})"
                     for name, group in ends)  # fmt: skip
    alt = (
        f"{style.capital(style.axis_name(value))} over {style.axis_name(cost)} of "
        f"{frame['run'].nunique():,} runs. {said}."
    )
    controls = [
        select("cost", "cost axis", {style.axis_name(name): name for name in axes}, cost),
        select("condition", "method", {name: name for name in [EVERY, *conditions]}),
        select("seed", "seed", {EVERY: EVERY, **{str(seed): seed for seed in seeds}}),
    ]
    title = "Who learns fastest for what it costs?"
    found = style.leader(ends.mean().to_dict(), value).replace("\\$", "$")
    hint = "Click in the legend to compare; hover for the run"
    spec = specification(
        {"text": title, "subtitle": f"{found}. {hint}" if found else hint}, alt,
        params=controls, width=560, height=330,
        data={"values": records_of(table)},
        transform=[
            {"filter": f"(condition == '{EVERY}' || datum.condition == condition)"
                       f" && (seed == '{EVERY}' || datum.seed == seed)"},
            {"calculate": "datum[cost]", "as": "cost"},
        ],
        layer=_lines(conditions, style.axis_name(value), axes),
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=title)


def _lines(conditions: Sequence[str], name: str, axes: Sequence[str]) -> list[dict[str, Any]]:
    at = {
        "x": {"field": "cost", "type": "quantitative", "title": None},
        "y": {"field": "value", "type": "quantitative", "title": name, "scale": {"zero": False}},
    }
    tooltip = [
        {"field": "condition", "title": "run"}, {"field": "seed"}, {"field": "epoch"},
        {"field": "value", "title": name, "format": ".2f"},
        *({"field": a, "title": style.axis_name(a)} for a in axes if a != "epoch"),
    ]  # fmt: skip
    one_a_run = {"detail": {"field": "run"}, "order": {"field": "epoch", "type": "quantitative"}}
    names = ", ".join(f"'{name}': '{style.axis_name(name)}'" for name in axes)
    below = words(f"({{{names}}})[cost]", align="center")
    below["mark"] |= {"x": {"expr": "width / 2"}, "y": {"expr": "height + 26"}}
    below |= {"data": {"values": [{}]}}
    return [*_curves(conditions, "condition", at, tooltip, one_a_run), below]


def _curves(
    names: Sequence[str],
    field: str,
    at: dict[str, Any],
    tooltip: list[dict[str, Any]],
    more: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Lines and their points; those that are not chosen in the legend are faded."""
    look, faded = looks_of(names, field), {"condition": {"param": "chosen", "value": 1},
                                           "value": 0.12}  # fmt: skip
    points = {
        "params": [{"name": "chosen", "bind": "legend",
                    "select": {"type": "point", "fields": [field], "toggle": "true"}}],
        "mark": {"type": "point", "filled": True, "size": 40, "aria": False},
        "encoding": at | look | {"opacity": faded, "tooltip": tooltip},
    }  # fmt: skip
    line = {
        "mark": {"type": "line", "strokeWidth": 1.8, "aria": False},
        "encoding": at | {"color": look["color"], "opacity": faded} | (more or {}),
    }
    return [line, points]


MAP_COLUMNS = ("dataset", "method", "label_noise", "difference", "ci_low", "ci_high", "n",
               "verdict")  # fmt: skip


def importance_map(frame: pd.DataFrame) -> Explorable:
    """Where does a method help? Its difference from uniform sampling over two dials of the data.

    Choose data, method and, where there are several, the budget; hovering over a field gives
    number of seeds, interval and verdict. Colours are the same for all choices: purple helps,
    orange costs, as in the drawn map. An interval that holds zero is printed pale.

    Parameters
    ----------
    frame
        One row a field: ``dataset``, ``method``, ``redundancy`` or ``imbalance``,
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
    require(frame, [*MAP_COLUMNS, dial], "a frame of an importance map")
    table = _rows(frame, [*MAP_COLUMNS, dial])
    keys = [name for name in ("dataset", "method", "budget") if name in table]
    controls, start, twin = _choices(table, keys)
    reach = float(np.ceil(np.nanmax(np.abs(table["difference"])) * 2) / 2) or 1.0
    alt = _in_words(twin(), "difference", [dial, "label_noise"], "percentage points")
    title = {"text": {"expr": "method + ' against uniform sampling (percentage points)'"},
             "subtitle": "Hover for seeds, interval and verdict"}  # fmt: skip
    at = {"x": {"field": dial, "type": "ordinal", "title": dial, "axis": {"labelAngle": 0}},
          "y": {"field": "label_noise", "type": "ordinal", "title": "label noise",
                "sort": "descending"}}  # fmt: skip
    field = {
        "mark": {"type": "rect", "stroke": "white", "aria": False},
        "encoding": at | {
            "color": {"field": "difference", "type": "quantitative", "title": "difference",
                      "scale": {"domain": [-reach, 0, reach],
                                "range": ["#e66101", "#f7f7f7", "#5e3c99"]}},
            "tooltip": _hover(["dataset", "method", dial, "label_noise", "n", "interval",
                               "verdict"]),
        },
    }  # fmt: skip
    text = {
        "mark": {"type": "text", "fontSize": 12, "aria": False},
        "encoding": at | {
            "text": {"field": "difference", "type": "quantitative", "format": "+.1f"},
            "color": {"condition": {"test": f"datum.difference < {-0.7 * reach}",
                                    "value": "white"}, "value": style.INK},
            "opacity": {"condition": {"test": ZERO_OUTSIDE, "value": 1}, "value": 0.55},
        },
    }  # fmt: skip
    spec = specification(
        title, alt, params=controls, data={"values": records_of(table)},
        transform=[{"filter": _same(start)}], width={"step": 74}, height={"step": 46},
        layer=[field, text],
    )  # fmt: skip
    return Explorable(spec, alt, twin, title="Where does importance sampling help?")


ZERO_OUTSIDE = "datum.ci_low > 0 || datum.ci_high < 0"
CROSSING_COLUMNS = ("dataset", "augmentation", "epochs", "mean", "ci_low", "ci_high", "n")


def crossing(frame: pd.DataFrame) -> Explorable:
    """Which augmentation is best for how long a training? Accuracy over the epochs of each.

    Parameters
    ----------
    frame
        One row a point: ``dataset``, ``augmentation``, ``epochs``, ``mean``, ``ci_low`` and
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
    require(frame, CROSSING_COLUMNS, "a frame of a crossing curve")
    table = _rows(frame, CROSSING_COLUMNS)
    keys = [name for name in ("dataset", "method", "budget") if name in table]
    controls, start, twin = _choices(table, keys)
    names = list(dict.fromkeys(table["augmentation"]))
    alt = _in_words(twin(), "mean", ["augmentation", "epochs"], "percent")
    title = "Which augmentation is best for how long a training?"
    said = {"".join(map(str, chosen if isinstance(chosen, tuple) else (chosen,))): crossed(rows)
            for chosen, rows in table.groupby(keys)}  # fmt: skip
    found = f"({json.dumps(said)})['' + {' + '.join(keys)}]"
    heading = {
        "text": {"expr": f"{found} ? {found} : '{title}'"},
        "subtitle": "Click in the legend to compare; hover for seeds and interval",
    }
    x = {"field": "epochs", "type": "quantitative", "title": "epochs of the full run",
         "scale": {"type": "log", "nice": False, "padding": 20},
         "axis": {"values": sorted(table["epochs"].unique().tolist())}}  # fmt: skip
    y = {"type": "quantitative", "scale": {"zero": False}}
    band = {
        "mark": {"type": "errorband", "opacity": 0.15},
        "encoding": {"x": x, "y": y | {"field": "ci_low", "title": "test accuracy (%)"},
                     "y2": {"field": "ci_high"},
                     "color": looks_of(names, "augmentation")["color"]},
        "transform": [{"filter": "isValid(datum.ci_low) && isValid(datum.ci_high)"}],
    }  # fmt: skip
    middle = {"x": x, "y": y | {"field": "mean", "title": "test accuracy (%)"}}
    tooltip = _hover(["dataset", "augmentation", "epochs", "mean", "n", "interval",
                      *(["verdict"] if "verdict" in table else [])])  # fmt: skip
    spec = specification(
        heading, alt, params=controls, data={"values": records_of(table)}, width=520, height=320,
        transform=[{"filter": _same(start)}],
        layer=[band, *_curves(names, "augmentation", middle, tooltip)],
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=title)


def _rows(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    if not len(frame):
        raise InputError("this frame has no row: there is nothing to draw")
    extra = [name for name in ("method", "budget", "verdict") if name in frame]
    table = frame[list(dict.fromkeys([*columns, *extra]))].reset_index(drop=True)
    missing = table[["ci_low", "ci_high"]].isna().any(axis=1)
    said = [f"{low:+.2f} to {high:+.2f}" if columns is not CROSSING_COLUMNS
            else f"{low:.2f} to {high:.2f}"
            for low, high in zip(table["ci_low"], table["ci_high"], strict=True)]  # fmt: skip
    return table.assign(interval=np.where(missing, "none with so few seeds", said))


def _choices(
    table: pd.DataFrame, keys: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, Any], Any]:
    """Lists to choose from, what they begin with, and the rows that a choice leaves."""
    options = {key: list(dict.fromkeys(table[key].tolist())) for key in keys}
    start = {key: values[0] for key, values in options.items()}
    controls = [select(key, key, {str(v): v for v in values}) for key, values in options.items()]

    def twin(**chosen: Any) -> pd.DataFrame:
        kept = pd.Series(True, index=table.index)
        for key, value in (start | chosen).items():
            if key not in options:
                raise unknown("control", key, options)
            if value not in options[key]:
                raise unknown(key, str(value), [str(v) for v in options[key]])
            kept &= table[key] == value
        return table[kept].reset_index(drop=True)

    return controls, start, twin


def _same(start: dict[str, Any]) -> str:
    return " && ".join(f"datum.{key} == {key}" for key in start) or "true"


def _hover(columns: Sequence[str]) -> list[dict[str, Any]]:
    names = {"n": "seeds", "interval": "95% interval", "mean": "test accuracy (%)"}
    return [{"field": c, "title": names.get(c, c.replace("_", " "))} for c in columns]


def _in_words(rows: pd.DataFrame, value: str, keys: Sequence[str], unit: str) -> str:
    """Every number that is drawn, for those who cannot see it."""
    places = [", ".join(f"{key.replace('_', ' ')} {row[key]}" for key in keys)
              for row in rows.to_dict("records")]  # fmt: skip
    said = [f"{place}: {number:.1f} ({interval}, n = {n:g})" for place, number, interval, n in
            zip(places, rows[value], rows["interval"], rows["n"], strict=True)]  # fmt: skip
    what = rows["dataset"].iloc[0] if len(rows) else "no data"
    return f"{value.replace('_', ' ').capitalize()} in {unit}, {what}. " + "; ".join(said) + "."
