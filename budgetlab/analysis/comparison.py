"""What each condition reached, at what cost, and how it stands against a baseline."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from budgetlab.analysis.conditions import (
    COSTS,
    condition_columns,
    method_order,
    require,
    summaries,
    usable,
    varying,
    warn_of_other_data,
)
from budgetlab.analysis.statistics import (
    MARGIN,
    Paired,
    check_open,
    holm,
    paired_difference,
    sentence,
    settled_by,
    verdict,
)
from budgetlab.analysis.tables import ConditionTable
from budgetlab.errors import InputError, unknown
from budgetlab.methods import OPTIONS as METHOD_FIELDS
from budgetlab.records import Records

BASELINE = "unif-SGD"
"""What every method has to beat: the same number of steps with uniform draws."""

FULL = (BASELINE, "SGD")
"""Methods whose run at budget 1 is the full run, in order of preference."""

COLUMNS = ("n", "mean", "spread", "cost_vs_full", "baseline", "pairs", "dropped", "difference",
           "lowest", "highest", "ci_low", "ci_high", "p", "p_corrected", "p_equivalent", "verdict",
           "seeds_to_settle", "sentence")  # fmt: skip

Groups = dict[tuple, pd.DataFrame]


def compare(
    records: Records | pd.DataFrame,
    baseline: str | Sequence[str] = BASELINE,
    *,
    metric: str = "test_accuracy",
    cost: str = "flops",
    confidence: float = 0.95,
    margin: float | None = None,
    over: Sequence[str] = ("seed",),
) -> ConditionTable:
    """Compare every condition with one or more baselines, seed by seed.

    Runs that differ only in ``over`` are replicates of one condition. A run is paired
    with the run of the baseline that has the same seed, data, augmentation, budget and
    every other setting; runs without a partner count for the mean and are left out of
    the difference. Runs that are not finished are left out with a warning.

    Parameters
    ----------
    records
        As for :func:`budgetlab.open_records`, or a frame as from
        :func:`budgetlab.analysis.summaries`.
    baseline
        Methods to compare with, one row for each.
    metric
        Column to compare: ``test_accuracy`` or ``test_loss``.
    cost
        Column of costs in which ``cost_vs_full`` is measured.
    confidence
        Of the intervals, in (0, 1); the tests are at ``alpha = 1 - confidence``.
    margin
        Differences within ± this count as equivalent, in the unit of the metric. By
        default one percentage point of an accuracy (0.01); no default for other metrics,
        of which nothing is then called equivalent.
    over
        Settings over which runs are replicates, by which they are paired.

    Returns
    -------
    ConditionTable
        A DataFrame that shows itself as a table with sentences. One row a condition and
        baseline: the condition, ``n``, ``mean``, ``spread`` (standard deviation, ddof 1;
        NaN at n = 1), ``cost_vs_full`` (cost of a run over that of the full run: unif-SGD,
        else SGD, at budget 1; NaN without one), ``baseline``, ``pairs``, ``dropped`` (runs
        without a partner), ``difference``, ``lowest`` and ``highest`` (of the pairs),
        ``ci_low``, ``ci_high``, ``p`` (paired t test), ``p_corrected`` (Holm, over all
        rows), ``p_equivalent`` (two one-sided tests, corrected in the same way),
        ``verdict`` (one of :data:`budgetlab.analysis.COMPARISON_VERDICTS`),
        ``seeds_to_settle`` (pairs that give a power of 80% if difference and spread are as
        seen, where undecided) and ``sentence``. Fewer than three pairs have no interval.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    require(frame, ["dataset", "method", "augmentation", "budget", *over, metric, cost])
    check_open(confidence=confidence)
    if margin is None and metric.endswith("accuracy"):
        margin = MARGIN
    if margin is not None and not margin > 0:
        raise InputError(f"margin {margin} is not allowed: give a number above 0")
    frame = usable(frame, metric, over)
    keys = condition_columns(frame, over)
    warn_of_other_data(frame, keys)
    wanted = _baselines(baseline, frame)
    groups = _conditions(frame, keys, over)
    rows = []
    for key in groups:
        about = _averaged(key, keys, groups, metric, cost)
        rows += [
            about | _against(name, key, keys, groups, metric, confidence, margin)
            for name in _opponents(about["method"], wanted)
        ]
    shown = [name for name in keys if name not in ("method", *METHOD_FIELDS)]
    table = concluded(pd.DataFrame(rows), shown, metric, confidence, margin)
    table = ConditionTable(table[[*keys, *COLUMNS]]).of(
        keys, metric=metric, cost_name=cost, confidence=confidence
    )
    methods = {name: place for place, name in enumerate(method_order(table["method"]))}
    return table.sort_values(
        ["dataset", "augmentation", "budget", "method"],
        kind="stable",
        ignore_index=True,
        key=lambda column: column.map(methods) if column.name == "method" else column,
    )


def concluded(
    table: pd.DataFrame,
    shown: Sequence[str],
    metric: str = "test_accuracy",
    confidence: float = 0.95,
    margin: float | None = MARGIN,
    question: Sequence[str] = (),
) -> pd.DataFrame:
    """Add what follows from all rows together: corrected p, verdicts, sentences.

    ``shown`` are the settings that a sentence names where they vary; claims are corrected over
    the rows that agree in ``question``, by default over all.
    """
    alpha = 1 - confidence
    for name, source in (("p_corrected", "p"), ("p_equivalent", "p_equivalent")):
        p = table.groupby(list(question), sort=False)[source] if question else table[source]
        table[name] = p.transform(holm) if question else holm(p)
    table["verdict"] = [verdict(row, metric, alpha) for row in table.to_dict("records")]
    rows = table.to_dict("records")
    table["seeds_to_settle"] = [settled_by(row, margin, alpha) for row in rows]
    named = varying(table, list(shown))
    table["sentence"] = [
        sentence(row, metric, confidence, margin, named) for row in table.to_dict("records")
    ]
    return table


def results(
    records: Records | pd.DataFrame,
    *,
    metric: str = "test_accuracy",
    cost: str = "flops",
    over: Sequence[str] = ("seed",),
) -> ConditionTable:
    """Average the runs of each condition: one row for each, in the order of appearance.

    Parameters are as for :func:`compare`.

    Returns
    -------
    ConditionTable
        The condition, ``n``, ``mean``, ``spread`` (standard deviation, ddof 1; NaN at
        n = 1), the mean of every cost, and ``cost_vs_full`` as in :func:`compare`.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    require(frame, ["dataset", "method", "budget", metric, *COSTS])
    keys = condition_columns(frame, over)
    groups = _conditions(frame, keys, over)
    rows = [
        _averaged(key, keys, groups, metric, cost) | group[list(COSTS)].mean().to_dict()
        for key, group in groups.items()
    ]
    return ConditionTable(rows).of(keys, metric=metric, cost_name=cost)


def _conditions(frame: pd.DataFrame, keys: list[str], over: Sequence[str]) -> Groups:
    """The runs of each condition, indexed by what tells replicates apart."""
    # A setting that one record lacks has to match in another that lacks it: NaN never would.
    lacking = [name for name in keys if frame[name].isna().any()]
    frame = frame.assign(**{n: frame[n].astype(object).fillna("not recorded") for n in lacking})
    return {
        key: group.set_index([name for name in over if name in frame]).sort_index()
        for key, group in frame.groupby(keys, sort=False, dropna=False)
    }


def _averaged(
    key: tuple, keys: list[str], groups: Groups, metric: str, cost: str
) -> dict[str, Any]:
    """The condition, what its runs reached, and what they cost beside the full run."""
    values, share = groups[key][metric].dropna(), float("nan")
    for method in FULL:
        full = _find(method, key, keys, groups, ignore=("budget_unit",), budget=1.0)
        if full is not None and full[cost].mean() > 0:
            share = float(groups[key][cost].mean() / full[cost].mean())
            break
    return dict(zip(keys, key, strict=True)) | {
        "n": len(values), "mean": values.mean(), "spread": values.std(), "cost_vs_full": share,
    }  # fmt: skip


def _baselines(baseline: str | Sequence[str], frame: pd.DataFrame) -> list[str]:
    methods = list(dict.fromkeys(frame["method"]))
    asked = [baseline] if isinstance(baseline, str) else list(baseline)
    for name in asked:
        if name not in methods and name not in FULL:
            raise unknown("baseline", name, methods)
    present = [name for name in asked if name in methods]
    return present or asked[:1]


def _opponents(method: str, baselines: list[str]) -> list[str]:
    """Baselines compare only with those named before them, so that no test counts twice."""
    if method not in baselines:
        return baselines
    return baselines[: baselines.index(method)] or [method]


def _find(
    method: str,
    key: tuple,
    keys: list[str],
    groups: Groups,
    ignore: Sequence[str] = (),
    **changes: object,
) -> pd.DataFrame | None:
    """Runs of a method in the same condition; settings that other methods read may differ."""
    wanted = dict(zip(keys, key, strict=True)) | {"method": method} | changes
    exact = groups.get(tuple(wanted.values()))
    if exact is not None:
        return exact
    loose = [name for name in keys if name not in (*METHOD_FIELDS, *ignore)]
    near = [
        group
        for other, group in groups.items()
        if all(dict(zip(keys, other, strict=True))[name] == wanted[name] for name in loose)
    ]
    return max(near, key=len) if near else None


def _against(
    method: str,
    key: tuple,
    keys: list[str],
    groups: Groups,
    metric: str,
    confidence: float,
    margin: float | None,
) -> dict[str, object]:
    ours, theirs = groups[key], _find(method, key, keys, groups)
    itself = key[keys.index("method")] == method
    result, dropped, spread = Paired(), 0 if itself else len(ours), float("nan")
    if theirs is not None and not itself:
        common = ours.index.intersection(theirs.index)
        first, second = (group.loc[common, metric] for group in (ours, theirs))
        result = paired_difference(first.to_numpy(), second.to_numpy(), confidence, margin)
        dropped, spread = len(ours) + len(theirs) - 2 * len(common), second.std()
    found = asdict(result)
    found["pair_spread"] = found.pop("spread")
    return {"baseline": method, "dropped": dropped, "baseline_spread": spread} | found
