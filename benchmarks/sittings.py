"""Results that add up over many sittings: train what a table does not hold yet.

A table is a CSV file with one row a run, kept in the project; the records themselves may be
gone. A run that has its row is never trained again, and a row is written as soon as its run
ends, so that a sitting can be cut off at any moment.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from budgetlab import analysis
from budgetlab.config import RunConfig
from budgetlab.records import open_record, write_atomically
from budgetlab.sweep.runner import sweep

RESULTS = Path(__file__).parent / "results"

# Where a run was computed does not make it another run.
ELSEWHERE = ("device", "precision", "evaluate_every", "data_root", "out")

COLUMNS = ("key", "dataset", "train_size", "model", "method", "augmentation", "budget",
           "budget_unit", "epochs", "batch_size", "credit", "fidelity", "seed")  # fmt: skip
MEASURED = ("test_accuracy", "test_loss", "steps", "trained_samples", "looked_samples", "flops",
            "seconds", "entropy", "coverage", "precision", "hardware", "torch")  # fmt: skip


def key(config: RunConfig) -> str:
    """Ten hex digits of what is computed, wherever it is and wherever the data lies."""
    defaults = {name: RunConfig.__dataclass_fields__[name].default for name in ELSEWHERE}
    name = config.dataset_name
    # A name of its own, so that folder:here/x and folder:there/x are the same data.
    dataset = name if name == config.dataset else f"folder:{name}"
    return config.replace(**defaults, dataset=dataset).id


def row_of(config: RunConfig, path: Path | str) -> dict[str, Any]:
    """Return the row of a finished run, from its record."""
    record = open_record(path)
    summary = analysis.summaries([record]).iloc[0]
    counts = record.samples["times_trained"].sum("epoch").values
    measured = {
        "entropy": analysis.entropy(counts),
        "coverage": analysis.coverage(counts),
        "torch": record.about.get("versions", {}).get("torch", ""),
        "key": key(config),
    }
    row = {name: measured.get(name, summary.get(name)) for name in (*COLUMNS, *MEASURED)}
    changed = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in row
        and field.name not in (*ELSEWHERE, "limit")
        and getattr(config, field.name) != field.default
    }
    return row | {"other_settings": ", ".join(f"{k}={v}" for k, v in sorted(changed.items()))}


def read(table: Path) -> pd.DataFrame:
    """Open a table; an empty one where there is none yet."""
    if table.is_file():
        return pd.read_csv(table, keep_default_na=False, na_values=["nan"])
    return pd.DataFrame(columns=[*COLUMNS, *MEASURED, "other_settings"])


def provenance(frame: pd.DataFrame) -> str:
    """Say how many runs a table holds, and on what they were computed."""
    hardware, versions = (
        ", ".join(sorted(frame[name].astype(str).unique())) for name in ("hardware", "torch")
    )
    return f"{len(frame)} runs; hardware: {hardware}; torch {versions}."


def sit(
    plan: Iterable[RunConfig],
    table: Path,
    *,
    workers: int = 1,
    minutes: float = float("inf"),
    progress: bool = True,
) -> pd.DataFrame:
    """Train the runs of a plan that have no row yet, for some minutes; return the table.

    Parameters
    ----------
    plan
        Runs, the most wanted first within each seed.
    table
        CSV file, made if it is not there.
    workers
        Runs side by side, each in a process of its own.
    minutes
        No run is begun after this. It is looked at when a run ends: the others under way
        are then stopped at their next step, and the next sitting resumes them if their
        records are still there. So leave room for one run.
    """
    began = time.monotonic()
    frame = read(table)
    known = set(frame["key"])
    missing = {key(config): config for config in plan if key(config) not in known}
    if not missing:
        return frame
    table.parent.mkdir(parents=True, exist_ok=True)
    by_id = {config.id: config for config in missing.values()}
    for result in sweep(list(missing.values()), workers=workers, progress=progress, retry=True):
        if result["status"] == "finished":
            row = row_of(by_id[result["id"]], result["record"])
            frame = pd.DataFrame([*frame.to_dict("records"), row])
            write_atomically(table, frame.to_csv(index=False, float_format="%.6g").encode())
        else:
            print(f"{result['status']}: {result['message']}")
        if time.monotonic() - began > 60 * minutes:
            break
    return frame


def fill(plan: Sequence[RunConfig], table: Path, given: argparse.Namespace) -> None:
    """Do what the options of :func:`parser` ask for, and say how far the table is."""
    frame = read(table)
    if not given.plan:
        frame = sit(plan, table, workers=given.workers, minutes=given.minutes)
    done = set(frame["key"]) & {key(run) for run in plan}
    print(f"{len(done)} of {len(plan)} runs are in {table.name}")


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every sitting."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--workers", type=int, default=1, help="runs side by side")
    made.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no run after this long"
    )
    made.add_argument("--plan", action="store_true", help="say what is missing; train nothing")
    made.add_argument("--out", default="runs", help="folder of the records")
    return made
