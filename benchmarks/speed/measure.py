"""Timing that survives a busy machine: the same work side by side, the order alternating."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Row", "alternate", "compared", "row", "wait_for"]


@dataclass(frozen=True)
class Row:
    """One measured quantity: the median of ``n`` repeats and their middle half.

    ``target`` says what it should be, such as ``>= 5``; empty where nothing is aimed at.
    """

    part: str
    what: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    target: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if not self.target:
            return None
        sign, limit = self.target.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


def row(part: str, what: str, values: list[float], unit: str, target: str = "") -> Row:
    """Sum up repeats of one measurement."""
    if len(values) == 1:
        low = high = values[0]
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Row(part, what, statistics.median(values), low, high, len(values), unit, target)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device | None = None,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Time several things, each once a round, in an order that turns round every time.

    A piece of work that returns a number of seconds has timed itself.

    Returns
    -------
    dict
        Seconds of every round, by name. Round ``r`` of one belongs to round ``r`` of the
        others: whatever else the machine did then, it did to all of them.
    """
    device = device or torch.device("cpu")
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(-warm_up, rounds):
        names = list(work) if number % 2 else list(work)[::-1]
        for name in names:
            wait_for(device)
            begun = time.perf_counter()
            own = work[name]()
            wait_for(device)
            took = own if isinstance(own, float) else time.perf_counter() - begun
            if number >= 0:
                seconds[name].append(took)
    return seconds


def compared(slow: list[float], quick: list[float]) -> list[float]:
    """How many times as long one thing took as the other, round by round."""
    return (np.asarray(slow) / np.asarray(quick)).tolist()
