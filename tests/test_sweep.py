"""Sweeps in one process: which runs, in which order, how each ends, what is shown."""

import contextlib
import errno
import json
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import budgetlab as bl
from budgetlab import cli
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records import find_records, open_record, writer
from budgetlab.records.writer import hold
from budgetlab.sweeps import product
from budgetlab.sweeps.dispatch import train_one
from budgetlab.sweeps.grid import find_record, lock_path, planned_cost
from budgetlab.training import Run


@pytest.fixture
def quick(config: RunConfig) -> RunConfig:
    """Two epochs of four steps."""
    return config.replace(epochs=2)


def quiet(*grid: object, **more: object) -> bl.Sweep:
    return bl.sweep(*grid, progress=False, **more)


# Which runs ------------------------------------------------------------------------------


def test_seeds_are_outermost_the_last_setting_fastest_and_the_same_data_together():
    def listed(*names: str, **grid: object) -> list[tuple]:
        return [tuple(getattr(run, name) for name in names) for run in product(**grid)]

    assert listed("seed", "method", "budget", method=["SGD", "p-SGD"], budget=[0.2, 0.4],
                  seed=range(2)) == [
        (0, "SGD", 0.2), (0, "SGD", 0.4), (0, "p-SGD", 0.2), (0, "p-SGD", 0.4),
        (1, "SGD", 0.2), (1, "SGD", 0.4), (1, "p-SGD", 0.2), (1, "p-SGD", 0.4),
    ]  # fmt: skip
    assert listed("label_noise", "seed", seed=[0, 1], label_noise=[0.0, 0.2]) == [
        (0, 0), (0, 1), (0.2, 0), (0.2, 1),
    ]  # fmt: skip
    full = {"method": "unif-SGD", "budget": 1.0}
    grid = [full, {"method": ["SGD", "p-SGD"], "budget": 0.2}]
    assert listed("method", "budget", "epochs", grid=grid, seed=3, epochs=5) == [
        ("unif-SGD", 1.0, 5), ("SGD", 0.2, 5), ("p-SGD", 0.2, 5),
    ]  # fmt: skip
    # Milestones are one value unless they are rows.
    assert listed("milestones", milestones=(0.2, 0.4)) == [((0.2, 0.4),)]
    assert listed("milestones", milestones=[(0.2, 0.4), (0.5,)]) == [((0.2, 0.4),), ((0.5,),)]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["SGD", "unif-SGD", "p-SGD"]), min_size=1, unique=True),
    st.lists(st.sampled_from([0.1, 0.25, 1.0]), min_size=1, unique=True),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True),
)
def test_every_combination_is_there_once_and_known_by_its_id(methods, budgets, seeds):
    runs = product(method=methods, budget=budgets, seed=seeds)
    wanted = {(m, b, s) for m in methods for b in budgets for s in seeds}
    assert {(run.method, run.budget, run.seed) for run in runs} == wanted
    assert len({run.id for run in runs}) == len(runs) == len(wanted)
    # In another order, the same runs.
    again = product(seed=seeds[::-1], budget=budgets, method=methods[::-1])
    assert {run.id for run in again} == {run.id for run in runs}


def test_looking_makes_a_run_dearer():
    plain = RunConfig(budget=0.25, epochs=8, limit=1000)
    assert planned_cost(plain) == 0.25 * 8 * 1000
    looks = plain.replace(method="selective-backprop")
    # Four candidates are run forward, a third of a step each, for one that is trained on.
    assert planned_cost(looks) == pytest.approx(2000 * (1 + 4 / 3))
    # Where looking is within the budget, it costs nothing on top.
    assert planned_cost(looks.replace(budget_unit="flops")) == 2000
    assert planned_cost(plain.replace(val_fraction=0.5)) == 1000


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": ["SGD", "p-SDG"]}, "unknown method 'p-SDG': did you mean 'p-SGD'"),
        ({"augmentation": "mixupp"}, "did you mean 'mixup'"),
        ({"bugdet": [0.2]}, "did you mean 'budget'"),
        ({"budget": [0.2, 1.5]}, r"budget 1.5 is not allowed"),
        ({"seed": []}, "seed has no value"),
        ({"out": ["a", "b"]}, "a sweep has one"),
        ({"seed": range(1000), "data_seed": range(1000)}, "1,000,000 runs"),
        ({"workers": -1}, "workers -1 is not allowed"),
        ({"executor": 3}, "executor 3"),
        ({"workers": 2, "scheduler": "tcp://a:1"}, "cannot be combined"),
        ({"grid": []}, "list of runs is empty"),
        ({"grid": ["SGD"]}, "'SGD' is not a run"),
        ({"grid": [RunConfig()], "preset": "scale-model"}, "a preset beside it would change none"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(tmp_path, settings, words):
    with pytest.raises(InputError, match=words):
        bl.sweep(**({"out": str(tmp_path / "runs")} | settings))
    assert list(tmp_path.iterdir()) == []


# How each ends ---------------------------------------------------------------------------


def test_finished_runs_are_kept_and_only_the_rest_is_trained(quick):
    # A name in another case is the same run.
    first = list(quiet(quick, seed=[0, 1], method=["Unif-sgd", "unif-SGD"]))
    assert [row["how"] for row in first] == ["trained", "trained"]
    before = {path: (path / "record.json").read_bytes() for path in find_records(quick.out)}
    # What is not a record is left alone, and in nobody's way.
    half = Path(quick.out) / quick.replace(seed=2).folder_name
    half.mkdir(parents=True)
    (half / "mine.txt").write_text("kept")
    rows = list(quiet(quick, seed=[0, 1, 2]))
    assert [(row["seed"], row["how"]) for row in rows] == [(0, "kept"), (1, "kept"), (2, "trained")]
    assert rows[0]["test_accuracy"] == first[0]["test_accuracy"]
    assert Path(rows[2]["record"]).name == f"{half.name}-2"
    for path, content in before.items():
        assert (path / "record.json").read_bytes() == content
    assert [path.name for path in half.iterdir()] == ["mine.txt"]
    assert len(find_records(quick.out)) == 3


def test_runs_on_data_that_was_changed_since_are_not_kept_for_it(quick, tmp_path):
    y = np.arange(200) % 2
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).random((200, 3)), y=y)
    edits = bl.data.Edits(tmp_path / "edits.csv").mark(["x[0]"])
    own = quick.replace(dataset=f"npz:{tmp_path / 'own.npz'}", edits=str(edits.save()))
    assert [row["how"] for row in quiet(own)] == ["trained"]
    edits.save()  # anew, with the same in it
    assert [row["how"] for row in quiet(own)] == ["kept"]
    edits.relabel({"x[1]": "0"}).save()
    with pytest.raises(InputError, match=r"other samples than .*own' has now: train into another"):
        list(quiet(own, seed=[0, 1]))
    (tmp_path / "own.npz").unlink()  # what is no more has not changed
    edits.path.unlink()
    assert [row["how"] for row in quiet(own)] == ["kept"]


def test_data_put_in_the_place_of_other_data_is_noticed_however_old_it_is(quick, tmp_path):
    y, place = np.arange(200) % 2, tmp_path / "own.npz"
    for seed, name in enumerate(("own", "older")):
        x = np.random.default_rng(seed).random((200, 3))
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        os.utime(tmp_path / f"{name}.npz", (0, 0))
    list(quiet(quick.replace(dataset=f"npz:{place}")))
    time.sleep(1.1)  # records count seconds
    (tmp_path / "older.npz").replace(place)
    with pytest.raises(InputError, match="other samples than"):
        list(quiet(quick.replace(dataset=f"npz:{place}")))


def test_a_run_that_was_killed_goes_on_and_of_several_records_the_finished_one_counts(quick):
    run = Run(quick)
    next(epochs := iter(run))
    record = run.writer.path / "record.json"
    running = record.read_bytes()
    epochs.close()
    # As a kill leaves it.
    record.write_bytes(running)
    sweep = quiet(quick)
    assert sweep.counts == {"stopped": 1}
    assert 0 < sweep.cost_left < planned_cost(quick)
    finished = bl.train(quick, progress=False)
    assert finished.path.name.endswith("-2")
    assert find_record(quick).path == finished.path
    shutil.rmtree(finished.path)
    (row,) = sweep
    assert (row["how"], row["status"]) == ("resumed", "finished")
    assert len(find_records(quick.out)) == 1


def test_a_failure_is_said_stops_no_other_and_is_retried_on_request(quick, tmp_path, capsys):
    mood = tmp_path / "bad mood"
    mood.touch()

    @bl.sampler("moody")
    def score(history: bl.History) -> object:
        if mood.exists():
            raise ZeroDivisionError("in a bad mood")
        return 1 - history.confidence

    grid = [
        {"method": ["moody", "unif-SGD"]},
        {"batch_size": 4096},  # cannot begin, and has no record
        {"lr": 1e6, "momentum": 0.99, "epochs": 40},
    ]
    grid = [{**quick.to_dict(), **part} for part in grid]
    sweep = bl.sweep(grid)
    said = [row["message"] for row in sweep]
    assert [row["status"] for row in sweep.rows] == ["failed", "finished", "failed", "failed"]
    wanted = (
        "ZeroDivisionError: in a bad mood",
        "",
        "less than one batch of 4096",
        "learning rate",
    )
    for message, words in zip(said, wanted, strict=True):
        assert words in message if words else not message
    assert [row["record"] is None for row in sweep.rows] == [False, False, True, False]
    assert sweep.frame["test_accuracy"].isna().tolist()[:3] == [True, False, True]
    assert next(iter(sweep.failed)).startswith("moody, budget 0.5, seed 0")
    shown = capsys.readouterr().err
    assert all(f"failed: {name}: " in shown for name in sweep.failed)
    assert "4 runs, 3 failed" in shown
    mood.unlink()
    assert [row["how"] for row in quiet(grid[:1])] == ["kept"] * 2
    retried = quiet(grid[:1], retry=True)
    assert {row["status"] for row in retried} == {"finished"}
    assert retried.failed == {}
    assert len(find_records(quick.out)) == 3


def test_an_interrupt_leaves_a_record_to_go_on_with(quick, tmp_path):
    calm = tmp_path / "calm"

    @bl.sampler("interrupted")
    def score(history: bl.History) -> object:
        if history.epoch == 3 and not calm.exists():
            signal.raise_signal(signal.SIGINT)
        return 1 - history.confidence

    sweep = quiet(quick, method="interrupted", epochs=6, seed=[0, 1])
    with pytest.raises(KeyboardInterrupt):
        list(sweep)
    assert sweep.counts == {"planned": 1, "stopped": 1}
    assert len(open_record(find_records(quick.out)[0]).epochs) == 2
    calm.touch()
    assert [row["how"] for row in sweep] == ["resumed", "trained"]


def test_a_process_trains_one_run_at_a_time_whoever_asks(quick, tmp_path):
    # The weights of a new network come from torch's global generator.
    inside, most = [], []

    @bl.sampler("slow")
    def score(history: bl.History) -> object:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return 1 - history.confidence

    with ThreadPoolExecutor(3) as executor:
        rows = list(quiet(quick, method="slow", epochs=4, seed=[0, 1, 2], executor=executor))
        assert executor.submit(int).result() == 0  # it was not shut down
    assert [row["status"] for row in rows] == ["finished"] * 3
    assert len(most) == 3 * 4
    assert max(most) == 1


def test_an_executor_that_is_gone_ends_the_sweep_with_a_sentence(quick):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RunError, match=r"takes no more runs .*start the sweep again"):
        list(quiet(quick, executor=executor))


# Locks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at_it", ["sweep", "train"])
def test_a_run_that_somebody_is_at_is_waited_for_and_not_done_twice(quick, at_it):
    held, free = threading.Event(), threading.Event()

    def somebody() -> None:
        with contextlib.ExitStack() as locks:
            if at_it == "sweep":
                locks.enter_context(hold(lock_path(quick)))
                held.set()
                free.wait()
            for _ in Run(quick):
                held.set()
                free.wait()

    other = threading.Thread(target=somebody, daemon=True)
    other.start()
    held.wait()
    # Whoever comes too late to see it is refused as well.
    assert train_one(quick).status == "busy"
    sweep = quiet(quick, seed=[0, 1])
    assert sweep.counts == {"planned": 1, "running": 1}
    rows = iter(sweep)
    assert next(rows)["seed"] == 1
    free.set()
    row = next(rows)
    other.join()
    assert (row["seed"], row["how"], row["status"]) == (0, "kept", "finished")
    assert len(find_records(quick.out)) == 2


def test_a_folder_that_knows_no_locks_is_said_and_used(quick, monkeypatch):
    def unsupported(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(writer.FileLock, "acquire", unsupported)
    with pytest.warns(UserWarning, match="train in this folder from one place only"):
        assert [row["status"] for row in quiet(quick)] == ["finished"]


# What is shown ---------------------------------------------------------------------------


def test_the_frame_and_the_bar_show_all_runs_while_they_go(quick, capsys):
    sweep = bl.sweep(quick, method=["unif-SGD", "p-SGD"], seed=[0, 1])
    assert sweep.frame["status"].tolist() == ["planned"] * 4
    assert sweep.frame["test_accuracy"].isna().all()
    rows = iter(sweep)
    first = next(rows)
    frame = sweep.frame
    assert frame["status"].tolist() == ["finished"] + ["planned"] * 3
    assert frame["test_accuracy"][0] == first["test_accuracy"]
    list(rows)
    done = sweep.frame
    assert done["status"].eq("finished").all()
    known = bl.summaries(sweep.records)["test_accuracy"]
    pd.testing.assert_series_equal(done["test_accuracy"], known)
    assert done["id"].tolist() == [run.id for run in sweep.runs]
    assert set(bl.compare(sweep.records)["method"]) == {"unif-SGD", "p-SGD"}
    assert repr(sweep) == "Sweep(4 runs: 4 finished; iterate it, or .run(), to train)"
    shown = capsys.readouterr()
    assert shown.out == ""
    for part in ("100%", "4 of 4 runs", "left"):
        assert part in shown.err


# A thousand runs with ``make soak``, four otherwise.
SOAK = os.environ.get("BUDGETLAB_SOAK", "") not in ("", "0")
SEEDS = 500 if SOAK else 2


@pytest.mark.timeout(3600 if SOAK else 300)
def test_very_many_runs_are_planned_in_a_moment_and_gone_on_with_where_they_were_left(quick):
    grid = {"method": ["unif-SGD", "p-SGD"], "epochs": 1, "limit": 64}
    began = time.process_time()
    assert len(quiet(quick, seed=range(500), **grid)) == 1000
    assert time.process_time() - began < 5
    half = quiet(quick, seed=range(SEEDS), **grid)
    for done, _ in enumerate(half, 1):
        if done == SEEDS:
            break
    assert half.counts == {"planned": SEEDS, "finished": SEEDS}
    assert half.seconds_left > 0
    frame = quiet(quick, seed=range(SEEDS), **grid).run()
    assert frame["how"].tolist() == ["kept"] * SEEDS + ["trained"] * SEEDS
    assert quiet(quick, seed=range(SEEDS), **grid).counts == {"finished": 2 * SEEDS}


# The command line ------------------------------------------------------------------------


@pytest.fixture
def command(quick, capsys):
    """Call the command on the quick run; its exit code and what it printed."""
    flags = ["sweep", "--dataset", "points", "--limit", "128", "--epochs", "2", "--batch-size",
             "16", "--budget", "0.5", "--data-root", quick.data_root,
             "--out", quick.out]  # fmt: skip

    def call(*more: str) -> tuple[int, str, str]:
        code = cli.main([*flags, *more])
        return code, *capsys.readouterr()

    return call


def test_the_command_plans_trains_and_prints_one_object(command, quick):
    code, out, _ = command("--seed", "0", "1", "--workers", "auto", "--plan")
    assert (code, out.count("planned ")) == (0, 2)
    assert "256 samples" in out
    assert not Path(quick.out).exists()
    for how in ("trained", "kept"):
        code, out, _ = command("--method", "SGD", "p-SGD", "--seed", "0", "1", "--json")
        answer = json.loads(out)
        assert (code, answer["runs"], answer["counts"]) == (0, 4, {"finished": 4})
        wanted = (
            "record method augmentation dataset budget seed test_accuracy steps trained_samples "
            "looked_samples flops seconds status"
        )
        for row in answer["summaries"]:
            assert all(row[name] is not None for name in wanted.split())
            assert row["how"] == how
    assert cli.main(["compare", quick.out, "--baseline", "SGD", "--json"]) == 0


def test_the_command_names_failures_and_exits_1(command):
    code, out, _ = command("--batch-size", "16", "4096")
    assert code == 1
    assert "2 runs: 1 finished, 1 failed" in out
    assert "failed: unif-SGD, budget 0.5, seed 0, batch size 4096: budget 0.5 of 128" in out
    assert "--retry" in out
