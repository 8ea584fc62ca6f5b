"""How long one waits: for an import, a record, the first step, the demo, a notebook.

Each in a fresh process. ``jobs``, the demo and every notebook, takes half an hour and is measured
only where it is asked for: ``python -m benchmarks.speed jobs``.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks.speed.measure import (
    Row,
    alternate,
    bare_step,
    make_loop,
    random_images,
    row,
    scratch,
)
from budgetlab.config import RunConfig
from budgetlab.devices import SWITCH
from budgetlab.records import RecordWriter, open_records

__all__ = ["demo", "jobs", "start"]

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
from budgetlab import cli
from budgetlab.training import Run
from budgetlab.training import inputs, loop, run
reached("import budgetlab")
step, load, build = loop.Loop._step, inputs.load_data, run.Run._build
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
loop.Loop._step, inputs.load_data, run.Run._build = first, loaded, built
cli.main(sys.argv[1:])
"""


def start(repeats: int = 6) -> list[Row]:
    """Time import, opening a record, and the way to the first step of ``budgetlab train``."""
    with scratch() as folder:
        record = _small_record(Path(folder))
        rows = [
            row("start", "import budgetlab", _times(IMPORT, repeats), "s", "<= 0.3"),
            row("start", "open a record", _times(OPEN, repeats, record), "s", "<= 1"),
            row("start", "open it and its per-sample history", _times(READ, repeats, record), "s"),
        ]
        return rows + _first_step(Path(folder), repeats)


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


def _first_step(folder: Path, repeats: int) -> list[Row]:
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


ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "budgetlab", "demo"]
RUN = """
import sys, nbformat
sys.path.insert(0, sys.argv[2])
import build
build.execute(nbformat.read(sys.argv[1], as_version=4), ".")
"""


def demo(command: Sequence[str] = DEMO) -> list[Row]:
    """Run the whole demo, and say how its time compares with that of its training steps alone."""
    with scratch() as folder:
        whole = _timed("make demo", command, os.environ, Path(folder))
        alone = _bare_seconds(Path(folder)) / (os.cpu_count() or 1)
    whole = dataclasses.replace(whole, part="demo", target="<= 120")
    ratio = [whole.value / alone]
    return [whole, row("demo", "make demo over its steps alone, on all cores", ratio, "ratio")]


def _bare_seconds(folder: Path, repeats: int = 12) -> float:
    """Seconds that all steps of the records in a folder would take on one core, bare."""
    threads, total = torch.get_num_threads(), 0.0
    torch.set_num_threads(1)
    try:
        alike: dict[tuple[str, int, int], int] = {}
        for record in open_records(folder):
            about = record.about
            summary, side = about["summary"], about["data"]["shape"][-1]
            kind = (summary["model"], about["config"]["batch_size"], side)
            alike[kind] = alike.get(kind, 0) + summary["steps"]
        for (model, batch, side), steps in alike.items():
            loop = make_loop(random_images(batch, side), model, "cpu", batch_size=batch)
            indices = torch.arange(batch)
            work = {"bare": lambda loop=loop, indices=indices: bare_step(loop, indices)}
            total += steps * statistics.median(alternate(work, repeats)["bare"])
    finally:
        torch.set_num_threads(threads)
    return total


def jobs() -> list[Row]:
    """Time each once: ``BUDGETLAB_SCALE`` chooses the scale of the notebooks, full by default."""
    scale = os.environ.get("BUDGETLAB_SCALE", "full")
    jobs = {"make demo": DEMO}
    for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        name = f"notebook {notebook.stem}, {scale}"
        jobs[name] = [sys.executable, "-c", RUN, str(notebook), str(notebook.parent)]
    rows = []
    for turn, (name, command) in enumerate(jobs.items()):
        ways = {"": "1", ", memory given back": "0"}
        for way in list(ways)[:: -1 if turn % 2 else 1]:
            environment = os.environ | {SWITCH: ways[way]}
            with scratch() as folder:
                # Notebooks read small records that lie beside them.
                (Path(folder) / "records").symlink_to(ROOT / "notebooks" / "records")
                rows.append(_timed(name + way, command, environment, Path(folder)))
    return rows


def _timed(name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Row:
    begun = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{name} failed: {last}", file=sys.stderr)
        seconds = float("nan")
    return row("jobs", name, [seconds], "s")
