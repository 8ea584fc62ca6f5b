"""Compare conditions by result and cost: with a baseline, during training, and at its end."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.analysis.conditions import (
    COSTS,
    as_read,
    condition_columns,
    epochs,
    finished,
    replicates,
    require,
    sorted_by_method,
    summaries,
    telling,
    usable,
    warn_of_gaps,
    warn_of_other_code,
    warn_of_other_data,
)
from budgetlab.analysis.statistics import (
    MARGIN,
    Paired,
    holm,
    mean_interval,
    paired_difference,
    pairs_to_settle,
    require_in_open_unit_interval,
    sentence,
    verdict,
)
from budgetlab.analysis.tables import ConditionTable
from budgetlab.errors import InputError, known
from budgetlab.methods import OPTIONS as METHOD_FIELDS
from budgetlab.records import Records

BASELINE = "unif-SGD"
"""Default baseline: uniform sampling for the same number of steps."""

FULL = (BASELINE, "SGD")
"""Methods whose run at budget 1 serves as the full run, in order of preference."""

AXES = {**COSTS, "epoch": "epochs", "progress": "share of the budget"}
"""Cost axes of learning curves, with their axis labels."""

COLUMNS = ("n", "mean", "spread", "cost_vs_full", "baseline", "pairs", "dropped", "difference",
           "lowest", "highest", "ci_low", "ci_high", "p", "p_corrected", "p_equivalent", "verdict",
           "seeds_to_settle", "sentence")  # fmt: skip
POINT = ("cost", "mean", "spread", "ci_low", "ci_high", "n", "finished")


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

    Each run is paired with the baseline run that has the same seed, data, augmentation, budget
    and other settings. Unpaired runs count towards the mean but not the difference; unfinished
    runs are left out with a warning.

    Parameters
    ----------
    records
        As for :func:`budgetlab.open_records`, or a frame as from
        :func:`budgetlab.analysis.summaries`.
    baseline
        Methods to compare with, one row each.
    metric
        Column to compare: ``test_accuracy`` or ``test_loss``.
    cost
        Cost column that ``cost_vs_full`` is measured in.
    confidence
        Confidence level of the intervals, in (0, 1); the tests use ``alpha = 1 - confidence``.
    margin
        Differences within ``± margin``, in units of the metric, count as equivalent. Default
        0.01 (one percentage point) for accuracies, and no equivalence test for other metrics.
    over
        Settings that distinguish replicates of a condition, by which runs are paired.

    Returns
    -------
    ConditionTable
        A DataFrame that displays as a table followed by sentences. One row per condition and
        baseline: the condition, ``n``, ``mean``, ``spread`` (ddof 1; NaN at n = 1),
        ``cost_vs_full`` (cost of a run over that of the full run: unif-SGD, else SGD, at budget 1;
        NaN without one), ``baseline``, ``pairs``, ``dropped`` (unpaired runs), ``difference``,
        ``lowest`` and ``highest`` (of the pairs), ``ci_low``, ``ci_high``, ``p`` (paired t test),
        ``p_corrected`` (Holm, over all rows), ``p_equivalent`` (two one-sided tests, corrected in
        the same way), ``verdict`` (:data:`budgetlab.analysis.COMPARISON_VERDICTS`),
        ``seeds_to_settle`` (if undecided: pairs for 80% power at the observed difference and
        spread) and ``sentence``. Fewer than three pairs give no interval.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    require(frame, ["dataset", "method", "augmentation", "budget", *over, metric, cost])
    require_in_open_unit_interval(confidence=confidence)
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
                 for name in _baselines_of(about["method"], wanted)]  # fmt: skip
    shown = [name for name in groups.keys if name != "method"]
    table = add_conclusions(pd.DataFrame(rows), shown, metric, confidence, margin)
    table = ConditionTable(table[[*groups.keys, *COLUMNS]]).of(
        groups.keys, metric=metric, cost_name=cost, confidence=confidence
    )
    return sorted_by_method(table, "dataset", "augmentation", "budget", ignore_index=True)


def add_conclusions(
    table: pd.DataFrame,
    shown: Sequence[str],
    metric: str = "test_accuracy",
    confidence: float = 0.95,
    margin: float | None = MARGIN,
    question: Sequence[str] = (),
) -> pd.DataFrame:
    """Add p-values corrected over the rows of each ``question``, verdicts, and sentences."""
    alpha = 1 - confidence
    for name, source in (("p_corrected", "p"), ("p_equivalent", "p_equivalent")):
        p = table.groupby(list(question), sort=False)[source] if question else table[source]
        table[name] = p.transform(holm) if question else holm(p)
    named = telling(table, shown)
    for name, said in (
        ("verdict", lambda row: verdict(row, metric, alpha)),
        ("seeds_to_settle", lambda row: pairs_to_settle(row, margin, alpha)),
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
    """Average the runs of each condition, one row per condition in order of appearance.

    Parameters and exclusions are as for :func:`compare`. Columns are the condition, ``n``,
    ``mean``, ``spread`` (ddof 1; NaN at n = 1), the mean of every cost, and ``cost_vs_full``.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    require(frame, ["dataset", "method", "budget", metric, *COSTS])
    frame = usable(frame, metric, [name for name in over if name in frame])
    groups = _Conditions(frame, over)
    rows = [groups.averaged(key, metric, cost) | group[list(COSTS)].mean().to_dict()
            for key, group in groups.runs.items()]  # fmt: skip
    return ConditionTable(rows).of(groups.keys, metric=metric, cost_name=cost)


class _Conditions:
    """The runs of each condition, indexed by the settings that distinguish replicates."""

    def __init__(self, frame: pd.DataFrame, over: Sequence[str]):
        self.keys = condition_columns(frame, over)
        # A setting that two records lack has to match between them, which NaN never does.
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
        """Find a method's runs in the same condition; method-specific settings may differ."""
        wanted = self.about(key) | {"method": method} | changes
        for settings in (wanted, as_read(wanted)):
            exact = self.runs.get(tuple(settings.values()))
            if exact is not None:
                return exact
        loose = {n: wanted[n] for n in self.keys if n not in (*METHOD_FIELDS, *ignore)}
        near = (g for other, g in self.runs.items() if loose.items() <= self.about(other).items())
        return max(near, key=len, default=None)

    def averaged(self, key: tuple, metric: str, cost: str) -> dict[str, Any]:
        """Return the condition with its n, mean and spread, and its cost relative to full."""
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
        """Compare the runs of a condition with those of another method, pair by pair."""
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


def _baselines_of(method: str, baselines: list[str]) -> list[str]:
    """Return the baselines of a method; for a baseline those before it, so no test is repeated."""
    if method not in baselines:
        return baselines
    return baselines[: baselines.index(method)] or [method]


def _groups(
    frame: pd.DataFrame, keys: list[str], cost: str, value: str, over: Sequence[str]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield each condition and the rows of its :func:`replicates`."""
    kept = replicates(frame, keys, over, value)
    for key, group in kept.groupby(keys, sort=False, dropna=False):
        yield dict(zip(keys, key, strict=True)), group.dropna(subset=[cost, value])


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

    Runs are interpolated linearly between epochs, over the part of the axis that all runs of the
    condition cover, so that every point averages the same runs. If a condition has finished runs,
    unfinished ones are left out; so are, with a warning, runs tested only once beside others that
    were tested more often (``evaluate_every``).

    - ``records``, ``over``: as for :func:`compare`; a frame is as from
      :func:`budgetlab.analysis.epochs`.
    - ``cost``, ``value``: one of :data:`AXES`; the metric column, such as ``test_accuracy``.
    - ``points``: number of equally spaced points on the axis of each condition.
    - ``axis``: costs at which to evaluate all conditions instead; each keeps those it covers.
    - ``confidence``: confidence level of the band around the mean (Student's t), in (0, 1).

    Returns
    -------
    ConditionTable
        The condition, ``cost``, ``mean``, ``spread`` (standard deviation, ddof 1),
        ``ci_low``, ``ci_high`` (interval of the mean), ``n`` and whether its runs are
        ``finished``. ``spread`` is NaN for a single run, the interval for fewer than three.
    """
    frame = records if isinstance(records, pd.DataFrame) else epochs(records)
    cost = known("cost", cost, AXES)
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
        point = (at, heights.mean(0), spread, low, high, len(runs), finished(group).all())
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
    """Average cost and result of each condition, and mark those on the Pareto frontier.

    ``records`` are as for :func:`compare`, ``cost`` is one of :data:`COSTS`; higher ``value`` is
    better for accuracies, lower for losses. Columns are the condition, ``cost``, ``mean``,
    ``ci_low``, ``ci_high``, ``n`` and ``on_frontier``: no other condition of the data set
    reaches more at the same or lower cost, or as much at lower cost.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    cost = known("cost", cost, COSTS)
    require(frame, ["dataset", "method", cost, value], "a frame of summaries")
    frame = frame[finished(frame)]
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
    """Return the cost at which each run first reached a ``target`` of ``value``.

    This means at least that accuracy, or at most that loss. ``records`` and ``cost`` are as for
    :func:`curves`. One row per run: the condition, ``seed``, ``reached`` and ``cost`` (NaN if not
    reached), rounded up to the next evaluated epoch. Runs that are unfinished, or not evaluated
    every epoch (``evaluate_every``), raise a warning.
    """
    frame = records if isinstance(records, pd.DataFrame) else epochs(records)
    cost = known("cost", cost, AXES)
    require(frame, ["run", "epoch", cost, value], "a frame of learning curves")
    warn_of_gaps(frame, value)
    there = frame[value] >= target if value.endswith("accuracy") else frame[value] <= target
    frame = frame.assign(cost=frame[cost].where(there), reached=there).sort_values("epoch")
    keys = [*condition_columns(frame), *(["seed"] if "seed" in frame else [])]
    first = dict.fromkeys(keys, "first") | {"reached": "any", "cost": "first"}
    return frame.groupby("run", sort=False).agg(first).reset_index(drop=True)
