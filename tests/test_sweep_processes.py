"""Sweeps in many processes: shared folders, killed workers, killed sweeps."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
import torch
from same_results import same_results
from waiting import until

import budgetlab as bl
from budgetlab.config import RunConfig
from budgetlab.records import find, open_record
from budgetlab.records.lock import hold, holder, is_held
from budgetlab.sweep.executors import Processes
from budgetlab.sweep.found import lock_path

LONG = 60


@pytest.fixture
def start(config: RunConfig) -> Iterator[Callable[..., subprocess.Popen]]:
    """Begin ``budgetlab sweep`` on the quick run, in a process of its own."""
    begun: list[subprocess.Popen] = []

    def go(*more: str) -> subprocess.Popen:
        flags = [
            "--dataset", "points", "--limit", "128", "--batch-size", "16", "--budget", "0.5",
            "--precision", "float32", "--device", "cpu", "--data-root", config.data_root,
            "--out", config.out, "--json", *more,
        ]  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "budgetlab.cli", "sweep", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        begun.append(process)
        return process

    yield go
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


def answer(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def epochs_of(run: RunConfig) -> int:
    """Whole epochs in the record of a run, however it stands."""
    table = Path(run.out) / run.folder_name / "epochs.csv"
    return len(table.read_text().splitlines()) - 1 if table.is_file() else 0


@pytest.fixture
def whole(tmp_path: Path, config: RunConfig) -> Path:
    """The record of a run that nothing interrupted."""
    out = str(tmp_path / "whole")
    (row,) = bl.sweep(config, epochs=LONG, out=out, progress=False)
    return Path(row["record"])


def test_two_sweeps_on_one_folder_train_each_run_once(config, start):
    more = ["--epochs", "10", "--method", "unif-SGD", "p-SGD", "--seed", "0", "1", "2", "3"]
    both = [start(*more) for _ in range(2)]
    answers = [answer(process) for process in both]
    assert len(find(config.out)) == 8
    for one in answers:
        assert one["counts"] == {"finished": 8}
    hows = [[row["how"] for row in one["summaries"]] for one in answers]
    for left, right in zip(*hows, strict=True):
        assert sorted([left, right]) == ["kept", "trained"]
    for path in find(config.out):
        record = open_record(path)
        assert record.status == "finished"
        assert len(record.epochs) == record.samples.sizes["epoch"] == 10


def test_a_killed_worker_costs_no_run_and_ctrl_c_stops_the_others(config, start, whole):
    short, long = (config.replace(epochs=epochs) for epochs in (LONG, 20_000))
    sweep = start("--epochs", str(LONG), "20000", "--workers", "2")
    until(lambda: epochs_of(short) > 2 and epochs_of(long) > 2)
    victim, other = (holder(lock_path(run))["process"] for run in (short, long))
    assert len({victim, other, sweep.pid}) == 3
    os.kill(victim, signal.SIGKILL)
    until(lambda: epochs_of(short) == LONG and not is_held(lock_path(short)))
    assert holder(lock_path(short))["process"] != victim
    assert holder(lock_path(long))["process"] == other

    sweep.send_signal(signal.SIGINT)
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    result = json.loads(out)
    assert result["counts"] == {"stopped": 1, "finished": 1}
    assert result["summaries"][0]["epochs"] == LONG
    same_results(Path(result["summaries"][0]["record"]), whole)
    assert {open_record(path).status for path in find(config.out)} == {"stopped", "finished"}
    assert list(Path(config.out).glob(".sweep/stop-*")) == []


def test_a_killed_sweep_is_gone_on_with_by_the_next(config, start, whole):
    run = config.replace(epochs=LONG)
    sweep = start("--epochs", str(LONG), "--workers", "2")
    until(lambda: epochs_of(run) > 2)
    worker = holder(lock_path(run))["process"]
    sweep.kill()
    sweep.communicate()
    # The worker sees that nobody waits for it, saves what it has and ends.
    until(lambda: not is_held(lock_path(run)) and not Path(f"/proc/{worker}").exists())
    plan = bl.sweep(run, progress=False)
    assert plan.counts == {"stopped": 1}
    assert 2 < epochs_of(run) < LONG
    (row,) = plan
    assert (row["how"], row["status"]) == ("resumed", "finished")
    same_results(Path(row["record"]), whole)


def test_a_lock_is_free_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "one.lock"
    program = (
        "import sys, time; from pathlib import Path; from budgetlab.records.lock import hold\n"
        "with hold(Path(sys.argv[1])) as ours: print(ours, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "True\n"
    assert is_held(path)
    assert holder(path)["process"] == other.pid
    other.kill()
    other.communicate()
    assert not is_held(path)
    with hold(path) as ours:
        assert ours
    assert holder(path)["process"] == os.getpid()


def test_each_process_has_its_share_and_one_that_dies_is_replaced(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    before = [os.environ.get(name) for name in names]
    with Processes(2, threads=1, gpus=("3", "5")) as executor:
        dead = executor.submit(os._exit, 9)
        other = executor.submit(os.getpid)
        with pytest.raises(RuntimeError, match="all 2 processes are busy"):
            executor.submit(os.getpid)
        assert isinstance(dead.exception(), BrokenExecutor)
        assert other.result() != os.getpid()
        asked = [executor.submit(os.getenv, "CUDA_VISIBLE_DEVICES") for _ in range(2)]
        assert [future.result() for future in asked] == ["3", "5"]
        asked = [executor.submit(os.getenv, name) for name in names[1:]]
        assert [future.result() for future in asked] == ["1", "PASSIVE"]
        assert executor.submit(torch.get_num_threads).result() == 1
    assert [os.environ.get(name) for name in names] == before
