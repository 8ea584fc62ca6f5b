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
from budgetlab.records import thin
from budgetlab.samplers import keep_probability
from budgetlab.widgets import ProbabilityMicroscope
from budgetlab.widgets import microscope as microscope_module

# ---- what was known ----


@pytest.mark.parametrize("memory", [256_000_000, 12_000])
def test_a_record_gives_the_history_back(train, memory):
    run = train(method="p-SGD", epochs=6)
    replay = Replay(run.record, memory)
    history = replay.before(7)
    for name in ("visits", "times_trained", "last_epoch", "forgotten"):
        assert torch.equal(getattr(history, name), getattr(run.history, name)), name
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


def test_uniform_is_analytic_the_others_are_simulated_and_selective_backprop_keeps_high_losses(
    train,
):
    run = train(method="SGD", epochs=8)
    replay = Replay(run.record)
    history = replay.before(replay.epochs + 1)
    for method, analytic, drawn in (("unif-SGD", True, 64), ("p-SGD", False, 64),
                                    ("SGD", True, 128)):  # fmt: skip
        found = forecast(history, run.config.replace(method=method))
        assert found.analytic == analytic
        assert found.inclusion.sum() == pytest.approx(drawn, rel=0.02)
        assert ("simulated" in found.how) != analytic
    config = run.config.replace(method="selective-backprop", sb_beta=2.0)
    kept, losses = forecast(history, config), history.last_loss
    # 128 samples are fewer than the 1,024 losses of the method's memory: all of them count.
    assert kept.inclusion == pytest.approx(keep_probability(losses, losses, 2.0).numpy())
    assert kept.analytic
    assert set(forecast(History(128), config).inclusion) == {1.0}
    # Beta from the budget keeps about the budget.
    quarter = bl.RunConfig(method="selective-backprop", budget=0.25, batch_size=16)
    assert forecast(history, quarter).inclusion.mean() == pytest.approx(0.25, abs=0.02)


def test_a_method_of_ones_own_can_be_foreseen(train):
    @bl.sampler("odd")
    def score(history):
        return torch.arange(history.size) % 2.0

    @bl.sampler("many")
    class Many(bl.Sampler):
        """Cannot be built for one sample."""

        def __init__(self, context):
            super().__init__(context)
            if self.size < 10:
                raise ValueError("ten at least")

        def batches(self, epoch, history, forward):
            yield from ()

    assert {"odd", "p-SGD"} <= set(supported())
    assert "many" not in supported()
    # All seen, so that the score of each counts: (s + 1/2) / sum.
    history = History(4)
    history._sums[:, 0] = 1
    config = train().config.replace(method="odd", batch_size=2)
    assert forecast(history, config).q.tolist() == pytest.approx([1 / 8, 3 / 8, 1 / 8, 3 / 8])
    sharp = config.replace(smoothing=0)
    assert forecast(history, sharp).q.tolist() == pytest.approx([0, 0.5, 0, 0.5])
    with pytest.raises(InputError, match="decides by what it sees within the epoch"):
        forecast(history, config.replace(method="many"))


def test_what_was_recorded_is_read_as_what_it_does(train):
    run = train(method="rs2")
    recorded = run.record.samples["probability"][0].to_numpy()
    found = recorded_forecast(recorded, "draw", run.config)
    assert found.analytic
    assert found.how.startswith("parts of one permutation")
    assert set(found.inclusion) == {0.5}
    # Of a method that may draw otherwise, it is said how the chance was found.
    other = recorded_forecast(recorded, "draw", run.config.replace(method="top-k"))
    assert "as if 64 were drawn ahead" in other.how
    with pytest.raises(InputError, match="no probabilities"):
        recorded_forecast(np.full(8, np.nan), "keep", run.config)


@pytest.mark.parametrize("shares", ["kept", "balanced"])
@pytest.mark.parametrize("method", ["p-SGD", "unif-SGD", "random-subset"])
def test_a_run_with_class_shares_is_read_class_by_class(train, tmp_path, method, shares):
    run = train(method=method, class_shares=shares, budget=0.25, epochs=4, imbalance=3)
    microscope = ProbabilityMicroscope(run.record)
    sizes = np.bincount(microscope.replay.labels)
    of_class = np.bincount(microscope.replay.labels, microscope.chances.inclusion)
    wanted = 32 * sizes / sizes.sum() if shares == "kept" else [16, 16]
    assert of_class == pytest.approx(wanted, abs=0.5 if shares == "kept" else 1e-6)
    recorded = microscope.chances
    if method in supported():
        microscope.method.value = method
        assert recorded.inclusion == pytest.approx(microscope.chances.inclusion, rel=0.01)
        assert "each class by itself" in recorded.how
        # How many were drawn of each class, a part of the samples does not say.
        part = ProbabilityMicroscope(thin(run.record, tmp_path / "part", samples=60))
        assert "as if 15 were drawn ahead, from all classes together, which this run may not" in (
            part.status.text)  # fmt: skip


def test_a_core_set_is_read_as_passes_over_it(train):
    run = train(method="random-subset", subset_fraction=0.5, budget=0.25, epochs=8, batch_size=24)
    found = ProbabilityMicroscope(run.record).chances
    assert found.how == "passes over the same 64 samples; analytic"
    # Two batches of 24 an epoch.
    assert sorted(set(found.inclusion)) == pytest.approx([0, 48 / 64])


@pytest.mark.parametrize("method", ["p-SGD", "unif-SGD", "rs2", "curriculum", "SGD"])
def test_the_chances_sum_to_what_an_epoch_trains_on(train, method):
    # 64 of 128 are drawn, in whole batches of 50.
    run = train(method=method, batch_size=50, budget=0.5, epochs=4)
    trained = 100 if method == "SGD" else 50
    assert set(run.record.samples["times_trained"].sum("sample").to_numpy()) == {trained}
    microscope = ProbabilityMicroscope(run.record)
    for asked in ("as recorded", method) if method in supported() else ("as recorded",):
        microscope.method.value = asked
        assert microscope.chances.inclusion.sum() == pytest.approx(trained)
        assert f"Drawn: {trained} of 128" in microscope.status.text
    if method == "p-SGD":
        chart = bl.explore.probabilities(run.record)
        twin = chart.twin()
        assert twin["draws"] == 50
        assert twin["inclusion"].sum() == pytest.approx(50)
        assert "50 of 128" in chart.alt
        budget = next(p["bind"] for p in chart.spec["params"] if p["name"] == "budget")
        assert budget["min"] == 0.4  # below, there is no whole batch


def test_numbers_of_a_draw_by_hand(config):
    found = in_numbers(
        forecast(History(128), config), visited=np.arange(128) < 32
    )  # half of 128 drawn uniformly
    assert found == pytest.approx({
        "entropy": np.log(128), "effective_samples": 128, "lowest": 0.5, "highest": 0.5,
        "expected": 64, "coverage": 0.25, "coverage_after": 0.25 + 0.75 * 0.5,
    })  # fmt: skip


# ---- the widget ----


@pytest.fixture
def microscope(train):
    return ProbabilityMicroscope(train(method="p-SGD", epochs=4).record)


def test_every_control_at_its_ends_leaves_a_picture_and_what_changes_nothing_is_off(microscope):
    for _, method in microscope.method.options:
        microscope.method.value = method
        by_scores = method != "as recorded" and (
            "smoothing" in bl.methods.find(method).fields)  # fmt: skip
        assert microscope.smoothing.disabled == microscope.power.disabled != by_scores, method
        assert microscope.budget.disabled == (method == "as recorded")
        for number in (microscope.epoch, microscope.smoothing, microscope.power):
            for end in (number.box.min, number.box.max):
                number.value = end
                assert not microscope.status.is_problem, microscope.status.text
                assert "base64" in microscope.picture.value
                assert f"Epoch {microscope.epoch.value}" in microscope.picture.alt
    microscope.method.value = "p-SGD"
    before = microscope.picture.value
    microscope.budget.value = 0.01
    assert microscope.status.is_problem
    assert "raise the budget to 0.13 or more" in microscope.status.text
    assert "such as batch_size, is that of the run." in microscope.status.text
    # The figure of the settings before would be taken for that of these.
    assert not any(axes.lines or axes.patches for axes in microscope.picture.axes)
    assert microscope.picture.value != before
    assert microscope.picture.alt.startswith("No draw to show: budget 0.01")
    assert (microscope.chances, microscope.numbers) == (None, {})
    microscope.budget.value = microscope.config.budget
    assert microscope.picture.value == before


def test_the_widget_shows_what_the_functions_and_its_chart_give(microscope):
    values = {"smoothing": 0.25, "power": 2, "budget": 0.75, "epoch": 3}
    microscope.method.value = "c-sgd"
    assert microscope.method.value == "c-SGD"
    for name, value in values.items():
        getattr(microscope, name).value = value
    changed = {"budget": 0.75, "smoothing": 0.25, "power": 2.0}
    config = microscope.config.replace(method="c-SGD", **changed)
    by_hand = forecast(microscope.replay.before(3), config)
    assert np.array_equal(microscope.chances.q, by_hand.q)
    assert np.array_equal(microscope.chances.inclusion, by_hand.inclusion)
    assert f"effective sample size {microscope.numbers['effective_samples']:,.0f};" in (
        microscope.status.text)  # fmt: skip
    twin = bl.explore.probabilities(microscope.record, method="c-SGD").twin(**values)
    assert twin["q"] == pytest.approx(microscope.chances.q, rel=1e-3)
    assert twin["losses"] == pytest.approx(
        microscope.replay.before(3).last_loss.numpy(), rel=1e-3, nan_ok=True)  # fmt: skip
    ranked, chance, losses = microscope.picture.axes
    assert ranked.get_ylabel() == "times that of a uniform draw"
    known = ~np.isnan(twin["losses"])
    assert chance.lines[0].get_ydata() == pytest.approx(by_hand.inclusion[known])
    assert losses.get_xlabel() == "last known loss (nats)"
    even, *greedy = [setattr(microscope.power, "value", power) or
                     microscope.numbers["effective_samples"] for power in (0, 1, 5)]  # fmt: skip
    assert even == pytest.approx(128)
    assert even > greedy[0] > greedy[1]


def test_the_controls_begin_as_the_run_had_them(train):
    run = train(method="p-SGD", epochs=4, power=2.5)
    microscope = ProbabilityMicroscope(run.record)
    recorded = microscope.chances.q
    assert microscope.power.value == 2.5
    microscope.method.value = "p-SGD"
    assert microscope.chances.q == pytest.approx(recorded, rel=0.02)
    run = train(method="selective-backprop", sb_beta=2.5, epochs=8)
    microscope = ProbabilityMicroscope(run.record)
    assert not microscope.status.is_problem
    assert microscope.chances.analytic
    # The first epoch of selective backprop has no record.
    microscope.epoch.value = 1
    assert "no probabilities were recorded" in microscope.status.text
    microscope.method.value = "selective-backprop"
    assert not microscope.status.is_problem


def test_a_filter_that_still_trains_is_read_as_one(config):
    run = bl.Run(config.replace(method="selective-backprop", epochs=8))
    with pytest.raises(InputError, match="no finished epoch"):
        ProbabilityMicroscope(run.record)
    epochs = iter(run)
    for _ in range(3):
        next(epochs)
    microscope = ProbabilityMicroscope(run.record)
    kept = run.record.samples["probability"][2].to_numpy()
    assert microscope.chances.inclusion == pytest.approx(kept, rel=1e-6)
    epochs.close()


# ---- following a run ----


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
    follow = microscope.follower.button
    assert follow.description == "Follow"
    follow.click()
    assert follow.description == "Stop following"
    for epoch in (2, 3, 4, 5):
        next(epochs)
        until(lambda epoch=epoch: f"Epoch {epoch}: c-SGD" in microscope.status.text)
        assert f"Epoch {epoch}" in microscope.picture.alt
        # Other controls do not stop it.
        microscope.smoothing.value = epoch / 10
        assert microscope.follower.playing
    assert next(epochs, None) is None
    until(lambda: not microscope.follower.playing)
    assert shown == [2, 3, 4, 5]
    assert follow.description == "Follow"
    assert "This run has ended" in microscope.status.text
    known = microscope.replay.before(5)
    asked = microscope.config.replace(method="c-SGD", smoothing=0.5)
    assert np.array_equal(microscope.chances.q, forecast(known, asked).q)


def test_whoever_asks_for_an_epoch_is_left_there(live):
    epochs, microscope = live
    microscope.follower.play()
    next(epochs)
    until(lambda: "Epoch 2" in microscope.status.text)
    microscope.epoch.value = 1
    assert not microscope.follower.playing
    next(epochs)
    time.sleep(0.3)
    assert (microscope.epoch.value, microscope.epoch.box.max) == (1, 2)
    assert "Epoch 1" in microscope.status.text


def test_no_run_that_has_ended_or_was_killed_is_followed(microscope):
    path = microscope.record.path
    for status in ("finished", "running"):
        about = path / "record.json"
        # What a killed run leaves says that it trains; nobody holds its lock.
        about.write_text(about.read_text().replace('"status": "finished"', f'"status": "{status}"'))
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
