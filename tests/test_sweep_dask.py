"""Sweeps on a Dask cluster of separate worker processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from same_results import same_results
from waiting import until

import budgetlab as bl
from budgetlab.errors import InputError, RunError
from budgetlab.records import find
from budgetlab.records.lock import holder, is_held
from budgetlab.sweep import executors
from budgetlab.sweep.found import lock_path

distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra: dask)")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """A scheduler and two worker processes, each training one run at a time."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        yield cluster


def whole(config: Any, tmp_path: Path, **settings: object) -> Path:
    """The record of a run that nothing interrupted."""
    (row,) = bl.sweep(config, out=str(tmp_path / "whole"), progress=False, **settings)
    return Path(row["record"])


class Later(threading.Thread):
    """Does something as soon as a run has whole epochs."""

    def __init__(self, run: Any, what: Callable[[], None]):
        super().__init__(daemon=True)
        self.run_, self.what = run, what
        self.start()

    def run(self) -> None:
        until(lambda: self.epochs() > 2)
        self.what()

    def epochs(self) -> int:
        table = Path(self.run_.out) / self.run_.folder_name / "epochs.csv"
        return len(table.read_text().splitlines()) - 1 if table.is_file() else 0


def test_a_cluster_trains_a_grid_and_outlives_a_killed_worker(config, cluster, tmp_path):
    quick = config.replace(epochs=2)
    sweep = bl.sweep([quick, quick.replace(epochs=60)], seed=[0, 1],
                     scheduler=cluster.scheduler_address, progress=False)  # fmt: skip
    long = next(run for run in sweep.runs if run.epochs == 60)
    killer = Later(long, lambda: os.kill(holder(lock_path(long))["process"], signal.SIGKILL))
    rows = {(row["epochs"], row["seed"]): row for row in sweep}
    killer.join()
    assert {row["status"] for row in rows.values()} == {"finished"}
    assert rows[60, long.seed]["how"] == "resumed"
    same_results(Path(rows[60, long.seed]["record"]), whole(long, tmp_path))
    same_results(Path(rows[2, 0]["record"]), whole(quick, tmp_path))
    assert len(find(config.out)) == 4


def test_a_cluster_that_goes_away_loses_nothing(config, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 3)
    long = config.replace(epochs=300)
    sweep = bl.sweep(long, scheduler=cluster.scheduler_address, progress=False)
    killer = Later(sweep.runs[0], cluster.close)
    with pytest.raises(RunError, match="given the runs up: start the sweep again"):
        list(sweep)
    killer.join()
    until(lambda: not is_held(lock_path(long)))
    again = bl.sweep(long, progress=False)
    assert again.counts == {"stopped": 1}
    (row,) = again
    assert row["how"] == "resumed"
    same_results(Path(row["record"]), whole(long, tmp_path))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[[int], list[subprocess.Popen]]]:
    """Begin a scheduler and a worker at a port, as on a cluster: each a process of its own."""
    begun: list[subprocess.Popen] = []

    def go(port: int) -> list[subprocess.Popen]:
        address = f"tcp://127.0.0.1:{port}"
        words = {
            "scheduler": ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
            "worker": [address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "20",
                       "--local-directory", str(tmp_path)],
        }  # fmt: skip
        new = [
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{name}", *more],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            for name, more in words.items()
        ]  # fmt: skip
        begun.extend(new)
        return new

    yield go
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_scheduler_that_is_killed_and_started_again(config, start, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 60)
    long, port = config.replace(epochs=300), free_port()
    address = f"tcp://127.0.0.1:{port}"
    scheduler, _ = start(port)
    sweep = bl.sweep(long, scheduler=address, progress=False)
    killer = Later(sweep.runs[0], scheduler.kill)
    with pytest.raises(RunError, match="given the runs up: start the sweep again"):
        list(sweep)
    killer.join()
    # The worker sees that its scheduler is gone, and lets go of the run.
    until(lambda: not is_held(lock_path(long)))
    start(port)
    (row,) = bl.sweep(long, scheduler=address, progress=False)
    # Kept, where the worker came to the end before it saw that its scheduler was gone.
    assert row["how"] in ("resumed", "kept")
    assert row["status"] == "finished"
    same_results(Path(row["record"]), whole(long, tmp_path))
    assert len(find(config.out)) == 1


def test_a_scheduler_that_does_not_answer_is_named(config, monkeypatch):
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 0.5)
    sweep = bl.sweep(config, scheduler="tcp://127.0.0.1:9", progress=False)
    with pytest.raises(InputError, match=r"scheduler 'tcp://127.0.0.1:9' does not answer"):
        list(sweep)
    assert not Path(config.out).exists()


def test_without_dask_it_is_said_how_to_install_it(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'budgetlab\[dask\]'"):
        list(bl.sweep(config, scheduler="tcp://127.0.0.1:9", progress=False))
