"""The playground: what is kept of each epoch, and the two runs side by side."""

import contextlib
import dataclasses
import time

import numpy as np
import pytest
import torch
from waiting import until

import budgetlab as bl
from budgetlab.data.builtin import PROBLEMS
from budgetlab.errors import InputError, RunError
from budgetlab.explore.points import GRID, frame_of, grid_of
from budgetlab.training import Run
from budgetlab.widgets import SamplerPlayground
from budgetlab.widgets.playground import SPEEDS

WAIT = 60


@pytest.fixture
def make(tmp_path, data_root):
    made = []

    def playground(methods=("unif-SGD", "p-SGD"), problem="moons", **settings):
        given = {"limit": 128, "epochs": 4, "batch_size": 16, "budget": 0.5, "device": "cpu",
                 "precision": "float32"}  # fmt: skip
        places = {"out": str(tmp_path / "runs"), "data_root": str(data_root)}
        made.append(SamplerPlayground(methods, problem, **given | places | settings))
        return made[-1]

    yield playground
    for one in made:
        one.stop()
        assert one.wait(WAIT)


# ---- what is kept ----


def test_the_grid_lies_row_by_row_over_all_points(load_once):
    samples = load_once("points", limit=128).train
    grid, (left, right, bottom, top) = grid_of(samples)
    rows = grid.reshape(GRID, GRID, 2)
    for place, (low, high) in enumerate(((left, right), (bottom, top))):
        values = samples.x[:, place]
        assert ((low < values) & (values < high)).all()
        assert (rows.diff(dim=1 - place)[..., place] > 0).all()
        assert (rows.diff(dim=place)[..., place] == 0).all()
    three = dataclasses.replace(samples, x=torch.cat([samples.x, samples.x[:, :1]], 1))
    for no_points in (load_once("digits", limit=64).train, three):
        with pytest.raises(InputError, match="holds no points"):
            grid_of(no_points)


def test_a_frame_holds_what_the_network_says_and_who_was_picked(config):
    run = Run(config.replace(method="p-SGD"))
    grid, _ = grid_of(run.splits.train)
    epochs = iter(run)
    next(epochs)
    first = frame_of(run, grid)
    assert first.picked.sum() == 64
    assert np.array_equal(first.picked, first.trained)
    assert first.chance == pytest.approx(np.ones(128))
    next(epochs)
    second = frame_of(run, grid)
    assert np.array_equal(second.trained, first.trained + second.picked)
    assert second.chance.sum() == pytest.approx(128)
    assert second.chance.max() > 1.1 * second.chance.min()
    run.loop.engine.network.eval()
    place = (3, 41)  # row, column
    with torch.no_grad():
        p = run.loop.engine.logits(grid[place[0] * GRID + place[1]][None]).softmax(1)[0]
    assert second.winner[place] == p.argmax()
    assert second.sure[place] == pytest.approx(float(p.max()), abs=1e-5)
    for _ in epochs:
        frame_of(run, grid)
    # Watching a run does not change it.
    plain = Run(config.replace(method="p-SGD"))
    for _ in plain:
        pass
    assert run.record.samples.load().identical(plain.record.samples.load())


# ---- the widget ----


def test_button_and_twin_keep_the_same_frames(make):
    playground = make()
    playground.train_button.click()
    assert playground.wait(WAIT)
    shown = playground.frames
    again = playground.fit()
    assert [len(side) for side in shown] == [len(side) for side in again] == [4, 4]
    for side, other in zip(shown, again, strict=True):
        for a, b in zip(side, other, strict=True):
            assert np.array_equal(a.sure, b.sure)
            assert np.array_equal(a.picked, b.picked)
            assert a.accuracy == b.accuracy
    # Both start from the same weights; the first draw is uniform, from the same stream.
    left, right = again
    assert np.array_equal(left[0].picked, right[0].picked)
    assert np.array_equal(left[0].sure, right[0].sure)
    assert not np.array_equal(left[-1].picked, right[-1].picked)


def test_every_epoch_can_be_gone_to(make, monkeypatch):
    playground = make()
    assert "not trained so far" in playground.picture.alt
    assert "data:image/png" in playground.picture.value
    monkeypatch.setattr(playground._pace, "due", lambda: False)  # nothing is shown on the way
    left, right = playground.fit()
    assert playground.epoch.slider.max == playground.epoch.box.max == playground.epoch.value == 4
    pictures = set()
    for epoch in (1, 2, 3, 4):
        playground.epoch.value = epoch
        pictures.add(playground.picture.value)
        alt = playground.picture.alt
        assert f"Epoch {epoch} of two runs" in alt
        assert left[epoch - 1].headline("unif-SGD") in alt
        assert right[epoch - 1].headline("p-SGD") in alt
    assert len(pictures) == 4
    playground.forth.click()
    assert playground.epoch.value == 4
    playground.back.click()
    assert playground.epoch.value == 3


def test_play_goes_to_the_end_and_begins_again(make):
    playground = make()
    playground.fit()
    playground.speed.value = min(SPEEDS.values())
    assert playground.player.seconds == 0.2
    shown = []
    playground.epoch.observe(lambda change: shown.append(change["new"]), "value")
    playground.epoch.value = 2
    for start in (2, 4):
        shown.clear()
        playground.player.button.click()
        assert playground.player.button.description == "Pause"
        until(lambda: not playground.player.playing)
        assert shown == ([3, 4] if start == 2 else [1, 2, 3, 4])
    assert playground.player.button.description == "Play"
    # A pause stays where it is.
    playground.speed.value = max(SPEEDS.values())
    playground.epoch.value = 1
    playground.player.button.click()
    until(lambda: playground.epoch.value == 2)
    playground.player.button.click()
    assert not playground.player.playing
    time.sleep(1.5 * playground.player.seconds)
    assert playground.epoch.value == 2


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_problem_method_and_way_makes_a_picture(make, problem):
    playground = make(("unif-SGD", "SGD"), problem)
    left, right = playground.fit()
    # At half the budget, full passes need half the epochs: the shorter run stays at its last one.
    assert (len(left), len(right)) == (4, 2)
    assert left[-1].steps == right[-1].steps
    for way in playground.way.options:
        playground.way.value = way
        for epoch in (1, playground.epoch.box.max):
            playground.epoch.value = epoch
            assert not playground.status.is_problem, playground.status.text
            assert "never drawn" in playground.picture.alt


def test_other_points_are_shown_when_they_are_chosen(make):
    playground = make()
    playground.fit()
    before = playground.picture.value
    playground.problem.value = "spirals"
    assert playground.picture.value != before
    assert playground.picture.alt.count("not trained so far") == 2
    assert (playground.epoch.box.max, playground.frames) == (1, ([], []))
    assert playground.status.text == "Ready. Train runs both methods on these points."
    playground.train()
    assert playground.problem.disabled
    assert playground.wait(WAIT)
    assert not playground.problem.disabled
    assert playground.runs[0].x == pytest.approx(playground.splits.train.x.numpy())


def test_an_error_shows_is_raised_and_leaves_a_usable_playground(make):
    @bl.sampler("broken")
    def score(history):
        raise ZeroDivisionError("my score")

    playground = make(("broken", "unif-SGD"))
    for left, budget, error, said in (
        ("broken", 0.5, ZeroDivisionError, "my score"),
        ("p-SGD", 0.01, InputError, "such as batch_size, is an argument of SamplerPlayground."),
    ):
        playground.left.value, playground.budget.value = left, budget
        for train in (playground.fit, playground.train_button.click):
            with pytest.raises(error) if train == playground.fit else contextlib.nullcontext():
                train()
            assert playground.wait(WAIT)
            assert said in playground.status.text
            assert not playground.train_button.disabled
    playground.budget.value = 0.5
    assert playground.status.text == ""
    playground.epochs.value = 1
    playground.fit()
    assert "Finished: 1 epoch kept." in playground.status.text


def test_a_new_playground_replaces_the_old_one_which_neither_trains_nor_plays(make):
    old = make(epochs=3)
    old.fit()
    old.speed.value = max(SPEEDS.values())
    old.epochs.value = 200
    old.train()
    old.player.play()
    new = make()
    assert not old.player.playing
    assert old.wait(WAIT)
    assert "has taken over" in old.status.text
    with pytest.raises(RunError, match="taken over"):
        old.fit()
    new.fit()
    assert "Finished" in new.status.text


def test_stop_keeps_what_there_is(make):
    playground = make(epochs=200)
    playground.train()
    while not playground.frames[0]:
        pass
    playground.stop_button.click()
    assert playground.wait(WAIT)
    assert "Stopped" in playground.status.text
    kept = max(map(len, playground.frames))
    assert 1 <= kept < 200
    assert playground.epoch.box.max == kept
    assert not playground.train_button.disabled


def test_nothing_is_left_where_experiments_are_compared(tmp_path, data_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    playground = SamplerPlayground(limit=128, epochs=2, batch_size=16, budget=0.5, device="cpu",
                                   data_root=str(data_root))  # fmt: skip
    playground.fit()
    assert list(tmp_path.rglob("record.json")) == []
    chart = bl.explore.playground(*playground.runs)
    assert (chart.twin(epoch=2)["picked"][:128] == playground.frames[0][1].picked).all()
