"""Plots of which samples a method selects: repeats, hard ones, wrong labels, coverage."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.analysis import (
    calibration,
    condition_columns,
    credit_by_reference,
    ranked_counts,
    selection,
    summaries,
)
from budgetlab.analysis import detection_curve as find_curve
from budgetlab.analysis import noisy_picks as find_noisy_picks
from budgetlab.analysis import picks_by as find_picks
from budgetlab.analysis.conditions import labels, method_order, replicates, require
from budgetlab.errors import InputError, few, known
from budgetlab.plots import style
from budgetlab.plots.learning import fills
from budgetlab.plots.style import Curve
from budgetlab.records import OneRecord, Record, Records, RecordWarning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLAGS = {"noisy": "samples with a wrong label", "ambiguous": "ambiguous samples"}
POINTS = 20  # per curve over the epochs
MOST_MEASURES = 7  # the number of colours


def _chart(
    curves: Mapping[str, Curve],
    said: Mapping[str, str],
    *,
    title: str,
    x: str,
    y: str,
    text: str,
    level: float | None = None,
    bars: bool = False,
    ax: "Axes | None",
) -> "Axes":
    """Draw named curves and a level line; ``said`` adds a phrase on each to the alt text."""
    ax = style.axes(ax)
    unjoined: dict[str, Any] = {"linestyle": "none"} if bars else {}
    style.draw(ax, curves, bars=bars, **unjoined)
    points = [bar[0] for bar in ax.containers]
    for one, fill in zip(points, fills([(p.get_color(), p.get_marker()) for p in points]),
                         strict=True):  # fmt: skip
        one.set_fillstyle(fill)
    if level is not None:
        style.rule(ax, level)
    words = "; ".join(f"{name}: {part}" for name, part in said.items())
    return style.finish(ax, title=title, x=x, y=y, text=f"{text} {words}.")


def _runs(
    data: Records | pd.DataFrame, make: Callable[[Record], pd.DataFrame], columns: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Map short run names to frames; a frame passed in is returned as ``this run``."""
    if isinstance(data, pd.DataFrame):
        found = {"this run": data}
    else:
        runs = style.by_method(data)
        found = dict(zip(style.run_names(runs), map(make, runs), strict=True))
    for name, frame in found.items():
        require(frame, columns, f"the frame of {name}")
    return found


def _by_condition(records: Records, make: Callable[[Record], pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the frames of the runs that count, with a ``condition`` column of labels."""
    runs = style.by_method(records)
    about = summaries(runs)
    begun = about["epochs_trained"] > 0
    if begun.any() and not begun.all():
        said = few(about.loc[~begun, "path"])
        warnings.warn(f"left out, as no epoch is finished: {said}", RecordWarning, stacklevel=4)
        about = about[begun]
    keys = condition_columns(about)
    about = replicates(about, keys, ("seed",))
    names = labels(about, keys)
    return pd.concat([make(runs[place]).assign(condition=name) for place, name in names.items()])


def ranked_picks(data: Records | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Does a method concentrate on a few samples? Times trained, most trained first.

    ``data``: records, or one frame as returned by :func:`budgetlab.analysis.ranked_counts`.
    """
    curves, said, never = {}, {}, {}
    for name, frame in _runs(data, ranked_counts, ["rank", "times_trained"]).items():
        counts = frame["times_trained"]
        curves[name] = Curve(100 * (frame["rank"] - 0.5) / len(frame), counts)
        never[name] = 100 * (counts == 0).mean()
        said[name] = (f"most trained {counts.max()} times, median {counts.median():g}, never "
                      f"{never[name]:.1f}%")  # fmt: skip
    most = style.most_extreme(never, 0.0)
    return _chart(
        curves, said, ax=ax,
        title=f"{most} never trains on {never[most]:.1f}%" if never[most] else
        "Every sample is trained on",
        x="samples, most trained first (%)",
        y="times trained on",
        text="Times each sample was trained on, by rank.",
    )  # fmt: skip


def flagged_share(data: Records, *, flag: str = "noisy", ax: "Axes | None" = None) -> "Axes":
    """Does a method pick wrong labels, or ambiguous samples? Their share of the batches.

    - ``data``: records of data in which these samples are marked.
    - ``flag``: ``noisy`` or ``ambiguous``.
    """
    flag = known("flag", flag, FLAGS)
    column = f"{flag}_share"
    found = _runs(data, selection, [column, "trained"])
    bases = {100 * frame.attrs[f"{flag}_base"] for frame in found.values()}
    if len(bases) > 1:
        raise InputError(
            f"{FLAGS[flag]} are {min(bases):.3g}% of the data of one run and {max(bases):.3g}% of "
            "that of another: give runs on data of one kind, or noisy_picks"
        )
    base = bases.pop()
    # Of all places in batches: epochs may differ in size.
    means = {name: 100 * (frame[column] * frame["trained"]).sum() / max(frame["trained"].sum(), 1)
             for name, frame in found.items()}  # fmt: skip
    frame, x = _in_spans(pd.concat(f.assign(run=name) for name, f in found.items()), column)
    curves = {name: Curve(f["epoch"], 100 * f[column])
              for name, f in frame.groupby("run", sort=False)}  # fmt: skip
    most = style.most_extreme(means, base)
    what = style.capitalise(FLAGS[flag])
    return _chart(
        curves, {name: f"{mean:.1f}% on average" for name, mean in means.items()}, ax=ax,
        level=base,
        title=f"{most} picks {means[most]:.1f}%, against {base:.1f}% in the data",
        x=x,
        y=f"{FLAGS[flag]} in the batches (%)",
        text=f"{what}, as a share of the batches; they are {base:.1f}% of the data.",
    )  # fmt: skip


def _in_spans(frame: pd.DataFrame, value: str) -> tuple[pd.DataFrame, str]:
    """Average a column over at most ``POINTS`` stretches of epochs; also return the axis title."""
    span = style.spans(frame["epoch"], POINTS).rename("span")
    keys = [name for name in ("run", "condition", "method", "seed") if name in frame]
    means = frame.groupby([*keys, span], sort=False)[["epoch", value]].mean().reset_index()
    most = int(frame["epoch"].groupby(span).nunique().max())
    return means, "epoch" if most == 1 else f"epoch (means of {most})"


def noisy_picks(data: Records | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Which condition trains on wrong labels, and when? Mean over seeds, ± standard deviation.

    ``data``: records of runs with label noise, or a frame from
    :func:`budgetlab.analysis.noisy_picks`.
    """
    frame = style.frame_of(data, lambda runs: _by_condition(runs, find_noisy_picks),
                           ["method", "seed", "epoch", "times_base"])  # fmt: skip
    if "condition" not in frame:
        keys = [n for n in ("method", "noise_kind", "label_noise", "budget") if n in frame]
        frame = frame.assign(condition=labels(frame, keys))
    of = frame.groupby("condition", sort=False)["method"].first()
    frame, x = _in_spans(frame, "times_base")
    curves = style.averaged(frame.round({"epoch": 9}), "condition", "epoch", "times_base")
    curves = {n: curves[n] for method in method_order(of) for n in of.index[of == method]}
    ends = {name: curve.y.iloc[-1] for name, curve in curves.items()}
    most = style.most_extreme(ends)
    return _chart(
        curves, {name: f"ends at {end:.2f}" for name, end in ends.items()}, ax=ax, level=1,
        title=f"{most} ends at {ends[most]:.2f} times their share",
        x=x,
        y="wrong labels in the batches, times their share",
        text="How often samples with a wrong label are in the batches; 1 is their share of the "
        "data.",
    )  # fmt: skip


def picks_by(
    data: Records, column: str = "difficulty", *, groups: int = 10, ax: "Axes | None" = None
) -> "Axes":
    """Does a method train on hard samples? How often each tenth of the samples is picked.

    Runs that differ only in the seed are averaged; error bars show their standard deviation.

    - ``data``: records of data with this column.
    - ``column``: a known property of each sample, such as ``difficulty``.
    - ``groups``: number of groups of equal size, from the lowest values to the highest.
    """
    frame = _by_condition(data, lambda run: find_picks(run, column, groups=groups))
    curves, said, ratios = style.averaged(frame, "condition", "group", "picked"), {}, {"": 1.0}
    for place, (name, (x, y, *rest)) in enumerate(curves.items()):
        # Side by side and not joined: there is nothing between two groups to interpolate.
        curves[name] = Curve(x + 0.12 * (place - (len(curves) - 1) / 2), y, *rest)
        first, last = y.iloc[0], y.iloc[-1]
        said[name] = f"{first:.2f} in the first group, {last:.2f} in the last"
        if first:
            ratios[name] = last / first
    most, what = style.most_extreme(ratios), style.axis_name(column)
    return _chart(
        curves, said, ax=ax, level=1, bars=True,
        title=most and f"{most}: the last group {ratios[most]:.2g} times as often as the first",
        x=f"groups of equal size, by {what}",
        y="times trained, times that of a uniform draw",
        text=f"How often each of {groups} groups of samples, by {what}, is trained on; 1 is a "
        "uniform draw.",
    )  # fmt: skip


def coverage(
    data: Records | pd.DataFrame, *, budget: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """How much of the training set has been trained on? Share seen so far, by epoch.

    Runs that differ only in the seed are averaged.

    - ``data``: records, or a frame as returned by :func:`budgetlab.analysis.selection`.
    - ``budget``: if given, add the coverage expected of a fresh uniform draw of this share in every
      epoch: ``1 - (1 - budget)^epoch``.
    """
    frame = style.frame_of(data, lambda runs: _by_condition(runs, selection),
                           ["epoch", "coverage"])  # fmt: skip
    frame = frame.assign(percent=100 * frame["coverage"],
                         condition=frame.get("condition", "this run"))  # fmt: skip
    curves = style.averaged(frame, "condition", "epoch", "percent")
    ends = {name: (curve.y.iloc[0], curve.y.iloc[-1]) for name, curve in curves.items()}
    ax = style.axes(ax)
    if budget is not None:
        epochs = np.arange(1, frame["epoch"].max() + 1)
        ax.plot(epochs, 100 * (1 - (1 - budget) ** epochs), color=style.INK, linewidth=1,
                linestyle=":", label="expected of a uniform draw")  # fmt: skip
    fewest = min(ends, key=lambda name: ends[name][1])
    said = {name: f"{first:.4g}% after the first epoch, {last:.4g}% at the end"
            for name, (first, last) in ends.items()}  # fmt: skip
    return _chart(
        curves, said, ax=ax,
        title=f"{fewest} has seen {ends[fewest][1]:.4g}% at the end",
        x="epoch",
        y="training samples seen at least once (%)",
        text="Share of the training samples seen so far.",
    )  # fmt: skip


def detection_curve(
    data: OneRecord | pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Which measure finds the wrong labels? Precision over recall.

    - ``data``: a record of a run with label noise, or a frame from
      :func:`budgetlab.analysis.detection_curve`.
    - ``names``: measures; by default all measures of difficulty. The seven with the highest average
      precision are drawn; the alt text lists all.
    """
    frame = style.frame_of(data, lambda run: find_curve(run, names),
                           ["measure", "precision", "recall"])  # fmt: skip
    areas, base = frame.attrs.get("average_precision", {}), frame.attrs.get("base")
    order = sorted(frame["measure"].unique(), key=lambda name: -areas.get(name, 0))
    ax, parts = style.axes(ax), dict(list(frame.groupby("measure")))
    notes = {name: f"{areas[name]:.2f}" for name in order if name in areas}
    curves = {name.replace("_", " "): Curve(parts[name]["recall"], parts[name]["precision"],
                                            notes.get(name, ""))
              for name in order[:MOST_MEASURES]}  # fmt: skip
    style.draw(ax, curves, marker=None)
    if base is not None:
        style.rule(ax, base, "guessing")
    ax.set_ylim(0, 1.03)
    said = "; ".join(f"{name} {area}" for name, area in notes.items())
    first = next(iter(notes), "")
    guess = f" Guessing gives {base:.2f}." if base is not None else ""
    return style.finish(
        ax,
        title=first and f"{first.replace('_', ' ')} finds most: average precision {notes[first]}",
        x="recall: share of the wrong labels that is in the list",
        y="precision: share of the list that is wrong",
        text=f"Precision over recall of lists of suspects. Average precision: {said}.{guess}",
    )


def credit_calibration(
    data: Records,
    *,
    reference: OneRecord | None = None,
    bins: int = 10,
    ax: "Axes | None" = None,
) -> "Axes":
    """Does the probability credited to a sample mean anything under mixing?

    With a reference, samples are grouped by their probability in the reference run and
    plotted against the probability credited under mixing: a rising line means that the credit
    reaches its sample (:func:`budgetlab.analysis.credit_by_reference`). Without one, the
    credited probability is plotted against how often its label won
    (:func:`budgetlab.analysis.calibration`): calibration of the network, not of the credit.

    - ``data``: records, such as one run per credit rule.
    - ``reference``: a run on the same data without mixing.
    - ``bins``: number of groups of samples, or of probability bins.
    """
    runs, ax = style.by_method(data), style.axes(ax)
    curves, said, found = {}, {}, {}
    for name, run in zip(style.run_names(runs), runs, strict=True):
        if "credit" not in name:
            name = f"{name} (credit {run.config.get('credit', '')})"
        if reference is None:
            frame = calibration(run, bins)
            curves[name] = Curve(frame["p_y"], frame["right"])
            off = (frame["right"] - frame["p_y"]).abs()
            found[name] = -float(np.average(off, weights=frame["visits"]))
            said[name] = f"{-found[name]:.3f} apart"
        else:
            frame = credit_by_reference(run, reference, bins)
            curves[name] = Curve(frame["reference"], frame["credited"])
            found[name] = frame.attrs["spearman"]
            said[name] = f"Spearman correlation {found[name]:.2f}"
    best = max(found, key=lambda name: found[name])
    if reference is None:
        ax.plot([0, 1], [0, 1], color=style.INK, linewidth=1, linestyle=":", label="as credited")
        x, y = "probability credited to the sample", "share of visits where its label won"
        title = f"{best} is {-100 * found[best]:.0f} points from what it credits"
    else:
        x = "mean probability of the label in the run without mixing"
        y = "mean probability credited under mixing"
        title = f"{best} finds its sample best: correlation {found[best]:.2f}"
    known = len(found) > 1 and np.isfinite(list(found.values())).all()
    return _chart(curves, said, title=title if known else "", x=x, y=y, ax=ax,
                  text=f"{y} against {x}.")  # fmt: skip
