"""Records as tidy frames: one row a run, or one row a run and epoch."""

import warnings
from typing import Any

import pandas as pd

from budgetlab.config import ADDED, RunConfig
from budgetlab.errors import InputError
from budgetlab.records import Record, Records, RecordWarning, open_records

COSTS = {
    "steps": "optimiser steps",
    "trained_samples": "samples trained on",
    "looked_samples": "samples only looked at",
    "flops": "floating point operations",
    "seconds": "seconds of training",
}
"""Columns that say what a run has spent, and their meaning."""

RESULTS = ("test_accuracy", "test_loss", *COSTS)
FIRST = ("path", "status", "dataset", "method", "augmentation", "budget", "budget_unit", "seed",
         "test_accuracy", "test_loss", *COSTS, "epochs_trained")  # fmt: skip


def summaries(records: Records) -> pd.DataFrame:
    """Return one row a run: what it was, what it reached, what it cost.

    Parameters
    ----------
    records
        As for :func:`budgetlab.open_records`.

    Returns
    -------
    DataFrame
        Columns ``path``, ``status``, ``dataset``, ``method``, ``augmentation``,
        ``budget``, ``budget_unit``, ``seed``, ``test_accuracy`` (0 to 1),
        ``test_loss``, the costs of :data:`COSTS`, ``epochs_trained``, then the other
        settings of the run, ``proxy_samples`` (run through second networks, trained on or
        not; NaN where it was not recorded), the size and ``fingerprint`` of its data, and
        its device.
        ``model`` and ``precision`` are what was used, also where ``auto`` was asked for.
        What a run that was cut off did not sum up is taken from its last whole epoch.
    """
    frame = pd.DataFrame([_summary(record) for record in open_records(records)])
    return frame[[*FIRST, *(name for name in frame if name not in FIRST)]]


def _dataset_name(config: dict[str, Any]) -> str:
    named = {name: str(config[name]) for name in ("dataset", "data_name") if config.get(name)}
    return RunConfig.from_dict(named).dataset_name


def _summary(record: Record) -> dict[str, Any]:
    summary, data, hardware = record.summary, record.about["data"], record.about.get("hardware", {})
    results = {name: summary.get(name) for name in RESULTS}
    epochs_trained = summary.get("epochs")
    if epochs_trained is None or results["steps"] is None:
        last = _last_epoch(record)
        results = {name: last.get(name) if v is None else v for name, v in results.items()}
        epochs_trained = last.get("epoch", 0)
    # A record of an earlier version did what later fields say by default.
    later = {name: RunConfig.__dataclass_fields__[name].default for name in ADDED}
    config = later | {k: tuple(v) if isinstance(v, list) else v for k, v in record.config.items()}
    return (
        config
        | {
            "path": str(record.path),
            "status": record.status,
            "dataset": _dataset_name(config),
            "model": hardware.get("model") or config.get("model"),
            "precision": hardware.get("precision") or config.get("precision"),
        }
        | {name: _number(value) for name, value in results.items()}
        | {
            "epochs_trained": int(epochs_trained),
            "proxy_samples": _number(summary.get("proxy_samples")),
            "train_size": data.get("train"),
            "fingerprint": record.fingerprint,
            "hardware": hardware.get("name") or hardware.get("device"),
            "updated": record.about.get("updated", ""),
        }
    )


def _number(value: float | None) -> float:
    """NaN where nothing is known; a float where pandas would have no number."""
    if value is None:
        return float("nan")
    return value if abs(value) < 2**63 else float(value)


def _last_epoch(record: Record) -> dict[str, Any]:
    try:
        table = record.epochs
    except InputError as error:
        warnings.warn(f"{error}; its results stay empty", RecordWarning, stacklevel=2)
        return {}
    return table.iloc[-1].to_dict() if len(table) else {}


def epochs(records: Records) -> pd.DataFrame:
    """Return one row a run and epoch: costs so far, losses and accuracies, and the settings.

    Returns
    -------
    DataFrame
        Column ``run`` numbers the runs from 0; then
        :data:`budgetlab.records.EPOCH_COLUMNS` and the settings as in :func:`summaries`
        (``epochs`` is the length of the full run and ``epoch`` counts from 1; ``lr`` is
        the rate of the epoch and ``lr_start`` the setting).
    """
    parts = []
    for number, record in enumerate(open_records(records)):
        try:
            table = record.epochs
        except InputError as error:
            warnings.warn(f"{error}; its curve is left out", RecordWarning, stacklevel=2)
            continue
        about = _summary(record)
        about["lr_start"] = about.pop("lr", None)
        settings = {k: v for k, v in about.items() if k not in table and k != "epochs_trained"}
        extra = pd.DataFrame({k: [v] * len(table) for k, v in settings.items()}, index=table.index)
        parts.append(pd.concat([table.assign(run=number), extra], axis=1))
    parts = [part for part in parts if len(part)]
    if not parts:
        raise InputError("none of these records holds a finished epoch: train for longer")
    frame = pd.concat(parts, ignore_index=True)
    return frame[["run", *(name for name in frame if name != "run")]]
