"""Agreement of hardness measures with each other, between runs, and with known wrong labels.

Where the metadata ``is_noisy`` marks wrong labels: which measure finds them, which method picks
them, and what they cost. For data without it see :func:`budgetlab.analysis.triage`.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from scipy.stats import rankdata
from statsmodels.stats.proportion import proportion_confint

from budgetlab.analysis.conditions import (
    condition_columns,
    require_same_data,
    summaries,
    usable,
    varying,
)
from budgetlab.analysis.per_sample import HARD, check_measure, hardness, measures
from budgetlab.analysis.samples import selection
from budgetlab.analysis.statistics import mean_interval, require_in_open_unit_interval
from budgetlab.errors import InputError, unknown
from budgetlab.records import OneRecord, Record, Records, open_records

LABELS = ("method", "noise_kind", "label_noise", "budget", "seed")


def agreement(
    a: pd.Series, b: pd.Series, *, top: float = 0.1, confidence: float = 0.95
) -> dict[str, float]:
    """Compute the rank correlation of two measures and the overlap of their top samples.

    - ``a``, ``b``: one value per sample, aligned by index; samples with NaN in either are left out.
      High values must mean the same in both: see :func:`budgetlab.analysis.hardness`.
    - ``top``: share of the samples that counts as the top, in (0, 1).
    - ``confidence``: confidence level of the intervals, in (0, 1).

    Returns
    -------
    dict
        ``n``; ``spearman`` with ``spearman_ci_low`` and ``spearman_ci_high`` (Fisher's z with
        the standard error of Bonett & Wright 2000, equation 6); ``top`` (number of samples in
        it); ``overlap`` (share of one top that is also in the other; ties share the last places
        evenly) with ``overlap_ci_low`` and ``overlap_ci_high`` (Wilson interval, treating the
        places as independent) and ``overlap_by_chance``.
    """
    require_in_open_unit_interval(top=top, confidence=confidence)
    pairs = pd.concat([a, b], axis=1, keys=["a", "b"], join="inner").dropna().to_numpy(float)
    n = len(pairs)
    if n < 4:
        raise InputError(f"{n} samples have both values: at least 4 are needed to compare ranks")
    size = max(1, round(n * top))
    overlap = float((top_share(pairs[:, 0], size) * top_share(pairs[:, 1], size)).sum() / size)
    low, high = proportion_confint(overlap * size, size, 1 - confidence, method="wilson")
    rho, rho_low, rho_high = _spearman(pairs[:, 0], pairs[:, 1], confidence)
    return {
        "n": n, "spearman": rho, "spearman_ci_low": rho_low, "spearman_ci_high": rho_high,
        "top": size, "overlap": overlap, "overlap_ci_low": float(low),
        "overlap_ci_high": float(high), "overlap_by_chance": size / n,
    }  # fmt: skip


def top_share(values: np.ndarray, size: int) -> np.ndarray:
    """Return membership, 0 to 1, in the ``size`` highest of ``values [n]``; ties share places."""
    threshold = np.sort(values)[-size]
    above, tied = values > threshold, values == threshold
    return above + tied * ((size - above.sum()) / tied.sum())


def _spearman(a: np.ndarray, b: np.ndarray, confidence: float) -> tuple[float, float, float]:
    ranks_a, ranks_b = rankdata(a), rankdata(b)
    if not np.ptp(ranks_a) or not np.ptp(ranks_b):
        return (float("nan"),) * 3
    rho = float(np.corrcoef(ranks_a, ranks_b)[0, 1])
    error = np.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    half = stats.norm.ppf((1 + confidence) / 2) * error
    z = np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))
    return rho, float(np.tanh(z - half)), float(np.tanh(z + half))


def measure_agreement(
    frame: pd.DataFrame, names: Sequence[str] | str | None = None, *, top: float = 0.1
) -> pd.DataFrame:
    """Compare every pair of measures of one run, one row each with the values of :func:`agreement`.

    ``frame`` comes from :func:`budgetlab.analysis.measures`; ``names`` are by default all measures
    of hardness. Those where low values are hard are negated, so that agreement is positive.
    """
    return _pairs(hardness(frame) if names is None else _sign_aligned(frame, names, 2), top)


def run_agreement(
    records: Records, measure: str = "confidence", *, top: float = 0.1
) -> pd.DataFrame:
    """Compare one measure between every pair of runs on the same data.

    One row per pair: ``a`` and ``b`` (paths) and the values of :func:`agreement`.
    """
    runs = open_records(records)
    require_same_data(runs)
    if len(runs) < 2:
        raise InputError(f"'{runs[0].path}' is a single run: give two or more to compare")
    columns = {str(run.path): _sign_aligned(measures(run), [measure])[measure] for run in runs}
    return _pairs(pd.DataFrame(columns), top)


def _pairs(columns: pd.DataFrame, top: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"a": a, "b": b} | agreement(columns[a], columns[b], top=top)
        for a, b in combinations(columns, 2)
    )


def _sign_aligned(frame: pd.DataFrame, names: Sequence[str] | str, least: int = 1) -> pd.DataFrame:
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        check_measure(frame, name)
    if len(names) < least:
        raise InputError(f"{', '.join(names) or 'no measure'} has none to agree with: give two")
    return pd.DataFrame({name: (HARD.get(name) or 1) * frame[name] for name in names})


def detection(
    data: Records | pd.DataFrame, names: Sequence[str] | None = None, *, epochs: int | None = None
) -> pd.DataFrame:
    """Score how well ranking samples by each measure finds the wrong labels.

    - ``data``: records of runs with label noise, or a frame as from
      :func:`budgetlab.analysis.measures`.
    - ``names``: measures; by default all measures of hardness.
    - ``epochs``: use only this many epochs, from the first; all by default.

    Returns
    -------
    DataFrame
        One row per run and measure, best first within a run: the settings ``method``,
        ``noise_kind``, ``label_noise``, ``budget`` and ``seed`` (records only);
        ``measure``; ``average_precision`` and ``roc_auc`` (scikit-learn's);
        ``precision`` and ``recall`` (of all wrong labels) of a list as long as the number of
        wrong labels among samples with a value (ties at its end share the places); ``n`` samples
        with a value and ``unknown`` without (never trained on); and ``base``, the share of wrong
        labels among the ``n``, which is the average precision of guessing.
    """
    if isinstance(data, pd.DataFrame):
        return _detect(data, names)
    return pd.concat(
        [
            _with_run_settings(
                _detect(measures(record, epochs=epochs), names, str(record.path)), record
            )
            for record in open_records(data)
        ],
        ignore_index=True,
    )


def _with_run_settings(frame: pd.DataFrame, record: Record) -> pd.DataFrame:
    named = pd.DataFrame({name: [record.config.get(name)] for name in LABELS})
    return named.merge(frame, how="cross")


def _detect(frame: pd.DataFrame, names: Sequence[str] | None, what: str = "this frame"):
    from sklearn.metrics import average_precision_score, roc_auc_score

    rows = []
    for name, ranks, wrong in _ranked(frame, names, what):
        row: dict[str, object] = {"measure": name}
        count = int(wrong.sum())
        if 0 < count < len(wrong):
            found = float((top_share(ranks, count) * wrong).sum())
            row |= {"average_precision": float(average_precision_score(wrong, ranks)),
                    "roc_auc": float(roc_auc_score(wrong, ranks)), "precision": found / count,
                    "recall": found / int(frame["is_noisy"].sum())}  # fmt: skip
        told = int(frame["is_noisy"].notna().sum())
        rows.append(row | {"n": len(wrong), "unknown": told - len(wrong),
                           "base": float(wrong.mean())})  # fmt: skip
    table = pd.DataFrame(rows)
    return table.sort_values("average_precision", ascending=False, ignore_index=True)


def _ranked(
    frame: pd.DataFrame, names: Sequence[str] | None, what: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each measure, its ranks ``[n]`` (high is hard), and which labels are wrong ``[n]``."""
    if "is_noisy" not in frame:
        raise InputError(
            f"{what} does not know which labels are wrong: give a run with label noise, or triage"
        )
    frame = frame[frame["is_noisy"].notna()]
    if frame.empty:
        raise InputError(f"{what} does not know of any label whether it is wrong: give true_label=")
    wrong = frame["is_noisy"].astype(bool).to_numpy()
    if not wrong.any() or wrong.all():
        some = "no" if not wrong.any() else "only"
        raise InputError(f"{what} has {some} wrong labels: give a run with label noise in (0, 1)")
    turned = hardness(frame)
    for name in [names] if isinstance(names, str) else names or turned:
        if name not in turned:
            raise unknown("measure of hardness", name, turned)
        values = turned[name].to_numpy(float)
        known = ~np.isnan(values)
        # Ranks, because measures may be infinite, which scikit-learn rejects.
        yield name, rankdata(values[known]), wrong[known]


def detection_curve(
    data: OneRecord | pd.DataFrame, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Compute the precision-recall curve of each measure as a detector of wrong labels.

    Parameters are as for :func:`detection`, for one run. Columns are ``measure``, ``listed``
    (length of the list), ``precision`` and ``recall`` of all wrong labels, which ends below 1 if
    some were never trained on and have no value. ``attrs`` holds ``base``, and by measure
    ``average_precision`` (over samples with a value) and ``unknown`` (samples without one).
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    frame = data if isinstance(data, pd.DataFrame) else measures(data)
    parts, areas, missing = [], {}, {}
    for name, ranks, wrong in _ranked(frame, names, "this run"):
        precision, recall, thresholds = precision_recall_curve(wrong, ranks)
        listed = len(ranks) - np.searchsorted(np.sort(ranks), thresholds)
        # The last point of the curve belongs to an empty list.
        found = recall[:-1] * wrong.sum() / int(frame["is_noisy"].sum())
        part = {"measure": name, "listed": listed, "precision": precision[:-1], "recall": found}
        parts.append(pd.DataFrame(part).iloc[::-1])
        areas[name] = float(average_precision_score(wrong, ranks))
        missing[name] = int(frame["is_noisy"].notna().sum()) - len(wrong)
    curve = pd.concat(parts, ignore_index=True)
    base = float(frame["is_noisy"].mean())
    curve.attrs = {"base": base, "average_precision": areas, "unknown": missing}
    return curve


def noisy_picks(records: Records) -> pd.DataFrame:
    """Measure the share of wrong labels in the batches of each run, epoch by epoch.

    Columns are ``method``, ``noise_kind``, ``label_noise``, ``budget``, ``seed``, ``epoch``,
    ``noisy_share`` (of the places in batches), ``base`` (share of the data), and ``times_base``
    (their ratio).
    """
    parts = []
    for record in open_records(records):
        frame = selection(record)
        if not frame.attrs.get("noisy_base"):
            raise InputError(f"'{record.path}' has no wrong labels: give runs with label noise")
        part = frame[["epoch", "noisy_share"]].assign(base=frame.attrs["noisy_base"])
        part["times_base"] = part["noisy_share"] / part["base"]
        parts.append(_with_run_settings(part, record))
    return pd.concat(parts, ignore_index=True)


def noise_cost(records: Records, *, confidence: float = 0.95) -> pd.DataFrame:
    """Measure what wrong labels cost each method, and how many of them it memorises.

    - ``records``: runs with label noise and, for the cost, otherwise identical runs without.
      Unfinished runs, and all but the latest of repeated runs, are left out with a warning.
    - ``confidence``: confidence level of the interval, in (0, 1).

    Returns
    -------
    DataFrame
        One row per method, budget, kind and share of noise, and any other setting that differs:
        ``n`` runs; ``accuracy`` on test data (true labels); ``cost``, the accuracy lost against
        the run of the same seed without noise, over ``pairs``, and its interval ``cost_ci_low``
        to ``cost_ci_high`` (Student's t; NaN for fewer than three pairs); ``picked``, the share
        of wrong labels among all samples trained on over their share of the data; ``learned``,
        the share of samples with a wrong label that were classified as that label at their
        last visit. Rows without noise have a cost of 0 and no ``picked``.
    """
    require_in_open_unit_interval(confidence=confidence)
    runs = open_records(records)
    frame = summaries(runs)
    # Without noise, its kind makes no difference.
    frame["noise_kind"] = frame["noise_kind"].where(frame["label_noise"] > 0, "none")
    frame = usable(frame, "test_accuracy", ("seed",))
    noted = {place: _noise_statistics(runs[place]) for place in frame.index}
    frame = frame.join(pd.DataFrame.from_dict(noted, orient="index"))
    noise = ["noise_kind", "label_noise"]
    # What a run shares with its partner without noise: all but the noise and the labels it changes.
    same = [name for name in condition_columns(frame) if name not in (*noise, "fingerprint")]
    text = frame[[*same, "seed"]].astype(str)  # so that NaN (not recorded) matches itself
    frame["partner"] = list(text.itertuples(index=False, name=None))
    clean = frame[frame["label_noise"] == 0].set_index("partner")["test_accuracy"]
    shown = [name for name in varying(frame, same) if name not in ("method", "budget")]
    rows = []
    for group, part in frame.groupby([*same, *noise], sort=False, dropna=False):
        own = dict(zip([*same, *noise], group, strict=True))
        cost = (part["partner"].map(clean) - part["test_accuracy"]).dropna().to_numpy()
        low, high = mean_interval(cost, confidence)
        rows.append({name: own[name] for name in ("method", "budget", *noise, *shown)} | {
            "n": len(part), "accuracy": part["test_accuracy"].mean(),
            "cost": float(cost.mean()) if len(cost) else np.nan, "pairs": len(cost),
            "cost_ci_low": low, "cost_ci_high": high,
            "picked": part["picked"].mean(), "learned": part["learned"].mean(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _noise_statistics(record: Record) -> dict[str, float]:
    data = record.samples
    wrong = data["is_noisy"].to_numpy() == 1 if "is_noisy" in data else np.zeros(0, bool)
    if not wrong.any():
        return {"picked": np.nan, "learned": np.nan}
    frame = measures(record)
    share = frame["times_trained"][wrong].sum() / max(frame["times_trained"].sum(), 1)
    # Right at the last visit: the given label was the most likely one.
    final = frame["learning"][wrong & (frame["visits"] > 0)]
    learned = final.isin(["early", "late", "unstable"]).mean()
    return {"picked": float(share / wrong.mean()), "learned": float(learned)}
