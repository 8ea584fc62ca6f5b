"""Methods that choose by what is already known: InfoBatch, core sets, curriculum, loss."""

import numpy as np
import pytest
import torch

from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.history import Credit, History, Measures
from budgetlab.samplers import ProxyRun, SamplerContext, build
from budgetlab.samplers.dynamic_pruning import solve_prune_fraction

SIZE, BATCH = 200, 10


def history_of(losses: torch.Tensor, unseen: torch.Tensor | None = None) -> History:
    """A history in which everybody but the unseen was seen once, with this loss."""
    history = History(len(losses))
    history.start_epoch(1)
    seen = torch.arange(len(losses))
    if unseen is not None:
        seen = seen[~torch.isin(seen, unseen)]
    loss = losses[seen]
    p = (-loss).exp()
    measures = Measures(loss, p, (p > 0.5).float(), p, 1 - p)
    history.update(Credit(torch.arange(len(seen)), seen, torch.ones(len(seen))), measures)
    return history


def make(method, *, size=SIZE, seed=1, spent=0.0, train_proxy=None, **options):
    config = RunConfig(**{"batch_size": BATCH, "budget": 0.5, "method": method} | options)
    setup = SamplerContext(size, config, torch.Generator().manual_seed(seed), torch.device("cpu"),
                  spent=lambda: spent, train_proxy=train_proxy)  # fmt: skip
    return build(method, setup)


def no_look(indices):
    raise AssertionError("this method must not look")


def one_epoch(sampler, history, epoch=2):
    return list(sampler.batches(epoch, history, no_look))


def trained(batches):
    return torch.cat([batch.indices for batch in batches])


# ---- InfoBatch ----


def test_the_first_epoch_of_infobatch_trains_on_everything():
    batches = one_epoch(make("infobatch", prune_fraction=0.5), History(SIZE), 1)
    assert trained(batches).sort().values.tolist() == list(range(SIZE))
    assert all(batch.weights.tolist() == [1.0] * BATCH for batch in batches)


def test_only_the_well_learned_are_left_out_and_the_rest_of_them_weighted_up():
    losses = torch.cat([torch.full((150,), 0.1), torch.full((50,), 2.0)])
    sampler, times = make("infobatch", prune_fraction=0.6), torch.zeros(SIZE)
    for _ in range(100):
        for batch in one_epoch(sampler, history_of(losses)):
            times[batch.indices] += 1
            expected = torch.where(batch.indices < 150, 2.5, 1.0)
            torch.testing.assert_close(batch.weights, expected)
    # Whatever is kept of 150 + 50, its last partial batch is dropped.
    assert times[:150].mean().item() == pytest.approx(100 * 0.4, rel=0.06)
    assert times[150:].mean().item() == pytest.approx(100, rel=0.06)


def test_the_gradients_of_an_epoch_sum_to_those_of_a_full_pass():
    losses = torch.rand(SIZE, generator=torch.Generator().manual_seed(0)) ** 2 + 0.05
    # In batches of one nothing is dropped.
    sampler = make("infobatch", prune_fraction=0.5, batch_size=1)
    history, sums = history_of(losses), {"weighted": [], "plain": []}
    for _ in range(100):
        batches = one_epoch(sampler, history)
        picked, weights = trained(batches), torch.cat([b.weights for b in batches])
        sums["weighted"].append((weights * losses[picked]).sum().item())
        sums["plain"].append(losses[picked].sum().item())
    full = losses.sum().item()
    for name, fair in (("weighted", True), ("plain", False)):
        error = np.std(sums[name]) / len(sums[name]) ** 0.5
        # Beyond 4 standard errors once in 16,000 tests of an unbiased estimate.
        assert (abs(np.mean(sums[name]) - full) < 4 * error) == fair


def test_those_never_seen_are_never_left_out():
    losses, unseen = torch.full((SIZE,), 0.1), torch.arange(40)
    losses[100:] = 1.0
    sampler = make("infobatch", prune_fraction=0.7, batch_size=1)
    for _ in range(20):
        picked = trained(one_epoch(sampler, history_of(losses, unseen)))
        assert set(range(40)) <= set(picked.tolist())
        assert set(range(100, SIZE)) <= set(picked.tolist())


@pytest.mark.parametrize(("spent", "full"), [(0.8749, False), (0.875, True), (1.0, True)])
def test_everything_is_trained_on_at_the_end(spent, full):
    losses = torch.cat([torch.full((150,), 0.1), torch.full((50,), 2.0)])
    batches = one_epoch(make("infobatch", prune_fraction=0.6, spent=spent), history_of(losses))
    assert (len(batches) == SIZE // BATCH) == full
    assert full == all(batch.weights.max() == 1 for batch in batches)


def test_the_share_to_leave_out_by_hand():
    # 7 passes of 10; 1 first, 0.875 at the end, 5.125 over the 8.125 epochs between.
    assert solve_prune_fraction(0.7, 10, 0.8) == pytest.approx((1 - 5.125 / 8.125) / 0.8)
    assert solve_prune_fraction(1.0, 10, 0.8) == pytest.approx(0)
    assert solve_prune_fraction(0.1, 10, 0.8) == 0.75
    assert solve_prune_fraction(0.7, 10, 0.0) == 0
    assert solve_prune_fraction(0.5, 1, 0.8) == 0


def test_the_share_to_leave_out_follows_from_the_run_and_from_who_is_below_the_mean():
    losses = torch.cat([torch.full((150,), 0.1), torch.full((50,), 2.0)])
    sampler = make("infobatch", budget=0.7, epochs=10)
    one_epoch(sampler, history_of(losses))
    assert sampler.prune_fraction == pytest.approx(solve_prune_fraction(0.7, 10, 0.75))
    assert 0 < sampler.prune_fraction < 0.75


def test_where_all_are_equal_nobody_is_below_the_mean():
    sampler = make("infobatch", prune_fraction=0.6)
    assert len(trained(one_epoch(sampler, history_of(torch.full((SIZE,), 0.5))))) == SIZE


def test_a_solved_share_spends_the_budget_in_the_epochs_there_are(train):
    run = train(method="infobatch", budget=0.7, epochs=16, batch_size=8)
    assert run.ledger.steps == 16 * (89 // 8)
    # As many epochs as the full run, but for what partial batches and the loss change.
    assert abs(len(run.record.epochs) - 16) <= 2


# ---- core sets ----


def test_a_random_subset_is_drawn_once():
    sampler = make("random-subset", budget=0.3)
    sets = [set(trained(one_epoch(sampler, History(SIZE), e)).tolist()) for e in range(1, 5)]
    assert len(sets[0]) == 60
    assert all(one == sets[0] for one in sets)
    other = set(
        trained(one_epoch(make("random-subset", budget=0.3, seed=2), History(SIZE))).tolist()
    )
    assert other != sets[0]
    assert sampler.probability.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("share", "count"), [("auto", 100), (0.1, 20), (1.0, 200)])
def test_the_subset_has_the_size_that_is_asked_for(share, count):
    sampler = make("random-subset", budget=0.5, subset_fraction=share)
    assert len(trained(one_epoch(sampler, History(SIZE)))) == count


def test_a_subset_smaller_than_a_batch_is_refused():
    with pytest.raises(InputError, match=r"subset-fraction 0.01 of 200 samples is 2, less than"):
        make("random-subset", subset_fraction=0.01)


def scored(history: History, asked: list):
    def train_proxy(plan, generator):
        asked.append(plan)
        return ProxyRun(history, None)

    return train_proxy


def test_el2n_pruning_keeps_the_hardest_and_scores_once():
    losses, asked = torch.linspace(0.05, 3, SIZE), []
    proxy = scored(history_of(losses), asked)
    sampler = make("el2n-pruned", budget=0.25, train_proxy=proxy)
    for epoch in range(1, 4):
        kept = trained(one_epoch(sampler, History(SIZE), epoch))
        assert kept.sort().values.tolist() == list(range(150, 200))
    assert [(p.samples, p.small, p.losses) for p in asked] == [("training", False, False)]
    inverted = make("el2n-pruned", budget=0.25, train_proxy=scored(history_of(losses.flip(0)), []))
    assert trained(one_epoch(inverted, History(SIZE))).max() < 50


def visits(correct: list[list[int]]) -> History:
    """A history of samples that were right (1) or wrong (0) at their visits."""
    history = History(len(correct))
    everybody, ones = torch.arange(len(correct)), torch.ones(len(correct))
    for epoch, now in enumerate(torch.tensor(correct).T.float(), start=1):
        history.start_epoch(epoch)
        history.update(Credit(everybody, everybody, ones), Measures(ones, ones, now, ones, ones))
    return history


def test_forgetting_pruning_keeps_the_never_learned_then_the_often_forgotten():
    history = visits([[0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1]])
    assert history.never_learned.tolist() == [False, True, False, False, False]
    kept = {}
    for count in (1, 2, 3):
        sampler = make("forgetting-pruned", size=5, batch_size=1, subset_fraction=count / 5,
                       train_proxy=scored(history, []))  # fmt: skip
        kept[count] = set(trained(one_epoch(sampler, History(5))).tolist())
    assert kept == {1: {1}, 2: {1, 2}, 3: {1, 2, 3}}


def test_among_equals_pruning_is_random():
    history = visits([[1, 1]] * SIZE)
    sets = [
        set(trained(one_epoch(make("forgetting-pruned", seed=seed, train_proxy=scored(history, [])),
                              History(SIZE))).tolist())
        for seed in (1, 2)
    ]  # fmt: skip
    assert sets[0] != sets[1]
    assert np.mean(list(sets[0])) == pytest.approx(100, abs=15)


# ---- curriculum ----


def test_a_curriculum_goes_from_easy_to_all():
    losses, means = torch.linspace(0.02, 3, SIZE), []
    for spent in (0.0, 0.25, 0.5, 0.75, 1.0):
        sampler = make("curriculum", budget=0.2, spent=spent)
        picked = torch.cat([trained(one_epoch(sampler, history_of(losses))) for _ in range(20)])
        # 20% of the easiest at first, then 40, 60, 80 and all.
        pool = round(SIZE * (0.2 + 0.8 * spent))
        assert picked.max().item() < pool
        assert picked.float().mean().item() == pytest.approx((pool - 1) / 2, rel=0.12)
        means.append(picked.float().mean().item())
    assert means == sorted(means)


def test_inverted_losses_invert_the_curriculum():
    falling = torch.linspace(3, 0.02, SIZE)
    sampler = make("curriculum", budget=0.2)
    assert trained(one_epoch(sampler, history_of(falling))).min() >= 160
    assert sampler.probability.tolist() == pytest.approx([0.0] * 160 + [1 / 40] * 40)


def test_the_first_epoch_of_a_curriculum_is_uniform_and_the_unseen_stand_in_the_middle():
    sampler = make("curriculum", budget=0.2)
    first = torch.cat([trained(one_epoch(sampler, History(SIZE), 1)) for _ in range(30)])
    assert first.float().mean().item() == pytest.approx(99.5, rel=0.06)
    # 40 are seen, half of them easier than everybody unseen: those 20, then 20 of the unseen.
    unseen = torch.arange(40, SIZE)
    picked = trained(one_epoch(sampler, history_of(torch.linspace(0.02, 3, SIZE), unseen)))
    assert set(range(19)) <= set(picked.tolist())
    assert not set(range(22, 40)) & set(picked.tolist())


# ---- loss ----


def test_loss_draws_in_proportion_to_the_last_loss():
    losses = torch.tensor([0.5, 1.0, 1.5, 3.0] * 50)
    q = make("loss", smoothing=0).probabilities(history_of(losses))
    assert q.tolist() == pytest.approx((losses / losses.sum()).tolist())
    history = history_of(losses)
    history.start_epoch(2)
    p = torch.tensor([0.9])
    again = Measures(-p.log(), p, p, p, p)
    history.update(Credit(torch.tensor([0]), torch.tensor([3]), torch.ones(1)), again)
    # The last loss, not the mean: it fell from 3 to 0.105.
    assert make("loss", smoothing=0).probabilities(history).argmin().item() == 3


@pytest.mark.parametrize(
    "method",
    ["SGD", "unif-SGD", "rs2", "p-SGD", "infobatch", "random-subset", "el2n-pruned", "curriculum"],
)
def test_who_is_drawn_depends_on_the_seed_of_the_run_alone(method):
    history, picked, before = history_of(torch.linspace(0.02, 3, SIZE)), [], torch.get_rng_state()
    for _ in range(2):
        sampler = make(method, train_proxy=scored(history, []))
        picked.append(trained(one_epoch(sampler, history)).tolist())
    assert picked[0] == picked[1]
    assert torch.equal(torch.get_rng_state(), before)
