"""From uniform to greedy, and the weights that undo the preference."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.history import Credit, History, Measures
from budgetlab.samplers import (
    SamplerContext,
    build,
    draw_without_replacement,
    inclusion_probability,
    simulated_inclusion,
    smooth,
    unbiased_weights,
)

SCORES = st.lists(st.floats(0, 1e6), min_size=2, max_size=30)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def skewed(size: int, seed: int = 0) -> torch.Tensor:
    """Probabilities of the kit, the largest about five times the smallest."""
    return smooth(torch.rand(size, generator=generator(seed)) ** 3)


# ---- smoothing and power ----


def test_smoothing_by_hand():
    scores = torch.tensor([1.0, 3.0])  # mean 2
    assert smooth(scores, 0).tolist() == pytest.approx([0.25, 0.75])
    assert smooth(scores, 1).tolist() == pytest.approx([3 / 8, 5 / 8])
    assert smooth(scores, 3).tolist() == pytest.approx([7 / 16, 9 / 16])


def test_temperature_by_hand():
    scores = torch.tensor([1.0, 3.0])
    assert smooth(scores, 0, 2).tolist() == pytest.approx([0.1, 0.9])
    assert smooth(scores, 1, 2).tolist() == pytest.approx([6 / 20, 14 / 20])
    root = 3**0.5
    assert smooth(scores, 0, 0.5).tolist() == pytest.approx([1 / (1 + root), root / (1 + root)])


@given(SCORES, st.floats(0, 10))
def test_temperature_zero_is_uniform(scores, strength):
    q = smooth(torch.tensor(scores), strength, 0)
    assert q.tolist() == pytest.approx([1 / len(scores)] * len(scores))


def test_much_smoothing_is_uniform():
    q = smooth(torch.tensor([0.0, 1.0, 50.0]), 1e6)
    assert q.tolist() == pytest.approx([1 / 3] * 3, rel=1e-4)


def test_a_high_temperature_without_smoothing_draws_the_highest_scores():
    scores = torch.rand(40, generator=generator(4)) * 0.5 + 0.5
    scores[:10] += 0.6
    q = smooth(scores, 0, 100)
    for seed in range(20):
        drawn = draw_without_replacement(q, 10, generator(seed))
        assert sorted(drawn.tolist()) == list(range(10))


@settings(max_examples=40)
@given(SCORES, st.floats(0, 5), st.floats(0, 5))
def test_any_smoothing_and_temperature_keeps_the_order(scores, strength, power):
    q = smooth(torch.tensor(scores), strength, power)
    assert float(q.sum()) == pytest.approx(1)
    assert (q[torch.tensor(scores).argsort()].diff() >= -1e-15).all()
    assert float(q.min()) >= strength / (1 + strength) / len(scores) - 1e-12


def test_between_the_ends_the_preference_grows_steadily():
    scores = torch.rand(200, generator=generator(1))
    effective = [float(1 / (smooth(scores, 0, t) ** 2).sum()) for t in (0, 0.5, 1, 2, 8, 40)]
    assert effective[0] == pytest.approx(200)
    assert effective == sorted(effective, reverse=True)
    assert effective[-1] < 20


@pytest.mark.parametrize(
    ("strength", "power", "named"),
    [(-0.1, 1, "smoothing"), (float("nan"), 1, "smoothing"), (float("inf"), 1, "smoothing"),
     (1, -1, "power"), (1, 101, "power"), (1, float("nan"), "power")],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(strength, power, named):
    with pytest.raises(InputError, match=f"{named} .* is not allowed: give a number"):
        smooth(torch.ones(3), strength, power)


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
def test_simulated_inclusion_is_that_of_drawing_one_by_one(count):
    q = np.array([0.05, 0.1, 0.15, 0.2, 0.5])
    found = simulated_inclusion(torch.from_numpy(q), count, generator(), races=8000)
    # An average of 8,000 values in [0, 1]: standard error at most 0.0056.
    assert found.numpy() == pytest.approx(exact_inclusion(q, count), abs=0.02)
    assert float(found.sum()) == pytest.approx(count, abs=0.03)


def test_simulated_inclusion_agrees_with_the_draws_of_the_kit():
    q = skewed(400, 3)
    counts = torch.zeros(400)
    source = generator(1)
    for _ in range(3000):
        counts[draw_without_replacement(q, 120, source)] += 1
    found = simulated_inclusion(q, 120, generator(2))
    assert float((counts / 3000 - found).abs().max()) < 0.045
    assert float((counts / 3000 - found).abs().mean()) < 0.01


@pytest.mark.parametrize("size", [100, 1000, 10_000])
def test_a_few_races_already_give_the_number_that_is_drawn(size):
    """By themselves 16 races are off by one in 4 sqrt(count), from a time that all share."""
    q, count = skewed(size), size // 3
    found = simulated_inclusion(q, count, generator())
    assert float(found.sum()) == pytest.approx(count, rel=1e-6)
    many = simulated_inclusion(q, count, generator(1), races=1000)
    assert float((found / many - 1).abs().max()) < 0.2 / np.sqrt(count)


@settings(max_examples=60)
@given(st.integers(2, 200), st.floats(0, 1), st.integers(0, 10**6), st.floats(0, 40))
def test_simulated_inclusion_is_a_chance(size, share, seed, power):
    q = torch.rand(size, generator=generator(seed), dtype=torch.float64) ** power
    q = (q + 1e-12) / (q + 1e-12).sum()
    found = simulated_inclusion(q, round(share * size), generator(seed))
    assert ((found >= 0) & (found <= 1)).all()


def test_simulated_inclusion_takes_its_random_numbers_from_the_generator():
    q = skewed(30)
    one, again, other = (simulated_inclusion(q, 9, generator(seed)) for seed in (1, 1, 2))
    assert one.dtype == torch.float64
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_solved_inclusion_is_near_the_exact_one(count):
    """The error that the docstring states, against the sum over all orders."""
    q = skewed(8)
    exact = exact_inclusion(q.numpy(), count)
    assert inclusion_probability(q, count).numpy() == pytest.approx(exact, rel=0.07)
    # And better than the first thought, count * q, which is not even below 1.
    if count > 1:
        far = np.abs(count * q.numpy() / exact - 1).max()
        assert np.abs(inclusion_probability(q, count).numpy() / exact - 1).max() < far / 3


@pytest.mark.parametrize(("size", "count", "error"), [(50, 15, 0.015), (1000, 300, 0.003)])
def test_the_error_falls_with_the_size(size, count, error):
    q = skewed(size)
    # The average over races varies by less than a tenth of the error that is allowed.
    simulated = simulated_inclusion(q, count, generator(), races=4000)
    found = inclusion_probability(q, count)
    assert float((found / simulated - 1).abs().max()) < error
    assert float(found.sum()) == pytest.approx(count)


@settings(max_examples=60)
@given(st.integers(1, 200), st.floats(0, 1), st.integers(0, 10**6), st.floats(0, 40))
def test_solved_inclusion_is_a_chance_in_the_order_of_the_weights(size, share, seed, power):
    q = torch.rand(size, generator=generator(seed), dtype=torch.float64) ** power
    q = q + 1e-12
    count = round(share * size)
    found = inclusion_probability(q, count)
    assert float(found.sum()) == pytest.approx(count, rel=1e-6, abs=1e-6)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[q.argsort()].diff() >= -1e-12).all()


@pytest.mark.parametrize("inclusion", [inclusion_probability, simulated_inclusion])
def test_inclusion_at_both_ends(inclusion):
    extra = () if inclusion is inclusion_probability else (generator(),)
    q = smooth(torch.arange(6.0))
    assert inclusion(q, 0, *extra).tolist() == [0.0] * 6
    assert inclusion(q, 6, *extra).tolist() == pytest.approx([1.0] * 6)
    with pytest.raises(InputError, match="7 of 6 samples cannot be drawn: draw at most 6"):
        inclusion(q, 7, *extra)


def test_weight_zero_shares_what_the_others_leave():
    q = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert inclusion_probability(q, 1).tolist() == pytest.approx([0.5, 0.5, 0, 0])
    assert inclusion_probability(q, 3).tolist() == pytest.approx([1, 1, 0.5, 0.5])


# ---- large draws ----


def test_the_same_seed_gives_the_same_draw_with_any_number_of_threads():
    weights = torch.rand(50_000, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    draws = []
    try:
        for number in (1, 2, 2):
            torch.set_num_threads(number)
            generator = torch.Generator().manual_seed(5)
            draws.append(draw_without_replacement(weights, 9000, generator))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[1], draws[2])


@pytest.mark.parametrize("count", [0, 1, 18_000, 19_999, 20_000])
def test_weight_zero_comes_last_in_a_large_draw(count):
    weights = torch.ones(20_000)
    weights[:5000] = 0
    drawn = draw_without_replacement(weights, count, torch.Generator().manual_seed(0))
    assert len(drawn.unique()) == count
    assert (drawn < 5000).sum().item() == max(0, count - 15_000)


# ---- unbiased ----


def known_history(size: int, seed: int = 0) -> History:
    """Everybody was seen once, with errors and losses of all sizes."""
    p = torch.rand(size, generator=generator(seed)) * 0.96 + 0.02
    history = History(size)
    history.start_epoch(1)
    everybody = torch.arange(size)
    seen = Measures(-p.log(), p, (p > 0.5).float(), p, 1 - p)
    history.update(Credit(everybody, everybody, torch.ones(size)), seen)
    return history


def estimates(method: str, weights: str, values: torch.Tensor, draws: int) -> torch.Tensor:
    """Mean of (weighted) values of the first batch of many draws, ``[draws, ...]``."""
    size = len(values)
    config = RunConfig(method=method, weights=weights, budget=0.3, batch_size=10)
    sampler = build(method, SamplerContext(size, config, generator(7), torch.device("cpu")))
    history, found = known_history(size), []
    for _ in range(draws):
        batch = next(iter(sampler.batches(2, history, None)))
        share = torch.ones(10) if batch.weights is None else batch.weights
        found.append((share[:, None] * values[batch.indices]).mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("method", ["p-SGD", "c-SGD", "loss"])
def test_the_weighted_gradient_estimate_is_unbiased_and_the_other_is_not(method):
    """Gradients of a linear model on each sample, against their mean over all samples."""
    size, draws = 100, 1200
    history = known_history(size)
    features = torch.randn(size, 3, generator=generator(1))
    # As with a real loss, the gradient grows with the error of the sample.
    gradients = history.error[:, None] * (features + 0.8)
    full = gradients.mean(0)
    distance = {}
    for weights in ("none", "unbiased"):
        found = estimates(method, weights, gradients, draws)
        error = found.std(0) / draws**0.5
        distance[weights] = ((found.mean(0) - full) / error).abs()
    # Three numbers: beyond 4 standard errors once in 5,000 tests of an unbiased estimate.
    assert float(distance["unbiased"].max()) < 4
    if method != "c-SGD":  # whose score says nothing about the size of these gradients
        assert float(distance["none"].max()) > 8


def test_the_weights_are_one_on_average_and_one_where_all_are_equal():
    assert unbiased_weights(torch.full((8,), 1 / 8), 3).tolist() == pytest.approx([1.0] * 8)
    q = skewed(60)
    found = unbiased_weights(q, 20).double()
    assert float((inclusion_probability(q, 20) * found).sum() / 20) == pytest.approx(1)
    assert float(found[q.argmin()]) == pytest.approx(float(found.max()))


def test_every_batch_comes_with_the_weights_of_its_samples():
    config = RunConfig(method="p-SGD", weights="unbiased", budget=0.5, batch_size=5)
    sampler = build("p-SGD", SamplerContext(40, config, generator(3), torch.device("cpu")))
    batches = list(sampler.batches(2, known_history(40), None))
    expected = unbiased_weights(sampler.probability, 20)
    assert len(batches) == 4
    for batch in batches:
        assert torch.equal(batch.weights, expected[batch.indices])


def test_weights_change_nothing_of_who_is_drawn():
    def drawn(weights):
        config = RunConfig(method="p-SGD", weights=weights, budget=0.5, batch_size=5)
        sampler = build("p-SGD", SamplerContext(40, config, generator(3), torch.device("cpu")))
        return [b.indices.tolist() for b in sampler.batches(2, known_history(40), None)]

    assert drawn("none") == drawn("unbiased")


@pytest.mark.parametrize(
    "method", ["selective-backprop", "top-k", "rho-loss", "curriculum", "random-subset"]
)
def test_methods_that_leave_some_out_refuse_weights(method):
    config = RunConfig(method=method, weights="unbiased", budget=0.5, batch_size=5)
    with pytest.raises(InputError, match=f"weights 'unbiased' do not exist for method '{method}'"):
        build(method, SamplerContext(200, config, generator(), torch.device("cpu")))


@pytest.mark.parametrize("method", ["SGD", "rs2", "grad-norm", "infobatch"])
def test_methods_that_are_fair_already_take_it(method):
    config = RunConfig(method=method, weights="unbiased", budget=0.5, batch_size=5)
    build(method, SamplerContext(200, config, generator(), torch.device("cpu")))


def test_weights_without_any_smoothing_are_refused():
    config = RunConfig(method="p-SGD", weights="unbiased", smoothing=0, budget=0.5, batch_size=5)
    with pytest.raises(InputError, match="give a smoothing above 0"):
        build("p-SGD", SamplerContext(200, config, generator(), torch.device("cpu")))
