"""Runs of a GPU session: the plan, and training in parallel processes until the time is up.

While it trains, a run has a record under ``DIR/runs``, from which the next session resumes it if
it was stopped or killed. A finished run first gets its row in the table, then a thinned copy
under ``DIR/records``; only then is its record removed, so that rows not yet in the table can
always be computed from the records on disk.
"""

import multiprocessing
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from budgetlab import models
from budgetlab.budget import Costs, model_costs
from budgetlab.config import RunConfig
from budgetlab.data import Splits
from budgetlab.errors import InputError, RunError
from budgetlab.records import thin, write_atomically
from budgetlab.training import Run
from experiments import plans, tables
from experiments.__main__ import ordered

__all__ = ["ASSUMED", "Table", "expected_seconds", "paper", "processes", "run_session", "scale"]

# Not every epoch: ResNet-18's state is 90 MB, and an epoch takes a fraction of a second.
STATE_SECONDS = 20.0
KEPT = {"samples": 2000, "epochs": 20}
RESTARTS = 3

now = time.time


class Table:
    """Rows of finished runs, stored identically in several files.

    Parameters
    ----------
    files
        CSV files; the table starts with the rows of all of them.
    """

    def __init__(self, *files: Path):
        self.files = files
        frames = [tables.read(file) for file in files]
        rows = [row for frame in frames for row in frame.to_dict("records")]
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in reversed(rows)}
        if self.rows:
            self._write()

    def add(self, row: dict[str, Any]) -> None:
        """Add the row of a run and write it to disk."""
        self.rows[row["key"]] = row
        self._write()

    def _write(self) -> None:
        text = pd.DataFrame(self.rows.values()).to_csv(index=False, float_format="%.6g")
        for file in self.files:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, text.encode())


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run: its row, or how far it got, or what went wrong."""

    row: dict[str, Any] | None = None
    stopped: str = ""
    failed: str = ""


def _places(config: RunConfig, out: Path) -> tuple[Path, Path]:
    """Return the paths of a run's record during training, and of its thinned copy."""
    return out / "runs" / config.folder_name, out / "records" / config.folder_name


def _opened(config: RunConfig, path: Path, splits: Splits) -> Run:
    """Resume the record at ``path``, or start a new run."""
    if path.exists():
        try:
            return Run.resume(path, splits=splits)
        except (InputError, RunError):
            # Killed before its description was written, or on different data.
            shutil.rmtree(path)
    return Run(config, splits=splits)


def train(config: RunConfig, out: Path, last: float) -> Outcome:
    """Train a run to its end or until ``last``; called in a worker process."""
    torch.set_num_threads(1)
    config = config.replace(out=str(out / "runs"))
    path, _ = _places(config, out)
    try:
        run = _opened(config, path, tables.load(config))
        run.state_seconds = STATE_SECONDS
        epochs = iter(run)
        for _ in epochs:
            if now() >= last and not run.loop.finished:
                epochs.close()
                share = run.budget.share_spent(run.ledger)
                return Outcome(stopped=f"stopped at {share:.0%}, to be gone on with")
        return Outcome(row=tables.row_of(config, run.record))
    except Exception as error:
        # A failed run must not end the session.
        return Outcome(failed=f"{type(error).__name__}: {error}")


def tidy(config: RunConfig, out: Path) -> Outcome:
    """Replace the record of a run that is in the table by a thinned copy."""
    path, kept = _places(config, out)
    try:
        if not kept.exists():
            thin(path, kept, **KEPT)
        shutil.rmtree(path)
    except Exception as error:
        return Outcome(failed=f"its small copy: {type(error).__name__}: {error}")
    return Outcome()


def _end_with_parent() -> None:
    """End this worker when the session is killed, so that it does not keep holding the GPU."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def processes(workers: int) -> Executor:
    """Return a pool of persistent processes, each with its own CUDA context."""
    return ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )


class Sitting:
    """Scheduler of the runs of a session; see :func:`run_session`."""

    def __init__(
        self, plan: Iterable[RunConfig], table: Table, out: Path, workers: int, last: float,
        end: float, say: Callable[[str], None], executor: Callable[[int], Executor],
    ):  # fmt: skip
        self.table, self.out, self.workers, self.last, self.end = table, out, workers, last, end
        self.say, self.executor = say, executor
        self.plan = {tables.key(config): config for config in plan}
        self.queue = deque(c for key, c in self.plan.items() if key not in table.rows)
        self.under_way: dict[Future[Outcome], tuple[bool, RunConfig]] = {}
        self.free_at = now()  # expected end of all runs in progress
        self.restarts = 0

    def go(self) -> None:
        """Train until all runs are done or the time is up."""
        others = set(multiprocessing.active_children())
        self.pool = self.executor(self.workers)
        try:
            for key, config in self.plan.items():
                if key in self.table.rows and _places(config, self.out)[0].exists():
                    self._submit(config, training=False)
            while self._fill():
                left = max(0.0, self.end - now())
                done, _ = wait(self.under_way, timeout=left, return_when=FIRST_COMPLETED)
                if not done:
                    self.say(f"{len(self.under_way)} runs did not stop in time and are killed")
                    return
                for future in done:
                    self._take(future)
        finally:
            self.pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - others:
                child.kill()

    def _fill(self) -> bool:
        """Start runs while there is time; return whether any is in progress."""
        while self.queue and len(self.under_way) < self.workers and now() < self.last:
            free_at = max(self.free_at, now()) + expected_seconds(self.queue[0])
            # Runs share the GPU: one that cannot finish would keep others from finishing too.
            if self.under_way and free_at > self.last:
                break
            self.free_at = free_at
            self._submit(self.queue.popleft(), training=True)
        return bool(self.under_way)

    def _submit(self, config: RunConfig, *, training: bool) -> None:
        work: Any = (train, config, self.out, self.last) if training else (tidy, config, self.out)
        self.under_way[self.pool.submit(*work)] = training, config

    def _take(self, future: Future[Outcome]) -> None:
        if future not in self.under_way:  # its process has been replaced
            return
        training, config = self.under_way.pop(future)
        try:
            outcome = future.result()
        except BrokenProcessPool:
            self._replace_processes([(training, config), *self.under_way.values()])
            return
        name = (f"{config.dataset_name}, {config.method}, {config.augmentation}, "
                f"budget {config.budget:g}, seed {config.seed}")  # fmt: skip
        if outcome.failed:
            self.say(f"{name}: FAILED, {outcome.failed}")
        elif outcome.stopped:
            self.say(f"{name}: {outcome.stopped}")
        elif outcome.row is not None:
            self.table.add(outcome.row)
            there = sum(key in self.table.rows for key in self.plan)
            accuracy, seconds = outcome.row["test_accuracy"], outcome.row["seconds"]
            self.say(f"{name}: {accuracy:.2%} after {seconds:.0f} s of training; "
                     f"{there} of {len(self.plan)}")  # fmt: skip
            self._submit(config, training=False)

    def _replace_processes(self, lost: list[tuple[bool, RunConfig]]) -> None:
        """Restart the pool after a process died and broke it, a limited number of times."""
        self.under_way.clear()
        self.restarts += 1
        if self.restarts > RESTARTS:
            self.say(f"processes ended {self.restarts} times: no more are begun")
            self.queue.clear()
            return
        self.say("a process ended, perhaps for want of memory: all are started anew")
        self.pool.shutdown(wait=False)
        self.pool = self.executor(self.workers)
        self.queue.extendleft(config for training, config in reversed(lost) if training)


def run_session(
    plan: Iterable[RunConfig],
    table: Table,
    out: Path,
    *,
    workers: int,
    last: float,
    end: float,
    say: Callable[[str], None],
    executor: Callable[[int], Executor] | None = None,
) -> None:
    """Train the runs of a plan that have no row yet, until the time is up.

    Parameters
    ----------
    plan
        Runs in order of priority.
    table
        Receives their rows.
    out
        Folder of ``runs`` and ``records``.
    workers
        Number of parallel runs.
    last, end
        Times in seconds since 1970: no epoch starts after ``last``; runs still in progress at
        ``end`` are killed.
    say
        Logs a sentence.
    executor
        Creates the process pool; :func:`processes` by default.
    """
    for leftover in (out / "records").glob(".*"):  # of an interrupted copy
        shutil.rmtree(leftover, ignore_errors=True)
    Sitting(plan, table, out, workers, last, end, say, executor or processes).go()


# The plan in order of priority, and the expected time of each run.

SEEDS = range(6)
# Seeds 0 to 9 are in the scale model's table.
MORE_SEEDS = range(10, 30)
ROUND = 3

PEAK = 989e12
# Measured on an H100, at batch 128 and 32; parallel runs do not raise it.
UTILISATION = {"resnet18": 0.12}
OTHERS = 0.001
ASSUMED = (
    f"floating point operations, {PEAK / 1e12:.0f} TFLOP/s at the peak, of which ResNet-18 "
    f"reaches {UTILISATION['resnet18']:.0%} and a small network at batch 32 {OTHERS:.1%}, all "
    "processes together."
)

Wanted = Callable[[RunConfig], bool]
# In order of priority; runs of an earlier stage are left out of later ones.
STAGES: list[tuple[str, list[tuple[str, Wanted]]]] = [
    ("(d) credit under RICAP", [("d", lambda run: True)]),
    ("(b) methods at 0.2", [("b", lambda run: run.budget == 0.2)]),
    ("(c) augmentations at 0.3", [("c", lambda run: run.budget == 0.3)]),
    ("(a) budgets", [("a", lambda run: True), ("b", lambda run: run.method == "unif-SGD")]),
    ("(e) entropy", [("e", lambda run: True)]),
    ("the rest of (b), (c), and (f)", [(part, lambda run: True) for part in "bcf"]),
]
TOY = {"model": "tiny", "batch_size": 16, "limit": 200, "epochs": 3, "device": "cpu"}


def paper(
    dataset: str, *, toy: bool = False, **common: object
) -> Iterator[tuple[str, list[RunConfig]]]:
    """List the runs of the paper's claims, by stage, three seeds at a time.

    Parameters
    ----------
    dataset
        Data set to train on.
    toy
        If True, only two stages of one seed, with runs of about a second.
    **common
        Settings shared by all runs.
    """
    known: set[str] = set()
    rounds = [SEEDS[:1]] if toy else [SEEDS[n : n + ROUND] for n in range(0, len(SEEDS), ROUND)]
    settings = common | (TOY if toy else {})
    for seeds in rounds:
        for name, parts in STAGES[:2] if toy else STAGES:
            found = [
                run
                for seed in seeds
                for part, wanted in parts
                for run in plans.runs(part, dataset, seed, preset="paper", **settings)
                if wanted(run)
            ]
            new = {tables.key(run): run for run in found if tables.key(run) not in known}
            known |= new.keys()
            yield f"{name}, seeds {seeds[0]} to {seeds[-1]}", list(new.values())


def scale(dataset: str, *, toy: bool = False, **common: object) -> list[RunConfig]:
    """List the findings and the map of the scale model, with new seeds."""
    if toy:
        return ordered(["d"], [dataset], MORE_SEEDS[:1], **common, **TOY)
    return ordered([*plans.FINDINGS, "map"], [dataset], MORE_SEEDS, **common)


@lru_cache
def _costs(model: str) -> Costs:
    return model_costs(models.build(model, (3, 32, 32), 10), (3, 32, 32))


def expected_seconds(run: RunConfig) -> float:
    """Estimate the seconds that a run adds on an H100; not a measurement."""
    costs = _costs(run.model)
    visits = run.epochs * (run.limit or 50_000)
    trained = visits * run.budget * costs.forward_backward
    if run.method == "selective-backprop" and run.budget_unit == "iterations":
        # About one in 1 / budget of the samples scored is trained on.
        trained += visits * costs.forward
    evaluations = run.epochs // run.evaluate_every if run.evaluate_every else 1
    evaluated = evaluations * 10_000 * costs.forward
    return (trained + evaluated) / (PEAK * UTILISATION.get(run.model, OTHERS))
