"""Write what the table of the scale model says: docs/findings.md, map.md, league.md, figures.

    python -m experiments.pages [--table experiments/results/scale_model.csv]

What has not been run is said to be missing; nothing is estimated.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from budgetlab import analysis, plots
from budgetlab.course.results import DIALS, USUAL
from budgetlab.records import write_atomically
from experiments.differences import against, averages, select
from experiments.plans import (
    BUDGETS,
    CONDITIONS,
    CORNERS,
    ENTRIES,
    FINDINGS,
    LEAGUE,
    LENGTHS,
    LOOK_OR_SCORE,
    NEWER,
    NOISES,
)
from experiments.tables import RESULTS, provenance, read

DOCS = Path(__file__).parents[1] / "docs"
METHODS = ("unif-SGD", "SGD", "p-SGD", "c-SGD", "selective-backprop")
AUGMENTATIONS = ("none", "standard", "mixup", "cutmix", "ricap", "randaugment")
CHARGED = ("selective-backprop", *LOOK_OR_SCORE)
FEWEST = 2
SHIPPED_MAP = Path(analysis.__file__).parent / "importance_map.csv"
SHIPPED = ["dataset", "redundancy", "imbalance", "label_noise", "method", "n", "baseline_mean",
           "difference", "ci_low", "ci_high", "p_corrected", "verdict"]  # fmt: skip
SHORT = {"method": {"selective-backprop, equal flops": "selective backprop"}}

HOW = """Every run is the preset `scale-model`: 1,000 training images, a network of 97,000 weights
that learns them by heart, 100 epochs at full budget where no other length is named, batches of 32,
rate 0.05 falling linearly to zero, weight decay 5e-4; test accuracy on 10,000 images after the last
epoch. Data sets: `shapes`, drawn by code, and `cifar10-jpeg`, CIFAR-10 stored as JPEG. A seed draws
the training images, the first weights, the order and the augmentation, so intervals speak of other
images too. Differences are in percentage points, paired by seed, with 95% intervals (Student's t);
*better* and *worse* are claimed after Holm's correction over the comparisons of one data set and
condition; *equivalent* means within one percentage point by two one-sided tests; everything else is
*undecided*."""


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    """Write a share as percent; nothing where there is none."""
    return "" if value != value else f"{100 * value:{'+' if sign else ''}.{digits}f}"


def level(row: pd.Series) -> str:
    """Write mean, spread and n."""
    spread = f" ± {number(row['spread'])}" if row["n"] > 1 else ""
    return f"{number(row['mean'])}{spread} (n = {row['n']})"


def interval(row: pd.Series) -> str:
    """Write a difference with its interval and verdict."""
    if not row["n"]:
        return "not run yet"
    inside = ""
    if row["ci_low"] == row["ci_low"]:
        inside = f" ({number(row['ci_low'], sign=True)} to {number(row['ci_high'], sign=True)})"
    return f"{number(row['difference'], sign=True)}{inside}, {row['verdict']}"


def levels(rows: pd.DataFrame, name: str, by: str, metric: str = "test_accuracy") -> str:
    """Write a table of averages: a row a value of ``name``, a column a data set and ``by``."""
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
    """Write the sentences of a comparison as a list."""
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
        # Methods that only train do the same steps at equal flops.
        same = own["budget_unit"].eq(unit) | ~own["method"].eq("selective-backprop")
        here = own[same & (own["budget_unit"].eq(unit) | own["budget_unit"].eq("iterations"))]
        table = against(here, "method", "unif-SGD", ["dataset", "budget"])
        if unit == "flops" and not table.empty:
            table = table[table["method"] == "selective-backprop"]
        parts += [f"At equal {unit}:", levels(here, "method", "budget"), said(table)]
    return parts


def lengths(rows: pd.DataFrame) -> pd.DataFrame:
    """Averages of every augmentation at every length: what the crossing curve shows."""
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
    """(d) Whose credit under RICAP."""
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
    own = select(rows, "schedule", "schedule_horizon")
    own = own.assign(rate=own["schedule"] + " over the " + own["schedule_horizon"].map(
        {"budget": "budget", "full": "full run"}))  # fmt: skip
    return [levels(own, "rate", "budget"), said(against(own, "rate", "linear over the budget"))]


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
          "which the budget is only the first part.", schedules),
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
    """Say whether the network learns its training set by heart."""
    full = select(rows, "augmentation", "budget")
    full = full[full["budget"].eq(1) & full["augmentation"].eq("none")]
    if full.empty:
        return ""
    reached = full.groupby("dataset", sort=False)["train_accuracy"].min()
    each = ", ".join(f"{100 * least:.1f}% on `{name}`" for name, least in reached.items())
    return (
        "By heart: without augmentation the full run ends with at least "
        f"{each} of its training images right (smallest of {full['seed'].nunique()} seeds)."
    )


def _missing(rows: pd.DataFrame) -> str:
    """Say where fewer than ten seeds are in, length by length."""
    own = select(rows, "augmentation", "epochs", method="unif-SGD")
    counts = own.groupby(["dataset", "epochs"])["seed"].nunique()
    few = [f"{name} at {epochs} epochs: {n}" for (name, epochs), n in counts.items() if n < 10]
    return f"Seeds that are in where ten are planned: {'; '.join(few)}." if few else ""


def map_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Take the runs that the map compares."""
    own = select(rows, "entry", "method", "smoothing", "averaging", "weights", "budget_unit",
                 "redundancy", "imbalance", "label_noise")  # fmt: skip
    own = own[own["entry"].isin(ENTRIES)]
    # The variants of (e) are p-SGD too, but not the published one of the map.
    published = own["smoothing"].eq(1) & own["averaging"].eq("lifetime")
    return own[published | own["entry"].eq("p-SGD, sharp")]


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Every entry against unif-SGD at each label noise, averaged over the rows of the map.

    A seed counts where all its cells are in.
    """
    by = ["dataset", "label_noise", "entry", "seed"]
    cells = map_rows(rows).groupby(by)["test_accuracy"].agg(["mean", "size"]).reset_index()
    whole = cells[cells["size"] == len(CONDITIONS) // len(NOISES)]
    averaged = whole.rename(columns={"mean": "test_accuracy"})
    return against(averaged, "entry", "unif-SGD", ["dataset", "label_noise"])


def corners() -> dict[str, dict[str, float]]:
    """The corners of the map, by what a reader calls them."""
    said = {"redundancy": "redundancy {:g}", "label_noise": "label noise {:g}",
            "imbalance": "imbalance {:g}"}  # fmt: skip
    return {
        " and ".join(text.format(corner[name]) for name, text in said.items()
                     if corner.get(name, USUAL[name]) != USUAL[name]) or "clean": corner
        for corner in CORNERS
    }  # fmt: skip


def corner_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Newer methods in the corners of the map: a row a data set and entry, a column a corner.

    A cell of which no run is in, or none with unif-SGD beside it, says so.
    """
    own = select(rows, "entry", "method", "class_shares", "budget_unit", *DIALS)
    own = own[own["entry"].isin(["unif-SGD", *NEWER])]
    found = against(own, "entry", "unif-SGD", ["dataset", *DIALS])
    cells = {
        (row["dataset"], row["entry"], *(row[name] for name in DIALS)):
            f"{interval(row)} (n = {row['n']})"
        for row in found.to_dict("records")
    }  # fmt: skip
    shown = []
    for dataset, name in itertools.product(dict.fromkeys(rows["dataset"]), NEWER):
        line = {"dataset": dataset, "method": name}
        for title, corner in corners().items():
            place = tuple((USUAL | corner)[dial] for dial in DIALS)
            line[title] = cells.get((dataset, name, *place), "not run yet")
        shown.append(line)
    return pd.DataFrame(shown, columns=["dataset", "method", *corners()])


def map_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every entry of the map against unif-SGD, cell by cell."""
    by = ["dataset", "redundancy", "imbalance", "label_noise"]
    table = against(map_rows(rows), "entry", "unif-SGD", by)
    if table.empty:
        return table
    table = table[table["n"] >= FEWEST]
    # A data set of which only the first cell is in has no map yet.
    cells = table.groupby("dataset")["label_noise"].transform("nunique")
    return table[cells > 1].reset_index(drop=True)


def importance_map(rows: pd.DataFrame) -> str:
    """Write docs/map.md."""
    table = map_table(rows)
    parts = ["# When does importance sampling pay?", HOW, PLAN]
    if table.empty:
        return "\n\n".join([*parts, "Not run yet.", *_corners(rows)]) + "\n"
    shown = table.assign(
        **{"difference (95%), verdict": table.apply(interval, axis=1),
           "accuracy of unif-SGD": [number(v) for v in table["baseline_mean"]]}
    )  # fmt: skip
    columns = ["redundancy", "imbalance", "label_noise", "entry", "n", "accuracy of unif-SGD",
               "difference (95%), verdict"]  # fmt: skip
    counts = table.groupby("entry")["verdict"].value_counts().unstack(fill_value=0)
    parts += [
        "![Differences from unif-SGD over redundancy, imbalance and label noise](images/map.png)",
        "How often each verdict was reached, over all cells and both data sets:",
        analysis.markdown(counts.reset_index()).rstrip(),
        *_by_noise(rows),
    ]
    for dataset, own in shown.groupby("dataset", sort=False):
        parts += [f"## {dataset}", analysis.markdown(own[columns]).rstrip()]
    parts += _corners(rows)
    parts.append(f"{provenance(rows)}. Made by `python -m experiments --parts map newer`.")
    return "\n\n".join(parts) + "\n"


def _corners(rows: pd.DataFrame) -> list[str]:
    """Write the table of newer methods."""
    table = corner_table(rows)
    return [
        "## Newer methods, in the corners of the map",
        "Difference from `unif-SGD` at budget 0.3 in percentage points (95%), verdict. *Equal "
        "flops*: what the scoring run or the forward passes take comes out of the budget. Claims "
        "are corrected within a cell.",
        analysis.markdown(table).rstrip(),
    ]


def _by_noise(rows: pd.DataFrame) -> list[str]:
    """Write the table that averages over redundancy and imbalance."""
    table = pooled(rows)
    if table.empty:
        return []
    wide = table.assign(said=table.apply(interval, axis=1)).pivot(
        index=["dataset", "entry"], columns="label_noise", values="said"
    )
    wide.columns = [f"label noise {noise:g}" for noise in wide.columns]
    wide.insert(0, "n", table.groupby(["dataset", "entry"])["n"].min())
    return ["## What label noise does", BY_NOISE, analysis.markdown(wide.reset_index()).rstrip()]


BY_NOISE = """Single cells have few seeds. Averaged over the six rows of a data set (redundancy 0,
0.5, 0.75 and 0.9, imbalance 10 and 100), seed by seed, a method has one difference from `unif-SGD`
a seed and level of noise. This average was decided on after the first cells had been seen."""

PLAN = """Stated before it was run: each method at budget 0.3 against `unif-SGD`, over redundancy
(the share of the training set that are copies, fifteen of each copied image) and over class
imbalance (the largest class over the smallest; the test set stays balanced), each crossed with
label noise. *sharp* is p-SGD with smoothing 0.1 and the last value in place of the mean; *unbiased*
divides each loss by its chance of being drawn; selective backprop has equal flops. Claims are
corrected within a cell, so that of the 24 cells of a data set about one may hold a claim by
chance."""


def league(rows: pd.DataFrame) -> str:
    """Write docs/league.md: every method, and the paper's under every augmentation."""
    parts = ["# Every method at equal cost", HOW]
    own = select(rows, "method", "budget", "budget_unit")
    own = own[own["budget"].isin(BUDGETS)]
    for unit in ("iterations", "flops"):
        # What a method that only trains spends is the same in both units.
        same = own["budget_unit"].eq(unit) | ~own["method"].isin(CHARGED)
        here = own[same & own["budget_unit"].isin([unit, "iterations"])]
        table = against(here, "method", "unif-SGD", ["dataset", "budget"])
        parts.append(f"## At equal {unit}")
        parts.append(
            "Not run yet." if table.empty else _ranked(pd.concat([table, _not_run(table)]))
        )
    grid = select(rows, "method", "augmentation")
    grid = grid[grid["method"].isin(METHODS)]
    table = against(grid, "method", "unif-SGD", ["dataset", "augmentation"])
    parts.append("## The paper's methods under each augmentation, budget 0.3")
    parts += ["Not run yet."] if table.empty else [_ranked(table)]
    return "\n\n".join(parts) + "\n"


def _not_run(table: pd.DataFrame) -> pd.DataFrame:
    """A row for every method of the league that has none, by data set and budget."""
    planned = dict.fromkeys([*METHODS[1:], "random-subset", *(one["method"] for one in LEAGUE)])
    known = set(zip(table["dataset"], table["budget"], table["method"], strict=True))
    cells = itertools.product(dict.fromkeys(table["dataset"]), BUDGETS, planned)
    missing = [cell for cell in cells if cell not in known]
    return pd.DataFrame(missing, columns=["dataset", "budget", "method"]).assign(n=0)


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
            ax.set_title(f"{name}: {ax.get_title(loc='left')}", loc="left")
            if ax is not axes[0, -1]:  # one legend is enough
                ax.get_legend().remove()
        figure.savefig(folder / "crossing.png", dpi=110)
        plt.close(figure)
    table = map_table(rows)
    if not table.empty:
        figure = plots.importance_map(table).figure
        figure.savefig(folder / "map.png", dpi=110, bbox_inches="tight")
        plt.close(figure)


def main(arguments: Iterable[str] | None = None) -> int:
    """Write the pages; returns the exit code."""
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
