"""Whom the methods draw: how many, how often, and why."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import budgetlab as bl
from budgetlab import samplers
from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.history import Credit, History, Measures, measure
from budgetlab.samplers import (
    Batch,
    SamplerContext,
    draw_without_replacement,
    replace_unseen,
    smooth,
)

DRAW_AHEAD = ("unif-SGD", "p-SGD", "c-SGD", "rs2")


def make(method: str, size: int = 40, seed: int = 0, **settings: object) -> samplers.Sampler:
    config = RunConfig(method=method, **{"batch_size": 2, "budget": 0.5} | settings)
    generator = torch.Generator().manual_seed(seed)
    return samplers.build(method, SamplerContext(size, config, generator, torch.device("cpu")))


def seen_with(p_y: list[float], unseen: tuple[int, ...] = ()) -> History:
    """A history in which every sample was seen once, with this probability of its label."""
    history = History(len(p_y))
    history.start_epoch(1)
    indices = torch.tensor([i for i in range(len(p_y)) if i not in unseen])
    p = torch.tensor(p_y)[indices]
    credit = Credit(torch.arange(len(indices)), indices, torch.ones(len(indices)))
    history.update(credit, Measures(-p.log(), p, (p > 0.5).float(), p, 1 - p))
    return history


def no_look(indices: Tensor):
    raise AssertionError("a method that draws ahead must not look")


def draw(sampler: samplers.Sampler, history: History, epoch: int = 2) -> Tensor:
    batches = [batch.indices for batch in sampler.batches(epoch, history, no_look)]
    return torch.cat(batches) if batches else torch.empty(0, dtype=torch.int64)


# How many


@pytest.mark.parametrize("method", DRAW_AHEAD)
@pytest.mark.parametrize(
    ("size", "budget", "drawn"), [(50_000, 0.29, 14_500), (1000, 0.57, 570), (40, 1.0, 40)]
)
def test_exactly_the_budget_is_drawn(method, size, budget, drawn):
    sampler = make(method, size, budget=budget, batch_size=10)
    indices = draw(sampler, seen_with(np.linspace(0.1, 0.9, size).tolist()))
    assert len(indices) == len(indices.unique()) == drawn
    assert indices.dtype == torch.int64


@pytest.mark.parametrize("method", ["SGD", *DRAW_AHEAD])
@given(
    size=st.integers(8, 60), batch=st.integers(1, 8), budget=st.floats(0.05, 1), seed=st.integers(0)
)
def test_every_batch_is_full_and_no_sample_comes_twice(method, size, batch, budget, seed):
    wanted = int(round(size * (1.0 if method == "SGD" else budget), 6))
    if wanted < batch:
        with pytest.raises(InputError, match="less than one batch"):
            make(method, size, batch_size=batch, budget=budget)
        return
    sampler = make(method, size, seed % 2**31, batch_size=batch, budget=budget)
    batches = list(sampler.batches(1, History(size), no_look))
    assert [len(one.indices) for one in batches] == [batch] * (wanted // batch)
    indices = torch.cat([one.indices for one in batches])
    assert 0 <= indices.min() <= indices.max() < size
    if method != "rs2":
        assert len(indices.unique()) == len(indices)
    assert all(one.weights is None and one.augmented is None for one in batches)


@pytest.mark.parametrize("method", ["SGD", *DRAW_AHEAD])
def test_at_the_full_budget_everybody_is_drawn_once(method):
    history = seen_with(np.linspace(0.05, 0.95, 40).tolist())
    for epoch in (1, 2, 3):
        assert draw(make(method, budget=1.0), history, epoch).sort().values.tolist() == list(
            range(40)
        )


@pytest.mark.parametrize("method", ["SGD", *DRAW_AHEAD])
def test_draws_depend_on_the_seed_alone(method):
    history = seen_with(np.linspace(0.05, 0.95, 40).tolist())
    before = torch.get_rng_state()
    draws = [draw(make(method, seed=seed), history).tolist() for seed in (5, 5, 6)]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.get_rng_state(), before)


# From scores to probabilities


def test_scores_of_zero_give_the_uniform_distribution():
    assert smooth(torch.zeros(5)).tolist() == [0.2] * 5


@pytest.mark.parametrize(
    ("method", "scores"),
    [("unif-SGD", [1, 1, 1, 1]), ("p-SGD", [0.9, 0.5, 0.2, 0.1]),
     ("c-SGD", [0.09, 0.25, 0.16, 0.09])],
)  # fmt: skip
def test_scores_of_the_paper_by_hand(method, scores):
    history = seen_with([0.1, 0.5, 0.8, 0.9])
    sampler = make(method, 4)
    assert sampler.score(history).tolist() == pytest.approx(scores)
    expected = [(s + np.mean(scores)) / (2 * np.sum(scores)) for s in scores]
    assert sampler.probabilities(history).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("method", "scores"), [("p-SGD", [0.8, 0.1]), ("c-SGD", [0.16, 0.09])])
def test_without_averaging_the_last_visit_is_the_score(method, scores):
    history = seen_with([0.6, 0.1])
    credit = Credit(torch.arange(2), torch.arange(2), torch.ones(2))
    history.update(
        credit, measure(torch.tensor([[0.2, 0.8], [0.9, 0.1]]).log(), torch.tensor([0, 0]))
    )
    lifetime = make(method, 2, budget=1).score(history)
    last = make(method, 2, budget=1, averaging="last").score(history)
    assert last.tolist() == pytest.approx(scores)
    error = torch.tensor([(0.4 + 0.8) / 2, (0.9 + 0.1) / 2])
    wanted = error if method == "p-SGD" else error * (1 - error)
    assert lifetime.tolist() == pytest.approx(wanted.tolist())


@pytest.mark.parametrize("method", ["unif-SGD", "p-SGD", "c-SGD"])
def test_the_first_epoch_is_uniform(method):
    assert make(method, 8).probabilities(History(8)).tolist() == pytest.approx([1 / 8] * 8)


# Those never seen


@pytest.mark.parametrize("method", ["p-SGD", "c-SGD"])
def test_a_sample_never_seen_takes_the_highest_score(method):
    # m is 0.95, 0.5, -, 0.1, -: the highest m (0.95) is not the highest m (1 - m) (0.25).
    history = seen_with([0.05, 0.5, 0.7, 0.9, 0.3], unseen=(2, 4))
    q = make(method, 5).probabilities(history)
    highest = 0 if method == "p-SGD" else 1
    assert q[2].item() == q[4].item() == q[highest].item() == q.max().item()


def test_the_published_rule_starves_the_unseen():
    history = seen_with([0.05, 0.5, 0.7, 0.9, 0.3], unseen=(2, 4))
    q = make("c-SGD", 5, fidelity="published").probabilities(history)
    # Their m becomes 0.95, so their score 0.0475: the lowest of all.
    scores = np.array([0.0475, 0.25, 0.0475, 0.09, 0.0475])
    assert q.tolist() == pytest.approx(((scores + scores.mean()) / (2 * scores.sum())).tolist())
    assert q[2].item() == pytest.approx(q.min().item())


def test_the_published_rule_changes_nothing_once_all_are_seen():
    history = seen_with([0.05, 0.5, 0.7, 0.9, 0.3])
    ours, published = (make("c-SGD", 5, fidelity=f).probabilities(history)
                       for f in ("default", "published"))  # fmt: skip
    assert torch.equal(ours, published)


def test_replacing_the_unseen_by_hand():
    seen = torch.tensor([True, False, True])
    scores = torch.tensor([0.2, torch.nan, 0.7])
    assert replace_unseen(scores, seen).tolist() == pytest.approx([0.2, 0.7, 0.7])
    assert len(set(replace_unseen(scores, seen & ~seen).tolist())) == 1


# How often


SKEWED = np.array([0.30, 0.22, 0.16, 0.12, 0.08, 0.06, 0.04, 0.02])


def test_sets_are_drawn_with_their_chances():
    """Chi-square over all sets of two of four."""
    q, draws = np.array([0.4, 0.3, 0.2, 0.1]), 6000
    generator = torch.Generator().manual_seed(2)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        drawn = draw_without_replacement(torch.from_numpy(q), 2, generator)
        key = tuple(sorted(drawn.tolist()))
        counts[key] = counts.get(key, 0) + 1
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    chance = [q[i] * q[j] * (1 / (1 - q[i]) + 1 / (1 - q[j])) for i, j in pairs]
    result = stats.chisquare([counts.get(pair, 0) for pair in pairs], draws * np.array(chance))
    assert result.pvalue > 1e-4


def test_the_order_of_a_draw_says_nothing():
    """A batch must be a random part of the draw, not its likely ones first."""
    generator = torch.Generator().manual_seed(3)
    first = torch.zeros(8)
    for _ in range(4000):
        first[draw_without_replacement(torch.from_numpy(SKEWED), 8, generator)[0]] += 1
    assert stats.chisquare(first.numpy()).pvalue > 1e-4


def test_weights_too_small_for_float32_are_still_compared():
    weights = torch.tensor([1e-90, 1e-60, 1e-90, 1e-60], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        assert set(draw_without_replacement(weights, 2, generator).tolist()) == {1, 3}


def test_more_than_there_are_cannot_be_drawn():
    with pytest.raises(InputError, match="5 of 4 samples cannot be drawn: draw at most 4"):
        draw_without_replacement(torch.ones(4), 5, torch.Generator())


def mean_error_of_drawn(method: str) -> float:
    history = seen_with(np.linspace(0.02, 0.98, 200).tolist())
    drawn = [draw(make(method, 200, seed, budget=0.2), history) for seed in range(40)]
    return history.error[torch.cat(drawn)].mean().item()


def test_methods_draw_whom_they_are_for():
    errors = {method: mean_error_of_drawn(method) for method in ("unif-SGD", "p-SGD")}
    assert errors["unif-SGD"] == pytest.approx(0.5, abs=0.03)
    # Weights m + mean(m): E[m] = (1/3 + 1/4) / 1 = 0.583 for m uniform, one draw at a time.
    assert errors["p-SGD"] == pytest.approx(0.58, abs=0.03)


def test_inverting_a_score_inverts_what_is_drawn():
    bl.sampler("hard first")(lambda history: history.error)
    bl.sampler("easy first")(lambda history: 1 - history.error)
    hard, easy = mean_error_of_drawn("hard first"), mean_error_of_drawn("easy first")
    assert hard == pytest.approx(mean_error_of_drawn("p-SGD"))
    assert hard > 0.55
    assert easy < 0.45
    assert hard + easy == pytest.approx(1, abs=0.03)


# SGD and RS2


def test_rs2_sees_everybody_equally_often():
    sampler = make("rs2", 40, budget=0.3)
    counts = torch.zeros(40)
    for epoch in range(1, 11):
        drawn = draw(sampler, History(40), epoch)
        assert len(drawn) == 12
        # The end of one permutation and the start of the next may hold the same sample.
        counts.index_add_(0, drawn, torch.ones(12))
        assert counts.max() - counts.min() <= 1
    assert counts.tolist() == [3] * 40


def test_unif_sgd_does_not():
    sampler = make("unif-SGD", 40, budget=0.3)
    counts = torch.zeros(40)
    for epoch in range(1, 11):
        counts[draw(sampler, History(40), epoch)] += 1
    assert counts.max() - counts.min() >= 2


def test_rs2_goes_on_where_it_was():
    one, other = make("rs2", 40, seed=1), make("rs2", 40, seed=1)
    draw(one, History(40), 1)
    other.load_state_dict(one.state_dict())
    other.generator.set_state(one.generator.get_state())
    assert draw(one, History(40)).tolist() == draw(other, History(40)).tolist()


@pytest.mark.parametrize("budget", [0.1, 0.29, 0.5, 1.0])
def test_sgd_spends_the_same_steps_as_unif_sgd(train, budget):
    spent = {m: train(method=m, budget=budget, batch_size=12).ledger for m in ("SGD", "unif-SGD")}
    assert spent["SGD"].steps == spent["unif-SGD"].steps == 3 * (int(128 * budget) // 12)
    assert spent["SGD"].trained_samples == spent["unif-SGD"].trained_samples


def test_sgd_goes_through_full_passes(train):
    run = train(method="SGD", budget=0.5, epochs=4)
    # Two passes over 128 samples in place of four halves, in two rows.
    assert run.history.times_trained.tolist() == [2] * 128
    assert run.record.epochs["steps"].tolist() == [8, 16]


def test_the_published_rate_of_sgd_runs_ahead_and_jumps_back():
    """Two of four steps a pass are counted, in four epochs: seven after the first."""
    sampler = make("SGD", 40, batch_size=10, budget=0.5, epochs=4, fidelity="published")
    assert sampler.budget == 1
    ahead = [
        [round(7 * sampler.progress(0.9), 6) for _ in sampler.batches(epoch, History(40), no_look)]
        for epoch in range(1, 5)
    ]
    # The first step of an epoch still has the rate after the last one of the epoch before.
    assert ahead == [[0, 1, 2, 3], [4, 3, 4, 5], [6, 5, 6, 7], [7, 7, 7, 7]]
    one = make("SGD", 10, batch_size=10, budget=1, epochs=1, fidelity="published")
    assert [one.progress(0.9) for _ in one.batches(1, History(10), no_look)] == [0]


def test_otherwise_the_rate_of_sgd_follows_what_is_spent():
    sampler = make("SGD", 40, budget=0.25)
    assert (sampler.progress(0.3), sampler.budget) == (0.3, 0.25)


@pytest.mark.parametrize("method", ["SGD", "rs2", "unif-SGD"])
def test_uniform_methods_record_the_uniform_probability(method):
    sampler = make(method, 40)
    draw(sampler, History(40))
    assert sampler.probability.tolist() == pytest.approx([1 / 40] * 40)


# Your own


@pytest.fixture
def register():
    return bl.sampler


def test_a_method_in_two_lines(register, train):
    @register("mine")
    def score(history):
        """Score by what was last seen."""
        return 1 - history.last_p_y

    assert samplers.describe()["mine"] == "Score by what was last seen"
    run = train(method="mine")
    assert (run.ledger.steps, run.record.status) == (12, "finished")
    error = seen_with([0.1, 0.5, 0.9, 0.9])
    assert make("mine", 4).probabilities(error).argmax() == 0


def test_a_method_can_score_the_unseen_itself(register):
    @register("novelty", unseen="score")
    def score(history):
        return 1 / (1 + history.visits)

    history = seen_with([0.5] * 4, unseen=(3,))
    q = make("novelty", 4).probabilities(history)
    assert q[3].item() / q[0].item() == pytest.approx((1 + 0.625) / (0.5 + 0.625))


def test_a_method_can_be_a_class(register, train):
    @register("in order")
    class InOrder(bl.Sampler):
        """From the first to the last."""

        def batches(self, epoch, history, look):
            for indices in self.full_batches(torch.arange(self.size)):
                yield Batch(indices)

    run = train(method="in order", budget=0.5)
    assert run.history.times_trained.tolist() == [2] * 64 + [1] * 64


def test_methods_come_in_one_order_and_your_own_after_them(register):
    register("a first one by the alphabet")(lambda history: history.error)
    names = samplers.names()
    assert names[:4] == ["unif-SGD", "SGD", "p-SGD", "c-SGD"]
    assert names[-1] == "a first one by the alphabet"
    assert samplers.describe()[names[-1]] == "Your own"


def test_a_full_stop_ends_a_sentence_and_no_name_in_a_list(register):
    @register("mine")
    def score(history):
        """Score by U.S.X"""
        return history.error

    assert samplers.describe()["mine"] == "Score by U.S.X"


def test_a_name_taken_again_is_replaced(register):
    register("mine")(lambda history: history.error)
    register("mine")(lambda history: history.error * 0)
    assert samplers.names().count("mine") == 1
    assert make("mine", 4).score(seen_with([0.5] * 4)).tolist() == [0] * 4


@pytest.mark.parametrize("name", ["SGD", "p-SGD", "selective-backprop"])
def test_built_in_names_are_kept(register, name):
    with pytest.raises(InputError, match=f"method '{name}' is built in: choose another name"):
        register(name)(lambda history: history.error)


def test_forgetting_the_name_is_said(register):
    with pytest.raises(InputError, match=r'give the method a name: @bl\.sampler\("mine"\)'):

        @register
        def score(history):
            return history.error


@pytest.mark.parametrize("made", [int, "score", 3, type("Other", (), {})])
def test_what_is_no_method_is_refused(register, made):
    with pytest.raises(InputError, match="a method is a function of the history, or a Sampler"):
        register("mine")(made)


def test_an_unknown_rule_for_the_unseen_is_refused(register):
    with pytest.raises(InputError, match=r"unseen 'lowest'.*highest, score"):
        register("mine", unseen="lowest")


def test_a_blank_description_does_no_harm(register):
    def score(history):
        return history.error

    score.__doc__ = "  \n "
    register("mine")(score)
    register("partly")(functools.partial(score))
    assert samplers.describe()["mine"]


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (lambda h: h.error[:2], r"a score must be a tensor of shape \(4,\), not \(2,\)"),
        (lambda h: h.error[:, None], r"shape \(4,\), not \(4, 1\)"),
        (lambda h: [1.0] * 4, r"shape \(4,\), not list"),
        (lambda h: None, r"shape \(4,\), not NoneType"),
        (lambda h: -h.error, r"a score of -0\.5 cannot be used: scores are finite and >= 0"),
        (lambda h: torch.tensor([0.0, 0.5, -2.0, -3.0]), r"a score of -2\.0 cannot be used"),
        (lambda h: h.error / 0, "a score of inf cannot be used"),
        (lambda h: h.error * torch.nan, "a score of nan cannot be used"),
    ],
)
def test_a_score_that_cannot_be_used_is_said(register, score, says):
    register("mine")(score)
    with pytest.raises(InputError, match=says):
        make("mine", 4).probabilities(seen_with([0.5] * 4))


@pytest.mark.parametrize(
    "score", [lambda h: h.times_trained, lambda h: h.seen, lambda h: h.error.half()]
)
def test_scores_of_any_number_type_will_do(register, score):
    register("mine")(score)
    q = make("mine", 4).probabilities(seen_with([0.5, 0.2, 0.9, 0.4]))
    assert q.sum().item() == pytest.approx(1, abs=1e-12)


def test_huge_scores_are_still_compared(register):
    register("mine")(lambda h: torch.tensor([0.0, 1.0, 2.0, 1.0], dtype=torch.float64) * 8e307)
    q = make("mine", 4).probabilities(seen_with([0.5] * 4))
    assert q.tolist() == pytest.approx([1 / 8, 2 / 8, 3 / 8, 2 / 8])


@pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
def test_weights_that_do_not_fit_the_batch_are_refused(shape):
    with pytest.raises(InputError, match=r"weights of shape .* do not fit 4 indices"):
        Batch(torch.arange(4), torch.ones(shape))


def test_indices_that_are_no_list_of_samples_are_refused():
    for indices in (torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2)):
        with pytest.raises(InputError, match="indices are int64 of one dimension"):
            Batch(indices)


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="unknown method 'p-sdg': did you mean 'p-SGD'"):
        make("p-sdg")


@pytest.mark.parametrize("given", ["p-sgd", "P-SGD", "p-SGD"])
def test_the_case_of_a_name_does_not_matter(given):
    assert samplers.canonical(given) == "p-SGD"
    assert samplers.lookup(given) is samplers.lookup("p-SGD")
