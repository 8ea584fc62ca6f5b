"""Every method against uniform draws, at equal cost: ranks, with what can and cannot be said.

    python -m benchmarks.league --dataset shapes folder:data/cifar10-jpeg --workers 2
    python -m benchmarks.league --seconds --dataset ...   # one run at a time: it is timed
    python -m benchmarks.league --page

The small network on 2,560 training images, 10 epochs at full budget, batch 32, learning rate
0.025 (the paper's 0.1 for batches of 128, scaled), the paper's recipe otherwise, five seeds. With
standard augmentation every method runs at budgets 0.05, 0.1, 0.2, 0.3 and 0.5; under RICAP and
RandAugment at 0.2; at equal seconds with standard augmentation at 0.2. One run counts for two
where both do the same: methods that only train, or whose second network is like their own, at
equal iterations and at equal flops; SGD and rs2, which take the same steps. Finished runs are rows
of benchmarks/results/league.csv and are never run again. ``--page`` writes docs/league.md and its
figure from the table; ``--ship`` copies what notebook 12 reads, rows and a few records, into
notebooks/records/.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks import standings
from benchmarks.sittings import RESULTS, fill, parser, read
from budgetlab.config import RunConfig
from budgetlab.records import thin, write_atomically
from budgetlab.sweep.grid import product

TABLE = "league.csv"
SEEDS = (0, 1, 2, 3, 4)
# SGD stands for rs2 too.
SAME_AT_FLOPS = ("unif-SGD", "SGD", "random-subset", "p-SGD", "c-SGD", "loss", "infobatch",
                 "curriculum", "el2n-pruned", "forgetting-pruned")  # fmt: skip
OTHER_AT_FLOPS = ("selective-backprop", "top-k", "rho-loss", "grad-norm")
WEIGHTED = ("p-SGD", "loss")
BUDGETS = standings.BUDGETS
BUDGETS_WHEN_AUGMENTED = (0.2,)
BUDGET_OF_SECONDS = 0.2
AUGMENTATIONS = standings.AUGMENTATIONS[1:]
SHIPPED = ("unif-SGD", "top-k", "rho-loss", "infobatch")
SHIPPED_COLUMNS = ["at", "dataset", "entry", "budget", "seed", "test_accuracy", "flops"]
NOTEBOOKS = Path(__file__).parents[1] / "notebooks" / "records"


def _fields(
    augmentation: str, budgets: Sequence[float], units: Sequence[str]
) -> list[dict[str, object]]:
    """All methods under one augmentation; a run that would be the same is not repeated."""
    once = [unit for unit in units if unit != "flops"]
    common = {"augmentation": augmentation, "budget": list(budgets)}
    return [
        common | {"method": list(SAME_AT_FLOPS), "budget_unit": once},
        common | {"method": list(WEIGHTED), "weights": "unbiased", "budget_unit": once},
        common | {"method": list(OTHER_AT_FLOPS), "budget_unit": list(units)},
    ]


def plan(
    datasets: Sequence[str], seeds: Sequence[int], out: str = "runs", *, seconds: bool = False
) -> list[list[RunConfig]]:
    """List the runs in stages, the most wanted first: a table is whole as soon as its stage is."""
    units = ["iterations", "flops"]
    if seconds:
        stages = [_fields("standard", [BUDGET_OF_SECONDS], ["seconds"])]
    else:
        augmented = [_fields(name, BUDGETS_WHEN_AUGMENTED, units) for name in AUGMENTATIONS]
        stages = [
            _fields("standard", BUDGETS[:-1], units),
            [part for parts in augmented for part in parts],
            _fields("standard", BUDGETS[-1:], units),
        ]
    return [
        [
            run
            for dataset in datasets
            for run in product(
                stage, dataset=dataset, seed=list(seeds), limit=2560, model="small", epochs=10,
                batch_size=32, lr=0.025, evaluate_every=0, out=str(Path(out) / "league"),
            )
        ]
        for stage in stages
    ]  # fmt: skip


def shipped_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of standard augmentation that are comparable, at equal iterations and at equal flops."""
    rows = standings.labelled(frame[frame["augmentation"] == "standard"])
    equal = [standings.at_equal(rows, unit).assign(at=unit) for unit in ("iterations", "flops")]
    table = pd.concat(equal)
    whole = table.groupby("budget")["seed"].transform("nunique") >= standings.FEWEST_SEEDS
    return table.loc[whole, SHIPPED_COLUMNS]


def ship(frame: pd.DataFrame, out: str, target: Path = NOTEBOOKS) -> None:
    """Copy rows, and four records on shapes at budget 0.2, seed 0."""
    text = shipped_rows(frame).to_csv(index=False, float_format="%.6g")
    write_atomically(target / TABLE, text.encode())
    for run in plan(["shapes"], [0], out)[0]:
        chosen = run.budget == BUDGET_OF_SECONDS and run.augmentation == "standard"
        if chosen and run.method in SHIPPED and run.budget_unit == "iterations":
            copy = target / f"league-{run.method}"
            shutil.rmtree(copy, ignore_errors=True)
            thin(Path(run.out) / run.folder_name, copy, images=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the table, or write the page; returns the exit code."""
    made: argparse.ArgumentParser = parser(__doc__.splitlines()[0])
    made.set_defaults(seeds=list(SEEDS))
    made.add_argument("--dataset", nargs="+", default=["shapes"])
    made.add_argument("--results", type=Path, default=RESULTS)
    made.add_argument("--seconds", action="store_true", help="the runs at equal seconds")
    made.add_argument("--page", action="store_true", help="write docs/league.md from the table")
    made.add_argument("--ship", action="store_true", help="copy what notebook 12 reads")
    given = made.parse_args(arguments)
    table = given.results / TABLE
    if given.page:
        standings.write(read(table))
        return 0
    if given.ship:
        ship(read(table), given.out)
        return 0
    if given.seconds and given.workers > 1:
        made.error(f"--workers {given.workers} would disturb runs that are timed: give 1")
    for stage in plan(given.dataset, given.seeds, given.out, seconds=given.seconds):
        fill(stage, table, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
