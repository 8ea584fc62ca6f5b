"""Any torch data set as samples; twins; own splits."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

import budgetlab as bl
from budgetlab import analysis
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


@pytest.mark.parametrize("model", [None, "own"])
def test_the_map_keeps_classes_apart_and_the_atlas_takes_it(tmp_path, two_colours, model):
    """Red and blue images, one of each with the label of the other: they lie with their colour."""
    splits, wrong = two_colours
    given = None if model is None else Flat
    record = bl.train("unif-SGD", splits=splits, model=given, epochs=3, budget=1.0, batch_size=10,
                      augmentation="none", out=tmp_path, device="cpu", progress=False)  # fmt: skip
    where = analysis.embedding(record, splits, model=given)
    assert list(where) == ["embedding_1", "embedding_2"]
    assert 0.5 < where.attrs["explained"] <= 1
    colour = splits.train.y.numpy() ^ wrong
    first = where["embedding_1"].to_numpy()
    low, high = sorted([first[colour == 0], first[colour == 1]], key=np.mean)
    assert low.max() < high.min()
    pd.testing.assert_frame_equal(where, analysis.embedding(record, splits, model=given))
    chart = bl.explore.atlas(record, *where, more=where, colour="aum", splits=splits)
    right = chart.twin(x_low=float(high.min()) - 1e-6)
    assert sorted(right.index) == np.flatnonzero(first >= high.min()).tolist()
    atlas = bl.widgets.SampleAtlas(record, splits, more=where)
    atlas.by.value = "embedding_1"
    assert atlas.chosen.index[0] == first.argmax()


def test_a_map_by_umap(tmp_path, two_colours):
    pytest.importorskip("umap", reason="umap-learn is not installed")
    splits, wrong = two_colours
    record = bl.train("unif-SGD", splits=splits, epochs=3, budget=1.0, batch_size=10,
                      augmentation="none", out=tmp_path, device="cpu", progress=False)  # fmt: skip
    where = analysis.embedding(record, splits, method="umap")
    colour, at = splits.train.y.numpy() ^ wrong, where.to_numpy()
    apart = np.linalg.norm(at[:, None] - at, axis=2) + 1e9 * np.eye(len(at))
    assert (colour[apart.argmin(axis=1)] == colour).mean() > 0.9
    assert np.isnan(where.attrs["explained"])


def test_a_map_is_of_the_data_and_weights_of_the_record(tmp_path, two_colours):
    splits, _ = two_colours
    record = bl.train("unif-SGD", splits=splits, epochs=1, budget=1.0, batch_size=10,
                      out=tmp_path, device="cpu", progress=False)  # fmt: skip
    with pytest.raises(InputError, match="are not what"):
        analysis.embedding(record, bl.Splits.of(splits.train))
    with pytest.raises(InputError, match="unknown map 'tsne'"):
        analysis.embedding(record, splits, method="tsne")
    with pytest.raises(InputError, match="give one a sample"):
        bl.explore.atlas(record, more=pd.DataFrame({"a": [1]}))
    (record.path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="only a finished run keeps its weights"):
        analysis.embedding(record, splits)


class Flat(torch.nn.Module):
    """A network of one's own."""

    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(192, 8), torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.last(self.first(x.flatten(1)).relu())


@pytest.fixture
def two_colours():
    """Splits of 60 red and blue images for training, and which of their labels are wrong."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 2
    x = rng.integers(0, 60, (90, 8, 8, 3), np.uint8)
    x[y == 0, :, :, 0] += 150
    x[y == 1, :, :, 2] += 150
    wrong = (np.arange(60) < 2).astype(int)
    y[:60] ^= wrong
    samples = bl.Dataset.from_dataset(list(zip(x, y, strict=True)))
    return bl.Splits.of(samples.select(range(60)), samples.select(range(60, 90))), wrong


def test_augmentations_are_compared_on_samples_held_out_of_training():
    """Left and right halves: mirrored they cannot be told apart."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = rng.integers(0, 100, (200, 12, 12), np.uint8)
    x[y == 0, :, :6] += 120
    x[y == 1, :, 6:] += 120
    samples = bl.Dataset.from_dataset(list(zip(x, y, strict=True)), flip=True)
    # The labels of the test set are wrong: whoever looked at it would choose the worst.
    splits = bl.Splits.of(samples, bl.Dataset.from_dataset(list(zip(x[:40], 1 - y[:40],
                                                                    strict=True))))  # fmt: skip
    found = analysis.compare_augmentations(splits, seeds=3, epochs=4, budget=1.0, batch_size=20,
                                           device="cpu", precision="float32")  # fmt: skip
    assert set(found.index) == {"none", "flip", "crop", "crop and flip"}
    assert {*found.index[-2:]} == {"flip", "crop and flip"}
    assert found.loc["none", ["difference", "augmentation", "flip"]].tolist() == [0, "none", "no"]
    flipped = found.loc["crop and flip"]
    assert flipped["accuracy"] < 0.8 < found["accuracy"].iloc[0]
    assert (flipped["ci_high"], flipped["n"]) < (0, 4)
    assert f"with flip {found['flip'].iloc[0]} is best here" in found.attrs["advice"]
    with pytest.raises(InputError, match="augmentation and flip are what is compared"):
        analysis.compare_augmentations(splits, augmentation="none")
    with pytest.raises(InputError, match="these samples are vectors"):
        analysis.compare_augmentations(bl.data.load("points", progress=False))
