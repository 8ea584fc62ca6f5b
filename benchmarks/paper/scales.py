"""At what size the claims are run, and what every sweep file here does with its runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.sittings import RESULTS, key, parser, read, sit
from budgetlab.sweep.grid import product

__all__ = ["SCALES", "Part", "main", "table_of"]

# The recipe of the paper: ResNet-18, 200 epochs; the rest are the defaults of the kit.
# "cpu" is the same questions on a laptop: a fifth of the images, a small residual network.
# "smoke" only shows that every file runs.
SCALES = {
    "paper": {"model": "resnet18", "epochs": 200, "evaluate_every": 10},
    "cpu": {"model": "resnet8", "epochs": 20, "limit": 10_000, "evaluate_every": 10},
    "smoke": {"model": "small", "epochs": 2, "batch_size": 16, "evaluate_every": 0},
}
TABLES = {"paper": "paper.csv", "cpu": "paper_cpu.csv", "smoke": "paper_smoke.csv"}

Part = dict[str, object]
"""Settings of a part of a grid, each one value or several."""


def table_of(scale: str, folder: Path = RESULTS) -> Path:
    """Return where the rows of a scale are kept."""
    return folder / TABLES[scale]


def options(claim: str) -> argparse.ArgumentParser:
    """Return the options of a sweep file."""
    made = parser(claim)
    made.add_argument("--scale", choices=list(SCALES), default="paper")
    made.add_argument(
        "--dataset", default="cifar10", help="cifar10, or folder:PATH with its images"
    )
    made.add_argument("--limit", type=int, help="training images; the scale's own if not given")
    made.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    return made


def main(claim: str, parts: Sequence[Part], arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run one sweep file: train what its table does not hold, and print where it stands.

    Parameters
    ----------
    claim
        What is claimed, in a sentence.
    parts
        The grid, most wanted first.
    arguments
        Command line; that of the process if not given.

    Returns
    -------
    DataFrame
        The rows of these runs that the table holds now.
    """
    given = options(claim).parse_args(arguments)
    size = SCALES[given.scale] | ({} if given.limit is None else {"limit": given.limit})
    common = size | {"dataset": given.dataset, "seed": given.seeds,
                     "out": str(Path(given.out) / f"paper-{given.scale}")}  # fmt: skip
    plan = product(list(parts), **common)
    keys = [key(config) for config in plan]
    table = table_of(given.scale, given.results)
    print(claim, file=sys.stderr)
    if given.plan:
        frame = read(table)
    else:
        frame = sit(plan, table, workers=given.workers, minutes=given.minutes)
    rows = frame[frame["key"].isin(keys)]
    print(f"{len(rows)} of {len(plan)} runs are in {table.name}")
    if len(rows):
        print(summary(rows).to_string(index=False))
    return rows


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds: n, mean and spread of the accuracy, and the entropy of the counts."""
    keys = ["dataset", "method", "augmentation", "credit", "budget", "other_settings"]
    groups = rows.groupby(keys, sort=False)
    table = groups["test_accuracy"].agg(n="count", mean="mean", spread="std")
    table["entropy"] = groups["entropy"].mean()
    return table.reset_index().round(4)
