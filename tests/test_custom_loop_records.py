"""What a loop of one's own writes down: labels as they are reported, and nothing that cannot be."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import budgetlab as bl

SIZE = 400


class Items:
    """Only its items have labels, as in most data sets that people write."""

    x = torch.randn(SIZE, 2, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(SIZE) * 7) % 3

    def __len__(self):
        return SIZE

    def __getitem__(self, number):
        return self.x[number], int(self.y[number])


def recorded(out, seed=0, data=None, epochs=12, classes=None, method="p-SGD", budget=0.2):
    """Train for a budget and record each epoch; the sampler and the records, oldest first."""
    sampler = bl.BudgetSampler(Items() if data is None else data, method, budget=budget,
                               epochs=epochs, batch_size=16, seed=seed, out=str(out))  # fmt: skip
    records = []
    while not sampler.finished:
        for numbers in sampler:
            y = Items.y[numbers]
            sampler.history.update(torch.nn.functional.one_hot(y, 3).float(), y)
        records.append(sampler.record(0.5, classes=classes))
    return sampler, records


@pytest.mark.parametrize("classes", [None, ["red", "green", "blue"]])
def test_labels_are_completed_as_they_are_reported(tmp_path, classes):
    sampler, records = recorded(tmp_path, classes=classes)
    seen = sampler.history.samples.seen.numpy()
    record = bl.open_record(records[-1].path)
    assert 80 < seen.sum() < SIZE
    assert record.samples["label"].values.tolist() == np.where(seen, Items.y, -1).tolist()
    assert record.classes == (classes or ["0", "1", "2"])
    groups = bl.analysis.groups_of_record(record)
    assert dict(zip(groups["group"], groups["n"], strict=True)) == {
        **dict(zip(record.classes, np.bincount(Items.y[seen]).tolist(), strict=True)),
        "unknown": SIZE - int(seen.sum()),
    }
    share = bl.analysis.class_share(record)
    assert share.groupby("epoch")["share"].sum().tolist() == pytest.approx([1.0] * len(records))
    unknown = share[share["class"] == "unknown"]
    assert unknown["share"].eq(0).all()
    assert unknown["base"].iloc[0] == pytest.approx(1 - seen.mean())
    atlas = bl.explore.atlas(record, x="visits")
    assert len(atlas.twin(label="unknown")) == SIZE - seen.sum()


def test_a_label_that_comes_late_gets_its_class(tmp_path):
    sampler = bl.BudgetSampler(
        64, "unif-SGD", budget=0.5, epochs=2, batch_size=16, out=str(tmp_path)
    )
    for epoch in range(2):
        for numbers in sampler:
            # Binary labels come as floats [B, 1].
            sampler.history.update(
                torch.zeros(len(numbers), 1), torch.full((len(numbers), 1), float(epoch))
            )
        record = sampler.record()
        assert record.classes == ["0", "1"][: epoch + 1]
    assert set(record.samples["label"].values.tolist()) <= {-1, 0, 1}
    assert (record.samples["label"].values == 1).sum() == 32


def test_data_are_told_apart_by_what_is_known_before_the_first_draw(tmp_path):
    class Others(Items):
        pass

    given = TensorDataset(Items.x, Items.y)
    kinds = {"items": Items(), "others": Others(), "number": SIZE, "labels": given}
    prints = {name: {recorded(tmp_path / name, seed, data, 3)[1][-1].fingerprint for seed in (0, 1)}
              for name, data in kinds.items()}  # fmt: skip
    assert {len(found) for found in prints.values()} == {1}
    assert len(set.union(*prints.values())) == len(kinds)
    # As records made before have it, so that new ones compare with them.
    assert prints["labels"] == {"2319d51f65308e6d"}
    frame = bl.analysis.run_agreement(tmp_path / "items")
    assert len(frame)
    frame = bl.compare(tmp_path / "items")
    assert frame["n"].tolist() == [2]
