"""What importance costs: all that a step does beyond forward, backward and update."""

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.measure import Row, alternate, compared, row
from benchmarks.speed.work import (
    BATCH,
    bare_step,
    make_loop,
    random_images,
    scratch,
    writer_for,
)
from budgetlab import history
from budgetlab.samplers import Batch
from budgetlab.training.loop import Loop

__all__ = ["measure"]

SAMPLES = 50_000
BUDGET = 0.3
METHODS = ("unif-SGD", "p-SGD", "c-SGD")


def measure() -> list[Row]:
    """Time each part on its own, as an epoch of 50,000 samples at 30% budget does it."""
    samples = random_images(SAMPLES)
    step = _bare_step(samples)
    rows = [row("importance", "bare step", [1000 * s for s in step], "ms")]
    for method in METHODS:
        loop = make_loop(samples, "auto", method=method, budget=BUDGET)
        on_gpu = loop.device.type == "cuda"
        with scratch() as folder:
            parts = _parts(loop, Path(folder), samples)
        steps = int(SAMPLES * BUDGET) // BATCH
        for name, values in parts.items():
            shares = [value / steps / sorted(step)[len(step) // 2] for value in values]
            rows.append(row("importance", f"{method}: {name}", shares, "of a step"))
        total = [sum(values) / steps / sorted(step)[len(step) // 2]
                 for values in zip(*parts.values(), strict=True)]  # fmt: skip
        limit = "<= 0.02" if on_gpu else "<= 0.05"
        rows.append(row("importance", f"{method}: all together", total, "of a step", limit))
    return rows + _selective_backprop(samples)


def _bare_step(samples: Any, rounds: int = 20) -> list[float]:
    loop = make_loop(samples, "auto")
    indices = torch.arange(BATCH, device=loop.device)
    return alternate({"bare": lambda: bare_step(loop, indices)}, rounds, loop.device, 3)["bare"]


def _parts(loop: Loop, out: Path, samples: Any, epochs: int = 4) -> dict[str, list[float]]:
    """Seconds of an epoch that go into each part."""
    device = loop.device
    loop.train_epoch(1, on_step=_stop_after(loop, 3))
    writer = writer_for(loop, out, samples)
    batch = Batch(torch.randperm(SAMPLES, device=device)[:BATCH])
    engine, steps = loop.engine, int(SAMPLES * BUDGET) // BATCH
    logits = torch.randn(BATCH, 10, device=device)
    shown = engine.augment(batch.indices)

    def draw() -> None:
        for _ in loop.sampler.batches(2, loop.history, loop._look):
            pass

    def learn() -> None:
        for _ in range(steps):
            credit = history.assign_credit(
                engine.credit_rule, batch.indices, shown.sources, shown.weights
            )
            labels = samples.y.to(device)[credit.samples]
            seen = history.measure(logits[credit.rows], labels)
            loop.history.count(batch.indices)
            loop.history.update(credit, seen)

    def charge() -> None:
        for _ in range(steps):
            loop.budget.allows(loop.ledger, trained=BATCH)
            loop._learning_rate(BATCH)
            loop.ledger.charge_step(BATCH)

    def record() -> None:
        writer.append_epoch({"epoch": len(writer.epochs) + 1}, loop.epoch_arrays())

    work = {"sampling": draw, "history": learn, "ledger": charge, "recording": record}
    return alternate(work, epochs, device)


def _stop_after(loop: Loop, steps: int) -> Any:
    """End an epoch early, by spending the budget."""
    limit = loop.budget.limit

    def on_step() -> None:
        done = loop.ledger.steps >= steps
        loop.budget.limit = float(loop.ledger.steps) if done else limit

    return on_step


def _selective_backprop(samples: Any, rounds: int = 3, size: int = 8192) -> list[Row]:
    """A whole epoch of it against its forwards and steps alone, as many as it made."""
    small = samples.select(range(size))
    loop = make_loop(small, "auto", method="selective-backprop", budget=BUDGET)
    loop.train_epoch(1)
    counts: list[tuple[int, int]] = []
    indices = torch.arange(BATCH, device=loop.device)

    def ours() -> float:
        ledger = loop.ledger
        before = ledger.steps, ledger.looked_samples
        begun = time.perf_counter()
        loop.train_epoch(loop.history.epoch + 1)
        took = time.perf_counter() - begun
        counts.append((ledger.steps - before[0], (ledger.looked_samples - before[1]) // BATCH))
        return took

    def look() -> None:
        engine = loop.engine
        engine.network.eval()
        with torch.no_grad():
            for _ in range(10):
                engine.logits(engine.augment(indices).images)

    def step() -> None:
        for _ in range(10):
            bare_step(loop, indices)

    seconds = alternate({"ours": ours, "look": look, "step": step}, rounds, loop.device, 1)
    bare = [
        (steps * step + looks * look) / 10
        for (steps, looks), step, look in zip(
            counts[1:], seconds["step"], seconds["look"], strict=True
        )
    ]
    ratio = compared(seconds["ours"], bare)
    return [row("importance", "selective-backprop over its bare passes", ratio, "ratio", "<= 1.1")]
