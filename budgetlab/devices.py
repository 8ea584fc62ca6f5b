"""What a run computes with: device, number format, threads, memory, clock and random numbers.

One seed becomes one random stream a purpose, so that drawing once more for one (an
augmentation, say) leaves every other one as it was: two methods at the same seed start from
the same weights and see the same validation split.
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
# Numbers and limits of mallopt, from malloc.h and its manual page.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
KEPT = 2**30
# The largest block that may lie on the heap: glibc allows no more.
LARGEST = 32 * 2**20

# Twice as many threads must save at least a tenth: they are taken from whatever else runs.
WORTH = 0.9
# A step that takes longer is timed once.
SLOW_STEP = 0.5
THREADS_AT_IMPORT = torch.get_num_threads()


def choose_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` to a device that is there.

    ``auto`` is the first GPU: one of NVIDIA (``cuda``), else that of a Mac (``mps``).
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


def chooses_on(device: torch.device) -> torch.device:
    """Where methods and what is known of each sample compute, for a device that trains.

    It is that device, or the processor where float64 is missing, as on Apple's GPUs: chances
    of millions of samples need it.
    """
    return torch.device("cpu") if device.type == "mps" else device


def moved(parts: Parts, device: torch.device) -> Parts:
    """Return a dataclass, and those in it, with tensors on a device; ``images`` stay."""
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
    # Told to use less of the processor, oneDNN computes bfloat16 in software, far slower.
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if not any(word in allowed for word in ("ALL", "DEFAULT", "BF16", "FP16", "AMX")):
        return False
    flags = _processor("flags", "Features").split()
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def _processor(*fields: str) -> str:
    """What Linux says of the processor under one of these names; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    said = (line.partition(":") for line in lines)
    return next((text.strip() for name, _, text in said if name.strip() in fields), "")


def describe_hardware(
    device: torch.device, precision: torch.dtype, threads: int | None = None
) -> dict[str, str | int]:
    """Return what a record says about the machine."""
    name = _processor("model name") or platform.processor()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "device": str(device),
        "name": name,
        "precision": str(precision).removeprefix("torch."),
        "threads": threads or torch.get_num_threads(),
        "cpu_count": os.cpu_count() or 0,
    }


def threads_to_choose() -> int:
    """How many threads may be tried; 1 where the user has said how many there shall be.

    They have said so by ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``, or by
    ``torch.set_num_threads`` with another number than torch starts with.
    """
    now = torch.get_num_threads()
    cores = os.cpu_count() or 1
    with contextlib.suppress(AttributeError):  # not on every system
        cores = len(os.sched_getaffinity(0))
    # By library, torch starts with one thread for each core, or each pair of hyperthreads.
    started_with = (cores, cores // 2, os.cpu_count())
    said = os.environ.get("OMP_NUM_THREADS") or os.environ.get("MKL_NUM_THREADS")
    return 1 if said or now != THREADS_AT_IMPORT or now not in started_with else now


@contextlib.contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Compute with so many threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest_threads(step: Callable[[], object], most: int) -> int:
    """Number of threads with which a step is fastest now, trying 1, 2, 4 and so on to ``most``.

    More are taken where they save a tenth of the time; where something else keeps the
    cores busy, one is often fastest.
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
    """Least of some timed steps, after one that warms up."""
    taken: list[float] = []
    with using_threads(threads):
        while len(taken) < 4 and not (taken and taken[0] > SLOW_STEP):
            began = time.perf_counter()
            step()
            taken.append(time.perf_counter() - began)
    return min(taken)


@functools.cache
def keep_freed_memory() -> bool:
    """Ask the C library to keep up to 1 GiB of freed memory in this process, once.

    That of Linux (glibc) gives blocks of more than 128 kB back as soon as they are freed, so
    that every step asks for its activations again and the system clears each page of them
    again: for the small network a tenth to a third of the time of a step. What is computed
    does not change.

    The environment variable ``BUDGETLAB_KEEP_MEMORY=0`` leaves all as it is. False where it
    does, or where another C library is in use.
    """
    if os.environ.get(SWITCH) == "0":
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function: not glibc
        return False
    # One heap for all threads, for the others' heaps are of 64 MiB and too small.
    options = {ARENA_MAX: 1, MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT}
    return all([set_option(name, value) == 1 for name, value in options.items()])


class Clock:
    """Measures stretches of training; what lies between them is not counted.

    On a GPU the work runs behind the program, so that a reading waits for it: only at the
    end of a stretch (by events on NVIDIA's), or with ``waiting=True`` at every reading,
    which a budget in seconds needs.
    """

    def __init__(self, device: torch.device, waiting: bool = False):
        self.kind = device.type
        self.waiting = waiting
        self._begun = 0.0
        self._event: torch.cuda.Event | None = None

    def start(self) -> None:
        """Begin a stretch."""
        if self.kind == "cuda" and not self.waiting:
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()
        self._begun = time.perf_counter()

    def read(self) -> float | None:
        """Seconds since the start, or None where reading would stall the device."""
        return self.stop() if self.waiting or self.kind == "cpu" else None

    def skip(self, seconds: float) -> None:
        """Leave out what was not training, such as drawing a picture of it."""
        self._begun += seconds

    def stop(self) -> float:
        """Seconds of the stretch; waits until the device has finished it."""
        if self._event is not None:
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            end.synchronize()
            return self._event.elapsed_time(end) / 1000
        if self.kind in ("cuda", "mps"):
            getattr(torch, self.kind).synchronize()
        return time.perf_counter() - self._begun


def stream_seed(seed: int, stream: str) -> int:
    """Derive the seed of one of :data:`STREAMS` from that of the run, an integer >= 0.

    In [0, 2**63), the same on every machine and in every process.
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown stream '{stream}': choose one of {', '.join(STREAMS)}")
    entropy = np.random.SeedSequence([seed, zlib.crc32(stream.encode())])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))


def numpy_generator(seed: int, stream: str) -> np.random.Generator:
    """Return the numpy generator of one stream of a seed."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, stream)))


def torch_generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the torch generator of one stream of a seed, on a device.

    The numbers drawn on a GPU differ from those drawn on the CPU.
    """
    return torch.Generator(device=device).manual_seed(stream_seed(seed, stream))


@contextlib.contextmanager
def layers_draw_from(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Let layers such as dropout draw the same in an epoch, whatever was drawn before.

    They know torch's global generators only, which are as before when the block ends.
    """
    own = stream_seed(seed, "dropout") + epoch
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(own)
        if device.type == "cuda":
            torch.cuda.manual_seed(own)
        yield
