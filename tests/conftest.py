"""What all tests share: few threads, no display, and data generated once."""

import os

# Before numpy and torch are imported: tests are many and small, and share the processor.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from fake_records import QUICK

from budgetlab import data, methods
from budgetlab.config import RunConfig
from budgetlab.data import Splits
from budgetlab.training import Run

torch.set_num_threads(1)

# How long an example takes says more about what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None, max_examples=40)
hypothesis.settings.load_profile("untimed")

# Started in the background of a script, Python and its children would ignore Ctrl-C, and
# tests of it with them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where data is generated and cached, once for all tests."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def load_once(data_root: Path) -> Callable[..., Splits]:
    """Load a data set; the same one again costs nothing."""

    @functools.cache
    def load(name: str, **options: object) -> Splits:
        return data.load(name, root=data_root, progress=False, **options)

    return load


@pytest.fixture
def config(tmp_path: Path, data_root: Path) -> RunConfig:
    """A run on 128 points that takes no time; ``replace`` what a test is about."""
    return RunConfig(**QUICK, out=str(tmp_path / "runs"), data_root=str(data_root))


@pytest.fixture
def train(config: RunConfig) -> Callable[..., Run]:
    """Train the quick run, with some settings changed, to its end."""

    def go(**settings: object) -> Run:
        run = Run(config.replace(**settings))
        for _ in run:
            pass
        return run

    return go


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Take methods that a test registers off the list again, and close its figures."""
    before = dict(methods._table)
    yield
    methods._table.clear()
    methods._table.update(before)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
