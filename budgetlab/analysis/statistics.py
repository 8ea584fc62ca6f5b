"""Paired differences, what may be claimed of them, and how many seeds a claim needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan, sqrt
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from budgetlab.analysis.conditions import label
from budgetlab.errors import InputError

MARGIN = 0.01
"""One percentage point of accuracy: what is smaller than this is called equivalent."""
FEWEST = 3  # pairs for an interval: at n = 2 it is 12.7 standard errors wide and says nothing
MOST = 10_000

COMPARISON_VERDICTS = {
    "better": "the corrected p of a difference in the right direction is below alpha",
    "worse": "the corrected p of a difference in the wrong direction is below alpha",
    "equivalent": "two one-sided tests put the difference within the margin",
    "undecided": "none of these: more seeds might tell",
    "": "nothing was compared: the baseline itself, or no pair",
}
"""What :func:`verdict` says, and when."""


@dataclass(frozen=True)
class Paired:
    """A paired difference; NaN where it cannot be had.

    ``lowest`` and ``highest`` are the smallest and the largest difference of a pair,
    ``above`` counts the pairs with a positive one, ``spread`` is their standard
    deviation (ddof 1), and ``p_equivalent`` belongs to the two one-sided tests.
    """

    pairs: int = 0
    difference: float = nan
    lowest: float = nan
    highest: float = nan
    above: int = 0
    spread: float = nan
    ci_low: float = nan
    ci_high: float = nan
    p: float = nan
    p_equivalent: float = nan


def paired_difference(
    ours: np.ndarray,
    baseline: np.ndarray,
    confidence: float = 0.95,
    margin: float | None = MARGIN,
) -> Paired:
    """Compare pairs by Student's t on their differences.

    Parameters
    ----------
    ours, baseline
        Float ``[n]``, pair by pair.
    confidence
        Of the two-sided interval, in (0, 1).
    margin
        Differences within ± this are equivalent (Schuirmann 1987); None for no such test.

    Returns
    -------
    Paired
        Mean of ``ours - baseline``, its interval ``d ± t(n-1) s / sqrt(n)``, the two-sided
        p, and the larger p of two one-sided tests. Interval and p are NaN with fewer than
        three pairs, and where all differences are equal: no spread is seen, so none can
        be estimated.
    """
    d = np.asarray(ours, float) - np.asarray(baseline, float)
    n = len(d)
    if n == 0:
        return Paired()
    mean, above = float(d.mean()), int((d > 0).sum())
    seen = Paired(n, mean, float(d.min()), float(d.max()), above)
    # Differences that are equal but for rounding count as equal.
    if n == 1 or np.ptp(d) <= 1e-12 * max(1.0, float(np.abs(d).max())):
        return seen
    seen = replace(seen, spread=float(d.std(ddof=1)))
    if n < FEWEST:
        return seen
    low, high = mean_interval(d, confidence)
    error = seen.spread / sqrt(n)
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    equal = nan if margin is None else float(stats.t.sf((margin - abs(mean)) / error, n - 1))
    return replace(seen, ci_low=low, ci_high=high, p=p, p_equivalent=equal)


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[Any, Any]:
    """Student's t interval, at ``confidence`` in (0, 1), of the mean of ``values``.

    Values ``[n]`` have one, ``[n, ...]`` one for each column; NaN with fewer than three values.
    """
    values = np.asarray(values, float)
    n = len(values)
    mean = values.mean(0) if n else np.nan
    if n < FEWEST:
        low = high = np.full_like(mean, np.nan)
    else:
        error = values.std(0, ddof=1) / sqrt(n)
        half = stats.t.ppf((1 + confidence) / 2, n - 1) * error
        low, high = mean - half, mean + half
    return (float(low), float(high)) if values.ndim == 1 else (low, high)


def check_open(**shares: float) -> None:
    """Refuse what does not lie in (0, 1)."""
    for name, value in shares.items():
        if not 0 < value < 1:
            raise InputError(f"{name} {value} is not allowed: give a number in (0, 1)")


def holm(p: pd.Series) -> pd.Series:
    """Correct for many tests (Holm 1979); NaN stays and does not count as a test."""
    # Not by statsmodels, which collects garbage at every call: 0.15 s in a large process.
    tests = p.dropna().sort_values()
    times = np.arange(len(tests), 0, -1)
    raised = np.minimum(np.maximum.accumulate(times * tests.to_numpy(float)), 1)
    return pd.Series(raised, index=tests.index, dtype=float).reindex(p.index)


class SeedsNeeded(NamedTuple):
    """How many paired seeds, and the power that so many give (0 to 1)."""

    seeds: int
    power: float


def seeds_needed(
    difference: float,
    spread: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    margin: float | None = None,
) -> SeedsNeeded:
    """How many paired seeds does it take to see a difference, or to call it equivalent?

    Exact for few seeds too: the test is Student's t, whose threshold at two pairs is 12.7
    standard errors and not 2, and its power follows the noncentral t distribution.

    Parameters
    ----------
    difference
        True mean difference that is to be found, such as 0.01 for one percentage point;
        with ``margin``, the true difference that is to be called equivalent.
    spread
        Standard deviation of the difference from pair to pair, above 0: that of a column
        of paired differences, not of the runs themselves.
    power
        Chance of the finding that is wanted, in (0, 1).
    alpha
        Level of the two-sided test, or of each of two one-sided tests, in (0, 1).
    margin
        Ask for equivalence within ± this instead (two one-sided tests; the power is the
        usual approximation by two noncentral t distributions).

    Returns
    -------
    SeedsNeeded
        The smallest number of pairs, at least 3 as for every interval of the kit, and the
        power it gives. ``seeds`` is 10,000 with the lower power that they give where even
        so many are too few.

    Examples
    --------
    >>> import budgetlab as bl
    >>> bl.analysis.seeds_needed(0.01, 0.008).seeds
    8
    """
    check_open(power=power, alpha=alpha)
    if not spread > 0 or not np.isfinite(spread):
        raise InputError(f"spread {spread} is not allowed: give a standard deviation above 0")
    if margin is None and (difference == 0 or not np.isfinite(difference)):
        raise InputError(
            f"difference {difference} cannot be found by any number of seeds: give one that is "
            "not 0, or a margin= to ask for equivalence"
        )
    if margin is not None and not abs(difference) < margin:
        raise InputError(
            f"difference {difference} is not within the margin {margin}: no number of seeds shows "
            "that it is; give a smaller difference or a larger margin"
        )

    def reached(n: int) -> float:
        return _power(n, difference / spread, alpha, None if margin is None else margin / spread)

    high = FEWEST
    while high < MOST and reached(high) < power:
        high = min(2 * high, MOST)
    low = max(FEWEST, high // 2)
    while low < high:  # power rises with n
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= power else (middle + 1, high)
    return SeedsNeeded(high, reached(high))


def _power(n: int, effect: float, alpha: float, margin: float | None) -> float:
    """Power of a paired t test, or of two one-sided ones; all in standard deviations."""
    if margin is None:
        from statsmodels.stats.power import ttest_power

        return float(ttest_power(abs(effect), n, alpha))
    t, root = stats.t.ppf(1 - alpha, n - 1), sqrt(n)
    below = stats.norm.cdf if n > 200 else lambda x, shift: stats.nct.cdf(x, n - 1, shift)
    inside = below(-t, root * (effect - margin)) - below(t, root * (effect + margin))
    return float(np.clip(inside, 0, 1))


def verdict(row: Mapping[str, Any], metric: str = "test_accuracy", alpha: float = 0.05) -> str:
    """Say in one word what a comparison shows: one of :data:`COMPARISON_VERDICTS`.

    ``row`` has ``pairs``, ``difference``, ``p_corrected`` and ``p_equivalent``. More accuracy is
    better, less of any other metric. ``alpha`` is the level of the test of a difference and of each
    of the two one-sided tests. A difference that is claimed and lies within the margin is called by
    its direction.
    """
    if not row["pairs"]:
        return ""
    if row["p_corrected"] < alpha:
        return "better" if (row["difference"] > 0) == metric.endswith("accuracy") else "worse"
    return "equivalent" if row["p_equivalent"] < alpha else "undecided"


def settled_by(
    row: Mapping[str, Any], margin: float | None, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Pairs that might settle what is undecided, if difference and spread are as seen; or NaN."""
    difference, spread = row["difference"], row["pair_spread"]
    if row["verdict"] != "undecided" or not spread > 0:
        return nan
    asked = ([None] if difference else []) + (
        [margin] if margin is not None and abs(difference) < margin else []
    )
    ways = [seeds_needed(difference, spread, power=power, alpha=alpha, margin=m) for m in asked]
    return float(min((way.seeds for way in ways), default=nan))


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
    margin: float | None = MARGIN,
    shown: Sequence[str] = (),
) -> str:
    """Say what one row of :func:`budgetlab.analysis.compare` shows.

    ``row`` also has ``above``, ``pair_spread`` and ``baseline_spread``, ``shown`` are the settings
    that tell the condition from others, and the rest is as for that function.
    """
    ours, baseline, pairs = row["method"], row["baseline"], row["pairs"]
    where = f" ({label(row, shown)})" if shown else ""
    if ours == baseline:
        return f"{ours}{where} is the baseline."
    if pairs == 0:
        return f"{ours}{where}: no run of {baseline} with the same settings and seed to pair with."
    left_out = _left_out(row["dropped"])
    if row["verdict"] == "undecided":
        open_ = f"undecided at n = {pairs}: {ours}{where} against {baseline} is "
        return f"{open_}{_undecided(row, metric, confidence)}{_more_seeds(row)}{left_out}."
    numbers = (
        f"{_size(row['difference'], metric)} ({_interval(row, metric, confidence)}, "
        f"corrected {{}}, n = {pairs} pairs)"
    )
    if row["verdict"] == "equivalent":
        numbers = numbers.format(f"{_p(row['p_equivalent'])} of two one-sided tests")
        within = _size(margin, metric, sign=False)
        return f"{ours}{where} and {baseline} are equivalent within {within}: {numbers}{left_out}."
    small = ""
    if margin is not None and row["p_equivalent"] < 1 - confidence:
        small = f"; the difference is smaller than {_size(margin, metric, sign=False)}"
    numbers = numbers.format(_p(row["p_corrected"]))
    return f"{ours}{where} is {row['verdict']} than {baseline}: {numbers}{small}{left_out}."


def _undecided(row: Mapping[str, Any], metric: str, confidence: float) -> str:
    """What the pairs show although no test decides."""
    pairs, unit = row["pairs"], _unit(metric)
    if pairs == 1:
        return f"{_size(row['difference'], metric)} in a single pair, and one pair has no interval"
    if isnan(row["p"]) and (pairs > 2 or row["lowest"] == row["highest"]):
        size = _size(row["difference"], metric)
        return f"{size} in every pair, so that no spread can be estimated"
    low, high = amount(row["lowest"], metric), amount(row["highest"], metric)
    if pairs == 2:
        return f"{low} and {high}{unit} in the two pairs, too few for an interval{_sides(row)}"
    only = " only because several comparisons were made" if row["p"] < 1 - confidence else ""
    numbers = f"{_interval(row, metric, confidence)}, corrected {_p(row['p_corrected'])}{only}"
    return f"{_size(row['difference'], metric)} ({numbers}), {low} to {high} pair by pair" + (
        _sides(row) + _unequal(row)
    )


def _sides(row: Mapping[str, Any]) -> str:
    """On which side of the baseline the pairs lie: what may be said without any test."""
    pairs, above = row["pairs"], row["above"]
    count = "both" if pairs == 2 else f"all {pairs}"
    if row["lowest"] > 0:
        return f": above it in {count}"
    if row["highest"] < 0:
        return f": below it in {count}"
    return f": above it in {above} of {pairs}" if pairs > 2 else ""


def _unequal(row: Mapping[str, Any]) -> str:
    """Where one of the two varies far more than the other, the interval is about that one."""
    ours, theirs = row.get("spread", np.nan), row.get("baseline_spread", np.nan)
    if not (ours > 0 and theirs > 0) or 1 / 3 < ours / theirs < 3:
        return ""
    name, ratio = row["method"], ours / theirs
    if ratio < 1:
        name, ratio = row["baseline"], 1 / ratio
    return f"; runs of {name} vary {ratio:.0f} times as much as those of the other"


def _more_seeds(row: Mapping[str, Any]) -> str:
    needed = row.get("seeds_to_settle", np.nan)
    if isnan(needed):
        return "; train more seeds" if row["pairs"] < FEWEST else ""
    if needed >= MOST:
        return f"; more than {MOST:,} seeds would be needed to settle it"
    if needed <= row["pairs"]:  # the correction, or luck, is all that was in the way
        return "; a few more seeds might settle it"
    return f"; about {needed:,.0f} seeds might settle it"


def _size(value: float | None, metric: str, sign: bool = True) -> str:
    if value is None:
        return ""
    if sign or not metric.endswith("accuracy"):
        return f"{amount(value, metric, sign)}{_unit(metric)}"
    points = 100 * value
    return f"{points:g} percentage point{'' if points == 1 else 's'}"


def _unit(metric: str) -> str:
    accuracy = metric.endswith("accuracy")
    return " percentage points" if accuracy else f" in {metric.replace('_', ' ')}"


def _interval(row: Mapping[str, Any], metric: str, confidence: float) -> str:
    low, high = amount(row["ci_low"], metric), amount(row["ci_high"], metric)
    return f"{100 * confidence:g}% CI {low} to {high}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _left_out(dropped: int) -> str:
    if not dropped:
        return ""
    return f"; {dropped} run{'s' if dropped > 1 else ''} without a partner left out"
