"""Methods that choose by what is already known: InfoBatch, core sets, curriculum, loss."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.history import Credit, History, Measures, Trajectory, measure
from budgetlab.samplers import ProxyRun, SamplerContext, build
from budgetlab.samplers.epoch_sampling import group_centres, solve_prune_fraction
from budgetlab.samplers.scores import even_counts, proportional_counts

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


# ---- what windows of visits say ----


def trajectory(p_y: list[list[float]]) -> Trajectory:
    """Of samples of two classes, label 0, that were seen with these ``p_y``; NaN for no visit."""
    history = Trajectory(len(p_y))
    for epoch, now in enumerate(torch.tensor(p_y).T, start=1):
        history.start_epoch(epoch)
        seen = (~now.isnan()).nonzero()[:, 0]
        p = torch.stack([now[seen], 1 - now[seen]], 1)
        measures = measure(p.log(), torch.zeros_like(seen))
        history.update(Credit(seen, seen, torch.ones(len(seen))), measures)
    return history


def scores_of(method: str, history: Trajectory, **options) -> torch.Tensor:
    sampler = make(method, size=history.size, batch_size=1, **options)
    return sampler.score(history)


NAN = float("nan")
WAVERING = [[0.9] * 12, [0.5] * 12, [0.4, 0.6] * 6, [0.1, 0.9] * 6, [NAN, 0.1, 0.9] * 4]


def test_a_trajectory_keeps_every_visit():
    history = trajectory([[0.5, NAN, 0.25], [0.5, 0.75, 0.75]])
    assert history.p_y[:, 1].tolist() == pytest.approx([0.5, 0.75, 0.75])
    assert history.p_y[:, 0].tolist() == pytest.approx([0.5, NAN, 0.25], nan_ok=True)
    # Since the visit before, whenever that was: .25 ln(.25 / .5) and .75 ln(.75 / .5).
    expected = 0.25 * np.log(2) + 0.75 * np.log(1.5)
    assert history.shift[2].tolist() == pytest.approx([expected, 0.0], abs=1e-6)
    assert history.shift[0].isnan().all()
    assert history.mean_margin.shape == (2,)


def test_dynamic_uncertainty_by_hand():
    found = scores_of("dyn-unc", trajectory(WAVERING))
    windows = [np.std([0.4, 0.6] * 5, ddof=1), np.std([0.1, 0.9] * 5, ddof=1)]
    assert found[:4].tolist() == pytest.approx([0, 0, *windows], abs=1e-6)
    assert found[4].item() == pytest.approx(np.std([0.1, 0.9] * 3 + [0.1], ddof=1), rel=0.05)


def test_dual_weighs_uncertainty_by_difficulty():
    easy, hard = [0.7, 0.9] * 6, [0.1, 0.3] * 6
    found = scores_of("dual", trajectory([easy, hard, [0.5] * 12]))
    deviation = np.std([0.1, 0.3] * 5, ddof=1)
    assert found.tolist() == pytest.approx([0.2 * deviation, 0.8 * deviation, 0], abs=1e-6)
    # Only the first 30 epochs count.
    late = trajectory([[0.5] * 30 + [0.1, 0.9] * 5] * 2)
    assert scores_of("dual", late).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert scores_of("dyn-unc", late).min() > 0.05


def test_dual_draws_easier_samples_the_fewer_it_keeps():
    size, means = 400, {}
    centre = np.linspace(0.05, 0.95, size)
    width = np.minimum(centre, 1 - centre) / 2
    history = trajectory([[c - w, c + w] * 3 for c, w in zip(centre, width, strict=True)])
    for share in (0.05, 0.3, 0.9):
        kept = [
            trained(one_epoch(make("dual", size=size, batch_size=4, subset_fraction=share, seed=s,
                                   train_proxy=scored(history, [])), History(size)))
            for s in range(6)
        ]  # fmt: skip
        means[share] = history.confidence[torch.cat(kept)].mean().item()
    assert means[0.05] > means[0.3] + 0.05 > means[0.9]


def test_tdds_by_hand_and_late_windows_count_most():
    steady = [0.5, 0.6] * 6
    late, early = [0.5] * 10 + [0.9, 0.1], [0.1, 0.9] + [0.5] * 10
    history = trajectory([steady, late, early])
    found, shift = scores_of("tdds", history), history.shift[1:].T
    for sample in range(3):
        lengths = [np.linalg.norm(w - w.mean())
                   for w in (shift[sample, k : k + 9].numpy() for k in range(3))]  # fmt: skip
        expected = sum(0.9 * 0.1**back * x for back, x in enumerate(reversed(lengths)))
        assert found[sample].item() == pytest.approx(expected, rel=1e-4)
    assert found[1] > 10 * found[2] > 0


@pytest.mark.parametrize(("method", "needed"), [("dyn-unc", 2), ("dual", 2), ("tdds", 3)])
def test_a_scoring_run_with_too_few_visits_says_so(method, needed):
    for epochs in range(1, needed + 1):
        history = trajectory([[0.3, 0.8, 0.4][:epochs], [0.9, 0.7, 0.2][:epochs]])
        sampler = make(method, size=2, batch_size=1, train_proxy=scored(history, []))
        if epochs < needed:
            with pytest.raises(RunError, match="saw each sample too rarely to score it: raise"):
                one_epoch(sampler, History(2))
        else:
            assert len(one_epoch(sampler, History(2))) == 1


def test_windows_cannot_be_scored_from_an_ordinary_history():
    sampler = make("tdds", train_proxy=scored(history_of(torch.rand(SIZE)), []))
    with pytest.raises(InputError, match=r"a proxy whose history is a bl\.history\.Trajectory"):
        one_epoch(sampler, History(SIZE))


def margins(values: torch.Tensor) -> History:
    history = History(len(values))
    history.start_epoch(1)
    everything, ones = torch.arange(len(values)), torch.ones(len(values))
    history.update(Credit(everything, everything, ones), Measures(ones, ones, ones, values, ones))
    return history


def test_ccs_leaves_out_the_hardest_and_covers_the_rest_evenly():
    # 20 with wrong labels, 1,000 in the middle, and 80 that are easy.
    aum = torch.cat(
        [torch.full((20,), -9.0), torch.linspace(0, 1, 1000), torch.linspace(9, 10, 80)]
    )
    sampler = make("ccs", size=1100, subset_fraction=100 / 1100, hard_cutoff=0.02, batch_size=10,
                   train_proxy=scored(margins(aum), []))  # fmt: skip
    kept = trained(one_epoch(sampler, History(1100)))
    assert len(kept.unique()) == 100
    assert kept.min() >= 20
    # Of the 50 ranges of width 0.2 five or six lie in the middle, and as many where it is easy.
    assert 40 <= (kept >= 1020).sum() <= 60
    # Without a cutoff the wrong labels are a range of their own.
    sampler = make("ccs", size=1100, subset_fraction=100 / 1100, hard_cutoff=0, batch_size=10,
                   train_proxy=scored(margins(aum), []))  # fmt: skip
    assert 8 <= (trained(one_epoch(sampler, History(1100))) < 20).sum() <= 20


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.floats(0, 1))
def test_counts_are_divided_evenly_or_in_proportion(sizes, share):
    sizes = torch.tensor(sizes)
    total = int(sizes.sum())
    count = round(share * total)
    for divide in (even_counts, proportional_counts):
        if total == 0:
            continue
        counts = divide(sizes, count)
        assert counts.sum() == count
        assert ((counts >= 0) & (counts <= sizes)).all()
    even = even_counts(sizes, count)
    # Whichever group is not used up gives as many as any other, but for one of rounding.
    if (even < sizes).any():
        assert even.max() - even[even < sizes].min() <= len(sizes)
    if total:
        exact = sizes * count / total
        assert ((proportional_counts(sizes, count) - exact).abs() < 1).all()


# ---- SeTa ----


def test_seta_slides_from_easy_to_hard_and_begins_again():
    losses = torch.linspace(0.05, 3, 1000)
    history, means, counts = history_of(losses), [], []
    sampler = make("seta", size=1000, prune_fraction=0.0)
    for epoch in range(1, 14):
        chosen = trained(one_epoch(sampler, history, epoch))
        means.append(losses[chosen].mean().item())
        counts.append(len(chosen))
    assert counts[0] == 1000
    # Six places of the window: epochs 7 and 13 are at the easy end again.
    rising = means[6:12]
    assert rising == sorted(rising)
    assert means[12] == pytest.approx(means[6], abs=0.05)
    assert all(400 <= count <= 600 for count in counts[1:])
    assert rising[0] < 0.9
    assert rising[-1] > 2.1
    # Inverted losses invert it.
    inverted = make("seta", size=1000, prune_fraction=0.0)
    picked = trained(one_epoch(inverted, history_of(losses.flip(0)), 7))
    assert picked.float().mean() > 600


def test_seta_leaves_out_a_random_part_and_ends_with_all_difficulties():
    losses = torch.linspace(0.05, 3, 1000)
    sampler = make("seta", size=1000, prune_fraction=0.4, spent=0.9)
    chosen = trained(one_epoch(sampler, history_of(losses), 4))
    assert len(chosen) == 600
    assert losses[chosen].mean().item() == pytest.approx(losses.mean().item(), abs=0.1)
    assert sampler.probability.unique().tolist() == pytest.approx([0.6])
    times, sampler = torch.zeros(1000), make("seta", size=1000, prune_fraction=0.4)
    for _ in range(300):
        times[trained(one_epoch(sampler, history_of(losses), 2))] += 1
    assert times.mean().item() / 300 == pytest.approx(sampler.probability.mean().item(), abs=0.02)


@pytest.mark.parametrize(("budget", "kept"), [(0.2, 0.4), (0.5, 1.0), (0.03, 0.1), (1.0, 1.0)])
def test_the_part_that_seta_keeps_follows_the_budget(budget, kept):
    assert make("seta", size=1000, budget=budget, prune_fraction="auto").kept == kept


def test_groups_are_those_of_k_means():
    values = torch.cat([torch.randn(50) * 0.1 + place for place in (0.0, 2.0, 5.0)])
    assert group_centres(values, 3).tolist() == pytest.approx([0, 2, 5], abs=0.1)
    assert group_centres(torch.ones(7), 10).tolist() == [1.0] * 10


# ---- class shares ----


def labelled(method, rule, labels, **options):
    config = RunConfig(**{"method": method, "class_shares": rule, "batch_size": 5, "budget": 0.3}
                       | options)  # fmt: skip
    context = SamplerContext(
        len(labels), config, torch.Generator().manual_seed(1), torch.device("cpu"),
        labels=labels, train_proxy=scored(history_of(torch.linspace(3, 0.1, len(labels))), []),
    )  # fmt: skip
    return build(method, context)


UNEVEN = torch.tensor([0] * 120 + [1] * 60 + [2] * 20)


@pytest.mark.parametrize(("rule", "counts"), [("kept", [36, 18, 6]), ("balanced", [20, 20, 20])])
@pytest.mark.parametrize("method", ["p-SGD", "loss", "unif-SGD", "random-subset", "el2n-pruned"])
def test_class_shares_are_kept_or_balanced_exactly(method, rule, counts):
    # The large class is the hardest, so that a free choice would take most of it.
    history = history_of(torch.linspace(3, 0.1, 200))
    sampler = labelled(method, rule, UNEVEN)
    for epoch in (2, 3):
        chosen = trained(one_epoch(sampler, history, epoch))
        assert torch.bincount(UNEVEN[chosen], minlength=3).tolist() == counts
        assert sampler.probability.sum().item() == pytest.approx(1)
        q = sampler.probability.double()
        share = torch.zeros(3, dtype=torch.float64).index_add_(0, UNEVEN, q)
        assert share.tolist() == pytest.approx([n / 60 for n in counts], abs=1e-6)


def test_within_a_class_the_score_still_decides():
    history = history_of(torch.linspace(3, 0.1, 200))
    times = torch.zeros(200)
    for seed in range(60):
        sampler = labelled("p-SGD", "balanced", UNEVEN, smoothing=0.1)
        sampler.generator.manual_seed(seed)
        times[trained(one_epoch(sampler, history))] += 1
    assert times[:40].mean() > 1.1 * times[80:120].mean()
    assert times[120:140].mean() > 1.2 * times[160:180].mean()


def test_class_shares_free_is_what_it_was():
    history = history_of(torch.linspace(3, 0.1, 200))
    free = trained(one_epoch(labelled("p-SGD", "free", UNEVEN), history))
    plain = trained(one_epoch(make("p-SGD", budget=0.3, batch_size=5), history))
    assert free.tolist() == plain.tolist()


def test_unbiased_weights_undo_class_shares_too():
    values, history = torch.rand(200), history_of(torch.linspace(3, 0.1, 200))
    sampler = labelled("p-SGD", "balanced", UNEVEN, weights="unbiased")
    found = []
    for _ in range(400):
        batches = one_epoch(sampler, history)
        found.append(torch.cat([b.weights * values[b.indices] for b in batches]).mean())
    found = torch.stack(found)
    error = (found.std() / len(found) ** 0.5).item()
    assert found.mean().item() == pytest.approx(values.mean().item(), abs=4 * error + 0.002)
    assert sampler.forecast(history).inclusion.sum().item() == pytest.approx(60)


def test_class_shares_without_labels_are_refused():
    with pytest.raises(InputError, match="class-shares 'kept' needs the label of every sample"):
        make("p-SGD", class_shares="kept")


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
