"""Which runs belong together, and which can be compared: same condition, another seed."""

import dataclasses
import warnings
from collections.abc import Hashable, Sequence

import pandas as pd

from budgetlab.analysis.frames import RecordWarning
from budgetlab.config import DATA_FIELDS, RunConfig
from budgetlab.errors import InputError, counted, few

SHOWN = ("dataset", "method", "augmentation", "budget", "budget_unit")

# Where a run lies, and the device it ran on, do not make another condition; the
# model that "auto" became does.
NOT_CONDITIONS = ("data_root", "out", "device")


def require(frame: pd.DataFrame, columns: Sequence[Hashable], what: str = "this frame") -> None:
    """Check that a frame has columns.

    Raises
    ------
    InputError
        Naming the missing ones.
    """
    missing = [name for name in columns if name not in frame]
    if missing:
        raise InputError(
            f"{what} lacks the column{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}: "
            f"it has {', '.join(map(str, frame.columns))}"
        )


def condition_columns(frame: pd.DataFrame, over: Sequence[str] = ("seed",)) -> list[str]:
    """Columns that make a condition: every setting but those that replicate it.

    Parameters
    ----------
    frame
        One row a run, as from :func:`budgetlab.analysis.summaries`.
    over
        Settings over which runs of one condition are replicates.

    Returns
    -------
    list of str
        The five that every table shows first, then those others that differ between
        runs. ``fingerprint`` is among them where runs were trained on other data
        under the same settings.
    """
    settings = [field.name for field in dataclasses.fields(RunConfig)]
    if "lr_start" in frame:  # one row an epoch: there, lr changes within a run
        settings[settings.index("lr")] = "lr_start"
    others = [n for n in settings if n not in (*SHOWN, *NOT_CONDITIONS, *over) and n in frame]
    differ = [name for name in others if frame[name].astype(str).nunique(dropna=False) > 1]
    shown = [name for name in SHOWN if name in frame]
    if "fingerprint" in frame and not {"data_seed"} & set(over):
        same_settings = frame.groupby(["dataset", *data_columns(frame)], sort=False)
        if (same_settings["fingerprint"].nunique() > 1).any():
            differ.append("fingerprint")
    return [*shown, *differ]


def data_columns(frame: pd.DataFrame) -> list[str]:
    """Settings that change the data of a run."""
    return [name for name in DATA_FIELDS if name != "dataset" and name in frame]


def varying(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Those of the columns that hold more than one value."""
    return [name for name in columns if frame[name].astype(str).nunique(dropna=False) > 1]


def label(row: pd.Series | dict, columns: Sequence[str]) -> str:
    """Name a condition by some of its settings, such as ``p-SGD, mixup, budget 30%``."""
    plain = ("dataset", "method", "augmentation", "model")
    parts = [
        str(row[name]) if name in plain else f"{name.replace('_', ' ')} {_short(name, row[name])}"
        for name in columns
    ]
    return ", ".join(parts)


def _short(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{100 * value:g}%" if name == "budget" else f"{value:g}"


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
                f"left out of the comparison, as not finished: {_names(frame[unfinished])} "
                f"({unfinished.sum()} of {counted(len(frame), 'run')})"
            )
        frame = frame[~unfinished]
    without = frame[metric].isna()
    if without.any():
        _warn(f"left out of the comparison, as without {metric}: {_names(frame[without])} "
              f"({without.sum()} of {counted(len(frame), 'run')})")  # fmt: skip
        frame = frame[~without]
    if frame.empty:
        raise InputError("no finished run to compare: train until the end, or resume the runs")
    keys = [*condition_columns(frame, over), *over]
    order = frame.sort_values("updated", kind="stable") if "updated" in frame else frame
    again = order.duplicated(keys, keep="last")
    if again.any():
        _warn("left out of the comparison, as repeated later with the same settings and seed: "
              f"{_names(order[again])} ({counted(again.sum(), 'run')})")  # fmt: skip
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
                f"compared among themselves only, as on other data named "
                f"'{group['dataset'].iloc[0]}' (fingerprint {other}, not {counts.index[0]}): "
                f"{_names(strangers)} ({len(strangers)} of {counted(len(group), 'run')})"
            )


def _names(frame: pd.DataFrame, most: int = 3) -> str:
    """Name a few runs, and say how many more there are."""
    names = [str(name) for name in frame.get("path", frame["method"])]
    if "status" in frame and (frame["status"] != "finished").any():
        names = [f"{n} ({s})" for n, s in zip(names, frame["status"], strict=True)]
    return few(names, most)


def _warn(text: str) -> None:
    warnings.warn(text, RecordWarning, stacklevel=4)
