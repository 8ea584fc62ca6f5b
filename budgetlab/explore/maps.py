"""Interactive importance map, and controls that select rows by data set, method and budget."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.analysis.conditions import require
from budgetlab.errors import InputError
from budgetlab.explore.chart import (
    SUBTITLE_LETTERS,
    Explorable,
    axis,
    checkbox,
    distinct_values,
    hover,
    mark,
    rows_of,
    select,
    specification,
    wrap_title,
)
from budgetlab.explore.packing import records_of
from budgetlab.plots import style

DATA = ("dataset", "method", "budget")
MAP_COLUMNS = ("dataset", "method", "label_noise", "difference", "ci_low", "ci_high", "n",
               "verdict")  # fmt: skip
ZERO_OUTSIDE = "datum.ci_low > 0 || datum.ci_high < 0"
NAMES = {"n": "seeds", "interval": "95% interval", "mean": "test accuracy (%)"}


def importance_map(frame: pd.DataFrame) -> Explorable:
    """Where does a method help? Its difference from uniform sampling over two data properties.

    Lists choose the data set, method and budget, where there are several; tooltips give seeds,
    interval and verdict. Colours are the same for all choices: purple helps, orange hurts, as in
    :func:`budgetlab.plots.importance_map`. A number whose interval holds zero is printed pale.
    Raises InputError if a column is missing, or there is no row.

    ``frame``: one row per cell: ``dataset``, ``method``, ``redundancy`` or ``imbalance``,
    ``label_noise``, ``difference``, ``ci_low`` and ``ci_high`` (percentage points), ``n`` (paired
    seeds), ``verdict`` (text), and ``budget`` where there are several.

    The chart's twin takes ``dataset``, ``method`` and ``budget`` and returns the rows drawn.
    """
    dial = "redundancy" if "redundancy" in getattr(frame, "columns", ()) else "imbalance"
    table, controls, test, twin = data_selector(frame, [*MAP_COLUMNS, dial], "+.2f")
    reach = float(np.ceil(np.nanmax(np.abs(table["difference"])) * 2) / 2) or 1.0
    alt = rows_alt_text(twin(), "difference", [dial, "label_noise"], "percentage points")
    title = "Differences from uniform sampling"
    hint = ("Percentage points of accuracy; pale where the interval holds zero. Hover for seeds "
            "and verdict")  # fmt: skip
    heading = {"text": finding_title(table, _helps, title),
               "subtitle": wrap_title(hint, SUBTITLE_LETTERS)}  # fmt: skip
    at = {"x": {"field": dial, "type": "ordinal", "title": dial, "axis": {"labelAngle": 0}},
          "y": {"field": "label_noise", "type": "ordinal", "title": "label noise",
                "sort": "descending"}}  # fmt: skip
    colour = axis(
        "difference",
        "difference",
        scale={"domain": [-reach, 0, reach], "range": ["#e66101", "#f7f7f7", "#5e3c99"]},
    )
    shown = ["dataset", "method", dial, "label_noise", "n", "interval", "verdict"]
    cells = at | {"color": colour, "tooltip": tooltip_for(shown)}
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
    """Title: the number of cells in which a method helps, and in which it costs accuracy."""
    helps, costs = int((rows["ci_low"] > 0).sum()), int((rows["ci_high"] < 0).sum())
    return f"{rows['method'].iloc[0]} helps in {helps} of {len(rows)} cells and costs in {costs}"


def finding_title(
    table: pd.DataFrame, say: Callable[[pd.DataFrame], str], otherwise: str
) -> dict[str, str]:
    """Build a title that states the finding for each choice of data."""
    keys = [name for name in DATA if name in table and table[name].nunique() > 1]
    if not keys:
        return {"expr": json.dumps(wrap_title(say(table) or otherwise))}
    groups = table.groupby(keys)
    said = {"".join(map(str, chosen)): wrap_title(say(rows)) for chosen, rows in groups}
    return {"expr": f"({json.dumps(said)})['' + {' + '.join(keys)}] || {json.dumps(otherwise)}"}


def data_selector(frame: pd.DataFrame, columns: Sequence[str], form: str) -> tuple[Any, ...]:
    """Return rows with their interval as text, controls, Vega filter and twin to select data."""
    require(frame, columns, "a frame of this chart")
    if not len(frame):
        raise InputError("this frame has no row: there is nothing to draw")
    extra = [name for name in ("method", "budget", "verdict") if name in frame]
    table = frame[list(dict.fromkeys([*columns, *extra]))].reset_index(drop=True)
    ends = zip(table["ci_low"], table["ci_high"], strict=True)
    said = [f"{low:{form}} to {high:{form}}" if low == low and high == high
            else "none with so few seeds" for low, high in ends]  # fmt: skip
    table = table.assign(interval=said)
    options = distinct_values(table, [key for key in DATA if key in table])
    many = {key: values for key, values in options.items() if len(values) > 1}
    controls = [select(key, key, {str(v): v for v in values}) for key, values in many.items()]
    test = " && ".join(f"datum.{key} == {key}" for key in many) or "true"

    def twin(**chosen: Any) -> pd.DataFrame:
        at = {key: values[0] for key, values in options.items()} | chosen
        return rows_of(table, options, {key: [value] for key, value in at.items()})

    return table, controls, test, twin


def toggles(
    table: pd.DataFrame, columns: Mapping[str, str]
) -> tuple[list[dict[str, Any]], str, Any]:
    """Return checkboxes that toggle values, the Vega filter, and the same selection in Python.

    ``columns`` maps each column to a prefix for its checkbox labels. Value ``i`` of a column is
    the control ``column_i``; in Python, ``column=`` lists the values to keep.
    """
    options = distinct_values(table, columns)
    many = {key: values for key, values in options.items() if len(values) > 1}
    controls = [
        checkbox(f"{key}_{place}", f"{columns[key]}{value}", True)
        for key, values in many.items()
        for place, value in enumerate(values)
    ]
    test = " && ".join(
        f"[{', '.join(f'{key}_{place}' for place in range(len(values)))}]"
        f"[indexof({json.dumps(values)}, datum.{key})]"
        for key, values in many.items()
    )
    return controls, test or "true", lambda **shown: rows_of(table, options, shown)


def tooltip_for(columns: Sequence[str]) -> list[dict[str, Any]]:
    """Build tooltip entries for columns, with their usual labels."""
    return hover({name: NAMES.get(name, name.replace("_", " ")) for name in columns})


def rows_alt_text(rows: pd.DataFrame, value: str, keys: Sequence[str], unit: str) -> str:
    """Return alternative text with every number that is drawn."""
    said = [", ".join(f"{key.replace('_', ' ')} {row[key]}" for key in keys)
            + f": {row[value]:.1f} ({row['interval']}, n = {row['n']:g})"
            for row in rows.to_dict("records")]  # fmt: skip
    name = value.replace("_", " ").capitalize()
    return f"{name} in {unit}, {rows['dataset'].iloc[0]}. {'; '.join(said)}."
