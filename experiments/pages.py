"""Write the pages and figures of the scale model: docs/findings.md, map.md and league.md.

    python -m experiments.pages [--table experiments/results/scale_model.csv]

Missing runs are listed as missing; nothing is estimated.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from budgetlab import analysis, plots
from budgetlab.course.results import averages, select
from budgetlab.records import write_atomically
from experiments.maps import HOW, importance_map, level, map_table
from experiments.plans import (
    BUDGETS,
    FINDINGS,
    LEAGUE,
    LENGTHS,
    LOOK_OR_SCORE,
)
from experiments.tables import (
    FEWEST,
    RESULTS,
    SEEDS,
    against,
    interval,
    number,
    provenance,
    read,
)

DOCS = Path(__file__).parents[1] / "docs"
METHODS = ("unif-SGD", "SGD", "p-SGD", "c-SGD", "selective-backprop")
AUGMENTATIONS = ("none", "standard", "mixup", "cutmix", "ricap", "randaugment")
CHARGED = ("selective-backprop", *LOOK_OR_SCORE)
SHIPPED_MAP = Path(analysis.__file__).parent / "importance_map.csv"
SHIPPED = ["dataset", "redundancy", "imbalance", "label_noise", "method", "n", "baseline_mean",
           "difference", "ci_low", "ci_high", "p_corrected", "verdict"]  # fmt: skip
PAPER = ("p-SGD", "c-SGD", "selective-backprop, equal flops")
SHORT = {"method": {"selective-backprop, equal flops": "selective backprop"}}


def levels(rows: pd.DataFrame, name: str, by: str, metric: str = "test_accuracy") -> str:
    """Format averages as a table: values of ``name`` in rows, data set and ``by`` in columns."""
    table = averages(rows, ["dataset", by, name], metric)
    if table.empty:
        return ""
    if metric == "test_accuracy":
        table["cell"] = table.apply(level, axis=1)
    else:
        table["cell"] = [
            f"{row.mean_:.3f} ± {row.spread:.3f} (n = {row.n})"
            for row in table.rename(columns={"mean": "mean_"}).itertuples()
        ]
    column = table["dataset"] + f", {by.replace('_', ' ')} " + table[by].astype(str)
    wide = table.assign(column=column).pivot(index=name, columns="column", values="cell")
    order = [value for value in dict.fromkeys(table[name]) if value in wide.index]
    wide = wide.loc[order, list(dict.fromkeys(column))].fillna("")
    return analysis.markdown(wide.reset_index()).rstrip()


def said(table: pd.DataFrame) -> str:
    """Format the sentences of a comparison as a list."""
    if table.empty:
        return "Not run yet."
    return "\n".join(f"- {text}" for text in table["sentence"])


def subset(rows: pd.DataFrame) -> list[str]:
    """(a) A fixed subset against redrawing."""
    own = select(rows, "method", "budget")
    own = own[own["method"].isin(["unif-SGD", "random-subset"]) & own["budget"].isin([*BUDGETS, 1])]
    at = own[own["budget"] < 1]
    return [levels(own, "method", "budget"),
            said(against(at, "method", "unif-SGD", ["dataset", "budget"]))]  # fmt: skip


def methods(rows: pd.DataFrame) -> list[str]:
    """(b) The paper's methods at equal iterations and equal flops."""
    parts = []
    own = select(rows, "method", "budget", "budget_unit")
    own = own[own["method"].isin(METHODS) & own["budget"].isin(BUDGETS)]
    for unit in ("iterations", "flops"):
        # Methods without extra forward passes take the same steps at equal flops.
        same = own["budget_unit"].eq(unit) | ~own["method"].eq("selective-backprop")
        here = own[same & (own["budget_unit"].eq(unit) | own["budget_unit"].eq("iterations"))]
        table = against(here, "method", "unif-SGD", ["dataset", "budget"])
        if unit == "flops" and not table.empty:
            table = table[table["method"] == "selective-backprop"]
        parts += [f"At equal {unit}:", levels(here, "method", "budget"), said(table)]
    return parts


def lengths(rows: pd.DataFrame) -> pd.DataFrame:
    """Return averages of every augmentation at every length, for the crossing curve."""
    own = select(rows, "augmentation", "epochs", method="unif-SGD")
    own = own[own["epochs"].isin(LENGTHS)].sort_values("epochs", kind="stable")
    return averages(own, ["dataset", "augmentation", "epochs"])


def variety(rows: pd.DataFrame) -> list[str]:
    """(c) Augmentations against the length of training."""
    own = select(rows, "augmentation", "epochs", method="unif-SGD")
    own = own[own["epochs"].isin(LENGTHS)].sort_values("epochs", kind="stable")
    full = select(rows, "augmentation", "budget", method="unif-SGD")
    full = full[full["budget"].eq(1) & full["augmentation"].isin(("none", "standard", "ricap"))]
    kept = pd.concat([
        full[full["augmentation"].eq("standard")].assign(run="full run, standard"),
        select(rows, augmentation="ricap").assign(run="RICAP at budget 0.3"),
    ])  # fmt: skip
    return [
        "![Accuracy over the length of training, a line an augmentation](images/crossing.png)",
        levels(own, "augmentation", "epochs"),
        "Against `standard`, length by length:",
        said(against(own, "augmentation", "standard", ["dataset", "epochs"])),
        "Does RICAP at budget 0.3 keep the accuracy of the full run with `standard` (100 epochs)?",
        said(against(kept, "run", "full run, standard")),
    ]


def credit(rows: pd.DataFrame) -> list[str]:
    """(d) The credit rules under RICAP."""
    own = select(rows, "credit", method="p-SGD", augmentation="ricap")
    return [
        levels(own, "credit", "budget"),
        said(against(own, "credit", "row")),
        "Entropy of the counts (at most ln 1000 = 6.908):",
        levels(own, "credit", "budget", "entropy"),
    ]


def evenness(rows: pd.DataFrame) -> list[str]:
    """(e) Smoothing and averaging of p-SGD."""
    own = select(rows, "smoothing", "averaging", "method")
    own = own[own["smoothing"].isin([0.0, 1.0]) & own["method"].isin(["p-SGD", "unif-SGD"])]
    name = "smoothing " + own["smoothing"].map("{:g}".format) + ", " + own["averaging"]
    own = own.assign(variant=name.where(own["method"].eq("p-SGD"), "unif-SGD"))
    own = own.drop_duplicates(["dataset", "variant", "seed"])
    return [
        levels(own, "variant", "budget"),
        said(against(own, "variant", "unif-SGD")),
        "Entropy of the counts (at most ln 1000 = 6.908):",
        levels(own, "variant", "budget", "entropy"),
    ]


def schedules(rows: pd.DataFrame) -> list[str]:
    """(f) Schedules that know the budget against those that do not."""
    own = select(rows, "schedule", "schedule_horizon", "warmup")
    own = own.assign(rate=own["schedule"] + " over the " + own["schedule_horizon"].map(
        {"budget": "budget", "full": "full run"}))  # fmt: skip
    if "warmup" in own:
        own["rate"] += own["warmup"].map(lambda share: f", {share:.0%} warm-up" if share else "")
    return [levels(own, "rate", "budget"), said(against(own, "rate", "linear over the budget"))]


def optimiser(rows: pd.DataFrame) -> list[str]:
    """(g) The paper's methods under AdamW."""
    if "optimiser" not in rows:
        return ["Not run yet."]
    own = select(rows, "method", optimiser="adamw")
    return [levels(own, "method", "budget"), said(against(own, "method", "unif-SGD"))]


SECTIONS: dict[str, tuple[str, str, Callable[[pd.DataFrame], list[str]]]] = {
    "a": ("A fixed subset against redrawing",
          "`random-subset` trains on one random part of the images, `unif-SGD` redraws a part of "
          "the same size every epoch.", subset),
    "b": ("The paper's methods against uniform draws",
          "Equal iterations is the paper's budget; at equal flops selective backprop pays for the "
          "forward passes with which it chooses.", methods),
    "c": ("Variety against the length of training",
          "`unif-SGD` at budget 0.3 under each augmentation, for full lengths of 10 to 1,000 "
          "epochs: 3 to 300 visits an image.", variety),
    "d": ("Whose credit under RICAP",
          "p-SGD with RICAP at budget 0.3: the statistic of a patched image goes to the row's own "
          "sample (`row`, as published), to the largest patch, or to all by their area.", credit),
    "e": ("Smoothing and averaging of p-SGD", "p-SGD at budget 0.3.", evenness),
    "f": ("Schedules that know the budget, and those that do not",
          "`unif-SGD` at budget 0.3: the rate falls over the budget, or over the full run, of "
          "which the budget is only the first part. REX stays high for longer and then falls "
          "faster (Chen et al., MLSys 2022); a warm-up takes the first tenth.", schedules),
    "g": ("AdamW in place of SGD with momentum",
          "The draws that only train, at budget 0.3, with a rate of 0.001 and a decay of 0.05, "
          "which were not tuned.", optimiser),
}  # fmt: skip


def findings(rows: pd.DataFrame) -> str:
    """Write docs/findings.md."""
    source = "Made by `python -m experiments`; every run is a row of `experiments/results`."
    parts = ["# What was found in the scale model", HOW, f"{provenance(rows)}. {source}",
             _calibration(rows), _missing(rows)]  # fmt: skip
    for letter, (title, compared, write) in SECTIONS.items():
        parts += [f"## ({letter}) {title}", compared, *write(rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _calibration(rows: pd.DataFrame) -> str:
    """State whether the network memorises its training set."""
    full = select(rows, "augmentation", "budget")
    full = full[full["budget"].eq(1) & full["augmentation"].eq("none")]
    if full.empty:
        return ""
    reached = full.groupby("dataset", sort=False)["train_accuracy"].min()
    each = ", ".join(f"{100 * least:.1f}% on `{name}`" for name, least in reached.items())
    return (
        "Learned by heart: without augmentation the full run ends with at least "
        f"{each} of its training images right (smallest of {full['seed'].nunique()} seeds)."
    )


def _missing(rows: pd.DataFrame) -> str:
    """List lengths with fewer than ten seeds so far."""
    own = select(rows, "augmentation", "epochs", method="unif-SGD")
    counts = own.groupby(["dataset", "epochs"])["seed"].nunique()
    few = [f"{name} at {epochs} epochs: {n}" for (name, epochs), n in counts.items() if n < SEEDS]
    return f"Seeds that are in where ten are planned: {'; '.join(few)}." if few else ""


def league(rows: pd.DataFrame) -> str:
    """Write docs/league.md: every method, and the paper's under every augmentation."""
    parts = ["# Every method at equal cost", HOW]
    own = select(rows, "method", "budget", "budget_unit")
    own = own[own["budget"].isin(BUDGETS)]
    for unit in ("iterations", "flops"):
        # A method without extra forward passes costs the same in both units.
        same = own["method"].isin(CHARGED) if unit == "flops" else True
        here = own[own["budget_unit"].eq(unit) & same | own["method"].eq("unif-SGD")]
        table = against(here, "method", "unif-SGD", ["dataset", "budget"])
        parts += [f"## At equal {unit}", CHARGE] if unit == "flops" else [f"## At equal {unit}"]
        parts += ["Not run yet."] if table.empty else [_ranked(table), *_not_run(table, unit)]
    grid = select(rows, "method", "augmentation")
    grid = grid[grid["method"].isin(METHODS)]
    table = against(grid, "method", "unif-SGD", ["dataset", "augmentation"])
    parts.append("## The paper's methods under each augmentation, budget 0.3")
    parts += ["Not run yet."] if table.empty else [_ranked(table)]
    return "\n\n".join(parts) + "\n"


def _not_run(table: pd.DataFrame, unit: str) -> list[str]:
    """Return a sentence for each data set and budget that lacks methods of the league."""
    planned = list(dict.fromkeys(
        [*METHODS[1:], "random-subset", *(one["method"] for one in LEAGUE)]
    )) if unit == "iterations" else CHARGED  # fmt: skip
    found = []
    for dataset, budget in itertools.product(dict.fromkeys(table["dataset"]), BUDGETS):
        here = table[table["dataset"].eq(dataset) & table["budget"].eq(budget)]
        missing = [f"`{name}`" for name in planned if name not in set(here["method"])]
        if missing:
            found.append(f"Not run yet on {dataset} at budget {budget:g}: {', '.join(missing)}.")
    return found


CHARGE = """Methods that look at samples or score them first, with that taken out of the budget.
Those that only train spend the same in both units and stand above."""


def _ranked(table: pd.DataFrame) -> str:
    columns = [c for c in ("dataset", "augmentation", "budget") if c in table]
    shown = table.sort_values([*columns, "difference"], ascending=[True] * len(columns) + [False])
    shown = shown.assign(
        **{"accuracy %": [number(v) for v in shown["mean"]],
           "difference from unif-SGD (95%), verdict": shown.apply(interval, axis=1)}
    )  # fmt: skip
    return analysis.markdown(
        shown[[*columns, "method", "n", "accuracy %", "difference from unif-SGD (95%), verdict"]]
    ).rstrip()


def figures(rows: pd.DataFrame, folder: Path) -> None:
    """Draw the crossing curve and the map."""
    import matplotlib.pyplot as plt

    curve = lengths(rows)
    names = list(dict.fromkeys(curve["dataset"]))
    if names:
        figure, axes = plt.subplots(
            1, len(names), figsize=(5.5 * len(names) + 2, 4), squeeze=False, layout="constrained"
        )
        for ax, name in zip(axes[0], names, strict=True):
            plots.crossing(curve[curve["dataset"] == name], ax=ax)
            ax.set_title(f"{name}\n{ax.get_title(loc='left')}", loc="left")
            if ax is not axes[0, -1]:  # one legend is enough
                ax.get_legend().remove()
        figure.savefig(folder / "crossing.png", dpi=110)
        plt.close(figure)
    table = map_table(rows)
    # README shows only the paper's methods, to fit its first screen.
    for name, some in (("map", table), ("map_paper", table[table["method"].isin(PAPER)])):
        if not some.empty:
            figure = plots.importance_map(some).figure
            figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
            plt.close(figure)


def main(arguments: Iterable[str] | None = None) -> int:
    """Write the pages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=RESULTS / "scale_model.csv")
    parser.add_argument("--out", type=Path, default=DOCS)
    given = parser.parse_args(None if arguments is None else list(arguments))
    rows = read(given.table)
    (given.out / "images").mkdir(parents=True, exist_ok=True)
    for name, text in (("findings", findings(rows)), ("map", importance_map(rows)),
                       ("league", league(rows))):  # fmt: skip
        write_atomically(given.out / f"{name}.md", text.encode())
    figures(rows, given.out / "images")
    table = map_table(rows)
    shipped = table.reindex(columns=SHIPPED).replace(SHORT)
    target = SHIPPED_MAP if given.out == DOCS else given.out / SHIPPED_MAP.name
    write_atomically(target, shipped.to_csv(index=False, float_format="%.5g").encode())
    print(f"{len(rows)} runs, {len(table)} cells of the map with {FEWEST} seeds or more")
    return 0


if __name__ == "__main__":
    assert set(SECTIONS) == set(FINDINGS)
    sys.exit(main())
