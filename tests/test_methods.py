"""What each method is for: which samples it trains on, at what cost, and what comes of it."""

import numpy as np
import pytest
import torch
from fake_samplers import Eye, drawn, epoch, generator, lost, make, proxy, seen, visit

from budgetlab.augment import AugmentedBatch
from budgetlab.errors import InputError, RunError
from budgetlab.history import Credit, History, Trajectory, measure
from budgetlab.samplers import ForwardResult, keep_probability
from budgetlab.samplers.candidates import gain
from budgetlab.samplers.epoch_sampling import group_centres, solve_prune_fraction

RISING = torch.linspace(0.02, 3, 200)
TWO_KINDS = torch.cat([torch.full((150,), 0.1), torch.full((50,), 2.0)])
NAN = float("nan")

# Passes: SGD and RS2


def test_sgd_goes_through_full_passes_in_the_steps_of_unif_sgd(train):
    run = train(method="SGD", budget=0.5, epochs=4)
    # Two passes over 128 samples in place of four halves, in two rows.
    assert run.history.times_trained.tolist() == [2] * 128
    assert run.record.epochs["steps"].tolist() == [8, 16]
    for method in ("SGD", "unif-SGD"):
        assert train(method=method, budget=0.29, batch_size=12).ledger.steps == 3 * (37 // 12)


def test_the_published_rate_of_sgd_runs_ahead_and_jumps_back():
    """Two of four steps a pass are counted, in four epochs: seven after the first."""
    sampler = make("SGD", 40, budget=0.5, epochs=4, fidelity="published")
    assert sampler.budget == 1
    ahead = [[round(7 * sampler.progress(0.9), 6) for _ in sampler.batches(e, History(40), None)]
             for e in range(1, 5)]  # fmt: skip
    # The first step of an epoch still has the rate after the last one of the epoch before.
    assert ahead == [[0, 1, 2, 3], [4, 3, 4, 5], [6, 5, 6, 7], [7, 7, 7, 7]]
    one = make("SGD", 10, budget=1, epochs=1, fidelity="published")
    assert [one.progress(0.9) for _ in one.batches(1, History(10), None)] == [0]
    assert make("SGD", budget=0.25).progress(0.3) == 0.3


def test_rs2_takes_all_equally_often_and_goes_on_where_it_was():
    sampler, counts = make("rs2", 40, budget=0.3, batch_size=2), torch.zeros(40)
    for number in range(1, 11):
        # The end of one permutation and the start of the next may hold the same sample.
        counts.index_add_(0, drawn(epoch(sampler, number=number)), torch.ones(12))
        assert counts.max() - counts.min() <= 1
    assert sampler.probability.tolist() == pytest.approx([1 / 40] * 40)
    one, other = (make("rs2", 40, budget=0.3, batch_size=2) for _ in range(2))
    epoch(one)
    other.load_state_dict(one.state_dict())
    other.generator.set_state(one.generator.get_state())
    assert drawn(epoch(one)).tolist() == drawn(epoch(other)).tolist()


def test_what_a_method_takes_is_foreseen():
    sampler = make("selective-backprop", budget=0.25)
    rising = [1.0] + [pytest.approx((n / 199) ** 3, abs=0.01) for n in range(199)]
    for found, expected in (
        (make("SGD").forecast(History(200)), [1.0] * 200),
        (make("rs2").forecast(History(200)), [pytest.approx(0.5)] * 200),
        (sampler.forecast(History(200)), [1.0] * 200),
        (sampler.forecast(lost(RISING, unseen=(0,))), rising),
    ):
        assert found.inclusion.tolist() == expected
        assert float(found.q.sum()) == pytest.approx(1)


# Pruning: InfoBatch and SeTa


def test_infobatch_leaves_out_of_the_well_learned_and_weights_the_others_up():
    sampler, times = make("infobatch", prune_fraction=0.6), torch.zeros(200)
    for _ in range(100):
        for batch in epoch(sampler, lost(TWO_KINDS)):
            times[batch.indices] += 1
            torch.testing.assert_close(batch.weights, torch.where(batch.indices < 150, 2.5, 1.0))
    assert sampler.probability.tolist() == pytest.approx([0.4] * 150 + [1.0] * 50)
    # Whatever is kept of 150 + 50, its last partial batch is dropped.
    assert times[:150].mean().item() == pytest.approx(100 * 0.4, rel=0.06)
    assert times[150:].mean().item() == pytest.approx(100, rel=0.06)
    # The unseen are never left out, nor anything where all are equal, or at first.
    part = drawn(epoch(make("infobatch", batch_size=1), lost(TWO_KINDS, range(40))))
    assert {*range(40), *range(150, 200)} <= set(part.tolist())
    for history in (lost(torch.full((200,), 0.5)), History(200)):
        batches = epoch(make("infobatch", prune_fraction=0.6), history)
        assert drawn(batches).sort().values.tolist() == list(range(200))


@pytest.mark.parametrize("method", ["infobatch", "seta"])
def test_at_the_end_and_where_little_is_left_everything_is_trained_on(method):
    for spent, full in ((0.8749, False), (0.875, True)):
        sampler = make(method, prune_fraction=0.6 if method == "infobatch" else 0.0, spent=spent)
        losses = TWO_KINDS if method == "infobatch" else RISING
        assert (len(epoch(sampler, lost(losses))) == 20) == full
    few = make(method, 12, batch_size=12, budget=1.0, prune_fraction=0.7)
    assert len(epoch(few, lost(torch.tensor([0.1] * 11 + [2.0])))) == 1


def test_the_share_that_infobatch_leaves_out_spends_the_budget_in_the_epochs_there_are(train):
    # 7 passes of 10; 1 first, 0.875 at the end, 5.125 over the 8.125 epochs between.
    for values, share in (((0.7, 10, 0.8), (1 - 5.125 / 8.125) / 0.8), ((1.0, 10, 0.8), 0),
                          ((0.1, 10, 0.8), 0.75), ((0.7, 10, 0.0), 0),
                          ((0.5, 1, 0.8), 0)):  # fmt: skip
        assert solve_prune_fraction(*values) == pytest.approx(share)
    run = train(method="infobatch", budget=0.7, epochs=16, batch_size=8)
    assert run.ledger.steps == 16 * (89 // 8)
    # As many epochs as the full run, but for what partial batches and the loss change.
    assert abs(len(run.record.epochs) - 16) <= 2


def test_seta_slides_from_easy_to_hard_begins_again_and_leaves_out_as_the_budget_asks():
    losses, means, counts = torch.linspace(0.05, 3, 1000), [], []
    sampler = make("seta", 1000, prune_fraction=0.0)
    for number in range(1, 14):
        chosen = drawn(epoch(sampler, lost(losses), number))
        means.append(losses[chosen].mean().item())
        counts.append(len(chosen))
    assert counts[0] == 1000
    assert all(400 <= count <= 600 for count in counts[1:])
    # Six places of the window: epochs 7 and 13 are at the easy end again.
    assert means[6:12] == sorted(means[6:12])
    assert means[6] == pytest.approx(means[12], abs=0.05)
    assert means[6] < 0.9 < 2.1 < means[11]
    # What is left out is random: as often as is said, and of all at the end.
    sampler, times = make("seta", 1000, prune_fraction=0.4), torch.zeros(1000)
    for _ in range(100):
        times[drawn(epoch(sampler, lost(losses)))] += 1
    assert times.mean().item() / 100 == pytest.approx(sampler.probability.mean().item(), abs=0.02)
    last = make("seta", 1000, prune_fraction=0.4, spent=0.9)
    assert len(drawn(epoch(last, lost(losses)))) == 600
    for budget, kept in ((0.2, 0.4), (0.5, 1.0), (0.03, 0.1), (1.0, 1.0)):
        assert make("seta", 1000, budget=budget, prune_fraction="auto").kept == kept
    values = torch.cat([torch.randn(50) * 0.1 + place for place in (0.0, 2.0, 5.0)])
    assert group_centres(values, 3).tolist() == pytest.approx([0, 2, 5], abs=0.1)
    assert group_centres(torch.ones(7), 10).tolist() == [1.0] * 10


# Curriculum


def test_a_curriculum_goes_from_easy_to_all():
    for spent in (0.0, 0.5, 1.0):
        sampler = make("curriculum", budget=0.2, spent=spent)
        picked = torch.cat([drawn(epoch(sampler, lost(RISING))) for _ in range(20)])
        # 20% of the easiest at first, then 60% and all.
        pool = round(200 * (0.2 + 0.8 * spent))
        assert picked.max().item() < pool
        assert picked.float().mean().item() == pytest.approx((pool - 1) / 2, rel=0.12)
        expected = [1 / pool] * pool + [0.0] * (200 - pool)
        assert sampler.probability.tolist() == pytest.approx(expected)
    # It begins uniform, and the unseen stand in the middle: 40 are seen, half of them easier
    # than all unseen: those 20, then 20 of the unseen.
    sampler = make("curriculum", budget=0.2)
    first = torch.cat([drawn(epoch(sampler, number=1)) for _ in range(30)])
    assert first.float().mean().item() == pytest.approx(99.5, rel=0.06)
    picked = set(drawn(epoch(sampler, lost(RISING, range(40, 200)))).tolist())
    assert set(range(19)) <= picked
    assert not set(range(22, 40)) & picked


# Core sets


def test_a_random_subset_is_drawn_once_in_the_size_that_is_asked_for():
    sampler = make("random-subset", budget=0.3)
    sets = [set(drawn(epoch(sampler, number=n)).tolist()) for n in range(1, 5)]
    assert len(sets[0]) == 60
    assert all(one == sets[0] for one in sets)
    assert sampler.probability.sum().item() == pytest.approx(1)
    for share, count in (("auto", 100), (0.1, 20), (1.0, 200)):
        assert len(drawn(epoch(make("random-subset", subset_fraction=share)))) == count
    with pytest.raises(InputError, match=r"subset-fraction 0.01 of 200 samples is 2, less than"):
        make("random-subset", subset_fraction=0.01)


def test_pruning_scores_once_and_keeps_the_hardest():
    """By the error of one pass, or the never learned, then the often forgotten."""
    asked: list = []
    trained = proxy(lost(RISING.flip(0)), asked=asked)
    sampler = make("el2n-pruned", budget=0.25, train_proxy=trained)
    for number in range(1, 4):
        kept = drawn(epoch(sampler, number=number))
        assert kept.sort().values.tolist() == list(range(50))
    assert [(p.samples, p.small, p.losses) for p, _ in asked] == [("training", False, False)]
    right = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1]])
    history = History(5)
    for now in right.T:
        visit(history, torch.arange(5), 0.2 + 0.6 * now)
    assert history.never_learned.tolist() == [False, True, False, False, False]
    for count, expected in ((1, {1}), (2, {1, 2}), (3, {1, 2, 3})):
        sampler = make("forgetting-pruned", 5, batch_size=1, subset_fraction=count / 5,
                       train_proxy=proxy(history))  # fmt: skip
        assert set(drawn(epoch(sampler)).tolist()) == expected
    # Among equals it is random.
    one, other = (make("forgetting-pruned", seed=s, train_proxy=proxy(seen([0.8] * 200)))
                  for s in (1, 2))  # fmt: skip
    assert set(drawn(epoch(one)).tolist()) != set(drawn(epoch(other)).tolist())


def test_ccs_leaves_out_the_hardest_and_covers_the_rest_evenly():
    # 20 with wrong labels, 1,000 in the middle, and 80 that are easy.
    aum = torch.cat(
        [torch.full((20,), -9.0), torch.linspace(0, 1, 1000), torch.linspace(9, 10, 80)]
    )
    history, kept = seen(torch.full((1100,), 0.5), margin=aum), {}
    for cutoff in (0.02, 0):
        sampler = make("ccs", 1100, subset_fraction=100 / 1100, hard_cutoff=cutoff,
                       train_proxy=proxy(history))  # fmt: skip
        kept[cutoff] = drawn(epoch(sampler))
    assert len(kept[0.02].unique()) == 100
    assert kept[0.02].min() >= 20
    # Of the 50 ranges of width 0.2 five or six lie in the middle, and as many where it is easy.
    assert 40 <= (kept[0.02] >= 1020).sum() <= 60
    # Without a cutoff the wrong labels are a range of their own.
    assert 8 <= (kept[0] < 20).sum() <= 20


def trajectory(p_y: list[list[float]]) -> Trajectory:
    """Of samples of two classes, label 0, that were seen with these ``p_y``; NaN for no visit."""
    history = Trajectory(len(p_y))
    for number, now in enumerate(torch.tensor(p_y).T, start=1):
        history.start_epoch(number)
        there = (~now.isnan()).nonzero()[:, 0]
        p = torch.stack([now[there], 1 - now[there]], 1)
        told = measure(p.log(), torch.zeros_like(there))
        history.update(Credit(there, there, torch.ones(len(there))), told)
    return history


def scores(method: str, p_y: list[list[float]]) -> torch.Tensor:
    return make(method, len(p_y), batch_size=1).score(trajectory(p_y))


def test_dyn_unc_and_dual_by_hand():
    one, nine = (np.std([0.5 - w, 0.5 + w] * 5, ddof=1) for w in (0.1, 0.4))
    found = scores("dyn-unc", [[0.9] * 12, [0.4, 0.6] * 6, [0.1, 0.9] * 6, [NAN, 0.1, 0.9] * 4])
    assert found[:3].tolist() == pytest.approx([0, one, nine], abs=1e-6)
    assert found[3].item() == pytest.approx(np.std([0.1, 0.9] * 3 + [0.1], ddof=1), rel=0.05)
    found = scores("dual", [[0.7, 0.9] * 6, [0.1, 0.3] * 6, [0.5] * 12])
    assert found.tolist() == pytest.approx([0.2 * one, 0.8 * one, 0], abs=1e-6)
    # Only the first 30 epochs count.
    late = [[0.5] * 30 + [0.1, 0.9] * 5] * 2
    assert scores("dual", late).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert scores("dyn-unc", late).min() > 0.05


def test_dual_draws_easier_samples_the_fewer_it_keeps():
    centre, means = np.linspace(0.05, 0.95, 400), {}
    width = np.minimum(centre, 1 - centre) / 2
    history = trajectory([[c - w, c + w] * 3 for c, w in zip(centre, width, strict=True)])
    for share in (0.05, 0.3, 0.9):
        kept = [drawn(epoch(make("dual", 400, batch_size=4, subset_fraction=share, seed=seed,
                                 train_proxy=proxy(history)))) for seed in range(6)]  # fmt: skip
        means[share] = history.confidence[torch.cat(kept)].mean().item()
    assert means[0.05] > means[0.3] + 0.05 > means[0.9]


def test_tdds_by_hand_and_late_windows_count_most():
    p_y = [[0.5, 0.6] * 6, [0.5] * 10 + [0.9, 0.1], [0.1, 0.9] + [0.5] * 10]
    found, shift = scores("tdds", p_y), trajectory(p_y).shift[1:].T
    for sample in range(3):
        lengths = [np.linalg.norm(w - w.mean())
                   for w in (shift[sample, k : k + 9].numpy() for k in range(3))]  # fmt: skip
        expected = sum(0.9 * 0.1**back * x for back, x in enumerate(reversed(lengths)))
        assert found[sample].item() == pytest.approx(expected, rel=1e-4)
    assert found[1] > 10 * found[2] > 0


@pytest.mark.parametrize(("method", "needed"), [("dyn-unc", 2), ("dual", 2), ("tdds", 3)])
def test_a_scoring_run_with_too_few_visits_says_so(method, needed):
    for visits in range(1, needed + 1):
        history = trajectory([[0.3, 0.8, 0.4][:visits], [0.9, 0.7, 0.2][:visits]])
        sampler = make(method, 2, batch_size=1, train_proxy=proxy(history))
        if visits < needed:
            with pytest.raises(RunError, match="saw each sample too rarely to score it: raise"):
                epoch(sampler)
        else:
            assert len(epoch(sampler)) == 1
    with pytest.raises(InputError, match=r"a proxy whose history is a bl\.history\.Trajectory"):
        epoch(make(method, train_proxy=proxy(lost(RISING))))


# Candidates: top-k and RHO-LOSS


def test_top_k_trains_on_the_highest_losses_of_each_set_of_candidates():
    eye = Eye(torch.rand(320, generator=generator()))
    sampler = make("top-k", 320, batch_size=8, keep_fraction=0.1)
    batches = epoch(sampler, look=eye)
    assert [len(looked) for looked in eye.looked] == [80] * 4
    assert torch.cat(eye.looked).unique().numel() == 320
    for looked, batch in zip(eye.looked, batches, strict=True):
        best = looked[eye.losses[looked].argsort(descending=True)[:8]]
        assert sorted(batch.indices.tolist()) == sorted(best.tolist())
        assert batch.augmented.images[:, 0].tolist() == batch.indices.tolist()
    assert sampler.probability.nansum().item() == 32
    assert (sampler.probability[drawn(batches)] == 1).all()
    # A rest too small for a set is dropped; candidates are at most all there are.
    for size, sets in ((319, 3), (240, 3), (20, 1)):
        options = {"batch_size": 8, "keep_fraction": 0.1}
        assert len(epoch(make("top-k", size, **options), look=Eye(torch.rand(size)))) == sets
    # Where all are kept nothing is looked at.
    epoch(make("top-k", 320, batch_size=8, keep_fraction=1.0))


def test_rho_loss_trains_on_what_the_proxy_gets_right_and_the_network_wrong():
    losses, irreducible = torch.rand(200) + 1, torch.rand(200)
    irreducible[::2] += 5  # such as a wrong label: lost on the proxy too
    losses[::2] += 3  # and with a high loss, which top-k would take
    asked: list = []
    for method, share in (("top-k", 1.0), ("rho-loss", 0.0)):
        trained = proxy(History(1), irreducible, asked)
        sampler = make(method, val=50, train_proxy=trained, keep_fraction=0.25)
        picked = [drawn(epoch(sampler, look=Eye(losses))) for _ in range(3)]
        assert (torch.cat(picked) % 2 == 0).float().mean().item() == share
    ((plan, random),) = asked
    assert (plan.samples, plan.small, plan.losses) == ("validation", True, True)
    assert random is sampler.generator
    # Under mixing the irreducible loss is that of the parts.
    sampler.irreducible = torch.tensor([0.0, 1.0, 4.0])
    mixed = AugmentedBatch(torch.zeros(1, 2), torch.tensor([[1, 2]]), torch.tensor([[0.25, 0.75]]))
    one = torch.ones(1)
    found = sampler.value(ForwardResult(9 * one, torch.empty(1, 2), one.long(), mixed, one))
    assert found.tolist() == pytest.approx([9 - (0.25 * 1 + 0.75 * 4)])


def test_without_a_validation_split_a_share_is_held_out_and_never_trained_on():
    asked: list = []
    trained = proxy(History(1), torch.zeros(200), asked)
    sampler = make("rho-loss", train_proxy=trained, holdout_fraction=0.25, keep_fraction=0.5)
    eye = Eye(torch.rand(200))
    for _ in range(9):
        epoch(sampler, look=eye)
    held_out, looked = set(asked[0][0].samples.tolist()), set(torch.cat(eye.looked).tolist())
    assert len(held_out) == 50
    assert held_out | looked == set(range(200))
    assert not held_out & looked
    with pytest.raises(InputError, match="trains another network first, which only a run of the"):
        epoch(make("rho-loss"), look=eye)
    for share, says in ((0.001, "leaves one part empty: give another share"),
                        (0.999, "leaves one part empty"),
                        (0.97, "chooses among 6 samples, less than one batch of 10")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            make("rho-loss", holdout_fraction=share)


# Candidates: selective backprop


def test_selective_backprop_looks_at_all_and_prefers_high_losses():
    past, losses = torch.tensor([1.0, 2.0, 3.0, 4.0, NAN]), torch.tensor([0.5, 2.0, 2.5, 9.0])
    assert keep_probability(losses, past, 3.0).tolist() == pytest.approx([0, 1 / 64, 1 / 8, 1])
    assert keep_probability(losses, past, 0.0).tolist() == [1, 1, 1, 1]
    # Of all 1 / (beta + 1) are kept, which is the budget.
    for options, beta in (({"budget": 0.1}, 9), ({"budget": 0.5}, 1), ({"sb_beta": 2.0}, 2),
                          ({"budget": 0.1, "fidelity": "published"}, 3)):  # fmt: skip
        assert make("selective-backprop", **options).beta == pytest.approx(beta)
    sampler, eye = make("selective-backprop", 640, budget=0.25), Eye(torch.linspace(1, 0, 640))
    assert drawn(epoch(sampler, number=1)).sort().values.tolist() == list(range(640))
    batches = [batch for number in range(2, 22) for batch in epoch(sampler, None, number, eye)]
    assert torch.bincount(torch.cat(eye.looked)).tolist() == [20] * 640
    times = torch.bincount(drawn(batches), minlength=640).float().view(4, -1).mean(1)
    assert times.mean().item() == pytest.approx(20 * 0.25, rel=0.1)
    # P = percentile ** 3: of all that is kept, 1 - 0.75 ** 4 comes from the top quarter.
    assert (times[0] / times.sum()).item() == pytest.approx(1 - 0.75**4, abs=0.05)
    torch.testing.assert_close(sampler.past, eye.losses[torch.cat(eye.looked)[-1024:]])
    for batch in batches:  # what was scored is what is trained on
        assert batch.augmented.images[:, 0].tolist() == batch.indices.tolist()


@pytest.mark.parametrize(
    ("options", "looking"),
    [({"sb_staleness": 3}, [0, 1, 0, 0, 1, 0, 0, 1]),
     ({"sb_staleness": 2, "fidelity": "published"}, [1, 0, 1, 0, 1, 0, 1, 0])],
)  # fmt: skip
def test_a_stale_filter_looks_every_nth_epoch_and_keeps_the_old_probabilities(options, looking):
    sampler, eye, found = make("selective-backprop", **options), Eye(RISING), []
    for number in range(1, 9):
        before = len(eye.looked)
        batches = epoch(sampler, None, number, eye)
        found.append(len(eye.looked) - before)
    assert found == [20 * times for times in looking]
    assert drawn(batches).float().mean() > 200 * 0.55


def test_published_selective_backprop_ignores_the_budget_and_counts_candidates():
    sampler, eye = make("selective-backprop", fidelity="published", epochs=3), Eye(RISING)
    assert (sampler.budget, sampler.last_epoch) == (1.0, 3)
    assert drawn(epoch(sampler, None, 1, eye)).sort().values.tolist() == list(range(200))
    epoch(sampler, None, 2, eye)
    # 20 sets of candidates a pass, 60 in all: the last one is at progress 1.
    for _ in sampler.batches(3, History(200), eye):
        assert sampler.progress(0.0) == pytest.approx(min(len(eye.looked) / 59, 1))
    assert sampler.progress(0.0) == 1


def test_a_first_epoch_that_trains_on_everything_is_recorded_so_whatever_it_scored():
    options = {"fidelity": "published", "epochs": 4, "sb_staleness": 2}
    sampler, eye = make("selective-backprop", **options), Eye(RISING)
    epoch(sampler, None, 1, eye)
    assert sampler.probability.tolist() == [1.0] * 200
    state, scored = sampler.state_dict(), sampler.keep.clone()
    assert 0 < scored.mean() < 0.5
    # The second epoch chooses by what the first one scored, also from a state of earlier versions.
    for stored in (state, {"past": state["past"], "probability": scored}):
        other = make("selective-backprop", **options)
        other.load_state_dict(stored)
        assert drawn(epoch(other)).float().mean() > 200 * 0.55
        assert other.probability.tolist() == scored.tolist()


# Candidates: the bound of the gradient norm


def chosen(norms: torch.Tensor, times: int, **options) -> tuple[list, object, Eye]:
    """Batches by importance: the method is switched on before each pass."""
    sampler, eye, batches = make("grad-norm", len(norms), batch_size=8, **options), Eye(norms), []
    for _ in range(times):
        sampler.average_gain = 50.0
        batches += epoch(sampler, look=eye)
    return batches, sampler, eye


def test_candidates_are_drawn_by_their_norm_and_their_chance_is_recorded():
    batches, _, eye = chosen(torch.cat([torch.full((160,), 0.1), torch.full((160,), 0.9)]), 60)
    assert {len(looked) for looked in eye.looked} == {24}
    assert (drawn(batches) >= 160).float().mean().item() == pytest.approx(0.9, abs=0.03)
    assert batches[0].augmented.images[:, 0].tolist() == batches[0].indices.tolist()
    norms = torch.linspace(0.1, 0.9, 24)
    _, sampler, _ = chosen(norms, 1)
    expected = 1 - (1 - norms / norms.sum()) ** 8
    assert sampler.probability.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    with pytest.raises(InputError, match="looks at 3 x 8 candidates, more than the 20 samples"):
        make("grad-norm", 20, batch_size=8)


@pytest.mark.parametrize("scale", [1e-6, 1, 1e3])
def test_what_is_gained_is_that_of_the_paper_at_any_scale_of_the_norms(scale):
    norms = torch.linspace(0.1, 0.9, 24, dtype=torch.float64)
    g = norms / norms.sum()
    published = (1 - ((g - 1 / 24) ** 2).sum() / (g * g).sum()) ** -0.5
    assert gain(norms * scale).item() == pytest.approx(published.item())
    assert gain(torch.tensor([scale] + [0.0] * 8)).item() == pytest.approx(3)
    for equal in (scale, 0.0):
        assert gain(torch.full((12,), equal)).item() == pytest.approx(1)


HALVES = {"class_shares": "balanced", "labels": (torch.arange(200) > 139).long()}


def trained_on(name: str, norms: torch.Tensor) -> tuple[list[list], int]:
    """Batches by which a method says, many times, what the mean is; and rows of one time."""
    if name == "grad-norm":
        return [[batch] for batch in chosen(norms, 1500)[0]], 8
    if name == "infobatch":  # in batches of one nothing is dropped
        sampler = make(name, 200, prune_fraction=0.5, batch_size=1)
        return [epoch(sampler, lost(norms)) for _ in range(150)], 200
    method, _, by_class = name.partition(" by ")
    sampler = make(method, 200, weights="unbiased", budget=0.3, **(HALVES if by_class else {}))
    return [epoch(sampler, lost(norms))[:1] for _ in range(800)], 10


@pytest.mark.parametrize("name", ["grad-norm", "infobatch", "loss", "p-SGD", "p-SGD by class"])
def test_the_weighted_mean_of_gradients_is_unbiased_and_the_plain_one_is_not(name):
    norms = torch.rand(24 if name == "grad-norm" else 200, generator=generator(3)) ** 2 + 0.02
    gradients = norms[:, None] * torch.tensor([[1.0, -2.0]]) + 0.1
    groups, rows = trained_on(name, norms)
    for is_weighted in (True, False):
        found = torch.stack([
            sum((gradients[b.indices] * (b.weights[:, None] if is_weighted else 1)).sum(0)
                for b in group) / rows for group in groups
        ])  # fmt: skip
        error = found.std(0) / len(found) ** 0.5
        # Two numbers: beyond 4 standard errors once in 8,000 tests of an unbiased estimate.
        distance = ((found.mean(0) - gradients.mean(0)) / error).abs().max().item()
        assert (distance < 4) == is_weighted
        assert is_weighted or distance > 8


def test_power_leads_from_uniform_to_greedy():
    norms, shares = torch.rand(24, generator=generator(5)) * 0.5 + 0.1, []
    norms[7] = 0.9
    for power in (0, 1, 4, 40):
        batches, _, _ = chosen(norms, 100, power=power)
        shares.append((drawn(batches) == 7).float().mean().item())
        assert power or batches[0].weights.tolist() == pytest.approx([1.0] * 8)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == pytest.approx((1 / 24, 1), abs=0.03)


@pytest.mark.parametrize("equal", [True, False])
def test_it_switches_itself_on_where_norms_differ_and_looks_only_then(equal):
    norms = torch.full((320,), 0.5) if equal else torch.rand(320, generator=generator()) ** 8 + 1e-3
    sampler, eye, history = make("grad-norm", 320, batch_size=8), Eye(norms), History(320)
    average, on = 0.0, False
    for batch in sampler.batches(1, history, eye):
        if not on and batch.augmented is not None:
            on = True
            assert average > 4 / 3
        if not on:
            assert not eye.looked
            assert batch.weights is None
            visit(history, batch.indices, 1 - norms)  # whose error vector has these lengths
            average = 0.9 * average + 0.1 * gain(norms[batch.indices]).item()
    assert on != equal
    if equal:  # from 0, with 1 at every step
        assert sampler.average_gain == pytest.approx(1 - 0.9**40, rel=1e-4)
        assert sampler.probability.tolist() == [1.0] * 320
    # Above the threshold only, and off again: 2.2, 2.08, then 1.97 are two batches by importance.
    sampler = make("grad-norm", grad_norm_threshold=2.0)
    sampler.average_gain = 2.2
    kinds = [b.augmented is not None for b in epoch(sampler, look=Eye(torch.full((200,), 0.3)))]
    assert kinds[:3] == [True, True, False]
