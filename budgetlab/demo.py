"""``make demo``: does it matter which samples you train on, at a fifth of the training?

Trains four methods at 20% budget and one full run, two seeds each, on the built-in
``shapes``; prints a table and writes a page with figures.
"""

import sys
import time
from pathlib import Path

from tqdm.auto import tqdm

from budgetlab import analysis, report
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records import find, open_record
from budgetlab.training import Run, load_data

__all__ = ["configs", "main"]

EPOCHS = 10
SEEDS = (0, 1)
BUDGET = 0.2
METHODS = ("SGD", "unif-SGD", "p-SGD", "c-SGD")


def configs(out: Path, epochs: int = EPOCHS, limit: int = 0) -> list[RunConfig]:
    """List the runs of the demo: every method at 20%, ``unif-SGD`` at 100%, each seed."""
    base = RunConfig(epochs=epochs, limit=limit, out=str(out / "runs"), data_root=str(out / "data"))
    plan = [(method, BUDGET) for method in METHODS] + [("unif-SGD", 1.0)]
    return [
        base.replace(method=method, budget=budget, seed=seed)
        for seed in SEEDS
        for method, budget in plan
    ]


def finished_runs(out: Path) -> dict[str, Path]:
    """Return finished records under a folder, by the id of their run."""
    if not any(out.glob("runs/*/record.json")):
        return {}
    records = [open_record(path) for path in find(out / "runs")]
    return {record.about["id"]: record.path for record in records if record.status == "finished"}


def train_all(plan: list[RunConfig], kept: dict[str, Path]) -> list[Path]:
    """Train what is not there yet, under one bar with an estimate of the time left."""
    missing = [config for config in plan if config.id not in kept]
    if not missing:
        return [kept[config.id] for config in plan]
    paths = dict(kept)
    splits = load_data(missing[0])
    total = sum(round(1000 * config.budget) for config in missing)
    with tqdm(total=total, bar_format=BAR, smoothing=0, file=sys.stderr) as bar:
        for config in missing:
            begun = bar.n
            bar.set_postfix_str(f"{config.method}, budget {config.budget:g}, seed {config.seed}")

            def show(run: Run, begun: float = begun, budget: float = config.budget) -> None:
                share = run.budget.share_spent(run.ledger)
                bar.update(begun + share * 1000 * budget - bar.n)

            run = Run(config, splits=splits, on_step=show)
            for _ in run:
                pass
            paths[config.id] = run.writer.path
    return [paths[config.id] for config in plan]


BAR = "{percentage:3.0f}% |{bar:30}| {elapsed} gone, about {remaining} left{postfix}"


def main(out: Path = Path("demo")) -> int:
    """Run the demo in a folder; returns the exit code."""
    began = time.perf_counter()
    plan = configs(out)
    kept = finished_runs(out)
    print(
        f"Training {len(plan)} small networks on drawings of ten shapes: {', '.join(METHODS)} at "
        f"{BUDGET:.0%} of the training, and unif-SGD at 100%, seeds {SEEDS}."
    )
    already = sum(config.id in kept for config in plan)
    if already:
        print(f"{already} of them are kept from before; delete '{out}' to train them again.")
    records = train_all(plan, kept)
    print(f"\n{analysis.table(analysis.results(records))}\n\nAgainst unif-SGD, pair by pair:\n")
    comparison = analysis.compare(records, baseline="unif-SGD")
    compared = comparison[comparison["method"] != comparison["baseline"]]
    print("\n".join(f"- {sentence}" for sentence in compared["sentence"]))
    page = report.write(records, out / "index.html")
    seconds = time.perf_counter() - began
    print(f"\nFigures: {page.resolve()}\nRecords: {out / 'runs'}\nTook {seconds:.0f} s.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (InputError, RunError) as error:
        print(f"budgetlab: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped: what was finished is kept, run it again to go on", file=sys.stderr)
        sys.exit(130)
