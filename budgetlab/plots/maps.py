"""When does it pay: the importance map, and accuracy over budget and length of training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.analysis import results
from budgetlab.analysis.conditions import method_order, require
from budgetlab.analysis.statistics import MARGIN
from budgetlab.analysis.tables import keys_of
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.plots.learning import named_groups
from budgetlab.records import Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = ["budget_curves", "crossed", "crossing", "importance_map"]

ROWS = ("redundancy", "imbalance")
NEUTRAL = {"redundancy": 0, "imbalance": 1, "label_noise": 0}
PANELS_A_ROW = 6
# One method that loses 18 points must not turn all others white.
DEEPEST = 0.05


def importance_map(
    frame: pd.DataFrame,
    x: str = "label_noise",
    y: str | Sequence[str] | None = None,
    *,
    margin: float = MARGIN,
    ax: "Axes | None" = None,
) -> "Axes":
    """When does importance sampling pay? Differences from the baseline, one panel a method.

    A full circle marks a cell whose interval leaves out zero; ``≈`` one whose interval
    lies within the margin. Both can hold. Colours end at 5 percentage points; numbers do not.

    Parameters
    ----------
    frame
        One row a method and cell: ``method``, the columns of both axes, ``difference``,
        ``ci_low`` and ``ci_high`` (shares of 1, NaN where there is none), ``n`` and
        ``verdict``, as from :func:`budgetlab.analysis.compare`. A column ``dataset`` with
        several values gives each data set its own rows of panels.
    x
        Column across.
    y
        Column or columns up; by default those of ``redundancy`` and ``imbalance`` that vary.
    margin
        Within which an interval counts as equivalent.
    ax
        Where to draw all panels; a new figure by default.

    Raises
    ------
    InputError
        If a column is missing, or a method has two rows in one cell.
    """
    rows_by = [y] if isinstance(y, str) else list(y or _varying_rows(frame))
    require(frame, ["method", x, *rows_by, "difference", "ci_low", "ci_high", "n", "verdict"])
    facets = ["dataset"] if "dataset" in frame and frame["dataset"].nunique() > 1 else []
    again = frame.duplicated(["method", *facets, x, *rows_by])
    if again.any():
        one = frame[again].iloc[0]
        raise InputError(
            f"{one['method']} has several rows where {x} is {one[x]}: give one row a cell, or name "
            "the columns that tell them apart with y="
        )
    frame = frame.reset_index(drop=True)
    methods = method_order(frame["method"])
    columns = sorted(frame[x].unique())
    lines = frame[rows_by].drop_duplicates().sort_values(rows_by, ascending=False)
    parts = [(name, p) for name, p in frame.groupby(facets)] if facets else [("", frame)]
    deep = -(-len(methods) // PANELS_A_ROW)
    wide = -(-len(methods) // deep)
    high = len(parts) * deep
    size = (
        max(6.4, 1.6 + wide * (0.5 + 0.62 * len(columns))),
        1.3 + high * (0.7 + 0.36 * len(lines)),
    )
    ax = style.axes(ax, size)
    style.finish(ax, title=style.verdicts(frame), text=_map_in_words(frame, x, rows_by, margin))
    ax.axis("off")
    widest = max(float(frame["difference"].abs().max()), margin)
    most = 100 * min(widest, max(DEEPEST, margin))
    place = 0
    for dataset, part in parts:
        for number, method in enumerate(methods):
            own = part[part["method"] == method]
            row, column = place // wide, place % wide
            panel = ax.inset_axes(((column + 0.03) / wide, 1 - (row + 0.86) / high,
                                   0.92 / wide, 0.74 / high))  # fmt: skip
            image = _panel(panel, own, x, rows_by, columns, lines, most, margin)
            panel.set_title(style.literal(method), fontsize=9, color=style.INK)
            _ticks(panel, x, rows_by, columns, lines, labels=column == 0)
            if column == 0:
                first = f"{dataset[0] if isinstance(dataset, tuple) else dataset}\n"
                panel.set_ylabel(f"{first.strip()}\n{_row_axis(rows_by)}".strip(), fontsize=9)
            place += 1 if number < len(methods) - 1 else wide - column  # a data set starts a row
    beyond = "both" if 100 * widest > most else "neither"
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02, extend=beyond)
    bar.set_label("difference (percentage points)", color=style.INK)
    ax.text(0, -0.02, "●  interval leaves out zero     ≈  interval within "
            f"±{100 * margin:g} percentage point{'s' * (margin != 0.01)}",
            transform=ax.transAxes, va="top", fontsize=9, color=style.INK)  # fmt: skip
    return ax


def _varying_rows(frame: pd.DataFrame) -> list[str]:
    known = [name for name in ROWS if name in frame]
    return [name for name in known if frame[name].nunique() > 1] or known[:1] or [ROWS[0]]


def _panel(
    ax: "Axes",
    own: pd.DataFrame,
    x: str,
    rows_by: list[str],
    columns: list[Any],
    lines: pd.DataFrame,
    most: float,
    margin: float,
) -> "AxesImage":
    """Draw the cells of one method, each with its number and its marks."""
    cells = np.full((len(lines), len(columns)), np.nan)
    order = [tuple(line) for line in lines.to_numpy()]
    for row in own.to_dict("records"):
        place = order.index(tuple(row[name] for name in rows_by)), columns.index(row[x])
        shown = cells[place] = 100 * row["difference"]
        outside = row["ci_low"] > 0 or row["ci_high"] < 0
        inside = row["ci_low"] > -margin and row["ci_high"] < margin
        marks = "●" * bool(outside) + "≈" * bool(inside)
        ink = "white" if abs(shown) > 0.62 * most else style.INK
        ax.text(place[1], place[0], f"{shown:+.1f}\n{marks}".rstrip(), ha="center", va="center",
                fontsize=7.5, linespacing=0.95, color=ink)  # fmt: skip
    return ax.imshow(cells, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")


def _ticks(
    ax: "Axes",
    x: str,
    rows_by: list[str],
    columns: list[Any],
    lines: pd.DataFrame,
    labels: bool,
) -> None:
    ax.set_facecolor(style.FAINT)
    ax.set_xticks(range(len(columns)), [f"{value:g}" for value in columns], fontsize=8)
    names = [_line_name(row, rows_by) for row in lines.to_dict("records")]
    ax.set_yticks(range(len(names)), names if labels else [], fontsize=8)
    ax.set_xlabel(style.axis_name(x), fontsize=8, color=style.INK, labelpad=1)
    ax.tick_params(length=0, colors=style.INK)


def _line_name(row: Mapping[Any, Any], rows_by: list[str]) -> str:
    if len(rows_by) == 1:
        return f"{row[rows_by[0]]:g}"
    said = [f"{n} {row[n]:g}" for n in rows_by if row[n] != NEUTRAL.get(n)]
    return ", ".join(said) or "neither"


def _row_axis(rows_by: list[str]) -> str:
    return style.axis_name(rows_by[0]) if len(rows_by) == 1 else ""


def _map_in_words(frame: pd.DataFrame, x: str, rows_by: list[str], margin: float) -> str:
    known = frame.dropna(subset=["difference"])
    if known.empty:
        return "A map without a single difference."
    said = []
    for what, row in (("Highest", known.loc[known["difference"].idxmax()]),
                      ("Lowest", known.loc[known["difference"].idxmin()])):  # fmt: skip
        where = ", ".join(f"{name.replace('_', ' ')} {row[name]:g}" for name in (*rows_by, x))
        size = f"{100 * row['difference']:+.1f} percentage points"
        said.append(f"{what}: {row['method']} at {where}, {size} (n = {row['n']})")
    inside = ((known["ci_low"] > -margin) & (known["ci_high"] < margin)).sum()
    outside = ((known["ci_low"] > 0) | (known["ci_high"] < 0)).sum()
    return (
        f"Differences over {' and '.join(map(style.axis_name, (*rows_by, x)))}, "
        f"{known['method'].nunique()} methods, {len(known)} cells; {outside} intervals leave out "
        f"zero and {inside} lie within {100 * margin:g} of it. {'. '.join(said)}."
    )


def crossing(
    frame: pd.DataFrame,
    *,
    value: str = "test_accuracy",
    line_kws: Mapping[str, Any] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """How long must a training be for variety to pay? One line an augmentation, with bands.

    Parameters
    ----------
    frame
        One row an augmentation and length: ``epochs``, ``augmentation``, ``mean``,
        ``ci_low`` and ``ci_high`` (shares of 1; NaN where there is none) and ``n``.
    value
        What the mean is of.
    line_kws
        For every line, as in ``Axes.plot``.
    """
    require(frame, ["epochs", "augmentation", "mean", "ci_low", "ci_high", "n"])
    ax, scale, said = style.axes(ax), style.fraction(value), []
    drawn = style.looks(list(dict.fromkeys(frame["augmentation"])))
    for name, look in drawn.items():
        own = frame[frame["augmentation"] == name].sort_values("epochs")
        middle = scale * own["mean"]
        band = scale * own["ci_low"], scale * own["ci_high"]
        style.line(ax, own["epochs"], middle, look, f"{name} (n = {_counts(own['n'])})", band,
                   line_kws)  # fmt: skip
        said.append(f"{name} goes from {middle.iloc[0]:.1f} at {own['epochs'].iloc[0]:g} epochs "
                    f"to {middle.iloc[-1]:.1f} at {own['epochs'].iloc[-1]:g}")  # fmt: skip
    lengths = sorted(frame["epochs"].unique())
    ax.set_xscale("log")
    style.finish(
        ax,
        title=crossed(frame, value),
        x="epochs of the full run (logarithmic)",
        y=style.axis_name(value),
        legend=True,
        text=f"{style.axis_name(value)} over the length of training. {'; '.join(said)}.",
    )
    ax.set_xticks(lengths, [f"{length:g}" for length in lengths])
    ax.minorticks_off()
    return ax


def _counts(n: pd.Series) -> str:
    low, high = int(n.min()), int(n.max())
    return str(low) if low == high else f"{low} to {high}"


def crossed(frame: pd.DataFrame, value: str = "test_accuracy") -> str:
    """Which augmentation is on top at both ends, as a title; nothing of a single length."""
    sign = 1 if value.endswith("accuracy") else -1
    ends = []
    for length in (frame["epochs"].min(), frame["epochs"].max()):
        there = frame[frame["epochs"] == length]
        ends.append((there.loc[(sign * there["mean"]).idxmax(), "augmentation"], length))
    # "None leads" would say that there is no leader.
    ends = [("no augmentation" if name == "none" else name, length) for name, length in ends]
    (first, short), (last, long) = ends
    if short == long:
        return ""
    if first == last:
        return f"{style.capital(first)} leads at {short:g} epochs and at {long:g}"
    return f"{style.capital(first)} leads at {short:g} epochs, {last} at {long:g}"


def budget_curves(
    data: Records | pd.DataFrame,
    *,
    value: str = "test_accuracy",
    keys: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """What does a larger budget buy? Mean of each condition over the budget, ± deviation.

    Parameters
    ----------
    data
        Records of runs at several budgets, or a frame as from
        :func:`budgetlab.analysis.summaries` or :func:`budgetlab.analysis.results`.
    value
        What was reached: ``test_accuracy`` or ``test_loss``.
    keys
        Columns that make a condition, in a frame of your own; by default the settings of a
        run that it holds.
    """
    if isinstance(data, pd.DataFrame) and "mean" in data:
        frame, value = data, getattr(data, "metric", value)
    else:
        frame = results(data, metric=value)
    require(frame, ["method", "budget", "mean", "spread", "n"], "a frame of results")
    keys = [name for name in keys_of(frame, keys) if name != "budget"]
    groups, drawn = named_groups(frame, keys)
    ax, scale, said, least = style.axes(ax), style.fraction(value), [], {}
    for place, (name, group) in enumerate(groups.items()):
        look, group = drawn[name], group.sort_values("budget")
        n, middle = int(group["n"].min()), scale * group["mean"].to_numpy()
        spread = scale * group["spread"].fillna(0).to_numpy()
        # A little to the side, so that bars at one budget do not cover each other.
        x = 100 * group["budget"].to_numpy() * 1.02 ** (place - (len(groups) - 1) / 2)
        ax.errorbar(x, middle, yerr=spread if n > 1 else None, color=look.colour,
                    linestyle=look.line, marker=look.marker, markersize=5, capsize=2,
                    label=style.literal(f"{name} (n = {n})"))  # fmt: skip
        least[name] = middle[0]
        ends = zip(100 * group["budget"], middle, strict=True)
        said.append(f"{name}: " + ", ".join(f"{y:.4g} at {b:g}%" for b, y in ends))
    budgets = sorted(set(100 * frame["budget"]))
    ax.set_xscale("log")
    style.finish(
        ax,
        title=style.leader(least, value).replace("ends best", "is best at its smallest budget"),
        x="budget (% of the full run, logarithmic)",
        y=style.axis_name(value),
        legend=True,
        text=f"{style.axis_name(value)} over the budget, with one standard deviation. "
        f"{'; '.join(said)}.",
    )
    ax.set_xticks(budgets, [f"{b:g}" for b in budgets])
    ax.minorticks_off()
    return ax
