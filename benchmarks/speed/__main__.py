"""Measure, print and keep; ``python -m benchmarks.speed [PART ...] [--set-baseline]``."""

import argparse
import dataclasses
import importlib
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import budgetlab
from benchmarks.speed import regression
from benchmarks.speed.measure import Row
from budgetlab.devices import choose_device, choose_precision, describe_hardware

RESULTS = Path(__file__).parents[1] / "results" / "speed"
PARTS = ("start", "drawing", "augmenting", "recording", "memory", "importance", "step")
EXTRA = ("jobs",)


def main() -> int:
    """Run the parts; 1 where a ratio fell below the baseline of this machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = ", ".join(PARTS + EXTRA)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {names}; all but jobs if none"
    )
    parser.add_argument("--threads", type=int, help="of the CPU; torch's choice if not given")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--set-baseline", action="store_true", help="keep this run as baseline")
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS + EXTRA]
    if unknown:
        parser.error(f"unknown part '{unknown[0]}': choose of {names}")
    if given.threads:
        torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    tables = []
    for part in given.parts or PARTS:
        begun = time.perf_counter()
        rows = importlib.import_module(f"benchmarks.speed.{part}").measure()
        show(part, rows, time.perf_counter() - begun)
        table = as_table(rows)
        table.to_csv(given.out / f"{part}.csv", index=False)
        tables.append(table)
    everything = pd.concat(tables, ignore_index=True)
    slower = regression.warn(everything)
    if given.set_baseline:
        everything.to_csv(regression.BASELINE, index=False)
    return int(slower)


def show(part: str, rows: list[Row], seconds: float) -> None:
    """Print one part as a table."""
    print(f"\n{part} ({seconds:.0f} s)")
    print(f"{'':58} {'median':>10} {'middle half':>23} {'n':>4}  unit")
    for each in rows:
        spread = f"{number(each.low)} to {number(each.high)}" if each.n > 1 else ""
        verdict = {None: "", True: f"  ({each.target}: met)", False: f"  ({each.target}: MISSED)"}
        print(f"{each.what:58} {number(each.value):>10} {spread:>23} {each.n:>4}  "
              f"{each.unit}{verdict[each.met]}")  # fmt: skip
    sys.stdout.flush()


def number(value: float) -> str:
    """Three digits that matter, without an exponent."""
    if value != value or value == 0:
        return "-" if value else "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{min(digits, 6)}f}"


def as_table(rows: list[Row]) -> pd.DataFrame:
    """Rows, with what they were measured on."""
    device = choose_device("auto")
    hardware = describe_hardware(device, choose_precision("auto", device))
    about = {
        "device": device.type,
        "machine": hardware["name"],
        "precision": hardware["precision"],
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
        "busy": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "budgetlab": budgetlab.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    return pd.DataFrame([dataclasses.asdict(each) | {"met": each.met} | about for each in rows])


if __name__ == "__main__":
    sys.exit(main())
