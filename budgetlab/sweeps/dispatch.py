"""Train the runs of a sweep: in this process, in processes of this machine, or on a cluster."""

import contextlib
import importlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError, reason, whole
from budgetlab.records.writer import InUse, hold, is_held, lock_of
from budgetlab.sweeps.grid import data_key, find_record, lock_path, summary_of

if TYPE_CHECKING:
    from budgetlab.data import Splits
    from budgetlab.training import Run

CONNECT_SECONDS = 10
# Idle processes end after this time, which frees their memory.
IDLE_SECONDS = 300
# Seconds between checks that the sweeping process is still alive.
PARENT_SECONDS = 2

# Networks initialise from torch's global generator, and threads would compete for the cores: a
# process trains one run at a time, however many threads call it.
_one_at_a_time = threading.Lock()
_loaded: dict[tuple, "Splits"] = {}


@dataclass(frozen=True)
class Outcome:
    """How the training of a run ended.

    ``status`` is ``finished``, ``failed``, or ``busy``: another process is training it. ``how`` is
    ``trained`` from the start, ``resumed``, or ``kept`` as found; ``message`` says why it failed;
    ``summary`` is as ``budgetlab train --json`` prints it, empty without a record.
    """

    status: str
    how: str = ""
    message: str = ""
    summary: dict[str, Any] = field(default_factory=dict)


def train_one(
    run: RunConfig,
    retry: bool = False,
    sweep: str = "",
    methods: bytes = b"",
    on_step: Callable[["Run"], None] | None = None,
) -> Outcome:
    """Train a run from its current state, unless it is being trained elsewhere.

    ``retry`` retries a failed run, ``sweep`` identifies the sweep, ``methods`` comes from
    :func:`packed`, and ``on_step`` is called after every step, in this process. Failures are
    returned as outcomes; only an interrupt of this process is raised.
    """
    with _one_at_a_time:
        try:
            with hold(lock_path(run)) as ours:
                return _train(run, retry, sweep, methods, on_step) if ours else Outcome("busy")
        except OSError as error:
            why = error.strerror or type(error).__name__
            return Outcome("failed", message=f"out '{run.out}' cannot be used ({why})")


def _train(
    config: RunConfig, retry: bool, sweep: str, methods: bytes,
    on_step: Callable[["Run"], None] | None,
) -> Outcome:  # fmt: skip
    from budgetlab.training import Run

    # Looked up under the lock: another sweep may just have finished it.
    record, run = find_record(config), None
    if record is not None:
        if record.status == "finished" or (record.status == "failed" and not retry):
            message = record.about.get("message", "")
            return Outcome(record.status, "kept", message, summary_of(record))
        if is_held(lock_of(record.path)):
            return Outcome("busy", summary=summary_of(record))
    status, message = "finished", ""
    try:
        _unpack(methods)
        splits = _load_once(config, sweep)
        run = Run.resume(record.path, splits=splits) if record else Run(config, splits=splits)
        run.on_step = on_step
        for _ in run:
            pass
    except InUse:
        # ``train`` or ``resume`` started it while the data was loaded.
        return Outcome("busy")
    except Exception as error:
        # A custom method may raise anything; the other runs go on.
        known = isinstance(error, InputError | RunError)
        status, message = "failed", str(error) if known else f"{type(error).__name__}: {error}"
    how = "resumed" if record is not None else "trained"
    return Outcome(status, how, message, run.summary(status) if run is not None else {})


def _load_once(run: RunConfig, sweep: str) -> "Splits":
    """Load the data of a run, or reuse that of the previous run if it is the same."""
    from budgetlab.training import load_data

    # The key includes the sweep: a worker may outlive it, and files may change in between.
    key = (sweep, *data_key(run))
    if key not in _loaded:
        # Keep one set at a time: they are large.
        _loaded.clear()
        # One process at a time downloads and fills the cache; the others then find it.
        with contextlib.ExitStack() as stack:
            # A read-only folder needs no lock.
            with contextlib.suppress(OSError):
                stack.enter_context(hold(Path(run.data_root) / ".load.lock", wait=True))
            _loaded[key] = load_data(run, progress=False)
    return _loaded[key]


def packed(methods: Iterable[str]) -> bytes:
    """Pickle custom methods for other processes; InputError if they cannot be sent."""
    import cloudpickle

    from budgetlab import samplers

    own = {name: samplers.lookup(name) for name in methods}
    own = {k: kind for k, kind in own.items() if not kind.__module__.startswith("budgetlab.")}
    known = {"__main__", *cloudpickle.list_registry_pickle_by_value()}
    modules = [sys.modules[name] for name in {kind.__module__ for kind in own.values()} - known]
    try:
        # By value: the file may have changed since, or not exist there.
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


class InProcess(Executor):
    """Calls at once, in this process; interrupts and errors pass through."""

    slots = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function and return its completed future."""
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Processes(Executor):
    """A fixed number of processes of this machine, each with one thread and one GPU.

    Each is a loky executor of its own: one that dies takes no other run with it, and is replaced at
    the next call. Their environment is set before they load torch: ``gpus`` are names for
    ``CUDA_VISIBLE_DEVICES``, assigned in turn.
    """

    def __init__(self, slots: int, gpus: tuple[str, ...] = ()):
        self.slots, self._gpus = slots, gpus
        self._pools: list[Executor | None] = [None] * slots
        self._calls: dict[Future, int] = {}

    @property
    def idle(self) -> bool:
        """Whether no call is running."""
        return all(call.done() for call in self._calls)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function in the least busy process."""
        self._calls = {call: slot for call, slot in self._calls.items() if not call.done()}
        busy = Counter(self._calls.values())
        slot = min(range(self.slots), key=lambda one: busy[one])
        try:
            call = self._pool(slot).submit(fn, *args, **kwargs)
        except BrokenExecutor:
            # It died since its last call.
            self._pools[slot] = None
            call = self._pool(slot).submit(fn, *args, **kwargs)
        self._calls[call] = slot
        return call

    def _pool(self, slot: int) -> Executor:
        pool = self._pools[slot]
        if pool is None:
            from loky import ProcessPoolExecutor

            variables = {"OMP_NUM_THREADS": "1"}
            if self._gpus:
                variables["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
            pool = self._pools[slot] = ProcessPoolExecutor(
                1, timeout=IDLE_SECONDS, initializer=_prepare, env=variables
            )
        return pool

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes now; interrupted runs can resume from their last whole epoch."""
        pools, self._pools, self._calls = self._pools, [None] * self.slots, {}
        for pool in pools:
            if pool is not None:
                pool.shutdown(wait=wait, kill_workers=True)  # type: ignore[call-arg]


def _prepare() -> None:
    import torch

    torch.set_num_threads(1)
    # Ctrl-C reaches every process of a terminal; the sweep ends them itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    """Exit once the parent is gone, such as a killed kernel: the run can be resumed."""
    import psutil

    while os.getppid() == parent and psutil.pid_exists(parent):
        time.sleep(PARENT_SECONDS)
    os._exit(1)


# Idle processes, kept so that the next sweep with as many starts at once.
_kept: dict[tuple[int, tuple[str, ...]], Processes] = {}


@contextlib.contextmanager
def processes(slots: int, gpus: tuple[str, ...] = (), *, keep: bool = True) -> Iterator[Processes]:
    """Lend processes to the block; calls still running at its end are stopped.

    ``keep=False`` starts new ones and ends them afterwards: custom methods, and all that they
    import, may have changed in between.
    """
    lent = (_kept.pop((slots, gpus), None) if keep else None) or Processes(slots, gpus)
    # Processes of other sizes are no longer needed.
    while _kept:
        _kept.popitem()[1].shutdown()
    try:
        yield lent
    finally:
        if keep and lent.idle and not _kept:
            _kept[slots, gpus] = lent
        else:
            lent.shutdown()


def slots_for(workers: int | str, runs: list[RunConfig]) -> tuple[int, tuple[str, ...]]:
    """Return the number of processes for these runs, at most one per run, and the GPUs to share.

    ``"auto"`` or 0 is one per GPU, or one per core without GPUs.
    """
    if workers == 1:
        return 1, ()
    # A GPU given by number must stay visible under that number.
    free_to_choose = not any(run.device == "cpu" or ":" in run.device for run in runs)
    gpus = visible_gpus() if free_to_choose else ()
    if workers in ("auto", 0):
        import loky
        import torch

        # A Mac has one GPU, whatever its number of cores.
        apple = free_to_choose and torch.backends.mps.is_available()
        workers = len(gpus) or (1 if apple else loky.cpu_count())
    return min(int(workers), len(runs)), gpus


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as names for ``CUDA_VISIBLE_DEVICES``."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(named[:count] or map(str, range(count)))


@contextlib.contextmanager
def connect(address: str) -> Iterator[Executor]:
    """Connect to the scheduler of a Dask cluster, which is left running."""
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise InputError(
            f"scheduler '{address}' needs Dask: install it with pip install 'budgetlab[dask]'"
        ) from None
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"scheduler '{address}' does not answer ({reason(error)}): give an address such as "
            "tcp://host:8786"
        ) from None
    try:
        yield client.get_executor()
    finally:
        client.close()


@contextlib.contextmanager
def place(
    executor: Executor | None, scheduler: str, workers: int | str, runs: list[RunConfig], keep: bool
) -> Iterator[Executor]:
    """Lend the executor that trains these runs; ``keep`` is as for :func:`processes`."""
    with contextlib.ExitStack() as stack:
        slots, gpus = slots_for(workers, runs)
        if executor is not None:
            yield executor
        elif scheduler:
            yield stack.enter_context(connect(scheduler))
        elif slots > 1:
            yield stack.enter_context(processes(slots, gpus, keep=keep))
        else:
            stack.callback(_loaded.clear)
            yield InProcess()


def require_one_executor(executor: Executor | None, workers: int | str, scheduler: str) -> None:
    """Refuse invalid places to train, and more than one of them."""
    if workers != "auto":
        whole("workers", workers, 0, 1024, also=", or 'auto'")
    if executor is not None and not hasattr(executor, "submit"):
        raise InputError(
            f"executor {executor!r} is not allowed: give a concurrent.futures.Executor, or "
            "distributed.Client(...).get_executor()"
        )
    given = {"executor": executor is not None, "workers": workers != 1, "scheduler": scheduler}
    several = [name for name, is_given in given.items() if is_given]
    if len(several) > 1:
        raise InputError(f"{' and '.join(several)} cannot be combined: give one of them")
