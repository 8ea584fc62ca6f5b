"""What the measurements share: images, a loop, a matrix product."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.measure import wait_for
from budgetlab.config import RunConfig
from budgetlab.data import Dataset
from budgetlab.data.samples import make_samples
from budgetlab.devices import choose_device, choose_precision
from budgetlab.records import RecordWriter
from budgetlab.training.loop import Loop

__all__ = ["BATCH", "bare_step", "epoch_seconds", "make_loop", "matrix_product", "random_images",
           "scratch", "writer_for"]  # fmt: skip

BATCH = 128
CLASSES = tuple("abcdefghij")


def random_images(count: int, side: int = 32) -> Dataset:
    """Images of noise: what they show does not change how long they take."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8))
    half = (0.5, 0.5, 0.5)
    labels = rng.integers(0, 10, count)
    return make_samples(x, labels, CLASSES, mean=half, std=half, flip=True)


def make_loop(samples: Dataset, model: str, device: str = "auto", **settings: object) -> Loop:
    """The loop of a run that never ends, at a learning rate that trains but never diverges."""
    chosen = choose_device(device)
    usual = {"lr": 1e-3, "schedule": "constant", "batch_size": BATCH, "method": "unif-SGD",
             "budget": 1.0, "epochs": 100_000}  # fmt: skip
    config = RunConfig(model=model, **usual | settings)
    return Loop(config, samples, chosen, choose_precision("auto", chosen))


def bare_step(loop: Loop, indices: torch.Tensor) -> None:
    """Forward, backward and update on a batch; nothing is learned about the samples."""
    engine = loop.engine
    shown = engine.augment(indices)
    engine.network.train()
    logits = engine.logits(shown.images)
    engine._cross_entropy(logits, shown).mean().backward()
    engine.optimiser.step()
    engine.optimiser.zero_grad(set_to_none=True)


def epoch_seconds(loop: Loop) -> float:
    """Seconds a step takes, over one epoch of a loop."""
    steps = loop.ledger.steps
    wait_for(loop.device)
    begun = time.perf_counter()
    loop.train_epoch(loop.history.epoch + 1)
    wait_for(loop.device)
    return (time.perf_counter() - begun) / (loop.ledger.steps - steps)


def matrix_product(
    device: torch.device, dtype: torch.dtype, side: int = 1024
) -> tuple[Callable[[], object], float]:
    """A product of two square matrices, and its floating point operations."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    repeats = 10
    return lambda: [left @ right for _ in range(repeats)], repeats * 2.0 * side**3


def scratch() -> tempfile.TemporaryDirectory:
    """A folder that goes away."""
    return tempfile.TemporaryDirectory(prefix="budgetlab-bench-")


def writer_for(loop: Loop, out: Path, samples: Dataset) -> RecordWriter:
    """A record for what a loop does."""
    return RecordWriter.create(
        loop.config.replace(out=str(out), epochs=200),
        metadata=samples.metadata.assign(label=samples.y.numpy()),
        data={"name": "noise", "fingerprint": "0", "classes": list(samples.classes)},
        hardware={},
    )
