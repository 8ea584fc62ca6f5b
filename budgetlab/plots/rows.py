"""Horizontal charts with one row per condition: differences, costs, gradient errors, classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis import BASELINE, compare, condition_columns, group_accuracy, summaries
from budgetlab.analysis.conditions import (
    label,
    labels,
    replicates,
    require,
    sorted_by_method,
    telling,
)
from budgetlab.analysis.tables import keys_of
from budgetlab.plots import style
from budgetlab.records import OneRecord, Records, open_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAR = 5  # times the median size of a difference; beyond it, a row is left off the axis
SMALLEST, MOST_GROUPS = 1e-4, 20
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 1}
# Kinds of forward pass: column, shade, hatch and legend text. Greys, because colours are methods.
PARTS = (
    ("trained_samples", "#555555", "", "trained on (forward and backward)"),
    ("looked_samples", "#aaaaaa", "///", "only looked at (forward)"),
    ("proxy_samples", "#cccccc", "...", "through a second network"),
)


def differences(
    data: Records | pd.DataFrame,
    *,
    baseline: str | Sequence[str] = BASELINE,
    keys: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Is it better than the baseline? Paired differences with their intervals.

    - ``data``: records, or a frame as returned by :func:`budgetlab.analysis.compare`.
    - ``baseline``: baseline to compare records with; ignored for a frame.
    """
    frame = style.frame_of(data, lambda runs: compare(runs, baseline),
                           ["method", "baseline", "pairs", "ci_low", "ci_high", "n"],
                           made="difference")  # fmt: skip
    metric = getattr(frame, "metric", "test_accuracy")
    confidence = getattr(frame, "confidence", 0.95)
    keys = keys_of(frame, keys)
    frame = frame[frame["pairs"] > 0].reset_index(drop=True)
    # Wide enough that long names leave room for the axis.
    ax = style.axes(ax, (8.4, 1.2 + 0.32 * max(len(frame), 2)))
    if frame.empty:
        why = "No run of another method has the settings and the seed of a baseline run."
        return style.empty(ax, why)
    scale = style.fraction(metric)
    spans = scale * frame[["difference", "ci_low", "ci_high"]].to_numpy(float)
    looks = style.looks(list(dict.fromkeys(frame["method"])))
    for place, (method, (middle, *ends)) in enumerate(zip(frame["method"], spans, strict=True)):
        look, known = looks[method], np.isfinite(ends).all()
        if known:
            ax.plot(ends, [place, place], color=look.colour, linewidth=2)
        ax.plot([middle], [place], marker=look.marker, color=look.colour,
                fillstyle="full" if known else "none")  # fmt: skip
    _clip_outliers(ax, spans)
    ax.axvline(0, color=style.INK, linewidth=1)
    shown = [name for name in telling(frame, keys) if name != "method"]
    baselines = list(dict.fromkeys(frame["baseline"]))
    _name_rows(ax, [
        row["method"] + (f" against {row['baseline']}" if len(baselines) > 1 else "")
        + (f" ({label(row, shown)})" if shown else "")
        for row in frame.to_dict("records")
    ])  # fmt: skip
    accuracy = metric.endswith("accuracy")
    what = "(percentage points)" if accuracy else f"in {metric.replace('_', ' ')} (nats)"
    against = f" from {baselines[0]}" if len(baselines) == 1 else ""
    text = " ".join(map(style.capitalise, frame["sentence"])) if "sentence" in frame else ""
    return style.finish(
        ax,
        title=style.verdicts(frame),
        x=f"difference{against} {what}, {100 * confidence:g}% CI",
        text=f"Paired differences, {len(frame)} comparisons. {text}",
    )


def _name_rows(ax: "Axes", names: Sequence[object]) -> None:
    """Label the rows of a chart from the top down, in lines, for which the figure gets room."""
    said = [style.wrap(style.escape_text(name)) for name in names]
    most, figure = max(name.count("\n") for name in said), ax.figure.get_figure(root=True)
    if figure.axes == [ax]:
        figure.set_figheight(figure.get_figheight() + 0.17 * most * len(said))
    ax.set_yticks(range(len(said)), said)
    ax.set_ylim(len(names) - 0.5, -0.5)


def _clip_outliers(ax: "Axes", rows: np.ndarray) -> None:
    """Exclude outliers from the axis and print them at its edge; ``rows`` is ``[n, 3]``."""
    size = np.nanmax(np.abs(rows), axis=1)
    far = size > FAR * np.median(size)
    if not far.any() or far.all():
        return
    near = 1.15 * rows[~far]
    edge = 0.3 * np.nanmax(np.abs(near))
    low, high = min(np.nanmin(near), -edge), max(np.nanmax(near), edge)
    if np.ptp(ax.get_xlim()) < 2 * (high - low):
        return
    for place in map(int, np.flatnonzero(far)):
        middle = rows[place, 0]
        if low <= middle <= high:
            continue
        left = middle < low
        ax.text(0.01 if left else 0.99, place, f"◄ {middle:+.1f}" if left else f"{middle:+.1f} ►",
                ha="left" if left else "right", va="center", fontsize=9, color=style.INK,
                transform=ax.get_yaxis_transform(), bbox=BEHIND_TEXT)  # fmt: skip
    ax.set_xlim(low, high)


def cost_ledger(data: Records | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Where did the budget go? Samples trained on and samples only scored, stacked.

    Forward passes through a second network, if any, are a third part.

    ``data``: records, or a frame as returned by :func:`budgetlab.analysis.summaries`.
    """
    frame = style.frame_of(data, summaries, ["method", "trained_samples", "looked_samples"])
    keys = condition_columns(frame)
    frame = replicates(frame, keys, ("seed",))
    if "proxy_samples" not in frame:
        frame = frame.assign(proxy_samples=0)
    columns = [column for column, *_ in PARTS]
    means = frame.groupby(keys, sort=False, dropna=False)[columns].mean().fillna(0).reset_index()
    means = sorted_by_method(means, ignore_index=True)
    names = labels(means, keys)
    # Wide enough that long names and the legend leave room for the bars.
    width = 8.4 + 0.08 * max(0, min(names.str.len().max(), style.LEGEND_LETTERS) - 24)
    ax = style.axes(ax, (width, 1.2 + 0.32 * max(len(means), 2)))
    below, said = 0.0 * means["trained_samples"], [f"{name}:" for name in names]
    for column, colour, hatch, meaning in PARTS:
        count = means[column]
        if column != "proxy_samples" or count.any():
            ax.barh(means.index, count, left=below, color=colour, hatch=hatch, label=meaning,
                    edgecolor="white" if hatch else "none")  # fmt: skip
            below = below + count
            said = [f"{text} {n:,.0f} {meaning.partition(' (')[0].removeprefix('only ')},"
                    for text, n in zip(said, count, strict=True)]  # fmt: skip
    _name_rows(ax, names)
    trained = means["trained_samples"]
    looks = (means["looked_samples"] / trained.where(trained > 0)).fillna(0)
    most = int(looks.to_numpy().argmax())
    title = (f"{names[most]} looks at {looks[most]:.2g} samples for each one that it trains on"
             if looks[most] > 0 else "")  # fmt: skip
    ax.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    ax.locator_params(axis="x", nbins=6)
    return style.finish(ax, title=title, x="samples through a network, mean of the runs",
                        text=f"Costs. {'; '.join(text.rstrip(',') for text in said)}.")  # fmt: skip


def gradient_errors(frame: pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Is the gradient right on average, and how noisy is it? One row per estimate.

    Squared bias and variance, both in units of the variance of uniform draws, on a logarithmic
    axis. A bias indistinguishable from zero is marked "no bias seen" at the left edge.

    ``frame``: rows of one moment, as returned by the methods of
    :class:`budgetlab.estimators.Moment`; rows of the same name (seeds) are averaged.
    """
    require(frame, ["name", "weights", "bias2", "variance", "variance_ratio"], "a frame of errors")
    unit = frame["variance"] / frame["variance_ratio"]
    table = frame.assign(bias=frame["bias2"] / unit, spread=frame["variance_ratio"])
    table = table.groupby(["name", "weights"], sort=False)[["bias", "spread"]].mean().reset_index()
    ax = style.axes(ax, (7.0, 1.2 + 0.32 * len(table)))
    names = [f"{name}, weighted" if weights != "none" else name
             for name, weights in zip(table["name"], table["weights"], strict=True)]  # fmt: skip
    bias = table["bias"].where(table["bias"] > SMALLEST).dropna()
    ax.hlines(table.index, bias.reindex(table.index).fillna(table["spread"]), table["spread"],
              color=style.FAINT, linewidth=1)  # fmt: skip
    for values, colour, marker, name in ((table["spread"], style.INK, "o", "variance"),
                                         (bias, "#999999", "s", "bias²")):  # fmt: skip
        if len(values):
            ax.plot(values, values.index, color=colour, marker=marker, linestyle="none", label=name)
    for place in table.index.difference(bias.index):
        # A logarithmic axis has no place for zero.
        ax.text(0.01, float(place), "no bias seen", transform=ax.get_yaxis_transform(), va="center",
                fontsize=8, color=style.INK, bbox=BEHIND_TEXT)  # fmt: skip
    ax.axvline(1, color=style.INK, linewidth=1)
    ax.set_xscale("log")
    _name_rows(ax, names)
    errors = zip(names, table["bias"].clip(lower=0), table["spread"], strict=True)
    said = "; ".join(f"{name} {b:.2g} and {s:.2g}" for name, b, s in errors)
    least = int(table["spread"].argmin())
    return style.finish(
        ax,
        title=f"{names[least]}: {table['spread'].min():.2f} times the variance",
        x="times the variance of a uniform draw (logarithmic)",
        text=f"Squared bias and variance of each gradient estimate: {said}.",
    )


def class_accuracy(
    data: OneRecord | pd.DataFrame,
    by: str = "label",
    *,
    look: style.LineStyle | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Where does it go wrong? Test accuracy of each class, or group, with its interval.

    - ``data``, ``by``: as for :func:`budgetlab.analysis.group_accuracy`, or a frame returned by it.
      The twenty groups with the lowest accuracy are drawn.
    - ``look``: colour and marker; by default those of the method of a record.
    """
    if not isinstance(data, pd.DataFrame):
        data = open_record(data)
        look = look or style.looks([data.config["method"]])[data.config["method"]]
    look = look or style.LineStyle(style.COLOURS[0], "-", "o")
    frame = style.frame_of(data, lambda run: group_accuracy(run, by),
                           ["group", "n", "accuracy", "ci_low", "ci_high"],
                           made="mistaken_for")  # fmt: skip
    shown = frame.nsmallest(MOST_GROUPS, "accuracy", keep="first").reset_index(drop=True)
    ax = style.axes(ax, (6.4, 1.2 + 0.26 * len(shown)))
    value = 100 * shown["accuracy"]
    reach = np.abs(100 * shown[["ci_low", "ci_high"]].to_numpy().T - value.to_numpy())
    ax.errorbar(value, shown.index, xerr=reach, fmt=look.marker, color=look.colour, markersize=5)
    _name_rows(
        ax, [f"{group} ({n:,})" for group, n in zip(shown["group"], shown["n"], strict=True)]
    )
    # Starts at the multiple of ten below the lowest interval: a full axis would hide differences.
    ax.set_xlim(10 * np.floor(10 * shown["ci_low"].min()) - 2, 102)
    said = ""
    if means := {name: 100 * mean for name, mean in frame.attrs.items()}:
        ax.axvline(means["over_samples"], color=style.INK, linewidth=1, label="all samples")
        ax.axvline(means["over_classes"], color=style.INK, linewidth=1, linestyle="--",
                   label="mean over the classes")  # fmt: skip
        said = (f" {means['over_samples']:.1f}% of all samples are right, and "
                f"{means['over_classes']:.1f}% as a mean over the classes.")  # fmt: skip
    worst, best = shown.iloc[0], frame.loc[frame["accuracy"].idxmax()]
    return style.finish(
        ax,
        title=f"Lowest: {worst['group']}, {100 * worst['accuracy']:.1f}%",
        x=style.axis_name("test_accuracy"),
        text=f"Test accuracy of {len(shown)} of {len(frame)} groups, with intervals: from "
        f"{100 * worst['accuracy']:.1f}% for {worst['group']} to {100 * best['accuracy']:.1f}% "
        f"for {best['group']}.{said}",
    )
