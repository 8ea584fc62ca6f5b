"""Arrays and data sets of one's own: npz files, labels in every encoding, any torch data set."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

import budgetlab as bl
from budgetlab import analysis
from budgetlab.data import load
from budgetlab.data.arrays import encode_labels
from budgetlab.errors import InputError

Y = np.arange(20) % 2


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(path, **arrays):
    np.savez(path / "own.npz", **arrays)
    return f"npz:{path / 'own.npz'}"


# Files


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((20, 8, 9), None), ((20, 8, 9, 3), (0, 3, 1, 2)), ((20, 8, 9, 1), (0, 3, 1, 2)),
     ((20, 3, 8, 9), (0, 1, 2, 3)), ((20, 1, 8, 9), (0, 1, 2, 3))],
)  # fmt: skip
def test_layouts(shape, axes, tmp_path):
    x = noise(*shape)
    data = load(write(tmp_path, x=x, y=Y, x_test=x[:4], y_test=Y[:4]))
    front = x[:, None] if axes is None else x.transpose(axes)
    assert torch.equal(data.train.x, torch.from_numpy(front.copy()))
    assert torch.equal(data.test.x, data.train.x[:4])
    assert data.train.classes == ("0", "1")
    assert data.train.mean == pytest.approx((front / 255).mean(axis=(0, 2, 3)))
    assert data.train.std == pytest.approx((front / 255).std(axis=(0, 2, 3)))
    # Without a test set a fifth is held out; names of the field's other tools will do.
    floats = {"train_images": x / 255, "train_labels": 1 + Y[:, None], "val_images": x[:4] / 255,
              "val_labels": 1 + Y[:4], "classes": ["none", "even", "odd"]}  # fmt: skip
    data = load(write(tmp_path, **floats), progress=False)
    assert [torch.bincount(part.y).tolist() for part in (data.train, data.val, data.test)] == [
        [8, 8], [2, 2], [2, 2]
    ]  # fmt: skip
    assert data.train.classes == ("even", "odd")
    assert any("no sample has class 'none'" in one for one in data.intake.odd)
    index = data.test.metadata["index"].to_numpy()
    assert torch.equal(data.test.x, torch.from_numpy(front[index]))
    assert data.test.metadata.origin[0] == f"train_images[{index[0]}]"


X = noise(20, 8, 8)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [({"y": Y}, "no array x"),
     ({"pictures": X, "y": Y}, "no array x: it has pictures, y, and x or X or x_train"),
     ({"x": X}, "no array y"), ({"x": X / 1.0, "y": Y}, "give uint8"),
     ({"x": X / 255 * 1.0000001, "y": Y}, "from 0.0 to 1.0000001: give uint8, or floats in [0, 1]"),
     ({"x": X.astype(np.uint16), "y": Y}, "x[0]"), ({"x": X, "y": Y[:9]}, "20 images and 9 labels"),
     ({"x": noise(20, 8), "y": Y}, "features [D] as floats"),
     ({"x": X, "y": Y * 0.5}, "whole numbers"),
     ({"x": X, "y": noise(20, 4) / 255}, "not one-hot"),
     ({"x": X, "y": np.where(Y == 1, np.nan, 0)}, "y[1] is nan"),
     ({"x": X, "y": Y * 0}, "at least two"),
     ({"x": X, "y": Y, "classes": ["one"]}, "a name for each"),
     ({"x": X, "y": 2 * Y - 1, "classes": ["a", "b", "c"]}, "label '-1', which is not a class"),
     ({"x": X, "y": Y, "x_train": X}, "both x and x_train"),
     ({"x": np.where(Y == 1, np.inf, 0)[:, None] + np.zeros(3), "y": Y}, "x[1]"),
     ({"x": np.eye(20) + np.where(Y, np.nan, 0)[:, None], "y": Y}, "holds NaN, and so do 9 mo"),
     ({"x": X, "y": Y, "x_test": X[:2], "y_test": ["a", "b"]}, "are of different kinds"),
     ({"x": X, "y": Y, "x_test": X[:0], "y_test": Y[:0]}, "x_test of"),
     ({"x": X, "y": Y, "x_test": X[:2]}, "no array y_test"),
     ({"x": X, "y": Y, "x_test": noise(2, 9, 8), "y_test": Y[:2]}, "another shape"),
     ({"x": noise(20, 0, 8), "y": Y}, "1 pixel or more"),
     ({"x": X, "y": Y, "classes": ["a", "a"]}, "two classes are called 'a'"),
     ({"x": X, "y": np.zeros((20, 2, 2))}, "float64 (20, 2, 2): give whole numbers")],
)  # fmt: skip
def test_refused_in_one_sentence(arrays, says, tmp_path):
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, **arrays))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_npz_or_too_large(tmp_path, monkeypatch):
    file = tmp_path / "own.npz"
    with pytest.raises(InputError, match="there is no file"):
        load(f"npz:{file}")
    file.write_text("not an archive")
    with pytest.raises(InputError, match=r"cannot be read.*numpy\.savez"):
        load(f"npz:{file}")
    write(tmp_path, x=X, y=Y)
    with monkeypatch.context() as patched:
        patched.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
        patched.setattr(np, "load", None)
        with pytest.raises(InputError, match="GiB of memory"):
            load(f"npz:{file}")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        load(f"npz:{file}")


# Labels


@pytest.mark.parametrize(
    ("labels", "classes", "encoded"),
    [
        ([1, 2, 3, 1], ["1", "2", "3"], [0, 1, 2, 0]),
        ([-1, 1, 1, -1], ["-1", "1"], [0, 1, 1, 0]),
        ([True, False, True, True], ["0", "1"], [1, 0, 1, 1]),
        ([1.0, 0.0, 1.0, 2.0], ["0", "1", "2"], [1, 0, 1, 2]),
        (["dog", "cat", "dog", "ape"], ["ape", "cat", "dog"], [2, 1, 2, 0]),
        ([b"dog", b"cat", b"dog", b"cat"], ["cat", "dog"], [1, 0, 1, 0]),
        ([[1], [0], [0], [1]], ["0", "1"], [1, 0, 0, 1]),
        ([[0, 1], [1, 0], [1, 0], [0, 1]], ["0", "1"], [1, 0, 0, 1]),
        (np.array([2**63 + 1, 3, 3, 3], np.uint64), ["3", str(2**63 + 1)], [1, 0, 0, 0]),
    ],
)
def test_labels_in_every_encoding(labels, classes, encoded, tmp_path):
    found, names, _ = encode_labels({"y": labels})
    assert (names, found["y"].tolist()) == (classes, encoded)
    y = np.concatenate([np.asarray(labels)] * 10)
    data = load(write(tmp_path, x=noise(40, 6, 6), y=y), progress=False, label_noise=0.5)
    assert list(data.train.classes) == classes
    # Wrong labels are of classes that occur.
    assert set(data.train.y.tolist()) <= set(range(len(classes)))
    index = data.test.metadata["index"].to_numpy()
    assert data.test.y.tolist() == np.tile(encoded, 10)[index].tolist()
    found, names, _ = encode_labels({"y": [-1, 1, 1]}, ["no", "yes"])
    assert (found["y"].tolist(), names) == ([0, 1, 1], ["no", "yes"])
    assert "are y class labels?" in encode_labels({"y": np.arange(30)})[2][-1]


# Any torch data set


class Items(torch.utils.data.Dataset):
    def __init__(self, items, **about):
        self.items = items
        vars(self).update(about)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


@pytest.mark.parametrize(
    "give",
    [torch.from_numpy, lambda a: torch.from_numpy(a).float() / 255,
     lambda a: Image.fromarray(a.transpose(1, 2, 0)), lambda a: a.transpose(1, 2, 0)],
    ids=["uint8 tensor", "float tensor", "PIL", "array"],
)  # fmt: skip
def test_the_same_pixels_whatever_they_come_as(give):
    images = [noise(3, 8, 9, seed=n) for n in range(4)]
    samples = bl.Dataset.from_dataset(Items([(give(a), n % 2) for n, a in enumerate(images)]))
    assert samples.x.dtype == torch.uint8
    assert np.array_equal(samples.x.numpy(), np.stack(images))
    assert samples.y.tolist() == [0, 1, 0, 1]
    assert samples.metadata["index"].tolist() == [0, 1, 2, 3]
    assert not samples.flip


NAMED = ["cat", "dog", "owl"]
FEATURES = {"image": None, "label": SimpleNamespace(names=NAMED)}  # as Hugging Face has them


@pytest.mark.parametrize(
    ("items", "about", "options", "classes", "labels"),
    [
        ([(X[0], np.int64(1)), (X[1], 0)], {}, {}, ["0", "1"], [1, 0]),
        ([(X[0], 0), (X[1], 1)], {"classes": NAMED}, {}, NAMED, [0, 1]),
        ([(X[0], 0), (X[1], 1)], {}, {"classes": NAMED}, NAMED, [0, 1]),
        (
            [{"image": X[n], "label": n % 2} for n in range(4)],
            {"features": FEATURES},
            {},
            NAMED,
            [0, 1, 0, 1],
        ),
        ([(X[0], "b"), (X[1], "a")], {}, {}, ["a", "b"], [1, 0]),
        ([(np.float32([1, 2]), 0), (np.float32([3, 4]), 1)], {}, {}, ["0", "1"], [0, 1]),
    ],
)
def test_names_of_classes_wherever_they_stand(items, about, options, classes, labels):
    samples = bl.Dataset.from_dataset(Items(items, **about), **options)
    assert (list(samples.classes), samples.y.tolist()) == (classes, labels)
    if not options:
        part = bl.Dataset.from_dataset(Subset(Items(items * 2, **about), range(1, 1 + len(items))))
        assert list(part.classes) == classes


@pytest.mark.parametrize(
    ("items", "message"),
    [([], "len"), ([noise(3, 8, 9)], "pairs"), ([(X[0], None)], "label None"),
     ([(X[0], "cat"), (X[0], 1)], "some labels are texts"),
     ([(np.array([1.0, 2.0]), 0), (np.array([1.0, np.nan]), 1)], "item 1 holds NaN"),
     ([(np.array([1.0, 1e300]), 0)], "item 0 holds an infinite"),
     ([(np.full((3, 8, 8), np.nan), 0)], "item 0 holds NaN"),
     ([{"picture": X[0], "label": 0}], "picture, label"), ([(X[0], 0.5)], "label 0.5"),
     ([(X[0], -1)], "label -1"), ([(torch.randn(3, 8, 8), 0)], r"\[0, 1\]"),
     ([(torch.rand(5, 8, 8), 0)], "channels"), ([(noise(8, 9), 0), (noise(8, 8), 0)], "item 1"),
     ([(X[0], 3)], "2 classes")],
)  # fmt: skip
def test_what_cannot_be_used_is_named(items, message):
    about = {"classes": ["a", "b"]} if message == "2 classes" else {}
    with pytest.raises(InputError, match=message):
        bl.Dataset.from_dataset(Items(items, **about))


def test_data_with_augmentation_would_keep_one_variant_of_each_and_are_refused():
    class Flipped(Items):
        def __getitem__(self, number):
            sample, label = super().__getitem__(number)
            return sample[..., :: 1 - 2 * int(rng.integers(2))], label

    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="items change when read again"):
        bl.Dataset.from_dataset(Flipped([(X[number], number % 2) for number in range(20)]))


def test_own_splits_train_and_hold_out_a_fifth(config):
    samples = load("digits", progress=False).train
    splits = bl.Splits.of(samples, name="mine")
    assert len(splits.test) == round(len(samples) / 5)
    held, kept = (set(part.metadata["index"]) for part in (splits.test, splits.train))
    assert held | kept == set(samples.metadata["index"])
    assert not held & kept
    run = bl.Run(config.replace(dataset="mine", limit=0, epochs=1, budget=0.1), splits=splits)
    seen = []
    run.loop.engine.network.register_forward_pre_hook(lambda _, x: seen.append(x[0].clone()))
    run.loop.engine.logits(splits.train.x[:5])
    assert torch.allclose(seen[0], splits.train.normalised(slice(5)), atol=1e-5)
    assert len(list(run)) == 1
    assert run.record.about["data"]["name"] == "mine"
    # Parts are numbered alike or refused.
    train = bl.Dataset.from_dataset(Items([(X[n], 2 * (n % 3)) for n in range(9)]))
    test = bl.Dataset.from_dataset(Items([(X[n], 4) for n in range(3)]))
    splits = bl.Splits.of(train, test)
    assert (splits.test.classes, splits.test.y.tolist()) == (("0", "2", "4"), [2, 2, 2])
    assert repr(splits) == "Splits('own': 9 train + 3 test samples of 1x8x8, 3 classes)"
    for parts, says in (((train, samples), "differ"), ((train.select([0]),), "too few"),
                        ((test,), "one class only")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            bl.Splits.of(*parts)


def test_a_truth_that_is_known_of_some(config):
    """Named or numbered, whole or in part, it reaches tables and plots."""
    items = Items([(noise(12, 12, 3, seed=n), n % 3) for n in range(60)])
    true = [None if n % 4 else (n + (n < 20)) % 3 for n in range(60)]
    samples = bl.Dataset.from_dataset(items, true_label=true)
    assert samples.metadata.is_noisy.isna().sum() == 45
    assert samples.metadata.is_noisy.sum() == 5
    splits = bl.Splits.of(samples, samples)
    run = bl.Run(config.replace(dataset="own", limit=0, epochs=3), splits=splits)
    list(run)
    frame = analysis.measures(run.record)
    assert frame.is_noisy.isna().sum() == 45
    assert frame.true_label.dropna().tolist() == [label for label in true if label is not None]
    assert (analysis.detection(run.record).n <= 15).all()
    assert analysis.selection(run.record).attrs["noisy_base"] == 5 / 60
    bl.plots.flagged_share(run.record)
    atlas = bl.explore.atlas(run.record, splits=splits)
    for group, count in (("noisy", 5), ("not noisy", 10)):
        assert 0 < len(atlas.twin(group=group)) <= count
    whole = bl.Dataset.from_dataset(items, classes=list("abc"), true_label=["a"] * 60).metadata
    assert (whole.is_noisy.dtype, whole.is_noisy.sum()) == (bool, 40)
    for given, says in ((true[1:], "59 entries for 60"), (["z"] * 60, "'z'")):
        with pytest.raises(InputError, match=says):
            bl.Dataset.from_dataset(items, classes=list("abc"), true_label=given)
