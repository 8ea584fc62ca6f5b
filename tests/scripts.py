"""What lies beside the package: notebooks and scripts; and Python in a process of its own."""

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@functools.cache
def load(place: str) -> ModuleType:
    """Import a script by its place in the project."""
    path = ROOT / place
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python(
    *arguments: object, cwd: Path | None = None, timeout: float = 580, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the interpreter of these tests, with one thread, to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
