"""Plain sentences on differences."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from budgetlab.analysis.conditions import label

__all__ = ["amount", "sentence"]


def amount(value: float, metric: str, sign: bool = True) -> str:
    """Write a value, or a difference, in the unit that people use for it."""
    plus = "+" if sign else ""
    if metric.endswith("accuracy"):
        return f"{100 * value:{plus}.2f}"
    return f"{value:{plus}.4g}"


def sentence(
    row: Mapping[str, Any],
    metric: str = "test_accuracy",
    confidence: float = 0.95,
    alpha: float = 0.05,
    shown: Sequence[str] = (),
) -> str:
    """Say what one row of :func:`budgetlab.analysis.compare` allows to be said.

    Parameters
    ----------
    row
        ``method``, ``baseline``, ``pairs``, ``dropped``, ``difference``, ``ci_low``,
        ``ci_high``, ``p``, ``p_corrected``.
    metric
        What was compared. More accuracy is better, less of anything else.
    confidence
        Of the interval.
    alpha
        A difference is claimed where the corrected p is below it.
    shown
        Settings that tell the condition from others.
    """
    ours, baseline, pairs = row["method"], row["baseline"], row["pairs"]
    where = f" ({label(row, shown)})" if shown else ""
    if ours == baseline:
        return f"{ours}{where} is the baseline."
    if pairs == 0:
        return f"{ours}{where}: no run of {baseline} with the same settings and seed to pair with."
    unit = " points" if metric.endswith("accuracy") else f" in {metric.replace('_', ' ')}"
    size = f"{amount(row['difference'], metric)}{unit}"
    left_out = _left_out(row["dropped"])
    if pairs == 1:
        return (
            f"no difference can be claimed at n = 1: {ours}{where} against {baseline} is {size} "
            f"in a single pair, and one pair has no interval; train more seeds{left_out}."
        )
    if isnan(row["p"]):
        return (
            f"no difference can be claimed at n = {pairs}: {ours}{where} against {baseline} is "
            f"{size} in every pair, so that no spread can be estimated{left_out}."
        )
    interval = (
        f"{100 * confidence:g}% CI {amount(row['ci_low'], metric)} to "
        f"{amount(row['ci_high'], metric)}"
    )
    p = row["p_corrected"]
    numbers = f"{interval}, corrected p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
    if p >= alpha:
        only = ", as several comparisons were made" if row["p"] < alpha else ""
        return (
            f"no difference can be claimed at n = {pairs}{only}: {ours}{where} against {baseline} "
            f"is {size} ({numbers}){left_out}."
        )
    better = (row["difference"] > 0) == metric.endswith("accuracy")
    return (
        f"{ours}{where} is {'better' if better else 'worse'} than {baseline}: {size} "
        f"({numbers}, n = {pairs} pairs){left_out}."
    )


def _left_out(dropped: int) -> str:
    if not dropped:
        return ""
    return f"; {dropped} run{'s' if dropped > 1 else ''} without a partner left out"
