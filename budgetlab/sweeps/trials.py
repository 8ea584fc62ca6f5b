"""One run of a sweep: its record, how it stands, and how it is trained, in whatever process."""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records import Record
from budgetlab.records.safety import InUse, hold, is_held, lock_of
from budgetlab.sweeps.grid import data_key, planned_cost

if TYPE_CHECKING:
    from budgetlab.data import Splits
    from budgetlab.training import Run

__all__ = ["ASK_SECONDS", "Job", "Outcome", "RunIndex", "Trial", "find_record", "forget_data",
           "lock_path", "packed", "train_one"]  # fmt: skip

RESULTS = ("record", "test_accuracy", "test_loss", "epochs", "steps", "trained_samples",
           "looked_samples", "flops", "seconds")  # fmt: skip
# Which record to trust where a run left several.
PREFERENCE = ("finished", "running", "stopped", "failed")
NUMBERED = re.compile(r"(.+-s\d+-[0-9a-f]{10})(-\d+)?")
ASK_SECONDS = 1.0

# Networks get their weights from torch's one global generator, and threads would share
# the cores: a process trains one run at a time, however many threads call it.
_one_at_a_time = threading.Lock()
_loaded: dict[tuple, "Splits"] = {}


@dataclass(frozen=True)
class Outcome:
    """How the training of a run ended.

    Attributes
    ----------
    status
        ``finished``, ``failed``, ``stopped``, or ``busy``: another process is training it.
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


@dataclass(eq=False)
class Trial:
    """One run of a sweep; no two of a grid have the same name.

    ``status`` is ``planned``, or what its record says: ``running``, ``finished``, ``stopped``,
    ``failed``; ``how``, ``message`` and ``summary`` are those of its :class:`Outcome`, ``share``
    is what it has spent of its budget, 0 to 1, and ``lost`` how often its worker was lost.
    """

    run: RunConfig
    name: str
    status: str = "planned"
    how: str = ""
    message: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    share: float = 0.0
    lost: int = 0

    @cached_property
    def cost(self) -> float:
        """About what it costs, in samples trained on."""
        return planned_cost(self.run)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do unless a failure is tried again."""
        return self.status in ("finished", "failed")

    @property
    def done(self) -> float:
        """Cost of what needs no more work."""
        return self.cost * (1.0 if self.ended else self.share)

    @property
    def record(self) -> Path | None:
        """Its record, if there is one."""
        path = self.summary.get("record")
        return Path(path) if path else None

    def stand_as(self, record: Record | None) -> None:
        """Stand as the record says, or as planned where there is none."""
        if record is None:
            self.status, self.message, self.summary, self.share = "planned", "", {}, 0.0
            return
        self.status, self.message = record.status, str(record.about.get("message", ""))
        self.follow(record)

    def follow(self, record: Record | None) -> None:
        """See how far it is, while it is trained."""
        if record is not None:
            self.summary, self.share = summary_of(record), _share_done(record)

    def mark(self, held: bool) -> None:
        """Tell a run that is being trained from one that was cut off."""
        if held:
            self.status = "running"
        elif self.status == "running":
            self.status = "stopped"

    def end(self, outcome: Outcome) -> None:
        """Stand as the worker says."""
        self.status, self.how, self.message = outcome.status, outcome.how, outcome.message
        self.summary = outcome.summary or self.summary
        if outcome.status == "finished" and not (self.record and self.record.is_dir()):
            self.status = "failed"
            self.message = (
                f"its record '{self.record}' is not to be found on this machine: give a folder "
                "for out that all machines share"
            )

    def row(self, settings: Iterable[str]) -> dict[str, Any]:
        """What it is, what came out, how it stands, and the named settings."""
        names = ("method", "augmentation", "budget", "budget_unit", "seed", *settings)
        about = {name: getattr(self.run, name) for name in names}
        results = dict.fromkeys(RESULTS) | self.summary
        state = {"status": self.status, "how": self.how, "message": self.message}
        return {"id": self.run.id} | about | {"dataset": self.run.dataset_name} | results | state


class RunIndex:
    """Names of the folders under some ``out``, read once for many runs."""

    def __init__(self, runs: Iterable[RunConfig]):
        self._names: dict[tuple[str, str], list[str]] = {}
        for out in {run.out for run in runs}:
            for name in _listed(Path(out)):
                match = NUMBERED.fullmatch(name)
                if match:
                    self._names.setdefault((out, match[1]), []).append(name)

    def _folders(self, run: RunConfig) -> list[Path]:
        names = self._names.get((run.out, run.folder_name), [])
        return [Path(run.out) / name for name in sorted(names)]

    def record(self, run: RunConfig) -> Record | None:
        """Return the record of a run, the best one where there are several."""
        records = [_opened(folder) for folder in self._folders(run)]
        fitting = [one for one in records if one is not None and one.about.get("id") == run.id]
        known = [one for one in fitting if one.status in PREFERENCE]
        return min(known, key=lambda one: PREFERENCE.index(one.status), default=None)

    def is_under_way(self, run: RunConfig) -> bool:
        """Whether a run is being trained now, by a sweep or by ``train`` and ``resume``."""
        locks = (lock_path(run), *map(lock_of, self._folders(run)))
        return any(is_held(lock) for lock in locks)


def find_record(run: RunConfig) -> Record | None:
    """Return the record of one run as it is on disk now, if there is one."""
    return RunIndex([run]).record(run)


def lock_path(run: RunConfig) -> Path:
    """Where the lock of a run lies: beside the records, one file a run."""
    return Path(run.out) / ".sweep" / f"{run.folder_name}.lock"


def summary_of(record: Record) -> dict[str, Any]:
    """Return the summary of a record, with the place where it lies now."""
    return record.summary | {"record": str(record.path), "status": record.status}


def _share_done(record: Record) -> float:
    """Share of the budget that the whole epochs of a record have spent, 0 to 1."""
    if record.status == "finished":
        return 1.0
    try:
        progress = record.epochs["progress"]
    except InputError:
        return 0.0
    last = float(progress.iloc[-1]) if len(progress) else 0.0
    return 0.0 if pd.isna(last) else min(max(last, 0.0), 1.0)


def _listed(out: Path) -> list[str]:
    try:
        return os.listdir(out)
    except (FileNotFoundError, NotADirectoryError):
        # Not there yet; a file in its place is refused when the first record is made.
        return []


def _opened(path: Path) -> Record | None:
    """A record, or None where the folder holds none that can be read: it is left alone."""
    try:
        return Record(path)
    except InputError:
        return None


@dataclass(frozen=True)
class Job:
    """One run to train, and whether to try again what has failed before.

    As soon as the file ``stop`` exists, the run stops: a file reaches every kind of executor,
    threads, processes and other machines alike. ``methods`` are what :func:`packed` gives.
    """

    run: RunConfig
    retry: bool
    stop: Path
    methods: bytes = b""


class _Stop(KeyboardInterrupt):
    """The sweep was asked to stop: the run ends as at an interrupt."""


def train_one(job: Job, on_step: Callable[["Run"], None] | None = None) -> Outcome:
    """Train a run that is not being trained elsewhere, from where it stands.

    ``on_step`` is called after every step, in this process. Failures are outcomes too; only an
    interrupt of this process is raised.
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
    record = find_record(job.run)
    if record is not None:
        if record.status == "finished" or (record.status == "failed" and not job.retry):
            message = record.about.get("message", "")
            return Outcome(record.status, "kept", message, summary_of(record))
        if is_held(lock_of(record.path)):
            return Outcome("busy", summary=summary_of(record))
    how = "resumed" if record is not None else "trained"
    run: Run | None = None
    try:
        run = _begin(job, record)
        run.on_step = _after_step(job.stop, on_step)
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


def _begin(job: Job, record: Record | None) -> "Run":
    from budgetlab.training import Run

    _unpack(job.methods)
    splits = _load_once(job)
    return Run.resume(record.path, splits=splits) if record else Run(job.run, splits=splits)


def _after_step(stop: Path, on_step: Callable[["Run"], None] | None) -> Callable[["Run"], None]:
    asked = time.monotonic()

    def after(run: "Run") -> None:
        nonlocal asked
        # Now and then: asking at each step would load a network folder.
        if time.monotonic() - asked >= ASK_SECONDS:
            asked = time.monotonic()
            if stop.exists():
                raise _Stop
        if on_step is not None:
            on_step(run)

    return after


def _load_once(job: Job) -> "Splits":
    """Load the data of a run, or take that of the run before where it is the same."""
    from budgetlab.training import load_data

    # Known by the sweep too: a worker may outlive it, and files may change in between.
    key = (job.stop, *data_key(job.run))
    if key not in _loaded:
        # One set at a time: they are large.
        _loaded.clear()
        # One process at a time downloads and fills the cache; the others then find it.
        with contextlib.ExitStack() as stack:
            # A folder that cannot be written to is only read.
            with contextlib.suppress(OSError):
                stack.enter_context(hold(Path(job.run.data_root) / ".load.lock", wait=True))
            _loaded[key] = load_data(job.run, progress=False)
    return _loaded[key]


def forget_data() -> None:
    """Give the memory of the data back."""
    _loaded.clear()


def packed(methods: Iterable[str]) -> bytes:
    """Pack methods of your own for other processes, or say in an InputError what cannot be sent."""
    import cloudpickle

    from budgetlab import samplers

    own = {name: samplers.lookup(name) for name in methods}
    own = {k: kind for k, kind in own.items() if not kind.__module__.startswith("budgetlab.")}
    known = {"__main__", *cloudpickle.list_registry_pickle_by_value()}
    modules = [sys.modules[name] for name in {kind.__module__ for kind in own.values()} - known]
    try:
        # By what they are, not by their file, which may have changed since or not be there.
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        return cloudpickle.dumps(own) if own else b""
    except Exception as error:
        raise InputError(
            f"the methods {', '.join(own)} cannot be sent to another process ({error}): sweep "
            "in this process, with workers=1"
        ) from None
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _unpack(methods: bytes) -> None:
    if methods:
        import cloudpickle

        from budgetlab import samplers

        for name, kind in cloudpickle.loads(methods).items():
            samplers.sampler(name)(kind)
