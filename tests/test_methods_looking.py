"""Methods that look at candidates: top-k, RHO-LOSS, and the bound of the gradient norm."""

import pytest
import torch

from budgetlab.augment import AugmentedBatch
from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.history import Credit, History, Measures
from budgetlab.samplers import ForwardResult, ProxyRun, SamplerContext, build
from budgetlab.samplers.candidates import gain

SIZE, BATCH = 320, 8


class Eye:
    """Looks at samples whose losses and error norms are known beforehand."""

    def __init__(self, losses: torch.Tensor, error_norms: torch.Tensor | None = None):
        self.losses = losses
        self.error_norms = losses if error_norms is None else error_norms
        self.looked: list[torch.Tensor] = []

    def __call__(self, indices: torch.Tensor) -> ForwardResult:
        self.looked.append(indices)
        # The image of a sample holds its number and the look, so that a test recognises it.
        images = torch.stack([indices.float(), torch.full((len(indices),), len(self.looked))], 1)
        augmented = AugmentedBatch(images, indices[:, None], torch.ones(len(indices), 1))
        empty = torch.empty(len(indices), 2)
        return ForwardResult(
            self.losses[indices], empty, indices * 0, augmented, self.error_norms[indices]
        )


def make(method: str, *, size: int = SIZE, seed: int = 1, train_proxy=None, val=0, **options):
    config = RunConfig(**{"batch_size": BATCH, "budget": 0.5, "method": method} | options)
    setup = SamplerContext(size, config, torch.Generator().manual_seed(seed), torch.device("cpu"),
                  validation_size=val, train_proxy=train_proxy)  # fmt: skip
    return build(method, setup)


def one_pass(sampler, eye, history=None):
    return list(sampler.batches(1, history or History(sampler.size), eye))


# ---- top-k ----


def test_the_highest_losses_of_each_set_of_candidates_are_trained_on():
    eye = Eye(torch.rand(SIZE, generator=torch.Generator().manual_seed(0)))
    batches = one_pass(make("top-k", keep_fraction=0.1), eye)
    assert [len(looked) for looked in eye.looked] == [80] * 4
    assert torch.cat(eye.looked).unique().numel() == SIZE
    for looked, batch in zip(eye.looked, batches, strict=True):
        best = looked[eye.losses[looked].argsort(descending=True)[:BATCH]]
        assert sorted(batch.indices.tolist()) == sorted(best.tolist())
        assert batch.augmented.images[:, 0].tolist() == batch.indices.tolist()
        assert batch.weights is None


def test_top_k_inverts_with_the_losses():
    means = []
    for losses in (torch.linspace(0, 1, SIZE), torch.linspace(1, 0, SIZE)):
        batches = one_pass(make("top-k"), Eye(losses))
        means.append(torch.cat([b.indices for b in batches]).float().mean().item())
    assert means[0] > 0.85 * SIZE
    assert means[1] < 0.15 * SIZE


def test_from_uniform_to_greedy():
    losses, means = torch.linspace(0, 1, SIZE), []
    for keep in (1.0, 0.5, 0.25, 0.1, 0.025):
        eye = Eye(losses)
        batches = one_pass(make("top-k", keep_fraction=keep), eye)
        means.append(losses[torch.cat([b.indices for b in batches])].mean().item())
        assert (keep == 1) == (not eye.looked)
    assert means[0] == pytest.approx(0.5, abs=1e-6)
    assert means == sorted(means)
    # The highest 8 of all 320: the mean of the upper fortieth.
    assert means[-1] == pytest.approx(1 - 1 / 80, abs=0.01)


def test_candidates_are_at_most_all_there_are():
    eye = Eye(torch.rand(20))
    batches = one_pass(make("top-k", size=20, keep_fraction=0.1), eye)
    assert len(eye.looked[0]) == 20
    assert len(batches) == 1


def test_the_record_says_who_was_kept():
    sampler, eye = make("top-k"), Eye(torch.rand(SIZE))
    trained = torch.cat([b.indices for b in one_pass(sampler, eye)])
    assert sampler.probability_kind == "keep"
    assert sampler.probability.nansum().item() == len(trained)
    assert (sampler.probability[trained] == 1).all()


# ---- RHO-LOSS ----


def knows(irreducible: torch.Tensor, asked: list | None = None, chance: list | None = None):
    def train_proxy(plan, generator):
        if asked is not None:
            asked.append(plan)
        if chance is not None:
            chance.append(generator)
        return ProxyRun(History(1), irreducible)

    return train_proxy


def test_rho_loss_trains_on_what_the_proxy_gets_right_and_the_network_wrong():
    losses, irreducible = torch.rand(SIZE) + 1, torch.rand(SIZE)
    irreducible[::2] += 5  # such as a wrong label: lost on the proxy too
    losses[::2] += 3  # and with a high loss, which top-k would take
    for method, share in (("top-k", 1.0), ("rho-loss", 0.0)):
        sampler = make(method, train_proxy=knows(irreducible), val=50)
        trained = torch.cat([b.indices for b in one_pass(sampler, Eye(losses))])
        assert (trained % 2 == 0).float().mean().item() == share
    for looked, batch in zip((eye := Eye(losses)).looked, one_pass(sampler, eye), strict=False):
        worth = losses - irreducible
        best = looked[worth[looked].argsort(descending=True)[:BATCH]]
        assert sorted(batch.indices.tolist()) == sorted(best.tolist())


def test_under_mixing_the_irreducible_loss_is_that_of_the_parts():
    irreducible = torch.tensor([0.0, 1.0, 4.0] + [0.0] * (SIZE - 3))
    sampler = make("rho-loss", train_proxy=knows(irreducible), val=50)
    sampler.irreducible = irreducible
    augmented = AugmentedBatch(
        torch.zeros(1, 2), torch.tensor([[1, 2]]), torch.tensor([[0.25, 0.75]])
    )
    seen = ForwardResult(
        torch.tensor([9.0]), torch.empty(1, 2), torch.tensor([0]), augmented, torch.ones(1)
    )
    assert sampler.value(seen).tolist() == pytest.approx([9 - (0.25 * 1 + 0.75 * 4)])


def test_the_proxy_is_trained_once_and_on_the_validation_split():
    asked: list = []
    sampler = make("rho-loss", train_proxy=knows(torch.zeros(SIZE), asked), val=50)
    for _ in range(3):
        one_pass(sampler, Eye(torch.rand(SIZE)))
    assert [plan.samples for plan in asked] == ["validation"]
    assert asked[0].small
    assert asked[0].losses
    assert len(sampler.pool) == SIZE


def test_the_proxy_draws_with_the_random_numbers_of_the_method():
    chance: list = []
    sampler = make("rho-loss", train_proxy=knows(torch.zeros(SIZE), chance=chance), val=50)
    one_pass(sampler, Eye(torch.rand(SIZE)))
    assert chance == [sampler.generator]


def test_without_a_validation_split_a_share_is_held_out_and_never_trained_on():
    asked: list = []
    sampler = make("rho-loss", train_proxy=knows(torch.zeros(SIZE), asked), holdout_fraction=0.25)
    eye = Eye(torch.rand(SIZE))
    for _ in range(4):
        one_pass(sampler, eye)
    held_out = set(asked[0].samples.tolist())
    assert len(held_out) == 80
    assert not held_out & set(torch.cat(eye.looked).tolist())
    assert held_out | set(torch.cat(eye.looked).tolist()) == set(range(SIZE))


def test_without_a_run_nobody_can_train_the_proxy():
    with pytest.raises(InputError, match="trains another network first, which only a run of the"):
        one_pass(make("rho-loss"), Eye(torch.rand(SIZE)))


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(InputError, match="leaves one part empty: give another share"):
        make("rho-loss", holdout_fraction=share)


def test_what_is_left_must_hold_a_batch():
    with pytest.raises(InputError, match="chooses among 6 samples, less than one batch of 8"):
        make("rho-loss", size=60, holdout_fraction=0.9, budget=1.0)


# ---- the bound of the gradient norm ----


def test_the_gain_by_hand():
    assert gain(torch.ones(12)).item() == pytest.approx(1)
    assert gain(torch.zeros(12)).item() == pytest.approx(1)
    assert gain(torch.tensor([1.0] + [0.0] * 8)).item() == pytest.approx(3)
    norms = torch.rand(48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g = norms / norms.sum()
    published = (1 - ((g - 1 / 48) ** 2).sum() / (g * g).sum()) ** -0.5
    assert gain(norms).item() == pytest.approx(published.item())


def test_the_gain_does_not_depend_on_the_size_of_the_norms():
    norms = torch.tensor([1.0, 2.0, 5.0])
    for scale in (1e-6, 1e-2, 1e3):
        assert gain(norms * scale).item() == pytest.approx(gain(norms).item(), rel=1e-5)


def on(**options):
    sampler = make("grad-norm", **options)
    sampler.average_gain = 50.0
    return sampler


def test_candidates_are_drawn_by_their_norm():
    norms = torch.cat([torch.full((160,), 0.1), torch.full((160,), 0.9)])
    sampler, eye = on(), Eye(norms)
    drawn = []
    for _ in range(60):
        sampler.average_gain = 50.0
        drawn += [batch.indices for batch in one_pass(sampler, eye)]
    assert {len(looked) for looked in eye.looked} == {24}
    assert (torch.cat(drawn) >= 160).float().mean().item() == pytest.approx(0.9, abs=0.03)


def test_the_weighted_mean_of_a_batch_is_unbiased_and_the_plain_one_is_not():
    norms = torch.rand(24, generator=torch.Generator().manual_seed(3)) ** 2 + 0.02
    gradients = norms[:, None] * torch.tensor([[1.0, -2.0]]) + 0.1
    sampler, eye = on(size=24), Eye(norms)
    weighted, plain = [], []
    for _ in range(1500):
        (batch,) = one_pass(sampler, eye)
        sampler.average_gain = 50.0
        picked = gradients[batch.indices]
        weighted.append((batch.weights[:, None] * picked).mean(0))
        plain.append(picked.mean(0))
    truth = gradients.mean(0)
    for found, fair in ((weighted, True), (plain, False)):
        found = torch.stack(found)
        error = found.std(0) / len(found) ** 0.5
        # Two numbers: beyond 4 standard errors once in 8,000 tests of an unbiased estimate.
        distance = ((found.mean(0) - truth) / error).abs().max().item()
        assert (distance < 4) == fair
        assert fair or distance > 12


def test_what_was_looked_at_is_what_is_trained_on():
    (batch, *_) = one_pass(on(), Eye(torch.rand(SIZE) + 0.1))
    assert batch.augmented.images[:, 0].tolist() == batch.indices.tolist()
    assert len(batch.indices) == len(batch.weights) == BATCH


def test_temperature_leads_from_uniform_to_greedy():
    norms = torch.rand(24, generator=torch.Generator().manual_seed(5)) * 0.5 + 0.1
    norms[7] = 0.9
    shares = []
    for power in (0, 1, 4, 40):
        sampler, eye, hits = on(size=24, power=power), Eye(norms), 0.0
        for _ in range(100):
            sampler.average_gain = 50.0
            (batch,) = one_pass(sampler, eye)
            hits += (batch.indices == 7).float().mean().item() / 100
            if power == 0:
                assert batch.weights.tolist() == pytest.approx([1.0] * BATCH)
        shares.append(hits)
    assert shares[0] == pytest.approx(1 / 24, abs=0.03)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, abs=0.01)


def learn(history: History, indices: torch.Tensor, norms: torch.Tensor) -> None:
    rows, ones = torch.arange(len(indices)), torch.ones(len(indices))
    seen = Measures(ones, ones, ones, ones, norms[indices])
    history.update(Credit(rows, indices, ones), seen)


@pytest.mark.parametrize("equal", [True, False])
def test_it_switches_itself_on_where_norms_differ_and_looks_only_then(equal):
    norms = torch.full((SIZE,), 0.5) if equal else torch.rand(SIZE) ** 8 + 1e-3
    sampler, eye, history = make("grad-norm"), Eye(norms), History(SIZE)
    switched_at = None
    averages = [0.0]
    for step, batch in enumerate(sampler.batches(1, history, eye)):
        if batch.augmented is not None and switched_at is None:
            switched_at = step
            assert averages[-1] > 4 / 3
        if switched_at is None:
            assert not eye.looked
            assert batch.weights is None
            learn(history, batch.indices, norms)
            now = gain(norms[batch.indices]).item()
            averages.append(0.9 * averages[-1] + 0.1 * now)
    assert (switched_at is None) == equal
    if equal:
        assert sampler.average_gain == pytest.approx(averages[-1], rel=1e-4)
        # From 0, with 1 at every step.
        assert averages[-1] == pytest.approx(1 - 0.9 ** (SIZE // BATCH), rel=1e-4)


def test_it_is_on_above_the_threshold_and_not_at_it():
    sampler = make("grad-norm", grad_norm_threshold=2.0)
    sampler.average_gain = 2.0
    assert not sampler.is_on
    sampler.average_gain = 2.001
    assert sampler.is_on


def test_it_switches_off_again():
    sampler, eye = on(grad_norm_threshold=2.0), Eye(torch.full((SIZE,), 0.3))
    sampler.average_gain = 2.2
    kinds = [b.augmented is not None for b in one_pass(sampler, eye)]
    # 2.2, 2.08, then 1.97: two batches by importance.
    assert kinds[:3] == [True, True, False]


def test_fewer_samples_than_candidates_are_refused():
    with pytest.raises(InputError, match="looks at 3 x 8 candidates, more than the 20 samples"):
        make("grad-norm", size=20)


@pytest.mark.parametrize("method", ["top-k", "grad-norm"])
def test_who_is_chosen_depends_on_the_seed_of_the_run_alone(method):
    picked, before = [], torch.get_rng_state()
    for _ in range(2):
        sampler = make(method)
        sampler.average_gain = 50.0  # grad-norm is on
        batches = one_pass(sampler, Eye(torch.linspace(0.1, 1, SIZE)))
        picked.append([batch.indices.tolist() for batch in batches])
    assert picked[0] == picked[1]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("size", "sets"), [(320, 4), (319, 3), (241, 3), (240, 3)])
def test_a_rest_too_small_for_a_set_of_candidates_is_dropped(size, sets):
    eye = Eye(torch.rand(size))
    assert len(one_pass(make("top-k", size=size), eye)) == sets
    assert [len(looked) for looked in eye.looked] == [80] * sets


@pytest.mark.parametrize("val", [0, 40])
def test_rho_loss_asks_for_the_losses_of_a_small_network(val):
    plan = make("rho-loss", val=val, holdout_fraction=0.25).proxy
    assert (plan.small, plan.losses) == (True, True)


def test_grad_norm_records_the_chance_of_each_candidate():
    norms = torch.linspace(0.1, 0.9, 24)
    sampler = on(size=24)
    one_pass(sampler, Eye(norms))
    expected = 1 - (1 - norms / norms.sum()) ** BATCH
    assert sampler.probability.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    uniform = make("grad-norm", size=24)
    one_pass(uniform, Eye(norms))
    assert uniform.probability.tolist() == [1.0] * 24
