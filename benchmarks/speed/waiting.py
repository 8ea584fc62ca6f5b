"""Benchmark waiting times: import, opening a record, first step, the demo, notebooks.

Each in a fresh process. ``jobs``, the demo and every notebook, takes half an hour and runs only on
request: ``python -m benchmarks.speed jobs``.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.speed.measure import (
    Row,
    alternate,
    bare_steps,
    compared,
    make_loop,
    random_images,
    row,
    scratch,
)
from budgetlab import data
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
# From entering the command to the end of the first step, with the time of each phase.
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
from budgetlab.training import loop, run, setup
reached("import budgetlab")
step, load, build = loop.Loop._step, setup.load_data, run.Run._build
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
loop.Loop._step, setup.load_data, run.Run._build = first, loaded, built
cli.main(sys.argv[1:])
"""


def start(repeats: int = 6, images: int = 60_000, limit: int = 2_000) -> Iterator[Row]:
    """Time import, opening a record, the first step, and loading part of a large folder."""
    with scratch() as folder:
        record = _small_record(Path(folder))
        yield row("start", "import budgetlab", _times(IMPORT, repeats), "s", "<= 0.3")
        yield row("start", "open a record", _times(OPEN, repeats, record), "s", "<= 1")
        read = _times(READ, repeats, record)
        yield row("start", "open it and its per-sample history", read, "s")
        yield from _first_step(Path(folder), repeats)
        yield from _part_of_a_folder(Path(folder), images, limit, max(1, repeats // 3))


def _part_of_a_folder(folder: Path, images: int, limit: int, rounds: int) -> list[Row]:
    """Time loading a few images of a large folder against a folder of only those decoded."""
    rng = np.random.default_rng(0)
    distinct = [folder / f"{number}.jpg" for number in range(100)]
    for path in distinct:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    decoded = limit + images // 5
    for name, count in (("many", images), ("few", decoded)):
        for number in range(count):
            place = folder / name / f"class{number % 10}" / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            # Hard links: each name is read and decoded separately.
            os.link(distinct[number % 100], place)

    def load(name: str, limit: int) -> Callable[[], object]:
        place = f"folder:{folder / name}"
        return lambda: data.load(place, limit=limit, keep=False, root=folder, progress=False)

    work = {"many": load("many", limit), "few": load("few", 0)}
    seconds = alternate(work, rounds, warm_up=0)
    what = f"--limit {limit:,} on a folder of {images:,} images"
    ratio = compared(seconds["many"], seconds["few"])
    return [
        row("start", what, seconds["many"], "s"),
        row("start", f"{what}: times {decoded:,} images", ratio, "ratio", "<= 1.5"),
    ]


def _times(program: str, repeats: int, *arguments: str) -> list[float]:
    """Return the seconds a program reports; the first run, with a cold disk cache, is dropped."""
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
    """Time the default of ``budgetlab train``; its data is rendered once, then cached."""
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
            "<= 3" if name == "all" else "")
        for name in runs[0]
    ]  # fmt: skip
    ratio = [run["all"] / (run["python"] + run["import torch"]) for run in runs]
    what = "first step: times as long as to import torch"
    return [first, *rows, row("start", what, ratio, "ratio", "<= 2.5")]


def _now() -> float:
    # Wall-clock time, the one clock that processes share.
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
    """Run the demo; compare its time with bare training, and time its first result."""
    with scratch() as folder:
        first, seconds = _until_a_line("1 of", command, Path(folder))
        alone = _bare_seconds(Path(folder)) / (os.cpu_count() or 1)
        trained = [record.summary["seconds"] for record in open_records(folder)]
    return [
        row("demo", "make demo", [seconds], "s", "<= 120"),
        row("demo", "make demo: first result", [first], "s", "<= 20"),
        row("demo", "make demo over its steps alone, on all cores", [seconds / alone], "ratio"),
        row("demo", "first result over the shortest run in it", [first / min(trained)], "ratio",
            "<= 2"),
    ]  # fmt: skip


def _until_a_line(begin: str, command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Return the seconds until a program prints a line starting with ``begin``, and to its end."""
    begun, first = time.perf_counter(), float("nan")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if first != first and line.strip().startswith(begin):
                first = time.perf_counter() - begun
    return first, time.perf_counter() - begun


def _bare_seconds(folder: Path, repeats: int = 12) -> float:
    """Estimate the seconds of all steps of a folder's records as bare steps on one core."""
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
            indices, step = torch.arange(batch), bare_steps(loop)
            work = {"bare": lambda step=step, indices=indices: step(indices)}
            total += steps * statistics.median(alternate(work, repeats)["bare"])
    finally:
        torch.set_num_threads(threads)
    return total


def jobs() -> list[Row]:
    """Time each job once; ``BUDGETLAB_SCALE`` sets the notebooks' scale, full by default."""
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
                # Notebooks read small records next to them.
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
