"""The microscope: what is known, what would be drawn, and the controls over both."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import budgetlab as bl
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers import draw_without_replacement, keep_probability, smooth
from budgetlab.widgets import ProbabilityMicroscope
from budgetlab.widgets.chances import (
    chances,
    inclusion_probability,
    recorded_chances,
    resmooth,
    supported,
)
from budgetlab.widgets.microscope_picture import describe_chances
from budgetlab.widgets.replay import Replay

SCORES = st.lists(st.floats(0, 1e6), min_size=2, max_size=30)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- smoothing ----


@given(SCORES)
def test_strength_one_is_the_smoothing_of_the_kit(scores):
    q = smooth(torch.tensor(scores, dtype=torch.float64))
    assert torch.allclose(resmooth(q, 1.0), q, rtol=1e-9, atol=1e-15)


@given(SCORES, st.floats(0, 100))
def test_smoothing_gives_a_distribution_in_the_order_of_the_scores(scores, strength):
    scores = torch.tensor(scores, dtype=torch.float64)
    again = resmooth(smooth(scores), strength)
    assert float(again.sum()) == pytest.approx(1)
    assert (again >= 0).all()
    assert (
        float(again.diff()[scores.diff() > 0].min() if (scores.diff() > 0).any() else 0) >= -1e-12
    )


def test_smoothing_by_hand():
    q = smooth(torch.tensor([1.0, 3.0]))  # mean 2: (3, 5) / 8
    assert torch.allclose(q, torch.tensor([3 / 8, 5 / 8], dtype=torch.float64))
    assert resmooth(q, 0).tolist() == pytest.approx([0.25, 0.75])
    assert resmooth(q, 3).tolist() == pytest.approx([7 / 16, 9 / 16])


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_a_wrong_smoothing_is_refused(strength):
    with pytest.raises(InputError, match="smoothing"):
        resmooth(torch.full((4,), 0.25), strength)


# ---- inclusion ----


def exact_inclusion(q, count):
    """By adding up every order in which ``count`` can be drawn one by one."""
    total = np.zeros(len(q))
    for order in permutations(range(len(q)), count):
        chance, left = 1.0, 1.0
        for i in order:
            chance *= q[i] / left
            left -= q[i]
        total[list(order)] += chance
    return total


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_inclusion_is_that_of_drawing_one_by_one(count):
    q = np.array([0.05, 0.1, 0.15, 0.2, 0.5])
    found = inclusion_probability(torch.from_numpy(q), count, generator(), races=20_000)
    # An average of 20,000 values in [0, 1]: standard error at most 0.0036.
    assert found.numpy() == pytest.approx(exact_inclusion(q, count), abs=0.012)
    assert float(found.sum()) == pytest.approx(count, abs=0.02)


def test_inclusion_agrees_with_the_draws_of_the_kit():
    q = smooth(torch.rand(400, generator=generator(3)) ** 4)
    counts = torch.zeros(400)
    source = generator(1)
    for _ in range(3000):
        counts[draw_without_replacement(q, 120, source)] += 1
    found = inclusion_probability(q, 120, generator(2))
    assert float((counts / 3000 - found).abs().max()) < 0.045
    assert float((counts / 3000 - found).abs().mean()) < 0.01


@pytest.mark.parametrize(("count", "expected"), [(0, 0.0), (6, 1.0)])
def test_inclusion_at_both_ends(count, expected):
    q = smooth(torch.arange(6.0))
    assert inclusion_probability(q, count, generator()).tolist() == [expected] * 6


def test_more_than_all_cannot_be_drawn():
    with pytest.raises(InputError, match="at most 6"):
        inclusion_probability(smooth(torch.arange(6.0)), 7, generator())


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10**6))
def test_who_is_more_probable_is_included_more_surely(size, seed):
    q = smooth(torch.rand(size, generator=generator(seed)))
    found = inclusion_probability(q, size // 2, generator(seed), races=400)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    lowest, highest = int(q.argmin()), int(q.argmax())
    assert found[highest] >= found[lowest] - 0.1


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


def test_an_epoch_that_does_not_exist(train):
    replay = Replay(train().record)
    with pytest.raises(InputError, match="from 1 to 4"):
        replay.before(5)
    with pytest.raises(InputError, match="epoch 0"):
        replay.before(0)


# ---- what would be drawn ----


@pytest.mark.parametrize("method", ["p-SGD", "c-SGD", "unif-SGD", "RS2", "SGD"])
def test_what_is_foreseen_is_what_the_run_recorded(train, method):
    run = train(method=method, epochs=5)
    replay, config = Replay(run.record), run.config
    for epoch in range(1, replay.epochs + 1):
        foreseen = chances(replay.before(epoch), config)
        recorded = run.record.samples["probability"][epoch - 1].to_numpy()
        assert foreseen.q == pytest.approx(recorded, rel=0.02), epoch
        assert foreseen.q.sum() == pytest.approx(1)


def test_uniform_is_analytic_and_the_others_are_simulated(train):
    run = train(method="unif-SGD")
    replay = Replay(run.record)
    uniform = chances(replay.before(2), run.config)
    assert uniform.analytic
    assert set(uniform.inclusion) == {0.5}
    guided = chances(replay.before(2), run.config.replace(method="p-SGD"))
    assert not guided.analytic
    assert "simulated" in guided.how
    assert guided.inclusion.sum() == pytest.approx(64, rel=0.02)
    passes = chances(replay.before(2), run.config.replace(method="SGD"))
    assert set(passes.inclusion) == {1.0}


def test_high_loss_is_kept_by_selective_backprop(train):
    run = train(method="SGD", epochs=8)
    replay = Replay(run.record)
    history = replay.before(replay.epochs + 1)
    assert history.seen.all()
    config = run.config.replace(method="selective-backprop", sb_beta=2.0)
    kept = chances(history, config)
    losses = history.last_loss
    expected = keep_probability(losses, losses, 2.0).numpy()
    # 128 samples are fewer than the 1,024 losses of the method's memory: all of them count.
    assert kept.inclusion == pytest.approx(expected)
    assert kept.analytic
    first = chances(History(128), config)
    assert set(first.inclusion) == {1.0}


def test_beta_from_the_budget_keeps_about_the_budget(train):
    history = Replay(train(method="unif-SGD", epochs=8).record).before(9)
    config = bl.RunConfig(method="selective-backprop", budget=0.25, batch_size=16)
    assert chances(history, config).inclusion.mean() == pytest.approx(0.25, abs=0.02)


def test_a_method_of_ones_own_can_be_foreseen(train, forget_methods):
    @bl.sampler("odd")
    def score(history):
        return torch.arange(history.size) % 2.0

    assert "odd" in supported()
    run = train()
    # All seen, so that the score of everybody counts: (s + 1/2) / sum.
    history = History(4)
    history._sums[:, 0] = 1
    config = run.config.replace(method="odd", batch_size=2)
    assert chances(history, config).q.tolist() == pytest.approx([1 / 8, 3 / 8, 1 / 8, 3 / 8])
    assert chances(history, config, smoothing=0).q.tolist() == pytest.approx([0, 0.5, 0, 0.5])


def test_nothing_recorded_is_said(config):
    with pytest.raises(InputError, match="no probabilities"):
        recorded_chances(np.full(8, np.nan), "keep", config)


def test_numbers_of_a_draw_by_hand(config):
    found = describe_chances(
        chances(History(128), config), visited=np.arange(128) < 32
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
        for number in (microscope.epoch, microscope.smoothing, microscope.beta):
            for end in (number.box.min, number.box.max):
                number.value = end
                assert not microscope.status.is_problem, microscope.status.text
                assert "base64" in microscope.picture.panel.value
                assert f"Epoch {microscope.epoch.value}" in microscope.picture.panel.alt


def test_the_widget_shows_what_the_functions_give(microscope):
    microscope.method.value = "c-SGD"
    microscope.smoothing.value = 0.25
    microscope.budget.value = 0.75
    microscope.epoch.value = 3
    config = microscope.config.replace(method="c-SGD", budget=0.75)
    by_hand = chances(microscope.replay.before(3), config, smoothing=0.25)
    assert np.array_equal(microscope.chances.q, by_hand.q)
    assert np.array_equal(microscope.chances.inclusion, by_hand.inclusion)
    assert f"{microscope.numbers['effective_samples']:,.0f} of 128" in microscope.table.value
    assert "simulated" in microscope.table.value


def test_less_smoothing_prefers_more(microscope):
    microscope.method.value = "p-SGD"
    sizes = []
    for strength in (0.0, 1.0, 10.0):
        microscope.smoothing.value = strength
        sizes.append(microscope.numbers["effective_samples"])
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] - 1


def test_a_budget_that_is_too_small_is_said_and_the_picture_stays(microscope):
    microscope.method.value = "p-SGD"
    before = microscope.picture.panel.value
    microscope.budget.value = 0.01
    assert microscope.status.is_problem
    assert "raise the budget" in microscope.status.text
    assert microscope.picture.panel.value == before
    microscope.budget.value = 0.5
    assert not microscope.status.is_problem


def test_controls_that_change_nothing_are_off(microscope):
    assert microscope.smoothing.disabled
    assert microscope.budget.disabled
    microscope.method.value = "p-SGD"
    assert not microscope.smoothing.disabled
    assert microscope.beta.disabled
    microscope.method.value = "selective-backprop"
    assert microscope.smoothing.disabled
    microscope.auto_beta.value = False
    assert not microscope.beta.disabled


def test_a_growing_record_is_read_again(config):
    run = bl.Run(config.replace(method="p-SGD", epochs=5))
    epochs = iter(run)
    next(epochs)
    microscope = ProbabilityMicroscope(run.record)
    assert microscope.epoch.box.max == 1
    next(epochs)
    next(epochs)
    microscope.reload_button.click()
    assert (microscope.epoch.box.max, microscope.epoch.value) == (3, 3)
    assert not microscope.status.is_problem


def test_the_first_epoch_of_selective_backprop_has_no_record(train):
    microscope = ProbabilityMicroscope(train(method="selective-backprop", epochs=8).record)
    assert not microscope.status.is_problem
    assert microscope.chances.analytic
    microscope.epoch.value = 1
    assert "no probabilities were recorded" in microscope.status.text
    microscope.epoch.value = 2
    assert not microscope.status.is_problem


def test_no_epoch_is_an_error(config):
    run = bl.Run(config)
    with pytest.raises(InputError, match="no finished epoch"):
        ProbabilityMicroscope(run.record)
