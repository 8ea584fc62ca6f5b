"""Benchmark parallel runs, and a run beside other work."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

import torch

from benchmarks.speed.measure import Row, alternate, compared, row, scratch
from budgetlab.config import RunConfig, preset_settings
from budgetlab.training import Run, load_data

__all__ = ["sharing"]

PROCESSES = 2


def sharing(rounds: int = 6, epochs: int = 4, **settings: Any) -> Iterator[Row]:
    """Time whole runs of the scale model: two against one, with and without a busy neighbour.

    Parameters
    ----------
    rounds
        Number of repetitions.
    epochs
        Epochs of a run, at a budget of 1.
    **settings
        Changes to the preset ``scale-model``.
    """
    with scratch() as folder:
        common = preset_settings("scale-model") | {"method": "p-SGD", "budget": 1.0}
        common |= {"epochs": epochs, "device": "cpu", "data_root": f"{folder}/data"}
        config = RunConfig(**common | {"out": f"{folder}/runs"} | settings)
        load_data(config, progress=False)  # rendered once, then cached
        if (os.cpu_count() or 1) >= PROCESSES:
            yield from _side_by_side(config, rounds)
        yield from _beside_a_neighbour(config, rounds)


def _side_by_side(config: RunConfig, rounds: int) -> list[Row]:
    with ExitStack() as stack:
        trainers = [
            stack.enter_context(Trainer(config.replace(out=f"{config.out}/{n}"), threads=1))
            for n in range(PROCESSES)
        ]
        work = {"one": lambda: together(trainers[:1]), "all": lambda: together(trainers)}
        seconds = alternate(work, rounds)
    share = compared(seconds["one"], seconds["all"])
    return [
        row("sharing", "a run alone, one thread", seconds["one"], "s"),
        row("sharing", f"{PROCESSES} processes: share of linear", share, "share", ">= 0.85"),
    ]


def _beside_a_neighbour(config: RunConfig, rounds: int) -> list[Row]:
    """Time a run with the kit's default threads, with and without a busy neighbour."""
    with Trainer(config.replace(out=f"{config.out}/single"), threads=None) as trainer:

        def beside() -> float:
            with neighbour():
                return together([trainer])

        seconds = alternate({"quiet": lambda: together([trainer]), "busy": beside}, rounds)
    longer = compared(seconds["busy"], seconds["quiet"])
    return [
        row("sharing", "a run alone, threads as chosen", seconds["quiet"], "s"),
        row("sharing", "one busy neighbour: times as long", longer, "ratio", "<= 2.2"),
    ]


def _serve(pipe: Connection, config: RunConfig, threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    splits = load_data(config, progress=False)
    while pipe.recv():
        begun = time.perf_counter()
        for _ in Run(config, splits=splits):
            pass
        pipe.send(time.perf_counter() - begun)


class Trainer:
    """A context manager with a persistent process that trains a complete run on request."""

    def __init__(self, config: RunConfig, threads: int | None):
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._theirs, config, threads))

    def __enter__(self) -> "Trainer":
        self._process.start()
        self._theirs.close()  # so that the pipe closes when the process ends
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # it has ended already
            self._pipe.send(False)
        self._process.join()

    def begin(self) -> None:
        """Start a run."""
        self._pipe.send(True)

    def end(self) -> float:
        """Wait for the run; return its seconds."""
        return self._pipe.recv()


def together(trainers: list[Trainer]) -> float:
    """Start a run in each, wait for all; return the seconds of the slowest."""
    for trainer in trainers:
        trainer.begin()
    return max(trainer.end() for trainer in trainers)


def _spin(ready: Event) -> None:
    ready.set()
    while True:
        sum(range(10_000))


@contextmanager
def neighbour() -> Iterator[None]:
    """Keep one core busy with another process."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_spin, args=(ready,))
    process.start()
    try:
        ready.wait()
        yield
    finally:
        process.terminate()
        process.join()
