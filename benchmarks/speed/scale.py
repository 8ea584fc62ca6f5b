"""Benchmark the bookkeeping per epoch at ImageNet's number of samples, without images."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.speed.measure import Row, row, scratch

__all__ = ["scale"]

SAMPLES, CLASSES, BATCH, BUDGET = 1_300_000, 1000, 256, 0.3

# In its own process, so that peak memory is due to these samples only.
CHILD = """
import json, resource, sys, time
from pathlib import Path
import numpy as np, pandas as pd, torch
import budgetlab as bl
from budgetlab import history, report, samplers
from budgetlab.records import RecordWriter
from budgetlab.records.thin import subsample
from budgetlab.samplers import SamplerContext

count, classes, batch, budget, epochs, folder = json.loads(sys.argv[1])
unit = 1 if sys.platform == "darwin" else 1024
begun = time.perf_counter()
cpu = torch.device("cpu")
torch.manual_seed(0)


def tell(what, **more):
    global begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    seconds = time.perf_counter() - begun
    print(json.dumps({"what": what, "seconds": seconds, "peak": peak, **more}), flush=True)
    begun = time.perf_counter()


labels = torch.randint(classes, (count,))
config = bl.RunConfig(method="p-SGD", budget=budget, batch_size=batch, epochs=90, out=folder)
context = SamplerContext(count, config, torch.Generator().manual_seed(0), cpu, labels=labels)
writer = RecordWriter.create(
    config, metadata=pd.DataFrame({"label": labels.numpy()}), hardware={"device": "cpu"},
    data={"name": "none", "fingerprint": "0", "train": count,
          "classes": [str(c) for c in range(classes)]})
tell("start")
known, sampler = history.History(count), samplers.build("p-SGD", context)
tell("history")
logits = torch.randn(16, batch, classes)
for epoch in range(1, epochs + 1):
    known.start_epoch(epoch)
    begun = time.perf_counter()
    batches = list(sampler.batches(epoch, known, None))
    tell("draw")
    scales = 0.5 + torch.rand(len(batches))
    begun = time.perf_counter()
    for number, one in enumerate(batches):
        # Logits as a network makes them, of which only the statistics are of interest here.
        own = logits[number % len(logits)] * scales[number]
        seen = history.measure(own, labels[one.indices])
        known.count(one.indices)
        known.update(history.Credit(torch.arange(batch), one.indices, torch.ones(batch)), seen)
    tell("learn")
    arrays = {n: v.numpy() for n, v in known.epoch_arrays().items()}
    arrays["probability"] = sampler.probability.numpy()
    writer.append_epoch({"epoch": epoch, "steps": len(batches), "flops": epoch}, arrays)
    tell("record")
size = sum(f.stat().st_size for f in Path(writer.path).rglob("*") if f.is_file())
writer.set_status("finished", "", {"record": "", "test_accuracy": 0.5, "flops": 1, "seconds": 1.0,
                                   "steps": 1, "trained_samples": 1, "looked_samples": 0})
tell("written", size=size)
record = bl.records.open_record(writer.path)
bl.analysis.measures(subsample(record))
tell("some")
bl.analysis.measures(record)
tell("all")
report.write(record, Path(folder) / "report.html")
tell("report")
bl.explore.atlas(record)
tell("atlas")
"""


def scale(
    samples: int = SAMPLES, classes: int = CLASSES, batch: int = BATCH, epochs: int = 4
) -> Iterator[Row]:
    """Time drawing, history updates, recording, and analysis of a record of 90 epochs."""
    with scratch() as folder:
        given = json.dumps([samples, classes, batch, BUDGET, epochs, str(folder)])
        command = [sys.executable, "-c", CHILD, given]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        whole = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr)
    told = [json.loads(line) for line in done.stdout.strip().splitlines()]
    by_name: dict[str, list[dict]] = {}
    for each in told:
        by_name.setdefault(each["what"], []).append(each)

    def seconds(name: str) -> list[float]:
        return [each["seconds"] for each in by_name[name]]

    def peak(name: str) -> float:
        """Peak memory of the whole process, imports and labels included."""
        return by_name[name][-1]["peak"] / 1e6

    size = f"{samples:,} samples"
    for name, text in (
        ("draw", "draw by p-SGD, an epoch"),
        ("learn", "statistics and history, an epoch at budget 0.3"),
        ("record", "recording, an epoch"),
    ):
        yield row("scale", f"{size}: {text}", seconds(name), "s")
    yield row("scale", f"{size}: record of an epoch",
              [by_name["written"][0]["size"] / epochs / 1e6], "MB")  # fmt: skip
    yield row("scale", f"{size}: peak memory with history and draw", [peak("draw")], "MB")
    yield row("scale", f"{size}: peak memory with recording", [peak("record")], "MB")
    yield row("scale", f"{size}: measures of 50,000 of them, an epoch of the record",
              [seconds("some")[0] / epochs], "s")  # fmt: skip
    yield row("scale", f"{size}: measures of all, an epoch of the record",
              [seconds("all")[0] / epochs], "s")  # fmt: skip
    yield row("scale", f"{size}: report of {epochs} epochs", seconds("report"), "s", "<= 30")
    yield row("scale", f"{size}: atlas of {epochs} epochs", seconds("atlas"), "s", "<= 10")
    yield row("scale", f"{size}: peak memory with analysis and report",
              [peak("report")], "MB", "<= 2500")  # fmt: skip
    yield row("scale", f"{size}: all of it", [whole], "s")
