"""The measurements themselves: order, ratios, targets, and the comparison with the baseline."""

import contextlib
import dataclasses
import os
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.speed import __main__ as bench
from benchmarks.speed import measure, sharing, step, waiting
from benchmarks.speed.conventional import ApartLoop, ConventionalLoop
from benchmarks.speed.measure import Row, alternate, compared, row


def test_rounds_turn_round_and_a_row_says_median_spread_and_whether_the_target_is_met():
    order = []
    work = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = alternate(work | {"own": lambda: 12.5}, rounds=4, warm_up=0)
    assert "".join(order) in ("abccbaabccba", "cbaabccbaabc")
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys(seconds, 4)
    assert seconds["own"] == [12.5] * 4  # work that times itself is believed
    # The machine was twice as slow in the second round, for both.
    assert compared([4.0, 8.0], [2.0, 4.0]) == [2.0, 2.0]
    one = row("part", "what", [1.0, 2.0, 3.0, 4.0, 100.0], "ms", ">= 5")
    assert (one.value, one.low, one.high, one.n, one.met) == (3.0, 2.0, 4.0, 5, False)
    assert row("part", "what", [3.0], "ms", "<= 3").met is True
    assert row("part", "what", [3.0], "ms").met is None


WHAT = "small: times as fast as the usual loop"


def table(
    value: float, unit: str = "ratio", threads: int = 2, what: str = WHAT, target: str = ""
) -> pd.DataFrame:
    one = Row("step", what, value, 1, 1, 8, unit, target)
    about = {"threads": threads, "device": "cpu", "machine": "here"}
    return pd.DataFrame([dataclasses.asdict(one) | about])


@pytest.mark.parametrize(
    ("now", "before", "fell"),
    [({"value": 3.9}, {"value": 5.0}, True), ({"value": 4.8}, {"value": 5.0}, False),
     ({"value": 9.0}, {"value": 5.0}, False),
     ({"value": 1.0, "unit": "ms"}, {"value": 5.0, "unit": "ms"}, False),
     ({"value": 1.0, "threads": 1}, {"value": 5.0}, False),
     *(({"value": a, "target": target, "what": "sharing", "unit": unit},
        {"value": b, "target": target, "what": "sharing", "unit": unit}, fell)
       for a, b, target, unit, fell in
       ((3.0, 2.0, "<= 2.2", "ratio", True), (1.5, 2.0, "<= 2.2", "ratio", False),
        (0.7, 0.95, ">= 0.85", "share", True), (0.95, 0.7, ">= 0.85", "share", False),
        (3.0, 2.0, "", "ratio", False)))],
)  # fmt: skip
def test_a_ratio_that_fell_is_said(now, before, fell):
    said = bench.slower(table(**now), table(**before))
    assert len(said) == fell
    assert not fell or said[0].endswith(f"{now['value']:.2f}, and {before['value']:.2f} in the "
                                        "baseline")  # fmt: skip


def test_another_machine_is_no_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "BASELINE", tmp_path / "baseline.csv")
    assert bench.warn(table(1.0)) is False
    table(5.0).to_csv(bench.BASELINE, index=False)
    assert bench.warn(table(1.0)) is True
    table(5.0).assign(machine="there").to_csv(bench.BASELINE, index=False)
    assert bench.warn(table(1.0)) is False
    assert "another machine" in capsys.readouterr().err


def test_the_usual_loop_trains_and_keeps_the_mean_error_of_each_sample():
    torch.manual_seed(0)
    images = measure.random_images(32)
    loop = ConventionalLoop(images, "small", torch.device("cpu"), batch_size=16, workers=0)
    before = [p.clone() for p in loop.network.parameters()]
    for _ in range(3):
        loop.step()
    assert loop.visits.sum() > 0
    assert (loop.error[loop.visits == 0] == 0).all()
    assert ((loop.error[loop.visits > 0] > 0) & (loop.error[loop.visits > 0] < 1)).all()
    assert np.isfinite(loop.losses).all()
    moved = [not torch.equal(a, b) for a, b in zip(before, loop.network.parameters(), strict=True)]
    assert all(moved)


def test_a_usual_loop_in_a_process_of_its_own_is_timed_and_its_death_is_said():
    with ApartLoop(16, "tiny", torch.device("cpu"), 8, workers=0) as loop:
        assert loop.timed(1) > 0
        loop._process.kill()
        with pytest.raises(RuntimeError, match="ended with exit code -9"):
            loop.timed(1)


def by_name(rows):
    rows = list(rows)
    assert all(each.value > 0 for each in rows if not each.what.endswith(("importance", "in use")))
    return {each.what: each.value for each in rows}


class Near(contextlib.AbstractContextManager, ConventionalLoop):
    """The usual loop, not in a process of its own."""

    def __init__(self, count, model, device, batch, workers=0):
        ConventionalLoop.__init__(self, measure.random_images(count), model, device, batch, 0)

    def __exit__(self, *error):
        pass


def test_a_step_is_compared_with_the_usual_loop_and_a_matrix_product(monkeypatch):
    monkeypatch.setattr(step, "ApartLoop", Near)
    found = by_name(step.step({"small": (1, 1, "5")}, batch=8, core=(4, 1)))
    for name in ("small", "compact on one core, with importance and recording"):
        reached, possible = found[f"{name}: rate"], found[f"{name}: matrix product"]
        assert found[f"{name}: share of a matrix product"] == pytest.approx(reached / possible)
        slow, quick = found[f"{name}: usual loop"], found[f"{name}: ours"]
        ratio = found[f"{name}: times as fast as the usual loop"]
        assert ratio == pytest.approx(slow / quick)


def test_what_is_measured_on_a_gpu_can_be_measured_without_one():
    cpu = torch.device("cpu")
    found = by_name(step.on_gpu("tiny", 8, cpu, "0.3", steps=2, usual_steps=1, rounds=2, side=32))
    assert found["tiny, batch 8: graph in use"] == 0
    assert found["tiny, batch 8: importance"] > -1
    assert "tiny, batch 8: share of the peak (MFU)" not in found


def test_demo_and_folder_are_timed_against_their_own_work(tmp_path):
    code = (
        "import budgetlab as bl; bl.train(dataset='digits', data_root='data', epochs=1, "
        "batch_size=16, limit=64, budget=1.0, model='tiny', out='demo/runs', progress=False); "
        "print('  1 of 2  unif-SGD', flush=True); import time; time.sleep(0.5)"
    )
    whole, first, ratio, over = waiting.demo([sys.executable, "-c", code])
    assert (whole.target, first.target) == ("<= 120", "<= 20")
    assert 0 < first.value < whole.value - 0.4
    assert ratio.value > 1  # a start takes longer than four steps
    assert over.value > 1
    seconds, ratio = waiting._part_of_a_folder(tmp_path, images=100, limit=20, rounds=1)
    assert seconds.what == "--limit 20 on a folder of 100 images"
    assert len(list((tmp_path / "few").rglob("*.jpg"))) == 40
    assert ratio.value > 0


def test_sharing_compares_runs_side_by_side_and_beside_a_neighbour(monkeypatch):
    """Two processes take half as long again as one, and a neighbour doubles it."""
    busy, running = [], []

    class Trainer(contextlib.nullcontext):
        def __init__(self, config, threads):
            super().__init__(self)

        def begin(self):
            running.append(self)

        def end(self):
            seconds = (2.0 if busy else 1.0) * (1.5 if len(running) > 1 else 1.0)
            running.pop()
            return seconds

    @contextlib.contextmanager
    def neighbour():
        busy.append(1)
        yield
        busy.clear()

    monkeypatch.setattr(sharing, "Trainer", Trainer)
    monkeypatch.setattr(sharing, "neighbour", neighbour)
    monkeypatch.setattr(sharing, "load_data", lambda *_, **__: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    found = by_name(sharing.sharing(rounds=2))
    assert list(found.values()) == pytest.approx([1, 1 / 1.5, 1, 2])


@pytest.mark.parametrize(
    "part", ["start", "drawing", "augmenting", "recording", "scale", "libraries", "importance"]
)
def test_each_part_keeps_its_table_and_what_came_before_it_broke(
    part, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(bench, "BASELINE", tmp_path / "baseline.csv")
    assert bench.main([part, "--toy", "--out", str(tmp_path)]) == 0
    kept = pd.read_csv(tmp_path / f"{part}.csv")
    assert set(kept["part"]) == {part}
    assert (kept["value"] > 0).all()
    assert kept.loc[0, "what"] in capsys.readouterr().out

    def broken():
        yield row("broken", "first", [1.0], "s")
        raise RuntimeError

    monkeypatch.setitem(bench.PARTS, "broken", broken)
    with pytest.raises(RuntimeError):
        bench.main(["broken", "--out", str(tmp_path)])
    assert list(pd.read_csv(tmp_path / "broken.csv")["what"]) == ["first"]


def test_a_job_is_run_in_its_own_environment_and_folder(tmp_path, capsys):
    (tmp_path / "here").touch()
    code = "import os; assert os.environ['ANSWER'] == '42'; assert os.listdir() == ['here']"
    right = waiting._timed("job", [sys.executable, "-c", code], {"ANSWER": "42"}, tmp_path)
    assert (right.what, right.unit) == ("job", "s")
    assert right.value > 0
    failed = waiting._timed("job", [sys.executable, "-c", "raise ValueError('no')"], {}, tmp_path)
    assert np.isnan(failed.value)
    assert "job failed: ValueError: no" in capsys.readouterr().err


def test_each_job_is_run_both_ways_in_turns(monkeypatch):
    asked = []

    def timed(name, command, environment, folder):
        assert any((folder / "records").iterdir())
        asked.append((name, environment[waiting.SWITCH]))
        return row("jobs", name, [1.0], "s")

    monkeypatch.setattr(waiting, "_timed", timed)
    rows = waiting.jobs()
    assert len(rows) == 2 * len({name.split(",")[0] for name, _ in asked}) >= 30
    assert [kept for _, kept in asked[:4]] == ["1", "0", "0", "1"]
    assert all(name.endswith("memory given back") == (kept == "0") for name, kept in asked)
