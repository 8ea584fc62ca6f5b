"""Every method and augmentation of the paper, at equal iterations and at equal flops.

    python -m benchmarks.grid --dataset shapes [--minutes 30] [--workers 2]
    python -m benchmarks.grid --dataset folder:data/cifar10-jpeg --limit 10000 --workers 2
    python -m benchmarks.grid --page

The small network, 10,000 images, 20 epochs at full budget, budgets 0.1 to 0.5, three seeds:
every method of the paper with standard augmentation, and unif-SGD, p-SGD and selective backprop
under every augmentation. A method that only trains does the same steps under both units, so
that its run counts for both; selective backprop, which also looks, is run under each. Finished
runs are rows of benchmarks/results/grid.csv and are never run again, so that the grid can be
filled in many sittings. ``--page`` writes docs/grid.md and its figure from the table.
"""

import argparse
import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmarks import standings
from benchmarks.sittings import RESULTS, fill, parser, provenance, read
from budgetlab import analysis, augment
from budgetlab.config import RunConfig
from budgetlab.plots import style
from budgetlab.records import write_atomically
from budgetlab.sweep.grid import product

DOCS = Path(__file__).parents[1] / "docs"
TABLE = "grid.csv"
FIGURE = "images/grid.png"
SEEDS = (0, 1, 2)
UNITS = ("iterations", "flops")
BUDGETS = (0.1, 0.2, 0.3, 0.5)
METHODS = ("unif-SGD", "SGD", "p-SGD", "c-SGD", "rs2", "selective-backprop")
UNDER_EVERY_AUGMENTATION = ("unif-SGD", "p-SGD", "selective-backprop")
BASELINE = "unif-SGD"
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


def averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """Points of accuracy above unif-SGD, averaged over budgets, and the 95% interval over seeds.

    Averaged are the budgets at which every seed counted has every method, so that seeds
    differ by chance only.

    Returns
    -------
    DataFrame
        augmentation, method, difference, low, high (points; NaN with one seed), p and
        p_corrected (paired t test; Holm over all rows), budgets (text), seeds.
    """
    groups = (rows[rows["augmentation"] == name] for name in augment.names())
    found = [table for table in map(_above_baseline, groups) if len(table)]
    columns = ["augmentation", "method", "difference", "low", "high", "p", "budgets", "seeds"]
    made = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)
    return made.assign(p_corrected=standings.corrected(made["p"]))


def _above_baseline(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a method; the mean over augmentations and budgets is what a seed says."""
    blocks = ["augmentation", "budget"]
    table = rows.pivot_table(index=[*blocks, "seed"], columns="method", values="test_accuracy")
    wide = 100 * table.dropna()
    if BASELINE not in wide or wide.empty:
        return pd.DataFrame()
    size = wide.groupby(level=blocks)[BASELINE].transform("size")
    wide = wide[size == size.max()]
    found = standings.differences(wide.rename_axis(columns="entry")).set_index("entry")
    order = [method for method in METHODS if method in found.index]
    budgets = sorted(wide.index.unique("budget"))
    return (
        found.loc[order].rename_axis("method").reset_index()
        .assign(augmentation=", ".join(wide.index.unique("augmentation")), seeds=int(size.max()),
                budgets=", ".join(f"{budget:g}" for budget in budgets))
    )  # fmt: skip


def _points(row: Mapping[Hashable, float]) -> str:
    inside = f" ({row['low']:+.2f} to {row['high']:+.2f})" if math.isfinite(row["low"]) else ""
    return f"{row['difference']:+.2f}{inside}"


def over_budgets(rows: pd.DataFrame) -> pd.DataFrame:
    """:func:`averaged`, as it is read."""
    table = averaged(rows)
    shown = table.assign(points=[_points(row) for row in table.to_dict("records")])
    shown = shown.rename(columns={"points": "points above unif-SGD (95%)"})
    return shown[["augmentation", "method", "points above unif-SGD (95%)", "budgets", "seeds"]]


def summed_up(rows: pd.DataFrame) -> str:
    """Which averages lie apart from zero, before and after correction; and those over all."""
    table = averaged(rows)
    if table["p"].isna().all():
        return "Averaged over budgets:"

    def listed(chosen: pd.DataFrame) -> str:
        names = [f"{row.method} with {row.augmentation}" for row in chosen.itertuples()]
        return ", ".join(names) if names else "none"

    everywhere = _above_baseline(rows[rows["method"].isin(UNDER_EVERY_AUGMENTATION)])
    over_all = ", ".join(f"{row['method']} {_points(row)}" for row in everywhere.to_dict("records"))
    return (
        f"Points above unif-SGD over all augmentations and budgets: {over_all}.\n\n"
        "Averaged over budgets, with Student's t interval over seeds. "
        f"Wholly above zero: {listed(table[table['low'] > 0])}. "
        f"Wholly below: {listed(table[table['high'] < 0])}. "
        f"By chance alone about {0.05 * len(table):.1g} of these {len(table)} would be either. "
        f"After correction for all {len(table)} (Holm): "
        f"{listed(table[table['p_corrected'] < 0.05])}."
    )


def said(rows: pd.DataFrame) -> list[str]:
    """What can be said of the methods under one unit, corrected for all comparisons."""
    if BASELINE not in set(rows["method"]):
        return [f"{BASELINE} has not been run yet: there is nothing to compare with."]
    table = analysis.compare(rows, baseline=BASELINE)
    tested = table[(table["method"] != BASELINE) & (table["pairs"] > 1)]
    if tested.empty:
        return ["One seed so far: no difference can be told from chance."]
    claimed = tested[tested["p_corrected"] < 0.05]
    shows = "shows" if len(claimed) == 1 else "show"
    first = (
        f"Of {len(tested)} comparisons with unif-SGD at the same augmentation and budget, "
        f"{len(claimed)} {shows} a difference (paired t tests over seeds, Holm-corrected)."
    )
    return [first, *(f"- {sentence}" for sentence in claimed["sentence"])]


def page(frame: pd.DataFrame) -> str:
    """Write what the table holds as Markdown."""
    parts = [INTRODUCTION, f"![{ALT}]({FIGURE})"]
    for dataset, rows in frame.groupby("dataset", sort=False):
        planned = len(plan(f"folder:{dataset}", SEEDS))
        if len(rows) < planned:
            parts.append(f"{dataset}: {len(rows)} of {planned} runs are in so far.")
        for unit in UNITS:
            equal = at_equal(rows, unit)
            parts += [
                f"## {dataset}, at equal {unit}",
                "\n".join(said(equal)),
                summed_up(equal),
                analysis.markdown(over_budgets(equal)).rstrip(),
                "Test accuracy in percent, mean ± standard deviation (seeds):",
                analysis.markdown(summary(equal)).rstrip(),
            ]
    parts.append(provenance(frame))
    return "\n\n".join(parts) + "\n"


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Draw accuracy over the budget: a row a data set, a column an augmentation."""
    names = [name for name in augment.names() if name in set(frame["augmentation"])]
    datasets = list(frame["dataset"].unique())
    figure = style.new_figure((2.0 * len(names) + 1, 2.6 * len(datasets) + 0.9))
    axes = figure.subplots(len(datasets), len(names), sharex=True, sharey="row", squeeze=False)
    looks = style.looks(METHODS)
    for i, dataset in enumerate(datasets):
        for j, name in enumerate(names):
            axis = axes[i][j]
            here = frame[(frame["dataset"] == dataset) & (frame["augmentation"] == name)]
            for (method, unit), runs in here.groupby(["method", "budget_unit"], sort=False):
                look, at_flops = looks[method], unit == "flops"
                found = 100 * runs.groupby("budget")["test_accuracy"].agg(["mean", "std"])
                axis.errorbar(
                    found.index, found["mean"], yerr=found["std"].fillna(0), color=look.colour,
                    marker=look.marker, markersize=4, linewidth=1, capsize=2,
                    linestyle="--" if at_flops else "-",
                    markerfacecolor="white" if at_flops else look.colour,
                    label=f"{method}, at equal flops" if at_flops else method,
                )  # fmt: skip
            lowest = i == len(datasets) - 1
            style.finish(axis, title="" if i else name, x="budget" if lowest else "",
                         y="" if j else f"{dataset}\ntest accuracy (%)")  # fmt: skip
            axis.set(xticks=BUDGETS, xlim=(0.05, 0.55))
    entries = {
        label: handle
        for axis in axes.flat
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside lower center",
                  ncols=4, frameon=False)  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def write(frame: pd.DataFrame, docs: Path = DOCS) -> None:
    """Write docs/grid.md and its figure."""
    draw(frame, docs / FIGURE)
    write_atomically(docs / "grid.md", page(frame).encode())


ALT = (
    "One row a data set, one panel an augmentation: test accuracy over the budget, a line a "
    "method, mean and standard deviation over seeds; selective backprop once at equal iterations "
    "and once at equal flops"
)

INTRODUCTION = """# Every method and augmentation, at equal iterations and at equal flops

The small network, 10,000 training images, 20 epochs at full budget, the paper's recipe otherwise:
every method of the paper with standard augmentation, and unif-SGD, p-SGD and selective backprop
under every augmentation. Accuracy is on the test set after the last epoch. Methods that only
train do the same steps at equal iterations and at equal flops, so that one run counts for both;
selective backprop also looks at candidates, so that at equal flops it takes fewer steps.

What cannot be claimed: anything about longer trainings, larger networks or other data. Three
seeds tell little: an interval of three is wide, and where three differences happen to lie close
together even a small one passes the test, so trust what holds at neighbouring budgets. The rows'
seconds are of two runs side by side, beside other work: they are no measurement of speed.

Made by `python -m benchmarks.grid --dataset shapes --workers 2`, the same with
`--dataset folder:data/cifar10-jpeg --limit 10000`, then `--page`; every run, with its cost,
hardware and versions, is a row of `benchmarks/results/grid.csv`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the table, or write the page; returns the exit code."""
    made: argparse.ArgumentParser = parser(__doc__.splitlines()[0])
    made.add_argument("--dataset", default="shapes")
    made.add_argument("--limit", type=int, default=0)
    made.add_argument("--results", type=Path, default=RESULTS)
    made.add_argument("--page", action="store_true", help="write docs/grid.md and its figure")
    given = made.parse_args(arguments)
    table = given.results / TABLE
    if given.page:
        frame = read(table)
        if frame.empty:
            print(f"{table} holds no run yet: train some first", file=sys.stderr)
            return 1
        write(frame)
        return 0
    runs = plan(given.dataset, given.seeds, given.limit, given.out)
    fill(runs, table, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
