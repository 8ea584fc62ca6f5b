"""Do two measures, or two runs, agree on which samples are hard?"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from budgetlab.analysis.per_sample import HARD, check_measure, hardness, measures
from budgetlab.errors import InputError
from budgetlab.records import Record


def agreement(
    a: pd.Series, b: pd.Series, *, top: float = 0.1, confidence: float = 0.95
) -> dict[str, float]:
    """Rank correlation of two measures, and overlap of their highest samples.

    Parameters
    ----------
    a, b
        One value a sample, aligned by index; a sample that is NaN in one of them is
        left out. A high value has to mean the same in both: see
        :func:`budgetlab.analysis.hardness`.
    top
        Share of the samples that counts as the top, in (0, 1).
    confidence
        Of the intervals, in (0, 1).

    Returns
    -------
    dict
        ``n``; ``spearman`` with ``spearman_ci_low`` and ``spearman_ci_high`` (Fisher's z with
        the standard error of Bonett & Wright 2000, equation 6); ``top`` (size of the
        top); ``overlap`` (share of one top that is also in the other; equal values
        share the last places evenly) with ``overlap_ci_low`` and ``overlap_ci_high`` (Wilson
        interval, as if the places were independent) and ``overlap_by_chance``.
    """
    if not 0 < top < 1:
        raise InputError(f"top {top} is not allowed: give a share in (0, 1)")
    pairs = pd.concat([a, b], axis=1, keys=["a", "b"], join="inner").dropna().to_numpy(float)
    n = len(pairs)
    if n < 4:
        raise InputError(f"{n} samples have both values: at least 4 are needed to compare ranks")
    size = max(1, round(n * top))
    overlap = float((top_share(pairs[:, 0], size) * top_share(pairs[:, 1], size)).sum() / size)
    low, high = proportion_confint(overlap * size, size, 1 - confidence, method="wilson")
    rho, rho_low, rho_high = _spearman(pairs[:, 0], pairs[:, 1], confidence)
    return {
        "n": n,
        "spearman": rho,
        "spearman_ci_low": rho_low,
        "spearman_ci_high": rho_high,
        "top": size,
        "overlap": overlap,
        "overlap_ci_low": float(low),
        "overlap_ci_high": float(high),
        "overlap_by_chance": size / n,
    }


def top_share(values: np.ndarray, size: int) -> np.ndarray:
    """Membership in the ``size`` highest of ``values [n]``, each in [0, 1], summing to ``size``.

    Samples tied at the threshold share the places that are left, so that the order in
    which samples are stored never decides.
    """
    threshold = np.sort(values)[-size]
    above, tied = values > threshold, values == threshold
    return above + tied * ((size - above.sum()) / tied.sum())


def _spearman(a: np.ndarray, b: np.ndarray, confidence: float) -> tuple[float, float, float]:
    ranks_a, ranks_b = stats.rankdata(a), stats.rankdata(b)
    if not np.ptp(ranks_a) or not np.ptp(ranks_b):
        return (float("nan"),) * 3
    rho = float(np.corrcoef(ranks_a, ranks_b)[0, 1])
    error = np.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    half = stats.norm.ppf((1 + confidence) / 2) * error
    z = np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))
    return rho, float(np.tanh(z - half)), float(np.tanh(z + half))


def measure_agreement(
    frame: pd.DataFrame, names: Sequence[str] | None = None, *, top: float = 0.1
) -> pd.DataFrame:
    """Compare every two measures of one run.

    Parameters
    ----------
    frame
        As from :func:`budgetlab.analysis.measures`.
    names
        Measures to compare; by default all that say how hard a sample is. Those where
        a low value is hard are turned, so that agreement is positive.

    Returns
    -------
    DataFrame
        One row a pair: ``a``, ``b`` and the values of :func:`agreement`.
    """
    turned = hardness(frame) if names is None else _turned(frame, names)
    rows = [
        {"a": a, "b": b} | agreement(turned[a], turned[b], top=top)
        for a, b in combinations(turned.columns, 2)
    ]
    return pd.DataFrame(rows)


def run_agreement(
    records: Sequence[Record], measure: str = "confidence", *, top: float = 0.1
) -> pd.DataFrame:
    """Compare one measure between every two runs on the same data.

    Returns
    -------
    DataFrame
        One row a pair: ``a`` and ``b`` (paths) and the values of :func:`agreement`.

    Raises
    ------
    InputError
        If two runs were trained on other data.
    """
    first = records[0]
    for other in records[1:]:
        if other.fingerprint != first.fingerprint:
            raise InputError(
                f"'{other.path}' was trained on other data (fingerprint {other.fingerprint}) than "
                f"'{first.path}' ({first.fingerprint}): compare runs on the same data"
            )
    columns = {
        str(record.path): _turned(measures(record), [measure])[measure] for record in records
    }
    rows = [
        {"a": a, "b": b} | agreement(columns[a], columns[b], top=top)
        for a, b in combinations(columns, 2)
    ]
    return pd.DataFrame(rows)


def _turned(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    for name in names:
        check_measure(frame, name)
    return pd.DataFrame({name: (HARD.get(name) or 1) * frame[name] for name in names})
