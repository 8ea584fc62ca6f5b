"""Which samples a run picked and how well it learned them, by epoch and by class."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd

from budgetlab.analysis.conditions import require_same_data
from budgetlab.analysis.per_sample import measures, metadata, read_epochs, require_epochs
from budgetlab.errors import InputError, known, one_line, whole
from budgetlab.records import SAMPLE_ARRAYS, OneRecord, open_record

FLAGS = {"is_noisy": "noisy_share", "is_ambiguous": "ambiguous_share"}
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def entropy(counts: np.ndarray) -> float:
    """Compute the entropy of counts or weights ``[N]`` in nats: 0 (one sample) to ``ln N`` (equal).

    ``H(c) = -sum (c_i / sum c) ln(c_i / sum c)``; NaN if all are zero.
    """
    share = _shares(counts)
    positive = share[share > 0]
    return float(-(positive * np.log(positive)).sum()) + 0.0 if len(positive) else float("nan")


def effective_sample_size(counts: np.ndarray) -> float:
    """Compute ``(sum c)^2 / sum c^2`` of counts or weights ``[N]``: 1 to N; NaN if all are zero."""
    share = _shares(counts)
    return float(1 / (share * share).sum()) if share.any() else float("nan")


def coverage(counts: np.ndarray) -> float:
    """Compute the share of samples with a count above zero, 0 to 1, from counts ``[N]``."""
    return float((_shares(counts) > 0).mean())


def gini(counts: np.ndarray) -> float:
    """Compute the Gini coefficient of counts ``[N]``: 0 (all equal) to ``1 - 1/N`` (one sample)."""
    ordered = np.sort(_shares(counts))
    n = len(ordered)
    found = float(2 * (np.arange(1, n + 1) * ordered).sum() / n - (n + 1) / n)
    return found if ordered.any() else float("nan")


def _shares(counts: np.ndarray) -> np.ndarray:
    try:
        known = np.nan_to_num(np.asarray(counts, float), posinf=np.inf)
    except (TypeError, ValueError, OverflowError):
        known = np.zeros(0)
    if known.ndim != 1 or not len(known) or not ((known >= 0) & (known < np.inf)).all():
        raise InputError("counts have to be a list of at least one number, none below zero or "
                         f"infinite, not {one_line(repr(counts), 60)}")  # fmt: skip
    total = known.sum()
    return known / total if total else known


def selection(record: OneRecord) -> pd.DataFrame:
    """Summarise which samples a run trained on, epoch by epoch.

    One row per epoch: ``epoch``; ``trained`` (places in batches) and ``distinct`` (different
    samples in them); ``coverage``, ``entropy`` (nats), ``effective_samples`` and ``gini`` of the
    cumulative counts; ``q_entropy`` and ``q_effective_samples`` of the sampling probabilities (NaN
    if the method samples from no distribution); and, where known, ``noisy_share`` and
    ``ambiguous_share`` of the places. ``attrs`` holds these shares of the whole set, ``noisy_base``
    and ``ambiguous_base``, and its size, ``samples``. In a record thinned to some samples,
    ``trained`` and ``distinct`` count only these, and the rest are estimates for all samples.
    """
    record = open_record(record)
    require_epochs(record)
    data = record.samples
    # Samples whose flag is unknown do not count.
    flags = {n: data[f].to_numpy() == 1 for f, n in FLAGS.items() if f in data}
    total = np.zeros(data.sizes["sample"], np.int64)
    draws = record.probability_kind == "draw"
    thinned, rows = record.about.get("thinned"), []
    times = thinned["of"] / thinned["samples"] if thinned else 1.0
    more = np.log(times)
    for epoch, arrays in read_epochs(record, ("times_trained", "probability")):
        counts = arrays["times_trained"]
        total += counts
        trained = int(counts.sum())
        q = arrays["probability"] if draws else np.zeros(len(counts))
        shares = {n: counts[flag].sum() / trained if trained else np.nan
                  for n, flag in flags.items()}  # fmt: skip
        rows.append({
            "epoch": epoch, "trained": trained, "distinct": int((counts > 0).sum()),
            "coverage": coverage(total), "entropy": entropy(total) + more,
            "effective_samples": effective_sample_size(total) * times, "gini": gini(total),
            "q_entropy": entropy(q) + more,
            "q_effective_samples": effective_sample_size(q) * times, **shares,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    bases = {name.replace("share", "base"): float(flag.mean()) for name, flag in flags.items()}
    frame.attrs = bases | {"samples": len(total)}
    return frame


def class_share(record: OneRecord) -> pd.DataFrame:
    """Return the share of each class among the places in batches, by epoch.

    Columns are ``epoch``, ``class`` (name), ``share`` (0 to 1; sums to 1 in an epoch with training)
    and ``base`` (share of the training set). Samples without a known label form the class
    ``unknown``.
    """
    record = open_record(record)
    data = record.samples
    if "label" not in data:
        raise InputError(f"'{record.path}' lacks the labels of its samples")
    labels = data["label"].to_numpy().astype(int)
    classes = max(len(record.classes), int(labels.max(initial=-1)) + 1)
    names = record.classes + [str(number) for number in range(len(record.classes), classes)]
    if (labels < 0).any():
        labels, names = np.where(labels < 0, classes, labels), [*names, "unknown"]
        classes += 1
    base = np.bincount(labels, minlength=classes) / max(len(labels), 1)
    parts = []
    require_epochs(record)
    for epoch, arrays in read_epochs(record, ("times_trained",)):
        counts = arrays["times_trained"]
        picked = np.bincount(labels, weights=counts, minlength=classes)
        share = picked / counts.sum() if counts.any() else np.full(classes, np.nan)
        parts.append(pd.DataFrame({"epoch": epoch, "class": names, "share": share, "base": base}))
    return pd.concat(parts, ignore_index=True)


def ranked_counts(record: OneRecord) -> pd.DataFrame:
    """Count how often each sample was trained on, most often first, ties by sample number.

    Columns are ``rank`` from 1, ``sample`` and ``times_trained``.
    """
    record = open_record(record)
    total = np.zeros(record.samples.sizes["sample"], np.int64)
    for _, arrays in read_epochs(record, ("times_trained",)):
        total += arrays["times_trained"]
    order = np.argsort(-total, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    return pd.DataFrame({"rank": ranks, "sample": order, "times_trained": total[order]})


def _in_groups(values: pd.Series, groups: int) -> pd.Series:
    """Assign each value to one of ``groups`` equal-sized groups, numbered from 0, lowest first."""
    return values.rank(method="first").sub(1).mul(groups).floordiv(len(values))


def picks_by(record: OneRecord, column: str = "difficulty", *, groups: int = 10) -> pd.DataFrame:
    """Measure how often a run trained on easy and on hard samples, in groups of equal size.

    ``column`` is numeric metadata, such as ``difficulty``; samples without a value are left out.
    One row per group, lowest values first: ``group`` (from 1), ``middle`` (mean of the column),
    ``picked`` (relative to uniform sampling), ``never`` (share not trained on) and ``samples``.
    """
    record = open_record(record)
    data = record.samples
    numbers = sorted(n for n in metadata(record) if np.issubdtype(data[n].dtype, np.number))
    column = known("column", column, numbers)
    counts = ranked_counts(record).set_index("sample").sort_index()
    mean, never = counts["times_trained"].mean(), counts["times_trained"] == 0
    counts = counts.assign(value=data[column].to_numpy().astype(float), never=never).dropna()
    groups = whole("groups", groups, 1, len(counts))
    frame = counts.groupby(_in_groups(counts["value"], groups)).agg(
        middle=("value", "mean"), picked=("times_trained", "mean"), never=("never", "mean"),
        samples=("value", "size"),
    )  # fmt: skip
    frame["picked"] = frame["picked"] / mean if mean else np.nan
    frame.insert(0, "group", np.arange(1, groups + 1))
    frame.attrs = {"column": column}
    return frame.reset_index(drop=True)


def quantiles(record: OneRecord, array: str, levels: Sequence[float] = QUANTILES) -> pd.DataFrame:
    """Compute quantiles of one per-sample array over the samples, epoch by epoch.

    ``array`` is one of :data:`budgetlab.records.SAMPLE_ARRAYS`, such as ``loss``; ``levels`` are in
    [0, 1]. The index is ``epoch``, without epochs that have no value; columns are the levels, ``n``
    (samples with a value), and for ``probability`` also its ``kind``, ``draw`` or ``keep``.
    """
    array = known("array", array, SAMPLE_ARRAYS)
    given = levels if isinstance(levels, Sequence | np.ndarray) else [None]
    if not len(given) or not all(isinstance(level, Real) and 0 <= level <= 1 for level in given):
        raise InputError(f"levels {levels!r} are not allowed: give a list of numbers in [0, 1]")
    record = open_record(record)
    rows = {}
    for epoch, arrays in read_epochs(record, (array,)):
        values = arrays[array].astype(float)
        # Without a visit, correct is -1 and every other array NaN.
        found = values[values >= 0 if array == "correct" else ~np.isnan(values)]
        if len(found):
            rows[epoch] = [*np.quantile(found, levels), len(found)]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*levels, "n"])
    if array == "probability":
        frame["kind"] = record.probability_kind
    return frame.rename_axis("epoch")


def one_epoch(record: OneRecord, epoch: int = -1) -> pd.DataFrame:
    """Return every per-sample array of one epoch, one row per sample.

    ``epoch`` counts from 1, negative numbers from the end. The index is ``sample``; columns are
    :data:`budgetlab.records.SAMPLE_ARRAYS`; ``last_loss``, the loss at the last visit in an earlier
    epoch, which a method could know when it sampled (NaN before the first visit, or if thinning
    removed that epoch); ``kind`` of the ``probability``, ``draw`` or ``keep``; and ``epoch``.
    """
    record = open_record(record)
    data = record.samples
    count = data.sizes["epoch"]
    if not isinstance(epoch, Integral) or epoch is True or not 1 <= abs(epoch) <= count:
        raise InputError(f"epoch {epoch!r} does not exist in '{record.path}': it has 1 to {count}")
    number = count + 1 + epoch if epoch < 0 else epoch
    last = np.full(data.sizes["sample"], np.nan)
    kept = record.about.get("thinned", {}).get("epochs", range(1, count + 1))
    for earlier, arrays in read_epochs(record, ("loss", "times_trained"), number):
        if earlier < number:
            # Of an epoch removed by thinning, only which samples were visited is known.
            seen = ~np.isnan(arrays["loss"]) if earlier in kept else arrays["times_trained"] > 0
            np.copyto(last, arrays["loss"], where=seen)
    columns = {name: data[name].isel(epoch=number - 1).to_numpy() for name in SAMPLE_ARRAYS}
    frame = pd.DataFrame(columns | {"last_loss": last}).rename_axis("sample")
    return frame.assign(kind=record.probability_kind, epoch=number)


def sample_life(record: OneRecord, sample: int) -> pd.DataFrame:
    """Return everything recorded about one sample, one row per epoch.

    Columns are ``epoch`` and :data:`budgetlab.records.SAMPLE_ARRAYS`; NaN or -1 without a visit.
    """
    record = open_record(record)
    size = record.samples.sizes["sample"]
    sample = whole("sample", sample, 0, size - 1)
    one = record.samples.isel(sample=sample)
    return pd.DataFrame({name: one[name].to_numpy() for name in ("epoch", *SAMPLE_ARRAYS)})


def calibration(record: OneRecord, bins: int = 10) -> pd.DataFrame:
    """Compare the credited probability with how often the label has the highest logit.

    Under mixing, an image holds several samples. In each of ``bins`` of equal width in credited
    probability, ``right`` is the share of visits where the label had the highest logit. For a
    useful credit rule the two rise together. One row per bin with visits: ``p_y`` (mean),
    ``right`` and ``visits``.
    """
    sums, record = np.zeros((3, whole("bins", bins))), open_record(record)
    require_epochs(record)
    for _, arrays in read_epochs(record, ("p_y", "correct")):
        seen = arrays["correct"] >= 0
        p_y, right = arrays["p_y"][seen], arrays["correct"][seen]
        place = np.minimum((p_y * bins).astype(int), bins - 1)
        for row, weights in enumerate((p_y, right, np.ones(len(p_y)))):
            sums[row] += np.bincount(place, weights, minlength=bins)
    p_y, right, n = sums[:, sums[2] > 0]
    return pd.DataFrame({"p_y": p_y / n, "right": right / n, "visits": n.astype(int)})


def credit_by_reference(record: OneRecord, reference: OneRecord, bins: int = 10) -> pd.DataFrame:
    """Compare the credit each sample receives with its confidence in a run without mixing.

    A rule that credits the right sample gives more to samples that a ``reference`` run on the same
    data knows better; one that credits samples not in the image gives the same to all. One row for
    each of ``bins`` groups: ``reference`` and ``credited`` (means of the samples' mean ``p_y``) and
    ``samples``; ``attrs["spearman"]`` is the rank correlation over samples.
    """
    record, reference, bins = open_record(record), open_record(reference), whole("bins", bins)
    require_same_data([record, reference])
    both = {"reference": reference, "credited": record}
    known = pd.DataFrame({name: measures(run)["confidence"] for name, run in both.items()}).dropna()
    if len(known) < bins:
        raise InputError(f"{len(known)} samples were seen by both runs: fewer than {bins} groups")
    groups = known.groupby(_in_groups(known["reference"], bins))
    frame = groups.mean().assign(samples=groups.size()).reset_index(drop=True)
    frame.attrs = {"spearman": float(known.rank().corr().iloc[0, 1])}
    return frame
