"""Frames as tables: for the terminal, CSV, Markdown and LaTeX."""

from pathlib import Path

import pandas as pd

from budgetlab.analysis.frames import COSTS
from budgetlab.analysis.sentences import amount
from budgetlab.errors import InputError, unknown
from budgetlab.records import write_atomically

__all__ = ["export", "latex", "markdown", "readable", "table"]

SUFFIXES = (".csv", ".md", ".tex")
HEADINGS = {"steps": "steps", "trained_samples": "trained", "looked_samples": "looked at",
            "flops": "flops", "seconds": "seconds"}  # fmt: skip


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn a frame into text cells under plain headings.

    A frame from :func:`budgetlab.analysis.compare` or
    :func:`budgetlab.analysis.results` becomes the table that a paper shows: accuracies
    and differences in percent points, budgets in percent, costs as means.
    """
    if not {"n", "mean", "spread"} <= set(frame):
        return frame.map(_cell)
    metric = frame.attrs.get("metric", "test_accuracy")
    confidence = frame.attrs.get("confidence", 0.95)
    percent = metric.endswith("accuracy")
    name = metric.replace("_", " ") + (" %" if percent else "")
    columns: dict[str, list[str]] = {}
    for key in frame.columns[: list(frame.columns).index("n")]:
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
    columns["against"] = [
        "(baseline)" if method == baseline else str(baseline)
        for method, baseline in zip(frame["method"], frame["baseline"], strict=True)
    ]
    rows = frame.to_dict("records")
    columns["pairs"] = [str(row["pairs"]) if row["pairs"] else "" for row in rows]
    columns["difference"] = [_signed(row["difference"], metric) for row in rows]
    columns[f"{100 * confidence:g}% CI"] = [
        "" if pd.isna(row["ci_low"])
        else f"{amount(row['ci_low'], metric)} to {amount(row['ci_high'], metric)}"
        for row in rows
    ]  # fmt: skip
    columns["p (Holm)"] = [_p(row["p_corrected"]) for row in rows]
    return pd.DataFrame(columns)


def table(frame: pd.DataFrame) -> str:
    """Write a frame for the terminal; a comparison is followed by its sentences."""
    cells = readable(frame)
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
    if "sentence" in frame:
        said = frame.loc[frame["method"] != frame["baseline"], "sentence"]
        lines += ["", *(f"- {text}" for text in said)] if len(said) else []
    return "\n".join(lines)


def markdown(frame: pd.DataFrame) -> str:
    """Write a frame as a Markdown table."""
    cells = readable(frame)
    rows = [list(cells.columns), ["---"] * cells.shape[1], *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(_escape_markdown, row))} |" for row in rows) + "\n"


def latex(frame: pd.DataFrame) -> str:
    """Write a frame as a LaTeX ``tabular`` (booktabs)."""
    cells = readable(frame)
    alignment = "".join("r" if is_numeric(cells[name].tolist()) else "l" for name in cells)
    lines = [[_escape_latex(cell) for cell in row] for row in cells.to_numpy().tolist()]
    heading = [_escape_latex(name) for name in cells.columns]
    body = "\n".join(f"{' & '.join(row)} \\\\" for row in lines)
    return (
        f"\\begin{{tabular}}{{{alignment}}}\n\\toprule\n{' & '.join(heading)} \\\\\n\\midrule\n"
        f"{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def export(frame: pd.DataFrame, path: Path | str) -> Path:
    """Write a frame to a file: ``.csv`` as it is, ``.md`` and ``.tex`` to be read.

    Raises
    ------
    InputError
        If the ending is another one, or the file cannot be written.
    """
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


def _signed(value: float, metric: str) -> str:
    return "" if pd.isna(value) else amount(value, metric)


def _percent(value: float) -> str:
    return "" if pd.isna(value) else f"{100 * value:.0f}%"


def _p(value: float) -> str:
    return "" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def is_numeric(cells: list[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(cell.lstrip("+-<≥ ")[:1].isdigit() for cell in filled)


def _escape_markdown(text: str) -> str:
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _escape_latex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
    } | {c: f"\\{c}" for c in "&%$#_{}"}  # fmt: skip
    return "".join(special.get(character, character) for character in str(text))
