"""Measures against each other, classes and their confusion, credit."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis import (
    calibration,
    credit_by_reference,
    group_accuracy,
    measures,
)
from budgetlab.analysis import class_share as find_class_share
from budgetlab.analysis import confusion as find_confusion
from budgetlab.analysis.conditions import require
from budgetlab.plots import style
from budgetlab.plots.samples import by_method, run_names
from budgetlab.records import Record, Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "class_accuracy",
    "class_share",
    "confusion",
    "credit_calibration",
    "measure_vs_measure",
]


def measure_vs_measure(
    data: Record | pd.DataFrame,
    x: str = "confidence",
    y: str = "variability",
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Do two measures say the same? One point a sample, with both marginal histograms.

    ``variability`` up and ``confidence`` across is the data map of Swayamdipta et al.
    (2020). Samples known to have a wrong label are marked.

    Parameters
    ----------
    data
        A record, or a frame as from :func:`budgetlab.analysis.measures`.
    x, y
        Two of its columns. Samples without a finite value in both are counted below
        the axis and not drawn.
    """
    frame = measures(data) if isinstance(data, Record) else data
    require(frame, [x, y], "a frame of measures")
    finite = np.isfinite(frame[[x, y]].astype(float)).all(axis=1)
    shown, hidden = frame[finite], int((~finite).sum())
    ax = style.axes(ax, (6.0, 5.0))
    noisy = shown.get("is_noisy", pd.Series(False, shown.index)).fillna(False).astype(bool)
    for part, marker, colour, name in (
        (shown[~noisy], "o", style.COLOURS[0], "label as it should be" if noisy.any() else ""),
        (shown[noisy], "x", style.COLOURS[1], "label made wrong"),
    ):
        if len(part):
            ax.scatter(part[x], part[y], marker=marker, color=colour, linewidths=0.9,
                       label=name or None, **style.scatter_kws(len(shown)))  # fmt: skip
    _marginals(ax, shown[x].to_numpy(float), shown[y].to_numpy(float))
    rho = shown[[x, y]].rank().corr().iloc[0, 1] if len(shown) > 2 else np.nan
    relation = f"Spearman correlation {rho:.2f}" if pd.notna(rho) else "no correlation can be had"
    title = relation if pd.notna(rho) else ""
    left_out = f", {hidden:,} without a finite value not drawn" if hidden else ""
    style.finish(
        ax,
        x=style.axis_name(x) + (f"\n({hidden:,} samples have no finite value)" if hidden else ""),
        y=style.axis_name(y),
        legend=True,
        text=f"{style.axis_name(y)} against {style.axis_name(x)}, one point a sample: "
        f"{len(shown):,} samples{left_out}; {relation}.",
    )
    # Above the histogram that lies above the axes.
    ax.set_title(title, loc="left", fontsize=11, color=style.INK, y=1.17)
    return ax


def _marginals(ax: "Axes", x: np.ndarray, y: np.ndarray) -> None:
    """Histograms along the upper and right edge, outside of the axes."""
    top, right = ax.inset_axes((0, 1.02, 1, 0.14)), ax.inset_axes((1.02, 0, 0.14, 1))
    if len(x):
        top.hist(x, bins=40, color=style.COLOURS[6])
        right.hist(y, bins=40, color=style.COLOURS[6], orientation="horizontal")
    top.set_xlim(ax.get_xlim())
    right.set_ylim(ax.get_ylim())
    for side in (top, right):
        side.axis("off")


def class_share(data: Record | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Are some classes picked more? Share of the batches over the epochs.

    Parameters
    ----------
    data
        A record, or a frame as from :func:`budgetlab.analysis.class_share`. Beyond
        seven classes, those that end furthest from their share of the data are drawn.
    """
    frame = find_class_share(data) if isinstance(data, Record) else data
    require(frame, ["epoch", "class", "share", "base"], "a frame of class shares")
    ratio = frame.assign(ratio=frame["share"] / frame["base"].where(frame["base"] > 0))
    table = ratio.pivot(index="epoch", columns="class", values="ratio").dropna(how="all")
    tail = table.tail(max(1, len(table) // 4)).mean()
    furthest = (tail - 1).abs().sort_values(ascending=False, kind="stable").index[:7]
    ax = style.axes(ax)
    drawn = style.looks([name for name in frame["class"].unique() if name in furthest])
    for name, look in drawn.items():
        style.line(ax, table.index, table[name], look, name)
    ax.axhline(1, color=style.INK, linewidth=1)
    order = tail.sort_values(ascending=False)
    return style.finish(
        ax,
        title=style.literal(
            f"{order.index[0]} is picked {order.iloc[0]:.2f} times as often as its share"
        ),
        x="epoch",
        y="share of the batches, times its share of the data",
        legend=True,
        text=f"How often each of {table.shape[1]} classes is trained on; 1 is its share of the "
        f"data. In the last quarter {order.index[0]} is picked {order.iloc[0]:.2f} times as "
        f"often as that, {order.index[-1]} {order.iloc[-1]:.2f} times.",
    )


def credit_calibration(
    data: Records,
    *,
    reference: Record | None = None,
    bins: int = 10,
    ax: "Axes | None" = None,
) -> "Axes":
    """Does the probability that is credited to a sample mean anything under mixing?

    With a reference, groups of samples by how well the reference knows them, against
    what the run credited to them: a rising line is a credit that finds its sample
    (:func:`budgetlab.analysis.credit_by_reference`). Without, the credited probability
    against how often that label won (:func:`budgetlab.analysis.calibration`), which says
    how sure the network is, not whether the sample is the right one.

    Parameters
    ----------
    data
        Records, such as one run for each credit rule.
    reference
        A run on the same data without mixing.
    bins
        Groups of samples, or bins of the probability.
    """
    runs = by_method(data)
    names = [
        name if "credit" in name else f"{name} (credit {run.config.get('credit', '')})"
        for name, run in zip(run_names(runs), runs, strict=True)
    ]
    ax = style.axes(ax)
    drawn, said, found = style.looks(names), [], {}
    for name, run in zip(names, runs, strict=True):
        look = drawn[name]
        if reference is None:
            frame = calibration(run, bins)
            x, y = frame["p_y"], frame["right"]
            found[name] = float(np.average((y - x).abs(), weights=frame["visits"]))
            said.append(f"{name}: {found[name]:.3f} apart")
        else:
            frame = credit_by_reference(run, reference, bins)
            x, y = frame["reference"], frame["credited"]
            found[name] = frame.attrs["spearman"]
            said.append(f"{name}: Spearman correlation {found[name]:.2f}")
        style.line(ax, x, y, look, name)
    if reference is None:
        ax.plot([0, 1], [0, 1], color=style.INK, linewidth=1, linestyle=":", label="as credited")
        x_name, y_name = "probability credited to the sample", "share of visits where its label won"
        best = min(found, key=lambda name: found[name])
        title = f"{style.capital(best)} is {100 * found[best]:.0f} points from what it credits"
    else:
        best = max(found, key=lambda name: found[name])
        title = f"{style.capital(best)} finds its sample best: correlation {found[best]:.2f}"
        x_name = "mean probability of the label in the run without mixing"
        y_name = "mean probability credited under mixing"
    text = f"{y_name} against {x_name}. {'; '.join(said)}."
    if len(found) < 2 or any(value != value for value in found.values()):
        title = ""
    return style.finish(ax, title=style.literal(title), x=x_name, y=y_name, legend=True, text=text)


def class_accuracy(
    data: Record | pd.DataFrame, by: str = "label", *, most: int = 20, ax: "Axes | None" = None
) -> "Axes":
    """Where does it go wrong? Test accuracy of each class, or group, with its interval.

    Parameters
    ----------
    data, by
        As for :func:`budgetlab.analysis.group_accuracy`; or a frame from there.
    most
        Groups drawn, the worst of them.
    """
    if isinstance(data, pd.DataFrame) and "mistaken_for" in data:
        frame = data
    else:
        frame = group_accuracy(data, by)
    require(frame, ["group", "n", "accuracy", "ci_low", "ci_high"], "a frame of accuracies")
    shown = frame.nsmallest(most, "accuracy", keep="first").iloc[::-1]
    ax = style.axes(ax, (6.4, 1.2 + 0.26 * len(shown)))
    place, value = np.arange(len(shown)), 100 * shown["accuracy"]
    reach = np.abs(100 * shown[["ci_low", "ci_high"]].to_numpy().T - value.to_numpy())
    ax.errorbar(value, place, xerr=reach, fmt="o", color=style.COLOURS[0], markersize=5)
    names = [f"{group} ({n:,})" for group, n in zip(shown["group"], shown["n"], strict=True)]
    ax.set_yticks(place, [style.literal(name) for name in names])
    ax.set_xlim(-2, 102)
    said, means = "", frame.attrs
    if means:
        ax.axvline(100 * means["over_samples"], color=style.INK, linewidth=1, label="all samples")
        ax.axvline(100 * means["over_classes"], color=style.INK, linewidth=1, linestyle="--",
                   label="mean over the classes")  # fmt: skip
        said = (f" {100 * means['over_samples']:.1f}% of all samples are right, and "
                f"{100 * means['over_classes']:.1f}% as a mean over the classes.")  # fmt: skip
    worst, best = shown.iloc[-1], frame.loc[frame["accuracy"].idxmax()]
    return style.finish(
        ax,
        title=style.literal(f"Lowest: {worst['group']}, {100 * worst['accuracy']:.1f}%"),
        x=style.axis_name("test_accuracy"),
        legend=True,
        text=f"Test accuracy of {len(shown)} of {len(frame)} groups, with intervals: from "
        f"{100 * worst['accuracy']:.1f}% for {worst['group']} to {100 * best['accuracy']:.1f}% "
        f"for {best['group']}.{said}",
    )


def confusion(data: Record | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Which classes are taken for which? Shares of each true class, one row each.

    Parameters
    ----------
    data
        As for :func:`budgetlab.analysis.confusion`; or a table from there. Beyond twenty
        classes, the twenty with the most mistakes are drawn.
    """
    if isinstance(data, pd.DataFrame) and data.index.name == "label":
        table = data
    else:
        table = find_confusion(data)
    mistakes = table.where(np.eye(len(table)) == 0, 0)
    kept = (mistakes.sum(axis=1) + mistakes.sum(axis=0)).nlargest(20, keep="first").index
    kept = [name for name in table.index if name in kept]
    share = table.div(table.sum(axis=1).clip(lower=1), axis=0).loc[kept, kept]
    ax = style.axes(ax, (max(4.8, 2.2 + 0.36 * len(kept)), 1.6 + 0.36 * len(kept)))
    ax.imshow(100 * share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, column in np.argwhere(share.to_numpy() >= 0.005):
        value = share.iloc[row, column]
        ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8,
                color="white" if value > 0.55 else style.INK)  # fmt: skip
    names = [style.literal(name) for name in kept]
    ax.set_xticks(range(len(kept)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(kept)), names)
    worst = mistakes.stack().nlargest(3)
    pairs = [f"{a} taken for {b} ({n:,})" for (a, b), n in worst.items() if n]
    style.finish(
        ax, title=style.literal(style.capital(pairs[0])) if pairs else "", x="predicted",
        y="true class (shares of it, %)",
        text=f"Confusion of {len(kept)} of {len(table)} classes: {int(mistakes.sum().sum()):,} of "
        f"{int(table.sum().sum()):,} test samples are wrong"
        + (f", most often {'; '.join(pairs)}." if pairs else "."),
    )  # fmt: skip
    ax.grid(False)
    return ax
