"""How often each class, or group of samples, is right; what it is taken for, what was learned."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from budgetlab.analysis.per_sample import measures, metadata
from budgetlab.analysis.statistics import check_open
from budgetlab.errors import InputError, known, unknown
from budgetlab.records import OneRecord, open_record


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
        and ``predicted``, numbers of classes as in :attr:`budgetlab.Record.predictions`, or their
        names. Rows without one of them, or without a group, are left out, and
        ``attrs["left_out"]`` counts them.
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
    frame, columns = measures(record), metadata(record)
    if by not in columns:
        raise unknown("group", by, columns)
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
    recorded: Sequence[str] = ()
    if isinstance(data, pd.DataFrame):
        frame = data
    else:
        record = open_record(data)
        frame, recorded = record.predictions, record.classes
        if not len(frame):
            raise InputError(
                f"'{record.path}' holds no predictions for the test samples: give a finished run "
                "of the kit, or, of a loop of your own, a frame with label and predicted"
            )
    pair = ["label", "predicted"]
    told = frame.dropna(subset=pair) if {*pair} <= set(frame) else frame[:0]
    if not len(told):
        raise InputError("this frame has no predictions: give the columns label and predicted")
    names = recorded if classes is None else classes
    told, names = _numbered(told, pair, names)
    most = int(told[pair].max().max())
    if names and most >= len(names):
        raise InputError(f"class {most} has no name: classes has {len(names)} entries")
    return told, names, len(frame)


def _numbered(
    told: pd.DataFrame, pair: list[str], names: Sequence[str]
) -> tuple[pd.DataFrame, Sequence[str]]:
    """Classes as numbers, and their names: those that occur where texts came without any."""
    values = told[pair].to_numpy().ravel().tolist()
    if all(isinstance(value, str) for value in values):
        names = list(names) or sorted({*values})
        values = [names.index(known("class", value, names)) for value in values]
    try:
        numbers = np.array(values, float).reshape(-1, 2)  # with gaps, a column holds floats
        if (numbers == numbers.round()).all():
            return told.assign(**dict(zip(pair, numbers.T.astype(int), strict=True))), names
    except (TypeError, ValueError):
        pass
    raise InputError(
        "label and predicted are neither whole numbers nor all of them texts: give numbers of "
        "classes, or their names in both"
    )


def _name(number: int, names: Sequence[str]) -> str:
    return "unknown" if number < 0 else str(names[int(number)]) if names else str(number)


def _shown(group: object, by: str, names: Sequence[str]) -> object:
    number = -1 if pd.isna(group) else group
    return _name(number, names) if number is not group or by in ("label", "true_label") else group  # type: ignore[arg-type]
