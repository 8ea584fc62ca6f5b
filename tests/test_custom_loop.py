"""The batch sampler in loops of one's own: the same batches as a run, costs, mistakes."""

import copy
import io
import itertools
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


def made(method, **settings):
    """A sampler that knows only how many samples there are."""
    return bl.BudgetSampler(SIZE, method, **{"budget": 0.5, "batch_size": 8} | settings)


def report(sampler, rows=8, indices=None):
    """Say what a network of two classes that knows nothing gave."""
    sampler.history.update(torch.zeros(rows, 2), torch.zeros(rows).long(), indices)


def loop(sampler, data, model, workers=0, after=lambda: None):
    """A loop like any other; returns the batches it trained on, and their rates."""
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
        after()
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


def test_looks_are_charged_and_leave_the_network_as_it_was():
    data, model = some_data(), nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    sampler = bl.BudgetSampler(
        data, model=model, method="selective-backprop", budget=0.5, epochs=3, batch_size=8,
        budget_unit="samples",
    )  # fmt: skip
    for _ in list(sampler):
        report(sampler)
    mean = model[1].running_mean.clone()
    next(iter(sampler))
    assert torch.equal(model[1].running_mean, mean)
    assert sampler.ledger.looked_samples >= 8
    assert sampler.ledger.spent("samples") <= sampler.budget.limit


def test_workers_ask_ahead_and_every_batch_still_finds_its_samples():
    data, model = some_data(), nn.Linear(2, 2)
    sampler = bl.BudgetSampler(data, method="unif-SGD", budget=0.5, epochs=2, batch_size=8)
    batches, rates = loop(sampler, data, model, workers=1)
    counts = torch.bincount(torch.cat(batches), minlength=SIZE)
    assert torch.equal(counts, sampler.history.samples.times_trained.long())
    assert rates[0] == 0.1


def test_batches_may_be_reported_by_number():
    sampler = made("unif-SGD", epochs=2)
    both = [numbers for numbers, _ in zip(sampler, range(2), strict=False)]
    for numbers in reversed(both):
        report(sampler, indices=torch.tensor(numbers))
    assert sampler.history.samples.seen.nonzero()[:, 0].tolist() == sorted(itertools.chain(*both))


def test_a_loop_that_forgets_the_line_is_told_and_one_that_skips_some_is_warned():
    sampler = made("p-SGD", epochs=3)
    with pytest.raises(InputError, match="no batch is waiting"):
        report(sampler)
    list(sampler)
    with pytest.raises(InputError, match=r"none of the 6 batches .* history\.update"):
        list(sampler)
    with pytest.raises(InputError, match="7 rows"):
        report(sampler, rows=7)
    sampler = made("p-SGD", epochs=3)
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
    settings = {"method": "rho-loss", "budget": 0.5, "epochs": 3, "batch_size": 4}
    with pytest.raises(InputError, match="needs what another network has found"):
        bl.BudgetSampler(data, model=model, **settings)
    found = samplers.ProxyRun(History(SIZE), torch.zeros(SIZE))
    sampler = bl.BudgetSampler(data, model=model, proxy=found, **settings)
    batches, _ = loop(sampler, data, model)
    assert batches


def test_a_budget_in_flops_counts_those_of_the_network():
    data, model = some_data(), nn.Linear(2, 2)
    sampler = bl.BudgetSampler(data, "unif-SGD", model=model, budget=0.5, epochs=2, batch_size=8,
                               budget_unit="flops")  # fmt: skip
    batches, _ = loop(sampler, data, model)
    # Forward 2 x 2 multiply-adds of two operations a sample, and as many for the weights.
    assert sampler.ledger.flops == sampler.budget.limit == 16 * 8 * len(batches)
    with pytest.raises(InputError, match="samples that are one tensor"):
        bl.BudgetSampler(Dicts(("pixel_values", "mask")), model=model, budget_unit="flops")
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
        bl.BudgetSampler(SIZE, **{"batch_size": 8, **settings})


def test_a_method_that_chooses_nothing_ends_instead_of_going_on_for_ever():
    data = TensorDataset(torch.zeros(SIZE, 2), torch.zeros(SIZE).long())
    sampler = bl.BudgetSampler(data, "selective-backprop", model=nn.Linear(2, 2), batch_size=8,
                               budget=0.5, epochs=9)  # fmt: skip
    for _ in sampler:
        report(sampler)
    # All losses are the same, so none is above another.
    with pytest.raises(RunError, match="chose nothing in epoch 2"):
        list(sampler)


# What loops report


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_two_classes_may_be_one_logit(shape):
    z = torch.linspace(-2, 2, 8)
    labels = torch.tensor([0, 1] * 4)
    for y in (labels, labels.float(), labels.reshape(8, 1)):
        seen = measure_batch(z.reshape(shape), y)
        expected = F.binary_cross_entropy_with_logits(z, labels.float(), reduction="none")
        assert torch.allclose(seen.loss, expected, atol=1e-6)
        assert torch.equal(seen.correct, ((z > 0) == labels.bool()).float())


@pytest.mark.parametrize("last", [False, True])
def test_a_class_for_each_pixel_is_averaged_over_the_image(last):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, 6, generator=generator)
    labels = torch.randint(0, 5, (3, 4, 6), generator=generator)
    labels[:, 0] = -100
    seen = measure_batch(logits.movedim(1, -1) if last else logits, labels)
    each = F.cross_entropy(logits, labels, reduction="none")[:, 1:]
    assert torch.allclose(seen.loss, each.mean((1, 2)), atol=1e-5)
    right = (logits.argmax(1) == labels)[:, 1:].float().mean((1, 2))
    assert torch.equal(seen.correct, (right > 0.5).float())


def test_labels_may_be_shares_of_the_classes():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.2, 0.2, 0.6], [0, 0, 1]])
    seen = measure_batch(logits, shares)
    expected = F.cross_entropy(logits, shares, reduction="none")
    assert torch.allclose(seen.loss, expected, atol=1e-6)
    assert torch.allclose(seen.el2n, (logits.softmax(1) - shares).norm(dim=1))
    hard = measure_batch(logits[[0]], torch.tensor([0]))
    assert torch.allclose(seen.loss[0], hard.loss[0])


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
    data, model = some_data(), nn.Linear(2, 2)
    sampler = bl.BudgetSampler(data, "p-SGD", budget=0.5, epochs=2, batch_size=8)
    loop(sampler, data, model)
    ours, theirs = sampler.history.mean_loss, sampler.history.samples.mean_loss
    assert torch.allclose(ours, theirs, equal_nan=True)
    assert {"forgotten", "mean_margin", "update"} <= set(dir(sampler.history))
    copied = copy.deepcopy(sampler.history)
    assert torch.equal(copied.visits, sampler.history.visits)
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
    sampler = bl.BudgetSampler(
        data, "top-k", model=model, keep_fraction=0.5, budget=0.5, epochs=3, batch_size=8
    )
    for _ in DataLoader(data, batch_sampler=sampler):
        report(sampler)
    assert sampler.ledger.looked_samples >= 8


def test_items_that_cannot_be_batched_are_named():
    for data, said in ((Dicts(label="truth"), "hold pixel_values, truth and no label"),
                       ([(object(), 0)] * SIZE, "give collate_fn=")):  # fmt: skip
        sampler = bl.BudgetSampler(
            data, "top-k", model=nn.Linear(2, 2), batch_size=4, budget=0.5, epochs=2
        )
        with pytest.raises(InputError, match=said):
            list(sampler)


@pytest.mark.parametrize("method", ["SGD", "p-SGD", "rs2", "curriculum", "random-subset"])
def test_the_length_is_that_of_the_epoch(method):
    sampler = bl.BudgetSampler(np.int64(SIZE), method, budget=0.3, epochs=4, batch_size=8)
    while not sampler.finished:
        expected, count = len(DataLoader(range(SIZE), batch_sampler=sampler)), 0
        for _ in sampler:
            assert len(sampler) == expected
            report(sampler)
            count += 1
        assert count == expected
    # Where the method decides within the epoch there is none.
    with pytest.raises(TypeError, match="does not know beforehand"):
        len(made("infobatch", epochs=2))


def test_a_sampler_in_the_place_of_another_gets_a_hint():
    data = some_data()
    sampler = bl.BudgetSampler(data, "SGD", budget=0.5, epochs=2, batch_size=8)
    with pytest.raises(InputError, match="give it to the loader as batch_sampler="):
        next(iter(DataLoader(data, sampler=sampler, batch_size=8)))


def test_a_method_may_read_labels_and_metadata():
    seen = []

    class Asking(SGD):
        def __init__(self, context):
            super().__init__(context)
            seen.append((context.labels, context.metadata))

    bl.sampler("asking")(Asking)
    data = some_data()
    known = pd.DataFrame({"group": range(SIZE)})
    bl.BudgetSampler(data, "asking", metadata=known, batch_size=8)
    assert torch.equal(seen[-1][0], data.tensors[1])
    assert seen[-1][1] is known
    bl.BudgetSampler(SIZE, "asking", labels=[1] * SIZE, batch_size=8)
    assert seen[-1][0].tolist() == [1] * SIZE
    with pytest.raises(InputError, match="labels has 3 entries for 96"):
        bl.BudgetSampler(SIZE, "asking", labels=[1, 2, 3])


def recorded(method, seed, out, epochs=3):
    torch.manual_seed(0)
    data, model = some_data(), nn.Linear(2, 2)
    sampler = bl.BudgetSampler(data, method, model=model, budget=0.5, epochs=epochs, batch_size=8,
                               seed=seed, out=str(out), dataset="blobs")  # fmt: skip

    def write():
        right = (model(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean()
        records.append(sampler.record(test_accuracy=right))

    records = []
    loop(sampler, data, model, after=write)
    return sampler, records[-1]


def test_a_loop_leaves_a_record_that_everything_takes(tmp_path):
    pairs = [recorded(method, seed, tmp_path) for method in ("p-SGD", "unif-SGD")
             for seed in (0, 1)]  # fmt: skip
    sampler, record = pairs[0]
    assert (record.status, record.summary["steps"], len(record.epochs)) == ("finished", 18, 3)
    assert record.summary["seconds"] == pytest.approx(sampler.ledger.seconds, abs=1e-3)
    assert record.summary["seconds"] > 0
    trained = record.samples["times_trained"].sum("epoch").values
    assert np.array_equal(trained, sampler.history.times_trained.numpy())
    assert record.samples["label"].values.tolist() == some_data().tensors[1].tolist()
    frame = bl.compare(tmp_path)
    assert set(frame["method"]) == {"p-SGD", "unif-SGD"}
    assert set(frame["dataset"]) == {"blobs"}
    table = bl.analysis.triage(record)
    assert len(table) == SIZE
    assert len(bl.plots.learning_curves(tmp_path).lines) >= 2


def test_an_epoch_is_recorded_once_and_none_is_left_out(tmp_path):
    sampler, _ = recorded("SGD", 0, tmp_path)
    with pytest.raises(InputError, match="epoch 2 is recorded already and the budget is spent"):
        sampler.record()
    late = made("unif-SGD", epochs=3, out=str(tmp_path))
    for _ in itertools.chain(late, late):
        report(late)
    with pytest.raises(InputError, match="epoch 2 cannot be recorded after 0"):
        late.record()


@pytest.mark.parametrize(
    ("name", "method", "needs"),
    [
        ("plain_loop", "selective-backprop", ()),
        ("lightning_loop", "p-SGD", ("lightning",)),
        ("hugging_face_trainer", "p-SGD", ("transformers", "accelerate")),
        ("hugging_face_trainer", "selective-backprop", ("transformers", "accelerate")),
    ],
)
def test_the_examples_run(name, method, needs):
    for package in needs:
        pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    done = subprocess.run(
        [sys.executable, f"{name}.py", method, "0.2"], cwd=EXAMPLES, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy ")[1].split()[0]) > 0.7
    assert "48 steps" in done.stdout
