"""Learning curves on a common cost axis, the frontier, and the cost to reach an accuracy."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from budgetlab.analysis.conditions import COSTS, condition_columns, epochs, require, summaries
from budgetlab.analysis.statistics import mean_interval
from budgetlab.analysis.tables import ConditionTable
from budgetlab.errors import unknown
from budgetlab.records import Records

AXES = {**COSTS, "epoch": "epochs", "progress": "share of the budget"}
"""What a learning curve can go over, and how axes call it."""


def curves(
    records: Records | pd.DataFrame,
    cost: str = "steps",
    value: str = "test_accuracy",
    *,
    points: int = 101,
    axis: Sequence[float] | None = None,
    confidence: float = 0.95,
    over: Sequence[str] = ("seed",),
) -> ConditionTable:
    """Average the learning curves of each condition on a common cost axis.

    Each run is interpolated linearly between its epochs. A condition starts where the
    last of its runs has a first value and ends where the first of them ends: nothing
    is extrapolated, and every point averages the same runs. Where a condition has
    finished runs, those that are not finished are left out.

    Parameters
    ----------
    records
        As for :func:`budgetlab.open_records`, or a frame as from
        :func:`budgetlab.analysis.epochs`.
    cost
        One of :data:`AXES`.
    value
        Column to follow, such as ``test_accuracy``.
    points
        Points on the axis of each condition, from its start to its end.
    axis
        Costs at which to read all conditions instead, so that they can be compared at
        equal cost; each keeps those that it covers.
    confidence
        Of the band around the mean (Student's t).
    over
        Settings over which runs are replicates.

    Returns
    -------
    DataFrame
        The condition, ``cost``, ``mean``, ``spread`` (standard deviation, ddof 1),
        ``ci_low``, ``ci_high`` (interval of the mean), ``n``; NaN where too few runs allow
        none: one for a deviation, two for an interval.
    """
    frame = records if isinstance(records, pd.DataFrame) else epochs(records)
    if cost not in AXES:
        raise unknown("cost", cost, AXES)
    require(frame, ["run", cost, value, "method"], "a frame of learning curves")
    keys = condition_columns(frame, over)
    parts = []
    for key, group in frame.groupby(keys, sort=False, dropna=False):
        if "status" in group and (group["status"] == "finished").any():
            group = group[group["status"] == "finished"]
        runs = [run.dropna(subset=[cost, value]) for _, run in group.groupby("run")]
        runs = [run.sort_values(cost) for run in runs if len(run)]
        if not runs:
            continue
        start, end = max(run[cost].min() for run in runs), min(run[cost].max() for run in runs)
        if start > end:
            warnings.warn(
                f"the runs of {', '.join(map(str, key))} share no part of the {cost} axis; "
                "their curve is left out",
                stacklevel=2,
            )
            continue
        at = np.linspace(start, end, points) if axis is None else np.asarray(axis, float)
        at = at[(at >= start) & (at <= end)]
        heights = np.stack([np.interp(at, run[cost], run[value]) for run in runs])
        low, high = mean_interval(heights, confidence)
        spread = heights.std(0, ddof=1) if len(runs) > 1 else np.full(len(at), np.nan)
        part = {"cost": at, "mean": heights.mean(0), "spread": spread, "ci_low": low,
                "ci_high": high, "n": len(runs)}  # fmt: skip
        parts.append(pd.DataFrame(dict(zip(keys, key, strict=True)) | part))
    if not parts:
        nothing = [*keys, "cost", "mean", "spread", "ci_low", "ci_high", "n"]
        parts = [pd.DataFrame(columns=nothing)]
    result = ConditionTable(pd.concat(parts, ignore_index=True))
    return result.of(keys, metric=value, cost_name=cost, confidence=confidence)


def frontier(
    records: Records | pd.DataFrame,
    cost: str = "flops",
    value: str = "test_accuracy",
    *,
    over: Sequence[str] = ("seed",),
    confidence: float = 0.95,
) -> ConditionTable:
    """Mean cost and result of each condition, and which ones no other beats.

    ``records`` are as for :func:`budgetlab.analysis.compare`, ``cost`` one of
    :data:`budgetlab.analysis.COSTS`; of ``value`` more is better for accuracies, less for losses.

    Returns
    -------
    DataFrame
        The condition, ``cost``, ``mean``, ``ci_low``, ``ci_high``, ``n`` and
        ``on_frontier``: within its data set, no other condition costs at most as much
        and reaches more, or costs less and reaches as much.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    if cost not in COSTS:
        raise unknown("cost", cost, COSTS)
    require(frame, ["dataset", "method", cost, value], "a frame of summaries")
    if "status" in frame:
        frame = frame[frame["status"] == "finished"]
    keys = condition_columns(frame, over)
    rows = []
    for key, group in frame.dropna(subset=[cost, value]).groupby(keys, sort=False, dropna=False):
        low, high = mean_interval(group[value].to_numpy(), confidence)
        about = dict(zip(keys, key, strict=True))
        middle = {"cost": group[cost].mean(), "mean": group[value].mean()}
        rows.append(about | middle | {"ci_low": low, "ci_high": high, "n": len(group)})
    result = pd.DataFrame(rows, columns=[*keys, "cost", "mean", "ci_low", "ci_high", "n"])
    sign = 1 if value.endswith("accuracy") else -1
    reached, spent = sign * result["mean"], result["cost"]
    result["on_frontier"] = [
        not (
            result["dataset"].eq(dataset) & (spent <= least) & (reached >= most)
            & ((spent < least) | (reached > most))
        ).any()
        for dataset, least, most in zip(result["dataset"], spent, reached, strict=True)
    ]  # fmt: skip
    result = result.sort_values("cost", kind="stable", ignore_index=True)
    return ConditionTable(result).of(keys, metric=value, cost_name=cost, confidence=confidence)


def cost_to_reach(
    records: Records | pd.DataFrame,
    target: float,
    cost: str = "flops",
    value: str = "test_accuracy",
) -> pd.DataFrame:
    """Cost at the first epoch after which a run had reached a ``target`` in ``value``.

    That is at least this accuracy, or at most this loss; ``records`` and ``cost`` are as for
    :func:`curves`.

    Returns
    -------
    DataFrame
        One row a run: the condition, ``seed``, ``reached`` and ``cost`` (NaN where it
        was not reached). Runs are measured once an epoch, so the cost is rounded up.
    """
    frame = records if isinstance(records, pd.DataFrame) else epochs(records)
    if cost not in AXES:
        raise unknown("cost", cost, AXES)
    require(frame, ["run", "epoch", cost, value], "a frame of learning curves")
    keys = [*condition_columns(frame), *(["seed"] if "seed" in frame else [])]
    rows = []
    for _, run in frame.sort_values("epoch").groupby("run", sort=False):
        height = run[value]
        there = run[height >= target if value.endswith("accuracy") else height <= target]
        first = there[cost].iloc[0] if len(there) else float("nan")
        rows.append(run.iloc[0][keys].to_dict() | {"reached": bool(len(there)), "cost": first})
    return pd.DataFrame(rows, columns=[*keys, "reached", "cost"])
