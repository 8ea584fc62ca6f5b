"""Heat maps with numbers: when sampling pays, agreement, class shares, confusion matrices."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from budgetlab.analysis import class_share as find_class_share
from budgetlab.analysis import confusion as find_confusion
from budgetlab.analysis import run_agreement
from budgetlab.analysis.conditions import method_order, require
from budgetlab.analysis.statistics import MARGIN
from budgetlab.errors import InputError, counted, known
from budgetlab.plots import style
from budgetlab.records import OneRecord, Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

ROWS = ("redundancy", "imbalance")
NEUTRAL = {"redundancy": 0, "imbalance": 1, "label_noise": 0}
PANELS_A_ROW = 3  # keeps numbers legible in a map 800 pixels wide
MOST_CLASSES, MOST_SPANS, NAME_LETTERS = 20, 10, 26
# Colours saturate here: one method that loses 18 points must not turn all others white.
DEEPEST = 0.05
VALUES = {
    "spearman": ("Spearman rank correlation", -1.0, 1.0),
    "overlap": ("share of one top that is also in the other", 0.0, 1.0),
}


def _cells(
    ax: "Axes",
    table: np.ndarray,
    text: Callable[[int, int, float], str],
    *,
    names: tuple[Sequence[str], Sequence[str]],
    colours: str,
    limits: tuple[float, float],
    pale: float,
    size: float,
    turn: int = 0,
    aspect: Literal["equal", "auto"] = "auto",
) -> "AxesImage":
    """Draw a table as coloured cells; text is white where the absolute value exceeds ``pale``."""
    for row, column in np.argwhere(~np.isnan(table)):
        value = table[row, column]
        if said := text(row, column, value):
            ax.text(column, row, said, ha="center", va="center", fontsize=size, linespacing=0.95,
                    color="white" if abs(value) > pale else style.INK)  # fmt: skip
    across, down = ([textwrap.fill(style.escape_text(name), NAME_LETTERS) for name in part]
                    for part in names)  # fmt: skip
    slanted: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor"} if turn else {}
    ax.set_xticks(range(table.shape[1]), across, rotation=turn, **slanted)
    ax.set_yticks(range(table.shape[0]) if down else [], down)
    low, high = limits
    return ax.imshow(table, cmap=colours, vmin=low, vmax=high, aspect=aspect)


def importance_map(
    frame: pd.DataFrame,
    x: str = "label_noise",
    y: str | Sequence[str] | None = None,
    *,
    margin: float = MARGIN,
    ax: "Axes | None" = None,
) -> "Axes":
    """When does importance sampling pay? Differences from the baseline, one panel per method.

    A filled circle marks a cell whose interval excludes zero; ``≈`` one whose interval lies within
    the margin. Both can hold. Colours saturate at 5 percentage points; numbers do not. Raises
    InputError if a column is missing, or a method has two rows in one cell.

    - ``frame``: one row per method and cell: ``method``, the columns of both axes, ``difference``,
      ``ci_low`` and ``ci_high`` (fractions, NaN where there is no interval), ``n`` and ``verdict``,
      as returned by :func:`budgetlab.analysis.compare`. If ``dataset`` has several values, each
      data set gets its own rows of panels.
    - ``x``: column for the horizontal axis.
    - ``y``: column or columns for the vertical axis; by default those of ``redundancy`` and
      ``imbalance`` that vary.
    - ``margin``: an interval within this margin counts as equivalent; a fraction.
    """
    rows_by = [y] if isinstance(y, str) else list(y or _varying_rows(frame))
    require(frame, ["method", x, *rows_by, "difference", "ci_low", "ci_high", "n", "verdict"])
    facets = ["dataset"] if "dataset" in frame and frame["dataset"].nunique() > 1 else []
    again = frame.duplicated(["method", *facets, x, *rows_by])
    if again.any():
        one = frame[again].iloc[0]
        raise InputError(
            f"{one['method']} has several rows where {x} is {one[x]}: give one row per cell, or "
            "name the columns that tell them apart with y="
        )
    methods, columns = method_order(frame["method"]), sorted(frame[x].unique())
    lines = frame[rows_by].drop_duplicates().sort_values(rows_by, ascending=False)
    parts = {name[0]: p for name, p in frame.groupby(facets)} if facets else {"": frame}
    deep = -(-len(methods) // PANELS_A_ROW)
    wide = -(-len(methods) // deep)
    high = len(parts) * deep
    ax = style.axes(ax, (max(6.4, 2.0 + wide * (0.2 + 0.6 * len(columns))),
                         1.4 + high * (0.4 + 0.25 * len(lines))))  # fmt: skip
    style.finish(ax, title=style.verdicts(frame), text=_map_in_words(frame, x, rows_by, margin))
    ax.axis("off")
    widest = 100 * max(float(frame["difference"].abs().max()), margin)
    most = min(widest, 100 * max(DEEPEST, margin))
    for block, (dataset, part) in enumerate(parts.items()):  # a data set starts a row
        for place, method in enumerate(methods, block * deep * wide):
            row, column = divmod(place, wide)
            panel = ax.inset_axes(((column + 0.02) / wide, 1 - (row + 0.98) / high,
                                   0.96 / wide, 0.8 / high))  # fmt: skip
            below = block + 1 < len(parts) or place + wide < block * deep * wide + len(methods)
            image = _panel(panel, part[part["method"] == method], x, columns, lines, most, margin,
                           first=column == 0, last=not below)  # fmt: skip
            panel.set_title(style.escape_text(method), fontsize=10, color=style.INK)
            if column == 0:
                axis = style.axis_name(rows_by[0]) if len(rows_by) == 1 else ""
                panel.set_ylabel(f"{dataset}\n{axis}".strip(), fontsize=10)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02, fraction=0.03,
                             extend="both" if widest > most else "neither")  # fmt: skip
    bar.set_label("percentage points", color=style.INK)
    ax.annotate("●  interval leaves out zero     ≈  interval within "
                f"±{100 * margin:g} percentage point{'s' * (margin != 0.01)}",
                (0, 0), (0, -34), "axes fraction", "offset points", va="top", fontsize=9,
                color=style.INK)  # fmt: skip
    return ax


def _varying_rows(frame: pd.DataFrame) -> list[str]:
    known = [name for name in ROWS if name in frame]
    return [name for name in known if frame[name].nunique() > 1] or known[:1] or [ROWS[0]]


def _panel(
    ax: "Axes",
    own: pd.DataFrame,
    x: str,
    columns: list[Any],
    lines: pd.DataFrame,
    most: float,
    margin: float,
    first: bool,
    last: bool,
) -> "AxesImage":
    """Draw the cells of one method; a row's ``first`` panel and a column's ``last`` have labels."""
    cells, marks = np.full((len(lines), len(columns)), np.nan), {}
    order = [tuple(line) for line in lines.to_numpy()]
    for row in own.to_dict("records"):
        place = order.index(tuple(row[name] for name in lines)), columns.index(row[x])
        cells[place] = 100 * row["difference"]
        outside = row["ci_low"] > 0 or row["ci_high"] < 0
        inside = row["ci_low"] > -margin and row["ci_high"] < margin
        marks[place] = "●" * bool(outside) + "≈" * bool(inside)
    names = [_line_name(line) for line in lines.to_dict("records")] if first else []
    across = [f"{value:g}" if last else "" for value in columns]
    image = _cells(ax, cells, lambda r, c, v: f"{round(v, 1) + 0.0:+.1f} {marks[r, c]}".rstrip(),
                   names=(across, names), colours="PuOr",
                   limits=(-most, most), pale=0.62 * most, size=9)  # fmt: skip
    ax.set_facecolor(style.FAINT)
    ax.set_xlabel(style.axis_name(x) if last else "", fontsize=9, color=style.INK, labelpad=1)
    ax.tick_params(length=0, colors=style.INK, labelsize=9)
    return image


def _line_name(row: Mapping[Any, Any]) -> str:
    if len(row) == 1:
        return f"{next(iter(row.values())):g}"
    return ", ".join(f"{n} {v:g}" for n, v in row.items() if v != NEUTRAL.get(n)) or "neither"


def _map_in_words(frame: pd.DataFrame, x: str, rows_by: list[str], margin: float) -> str:
    known = frame.dropna(subset=["difference"]).reset_index(drop=True)
    if known.empty:
        return "A map without a single difference."
    said = []
    for what, place in (("Highest", known["difference"].idxmax()),
                        ("Lowest", known["difference"].idxmin())):  # fmt: skip
        row = known.loc[place]
        where = ", ".join(f"{name.replace('_', ' ')} {row[name]:g}" for name in (*rows_by, x))
        size = f"{100 * row['difference']:+.1f} percentage points"
        said.append(f"{what}: {row['method']} at {where}, {size} (n = {row['n']})")
    inside = ((known["ci_low"] > -margin) & (known["ci_high"] < margin)).sum()
    outside = ((known["ci_low"] > 0) | (known["ci_high"] < 0)).sum()
    return (
        f"Differences over {' and '.join(map(style.axis_name, (*rows_by, x)))}, "
        f"{counted(known['method'].nunique(), 'method')}, {counted(len(known), 'cell')}. Intervals "
        f"without zero: {outside}; within {100 * margin:g} of zero: {inside}. {'. '.join(said)}."
    )


def agreement_matrix(
    data: Records | pd.DataFrame,
    *,
    measure: str = "confidence",
    value: str = "spearman",
    ax: "Axes | None" = None,
) -> "Axes":
    """Do they agree? One cell per pair of measures, or per pair of runs.

    - ``data``: records of runs on the same data, or a frame as returned by
      :func:`budgetlab.analysis.measure_agreement` or :func:`budgetlab.analysis.run_agreement`.
    - ``measure``: the measure to compare between records.
    - ``value``: ``spearman`` (-1 to 1) or ``overlap`` (0 to 1).
    """
    value = known("value", value, VALUES)
    frame = style.frame_of(data, lambda records: _of_runs(records, measure), ["a", "b", value])
    order = list(dict.fromkeys([*frame["a"], *frame["b"]]))
    table = np.full((len(order), len(order)), np.nan)
    for a, b, found in zip(frame["a"], frame["b"], frame[value], strict=True):
        table[order.index(a), order.index(b)] = table[order.index(b), order.index(a)] = found
    side, texts = 0.62 * len(order), [str(name).replace("_", " ") for name in order]
    ax = style.axes(ax, (2.8 + side, 1.6 + side))
    name, low, high = VALUES[value]
    # Rounded first, so that -0.004 does not become "-0.00".
    image = _cells(ax, table, lambda r, c, v: f"{round(v, 2) + 0.0:.2f}", names=(texts, texts),
                   colours="PuOr" if low < 0 else "Purples", limits=(low, high), pale=0.6, size=9,
                   turn=40, aspect="equal")  # fmt: skip
    ax.figure.colorbar(image, ax=ax, shrink=0.8).set_label(name, color=style.INK)
    compared = frame.dropna(subset=[value]).reset_index(drop=True)
    title, text = "", f"{name}: none of the {len(frame)} pairs can be compared."
    if len(compared):
        ends = [compared.loc[compared[value].idxmax()], compared.loc[compared[value].idxmin()]]
        pairs = [f"{r['a']} and {r['b']}, {r[value]:.2f}".replace("_", " ") for r in ends]
        title = f"{ends[0]['a']} and {ends[0]['b']} agree most: {ends[0][value]:.2f}"
        text = f"{name} of {len(frame)} pairs. Highest: {pairs[0]}; lowest: {pairs[1]}."
    style.finish(ax, title=title.replace("_", " "), text=text)
    ax.grid(False)
    return ax


def _of_runs(records: Records, measure: str) -> pd.DataFrame:
    """Return the agreement of runs, with short run names."""
    runs = style.by_method(records)
    names = dict(zip((str(run.path) for run in runs), style.run_names(runs), strict=True))
    return run_agreement(runs, measure).replace({"a": names, "b": names})


def class_share(data: OneRecord | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Are some classes picked more? Relative share of the batches over training, one row a class.

    ``data``: a record, or a frame as returned by :func:`budgetlab.analysis.class_share`. Epochs are
    averaged into at most ten columns. At most twenty classes are drawn: those that end furthest
    from their share of the data.
    """
    frame = style.frame_of(data, find_class_share, ["epoch", "class", "share", "base"])
    span = style.spans(frame["epoch"], MOST_SPANS)
    last_epochs = frame["epoch"].groupby(span).max()
    ratio = frame["share"] / frame["base"].where(frame["base"] > 0)
    frame = frame.assign(ratio=ratio, span=span)
    table = frame.pivot_table("ratio", "class", "span", observed=True)
    ends = table.iloc[:, -max(1, table.shape[1] // 4) :].mean(axis=1)
    most_extreme = (ends - 1).abs().nlargest(MOST_CLASSES, keep="first").index
    ends = ends[most_extreme].sort_values(ascending=False, kind="stable")
    (most, highest), (least, lowest) = ends.iloc[[0, -1]].items()
    away = table.loc[ends.index].to_numpy() - 1
    width = float(np.nanmax(np.abs(away))) or 1.0
    ax = style.axes(ax, (max(4.8, 1.8 + 0.55 * away.shape[1]), 1.4 + 0.3 * len(ends)))
    _cells(ax, away, lambda r, c, v: f"{v + 1:.2f}", colours="PuOr", limits=(-width, width),
           names=([f"{last_epochs[s]:g}" for s in table], [str(name) for name in ends.index]),
           pale=0.62 * width, size=8)  # fmt: skip
    length = -(-frame["epoch"].nunique() // len(last_epochs))
    style.finish(
        ax, title=f"{most} is picked {highest:.2f} times as often as its share",
        x="epoch" if length == 1 else f"up to epoch (means of {length})",
        text=f"How often each of {table.shape[0]} classes is trained on, from the first epochs to "
        f"the last; 1 is its share of the data. At the end: {most} {highest:.2f} times, {least} "
        f"{lowest:.2f} times.",
    )  # fmt: skip
    ax.grid(False)
    return ax


def confusion(data: OneRecord | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Which classes are taken for which? A confusion matrix, normalised by true class.

    ``data``: as for :func:`budgetlab.analysis.confusion`, or a table returned by it. At most twenty
    classes are drawn: those with the most errors.
    """
    if isinstance(data, pd.DataFrame) and data.index.name == "label":
        table = data
    else:
        table = find_confusion(data)
    mistakes = table.where(np.eye(len(table)) == 0, 0)
    worst = (mistakes.sum(axis=1) + mistakes.sum(axis=0)).nlargest(MOST_CLASSES, keep="first").index
    kept = [name for name in table.index if name in worst]
    share = table.div(table.sum(axis=1).clip(lower=1), axis=0).loc[kept, kept]
    ax = style.axes(ax, (max(4.8, 2.2 + 0.36 * len(kept)), 1.6 + 0.36 * len(kept)))
    _cells(ax, 100 * share.to_numpy(float), lambda r, c, v: f"{v:.0f}" if v >= 0.5 else "",
           names=(kept, kept), colours="Blues", limits=(0, 100), pale=55, size=8,
           turn=45)  # fmt: skip
    pairs = [
        f"{a} taken for {b} ({n:,})" for (a, b), n in mistakes.stack().nlargest(3).items() if n
    ]
    style.finish(
        ax, title=pairs[0] if pairs else "", x="predicted", y="true class (shares of it, %)",
        text=f"Confusion of {len(kept)} of {len(table)} classes: {int(mistakes.sum().sum()):,} of "
        f"{int(table.sum().sum()):,} test samples are wrong"
        + (f", most often {'; '.join(pairs)}." if pairs else "."),
    )  # fmt: skip
    ax.grid(False)
    return ax
