"""Which runs can be compared, and a sentence on each that cannot."""

import warnings
from collections.abc import Sequence

import pandas as pd

from budgetlab.analysis.conditions import condition_columns, data_columns
from budgetlab.analysis.frames import RecordWarning
from budgetlab.errors import InputError

__all__ = ["usable", "warn_of_other_data"]


def usable(frame: pd.DataFrame, metric: str, over: Sequence[str]) -> pd.DataFrame:
    """Leave out what cannot be compared, with a warning each.

    Left out are runs that are not finished, runs without the metric, and all but the
    latest of runs that repeat each other.

    Raises
    ------
    InputError
        If nothing is left.
    """
    if "status" in frame:
        unfinished = frame["status"] != "finished"
        if unfinished.any():
            _warn(
                f"{unfinished.sum()} of {len(frame)} runs are not finished and are left out of "
                f"the comparison: {_names(frame[unfinished])}"
            )
        frame = frame[~unfinished]
    without = frame[metric].isna()
    if without.any():
        _warn(f"{without.sum()} of {len(frame)} runs have no {metric} and are left out of the "
              f"comparison: {_names(frame[without])}")  # fmt: skip
        frame = frame[~without]
    if frame.empty:
        raise InputError("no finished run to compare: train until the end, or resume the runs")
    keys = [*condition_columns(frame, over), *over]
    order = frame.sort_values("updated", kind="stable") if "updated" in frame else frame
    again = order.duplicated(keys, keep="last")
    if again.any():
        _warn(f"{again.sum()} runs repeat another one with the same settings and seed, and the "
              f"latest of each counts; left out: {_names(order[again])}")  # fmt: skip
    return order[~again].sort_index()


def warn_of_other_data(frame: pd.DataFrame, keys: Sequence[str]) -> None:
    """Say which runs were trained on other data under the same settings."""
    if "fingerprint" not in keys:
        return
    for _, group in frame.groupby(["dataset", *data_columns(frame)], sort=False):
        counts = group["fingerprint"].value_counts()
        for other in counts.index[1:]:
            strangers = group[group["fingerprint"] == other]
            _warn(
                f"{len(strangers)} of {len(group)} runs on '{group['dataset'].iloc[0]}' were "
                f"trained on other data (fingerprint {other}, not {counts.index[0]}) and are "
                f"compared among themselves only: {_names(strangers)}"
            )


def _names(frame: pd.DataFrame, most: int = 3) -> str:
    """Name a few runs, and say how many more there are."""
    names = [str(name) for name in frame.get("path", frame["method"])]
    if "status" in frame and (frame["status"] != "finished").any():
        names = [f"{n} ({s})" for n, s in zip(names, frame["status"], strict=True)]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _warn(text: str) -> None:
    warnings.warn(text, RecordWarning, stacklevel=4)
