"""Device, precision, threads, memory, clock and random streams of a run.

Each purpose has its own random stream, derived from one seed, so that an extra draw for one (an
augmentation, say) leaves the others unchanged: two methods with the same seed start from the same
weights and use the same validation split.
"""

import contextlib
import ctypes
import dataclasses
import functools
import os
import platform
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from budgetlab.errors import InputError

Parts = TypeVar("Parts", bound=Any)

STREAMS = ("data", "imbalance", "split", "noise", "init", "order", "augmentation", "proxy",
           "test", "redundancy", "dropout")  # fmt: skip

SWITCH = "BUDGETLAB_KEEP_MEMORY"
# Options and values of mallopt, from malloc.h and its manual page.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
KEPT = 2**30
# Largest block allocated from the heap; glibc allows no more.
LARGEST = 32 * 2**20

# Doubling the threads must save at least a tenth of the time: other processes need cores too.
WORTH = 0.9
# Seconds above which a step is timed only once.
SLOW_STEP = 0.5
THREADS_AT_IMPORT = torch.get_num_threads()


def choose_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` to an available device.

    ``auto`` is the first GPU, NVIDIA's (``cuda``) before a Mac's (``mps``), or else the CPU.
    """
    found = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device(next((kind for kind, count in found.items() if count), "cpu"))
    if not re.fullmatch("cpu|mps|cuda|cuda:(0|[1-9][0-9]{0,3})", name):
        raise InputError(f"unknown device '{name}': choose one of auto, cpu, cuda, cuda:N, mps")
    kind, _, number = name.partition(":")
    if kind != "cpu" and int(number or 0) >= found[kind]:
        raise InputError(f"device '{name}' is not there ({found[kind]} found): choose auto or cpu")
    return torch.device(name)


def sampling_device(device: torch.device) -> torch.device:
    """Return the device for sampling and per-sample history, given the training device.

    It is the same device, except on Apple's GPUs: these lack float64, which the probabilities of
    millions of samples need, so the CPU is used.
    """
    return torch.device("cpu") if device.type == "mps" else device


def moved(parts: Parts, device: torch.device) -> Parts:
    """Return a dataclass, and any nested in it, with tensors on a device; ``images`` stay."""
    there: dict[str, Any] = {}
    for name, value in vars(parts).items():
        if isinstance(value, torch.Tensor) and name != "images":
            there[name] = value.to(device)
        elif dataclasses.is_dataclass(value):
            there[name] = moved(value, device)
    same = all(value is getattr(parts, name) for name, value in there.items())
    return parts if same else dataclasses.replace(parts, **there)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``auto`` to bfloat16 where the hardware computes in it, else float32."""
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    # With a restricted instruction set, oneDNN emulates bfloat16 in software, far slower.
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if not any(word in allowed for word in ("ALL", "DEFAULT", "BF16", "FP16", "AMX")):
        return False
    flags = _cpuinfo("flags", "Features").split()
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def _cpuinfo(*fields: str) -> str:
    """Read one of these fields from Linux's /proc/cpuinfo; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    said = (line.partition(":") for line in lines)
    return next((text.strip() for name, _, text in said if name.strip() in fields), "")


def describe_hardware(
    device: torch.device, precision: torch.dtype, threads: int | None = None
) -> dict[str, str | int]:
    """Describe the machine, as stored in a record."""
    name = _cpuinfo("model name") or platform.processor()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "device": str(device),
        "name": name,
        "precision": str(precision).removeprefix("torch."),
        "threads": threads or torch.get_num_threads(),
        "cpu_count": os.cpu_count() or 0,
    }


def max_threads_to_try() -> int:
    """Return the most threads to try; 1 if the user has fixed the number.

    Users fix it with ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``, or by calling
    ``torch.set_num_threads`` with a number other than torch's default.
    """
    now = torch.get_num_threads()
    cores = os.cpu_count() or 1
    with contextlib.suppress(AttributeError):  # not on every system
        cores = len(os.sched_getaffinity(0))
    # Depending on its library, torch starts one thread per core or per pair of hyperthreads.
    started_with = (cores, cores // 2, os.cpu_count())
    said = os.environ.get("OMP_NUM_THREADS") or os.environ.get("MKL_NUM_THREADS")
    return 1 if said or now != THREADS_AT_IMPORT or now not in started_with else now


@contextlib.contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest_threads(step: Callable[[], object], most: int) -> int:
    """Find the number of threads with which a step is fastest now: 1, 2, 4, ... or ``most``.

    A doubling must save a tenth of the time; where other processes keep the cores busy, one thread
    is often fastest.
    """
    best, seconds = 1, _seconds(step, 1)
    while best < most:
        more = min(2 * best, most)
        then = _seconds(step, more)
        if then > WORTH * seconds:
            break
        best, seconds = more, then
    return best


def _seconds(step: Callable[[], object], threads: int) -> float:
    """Return the shortest of up to four timed steps; the first one warms up."""
    taken: list[float] = []
    with using_threads(threads):
        while len(taken) < 4 and not (taken and taken[0] > SLOW_STEP):
            began = time.perf_counter()
            step()
            taken.append(time.perf_counter() - began)
    return min(taken)


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep up to 1 GiB of freed memory in this process; runs once.

    By default glibc returns blocks of more than 128 kB to Linux as soon as they are freed, so every
    step requests its activations again and the system clears their pages again: a tenth to a third
    of the step time of the small network. Results do not change.

    Returns False with another C library, or if ``BUDGETLAB_KEEP_MEMORY=0`` is set.
    """
    if os.environ.get(SWITCH) == "0":
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function: not glibc
        return False
    # One heap for all threads: the heaps of other threads have 64 MiB, which is too small.
    options = {ARENA_MAX: 1, MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT}
    return all([set_option(name, value) == 1 for name, value in options.items()])


class Clock:
    """Times intervals of training; what lies between them is not counted.

    GPU work is asynchronous, so a reading must wait for it: only at the end of an interval (by CUDA
    events on NVIDIA GPUs), or with ``waiting=True`` at every reading, as budgets in seconds need.
    """

    def __init__(self, device: torch.device, waiting: bool = False):
        self.kind = device.type
        self.waiting = waiting
        self._begun = 0.0
        self._event: torch.cuda.Event | None = None

    def start(self) -> None:
        """Begin an interval."""
        if self.kind == "cuda" and not self.waiting:
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()
        self._begun = time.perf_counter()

    def read(self) -> float | None:
        """Return the seconds since the start, or None where reading would stall the device."""
        return self.stop() if self.waiting or self.kind == "cpu" else None

    def skip(self, seconds: float) -> None:
        """Exclude seconds not spent on training, such as drawing a live figure."""
        self._begun += seconds

    def stop(self) -> float:
        """Wait until the device has finished the interval, and return its seconds."""
        if self._event is not None:
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            end.synchronize()
            return self._event.elapsed_time(end) / 1000
        if self.kind in ("cuda", "mps"):
            getattr(torch, self.kind).synchronize()
        return time.perf_counter() - self._begun


class Branch:
    """Kernels that run in parallel with those after them, in a step captured as a CUDA graph.

    Outside a capture, and on other devices, everything runs in order. Tensors used in the branch
    must be referenced until :meth:`join`.

    Attributes
    ----------
    parallel
        False to capture everything in order too.
    """

    def __init__(self, device: torch.device):
        self.device, self.parallel = device, True

    @property
    def _stream(self) -> torch.cuda.Stream | None:
        captured = self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        return _branch_stream(self.device) if captured and self.parallel else None

    @contextlib.contextmanager
    def forked(self) -> Iterator[None]:
        """Put what is launched inside into the branch."""
        stream = self._stream
        if stream is None:
            yield
            return
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield

    def join(self) -> None:
        """Let what is launched from now on wait for the branch."""
        stream = self._stream
        if stream is not None:
            torch.cuda.current_stream().wait_stream(stream)


@functools.cache
def _branch_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def stream_seed(seed: int, stream: str) -> int:
    """Derive the seed of one of :data:`STREAMS` from the run's seed, an integer >= 0.

    The result is in [0, 2**63) and the same on every machine and in every process.
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown stream '{stream}': choose one of {', '.join(STREAMS)}")
    entropy = np.random.SeedSequence([seed, zlib.crc32(stream.encode())])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))


def numpy_generator(seed: int, stream: str) -> np.random.Generator:
    """Return the numpy generator of one stream of a seed."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, stream)))


def torch_generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the torch generator of one stream of a seed; a GPU draws other numbers than a CPU."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, stream))


@contextlib.contextmanager
def seeded_layers(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Make layers such as dropout draw the same numbers in an epoch, whatever was drawn before.

    Layers use torch's global generators, whose state is restored when the block ends.
    """
    own = stream_seed(seed, "dropout") + epoch
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(own)
        if device.type == "cuda":
            torch.cuda.manual_seed(own)
        yield
