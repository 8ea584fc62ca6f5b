"""The measurements themselves: order, ratios, targets, and the comparison with the baseline."""

import dataclasses
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.speed import jobs, regression, step, work
from benchmarks.speed.apart import ApartLoop
from benchmarks.speed.conventional import ConventionalLoop
from benchmarks.speed.measure import Row, alternate, compared, row


def test_the_order_turns_round_every_time():
    order = []
    work = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = alternate(work, rounds=4, warm_up=0)
    assert "".join(order) in ("abccbaabccba", "cbaabccbaabc")
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_work_that_times_itself_is_believed():
    seconds = alternate({"own": lambda: 12.5, "other": lambda: None}, rounds=2)
    assert seconds["own"] == [12.5, 12.5]
    assert max(seconds["other"]) < 1


def test_ratios_are_taken_round_by_round():
    # The machine was twice as slow in the second round, for both.
    assert compared([4.0, 8.0], [2.0, 4.0]) == [2.0, 2.0]


def test_a_row_says_median_spread_and_whether_the_target_is_met():
    one = row("part", "what", [1.0, 2.0, 3.0, 4.0, 100.0], "ms", ">= 5")
    assert (one.value, one.low, one.high, one.n, one.met) == (3.0, 2.0, 4.0, 5, False)
    assert row("part", "what", [3.0], "ms", "<= 3").met is True
    assert row("part", "what", [3.0], "ms").met is None


def table(value: float, unit: str = "ratio", threads: int = 2) -> pd.DataFrame:
    one = Row("step", "small: times as fast as the usual loop", value, 1, 1, 8, unit)
    about = {"threads": threads, "device": "cpu", "machine": "here"}
    return pd.DataFrame([dataclasses.asdict(one) | about])


def test_a_ratio_that_fell_is_said():
    said = regression.slower(table(3.9), table(5.0))
    assert said == ["step, small: times as fast as the usual loop: 3.90, and 5.00 in the baseline"]
    assert regression.slower(table(4.8), table(5.0)) == []
    assert regression.slower(table(9.0), table(5.0)) == []


def test_seconds_and_other_numbers_of_threads_are_not_compared():
    assert regression.slower(table(1.0, unit="ms"), table(5.0, unit="ms")) == []
    assert regression.slower(table(1.0, threads=1), table(5.0)) == []


def test_another_machine_is_no_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(regression, "BASELINE", tmp_path / "baseline.csv")
    assert regression.warn(table(1.0)) is False
    table(5.0).to_csv(regression.BASELINE, index=False)
    assert regression.warn(table(1.0)) is True
    table(5.0).assign(machine="there").to_csv(regression.BASELINE, index=False)
    assert regression.warn(table(1.0)) is False
    assert "another machine" in capsys.readouterr().err


def test_the_usual_loop_trains_and_keeps_the_mean_error_of_each_sample(monkeypatch):
    monkeypatch.setattr("benchmarks.speed.conventional.WORKERS", 0)
    torch.manual_seed(0)
    loop = ConventionalLoop(work.random_images(32), "small", torch.device("cpu"), batch_size=16)
    before = [p.clone() for p in loop.network.parameters()]
    for _ in range(3):
        loop.step()
    assert loop.visits.sum() > 0
    assert (loop.error[loop.visits == 0] == 0).all()
    assert ((loop.error[loop.visits > 0] > 0) & (loop.error[loop.visits > 0] < 1)).all()
    assert np.isfinite(loop.losses).all()
    moved = [not torch.equal(a, b) for a, b in zip(before, loop.network.parameters(), strict=True)]
    assert all(moved)


def test_our_loop_takes_the_steps_it_is_timed_for():
    loop = work.make_loop(work.random_images(256), "small", device="cpu")
    assert 0 < work.epoch_seconds(loop) < 60
    assert loop.ledger.steps == 2
    assert work.epoch_seconds(loop) > 0
    assert loop.ledger.steps == 4


def test_a_usual_loop_that_dies_is_said():
    loop = ApartLoop(16, "no-such-model", torch.device("cpu"), 8)
    with loop, pytest.raises(RuntimeError, match="ended with exit code 1"):
        loop.timed(1)


def test_a_step_is_compared_with_the_usual_loop_and_a_matrix_product(monkeypatch):
    monkeypatch.setattr(work, "BATCH", 8)
    monkeypatch.setattr(step, "BATCH", 8)
    rows = step._of_network("small", 1, 1, "5", torch.device("cpu"))
    assert all(each.value > 0 for each in rows)
    by_name = {each.what: each.value for each in rows}
    reached, possible = by_name["small: rate"], by_name["small: matrix product"]
    assert by_name["small: share of a matrix product"] == pytest.approx(reached / possible)
    slow, quick = by_name["small: usual loop"], by_name["small: ours"]
    assert by_name["small: times as fast as the usual loop"] == pytest.approx(slow / quick)


def test_a_job_is_run_in_its_own_environment_and_beside_the_records():
    code = "import os; assert os.environ['ANSWER'] == '42'; assert os.listdir('records')"
    right = jobs._timed("job", [sys.executable, "-c", code], {"ANSWER": "42"})
    assert (right.what, right.unit) == ("job", "s")
    assert right.value > 0


def test_a_job_that_fails_has_no_time(capsys):
    failed = jobs._timed("job", [sys.executable, "-c", "raise ValueError('no')"], {})
    assert np.isnan(failed.value)
    assert "job failed: ValueError: no" in capsys.readouterr().err


def test_each_job_is_run_both_ways_in_turns(monkeypatch):
    asked = []

    def timed(name, command, environment):
        asked.append((name, environment[jobs.SWITCH]))
        return row("jobs", name, [1.0], "s")

    monkeypatch.setattr(jobs, "_timed", timed)
    rows = jobs.measure()
    assert len(rows) == 2 * len({name.split(",")[0] for name, _ in asked}) >= 34
    assert [kept for _, kept in asked[:4]] == ["1", "0", "0", "1"]
    assert all(name.endswith("memory given back") == (kept == "0") for name, kept in asked)
