"""Write the pages and figures of the scale model: docs/findings.md, map.md and league.md.

    python -m experiments.pages [--table experiments/results/scale_model.csv]

Missing runs are listed as missing; nothing is estimated.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from budgetlab import analysis, plots
from budgetlab.analysis.conditions import label
from budgetlab.course.results import averages, select
from budgetlab.errors import counted
from budgetlab.records import write_atomically
from experiments.maps import HOW, importance_map, level, made, map_table, rank
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
    listed,
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
    table["column"] = [label(row, ["dataset", by]) for row in table.to_dict("records")]
    wide = table.pivot(index=name, columns="column", values="cell")
    columns = in_order(table, ["dataset", by], rows)["column"].unique()
    wide = wide.loc[table[name].unique(), columns].fillna("")
    return analysis.markdown(wide.reset_index()).rstrip()


def in_order(table: pd.DataFrame, by: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
    """Sort a table by columns: numbers by value, names as they first appear in ``rows``."""

    def place(column: pd.Series) -> pd.Series:
        named = not is_numeric_dtype(column)
        return column.map(rank(rows[column.name])) if named else column

    return table.sort_values(list(by), key=place, kind="stable")


def said(
    rows: pd.DataFrame,
    name: str,
    baseline: str,
    by: Sequence[str] = ("dataset",),
    only: Sequence[str] = (),
) -> str:
    """Compare values of a column with a baseline, in a list of sentences, or ``only`` some."""
    table = against(rows, name, baseline, by)
    if table.empty:
        return "Not run yet."
    shown = table[table[name].isin(only)] if only else table
    return "\n".join(f"- {text}" for text in in_order(shown, [*by, name], rows)["sentence"])


def subset(rows: pd.DataFrame) -> list[str]:
    """(a) A fixed subset against redrawing."""
    own = select(rows, "method", "budget")
    own = own[own["method"].isin(["unif-SGD", "random-subset"]) & own["budget"].isin([*BUDGETS, 1])]
    at = own[own["budget"] < 1]
    return [levels(own, "method", "budget"),
            said(at, "method", "unif-SGD", ["dataset", "budget"])]  # fmt: skip


def methods(rows: pd.DataFrame) -> list[str]:
    """(b) The paper's methods at equal iterations and equal flops."""
    parts = []
    own = select(rows, "method", "budget", "budget_unit")
    own = own[own["method"].isin(METHODS) & own["budget"].isin(BUDGETS)]
    for unit in ("iterations", "flops"):
        # Methods without extra forward passes take the same steps at equal flops.
        same = own["budget_unit"].eq(unit) | ~own["method"].eq("selective-backprop")
        here = own[same & (own["budget_unit"].eq(unit) | own["budget_unit"].eq("iterations"))]
        only = METHODS if unit == "iterations" else ("selective-backprop",)
        parts += [f"At equal {unit}:", levels(here, "method", "budget"),
                  said(here, "method", "unif-SGD", ["dataset", "budget"], only)]  # fmt: skip
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
        full[full["augmentation"].eq("standard")].assign(run="the full run with `standard`"),
        select(rows, augmentation="ricap").assign(run="RICAP at a budget of 30%"),
    ])  # fmt: skip
    return [
        "![Accuracy over the length of training, one line per augmentation](images/crossing.png)",
        *(levels(part, "augmentation", "epochs") for _, part in own.groupby("dataset", sort=False)),
        "Compared with `standard` at each length:",
        said(own, "augmentation", "standard", ["dataset", "epochs"]),
        "Does RICAP at a budget of 30% keep the accuracy of the full run with `standard`? At 100 "
        "epochs:",
        said(kept, "run", "the full run with `standard`"),
    ]


def credit(rows: pd.DataFrame) -> list[str]:
    """(d) The credit rules under RICAP."""
    own = select(rows, "credit", method="p-SGD", augmentation="ricap")
    return [
        levels(own, "credit", "budget"),
        said(own, "credit", "row"),
        ENTROPY,
        levels(own, "credit", "budget", "entropy"),
    ]


def evenness(rows: pd.DataFrame) -> list[str]:
    """(e) Smoothing and averaging of p-SGD."""
    own = select(rows, "smoothing", "averaging", "method")
    own = own[own["smoothing"].isin([0.0, 1.0]) & own["method"].isin(["p-SGD", "unif-SGD"])]
    kept = own["averaging"].map({"lifetime": "lifetime mean", "last": "last value"})
    name = "smoothing " + own["smoothing"].map("{:g}".format) + ", " + kept
    own = own.assign(variant=name.where(own["method"].eq("p-SGD"), "unif-SGD"))
    own = own.drop_duplicates(["dataset", "variant", "seed"])
    return [
        levels(own, "variant", "budget"),
        said(own, "variant", "unif-SGD"),
        ENTROPY,
        levels(own, "variant", "budget", "entropy"),
    ]


def schedules(rows: pd.DataFrame) -> list[str]:
    """(f) Schedules that know the budget against those that do not."""
    own = select(rows, "schedule", "schedule_horizon", "warmup")
    over = " over the " + own["schedule_horizon"].map({"budget": "budget", "full": "full run"})
    own = own.assign(rate=own["schedule"] + over.where(own["schedule"].ne("constant"), ""))
    if "warmup" in own:
        own["rate"] += own["warmup"].map(lambda s: f" after a warm-up of {s:.0%}" if s else "")
    return [levels(own, "rate", "budget"), said(own, "rate", "linear over the budget")]


def optimiser(rows: pd.DataFrame) -> list[str]:
    """(g) The paper's methods under AdamW."""
    if "optimiser" not in rows:
        return ["Not run yet."]
    own = select(rows, "method", optimiser="adamw")
    return [levels(own, "method", "budget"), said(own, "method", "unif-SGD")]


SECTIONS: dict[str, tuple[str, str, Callable[[pd.DataFrame], list[str]]]] = {
    "a": ("A fixed subset against redrawing",
          "`random-subset` trains on the same random part of the images throughout; `unif-SGD` "
          "draws a new part of the same size every epoch.", subset),
    "b": ("The paper's methods against uniform draws",
          "Equal iterations is how the paper counts the budget. At equal flops, selective backprop "
          "also pays for the forward passes with which it chooses.", methods),
    "c": ("Variety against the length of training",
          "`unif-SGD` at a budget of 30% with each augmentation, for full runs of 10 to 1,000 "
          "epochs, which is 3 to 300 visits per image.", variety),
    "d": ("Which sample gets the credit under RICAP",
          "p-SGD with RICAP at a budget of 30%. The result on a patched image is credited to the "
          "sample drawn for that row of the batch (`row`, as published), to the sample with the "
          "largest patch (`dominant`), or to all four in proportion to area (`weighted`).", credit),
    "e": ("Smoothing and averaging of p-SGD",
          "p-SGD at a budget of 30%, drawing by the lifetime mean of each sample's 1 − p or by its "
          "last value, with and without smoothing. The published version smooths the lifetime "
          "mean.", evenness),
    "f": ("Schedules that know the budget, and those that do not",
          "`unif-SGD` at a budget of 30%. The learning rate falls over the budget, or over the "
          "full run, of which the budget is only the first part. REX stays high for longer and "
          "then falls faster (Chen et al., MLSys 2022); the warm-up takes the first tenth of the "
          "budget. Over the full run, the step schedule would take its first step only after the "
          "budget is spent, so it equals the constant rate.", schedules),
    "g": ("AdamW instead of SGD with momentum",
          "Methods without extra forward passes, at a budget of 30%, with a learning rate of 0.001 "
          "and a weight decay of 0.05, neither of which was tuned.", optimiser),
}  # fmt: skip
ENTROPY = "Entropy of how often each image was trained on (at most ln 1,000 = 6.908):"


def findings(rows: pd.DataFrame) -> str:
    """Write docs/findings.md."""
    parts = ["# What was found in the scale model", HOW, made(rows), _calibration(rows),
             _missing(rows)]  # fmt: skip
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
    each = listed((f"{100 * least:.1f}% on `{name}`" for name, least in reached.items()), "and")
    return (
        "The network does memorise its training set: after the full run without augmentation, its "
        f"training accuracy is {each} (the lowest of {counted(full['seed'].nunique(), 'seed')})."
    )


def _missing(rows: pd.DataFrame) -> str:
    """List lengths with fewer than ten seeds so far."""
    own = select(rows, "augmentation", "epochs", method="unif-SGD")
    counts = own.groupby(["dataset", "epochs"])["seed"].nunique()
    few = [f"{name} at {epochs:,} epochs ({n})"
           for (name, epochs), n in counts.items() if n < SEEDS]  # fmt: skip
    return f"Fewer than the ten planned seeds so far: {', '.join(few)}." if few else ""


def league(rows: pd.DataFrame) -> str:
    """Write docs/league.md: every method, and the paper's under every augmentation."""
    parts = ["# Every method at equal cost", HOW, made(rows, " --parts a b c league grid")]
    own = select(rows, "method", "budget", "budget_unit")
    own = own[own["budget"].isin(BUDGETS)]
    for unit in ("iterations", "flops"):
        # A method without extra forward passes costs the same in both units.
        same = own["method"].isin(CHARGED) if unit == "flops" else True
        here = own[own["budget_unit"].eq(unit) & same | own["method"].eq("unif-SGD")]
        table = against(here, "method", "unif-SGD", ["dataset", "budget"])
        parts += [f"## At equal {unit}", COUNTED[unit]]
        parts += ["Not run yet."] if table.empty else [_ranked(table, rows), *_not_run(table, unit)]
    grid = select(rows, "method", "augmentation")
    grid = grid[grid["method"].isin(METHODS)]
    table = against(grid, "method", "unif-SGD", ["dataset", "augmentation"])
    parts.append("## The paper's methods with each augmentation, at a budget of 30%")
    parts += ["Not run yet."] if table.empty else [_ranked(table, rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


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
            found.append(f"Not run yet on {dataset} at budget {budget:.0%}: {', '.join(missing)}.")
    return found


COUNTED = {
    "iterations": "Every method takes the same number of optimiser steps, those of auxiliary "
                  "networks included; extra forward passes are free.",
    "flops": "These methods look at samples or score them first, and here that comes out of the "
             "budget. Methods that only train spend the same in both units and are listed above.",
}  # fmt: skip


def _ranked(table: pd.DataFrame, rows: pd.DataFrame) -> str:
    columns = [c for c in ("dataset", "augmentation", "budget") if c in table]
    shown = table.sort_values("difference", ascending=False).pipe(in_order, columns, rows)
    shown = shown.assign(
        **{"accuracy %": shown.apply(level, axis=1),
           "difference from unif-SGD (95% CI), verdict": shown.apply(interval, axis=1)}
    )  # fmt: skip
    if "budget" in shown:
        shown["budget"] = shown["budget"].map("{:.0%}".format)
    return analysis.markdown(shown[[*columns, "method", *shown.columns[-2:]]]).rstrip()


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
