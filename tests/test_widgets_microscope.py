"""The microscope: what is known, what would be drawn, and the controls over both."""

import time

import numpy as np
import pytest
import torch
from waiting import until

import budgetlab as bl
from budgetlab.errors import InputError, RunError
from budgetlab.forecast import Replay, forecast, in_numbers, recorded_forecast, supported
from budgetlab.history import History
from budgetlab.samplers import keep_probability
from budgetlab.widgets import ProbabilityMicroscope
from budgetlab.widgets import microscope as microscope_module

# ---- what was known ----


@pytest.mark.parametrize("memory", [256_000_000, 12_000])
def test_a_record_gives_the_history_back(train, memory):
    run = train(method="p-SGD", epochs=6)
    replay = Replay(run.record, memory)
    history = replay.before(7)
    assert torch.equal(history.visits, run.history.visits)
    assert torch.equal(history.times_trained, run.history.times_trained)
    assert torch.equal(history.last_epoch, run.history.last_epoch)
    assert torch.equal(history.forgotten, run.history.forgotten)
    for name in ("error", "mean_loss", "last_loss", "mean_margin", "el2n"):
        now, then = getattr(history, name), getattr(run.history, name)
        assert torch.allclose(now, then, rtol=0.01, atol=0.01, equal_nan=True), name
    assert not replay.before(1).seen.any()
    for epoch in (0, 8):
        with pytest.raises(InputError, match="from 1 to 7"):
            replay.before(epoch)


# ---- what would be drawn ----


@pytest.mark.parametrize("method", ["p-SGD", "c-SGD", "unif-SGD", "RS2", "SGD"])
def test_what_is_foreseen_is_what_the_run_recorded(train, method):
    run = train(method=method, epochs=5)
    replay, config = Replay(run.record), run.config
    for epoch in range(1, replay.epochs + 1):
        foreseen = forecast(replay.before(epoch), config)
        recorded = run.record.samples["probability"][epoch - 1].to_numpy()
        assert foreseen.q == pytest.approx(recorded, rel=0.02), epoch
        assert foreseen.q.sum() == pytest.approx(1)


def test_uniform_is_analytic_and_the_others_are_simulated(train):
    run = train(method="unif-SGD")
    replay = Replay(run.record)
    uniform = forecast(replay.before(2), run.config)
    assert uniform.analytic
    assert set(uniform.inclusion) == {0.5}
    guided = forecast(replay.before(2), run.config.replace(method="p-SGD"))
    assert not guided.analytic
    assert "simulated" in guided.how
    assert guided.inclusion.sum() == pytest.approx(64, rel=0.02)
    passes = forecast(replay.before(2), run.config.replace(method="SGD"))
    assert set(passes.inclusion) == {1.0}


def test_high_loss_is_kept_by_selective_backprop(train):
    run = train(method="SGD", epochs=8)
    replay = Replay(run.record)
    history = replay.before(replay.epochs + 1)
    assert history.seen.all()
    config = run.config.replace(method="selective-backprop", sb_beta=2.0)
    kept = forecast(history, config)
    losses = history.last_loss
    expected = keep_probability(losses, losses, 2.0).numpy()
    # 128 samples are fewer than the 1,024 losses of the method's memory: all of them count.
    assert kept.inclusion == pytest.approx(expected)
    assert kept.analytic
    assert set(forecast(History(128), config).inclusion) == {1.0}
    # Beta from the budget keeps about the budget.
    quarter = bl.RunConfig(method="selective-backprop", budget=0.25, batch_size=16)
    assert forecast(history, quarter).inclusion.mean() == pytest.approx(0.25, abs=0.02)


def test_a_method_of_ones_own_can_be_foreseen(train):
    @bl.sampler("odd")
    def score(history):
        return torch.arange(history.size) % 2.0

    assert "odd" in supported()
    run = train()
    # All seen, so that the score of everybody counts: (s + 1/2) / sum.
    history = History(4)
    history._sums[:, 0] = 1
    config = run.config.replace(method="odd", batch_size=2)
    assert forecast(history, config).q.tolist() == pytest.approx([1 / 8, 3 / 8, 1 / 8, 3 / 8])
    sharp = config.replace(smoothing=0)
    assert forecast(history, sharp).q.tolist() == pytest.approx([0, 0.5, 0, 0.5])


def test_what_was_recorded_is_read_as_what_it_does(train):
    run = train(method="rs2")
    recorded = run.record.samples["probability"][0].to_numpy()
    found = recorded_forecast(recorded, "draw", run.config)
    assert found.analytic
    assert found.how.startswith("parts of one permutation")
    assert set(found.inclusion) == {0.5}
    with pytest.raises(InputError, match="no probabilities"):
        recorded_forecast(np.full(8, np.nan), "keep", run.config)


def test_a_method_that_no_sample_alone_allows_breaks_nothing(train):
    @bl.sampler("many")
    class Many(bl.Sampler):
        def __init__(self, context):
            super().__init__(context)
            if self.size < 10:
                raise ValueError("ten at least")

        def batches(self, epoch, history, forward):
            yield from ()

    assert "many" not in supported()
    assert "p-SGD" in supported()


def test_numbers_of_a_draw_by_hand(config):
    found = in_numbers(
        forecast(History(128), config), visited=np.arange(128) < 32
    )  # half of 128 drawn uniformly
    assert found["entropy"] == pytest.approx(np.log(128))
    assert found["effective_samples"] == pytest.approx(128)
    assert found["coverage"] == 0.25
    assert found["coverage_after"] == pytest.approx(0.25 + 0.75 * 0.5)
    assert found["expected"] == pytest.approx(64)


# ---- the widget ----


@pytest.fixture
def microscope(train):
    return ProbabilityMicroscope(train(method="p-SGD", epochs=4).record)


def test_every_control_at_its_ends_leaves_a_picture(microscope):
    methods = [value for _, value in microscope.method.options]
    for method, view in zip(methods, 10 * microscope.view.options, strict=False):
        microscope.method.value, microscope.view.value = method, view
        strengths = microscope.smoothing, microscope.power, microscope.beta
        for number in (microscope.epoch, *strengths):
            for end in (number.box.min, number.box.max):
                number.value = end
                assert not microscope.status.is_problem, microscope.status.text
                assert "base64" in microscope.picture.value
                assert f"Epoch {microscope.epoch.value}" in microscope.picture.alt


def test_the_widget_shows_what_the_functions_give(microscope):
    microscope.method.value = "c-SGD"
    microscope.smoothing.value = 0.25
    microscope.power.value = 2
    microscope.budget.value = 0.75
    microscope.epoch.value = 3
    changed = {"budget": 0.75, "smoothing": 0.25, "power": 2.0}
    config = microscope.config.replace(method="c-SGD", **changed)
    by_hand = forecast(microscope.replay.before(3), config)
    assert np.array_equal(microscope.chances.q, by_hand.q)
    assert np.array_equal(microscope.chances.inclusion, by_hand.inclusion)
    assert f"{microscope.numbers['effective_samples']:,.0f} of 128" in microscope.table.value
    assert "simulated" in microscope.table.value


def test_less_smoothing_and_more_power_prefer_more(microscope):
    microscope.method.value = "p-SGD"

    def sizes(control, values):
        for value in values:
            control.value = value
            yield microscope.numbers["effective_samples"]

    much, some, none = sizes(microscope.smoothing, (10.0, 1.0, 0.0))
    assert much >= some >= none
    assert none < much - 1
    even, *greedy = sizes(microscope.power, (0.0, 1.0, 5.0))
    assert even == pytest.approx(128)
    assert even > greedy[0] > greedy[1]
    assert "power 5" in microscope.status.text


def test_a_budget_that_is_too_small_is_said_and_the_picture_stays(microscope):
    microscope.method.value = "p-SGD"
    before = microscope.picture.value
    microscope.budget.value = 0.01
    assert microscope.status.is_problem
    assert "raise the budget" in microscope.status.text
    assert microscope.picture.value == before
    microscope.budget.value = 0.5
    assert not microscope.status.is_problem


def test_the_axes_say_what_they_show(microscope):
    left, middle, _ = microscope.picture.axes
    for axes, name in ((left, "times that of a uniform draw"), (middle, "chance in this epoch")):
        microscope.view.value = "histogram"
        assert (axes.get_xlabel(), axes.get_ylabel()) == (name, "samples")
        assert axes.get_xlim()[1] < 100
        microscope.view.value = "ranked curve"
        assert axes.get_xlabel() == "samples, highest first (%)"
        assert (axes.get_ylabel(), axes.get_xlim()) == (name, (0, 100))


def test_the_controls_begin_as_the_run_had_them(train):
    run = train(method="p-SGD", epochs=4, power=2.5)
    microscope = ProbabilityMicroscope(run.record)
    recorded = microscope.chances.q
    assert microscope.power.value == 2.5
    microscope.method.value = "p-SGD"
    assert microscope.chances.q == pytest.approx(recorded, rel=0.02)
    for given, budget, beta in (("auto", 0.25, 3), (2.5, 0.5, 2.5)):
        run = train(method="selective-backprop", sb_beta=given, budget=budget, epochs=8)
        microscope = ProbabilityMicroscope(run.record)
        assert microscope.beta.value == pytest.approx(beta)
        assert microscope.auto_beta.value == (given == "auto")
        assert not microscope.status.is_problem
        assert microscope.chances.analytic
    # The first epoch of selective backprop has no record.
    microscope.epoch.value = 1
    assert "no probabilities were recorded" in microscope.status.text
    microscope.epoch.value = 2
    assert not microscope.status.is_problem


def test_a_filter_that_still_trains_is_read_as_one(config):
    run = bl.Run(config.replace(method="selective-backprop", epochs=8))
    epochs = iter(run)
    for _ in range(3):
        next(epochs)
    microscope = ProbabilityMicroscope(run.record)
    kept = run.record.samples["probability"][2].to_numpy()
    assert microscope.chances.inclusion == pytest.approx(kept, rel=1e-6)
    epochs.close()


def test_controls_that_change_nothing_are_off(microscope):
    assert microscope.budget.disabled
    for method in ("rs2", "SGD", "selective-backprop", "as recorded", "c-SGD", "p-SGD"):
        microscope.method.value = method
        off = method not in ("c-SGD", "p-SGD")
        assert microscope.smoothing.disabled == microscope.power.disabled == off, method
    assert microscope.beta.disabled
    microscope.method.value = "selective-backprop"
    microscope.auto_beta.value = False
    assert not microscope.beta.disabled


def test_a_growing_record_is_read_again(config):
    run = bl.Run(config.replace(method="p-SGD", epochs=5))
    with pytest.raises(InputError, match="no finished epoch"):
        ProbabilityMicroscope(run.record)
    epochs = iter(run)
    next(epochs)
    microscope = ProbabilityMicroscope(run.record)
    assert microscope.epoch.box.max == 1
    next(epochs)
    next(epochs)
    microscope.reload_button.click()
    assert (microscope.epoch.box.max, microscope.epoch.value) == (3, 3)
    assert not microscope.status.is_problem


@pytest.fixture
def live(config, monkeypatch):
    """Return a run of five epochs that goes on where it is asked to, and its microscope."""
    monkeypatch.setattr(microscope_module, "FOLLOW_SECONDS", 0.05)
    run = bl.Run(config.replace(method="p-SGD", epochs=5))
    epochs = iter(run)
    next(epochs)
    microscope = ProbabilityMicroscope(run.record)
    yield epochs, microscope
    microscope.follower.pause()
    epochs.close()


def test_a_run_that_trains_is_followed_to_its_end(live):
    epochs, microscope = live
    shown = []
    microscope.epoch.observe(lambda change: shown.append(change["new"]), "value")
    microscope.method.value = "c-SGD"
    assert microscope.follower.button.description == "Follow"
    microscope.follower.button.click()
    assert microscope.follower.button.description == "Stop following"
    for epoch in (2, 3, 4, 5):
        time.sleep(0.2)
        assert microscope.follower.playing
        next(epochs)
        until(lambda epoch=epoch: f"Epoch {epoch}: c-SGD" in microscope.status.text)
        assert f"Epoch {epoch}" in microscope.picture.alt
    assert next(epochs, None) is None
    until(lambda: not microscope.follower.playing)
    assert shown == [2, 3, 4, 5]
    assert microscope.follower.button.description == "Follow"
    assert "This run has ended" in microscope.status.text
    known = microscope.replay.before(5)
    assert np.array_equal(microscope.chances.q, forecast(known, microscope.config.replace(
        method="c-SGD", weights="none")).q)  # fmt: skip


def test_whoever_asks_for_an_epoch_is_left_there_and_other_controls_do_not_stop_it(live):
    epochs, microscope = live
    microscope.follower.play()
    microscope.method.value = "p-SGD"
    microscope.smoothing.value = 0.5
    next(epochs)
    until(lambda: "Epoch 2" in microscope.status.text)
    assert "smoothing 0.5" in microscope.status.text
    assert microscope.follower.playing
    microscope.epoch.value = 1
    assert not microscope.follower.playing
    next(epochs)
    time.sleep(0.3)
    assert (microscope.epoch.value, microscope.epoch.box.max) == (1, 2)
    assert "Epoch 1" in microscope.status.text


def test_no_run_that_has_ended_or_was_killed_is_followed(microscope):
    path = microscope.record.path
    for status in ("finished", "finished", "running"):
        about = path / "record.json"
        # What a killed run leaves says that it trains; nobody holds its lock.
        about.write_text(about.read_text().replace('"status": "finished"', f'"status": "{status}"'))
        assert bl.open_record(path).status == status
        assert not bl.open_record(path).is_training
        microscope.follower.button.click()
        until(lambda: not microscope.follower.playing)
        assert microscope.status.text.count("This run has ended: no epoch will follow.") == 1
    assert not microscope.status.is_problem


def test_a_record_that_vanishes_ends_the_following(live):
    epochs, microscope = live
    before = microscope.picture.value
    microscope.follower.play()
    # At once: half a record would be one whose run has ended.
    microscope.record.path.rename(microscope.record.path.with_name("gone"))
    until(lambda: not microscope.follower.playing)
    assert microscope.status.is_problem
    assert str(microscope.record.path) in microscope.status.text
    assert microscope.picture.value == before
    with pytest.raises(RunError, match="was removed"):
        next(epochs)
