"""The batch sampler in loops of one's own: the same batches as a run, costs, mistakes."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import budgetlab as bl
from budgetlab import methods, samplers
from budgetlab.errors import InputError, RunError
from budgetlab.history import History
from budgetlab.training import Run

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZE = 96
# Methods that train another network first are tried below, with what it has found.
NEEDING_PROXY = {m.name for m in methods.BUILT_IN if "proxy_share" in m.fields}


def some_data(size=SIZE):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 2, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())


def loop(sampler, data, model, weighted=True, workers=0):
    """A loop like any other; returns the batches it trained on."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    batches, rates = [], []
    numbered = TensorDataset(*data.tensors, torch.arange(len(data)))
    loader = DataLoader(numbered, batch_sampler=sampler, num_workers=workers)
    while not sampler.finished:
        for x, y, number in loader:
            rates.append(sampler.lr)
            logits = model(x)
            weights = sampler.history.update(logits, y)
            F.cross_entropy(logits, y, reduction="none").mul(weights).mean().backward()
            optimiser.step()
            optimiser.zero_grad()
            batches.append(number)
    return batches, rates


@pytest.mark.parametrize("method", sorted(set(samplers.names()) - NEEDING_PROXY))
def test_every_method_trains_and_ends_with_its_budget(method):
    data, model = some_data(), nn.Linear(2, 2)
    sampler = bl.BudgetSampler(data, model=model, method=method, budget=0.5, epochs=4, batch_size=8)
    batches, rates = loop(sampler, data, model)
    steps = 4 * (SIZE // 2 // 8)
    assert 0 < len(batches) <= steps
    assert sampler.ledger.steps == len(batches)
    assert sampler.history.samples.times_trained.sum() == 8 * len(batches)
    assert rates[0] == 0.1
    assert all(after <= before for before, after in itertools.pairwise(rates))
    assert rates[-1] < 0.02
    assert model.training


def test_it_draws_the_batches_that_a_run_draws(config):
    settings = {"method": "p-SGD", "budget": 0.5, "epochs": 3, "batch_size": 16, "seed": 5}
    run = Run(config.replace(**settings, lr=0.1, momentum=0.0, weight_decay=0.0))
    seen = []
    original = run.loop.engine.step

    def step(batch, lr):
        seen.append(batch.indices.clone())
        return original(batch, lr)

    network = run.loop.engine.network
    start = {name: value.clone() for name, value in network.state_dict().items()}
    run.loop.engine.step = step
    list(run)
    train = run.splits.train
    data = TensorDataset(train.normalised(), train.y)
    model = bl.models.build("mlp", (2,), 2)
    model.load_state_dict(start)
    sampler = bl.BudgetSampler(data, **settings)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    ours = []
    while not sampler.finished:
        for numbers in sampler:
            rows = torch.tensor(numbers)
            logits = model(data.tensors[0][rows])
            sampler.history.update(logits, data.tensors[1][rows])
            optimiser.param_groups[0]["lr"] = sampler.lr
            optimiser.zero_grad()
            F.cross_entropy(logits, data.tensors[1][rows]).backward()
            optimiser.step()
            ours.append(rows)
    assert len(ours) == len(seen) == 12
    assert all(torch.equal(a, b) for a, b in zip(ours, seen, strict=True))
    assert torch.allclose(
        sampler.history.samples.error, run.history.error, atol=1e-4, equal_nan=True
    )


def test_hard_samples_are_drawn_more_often():
    data = TensorDataset(torch.zeros(SIZE, 2), torch.zeros(SIZE).long())
    sampler = bl.BudgetSampler(data, method="p-SGD", budget=0.25, epochs=40, batch_size=8)
    hard = torch.arange(SIZE) < SIZE // 2
    while not sampler.finished:
        for numbers in sampler:
            right = torch.where(hard[torch.tensor(numbers)], -4.0, 4.0)
            sampler.history.update(torch.stack([right, -right], 1), torch.zeros(8).long())
    trained = sampler.history.samples.times_trained.float()
    assert trained[hard].mean() > 1.5 * trained[~hard].mean()


def test_looks_are_charged_and_leave_the_network_as_it_was():
    data, model = some_data(), nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    sampler = bl.BudgetSampler(
        data, model=model, method="selective-backprop", budget=0.5, epochs=3, batch_size=8,
        budget_unit="samples",
    )  # fmt: skip
    list(sampler)
    for _ in range(12):
        sampler.history.update(torch.zeros(8, 2), torch.zeros(8).long())
    mean = model[1].running_mean.clone()
    next(iter(sampler))
    assert torch.equal(model[1].running_mean, mean)
    assert sampler.ledger.looked_samples >= 8
    assert sampler.ledger.spent("samples") <= sampler.budget.limit


def test_weights_of_the_method_come_back():
    data, model = some_data(), nn.Linear(2, 2)
    sampler = bl.BudgetSampler(
        data, method="p-SGD", weights="unbiased", budget=0.25, epochs=9, batch_size=8
    )
    loop(sampler, data, model)
    sampler = bl.BudgetSampler(data, method="p-SGD", budget=0.25, epochs=3, batch_size=8)
    numbers = next(iter(sampler))
    assert torch.equal(sampler.history.update(torch.zeros(8, 2), torch.zeros(8)), torch.ones(8))
    assert len(numbers) == 8


def test_workers_ask_ahead_and_every_batch_still_finds_its_samples():
    data, model = some_data(), nn.Linear(2, 2)
    sampler = bl.BudgetSampler(data, method="unif-SGD", budget=0.5, epochs=2, batch_size=8)
    batches, rates = loop(sampler, data, model, workers=1)
    counts = torch.bincount(torch.cat(batches), minlength=SIZE)
    assert torch.equal(counts, sampler.history.samples.times_trained.long())
    assert rates[0] == 0.1


def test_peeking_into_the_loader_costs_nothing():
    sampler = bl.BudgetSampler(SIZE, method="unif-SGD", budget=0.5, epochs=2, batch_size=8)
    next(iter(sampler))
    next(iter(sampler))
    next(iter(sampler))
    assert (sampler.epoch, sampler.ledger.steps) == (1, 1)


def test_batches_may_be_reported_by_number():
    sampler = bl.BudgetSampler(SIZE, method="unif-SGD", budget=0.5, epochs=2, batch_size=8)
    both = [numbers for numbers, _ in zip(sampler, range(2), strict=False)]
    for numbers in reversed(both):
        sampler.history.update(torch.zeros(8, 2), torch.zeros(8).long(), torch.tensor(numbers))
    assert sampler.history.samples.seen.nonzero()[:, 0].tolist() == sorted(itertools.chain(*both))


def test_a_loop_that_forgets_the_line_is_told():
    sampler = bl.BudgetSampler(SIZE, method="p-SGD", budget=0.5, epochs=3, batch_size=8)
    list(sampler)
    with pytest.raises(InputError, match=r"none of the 6 batches .* history\.update"):
        list(sampler)


def test_a_loop_that_reports_some_batches_is_warned():
    sampler = bl.BudgetSampler(SIZE, method="p-SGD", budget=0.5, epochs=3, batch_size=8)
    for number, _ in enumerate(sampler):
        if number % 2:
            sampler.history.update(torch.zeros(8, 2), torch.zeros(8).long())
    with pytest.warns(UserWarning, match="3 of 6 batches"):
        next(iter(sampler))


def test_going_on_from_a_saved_state_draws_the_same():
    def begun():
        made = bl.BudgetSampler(SIZE, method="p-SGD", budget=0.25, epochs=4, batch_size=8)
        return made, torch.Generator().manual_seed(1)

    def epoch(sampler, generator):
        drawn = []
        for numbers in sampler:
            logits = torch.randn(8, 2, generator=generator)
            sampler.history.update(logits, torch.zeros(8).long())
            drawn += numbers
        return drawn

    first, generator = begun()
    epoch(first, generator)
    saved = save(first.state_dict())
    expected = [epoch(first, torch.Generator().manual_seed(2)) for _ in range(2)]
    other, _ = begun()
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert [epoch(other, torch.Generator().manual_seed(2)) for _ in range(2)] == expected


def save(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_what_another_network_found_is_taken_or_asked_for():
    data, model = some_data(), nn.Linear(2, 2)
    settings = {"method": "rho-loss", "budget": 0.5, "epochs": 3, "batch_size": 4}
    with pytest.raises(InputError, match="needs what another network has found"):
        bl.BudgetSampler(data, model=model, **settings)
    found = samplers.ProxyRun(History(SIZE), torch.zeros(SIZE))
    sampler = bl.BudgetSampler(data, model=model, proxy=found, **settings)
    batches, _ = loop(sampler, data, model)
    assert batches


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "psgd"}, "unknown method"),
        ({"budget": 0.01}, "less than one batch"),
        ({"budget_unit": "seconds"}, "not timed here"),
        ({"budget_unit": "flops"}, "model="),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(settings, message):
    with pytest.raises(InputError, match=message):
        bl.BudgetSampler(SIZE, **{"batch_size": 8, **settings})


def test_a_method_that_chooses_nothing_ends_instead_of_going_on_for_ever():
    data = TensorDataset(torch.zeros(SIZE, 2), torch.zeros(SIZE).long())
    sampler = bl.BudgetSampler(
        data, model=nn.Linear(2, 2), method="selective-backprop", batch_size=8, budget=0.5,
        epochs=9,
    )  # fmt: skip
    for _ in sampler:
        sampler.history.update(torch.zeros(8, 2), torch.zeros(8).long())
    # All losses are the same, so none is above another.
    with pytest.raises(RunError, match="chose nothing in epoch 2"):
        list(sampler)


def test_a_method_that_looks_needs_the_network():
    sampler = bl.BudgetSampler(SIZE, method="top-k", batch_size=4, budget=0.5, epochs=2)
    with pytest.raises(InputError, match="model="):
        list(sampler)


def test_reports_that_do_not_fit_are_refused():
    sampler = bl.BudgetSampler(SIZE, method="unif-SGD", batch_size=8, budget=0.5, epochs=2)
    with pytest.raises(InputError, match="no batch is waiting"):
        sampler.history.update(torch.zeros(8, 2), torch.zeros(8).long())
    next(iter(sampler))
    with pytest.raises(InputError, match="7 rows"):
        sampler.history.update(torch.zeros(7, 2), torch.zeros(7).long())


def run_example(name, *arguments):
    return subprocess.run(
        [sys.executable, name, *arguments], cwd=EXAMPLES, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip


def test_the_plain_example_runs():
    done = run_example("plain_loop.py", "selective-backprop", "0.2")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy ")[1].split()[0]) > 0.7
    assert "48 steps" in done.stdout


def test_the_lightning_example_runs():
    pytest.importorskip("lightning", reason="lightning is not installed", exc_type=ImportError)
    done = run_example("lightning_loop.py", "p-SGD", "0.2")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy ")[1].split()[0]) > 0.7
    assert "48 steps" in done.stdout
