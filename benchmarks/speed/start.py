"""How long one waits at the start, each time in a fresh process, and where the time goes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from benchmarks.speed.measure import Row, row
from benchmarks.speed.work import scratch
from budgetlab.config import RunConfig
from budgetlab.records import RecordWriter

__all__ = ["measure"]

IMPORT = """
import time
begun = time.perf_counter()
import budgetlab
print(time.perf_counter() - begun)
"""
OPEN = """
import time
begun = time.perf_counter()
import sys
import budgetlab as bl
record = bl.open_record(sys.argv[1])
record.status, record.summary
print(time.perf_counter() - begun)
assert "torch" not in sys.modules
"""
READ = """
import time
begun = time.perf_counter()
import sys
import budgetlab as bl
record = bl.open_record(sys.argv[1])
len(record.epochs), record.samples.sizes
print(time.perf_counter() - begun)
assert "torch" not in sys.modules
"""
# From the command being typed to the end of the first step, with the time of each stretch.
FIRST_STEP = """
import json, os, sys, time
typed = float(sys.argv.pop(1))
stretches, last = {}, [typed]
def reached(name):
    now = time.time()
    stretches[name] = now - last[0]
    last[0] = now
reached("python")
import torch
reached("import torch")
import torch._dynamo  # which every optimiser and the counting of operations ask for
reached("import torch._dynamo")
from budgetlab import cli
from budgetlab.training import Run
from budgetlab.training import loop, run
reached("import budgetlab")
step, load, build = loop.Loop._step, run.load_data, run.Run._build
def first(self, batch, lr):
    reached("record")
    result = step(self, batch, lr)
    reached("first step")
    print(json.dumps(stretches | {"all": time.time() - typed}), flush=True)
    os._exit(0)
def loaded(*arguments, **options):
    reached("command line")
    splits = load(*arguments, **options)
    reached("data")
    return splits
def built(self):
    build(self)
    reached("network and loop")
loop.Loop._step, run.load_data, run.Run._build = first, loaded, built
cli.main(sys.argv[1:])
"""


def measure() -> list[Row]:
    """Time import, opening a record, and the way to the first step of ``budgetlab train``."""
    with scratch() as folder:
        record = _small_record(Path(folder))
        rows = [
            row("start", "import budgetlab", _times(IMPORT, 7), "s", "<= 0.3"),
            row("start", "open a record", _times(OPEN, 7, record), "s", "<= 1"),
            row("start", "open it and its per-sample history", _times(READ, 5, record), "s"),
        ]
        return rows + _first_step(Path(folder))


def _times(program: str, repeats: int, *arguments: str) -> list[float]:
    """Seconds that a program says it took; the first run, which may read the disk, is dropped."""
    said = [_say(program, *arguments) for _ in range(repeats + 1)]
    return [float(text) for text in said[1:]]


def _say(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.strip().splitlines()[-1]


def _small_record(out: Path) -> str:
    metadata = pd.DataFrame({"label": range(1000)})
    data = {"name": "noise", "fingerprint": "0", "classes": ["a", "b"]}
    writer = RecordWriter.create(RunConfig(out=str(out)), metadata=metadata, data=data, hardware={})
    writer.append_epoch({"epoch": 1}, {})
    writer.set_status("finished")
    return str(writer.path)


def _first_step(folder: Path, repeats: int = 5) -> list[Row]:
    """The default of ``budgetlab train``; its data is drawn once, and then lies in the cache."""
    runs = []
    for number in range(repeats + 1):
        command = ["train", "--data-root", str(folder / "data"), "--out", str(folder / "runs")]
        begun = _now()
        told = json.loads(_say(FIRST_STEP, str(begun), *command))
        if number == 0:
            first = row("start", "first step ever, data drawn", [told["all"]], "s")
        else:
            runs.append(told)
    rows = [
        row("start", f"first step: {name}", [run[name] for run in runs], "s",
            "<= 5" if name == "all" else "")
        for name in runs[0]
    ]  # fmt: skip
    return [first, *rows]


def _now() -> float:
    # The time of day, because it is the one clock that two processes share.
    return time.time()
