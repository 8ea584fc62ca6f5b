"""What each condition reached, at what cost: against a baseline, over the training, at its end."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.analysis.conditions import (
    COSTS,
    condition_columns,
    epochs,
    latest,
    method_order,
    require,
    summaries,
    usable,
    varying,
    warn_of_gaps,
    warn_of_other_code,
    warn_of_other_data,
)
from budgetlab.analysis.statistics import (
    MARGIN,
    Paired,
    check_open,
    holm,
    mean_interval,
    paired_difference,
    sentence,
    settled_by,
    verdict,
)
from budgetlab.analysis.tables import ConditionTable
from budgetlab.errors import InputError, known, unknown
from budgetlab.methods import OPTIONS as METHOD_FIELDS
from budgetlab.records import Records

BASELINE = "unif-SGD"
"""What every method has to beat: the same number of steps with uniform draws."""

FULL = (BASELINE, "SGD")
"""Methods whose run at budget 1 is the full run, in order of preference."""

AXES = {**COSTS, "epoch": "epochs", "progress": "share of the budget"}
"""What a learning curve can go over, and how axes call it."""

COLUMNS = ("n", "mean", "spread", "cost_vs_full", "baseline", "pairs", "dropped", "difference",
           "lowest", "highest", "ci_low", "ci_high", "p", "p_corrected", "p_equivalent", "verdict",
           "seeds_to_settle", "sentence")  # fmt: skip
POINT = ("cost", "mean", "spread", "ci_low", "ci_high", "n")


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

    A run is paired with the run of the baseline that has the same seed, data, augmentation,
    budget and every other setting; runs without a partner count for the mean and not for the
    difference. Runs that are not finished are left out with a warning.

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
        Differences within ± this count as equivalent, in the unit of the metric; by default
        one percentage point of an accuracy (0.01), and of other metrics nothing is.
    over
        Settings over which runs are replicates of one condition, by which they are paired.

    Returns
    -------
    ConditionTable
        A DataFrame that shows itself as a table with sentences. One row per condition and
        baseline: the condition, ``n``, ``mean``, ``spread`` (ddof 1; NaN at n = 1),
        ``cost_vs_full`` (cost of a run over that of the full run: unif-SGD, else SGD, at budget 1;
        NaN without one), ``baseline``, ``pairs``, ``dropped`` (runs without a partner),
        ``difference``, ``lowest`` and ``highest`` (of the pairs), ``ci_low``, ``ci_high``, ``p``
        (paired t test), ``p_corrected`` (Holm, over all rows), ``p_equivalent`` (two one-sided
        tests, corrected in the same way),
        ``verdict`` (:data:`budgetlab.analysis.COMPARISON_VERDICTS`), ``seeds_to_settle`` (pairs for
        a power of 80% if all is as seen, where undecided) and ``sentence``. Fewer than three pairs
        have no interval.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    require(frame, ["dataset", "method", "augmentation", "budget", *over, metric, cost])
    check_open(confidence=confidence)
    if margin is None and metric.endswith("accuracy"):
        margin = MARGIN
    if margin is not None and not margin > 0:
        raise InputError(f"margin {margin} is not allowed: give a number above 0")
    frame = usable(frame, metric, over)
    groups = _Conditions(frame, over)
    warn_of_other_data(frame, groups.keys)
    warn_of_other_code(frame)
    wanted = _baselines(baseline, frame)
    rows = []
    for key in groups.runs:
        about = groups.averaged(key, metric, cost)
        rows += [about | groups.against(name, key, metric, confidence, margin)
                 for name in _opponents(about["method"], wanted)]  # fmt: skip
    shown = [name for name in groups.keys if name not in ("method", *METHOD_FIELDS)]
    table = concluded(pd.DataFrame(rows), shown, metric, confidence, margin)
    table = ConditionTable(table[[*groups.keys, *COLUMNS]]).of(
        groups.keys, metric=metric, cost_name=cost, confidence=confidence
    )
    place = method_order(table["method"]).index
    return table.sort_values(
        ["dataset", "augmentation", "budget", "method"], kind="stable", ignore_index=True,
        key=lambda column: column.map(place) if column.name == "method" else column,
    )  # fmt: skip


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
    named = varying(table, shown)
    for name, said in (
        ("verdict", lambda row: verdict(row, metric, alpha)),
        ("seeds_to_settle", lambda row: settled_by(row, margin, alpha)),
        ("sentence", lambda row: sentence(row, metric, confidence, margin, named)),
    ):
        table[name] = [said(row) for row in table.to_dict("records")]
    return table


def results(
    records: Records | pd.DataFrame,
    *,
    metric: str = "test_accuracy",
    cost: str = "flops",
    over: Sequence[str] = ("seed",),
) -> ConditionTable:
    """Average the runs of each condition: one row for each, in the order of appearance.

    Parameters are as for :func:`compare`, and so is what is left out. Columns are the condition,
    ``n``, ``mean``, ``spread`` (ddof 1; NaN at n = 1), the mean of every cost, ``cost_vs_full``.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    require(frame, ["dataset", "method", "budget", metric, *COSTS])
    frame = usable(frame, metric, [name for name in over if name in frame])
    groups = _Conditions(frame, over)
    rows = [groups.averaged(key, metric, cost) | group[list(COSTS)].mean().to_dict()
            for key, group in groups.runs.items()]  # fmt: skip
    return ConditionTable(rows).of(groups.keys, metric=metric, cost_name=cost)


class _Conditions:
    """The runs of each condition, indexed by what tells replicates apart."""

    def __init__(self, frame: pd.DataFrame, over: Sequence[str]):
        self.keys = condition_columns(frame, over)
        # A setting that one record lacks has to match in another that lacks it: NaN never would.
        lacking = [name for name in self.keys if frame[name].isna().any()]
        frame = frame.assign(**{n: frame[n].astype(object).fillna("not recorded") for n in lacking})
        self.runs: dict[tuple, pd.DataFrame] = {
            key: group.set_index([name for name in over if name in frame]).sort_index()
            for key, group in frame.groupby(self.keys, sort=False, dropna=False)
        }

    def about(self, key: tuple) -> dict[str, Any]:
        return dict(zip(self.keys, key, strict=True))

    def find(
        self, method: str, key: tuple, ignore: Sequence[str] = (), **changes: object
    ) -> pd.DataFrame | None:
        """Runs of a method in the same condition; settings that other methods read may differ."""
        wanted = self.about(key) | {"method": method} | changes
        exact = self.runs.get(tuple(wanted.values()))
        if exact is not None:
            return exact
        loose = {n: wanted[n] for n in self.keys if n not in (*METHOD_FIELDS, *ignore)}
        near = (g for other, g in self.runs.items() if loose.items() <= self.about(other).items())
        return max(near, key=len, default=None)

    def averaged(self, key: tuple, metric: str, cost: str) -> dict[str, Any]:
        """The condition, what its runs reached, and what they cost beside the full run."""
        values, share = self.runs[key][metric].dropna(), float("nan")
        for method in FULL:
            full = self.find(method, key, ignore=("budget_unit",), budget=1.0)
            if full is not None and full[cost].mean() > 0:
                share = float(self.runs[key][cost].mean() / full[cost].mean())
                break
        return self.about(key) | {"n": len(values), "mean": values.mean(), "spread": values.std(),
                                  "cost_vs_full": share}  # fmt: skip

    def against(
        self, method: str, key: tuple, metric: str, confidence: float, margin: float | None
    ) -> dict[str, Any]:
        """How the runs stand against those of another method, pair by pair."""
        ours, theirs = self.runs[key], self.find(method, key)
        itself = self.about(key)["method"] == method
        result, dropped, spread = Paired(), 0 if itself else len(ours), float("nan")
        if theirs is not None and not itself:
            common = ours.index.intersection(theirs.index)
            first, second = (group.loc[common, metric] for group in (ours, theirs))
            result = paired_difference(first.to_numpy(), second.to_numpy(), confidence, margin)
            dropped, spread = len(ours) + len(theirs) - 2 * len(common), second.std()
        found = asdict(result)
        found["pair_spread"] = found.pop("spread")
        return {"baseline": method, "dropped": dropped, "baseline_spread": spread} | found


def _baselines(baseline: str | Sequence[str], frame: pd.DataFrame) -> list[str]:
    methods = list(dict.fromkeys(frame["method"]))
    asked = [baseline] if isinstance(baseline, str) else list(baseline)
    asked = [name if name in FULL else known("baseline", name, methods) for name in asked or [""]]
    return [name for name in asked if name in methods] or asked[:1]


def _opponents(method: str, baselines: list[str]) -> list[str]:
    """Baselines compare only with those named before them, so that no test counts twice."""
    if method not in baselines:
        return baselines
    return baselines[: baselines.index(method)] or [method]


def _groups(
    frame: pd.DataFrame, keys: list[str], cost: str, value: str, over: Sequence[str]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Each condition and its rows that have both numbers; of finished runs where it has some.

    Of runs that repeat each other, those of the latest.
    """
    for key, group in frame.groupby(keys, sort=False, dropna=False):
        if "status" in group and (group["status"] == "finished").any():
            group = group[group["status"] == "finished"]
        if {*over} <= {*group}:
            runs = group.drop_duplicates("run") if "run" in group else group
            kept = latest(runs, over)
            group = group[group["run"].isin(kept["run"])] if "run" in group else kept
        yield dict(zip(keys, key, strict=True)), group.dropna(subset=[cost, value])


def _check_cost(cost: str, known: dict[str, str]) -> None:
    if cost not in known:
        raise unknown("cost", cost, known)


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

    Each run is interpolated linearly between its epochs. A condition starts where the last of its
    runs has a first value and ends where the first of them ends: every point averages the same
    runs. Where a condition has finished runs, the others are left out.

    Parameters
    ----------
    records, over
        As for :func:`compare`; a frame is as from :func:`budgetlab.analysis.epochs`.
    cost, value
        One of :data:`AXES`; the column to follow, such as ``test_accuracy``.
    points
        Points on the axis of each condition, from its start to its end.
    axis
        Costs at which to read all conditions instead; each keeps those that it covers.
    confidence
        Of the band around the mean (Student's t), in (0, 1).

    Returns
    -------
    ConditionTable
        The condition, ``cost``, ``mean``, ``spread`` (standard deviation, ddof 1),
        ``ci_low``, ``ci_high`` (interval of the mean), ``n``; NaN where too few runs allow
        none: one for a deviation, two for an interval.
    """
    frame = records if isinstance(records, pd.DataFrame) else epochs(records)
    _check_cost(cost, AXES)
    require(frame, ["run", cost, value, "method"], "a frame of learning curves")
    keys = condition_columns(frame, over)
    parts = [pd.DataFrame(columns=[*keys, *POINT])]
    for about, group in _groups(frame, keys, cost, value, over):
        runs = [run.sort_values(cost) for _, run in group.groupby("run")]
        if not runs:
            continue
        start, end = max(run[cost].min() for run in runs), min(run[cost].max() for run in runs)
        if start > end:
            warnings.warn(
                f"the runs of {', '.join(map(str, about.values()))} share no part of the {cost} "
                "axis; their curve is left out", stacklevel=2,
            )  # fmt: skip
            continue
        at = np.linspace(start, end, points) if axis is None else np.asarray(axis, float)
        at = at[(at >= start) & (at <= end)]
        heights = np.stack([np.interp(at, run[cost], run[value]) for run in runs])
        low, high = mean_interval(heights, confidence)
        spread = heights.std(0, ddof=1) if len(runs) > 1 else np.full(len(at), np.nan)
        point = (at, heights.mean(0), spread, low, high, len(runs))
        about = {name: [value] * len(at) for name, value in about.items()}  # one may be a tuple
        parts.append(pd.DataFrame(about | dict(zip(POINT, point, strict=True))))
    result = ConditionTable(pd.concat(parts[1:] or parts, ignore_index=True))
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

    ``records`` are as for :func:`compare`, ``cost`` one of :data:`COSTS`; of ``value`` more is
    better for accuracies, less for losses. Columns are the condition, ``cost``, ``mean``,
    ``ci_low``, ``ci_high``, ``n`` and ``on_frontier``: within its data set, no other condition
    costs at most as much and reaches more, or costs less and reaches as much.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    _check_cost(cost, COSTS)
    require(frame, ["dataset", "method", cost, value], "a frame of summaries")
    if "status" in frame:
        frame = frame[frame["status"] == "finished"]
    keys = condition_columns(frame, over)
    rows = []
    for about, group in _groups(frame, keys, cost, value, over):
        if len(group):
            low, high = mean_interval(group[value].to_numpy(), confidence)
            rows.append(about | {"cost": group[cost].mean(), "mean": group[value].mean(),
                                 "ci_low": low, "ci_high": high, "n": len(group)})  # fmt: skip
    result = pd.DataFrame(rows, columns=[*keys, "cost", "mean", "ci_low", "ci_high", "n"])
    reached, spent = result["mean"] * (1 if value.endswith("accuracy") else -1), result["cost"]
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
    :func:`curves`. One row per run: the condition, ``seed``, ``reached`` and ``cost`` (NaN where
    it was not reached), which is rounded up, as runs are measured once an epoch; where that is
    after every n-th epoch only (``evaluate_every``), or a run is not finished, a warning says so.
    """
    frame = records if isinstance(records, pd.DataFrame) else epochs(records)
    _check_cost(cost, AXES)
    require(frame, ["run", "epoch", cost, value], "a frame of learning curves")
    warn_of_gaps(frame, value)
    there = frame[value] >= target if value.endswith("accuracy") else frame[value] <= target
    frame = frame.assign(cost=frame[cost].where(there), reached=there).sort_values("epoch")
    keys = [*condition_columns(frame), *(["seed"] if "seed" in frame else [])]
    first = dict.fromkeys(keys, "first") | {"reached": "any", "cost": "first"}
    return frame.groupby("run", sort=False).agg(first).reset_index(drop=True)
