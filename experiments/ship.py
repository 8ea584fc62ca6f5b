"""Put the tables that the course reads beside its notebooks.

    python -m experiments.ship [--table NEWER.csv] [--kept FOLDER]

Writes ``notebooks/records/scale_model.csv`` (the columns that the course uses),
``departures.csv`` and ``reproduction.csv``, and the table of results in README.md. With
``--table`` a newer table of the scale model takes the place of the old one first, and the pages
and the card are made again. With ``--kept``, the folder of ``python -m experiments --keep``,
small copies of two of its records are made anew.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from budgetlab import analysis
from budgetlab.course import select
from budgetlab.records import open_records, thin, write_atomically
from experiments import card, pages
from experiments.differences import against, averages
from experiments.tables import RESULTS, SETTINGS, read

__all__ = ["COLUMNS", "RECORDS", "readme_table", "shipped", "write_readme"]

RECORDS = Path(__file__).parents[1] / "notebooks" / "records"

# data_seed is the seed in every row: as a setting of its own it would split the conditions.
COLUMNS = ["dataset", "entry", *(name for name in SETTINGS if name != "data_seed"),
           "test_accuracy", "train_accuracy", "steps", "trained_samples", "looked_samples",
           "flops", "entropy", "coverage"]  # fmt: skip
DATASETS = ("shapes", "cifar10-jpeg")
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- table: python -m experiments.ship -->\n", "<!-- end of the table -->\n"
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
RECORDED = ("p-SGD", "c-SGD")
COPIED = ("departures.csv", "reproduction.csv")


def shipped(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the columns that the course reads, in an order that does not depend on the runs'."""
    by = [name for name in COLUMNS if name in ("dataset", "entry", *SETTINGS)]
    return rows[COLUMNS].sort_values(by, ignore_index=True)


def readme_table(rows: pd.DataFrame) -> str:
    """Write the methods at budget 0.3 against uniform draws, as README shows them."""
    own = select(rows, "method", "budget_unit", budget=[0.3, 1.0])
    own = own.assign(run=[_run(row) for row in own.to_dict("records")])
    levels = averages(own, ["dataset", "run"]).set_index(["dataset", "run"])
    gaps = against(own, "run", "unif-SGD").set_index(["dataset", "run"])
    lines = []
    for run, said in README_RUNS.items():
        line = {"budget 30%": said}
        for dataset in DATASETS:
            at = levels.loc[dataset, run]
            gap = gaps.loc[dataset, run] if (dataset, run) in gaps.index else None
            line[f"`{dataset}`, accuracy %"] = (
                f"{pages.number(at['mean'])} ± {pages.number(at['spread'])} ({at['n']:.0f})"
            )
            line[f"`{dataset}`, difference"] = "" if gap is None else pages.interval(gap)
        lines.append(line)
    return analysis.markdown(pd.DataFrame(lines))


def _run(row: dict[str, object]) -> str:
    """Name a run by what README compares: its method, its unit, and whether it is the full one."""
    if row["budget"] == 1.0:
        return f"full {row['method']}"
    return f"{row['method']}, equal flops" if row["budget_unit"] == "flops" else str(row["method"])


def write_readme(rows: pd.DataFrame, readme: Path = README) -> None:
    """Put the table of today between its two marks in README.md."""
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    text = before + BEGIN + "\n" + readme_table(rows) + "\n" + END + rest.split(END)[1]
    write_atomically(readme, text.encode())


def ship_records(kept: Path) -> None:
    """Write small copies of p-SGD and c-SGD on photographs: budget 0.3, seed 0, no images."""
    for method in RECORDED:
        wanted = [
            record
            for record in open_records(kept)
            if record.config["seed"] == 0
            and record.about["data"]["name"] == "cifar10-jpeg"
            and len(select(pd.DataFrame([dict(record.config)]), method=method))
        ]
        if len(wanted) != 1:
            raise SystemExit(f"{kept} holds {len(wanted)} records of {method} where 1 is wanted")
        target = RECORDS / f"cifar10-jpeg-{method}"
        shutil.rmtree(target, ignore_errors=True)
        thin(wanted[0], target, samples=None, epochs=10)
        # Where the data lay, and where the run was written, is nobody else's concern.
        about = json.loads((target / "record.json").read_text())
        about["config"] |= {"dataset": "folder:data/cifar10-jpeg", "data_root": "data",
                            "out": "runs"}  # fmt: skip
        about["summary"]["record"] = Path(about["summary"]["record"]).name
        write_atomically(target / "record.json", json.dumps(about, indent=1).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, help="a newer scale_model.csv")
    parser.add_argument("--kept", type=Path, help="a folder of kept records")
    given = parser.parse_args(arguments)
    table = RESULTS / "scale_model.csv"
    if given.table:
        write_atomically(table, given.table.read_bytes())
        pages.main([])
    card.main()
    write_readme(read(table))
    rows = shipped(read(table))
    text = rows.to_csv(index=False, float_format="%.6g")
    write_atomically(RECORDS / "scale_model.csv", text.encode())
    for name in COPIED:
        shutil.copy(RESULTS / name, RECORDS)
    if given.kept:
        ship_records(given.kept)
    print(f"{len(rows)} runs of the scale model, {', '.join(COPIED)}: {RECORDS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
