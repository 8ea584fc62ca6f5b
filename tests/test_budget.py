"""The ledger, the limit and the learning rate, against numbers worked out by hand."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from budgetlab import models
from budgetlab.budget import (
    SCHEDULES,
    Budget,
    Costs,
    Ledger,
    model_costs,
    samples_per_epoch,
    schedule,
    steps_per_epoch,
)
from budgetlab.config import BUDGET_UNITS
from budgetlab.errors import InputError

COSTS = Costs(forward=10, forward_backward=30)


@pytest.mark.parametrize(
    ("size", "budget", "drawn"),
    [(50_000, 0.29, 14_500), (50_000, 0.58, 29_000), (50_000, 0.57, 28_500), (100, 1.0, 100),
     (1000, 0.3, 300), (10, 0.25, 2), (73_257, 0.2, 14_651), (50_000, 1e-9, 0),
     *((50_000, percent / 100, 500 * percent) for percent in range(1, 101))],
)  # fmt: skip
def test_samples_of_an_epoch(size, budget, drawn):
    assert samples_per_epoch(size, budget) == drawn


def test_steps_of_an_epoch_drop_the_last_partial_batch():
    assert steps_per_epoch(50_000, 0.29, 128) == 14_500 // 128 == 113
    assert steps_per_epoch(256, 0.5, 128) == 1


def test_less_than_one_batch_is_refused():
    with pytest.raises(InputError) as error:
        steps_per_epoch(1000, 0.1, 128)
    assert str(error.value) == (
        "budget 0.1 of 1,000 samples is 100, less than one batch of 128: lower "
        "the batch size to 16, or raise the budget"
    )


# Floating point operations


def test_operations_of_a_linear_layer():
    # y = W x: 3 * 4 multiply-adds; backward the same for W, and none for the input, which
    # needs no gradient.
    assert model_costs(nn.Linear(4, 3), (4,)) == Costs(2 * 12, 2 * 12 + 2 * 12)


def test_operations_of_the_small_network():
    # 3x3 convolutions at 32x32, 16x16 and 8x8, then 128 x 10.
    layers = [
        32 * 32 * 9 * 3 * 32,
        16 * 16 * 9 * 32 * 64,
        8 * 8 * 9 * 64 * 128,
        128 * 10,
    ]
    forward = 2 * sum(layers)
    # Backward: once for the weights of every layer, once for the inputs of all but the first.
    backward = 2 * forward - 2 * layers[0]
    costs = model_costs(models.build("small", (3, 32, 32), 10), (3, 32, 32))
    assert costs == Costs(forward, forward + backward)


def test_counting_leaves_the_model_as_it_was():
    model = models.build("small", (3, 32, 32), 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model_costs(model, (3, 32, 32))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.grad is None and one.device.type == "cpu" for one in model.parameters())


class AsksForAValue(nn.Module):
    """Branches on a value, which shapes alone do not have."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layer whatever the value."""
        return self.layer(x if x.sum().item() >= 0 else -x)


@pytest.mark.parametrize("network", [nn.Linear(4, 3), AsksForAValue()])
def test_operations_are_counted_on_one_sample_of_zeros(network, capsys):
    given: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach()))
    assert model_costs(network, (4,)) == Costs(24, 48)
    assert capsys.readouterr().out == ""
    assert {one.device.type for one in given} == {"cpu"}
    assert all(one.tolist() == [[0.0] * 4] for one in given)


# The ledger


def test_the_ledger_adds_up_every_unit():
    ledger = Ledger(COSTS)
    for _ in range(3):
        ledger.charge_step(8)
    ledger.charge_look(20)
    ledger.proxy_flops += 7
    ledger.seconds += 1.5
    spent = {unit: ledger.spent(unit) for unit in BUDGET_UNITS}
    flops = 24 * 30 + 20 * 10 + 7
    assert spent == {"iterations": 3, "samples": 44, "flops": flops, "seconds": 1.5}
    assert ledger.totals() == {"steps": 3, "trained_samples": 24, "looked_samples": 20,
                               "flops": flops, "seconds": 1.5}  # fmt: skip


def test_a_saved_ledger_comes_back():
    ledger, other = Ledger(COSTS, 3, 24, 20, 7, 1.5), Ledger(COSTS)
    other.load_state_dict(ledger.state_dict())
    assert other == ledger


# The limit


@pytest.mark.parametrize(
    ("unit", "limit"), [("iterations", 7), ("samples", 56), ("flops", 1680), ("seconds", 3.5)]
)
def test_limits_of_seven_steps(unit, limit):
    assert Budget.of_steps(unit, 7, 8, COSTS, step_seconds=0.5).limit == limit


@given(
    unit=st.sampled_from(BUDGET_UNITS),
    steps=st.integers(1, 30),
    plan=st.lists(st.tuples(st.integers(1, 16), st.integers(0, 40)), min_size=1, max_size=80),
)
def test_the_limit_is_never_overstepped(unit, steps, plan):
    """Whatever a method asks for, what is allowed fits."""
    budget = Budget.of_steps(unit, steps, 8, COSTS, step_seconds=0.25)
    budget.slowest_step = 0.25
    ledger = Ledger(COSTS)
    for trained, looked in plan:
        if looked and budget.allows(ledger, looked=looked):
            ledger.charge_look(looked)
        if budget.allows(ledger, trained=trained):
            assert 0 <= budget.progress(ledger, trained) <= 1
            ledger.charge_step(trained)
            ledger.seconds += 0.25
        assert ledger.spent(unit) <= budget.limit
        assert 0 <= budget.share_spent(ledger) <= 1


def test_looking_costs_nothing_in_iterations_and_its_price_elsewhere():
    for unit, left in (("iterations", 7), ("samples", 2), ("flops", 5)):
        budget, ledger = Budget.of_steps(unit, 7, 8, COSTS), Ledger(COSTS)
        ledger.charge_look(40)
        steps = 0
        while budget.allows(ledger, trained=8):
            ledger.charge_step(8)
            steps += 1
        # 56 - 40 samples are 2 steps; 1680 - 400 operations are 5.33.
        assert steps == left, unit


def test_a_look_takes_what_is_left_and_no_step_with_it():
    budget, ledger = Budget.of_steps("samples", 7, 8, COSTS), Ledger(COSTS, trained_samples=50)
    assert budget.allows(ledger, looked=6)
    assert not budget.allows(ledger, looked=7)
    # A look is no iteration: it fits after the last one too.
    assert Budget.of_steps("iterations", 7, 8, COSTS).allows(Ledger(COSTS, steps=7), looked=40)


def test_the_share_spent_is_that_of_the_limit_and_at_most_one():
    budget = Budget.of_steps("iterations", 7, 8, COSTS)
    shares = [budget.share_spent(Ledger(COSTS, steps=steps)) for steps in (0, 2, 7, 9)]
    assert shares == pytest.approx([0, 2 / 7, 1, 1])
    # Where a step is larger than what is left, progress is: one of 16 starts at 40 at the latest.
    assert Budget("samples", 56).progress(Ledger(COSTS, trained_samples=50), 16) == 1
    assert Budget("iterations", 1).progress(Ledger(COSTS), 8) == 0


def test_progress_counts_from_what_another_network_took():
    # It took 4 of 10 iterations; the last of the six that are left starts at 9.
    budget, ledger = Budget("iterations", 10, head_start=4), Ledger(COSTS, proxy_steps=4)
    progress = []
    while budget.allows(ledger, trained=8):
        progress.append(budget.progress(ledger, 8))
        ledger.charge_step(8)
    assert progress == pytest.approx([0, 1 / 5, 2 / 5, 3 / 5, 4 / 5, 1])


# The learning rate


@pytest.mark.parametrize("unit", BUDGET_UNITS)
@pytest.mark.parametrize("steps", [2, 3, 78, 1000])
def test_the_linear_schedule_is_that_of_the_paper(unit, steps):
    budget = Budget.of_steps(unit, steps, 8, COSTS, step_seconds=0.25)
    budget.slowest_step = 0.25
    ledger, rates = Ledger(COSTS), []
    while budget.allows(ledger, trained=8):
        rates.append(schedule("linear", budget.progress(ledger, 8), 0.1))
        ledger.charge_step(8)
        ledger.seconds += 0.25
    expected = [0.1 + (1e-6 - 0.1) * i / (steps - 1) for i in range(steps)]
    assert rates == pytest.approx(expected, rel=1e-9)
    assert (rates[0], rates[-1]) == (0.1, pytest.approx(1e-6, rel=1e-6))


@pytest.mark.parametrize(
    ("name", "progress", "rate"),
    [("cosine", 0, 0.1), ("cosine", 0.5, (0.1 + 1e-6) / 2), ("cosine", 1, 1e-6),
     ("constant", 0.9, 0.1), ("step", 0.49, 0.1), ("step", 0.5, 0.01), ("step", 0.75, 0.001),
     ("step", 1, 0.001), ("linear", 0.25, 0.1 + 0.25 * (1e-6 - 0.1))],
)  # fmt: skip
def test_schedules_by_hand(name, progress, rate):
    assert schedule(name, progress, 0.1, (0.5, 0.75)) == pytest.approx(rate, rel=1e-12)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="unknown schedule 'cosin': did you mean 'cosine'"):
        schedule("cosin", 0.5, 0.1)
    with pytest.raises(InputError, match="unknown budget unit 'sample': did you mean 'samples'"):
        Budget.of_steps("sample", 7, 8, COSTS)


def test_asking_what_a_step_would_cost_charges_nothing():
    budget, ledger = Budget.of_steps("flops", 7, 8, COSTS), Ledger(COSTS, seconds=2.0)
    before = dataclasses.replace(ledger)
    budget.allows(ledger, trained=8, looked=3)
    budget.progress(ledger, 8)
    assert ledger == before


def test_other_networks_are_charged_like_this_one():
    ledger, other = Ledger(Costs(100, 300)), Costs(2, 6)
    ledger.charge_proxy(other, trained=10, looked=5)
    assert (ledger.proxy_steps, ledger.proxy_samples, ledger.proxy_flops) == (1, 15, 70)
    ledger.charge_proxy(other, looked=4)
    assert (ledger.proxy_steps, ledger.proxy_samples, ledger.proxy_flops) == (1, 19, 78)
    ledger.charge_proxy(other, trained=1)
    assert (ledger.proxy_steps, ledger.proxy_samples, ledger.proxy_flops) == (2, 20, 84)
    ledger.charge_step(3)
    assert ledger.spent("iterations") == 3
    assert ledger.spent("samples") == 23
    assert ledger.flops == 84 + 3 * 300


# REX, and a warm-up before any schedule


def test_rex_by_hand():
    """(1 - z) / (1/2 + (1 - z) / 2): 2/3 of the rate at half the budget (Chen et al. 2022)."""
    assert schedule("rex", 0.0, 0.1) == pytest.approx(0.1)
    assert schedule("rex", 0.5, 0.1) == pytest.approx(0.1 * 2 / 3, abs=1e-6)
    assert schedule("rex", 0.9, 0.1) == pytest.approx(0.1 * 0.1 / 0.55, abs=1e-6)
    assert schedule("rex", 1.0, 0.1) == pytest.approx(1e-6)
    for progress in (0.1, 0.5, 0.9):
        assert schedule("rex", progress, 0.1) > schedule("linear", progress, 0.1)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_warm_up_rises_to_the_full_rate_and_the_schedule_runs_over_the_rest(name):
    rates = [schedule(name, p / 100, 0.1, (0.5,), warmup=0.2) for p in range(101)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[10] == pytest.approx(0.05, rel=1e-3)
    assert max(rates) == rates[20] == pytest.approx(0.1)
    assert rates[:21] == sorted(rates[:21])
    assert rates[70] == pytest.approx(schedule(name, 0.625, 0.1, (0.5,)))
    assert rates[100] == schedule(name, 1.0, 0.1, (0.5,))


def test_warm_up_and_rex_follow_the_budget_of_a_run(train):
    for budget in (0.25, 1.0):
        run = train(schedule="rex", warmup=0.3, budget=budget, epochs=8)
        rates = run.record.epochs["lr"].tolist()
        assert rates[-1] == pytest.approx(1e-6)
        assert 0.05 < max(rates) <= 0.1
        assert rates[0] < max(rates)
