"""Selective backprop: what is looked at, kept, trained on and charged."""

import numpy as np
import pytest
import torch

from budgetlab.augment import AugmentedBatch
from budgetlab.config import RunConfig
from budgetlab.history import History
from budgetlab.samplers import (
    Batch,
    ForwardResult,
    SamplerContext,
    keep_probability,
)
from budgetlab.samplers.candidates import SelectiveBackprop
from budgetlab.training import Run, train

SIZE, BATCH = 640, 32


class Eye:
    """Looks at samples with losses that are known beforehand."""

    def __init__(self, losses: torch.Tensor):
        self.losses = losses
        self.looked: list[torch.Tensor] = []

    def __call__(self, indices: torch.Tensor) -> ForwardResult:
        self.looked.append(indices)
        # The image of a sample holds its number and the pass, so that a test can recognise it.
        images = torch.stack([indices.float(), torch.full((len(indices),), len(self.looked))], 1)
        augmented = AugmentedBatch(images, indices[:, None], torch.ones(len(indices), 1))
        losses = self.losses[indices]
        return ForwardResult(losses, torch.empty(len(indices), 2), indices * 0, augmented, losses)


def make(**settings) -> SelectiveBackprop:
    config = RunConfig(
        **{"batch_size": BATCH, "budget": 0.25, "method": "selective-backprop"} | settings
    )
    generator = torch.Generator().manual_seed(1)
    return SelectiveBackprop(SamplerContext(SIZE, config, generator, torch.device("cpu")))


def passes(sampler: SelectiveBackprop, eye: Eye, epochs: range) -> list[Batch]:
    history = History(SIZE)
    return [batch for epoch in epochs for batch in sampler.batches(epoch, history, eye)]


def test_keep_probability_by_hand():
    past = torch.tensor([1.0, 2.0, 3.0, 4.0, torch.nan])
    losses = torch.tensor([0.5, 2.0, 2.5, 9.0])
    expected = torch.tensor([0, 1 / 4, 2 / 4, 4 / 4]) ** 3
    torch.testing.assert_close(keep_probability(losses, past, 3.0), expected)
    assert keep_probability(losses, past, 0.0).tolist() == [1, 1, 1, 1]
    assert keep_probability(losses, past[:1], 1.0).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("budget", [0.1, 0.25, 0.5])
def test_automatic_beta_keeps_the_budget(budget):
    losses = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    kept = keep_probability(losses, losses[:1024], 1 / budget - 1).mean().item()
    assert kept == pytest.approx(budget, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "beta"),
    [({"budget": 0.1}, 9), ({"budget": 0.5}, 1), ({"budget": 0.1, "sb_beta": 2.0}, 2),
     ({"budget": 0.1, "fidelity": "published"}, 3)],
)  # fmt: skip
def test_beta_by_hand(settings, beta):
    assert make(**settings).beta == pytest.approx(beta)


def test_who_is_kept_depends_on_the_seed_of_the_run_alone():
    picked, before = [], torch.get_rng_state()
    for _ in range(2):
        batches = passes(make(), Eye(torch.linspace(0, 1, SIZE)), range(2, 4))
        picked.append([batch.indices.tolist() for batch in batches])
    assert picked[0] == picked[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_first_epoch_trains_on_everything_without_looking():
    eye = Eye(torch.rand(SIZE))
    batches = passes(make(), eye, range(1, 2))
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(SIZE))
    assert not eye.looked


def test_later_epochs_look_at_everybody_once_and_prefer_high_losses():
    losses = torch.linspace(0, 1, SIZE)
    sampler, eye = make(), Eye(losses)
    batches = passes(sampler, eye, range(2, 22))
    looked = torch.cat(eye.looked)
    assert torch.bincount(looked).tolist() == [20] * SIZE
    times = torch.bincount(torch.cat([b.indices for b in batches]), minlength=SIZE).float()
    quarters = times.view(4, -1).mean(1)
    assert quarters[0] < quarters[1] < quarters[2] < quarters[3]
    # P = percentile ** 3: of all that is kept, 1 - 0.75 ** 4 comes from the top quarter.
    assert (quarters[3] / quarters.sum()).item() == pytest.approx(1 - 0.75**4, abs=0.05)


def test_inverting_the_losses_inverts_what_is_trained_on():
    rising, falling = torch.linspace(0, 1, SIZE), torch.linspace(1, 0, SIZE)
    picked = [
        torch.cat([b.indices for b in passes(make(), Eye(losses), range(2, 12))]).float().mean()
        for losses in (rising, falling)
    ]
    assert picked[0] > SIZE * 0.65
    assert picked[1] < SIZE * 0.35


def test_what_was_scored_is_what_is_trained_on():
    eye = Eye(torch.rand(SIZE))
    for batch in passes(make(), eye, range(2, 4)):
        assert batch.augmented.images[:, 0].tolist() == batch.indices.tolist()
        assert batch.augmented.sources[:, 0].tolist() == batch.indices.tolist()
        assert len(batch.indices) == BATCH


def test_history_holds_the_last_1024_losses():
    eye = Eye(torch.rand(SIZE))
    sampler = make()
    passes(sampler, eye, range(2, 4))
    seen = torch.cat(eye.looked)[-1024:]
    torch.testing.assert_close(sampler.past, eye.losses[seen])


def test_staleness_looks_every_nth_epoch_and_keeps_the_old_probabilities():
    eye = Eye(torch.linspace(0, 1, SIZE))
    sampler = make(sb_staleness=3)
    looks = []
    for epoch in range(1, 9):
        before = len(eye.looked)
        batches = passes(sampler, eye, range(epoch, epoch + 1))
        looks.append(len(eye.looked) - before)
    per_pass = SIZE // BATCH
    assert looks == [0, per_pass, 0, 0, per_pass, 0, 0, per_pass]
    assert torch.cat([b.indices for b in batches]).float().mean() > SIZE * 0.6


def test_published_ignores_the_budget_and_looks_from_the_first_epoch():
    sampler, eye = make(fidelity="published", epochs=7), Eye(torch.rand(SIZE))
    assert (sampler.beta, sampler.budget, sampler.last_epoch) == (3.0, 1.0, 7)
    batches = passes(sampler, eye, range(1, 2))
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(SIZE))
    assert len(eye.looked) == SIZE // BATCH


def test_the_published_rate_advances_with_the_candidates():
    sampler, eye = make(fidelity="published", epochs=3), Eye(torch.rand(SIZE))
    passes(sampler, eye, range(1, 3))
    # 20 sets of candidates a pass, 60 in all: the last one is at progress 1.
    trained = 0
    for _ in sampler.batches(3, History(SIZE), eye):
        assert sampler.progress(0.0) == pytest.approx(min(len(eye.looked) / 59, 1))
        trained += 1
    assert trained
    assert sampler.progress(0.0) == 1
    assert make().progress(0.3) == 0.3


def test_published_looks_every_nth_epoch_from_the_first_on():
    sampler, eye = make(fidelity="published", sb_staleness=2), Eye(torch.rand(SIZE))
    looks = []
    for epoch in range(1, 6):
        before = len(eye.looked)
        passes(sampler, eye, range(epoch, epoch + 1))
        looks.append(len(eye.looked) > before)
    assert looks == [True, False, True, False, True]


@pytest.fixture
def settings(data_root, tmp_path) -> dict:
    return dict(
        dataset="points", method="selective-backprop", epochs=12, budget=0.25, batch_size=32,
        limit=512, data_root=str(data_root), out=str(tmp_path), progress=False,
    )  # fmt: skip


def test_at_equal_iterations_looking_comes_on_top(settings):
    selective = train(**settings).summary
    uniform = train(**settings | {"method": "unif-SGD"}).summary
    assert selective["steps"] == uniform["steps"] == 12 * 4
    assert selective["looked_samples"] > selective["trained_samples"]
    assert selective["flops"] > 1.5 * uniform["flops"]


def test_at_equal_flops_looking_costs_steps(settings):
    selective = train(**settings, budget_unit="flops").summary
    uniform = train(**settings | {"method": "unif-SGD"}, budget_unit="flops").summary
    assert selective["steps"] < uniform["steps"] == 12 * 4
    forward, both = _costs(settings)
    step = both * 32
    spent = selective["looked_samples"] * forward + selective["trained_samples"] * both
    assert selective["flops"] == spent <= uniform["flops"] < spent + step + 32 * forward


def _costs(settings) -> tuple[int, int]:
    config = {key: value for key, value in settings.items() if key != "progress"}
    costs = Run(RunConfig(**config)).ledger.costs
    return costs.forward, costs.forward_backward


def test_interrupted_and_resumed_is_the_same_run(settings):
    whole = train(**settings, sb_staleness=2)
    config = {key: value for key, value in settings.items() if key != "progress"}
    run = Run(RunConfig(**config, sb_staleness=2))
    for row in run:
        if row["epoch"] == 3:
            break
    resumed = Run.resume(run.writer.path)
    for _ in resumed:
        pass
    for name in ("loss", "probability", "times_trained"):
        expected, got = whole.samples[name].values, resumed.record.samples[name].values
        np.testing.assert_array_equal(expected, got)
    assert whole.summary["test_loss"] == resumed.record.summary["test_loss"]
