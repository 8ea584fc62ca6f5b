"""What the course reads instead of training: small, complete, and what was measured."""

from pathlib import Path

import pandas as pd
import pytest

from budgetlab.records import open_record

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "notebooks/records"


def rows(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False).set_index("key")


def test_every_method_on_photographs_has_the_same_seeds():
    table = rows(RECORDS / "photographs.csv")
    seeds = table.groupby(["method", "budget"])["seed"].agg(lambda column: sorted(column))
    assert len({tuple(found) for found in seeds}) == 1
    assert len(seeds.iloc[0]) >= 3


@pytest.mark.parametrize("method", ["unif-SGD", "p-SGD", "c-SGD"])
def test_the_record_of_a_method_is_one_of_the_runs_in_the_table(method):
    record = open_record(RECORDS / f"cifar10-jpeg-{method}")
    assert record.config["method"] == method
    assert not record.thumbnails, "images of this data set are not ours to pass on"
    table = rows(RECORDS / "photographs.csv").reset_index()
    about = {name: str(record.config[name]) for name in ("method", "budget", "seed")}
    (run,) = table[(table[list(about)] == pd.Series(about)).all(axis=1)].to_dict("records")
    assert float(run["test_accuracy"]) == pytest.approx(record.summary["test_accuracy"])
    # Every other epoch is left out; the last is kept, a distribution over the samples left.
    assert record.samples["probability"].to_numpy()[-1].sum() == pytest.approx(1, abs=0.02)
