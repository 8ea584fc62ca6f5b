"""Wrong labels: how well a measure finds them, and how often a method picks them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from budgetlab.analysis import detection_curve as find_curve
from budgetlab.analysis import noisy_picks as find_picks
from budgetlab.analysis.conditions import require
from budgetlab.plots import style
from budgetlab.records import Record, Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["detection_curve", "noisy_picks"]


def detection_curve(
    data: Record | pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Which measure finds the wrong labels? Precision over recall.

    Parameters
    ----------
    data
        A record of a run with label noise, or a frame as from
        :func:`budgetlab.analysis.detection_curve`.
    names
        Measures; by default all that say how hard a sample is.
    ax
        Where to draw; a new figure by default.
    """
    frame = data if isinstance(data, pd.DataFrame) else find_curve(data, names)
    require(frame, ["measure", "precision", "recall"], "a frame of precision and recall")
    areas = frame.attrs.get("average_precision", {})
    ax = style.axes(ax)
    order = sorted(frame["measure"].unique(), key=lambda name: -areas.get(name, 0))
    for name, look in style.looks(order).items():
        part = frame[frame["measure"] == name]
        ax.plot(part["recall"], part["precision"], color=look.colour, linestyle=look.line,
                label=f"{name} ({areas[name]:.2f})" if name in areas else name)  # fmt: skip
    base = frame.attrs.get("base")
    if base is not None:
        ax.axhline(base, color=style.INK, linewidth=1, linestyle=":", label="guessing")
    ax.set_ylim(0, 1.03)
    said = "; ".join(f"{name} {areas[name]:.2f}" for name in order if name in areas)
    found = bool(len(order) and order[0] in areas)
    guess = f" Guessing gives {base:.2f}." if base is not None else ""
    return style.finish(
        ax,
        title=f"{order[0]} finds most: average precision {areas[order[0]]:.2f}" if found else "",
        x="recall: share of the wrong labels that is in the list",
        y="precision: share of the list that is wrong",
        legend=True,
        text=f"Precision over recall of lists of suspects. Average precision: {said}.{guess}",
    )


def noisy_picks(data: Records | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Which method trains on wrong labels, and when? Mean over the seeds, ± deviation.

    Parameters
    ----------
    data
        Records of runs with label noise, or a frame as from
        :func:`budgetlab.analysis.noisy_picks`.
    ax
        Where to draw; a new figure by default.
    """
    frame = data if isinstance(data, pd.DataFrame) else find_picks(data)
    require(frame, ["method", "epoch", "times_base"], "a frame of noisy picks")
    grouped = frame.groupby(["method", "epoch"], sort=False)["times_base"]
    table = grouped.agg(["mean", "std", "count"]).reset_index()
    ax = style.axes(ax)
    said, ends = [], {}
    for name, look in style.looks(list(table["method"].unique())).items():
        part = table[table["method"] == name]
        n = int(part["count"].max())
        ax.plot(part["epoch"], part["mean"], color=look.colour, linestyle=look.line,
                marker=look.marker, markersize=4, markevery=max(1, len(part) // 8),
                label=style.literal(f"{name} (n = {n})"))  # fmt: skip
        if n > 1:
            low, high = part["mean"] - part["std"], part["mean"] + part["std"]
            ax.fill_between(part["epoch"], low, high, color=look.colour, alpha=0.15, linewidth=0)
        ends[str(name)] = part["mean"].iloc[-1]
        said.append(f"{name} ends at {part['mean'].iloc[-1]:.2f}")
    ax.axhline(1, color=style.INK, linewidth=1)
    most = style.furthest(ends)
    return style.finish(
        ax,
        title=style.literal(f"{style.capital(most)} ends at {ends[most]:.2f} times their share"),
        x="epoch",
        y="wrong labels in the batches, times their share",
        legend=True,
        text="How often samples with a wrong label stand in the batches, 1 is their share of the "
        f"data. {'; '.join(said)}.",
    )
