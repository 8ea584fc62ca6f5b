"""Do methods, seeds and measures choose the same samples, and are these the hard ones?"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis import label, run_agreement, summaries, varying
from budgetlab.analysis import picks_by as find_picks
from budgetlab.analysis.conditions import condition_columns, require
from budgetlab.errors import unknown
from budgetlab.plots import style
from budgetlab.plots.samples import run_names
from budgetlab.records import Records, open_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["agreement_matrix", "picks_by"]

VALUES = {
    "spearman": ("Spearman rank correlation", -1.0, 1.0),
    "overlap": ("share of one top that is also in the other", 0.0, 1.0),
}


def agreement_matrix(
    data: Records | pd.DataFrame,
    *,
    measure: str = "confidence",
    value: str = "spearman",
    ax: "Axes | None" = None,
) -> "Axes":
    """Do they agree? One cell for every two measures, or every two runs.

    Parameters
    ----------
    data
        Records of runs on the same data, or a frame as from
        :func:`budgetlab.analysis.measure_agreement` or
        :func:`budgetlab.analysis.run_agreement`.
    measure
        With records: the measure that is compared between them.
    value
        ``spearman`` (-1 to 1) or ``overlap`` (0 to 1).
    ax
        Where to draw; a new figure by default.
    """
    if value not in VALUES:
        raise unknown("value", value, VALUES)
    if isinstance(data, pd.DataFrame):
        frame = data
    else:
        runs = open_records(data)
        names = dict(zip((str(run.path) for run in runs), run_names(runs), strict=True))
        frame = run_agreement(runs, measure).replace({"a": names, "b": names})
    require(frame, ["a", "b", value], "a frame of agreements")
    order = list(dict.fromkeys([*frame["a"], *frame["b"]]))
    table = pd.DataFrame(np.nan, index=order, columns=order)
    for a, b, found in zip(frame["a"], frame["b"], frame[value], strict=True):
        table.loc[a, b] = table.loc[b, a] = found
    side = 0.62 * len(order)
    ax = style.axes(ax, (2.8 + side, 1.6 + side))
    _cells(ax, table, value)
    style.finish(ax, text=_in_words(frame, value))
    ax.grid(False)
    return ax


def _cells(ax: "Axes", table: pd.DataFrame, value: str) -> None:
    """Draw a symmetric table as coloured cells with their numbers."""
    name, low, high = VALUES[value]
    picture = ax.imshow(table, cmap="PuOr" if low < 0 else "Purples", vmin=low, vmax=high)
    for row, column in np.argwhere(table.notna().to_numpy()):
        found = table.iloc[row, column]
        ink = "white" if abs(found) > 0.6 else style.INK
        ax.text(column, row, f"{found:.2f}", ha="center", va="center", color=ink, fontsize=9)
    texts = [style.literal(axis_text(name)) for name in table.columns]
    ax.set_xticks(range(len(texts)), texts, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(texts)), texts)
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.8)
    bar.set_label(name, color=style.INK)


def axis_text(name: object) -> str:
    """Name of a measure or a run beside a cell: short, and without underscores."""
    return str(name).replace("_", " ")


def _in_words(frame: pd.DataFrame, value: str) -> str:
    name = VALUES[value][0]
    known = frame.dropna(subset=[value])
    if known.empty:
        return f"{name}: none of the {len(frame)} pairs can be compared."
    best, worst = known.loc[known[value].idxmax()], known.loc[known[value].idxmin()]
    return (
        f"{name} of {len(frame)} pairs. Highest: {axis_text(best['a'])} and "
        f"{axis_text(best['b'])}, {best[value]:.2f}; lowest: {axis_text(worst['a'])} and "
        f"{axis_text(worst['b'])}, {worst[value]:.2f}."
    )


def picks_by(
    data: Records, column: str = "difficulty", *, groups: int = 10, ax: "Axes | None" = None
) -> "Axes":
    """Does a method train on the hard ones? How often each tenth of the samples is picked.

    Runs that differ only in the seed are averaged; bars are their standard deviation.

    Parameters
    ----------
    data
        Records whose data say something of each sample.
    column
        What is known of each sample, such as ``difficulty``.
    groups
        Groups of equal size, from the lowest values to the highest.
    ax
        Where to draw; a new figure by default.
    """
    runs = open_records(data)
    about = summaries(runs)
    shown = varying(about, condition_columns(about)) or ["method"]
    names = [label(row, shown) for row in about.to_dict("records")]
    parts = [find_picks(run, column, groups=groups) for run in runs]
    frame = pd.concat([part.assign(run=n) for part, n in zip(parts, names, strict=True)])
    ax = style.axes(ax)
    drawn, said, ratios = style.looks(list(dict.fromkeys(names))), [], {}
    for place, (name, look) in enumerate(drawn.items()):
        found = frame[frame["run"] == name].groupby("group")["picked"].agg(["mean", "std", "size"])
        n, spread = int(found["size"].iloc[0]), found["std"].fillna(0)
        # Side by side and not joined: what lies between two groups is no line.
        aside = 0.12 * (place - (len(drawn) - 1) / 2)
        ax.errorbar(found.index + aside, found["mean"], yerr=spread if n > 1 else None,
                    color=look.colour, linestyle="none", marker=look.marker, markersize=5,
                    capsize=2, label=style.literal(f"{name} (n = {n})"))  # fmt: skip
        first, last = found["mean"].iloc[0], found["mean"].iloc[-1]
        ratios[name] = last / first if first else np.nan
        said.append(f"{name}: {first:.2f} in the first group, {last:.2f} in the last (n = {n})")
    ax.axhline(1, color=style.INK, linewidth=1, linestyle=":")
    what = style.axis_name(column)
    most = style.furthest({str(name): r for name, r in ratios.items() if r == r} or {"": 1.0})
    return style.finish(
        ax,
        title=style.literal(
            f"{most}: the last group {ratios[most]:.2g} times as often as the first"
        )
        if most
        else "",
        x=f"groups of equal size, by {what}",
        y="times trained, times that of a uniform draw",
        legend=True,
        text=f"How often each of {groups} groups of samples, by {what}, is trained on; 1 is a "
        f"uniform draw. {'; '.join(said)}.",
    )
