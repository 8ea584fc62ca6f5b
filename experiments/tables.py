"""Result tables that grow over many sessions: train missing runs, and compare.

A table is a CSV file with one row per run. A run with a row is never trained again, and rows are
written as soon as a run ends, so that a session can be interrupted at any moment. Runs are
trained in parallel by persistent processes with one thread each.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch

from budgetlab import analysis
from budgetlab.analysis.comparison import add_conclusions
from budgetlab.analysis.statistics import MARGIN, paired_difference
from budgetlab.config import DATA_FIELDS, RunConfig
from budgetlab.data import Splits
from budgetlab.errors import counted
from budgetlab.records import Record, write_atomically
from budgetlab.training import Run, load_data
from experiments.plans import entry

RESULTS = Path(__file__).parent / "results"

FEWEST = 2  # pairs for a comparison
SEEDS = 10  # pairs for a verdict

# Settings that do not identify a run: where and how it was computed.
ELSEWHERE = ("device", "precision", "evaluate_every", "data_root", "out")
SETTINGS = ("method", "augmentation", "budget", "budget_unit", "epochs", "credit", "smoothing",
            "averaging", "weights", "class_shares", "schedule", "schedule_horizon", "redundancy",
            "imbalance", "label_noise", "seed", "data_seed", "optimiser", "warmup")  # fmt: skip
MEASURED = ("test_accuracy", "test_loss", "steps", "trained_samples", "looked_samples", "flops",
            "seconds", "precision", "hardware")  # fmt: skip


def key(config: RunConfig) -> str:
    """Return ten hex digits that identify a run, independent of machine and paths."""
    defaults = {name: RunConfig.__dataclass_fields__[name].default for name in ELSEWHERE}
    name = config.dataset_name
    # Folders by name only, so that folder:here/x and folder:there/x are the same data.
    dataset = name if name == config.dataset else f"folder:{name}"
    return config.replace(**defaults, dataset=dataset).id


def row_of(config: RunConfig, record: Record) -> dict[str, Any]:
    """Return the row of a finished run: settings, results and costs."""
    summary = analysis.summaries([record]).iloc[0]
    counts = record.samples["times_trained"].sum("epoch").values
    about = record.about
    return {
        "key": key(config),
        "dataset": config.dataset_name,
        "entry": entry(config),
        "train_size": int(about["data"]["train"]),
        "model": str(summary["model"]),
        **{name: getattr(config, name) for name in SETTINGS},
        **{name: summary[name] for name in MEASURED},
        "train_accuracy": float(record.epochs["train_accuracy"].iloc[-1]),
        "entropy": analysis.entropy(counts),
        "coverage": analysis.coverage(counts),
        "threads": about["hardware"].get("threads"),
        "torch": about.get("versions", {}).get("torch", ""),
    }


@lru_cache(maxsize=4)
def _load(data: RunConfig) -> Splits:
    return load_data(data, progress=False)


def load(config: RunConfig) -> Splits:
    """Load the data of a run; the last few data sets are cached."""
    # Reduced to the data settings, so that runs on the same data share a cache entry.
    names = ("data_root", *DATA_FIELDS)
    return _load(RunConfig(**{name: getattr(config, name) for name in names}))


def _train(config: RunConfig, kept: Path | None) -> dict[str, Any]:
    """Train one run in one thread; return its row, or its error."""
    torch.set_num_threads(1)
    try:
        run = Run(config, splits=load(config))
        for _ in run:
            pass
        row = row_of(config, run.record)
    except Exception as error:
        # A failed run must not end a session of hours.
        return {"key": key(config), "failed": f"{type(error).__name__}: {error}"}
    if kept is None:
        shutil.rmtree(run.writer.path)
    else:
        kept.mkdir(parents=True, exist_ok=True)
        shutil.move(run.writer.path, kept / run.writer.path.name)
    return row


def read(table: Path) -> pd.DataFrame:
    """Read a table, if it exists; settings added after a row was written get their defaults."""
    if not table.is_file():
        return pd.DataFrame({"key": pd.Series(dtype=str)})
    frame = pd.read_csv(table, dtype={"key": str})
    return frame.fillna({name: getattr(RunConfig, name) for name in SETTINGS if name in frame})


def provenance(frame: pd.DataFrame) -> str:
    """Describe the number of runs in a table, and the hardware and software used."""
    on, precision, threads, torch = (
        listed(sorted(frame[name].astype(str).unique()), "and")
        for name in ("hardware", "precision", "threads", "torch")
    )
    on = on.replace("(R)", "").replace(" Processor", "")
    return (f"{counted(len(frame), 'run')} on {on}, in {precision}, with {threads} thread per run "
            f"and torch {torch}")  # fmt: skip


def listed(names: Iterable[object], word: str) -> str:
    """Join names into a list: ``a, b or c``."""
    *first, last = map(str, names)
    return f"{', '.join(first)} {word} {last}" if first else last


def run_session(
    plan: Iterable[RunConfig],
    table: Path,
    *,
    workers: int = 1,
    minutes: float = float("inf"),
    keep: Callable[[RunConfig], Path | None] = lambda config: None,
) -> pd.DataFrame:
    """Train the runs of a plan that have no row yet, for some minutes; return the table.

    Parameters
    ----------
    plan
        Runs in order of priority.
    table
        CSV file, created if missing.
    workers
        Number of parallel processes, with one thread each.
    minutes
        No run starts after this time.
    keep
        Returns the folder in which to keep a run's record, or None to discard it.
    """
    end = time.monotonic() + 60 * minutes
    frame = read(table)
    known = set(frame["key"])
    missing = {key(config): config for config in plan if key(config) not in known}
    table.parent.mkdir(parents=True, exist_ok=True)
    jobs = (
        joblib.delayed(_train)(config, keep(config))
        for config in missing.values()
        if time.monotonic() < end
    )
    rows = frame.to_dict("records")
    parallel = joblib.Parallel(
        workers, return_as="generator_unordered", batch_size=1, pre_dispatch=workers
    )
    for done, row in enumerate(parallel(jobs), 1):
        if "failed" in row:
            print(f"{row['key']} failed: {row['failed']}", file=sys.stderr)
            continue
        rows.append(row)
        text = pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
        write_atomically(table, text.encode())
        print(f"{done} of {len(missing)}: {row['dataset']} {row['entry']}", file=sys.stderr)
    return read(table)


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    """Format a fraction as a percentage; empty for NaN."""
    return "" if value != value else f"{100 * value:{'+' if sign else ''}.{digits}f}"


def interval(row: Mapping[str, Any]) -> str:
    """Format a difference with interval and, from enough seeds, verdict; or up to two pairs."""
    if not row["n"]:
        return "not run yet"
    if row["n"] <= FEWEST:
        low, high = (number(row[name], sign=True) for name in ("lowest", "highest"))
        return f"{low} and {high} (two pairs)" if row["n"] == 2 else f"{low} (one pair)"
    inside = f"{number(row['ci_low'], sign=True)} to {number(row['ci_high'], sign=True)}"
    verdict = f", {row['verdict']}" if row["verdict"] else ""
    return f"{number(row['difference'], sign=True)} ({inside}){verdict}"


def open_sentence(row: Mapping[str, Any]) -> str:
    """Format a comparison with too few seeds for a verdict."""
    return (f"{row['method']} against {row['baseline']}: {interval(row)}, n = {row['n']}: too few "
            "seeds for a verdict.")  # fmt: skip


def against(
    rows: pd.DataFrame,
    name: str,
    baseline: object,
    by: Sequence[str] = ("dataset",),
    *,
    question: Sequence[str] = (),
    metric: str = "test_accuracy",
    margin: float | None = MARGIN,
) -> pd.DataFrame:
    """Compare each value of a column with a baseline value, paired by seed; one row each.

    With fewer than :data:`SEEDS` pairs, the verdict is empty and the sentence states none.

    Parameters
    ----------
    rows
        One row per run, each condition and seed once.
    name
        Column to compare by, such as ``entry`` or ``augmentation``.
    baseline
        Its value to compare the others with.
    by
        Columns in which both must agree.
    question
        Columns of ``by`` that define a family of comparisons for the correction; default all.
    metric, margin
        As in :func:`budgetlab.compare`.
    """
    found = []
    for key, group in rows.groupby(list(by), sort=False):
        wide = group.pivot_table(index="seed", columns=name, values=metric)
        if baseline not in wide:
            continue
        for value in wide.columns.drop(baseline):
            both = wide[[value, baseline]].dropna()
            result = paired_difference(both[value], both[baseline], margin=margin)
            found.append(dict(zip(by, key, strict=True)) | {name: value} | vars(result) | {
                "method": value, "baseline": baseline, "n": result.pairs,
                "mean": wide[value].mean(), "baseline_mean": both[baseline].mean(),
                "pair_spread": result.spread, "dropped": 0, "spread": wide[value].std(ddof=1),
                "baseline_spread": wide[baseline].std(ddof=1),
            })  # fmt: skip
    table = pd.DataFrame(found)
    if table.empty:
        return table
    table = add_conclusions(table, by, metric, margin=margin, question=question or by)
    few = table["n"] < SEEDS
    table["verdict"] = table["verdict"].mask(few, "")
    table.loc[few, "sentence"] = table[few].apply(open_sentence, axis=1)
    return table
