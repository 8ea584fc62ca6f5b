"""The usual loop in a process of its own.

The kit asks the C library of its process to keep freed memory; the usual loop would gain by that
too, and would no longer be the usual loop.
"""

import contextlib
import multiprocessing
from multiprocessing.connection import Connection
from types import TracebackType

import torch

from benchmarks.speed.conventional import ConventionalLoop
from benchmarks.speed.work import random_images

__all__ = ["ApartLoop"]


def _serve(pipe: Connection, count: int, model: str, device: torch.device, batch: int) -> None:
    torch.set_num_threads(pipe.recv())
    loop = ConventionalLoop(random_images(count), model, device, batch)
    while steps := pipe.recv():
        pipe.send(loop.timed(steps))


class ApartLoop:
    """A :class:`ConventionalLoop` on ``count`` random images, timed from outside.

    A context manager: the process ends with it.
    """

    def __init__(self, count: int, model: str, device: torch.device, batch_size: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        arguments = (self._theirs, count, model, device, batch_size)
        self._process = context.Process(target=_serve, args=arguments)

    def __enter__(self) -> "ApartLoop":
        self._process.start()
        self._theirs.close()  # so that the end of the process is the end of the pipe
        self._pipe.send(torch.get_num_threads())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with contextlib.suppress(OSError):  # it has ended already
            self._pipe.send(0)
        self._process.join()

    def timed(self, steps: int) -> float:
        """Seconds a step takes, over some steps."""
        try:
            self._pipe.send(steps)
            return self._pipe.recv()
        except (OSError, EOFError):
            self._process.join()
            code = self._process.exitcode
            raise RuntimeError(f"the usual loop ended with exit code {code}") from None
