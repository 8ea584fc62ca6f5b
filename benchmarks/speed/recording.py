"""Bytes and seconds that recording takes, for 50,000 samples."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.measure import Row, alternate, row
from benchmarks.speed.work import make_loop, random_images, scratch, writer_for
from budgetlab import history
from budgetlab.samplers import Batch

__all__ = ["measure"]

SAMPLES, EPOCHS = 50_000, 200


def measure() -> list[Row]:
    """Record epochs in which a share of the samples was trained on, and in which all were."""
    samples = random_images(SAMPLES)
    rows = []
    for budget, target in ((0.3, ""), (1.0, "<= 60")):
        loop = make_loop(samples, "small", device="cpu", method="p-SGD", budget=budget)
        with scratch() as folder:
            writer = writer_for(loop, Path(folder), samples)
            sizes = [_bytes_in(writer.path)]

            def record(loop=loop, writer=writer, sizes=sizes, budget=budget) -> float:
                _pretend_epoch(loop, budget)
                clock = alternate(
                    {
                        "write": lambda: writer.append_epoch(
                            {"epoch": len(writer.epochs) + 1}, loop.epoch_arrays()
                        )
                    },
                    1,
                    warm_up=0,
                )
                sizes.append(_bytes_in(writer.path))
                return clock["write"][0]  # fmt: skip

            seconds = alternate({"record": record}, 6)["record"]
        megabytes = [size / 1e6 for size in np.diff(sizes)]
        whole = [sizes[0] / 1e6 + EPOCHS * size for size in megabytes]
        name = f"budget {budget:g}"
        rows += [
            row("recording", f"{name}: an epoch", seconds, "s"),
            row("recording", f"{name}: an epoch", megabytes, "MB"),
            row("recording", f"{name}: history of {EPOCHS} epochs", whole, "MB", target),
        ]
    return rows


def _pretend_epoch(loop, budget: float) -> None:
    """Let the history see logits like those of a network half way, and draw for the next epoch."""
    loop.history.start_epoch(loop.history.epoch + 1)
    draws = loop.sampler.batches(loop.history.epoch, loop.history, loop._look)
    drawn = torch.cat([batch.indices for batch in draws])
    labels = loop.engine.samples.y[drawn]
    logits = 1.5 * torch.randn(len(drawn), 10)
    strength = 3 + 2 * torch.randn(len(drawn), 1)
    logits.scatter_add_(1, labels[:, None], strength)
    batch = Batch(drawn)
    ones = torch.ones(len(drawn))
    credit = history.Credit(torch.arange(len(drawn)), batch.indices, ones)
    loop.history.count(drawn)
    loop.history.update(credit, history.measure(logits, labels))


def _bytes_in(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
