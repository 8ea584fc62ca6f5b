"""Per-sample arrays as quantiles by epoch, as one epoch, as one sample's life."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from budgetlab.analysis.per_sample import measures, read_blocks
from budgetlab.errors import InputError, unknown
from budgetlab.records import SAMPLE_ARRAYS, Record

__all__ = [
    "QUANTILES",
    "calibration",
    "credit_by_reference",
    "one_epoch",
    "quantiles",
    "sample_life",
]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def quantiles(record: Record, array: str, levels: Sequence[float] = QUANTILES) -> pd.DataFrame:
    """Quantiles over the samples of one array, epoch by epoch.

    Parameters
    ----------
    record
        An open record.
    array
        One of :data:`budgetlab.records.SAMPLE_ARRAYS`, such as ``loss``.
    levels
        Quantiles, each in [0, 1].

    Returns
    -------
    DataFrame
        Index ``epoch``; one column a level; ``n`` samples that had a value; for
        ``probability`` also ``kind``, what it is the probability of: ``draw`` or ``keep``.
        Epochs without any are left out.
    """
    if array not in SAMPLE_ARRAYS:
        raise unknown("array", array, SAMPLE_ARRAYS)
    rows = {}
    for first, arrays in read_blocks(record, (array,)):
        for offset, values in enumerate(arrays[array]):
            known = values[~np.isnan(values)].astype(float)
            if len(known):
                cut = dict(zip(levels, np.quantile(known, levels), strict=True))
                rows[first + offset] = cut | {"n": len(known)}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*levels, "n"])
    if array == "probability":
        frame["kind"] = record.probability_kind
    return frame.rename_axis("epoch")


def one_epoch(record: Record, epoch: int = -1) -> pd.DataFrame:
    """Every array of one epoch, one row a sample; with ``last_loss`` before this epoch.

    Parameters
    ----------
    epoch
        From 1; negative numbers count from the end.

    Returns
    -------
    DataFrame
        Index ``sample``; :data:`budgetlab.records.SAMPLE_ARRAYS`, and ``last_loss``: the
        loss at the last visit in an earlier epoch, which is what a method could know
        when it drew (NaN before the first visit); ``kind``, what ``probability`` is of:
        ``draw`` or ``keep``; and ``epoch``, its number.
    """
    data = record.samples
    number = _epoch_number(record, epoch)
    arrays = data[list(SAMPLE_ARRAYS)].isel(epoch=number - 1)
    last = np.full(data.sizes["sample"], np.nan)
    if number > 1:
        for _, block in read_blocks(record, ("loss",), number - 1):
            for values in block["loss"]:
                np.copyto(last, values, where=~np.isnan(values))
    columns = {name: arrays[name].to_numpy() for name in SAMPLE_ARRAYS}
    columns |= {"last_loss": last, "kind": record.probability_kind, "epoch": number}
    return pd.DataFrame(columns).rename_axis("sample")


def sample_life(record: Record, sample: int) -> pd.DataFrame:
    """Everything recorded of one sample, one row an epoch.

    Returns
    -------
    DataFrame
        ``epoch`` and :data:`budgetlab.records.SAMPLE_ARRAYS`; NaN (``correct`` -1)
        in epochs without a visit.
    """
    data = record.samples
    size = data.sizes["sample"]
    if not 0 <= sample < size:
        raise InputError(f"sample {sample} does not exist: give a number from 0 to {size - 1}")
    one = data[list(SAMPLE_ARRAYS)].isel(sample=sample)
    return pd.DataFrame(
        {"epoch": one["epoch"].to_numpy()} | {n: one[n].to_numpy() for n in SAMPLE_ARRAYS}
    )


def calibration(record: Record, bins: int = 10, first_epoch: int = 1) -> pd.DataFrame:
    """Does the credited probability say how often the label wins?

    Under mixing an image holds several samples, and the probability of a label that
    the credit rule gives to a sample is also what scores are made of. In each bin of
    credited probability, ``right`` is the share of visits where that label had the
    highest logit. A useful rule rises with it.

    Parameters
    ----------
    bins
        Bins of equal width over [0, 1].
    first_epoch
        Leave out the visits before this epoch.

    Returns
    -------
    DataFrame
        One row a bin with visits: ``p_y`` (their mean), ``right``, ``visits``.
    """
    sums = np.zeros((3, bins))
    for first, arrays in read_blocks(record, ("p_y", "correct")):
        skip = max(0, first_epoch - first)
        p_y, correct = arrays["p_y"][skip:], arrays["correct"][skip:]
        seen = correct >= 0
        place = np.minimum((p_y[seen] * bins).astype(int), bins - 1)
        for row, weights in enumerate((p_y[seen], correct[seen], np.ones(seen.sum()))):
            sums[row] += np.bincount(place, weights, minlength=bins)
    filled = sums[2] > 0
    p_y, right, visits = sums[:, filled]
    return pd.DataFrame(
        {"p_y": p_y / visits, "right": right / visits, "visits": visits.astype(int)}
    )


def credit_by_reference(record: Record, reference: Record, bins: int = 10) -> pd.DataFrame:
    """Does a sample get credit for being well known, as a run without mixing knows it?

    The samples are put into groups of equal size by their mean probability under a
    reference run. A rule that credits the right sample gives more to a group that is
    better known; one that credits samples that are not in the image gives the same to all.

    Parameters
    ----------
    record
        The run whose credit is looked at.
    reference
        A run on the same data, best without mixing.
    bins
        Groups.

    Returns
    -------
    DataFrame
        One row a group: ``reference`` and ``credited`` (means of the mean ``p_y`` of its
        samples) and ``samples``. ``attrs["spearman"]`` is the rank correlation over samples.

    Raises
    ------
    InputError
        If the two were trained on other data.
    """
    if record.fingerprint != reference.fingerprint:
        raise InputError(
            f"'{record.path}' and '{reference.path}' were trained on other data: give a "
            "reference on the same data"
        )
    known = pd.DataFrame(
        {"reference": measures(reference)["confidence"], "credited": measures(record)["confidence"]}
    ).dropna()
    if len(known) < bins:
        raise InputError(f"{len(known)} samples were seen by both runs: fewer than {bins} groups")
    place = known["reference"].rank(method="first").sub(1).mul(bins).floordiv(len(known))
    groups = known.groupby(place)
    frame = groups.mean().assign(samples=groups.size()).reset_index(drop=True)
    frame.attrs = {"spearman": float(known.rank().corr().iloc[0, 1])}
    return frame


def _epoch_number(record: Record, epoch: int) -> int:
    count = record.samples.sizes["epoch"]
    number = count + 1 + epoch if epoch < 0 else epoch
    if not 1 <= number <= count:
        raise InputError(f"epoch {epoch} does not exist in '{record.path}': it has 1 to {count}")
    return number
