"""How well, at what cost: learning curves, frontier, differences, cost ledger."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis import BASELINE, compare, curves, summaries, varying
from budgetlab.analysis import frontier as find_frontier
from budgetlab.analysis.conditions import condition_columns, label, method_order, require
from budgetlab.analysis.tables import keys_of
from budgetlab.plots import style
from budgetlab.records import Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

__all__ = ["cost_ledger", "differences", "frontier", "learning_curves"]

FAR = 5  # times the median size of a difference: beyond that it leaves the axis
SHOWN = ("dataset", "method", "augmentation", "budget")


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

    Parameters
    ----------
    data
        Records, or a frame as from :func:`budgetlab.analysis.epochs` (one row a run and
        epoch) or :func:`budgetlab.analysis.curves` (already averaged).
    cost
        What the curves go over: one of :data:`budgetlab.analysis.AXES`.
    value
        What is followed, such as ``test_accuracy``.
    keys
        Columns that make a condition, in a frame of your own; by default the settings of a
        run that it holds.
    looks
        Of the conditions, by the last of ``keys``; by default each method has its own.
    legend
        Whether to name the lines.
    """
    if isinstance(data, pd.DataFrame) and "mean" in data:
        frame = data
        cost, value = getattr(frame, "cost_name", cost), getattr(frame, "metric", value)
    else:
        frame = curves(data, cost, value)
    require(frame, ["cost", "mean", "spread", "n"], "a frame of learning curves")
    keys = keys_of(frame, keys)
    ax = style.axes(ax)
    scale = style.fraction(value)
    groups, drawn = named_groups(frame, keys)
    said, ends = [], {}
    for name, group in groups.items():
        look = looks[group[keys[-1]].iloc[0]] if looks else drawn[name]
        n = int(group["n"].iloc[0])
        x, middle = group["cost"].to_numpy(), scale * group["mean"].to_numpy()
        spread = scale * group["spread"].to_numpy(float)
        band = None if np.isnan(spread).all() else (middle - spread, middle + spread)
        style.line(ax, x, middle, look, f"{name} (n = {n})", band)
        said.append(f"{name} ends at {middle[-1]:.4g} after {_count(x[-1])} (n = {n})")
        ends[name] = middle[-1]
    style.keep_possible(ax, value)
    bands = " with bands of one standard deviation" if frame["spread"].notna().any() else ""
    return style.finish(
        ax,
        title=style.leader(ends, value),
        x=style.axis_name(cost),
        y=style.axis_name(value),
        legend=legend,
        text=f"Learning curves{bands}: {style.axis_name(value)} over {style.axis_name(cost)}. "
        + "; ".join(said) + ".",
    )  # fmt: skip


def frontier(
    data: Records | pd.DataFrame,
    *,
    cost: str = "flops",
    value: str = "test_accuracy",
    keys: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """What does accuracy cost? Each condition, and the line that no condition beats.

    Parameters
    ----------
    data
        Records, or a frame as from :func:`budgetlab.analysis.summaries` or
        :func:`budgetlab.analysis.frontier`.
    cost
        One of :data:`budgetlab.analysis.COSTS`.
    value
        What was reached.
    keys
        Columns that make a condition, in a frame of your own; by default the settings of a
        run that it holds.
    """
    if isinstance(data, pd.DataFrame) and "on_frontier" in data:
        frame = data
    else:
        frame = find_frontier(data, cost, value)
    require(frame, ["method", "cost", "mean", "ci_low", "ci_high", "n", "on_frontier"])
    cost, value = getattr(frame, "cost_name", cost), getattr(frame, "metric", value)
    ax = style.axes(ax)
    scale = style.fraction(value)
    keys = [name for name in keys_of(frame, keys) if name != "budget"]
    groups, drawn = named_groups(frame, keys)
    aside = _sideways(frame)
    for name, group in groups.items():
        look = drawn[name]
        entry: str | None = style.literal(name)
        for place, row in group.iterrows():
            middle, x = scale * row["mean"], row["cost"]
            bounds = [scale * row["ci_low"], scale * row["ci_high"]]
            ends = bounds if np.isfinite(bounds).all() else [middle, middle]
            shift = _shifted(ax, aside[place])
            ax.plot([x, x], ends, color=look.colour, linewidth=1.5, transform=shift)
            ax.plot([x], [middle], color=look.colour, marker=look.marker, markersize=7,
                    linestyle="none", transform=shift, label=entry)  # fmt: skip
            ax.update_datalim([(x, ends[0]), (x, ends[1])])
            entry = None  # one entry a method in the legend
    ax.autoscale_view()
    style.keep_possible(ax, value)
    for _, best in frame[frame["on_frontier"]].groupby("dataset"):
        best = best.sort_values("cost")
        ax.plot(best["cost"], scale * best["mean"], color=style.INK, linewidth=1, zorder=1)
    best = frame[frame["on_frontier"]]
    many = f"{len(best)} of {len(frame)} conditions {'are' if len(best) > 1 else 'is'}"
    said = "; ".join(
        f"{label(row, varying(frame, [n for n in SHOWN if n in frame]) or ['method'])} reaches "
        f"{scale * row['mean']:.4g} for {_count(row['cost'])}"
        for row in best.to_dict("records")
    )
    return style.finish(
        ax,
        title=f"{many} beaten by no cheaper one" if len(frame) > 1 else "",
        x=style.axis_name(cost),
        y=style.axis_name(value),
        legend=True,
        text=f"{style.axis_name(value)} against {style.axis_name(cost)}, {len(frame)} conditions. "
        f"On the frontier: {said}.",
    )


def differences(
    data: Records | pd.DataFrame,
    *,
    baseline: str | Sequence[str] = BASELINE,
    keys: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Is it better than the baseline? Paired differences with their intervals.

    Parameters
    ----------
    data
        Records, or a frame as from :func:`budgetlab.analysis.compare`.
    baseline
        Used where records are given.
    keys
        Columns that make a condition, in a frame of your own; by default the settings of a
        run that it holds.
    """
    if isinstance(data, pd.DataFrame) and "difference" in data:
        frame = data
    else:
        frame = compare(data, baseline)
    require(frame, ["method", "baseline", "pairs", "difference", "ci_low", "ci_high", "n"])
    metric = getattr(frame, "metric", "test_accuracy")
    confidence = getattr(frame, "confidence", 0.95)
    keys = [*keys_of(frame, keys), "baseline"]
    frame = frame[frame["pairs"] > 0].reset_index(drop=True)
    # Room for the names, which must not squeeze the axis that the question is about.
    ax = style.axes(ax, (8.4, 1.2 + 0.32 * max(len(frame), 2)))
    scale = style.fraction(metric)
    drawn = style.looks(list(dict.fromkeys(frame["method"])))
    shown = [name for name in varying(frame, keys) if name not in ("method", "baseline")]
    baselines = list(dict.fromkeys(frame["baseline"]))
    against = f" from {baselines[0]}" if len(baselines) == 1 else ""
    names = []
    for place, row in enumerate(frame.to_dict("records")):
        look, middle = drawn[row["method"]], scale * row["difference"]
        if pd.notna(row["ci_low"]):
            ax.plot([scale * row["ci_low"], scale * row["ci_high"]], [place, place],
                    color=look.colour, linewidth=2)  # fmt: skip
        full = "full" if pd.notna(row["ci_low"]) else "none"
        ax.plot([middle], [place], marker=look.marker, color=look.colour, fillstyle=full)
        extra = f" ({label(row, shown)})" if shown else ""
        other = f" against {row['baseline']}" if len(baselines) > 1 else ""
        names.append(style.literal(f"{row['method']}{other}{extra}"))
    _zoom(ax, scale * frame[["difference", "ci_low", "ci_high"]].to_numpy(float))
    ax.axvline(0, color=style.INK, linewidth=1)
    ax.set_yticks(range(len(frame)), names)
    ax.set_ylim(len(frame) - 0.5, -0.5)
    accuracy = metric.endswith("accuracy")
    what = "(percentage points)" if accuracy else f"in {metric.replace('_', ' ')} (nats)"
    text = " ".join(map(style.capital, frame["sentence"])) if "sentence" in frame else ""
    return style.finish(
        ax,
        title=style.verdicts(frame),
        x=f"difference{against} {what}, {100 * confidence:g}% CI",
        text=f"Paired differences, {len(frame)} comparisons. {text}",
    )


def _zoom(ax: "Axes", rows: np.ndarray) -> None:
    """Leave those out of the axis that lie so far off that they would squeeze all others.

    ``rows`` holds the difference and both ends of its interval, each ``[n]``. What lies
    outside stands at the edge, with its number.
    """
    size = np.nanmax(np.abs(rows), axis=1)
    usual = FAR * np.median(size)
    far = size > usual
    if not far.any() or far.all():
        return
    near = rows[~far]
    edge = 1.15 * np.nanmax(np.abs(near))
    low, high = min(np.nanmin(near) * 1.15, -0.3 * edge), max(np.nanmax(near) * 1.15, 0.3 * edge)
    for place in map(int, np.flatnonzero(far)):
        middle = rows[place, 0]
        left = middle < low
        if low <= middle <= high:
            continue
        ax.text(low if left else high, place,
                f"◄ {middle:+.1f}" if left else f"{middle:+.1f} ►",
                ha="left" if left else "right", va="center", fontsize=9, color=style.INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    ax.set_xlim(low, high)


def cost_ledger(data: Records | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Where did the budget go? Samples trained on and only looked at, stacked.

    What was run through a second network is a third part, where there is one.

    Parameters
    ----------
    data
        Records, or a frame as from :func:`budgetlab.analysis.summaries`.
    """
    frame = data if isinstance(data, pd.DataFrame) else summaries(data)
    require(frame, ["method", "trained_samples", "looked_samples"], "a frame of summaries")
    keys = condition_columns(frame)
    if "proxy_samples" not in frame:
        frame = frame.assign(proxy_samples=0)
    parts = ["trained_samples", "looked_samples", "proxy_samples"]
    means = frame.groupby(keys, sort=False, dropna=False)[parts].mean()
    order = method_order(frame["method"])
    means = means.reset_index().sort_values(
        "method", key=lambda column: column.map(order.index), kind="stable", ignore_index=True
    )
    names = style.line_labels(means, keys)
    # Long names must not squeeze the bars.
    width = 6.4 + 0.08 * max(0, names.str.len().max() - 24)
    ax = style.axes(ax, (width, 1.2 + 0.32 * max(len(means), 2)))
    places = np.arange(len(means))
    trained, looked = means["trained_samples"], means["looked_samples"]
    other = means["proxy_samples"].fillna(0)
    ax.barh(places, trained, color=style.COLOURS[0], label="trained on (forward and backward)")
    ax.barh(places, looked, left=trained, color=style.COLOURS[5], hatch="///", edgecolor="white",
            label="only looked at (forward)")  # fmt: skip
    if other.any():
        ax.barh(places, other, left=trained + looked, color=style.COLOURS[2], hatch="...",
                edgecolor="white", label="through a second network")  # fmt: skip
    ax.set_yticks(places, [style.literal(name) for name in names])
    ax.set_ylim(len(means) - 0.5, -0.5)
    said = "; ".join(
        f"{name}: {_count(t)} trained on, {_count(s)} looked at"
        + (f", {_count(o)} through a second network" if o else "")
        for name, t, s, o in zip(names, trained, looked, other, strict=True)
    )
    looks = (looked + other) / trained.where(trained > 0)
    most = int(looks.fillna(0).to_numpy().argmax())
    title = (f"{style.capital(names[most])} looks at {looks[most]:.2g} samples for each one that "
             "it trains on" if looks[most] > 0 else "")  # fmt: skip
    style.finish(ax, x="samples through a network, mean of the runs", text=f"Costs. {said}.")
    ax.set_title(
        style.literal(title),
        loc="left",
        fontsize=11,
        color=style.INK,
        pad=6 + 16 * len(ax.containers),
    )  # above the legend
    ax.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return ax


def named_groups(
    frame: pd.DataFrame, keys: Sequence[str]
) -> tuple[dict[str, pd.DataFrame], dict[str, style.LineStyle]]:
    """Split a frame by its conditions, each named by what tells it from the others."""
    shown = varying(frame, keys) or ["method"]
    groups, parts = {}, {}
    for key, group in frame.groupby(list(keys), sort=False, dropna=False):
        about = dict(zip(keys, key, strict=True))
        name = label(about, shown)
        groups[name] = group
        parts[name] = (about["method"], label(about, [n for n in shown if n != "method"]))
    order = method_order(method for method, _ in parts.values())
    parts = dict(sorted(parts.items(), key=lambda item: order.index(item[1][0])))
    return {name: groups[name] for name in parts}, style.condition_looks(parts)


def _sideways(frame: pd.DataFrame) -> pd.Series:
    """Points by which to move marks aside, so that conditions of equal cost can be told apart."""
    width = np.ptp(frame["cost"]) or 1.0
    together = (frame["cost"] / width * 50).round()
    place = frame.groupby(together).cumcount()
    return 7.0 * (place - (frame.groupby(together)["cost"].transform("size") - 1) / 2)


def _shifted(ax: "Axes", points: float) -> "Transform":
    from matplotlib.transforms import ScaledTranslation

    figure = ax.get_figure(root=True)
    assert figure is not None, "these axes were removed from their figure"
    return ax.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
