"""The importance map as tables and as docs/map.md, and number formats shared by all pages."""

import itertools

import pandas as pd

from budgetlab import analysis
from budgetlab.course.results import DEFAULTS, MAP_AXES, select
from experiments.plans import CONDITIONS, CORNERS, ENTRIES, NEWER, NOISES
from experiments.tables import FEWEST, against, interval, number, provenance

HOW = """Every run uses the preset `scale-model`: 1,000 training images; a network of 97,000
weights, which memorises them; 100 epochs at full budget unless another length is given; batches of
32; a learning rate that falls linearly from 0.05 to zero; and a weight decay of 5e-4. Accuracy is
measured on 10,000 test images after the last epoch. There are two data sets: `shapes`, rendered by
code, and `cifar10-jpeg`, which is CIFAR-10 stored as JPEG. The seed sets the training images, the
initial weights, the order and the augmentation, so the intervals also cover the choice of images.

Differences are in percentage points, paired by seed, with 95% intervals (Student's t). *Better* and
*worse* are claimed only if they survive Holm's correction over the comparisons within one data set
and condition. *Equivalent* means within one percentage point by two one-sided tests, corrected in
the same way. Everything else is *undecided*. A verdict requires ten seeds; with fewer, only the
difference and its interval are reported."""


def made(rows: pd.DataFrame, parts: str = "") -> str:
    """Say how many runs a page rests on, where they were made, and by which command."""
    if rows.empty:
        return ""
    return (
        f"{provenance(rows)}. Made by `python -m experiments{parts}`; every run is a row of "
        "`experiments/results/scale_model.csv`."
    )


def level(row: pd.Series) -> str:
    """Format mean, spread and n."""
    spread = f" ± {number(row['spread'])}" if row["n"] > 1 else ""
    return f"{number(row['mean'])}{spread} (n = {row['n']})"


def rank(values: pd.Series) -> dict[object, int]:
    """Return the place of each value in the order of first appearance."""
    return {value: place for place, value in enumerate(values.unique())}


def map_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the runs that the map compares."""
    own = select(rows, "entry", "method", "smoothing", "averaging", "weights", "budget_unit",
                 "redundancy", "imbalance", "label_noise")  # fmt: skip
    own = own[own["entry"].isin(ENTRIES)]
    # The variants of (e) are p-SGD too, but not the published version that the map compares.
    published = own["smoothing"].eq(1) & own["averaging"].eq("lifetime")
    return own[published | own["entry"].eq("p-SGD, sharp")]


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare entries with unif-SGD by label noise, over the map's rows; complete seeds only."""
    by = ["dataset", "label_noise", "entry", "seed"]
    cells = map_rows(rows).groupby(by)["test_accuracy"].agg(["mean", "size"]).reset_index()
    whole = cells[cells["size"] == len(CONDITIONS) // len(NOISES)]
    averaged = whole.rename(columns={"mean": "test_accuracy"})
    return against(averaged, "entry", "unif-SGD", ["dataset", "label_noise"])


def corners() -> dict[str, dict[str, float]]:
    """Return the corners of the map by readable names."""
    said = {"redundancy": "redundancy {:g}", "label_noise": "label noise {:g}",
            "imbalance": "imbalance {:g}"}  # fmt: skip
    return {
        " and ".join(text.format(corner[name]) for name, text in said.items()
                     if corner.get(name, DEFAULTS[name]) != DEFAULTS[name]) or "clean": corner
        for corner in CORNERS
    }  # fmt: skip


def corner_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Tabulate newer methods in the map's corners; cells without (paired) runs are marked."""
    own = select(rows, "entry", "method", "class_shares", "budget_unit", *MAP_AXES)
    own = own[own["entry"].isin(["unif-SGD", *NEWER])]
    found = against(own, "entry", "unif-SGD", ["dataset", *MAP_AXES])
    cells = {
        (row["dataset"], row["entry"], *(row[name] for name in MAP_AXES)):
            f"{interval(row)} (n = {row['n']})"
        for row in found.to_dict("records")
    }  # fmt: skip
    shown = []
    for dataset, name in itertools.product(dict.fromkeys(rows["dataset"]), NEWER):
        line = {"dataset": dataset, "method": name}
        for title, corner in corners().items():
            place = tuple((DEFAULTS | corner)[dial] for dial in MAP_AXES)
            line[title] = cells.get((dataset, name, *place), "not run yet")
        shown.append(line)
    return pd.DataFrame(shown, columns=["dataset", "method", *corners()])


def map_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare every entry of the map with unif-SGD, cell by cell."""
    by = ["dataset", "redundancy", "imbalance", "label_noise"]
    table = against(map_rows(rows), "entry", "unif-SGD", by)
    if table.empty:
        return table
    table = table[table["n"] >= FEWEST]
    # A data set with a single label noise has no map yet.
    cells = table.groupby("dataset")["label_noise"].transform("nunique")
    return table[cells > 1].reset_index(drop=True)


def importance_map(rows: pd.DataFrame) -> str:
    """Write docs/map.md."""
    table = map_table(rows)
    parts = ["# When does importance sampling pay?", HOW, PLAN]
    if table.empty:
        return "\n\n".join([*parts, "Not run yet.", *_corners(rows)]) + "\n"
    shown = table.assign(
        **{"difference (95% CI), verdict": table.apply(interval, axis=1),
           "accuracy of unif-SGD, %": [number(v) for v in table["baseline_mean"]],
           "label noise": table["label_noise"]}
    )  # fmt: skip
    columns = ["redundancy", "imbalance", "label noise", "method", "n", "accuracy of unif-SGD, %",
               "difference (95% CI), verdict"]  # fmt: skip
    verdicts = table["verdict"].replace("", "fewer than ten seeds")
    counts = verdicts.groupby(table["entry"]).value_counts().unstack(fill_value=0)
    parts += [
        "![Differences from unif-SGD over redundancy, imbalance and label noise](images/map.png)",
        "The number of cells with each verdict, over both data sets:",
        analysis.markdown(counts.rename_axis("method").reset_index()).rstrip(),
        *_by_noise(rows),
    ]
    for dataset, own in shown.groupby("dataset", sort=False):
        parts += [f"## {dataset}", analysis.markdown(own[columns]).rstrip()]
    parts += _corners(rows)
    parts.append(made(rows, " --parts map newer"))
    return "\n\n".join(parts) + "\n"


def _corners(rows: pd.DataFrame) -> list[str]:
    """Write the table of newer methods."""
    table = corner_table(rows)
    return [
        "## Newer methods, in the corners of the map",
        "Each entry is the difference from `unif-SGD` at a budget of 30%, in percentage points, "
        "with its 95% interval, verdict and n. At *equal flops*, the scoring run or the extra "
        "forward passes come out of the budget. Claims are corrected within a cell.",
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
    wide = wide.rename_axis(["dataset", "method"]).reset_index()
    wide = wide.sort_values("dataset", key=lambda c: c.map(rank(rows["dataset"])), kind="stable")
    return ["## What label noise does", BY_NOISE, analysis.markdown(wide).rstrip()]


BY_NOISE = """Averaged over the six rows of a data set (redundancy 0, 0.5, 0.75 and 0.9, imbalance
10 and 100), a method has one difference from `unif-SGD` for each seed and noise level. This average
was chosen after the first cells had been seen."""

PLAN = """Planned before it was run: each method at a budget of 30% against `unif-SGD`, over
redundancy (the share of the training set that consists of copies, fifteen for each copied image)
and over class imbalance (the size of the largest class over that of the smallest; the test set
stays balanced), each crossed with label noise. *Sharp* is p-SGD with smoothing 0.1 and the last
value instead of the mean; *unbiased* divides each loss by the sample's chance of being drawn;
selective backprop runs at equal flops. Claims are corrected within a cell, so about one of the 24
cells of a data set may contain a claim by chance."""
