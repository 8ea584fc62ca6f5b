"""The batch sampler in loops of one's own: the same batches as a run, costs, mistakes."""

import copy
import importlib.util
import io
import itertools
import runpy
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import budgetlab as bl
from budgetlab import methods, samplers
from budgetlab.custom_loop import measure_batch
from budgetlab.errors import InputError, RunError
from budgetlab.history import History
from budgetlab.samplers.epoch_sampling import SGD
from budgetlab.training import Run

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZE = 96
# Methods that train another network first are tried below, with what it has found.
NEEDING_PROXY = {m.name for m in methods.BUILT_IN if "proxy_share" in m.fields}


def some_data(size=SIZE):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 2, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())


def made(method, data=SIZE, **settings):
    """A sampler of half a run; by default it knows only how many samples there are."""
    usual = {"budget": 0.5, "batch_size": 8, "epochs": 3}
    return bl.BudgetSampler(data, method, **usual | settings)


def report(sampler, rows=8, indices=None):
    """Say what a network of two classes that knows nothing gave."""
    sampler.history.update(torch.zeros(rows, 2), torch.zeros(rows).long(), indices)


def loop(sampler, data, model, workers=0):
    """A loop like any other; returns the batches it trained on, and their rates."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    batches, rates = [], []
    numbered = TensorDataset(*data.tensors, torch.arange(len(data)))
    loader = DataLoader(numbered, batch_sampler=sampler, num_workers=workers)
    while not sampler.finished:
        for x, y, number in loader:
            optimiser.param_groups[0]["lr"] = sampler.lr
            rates.append(sampler.lr)
            logits = model(x)
            weights = sampler.history.update(logits, y)
            optimiser.zero_grad()
            F.cross_entropy(logits, y, reduction="none").mul(weights).mean().backward()
            optimiser.step()
            batches.append(number)
    return batches, rates


@pytest.mark.parametrize("method", sorted(set(samplers.names()) - NEEDING_PROXY))
def test_every_method_trains_and_ends_with_its_budget(method):
    data, model = some_data(), nn.Linear(2, 2)
    sampler = made(method, data, model=model, epochs=4)
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
    model, seen, step = copy.deepcopy(run.loop.engine.network), [], run.loop.engine.step
    run.loop.engine.step = lambda batch, *rest: (
        seen.append(batch.indices.clone()) or step(batch, *rest)
    )
    list(run)
    data = TensorDataset(run.splits.train.normalised(), run.splits.train.y)
    sampler = bl.BudgetSampler(data, **settings)
    ours, _ = loop(sampler, data, model)
    assert len(ours) == 12
    assert torch.equal(torch.stack(ours), torch.stack(seen))
    error, expected = sampler.history.samples.error, run.history.error
    assert torch.allclose(error, expected, atol=1e-4, equal_nan=True)


def test_looks_are_charged_and_leave_the_network_as_it_was():
    data = TensorDataset(some_data().tensors[0], torch.zeros(SIZE).long())  # as reported below
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    sampler = made("selective-backprop", data, model=model, budget_unit="samples")
    for _ in list(sampler):
        report(sampler)
    mean = model[1].running_mean.clone()
    next(iter(sampler))
    assert torch.equal(model[1].running_mean, mean)
    assert sampler.ledger.looked_samples >= 8
    assert sampler.ledger.spent("samples") <= sampler.budget.limit


def test_workers_ask_ahead_and_every_batch_still_finds_its_samples():
    data, model = some_data(), nn.Linear(2, 2)
    sampler = made("unif-SGD", data)
    batches, rates = loop(sampler, data, model, workers=1)
    counts = torch.bincount(torch.cat(batches), minlength=SIZE)
    assert torch.equal(counts, sampler.history.samples.times_trained.long())
    assert rates[0] == 0.1
    # They may be reported by number, in another order.
    sampler = made("unif-SGD")
    both = [numbers for numbers, _ in zip(sampler, range(2), strict=False)]
    for numbers in reversed(both):
        report(sampler, indices=torch.tensor(numbers))
    assert sampler.history.samples.seen.nonzero()[:, 0].tolist() == sorted(itertools.chain(*both))


def test_a_loop_that_forgets_the_line_is_told_and_one_that_skips_some_is_warned():
    sampler = made("p-SGD")
    with pytest.raises(InputError, match="no batch is waiting"):
        report(sampler)
    list(sampler)
    with pytest.raises(InputError, match=r"none of the 6 batches .* history\.update"):
        list(sampler)
    with pytest.raises(InputError, match="7 rows"):
        report(sampler, rows=7)
    sampler = made("p-SGD")
    for number, _ in enumerate(sampler):
        if number % 2:
            report(sampler)
    with pytest.warns(UserWarning, match="3 of 6 batches"):
        next(iter(sampler))


def test_going_on_from_a_saved_state_draws_the_same():
    def epoch(sampler, seed):
        generator, drawn = torch.Generator().manual_seed(seed), []
        for numbers in sampler:
            logits = torch.randn(8, 2, generator=generator)
            sampler.history.update(logits, torch.zeros(8).long())
            drawn += numbers
        return drawn

    first, other = (made("p-SGD", budget=0.25, epochs=4) for _ in range(2))
    epoch(first, 1)
    torch.save(first.state_dict(), file := io.BytesIO())
    expected = [epoch(first, 2) for _ in range(2)]
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert [epoch(other, 2) for _ in range(2)] == expected


def test_what_another_network_found_is_taken_or_asked_for():
    data, model = some_data(), nn.Linear(2, 2)
    with pytest.raises(InputError, match="needs what another network has found"):
        made("rho-loss", data, model=model, batch_size=4)
    found = samplers.ProxyRun(History(SIZE), torch.zeros(SIZE))
    batches, _ = loop(made("rho-loss", data, model=model, batch_size=4, proxy=found), data, model)
    assert batches


def test_a_budget_in_flops_counts_those_of_the_network():
    data, model = some_data(), nn.Linear(2, 2)
    sampler = made("unif-SGD", data, model=model, budget_unit="flops")
    batches, _ = loop(sampler, data, model)
    # Forward 2 x 2 multiply-adds of two operations a sample, and as many for the weights.
    assert sampler.ledger.flops == sampler.budget.limit == 16 * 8 * len(batches)
    with pytest.raises(InputError, match="samples that are one tensor"):
        made("unif-SGD", Dicts(("pixel_values", "mask")), model=model, budget_unit="flops")
    with pytest.raises(InputError, match="data is a generator: give a map-style data set"):
        bl.BudgetSampler(one for one in data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "psgd"}, "unknown method"),
        ({"budget": 0.01}, "less than one batch"),
        ({"budget_unit": "seconds"}, "not timed beforehand"),
        ({"budget_unit": "flops"}, "model="),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(settings, message):
    with pytest.raises(InputError, match=message):
        made(**{"method": "p-SGD"} | settings)


def test_a_method_that_chooses_nothing_ends_instead_of_going_on_for_ever():
    data = TensorDataset(torch.zeros(SIZE, 2), torch.zeros(SIZE).long())
    sampler = made("selective-backprop", data, model=nn.Linear(2, 2), epochs=9)
    for _ in sampler:
        report(sampler)
    # All losses are the same, so none is above another.
    with pytest.raises(RunError, match="chose nothing in epoch 2"):
        list(sampler)


# What loops report


LOGITS = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
PIXELS = torch.randint(0, 5, (3, 4, 6), generator=torch.Generator().manual_seed(1))
PIXELS[:, 0] = -100  # no label
SHARES = torch.tensor([[1.0, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0.2, 0.2, 0.6, 0, 0]])
ONE = torch.linspace(-2, 2, 8)
TWO = torch.tensor([0, 1] * 4)


def losses_of_two(z, y):
    return F.binary_cross_entropy_with_logits(z, y.float(), reduction="none")


@pytest.mark.parametrize(
    ("logits", "labels", "losses", "right"),
    [
        # Two classes as one logit, a class for each pixel, classes last too, and shares.
        (ONE, TWO, losses_of_two(ONE, TWO), (ONE > 0) == TWO.bool()),
        (ONE[:, None], TWO.float(), losses_of_two(ONE, TWO), (ONE > 0) == TWO.bool()),
        (ONE[:, None], TWO[:, None], losses_of_two(ONE, TWO), (ONE > 0) == TWO.bool()),
        *((logits, PIXELS,
           F.cross_entropy(LOGITS, PIXELS, reduction="none")[:, 1:].mean((1, 2)),
           (LOGITS.argmax(1) == PIXELS)[:, 1:].float().mean((1, 2)) > 0.5)
          for logits in (LOGITS, LOGITS.movedim(1, -1))),
        (LOGITS[:, :, 0, 0], SHARES, F.cross_entropy(LOGITS[:, :, 0, 0], SHARES, reduction="none"),
         LOGITS[:, :, 0, 0].argmax(1) == SHARES.argmax(1)),
    ],
)  # fmt: skip
def test_logits_and_labels_of_any_kind_are_measured_as_torch_has_them(
    logits, labels, losses, right
):
    seen = measure_batch(logits, labels)
    assert torch.allclose(seen.loss, losses, atol=1e-5)
    assert torch.equal(seen.correct, right.float())


def test_the_error_norm_of_shares_is_the_distance_to_them():
    logits = LOGITS[:, :, 0, 0]
    distance = (logits.softmax(1) - SHARES).norm(dim=1)
    assert torch.allclose(measure_batch(logits, SHARES).el2n, distance)


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (torch.tensor([[0.0, 1], [float("nan"), 0]]), torch.tensor([0, 1]),
         "logits of sample 1 are not finite"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "sample 1 has the label 3, which .* classes: g"),
        (torch.zeros(2, 3), torch.tensor([-100, 0]), "sample 0 has no label among the 3"),
        (torch.zeros(2, 3), torch.tensor([0.5, 0]), "sample 0 has the label 0.5, which"),
        (torch.zeros(2, 3), torch.zeros(2, 2).long(), r"labels of shape \(2, 2\) do not fit"),
        (torch.zeros(2, 3, 4), torch.zeros(2).long(), r"\[B, C, ...\] with \[B, ...\]"),
        (torch.zeros(2, 3), torch.ones(2, 3), "do not sum to one"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_the_call(logits, labels, said):
    with pytest.raises(InputError, match=said) as error:
        measure_batch(logits, labels)
    assert "\n" not in str(error.value)


def test_the_history_has_the_measures_itself():
    sampler = made("p-SGD")
    for _ in sampler:
        report(sampler)
    ours, theirs = sampler.history.mean_loss, sampler.history.samples.mean_loss
    assert torch.allclose(ours, theirs, equal_nan=True)
    assert {"forgotten", "mean_margin", "update"} <= set(dir(sampler.history))
    assert torch.equal(copy.deepcopy(sampler.history).visits, sampler.history.visits)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sampler.history.nonsense


# What people have


class Dicts:
    """Items as Hugging Face data sets give them."""

    def __init__(self, keys=("pixel_values",), label="label"):
        self.keys, self.label, (self.x, self.y) = keys, label, some_data().tensors

    def __len__(self):
        return SIZE

    def __getitem__(self, number):
        inputs = {key: self.x[number] for key in self.keys}
        return inputs | {self.label: int(self.y[number])}


class Named(nn.Module):
    """Takes its inputs by name and gives an output with logits."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, pixel_values, mask):
        return types.SimpleNamespace(logits=self.layer(pixel_values * mask))


@pytest.mark.parametrize(
    ("data", "model"),
    [
        (Dicts(), nn.Linear(2, 2)),
        (Dicts(label="labels"), nn.Linear(2, 2)),
        (Dicts(("pixel_values", "mask")), Named()),
    ],
)
def test_items_may_be_dicts(data, model):
    sampler = made("top-k", data, model=model, keep_fraction=0.5)
    for _ in DataLoader(data, batch_sampler=sampler):
        report(sampler)
    assert sampler.ledger.looked_samples >= 8


def test_items_that_cannot_be_batched_are_named():
    for data, said in ((Dicts(label="truth"), "hold pixel_values, truth and no label"),
                       ([(object(), 0)] * SIZE, "give collate_fn=")):  # fmt: skip
        sampler = made("top-k", data, model=nn.Linear(2, 2), batch_size=4)
        with pytest.raises(InputError, match=said):
            list(sampler)


@pytest.mark.parametrize("method", ["SGD", "p-SGD", "rs2", "curriculum", "random-subset"])
def test_the_length_is_that_of_the_epoch(method):
    sampler = made(method, np.int64(SIZE), budget=0.3, epochs=4)
    while not sampler.finished:
        expected, count = len(DataLoader(range(SIZE), batch_sampler=sampler)), 0
        for _ in sampler:
            assert len(sampler) == expected
            report(sampler)
            count += 1
        assert count == expected
    # Where the method decides within the epoch there is none.
    with pytest.raises(TypeError, match="does not know beforehand"):
        len(made("infobatch"))


def test_a_sampler_in_the_place_of_another_gets_a_hint():
    data = some_data()
    sampler = made("SGD", data)
    with pytest.raises(InputError, match="give it to the loader as batch_sampler="):
        next(iter(DataLoader(data, sampler=sampler, batch_size=8)))


def test_a_method_may_read_labels_and_metadata():
    seen, known = [], pd.DataFrame({"group": range(SIZE)})

    class Asking(SGD):
        def __init__(self, context):
            super().__init__(context)
            seen.append((context.labels, context.metadata))

    bl.sampler("asking")(Asking)
    data = some_data()
    made("asking", data, metadata=known)
    made("asking", labels=[1] * SIZE)
    assert torch.equal(seen[0][0], data.tensors[1])
    assert seen[0][1] is known
    assert seen[1][0].tolist() == [1] * SIZE


def test_the_plain_example_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plain_loop.py", "selective-backprop", "0.2"])
    runpy.run_path(str(EXAMPLES / "plain_loop.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert float(said.split("accuracy ")[1].split()[0]) > 0.7
    assert "48 steps" in said


@pytest.mark.parametrize(
    ("name", "method", "needs"),
    [
        ("lightning_loop", "p-SGD", ("lightning",)),
        ("hugging_face_trainer", "selective-backprop", ("transformers", "accelerate")),
    ],
)
def test_the_examples_with_other_libraries_run(name, method, needs):
    for package in needs:
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    done = subprocess.run(
        [sys.executable, f"{name}.py", method, "0.2"], cwd=EXAMPLES, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy ")[1].split()[0]) > 0.7
    assert "48 steps" in done.stdout


# On a GPU


@pytest.mark.parametrize("method", ["p-SGD", "SGD", "infobatch"])
def test_what_is_reported_on_a_gpu_is_read_once_an_epoch(method):
    """There, meta has no values: whoever reads any raises an error."""
    sampler = made(method, SIZE)
    for batch in sampler:
        logits = torch.zeros(len(batch), 2, device="meta", requires_grad=True)
        weights = sampler.history.update(logits, torch.zeros(len(batch), dtype=torch.int64))
        assert (weights.shape, weights.device) == ((len(batch),), logits.device)
        assert sampler.history.times_trained[batch].min() == 1
    for read in (lambda: sampler.history.mean_loss, lambda: sampler.history.last_loss,
                 sampler.state_dict, sampler.record, lambda: next(iter(sampler))):  # fmt: skip
        sampler.history.update(logits, torch.zeros_like(weights).long(), torch.tensor(batch))
        with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
            read()


@pytest.mark.parametrize("most", [2**26, 200])
@pytest.mark.parametrize("method", ["p-SGD", "SGD", "grad-norm", "infobatch"])
def test_what_is_read_later_is_the_same(method, most, monkeypatch, tmp_path):
    def trained() -> tuple:
        torch.manual_seed(0)
        data, model = some_data(), nn.Linear(2, 2)
        sampler = made(method, data, model=model, epochs=4, out=str(tmp_path))
        while not sampler.finished:
            for batch in sampler:
                x, y = data[batch]
                logits, y = model(x), y.clone()
                weights = sampler.history.update(logits, y)
                assert len(sampler.history._waiting) * logits.nbytes <= most
                F.cross_entropy(logits, y, reduction="none").mul(weights).mean().backward()
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= 0.5 * parameter.grad
                        parameter.grad = None
                    logits.zero_()  # the loop may do with them as it likes
                    y.zero_()
            record = sampler.record()
        return sampler.state_dict()["history"], model.state_dict(), record.samples

    at_once = trained()
    monkeypatch.setattr("budgetlab.custom_loop.history._must_wait", lambda logits: True)
    monkeypatch.setattr("budgetlab.custom_loop.history.MOST_WAITING", most)
    later = trained()
    torch.testing.assert_close(later[:2], at_once[:2], rtol=0, atol=0, equal_nan=True)
    assert at_once[2].equals(later[2])


def test_a_mistake_on_a_gpu_is_said_when_it_is_read(monkeypatch):
    monkeypatch.setattr("budgetlab.custom_loop.history._must_wait", lambda logits: True)
    sampler = made("p-SGD")
    batch = next(iter(sampler))
    sampler.history.update(torch.full((8, 2), float("nan")), torch.zeros(8).long())
    with pytest.raises(InputError, match=f"the logits of sample {batch[0]} are not finite"):
        next(iter(sampler))


def test_a_state_that_is_restored_takes_nothing_in_from_before(monkeypatch):
    monkeypatch.setattr("budgetlab.custom_loop.history._must_wait", lambda logits: True)
    sampler, state = made("p-SGD"), made("p-SGD").state_dict()
    next(iter(sampler))
    report(sampler)
    sampler.load_state_dict(state)
    assert sampler.history.visits.sum() == 0


def test_what_was_reported_before_the_first_epoch_belongs_to_none(monkeypatch):
    epochs = []
    for late in (False, True):
        monkeypatch.setattr("budgetlab.custom_loop.history._must_wait", lambda _, late=late: late)
        sampler = made("p-SGD")
        report(sampler, 2, [3, 5])
        next(iter(sampler))
        epochs.append(sampler.history.last_epoch.tolist())
        assert sampler.history.visits.sum() == 2
    assert epochs == [[0.0] * SIZE] * 2


def test_the_seconds_of_a_loop_are_those_that_have_passed(monkeypatch):
    """Reading what waits on a GPU takes time too, and is not counted twice."""
    now, modules = [0.0], ("history", "sampler")
    for module in modules:
        clock = types.SimpleNamespace(perf_counter=lambda: now[0])
        monkeypatch.setattr(f"budgetlab.custom_loop.{module}.time", clock)
    monkeypatch.setattr("budgetlab.custom_loop.history._must_wait", lambda logits: True)
    sampler = made("p-SGD")
    history, take = sampler.history, sampler.history._take

    def slowly(*given):
        now[0] += 2
        take(*given)

    history._take = slowly
    now[0] = 7.0  # before the first batch, nothing is charged
    batches = iter(sampler)
    next(batches)
    for after, seconds in ((1.0, 1.0), (0.5, 3.5)):
        now[0] += after
        if seconds > 1:
            assert history.visits.sum() == 8  # which is read now
        report(sampler)
        assert sampler.ledger.seconds == seconds
        next(batches)
    now[0] += 4.0
    report(sampler)  # the second one still waits, and this one joins it
    assert sampler.ledger.seconds == 7.5
    sampler.state_dict()
    assert sampler.ledger.seconds == 11.5
