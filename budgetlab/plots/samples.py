"""What happened to the samples: losses, probabilities, who was picked, one life."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis import label, one_epoch, quantiles, ranked_counts, summaries, varying
from budgetlab.analysis import sample_life as find_life
from budgetlab.analysis.conditions import condition_columns, method_order, require
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.records import Record, Records, open_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["by_method", "histogram", "loss_distribution", "probability_vs_loss", "ranked",
           "ranked_picks", "run_names", "sample_life", "sampling_probability"]  # fmt: skip

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def loss_distribution(data: Record | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """How do the losses spread as training goes on? Quantile fan over the epochs.

    Parameters
    ----------
    data
        A record, or a frame as from :func:`budgetlab.analysis.quantiles` of ``loss``.
    """
    frame = quantiles(data, "loss", LEVELS) if isinstance(data, Record) else data
    ax = style.axes(ax)
    _fan(ax, frame, style.COLOURS[0])
    first, last = frame.iloc[0], frame.iloc[-1]
    return style.finish(
        ax,
        title=f"The median loss goes from {first[0.5]:.3g} to {last[0.5]:.3g}",
        x="epoch",
        y="loss of the samples trained on (nats)",
        legend=True,
        text=f"Losses over {len(frame)} epochs as quantiles. The median goes from "
        f"{first[0.5]:.3g} to {last[0.5]:.3g}, the highest twentieth from above "
        f"{first[0.95]:.3g} to above {last[0.95]:.3g}.",
    )


def sampling_probability(data: Record | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """How far from uniform does a method draw? Quantile fan over the epochs.

    A distribution over samples is shown times their number, so that 1 is uniform; the
    chance of being kept, which filter methods have, is shown as it is.

    Parameters
    ----------
    data
        A record, or a frame as from :func:`budgetlab.analysis.quantiles` of
        ``probability``; its column ``kind`` says what the probability is of.
    """
    frame = quantiles(data, "probability", LEVELS) if isinstance(data, Record) else data
    keeps = _keeps(frame)
    ax = style.axes(ax)
    if frame.empty:
        text = "This method draws by no probabilities."
        ax.text(0.5, 0.5, text, ha="center", transform=ax.transAxes, color=style.INK)
        return style.finish(ax, x="epoch", text=text)
    scaled = frame.copy()
    if not keeps:
        scaled[list(LEVELS)] = frame[list(LEVELS)].mul(frame["n"], axis=0)
        ax.axhline(1, color=style.INK, linewidth=1, linestyle=":", label="uniform")
    _fan(ax, scaled, style.COLOURS[2])
    last = scaled.iloc[-1]
    unit = "" if keeps else " times the uniform one"
    return style.finish(
        ax,
        title=f"Nine in ten end between {last[0.05]:.3g} and {last[0.95]:.3g}{unit}",
        x="epoch",
        y="chance of being kept" if keeps else "probability, times that of a uniform draw",
        legend=True,
        text=f"Sampling probabilities over {len(frame)} epochs as quantiles. In the last epoch "
        f"nine in ten samples lie between {last[0.05]:.3g} and {last[0.95]:.3g}{unit}.",
    )


def _keeps(frame: pd.DataFrame) -> bool:
    """A chance of being kept is shown as it is; one of a draw, times the number of samples."""
    return "kind" in frame and (frame["kind"] == "keep").any()


def _fan(ax: "Axes", frame: pd.DataFrame, colour: str) -> None:
    require(frame, LEVELS, "a frame of quantiles")
    x = frame.index.to_numpy()
    ax.fill_between(x, frame[0.05], frame[0.95], color=colour, alpha=0.15, linewidth=0,
                    label="nine in ten")  # fmt: skip
    ax.fill_between(x, frame[0.25], frame[0.75], color=colour, alpha=0.35, linewidth=0,
                    label="middle half")  # fmt: skip
    marker = "o" if len(x) < 3 else None
    ax.plot(x, frame[0.5], color=colour, label="median", marker=marker)


def probability_vs_loss(
    data: Record | pd.DataFrame, *, epoch: int = -1, ax: "Axes | None" = None
) -> "Axes":
    """Does the method draw what it has not learned? Probability against last known loss.

    Parameters
    ----------
    data
        A record, or a frame as from :func:`budgetlab.analysis.one_epoch`.
    epoch
        From 1; -1 is the last.
    """
    frame = one_epoch(data, epoch) if isinstance(data, Record) else data
    keeps = _keeps(frame)
    require(frame, ["last_loss", "probability", "times_trained"], "a frame of one epoch")
    number = int(frame["epoch"].iloc[0]) if "epoch" in frame and len(frame) else epoch
    factor = 1 if keeps else int(frame["probability"].notna().sum())
    known = frame.dropna(subset=["last_loss", "probability"])
    ax = style.axes(ax)
    trained = known["times_trained"] > 0
    for part, marker, colour, name in (
        (known[~trained], "x", style.COLOURS[6], "not trained on"),
        (known[trained], "o", style.COLOURS[1], "trained on"),
    ):
        ax.scatter(part["last_loss"], factor * part["probability"], marker=marker, color=colour,
                   linewidths=0.8, label=name, **style.scatter_kws(len(known)))  # fmt: skip
    rho = known[["last_loss", "probability"]].rank().corr().iloc[0, 1] if len(known) > 2 else np.nan
    relation = f"Spearman correlation {rho:.2f}" if pd.notna(rho) else "No correlation can be had"
    return style.finish(
        ax,
        title=relation if pd.notna(rho) else "",
        x=f"loss at the last visit before epoch {number} (nats)",
        y="chance of being kept" if keeps else "probability, times that of a uniform draw",
        legend=True,
        text=f"Sampling probability in epoch {number} against the loss known before it, "
        f"{len(known):,} samples seen so far. {relation}.",
    )


def ranked_picks(data: Records | pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Does a method return to a few samples? Times trained, most trained first.

    Parameters
    ----------
    data
        Records, or one frame as from :func:`budgetlab.analysis.ranked_counts`.
    """
    if isinstance(data, pd.DataFrame):
        curves = {"this run": data}
    else:
        runs = by_method(data)
        curves = dict(zip(run_names(runs), map(ranked_counts, runs), strict=True))
    ax = style.axes(ax)
    drawn = style.looks(list(curves))
    said, never = [], {}
    for name, frame in curves.items():
        require(frame, ["rank", "times_trained"], "a frame of ranked counts")
        counts, look = frame["times_trained"], drawn[name]
        share = (frame["rank"] - 0.5) / len(frame)
        style.line(ax, 100 * share, counts, look, name)
        never[name] = 100 * (counts == 0).mean()
        said.append(f"{name}: most trained {counts.max()} times, median {counts.median():g}, "
                    f"never {never[name]:.1f}%")  # fmt: skip
    most = style.furthest(never, 0.0)
    return style.finish(
        ax,
        title=style.literal(f"{style.capital(most)} never trains on {never[most]:.1f}%"),
        x="samples, most trained first (%)",
        y="times trained on",
        legend=True,
        text=f"Times each sample was trained on, by rank. {'; '.join(said)}.",
    )


def by_method(records: Records) -> list[Record]:
    """Open records, in the order in which every figure shows methods."""
    runs = open_records(records)
    order = method_order(run.config["method"] for run in runs)
    return sorted(runs, key=lambda run: order.index(run.config["method"]))


def run_names(records: Sequence[Record]) -> list[str]:
    """Short names of runs: their method, and what else tells them apart."""
    frame = summaries(records)
    keys = varying(frame, [*condition_columns(frame), "seed"])
    shown = ["method", *(name for name in keys if name != "method")]
    names = [label(row, shown) for row in frame.to_dict("records")]
    again = pd.Series(names).duplicated(keep=False)
    return [
        f"{n}, {r.path.name}" if a else n for n, r, a in zip(names, records, again, strict=True)
    ]


def sample_life(
    data: Record | pd.DataFrame,
    sample: int | None = None,
    *,
    image: np.ndarray | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """What happened to one sample? Its probability under the model at every visit.

    Parameters
    ----------
    data
        A record, or a frame as from :func:`budgetlab.analysis.sample_life`.
    sample
        Its number; needed with a record.
    image
        ``uint8 [H, W, C]``, shown in the corner; by default the record's own thumbnail
        where it kept one.
    """
    if isinstance(data, Record):
        if sample is None:
            raise InputError("sample is missing: give the number of a sample, from 0")
        frame = find_life(data, sample)
        image = data.thumbnails.get(sample) if image is None else image
    else:
        frame = data
    require(frame, ["epoch", "p_y", "correct", "times_trained"], "a frame of one sample")
    ax = style.axes(ax)
    visits = frame[frame["correct"] >= 0]
    ax.plot(visits["epoch"], visits["p_y"], color=style.FAINT, linewidth=1.5, zorder=1)
    for right, marker, colour, name in (
        (1, "o", style.COLOURS[0], "right"),
        (0, "X", style.COLOURS[1], "wrong"),
    ):
        part = visits[visits["correct"] == right]
        ax.scatter(part["epoch"], part["p_y"], marker=marker, color=colour, s=36,
                   label=f"{name} ({len(part)} visits)", zorder=2)  # fmt: skip
    ax.set_ylim(-0.04, 1.04)
    ax.set_xlim(frame["epoch"].min() - 0.5, frame["epoch"].max() + 0.5)
    if image is not None:
        inset = ax.inset_axes((1.02, 0.7, 0.28, 0.3))
        inset.imshow(image, cmap="gray", interpolation="nearest")
        inset.axis("off")
    who = "this sample" if sample is None else f"sample {sample}"
    return style.finish(
        ax,
        x="epoch",
        y="probability of its label",
        legend=True,
        text=f"The life of {who}: trained on {int(frame['times_trained'].sum())} times in "
        f"{len(frame)} epochs, classified right at {int((visits['correct'] == 1).sum())} of "
        f"{len(visits)} visits.",
    )


def ranked(
    values: np.ndarray, *, y: str, colour: str = style.COLOURS[2], ax: "Axes | None" = None
) -> "Axes":
    """How uneven are they? One value a sample ``[N]``, highest first."""
    ax = style.axes(ax)
    falling = np.sort(values)[::-1]
    # The curve needs no more points than a picture has.
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
    """How do they spread? One value a sample ``[N]``, at least 0, in forty bars.

    A few extreme values, which would squeeze all others into one bar, join the last one.
    ``weights`` ``[N]``, between 0 and 1, add the part of each bar that they leave; the axis goes
    at least to ``least``.
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
    return style.finish(ax, x=x, y="samples", legend=weights is not None, text=text)
