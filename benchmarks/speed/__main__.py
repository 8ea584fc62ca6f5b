"""Run benchmarks, print and save: ``python -m benchmarks.speed [PART ...] [--set-baseline]``."""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import budgetlab
from benchmarks.speed import libraries, operations, overhead, scale, sharing, step, waiting
from benchmarks.speed.measure import Row
from budgetlab.devices import choose_device, choose_precision, describe_hardware
from budgetlab.records import write_atomically

RESULTS = Path(__file__).parents[1] / "results" / "speed"
BASELINE = RESULTS / "baseline.csv"
# Ratios within a run vary by a few per cent from run to run.
ALLOWED = 0.85

PARTS: dict[str, Callable[..., Iterable[Row]]] = {
    "start": waiting.start,
    "drawing": operations.drawing,
    "augmenting": operations.augmenting,
    "recording": overhead.recording,
    "memory": overhead.memory,
    "scale": scale.scale,
    "importance": overhead.importance,
    "step": step.step,
    "sharing": sharing.sharing,
    "demo": waiting.demo,
    "libraries": libraries.libraries,
    "jobs": waiting.jobs,
}
ASKED_FOR = ("jobs", "libraries")
# Sizes at which a part takes seconds: for trying the commands, not for measuring.
TOY: dict[str, dict[str, Any]] = {
    "start": {"repeats": 1, "images": 100, "limit": 20},
    "drawing": {"sizes": {100: 2, 1000: 2, 10_000: 2}},
    "augmenting": {"rounds": 1},
    "recording": {"count": 512, "rounds": 1},
    "memory": {"epochs": 4, "dataset": "digits", "model": "tiny"},
    "scale": {"samples": 4000, "classes": 10, "batch": 32, "epochs": 2},
    "importance": {"count": 2048, "rounds": 2},
    "step": {"cpu": {"tiny": (1, 1, "5")}, "batch": 8, "core": (4, 1)},
    "libraries": {"seeds": 2, "batch": 4, "rounds": 1, "compiled": False, "model": "tiny"},
    "sharing": {"rounds": 1, "epochs": 1, "dataset": "digits", "limit": 64, "model": "tiny"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; return 1 if a ratio fell below this machine's baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"of {', '.join(PARTS)}; all but jobs and libraries if none",
    )
    parser.add_argument("--threads", type=int, help="of the CPU; torch's choice if not given")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--set-baseline", action="store_true", help="keep this run as baseline")
    parser.add_argument("--toy", action="store_true", help="at sizes that take seconds")
    given = parser.parse_args(arguments)
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part '{unknown[0]}': choose of {', '.join(PARTS)}")
    if given.toy and (given.out == RESULTS or given.set_baseline):
        parser.error("--toy measures nothing worth keeping: give another --out, and no baseline")
    if given.threads:
        torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    parts = given.parts or [part for part in PARTS if part not in ASKED_FOR]
    tables = [run(part, given.out, TOY.get(part, {}) if given.toy else {}) for part in parts]
    everything = pd.concat(tables, ignore_index=True)
    fell = warn(everything)
    if given.set_baseline:
        everything.to_csv(BASELINE, index=False)
    return int(fell)


def run(part: str, out: Path, sizes: dict[str, Any]) -> pd.DataFrame:
    """Measure one part and print it; each row is saved as soon as it is measured."""
    begun, rows = time.perf_counter(), []
    for each in PARTS[part](**sizes):
        rows.append(each)
        write_atomically(out / f"{part}.csv", as_table(rows).to_csv(index=False).encode())
    show(part, rows, time.perf_counter() - begun)
    return as_table(rows)


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
    """Format three significant digits, without an exponent."""
    if value != value or value == 0:
        return "-" if value else "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{min(digits, 6)}f}"


def as_table(rows: list[Row]) -> pd.DataFrame:
    """Return rows as a frame, with hardware and software."""
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


def slower(now: pd.DataFrame, baseline: pd.DataFrame) -> list[str]:
    """Describe which ratios are worse than in the baseline.

    Only ratios and shares measured within one run count: speed-ups over the conventional way,
    and those with a target, which gives the better direction. Seconds would compare different
    days, or machines.

    Parameters
    ----------
    now, baseline
        Tables of :class:`~benchmarks.speed.measure.Row`, with a column ``threads``.

    Returns
    -------
    list of str
        One sentence each.
    """
    keys = ["part", "what", "threads", "device"]
    both = now.merge(baseline, on=keys, suffixes=("", "_before"))
    target = both["target"].fillna("").astype(str)
    less_is_better = target.str.startswith("<=")
    counts = both["what"].str.contains("times as fast") | (target != "")
    counts &= both["unit"].isin(["ratio", "share"])
    became = (both["value"] / both["value_before"]) ** np.where(less_is_better, -1, 1)
    return [
        f"{each.part}, {each.what}: {each.value:.2f}, and {each.value_before:.2f} in the baseline"
        for each in both[counts & (became < ALLOWED)].itertuples()
    ]


def warn(now: pd.DataFrame) -> bool:
    """Compare with the committed baseline and print the result; return True if slower."""
    if not BASELINE.is_file():
        print("no baseline to compare with: --set-baseline keeps this run as one")
        return False
    baseline = pd.read_csv(BASELINE)
    same = set(baseline["machine"]) & set(now["machine"])
    sentences = slower(now, baseline)
    for sentence in sentences:
        print(f"slower: {sentence}", file=sys.stderr)
    if sentences and not same:
        print("the baseline is of another machine, so this may be the machine", file=sys.stderr)
        return False
    if not sentences:
        print(f"no ratio fell below {ALLOWED:.0%} of the baseline")
    return bool(sentences)


if __name__ == "__main__":
    sys.exit(main())
