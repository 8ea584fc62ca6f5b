"""What a loop of one's own writes down: labels as they are reported, and nothing that cannot be."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import TensorDataset

import budgetlab as bl
from budgetlab.errors import InputError

SIZE = 400


class Items:
    """Only its items have labels, as in most data sets that people write."""

    x = torch.randn(SIZE, 2, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(SIZE) * 7) % 3

    def __len__(self):
        return SIZE

    def __getitem__(self, number):
        return self.x[number], int(self.y[number])


def recorded(out, seed=0, data=None, classes=None, **changes):
    """Train for a budget and record each epoch; the sampler and the records, oldest first."""
    settings = {"method": "p-SGD", "epochs": 12, "budget": 0.2, "batch_size": 16} | changes
    data = Items() if data is None else data
    sampler, records = bl.BudgetSampler(data, seed=seed, out=str(out), **settings), []
    while not sampler.finished:
        for numbers in sampler:
            y = Items.y[numbers]
            sampler.history.update(torch.nn.functional.one_hot(y, 3).float(), y)
        records.append(sampler.record(0.5, classes=classes))
    return sampler, records


def test_a_loop_leaves_a_record_that_everything_takes(tmp_path):
    given = TensorDataset(Items.x, Items.y)
    settings = {"epochs": 3, "budget": 0.5, "model": torch.nn.Linear(2, 3)}
    found = [recorded(tmp_path, seed, given, method=method, **settings)
             for method in ("p-SGD", "unif-SGD") for seed in (0, 1)]  # fmt: skip
    sampler, (*_, record) = found[0]
    assert (record.status, record.summary["steps"], len(record.epochs)) == ("finished", 36, 3)
    assert record.summary["seconds"] == pytest.approx(sampler.ledger.seconds, abs=1e-3)
    assert record.summary["seconds"] > 0
    trained = record.samples["times_trained"].sum("epoch").values
    assert np.array_equal(trained, sampler.history.times_trained.numpy())
    assert record.samples["label"].values.tolist() == Items.y.tolist()
    frame = bl.compare(tmp_path)
    assert frame.set_index("method")["n"].to_dict() == {"p-SGD": 2, "unif-SGD": 2}
    assert len(bl.analysis.triage(record)) == SIZE
    assert len(bl.plots.learning_curves(tmp_path).lines) >= 2


@pytest.mark.parametrize("classes", [None, ["red", "green", "blue"]])
def test_labels_are_completed_as_they_are_reported(tmp_path, classes):
    sampler, records = recorded(tmp_path, classes=classes)
    seen = sampler.history.samples.seen.numpy()
    record = bl.open_record(records[-1].path)
    assert 80 < seen.sum() < SIZE
    assert record.samples["label"].values.tolist() == np.where(seen, Items.y, -1).tolist()
    assert record.classes == (classes or ["0", "1", "2"])
    groups = bl.analysis.groups_of_record(record).set_index("group")["n"]
    assert groups[record.classes].tolist() == np.bincount(Items.y[seen]).tolist()
    assert groups["unknown"] == SIZE - seen.sum()
    share = bl.analysis.class_share(record)
    assert share.groupby("epoch")["share"].sum().tolist() == pytest.approx([1.0] * len(records))
    unknown = share[share["class"] == "unknown"]
    assert unknown["share"].eq(0).all()
    assert unknown["base"].iloc[0] == pytest.approx(1 - seen.mean())
    atlas = bl.explore.atlas(record, x="visits")
    assert len(atlas.twin(label="unknown")) == SIZE - seen.sum()


def test_a_label_that_comes_late_gets_its_class(tmp_path):
    sampler = bl.BudgetSampler(64, "unif-SGD", budget=0.5, epochs=2, batch_size=16, out=tmp_path)
    for epoch in range(2):
        for numbers in sampler:
            # Binary labels come as floats [B, 1].
            labels = torch.full((len(numbers), 1), float(epoch))
            sampler.history.update(torch.zeros(len(numbers), 1), labels)
        record = sampler.record()
        assert record.classes == ["0", "1"][: epoch + 1]
    assert (record.samples["label"].values == 1).sum() == 32


def test_data_are_told_apart_by_what_is_known_before_the_first_draw(tmp_path):
    class Others(Items):
        pass

    given = TensorDataset(Items.x, Items.y)
    kinds = {"items": Items(), "others": Others(), "number": SIZE, "labels": given}
    prints = {
        name: {recorded(tmp_path / name, seed, data, epochs=3)[1][-1].fingerprint
               for seed in (0, 1)} for name, data in kinds.items()
    }  # fmt: skip
    assert {len(found) for found in prints.values()} == {1}
    assert len(set.union(*prints.values())) == len(kinds)
    # As records made before have it, so that new ones compare with them.
    assert prints["labels"] == {"2319d51f65308e6d"}


def known(rows=SIZE, **columns):
    return pd.DataFrame({name: [value] * rows for name, value in columns.items()})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": True}, "data is a bool: give a map-style data set"),
        ({"data": 0}, "data has 0 samples: give"),
        ({"labels": [0.5] * SIZE}, r"labels\[0\] is 0.5: give class numbers"),
        ({"labels": [0, float("nan")] * 200}, r"labels\[1\] is nan: give class numbers"),
        ({"labels": torch.tensor([0, 0, -7, 1] * 100)}, r"labels\[2\] is -7: give class numbers"),
        ({"labels": ["cat"] * SIZE}, r"labels is <U3 of shape \(400,\): give class numbers"),
        ({"labels": [[1], [2, 3]]}, "labels is a list that is not an array: give class numbers"),
        ({"labels": [1]}, "labels has 1 entries for 400"),
        ({"metadata": [1] * SIZE}, "metadata is a list: give a pandas DataFrame"),
        ({"metadata": known(3, group=1)}, "metadata has 3 entries for 400"),
        ({"metadata": known(loss=1)}, "column 'loss', which no record can hold: rename"),
        ({"metadata": known(**{"a/b": 1})}, "column 'a/b', which no record can hold: rename"),
        ({"metadata": pd.concat([known(a=1)] * 2, axis=1)}, "two columns 'a': rename one"),
    ],
)
def test_what_the_record_could_not_hold_is_refused_at_the_start(tmp_path, given, said):
    with pytest.raises(InputError, match=said) as error:
        bl.BudgetSampler(**{"data": SIZE, "batch_size": 16, "out": str(tmp_path)} | given)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"test_accuracy": 91.0}, "test_accuracy is 91.0: give a number from 0 to 1, or"),
        ({"test_accuracy": "0.9x"}, "test_accuracy is '0.9x': give a number from 0 to 1, or"),
        ({"test_loss": float("inf")}, "test_loss is inf: give a number, or leave"),
        ({"val_loss": torch.zeros(2)}, r"val_loss is tensor\(\[0., 0.\]\): give a number, or"),
        ({"classes": ["only"]}, r"classes is \['only'\] for labels up to 2: give a list"),
        ({"classes": "abcd"}, "classes is 'abcd' for labels up to 2: give a list"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_and_the_right_one_is_still_taken(
    tmp_path, figures, said
):
    sampler = bl.BudgetSampler(Items(), budget=0.5, epochs=2, batch_size=16, out=str(tmp_path))
    for numbers in sampler:
        sampler.history.update(torch.zeros(16, 3), Items.y[numbers])
    with pytest.raises(InputError, match=said):
        sampler.record(**figures)
    assert not list(tmp_path.iterdir())
    assert sampler.record(0.91, classes=["a", "b", "c"]).epochs["test_accuracy"].tolist() == [0.91]


@pytest.mark.parametrize(
    ("indices", "said"),
    [
        ([0.7] * 16, r"indices\[0\] is 0.7: give the numbers of the samples, .* 0 to 63"),
        ([*range(15), 64], r"indices\[15\] is 64: give the numbers"),
        ([True] * 16, r"indices is torch.bool of shape \(16,\): give the numbers"),
        ("some", "indices is a str: give a tensor"),
    ],
)
def test_numbers_of_no_sample_are_refused(indices, said):
    sampler = bl.BudgetSampler(64, batch_size=16)
    next(iter(sampler))
    with pytest.raises(InputError, match=said):
        sampler.history.update(torch.zeros(16, 2), torch.zeros(16).long(), indices)
    assert not sampler.history.samples.seen.any()


def test_an_epoch_is_recorded_once_and_none_is_left_out(tmp_path):
    settings = {"budget": 0.5, "epochs": 3, "batch_size": 16, "out": str(tmp_path)}
    sampler, late = (bl.BudgetSampler(Items(), seed=seed, **settings) for seed in (0, 1))

    def epoch(sampler):
        for numbers in sampler:
            sampler.history.update(torch.zeros(16, 3), Items.y[numbers])

    said = ": train the next one, with history.update for each batch"
    with pytest.raises(InputError, match=f"no epoch was trained yet{said}"):
        sampler.record()
    for _ in range(3):
        epoch(sampler)
        record = sampler.record()
        again = "and the budget is spent: leave" if sampler.finished else f"{said[:5]}"
        with pytest.raises(InputError, match=f"epoch {sampler.epoch} is recorded already ?{again}"):
            sampler.record()
    assert len(record.epochs) == 3
    with pytest.raises(InputError, match="of a loop of your own, a frame with label and predicted"):
        bl.analysis.group_accuracy(record)
    epoch(late)
    epoch(late)
    with pytest.raises(InputError, match="epoch 2 cannot be recorded after 0"):
        late.record()
