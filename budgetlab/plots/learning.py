"""Plots of accuracy against cost: curves over training, budget and length, and the frontier."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.analysis import curves, results, varying
from budgetlab.analysis import frontier as find_frontier
from budgetlab.analysis.conditions import labels, require
from budgetlab.analysis.tables import keys_of
from budgetlab.plots import style
from budgetlab.plots.style import Curve
from budgetlab.records import Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

FILLS = ("full", "none", "left", "bottom", "right", "top")
GRADIENTS = {
    "possible_gain": "share of the possible reduction of variance",
    "variance_ratio": "variance, times that of uniform draws",
    "mse_ratio": "mean squared error, times that of uniform draws",
    "cosine": "cosine between mean estimate and full gradient",
}


def learning_curves(
    data: Records | pd.DataFrame,
    *,
    cost: str = "steps",
    value: str = "test_accuracy",
    keys: Sequence[str] | None = None,
    looks: Mapping[str, style.LineStyle] | None = None,
    legend: bool = True,
    ax: "Axes | None" = None,
) -> "Axes":
    """Which learns fastest for what it costs? Mean of each condition, ± standard deviation.

    A condition without a finished run is marked as unfinished, and the title does not rank it.

    - ``data``: records, or a frame as returned by :func:`budgetlab.analysis.epochs` (one row per
      run and epoch) or :func:`budgetlab.analysis.curves` (already averaged).
    - ``cost``: horizontal axis: one of :data:`budgetlab.analysis.AXES`.
    - ``looks``: line styles by the value of the last of ``keys``; by default, one per method.
    - ``legend``: whether to add a legend.
    """
    frame = style.frame_of(data, lambda runs: curves(runs, cost, value),
                           ["cost", "mean", "spread", "n"], made="mean")  # fmt: skip
    cost, value = getattr(frame, "cost_name", cost), getattr(frame, "metric", value)
    keys = keys_of(frame, keys)
    groups, styles = style.named_groups(frame, keys)
    if looks:
        styles = {name: looks[group[keys[-1]].iloc[0]] for name, group in groups.items()}
    scale, lines, said, ends = style.fraction(value), {}, [], {}
    for name, group in groups.items():
        n, middle, spread = f"n = {group['n'].iloc[0]}", scale * group["mean"], group["spread"]
        if "finished" in group and not group["finished"].all():
            n += ", unfinished"
        else:
            ends[name] = middle.iloc[-1]
        band = () if spread.isna().all() else (middle - scale * spread, middle + scale * spread)
        lines[name] = Curve(group["cost"], middle, n, *band)
        cost_at_end = _count(group["cost"].iloc[-1])
        said.append(f"{name} ends at {middle.iloc[-1]:.4g} after {cost_at_end} ({n})")
    ax = style.axes(ax)
    style.draw(ax, lines, styles)
    _keep_possible(ax, value)
    bands = " with bands of one standard deviation" if frame["spread"].notna().any() else ""
    return style.finish(
        ax,
        title=_leader(frame, ends, value),
        x=style.axis_name(cost),
        y=style.axis_name(value),
        legend=legend,
        text=f"Learning curves{bands}: {style.axis_name(value)} over {style.axis_name(cost)}. "
        + "; ".join(said) + ".",
    )  # fmt: skip


def _leader(frame: pd.DataFrame, ends: Mapping[str, float], value: str) -> str:
    """Title naming the best condition; empty for several data sets, which compare no methods."""
    several = varying(frame, [name for name in ("dataset", "fingerprint") if name in frame])
    return "" if several else style.leader(ends, value)


def _keep_possible(ax: "Axes", column: str) -> None:
    """Limit an accuracy axis to 0 to 100%, however wide an interval is."""
    if column.endswith("accuracy"):
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, -2), min(high, 102))


def budget_curves(
    data: Records | pd.DataFrame,
    *,
    value: str = "test_accuracy",
    keys: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """What does a larger budget buy? Mean of each condition by budget, ± standard deviation.

    ``data``: records of runs at several budgets, or a frame as returned by
    :func:`budgetlab.analysis.summaries` or :func:`budgetlab.analysis.results`.
    """
    frame = style.frame_of(data, lambda runs: results(runs, metric=value),
                           ["method", "budget", "mean", "spread", "n"], made="mean")  # fmt: skip
    value = getattr(frame, "metric", value)
    keys = [name for name in keys_of(frame, keys) if name != "budget"]
    groups, styles = style.named_groups(frame, keys)
    scale, lines, said = style.fraction(value), {}, []
    for place, (name, group) in enumerate(groups.items()):
        group = group.sort_values("budget")
        n, middle = int(group["n"].min()), scale * group["mean"].to_numpy()
        spread = scale * group["spread"].fillna(0).to_numpy()
        # Shifted a little, so that error bars at one budget do not overlap.
        x = 100 * group["budget"].to_numpy() * 1.02 ** (place - (len(groups) - 1) / 2)
        bars = (middle - spread, middle + spread) if n > 1 else ()
        lines[name] = Curve(x, middle, f"n = {n}", *bars)
        points = zip(100 * group["budget"], middle, strict=True)
        said.append(f"{name}: " + ", ".join(f"{y:.4g} at {b:g}%" for b, y in points))
    ax = style.axes(ax)
    style.draw(ax, lines, styles, bars=True)
    shared = set.intersection(*(set(group["budget"]) for group in groups.values()))
    least = min(shared, default=math.nan)
    ends = {name: scale * group.loc[group["budget"] == least, "mean"].iloc[0]
            for name, group in groups.items() if shared}  # fmt: skip
    style.finish(
        ax,
        title=_leader(frame, ends, value).replace("ends best", f"is best at {100 * least:g}%"),
        x="budget (% of the full run, logarithmic)",
        y=style.axis_name(value),
        text=f"{style.axis_name(value)} over the budget, with one standard deviation. "
        f"{'; '.join(said)}.",
    )
    return _logarithmic(ax, 100 * frame["budget"])


def crossing(
    frame: pd.DataFrame,
    *,
    value: str = "test_accuracy",
    ax: "Axes | None" = None,
) -> "Axes":
    """How long must training be for variety to pay? One line per augmentation, with bands.

    ``frame``: one row per augmentation and length: ``epochs``, ``augmentation``, ``mean``,
    ``ci_low`` and ``ci_high`` (fractions; NaN where there is no interval) and ``n``.
    """
    require(frame, ["epochs", "augmentation", "mean", "ci_low", "ci_high", "n"])
    scale, lines, said = style.fraction(value), {}, []
    # In the order of the lines' right ends, to match the legend beside them.
    ends = frame.sort_values("epochs").groupby("augmentation", sort=False)["mean"].last()
    for name in ends.sort_values(ascending=not value.endswith("accuracy"), kind="stable").index:
        own = frame[frame["augmentation"] == name].sort_values("epochs")
        fewest, most = int(own["n"].min()), int(own["n"].max())
        n = f"n = {fewest}" if fewest == most else f"n = {fewest} to {most}"
        middle, low, high = (scale * own[column] for column in ("mean", "ci_low", "ci_high"))
        lines[str(name)] = Curve(own["epochs"], middle, n, low, high)
        said.append(f"{name} goes from {middle.iloc[0]:.1f} at {own['epochs'].iloc[0]:g} epochs "
                    f"to {middle.iloc[-1]:.1f} at {own['epochs'].iloc[-1]:g}")  # fmt: skip
    ax = style.axes(ax)
    style.draw(ax, lines)
    style.finish(
        ax,
        title=crossed(frame, value),
        x="epochs of the full run (logarithmic)",
        y=style.axis_name(value),
        text=f"{style.axis_name(value)} over the length of training. {'; '.join(said)}.",
    )
    return _logarithmic(ax, frame["epochs"])


def crossed(frame: pd.DataFrame, value: str = "test_accuracy") -> str:
    """Title naming the best augmentation at both ends; empty for a single length."""
    sign = 1 if value.endswith("accuracy") else -1
    short, long = frame["epochs"].min(), frame["epochs"].max()
    best = [frame["augmentation"][(sign * frame["mean"]).where(frame["epochs"] == at).idxmax()]
            for at in (short, long)]  # fmt: skip
    # Quoted: "none leads" would say that there is no leader.
    first, last = ("'none'" if name == "none" else name for name in best)
    if short == long:
        return ""
    then = f" and at {long:,g}" if first == last else f", {last} at {long:,g}"
    return f"{style.capitalise(first)} leads at {short:,g} epochs{then}"


def gradient_quality(
    frame: pd.DataFrame, value: str = "possible_gain", *, ax: "Axes | None" = None
) -> "Axes":
    """How does gradient quality change over training? Mean over seeds, ± standard deviation.

    - ``frame``: concatenated frames of several moments, as returned by the methods of
      :class:`budgetlab.estimators.Moment`.
    - ``value``: column to draw over ``steps``, such as ``possible_gain`` or ``variance_ratio``.
    """
    require(frame, ["name", "steps", value], "a frame of errors over steps")
    lines = style.averaged(frame.dropna(subset=[value]), "name", "steps", value)
    ends = {name: (line.y.iloc[0], line.y.iloc[-1]) for name, line in lines.items()}
    said = [f"{name} goes from {a:.2f} to {b:.2f}" for name, (a, b) in ends.items()]
    ax = style.axes(ax)
    style.draw(ax, lines, bars=True)
    # The title names the largest change: reference lines are constant by definition.
    most = max(ends, key=lambda name: abs(ends[name][1] - ends[name][0]))
    name = GRADIENTS.get(value, value.replace("_", " "))
    return style.finish(
        ax,
        title=f"{most} goes from {ends[most][0]:.2f} to {ends[most][1]:.2f}",
        x="optimiser steps",
        y=name,
        text=f"{name} over the training. {'; '.join(said)}.",
    )


def frontier(
    data: Records | pd.DataFrame,
    *,
    cost: str = "flops",
    value: str = "test_accuracy",
    keys: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """What does accuracy cost? Each condition, and the Pareto frontier.

    - ``data``: records, or a frame as returned by :func:`budgetlab.analysis.summaries` or
      :func:`budgetlab.analysis.frontier`.
    - ``cost``: one of :data:`budgetlab.analysis.COSTS`.
    """
    frame = style.frame_of(data, lambda runs: find_frontier(runs, cost, value),
                           ["method", "cost", "mean", "ci_low", "ci_high", "n"],
                           made="on_frontier")  # fmt: skip
    cost, value = getattr(frame, "cost_name", cost), getattr(frame, "metric", value)
    if frame.empty:
        return style.empty(style.axes(ax), f"No run has both {style.axis_name(cost)} and a result.")
    scale = style.fraction(value)
    shown = frame.assign(**{c: scale * frame[c] for c in ("mean", "ci_low", "ci_high")})
    every = keys_of(frame, keys)
    groups, styles = style.named_groups(shown, [name for name in every if name != "budget"])
    ax = style.axes(ax)
    aside = _sideways(frame)
    filled = fills([(look.colour, look.marker) for look in styles.values()])
    for (name, group), fill in zip(groups.items(), filled, strict=True):
        _marks(ax, group, styles[name], style.escape_text(name), aside, fill)
    ax.autoscale_view()
    _keep_possible(ax, value)
    best = shown[shown["on_frontier"]].sort_values("cost")
    for _, line in best.groupby("dataset"):
        ax.plot(line["cost"], line["mean"], color=style.INK, linewidth=1, zorder=1)
    many = f"{len(best)} of {len(frame)} conditions {'are' if len(best) > 1 else 'is'}"
    named = labels(shown, every)
    said = "; ".join(f"{named[place]} reaches {row['mean']:.4g} for {_count(row['cost'])}"
                     for place, row in best.iterrows())  # fmt: skip
    return style.finish(
        ax,
        title=f"{many} beaten by no cheaper one" if len(frame) > 1 else "",
        x=style.axis_name(cost),
        y=style.axis_name(value),
        text=f"{style.axis_name(value)} against {style.axis_name(cost)}, {len(frame)} conditions. "
        f"On the frontier: {said}.",
    )


def fills(markers: list[Any]) -> list[Any]:
    """Fill equal markers differently, where no line tells conditions of one method apart."""
    return [FILLS[markers[:n].count(one) % len(FILLS)] for n, one in enumerate(markers)]


def _marks(
    ax: "Axes", group: pd.DataFrame, look: style.LineStyle, name: str, aside: pd.Series, fill: Any
) -> None:
    """Draw a marker and its interval for each row, with one legend entry for all."""
    for number, (place, row) in enumerate(group.iterrows()):
        middle, bounds = row["mean"], [row["ci_low"], row["ci_high"]]
        ends = bounds if np.isfinite(bounds).all() else [middle, middle]
        shift, x = _shifted(ax, aside[place]), row["cost"]
        ax.plot([x, x], ends, color=look.colour, linewidth=1.5, transform=shift)
        ax.plot([x], [middle], color=look.colour, marker=look.marker, markersize=7, fillstyle=fill,
                linestyle="none", transform=shift, label=None if number else name)  # fmt: skip
        ax.update_datalim([(x, end) for end in ends])


def _sideways(frame: pd.DataFrame) -> pd.Series:
    """Return offsets in points that separate the markers of conditions of equal cost."""
    width = np.ptp(frame["cost"]) or 1.0
    together = (frame["cost"] / width * 50).round()
    place = frame.groupby(together).cumcount()
    return 7.0 * (place - (frame.groupby(together)["cost"].transform("size") - 1) / 2)


def _shifted(ax: "Axes", points: float) -> "Transform":
    from matplotlib.transforms import ScaledTranslation

    scale = ax.figure.get_figure(root=True).dpi_scale_trans
    return ax.transData + ScaledTranslation(points / 72, 0, scale)


def _logarithmic(ax: "Axes", values: pd.Series) -> "Axes":
    """Make the x axis logarithmic, with a tick at each value."""
    ax.set_xscale("log")
    ticks = sorted(set(values))
    ax.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    ax.minorticks_off()
    return ax


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
