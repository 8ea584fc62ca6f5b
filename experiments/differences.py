"""What a table of runs says: rows by their settings, and paired differences with verdicts."""

from collections.abc import Sequence

import pandas as pd

from budgetlab.analysis.statistics import (
    MARGIN,
    holm,
    paired_difference,
    sentence,
    settled_by,
    verdict,
)
from budgetlab.course.results import averages, select

__all__ = ["against", "averages", "select"]


def against(
    rows: pd.DataFrame,
    name: str,
    baseline: object,
    by: Sequence[str] = ("dataset",),
    *,
    metric: str = "test_accuracy",
    margin: float | None = MARGIN,
) -> pd.DataFrame:
    """Compare each value of a column with one of them, seed by seed.

    Parameters
    ----------
    rows
        One row a run, each condition and seed once.
    name
        Column that holds what is compared, such as ``entry`` or ``augmentation``.
    baseline
        Its value that the others are compared with.
    by
        Columns in which both must agree.
    metric, margin
        As in :func:`budgetlab.compare`.

    Returns
    -------
    DataFrame
        One row a comparison, with ``n`` (pairs), ``mean``, ``difference``, ``ci_low``,
        ``ci_high``, ``p``, ``p_corrected`` (Holm over the rows that agree in ``by``: one
        question), ``verdict`` and ``sentence``.
    """
    found = []
    for key, group in rows.groupby(list(by), sort=False):
        wide = group.pivot_table(index="seed", columns=name, values=metric)
        if baseline not in wide:
            continue
        for value in wide.columns.drop(baseline):
            both = wide[[value, baseline]].dropna()
            result = paired_difference(both[value], both[baseline], margin=margin)
            found.append(dict(zip(by, key, strict=True)) | {name: value} | vars(result) | {
                "method": value, "baseline": baseline, "n": result.pairs,
                "mean": wide[value].mean(), "baseline_mean": both[baseline].mean(),
                "pair_spread": result.spread, "dropped": 0, "spread": wide[value].std(ddof=1),
                "baseline_spread": wide[baseline].std(ddof=1),
            })  # fmt: skip
    table = pd.DataFrame(found)
    if table.empty:
        return table
    questions = table.groupby(list(by), sort=False)
    table["p_corrected"] = questions["p"].transform(holm)
    table["p_equivalent"] = questions["p_equivalent"].transform(holm)
    records = table.to_dict("records")
    table["verdict"] = [verdict(row, metric) for row in records]
    table["seeds_to_settle"] = [
        settled_by(row | {"verdict": said}, margin)
        for row, said in zip(records, table["verdict"], strict=True)
    ]
    shown = [column for column in by if table[column].nunique() > 1]
    table["sentence"] = [
        sentence(row, metric, margin=margin, shown=shown) for row in table.to_dict("records")
    ]
    return table
