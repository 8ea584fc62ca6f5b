"""Whole jobs: the demo, and every notebook as far as the continuous check runs it.

Not part of ``make bench``, because it takes a quarter of an hour:
``python -m benchmarks.speed jobs``.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.speed.measure import Row, row
from benchmarks.speed.work import scratch

__all__ = ["measure"]

ROOT = Path(__file__).parents[2]
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=900, kernel_name="python3",
               resources={"metadata": {"path": sys.argv[2]}}).execute()
"""


def measure() -> list[Row]:
    """Time each once: ``BUDGETLAB_SCALE`` chooses the scale of the notebooks, full by default."""
    rows = []
    scale = os.environ.get("BUDGETLAB_SCALE", "full")
    with scratch() as folder:
        rows.append(_timed("make demo", [sys.executable, "-m", "budgetlab.demo"], folder))
    for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        with scratch() as folder:
            # Notebooks read small records that lie beside them.
            (Path(folder) / "records").symlink_to(ROOT / "notebooks" / "records")
            command = [sys.executable, "-c", RUN, str(notebook), folder]
            rows.append(_timed(f"notebook {notebook.stem}, {scale}", command, folder))
    return rows


def _timed(name: str, command: list[str], folder: str) -> Row:
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{name} failed: {last}", file=sys.stderr)
        seconds = float("nan")
    return row("jobs", name, [seconds], "s")
