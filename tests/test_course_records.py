"""What the course reads instead of training: small, complete, and what was measured."""

from pathlib import Path

import pytest

from budgetlab import course
from budgetlab.records import find_records, open_record
from experiments.ship import RECORDED

RECORDS = Path(__file__).parents[1] / "notebooks/records"


def test_nothing_else_is_shipped():
    assert {path.name for path in find_records(RECORDS)} == {
        f"cifar10-jpeg-{name}" for name in RECORDED
    }


@pytest.mark.parametrize("method", RECORDED)
def test_the_record_of_a_method_is_one_of_the_runs_in_the_table(method):
    record = open_record(RECORDS / f"cifar10-jpeg-{method}")
    assert record.config["method"] == method
    assert not record.thumbnails, "images of this data set are not ours to pass on"
    table = course.select(course.results(), method=method, seed=record.config["seed"])
    (run,) = table[table["dataset"] == "cifar10-jpeg"].to_dict("records")
    assert run["test_accuracy"] == pytest.approx(record.summary["test_accuracy"], rel=1e-5)
    assert record.config["budget"] == run["budget"]
    # Most epochs are left out; the last is kept.
    assert record.samples["probability"].to_numpy()[-1].sum() == pytest.approx(1, abs=0.02)
    assert not any(str(record.config[name]).startswith("/") for name in ("data_root", "out"))
