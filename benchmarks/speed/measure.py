"""Timing that is robust on a busy machine, and things to time: images, a loop, a matrix product.

The alternatives are timed in turns, in alternating order.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from budgetlab.config import RunConfig
from budgetlab.data import Dataset
from budgetlab.data.dataset import make_samples
from budgetlab.devices import choose_device, choose_precision
from budgetlab.records import RecordWriter
from budgetlab.samplers import Batch
from budgetlab.training.graphs import StepGraphs
from budgetlab.training.loop import Loop

__all__ = ["BATCH", "Row", "alternate", "bare_steps", "compared", "epoch_seconds", "make_loop",
           "matrix_product", "random_images", "row", "scratch", "wait_for",
           "writer_for"]  # fmt: skip

BATCH = 128
CLASSES = tuple("abcdefghij")


@dataclass(frozen=True)
class Row:
    """Median of ``n`` repeats, their middle half, and a ``target`` such as ``>= 5``, or empty."""

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
    """Summarise repeats of one measurement."""
    if len(values) == 1:
        low = high = values[0]
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Row(part, what, statistics.median(values), low, high, len(values), unit, target)


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished its queued work; a no-op on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device | None = None,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Time several functions, each once per round, in an order that reverses every round.

    A function that returns a number of seconds has timed itself.

    Returns
    -------
    dict
        Seconds of every round, by name. Rounds are paired: other load on the machine affects
        all functions of a round alike.
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
    """Return the ratio of the times, round by round."""
    return (np.asarray(slow) / np.asarray(quick)).tolist()


def random_images(count: int, side: int = 32) -> Dataset:
    """Return images of noise: content does not affect timing."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8))
    half = (0.5, 0.5, 0.5)
    labels = rng.integers(0, 10, count)
    return make_samples(x, labels, CLASSES, statistics=(half, half), flip=True)


def make_loop(samples: Dataset, model: str, device: str = "auto", **settings: object) -> Loop:
    """Return the loop of a practically endless run, at a learning rate that does not diverge."""
    chosen = choose_device(device)
    usual = {"lr": 1e-3, "schedule": "constant", "batch_size": BATCH, "method": "unif-SGD",
             "budget": 1.0, "epochs": 100_000}  # fmt: skip
    config = RunConfig(model=model, **usual | settings)
    return Loop(config, samples, chosen, choose_precision("auto", chosen))


def bare_steps(loop: Loop) -> Callable[[torch.Tensor], object]:
    """Return a step without bookkeeping, replayed from a CUDA graph where the loop's steps are."""
    engine = loop.engine

    def step(batch: Batch, lr: float | torch.Tensor) -> tuple[torch.Tensor]:
        engine.optimiser.param_groups[0]["lr"] = lr
        shown = engine.augment(batch.indices)
        engine.network.train()
        loss = engine._cross_entropy(engine.logits(shown.images), shown).mean()
        loss.backward()
        engine.optimiser.step()
        engine.optimiser.zero_grad(set_to_none=True)
        return (loss.detach(),)

    taken = StepGraphs(step, engine, loop.history) if loop.graphs else step
    return lambda indices: taken(Batch(indices), loop.config.lr)


def epoch_seconds(loop: Loop) -> float:
    """Return the seconds per step, over one epoch of a loop."""
    steps = loop.ledger.steps
    wait_for(loop.device)
    begun = time.perf_counter()
    loop.train_epoch(loop.history.epoch + 1)
    wait_for(loop.device)
    return (time.perf_counter() - begun) / (loop.ledger.steps - steps)


def matrix_product(
    device: torch.device, dtype: torch.dtype, side: int = 1024
) -> tuple[Callable[[], object], float]:
    """Return a function that multiplies square matrices, and its floating point operations."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    repeats = 10
    return lambda: [left @ right for _ in range(repeats)], repeats * 2.0 * side**3


def scratch() -> tempfile.TemporaryDirectory:
    """Return a temporary folder."""
    return tempfile.TemporaryDirectory(prefix="budgetlab-bench-")


def writer_for(loop: Loop, out: Path, samples: Dataset) -> RecordWriter:
    """Return the writer of a record of a loop."""
    return RecordWriter.create(
        loop.config.replace(out=str(out), epochs=200),
        metadata=samples.metadata.assign(label=samples.y.numpy()),
        data={"name": "noise", "fingerprint": "0", "classes": list(samples.classes)},
        hardware={},
    )
