"""Frames as tables: for the terminal, a notebook, CSV, Markdown and LaTeX."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from budgetlab.analysis.conditions import COSTS, condition_columns, require
from budgetlab.analysis.statistics import amount
from budgetlab.errors import InputError, unknown
from budgetlab.records import write_atomically

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

SUFFIXES = (".csv", ".md", ".tex")
HEADINGS = {"steps": "steps", "trained_samples": "trained", "looked_samples": "looked at",
            "flops": "flops", "seconds": "seconds"}  # fmt: skip


class ConditionTable(pd.DataFrame):
    """A DataFrame of conditions that shows itself as the table a paper would print.

    ``condition_keys`` names the columns that make a condition, ``metric`` and ``cost_name`` what
    was averaged and counted, ``confidence`` that of its intervals. Everything else is as
    in pandas; a part of it that lacks columns shows itself as pandas does.
    """

    _metadata = ["condition_keys", "metric", "cost_name", "confidence"]  # noqa: RUF012 (pandas' own)
    condition_keys: tuple[str, ...] = ()
    metric: str = "test_accuracy"
    cost_name: str = "flops"
    confidence: float = 0.95

    @property
    def _constructor(self) -> type["ConditionTable"]:
        return ConditionTable

    def of(self, keys: Sequence[str], **about: object) -> "ConditionTable":
        """Say what the columns are; returns the table itself."""
        self.condition_keys = tuple(keys)
        for name, value in about.items():
            setattr(self, name, value)
        return self

    def _complete(self) -> bool:
        return {"n", "mean", "spread", "cost_vs_full", *self.condition_keys} <= set(self.columns)

    def __repr__(self) -> str:
        return table(self) if self._complete() else super().__repr__()

    def _repr_html_(self) -> str | None:
        return html(self) if self._complete() else super()._repr_html_()


def keys_of(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> list[str]:
    """Columns that make a condition: those given, those a table knows, or the settings in it."""
    if keys is not None:
        require(frame, keys)
        return list(keys)
    known = getattr(frame, "condition_keys", None) or condition_columns(frame, ())
    found = [name for name in known if name in frame]
    if not found:
        raise InputError(
            f"none of the columns {', '.join(map(str, frame.columns))} is a setting of a run: say "
            "with keys= which of them make a condition"
        )
    return found


def readable(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> pd.DataFrame:
    """Turn a frame into text cells under plain headings.

    A frame from :func:`budgetlab.analysis.compare` or
    :func:`budgetlab.analysis.results` becomes the table that a paper shows: accuracies
    and differences in percentage points, budgets in percent, costs as means. ``keys`` are the
    columns that make a condition; by default those that the table knows, or the settings of a run
    that it holds.
    """
    if not {"n", "mean", "spread"} <= set(frame):
        return pd.DataFrame(frame).map(_cell)
    metric = getattr(frame, "metric", "test_accuracy")
    confidence = getattr(frame, "confidence", 0.95)
    percent = metric.endswith("accuracy")
    name = metric.replace("_", " ") + (" %" if percent else "")
    columns: dict[str, list[str]] = {}
    for key in keys_of(frame, keys):
        if key == "budget_unit" and (frame[key] == "iterations").all():
            continue
        cells = frame[key]
        shown = [f"{100 * b:g}%" for b in cells] if key == "budget" else [_cell(v) for v in cells]
        columns[key.replace("_", " ")] = shown
    columns["n"] = [str(n) for n in frame["n"]]
    columns[name] = [_plus_minus(m, s, metric) for m, s in zip(frame["mean"], frame["spread"],
                                                              strict=True)]  # fmt: skip
    for cost in (name for name in COSTS if name in frame and frame[name].any()):
        columns[HEADINGS[cost]] = [_amount_spent(value, cost) for value in frame[cost]]
    if frame["cost_vs_full"].notna().any():
        columns["cost of full"] = [_percent(value) for value in frame["cost_vs_full"]]
    if "pairs" not in frame or not frame["pairs"].any():
        return pd.DataFrame(columns)
    rows = frame.to_dict("records")
    columns["against"] = [
        "(baseline)" if row["method"] == row["baseline"] else str(row["baseline"]) for row in rows
    ]
    columns["pairs"] = [str(row["pairs"]) if row["pairs"] else "" for row in rows]
    columns["difference"] = [_difference(row, metric) for row in rows]
    columns[f"{100 * confidence:g}% CI"] = [
        "" if pd.isna(row["ci_low"])
        else f"{amount(row['ci_low'], metric)} to {amount(row['ci_high'], metric)}"
        for row in rows
    ]  # fmt: skip
    columns["p (Holm)"] = [_p(row["p_corrected"]) for row in rows]
    columns["verdict"] = [str(row["verdict"]) for row in rows]
    return pd.DataFrame(columns)


def table(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> str:
    """Write a frame for the terminal; a comparison is followed by its sentences."""
    cells = readable(frame, keys)
    headings = [str(name) for name in cells.columns]
    columns = [[heading, *cells[name]] for heading, name in zip(headings, cells, strict=True)]
    numeric = [is_numeric(column[1:]) for column in columns]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in zip(*columns, strict=True)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    said = _sentences(frame)
    return "\n".join(lines + [""] * bool(said) + [f"- {text}" for text in said])


def _sentences(frame: pd.DataFrame) -> list[str]:
    """What a comparison says of each condition but the baseline."""
    if not {"sentence", "method", "baseline"} <= set(frame):
        return []
    return list(frame.loc[frame["method"] != frame["baseline"], "sentence"])


def _styled(frame: pd.DataFrame, keys: Sequence[str] | None) -> tuple["Styler", list[bool]]:
    """The readable cells for pandas' own writers, and which columns hold numbers."""
    cells = readable(frame, keys)
    return cells.style.hide(axis="index"), [is_numeric(cells[name].tolist()) for name in cells]


def html(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> str:
    """Write a frame as an HTML table; a comparison is followed by its sentences."""
    from markupsafe import escape

    styler, numeric = _styled(frame, keys)
    right = [name for name, yes in zip(styler.columns, numeric, strict=True) if yes]
    styler = styler.format(escape="html").format_index(escape="html", axis=1)
    styler = styler.set_properties(subset=right, **{"text-align": "right"})
    said = "".join(f"<li>{escape(text)}</li>" for text in _sentences(frame))
    return styler.to_html() + (f"<ul>{said}</ul>" if said else "")


def markdown(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> str:
    """Write a frame as a Markdown table."""
    cells = readable(frame, keys)
    rows = [list(cells.columns), ["---"] * cells.shape[1], *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(_escape_markdown, row))} |" for row in rows) + "\n"


def latex(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> str:
    """Write a frame as a LaTeX ``tabular`` (booktabs)."""
    styler, numeric = _styled(frame, keys)

    def symbols(cell: str) -> str:
        return cell.replace("±", r"$\pm$").replace("<", "$<$").replace(">", "$>$")

    styler = styler.format(symbols, escape="latex").format_index(escape="latex", axis=1)
    alignment = "".join("r" if yes else "l" for yes in numeric)
    return styler.to_latex(hrules=True, column_format=alignment)


def export(frame: pd.DataFrame, path: Path | str) -> Path:
    """Write a frame to a file: ``.csv`` as it is, ``.md`` and ``.tex`` to be read."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise unknown("ending of a table file", path.suffix, SUFFIXES)
    write = {".csv": lambda f: f.to_csv(index=False), ".md": markdown, ".tex": latex}[path.suffix]
    try:
        write_atomically(path, write(frame).encode())
    except OSError as error:
        raise InputError(
            f"'{path}' cannot be written ({error.strerror}): give another file"
        ) from None
    return path


def _cell(value: object) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(_cell, value))
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return "" if value is None else str(value)


def _plus_minus(mean: float, spread: float, metric: str) -> str:
    text = amount(mean, metric, sign=False)
    return text if pd.isna(spread) else f"{text} ± {amount(spread, metric, sign=False)}"


def _amount_spent(value: float, cost: str) -> str:
    if pd.isna(value):
        return ""
    return {"flops": f"{value:.2e}", "seconds": f"{value:.1f}"}.get(cost, f"{value:,.0f}")


def _difference(row: Mapping[str, Any], metric: str) -> str:
    """The mean of the pairs; of two pairs, both."""
    if row["pairs"] == 2 and row["lowest"] != row["highest"]:
        return f"{amount(row['lowest'], metric)}, {amount(row['highest'], metric)}"
    return "" if pd.isna(row["difference"]) else amount(row["difference"], metric)


def _percent(value: float) -> str:
    return "" if pd.isna(value) else f"{100 * value:.0f}%"


def _p(value: float) -> str:
    return "" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def is_numeric(cells: list[str]) -> bool:
    """Whether every cell that is filled begins with a number."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(cell.lstrip("+-<≥ ")[:1].isdigit() for cell in filled)


def _escape_markdown(text: str) -> str:
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
