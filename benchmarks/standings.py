"""What the league table says: ranks, differences from uniform draws, and a plain statement."""

from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from benchmarks.sittings import provenance
from budgetlab import analysis
from budgetlab.analysis.comparison import mean_interval, paired_difference
from budgetlab.records import write_atomically

__all__ = ["at_equal", "complete", "corrected", "differences", "labelled", "page", "ranks", "write"]

DOCS = Path(__file__).parents[1] / "docs"
BASELINE = "unif-SGD"
UNITS = ("iterations", "flops", "seconds")
CONFIDENCE = 0.95
FEWEST_SEEDS = 5
# What the league would be, had it all the time in the world.
AUGMENTATIONS = ("standard", "ricap", "randaugment")
BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
FIGURE = "images/league.png"


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Name each run by its method, and by its weights where it has them."""
    weighted = rows["other_settings"].str.contains("weights=unbiased")
    return rows.assign(entry=rows["method"] + np.where(weighted, ", unbiased", ""))


def at_equal(rows: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Runs to compare at an equal budget in a unit.

    A method that was run at iterations only does the same steps at equal flops.
    """
    if unit != "flops":
        return rows[rows["budget_unit"] == unit]
    own = rows[rows["budget_unit"] == "flops"]
    shared = rows[(rows["budget_unit"] == "iterations") & ~rows["entry"].isin(own["entry"])]
    return pd.concat([shared, own])


def complete(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """Accuracy by block and entry, of the seeds that every entry and block has.

    A block (augmentation, budget) that too few seeds have whole is left out, so that a table
    does not suffer from one that is still being filled.

    Returns
    -------
    wide : DataFrame
        Test accuracy in percent; rows (augmentation, budget, seed), a column an entry.
    seeds : list of int
        Fewer than :data:`FEWEST_SEEDS` where the rows do not suffice.
    """
    block = ["augmentation", "budget"]
    wide = rows.pivot_table(index=[*block, "seed"], columns="entry", values="test_accuracy")
    whole = wide.dropna()
    enough = whole.groupby(level=block)[BASELINE].transform("size") >= FEWEST_SEEDS
    whole = whole[enough]
    blocks = len(whole.groupby(level=block))
    counts = whole.groupby(level="seed").size()
    seeds = [int(seed) for seed in counts.index[counts == blocks]]
    return 100 * whole[whole.index.get_level_values("seed").isin(seeds)], seeds


def ranks(wide: pd.DataFrame) -> pd.DataFrame:
    """Mean rank of each entry, 1 the best, with its interval over seeds.

    Ranks are taken in every block (augmentation, budget, seed) and averaged within a seed;
    the interval is Student's t over seeds, which are what is repeated.
    """
    placed = wide.rank(axis=1, ascending=False)
    by_seed = placed.groupby(level="seed").mean()
    rows = []
    for entry in wide.columns:
        low, high = mean_interval(by_seed[entry].to_numpy(), CONFIDENCE)
        rows.append(
            {
                "entry": entry,
                "rank": float(by_seed[entry].mean()),
                "rank_low": low,
                "rank_high": high,
                "accuracy": float(wide[entry].mean()),
            }
        )
    return pd.DataFrame(rows).sort_values("rank", ignore_index=True)


def differences(wide: pd.DataFrame) -> pd.DataFrame:
    """Points of accuracy each entry is above uniform draws, paired by seed, Holm-corrected."""
    by_seed = wide.groupby(level="seed").mean()
    rows = []
    for entry in wide.columns.drop(BASELINE):
        found = paired_difference(by_seed[entry].to_numpy(), by_seed[BASELINE].to_numpy())
        rows.append({"entry": entry, "difference": found.difference, "low": found.low,
                     "high": found.high, "p": found.p})  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(p_corrected=corrected(table["p"]))


def corrected(p: pd.Series) -> pd.Series:
    """Holm's correction of the p values that are known; NaN where one is not."""
    known = p.dropna()
    if known.empty:
        return p
    return pd.Series(multipletests(known, method="holm")[1], known.index).reindex(p.index)


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    def between(row: pd.Series, middle: str, low: str, high: str, digits: int, sign: str) -> str:
        if np.isnan(row[middle]):
            return ""
        inside = f"{row[low]:{sign}.{digits}f} to {row[high]:{sign}.{digits}f}"
        return f"{row[middle]:{sign}.{digits}f} ({inside})"

    return pd.DataFrame(
        {
            "method": table["entry"],
            "mean rank (95% over seeds)": [
                between(r, "rank", "rank_low", "rank_high", 1, "") for _, r in table.iterrows()
            ],
            "accuracy, %": [f"{value:.1f}" for value in table["accuracy"]],
            f"points above {BASELINE} (95%)": [
                between(r, "difference", "low", "high", 1, "+") for _, r in table.iterrows()
            ],
            "p, corrected": ["" if np.isnan(p) else f"{p:.2g}" for p in table["p_corrected"]],
        }
    )


def _statement(table: pd.DataFrame, seeds: list[int]) -> str:
    """What can be claimed, in two or three sentences."""
    claimed = table[table["p_corrected"] < 1 - CONFIDENCE]
    better = claimed.loc[claimed["difference"] > 0, "entry"].tolist()
    worse = claimed.loc[claimed["difference"] < 0, "entry"].tolist()
    open_ = table["p_corrected"].notna().sum() - len(claimed)

    def those(entries: list[str]) -> str:
        return ", ".join(f"`{name}`" for name in entries) if entries else "no method"

    widest = (table["high"] - table["low"]).median() / 2
    return (
        f"Over {len(seeds)} seeds, {those(better)} can be called better than {BASELINE}, and "
        f"{those(worse)} worse. For the other {open_} the data decide nothing: the interval of "
        f"a difference reaches {widest:.1f} points to either side (median)."
    )


def _by_budget(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in percent, mean ± sd (n), a column a budget."""
    groups = rows.groupby(["augmentation", "entry", "budget"], sort=False)["test_accuracy"]
    table = groups.agg(["mean", "std", "count"]).reset_index()
    table["cell"] = [
        f"{100 * m:.1f} ± {100 * s:.1f} ({n})"
        for m, s, n in zip(table["mean"], table["std"], table["count"], strict=True)
    ]
    wide = table.pivot(index=["augmentation", "entry"], columns="budget", values="cell").fillna("")
    wide = wide.rename(columns=lambda budget: f"budget {budget:g}").reset_index()
    return wide.rename(columns={"entry": "method"})


def left_out(rows: pd.DataFrame) -> str:
    """Say which budgets have no five seeds yet, by data set and augmentation."""
    lines = []
    for dataset, of_dataset in rows.groupby("dataset", sort=False):
        equal = at_equal(of_dataset, "iterations")
        for augmentation in AUGMENTATIONS:
            group = equal[equal["augmentation"] == augmentation]
            done: set[float] = set()
            if not group.empty:
                done = set(complete(group)[0].index.get_level_values("budget"))
            missing = [f"{budget:g}" for budget in BUDGETS if budget not in done]
            if missing:
                lines.append(f"- {dataset}, {augmentation}: budget {', '.join(missing)}")
    return "\n".join(["Left out, for want of time:", "", *lines]) if lines else ""


def page(frame: pd.DataFrame) -> str:
    """Write what the table holds as Markdown."""
    rows = labelled(frame)
    introduction = INTRODUCTION.format(choosing=_when_it_chose(frame))
    parts = [introduction, *filter(None, [left_out(rows)]), f"![{ALT}]({FIGURE})"]
    for dataset, of_dataset in rows.groupby("dataset", sort=False):
        for unit in UNITS:
            equal = at_equal(of_dataset, unit)
            if equal.empty:
                continue
            for augmentation, group in equal.groupby("augmentation", sort=False):
                wide, seeds = complete(group)
                if len(seeds) < FEWEST_SEEDS:
                    continue
                table = ranks(wide).merge(differences(wide), on="entry", how="left")
                levels = wide.index.get_level_values("budget").unique()
                budgets = ", ".join(f"{b:g}" for b in sorted(levels))
                parts += [
                    f"## {dataset}, {augmentation}, at equal {unit} (budget {budgets})",
                    _statement(table, seeds),
                    analysis.markdown(_shown(table)).rstrip(),
                ]
        iterations = at_equal(of_dataset, "iterations")
        parts += [
            f"## {dataset}: accuracy at every budget, at equal iterations",
            analysis.markdown(_by_budget(iterations)).rstrip(),
        ]
    parts.append(provenance(frame))
    return "\n\n".join(parts) + "\n"


def _when_it_chose(frame: pd.DataFrame) -> str:
    """Say in how many runs, and where, grad-norm began to choose."""
    runs = frame[frame["method"] == "grad-norm"]
    chose = runs[runs["looked_samples"] > 0]
    if chose.empty:
        return "which it never did here"
    places = chose.groupby(["dataset", "augmentation"], sort=False)["budget"].unique()
    where = "; ".join(
        f"{dataset}, {augmentation}, budget {', '.join(f'{b:g}' for b in sorted(budgets))}"
        for (dataset, augmentation), budgets in places.items()
    )
    return f"which it did in {len(chose)} of {len(runs)} runs here ({where})"


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Draw differences from uniform draws at equal iterations and at equal flops."""
    import matplotlib.pyplot as plt

    rows = labelled(frame)
    rows = rows[rows["augmentation"] == "standard"]
    datasets = list(rows["dataset"].unique())
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(5.2 * len(datasets), 5.2), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    order: list[str] = []
    for axis, dataset in zip(axes[0], datasets, strict=True):
        for shift, unit, marker in ((-0.14, "iterations", "o"), (0.14, "flops", "s")):
            wide, seeds = complete(at_equal(rows[rows["dataset"] == dataset], unit))
            if len(seeds) < FEWEST_SEEDS:
                continue
            table = differences(wide).sort_values("difference")
            order = order or table["entry"].tolist()
            table = table.set_index("entry").reindex(order)
            places = np.arange(len(order)) + shift
            reach = np.stack(
                [table["difference"] - table["low"], table["high"] - table["difference"]]
            )
            axis.errorbar(table["difference"], places, xerr=reach, fmt=marker, capsize=2,
                          label=f"at equal {unit} (n = {len(seeds)})")  # fmt: skip
        axis.axvline(0, color="0.5", linewidth=1)
        axis.set(title=dataset, xlabel=f"points of test accuracy above {BASELINE}, mean and 95%",
                 yticks=np.arange(len(order)), yticklabels=order)  # fmt: skip
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].legend(loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(frame: pd.DataFrame, docs: Path = DOCS) -> None:
    """Write docs/league.md and its figure."""
    draw(frame, docs / FIGURE)
    write_atomically(docs / "league.md", page(frame).encode())


ALT = (
    "One row a method, one panel a data set: points of test accuracy above uniform draws, mean "
    "over budgets and 95% interval over seeds, once at equal iterations and once at equal flops"
)

INTRODUCTION = """# The league: every method at equal cost

The small network, 2,560 training images, 10 epochs at full budget, batch 32, learning rate 0.025
(the paper's 0.1 for batches of 128, scaled), the paper's recipe otherwise. `SGD` stands for `rs2`
too, which takes the same steps. Ranks are taken among all methods at the same data, augmentation,
budget and seed, averaged over budgets within a seed; intervals are Student's t over seeds, and p
values are paired t tests against uniform draws, Holm-corrected within a table. What a method looks
at, and what its second network costs, is charged: at equal flops such a method takes fewer steps.

What cannot be claimed: anything about longer trainings, larger networks or other data. So that it
takes no more than a few hours on two cores, much was left out, and is listed below; equal seconds
were run at budget 0.2 only, and are wall time of one run at a time on two cores. One setting of
each method was tried, its default, with the same learning rate for all (at 0.1, with these
batches of 32, accuracy scattered three times as much from seed to seed). `rho-loss` pays a fifth of
its budget for its second network, which at the smaller budgets is a handful of steps. `grad-norm`
takes plain passes until its own rule says that choosing pays,
{choosing}.

Made by `python -m benchmarks.league`; every run, with its cost, hardware and versions, is a row of
`benchmarks/results/league.csv`."""
