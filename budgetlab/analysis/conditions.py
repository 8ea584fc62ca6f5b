"""Which runs belong together: same condition, another seed."""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

import pandas as pd

from budgetlab.config import DATA_FIELDS, RunConfig
from budgetlab.errors import InputError
from budgetlab.methods import OPTIONS, ordered

__all__ = [
    "METHOD_FIELDS",
    "condition_columns",
    "data_columns",
    "label",
    "method_order",
    "require",
    "varying",
]

SHOWN = ("dataset", "method", "augmentation", "budget", "budget_unit")

# Where a run lies, and the device it ran on, do not make another condition; the
# model that "auto" became does.
NOT_CONDITIONS = ("data_root", "out", "device")

METHOD_FIELDS = OPTIONS


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


def method_order(methods: Iterable[str]) -> list[str]:
    """Sort methods: the built-in ones in their usual order, then others as they come."""
    return ordered(methods)


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
