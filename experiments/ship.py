"""Update the tables that the course reads, and the findings in README.md.

    python -m experiments.ship [--table NEWER.csv] [--networks NEWER.csv] [--kept FOLDER...]

Writes ``notebooks/records/scale_model.csv`` (the columns that the course uses),
``departures.csv`` and ``reproduction.csv``, and the findings in README.md. ``--table`` first
replaces the table of the scale model by a newer one, ``--networks`` that of other networks, and
the pages and the card are rebuilt. ``--kept``, the folders of ``python -m experiments --keep``,
also rebuilds the thinned copy of one record and the model of ``will_it_pay``.
"""

import argparse
import itertools
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from budgetlab import analysis
from budgetlab.course import select
from budgetlab.course.results import averages
from budgetlab.errors import counted
from budgetlab.records import open_records, thin, write_atomically
from experiments import card, fit_probe, maps, pages
from experiments.plans import BUDGETS, LEAGUE, LENGTHS, NOISES
from experiments.tables import (
    RESULTS,
    SEEDS,
    SETTINGS,
    against,
    interval,
    listed,
    number,
    provenance,
    read,
)

RECORDS = Path(__file__).parents[1] / "notebooks" / "records"

# Without data_seed, which equals the seed: as a setting, it would split the conditions.
COLUMNS = ["dataset", "entry", *(name for name in SETTINGS if name != "data_seed"),
           "test_accuracy", "train_accuracy", "steps", "trained_samples", "looked_samples",
           "flops", "entropy", "coverage"]  # fmt: skip
NAMES = {"shapes": "shapes", "cifar10-jpeg": "photographs"}
README = Path(__file__).parents[1] / "README.md"
MARKS = {part: (f"<!-- {part}: python -m experiments.ship -->\n", f"<!-- end of the {part} -->\n")
         for part in ("table", "findings", "runs", "gaps")}  # fmt: skip
README_RUNS = {
    "full unif-SGD": "the full run, `unif-SGD`",
    "unif-SGD": "`unif-SGD`, redrawn every epoch",
    "random-subset": "a fixed random subset",
    "SGD": "`SGD`, plain passes",
    "p-SGD": "`p-SGD`",
    "c-SGD": "`c-SGD`",
    "selective-backprop": "selective backprop",
    "selective-backprop, equal flops": "selective backprop, equal flops",
}
SEEKING = {"loss": "drawing by the loss", "p-SGD, sharp": "a sharp p-SGD",
           "selective-backprop, equal flops": "selective backprop"}  # fmt: skip
RECORDED = "p-SGD"
COPIED = ("departures.csv", "reproduction.csv")


def shipped(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the columns that the course reads, sorted independently of the order of the runs."""
    by = [name for name in COLUMNS if name in ("dataset", "entry", *SETTINGS)]
    return rows[COLUMNS].sort_values(by, ignore_index=True)


def readme_table(rows: pd.DataFrame) -> str:
    """Format README's table of methods at budget 0.3 against uniform draws."""
    levels = averages(_runs(rows), ["dataset", "run"]).set_index(["dataset", "run"])
    gaps = differences(rows)
    lines = []
    for run, said in README_RUNS.items():
        line = {"budget 30%": said}
        for dataset in NAMES:
            at = levels.loc[dataset, run]
            gap = gaps.loc[dataset, run] if (dataset, run) in gaps.index else None
            line[f"`{dataset}`, accuracy %"] = (
                f"{number(at['mean'])} ± {number(at['spread'])} ({at['n']:.0f})"
            )
            line[f"`{dataset}`, difference"] = "" if gap is None else interval(gap)
        lines.append(line)
    return analysis.markdown(pd.DataFrame(lines))


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare README's runs with uniform draws; questions are those of docs/findings.md."""
    runs = _runs(rows)
    both = ["SGD", "p-SGD", "c-SGD"]
    questions = [["full unif-SGD"], ["random-subset"], [*both, "selective-backprop, equal flops"],
                 [*both, "selective-backprop"]]  # fmt: skip
    found = [
        against(runs[runs["run"].isin(["unif-SGD", *some])], "run", "unif-SGD")
        for some in questions
    ]
    last = pd.concat(found).drop_duplicates(["dataset", "run"], keep="last")
    return last.set_index(["dataset", "run"])


def _runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the runs at budget 0.3 and the full ones, with their names in README."""
    own = select(rows, "method", "budget_unit", budget=[0.3, 1.0])
    return own.assign(run=[_run(row) for row in own.to_dict("records")])


def _run(row: dict[str, object]) -> str:
    """Name a run for README: its method, its budget unit, and whether it is the full run."""
    if row["budget"] == 1.0:
        return f"full {row['method']}"
    return f"{row['method']}, equal flops" if row["budget_unit"] == "flops" else str(row["method"])


def findings(rows: pd.DataFrame, probe: dict[str, Any]) -> str:
    """Write README's list of findings, with their numbers."""
    gaps = differences(rows).swaplevel()
    pooled = maps.pooled(rows)
    noisy = pooled[pooled["label_noise"].gt(0)].groupby("entry")
    lost = "; ".join(f"{name}, {_range(noisy.get_group(entry))}" for entry, name in SEEKING.items())
    noisiest = pooled[pooled["label_noise"].eq(max(NOISES)) & pooled["entry"].eq("c-SGD")]
    cells = maps.map_table(rows)
    cells = cells[cells["imbalance"].eq(100) & cells["label_noise"].eq(0)]
    rare = cells.set_index(["entry", "dataset"])
    points = [
        "**Redrawing costs little, a fixed subset costs a lot.** A third of the training keeps "
        "most of the accuracy if the third is drawn anew every epoch. Compared with that, a subset "
        f"that stays the same {_each(gaps.loc['random-subset'])}.",
        "**Which samples are drawn hardly matters on clean, balanced data.** Compared with uniform "
        f"draws, p-SGD {_each(gaps.loc['p-SGD'])}, and c-SGD {_each(gaps.loc['c-SGD'])}.",
        "**Choosing is not free.** Selective backprop makes more than three forward passes for "
        "each sample that it trains on. When they are charged, it "
        f"{_each(gaps.loc['selective-backprop, equal flops'])}.",
        "**Wrong labels turn the choice against you.** With 10% to 40% of the labels wrong, these "
        "are the changes in points, averaged over the rows of the map (at least "
        f"{pooled['n'].min()} seeds; *sharp* means little smoothing): {lost}. At 40%, c-SGD, which "
        f"avoids samples that the network keeps getting wrong, "
        f"{_each(noisiest.set_index('dataset'))}.",
        "**Rare classes are where importance may pay.** Compared with uniform draws, when labels "
        "are clean and the largest class is 100 times the size of the smallest, a sharp p-SGD "
        f"{_each(rare.loc['p-SGD, sharp'])}, and c-SGD {_each(rare.loc['c-SGD'])} (at least "
        f"{rare['n'].min()} seeds).",
        prediction_sentence(probe),
        "**Variety needs time.** In short trainings accuracy is highest without augmentation; as "
        "training gets longer, the order reverses ([the crossing curve](docs/findings.md)).",
    ]  # fmt: skip
    return "\n".join(textwrap.fill(f"- {text}", 100, subsequent_indent="  ", break_long_words=False,
                                   break_on_hyphens=False) for text in points) + "\n"  # fmt: skip


def _each(gaps: pd.DataFrame) -> str:
    """Describe a method against uniform draws, a clause per data set, without repeating verbs."""
    clauses: list[str] = []
    before = None
    for name in (name for name in NAMES if name in gaps.index):
        gap = gaps.loc[name]
        low, high = (number(gap[end], sign=True) for end in ("ci_low", "ci_high"))
        size = number(abs(gap["difference"]))
        verb, again = {
            "better": (f"gains {size} points ", f"{size} "),
            "worse": (f"loses {size} points ", f"{size} "),
            "equivalent": ("is equivalent ", ""),
            "undecided": ("is undecided ", ""),
        }.get(gap["verdict"], (f"has {gap['n']} seeds and no verdict yet ", ""))
        clauses.append(
            f"{again if gap['verdict'] == before else verb}on {NAMES[name]} ({low} to {high})"
        )
        before = gap["verdict"]
    return " and ".join(clauses)


def _range(gaps: pd.DataFrame) -> str:
    """Format the smallest and the largest difference by data set."""
    by = gaps.groupby("dataset")["difference"].agg(["min", "max"])
    return " and ".join(
        f"{number(by['min'][name], sign=True)} to {number(by['max'][name], sign=True)} "
        f"on {NAMES[name]}"
        for name in NAMES
        if name in by.index
    )


def prediction_sentence(probe: dict[str, Any]) -> str:
    """Describe what ``will_it_pay`` predicts, and its accuracy on held-out data."""
    fits = [(entry, outcome, fit["right"]) for entry, own in probe["entries"].items()
            for outcome, fit in own["outcomes"].items() if fit["predicts"]]  # fmt: skip
    if not fits:
        return ("**A short uniform run predicts neither gains nor losses.** Nothing that "
                "`bl.analysis.will_it_pay(record)` sees in it does.")  # fmt: skip
    only_losses = all(outcome == "lose" for _, outcome, _ in fits)
    parts = []
    for outcome, verb in (("lose", "will lose"), ("gain", "will gain")):
        names = [SEEKING.get(entry, entry) for entry, what, _ in fits if what == outcome]
        if names:
            parts.append(f"whether {listed(names, 'or')} {verb}")
    said = [
        f"**A short uniform run predicts {'losses rather than gains' if only_losses else 'a part'}"
        ".** From its losses, margins, copies and class sizes, `bl.analysis.will_it_pay(record)` "
        f"forecasts {' and '.join(parts)}. It is right on {_shares(fits, 'cells')} of the map's "
        "cells that were left out of the fit (always giving the more frequent answer: "
        f"{_shares(fits, 'constant')}), but on {_shares(fits, 'data sets')} when a whole data "
        "set is left out."
    ]
    tried = [one for one in fits if "networks" in one[2]]
    if tried:
        said.append(
            f"With {listed((f'`{name}`' for name in probe['networks']), 'and')}, "
            f"{'a network' if len(probe['networks']) == 1 else 'networks'} that the fit had not "
            f"seen, it was right on {_shares(tried, 'networks')} of "
            f"{max(one[2]['networks cells'] for one in tried)} cells (the more frequent answer: "
            f"{_shares(tried, 'networks constant')})."
        )
    if only_losses:
        said.append("Gains could not be predicted.")
    return " ".join([*said, "The forecast is printed with these figures."])


def _shares(fits: Sequence[tuple[str, str, dict[str, float]]], name: str) -> str:
    shares = [f"{right[name]:.0%}" for *_, right in fits if name in right]
    low, high = min(shares, key=_percent), max(shares, key=_percent)
    return low if low == high else f"{low} to {high}"


def _percent(text: str) -> int:
    return int(text.rstrip("%"))


def _span(seeds: pd.Series) -> str:
    ends = sorted({seeds.min(), seeds.max()}) if len(seeds) else ["none"]
    return " to ".join(map(str, ends))


def gaps(rows: pd.DataFrame) -> str:
    """List the number of seeds of each part with fewer than planned."""
    lengths = select(rows, "augmentation", "epochs", method="unif-SGD")
    by = lengths.groupby(["epochs", "dataset", "augmentation"])["seed"].nunique()
    least = by.groupby("epochs").min().reindex(LENGTHS, fill_value=0)
    few = [f"{epochs:,} epochs have {n or 'none'}" for epochs, n in least.items() if n < 10]
    newer = select(rows, "method", "budget_unit", "budget")
    newer = newer[newer["method"].isin({one["method"] for one in LEAGUE})]
    more, less = newer["budget"].eq(max(BUDGETS)), newer["budget"].eq(min(BUDGETS))
    seeds = newer[more].groupby(["dataset", "method", "budget_unit"])["seed"].nunique()
    cells = maps.map_table(rows)["n"]
    whole = f"{cells.ge(SEEDS).sum()} of the {len(cells)}"
    on_map = "All" if cells.ge(SEEDS).all() else whole
    rest = "" if cells.ge(SEEDS).all() else f"; the others have at least {cells.min()}"
    lower = newer[less].groupby(["dataset", "method", "budget_unit"])["seed"].nunique()
    at_scale = read(RESULTS / "paper.csv")
    made = counted(len(at_scale), "run") if len(at_scale) else "no runs"
    text = (
        "The findings have ten seeds each"
        f"{', except that trainings of ' + listed(few, 'and') if few else ''}. {on_map} "
        f"comparisons of the map have the ten seeds that a verdict requires{rest}. The other "
        f"methods of [docs/league.md](docs/league.md) were run with {_span(seeds)} seeds at 30% of "
        f"the training and {_span(lower)} at 20%. At the paper's own scale, {made} have been "
        "made, on a GPU that was on loan for three quarters of an hour in all; every other cell of "
        "the reproduction card says *not run yet* ([docs/gpu.md](docs/gpu.md) has the results, the "
        "speed, and the command that continues the runs)."
    )
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False) + "\n"


def write_readme(rows: pd.DataFrame, probe: dict[str, Any], readme: Path = README) -> None:
    """Update the generated sections of README.md from the table."""
    text = readme.read_text(encoding="utf-8")
    runs = (
        "Every run is a row of\n[experiments/results/scale_model.csv](experiments/results/"
        f"scale_model.csv):\n{provenance(rows)}.\n"
    )
    parts = {"table": readme_table(rows), "findings": findings(rows, probe), "runs": runs,
             "gaps": gaps(rows)}  # fmt: skip
    for part, (begin, end) in MARKS.items():
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{parts[part]}\n{end}{rest.split(end)[1]}"
    write_atomically(readme, text.encode())


def ship_record(kept: Sequence[Path]) -> None:
    """Write a thinned record of p-SGD on photographs: budget 0.3, seed 0, no images."""
    wanted = [
        record
        for record in itertools.chain.from_iterable(map(open_records, kept))
        if record.config["seed"] == 0
        and record.about["data"]["name"] == "cifar10-jpeg"
        and len(select(pd.DataFrame([dict(record.config)]), method=RECORDED))
    ]
    if len(wanted) != 1:
        where = listed(kept, "and")
        raise SystemExit(f"{where}: {len(wanted)} records of {RECORDED} where 1 is wanted")
    target = RECORDS / f"cifar10-jpeg-{RECORDED}"
    shutil.rmtree(target, ignore_errors=True)
    thin(wanted[0], target, samples=None, epochs=None)
    # Do not publish local paths.
    about = json.loads((target / "record.json").read_text())
    about["config"] |= {"dataset": "folder:data/cifar10-jpeg", "data_root": "data", "out": "runs"}
    about["summary"]["record"] = Path(about["summary"]["record"]).name
    write_atomically(target / "record.json", json.dumps(about, indent=1).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, help="a newer scale_model.csv")
    parser.add_argument("--networks", type=Path, help="a newer networks.csv")
    parser.add_argument("--kept", type=Path, nargs="+", help="folders of kept records")
    given = parser.parse_args(arguments)
    table = RESULTS / "scale_model.csv"
    for newer, shipped_as in ((given.table, table), (given.networks, RESULTS / "networks.csv")):
        if newer:
            write_atomically(shipped_as, newer.read_bytes())
    if given.kept:
        fit_probe.main(["--table", str(table), "--features", str(RESULTS / "features.csv"),
                        "--records", *map(str, given.kept)])  # fmt: skip
        ship_record(given.kept)
    if given.table:
        pages.main([])
    card.main()
    write_readme(read(table), json.loads(fit_probe.OUT.read_text(encoding="utf-8")))
    rows = shipped(read(table))
    text = rows.to_csv(index=False, float_format="%.6g")
    write_atomically(RECORDS / "scale_model.csv", text.encode())
    for name in COPIED:
        shutil.copy(RESULTS / name, RECORDS)
    print(f"{len(rows)} runs of the scale model, {', '.join(COPIED)}: {RECORDS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
