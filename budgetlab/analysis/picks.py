"""Who was picked: spread of the counts, classes, noisy and ambiguous samples, by epoch."""

import numpy as np
import pandas as pd

from budgetlab.analysis.per_sample import read_blocks
from budgetlab.errors import InputError, unknown
from budgetlab.records import SAMPLE_ARRAYS, Record

__all__ = [
    "class_share",
    "coverage",
    "effective_sample_size",
    "entropy",
    "gini",
    "picks_by",
    "ranked_counts",
    "selection",
]

FLAGS = {"is_noisy": "noisy_share", "is_ambiguous": "ambiguous_share"}


def entropy(counts: np.ndarray) -> float:
    """Entropy of counts or weights ``[N]``, nats: 0 for one sample only, ``ln N`` for equal ones.

    ``H(c) = -sum (c_i / sum c) ln(c_i / sum c)``; NaN where nothing was counted.
    """
    share = _shares(counts)
    positive = share[share > 0]
    return float(-(positive * np.log(positive)).sum()) + 0.0 if len(positive) else float("nan")


def effective_sample_size(counts: np.ndarray) -> float:
    """``(sum c)^2 / sum c^2`` of counts or weights ``[N]``: 1 to N; NaN for all zero."""
    share = _shares(counts)
    return float(1 / (share * share).sum()) if share.any() else float("nan")


def coverage(counts: np.ndarray) -> float:
    """Share of the samples ``[N]`` with a count above zero, 0 to 1."""
    return float((np.asarray(counts) > 0).mean())


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts ``[N]``: 0 where all are equal, ``1 - 1/N`` for one only."""
    ordered = np.sort(_shares(counts))
    if not ordered.any():
        return float("nan")
    n = len(ordered)
    return float(2 * (np.arange(1, n + 1) * ordered).sum() / n - (n + 1) / n)


def _shares(counts: np.ndarray) -> np.ndarray:
    counts = np.nan_to_num(np.asarray(counts, float))
    if counts.ndim != 1 or not len(counts) or (counts < 0).any():
        raise InputError("counts have to be a list of at least one number, none below zero")
    total = counts.sum()
    return counts / total if total else counts


def selection(record: Record) -> pd.DataFrame:
    """Describe, epoch by epoch, whom a run trained on.

    Returns
    -------
    DataFrame
        One row an epoch: ``epoch``; ``trained`` (places in batches this epoch) and
        ``distinct`` (samples that filled them); of the counts up to this epoch
        ``coverage``, ``entropy`` (nats), ``effective_samples`` and ``gini``; of the
        sampling probabilities of this epoch ``q_entropy`` and ``q_effective_samples``
        (NaN where a method draws no distribution); ``noisy_share`` and
        ``ambiguous_share``, of the places of this epoch, where such samples are known.
        ``attrs`` holds the same shares in the whole set, as ``noisy_base`` and
        ``ambiguous_base``, and ``samples``.
    """
    data = record.samples
    # Where it is not known of a sample, it is not counted as one.
    flags = {n: data[f].to_numpy() == 1 for f, n in FLAGS.items() if f in data}
    total = np.zeros(data.sizes["sample"], np.int64)
    draws = record.probability_kind == "draw"
    rows = []
    for first, arrays in read_blocks(record, ("times_trained", "probability")):
        for offset, counts in enumerate(arrays["times_trained"]):
            total += counts
            trained = int(counts.sum())
            q = arrays["probability"][offset] if draws else np.zeros(len(counts))
            row = {
                "epoch": first + offset,
                "trained": trained,
                "distinct": int((counts > 0).sum()),
                "coverage": coverage(total),
                "entropy": entropy(total),
                "effective_samples": effective_sample_size(total),
                "gini": gini(total),
                "q_entropy": entropy(q),
                "q_effective_samples": effective_sample_size(q),
            }
            shares = {name: counts[flag].sum() / max(trained, 1) for name, flag in flags.items()}
            rows.append(row | {name: float(s) if trained else np.nan for name, s in shares.items()})
    frame = pd.DataFrame(rows)
    bases = {name.replace("share", "base"): float(flag.mean()) for name, flag in flags.items()}
    frame.attrs = bases | {"samples": len(total)}
    return frame


def class_share(record: Record) -> pd.DataFrame:
    """Share of each class among the places in batches, by epoch.

    Returns
    -------
    DataFrame
        ``epoch``, ``class`` (its name), ``share`` (0 to 1, summing to 1 in an epoch
        with training) and ``base`` (its share of the training set).
    """
    data = record.samples
    if "label" not in data:
        raise InputError(f"'{record.path}' lacks the labels of its samples")
    labels = data["label"].to_numpy().astype(int)
    names = record.classes
    classes = max(len(names), int(labels.max(initial=-1)) + 1)
    names = names + [str(number) for number in range(len(names), classes)]
    base = np.bincount(labels, minlength=classes) / max(len(labels), 1)
    parts = []
    for first, arrays in read_blocks(record, ("times_trained",)):
        for offset, counts in enumerate(arrays["times_trained"]):
            picked = np.bincount(labels, weights=counts, minlength=classes)
            share = picked / counts.sum() if counts.any() else np.full(classes, np.nan)
            parts.append(pd.DataFrame({"epoch": first + offset, "class": names, "share": share,
                                       "base": base}))  # fmt: skip
    if not parts:
        raise InputError(f"'{record.path}' holds no finished epoch: train for longer")
    return pd.concat(parts, ignore_index=True)


def ranked_counts(record: Record) -> pd.DataFrame:
    """Times each sample was trained on, most trained first.

    Returns
    -------
    DataFrame
        ``rank`` from 1, ``sample`` and ``times_trained``; equal counts in the order of
        the samples.
    """
    total = np.zeros(record.samples.sizes["sample"], np.int64)
    for _, arrays in read_blocks(record, ("times_trained",)):
        total += arrays["times_trained"].sum(axis=0, dtype=np.int64)
    order = np.argsort(-total, kind="stable")
    return pd.DataFrame(
        {"rank": np.arange(1, len(order) + 1), "sample": order, "times_trained": total[order]}
    )


def picks_by(record: Record, column: str = "difficulty", *, groups: int = 10) -> pd.DataFrame:
    """How often does a run train on the easy, and how often on the hard?

    The samples are put into groups of equal size by what is known of them. A uniform
    draw gives 1 in every group, up to chance.

    Parameters
    ----------
    record
        A run whose data say something of each sample.
    column
        What is known of each sample, a number such as ``difficulty``. Of equal values
        the lower number of a sample comes first.
    groups
        How many, from 1 to the number of samples.

    Returns
    -------
    DataFrame
        One row a group, lowest values first: ``group`` (from 1), ``middle`` (mean of
        the column), ``picked`` (places in batches over those that a uniform draw would
        give), ``never`` (share never trained on, 0 to 1) and ``samples``.

    Raises
    ------
    InputError
        If the record does not know the column, or ``groups`` is out of its range.
    """
    data = record.samples
    metadata = [str(n) for n in data if data[n].dims == ("sample",) and n not in SAMPLE_ARRAYS]
    numbers = sorted(name for name in metadata if np.issubdtype(data[name].dtype, np.number))
    if column not in numbers:
        raise unknown("column", column, numbers)
    size = data.sizes["sample"]
    if not 1 <= groups <= size:
        raise InputError(f"{groups} groups of {size} samples cannot be made: give 1 to {size}")
    known = ranked_counts(record).set_index("sample").sort_index()
    known["value"] = data[column].to_numpy().astype(float)
    mean = known["times_trained"].mean()
    place = known["value"].rank(method="first").sub(1).mul(groups).floordiv(size)
    found = known.assign(never=known["times_trained"] == 0).groupby(place)
    frame = found.agg(middle=("value", "mean"), picked=("times_trained", "mean"),
                      never=("never", "mean"), samples=("value", "size"))  # fmt: skip
    frame["picked"] = frame["picked"] / mean if mean else np.nan
    frame.insert(0, "group", np.arange(1, groups + 1))
    frame.attrs = {"column": column}
    return frame.reset_index(drop=True)
