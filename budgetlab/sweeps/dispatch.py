"""Where a run is trained - here, in processes of this machine, on a cluster - and how it is."""

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
from budgetlab.errors import InputError, RunError
from budgetlab.records.writer import InUse, hold, is_held, lock_of
from budgetlab.sweeps.grid import data_key, find_record, lock_path, summary_of

if TYPE_CHECKING:
    from budgetlab.data import Splits
    from budgetlab.training import Run

CONNECT_SECONDS = 10
# Processes that have nothing to do end after this time and give their memory back.
IDLE_SECONDS = 300
# Between two looks at whether the process that sweeps is still there.
PARENT_SECONDS = 2

# Networks get their weights from torch's one global generator, and threads would share
# the cores: a process trains one run at a time, however many threads call it.
_one_at_a_time = threading.Lock()
_loaded: dict[tuple, "Splits"] = {}


@dataclass(frozen=True)
class Outcome:
    """How the training of a run ended.

    ``status`` is ``finished``, ``failed``, or ``busy``: another process is training it. ``how``
    is ``trained`` from the start, ``resumed``, or ``kept`` as it was found; ``message`` why it
    failed; ``summary`` as ``budgetlab train --json`` prints it, empty without a record.
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
    """Train a run that is not being trained elsewhere, from where it stands.

    ``retry`` tries again what has failed before, ``sweep`` names the sweep that asks, ``methods``
    are what :func:`packed` gives, and ``on_step`` is called after every step, in this process.
    Failures are outcomes too; only an interrupt of this process is raised.
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

    # Looked up under the lock: another sweep may have finished it just now.
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
        # By ``train`` or ``resume``, which began while the data was loaded.
        return Outcome("busy")
    except Exception as error:
        # Anything that a method of your own may raise: the other runs go on.
        known = isinstance(error, InputError | RunError)
        status, message = "failed", str(error) if known else f"{type(error).__name__}: {error}"
    how = "resumed" if record is not None else "trained"
    return Outcome(status, how, message, run.summary(status) if run is not None else {})


def _load_once(run: RunConfig, sweep: str) -> "Splits":
    """Load the data of a run, or take that of the run before where it is the same."""
    from budgetlab.training import load_data

    # Known by the sweep too: a worker may outlive it, and files may change in between.
    key = (sweep, *data_key(run))
    if key not in _loaded:
        # One set at a time: they are large.
        _loaded.clear()
        # One process at a time downloads and fills the cache; the others then find it.
        with contextlib.ExitStack() as stack:
            # A folder that cannot be written to is only read.
            with contextlib.suppress(OSError):
                stack.enter_context(hold(Path(run.data_root) / ".load.lock", wait=True))
            _loaded[key] = load_data(run, progress=False)
    return _loaded[key]


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


class InProcess(Executor):
    """Calls at once, in this process; interrupts and errors pass through."""

    slots = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function and return a future that is done."""
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Processes(Executor):
    """A fixed number of processes of this machine, each with one thread and one GPU.

    Each is an executor of loky of its own: one that dies takes no other run with it, and is
    replaced at the next call. They read their environment before torch is loaded there: ``gpus``
    are what ``CUDA_VISIBLE_DEVICES`` may name, given out in turn.
    """

    def __init__(self, slots: int, gpus: tuple[str, ...] = ()):
        self.slots, self._gpus = slots, gpus
        self._pools: list[Executor | None] = [None] * slots
        self._calls: dict[Future, int] = {}

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return all(call.done() for call in self._calls)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function in the process that has least to do."""
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
        """End the processes now: a run under way goes on later from its last whole epoch."""
        pools, self._pools, self._calls = self._pools, [None] * self.slots, {}
        for pool in pools:
            if pool is not None:
                pool.shutdown(wait=wait, kill_workers=True)  # type: ignore[call-arg]


def _prepare() -> None:
    import torch

    torch.set_num_threads(1)
    # Ctrl-C reaches every process of a terminal; the sweep ends them itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End once a process is gone, such as a kernel that was killed: a run can be resumed."""
    import psutil

    while os.getppid() == parent and psutil.pid_exists(parent):
        time.sleep(PARENT_SECONDS)
    os._exit(1)


# Those that wait for the next sweep of as many, which then starts at once.
_kept: dict[tuple[int, tuple[str, ...]], Processes] = {}


@contextlib.contextmanager
def processes(slots: int, gpus: tuple[str, ...] = (), *, keep: bool = True) -> Iterator[Processes]:
    """Lend processes; what is under way in them at the end of the block is stopped.

    ``keep=False`` starts new ones and ends them afterwards: methods of your own may have
    changed in between, with all that they import.
    """
    lent = (_kept.pop((slots, gpus), None) if keep else None) or Processes(slots, gpus)
    # Those of another size are not needed any more.
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
    """How many processes train these runs, no more than runs, and the GPUs that they share.

    ``"auto"`` or 0 is one per GPU, or one per core where none is used.
    """
    if workers == 1:
        return 1, ()
    # A GPU named by its number must stay visible under that number.
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
    """Names of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(named[:count] or map(str, range(count)))


@contextlib.contextmanager
def connect(address: str) -> Iterator[Executor]:
    """Connect to the scheduler of a Dask cluster, and leave it running afterwards."""
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


def reason(error: BaseException) -> str:
    """First line of what an error says, or its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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


def check_places(executor: Executor | None, workers: int | str, scheduler: str) -> None:
    """Refuse places to train at that do not exist, or several of them."""
    whole = isinstance(workers, int) and not isinstance(workers, bool) and 0 <= workers <= 1024
    if workers != "auto" and not whole:
        raise InputError(
            f"workers {workers!r} is not allowed: give a whole number in [1, 1024], or auto (or 0)"
        )
    if executor is not None and not hasattr(executor, "submit"):
        raise InputError(
            f"executor {executor!r} is not allowed: give a concurrent.futures.Executor, or "
            "distributed.Client(...).get_executor()"
        )
    given = {"executor": executor is not None, "workers": workers != 1, "scheduler": scheduler}
    several = [name for name, is_given in given.items() if is_given]
    if len(several) > 1:
        raise InputError(f"{' and '.join(several)} cannot be combined: give one of them")
