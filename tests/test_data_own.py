"""Any torch data set as samples; twins; own splits."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

import budgetlab as bl
from budgetlab.errors import InputError


class Listed(Dataset):
    def __init__(self, items, classes=None):
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


def pixels(shape=(3, 8, 9), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "give",
    [
        lambda a: torch.from_numpy(a),
        lambda a: torch.from_numpy(a).float() / 255,
        lambda a: Image.fromarray(a.transpose(1, 2, 0)),
        lambda a: a.transpose(1, 2, 0),
    ],
    ids=["uint8 tensor", "float tensor", "PIL", "array"],
)
def test_the_same_pixels_whatever_they_come_as(give):
    images = [pixels(seed=n) for n in range(4)]
    samples = bl.Dataset.from_dataset(Listed([(give(a), n % 2) for n, a in enumerate(images)]))
    assert samples.x.dtype == torch.uint8
    assert np.array_equal(samples.x.numpy(), np.stack(images))
    assert samples.y.tolist() == [0, 1, 0, 1]
    assert samples.metadata["index"].tolist() == [0, 1, 2, 3]
    assert not samples.flip


def test_grey_images_features_and_names():
    grey = bl.Dataset.from_dataset(Listed([(pixels((8, 8)), np.int64(1)), (pixels((8, 8)), 0)]))
    assert grey.sample_shape == (1, 8, 8)
    assert grey.classes == ("0", "1")
    features = TensorDataset(torch.randn(5, 2), torch.arange(5) % 3)
    assert bl.Dataset.from_dataset(features, classes=["a", "b", "c"]).classes == ("a", "b", "c")
    named = Listed([(pixels(), 0), (pixels(), 1)], classes=["cat", "dog", "owl"])
    assert bl.Dataset.from_dataset(named).classes == ("cat", "dog", "owl")
    part = bl.Dataset.from_dataset(Subset(named, [1]))
    assert part.classes == ("cat", "dog", "owl")
    assert part.y.tolist() == [1]


def test_normalised_samples_have_mean_zero_and_deviation_one():
    samples = bl.Dataset.from_dataset(Listed([(pixels(seed=n), 0) for n in range(20)]))
    x = samples.normalised().double()
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    assert torch.equal(samples.normalised(torch.tensor([3])), samples.normalised()[3:4])


def test_normalised_is_what_the_network_is_trained_on(config):
    seen = []
    run = bl.Run(config.replace(dataset="digits", limit=64, batch_size=16))
    network = run.loop.engine.network
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    run.loop.engine.logits(run.splits.train.x[:5])
    assert torch.allclose(seen[0], run.splits.train.normalised(slice(5)), atol=1e-5)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Listed([]), "len"),
        (Listed([pixels()]), "pairs"),
        (Listed([(pixels(), None)]), "label None"),
        (Listed([(pixels(), "cat"), (pixels(), 1)]), "some labels are texts"),
        (Listed([(np.array([1.0, 2.0]), 0), (np.array([1.0, np.nan]), 1)]), "item 1 holds NaN"),
        (Listed([(np.array([1.0, np.inf]), 0)]), "item 0 holds an infinite"),
        (Listed([(np.array([1.0, 1e300]), 0)]), "item 0 holds an infinite"),
        (Listed([(np.full((3, 8, 8), np.nan), 0)]), "item 0 holds NaN"),
        (Listed([{"picture": pixels(), "label": 0}]), "picture, label"),
        (Listed([(pixels(), 0.5)]), "label 0.5"),
        (Listed([(pixels(), -1)]), "label -1"),
        (Listed([(torch.randn(3, 8, 8), 0)]), r"\[0, 1\]"),
        (Listed([(torch.rand(5, 8, 8), 0)]), "channels"),
        (Listed([(pixels(), 0), (pixels((3, 8, 8)), 0)]), "item 1"),
        (Listed([(pixels(), 3)], classes=["a", "b"]), "2 classes"),
    ],
)
def test_what_cannot_be_used_is_named(dataset, message):
    with pytest.raises(InputError, match=message):
        bl.Dataset.from_dataset(dataset)


def test_twins_are_found_by_their_values():
    x = torch.from_numpy(np.stack([pixels(seed=n) for n in (0, 1, 0, 2, 1, 0)]))
    assert bl.data.duplicates(x).tolist() == [0, 1, 0, 3, 1, 0]


def test_own_splits_train_and_hold_out_a_fifth(config):
    samples = bl.data.load("digits", progress=False).train
    splits = bl.Splits.of(samples, name="mine")
    assert len(splits.test) == round(len(samples) / 5)
    both = torch.cat([splits.train.x, splits.test.x])
    assert len(both) == len(samples)
    held, kept = (set(part.metadata["index"]) for part in (splits.test, splits.train))
    assert not held & kept
    run = bl.Run(config.replace(dataset="mine", limit=0, epochs=1, budget=0.1), splits=splits)
    assert len(list(run)) == 1
    assert run.record.about["data"]["name"] == "mine"


def test_parts_that_differ_are_refused():
    points, digits = (bl.data.load(n, progress=False).train for n in ("points", "digits"))
    with pytest.raises(InputError, match="differ"):
        bl.Splits.of(points, digits)
    with pytest.raises(InputError, match="too few"):
        bl.Splits.of(points.select([0]))
