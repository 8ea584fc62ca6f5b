"""DataFrames as tables for the terminal, notebooks, CSV, Markdown and LaTeX."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from budgetlab.analysis.conditions import COSTS, condition_columns, require
from budgetlab.analysis.statistics import amount
from budgetlab.errors import InputError, unknown
from budgetlab.records import write_file

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

SUFFIXES = (".csv", ".md", ".tex")
# Heading and number format of each cost.
COST_FORMATS = {"steps": ("steps", ",.0f"), "trained_samples": ("trained", ",.0f"),
         "looked_samples": ("looked at", ",.0f"), "flops": ("flops", ".2e"),
         "seconds": ("seconds", ".1f")}  # fmt: skip


class ConditionTable(pd.DataFrame):
    """A DataFrame of conditions that displays as the table a paper would print.

    ``condition_keys`` names the columns that define a condition, ``metric`` and ``cost_name`` the
    columns averaged, and ``confidence`` the level of its intervals. Otherwise it behaves as in
    pandas; a selection that lacks needed columns also displays as in pandas.
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
        """Set the attributes that describe the columns; returns the table itself."""
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
    """Return the condition columns: those given, those a table knows, or the settings in it."""
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
    """Format a frame as text cells under plain headings.

    A frame from :func:`budgetlab.analysis.compare` or :func:`budgetlab.analysis.results`
    becomes the table a paper would print: accuracies and budgets in percent, differences in
    percentage points, costs as means. ``keys`` are the columns that define a condition; by
    default those the table knows, or the settings among its columns.
    """
    if not {"n", "mean", "spread"} <= set(frame):
        return pd.DataFrame(frame).map(_cell)
    metric = getattr(frame, "metric", "test_accuracy")
    rows = frame.to_dict("records")
    columns: dict[str, list[str]] = {}
    for key in keys_of(frame, keys):
        if key != "budget_unit" or (frame[key] != "iterations").any():
            cells = [f"{100 * b:g}%" for b in frame[key]] if key == "budget" else None
            columns[key.replace("_", " ")] = cells or [_cell(value) for value in frame[key]]
    columns["n"] = [str(n) for n in frame["n"]]
    columns[metric.replace("_", " ") + " %" * metric.endswith("accuracy")] = [
        " ± ".join(amount(row[name], metric, sign=False) for name in ("mean", "spread")
                   if name == "mean" or pd.notna(row[name])) for row in rows
    ]  # fmt: skip
    for cost in (name for name in COSTS if name in frame and frame[name].any()):
        heading, form = COST_FORMATS[cost]
        columns[heading] = _format_column(frame[cost], f"{{:{form}}}")
    if frame["cost_vs_full"].notna().any():
        columns["cost of full"] = _format_column(frame["cost_vs_full"], "{:.0%}")
    if "pairs" in frame and frame["pairs"].any():
        width = f"{100 * getattr(frame, 'confidence', 0.95):g}% CI"
        columns |= {
            "against": ["(baseline)" if row["method"] == row["baseline"] else str(row["baseline"])
                        for row in rows],
            "pairs": [str(row["pairs"] or "") for row in rows],
            # The mean difference; for two pairs, both differences.
            "difference": [
                _format_range(row, "lowest", ", ", "highest", metric)
                if row["pairs"] == 2 and row["lowest"] != row["highest"]
                else "" if pd.isna(row["difference"]) else amount(row["difference"], metric)
                for row in rows
            ],
            width: [_format_range(row, "ci_low", " to ", "ci_high", metric) for row in rows],
            "p (Holm)": ["< 0.001" if p < 0.001 else "" if pd.isna(p) else f"{p:.3f}"
                         for p in frame["p_corrected"]],
            "verdict": frame["verdict"].astype(str).tolist(),
        }  # fmt: skip
    return pd.DataFrame(columns)


def _cell(value: object) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(_cell, value))
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return "" if value is None else str(value)


def _format_column(values: pd.Series, form: str) -> list[str]:
    return ["" if pd.isna(value) else form.format(value) for value in values]


def _format_range(row: Mapping[str, Any], low: str, between: str, high: str, metric: str) -> str:
    if pd.isna(row[low]):
        return ""
    return f"{amount(row[low], metric)}{between}{amount(row[high], metric)}"


def table(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> str:
    """Format a frame for the terminal; a comparison is followed by its sentences."""
    cells = readable(frame, keys).astype(str)
    columns = []
    for name in cells:
        column = [str(name), *cells[name]]
        width = max(map(len, column))
        column.insert(1, "-" * width)
        right = is_numeric(column[2:])
        columns.append([c.rjust(width) if right else c.ljust(width) for c in column])
    lines = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
    said = _sentences(frame)
    return "\n".join(lines + [""] * bool(said) + [f"- {text}" for text in said])


def _sentences(frame: pd.DataFrame) -> list[str]:
    """Return the sentences of a comparison, without those of the baseline."""
    if not {"sentence", "method", "baseline"} <= set(frame):
        return []
    return list(frame.loc[frame["method"] != frame["baseline"], "sentence"])


def is_numeric(cells: list[str]) -> bool:
    """Whether every non-empty cell begins with a number."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(cell.lstrip("+-<≥ ")[:1].isdigit() for cell in filled)


def _styled(frame: pd.DataFrame, keys: Sequence[str] | None) -> tuple["Styler", list[bool]]:
    """Return the readable cells as a pandas Styler, and which columns are numeric."""
    cells = readable(frame, keys)
    return cells.style.hide(axis="index"), [is_numeric(cells[name].tolist()) for name in cells]


def html(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> str:
    """Format a frame as an HTML table; a comparison is followed by its sentences."""
    from markupsafe import escape

    styler, numeric = _styled(frame, keys)
    styler = styler.format(escape="html").format_index(escape="html", axis=1)
    styler = styler.set_properties(subset=styler.columns[numeric], **{"text-align": "right"})
    said = "".join(f"<li>{escape(text)}</li>" for text in _sentences(frame))
    return styler.to_html() + (f"<ul>{said}</ul>" if said else "")


def markdown(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> str:
    """Format a frame as a Markdown table."""
    cells = readable(frame, keys)
    rows = [list(cells.columns), ["---"] * cells.shape[1], *cells.to_numpy().tolist()]
    marks = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": " "})
    lines = (" | ".join(str(cell).translate(marks) for cell in row) for row in rows)
    return "".join(f"| {line} |\n" for line in lines)


def latex(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> str:
    """Format a frame as a LaTeX ``tabular`` (booktabs)."""
    styler, numeric = _styled(frame, keys)

    def symbols(cell: str) -> str:
        return cell.replace("±", r"$\pm$").replace("<", "$<$").replace(">", "$>$")

    styler = styler.format(symbols, escape="latex").format_index(escape="latex", axis=1)
    alignment = "".join("r" if yes else "l" for yes in numeric)
    return styler.to_latex(hrules=True, column_format=alignment)


def table_file(path: Path | str) -> Path:
    """Return a path that :func:`export` can write to, or raise an error before any work is done."""
    path = Path(os.path.expanduser(path))
    if path.suffix not in SUFFIXES:
        raise unknown("ending of a table file", path.suffix, SUFFIXES)
    if not path.parent.is_dir():
        raise InputError(f"'{path}' cannot be written (no such folder): give another file")
    return path


def export(frame: pd.DataFrame, path: Path | str) -> Path:
    """Write a frame to a file: ``.csv`` with raw values, ``.md`` and ``.tex`` formatted."""
    path = table_file(path)
    write = {".csv": lambda f: f.to_csv(index=False), ".md": markdown, ".tex": latex}[path.suffix]
    return write_file(path, write(frame).encode())
