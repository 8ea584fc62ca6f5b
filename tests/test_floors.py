"""The house: which module may import which, and what opens without torch."""

import graphlib
import inspect
import os
import re
import subprocess
import sys

import grimp
from scripts import ROOT, python

import budgetlab as bl

PACKAGE = ROOT / "budgetlab"

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
READING = {"errors", "config", "methods", "records", "analysis", "plots", "report"}
# The reading wing meets the training wing at the records only.
BOTH = {"forecast", "explore", "estimators", "sweeps", "cli", "demo", "widgets", "course"}
TRAINING = set().union(*FLOORS) - READING - BOTH - {"__main__"}
GRAPH = grimp.build_graph("budgetlab", cache_dir=None)
FILES = sorted(PACKAGE.rglob("*.py"))


def rooms() -> dict[str, set[str]]:
    """Parts of the house, each with the others that its modules import, anywhere."""
    found: dict[str, set[str]] = {}
    for module in GRAPH.modules - {"budgetlab"}:
        room = module.split(".")[1]
        imported = GRAPH.find_modules_directly_imported_by(module) - {"budgetlab"}
        found.setdefault(room, set()).update({name.split(".")[1] for name in imported} - {room})
    return found


def test_imports_go_down_only_and_in_no_circle():
    assert set(rooms()) <= set().union(*FLOORS)
    layers = [grimp.Layer(*floor, independent=False) for floor in reversed(FLOORS)]
    assert not GRAPH.find_illegal_dependencies_for_layers(layers, containers={"budgetlab"})
    list(graphlib.TopologicalSorter(rooms()).static_order())
    relative = [file for file in FILES if re.search(r"^\s*from \.", file.read_text(), re.M)]
    assert relative == []


def test_those_who_read_and_those_who_train_meet_at_the_records_only():
    # Gradients need the network and its data; what computes them imports these when called.
    for room in READING - {"analysis"}:
        assert not rooms()[room] & TRAINING, room
    for room in TRAINING:
        assert not rooms()[room] & {"analysis", "plots", "report"}, room


def run_python(program: str, *arguments: object) -> subprocess.CompletedProcess:
    return python("-W", "error", "-c", program, *arguments, cwd=ROOT)


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
                      run.writer.path)  # fmt: skip
    assert done.returncode == 0, done.stderr or "torch was loaded"
    assert done.stdout.split() == ["12", "3", "192.0"]


def test_the_package_itself_loads_nothing_heavy():
    heavy = "('torch', 'pandas', 'matplotlib', 'xarray', 'zarr', 'sklearn', 'scipy')"
    done = run_python(
        f"import sys, budgetlab; print([name for name in {heavy} if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_no_module_is_a_drawer_for_everything_or_too_long():
    drawers = {"utils", "util", "helpers", "misc", "common"}
    assert [file for file in FILES if drawers & {file.stem, file.parent.name}] == []
    assert [file for file in FILES if len(file.read_text().splitlines()) > 400] == []


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
