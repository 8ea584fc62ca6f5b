"""Benchmark the kit's overhead over a bare step: importance, and recording time and memory."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.measure import (
    BATCH,
    Row,
    alternate,
    bare_steps,
    compared,
    epoch_seconds,
    make_loop,
    random_images,
    row,
    scratch,
    writer_for,
)
from budgetlab import history
from budgetlab.devices import choose_device
from budgetlab.samplers import Batch
from budgetlab.training.loop import Loop

__all__ = ["importance", "memory", "recording"]

SAMPLES = 50_000
EPOCHS = 200
BUDGET = 0.3
METHODS = ("unif-SGD", "p-SGD", "c-SGD")


def importance(count: int = SAMPLES, rounds: int = 20) -> list[Row]:
    """Time each part of an epoch of 50,000 samples at 30% budget; on a GPU, whole epochs."""
    samples = random_images(count)
    if choose_device("auto").type == "cuda":
        return _on_gpu(samples) + _selective_backprop(samples, size=min(count, 8192))
    steps = int(count * BUDGET) // BATCH
    step = _bare_step(samples, rounds)
    rows = [row("importance", "bare step", [1000 * s for s in step], "ms")]
    for method in METHODS:
        loop = make_loop(samples, "auto", method=method, budget=BUDGET)
        with scratch() as folder:
            parts = _parts(loop, Path(folder), samples)
        for name, values in parts.items():
            shares = [value / steps / sorted(step)[len(step) // 2] for value in values]
            rows.append(row("importance", f"{method}: {name}", shares, "of a step"))
        total = [sum(values) / steps / sorted(step)[len(step) // 2]
                 for values in zip(*parts.values(), strict=True)]  # fmt: skip
        rows.append(row("importance", f"{method}: all together", total, "of a step", "<= 0.05"))
    return rows + _selective_backprop(samples, size=min(count, 8192))


def _on_gpu(samples: Any, epochs: int = 4) -> list[Row]:
    """Time whole recorded epochs of each method against as many bare steps."""
    rows = []
    for method in METHODS:
        loop = make_loop(samples, "auto", method=method, budget=BUDGET)
        steps, device = int(len(samples) * BUDGET) // BATCH, loop.device
        indices, bare = torch.arange(BATCH, device=device), bare_steps(loop)
        with scratch() as folder:
            writer = writer_for(loop, Path(folder), samples)

            def epoch(loop=loop, writer=writer) -> float:
                begun = time.perf_counter()
                taken = loop.ledger.steps
                loop.train_epoch(loop.history.epoch + 1)
                writer.append_epoch({"epoch": len(writer.epochs) + 1}, loop.epoch_arrays())
                return (time.perf_counter() - begun) / (loop.ledger.steps - taken)

            def alone(bare=bare, indices=indices, steps=steps) -> None:
                for _ in range(steps):
                    bare(indices)

            work = {"bare": alone, "training": lambda loop=loop: epoch_seconds(loop),
                    "recorded": epoch}  # fmt: skip
            seconds = alternate(work, epochs, device)
        step = [s / steps for s in seconds["bare"]]
        rows.append(row("importance", f"{method}: bare step", [1000 * s for s in step], "ms"))
        for name, limit in (("training", "<= 0.02"), ("recorded", "")):
            added = [one / other - 1 for one, other in zip(seconds[name], step, strict=True)]
            what = f"{method}: all but recording" if name == "training" else f"{method}: all"
            rows.append(row("importance", what, added, "of a step", limit))
    return rows


def _bare_step(samples: Any, rounds: int) -> list[float]:
    loop = make_loop(samples, "auto")
    indices, step = torch.arange(BATCH, device=loop.device), bare_steps(loop)
    return alternate({"bare": lambda: step(indices)}, rounds, loop.device, 3)["bare"]


def _parts(loop: Loop, out: Path, samples: Any, epochs: int = 4) -> dict[str, list[float]]:
    """Return the seconds of an epoch spent in each part."""
    device = loop.device
    loop.train_epoch(1, on_step=_stop_after(loop, 3))
    writer = writer_for(loop, out, samples)
    batch = Batch(torch.randperm(len(samples), device=device)[:BATCH])
    engine, steps = loop.engine, int(len(samples) * BUDGET) // BATCH
    logits = torch.randn(BATCH, 10, device=device)
    shown = engine.augment(batch.indices)

    def draw() -> None:
        for _ in loop.sampler.batches(2, loop.history, loop.engine.look):
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
            loop.learning_rate(loop.budget.progress(loop.ledger, BATCH))
            loop.ledger.charge_step(BATCH)

    def record() -> None:
        writer.append_epoch({"epoch": len(writer.epochs) + 1}, loop.epoch_arrays())

    work = {"sampling": draw, "history": learn, "ledger": charge, "recording": record}
    return alternate(work, epochs, device)


def _stop_after(loop: Loop, steps: int) -> Any:
    """Return a callback that ends an epoch early by lowering the budget."""
    limit = loop.budget.limit

    def on_step() -> None:
        done = loop.ledger.steps >= steps
        loop.budget.limit = float(loop.ledger.steps) if done else limit

    return on_step


def _selective_backprop(samples: Any, rounds: int = 3, size: int = 8192) -> list[Row]:
    """Time an epoch of selective backprop against its bare forward passes and steps."""
    small = samples.select(range(size))
    loop = make_loop(small, "auto", method="selective-backprop", budget=BUDGET)
    loop.train_epoch(1)
    counts: list[tuple[int, int]] = []
    indices, bare = torch.arange(BATCH, device=loop.device), bare_steps(loop)

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
            bare(indices)

    seconds = alternate({"ours": ours, "look": look, "step": step}, rounds, loop.device, 1)
    passes = [
        (steps * step + looks * look) / 10
        for (steps, looks), step, look in zip(
            counts[1:], seconds["step"], seconds["look"], strict=True
        )
    ]
    ratio = compared(seconds["ours"], passes)
    return [row("importance", "selective-backprop over its bare passes", ratio, "ratio", "<= 1.1")]


def recording(count: int = SAMPLES, rounds: int = 6) -> list[Row]:
    """Time recording of epochs in which a share of the samples was trained on, or all."""
    samples = random_images(count)
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

            seconds = alternate({"record": record}, rounds)["record"]
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
    """Update the history with logits like those of a half-trained network, after a draw."""
    loop.history.start_epoch(loop.history.epoch + 1)
    draws = loop.sampler.batches(loop.history.epoch, loop.history, loop.engine.look)
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


# Prints memory after every epoch, and the peak at the end.
TRAIN = """
import json, resource, sys
import torch
import budgetlab as bl
from budgetlab.training import Run
unit = 1 if sys.platform == "darwin" else 1024
on_gpu = torch.cuda.is_available()
settings = json.loads(sys.argv[1])
run = Run(bl.RunConfig(**settings))
after = []
for row in run:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    after.append(torch.cuda.max_memory_allocated() if on_gpu else peak)
print(json.dumps({"after": after, "on_gpu": on_gpu}))
"""


def memory(epochs: int = 12, **settings: Any) -> list[Row]:
    """Train the device's default network on ``shapes``, and monitor memory by epoch."""
    with scratch() as folder:
        settings = {"dataset": "shapes", "method": "p-SGD", "budget": 0.2, "epochs": epochs,
                    "data_root": f"{folder}/data", "out": f"{folder}/runs"} | settings  # fmt: skip
        command = [sys.executable, "-c", TRAIN, json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    told = json.loads(done.stdout.strip().splitlines()[-1])
    after = told["after"]
    where = "GPU memory" if told["on_gpu"] else "memory"
    growth = (after[-1] - after[len(after) // 3]) / 1e6 / (len(after) - len(after) // 3 - 1)
    return [
        row("memory", f"peak {where} of a run with recording", [after[-1] / 1e6], "MB"),
        row("memory", "growth of the peak an epoch, after the first third", [growth], "MB",
            "<= 1"),
    ]  # fmt: skip
