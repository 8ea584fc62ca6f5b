"""Where the runs of a sweep are trained, and handing them out: here, in processes, on a cluster."""

import contextlib
import importlib
import os
import signal
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records.safety import holder, is_held, lock_of
from budgetlab.sweeps.trials import (
    ASK_SECONDS,
    Job,
    Outcome,
    RunIndex,
    Trial,
    lock_path,
    train_one,
)

if TYPE_CHECKING:
    from budgetlab.training import Run

__all__ = ["Dispatcher", "InProcess", "Processes", "connect", "processes", "slots_for"]

BAR = "{percentage:3.0f}% |{bar:30}| {elapsed} gone, about {remaining} left{postfix}"
CONNECT_SECONDS = 10
# Processes that have nothing to do end after this time and give their memory back.
IDLE_SECONDS = 300
POLL_SECONDS = 1.0
STOP_SECONDS = 120.0
# A run that takes its worker with it would do so for ever.
MOST_LOST = 2


class Dispatcher:
    """Hands runs to an executor and takes them back, for the length of one iteration.

    An executor with an attribute ``slots`` has no more calls than that under way.
    """

    def __init__(self, trials: list[Trial], executor: Executor, progress: bool):
        self._trials, self._executor = trials, executor
        # A cluster that grows with what is asked of it must see all that is left.
        self._slots = getattr(executor, "slots", sys.maxsize)
        self._under_way: dict[Future, Trial] = {}
        self._elsewhere: list[Trial] = []
        self._next_look = 0.0
        self._stop = Path(trials[0].run.out, ".sweep", f"stop-{uuid.uuid4().hex}")
        # The average speed so far: runs end in bursts, which a moving average would follow.
        self._bar = tqdm(
            total=sum(one.cost for one in trials), initial=self._done(), bar_format=BAR,
            smoothing=0, file=sys.stderr, disable=not progress,
        )  # fmt: skip

    def __enter__(self) -> "Dispatcher":
        try:
            self._stop.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            out = self._stop.parent.parent
            raise InputError(
                f"out '{out}' cannot be written ({error.strerror}): give another folder"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what is under way, and wait until it has."""
        self._bar.close()
        if not self._under_way:
            return
        with contextlib.suppress(OSError):
            self._stop.touch()
        wait(self._under_way, 3 * ASK_SECONDS)
        for future, one in self._under_way.items():
            # What has begun must see the file before it is gone; the rest need not begin.
            if not is_held(lock_path(one.run)):
                future.cancel()
        wait(self._under_way, STOP_SECONDS)
        self._stop.unlink(missing_ok=True)

    def train(self, due: list[Trial], retry: bool, methods: bytes) -> Iterator[Trial]:
        """Train them all; yields each as it ends."""
        todo = deque(due)
        while todo or self._under_way or self._elsewhere:
            while todo and len(self._under_way) < self._slots:
                one = todo.popleft()
                self._hand_out(one, Job(one.run, retry, self._stop, methods))
            for one in self._take_back():
                if one.status == "planned":
                    todo.append(one)
                else:
                    yield one
            todo.extend(self._freed())
            self._look()

    def _hand_out(self, one: Trial, job: Job) -> None:
        one.status = "running"
        if isinstance(self._executor, InProcess):
            before, text = self._done() - one.done, f"{self._text()}: {one.name}"

            def follow(run: "Run") -> None:
                one.share = run.budget.share_spent(run.ledger)
                self._show(before + one.cost * one.share, text)

            future = self._executor.submit(train_one, job, follow)
        else:
            try:
                future = self._executor.submit(train_one, job)
            except Exception as error:
                raise RunError(
                    f"the executor takes no more runs ({_reason(error)}): start the sweep again "
                    "to go on, what is finished is kept"
                ) from error
        self._under_way[future] = one

    def _take_back(self) -> Iterator[Trial]:
        """Runs that have ended, or must be handed out again (``planned``)."""
        if not self._under_way:
            return
        for future in wait(self._under_way, POLL_SECONDS, FIRST_COMPLETED).done:
            one = self._under_way.pop(future)
            one.end(self._outcome(one, future))
            if one.status == "busy":
                one.status = "running"
                self._elsewhere.append(one)
                continue
            if one.status == "failed" and not self._bar.disable:
                tqdm.write(f"failed: {one.name}: {one.message}", file=sys.stderr)
            yield one

    def _outcome(self, one: Trial, future: Future) -> Outcome:
        try:
            return future.result()
        except CancelledError as error:
            # Not by us: the executor has lost its workers, or its scheduler.
            raise RunError(
                "the executor has given the runs up: start the sweep again to go on, what is "
                "finished is kept"
            ) from error
        except Exception as error:
            # No outcome: the worker itself was lost. train_one returns all other failures.
            one.lost += 1
            if one.lost < MOST_LOST:
                return Outcome("planned")
            times = f"its worker was lost {one.lost} times ({_reason(error)})"
            return Outcome("failed", message=f"{times}: it may need more memory")

    def _freed(self) -> list[Trial]:
        """Runs that another sweep was training and has left, finished or not."""
        if self._elsewhere and not self._under_way:
            time.sleep(POLL_SECONDS)
        index = RunIndex(one.run for one in self._elsewhere)
        freed = [one for one in self._elsewhere if not index.is_under_way(one.run)]
        self._elsewhere = [one for one in self._elsewhere if one not in freed]
        return freed

    def _look(self) -> None:
        """See on disk how far the runs are that train elsewhere, and show it."""
        began = time.monotonic()
        if not self._bar.disable and began >= self._next_look:
            waiting = [*self._under_way.values(), *self._elsewhere]
            index = RunIndex(one.run for one in waiting)
            for one in waiting:
                one.follow(index.record(one.run))
            # A thousand at a time take a while to read: most of the time is for the runs.
            spent = time.monotonic() - began
            self._next_look = began + max(POLL_SECONDS, 20 * spent)
        self._show(self._done(), self._text())

    def _done(self) -> float:
        return sum(one.done for one in self._trials)

    def _show(self, done: float, text: str) -> None:
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)

    def _text(self) -> str:
        finished = sum(one.status == "finished" for one in self._trials)
        failed = sum(one.status == "failed" for one in self._trials)
        text = f"{finished} of {len(self._trials)} runs" + (f", {failed} failed" * bool(failed))
        if self._elsewhere:
            one = self._elsewhere[0]
            by = holder(lock_path(one.run)) or holder(lock_of(one.record or Path()))
            text += (
                f", {len(self._elsewhere)} trained by process {by.get('process', '?')} "
                f"on {by.get('host', '?')}"
            )
        return text


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


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
    replaced at the next call. They read their environment before torch is loaded there.

    Parameters
    ----------
    slots
        Number of processes; no more calls than this may be under way at once.
    gpus
        What ``CUDA_VISIBLE_DEVICES`` may name, given out in turn; empty to leave it.
    """

    def __init__(self, slots: int, gpus: tuple[str, ...] = ()):
        self.slots = slots
        self._gpus = gpus
        self._pools: list[Executor | None] = [None] * slots
        self._calls: list[Future | None] = [None] * slots

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return all(call is None or call.done() for call in self._calls)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function in a process that is free."""
        free = (slot for slot, call in enumerate(self._calls) if call is None or call.done())
        slot = next(free, None)
        if slot is None:
            raise RuntimeError(f"all {self.slots} processes are busy")
        try:
            call = self._pool(slot).submit(fn, *args, **kwargs)
        except BrokenExecutor:
            # It died since its last call.
            self._pools[slot] = None
            call = self._pool(slot).submit(fn, *args, **kwargs)
        self._calls[slot] = call
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
        """End the processes, after what they are doing."""
        pools, self._pools = self._pools, [None] * self.slots
        for pool in pools:
            if pool is not None:
                pool.shutdown(wait=wait)


def _prepare() -> None:
    """Make a fresh process ready: one thread, no signals."""
    import torch

    torch.set_num_threads(1)
    # Ctrl-C reaches every process of a terminal; the sweep passes it on in its own way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_kept: dict[tuple[int, tuple[str, ...]], Processes] = {}


@contextlib.contextmanager
def processes(slots: int, gpus: tuple[str, ...] = (), *, keep: bool = True) -> Iterator[Processes]:
    """Lend processes that stay alive for the next sweep, which then starts at once.

    ``keep=False`` starts new ones and ends them afterwards: methods of your own may have
    changed in between, with all that they import.
    """
    lent = _kept.pop((slots, gpus), None) if keep else None
    lent = lent or Processes(slots, gpus)
    try:
        yield lent
    finally:
        # Those of another size are not needed any more.
        over = [_kept.pop(key) for key in list(_kept)]
        if keep and lent.idle:
            _kept[slots, gpus] = lent
        else:
            over.append(lent)
        for one in over:
            one.shutdown(wait=False)


def slots_for(workers: int | str, runs: list[RunConfig]) -> tuple[int, tuple[str, ...]]:
    """How many processes train these runs, no more than runs, and the GPUs that they share.

    ``"auto"`` or 0 is one a GPU, or one a core where none is used.
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
    """Connect to the scheduler of a Dask cluster, and leave it running afterwards.

    Raises
    ------
    InputError
        If Dask is not installed or nothing answers at the address.
    """
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise InputError(
            f"scheduler '{address}' needs Dask: install it with pip install 'budgetlab[dask]'"
        ) from None
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"scheduler '{address}' does not answer ({reason}): give an address such as "
            "tcp://host:8786"
        ) from None
    try:
        yield client.get_executor()
    finally:
        client.close()
