"""Every notebook runs without a front end, and is committed clean."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ids = [path.stem for path in NOTEBOOKS]


def test_there_are_notebooks():
    assert "00_start_here" in ids


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_runs_from_top_to_bottom_at_the_smoke_scale(path, tmp_path):
    # A copy, so that a test never changes what is committed.
    shutil.copy(path, tmp_path)
    shutil.copy(FOLDER / "build.py", tmp_path)
    environment = os.environ | {"BUDGETLAB_SCALE": "smoke"}
    command = [sys.executable, str(tmp_path / "build.py"), path.stem]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / path.name).read_text())["cells"]
    assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_is_committed_with_outputs_and_nothing_else(path):
    notebook = json.loads(path.read_text())
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any("widget" in kind for output in outputs for kind in output.get("data", {}))
    assert not any(output["output_type"] == "error" for output in outputs)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_reads_well(path):
    cells = json.loads(path.read_text())["cells"]
    text = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    headings = [line for part in text for line in part.splitlines() if line.startswith("#")]
    assert headings[0].startswith("# ")
    assert sum(line.startswith("# ") for line in headings) == 1
    levels = [len(line.split(" ")[0]) for line in headings]
    jumps = [after - before for before, after in itertools.pairwise(levels)]
    assert all(jump <= 1 for jump in jumps), headings
    lengths = [
        len("".join(cell["source"]).splitlines()) for cell in cells if cell["cell_type"] == "code"
    ]
    assert max(lengths) <= 15
    assert any("parameters" in cell["metadata"].get("tags", []) for cell in cells)
