"""Accuracy, confusion and learning of each class or group of samples."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from budgetlab.analysis.per_sample import measures, metadata
from budgetlab.analysis.statistics import require_in_open_unit_interval
from budgetlab.errors import InputError, known
from budgetlab.records import OneRecord, open_record


def group_accuracy(
    data: OneRecord | pd.DataFrame,
    by: str = "label",
    *,
    classes: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compute the accuracy of each group of samples, by class or by any metadata.

    - ``data``: a finished record, for its test samples; or a frame with the columns ``label`` and
      ``predicted``, class numbers as in :attr:`budgetlab.Record.predictions`, or class names. Rows
      that lack one of them, or a group, are left out; ``attrs["left_out"]`` counts them.
    - ``by``: column of the groups: ``label``, or one of the metadata.
    - ``classes``: names of the classes; by default those of the record.
    - ``confidence``: confidence level of Wilson's interval, in (0, 1).

    Returns
    -------
    DataFrame
        One row per group, worst first: ``group``, ``n``, ``accuracy``, ``ci_low``, ``ci_high``
        and ``mistaken_for``, the class most often predicted instead (empty without a mistake).
        ``attrs`` holds :func:`mean_accuracies`.
    """
    require_in_open_unit_interval(confidence=confidence)
    frame, names, given = _labelled_predictions(data, classes)
    if by not in frame:
        by = known("group", by, [str(name) for name in frame if name != "predicted"])
    frame = frame.assign(right=frame["label"] == frame["predicted"])
    rows = []
    for group, part in frame.groupby(by, sort=True):
        right, n = int(part["right"].sum()), len(part)
        low, high = proportion_confint(right, n, 1 - confidence, method="wilson")
        wrong = part.loc[~part["right"], "predicted"].mode()
        rows.append({"group": _group_name(group, by, names), "n": n, "accuracy": right / n,
                     "ci_low": float(low), "ci_high": float(high),
                     "mistaken_for": _name(wrong[0], names) if len(wrong) else ""})  # fmt: skip
    table = pd.DataFrame(rows).sort_values("accuracy", kind="stable", ignore_index=True)
    table.attrs = mean_accuracies(frame) | {"left_out": given - int(table["n"].sum())}
    return table


def mean_accuracies(data: OneRecord | pd.DataFrame) -> dict[str, float]:
    """Compute accuracy, 0 to 1, ``over_samples`` and ``over_classes`` (balanced accuracy).

    The mean over classes weights rare and frequent classes equally. ``data`` is as for
    :func:`group_accuracy`.
    """
    frame, *_ = _labelled_predictions(data, None)
    right = frame["label"] == frame["predicted"]
    over_classes = right.groupby(frame["label"]).mean().mean()
    return {"over_samples": float(right.mean()), "over_classes": float(over_classes)}


def confusion(
    data: OneRecord | pd.DataFrame, *, classes: Sequence[str] | None = None
) -> pd.DataFrame:
    """Compute the confusion matrix: counts of true classes (rows) and predictions (columns).

    ``data``, ``classes`` and exclusions are as for :func:`group_accuracy`. The table is square,
    int ``[C, C]``, over every class that is a label, a prediction or has a name.
    """
    frame, names, _ = _labelled_predictions(data, classes)
    numbers = sorted({*frame["label"], *frame["predicted"], *range(len(names))})
    table = pd.crosstab(frame["label"], frame["predicted"])
    table = table.reindex(index=numbers, columns=numbers, fill_value=0)
    return table.rename(index=lambda n: _name(n, names), columns=lambda n: _name(n, names))


def groups_of_record(record: OneRecord, by: str = "label") -> pd.DataFrame:
    """Measure how well each group of training samples was learned, from a record's history.

    ``by`` is ``label`` or a column of the metadata; samples without a value form the group
    ``unknown``. One row per group, least learned first: ``group``, ``n`` samples, ``seen`` (share
    trained on), ``right`` and ``never_learned`` (of those seen, the shares right at the last visit
    and right at none) and ``mean_loss``.
    """
    record = open_record(record)
    frame, columns = measures(record), metadata(record)
    by = known("group", by, columns)
    seen = frame["visits"] > 0
    right, never = (frame["learning"].isin(names).astype(float).where(seen)
                    for names in (("early", "late", "unstable"), ("never",)))  # fmt: skip
    frame = frame.assign(seen=seen, right=right, never_learned=never)
    groups = frame.groupby(by, dropna=False)[["seen", "right", "never_learned", "mean_loss"]]
    table = groups.mean().rename_axis("group").reset_index()
    table.insert(1, "n", groups.size().to_numpy())
    table["group"] = [_group_name(group, by, record.classes) for group in table["group"]]
    return table.sort_values("right", kind="stable", ignore_index=True)


def _labelled_predictions(
    data: OneRecord | pd.DataFrame, classes: Sequence[str] | None
) -> tuple[pd.DataFrame, Sequence[str], int]:
    """Return rows with both label and prediction, class names, and the number of rows before."""
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
    complete_rows = frame.dropna(subset=pair) if {*pair} <= set(frame) else frame[:0]
    if not len(complete_rows):
        raise InputError("this frame has no predictions: give the columns label and predicted")
    names = recorded if classes is None else classes
    complete_rows, names = _as_class_numbers(complete_rows, pair, names)
    most = int(complete_rows[pair].max().max())
    if names and most >= len(names):
        raise InputError(f"class {most} has no name: classes has {len(names)} entries")
    return complete_rows, names, len(frame)


def _as_class_numbers(
    complete_rows: pd.DataFrame, pair: list[str], names: Sequence[str]
) -> tuple[pd.DataFrame, Sequence[str]]:
    """Return the columns as class numbers, and the class names; by default the texts that occur."""
    values = complete_rows[pair].to_numpy().ravel().tolist()
    if all(isinstance(value, str) for value in values):
        names = list(names) or sorted({*values})
        values = [names.index(known("class", value, names)) for value in values]
    try:
        numbers = np.array(values, float).reshape(-1, 2)  # with gaps, a column holds floats
        if (numbers == numbers.round()).all():
            columns = dict(zip(pair, numbers.T.astype(int), strict=True))
            return complete_rows.assign(**columns), names
    except (TypeError, ValueError):
        pass
    raise InputError(
        "label and predicted are of mixed kinds: give numbers of classes, or names, in both"
    )


def _name(number: int, names: Sequence[str]) -> str:
    return "unknown" if number < 0 else str(names[int(number)]) if names else str(number)


def _group_name(group: object, by: str, names: Sequence[str]) -> object:
    number = -1 if pd.isna(group) else group
    return _name(number, names) if number is not group or by in ("label", "true_label") else group  # type: ignore[arg-type]
