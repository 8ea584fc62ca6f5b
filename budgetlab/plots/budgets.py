"""What a smaller budget costs: results over the budget, and how much of the data was seen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis import results, selection, summaries, varying
from budgetlab.analysis.conditions import condition_columns, label, require
from budgetlab.analysis.tables import keys_of
from budgetlab.plots import style
from budgetlab.plots.learning import named_groups
from budgetlab.records import Records, open_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["budget_curves", "coverage"]


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
    ax
        Where to draw; a new figure by default.
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


def coverage(
    data: Records | pd.DataFrame, *, budget: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """How much of the training set has been trained on? Its share over the epochs.

    Runs that differ only in the seed are averaged.

    Parameters
    ----------
    data
        Records, or a frame as from :func:`budgetlab.analysis.selection`.
    budget
        Draws also what a new uniform draw of this share in every epoch is expected to
        reach: ``1 - (1 - budget)^epoch``.
    ax
        Where to draw; a new figure by default.
    """
    found = {"this run": data} if isinstance(data, pd.DataFrame) else _coverage_by_condition(data)
    ax, drawn, said, ends = style.axes(ax), style.looks(list(found)), [], {}
    for name, frame in found.items():
        require(frame, ["epoch", "coverage"], f"the selection of {name}")
        look, share = drawn[name], 100 * frame["coverage"].to_numpy()
        ax.plot(frame["epoch"], share, color=look.colour, linestyle=look.line, marker=look.marker,
                markersize=4, markevery=max(1, len(share) // 8),
                label=style.literal(name))  # fmt: skip
        ends[name] = share[-1]
        said.append(f"{name}: {share[0]:.4g}% after the first epoch, {share[-1]:.4g}% at the end")
    if budget is not None:
        epochs = np.arange(1, max(int(frame["epoch"].max()) for frame in found.values()) + 1)
        ax.plot(epochs, 100 * (1 - (1 - budget) ** epochs), color=style.INK, linewidth=1,
                linestyle=":", label="expected of a uniform draw")  # fmt: skip
    fewest = min(ends, key=lambda name: ends[name])
    return style.finish(
        ax,
        title=style.literal(f"{style.capital(fewest)} has seen {ends[fewest]:.4g}% at the end"),
        x="epoch",
        y="training samples seen at least once (%)",
        legend=True,
        text=f"Share of the training samples seen so far. {'; '.join(said)}.",
    )


def _coverage_by_condition(data: Records) -> dict[str, pd.DataFrame]:
    """Mean coverage of the runs of each condition, named by what tells it from the others."""
    runs = open_records(data)
    about = summaries(runs)
    shown = varying(about, condition_columns(about)) or ["method"]
    parts: dict[str, list[pd.DataFrame]] = {}
    for row, run in zip(about.to_dict("records"), runs, strict=True):
        parts.setdefault(label(row, shown), []).append(selection(run)[["epoch", "coverage"]])
    return {
        name: pd.concat(frames).groupby("epoch", as_index=False).mean()
        for name, frames in parts.items()
    }
