"""What each condition reached, and what it cost."""

from collections.abc import Sequence

import pandas as pd

from budgetlab.analysis.conditions import condition_columns, require
from budgetlab.analysis.frames import COSTS, Records, summaries

__all__ = ["results"]


def results(
    records: Records | pd.DataFrame,
    *,
    metric: str = "test_accuracy",
    cost: str = "flops",
    over: Sequence[str] = ("seed",),
) -> pd.DataFrame:
    """Average the runs of each condition: one row for each, in the order of appearance.

    Parameters
    ----------
    records
        As for :func:`budgetlab.analysis.load`, or a frame as from
        :func:`budgetlab.analysis.summaries`.
    metric
        Column to average.
    cost
        Column in which ``cost_vs_full`` is measured.
    over
        Settings over which runs are replicates.

    Returns
    -------
    DataFrame
        The condition, ``n``, ``mean``, ``spread`` (standard deviation, ddof 1; NaN at
        n = 1), the mean of every cost, and ``cost_vs_full``: cost over that of the most
        expensive condition at budget 1 on the same data; NaN without one.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    require(frame, ["dataset", "budget", metric, *COSTS])
    keys = condition_columns(frame, over)
    groups = frame.groupby(keys, sort=False, dropna=False)
    table = groups[metric].agg(n="count", mean="mean", spread="std")
    table = table.join(groups[list(COSTS)].mean()).reset_index()
    full = table[table["budget"] == 1].groupby("dataset")[cost].max()
    table["cost_vs_full"] = table[cost] / table["dataset"].map(full)
    table.attrs = {"metric": metric, "cost": cost}
    return table
