"""Samples by the epoch, by class and by group: which were picked, how they fared, what for."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from budgetlab.analysis.conditions import require_same_data
from budgetlab.analysis.per_sample import measures, metadata, read_epochs, require_epochs
from budgetlab.analysis.statistics import check_open
from budgetlab.errors import InputError, one_line, unknown, whole
from budgetlab.records import SAMPLE_ARRAYS, OneRecord, open_record

FLAGS = {"is_noisy": "noisy_share", "is_ambiguous": "ambiguous_share"}
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


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
    return float((_shares(counts) > 0).mean())


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts ``[N]``: 0 where all are equal, ``1 - 1/N`` for one only."""
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
    """Describe, epoch by epoch, what a run trained on.

    One row per epoch: ``epoch``; ``trained`` (places in batches) and ``distinct`` (samples that
    filled them); of the counts so far ``coverage``, ``entropy`` (nats), ``effective_samples`` and
    ``gini``; of the sampling probabilities of the epoch ``q_entropy`` and ``q_effective_samples``
    (NaN where a method draws no distribution); ``noisy_share`` and ``ambiguous_share`` of the
    places, where such samples are known. ``attrs`` holds their shares in the whole set, as
    ``noisy_base`` and ``ambiguous_base``, and ``samples``.
    """
    record = open_record(record)
    data = record.samples
    # Where it is not known of a sample, it is not counted as one.
    flags = {n: data[f].to_numpy() == 1 for f, n in FLAGS.items() if f in data}
    total = np.zeros(data.sizes["sample"], np.int64)
    draws = record.probability_kind == "draw"
    rows = []
    for epoch, arrays in read_epochs(record, ("times_trained", "probability")):
        counts = arrays["times_trained"]
        total += counts
        trained = int(counts.sum())
        q = arrays["probability"] if draws else np.zeros(len(counts))
        shares = {n: counts[flag].sum() / trained if trained else np.nan
                  for n, flag in flags.items()}  # fmt: skip
        rows.append({
            "epoch": epoch, "trained": trained, "distinct": int((counts > 0).sum()),
            "coverage": coverage(total), "entropy": entropy(total),
            "effective_samples": effective_sample_size(total), "gini": gini(total),
            "q_entropy": entropy(q), "q_effective_samples": effective_sample_size(q), **shares,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    bases = {name.replace("share", "base"): float(flag.mean()) for name, flag in flags.items()}
    frame.attrs = bases | {"samples": len(total)}
    return frame


def class_share(record: OneRecord) -> pd.DataFrame:
    """Share of each class among the places in batches, by epoch.

    Columns are ``epoch``, ``class`` (its name), ``share`` (0 to 1, summing to 1 in an epoch with
    training) and ``base`` (its share of the training set); samples without a known label are a
    class ``unknown``.
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
    """Times each sample was trained on, most trained first, equal counts in the samples' order.

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
    """Number of the group of each value, from 0, lowest first and of one size."""
    return values.rank(method="first").sub(1).mul(groups).floordiv(len(values))


def picks_by(record: OneRecord, column: str = "difficulty", *, groups: int = 10) -> pd.DataFrame:
    """How often does a run train on the easy, and how often on the hard? By groups of one size.

    ``column`` is a number, such as ``difficulty``; samples without one are left out. One row a
    group, lowest values first: ``group`` (from 1), ``middle`` (mean of the column), ``picked``
    (places in batches over those of a uniform draw), ``never`` (share not trained on), ``samples``.
    """
    record = open_record(record)
    data = record.samples
    numbers = sorted(n for n in metadata(record) if np.issubdtype(data[n].dtype, np.number))
    if column not in numbers:
        raise unknown("column", column, numbers)
    known = ranked_counts(record).set_index("sample").sort_index()
    mean, never = known["times_trained"].mean(), known["times_trained"] == 0
    known = known.assign(value=data[column].to_numpy().astype(float), never=never).dropna()
    groups = whole("groups", groups, 1, len(known))
    frame = known.groupby(_in_groups(known["value"], groups)).agg(
        middle=("value", "mean"), picked=("times_trained", "mean"), never=("never", "mean"),
        samples=("value", "size"),
    )  # fmt: skip
    frame["picked"] = frame["picked"] / mean if mean else np.nan
    frame.insert(0, "group", np.arange(1, groups + 1))
    frame.attrs = {"column": column}
    return frame.reset_index(drop=True)


def quantiles(record: OneRecord, array: str, levels: Sequence[float] = QUANTILES) -> pd.DataFrame:
    """Quantiles, each level in [0, 1], over the samples of one array, epoch by epoch.

    ``array`` is one of :data:`budgetlab.records.SAMPLE_ARRAYS`, such as ``loss``. The index is
    ``epoch``, less those without a value; columns are the levels, ``n`` samples that had a value,
    and for ``probability`` also ``kind``, what it is the probability of: ``draw`` or ``keep``.
    """
    if array not in SAMPLE_ARRAYS:
        raise unknown("array", array, SAMPLE_ARRAYS)
    given = levels if isinstance(levels, Sequence | np.ndarray) else [None]
    if not len(given) or not all(isinstance(level, Real) and 0 <= level <= 1 for level in given):
        raise InputError(f"levels {levels!r} are not allowed: give a list of numbers in [0, 1]")
    record = open_record(record)
    rows = {}
    for epoch, arrays in read_epochs(record, (array,)):
        values = arrays[array].astype(float)
        # Without a visit correct is -1, and all others that have no value are NaN.
        known = values[values >= 0 if array == "correct" else ~np.isnan(values)]
        if len(known):
            rows[epoch] = [*np.quantile(known, levels), len(known)]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*levels, "n"])
    if array == "probability":
        frame["kind"] = record.probability_kind
    return frame.rename_axis("epoch")


def one_epoch(record: OneRecord, epoch: int = -1) -> pd.DataFrame:
    """Every array of one epoch, one row per sample; with ``last_loss`` before this epoch.

    ``epoch`` counts from 1; negative numbers count from the end. The index is ``sample``; columns
    are :data:`budgetlab.records.SAMPLE_ARRAYS`; ``last_loss``, the loss at the last visit in an
    earlier epoch, which is what a method could know when it drew (NaN before the first visit);
    ``kind``, what ``probability`` is of: ``draw`` or ``keep``; and ``epoch``, its number.
    """
    record = open_record(record)
    data = record.samples
    count = data.sizes["epoch"]
    if not isinstance(epoch, Integral) or epoch is True or not 1 <= abs(epoch) <= count:
        raise InputError(f"epoch {epoch!r} does not exist in '{record.path}': it has 1 to {count}")
    number = count + 1 + epoch if epoch < 0 else epoch
    last = np.full(data.sizes["sample"], np.nan)
    for earlier, arrays in read_epochs(record, ("loss",), number):
        if earlier < number:
            np.copyto(last, arrays["loss"], where=~np.isnan(arrays["loss"]))
    columns = {name: data[name].isel(epoch=number - 1).to_numpy() for name in SAMPLE_ARRAYS}
    frame = pd.DataFrame(columns | {"last_loss": last}).rename_axis("sample")
    return frame.assign(kind=record.probability_kind, epoch=number)


def sample_life(record: OneRecord, sample: int) -> pd.DataFrame:
    """Everything recorded of one sample, one row per epoch.

    Columns are ``epoch`` and :data:`budgetlab.records.SAMPLE_ARRAYS`; NaN or -1 without a visit.
    """
    record = open_record(record)
    size = record.samples.sizes["sample"]
    sample = whole("sample", sample, 0, size - 1)
    one = record.samples.isel(sample=sample)
    return pd.DataFrame({name: one[name].to_numpy() for name in ("epoch", *SAMPLE_ARRAYS)})


def calibration(record: OneRecord, bins: int = 10) -> pd.DataFrame:
    """Does the credited probability say how often the label wins?

    Under mixing an image holds several samples. In each of ``bins`` of equal width of credited
    probability, ``right`` is the share of visits where that label had the highest logit. A useful
    credit rule rises with it. One row per bin with visits: ``p_y`` (their mean), ``right`` and
    ``visits``.
    """
    sums = np.zeros((3, whole("bins", bins)))
    for _, arrays in read_epochs(open_record(record), ("p_y", "correct")):
        seen = arrays["correct"] >= 0
        p_y, right = arrays["p_y"][seen], arrays["correct"][seen]
        place = np.minimum((p_y * bins).astype(int), bins - 1)
        for row, weights in enumerate((p_y, right, np.ones(len(p_y)))):
            sums[row] += np.bincount(place, weights, minlength=bins)
    p_y, right, n = sums[:, sums[2] > 0]
    return pd.DataFrame({"p_y": p_y / n, "right": right / n, "visits": n.astype(int)})


def credit_by_reference(record: OneRecord, reference: OneRecord, bins: int = 10) -> pd.DataFrame:
    """Does the credit agree with what a run without mixing knows of each sample?

    A rule that credits the right sample gives more to samples that a ``reference`` on the same data
    knows better; one that credits samples that are not in the image gives the same to all. One row
    per group of ``bins``: ``reference`` and ``credited`` (means of the mean ``p_y`` of its samples)
    and ``samples``; ``attrs["spearman"]`` is the rank correlation over samples.
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


def group_accuracy(
    data: OneRecord | pd.DataFrame,
    by: str = "label",
    *,
    classes: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """How often is each group right? By class, or by anything that is known of the samples.

    Parameters
    ----------
    data
        A record that is finished, for its test samples; or a frame with the columns ``label``
        and ``predicted``, class numbers, as :attr:`budgetlab.Record.predictions`. Rows without
        one of them, or without a group, are left out; ``attrs["left_out"]`` counts them.
    by
        Column of the groups: ``label``, or one of the metadata.
    classes
        Names of the classes; by default those of the record.
    confidence
        Of Wilson's interval, in (0, 1).

    Returns
    -------
    DataFrame
        One row per group, worst first: ``group``, ``n``, ``accuracy``, ``ci_low``, ``ci_high``
        and ``mistaken_for``, the class most often predicted instead (empty without a mistake).
        ``attrs`` holds :func:`mean_accuracies`.
    """
    check_open(confidence=confidence)
    frame, names, given = _predicted(data, classes)
    if by not in frame:
        raise unknown("group", by, [str(name) for name in frame if name != "predicted"])
    frame = frame.assign(right=frame["label"] == frame["predicted"])
    rows = []
    for group, part in frame.groupby(by, sort=True):
        right, n = int(part["right"].sum()), len(part)
        low, high = proportion_confint(right, n, 1 - confidence, method="wilson")
        wrong = part.loc[~part["right"], "predicted"].mode()
        rows.append({"group": _shown(group, by, names), "n": n, "accuracy": right / n,
                     "ci_low": float(low), "ci_high": float(high),
                     "mistaken_for": _name(wrong[0], names) if len(wrong) else ""})  # fmt: skip
    table = pd.DataFrame(rows).sort_values("accuracy", kind="stable", ignore_index=True)
    table.attrs = mean_accuracies(frame) | {"left_out": given - int(table["n"].sum())}
    return table


def mean_accuracies(data: OneRecord | pd.DataFrame) -> dict[str, float]:
    """Accuracy, 0 to 1, as a mean ``over_samples`` and ``over_classes`` (balanced accuracy).

    The mean over classes counts a rare class as much as a frequent one. ``data`` is as for
    :func:`group_accuracy`.
    """
    frame, *_ = _predicted(data, None)
    right = frame["label"] == frame["predicted"]
    over_classes = right.groupby(frame["label"]).mean().mean()
    return {"over_samples": float(right.mean()), "over_classes": float(over_classes)}


def confusion(
    data: OneRecord | pd.DataFrame, *, classes: Sequence[str] | None = None
) -> pd.DataFrame:
    """Which classes are taken for which? Counts: true classes in rows, predicted ones in columns.

    ``data`` and ``classes`` are as for :func:`group_accuracy`, and what is left out too. The table
    is square, int ``[C, C]``: every class that is a label, a prediction or has a name.
    """
    frame, names, _ = _predicted(data, classes)
    numbers = sorted({*frame["label"], *frame["predicted"], *range(len(names))})
    table = pd.crosstab(frame["label"], frame["predicted"])
    table = table.reindex(index=numbers, columns=numbers, fill_value=0)
    return table.rename(index=lambda n: _name(n, names), columns=lambda n: _name(n, names))


def groups_of_record(record: OneRecord, by: str = "label") -> pd.DataFrame:
    """How well was each group of training samples learned? From the history that a record holds.

    ``by`` is what is known of each training sample: ``label``, or a column of the metadata. One row
    per group, least learned first: ``group``, ``n`` samples, ``seen`` (share trained on), ``right``
    and ``never_learned`` (shares of those seen: at the last visit, at none) and ``mean_loss``.
    Samples of which the label, or the column, is not known are the group ``unknown``.
    """
    record = open_record(record)
    frame, known = measures(record), metadata(record)
    if by not in known:
        raise unknown("group", by, known)
    seen = frame["visits"] > 0
    right, never = (frame["learning"].isin(names).astype(float).where(seen)
                    for names in (("early", "late", "unstable"), ("never",)))  # fmt: skip
    frame = frame.assign(seen=seen, right=right, never_learned=never)
    groups = frame.groupby(by, dropna=False)[["seen", "right", "never_learned", "mean_loss"]]
    table = groups.mean().rename_axis("group").reset_index()
    table.insert(1, "n", groups.size().to_numpy())
    table["group"] = [_shown(group, by, record.classes) for group in table["group"]]
    return table.sort_values("right", kind="stable", ignore_index=True)


def _predicted(
    data: OneRecord | pd.DataFrame, classes: Sequence[str] | None
) -> tuple[pd.DataFrame, Sequence[str], int]:
    """Labels and predictions where both are known, names of the classes, and rows there were."""
    known: Sequence[str] = ()
    if isinstance(data, pd.DataFrame):
        frame = data
    else:
        record = open_record(data)
        frame, known = record.predictions, record.classes
        if not len(frame):
            raise InputError(
                f"'{record.path}' holds no predictions for the test samples: give a finished run "
                "of the kit, or, of a loop of your own, a frame with label and predicted"
            )
    pair = ["label", "predicted"]
    told = frame.dropna(subset=pair) if {*pair} <= set(frame) else frame[:0]
    if not len(told):
        raise InputError("this frame has no predictions: give the columns label and predicted")
    names = known if classes is None else classes
    told = told.astype(dict.fromkeys(pair, int))  # with gaps, a column holds floats
    most = int(told[pair].max().max())
    if names and most >= len(names):
        raise InputError(f"class {most} has no name: classes has {len(names)} entries")
    return told, names, len(frame)


def _name(number: int, names: Sequence[str]) -> str:
    return "unknown" if number < 0 else str(names[int(number)]) if names else str(number)


def _shown(group: object, by: str, names: Sequence[str]) -> object:
    number = -1 if pd.isna(group) else group
    return _name(number, names) if number is not group or by in ("label", "true_label") else group  # type: ignore[arg-type]
