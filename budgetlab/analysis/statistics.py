"""Paired differences, the claims they support, and how many seeds a claim needs."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan, sqrt
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from budgetlab.analysis.conditions import label
from budgetlab.errors import InputError, counted

MARGIN = 0.01
"""One percentage point of accuracy: differences within it are called equivalent."""
MIN_PAIRS = 3  # pairs for an interval: at n = 2 it is 12.7 standard errors wide and says nothing
MAX_PAIRS = 10_000

COMPARISON_VERDICTS = {
    "better": "the corrected p of a difference in the right direction is below alpha",
    "worse": "the corrected p of a difference in the wrong direction is below alpha",
    "equivalent": "two one-sided tests put the difference within the margin",
    "undecided": "none of these: more seeds might tell",
    "": "nothing was compared: the baseline itself, or no pair",
}
"""Results of :func:`verdict` and their conditions."""


@dataclass(frozen=True)
class Paired:
    """Statistics of a paired difference; NaN where undefined.

    ``lowest`` and ``highest`` are the extremes of the differences, ``above`` counts positive
    ones, ``spread`` is their standard deviation (ddof 1), and ``p_equivalent`` is the p-value of
    the two one-sided tests.
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

    - ``ours``, ``baseline``: float ``[n]``, pair by pair.
    - ``confidence``: confidence level of the two-sided interval, in (0, 1).
    - ``margin``: equivalence margin (Schuirmann 1987); None for no equivalence test.

    Returns
    -------
    Paired
        Mean of ``ours - baseline``, its interval ``d ± t(n-1) s / sqrt(n)``, the two-sided
        p, and the larger p of two one-sided tests. Interval and p are NaN with fewer than
        three pairs, or if all differences are equal, which leaves no spread to estimate.
    """
    require_in_open_unit_interval(confidence=confidence)
    shapes = np.shape(ours), np.shape(baseline)
    if shapes[0] != shapes[1] or len(shapes[0]) != 1:
        raise InputError(f"values of shape {shapes[0]} and {shapes[1]} are not pairs: give as many "
                         "of one as of the other, [n] each")  # fmt: skip
    d = np.asarray(ours, float) - np.asarray(baseline, float)
    n = len(d)
    if n == 0:
        return Paired()
    mean, above = float(d.mean()), int((d > 0).sum())
    seen = Paired(n, mean, float(d.min()), float(d.max()), above)
    # Differences that are equal up to rounding count as equal.
    if n == 1 or np.ptp(d) <= 1e-12 * max(1.0, float(np.abs(d).max())):
        return seen
    seen = replace(seen, spread=float(d.std(ddof=1)))
    if n < MIN_PAIRS:
        return seen
    low, high = mean_interval(d, confidence)
    error = seen.spread / sqrt(n)
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    equal = nan if margin is None else float(stats.t.sf((margin - abs(mean)) / error, n - 1))
    return replace(seen, ci_low=low, ci_high=high, p=p, p_equivalent=equal)


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[Any, Any]:
    """Compute Student's t interval of the mean of ``values``, at ``confidence`` in (0, 1).

    The mean is over the first axis of ``[n, ...]``; NaN with fewer than three values.
    """
    require_in_open_unit_interval(confidence=confidence)
    values = np.asarray(values, float)
    n = len(values)
    mean = values.mean(0) if n else np.nan
    half = np.full_like(mean, np.nan)
    if n >= MIN_PAIRS:
        half = stats.t.ppf((1 + confidence) / 2, n - 1) * (values.std(0, ddof=1) / sqrt(n))
    low, high = mean - half, mean + half
    return (float(low), float(high)) if values.ndim == 1 else (low, high)


def require_in_open_unit_interval(**shares: float) -> None:
    """Raise an error for a value outside (0, 1)."""
    for name, value in shares.items():
        if not isinstance(value, Real) or not 0 < value < 1:
            raise InputError(f"{name} {value!r} is not allowed: give a number in (0, 1)")


def holm(p: pd.Series) -> pd.Series:
    """Correct p-values for multiple tests (Holm 1979); NaN stays and does not count as a test."""
    # statsmodels runs the garbage collector on every call: 0.15 s in a large process.
    tests = p.dropna().sort_values()
    times = np.arange(len(tests), 0, -1)
    raised = np.minimum(np.maximum.accumulate(times * tests.to_numpy(float)), 1)
    return pd.Series(raised, index=tests.index, dtype=float).reindex(p.index)


class SeedsNeeded(NamedTuple):
    """Number of paired seeds, and the power it gives (0 to 1)."""

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
    """Compute how many paired seeds it takes to detect a difference, or to show equivalence.

    Also exact for few seeds: the test is Student's t, whose threshold at two pairs is 12.7 standard
    errors rather than 2, and its power follows the noncentral t distribution. Returns the smallest
    number of pairs, at least 3 as for every interval of the kit and at most 10,000, with the power
    it gives.

    Parameters
    ----------
    difference
        True mean difference to detect, such as 0.01 for one percentage point; with
        ``margin``, the true difference for which to show equivalence.
    spread
        Standard deviation of the paired differences (not of the runs themselves), above 0.
    power
        Desired power, in (0, 1).
    alpha
        Level of the two-sided test, or of each of two one-sided tests, in (0, 1).
    margin
        Test for equivalence within ``± margin`` instead (two one-sided tests; the power is
        the usual approximation by two noncentral t distributions).

    Examples
    --------
    >>> import budgetlab as bl
    >>> bl.analysis.seeds_needed(0.01, 0.008).seeds
    8
    """
    require_in_open_unit_interval(power=power, alpha=alpha)
    if not spread > 0 or not np.isfinite(spread):
        raise InputError(f"spread {spread} is not allowed: give a standard deviation above 0")
    if margin is None and (difference == 0 or not np.isfinite(difference)):
        raise InputError(
            f"difference {difference} cannot be found: give another, or margin= for equivalence"
        )
    if margin is not None and not abs(difference) < margin:
        raise InputError(
            f"difference {difference} is not within the margin {margin}: give a larger margin"
        )

    def reached(n: int) -> float:
        return _power(n, difference / spread, alpha, None if margin is None else margin / spread)

    high = MIN_PAIRS
    while high < MAX_PAIRS and reached(high) < power:
        high = min(2 * high, MAX_PAIRS)
    low = max(MIN_PAIRS, high // 2)
    seeds = low + bisect_left(range(low, high), power, key=reached)  # power rises with n
    return SeedsNeeded(seeds, reached(seeds))


def _power(n: int, effect: float, alpha: float, margin: float | None) -> float:
    """Compute the power of a paired t test, or of two one-sided ones, in standard deviations."""
    if margin is None:
        from statsmodels.stats.power import ttest_power

        return float(ttest_power(abs(effect), n, alpha))
    t, root = stats.t.ppf(1 - alpha, n - 1), sqrt(n)
    below = stats.norm.cdf if n > 200 else lambda x, shift: stats.nct.cdf(x, n - 1, shift)
    inside = below(-t, root * (effect - margin)) - below(t, root * (effect + margin))
    return float(np.clip(inside, 0, 1))


def verdict(row: Mapping[str, Any], metric: str = "test_accuracy", alpha: float = 0.05) -> str:
    """Classify a comparison as one of :data:`COMPARISON_VERDICTS`.

    ``row`` has ``pairs``, ``difference``, ``p_corrected`` and ``p_equivalent``. Higher accuracy is
    better, lower values of any other metric. ``alpha`` is the level of the test for a difference
    and of each of the two one-sided tests. A significant difference within the margin is still
    called better or worse.
    """
    if not row["pairs"]:
        return ""
    if row["p_corrected"] < alpha:
        return "better" if (row["difference"] > 0) == metric.endswith("accuracy") else "worse"
    return "equivalent" if row["p_equivalent"] < alpha else "undecided"


def pairs_to_settle(
    row: Mapping[str, Any], margin: float | None, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Return the pairs likely to settle an undecided row, if effect and spread hold; else NaN."""
    difference, spread = row["difference"], row["pair_spread"]
    if row["verdict"] != "undecided" or not spread > 0:
        return nan
    asked: list[float | None] = [None] if difference else []
    asked += [margin] if margin is not None and abs(difference) < margin else []
    ways = [seeds_needed(difference, spread, power=power, alpha=alpha, margin=m) for m in asked]
    return float(min((way.seeds for way in ways), default=nan))


def amount(value: float, metric: str, sign: bool = True) -> str:
    """Format a value or a difference; accuracies in percent or percentage points."""
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
    """Describe one row of a comparison; the settings in ``shown`` distinguish its condition."""
    baseline, pairs, said = row["baseline"], row["pairs"], row["verdict"]
    ours = row["method"] + (f" ({label(row, shown)})" if shown else "")
    if row["method"] == baseline:
        return f"{ours} is the baseline."
    if pairs == 0:
        return f"{ours}: no run of {baseline} with the same settings and seed to pair with."
    left = f"; {counted(row['dropped'], 'run')} without a partner left out" * bool(row["dropped"])
    accuracy = metric.endswith("accuracy")
    unit = " percentage points" if accuracy else f" in {metric.replace('_', ' ')}"
    interval = f"{100 * confidence:g}% CI {_between(row, 'ci_low', 'to', 'ci_high', metric)}"
    size = f"{amount(row['difference'], metric)}{unit}"
    if said == "undecided":
        seen = _undecided(row, metric, size, unit, interval, confidence)
        return f"Whether {ours} differs from {baseline} is undecided: {seen}{left}."
    within = "" if margin is None else f"{amount(margin, metric, False)}{unit}"
    if margin is not None and accuracy:
        within = f"{100 * margin:g} percentage point{'s' * (100 * margin != 1)}"
    if said == "equivalent":
        p = f"{_p(row['p_equivalent'])} of two one-sided tests"
        head, tail = f"{ours} and {baseline} are equivalent within {within}", ""
    else:
        p, head = _p(row["p_corrected"]), f"{ours} is {said} than {baseline}"
        small = margin is not None and row["p_equivalent"] < 1 - confidence
        tail = f"; the difference is smaller than {within}" if small else ""
    return f"{head}: {size} ({interval}, corrected {p}, n = {pairs} pairs){tail}{left}."


def _undecided(
    row: Mapping[str, Any], metric: str, size: str, unit: str, interval: str, confidence: float
) -> str:
    """Describe the pairs of an undecided row, and how many more seeds might settle it."""
    pairs, more = row["pairs"], _more_seeds(row)
    if pairs == 1:
        return f"{size} in a single pair, which gives no interval{more}"
    if isnan(row["p"]) and (pairs > 2 or row["lowest"] == row["highest"]):
        return f"{size} in each of the {pairs} pairs, which leaves no spread to estimate{more}"
    if pairs == 2:
        both = _between(row, "lowest", "and", "highest", metric)
        return f"{both}{unit} in the two pairs, too few for an interval{more}"
    once = f" but {_p(row['p'])} before the correction" if row["p"] < 1 - confidence else ""
    each = _between(row, "lowest", "to", "highest", metric)
    above = row["above"]
    return (
        f"{size} ({interval}, corrected {_p(row['p_corrected'])}{once}, n = {pairs} pairs); the "
        f"pairs range from {each}, {'all' if above == pairs else above or 'none'} of them above "
        f"zero{_unequal_spread_note(row)}{more}"
    )


def _between(row: Mapping[str, Any], low: str, word: str, high: str, metric: str) -> str:
    return f"{amount(row[low], metric)} {word} {amount(row[high], metric)}"


def _p(p: float) -> str:
    # A p just below the usual level must not be printed as if it had reached it.
    digits = 4 if 0.0495 <= p < 0.05 else 3
    return "p < 0.001" if p < 0.001 else f"p = {p:.{digits}f}"


def _unequal_spread_note(row: Mapping[str, Any]) -> str:
    """Note if one of the two varies far more than the other, and so dominates the interval."""
    ours, theirs = row.get("spread", nan), row.get("baseline_spread", nan)
    if not (ours > 0 and theirs > 0) or 1 / 3 < ours / theirs < 3:
        return ""
    names = (row["method"], row["baseline"])
    more, less = names if ours > theirs else names[::-1]
    ratio = max(ours / theirs, theirs / ours)
    return f"; the runs of {more} vary {ratio:.0f} times as much as those of {less}"


def _more_seeds(row: Mapping[str, Any]) -> str:
    needed = row.get("seeds_to_settle", nan)
    if isnan(needed):
        return "; train more seeds" if row["pairs"] < MIN_PAIRS else ""
    if needed >= MAX_PAIRS:
        return f"; more than {MAX_PAIRS:,} seeds would be needed to settle it"
    if needed <= row["pairs"]:  # only the correction, or chance, prevented a verdict
        return "; a few more seeds might settle it"
    return f"; about {needed:,.0f} seeds might settle it"
