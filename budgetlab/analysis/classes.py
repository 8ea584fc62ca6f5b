"""Where does it go wrong: accuracy by class or any other group, and which classes are mixed up."""

from collections.abc import Sequence

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from budgetlab.analysis.per_sample import measures, metadata
from budgetlab.errors import InputError, unknown
from budgetlab.records import Record


def group_accuracy(
    data: Record | pd.DataFrame,
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
        and ``predicted``, class numbers, as :attr:`budgetlab.Record.predictions`.
    by
        Column of the groups: ``label``, or one of the metadata.
    classes
        Names of the classes; by default those of the record.
    confidence
        Of Wilson's interval, in (0, 1).

    Returns
    -------
    DataFrame
        One row a group, worst first: ``group``, ``n``, ``accuracy``, ``ci_low``, ``ci_high``
        and ``mistaken_for``, the class most often predicted instead (empty without a mistake).
        ``attrs`` holds :func:`mean_accuracies`.
    """
    frame, names = _predicted(data, classes)
    if by not in frame:
        raise unknown("group", by, [str(name) for name in frame if name != "predicted"])
    frame = frame.assign(right=frame["label"] == frame["predicted"])
    rows = []
    for group, part in frame.groupby(by, sort=True):
        right, n = int(part["right"].sum()), len(part)
        low, high = proportion_confint(right, n, 1 - confidence, method="wilson")
        wrong = part.loc[~part["right"], "predicted"]
        instead = "" if wrong.empty else _name(wrong.mode().iloc[0], names)
        shown = _name(group, names) if by in ("label", "true_label") else group
        rows.append({"group": shown, "n": n, "accuracy": right / n, "ci_low": float(low),
                     "ci_high": float(high), "mistaken_for": instead})  # fmt: skip
    table = pd.DataFrame(rows).sort_values("accuracy", kind="stable", ignore_index=True)
    table.attrs = mean_accuracies(frame)
    return table


def mean_accuracies(data: Record | pd.DataFrame) -> dict[str, float]:
    """Accuracy, 0 to 1, as a mean ``over_samples`` and ``over_classes`` (balanced accuracy).

    The two part where classes differ in size: the mean over classes counts a rare class
    as much as a frequent one. ``data`` is as for :func:`group_accuracy`.
    """
    frame, _ = _predicted(data, None)
    right = frame["label"] == frame["predicted"]
    return {
        "over_samples": float(right.mean()),
        "over_classes": float(right.groupby(frame["label"]).mean().mean()),
    }


def confusion(data: Record | pd.DataFrame, *, classes: Sequence[str] | None = None) -> pd.DataFrame:
    """Which classes are taken for which? Counts, one row a true class, one column a predicted one.

    ``data`` and ``classes`` are as for :func:`group_accuracy`. The table is square, int ``[C, C]``:
    every class that is a label, a prediction or has a name.
    """
    frame, names = _predicted(data, classes)
    numbers = sorted({*frame["label"], *frame["predicted"], *range(len(names))})
    table = pd.crosstab(frame["label"], frame["predicted"])
    table = table.reindex(index=numbers, columns=numbers, fill_value=0)
    called = [_name(number, names) for number in numbers]
    return table.set_axis(called, axis=0).set_axis(called, axis=1).rename_axis(
        index="label", columns="predicted"
    )  # fmt: skip


def groups_of_record(record: Record, by: str = "label") -> pd.DataFrame:
    """How well was each group of training samples learned? From the history that a record holds.

    ``by`` is what is known of each training sample: ``label``, or a column of the metadata.

    Returns
    -------
    DataFrame
        One row a group, least learned first: ``group``, ``n`` samples, ``seen`` (share
        trained on), ``right`` (share of those seen that were right at the last visit),
        ``never_learned`` (share of those seen that never were) and ``mean_loss``.
    """
    frame = measures(record)
    known = metadata(record)
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
    if by in ("label", "true_label"):
        table["group"] = [_name(number, record.classes) for number in table["group"]]
    return table.sort_values("right", kind="stable", ignore_index=True)


def _predicted(
    data: Record | pd.DataFrame, classes: Sequence[str] | None
) -> tuple[pd.DataFrame, Sequence[str]]:
    """Labels and predictions, and the names of the classes."""
    frame = data.predictions if isinstance(data, Record) else data
    if not len(frame) and isinstance(data, Record):
        raise InputError(
            f"'{data.path}' holds no predictions for the test samples: give a run that was "
            "finished by this version"
        )
    if not {"label", "predicted"} <= set(frame) or not len(frame):
        raise InputError("this frame has no predictions: give the columns label and predicted")
    if classes is None:
        classes = data.classes if isinstance(data, Record) else ()
    most = int(frame[["label", "predicted"]].max().max())
    if classes and most >= len(classes):
        raise InputError(f"class {most} has no name: classes has {len(classes)} entries")
    return frame, classes


def _name(number: int, names: Sequence[str]) -> str:
    return str(names[int(number)]) if names else str(number)
