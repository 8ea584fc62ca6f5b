"""Run the planned experiments of the scale model, resumably, on several cores.

    python -m experiments [--datasets shapes folder:PATH] [--parts a b ... map networks]
                          [--seeds 0 1 2 ...] [--workers 2] [--minutes M] [--plan]

Results go to ``experiments/results/scale_model.csv``, or ``networks.csv`` for the part
``networks``; runs with a row there are not trained again. ``python -m experiments.pages`` turns
the table into the pages and figures under docs/.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from budgetlab.config import PRESETS, RunConfig
from experiments import plans
from experiments.tables import RESULTS, key, read, run_session

# Seeds are run three at a time, the longest runs last within each three.
ROUND = 3
TABLES = {"scale-model": "scale_model.csv", "paper": "paper.csv", "networks": "networks.csv"}


def ordered(parts: Sequence[str], datasets: Sequence[str], seeds: Sequence[int], **common: object):
    """List runs by priority, for a few seeds and then more; runs on the same data are adjacent."""
    found: list[RunConfig] = []
    for start in range(0, len(seeds), ROUND):
        some = seeds[start : start + ROUND]
        stages: dict[int, list[RunConfig]] = {}
        for seed, dataset, part in itertools.product(some, datasets, parts):
            for run in plans.runs(part, dataset, seed, **common):
                stages.setdefault(_stage(part, run), []).append(run)
        found += itertools.chain.from_iterable(runs for _, runs in sorted(stages.items()))
    return found


def _stage(part: str, run: RunConfig) -> int:
    """Priority of a run: findings (0), 300 epochs (1), the map (2), 1,000 epochs (3), rest (4)."""
    if part in plans.FINDINGS:
        return {300: 1, 1000: 3}.get(run.epochs, 0)
    return 2 if part == "map" else 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Train for the given time; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["shapes"])
    parser.add_argument("--preset", choices=list(PRESETS), default="scale-model")
    parser.add_argument("--parts", nargs="+", choices=plans.PARTS, default=list(plans.PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--plan", action="store_true", help="say what is missing; train nothing")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--out", default="runs/experiments", help="folder of records under way")
    parser.add_argument(
        "--keep", type=Path, help="folder for records that are kept: seed 0, and every unif-SGD"
    )
    parser.add_argument("--table", type=Path, help="CSV file; one in experiments/results")
    given = parser.parse_args(arguments)

    def keep(run: RunConfig) -> Path | None:
        wanted = run.method == "unif-SGD" or run.seed == 0
        return given.keep if wanted and run.epochs == 100 else None

    tables: dict[Path, list[str]] = {}
    for part in given.parts:
        # Kept apart: in the main table, runs of other networks would pass for repeats.
        name = TABLES["networks" if part == "networks" else given.preset]
        tables.setdefault(given.table or RESULTS / name, []).append(part)
    for table, parts in tables.items():
        plan = ordered(
            parts, given.datasets, given.seeds, preset=given.preset,
            data_root=given.data_root, out=given.out,
        )  # fmt: skip
        if not given.plan:
            run_session(plan, table, workers=given.workers, minutes=given.minutes, keep=keep)
        known = set(read(table)["key"])
        unique = {key(run) for run in plan}
        print(f"{len(unique & known)} of {len(unique)} runs are in {table.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
