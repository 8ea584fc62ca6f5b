"""How good gradient estimates are: bias and variance, at one moment or over the training."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis.conditions import require
from budgetlab.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["gradient_errors", "gradient_quality"]

MEANING = {
    "possible_gain": "share of the possible reduction of variance",
    "variance_ratio": "variance, times that of uniform draws",
    "mse_ratio": "mean squared error, times that of uniform draws",
    "cosine": "cosine between mean estimate and full gradient",
}
SMALLEST = 1e-4


def gradient_errors(frame: pd.DataFrame, *, ax: "Axes | None" = None) -> "Axes":
    """Is the gradient right on average, and how noisy is it? One row an estimate.

    Squared bias and variance, both in units of the variance of uniform draws, on a
    logarithmic axis; a bias too small to be told from none is said in words at the left edge.

    Parameters
    ----------
    frame
        Rows of one moment, as from the functions of :class:`budgetlab.estimators.Moment`;
        several rows of one name (seeds) are averaged.
    """
    require(frame, ["name", "weights", "bias2", "variance", "variance_ratio"], "a frame of errors")
    unit = frame["variance"] / frame["variance_ratio"]
    table = frame.assign(bias=frame["bias2"] / unit, spread=frame["variance_ratio"])
    table = table.groupby(["name", "weights"], sort=False)[["bias", "spread"]].mean()
    ax = style.axes(ax, (7.0, 1.2 + 0.32 * len(table)))
    labels = [f"{name}, weighted" if w != "none" else name for name, w in table.index]
    places = range(len(table))
    none = (table["bias"] <= SMALLEST).to_numpy()
    start = np.where(none, table["spread"], table["bias"])
    ax.hlines(places, start, table["spread"], color=style.FAINT, linewidth=1)
    ax.plot(table["spread"], places, color=style.COLOURS[0], marker="o", linestyle="none",
            label="variance")  # fmt: skip
    if not none.all():
        ax.plot(table["bias"][~none], np.flatnonzero(~none), color=style.COLOURS[1], marker="s",
                linestyle="none", label="bias²")  # fmt: skip
    for place in np.flatnonzero(none):
        # Nothing, on a logarithmic axis, has no place of its own.
        ax.text(0.01, float(place), "no bias seen", transform=ax.get_yaxis_transform(), va="center",
                fontsize=8, color=style.INK)  # fmt: skip
    ax.axvline(1, color=style.INK, linewidth=1)
    ax.set_xscale("log")
    ax.set_yticks(list(places), [style.literal(label) for label in labels])
    ax.invert_yaxis()
    said = "; ".join(
        f"{label} {max(row.bias, 0):.2g} and {row.spread:.2g}"
        for label, row in zip(labels, table.itertuples(), strict=True)
    )
    least = labels[int(table["spread"].to_numpy().argmin())]
    return style.finish(
        ax,
        title=style.literal(
            f"{style.capital(least)}: {table['spread'].min():.2f} times the variance"
        ),
        x="times the variance of a uniform draw (logarithmic)",
        legend=True,
        text=f"Squared bias and variance of each gradient estimate: {said}.",
    )


def gradient_quality(
    frame: pd.DataFrame, value: str = "possible_gain", *, ax: "Axes | None" = None
) -> "Axes":
    """How does it change while training goes on? Mean over the seeds, ± deviation.

    Parameters
    ----------
    frame
        Rows of several moments, as from the functions of
        :class:`budgetlab.estimators.Moment`, put one below the other.
    value
        Column to draw over ``steps``, such as ``possible_gain`` or ``variance_ratio``.
    """
    require(frame, ["name", "steps", value], "a frame of errors over steps")
    shown = frame.dropna(subset=[value])
    grouped = shown.groupby(["name", "steps"], sort=False)[value]
    table = grouped.agg(["mean", "std", "count"]).reset_index()
    ax = style.axes(ax)
    said = []
    for name, look in style.looks(list(table["name"].unique())).items():
        part = table[table["name"] == name].sort_values("steps")
        n = int(part["count"].max())
        spread = part["std"].fillna(0)
        ax.errorbar(part["steps"], part["mean"], yerr=spread, color=look.colour,
                    linestyle=look.line, marker=look.marker, markersize=5, capsize=3,
                    label=style.literal(f"{name} (n = {n})"))  # fmt: skip
        first, last = part["mean"].iloc[0], part["mean"].iloc[-1]
        said.append(f"{name} goes from {first:.2f} to {last:.2f}")
    ends = {name: group.iloc[-1] for name, group in
            table.sort_values("steps").groupby("name", sort=False)["mean"]}  # fmt: skip
    most = style.furthest({name: end for name, end in ends.items() if name != "uniform"} or ends,
                          1.0 if value.endswith("ratio") else 0.0)  # fmt: skip
    return style.finish(
        ax,
        title=style.literal(f"{style.capital(most)} ends at {ends[most]:.2f}"),
        x="optimiser steps",
        y=MEANING.get(value, value.replace("_", " ")),
        legend=True,
        text=f"{MEANING.get(value, value)} over the training. {'; '.join(said)}.",
    )
