"""What goes wrong on the way: a sentence, exit code 1, and a record that can be read."""

import dataclasses
import datetime
import errno
import json
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from same_results import same_results
from scripts import python

from budgetlab import cli
from budgetlab.config import RunConfig
from budgetlab.data import Dataset
from budgetlab.errors import RunError
from budgetlab.records import open_record
from budgetlab.training import Run, failures, load_data
from budgetlab.training.engine import Engine

# What is printed of files that cannot be read is a warning first.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(1200)]


def go(run: Run) -> Path:
    list(run)
    return run.writer.path


def flags(config: RunConfig) -> list[str]:
    """The quick run, as the command line takes it."""
    return ["train", "--dataset", "points", "--limit", "128", "--epochs", str(config.epochs),
            "--batch-size", "16", "--budget", "0.5", "--device", "cpu", "--precision", "float32",
            "--data-root", config.data_root, "--out", config.out, "--json"]  # fmt: skip


@pytest.fixture
def failed(config, capsys) -> Callable[..., tuple[str, Path]]:
    """Run the command line where something goes wrong; its sentence, and the record."""

    def call(*more: str) -> tuple[str, Path]:
        assert cli.main([*flags(config), *more]) == 1
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        summary = json.loads(said.out)
        assert summary["status"] == "failed"
        record = open_record(summary["record"])
        message = record.about["message"]
        # What is said is also kept, and both are one line.
        assert f"budgetlab: {message}" in said.err.splitlines()
        assert (record.status, record.summary["epochs"]) == ("failed", len(record.epochs))
        assert record.samples["loss"].shape[0] == len(record.epochs)
        return message, record.path

    return call


def in_epoch(number: int, what: Callable[[], object]) -> Callable[..., object]:
    """A method of the engine that does something in one epoch (4 steps each) only."""
    real, steps = Engine.step, 0

    def step(self, batch, lr, *learn):
        nonlocal steps
        steps += 1
        if (steps - 1) // 4 + 1 == number:
            what()
        return real(self, batch, lr, *learn)

    return step


def fail(error: BaseException) -> object:
    raise error


# The folder


@pytest.mark.parametrize(
    ("code", "broken"),
    [(errno.EACCES, "replace"), (errno.EIO, "fsync"), (errno.ENOSPC, "fsync")],
)
def test_whatever_the_disk_says_is_a_sentence(config, failed, monkeypatch, code, broken):
    real = getattr(os, broken)

    def refuse(*_: object) -> None:
        # The disk recovers in time for the status to be written.
        monkeypatch.setattr(os, broken, real)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        steps = in_epoch(2, lambda: monkeypatch.setattr(os, broken, refuse))
        patched.setattr(Engine, "step", steps)
        message, path = failed()
    when = "there is room" if code == errno.ENOSPC else "it can be written again"
    assert f"cannot be written ({os.strerror(code)}): it holds 1 epochs; resume it when {when}" in (
        message
    )
    assert [file.name for file in path.glob(".*")] == [".lock"]
    same_results(go(Run.resume(path)), go(Run(config)))


# Memory

SAID = {
    "processor": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has"),
    "library": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    "python": MemoryError(),
}


@pytest.mark.parametrize(
    ("kind", "fitting"), [*((kind, 10) for kind in SAID), ("processor", 3), ("gpu", 1)]
)
def test_out_of_memory_says_what_would_fit(failed, monkeypatch, kind, fitting):
    real = Engine.step
    sizes = []

    def step(self, batch, lr, *learn):
        sizes.append(len(batch.indices))
        if len(batch.indices) > fitting and len(sizes) > 5:
            raise SAID[kind]
        return real(self, batch, lr, *learn)

    monkeypatch.setattr(Engine, "step", step)
    message, path = failed()
    assert message.startswith("out of memory with batch size 16 and model mlp: ")
    said = {
        10: "a batch of 8 fits, so start again with batch size 8, or choose a smaller model",
        3: "a batch of 2 fits, so start again with batch size 2, or choose a smaller model",
        1: "not even a batch of 2 fits, so choose a smaller model",
    }
    assert message.endswith(said[fitting])
    # It was tried, not guessed, and twice: the first step makes what the optimiser keeps.
    # A quarter more than what is said to fit was tried.
    assert sizes[6:] == {10: [10, 10], 3: [10, 5, 2, 2], 1: [10, 5, 2]}[fitting]
    assert len(open_record(path).epochs) == 1


def within_memory(amount: int, arguments: list[str]) -> subprocess.CompletedProcess:
    """Run the command line in a process that may take no more memory than this on top."""
    program = (
        "import os, resource, sys; from budgetlab import cli; from budgetlab.training import Run\n"
        "import torch; torch.set_num_threads(1)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * os.sysconf('SC_PAGE_SIZE')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)\n"
        "sys.exit(cli.main(sys.argv[2:]))"
    )
    return python("-c", program, amount, *arguments)


def test_memory_that_really_runs_out_on_the_processor(config):
    """A real limit on the memory of a process; what is said to fit does fit in it."""
    more = "--dataset shapes --limit 2048 --budget 1 --model small --method SGD --batch-size"
    settings = [*flags(config.replace(epochs=1)), *more.split()]
    done = within_memory(900 * 2**20, [*settings, "2048"])
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert "out of memory with batch size 2048 and model small: a batch of " in said
    assert open_record(json.loads(done.stdout)["record"]).status == "failed"
    fits = said.split("with batch size ")[-1].split(",")[0]
    assert within_memory(900 * 2**20, [*settings, fits]).returncode == 0


@pytest.mark.parametrize(
    ("error", "says", "advice"),
    [(SAID["gpu"], "out of memory while 128 samples of 'points' (",
      "lower the limit, or choose a smaller model or another device"),
     (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
      "does not answer (CUDA error: all CUDA-capable", "choose another device, or cpu")],
)  # fmt: skip
def test_a_device_that_is_full_or_dead_from_the_start(config, monkeypatch, capsys, error, says,
                                                      advice):  # fmt: skip
    monkeypatch.setattr(Dataset, "to", lambda *_, **__: fail(error))
    assert cli.main(flags(config)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    last = said.err.strip().splitlines()[-1]
    assert says in last
    assert advice in last
    assert not Path(config.out).exists()


def test_a_loss_that_is_not_finite(failed):
    message, path = failed("--lr", "1e6", "--epochs", "10")
    assert re.fullmatch("the loss became .* at step .* with learning rate .*: lower --lr, or try "
                        "--precision float32", message)  # fmt: skip
    assert np.isfinite(open_record(path).epochs["train_loss"]).all()


def test_the_step_of_a_loss_that_is_not_finite(config):
    run = Run(config)
    run.ledger.steps = 10  # of which the losses of the last three are read together
    for place in range(3):
        losses = [torch.tensor(math.nan if n >= place else 1.0) for n in range(3)]
        with pytest.raises(RunError, match=f"the loss became nan at step {8 + place} with"):
            run.loop._check_finite(losses, 0.1)


# The data


def test_data_that_changed_under_a_run(config):
    splits = load_data(config.replace(val_fraction=0.25))
    run = Run(config, splits=splits)
    next(iter(run))
    path, val = run.writer.path, splits.val
    before = (path / "record.json").read_bytes()
    less = dataclasses.replace(splits, val=val.select(torch.arange(len(val) - 1)))
    noisy = load_data(config.replace(val_fraction=0.25, label_noise=0.1))
    for other in (less, dataclasses.replace(splits, val=None), noisy):
        with pytest.raises(RunError, match="restore the data, or start a new run"):
            Run.resume(path, splits=other)
    assert (path / "record.json").read_bytes() == before
    # Records of earlier versions do not say what they were validated on.
    about = json.loads((path / "record.json").read_text())
    assert about["data"].pop("val_fingerprint") == splits.val_fingerprint
    (path / "record.json").write_text(json.dumps(about))
    assert open_record(go(Run.resume(path, splits=less))).status == "finished"


# A record that is removed


@pytest.mark.parametrize("part", [".", "record.json", "samples.zarr"])
def test_a_record_that_is_removed_while_it_is_trained_does_not_come_back(config, part):
    run = Run(config)
    epochs = iter(run)
    next(epochs)
    removed = run.writer.path / part
    shutil.rmtree(removed) if removed.is_dir() else removed.unlink()
    with pytest.raises(RunError, match=r"or a part of it, was removed .*: start the run again"):
        next(epochs)
    assert run.writer.path.exists() == (part != ".")
    if part == "samples.zarr":
        assert not removed.exists()
        assert open_record(run.writer.path).status == "failed"


# The GPU


def test_a_gpu_that_vanishes(failed, monkeypatch):
    error = RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be")
    monkeypatch.setattr(Engine, "step", in_epoch(2, lambda: fail(error)))
    message, path = failed()
    first = "CUDA error: unspecified launch failure"
    assert f"does not answer any more ({first}): the record '{path}' holds 1 epochs" in message
    assert message.endswith("resume it where the GPU works")
    for said in (
        "CUDA error: device-side assert triggered",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA driver error: unknown error",
    ):
        assert failures.is_device_lost(RuntimeError(said))


def test_an_error_of_ours_is_not_dressed_up():
    for error in (ValueError("out of range"), RuntimeError("shape mismatch"), KeyError("CUDA")):
        assert not failures.is_out_of_memory(error)
        assert not failures.is_device_lost(error)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_memory_that_really_runs_out_on_a_gpu(config):
    torch.cuda.set_per_process_memory_fraction(0.02)
    settings = {"dataset": "shapes", "limit": 10_000, "batch_size": 10_000, "model": "resnet18",
                "device": "cuda", "method": "SGD", "budget": 1.0, "epochs": 1}  # fmt: skip
    try:
        with pytest.raises(RunError, match=r"out of memory with batch size 10000 .* fits") as error:
            go(Run(config.replace(**settings)))
        fits = int(str(error.value).split("with batch size ")[-1].split(",")[0])
        go(Run(config.replace(**settings | {"batch_size": fits})))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# The clock


def test_a_clock_that_jumps_or_goes_back_changes_nothing(config, monkeypatch):
    plain = go(Run(config))
    jumps = iter(range(10**6))

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            years = (1, -30, 70)[next(jumps) % 3]
            return datetime.datetime(2026 + years, 1, 1, tzinfo=tz)

    monkeypatch.setattr("budgetlab.records.writer.datetime", Jumping)
    monkeypatch.setattr(time, "time", lambda: (0.0, 4e9, -5.0)[next(jumps) % 3])
    run = Run(config)
    next(iter(run))
    path = go(Run.resume(run.writer.path))
    assert next(jumps) > 5
    same_results(path, plain)
    assert 0 <= open_record(path).summary["seconds"] < 60
    # The one that is used never goes back; virtual machines have bugs.
    real, run = time.perf_counter, Run(config)
    monkeypatch.setattr(time, "perf_counter", lambda: real() - 1000.0 * run.epoch)
    assert all(row["seconds"] >= 0 for row in run)
    assert (np.diff(run.record.epochs["seconds"]) >= 0).all()
