"""A map of samples by what a network makes of them; which augmentation fits data of one's own."""

import numpy as np
import pandas as pd
import pytest
import torch

import budgetlab as bl
from budgetlab import analysis
from budgetlab.errors import InputError


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
    assert right.index[0] == first.argmax()


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
    with pytest.raises(InputError, match="give one row per sample"):
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
