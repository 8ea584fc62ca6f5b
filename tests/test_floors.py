"""The house: which module may import which, and what opens without torch."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import budgetlab as bl

PACKAGE = Path(__file__).parent.parent / "budgetlab"

FLOORS = (
    {"errors", "config", "methods", "records"},
    {"data", "models", "augment", "history", "budget", "devices"},
    {"samplers"},
    {"training", "analysis", "custom_loop"},
    {"sweeps", "plots", "forecast", "estimators"},
    {"explore"},
    {"report", "cli", "demo", "widgets", "course"},
    {"__main__"},
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
READING = {"errors", "config", "methods", "records", "analysis", "plots", "report"}
# From the floor itself, or from a floor below, and still not allowed: the reading wing
# meets the training wing at the records only.
BOTH = {"forecast", "explore", "estimators", "sweeps", "cli", "demo", "widgets", "course",
        "__main__"}  # fmt: skip
TRAINING = set(FLOOR) - READING - BOTH
# GraNd needs gradients; the one function that computes it imports torch when called.
LAZY_TORCH = {"analysis"}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST, known: set[str]) -> list[tuple[str, bool]]:
    """Absolute names imported anywhere in a tree, each with whether it is at the top."""
    at_top = {id(node) for node in top_level(tree)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from budgetlab import data` imports a module, `from budgetlab.data import x` a name.
            inside = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in known else base for name in inside]
        else:
            continue
        found += [(name, id(node) in at_top) for name in dict.fromkeys(names)]
    return found


def top_level(tree: ast.AST) -> list[ast.AST]:
    """Nodes that run on import: not in functions, not under TYPE_CHECKING."""
    found, waiting = [], list(ast.iter_child_nodes(tree))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        found.append(node)
        waiting += ast.iter_child_nodes(node)
    return found


def room(name: str) -> str | None:
    """The part of the house a module belongs to; None for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else None


def complaints(name: str, source: str) -> list[str]:
    """What is wrong with the imports of a module."""
    here, found = room(name), []
    for target, at_top in imports(ast.parse(source), set(MODULES)):
        if target.startswith("."):
            found.append(f"{name} imports {target} relatively")
        if here in READING and target.split(".")[0] in ("torch", "torchvision") and at_top:
            found.append(f"{name} imports {target}: it must open without")
        if target.split(".")[0] != "budgetlab" or room(target) in (here, None):
            continue
        there = room(target)
        if FLOOR[there] > FLOOR[here]:
            found.append(f"{name} (floor {FLOOR[here]}) imports {target} (floor {FLOOR[there]})")
        if here in READING and there in TRAINING and (at_top or here not in LAZY_TORCH):
            found.append(f"{name} reads, and imports {target}, which trains")
        if here in TRAINING and there in {"analysis", "plots", "report"}:
            found.append(f"{name} trains, and imports {target}, which reads")
    return found


def test_every_module_has_a_floor():
    rooms = {room(name) for name in MODULES} - {None}
    assert rooms <= set(FLOOR), f"no floor for {rooms - set(FLOOR)}"


@pytest.mark.parametrize("name", [name for name in MODULES if room(name)])
def test_imports_go_down_only(name):
    assert complaints(name, MODULES[name].read_text()) == []


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [("records.reader", "from budgetlab.data import load", True),
     ("history", "from budgetlab import samplers", True),
     ("training.run", "def f():\n    import budgetlab.analysis.conditions", True),
     ("training.run", "from .loop import Loop", True), ("plots.style", "import torch", True),
     ("plots.style", "if True:\n    from torch import nn", True),
     ("analysis.conditions", "from budgetlab.models import build", True),
     ("data.load", "from budgetlab.cli import main", True),
     ("analysis.grand", "def f():\n    import torch", False),
     ("methods", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", False),
     ("training.run", "from budgetlab import augment, data, models", False),
     ("samplers.scores", "from budgetlab.samplers import sampler", False)],
)  # fmt: skip
def test_a_wrong_import_is_found_and_a_right_one_let_through(name, source, wrong):
    assert bool(complaints(f"budgetlab.{name}", source)) == wrong


def test_nothing_on_a_floor_imports_in_a_circle():
    rooms: dict[str, set[str]] = {name: set() for name in FLOOR}
    for name, file in MODULES.items():
        if not room(name):
            continue
        for target, at_top in imports(ast.parse(file.read_text()), set(MODULES)):
            if target.startswith("budgetlab.") and room(target) != room(name) and at_top:
                rooms[room(name)].add(room(target))
    done: set[str] = set()
    while left := set(rooms) - done:
        free = {name for name in left if rooms[name] <= done}
        assert free, f"these import each other: { {name: rooms[name] - done for name in left} }"
        done |= free


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True, text=True, cwd=PACKAGE.parent, timeout=120,
    )  # fmt: skip


BLOCK_TORCH = """
import importlib, pkgutil, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ImportError("torch is blocked")
sys.meta_path.insert(0, Blocked())
"""


def test_the_reading_wing_opens_without_torch():
    program = (
        BLOCK_TORCH
        + """
for room in sys.argv[1:]:
    package = importlib.import_module("budgetlab." + room)
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
        importlib.import_module(module.name)
"""
    )
    done = run_python(program, *sorted(READING))
    assert done.returncode == 0, done.stderr
    # The block does block.
    assert "torch is blocked" in run_python(BLOCK_TORCH + "import budgetlab.history").stderr


def test_reading_a_record_never_loads_torch(train):
    run = train()
    program = """
import sys
import budgetlab as bl
record = bl.open_record(sys.argv[1])
print(record.summary["steps"], len(record.epochs), float(record.samples["times_trained"].sum()))
bl.compare([sys.argv[1]])
sys.exit("torch" in sys.modules)
"""
    # Warnings of a comparison of one run are not what this is about.
    done = run_python("import warnings; warnings.simplefilter('ignore')" + program,
                      str(run.writer.path))  # fmt: skip
    assert done.returncode == 0, done.stderr or "torch was loaded"
    assert done.stdout.split() == ["12", "3", "192.0"]


def test_the_package_itself_loads_nothing_heavy():
    heavy = "('torch', 'pandas', 'matplotlib', 'xarray', 'zarr', 'sklearn', 'scipy')"
    done = run_python(
        f"import sys, budgetlab; print([name for name in {heavy} if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_no_module_is_a_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "misc", "common"}
    assert [name for name in MODULES if drawers & set(name.split("."))] == []


def test_no_module_is_too_long():
    lengths = {name: len(file.read_text().splitlines()) for name, file in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_the_way_from_a_call_to_its_record_does_not_grow_longer(config):
    """How many files of the package are entered, once the data lies in the cache."""
    run = config.replace(dataset="digits", method="p-SGD", limit=128)
    bl.train(run, progress=False)
    entered: set[str] = set()

    def enter(frame, event, _):
        # Bodies of modules and classes run on import; only functions are optimised.
        code = frame.f_code
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:
            entered.add(code.co_filename)

    sys.setprofile(enter)
    try:
        bl.train(run, progress=False)
    finally:
        sys.setprofile(None)
    files = sorted(one for one in entered if one.startswith(f"{PACKAGE}{os.sep}"))
    assert 12 < len(files) <= 20, files
