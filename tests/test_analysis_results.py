"""Means and costs of conditions, by hand."""

import numpy as np
import pandas as pd
import pytest
from fake_records import write_run

from budgetlab import analysis


@pytest.fixture
def frame() -> pd.DataFrame:
    def run(method, budget, seed, accuracy, steps):
        return {
            "dataset": "shapes", "method": method, "augmentation": "standard", "budget": budget,
            "budget_unit": "iterations", "seed": seed, "test_accuracy": accuracy, "steps": steps,
            "trained_samples": steps * 10, "looked_samples": 0, "flops": steps * 1e9,
            "seconds": steps / 4,
        }  # fmt: skip

    return pd.DataFrame(
        [
            run("p-SGD", 0.2, 0, 0.70, 20),
            run("p-SGD", 0.2, 1, 0.74, 22),
            run("unif-SGD", 1.0, 0, 0.80, 100),
            run("unif-SGD", 1.0, 1, 0.90, 100),
            run("c-SGD", 0.2, 0, 0.60, 20),
        ]
    )


def test_by_hand(frame):
    table = analysis.results(frame)
    assert table["method"].tolist() == ["p-SGD", "unif-SGD", "c-SGD"]
    assert table["n"].tolist() == [2, 2, 1]
    np.testing.assert_allclose(table["mean"], [0.72, 0.85, 0.60])
    np.testing.assert_allclose(table["spread"], [0.0282843, 0.0707107, np.nan], rtol=1e-5)
    assert table["steps"].tolist() == [21, 100, 20]
    np.testing.assert_allclose(table["cost_vs_full"], [0.21, 1, 0.2])


def test_the_table_names_every_cost_and_no_share_of_a_run_that_is_not_there(frame):
    lines = analysis.table(analysis.results(frame)).splitlines()
    for heading in ("n", "test accuracy %", "steps", "trained", "seconds", "cost of full"):
        assert heading in lines[0]
    assert "looked at" not in lines[0]
    assert "72.00 ± 2.83" in lines[2]
    assert "21%" in lines[2]
    table = analysis.results(frame[frame["budget"] < 1])
    assert table["cost_vs_full"].isna().all()
    assert "cost of full" not in analysis.table(table)


def test_records_will_do_and_what_was_averaged_is_kept(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, method="p-SGD", budget=0.2, seed=seed)
    table = analysis.results(tmp_path, cost="seconds")
    assert table["n"].tolist() == [2]
    assert (table.metric, table.cost_name) == ("test_accuracy", "seconds")


def test_replicates_may_differ_in_more_than_the_seed(frame):
    frame["lr"] = [0.1, 0.2, 0.1, 0.2, 0.1]
    assert len(analysis.results(frame)) == 5
    assert analysis.results(frame, over=("seed", "lr"))["n"].tolist() == [2, 2, 1]


def test_a_setting_that_was_not_recorded_keeps_its_runs(frame):
    frame["smoothing"] = [1.0, 1.0, np.nan, np.nan, np.nan]
    assert analysis.results(frame)["n"].tolist() == [2, 2, 1]
