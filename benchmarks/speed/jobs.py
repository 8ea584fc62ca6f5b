"""Whole jobs: the demo, and every notebook as far as the continuous check runs it.

Each as it is, and with the memory of a step given back after it, as torch does by itself: what
keeping it is worth to whoever waits. Not part of ``make bench``, because it takes half an hour:
``python -m benchmarks.speed jobs``.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.speed.measure import Row, row
from benchmarks.speed.work import scratch
from budgetlab.training.allocation import SWITCH

__all__ = ["measure"]

ROOT = Path(__file__).parents[2]
RUN = """
import sys, nbformat
sys.path.insert(0, sys.argv[2])
import build
build.execute(nbformat.read(sys.argv[1], as_version=4), ".")
"""


def measure() -> list[Row]:
    """Time each once: ``BUDGETLAB_SCALE`` chooses the scale of the notebooks, full by default."""
    scale = os.environ.get("BUDGETLAB_SCALE", "full")
    jobs = {"make demo": [sys.executable, "-m", "budgetlab.demo"]}
    for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        name = f"notebook {notebook.stem}, {scale}"
        jobs[name] = [sys.executable, "-c", RUN, str(notebook), str(notebook.parent)]
    rows = []
    for turn, (name, command) in enumerate(jobs.items()):
        ways = {"": "1", ", memory given back": "0"}
        for way in list(ways)[:: -1 if turn % 2 else 1]:
            rows.append(_timed(name + way, command, os.environ | {SWITCH: ways[way]}))
    return rows


def _timed(name: str, command: list[str], environment: Mapping[str, str]) -> Row:
    with scratch() as folder:
        # Notebooks read small records that lie beside them.
        (Path(folder) / "records").symlink_to(ROOT / "notebooks" / "records")
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
