"""``budgetlab demo``: what does a third of the training cost, and what buys it back?

Trains the scale model on the built-in ``shapes``, three seeds each: uniform draws, a fixed random
subset and p-SGD at 30% of the full run, and the full run. Prints each result as it comes, then a
table with verdicts, and writes a page with figures.
"""

import time
from pathlib import Path

from budgetlab.config import RunConfig, preset_settings
from budgetlab.errors import RunError
from budgetlab.sweeps import sweep

SEEDS = (0, 1, 2)
PLAN = (("unif-SGD", 0.3), ("random-subset", 0.3), ("p-SGD", 0.3), ("unif-SGD", 1.0))


def configs(out: Path, **changes: object) -> list[RunConfig]:
    """List the runs of the demo; each seed also generates its own images."""
    base = preset_settings("scale-model") | changes
    return [
        RunConfig(**(base | {"method": method, "budget": budget, "seed": seed, "data_seed": seed,
                             "out": str(out / "runs"), "data_root": str(out / "data")}))
        for seed in SEEDS
        for method, budget in PLAN
    ]  # fmt: skip


def main(out: Path = Path("demo")) -> int:
    """Run the demo in the folder ``out`` and return the exit code."""
    began = time.perf_counter()
    plan = configs(out)
    runs = sweep(plan, workers="auto", retry=True, progress=False)
    print(
        f"Training {len(plan)} small networks on {plan[0].limit:,} rendered images each: three "
        f"methods at 30% of the training, and one in full, with {len(SEEDS)} seeds.\n"
    )
    for done, row in enumerate(runs, 1):
        kept = " (kept from before)" if row["how"] == "kept" else ""
        print(f"{done:3} of {len(plan)}  {_line(row)}{kept}", flush=True)
    if runs.failed:
        raise RunError(f"some runs failed, such as {next(iter(runs.failed.items()))}")
    # Imported only now: the plotting libraries would delay the first result.
    from budgetlab import analysis, report

    comparison = analysis.compare(runs.records)
    compared = comparison[comparison["method"] != comparison["baseline"]]
    print(
        f"\n{analysis.table(analysis.results(runs.records))}\n\nAgainst unif-SGD, seed by seed:\n"
    )
    print("\n".join(f"- {sentence}" for sentence in compared["sentence"]))
    page = report.write(runs.records, out / "index.html")
    seconds = time.perf_counter() - began
    print(f"\nFigures: {page.resolve()}\nRecords: {out / 'runs'}\nTook {seconds:.0f} s.")
    return 0


def _line(row: dict[str, object]) -> str:
    accuracy = row.get("test_accuracy")
    reached = f"{100 * accuracy:.1f}%" if isinstance(accuracy, float) else row["status"]
    return f"{row['method']:14} budget {row['budget']:<4.0%} seed {row['seed']}   {reached}"
