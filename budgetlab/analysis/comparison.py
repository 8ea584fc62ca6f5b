"""Paired comparison of conditions against baselines, with a sentence that can be defended."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from budgetlab.analysis.conditions import (
    METHOD_FIELDS,
    condition_columns,
    method_order,
    require,
    varying,
)
from budgetlab.analysis.frames import Records, summaries
from budgetlab.analysis.sentences import sentence
from budgetlab.analysis.usable import usable, warn_of_other_data
from budgetlab.errors import InputError, unknown

__all__ = ["BASELINES", "Paired", "compare", "mean_interval", "paired_difference"]

BASELINES = ("unif-SGD", "SGD")
"""What every method has to beat: a uniform draw, and the same steps in plain short training."""

ALPHA = 0.05


@dataclass(frozen=True)
class Paired:
    """A paired difference; NaN where it cannot be had."""

    pairs: int
    difference: float
    low: float
    high: float
    p: float


def paired_difference(ours: np.ndarray, baseline: np.ndarray, confidence: float = 0.95) -> Paired:
    """Compare pairs by Student's t on their differences.

    Parameters
    ----------
    ours, baseline
        Float ``[n]``, pair by pair.
    confidence
        Of the two-sided interval, in (0, 1).

    Returns
    -------
    Paired
        Mean of ``ours - baseline``, its interval ``d ± t(n-1) s / sqrt(n)`` and the
        two-sided p. Interval and p are NaN with fewer than two pairs, and where all
        differences are equal: no spread is seen, so none can be estimated.
    """
    d = np.asarray(ours, float) - np.asarray(baseline, float)
    n = len(d)
    if n == 0:
        return Paired(0, *[float("nan")] * 4)
    mean = float(d.mean())
    # Differences that are equal but for rounding count as equal.
    if n == 1 or np.ptp(d) <= 1e-12 * max(1.0, float(np.abs(d).max())):
        return Paired(n, mean, *[float("nan")] * 3)
    error = d.std(ddof=1) / np.sqrt(n)
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * error
    p = 2 * stats.t.sf(abs(mean) / error, n - 1)
    return Paired(n, mean, mean - half, mean + half, float(p))


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean; NaN with fewer than two values.

    Parameters
    ----------
    values
        Float ``[n]``.
    confidence
        In (0, 1).
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float("nan"), float("nan")
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * error
    return float(values.mean() - half), float(values.mean() + half)


def compare(
    records: Records | pd.DataFrame,
    baseline: str | Sequence[str] = BASELINES,
    *,
    metric: str = "test_accuracy",
    cost: str = "flops",
    confidence: float = 0.95,
    over: Sequence[str] = ("seed",),
) -> pd.DataFrame:
    """Compare every condition with one or more baselines, seed by seed.

    Runs that differ only in ``over`` are replicates of one condition. A run is paired
    with the run of the baseline that has the same seed, data, augmentation, budget and
    every other setting; runs without a partner count for the mean and are left out of
    the difference. Runs that are not finished are left out with a warning.

    Parameters
    ----------
    records
        As for :func:`budgetlab.analysis.load`, or a frame as from
        :func:`budgetlab.analysis.summaries`.
    baseline
        Methods to compare with, one row for each.
    metric
        Column to compare: ``test_accuracy`` or ``test_loss``.
    cost
        Column of costs in which ``cost_vs_full`` is measured.
    confidence
        Of the intervals, in (0, 1).
    over
        Settings over which runs are replicates, by which they are paired.

    Returns
    -------
    DataFrame
        One row a condition and baseline: the condition, ``n``, ``mean``, ``spread``
        (standard deviation, ddof 1; NaN at n = 1), ``cost_vs_full`` (cost of a run over
        that of a baseline at budget 1; NaN without one), ``baseline``,
        ``pairs``, ``dropped`` (runs without a partner), ``difference``, ``ci_low``,
        ``ci_high``, ``p`` (paired t test), ``p_corrected`` (Holm, over all rows) and
        ``sentence``.

    Raises
    ------
    InputError
        If no run is finished, or a baseline is none of the methods compared.
    """
    frame = records if isinstance(records, pd.DataFrame) else summaries(records)
    require(frame, ["dataset", "method", "augmentation", "budget", *over, metric, cost])
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is not allowed: give a number in (0, 1)")
    frame = usable(frame, metric, over)
    keys = condition_columns(frame, over)
    warn_of_other_data(frame, keys)
    # A setting that one record lacks has to match in another that lacks it: NaN never would.
    lacking = [name for name in keys if frame[name].isna().any()]
    frame = frame.assign(**{n: frame[n].astype(object).fillna("not recorded") for n in lacking})
    wanted = _baselines(baseline, frame)
    groups = {
        key: group.set_index(list(over)).sort_index()
        for key, group in frame.groupby(keys, sort=False, dropna=False)
    }
    rows = []
    for key, group in groups.items():
        values = group[metric].to_numpy(float)
        about = dict(zip(keys, key, strict=True)) | {
            "n": len(values),
            "mean": values.mean(),
            "spread": values.std(ddof=1) if len(values) > 1 else np.nan,
            "cost_vs_full": _cost_vs_full(key, keys, group, groups, wanted, cost),
        }
        rows += [
            about | _against(name, key, keys, groups, metric, confidence)
            for name in _opponents(about["method"], wanted)
        ]
    table = pd.DataFrame(rows)
    table["p_corrected"] = _holm(table["p"])
    shown = varying(table, [name for name in keys if name not in ("method", *METHOD_FIELDS)])
    table["sentence"] = [
        sentence(row, metric, confidence, ALPHA, shown) for row in table.to_dict("records")
    ]
    table.attrs = {"metric": metric, "confidence": confidence, "cost": cost}
    methods = {name: place for place, name in enumerate(method_order(table["method"]))}
    return table.sort_values(
        ["dataset", "augmentation", "budget", "method"],
        kind="stable",
        ignore_index=True,
        key=lambda column: column.map(methods) if column.name == "method" else column,
    )


def _baselines(baseline: str | Sequence[str], frame: pd.DataFrame) -> list[str]:
    methods = list(dict.fromkeys(frame["method"]))
    asked = [baseline] if isinstance(baseline, str) else list(baseline)
    for name in asked:
        if name not in methods and name not in BASELINES:
            raise unknown("baseline", name, methods)
    present = [name for name in asked if name in methods]
    return present or asked[:1]


def _opponents(method: str, baselines: list[str]) -> list[str]:
    """Baselines compare only with those named before them, so that no test counts twice."""
    if method not in baselines:
        return baselines
    return baselines[: baselines.index(method)] or [method]


def _find(
    method: str, key: tuple, keys: list[str], groups: dict[tuple, pd.DataFrame], **changes: object
) -> pd.DataFrame | None:
    """Runs of a method in the same condition; settings that other methods read may differ."""
    wanted = dict(zip(keys, key, strict=True)) | {"method": method} | changes
    exact = groups.get(tuple(wanted.values()))
    if exact is not None:
        return exact
    loose = [name for name in keys if name not in METHOD_FIELDS]
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
    groups: dict[tuple, pd.DataFrame],
    metric: str,
    confidence: float,
) -> dict[str, object]:
    ours, theirs = groups[key], _find(method, key, keys, groups)
    itself = key[keys.index("method")] == method
    if theirs is None or itself:
        result, dropped = Paired(0, *[float("nan")] * 4), 0 if itself else len(ours)
    else:
        common = ours.index.intersection(theirs.index)
        result = paired_difference(
            ours.loc[common, metric].to_numpy(), theirs.loc[common, metric].to_numpy(), confidence
        )
        dropped = len(ours) + len(theirs) - 2 * len(common)
    return {
        "baseline": method,
        "pairs": result.pairs,
        "dropped": dropped,
        "difference": result.difference,
        "ci_low": result.low,
        "ci_high": result.high,
        "p": result.p,
    }


def _cost_vs_full(
    key: tuple,
    keys: list[str],
    group: pd.DataFrame,
    groups: dict[tuple, pd.DataFrame],
    baselines: list[str],
    cost: str,
) -> float:
    for method in (*baselines, *BASELINES):
        full = _find(method, key, keys, groups, budget=1.0)
        if full is not None and full[cost].mean() > 0:
            return float(group[cost].mean() / full[cost].mean())
    return float("nan")


def _holm(p: pd.Series) -> pd.Series:
    """Correct for many tests (Holm 1979); NaN stays and does not count as a test."""
    corrected = pd.Series(np.nan, index=p.index, dtype=float)
    tested = p.notna()
    if tested.any():
        corrected[tested] = multipletests(p[tested], method="holm")[1]
    return corrected
