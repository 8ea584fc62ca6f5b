"""What trains one run of a sweep, in whatever process it is called.

Nothing heavy is imported at the top: a fresh process must read its environment first.
"""

import contextlib
import functools
import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records import Record
from budgetlab.records.lock import InUse, hold, is_held, lock_of
from budgetlab.sweep.found import find_record, lock_path
from budgetlab.sweep.grid import data_key

if TYPE_CHECKING:
    from budgetlab.data import Splits
    from budgetlab.training import Run

__all__ = ["Job", "Outcome", "forget_data", "prepare", "train_one"]

ASK_SECONDS = 1.0

# Networks get their weights from torch's one global generator, and threads would share
# the cores: a process trains one run at a time, however many threads call it.
_one_at_a_time = threading.Lock()
_orphaned = threading.Event()


@dataclass(frozen=True)
class Job:
    """One run to train.

    Attributes
    ----------
    run
        Its settings.
    retry
        Whether to try again what has failed before.
    stop
        A file: as soon as it exists, the run stops. Works wherever records can be written.
    modules
        Where methods of your own are defined; imported before training.
    """

    run: RunConfig
    retry: bool
    stop: Path
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes
    ----------
    status
        ``finished``, ``failed``, ``stopped``, or ``busy``: somebody else is at it.
    how
        ``trained`` from the start, ``resumed``, or ``kept`` as it was found.
    message
        Why it failed.
    summary
        As ``budgetlab train --json`` prints it; empty where there is no record.
    """

    status: str
    how: str = ""
    message: str = ""
    summary: dict[str, Any] = field(default_factory=dict)


class _Stop(KeyboardInterrupt):
    """The sweep was asked to stop: the run ends as at an interrupt."""


def prepare(threads: int) -> None:
    """Make a fresh process ready: its share of the cores, no signals, no life of its own."""
    import torch

    torch.set_num_threads(threads)
    # Ctrl-C reaches every process of a terminal; the sweep passes it on in its own way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End when the sweep has died, after the run in progress has stopped cleanly."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    _orphaned.set()
    with _one_at_a_time:
        os._exit(1)


def train_one(job: Job, on_step: Callable[["Run"], None] | None = None) -> Outcome:
    """Train a run that nobody else is training, from where it stands.

    Parameters
    ----------
    job
        What to train.
    on_step
        Called after every step, in this process.

    Returns
    -------
    Outcome
        Failures are outcomes too; only an interrupt of this process is raised.
    """
    with _one_at_a_time:
        if job.stop.exists():
            return Outcome("stopped")
        try:
            with hold(lock_path(job.run)) as ours:
                return _train(job, on_step) if ours else Outcome("busy")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return Outcome("failed", message=f"out '{job.run.out}' cannot be used ({reason})")


def _train(job: Job, on_step: Callable[["Run"], None] | None) -> Outcome:
    # Looked up under the lock: another sweep may have finished it just now.
    found = find_record(job.run)
    if found is not None and (found.status == "finished" or _given_up(found, job.retry)):
        return Outcome(found.status, "kept", found.about.get("message", ""), summary_of(found))
    if found is not None and is_held(lock_of(found.path)):
        return Outcome("busy", summary=summary_of(found))
    how = "resumed" if found is not None else "trained"
    run: Run | None = None
    try:
        with _threads_of(found):
            run = _begin(job, found)
            run.on_step = functools.partial(_after_step, _Watch(job.stop), on_step)
            for _ in run:
                pass
        status, message = "finished", ""
    except _Stop:
        status, message = "stopped", ""
    except InUse:
        # By ``train`` or ``resume``, which began while the data was loaded.
        return Outcome("busy")
    except (InputError, RunError) as error:
        status, message = "failed", str(error)
    except Exception as error:
        # Anything that a method of your own may raise: the other runs go on.
        status, message = "failed", f"{type(error).__name__}: {error}"
    return Outcome(status, how, message, run.summary(status) if run is not None else {})


def _given_up(found: Record, retry: bool) -> bool:
    return found.status == "failed" and not retry


def summary_of(record: Record) -> dict[str, Any]:
    """Return the summary of a record, with the place where it lies now."""
    return record.summary | {"record": str(record.path), "status": record.status}


def _begin(job: Job, found: Record | None) -> "Run":
    from budgetlab import samplers
    from budgetlab.training import Run

    if job.run.method not in samplers.names():
        for module in job.modules:
            importlib.import_module(module)
    splits = load_once(job)
    if found is not None:
        return Run.resume(found.path, splits=splits)
    return Run(job.run, splits=splits)


@contextlib.contextmanager
def _threads_of(found: Record | None) -> Iterator[None]:
    """Go on with as many threads as a record was begun with: sums depend on them."""
    import torch

    before = torch.get_num_threads()
    recorded = (found.about.get("hardware") or {}).get("threads") if found is not None else None
    if isinstance(recorded, int) and 1 <= recorded <= (os.cpu_count() or 1):
        torch.set_num_threads(recorded)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Watch:
    """Asks now and then whether to stop; asking at each step would load a network folder."""

    def __init__(self, stop: Path):
        self._stop = stop
        self._next = time.monotonic() + ASK_SECONDS

    def stopped(self) -> bool:
        if _orphaned.is_set():
            return True
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + ASK_SECONDS
        return self._stop.exists()


def _after_step(watch: _Watch, on_step: Callable[["Run"], None] | None, run: "Run") -> None:
    if watch.stopped():
        raise _Stop
    if on_step is not None:
        on_step(run)


_loaded: dict[tuple, "Splits"] = {}


def load_once(job: Job) -> "Splits":
    """Load the data of a run, or take that of the run before where it is the same."""
    from budgetlab.training import load_data

    run = job.run
    # Known by the sweep too: a worker may outlive it, and files may change in between.
    key = (job.stop, *data_key(run))
    if key not in _loaded:
        # One set at a time: they are large.
        _loaded.clear()
        with _alone(Path(run.data_root)):
            _loaded[key] = load_data(run, progress=False)
    return _loaded[key]


def forget_data() -> None:
    """Give the memory of the data back."""
    _loaded.clear()


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one process at a time download and fill the cache; the others then find it."""
    with contextlib.ExitStack() as stack:
        # A folder that cannot be written to is only read.
        with contextlib.suppress(OSError):
            stack.enter_context(hold(root / ".load.lock", wait=True))
        yield
