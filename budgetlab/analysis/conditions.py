"""Records as DataFrames, one row per run or per epoch, and which runs form a condition."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.config import ADDED, DATA_FIELDS, RunConfig
from budgetlab.errors import InputError, a_kind, counted, few
from budgetlab.methods import OPTIONS as METHOD_FIELDS
from budgetlab.methods import known as known_method
from budgetlab.methods import ordered as method_order
from budgetlab.records import Record, Records, RecordWarning, open_records

if TYPE_CHECKING:
    from budgetlab.data import Splits

COSTS = {
    "steps": "optimiser steps",
    "trained_samples": "samples trained on",
    "looked_samples": "samples only looked at",
    "flops": "floating point operations",
    "seconds": "seconds of training",
}
"""Cost columns and their axis labels."""

RESULTS = ("test_accuracy", "test_loss", *COSTS)
SHOWN = ("dataset", "method", "augmentation", "budget", "budget_unit")
FIRST = ("path", "status", *SHOWN, "seed", *RESULTS, "epochs_trained")
SETTINGS = RunConfig.__dataclass_fields__
# Paths, the device, how often a run is tested, and a name that ``dataset`` holds do not distinguish
# conditions; the model that "auto" resolved to does.
IGNORED_SETTINGS = ("data_root", "out", "device", "evaluate_every", "data_name")
# Settings that are read only where another one has one of these values; None is any but 0.
MIXING = ("mixup", "ricap", "cutmix")
READ_WHERE: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "alpha": ("augmentation", MIXING), "credit": ("augmentation", MIXING),
    "randaugment_n": ("augmentation", ("randaugment",)),
    "randaugment_m": ("augmentation", ("randaugment",)), "milestones": ("schedule", ("step",)),
    "noise_kind": ("label_noise", None), "copies": ("redundancy", None),
    "redundancy_kind": ("redundancy", None),
}  # fmt: skip


def summaries(records: Records) -> pd.DataFrame:
    """Summarise records, one row per run: settings, results and costs.

    Columns are ``path``, ``status``, ``dataset``, ``method``, ``augmentation``, ``budget``,
    ``budget_unit``, ``seed``, ``test_accuracy`` (0 to 1), ``test_loss``, the costs of
    :data:`COSTS`, ``epochs_trained``, then the other settings (``model`` and ``precision`` as used,
    with ``auto`` resolved; settings that a run does not read, such as ``power`` under plain SGD,
    at their defaults), ``proxy_samples`` (samples run through proxy networks; NaN if not
    recorded), the size and ``fingerprint`` of the data, ``model_start`` (digest of the initial
    weights of a custom network), and the device. Results of an interrupted run are those of its
    last complete epoch.
    """
    frame = pd.DataFrame([_summary(record) for record in open_records(records)])
    return frame[[*FIRST, *(name for name in frame if name not in FIRST)]]


def _summary(record: Record) -> dict[str, Any]:
    summary, data, hardware = record.summary, record.about["data"], record.about.get("hardware", {})
    results = {name: summary.get(name) for name in RESULTS}
    epochs_trained = summary.get("epochs")
    if epochs_trained is None or results["steps"] is None:
        table = _read_epochs(record, "its results stay empty")
        last = table.iloc[-1].to_dict() if len(table) else {}
        results = {name: last.get(name) if v is None else v for name, v in results.items()}
        epochs_trained = last.get("epoch", 0)
    # Records of earlier versions lack newer fields, whose defaults reproduce what they did.
    config: dict[str, Any] = {name: SETTINGS[name].default for name in ADDED} | record.config
    named = {name: str(config[name]) for name in ("dataset", "data_name") if config.get(name)}
    read = as_read(config)
    return {name: tuple(v) if isinstance(v, list) else v for name, v in read.items()} | {
        "path": str(record.path),
        "status": record.status,
        "dataset": RunConfig.from_dict(named).dataset_name,
        "model": hardware.get("model") or config.get("model"),
        "precision": hardware.get("precision") or config.get("precision"),
        **{name: _number(value) for name, value in results.items()},
        "epochs_trained": int(epochs_trained),
        "proxy_samples": _number(summary.get("proxy_samples")),
        "train_size": data.get("train"),
        "fingerprint": record.fingerprint,
        "hardware": hardware.get("name") or hardware.get("device"),
        "method_code": record.method_code,
        "model_start": str(hardware.get("model_start", "")),
        "updated": record.about.get("updated", ""),
    }


def unread(settings: Mapping[str, Any]) -> set[str]:
    """Return the settings that a run with these does not read, by its method and the others.

    Of a custom method, whose entry may not list all, every setting counts as read.
    """
    entry = known_method(settings.get("method"))
    found = {*METHOD_FIELDS} - {*entry.fields} if entry and entry.where else set()
    if settings.get("augmentation") in (*MIXING, "randaugment"):
        found.discard("fidelity")  # these follow it too
    for name, (other, values) in READ_WHERE.items():
        value = settings.get(other)
        if value is not None and (value not in values if values else not value):
            found.add(name)
    return found


def as_read(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Set what a run does not read to its default, as in :func:`summaries`."""
    defaults = {name: SETTINGS[name].default for name in unread(settings) & {*settings}}
    return {**settings, **defaults}


def _number(value: float | None) -> float:
    """Turn None into NaN, and integers beyond int64 into floats."""
    if value is None:
        return float("nan")
    return value if abs(value) < 2**63 else float(value)


def _read_epochs(record: Record, otherwise: str) -> pd.DataFrame:
    try:
        return record.epochs
    except InputError as error:
        warnings.warn(f"{error}; {otherwise}", RecordWarning, stacklevel=3)
        return pd.DataFrame()


def epochs(records: Records) -> pd.DataFrame:
    """Return one row per run and epoch: cumulative costs, losses, accuracies and settings.

    Column ``run`` numbers the runs from 0; then :data:`budgetlab.records.EPOCH_COLUMNS` and the
    settings as in :func:`summaries` (``epochs`` is the length of the full run and ``epoch`` counts
    from 1; ``lr`` is the learning rate of the epoch and ``lr_start`` the setting).
    """
    parts = {}
    for number, record in enumerate(open_records(records)):
        table = _read_epochs(record, "its curve is left out")
        if not len(table):
            continue
        about = _summary(record)
        about["lr_start"] = about.pop("lr", None)
        settings = {k: v for k, v in about.items() if k not in table and k != "epochs_trained"}
        extra = pd.DataFrame({k: [v] * len(table) for k, v in settings.items()}, index=table.index)
        parts[number] = pd.concat([table, extra], axis=1)
    if not parts:
        raise InputError("none of these records holds a finished epoch: train for longer")
    return pd.concat(parts, names=["run"]).reset_index("run").reset_index(drop=True)


def require(frame: pd.DataFrame, columns: Sequence[Hashable], what: str = "this frame") -> None:
    """Raise an error that names the columns a frame lacks."""
    if not isinstance(frame, pd.DataFrame):
        wanted = ", ".join(map(str, columns))
        raise InputError(f"{what} is {a_kind(frame)}: give a pandas DataFrame with {wanted}")
    if missing := [name for name in columns if name not in frame]:
        raise InputError(
            f"{what} lacks the column{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}: "
            f"it has {', '.join(map(str, frame.columns))}"
        )


def varying(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return those of the columns that hold more than one value."""
    return [name for name in columns if frame[name].astype(str).nunique(dropna=False) > 1]


def condition_columns(frame: pd.DataFrame, over: Sequence[str] = ("seed",)) -> list[str]:
    """Return the columns that define a condition: settings, but not those of replicates (``over``).

    The five that every table shows come first, then the others that differ between runs.
    ``fingerprint`` is included if runs with the same settings were trained on different data, and
    ``model_start`` if custom networks started from different weights; ``data_seed`` is excluded
    if each replicate uses one data seed in all conditions that differ only in what tables show.
    """
    # In frames with one row per epoch, lr changes within a run.
    settings = ["lr_start" if n == "lr" and "lr_start" in frame else n for n in SETTINGS]
    others = [n for n in settings if n not in (*SHOWN, *IGNORED_SETTINGS, *over) and n in frame]
    differ = varying(frame, others)
    by = [name for name in over if name in frame]
    if "data_seed" in differ and by:
        apart = [n for n in ("dataset", *differ) if n not in ("data_seed", *METHOD_FIELDS)]
        data = frame.groupby([*by, *(n for n in apart if n in frame)], dropna=False)["data_seed"]
        if data.nunique().max() == 1:
            differ.remove("data_seed")
    if "fingerprint" in frame and "data_seed" not in over:
        same_settings = frame.groupby(_data_columns(frame), sort=False, dropna=False)
        if (same_settings["fingerprint"].nunique() > 1).any():
            differ.append("fingerprint")
    if by and "model_start" in frame:
        # Runs that each start from their own weights are replicates; if several share a start
        # and others have a different one, it is a setting.
        starts = _told(frame, "model_start").drop_duplicates(["model_start", *by])
        if starts["model_start"].nunique() > 1 and starts["model_start"].duplicated().any():
            differ.append("model_start")
    return [*(name for name in SHOWN if name in frame), *differ]


def _told(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Rows with a text in a column; a frame read from a file has NaN for an empty one."""
    return frame[frame[column].notna() & frame[column].ne("")]


def _data_columns(frame: pd.DataFrame) -> list[str]:
    return [name for name in DATA_FIELDS if name == "dataset" or name in frame]


def require_same_data(records: Sequence[Record]) -> None:
    """Raise an error unless all records were trained on the same data."""
    for other in records[1:]:
        if other.fingerprint != records[0].fingerprint:
            raise InputError(
                f"'{other.path}' was trained on other data (fingerprint {other.fingerprint}) than "
                f"'{records[0].path}' ({records[0].fingerprint}): compare runs on the same data"
            )


def require_data_of(record: Record, splits: "Splits") -> None:
    """Raise an error unless ``splits`` are the data that a record was trained on."""
    from budgetlab.data import Splits
    from budgetlab.data.dataset import require

    if require(splits, Splits, what="splits").fingerprint != record.fingerprint:
        raise InputError(
            f"splits are not the data of '{record.path}': load it with the settings of the record"
        )


def telling(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return those of the columns that tell conditions apart, for short labels.

    Of settings that differ only together, such as those of two presets, the first stays: the model,
    else the first column. The five that every table shows stay if they vary.
    """
    rows = frame[list(columns)].astype(str)
    first = ~rows.duplicated().to_numpy()
    rows, without = rows[first], [unread(row) for row in frame[first].to_dict("records")]
    told = varying(rows, [name for name in columns if name in SHOWN])
    data = [name for name in told if name == "dataset"]
    others: list[str] = []

    def varies(name: str) -> bool:
        """Whether it does where it is read and the others are equal."""
        read, by = rows[[name not in some for some in without]], {*data, *others} - {name}
        values = read.groupby(sorted(by), dropna=False)[name] if by else read[name]
        return len(read) > 0 and bool(np.max(values.nunique(dropna=False)) > 1)

    for name in sorted((n for n in columns if n not in SHOWN), key=lambda n: n != "model"):
        others += [name] * varies(name)
    # One in the middle may follow from those around it; the first says most.
    for name in reversed(others[1:]):
        others = others if varies(name) else [n for n in others if n != name]
    return told + others


def label(row: pd.Series | Mapping[str, Any], columns: Sequence[str]) -> str:
    """Name a condition by those of some settings that it reads: ``p-SGD, mixup, budget 30%``."""
    parts, without = [], unread(row)
    for name in columns:
        value = row[name]
        if isinstance(value, float):
            value = f"{100 * value:g}%" if name == "budget" else f"{value:g}"
        plain = name in ("dataset", "method", "augmentation", "model")
        if name not in without:
            parts.append(str(value) if plain else f"{name.replace('_', ' ')} {value}")
    return ", ".join(parts)


def labels(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Label the rows of a frame by what tells them apart in these columns, briefly.

    Rows have equal labels only if they are equal in all columns.
    """
    shown, place = telling(frame, columns) or ["method"], frame[list(columns)].astype(str)
    number = place.groupby(list(columns), sort=False, dropna=False).ngroup().to_numpy()
    names: dict[int, str] = {}
    for group, at in zip(*np.unique(number, return_index=True), strict=True):
        name = label(frame.iloc[at], shown) or str(frame.iloc[at]["method"])
        same = sum(other.partition(" (no. ")[0] == name for other in names.values())
        names[group] = f"{name} (no. {same + 1})" if same else name
    return pd.Series([names[group] for group in number], index=frame.index)


def finished(frame: pd.DataFrame) -> pd.Series:
    """Whether each row belongs to a finished run; all do in a frame without a status."""
    status = frame.get("status", pd.Series("finished", frame.index))
    return status.eq("finished")


def usable(frame: pd.DataFrame, metric: str, over: Sequence[str]) -> pd.DataFrame:
    """Leave out, with warnings, unfinished and repeated runs, and those without the metric."""
    frame = _without(frame, ~finished(frame), "not finished")
    frame = _without(frame, frame[metric].isna(), f"without {metric}")
    if frame.empty:
        raise InputError("no finished run to compare: train until the end, or resume the runs")
    return latest(frame, [*condition_columns(frame, over), *over])


def sorted_by_method(
    frame: pd.DataFrame, *before: str, after: Sequence[str] = (), **options: Any
) -> pd.DataFrame:
    """Sort by columns, of which ``method`` is in the common order of methods."""
    place = method_order(frame["method"]).index
    return frame.sort_values(
        [*before, "method", *after], kind="stable", **options,
        key=lambda column: column.map(place) if column.name == "method" else column,
    )  # fmt: skip


def replicates(
    frame: pd.DataFrame, keys: Sequence[str], over: Sequence[str], value: str = ""
) -> pd.DataFrame:
    """Keep the runs of each condition that count: finished ones if any, the latest of repeated.

    In a frame of epochs, runs with a single ``value`` are left out, with a warning, if others of
    the condition have a curve: with them, the mean would have a single point too.
    """
    runs = frame.drop_duplicates("run") if "run" in frame else frame
    done = finished(runs)
    any_done = done.groupby([runs[name] for name in keys], dropna=False).transform("any")
    runs = runs[done | ~any_done]
    if value and "run" in frame:
        points = runs["run"].map(frame.groupby("run")[value].count())
        most = points.groupby([runs[name] for name in keys], dropna=False).transform("max")
        why = "tested only once, and others of the condition more often"
        runs = _without(runs, (points < 2) & (most > 1), why)
    if {*over} <= {*runs}:
        runs = latest(runs, [*keys, *over])
    return frame[frame["run"].isin(runs["run"])] if "run" in frame else runs


def latest(frame: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Keep only the latest of runs with equal ``settings``: a repeated seed narrows intervals."""
    order = frame.sort_values("updated", kind="stable") if "updated" in frame else frame
    again = order.duplicated(list(settings), keep="last")
    why = "repeated later with the same settings and seed"
    return _without(order, again, why, level=5).sort_index()


def _without(frame: pd.DataFrame, out: pd.Series, why: str, level: int = 4) -> pd.DataFrame:
    if out.any():
        warnings.warn(f"left out, as {why}: {_names(frame[out], frame)}",
                      RecordWarning, stacklevel=level)  # fmt: skip
    return frame[~out]


def warn_of_other_code(frame: pd.DataFrame) -> None:
    """Warn if the code of a custom method changed between runs under the same name."""
    if "method_code" not in frame:
        return
    for method, group in _told(frame, "method_code").groupby("method", sort=False):
        usual, *others = group["method_code"].value_counts().index
        if others:
            odd = group[group["method_code"] != usual]
            warnings.warn(
                f"averaged with runs of other code, as method '{method}' was changed under its "
                f"name: {_names(odd, group)}; give the changed method another name",
                RecordWarning, stacklevel=3,
            )  # fmt: skip


def warn_of_other_data(frame: pd.DataFrame, keys: Sequence[str]) -> None:
    """Warn if runs with the same settings were trained on different data."""
    if "fingerprint" not in keys:
        return
    for _, group in frame.groupby(_data_columns(frame), sort=False, dropna=False):
        usual, *others = group["fingerprint"].value_counts().index
        for other in others:
            warnings.warn(
                f"compared among themselves only, as on other data named "
                f"'{group['dataset'].iloc[0]}' (fingerprint {other}, not {usual}): "
                f"{_names(group[group['fingerprint'] == other], group)}",
                RecordWarning, stacklevel=3,
            )  # fmt: skip


def warn_of_gaps(frame: pd.DataFrame, value: str) -> None:
    """Warn if skipped evaluations or unfinished runs make the cost to a target inexact."""
    gaps = frame[value].isna().groupby(frame["run"]).any()
    if gaps.any():
        warnings.warn(
            f"{value} was not measured after every epoch in {gaps.sum()} of "
            f"{counted(len(gaps), 'run')}: their cost is that of the next epoch in which it was, "
            "and too high; train with evaluate_every=1", RecordWarning, stacklevel=3,
        )  # fmt: skip
    if going := frame.loc[~finished(frame), "run"].nunique():
        warnings.warn(
            f"{going} of {counted(len(gaps), 'run')} not finished: what was not reached may be "
            "reached yet", RecordWarning, stacklevel=3,
        )  # fmt: skip


def _names(some: pd.DataFrame, among: pd.DataFrame) -> str:
    """List a few run names, followed by their count and the total."""
    names = [str(name) for name in some.get("path", some["method"])]
    if not finished(some).all():
        names = [f"{n} ({s})" for n, s in zip(names, some["status"], strict=True)]
    return f"{few(names)} ({len(some)} of {counted(len(among), 'run')})"
