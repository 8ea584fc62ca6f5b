"""Which samples are chosen: the same, the hard ones, wrong labels, all of them?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis import detection_curve as find_curve
from budgetlab.analysis import label, run_agreement, selection, summaries, varying
from budgetlab.analysis import noisy_picks as find_noisy_picks
from budgetlab.analysis import picks_by as find_picks
from budgetlab.analysis.conditions import condition_columns, method_order, require
from budgetlab.errors import InputError, unknown
from budgetlab.plots import style
from budgetlab.plots.samples import by_method, run_names
from budgetlab.records import Record, Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["agreement_matrix", "coverage", "detection_curve", "flagged_share", "noisy_picks",
           "picks_by"]  # fmt: skip

FLAGS = {"noisy": "samples with a wrong label", "ambiguous": "ambiguous samples"}

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
    """
    if value not in VALUES:
        raise unknown("value", value, VALUES)
    if isinstance(data, pd.DataFrame):
        frame = data
    else:
        runs = by_method(data)
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
    known = frame[value].dropna()
    title = f"From {known.min():.2f} to {known.max():.2f}" if len(known) else ""
    style.finish(ax, title=title, text=_in_words(frame, value))
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
    """
    runs = by_method(data)
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


def flagged_share(data: Records, *, flag: str = "noisy", ax: "Axes | None" = None) -> "Axes":
    """Does a method pick wrong labels, or ambiguous samples? Their share of the batches.

    Parameters
    ----------
    data
        Records whose data say which samples these are.
    flag
        ``noisy`` or ``ambiguous``.
    """
    if flag not in FLAGS:
        raise InputError(f"unknown flag '{flag}': choose one of {', '.join(FLAGS)}")
    runs = by_method(data)
    found = dict(zip(run_names(runs), map(selection, runs), strict=True))
    ax = style.axes(ax)
    drawn, said, base, means = style.looks(list(found)), [], 0.0, {}
    for name, frame in found.items():
        require(frame, [f"{flag}_share"], f"the selection of {name}")
        look, share = drawn[name], 100 * frame[f"{flag}_share"]
        style.line(ax, frame["epoch"], share, look, name)
        base = 100 * frame.attrs[f"{flag}_base"]
        means[name] = share.mean()
        said.append(f"{name}: {share.mean():.1f}% on average")
    ax.axhline(base, color=style.INK, linewidth=1)
    most = style.furthest(means, base)
    return style.finish(
        ax,
        title=style.literal(
            f"{style.capital(most)} picks {means[most]:.1f}%, where {base:.1f}% are"
        ),
        x="epoch",
        y=f"{FLAGS[flag]}, share of the batches (%)",
        legend=True,
        text=f"{FLAGS[flag].capitalize()}, as a share of the batches; {base:.1f}% of the data "
        f"are. {'; '.join(said)}.",
    )


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
    """
    frame = data if isinstance(data, pd.DataFrame) else find_curve(data, names)
    require(frame, ["measure", "precision", "recall"], "a frame of precision and recall")
    areas = frame.attrs.get("average_precision", {})
    ax = style.axes(ax)
    order = sorted(frame["measure"].unique(), key=lambda name: -areas.get(name, 0))
    for name, look in style.looks(order).items():
        part = frame[frame["measure"] == name]
        shown = f"{name} ({areas[name]:.2f})" if name in areas else name
        style.line(ax, part["recall"], part["precision"], look, shown, changes={"marker": None})
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
    """
    frame = data if isinstance(data, pd.DataFrame) else find_noisy_picks(data)
    require(frame, ["method", "epoch", "times_base"], "a frame of noisy picks")
    grouped = frame.groupby(["method", "epoch"], sort=False)["times_base"]
    table = grouped.agg(["mean", "std", "count"]).reset_index()
    ax = style.axes(ax)
    said, ends = [], {}
    for name, look in style.looks(method_order(table["method"])).items():
        part = table[table["method"] == name]
        n = int(part["count"].max())
        band = (part["mean"] - part["std"], part["mean"] + part["std"]) if n > 1 else None
        style.line(ax, part["epoch"], part["mean"], look, f"{name} (n = {n})", band)
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
    """
    found = {"this run": data} if isinstance(data, pd.DataFrame) else _coverage_by_condition(data)
    ax, drawn, said, ends = style.axes(ax), style.looks(list(found)), [], {}
    for name, frame in found.items():
        require(frame, ["epoch", "coverage"], f"the selection of {name}")
        look, share = drawn[name], 100 * frame["coverage"].to_numpy()
        style.line(ax, frame["epoch"], share, look, name)
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
    runs = by_method(data)
    about = summaries(runs)
    shown = varying(about, condition_columns(about)) or ["method"]
    parts: dict[str, list[pd.DataFrame]] = {}
    for row, run in zip(about.to_dict("records"), runs, strict=True):
        parts.setdefault(label(row, shown), []).append(selection(run)[["epoch", "coverage"]])
    return {
        name: pd.concat(frames).groupby("epoch", as_index=False).mean()
        for name, frames in parts.items()
    }
