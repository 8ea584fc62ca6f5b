"""Plots of per-sample records: losses, sampling probabilities, measures, one sample's history."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.analysis import measures, one_epoch, quantiles
from budgetlab.analysis import sample_life as find_life
from budgetlab.analysis.conditions import require
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.records import OneRecord, open_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
KEPT, DRAWN = "chance of being kept", "probability, times that of a uniform draw"


def loss_distribution(
    data: OneRecord | pd.DataFrame,
    *,
    look: style.LineStyle | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """How does the loss distribution change over training? Quantile fan over the epochs.

    - ``data``: a record, or a frame as returned by :func:`budgetlab.analysis.quantiles` of
      ``loss``.
    - ``look``: gives the colour; by default the method of a record does.
    """
    frame, colour = _quantiles(data, "loss", look)
    ax = style.axes(ax)
    if frame.empty:
        return style.empty(ax, "No epoch was trained yet.")
    _fan(ax, frame, colour)
    first, last = frame.iloc[0], frame.iloc[-1]
    return style.finish(
        ax,
        title=f"The median loss goes from {first[0.5]:.3g} to {last[0.5]:.3g}",
        x="epoch",
        y="loss of the samples trained on (nats)",
        text=f"Losses over {len(frame)} epochs as quantiles. The median goes from "
        f"{first[0.5]:.3g} to {last[0.5]:.3g}, the highest twentieth from above "
        f"{first[0.95]:.3g} to above {last[0.95]:.3g}.",
    )


def sampling_probability(
    data: OneRecord | pd.DataFrame,
    *,
    look: style.LineStyle | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """How far from uniform does a method draw? Quantile fan over the epochs.

    Sampling probabilities are multiplied by the number of samples, so that 1 is uniform;
    the chance of being kept, for filter methods, is shown as it is.

    - ``data``: a record, or a frame as returned by :func:`budgetlab.analysis.quantiles` of
      ``probability``; its column ``kind`` tells the two apart.
    - ``look``: gives the colour; by default the method of a record does.
    """
    frame, colour = _quantiles(data, "probability", look)
    ax = style.axes(ax)
    if frame.empty:
        return style.empty(ax, "This method uses no probabilities.")
    keeps, scaled = _keeps(frame), frame.copy()
    if not keeps:
        scaled[list(LEVELS)] = frame[list(LEVELS)].mul(frame["n"], axis=0)
        style.rule(ax, 1, "uniform")
    _fan(ax, scaled, colour)
    last, unit = scaled.iloc[-1], "" if keeps else " times the uniform one"
    return style.finish(
        ax,
        title=f"Nine in ten end between {last[0.05]:.3g} and {last[0.95]:.3g}{unit}",
        x="epoch",
        y=KEPT if keeps else DRAWN,
        text=f"Sampling probabilities over {len(frame)} epochs as quantiles. In the last epoch "
        f"nine in ten samples lie between {last[0.05]:.3g} and {last[0.95]:.3g}{unit}.",
    )


def _quantiles(
    data: OneRecord | pd.DataFrame, array: str, look: style.LineStyle | None
) -> tuple[pd.DataFrame, str]:
    """Return the quantiles of a fan, and its colour."""
    if not isinstance(data, pd.DataFrame):
        data = open_record(data)
        look = look or style.looks([data.config["method"]])[data.config["method"]]
    frame = style.frame_of(data, lambda run: quantiles(run, array, LEVELS), LEVELS)
    return frame, look.colour if look else style.COLOURS[0]


def _keeps(frame: pd.DataFrame) -> bool:
    """Whether the probabilities are chances of being kept, not sampling probabilities."""
    return "kind" in frame and (frame["kind"] == "keep").any()


def _fan(ax: "Axes", frame: pd.DataFrame, colour: str) -> None:
    x = frame.index.to_numpy()
    for low, high, alpha, name in ((0.05, 0.95, 0.15, "nine in ten"),
                                   (0.25, 0.75, 0.35, "middle half")):  # fmt: skip
        ax.fill_between(x, frame[low], frame[high], color=colour, alpha=alpha, linewidth=0,
                        label=name)  # fmt: skip
    ax.plot(x, frame[0.5], color=colour, label="median", marker="o" if len(x) < 3 else None)


def _scatter(ax: "Axes", parts: Mapping[str, tuple[Any, Any, str, str]]) -> None:
    """Scatter groups ``(x, y, marker, colour)`` by name; more points are smaller and fainter."""
    count = max(1, sum(len(x) for x, *_ in parts.values()))
    for name, (x, y, marker, colour) in parts.items():
        if len(x):
            ax.scatter(x, y, marker=marker, color=colour, label=name or None, linewidths=0.9,
                       rasterized=True, s=min(14.0, max(2.0, 14_000 / count)),
                       alpha=min(0.6, max(0.15, 600 / count)))  # fmt: skip


def probability_vs_loss(
    data: OneRecord | pd.DataFrame, *, epoch: int = -1, ax: "Axes | None" = None
) -> "Axes":
    """Does the method draw what it has not learned? Probability against last known loss.

    - ``data``: a record, or a frame as returned by :func:`budgetlab.analysis.one_epoch`.
    - ``epoch``: epoch, from 1; -1 is the last.
    """
    frame = style.frame_of(data, lambda run: one_epoch(run, epoch),
                           ["last_loss", "probability", "times_trained"])  # fmt: skip
    number = int(frame["epoch"].iloc[0]) if "epoch" in frame and len(frame) else epoch
    keeps = _keeps(frame)
    known = frame.dropna(subset=["last_loss", "probability"])
    x, y = known["last_loss"], known["probability"]
    shown = y if keeps else y * frame["probability"].notna().sum()
    trained = known["times_trained"] > 0
    ax = style.axes(ax)
    _scatter(ax, {
        "not trained on": (x[~trained], shown[~trained], "x", style.COLOURS[6]),
        "trained on": (x[trained], shown[trained], "o", style.COLOURS[1]),
    })  # fmt: skip
    relation = style.correlation(x, y)
    return style.finish(
        ax,
        title=relation,
        x=f"loss at the last visit before epoch {number} (nats)",
        y=KEPT if keeps else DRAWN,
        text=f"Sampling probability in epoch {number} against the loss known before it, "
        f"{len(known):,} samples seen so far. {relation or 'No correlation is defined'}.",
    )


def measure_vs_measure(
    data: OneRecord | pd.DataFrame,
    x: str = "confidence",
    y: str = "variability",
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Do two measures agree? One point per sample, with both marginal histograms.

    The defaults, ``variability`` against ``confidence``, give the data map of Swayamdipta et
    al. (2020). Samples known to have a wrong label are marked.

    - ``data``: a record, or a frame as returned by :func:`budgetlab.analysis.measures`.
    - ``x``, ``y``: two of its columns. Samples without a finite value in both are not drawn; their
      number is given below the axis.
    """
    frame = style.frame_of(data, measures, [x, y])
    finite = np.isfinite(frame[[x, y]].astype(float)).all(axis=1)
    shown, hidden = frame[finite], int((~finite).sum())
    ax = style.axes(ax, (6.0, 5.0))
    truth = shown.get("is_noisy", pd.Series(False, shown.index))
    noisy = truth.fillna(False).astype(bool)
    others = "label as it should be" if truth.notna().all() else "label not known to be wrong"
    right, wrong = shown[~noisy], shown[noisy]
    _scatter(ax, {
        others if noisy.any() else "": (right[x], right[y], "o", style.COLOURS[0]),
        "label made wrong": (wrong[x], wrong[y], "x", style.COLOURS[1]),
    })  # fmt: skip
    _marginals(ax, shown[x].to_numpy(float), shown[y].to_numpy(float))
    relation = style.correlation(shown[x], shown[y])
    left_out = f", {hidden:,} without a finite value not drawn" if hidden else ""
    style.finish(
        ax,
        x=style.axis_name(x) + (f"\n({hidden:,} samples have no finite value)" if hidden else ""),
        y=style.axis_name(y),
        text=f"{style.axis_name(y)} against {style.axis_name(x)}, one point per sample: "
        f"{len(shown):,} samples{left_out}; {relation or 'no correlation is defined'}.",
    )
    style.set_title(ax, relation, y=1.17)  # above the histogram that lies above the axes
    return ax


def _marginals(ax: "Axes", x: np.ndarray, y: np.ndarray) -> None:
    """Add histograms along the upper and right edge, outside the axes."""
    top, right = ax.inset_axes((0, 1.02, 1, 0.14)), ax.inset_axes((1.02, 0, 0.14, 1))
    if len(x):
        top.hist(x, bins=40, color=style.COLOURS[6])
        right.hist(y, bins=40, color=style.COLOURS[6], orientation="horizontal")
    top.set_xlim(ax.get_xlim())
    right.set_ylim(ax.get_ylim())
    for side in (top, right):
        side.axis("off")


def sample_life(
    data: OneRecord | pd.DataFrame,
    sample: int | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """What happened to one sample? Its probability under the model at every visit.

    - ``data``: a record, or a frame as returned by :func:`budgetlab.analysis.sample_life`.
    - ``sample``: sample number; required with a record, whose thumbnail is shown if there is one.
    """
    if isinstance(data, pd.DataFrame):
        frame, image = data, None
    else:
        if sample is None:
            raise InputError("sample is missing: give the number of a sample, from 0")
        record = open_record(data)
        frame = find_life(record, sample)
        image = record.thumbnails.get(sample)
    require(frame, ["epoch", "p_y", "correct", "times_trained"], "a frame of one sample")
    ax = style.axes(ax)
    visits = frame[frame["correct"] >= 0]
    ax.plot(visits["epoch"], visits["p_y"], color=style.FAINT, linewidth=1.5, zorder=1)
    for right, marker, colour, name in ((1, "o", style.COLOURS[0], "right"),
                                        (0, "X", style.COLOURS[1], "wrong")):  # fmt: skip
        part = visits[visits["correct"] == right]
        ax.scatter(part["epoch"], part["p_y"], marker=marker, color=colour, s=36,
                   label=f"{name} ({len(part)} visits)", zorder=2)  # fmt: skip
    ax.set_ylim(-0.04, 1.04)
    ax.set_xlim(frame["epoch"].min() - 0.5, frame["epoch"].max() + 0.5)
    if image is not None:
        inset = ax.inset_axes((1.02, 0.5, 0.28, 0.3))  # below the legend
        inset.imshow(image, cmap="gray", interpolation="nearest")
        inset.axis("off")
    which = "this sample" if sample is None else f"sample {sample}"
    right = int((visits["correct"] == 1).sum())
    return style.finish(
        ax,
        title=f"Classified right at {right} of {len(visits)} visits",
        x="epoch",
        y="probability of its label",
        text=f"The life of {which}: trained on {int(frame['times_trained'].sum())} times in "
        f"{len(frame)} epochs, classified right at {right} of "
        f"{len(visits)} visits.",
    )


def ranked(
    values: np.ndarray, *, y: str, colour: str = style.COLOURS[2], ax: "Axes | None" = None
) -> "Axes":
    """How uneven are they? One value per sample ``[N]``, highest first."""
    ax = style.axes(ax)
    falling = np.sort(values)[::-1]
    # The curve needs no more points than a plot has pixels.
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), 400)).round().astype(int))
    ax.plot(100 * (places + 0.5) / len(values), falling[places], color=colour, linewidth=2)
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 1.05 * max(1.0, float(falling[0])))
    text = f"{y} of {len(values):,} samples, from {falling[-1]:.3g} to {falling[0]:.3g}."
    return style.finish(ax, x="samples, highest first (%)", y=y, text=text)


def histogram(
    values: np.ndarray,
    *,
    x: str,
    weights: np.ndarray | None = None,
    least: float = 0.0,
    colour: str = style.COLOURS[0],
    ax: "Axes | None" = None,
) -> "Axes":
    """How are they distributed? One value per sample ``[N]``, at least 0, in forty bins.

    The highest 0.5% may join the last bin, so that outliers do not squeeze the rest.
    ``weights`` ``[N]``, between 0 and 1, add a second, weighted histogram; the axis extends at
    least to ``least``.
    """
    ax = style.axes(ax)
    values = np.asarray(values, float)  # a float32 at the top would lie above the last edge
    top = max(1.02 * float(np.quantile(values, 0.995)), least) or 1.0
    inside, edges = np.minimum(values, top), np.linspace(0, top, 41)
    counts, _ = np.histogram(inside, edges)
    if weights is None:
        ax.stairs(counts, edges, color=colour, fill=True, alpha=0.6)
    else:
        ax.stairs(counts, edges, color=style.INK, linewidth=1.5, label="all seen")
        ax.stairs(np.histogram(inside, edges, weights=weights)[0], edges, color=colour, fill=True,
                  alpha=0.35, label="expected draw")  # fmt: skip
    ax.set_xlim(0, top)
    ax.set_ylim(0, (1.05 if weights is None else 1.35) * max(1, counts.max()))
    text = f"{x} of {len(values):,} samples, median {np.median(values):.3g}."
    return style.finish(ax, x=x, y="samples", text=text)
