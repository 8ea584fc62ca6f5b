"""The ledger, the limit and the learning rate, against numbers worked out by hand."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import budgetlab as bl
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
    [(50_000, 0.29, 14_500), (100, 1.0, 100), (10, 0.25, 2), (73_257, 0.2, 14_651),
     (50_000, 1e-9, 0), *((50_000, percent / 100, 500 * percent) for percent in range(1, 101))],
)  # fmt: skip
def test_samples_and_steps_of_an_epoch(size, budget, drawn):
    assert samples_per_epoch(size, budget) == drawn
    if drawn >= 128:
        assert steps_per_epoch(size, budget, 128) == drawn // 128
    else:
        with pytest.raises(InputError, match="less than one batch of 128: ") as refused:
            steps_per_epoch(size, budget, 128)
        # Only what can help is suggested.
        assert ("raise the budget" in str(refused.value)) == (size >= 128)
        assert ("lower the batch size" in str(refused.value)) == (drawn > 0)


# Floating point operations


def test_operations_of_the_small_network_which_counting_leaves_as_it_was():
    # 3x3 convolutions at 32x32, 16x16 and 8x8, then 128 x 10.
    layers = [32 * 32 * 9 * 3 * 32, 16 * 16 * 9 * 32 * 64, 8 * 8 * 9 * 64 * 128, 128 * 10]
    forward = 2 * sum(layers)
    # Backward: once for the weights of every layer, once for the inputs of all but the first.
    backward = 2 * forward - 2 * layers[0]
    model = models.build("small", (3, 32, 32), 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model_costs(model, (3, 32, 32)) == Costs(forward, forward + backward)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.grad is None and one.device.type == "cpu" for one in model.parameters())


class AsksForAValue(nn.Linear):
    """Branches on a value, which shapes alone do not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layer whatever the value."""
        return super().forward(x if x.sum().item() >= 0 else -x)


@pytest.mark.parametrize("network", [nn.Linear(4, 3), AsksForAValue(4, 3)])
def test_operations_are_counted_on_one_sample_whatever_the_network_asks_for(network, capsys):
    # y = W x: 3 * 4 multiply-adds; backward the same for W, and none for the input.
    assert model_costs(network, (4,)) == Costs(2 * 12, 2 * 12 + 2 * 12)
    assert capsys.readouterr().out == ""


# The ledger


def test_the_ledger_adds_up_every_unit_and_comes_back():
    ledger, other, again = Ledger(COSTS), Costs(2, 6), Ledger(COSTS)
    for _ in range(3):
        ledger.charge_step(8)
    ledger.charge_look(20)
    ledger.seconds += 1.5
    # Another network is charged like this one, at its own price.
    for charged, sums in (({"trained": 10, "looked": 5}, (1, 15, 70)), ({"looked": 4}, (1, 19, 78)),
                          ({"trained": 1}, (2, 20, 84))):  # fmt: skip
        ledger.charge_proxy(other, **charged)
        assert (ledger.proxy_steps, ledger.proxy_samples, ledger.proxy_flops) == sums
    flops = 24 * 30 + 20 * 10 + 84
    spent = {unit: ledger.spent(unit) for unit in BUDGET_UNITS}
    assert spent == {"iterations": 5, "samples": 64, "flops": flops, "seconds": 1.5}
    assert ledger.totals() == {"steps": 3, "trained_samples": 24, "looked_samples": 20,
                               "flops": flops, "seconds": 1.5}  # fmt: skip
    again.load_state_dict(ledger.state_dict())
    assert again == ledger


# The limit


@pytest.mark.parametrize(
    ("unit", "step", "look"),
    [("iterations", 1, 0), ("samples", 1, 1), ("flops", 30, 10), ("seconds", 0.25, 0.125)],
)
def test_one_sample_costs_what_its_step_or_its_look_does(unit, step, look):
    ledger = Ledger(COSTS)
    for limit, asked in ((step, {"trained": 1}), (look, {"looked": 1}),
                         (step + look, {"trained": 1, "looked": 1})):  # fmt: skip
        for short in (0, 0.01):
            budget = Budget(unit, limit - short, slowest_step=0.25, slowest_look=0.125)
            assert budget.allows(ledger, **asked) is (short == 0)
    assert Budget(unit, 0.0, slowest_step=1, slowest_look=1).allows(ledger)


@given(
    unit=st.sampled_from(BUDGET_UNITS),
    steps=st.integers(1, 30),
    plan=st.lists(st.tuples(st.integers(1, 16), st.integers(0, 40)), min_size=1, max_size=80),
)
def test_the_limit_is_never_overstepped(unit, steps, plan):
    """Whatever a method asks for, what is allowed fits."""
    budget = Budget.of_steps(unit, steps, 8, COSTS, step_seconds=0.25)
    price = {"iterations": 1, "samples": 8, "flops": 240, "seconds": 0.25}[unit]
    assert budget.limit == steps * price
    budget.slowest_step, budget.slowest_look = 0.25, 0.125
    ledger = Ledger(COSTS)
    for trained, looked in plan:
        before = dataclasses.replace(ledger)
        budget.allows(ledger, trained=trained, looked=looked)
        budget.progress(ledger, trained)
        assert ledger == before  # what is only asked for is not charged
        if looked and budget.allows(ledger, looked=looked):
            ledger.charge_look(looked)
            ledger.seconds += 0.125
        if budget.allows(ledger, trained=trained):
            assert 0 <= budget.progress(ledger, trained) <= 1
            ledger.charge_step(trained)
            ledger.seconds += 0.25
        assert ledger.spent(unit) <= budget.limit
        assert 0 <= budget.share_spent(ledger) <= 1


def test_a_look_takes_what_is_left_and_no_step_with_it():
    budget, ledger = Budget.of_steps("samples", 7, 8, COSTS), Ledger(COSTS, trained_samples=50)
    assert budget.allows(ledger, looked=6)
    assert not budget.allows(ledger, looked=7)
    # Where a step is larger than what is left, progress is: one of 16 starts at 40 at the latest.
    assert budget.progress(ledger, 16) == 1
    # A look is no iteration: it fits after the last one too.
    assert Budget.of_steps("iterations", 7, 8, COSTS).allows(Ledger(COSTS, steps=7), looked=40)
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
@pytest.mark.parametrize("steps", [2, 78])
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


@pytest.mark.parametrize(
    ("name", "progress", "rate"),
    [("cosine", 0, 0.1), ("cosine", 0.5, (0.1 + 1e-6) / 2), ("cosine", 1, 1e-6),
     ("constant", 0.9, 0.1), ("step", 0.49, 0.1), ("step", 0.5, 0.01), ("step", 0.75, 0.001),
     ("step", 1, 0.001), ("linear", 0.25, 0.1 + 0.25 * (1e-6 - 0.1)),
     # (1 - z) / (1/2 + (1 - z) / 2): 2/3 of the rate at half the budget (Chen et al. 2022).
     *(("rex", z, 1e-6 + (0.1 - 1e-6) * (1 - z) / (0.5 + (1 - z) / 2)) for z in (0, 0.5, 0.9, 1))],
)  # fmt: skip
def test_schedules_by_hand(name, progress, rate):
    assert schedule(name, progress, 0.1, (0.5, 0.75)) == pytest.approx(rate, rel=1e-6)
    with pytest.raises(InputError, match="unknown schedule 'cosin': did you mean 'cosine'"):
        schedule("cosin", 0.5, 0.1)
    with pytest.raises(InputError, match="unknown budget unit 'sample': did you mean 'samples'"):
        Budget.of_steps("sample", 7, 8, COSTS)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_warm_up_rises_to_the_full_rate_and_the_schedule_runs_over_the_rest(name):
    rates = [schedule(name, p / 100, 0.1, (0.5,), warmup=0.2) for p in range(101)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[10] == pytest.approx(0.05, rel=1e-3)
    assert max(rates) == rates[20] == pytest.approx(0.1)
    assert rates[:21] == sorted(rates[:21])
    assert rates[70] == pytest.approx(schedule(name, 0.625, 0.1, (0.5,)))
    assert rates[100] == schedule(name, 1.0, 0.1, (0.5,))


def test_a_run_says_where_whole_batches_make_it_shorter_than_its_budget(tmp_path, capsys):
    settings = {"dataset": "points", "limit": 400, "epochs": 1, "budget": 0.3, "out": str(tmp_path)}
    for batch, said in ((64, "16.7% of the steps of the full run, not 30.0%"), (8, "")):
        bl.train("unif-SGD", batch_size=batch, **settings)
        shown = capsys.readouterr().err
        assert said in shown
        assert ("whole batches" in shown) == bool(said)


class Attending(nn.Module):
    """Attention in one of the ways of torch, over 16 places of 64 values; then a linear layer."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.head = kind, nn.Linear(64, 10)
        if kind == "encoder":
            self.part = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        elif kind == "lstm":
            self.part = nn.LSTM(64, 64, batch_first=True)
        else:
            self.part = nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        if self.kind == "encoder":
            x = self.part(x)
        else:
            given = [x] if self.kind == "lstm" else [x, x, x]
            x = self.part(*given)[0]
        return self.head(x.mean(1))


class Paired(nn.Bilinear):
    """A sample with itself."""

    def __init__(self):
        super().__init__(5, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return super().forward(x, x)


ATTENTION = 16 * 64 * 192 + 2 * 16 * 16 * 64 + 16 * 64 * 64  # in, two products of places, out


@pytest.mark.parametrize(("network", "shape", "forward", "twice"), [
    # Each group reads its own part of the channels; backward, for the weights as for the input.
    (nn.Conv2d(64, 64, 3, padding=1, groups=64), (64, 8, 8), 64 * 9 * 64, 0),
    (nn.Conv2d(64, 32, 3, padding=2, dilation=2, groups=4), (64, 8, 8), 64 * 9 * 16 * 32, 0),
    (nn.ConvTranspose2d(64, 64, 2, stride=2, groups=8), (64, 4, 4), 16 * 4 * 64 * 8, 0),
    # Each of 3 outputs is a product of 5 x 5 pairs; backward, as often again for the weights.
    (Paired(), (5,), 3 * 5 * 5, 0),
    (Attending("attention"), (16, 64), ATTENTION + 640, 2 * 16 * 16 * 64 + 16 * 64 * 64 + 640),
    (Attending("encoder"), (16, 64), ATTENTION + 2 * 16 * 64 * 128 + 640, None),
    (Attending("lstm"), (16, 64), 16 * 2 * 64 * 256 + 640, None),
])  # fmt: skip
def test_groups_pairs_attention_and_recurrent_layers_are_counted(network, shape, forward, twice):
    """``twice``: products whose inputs need a gradient too."""
    enabled = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()
    found = model_costs(network, shape)
    assert found.forward == 2 * forward
    if twice is None:
        assert 2 < found.forward_backward / found.forward <= 3
    else:
        assert found.forward_backward == 2 * (2 * forward + twice)
    assert (torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()) == enabled


def test_a_budget_in_flops_of_a_network_in_which_none_are_counted_is_refused():
    with pytest.raises(InputError, match="choose iterations, samples or seconds"):
        Budget.of_steps("flops", 7, 8, Costs(0, 0))
