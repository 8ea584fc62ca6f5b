"""Benchmark opening records: a folder of 1,000, and one of 50,000 samples x 200 epochs.

Run it with ``python benchmarks/reading.py [--samples N] [--epochs E] [--runs R]``. It writes
synthetic records to a temporary folder, reads them in fresh processes, prints a table, and
exits with 1 if a target is missed:

- 1,000 summaries open in under 3 seconds;
- the large record opens in under 1 second;
- every per-sample measure over it takes under 5 seconds and 2 GB.

Times exclude the import of pandas and xarray, which is listed separately; memory is the peak of
the whole process, imports included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from budgetlab.config import RunConfig
from budgetlab.records import RecordWriter

READ = """
import json, resource, sys, time
start = time.perf_counter()
import xarray, zarr, pandas
import budgetlab.analysis as analysis
from budgetlab.records import open_records
imported = time.perf_counter()
{what}
done = time.perf_counter()
assert "torch" not in sys.modules
print(json.dumps({{"imports": imported - start, "seconds": done - imported,
                   "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                   "result": result}}))
"""
OPEN_ALL = "result = len(analysis.summaries({path!r}))"
COMPARE = "result = len(analysis.compare({path!r}))"
OPEN_ONE = "result = dict(open_records({path!r})[0].samples.sizes)"
MEASURE = "result = list(analysis.measures(open_records({path!r})[0]).shape)"
SELECT = "result = list(analysis.selection(open_records({path!r})[0]).shape)"


def write_large(out: Path, samples: int, epochs: int) -> Path:
    """Write a record with a full history, in which 30% of the samples are trained on per epoch."""
    rng = np.random.default_rng(0)
    metadata = pd.DataFrame({"label": rng.integers(0, 10, samples)})
    config = RunConfig(out=str(out), epochs=epochs)
    data = {"name": "synthetic", "fingerprint": "0", "classes": list("abcdefghij")}
    writer = RecordWriter.create(config, metadata=metadata, data=data, hardware={})
    for epoch in range(1, epochs + 1):
        seen = rng.random(samples) < 0.3
        margin = rng.normal(3 * epoch / epochs, 2, samples)
        p_y = np.where(seen, 1 / (1 + np.exp(-margin)), np.nan)
        arrays = {
            "p_y": p_y,
            "loss": -np.log(p_y),
            "margin": np.where(seen, margin, np.nan),
            "el2n": np.sqrt(2) * (1 - p_y),
            "correct": np.where(seen, margin > 0, -1),
            "probability": rng.random(samples) / samples,
            "times_trained": seen.astype(int),
        }
        writer.append_epoch({"epoch": epoch, "steps": 100 * epoch}, arrays)
    writer.set_status("finished")
    return writer.path


def write_many(out: Path, runs: int) -> Path:
    """Write summaries of many runs: 4 methods, 5 budgets, and enough seeds."""
    template = RecordWriter.create(
        RunConfig(out=str(out)), metadata=pd.DataFrame({"label": [0]}), data={}, hardware={}
    )
    about = json.loads((template.path / "record.json").read_text())
    methods, budgets = ("unif-SGD", "SGD", "p-SGD", "c-SGD"), (0.1, 0.2, 0.3, 0.5, 1.0)
    rng = np.random.default_rng(0)
    folder = out / "many"
    for number in range(runs):
        config = RunConfig(
            method=methods[number % 4], budget=budgets[number // 4 % 5], seed=number // 20
        )
        steps = int(1000 * config.budget)
        about |= {
            "status": "finished",
            "config": config.to_dict(),
            "data": {"name": "shapes", "fingerprint": "0", "classes": ["a", "b"], "train": 100},
            "summary": {"test_accuracy": 0.8 + rng.normal(0, 0.01), "test_loss": 0.5, "epochs": 30,
                        "steps": steps, "trained_samples": 128 * steps, "looked_samples": 0,
                        "flops": 10**6 * steps, "seconds": 0.1 * steps},
        }  # fmt: skip
        path = folder / f"{config.folder_name}"
        path.mkdir(parents=True)
        (path / "record.json").write_text(json.dumps(about, indent=1))
    return folder


def read(what: str, path: Path) -> dict:
    """Read in a fresh process, so that nothing is cached in memory."""
    code = READ.format(what=what.format(path=str(path)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> int:
    """Write, read, print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--runs", type=int, default=1_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        large = write_large(Path(folder), given.samples, given.epochs)
        size = sum(file.stat().st_size for file in large.rglob("*") if file.is_file())
        print(f"wrote {given.samples:,} samples x {given.epochs} epochs, {size / 1e6:.0f} MB, in "
              f"{time.perf_counter() - start:.1f} s")  # fmt: skip
        many = write_many(Path(folder), given.runs)
        tasks = [
            (f"summaries of {given.runs:,} records", OPEN_ALL, many, 3.0),
            (f"comparison of {given.runs:,} records", COMPARE, many, None),
            ("open the large record", OPEN_ONE, large, 1.0),
            ("every measure of every sample", MEASURE, large, 5.0),
            ("selection statistics by epoch", SELECT, large, None),
        ]
        missed = False
        print(f"{'':34} {'seconds':>8} {'target':>7} {'peak MB':>8} {'imports':>8}")
        for name, what, path, target in tasks:
            took = read(what, path)
            limit = "" if target is None else f"{target:g}"
            print(f"{name:34} {took['seconds']:8.2f} {limit:>7} {took['megabytes']:8.0f} "
                  f"{took['imports']:8.2f}")  # fmt: skip
            slow = target is not None and took["seconds"] > target
            missed |= slow or took["megabytes"] > 2_000
    print("a target was missed" if missed else "every target was met")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
