"""Sweeps in many processes and on a cluster: shared folders, killed workers, killed sweeps."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from same_results import same_results
from waiting import until

import budgetlab as bl
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records import find_records, open_record
from budgetlab.records.writer import holder, is_held
from budgetlab.sweeps import dispatch
from budgetlab.sweeps.dispatch import Processes, slots_for
from budgetlab.sweeps.grid import lock_path, planned_cost

LONG, ENDLESS = 25, 20_000
ONE_THREAD = {"env": os.environ | {"OMP_NUM_THREADS": "1"}}


@pytest.fixture
def begin() -> Iterator[Callable[..., subprocess.Popen]]:
    """Begin ``python -m ...`` in a session of its own, of which nothing is left at the end."""
    begun: list[subprocess.Popen] = []

    def go(*command: str, **more: Any) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], start_new_session=True, **ONE_THREAD, **more
        )
        begun.append(process)
        return process

    yield go
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def start(config: RunConfig, begin) -> Callable[..., subprocess.Popen]:
    """Begin ``budgetlab sweep`` on the quick run."""
    flags = [
        "--dataset", "points", "--limit", "128", "--batch-size", "16", "--budget", "0.5",
        "--precision", "float32", "--device", "cpu", "--data-root", config.data_root,
        "--out", config.out, "--json",
    ]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return lambda *more: begin("budgetlab", "sweep", *flags, *more, **pipes)


def epochs_of(run: RunConfig) -> int:
    """Whole epochs in the record of a run, however it stands."""
    table = Path(run.out) / run.folder_name / "epochs.csv"
    return len(table.read_text().splitlines()) - 1 if table.is_file() else 0


@pytest.fixture
def whole(config: RunConfig, tmp_path: Path) -> Callable[..., Path]:
    """Train a run that nothing interrupts, and give its record."""

    def go(**settings: object) -> Path:
        (row,) = bl.sweep(config, out=str(tmp_path / "whole"), progress=False, **settings)
        return Path(row["record"])

    return go


def when(happened: Callable[[], object], what: Callable[[], object]) -> threading.Thread:
    """Do something, beside, as soon as something is the case."""
    thread = threading.Thread(target=lambda: (until(happened), what()), daemon=True)
    thread.start()
    return thread


# Processes of this machine


def test_processes_train_as_this_one_does_and_stay_for_the_next_sweep(config, whole):
    grid = dict(method=["unif-SGD", "p-SGD"], seed=[0, 1], epochs=2, workers=2, progress=False)
    workers = set()
    for budget in (0.25, 0.5):
        rows = list(bl.sweep(config, budget=budget, **grid))
        assert [row["status"] for row in rows] == ["finished"] * 4
        locks = [lock_path(run) for run in bl.sweep(config, budget=budget, **grid).runs]
        workers |= {holder(lock)["process"] for lock in locks}
        for row in rows:
            assert open_record(row["record"]).about["hardware"]["threads"] == 1
    assert len(workers) == 2
    assert os.getpid() not in workers
    same_results(Path(rows[0]["record"]), whole(**{n: rows[0][n] for n in ("method", "seed")},
                                                epochs=2))  # fmt: skip


def test_each_process_has_its_share_and_one_that_dies_is_replaced():
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    before = [os.environ.get(name) for name in names]
    with Processes(2, gpus=("3", "5")) as executor:
        dead, other = executor.submit(os._exit, 9), executor.submit(os.getpid)
        assert isinstance(dead.exception(), BrokenExecutor)
        assert other.result() != os.getpid()
        for name, values in zip(names, (["3", "5"], ["1", "1"], ["PASSIVE"] * 2), strict=True):
            asked = [executor.submit(os.getenv, name) for _ in range(2)]
            assert [future.result() for future in asked] == values
    assert [os.environ.get(name) for name in names] == before


def test_auto_takes_one_a_core_or_one_a_gpu_and_no_more_than_there_are_runs(config, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    runs = [config.replace(seed=seed, device="auto") for seed in range(7)]
    assert slots_for("auto", runs) == slots_for(0, runs) == (1, ())
    assert slots_for(5, runs) == (5, ())
    assert slots_for(1024, runs) == (7, ())
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert slots_for("auto", runs) == (3, ("0", "1", "2"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")
    assert slots_for("auto", runs[:2]) == (2, ("4", "7", "9"))
    # Those that name a processor, or a GPU by its number, are given none.
    for device in ("cpu", "cuda:1"):
        assert slots_for("auto", [run.replace(device=device) for run in runs]) == (1, ())


OWN = """
import budgetlab as bl
import torch
@bl.sampler("{name}")
def score(history):
    return torch.ones_like(history.confidence){more}
"""


def test_methods_of_ones_own_reach_other_processes(config, tmp_path, monkeypatch):
    """From a module, also one that changed meanwhile, and defined in place."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(OWN.format(name="mine", more=""))
    __import__("mine")
    here = {"__name__": "__main__"}
    exec(OWN.format(name="here", more=" * 0 - 1"), here)
    (tmp_path / "mine.py").unlink()
    sweep = bl.sweep(config, method=["mine", "here"], epochs=2, workers=2, progress=False)
    rows = {row["method"]: row for row in sweep}
    assert rows["mine"]["status"] == "finished"
    assert "the score -1" in rows["here"]["message"]

    here["lock"] = threading.Lock()
    exec(OWN.format(name="here", more=" * lock.locked()"), here)
    with pytest.raises(InputError, match="the methods here cannot be sent to another process"):
        bl.sweep(config, method="here", workers=2)


def test_two_sweeps_on_one_folder_train_each_run_once(config, start):
    more = ["--epochs", "10", "--method", "unif-SGD", "p-SGD", "--seed", "0", "1", "2"]
    hows = []
    for process in [start(*more) for _ in range(2)]:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert json.loads(out)["counts"] == {"finished": 6}
        hows.append([row["how"] for row in json.loads(out)["summaries"]])
    for both in zip(*hows, strict=True):
        assert sorted(both) == ["kept", "trained"]
    assert [len(record.epochs) for record in bl.open_records(config.out)] == [10] * 6


def test_breaking_off_ends_what_is_under_way_and_goes_on_from_its_last_epoch(config, whole):
    short, long = config.replace(epochs=2), config.replace(epochs=ENDLESS)
    sweep = bl.sweep([short, long], workers=2, progress=False)
    for row in sweep:
        assert row["epochs"] == 2
        until(lambda: epochs_of(long) > 2)
        break
    assert sweep.counts == {"stopped": 1, "finished": 1}
    assert 0 < sweep.cost_left < planned_cost(long)
    assert not is_held(lock_path(long))
    # In an executor of yours, what has not begun does not begin, and the rest goes on to its end.
    with ThreadPoolExecutor(1) as executor:
        sweep = bl.sweep(config, epochs=3, seed=[0, 1, 2], executor=executor, progress=False)
        next(iter(sweep))
    assert sweep.frame["status"].tolist()[2] == "planned"


def test_a_run_that_takes_its_worker_with_it_is_given_up(config):
    @bl.sampler("deadly")
    def score(history):
        os._exit(9)

    sweep = bl.sweep(config, method=["deadly", "SGD"], workers=2, progress=False)
    rows = {row["method"]: row for row in sweep}
    assert rows["SGD"]["status"] == "finished"
    assert "its worker was lost 2 times" in rows["deadly"]["message"]


def test_a_killed_worker_costs_no_run_and_ctrl_c_stops_the_others(config, start, whole):
    # Long enough to be under way still when the other worker has begun.
    epochs = 4 * LONG
    short, long = (config.replace(epochs=number) for number in (epochs, ENDLESS))
    sweep = start("--epochs", str(epochs), str(ENDLESS), "--workers", "2")
    until(lambda: epochs_of(short) > 2 and epochs_of(long) > 2)
    victim, other = (holder(lock_path(run))["process"] for run in (short, long))
    assert len({victim, other, sweep.pid}) == 3
    os.kill(victim, signal.SIGKILL)
    until(lambda: epochs_of(short) == epochs and not is_held(lock_path(short)))
    assert holder(lock_path(short))["process"] != victim
    assert holder(lock_path(long))["process"] == other

    # As a terminal does: to all of them.
    os.killpg(sweep.pid, signal.SIGINT)
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    result = json.loads(out)
    assert result["counts"] == {"stopped": 1, "finished": 1}
    same_results(Path(result["summaries"][0]["record"]), whole(epochs=epochs))
    statuses = {record.status for record in bl.open_records(config.out)}
    assert statuses == {"running", "finished"}  # as a kill leaves it


def test_a_killed_sweep_leaves_no_process_and_the_next_one_goes_on_from_there(config, start, whole):
    run = config.replace(epochs=4 * LONG)
    sweep = start("--epochs", str(4 * LONG), "--seed", "0", "1", "--workers", "2")
    until(lambda: epochs_of(run) > 2)
    children = psutil.Process(sweep.pid).children(recursive=True)
    sweep.kill()
    # Nothing goes on behind the back of whoever killed it, such as the kernel of a notebook.
    ended, alive = psutil.wait_procs(children, timeout=60)
    assert len(ended) >= 2
    assert alive == []
    (row,) = bl.sweep(run, progress=False)
    assert row["status"] == "finished"
    same_results(Path(row["record"]), whole(epochs=4 * LONG))


# A cluster

distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra: dask)")
dask = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """A scheduler and two worker processes, each training one run at a time."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        yield cluster


@dask
def test_a_cluster_trains_a_grid_and_outlives_a_killed_worker(config, cluster, whole):
    quick = config.replace(epochs=2)
    sweep = bl.sweep([quick, quick.replace(epochs=LONG)], seed=[0, 1],
                     scheduler=cluster.scheduler_address, progress=False)  # fmt: skip
    long = next(run for run in sweep.runs if run.epochs == LONG)
    killer = when(lambda: epochs_of(long) > 2,
                  lambda: os.kill(holder(lock_path(long))["process"], signal.SIGKILL))  # fmt: skip
    rows = {(row["epochs"], row["seed"]): row for row in sweep}
    killer.join()
    assert {row["status"] for row in rows.values()} == {"finished"}
    assert rows[LONG, 0]["how"] == "resumed"
    same_results(Path(rows[LONG, 0]["record"]), whole(epochs=LONG))
    same_results(Path(rows[2, 0]["record"]), whole(epochs=2))
    assert len(find_records(config.out)) == 4


@dask
def test_a_scheduler_that_is_killed_and_started_again(config, begin, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(dispatch, "CONNECT_SECONDS", 60)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def serve() -> subprocess.Popen:
        begin("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard",
              "--death-timeout", "20", "--local-directory", str(tmp_path), **quiet)  # fmt: skip
        return begin("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port,
                     "--no-dashboard", **quiet)  # fmt: skip

    scheduler = serve()
    long = config.replace(epochs=150)
    sweep = bl.sweep(long, scheduler=address, progress=False)
    killer = when(lambda: epochs_of(long) > 2, scheduler.kill)
    with pytest.raises(RunError, match="gave the runs up: start the sweep again"):
        list(sweep)
    killer.join()
    # The worker sees that its scheduler is gone, and lets go of the run.
    until(lambda: not is_held(lock_path(long)))
    serve()
    (row,) = bl.sweep(long, scheduler=address, progress=False)
    # Kept, where the worker came to the end before it saw that its scheduler was gone.
    assert row["how"] in ("resumed", "kept")
    assert row["status"] == "finished"
    same_results(Path(row["record"]), whole(epochs=150))
    assert len(find_records(config.out)) == 1


@dask
def test_a_cluster_that_cannot_be_reached_is_said_with_what_to_do(config, monkeypatch):
    monkeypatch.setattr(dispatch, "CONNECT_SECONDS", 0.5)
    sweep = bl.sweep(config, scheduler="tcp://127.0.0.1:9", progress=False)
    with pytest.raises(InputError, match=r"scheduler 'tcp://127.0.0.1:9' does not answer"):
        list(sweep)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'budgetlab\[dask\]'"):
        list(sweep)
    assert not Path(config.out).exists()
