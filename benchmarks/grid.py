"""Every method and augmentation of the paper, at equal iterations and at equal flops.

    python -m benchmarks.grid --dataset shapes [--minutes 30] [--workers 2]
    python -m benchmarks.grid --dataset folder:data/cifar10-jpeg --limit 10000 --workers 2
    python -m benchmarks.grid --page

The small network, 10,000 images, 20 epochs at full budget, budgets 0.1 to 0.5, three seeds:
every method of the paper with standard augmentation, and unif-SGD, p-SGD and selective backprop
under every augmentation. A method that only trains does the same steps under both units, so
that its run counts for both; selective backprop, which also looks, is run under each. Finished
runs are rows of benchmarks/results/grid.csv and are never run again, so that the grid can be
filled in many sittings. ``--page`` writes docs/grid.md from the table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.sittings import RESULTS, fill, parser, read
from budgetlab import analysis, augment
from budgetlab.config import RunConfig
from budgetlab.records import write_atomically
from budgetlab.sweep.grid import product

DOCS = Path(__file__).parents[1] / "docs"
TABLE = "grid.csv"
BUDGETS = (0.1, 0.2, 0.3, 0.5)
METHODS = ("unif-SGD", "SGD", "p-SGD", "c-SGD", "rs2", "selective-backprop")
UNDER_EVERY_AUGMENTATION = ("unif-SGD", "p-SGD", "selective-backprop")
LOOKING = "selective-backprop"


def plan(dataset: str, seeds: Sequence[int], limit: int = 0, out: str = "runs") -> list[RunConfig]:
    """List the runs of one data set: budgets 0.2 and 0.3 first."""
    others = [name for name in augment.names() if name != "standard"]
    settings = [
        {"method": list(METHODS), "augmentation": "standard"},
        {"method": LOOKING, "augmentation": "standard", "budget_unit": "flops"},
        {"method": list(UNDER_EVERY_AUGMENTATION), "augmentation": others},
        {"method": LOOKING, "augmentation": others, "budget_unit": "flops"},
    ]
    parts = [part | {"budget": budget} for budget in (0.2, 0.3, 0.1, 0.5) for part in settings]
    return product(
        parts, dataset=dataset, seed=list(seeds), limit=limit, model="small", epochs=20,
        evaluate_every=0, out=str(Path(out) / "grid"),
    )  # fmt: skip


def at_equal(rows: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Runs to compare at an equal budget in a unit: those that only train count for both."""
    looking = rows["method"] == LOOKING
    return rows[~looking | (rows["budget_unit"] == unit)].assign(budget_unit=unit)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in percent, mean ± sd (n), a column a budget; a row a method and augmentation."""
    groups = rows.groupby(["augmentation", "method", "budget"], sort=False)["test_accuracy"]
    table = groups.agg(["mean", "std", "count"]).reset_index()
    table["cell"] = [
        f"{100 * r['mean']:.2f}" + (f" ± {100 * r['std']:.2f}" if r["count"] > 1 else "")
        + f" ({r['count']})" for r in table.to_dict("records")
    ]  # fmt: skip
    wide = table.pivot(index=["augmentation", "method"], columns="budget", values="cell")
    order = [(a, m) for a in augment.names() for m in METHODS]
    wide = wide.reindex([pair for pair in order if pair in wide.index]).fillna("not run yet")
    return wide.rename(columns=lambda budget: f"budget {budget:g}").reset_index()


def said(rows: pd.DataFrame) -> list[str]:
    """What can be said of the methods under one unit, corrected for all comparisons."""
    table = analysis.compare(rows, baseline="unif-SGD")
    tested = table[(table["method"] != "unif-SGD") & (table["pairs"] > 1)]
    claimed = tested[tested["p_corrected"] < 0.05]
    first = (
        f"Of {len(tested)} comparisons with unif-SGD at the same augmentation and budget, "
        f"{len(claimed)} show a difference (paired t tests over seeds, Holm-corrected)."
    )
    return [first, *(f"- {sentence}" for sentence in claimed["sentence"])]


def page(frame: pd.DataFrame) -> str:
    """Write what the table holds as Markdown."""
    parts = [INTRODUCTION]
    for dataset, rows in frame.groupby("dataset", sort=False):
        for unit in ("iterations", "flops"):
            equal = at_equal(rows, unit)
            parts += [
                f"## {dataset}, at equal {unit}",
                analysis.markdown(summary(equal)).rstrip(),
                "\n".join(said(equal)),
            ]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """# Every method and augmentation, at equal iterations and at equal flops

The small network, 10,000 training images, 20 epochs at full budget. Cells are the test accuracy
in percent after the last epoch, mean ± standard deviation (number of seeds). Methods that only
train do the same steps at equal iterations and at equal flops; selective backprop also looks at
candidates, so that at equal flops it takes fewer steps. Made by `python -m benchmarks.grid`; every
run, with its cost, hardware and versions, is a row of `benchmarks/results/grid.csv`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the table, or write the page; returns the exit code."""
    made: argparse.ArgumentParser = parser(__doc__.splitlines()[0])
    made.add_argument("--dataset", default="shapes")
    made.add_argument("--limit", type=int, default=0)
    made.add_argument("--results", type=Path, default=RESULTS)
    made.add_argument("--page", action="store_true", help="write docs/grid.md from the table")
    given = made.parse_args(arguments)
    table = given.results / TABLE
    if given.page:
        write_atomically(DOCS / "grid.md", page(read(table)).encode())
        return 0
    runs = plan(given.dataset, given.seeds, given.limit, given.out)
    fill(runs, table, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
