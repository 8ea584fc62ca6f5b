"""Where does it go wrong: accuracy by class or any other group, and which classes are mixed up."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from budgetlab.analysis.per_sample import measures
from budgetlab.errors import InputError, unknown
from budgetlab.records import Record

__all__ = ["confusion", "group_accuracy", "groups_of_record", "mean_accuracies"]


def group_accuracy(
    labels: np.ndarray,
    predictions: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    names: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """How often is each group right? By class, or by anything that is known of the samples.

    Parameters
    ----------
    labels, predictions
        Class of each sample and class predicted, int ``[N]``, such as of the test set.
    groups
        Group of each sample, ``[N]``: a column of the metadata, say. By default its class.
    names
        Names of the classes, used where ``groups`` is not given.
    confidence
        Of Wilson's interval, in (0, 1).

    Returns
    -------
    DataFrame
        One row a group, worst first: ``group``, ``n``, ``accuracy``, ``ci_low``, ``ci_high``
        and ``mistaken_for``, the class most often predicted instead (empty without a mistake).

    Raises
    ------
    InputError
        If the arrays differ in length, are empty, or a class has no name.
    """
    labels, predictions = _checked(labels, predictions, names)
    by = labels if groups is None else np.asarray(groups)
    if len(by) != len(labels):
        raise InputError(f"groups has {len(by)} entries for {len(labels)} samples: give one each")
    frame = pd.DataFrame({"group": by, "right": labels == predictions, "said": predictions})
    rows = []
    for group, part in frame.groupby("group", sort=True):
        right, n = int(part["right"].sum()), len(part)
        low, high = proportion_confint(right, n, 1 - confidence, method="wilson")
        wrong = part.loc[~part["right"], "said"]
        instead = "" if wrong.empty else _name(wrong.mode().iloc[0], names)
        shown = group if groups is not None else _name(group, names)
        rows.append({"group": shown, "n": n, "accuracy": right / n, "ci_low": float(low),
                     "ci_high": float(high), "mistaken_for": instead})  # fmt: skip
    return pd.DataFrame(rows).sort_values("accuracy", kind="stable", ignore_index=True)


def mean_accuracies(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Accuracy as a mean over samples, and as a mean over classes.

    The two part where classes differ in size: the mean over classes counts a rare class
    as much as a frequent one (balanced accuracy).

    Returns
    -------
    dict
        ``over_samples`` and ``over_classes``, each in [0, 1].
    """
    labels, predictions = _checked(labels, predictions, None)
    right = pd.Series(labels == predictions)
    return {
        "over_samples": float(right.mean()),
        "over_classes": float(right.groupby(labels).mean().mean()),
    }


def confusion(
    labels: np.ndarray, predictions: np.ndarray, *, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Which classes are taken for which? Counts, one row a true class, one column a predicted one.

    Parameters
    ----------
    labels, predictions, names
        As for :func:`group_accuracy`.

    Returns
    -------
    DataFrame
        int ``[C, C]``, square: every class that is a label, a prediction or has a name.
    """
    labels, predictions = _checked(labels, predictions, names)
    classes = sorted({*labels.tolist(), *predictions.tolist(), *range(len(names or ()))})
    table = pd.crosstab(labels, predictions).reindex(index=classes, columns=classes, fill_value=0)
    called = [_name(number, names) for number in classes]
    return table.set_axis(called, axis=0).set_axis(called, axis=1).rename_axis(
        index="label", columns="predicted"
    )  # fmt: skip


def groups_of_record(record: Record, by: str = "label") -> pd.DataFrame:
    """How well was each group of training samples learned? From what a record holds.

    Parameters
    ----------
    record
        An open record with its per-sample history.
    by
        What is known of each training sample: ``label``, or a column of the metadata.

    Returns
    -------
    DataFrame
        One row a group, least learned first: ``group``, ``n`` samples, ``seen`` (share
        trained on), ``right`` (share of those seen that were right at the last visit),
        ``never_learned`` (share of those seen that never were) and ``mean_loss``.
    """
    frame = measures(record)
    known = [str(name) for name in record.samples if record.samples[name].dims == ("sample",)]
    if by not in known:
        raise unknown("group", by, known)
    seen = frame["visits"] > 0
    frame = frame.assign(
        seen=seen,
        right=frame["learning"].isin(["early", "late", "unstable"]).where(seen),
        never_learned=(frame["learning"] == "never").where(seen),
    )
    found = frame.groupby(by).agg(
        n=("seen", "size"), seen=("seen", "mean"), right=("right", "mean"),
        never_learned=("never_learned", "mean"), mean_loss=("mean_loss", "mean"),
    )  # fmt: skip
    table = found.rename_axis("group").reset_index()
    classes = record.about.get("data", {}).get("classes")
    if by in ("label", "true_label") and classes:
        table["group"] = [_name(number, classes) for number in table["group"]]
    return table.sort_values("right", kind="stable", ignore_index=True)


def _checked(
    labels: np.ndarray, predictions: np.ndarray, names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not len(labels):
        raise InputError(
            f"labels of shape {list(labels.shape)} and predictions of shape "
            f"{list(predictions.shape)} do not fit: give one class a sample in each"
        )
    most = int(max(labels.max(), predictions.max()))
    if names is not None and most >= len(names):
        raise InputError(f"class {most} has no name: names has {len(names)} entries")
    return labels, predictions


def _name(number: int, names: Sequence[str] | None) -> str:
    return str(number) if names is None else str(names[int(number)])
