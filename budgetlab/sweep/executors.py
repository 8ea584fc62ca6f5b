"""Where runs are trained: in this process, in processes beside it, or on a cluster."""

import contextlib
import importlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from typing import Any

from budgetlab.errors import InputError
from budgetlab.sweep.worker import prepare

__all__ = ["InProcess", "Processes", "connect", "threads_each", "visible_gpus"]

CONNECT_SECONDS = 10


class InProcess(Executor):
    """Calls at once, in this process; interrupts and errors pass through."""

    slots = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function and return a future that is done."""
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Processes(Executor):
    """A fixed number of processes, each with its share of the cores and one GPU.

    Every process is a pool of its own, so that one that dies takes no other run with
    it, and is replaced at the next call. They are started fresh (``spawn``): a fork
    would inherit the threads and the GPU of this process in an unusable state.

    Parameters
    ----------
    slots
        Number of processes; no more calls than this may be under way at once.
    threads
        Threads of torch in each.
    gpus
        What ``CUDA_VISIBLE_DEVICES`` may name, given out in turn; empty to leave it.
    """

    def __init__(self, slots: int, threads: int, gpus: tuple[str, ...] = ()):
        self.slots = slots
        self._threads = threads
        self._gpus = gpus
        self._pools: list[ProcessPoolExecutor | None] = [None] * slots
        self._calls: list[Future | None] = [None] * slots

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function in a process that is free."""
        free = (slot for slot, call in enumerate(self._calls) if call is None or call.done())
        slot = next(free, None)
        if slot is None:
            raise RuntimeError(f"all {self.slots} processes are busy")
        with _environment(self._variables(slot)):
            try:
                call = self._pool(slot).submit(fn, *args, **kwargs)
            except BrokenExecutor:
                # It died since its last call.
                self._drop(slot)
                call = self._pool(slot).submit(fn, *args, **kwargs)
        self._calls[slot] = call
        return call

    def _pool(self, slot: int) -> ProcessPoolExecutor:
        pool = self._pools[slot]
        if pool is None:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(
                1, mp_context=context, initializer=prepare, initargs=(self._threads,)
            )
            self._pools[slot] = pool
        return pool

    def _drop(self, slot: int) -> None:
        pool, self._pools[slot] = self._pools[slot], None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _variables(self, slot: int) -> dict[str, str]:
        """What a new process must find when it starts, before torch is imported there."""
        # Threads of OpenMP that spin while they wait take the cores from the other runs.
        waiting = {} if "OMP_WAIT_POLICY" in os.environ else {"OMP_WAIT_POLICY": "PASSIVE"}
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]} if self._gpus else {}
        return {"OMP_NUM_THREADS": str(self._threads)} | waiting | gpu

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes, after what they are doing."""
        for pool in self._pools:
            if pool is not None:
                pool.shutdown(wait=wait, cancel_futures=cancel_futures)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables while a process is started: it inherits them, this one keeps its own."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def threads_each(workers: int) -> int:
    """Share of this process's threads for each of several, at least one."""
    import torch

    return max(1, torch.get_num_threads() // workers)


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
