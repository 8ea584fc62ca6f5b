"""What every sampler keeps to, draws by a score, their weights, and methods of your own."""

import functools
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from fake_samplers import Eye, drawn, epoch, generator, lost, make, no_look, proxy, seen, visit
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import budgetlab as bl
from budgetlab import samplers
from budgetlab.errors import InputError
from budgetlab.history import History, Trajectory
from budgetlab.samplers import (
    Batch,
    draw_without_replacement,
    inclusion_probability,
    replace_unseen,
    simulated_inclusion,
    smooth,
)
from budgetlab.samplers.scores import even_counts, proportional_counts

AHEAD = ("unif-SGD", "p-SGD", "c-SGD", "rs2")
FAR = torch.linspace(0.02, 3, 200)


def skewed(size: int, seed: int = 0) -> torch.Tensor:
    """Probabilities of the kit, the largest about five times the smallest."""
    return smooth(torch.rand(size, generator=generator(seed)) ** 3)


# Every method


@pytest.mark.parametrize("method", samplers.names())
def test_batches_are_full_of_samples_that_exist_and_depend_on_the_seed_alone(method):
    history, before, found = Trajectory(200), torch.get_rng_state(), []
    for shift in (0, 1, 2):
        visit(history, torch.arange(200), (-FAR - shift / 5).exp())
    for seed in (1, 1, 2):
        sampler = make(method, seed=seed, val=20, train_proxy=proxy(history, FAR * 0))
        if method == "grad-norm":
            sampler.average_gain = 50.0
        batches = epoch(sampler, history, look=Eye(FAR))
        assert {(len(b.indices), b.indices.dtype) for b in batches} == {(10, torch.int64)}
        assert set(drawn(batches).tolist()) <= set(range(200))
        found.append(drawn(batches).tolist())
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", ["SGD", *AHEAD])
@given(size=st.integers(8, 60), batch=st.integers(1, 8), budget=st.floats(0.05, 1))
def test_a_draw_has_the_budget_and_no_sample_twice(method, size, batch, budget):
    wanted = int(round(size * (1.0 if method == "SGD" else budget), 6))
    if wanted < batch:
        with pytest.raises(InputError, match="less than one batch"):
            make(method, size, batch_size=batch, budget=budget)
        return
    batches = epoch(make(method, size, batch_size=batch, budget=budget), number=1)
    assert [len(one.indices) for one in batches] == [batch] * (wanted // batch)
    assert method == "rs2" or len(drawn(batches).unique()) == len(drawn(batches))
    assert all(one.weights is None and one.augmented is None for one in batches)


def test_a_batch_is_a_list_of_samples_with_a_weight_each():
    for shape in ((3,), (4, 1), ()):
        with pytest.raises(InputError, match=r"weights .* for 4 indices"):
            Batch(torch.arange(4), torch.ones(shape))
    for indices in (torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2)):
        with pytest.raises(InputError, match=r"indices are int64 \[B\]"):
            Batch(indices)


# From scores to probabilities


@pytest.mark.parametrize(
    ("method", "scores", "last"),
    [("unif-SGD", [1, 1, 1, 1], [1, 1, 1, 1]),
     ("p-SGD", [0.9, 0.5, 0.2, 0.1], [0.7, 0.5, 0.2, 0.1]),
     ("c-SGD", [0.09, 0.25, 0.16, 0.09], [0.21, 0.25, 0.16, 0.09]),
     ("loss", [np.log(10), np.log(2), np.log(1.25), np.log(1 / 0.9)],
      [np.log(1 / 0.3), np.log(2), np.log(1.25), np.log(1 / 0.9)])],
)  # fmt: skip
def test_scores_by_hand_and_what_is_drawn_by_them(method, scores, last):
    sampler, history = make(method, 4, batch_size=2), seen([0.1, 0.5, 0.8, 0.9])
    assert sampler.score(history).tolist() == pytest.approx(scores)
    expected = [(s + np.mean(scores)) / (2 * np.sum(scores)) for s in scores]
    assert sampler.probabilities(history).tolist() == pytest.approx(expected)
    assert sampler.probabilities(History(4)).tolist() == pytest.approx([1 / 4] * 4)
    # Without averaging, and by the loss in any case, the last visit is the score.
    visit(history, torch.tensor([0]), torch.full((4,), 0.3))
    found = make(method, 4, batch_size=2, averaging="last").score(history)
    assert found.tolist() == pytest.approx(last)
    if method in ("p-SGD", "c-SGD"):
        error = np.array([0.8, 0.5, 0.2, 0.1])
        mean = error if method == "p-SGD" else error * (1 - error)
        assert sampler.score(history).tolist() == pytest.approx(mean)


@pytest.mark.parametrize("method", ["p-SGD", "c-SGD"])
def test_a_sample_never_seen_takes_the_highest_score(method):
    # m is 0.95, 0.5, -, 0.1, -: the highest m (0.95) is not the highest m (1 - m) (0.25).
    history = seen([0.05, 0.5, 0.7, 0.9, 0.3], unseen=(2, 4))
    q = make(method, 5, batch_size=2).probabilities(history)
    assert q[2] == q[4] == q[0 if method == "p-SGD" else 1] == q.max()
    # Where nothing was seen, all are equal; a method may score the unseen itself.
    nothing = torch.zeros(3, dtype=torch.bool)
    assert len(set(replace_unseen(torch.full((3,), torch.nan), nothing).tolist())) == 1
    bl.sampler("novelty", unseen="score")(lambda history: 1 / (1 + history.visits))
    q = make("novelty", 4, batch_size=1).probabilities(seen([0.5] * 4, unseen=(3,)))
    assert q[3].item() / q[0].item() == pytest.approx((1 + 0.625) / (0.5 + 0.625))


def test_the_published_rule_starves_the_unseen_and_changes_nothing_else():
    ours, published = (make("c-SGD", 5, batch_size=2, fidelity=f) for f in ("default", "published"))
    p_y = [0.05, 0.5, 0.7, 0.9, 0.3]
    # Their m becomes 0.95, so their score 0.0475: the lowest of all.
    scores = torch.tensor([0.0475, 0.25, 0.0475, 0.09, 0.0475])
    q = published.probabilities(seen(p_y, unseen=(2, 4)))
    torch.testing.assert_close(q, smooth(scores), check_dtype=False)
    assert torch.equal(ours.probabilities(seen(p_y)), published.probabilities(seen(p_y)))


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=30), st.floats(0, 5),
       st.floats(0, 5))  # fmt: skip
def test_probabilities_are_the_smoothed_powers_of_the_scores(scores, strength, power):
    q = smooth(torch.tensor(scores), strength, power)
    raised = (np.array(scores) / (max(scores) or 1)) ** power * (max(scores) > 0)
    raised += strength * raised.mean()
    expected = raised / raised.sum() if max(scores) > 0 else np.full(len(scores), 1 / len(scores))
    np.testing.assert_allclose(q, expected, atol=1e-12)
    assert float(q.min()) >= strength / (1 + strength) / len(scores) - 1e-12


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("smoothing", value) for value in (-0.1, np.nan, np.inf)),
     *(("power", value) for value in (-1, 101, np.nan))],
)  # fmt: skip
def test_a_smoothing_or_power_out_of_range_is_refused(name, value):
    given = {"smoothing": 1, "power": 1} | {name: value}
    with pytest.raises(InputError, match=f"{name} .* is not allowed: give a number"):
        smooth(torch.ones(3), given["smoothing"], given["power"])


# Draws without replacement, and how surely each sample is in one


def test_sets_are_drawn_with_their_chances_and_in_any_order():
    q, draws = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64), 6000
    random = generator(2)
    counts, first = dict.fromkeys(combinations(range(4), 2), 0), torch.zeros(4)
    for _ in range(draws):
        counts[tuple(sorted(draw_without_replacement(q, 2, random).tolist()))] += 1
        first[draw_without_replacement(q, 4, random)[0]] += 1
    chance = [float(q[i] * q[j] * (1 / (1 - q[i]) + 1 / (1 - q[j]))) for i, j in counts]
    assert stats.chisquare(list(counts.values()), draws * np.array(chance)).pvalue > 1e-4
    # A batch must be a random part of the draw, not its likely ones first.
    assert stats.chisquare(first.numpy()).pvalue > 1e-4


def test_weights_of_any_size_are_compared_and_zero_comes_last():
    weights = torch.tensor([1e-90, 1e-60, 1e-90, 1e-60], dtype=torch.float64)
    for seed in range(50):
        assert set(draw_without_replacement(weights, 2, generator(seed)).tolist()) == {1, 3}
    weights = (torch.arange(20_000) >= 5000).float()
    for count in (0, 1, 18_000, 20_000):
        found = draw_without_replacement(weights, count, generator())
        assert len(found.unique()) == count
        assert (found < 5000).sum() == max(0, count - 15_000)


def test_the_number_of_threads_changes_no_draw():
    weights, threads, draws = torch.rand(50_000), torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            draws.append(draw_without_replacement(weights, 9000, generator(5)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*draws)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_inclusion_is_that_of_drawing_one_by_one(count):
    exact = np.zeros(5)
    q = np.array([0.08, 0.12, 0.15, 0.25, 0.4])
    for order in permutations(range(5), count):
        chance, left = 1.0, 1.0
        for i in order:
            chance, left = chance * q[i] / left, left - q[i]
        exact[list(order)] += chance
    found = simulated_inclusion(torch.from_numpy(q), count, generator(), races=8000)
    # An average of 8,000 values in [0, 1]: standard error at most 0.0056.
    assert found.numpy() == pytest.approx(exact, abs=0.02)
    assert inclusion_probability(torch.from_numpy(q), count).numpy() == pytest.approx(exact, 0.12)


@pytest.mark.parametrize(
    ("size", "count", "error"), [(8, 1, 0.07), (50, 15, 0.015), (1000, 300, 0.003)]
)
def test_the_error_of_solving_is_that_of_the_docstring(size, count, error):
    q = skewed(size)
    # The average over races varies by less than a tenth of the error that is allowed.
    simulated = simulated_inclusion(q, count, generator(), races=4000)
    found = inclusion_probability(q, count)
    assert float((found / simulated - 1).abs().max()) < error
    assert float(found.sum()) == pytest.approx(count)
    # A few races already give the number that is drawn.
    few, again = (simulated_inclusion(q, count, generator(1)) for _ in range(2))
    assert torch.equal(few, again)
    assert count == 1 or not torch.equal(few, simulated_inclusion(q, count, generator(2)))
    assert float(few.sum()) == pytest.approx(count, rel=1e-6)
    assert size < 100 or float((few / simulated - 1).abs().max()) < 0.2 / np.sqrt(count)


@settings(max_examples=60)
@given(st.integers(2, 200), st.floats(0, 1), st.integers(0, 10**6), st.floats(0, 40))
def test_inclusion_is_a_chance_in_the_order_of_the_weights(size, share, seed, power):
    q = torch.rand(size, generator=generator(seed), dtype=torch.float64) ** power
    q, count = (q + 1e-12) / (q + 1e-12).sum(), round(share * size)
    for found in (inclusion_probability(q, count), simulated_inclusion(q, count, generator(seed))):
        assert ((found >= 0) & (found <= 1)).all()
    solved = inclusion_probability(q, count)
    assert float(solved.sum()) == pytest.approx(count, rel=1e-6, abs=1e-6)
    assert (solved[q.argsort()].diff() >= -1e-12).all()


def test_inclusion_at_both_ends():
    q = smooth(torch.arange(6.0))
    calls = (inclusion_probability, lambda q, n: simulated_inclusion(q, n, generator()),
             lambda q, n: draw_without_replacement(q, n, generator()))  # fmt: skip
    for call in calls:
        with pytest.raises(InputError, match="7 of 6 samples cannot be drawn: draw at most 6"):
            call(q, 7)
    # Samples of weight zero share what is left when all others are drawn.
    q = torch.tensor([0.5, 0.5, 0.0, 0.0])
    for count, expected in ((1, [0.5, 0.5, 0, 0]), (3, [1, 1, 0.5, 0.5])):
        assert inclusion_probability(q, count).tolist() == pytest.approx(expected)


# Weights that undo the preference


def test_which_methods_take_unbiased_weights():
    refused = [
        "selective-backprop", "top-k", "rho-loss", "random-subset", "el2n-pruned",
        "forgetting-pruned", "ccs", "dyn-unc", "dual", "tdds", "seta", "curriculum",
    ]  # fmt: skip
    for method in samplers.names():
        if method in refused:
            with pytest.raises(InputError, match=f"do not exist for method '{method}'"):
                make(method, weights="unbiased")
        else:
            make(method, weights="unbiased")
    with pytest.raises(InputError, match="give a smoothing above 0"):
        make("p-SGD", weights="unbiased", smoothing=0)


# What is drawn, and of which class


UNEVEN = torch.tensor([0] * 120 + [1] * 60 + [2] * 20)


@pytest.mark.parametrize(("rule", "counts"), [("kept", [36, 18, 6]), ("balanced", [20, 20, 20])])
@pytest.mark.parametrize("method", ["p-SGD", "unif-SGD", "random-subset", "el2n-pruned"])
def test_class_shares_are_kept_or_balanced_exactly(method, rule, counts):
    # The large class is the hardest, so that a free choice would take most of it.
    history = lost(FAR.flip(0))
    sampler = make(method, class_shares=rule, labels=UNEVEN, batch_size=5, budget=0.3,
                   train_proxy=proxy(history))  # fmt: skip
    for number in (2, 3):
        chosen = drawn(epoch(sampler, history, number))
        assert torch.bincount(UNEVEN[chosen], minlength=3).tolist() == counts
        share = torch.zeros(3, dtype=torch.float64)
        share.index_add_(0, UNEVEN, sampler.probability.double())
        assert share.tolist() == pytest.approx([n / 60 for n in counts], abs=1e-6)


def test_within_a_class_the_score_still_decides():
    history, times = lost(FAR.flip(0)), torch.zeros(200)
    options = {"class_shares": "balanced", "labels": UNEVEN, "budget": 0.3, "batch_size": 5}
    for seed in range(60):
        times[drawn(epoch(make("p-SGD", seed=seed, smoothing=0.1, **options), history))] += 1
    assert times[:40].mean() > 1.1 * times[80:120].mean()
    assert times[120:140].mean() > 1.2 * times[160:180].mean()
    for batch_size, trained in ((5, 60), (7, 56)):
        sampler = make("p-SGD", **options | {"batch_size": batch_size})
        assert sampler.forecast(history).inclusion.sum().item() == pytest.approx(trained)
    with pytest.raises(InputError, match="class-shares 'kept' needs the label of every sample"):
        make("p-SGD", class_shares="kept")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.floats(0, 1))
def test_counts_are_divided_evenly_or_in_proportion(sizes, share):
    sizes = torch.tensor([*sizes, 1])
    total = int(sizes.sum())
    count = round(share * total)
    even, proportional = even_counts(sizes, count), proportional_counts(sizes, count)
    for counts in (even, proportional):
        assert counts.sum() == count
        assert ((counts >= 0) & (counts <= sizes)).all()
    # Whichever group is not used up gives as many as any other, but for one of rounding.
    if (even < sizes).any():
        assert even.max() - even[even < sizes].min() <= len(sizes)
    assert ((proportional - sizes * count / total).abs() < 1).all()


# Your own


def test_a_method_in_two_lines(train):
    @bl.sampler("mine")
    def score(history):
        """Score by what was last seen in U.S.X."""
        return 1 - history.last_p_y

    assert samplers.describe()["mine"] == "Score by what was last seen in U.S.X"
    assert samplers.names()[-1] == "mine"
    run = train(method="mine")
    assert (run.ledger.steps, run.record.status) == (12, "finished")
    q = make("mine", 4, batch_size=1).probabilities(seen([0.1, 0.5, 0.9, 0.9]))
    assert q.argmax() == 0
    # A cell that is run again takes the place of the one before.
    bl.sampler("mine")(functools.partial(lambda history: history.error * 0))
    assert samplers.names().count("mine") == 1
    assert make("mine", 4, batch_size=1).score(seen([0.5] * 4)).tolist() == [0] * 4


def test_a_class_need_not_foresee_but_has_to_draw():
    bl.sampler("bare")(type("Bare", (bl.Sampler,), {}))
    sampler = make("bare")
    for call in (sampler.forecast, lambda history: sampler.batches(1, history, no_look)):
        with pytest.raises(NotImplementedError):
            call(History(200))


def test_a_method_from_a_file_or_a_module(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(
        "import budgetlab as bl\n@bl.sampler('listed')\ndef score(h):\n    return h.error\n"
        "def plain(h):\n    return h.error\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert samplers.from_module("p-SGD") == "p-SGD"
    assert samplers.from_module("theirs.py:listed") == "listed"
    assert samplers.from_module("theirs:plain") == "plain"
    for place, says in (("theirs.py:lisetd", "did you mean 'listed'"),
                        ("empty.py:it", r"no method 'it': put @bl\.sampler on one"),
                        ("broken.py:it", r"cannot be imported \(ZeroDivisionError")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            samplers.from_module(place)


def test_what_is_no_method_is_refused():
    for name in ("p-SGD", "P-sgd", "", " "):
        with pytest.raises(InputError, match=r"is built in: choose another name|is empty"):
            bl.sampler(name)(lambda history: history.error)
    with pytest.raises(InputError, match=r'give the method a name: @bl\.sampler\("mine"\)'):
        bl.sampler(lambda history: history.error)
    with pytest.raises(InputError, match=r"unseen 'lowest'.*highest, score"):
        bl.sampler("mine", unseen="lowest")
    for made in (int, "score", 3, type("Other", (), {})):
        with pytest.raises(InputError, match="a method is a function of the history, or a Sam"):
            bl.sampler("mine")(made)
    with pytest.raises(InputError, match="unknown method 'p-sdg': did you mean 'p-SGD'"):
        make("p-sdg")
    assert samplers.lookup("P-sgd") is samplers.lookup(samplers.canonical("p-sgd"))


SHAPE = r"method 'mine' must give scores in a tensor of \(4,\), not "
RANGE = "gave the score {}: scores must be finite and >= 0"
# What functions give, and what is said of it; None where it can be used.
GIVEN = {
    "too few": (lambda h: h.error[:2], SHAPE + r"\(2,\)"),
    "a column": (lambda h: h.error[:, None], SHAPE + r"\(4, 1\)"),
    "a list": (lambda h: [1.0] * 4, SHAPE + "list"),
    "negative": (lambda h: torch.tensor([0.0, 0.5, -2.0, -3.0]), RANGE.format("-2")),
    "infinite": (lambda h: h.error / 0, RANGE.format("inf")),
    "no number": (lambda h: h.error * torch.nan, RANGE.format("nan")),
    "whole numbers": (lambda h: h.times_trained, None),
    "truths": (lambda h: h.seen, None),
    "half precision": (lambda h: h.error.half(), None),
    "huge": (lambda h: torch.tensor([0.0, 1, 2, 1], dtype=torch.float64) * 8e307, None),
}


@pytest.mark.parametrize(("score", "says"), GIVEN.values(), ids=GIVEN)
def test_a_score_is_used_or_said_to_be_unusable(score, says):
    bl.sampler("mine")(score)
    sampler, history = make("mine", 4, batch_size=1), seen([0.5] * 4)
    if says:
        with pytest.raises(InputError, match=says):
            sampler.probabilities(history)
    else:
        assert sampler.probabilities(history).sum().item() == pytest.approx(1, abs=1e-12)
