"""Measure the effect of each departure of the published code from its paper.

    python -m experiments.departures [--seeds 0 1 2 ...] [--epochs 12] [--out FOLDER]

Trains pairs of runs that differ in one departure only, on the built-in ``shapes`` with the
scale model's network, and writes ``experiments/results/departures.csv``. Finished runs in
FOLDER are reused.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from budgetlab.config import RunConfig
from budgetlab.records import Record, open_record
from budgetlab.training import Run, load_data
from experiments.tables import RESULTS, row_of

MEASURED = ["test_accuracy", "steps", "flops", "entropy", "coverage"]

# departure: shared settings, then those of the published and of the corrected run
PAIRS = {
    "credit under RICAP": (
        {"method": "p-SGD", "augmentation": "ricap"}, {"credit": "row"}, {"credit": "dominant"},
    ),
    "mixup without max": (
        {"method": "p-SGD", "augmentation": "mixup"}, {"fidelity": "published"}, {},
    ),
    "c-SGD and the unseen": ({"method": "c-SGD"}, {"fidelity": "published"}, {}),
    "RandAugment's ranges": (
        {"method": "unif-SGD", "augmentation": "randaugment"}, {"fidelity": "published"}, {},
    ),
    "SGD and the budget": ({"method": "SGD"}, {"fidelity": "published"}, {}),
    "selective backprop and the budget": (
        {"method": "selective-backprop"}, {"fidelity": "published"}, {},
    ),
}  # fmt: skip


def train(config: RunConfig, splits: object) -> Record:
    """Train a run, or open its finished record."""
    path = Path(config.out) / config.folder_name
    if (path / "record.json").is_file() and open_record(path).status == "finished":
        return open_record(path)
    run = Run(config, splits=splits)
    for _ in run:
        pass
    return run.record


def main() -> int:
    """Train the pairs and write the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--budget", type=float, default=0.3)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--out", default="runs/departures")
    parser.add_argument("--save", type=Path, default=RESULTS / "departures.csv")
    given = parser.parse_args()
    base = RunConfig(model="compact", epochs=given.epochs, budget=given.budget, limit=given.limit,
                     evaluate_every=0, out=given.out)  # fmt: skip
    splits = load_data(base)
    jobs = [
        (name, code, base.replace(**common, **settings, seed=seed))
        for name, (common, published, corrected) in PAIRS.items()
        for code, settings in (("published", published), ("corrected", corrected))
        for seed in given.seeds
    ]
    table = pd.DataFrame([
        {"departure": name, "code": code} | row_of(config, train(config, splits))
        for name, code, config in tqdm(jobs, file=sys.stderr)
    ])[["departure", "code", "seed", "method", "augmentation", *MEASURED]]  # fmt: skip
    given.save.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.save, index=False, float_format="%.6g")
    spread = table.groupby(["departure", "code"], sort=False)[MEASURED].agg(["mean", "std"])
    print(spread.round(4).to_string())
    print(f"n = {len(given.seeds)} seeds each; ln N = {np.log(len(splits.train)):.3f}")
    print(f"written: {given.save.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
