"""Built-in data: what is drawn, what is read from files in the true formats, what is done to it.

Drawings are the same bytes everywhere; of CIFAR, SVHN and mini-ImageNet there are tiny files, and
nothing is fetched.
"""

import dataclasses
import hashlib
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from budgetlab.data import Splits, describe, load
from budgetlab.data import shapes as drawing
from budgetlab.data.builtin import (
    BLOB_CENTRES,
    BLOB_SHARES,
    BLOB_SPREAD,
    PROBLEMS,
    draw_points,
    posterior,
)
from budgetlab.data.builtin import shapes as shapes_source
from budgetlab.data.changes import annotator, imbalanced, noisy_labels
from budgetlab.data.dataset import channel_statistics, stratified
from budgetlab.data.images import write_cache
from budgetlab.data.shapes import OUTLINES
from budgetlab.errors import InputError


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def shapes(root) -> Splits:
    return load("shapes", root=root)


# Contents


def test_shapes_is_what_the_page_says_and_is_read_again_from_the_cache(shapes, root, monkeypatch):
    train, test = shapes.train, shapes.test
    assert (len(train), len(test), shapes.val) == (10_000, 10_000, None)
    assert (train.x.dtype, train.y.dtype) == (torch.uint8, torch.int64)
    assert train.sample_shape == (3, 32, 32)
    assert torch.bincount(train.y).min() >= 950
    assert train.flip
    difficulty, other = train.metadata["difficulty"], train.metadata["other_label"]
    assert difficulty.between(0, 1).all()
    assert (difficulty < 0.1).mean() > 0.4
    assert 0.03 < (difficulty > 0.8).mean() < 0.15
    assert 0.02 < train.metadata["is_ambiguous"].mean() < 0.04
    assert ((other >= 0) == train.metadata["is_ambiguous"]).all()
    assert (other != train.metadata["true_label"]).all()
    monkeypatch.setattr(drawing, "draw", None)
    again = load("shapes", root=root)
    assert again.fingerprint == shapes.fingerprint
    assert again.train.metadata.equals(train.metadata)


def test_a_damaged_cache_is_drawn_again_and_one_that_cannot_be_written_left_out(
    tmp_path, monkeypatch
):
    for name, count in (("TRAIN", 30), ("TEST", 20), ("TEST_V1", 10)):
        monkeypatch.setattr(f"budgetlab.data.builtin.SHAPES_{name}", count)
    first = shapes_source(tmp_path, seed=3)
    (cache,) = tmp_path.rglob("*.npz")
    cache.write_bytes(cache.read_bytes()[:1000])
    assert torch.equal(shapes_source(tmp_path, seed=3).parts["train"].x, first.parts["train"].x)
    assert len(cache.read_bytes()) > 1000
    (tmp_path / "taken").write_text("a file, not a folder")
    assert len(load("digits", root=tmp_path / "taken").train) == 1438
    write_cache(tmp_path / "taken" / "x.npz", {"x": np.zeros(1)})


def test_digits_hold_out_a_fifth_of_every_class_and_statistics_are_exact():
    digits = load("digits")
    train = digits.train
    assert (train.x.shape, train.x.max(), train.flip) == ((1438, 1, 8, 8), 255, False)
    both = torch.bincount(train.y) + torch.bincount(digits.test.y)
    assert (abs(torch.bincount(digits.test.y) / both - 0.2) < 0.01).all()
    pixels = train.x.double() / 255
    assert train.mean[0] == pytest.approx(pixels.mean().item())
    assert train.std[0] == pytest.approx(pixels.std(correction=0).item())
    x = np.zeros((2, 2, 1, 2), np.uint8)
    x[:, 0] = [[[0, 255]], [[0, 255]]]
    x[:, 1] = 51
    # A constant channel gets 1, so that dividing by it is harmless.
    assert np.ravel(channel_statistics(x)) == pytest.approx([0.5, 0.2, 0.5, 1.0])
    picked = train.select([5, 3, 3])
    assert torch.equal(picked.x, train.x[[5, 3, 3]])
    assert picked.metadata["index"].tolist() == train.metadata["index"].iloc[[5, 3, 3]].tolist()
    assert picked.metadata.index.tolist() == [0, 1, 2]
    assert train.to("meta").x.device.type == "meta"
    with pytest.raises(dataclasses.FrozenInstanceError):
        picked.flip = True


# Points: densities checked against what can be worked out by hand


def test_densities_by_hand():
    names = describe()
    assert {"shapes", "points", "digits", "cifar10", "folder:PATH", "npz:PATH"} <= names.keys()
    for name in ("points", "points:moons", "points:spirals", "points:blobs"):
        assert load(name).name == name
    x = np.array([[0.3, 0.4], [2.0, 1.0], [-8.0, 9.0]])
    apart = ((x[:, None] - np.array(BLOB_CENTRES)) ** 2).sum(axis=2)
    weight = BLOB_SHARES * np.exp(-apart / (2 * BLOB_SPREAD**2))
    assert posterior("blobs", x) == pytest.approx(weight / weight.sum(axis=1, keepdims=True))
    # Turning the plane by 180 degrees about (0.5, 0.25) swaps the two moons.
    x = generator().uniform(-2, 3, (50, 2))
    turned = np.array([1.0, 0.5]) - x
    assert posterior("moons", turned) == pytest.approx(posterior("moons", x)[:, ::-1])


@pytest.mark.parametrize("problem", PROBLEMS)
def test_difficulty_is_the_chance_of_being_wrong(problem):
    points = SimpleNamespace(**draw_points(problem, 20_000, generator()))
    chance = posterior(problem, points.x)
    # Among points where class k has 70% to 80%, 70% to 80% are of class k: the
    # densities are the ones that were drawn from.
    for label in range(chance.shape[1]):
        near = (chance[:, label] > 0.6) & (chance[:, label] < 0.9)
        spread = 0.5 / np.sqrt(near.sum())
        assert abs((points.y[near] == label).mean() - chance[near, label].mean()) < 4 * spread
    assert points.difficulty == pytest.approx(1 - chance[np.arange(20_000), points.y], abs=1e-4)
    assert 0.02 < (chance.argmax(axis=1) != points.y).mean() < 0.2
    ambiguous = points.other_label >= 0
    assert 0 < ambiguous.mean() < 0.1
    assert (points.other_label != points.y).all()
    assert chance[~ambiguous].max(axis=1).min() > 0.599


# What is done to a training set


def test_order_of_changes_and_their_metadata(shapes, root):
    asked = {"imbalance": 10, "limit": 1000, "val_fraction": 0.2}
    changed = load("shapes", root=root, label_noise=0.25, **asked)
    train, val = changed.train, changed.val
    assert (len(train), len(val)) == (800, 200)
    # Noise on train only, exact, and every changed label known.
    assert train.metadata["is_noisy"].sum() == 200
    assert not val.metadata["is_noisy"].any()
    true = torch.tensor(train.metadata["true_label"].to_numpy())
    assert ((train.y != true).numpy() == train.metadata["is_noisy"].to_numpy()).all()
    # The index leads back to the image in the unchanged set.
    index = torch.tensor(train.metadata["index"].to_numpy())
    assert torch.equal(train.x, shapes.train.x[index])
    assert torch.equal(true, shapes.train.y[index])
    assert not set(train.metadata["index"]) & set(val.metadata["index"])
    # The profile of the imbalance survives limit and split.
    counts = torch.bincount(true).numpy()
    assert counts[0] / counts[-1] == pytest.approx(10, rel=0.15)
    assert torch.equal(changed.test.x, shapes.test.x)
    clean = load("shapes", root=root, **asked)
    assert torch.equal(clean.train.x, train.x)
    assert clean.fingerprint != changed.fingerprint


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 0.999),
       st.sampled_from(["symmetric", "pair", "instance"]), st.integers(0, 100))  # fmt: skip
def test_noise_changes_exactly_the_share_asked_for(y, rate, kind, seed):
    y = np.array(y)
    x = np.random.default_rng(seed).normal(size=(len(y), 2)) * (seed % 3)
    noisy = noisy_labels(y, 5, rate, kind, generator(seed), x)
    assert (noisy != y).sum() == round(rate * len(y))
    assert ((noisy >= 0) & (noisy < 5)).all()
    if kind == "pair":
        assert (noisy[noisy != y] == (y[noisy != y] + 1) % 5).all()
    with pytest.raises(InputError, match="needs at least 2 classes"):
        noisy_labels(0 * y, 1, 0.5, kind, generator(), x)


def test_symmetric_noise_reaches_every_other_class_equally():
    y = np.full(40_000, 2)
    counts = np.bincount(noisy_labels(y, 5, 0.5, "symmetric", generator(), y), minlength=5)
    # 5,000 expected in each other, standard deviation about 61.
    assert (abs(counts - [5000, 5000, 20_000, 5000, 5000]) < [310, 310, 1, 310, 310]).all()


def test_instance_noise_mixes_up_what_looks_alike():
    """Classes 0, 1, 2 grow brighter; 0 and 1 overlap, 2 stands apart."""
    rng, y = np.random.default_rng(0), np.arange(2000) % 3
    brightness = np.array([100, 120, 220])[y] + rng.normal(0, 12, 2000)
    x = brightness[:, None, None, None] + rng.normal(0, 3, (2000, 1, 16, 16))
    x = x.clip(0, 255).astype(np.uint8)
    noisy = noisy_labels(y, 3, 0.1, "instance", generator(), x)
    changed = noisy != y
    assert changed.sum() == 200
    assert changed[y == 2].mean() < 0.02
    assert (noisy[changed] != 2).mean() > 0.98
    # Within class 0, the brighter ones look like class 1 and are wrong more often.
    bright, zero = x.mean(axis=(1, 2, 3)) > 110, y == 0
    assert changed[zero & bright].mean() > 3 * changed[zero & ~bright].mean()
    # A sample is judged by a model that has not seen its label: here nothing can be learned, and
    # one that knew the labels would be right more often.
    x, y = rng.normal(size=(400, 30)), rng.integers(0, 2, 400)
    judged = annotator(x, y, 2, generator())
    assert abs((judged.argmax(axis=1) == y).mean() - 0.5) < 0.1


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.floats(0, 1), st.integers(0, 100),
       st.floats(1, 100))  # fmt: skip
def test_the_share_of_every_class_is_kept_or_falls_as_the_imbalance_says(y, share, seed, ratio):
    y = np.array(y)
    count = int(share * len(y))
    chosen = stratified(y, count, generator(seed))
    assert len(chosen) == count == len(set(chosen.tolist()))
    assert (np.diff(chosen) > 0).all()
    for label in set(y.tolist()):
        exact = (y == label).sum() * count / len(y)
        assert abs((y[chosen] == label).sum() - exact) < 1
    with pytest.raises(InputError, match=r"cannot pick \d+ of \d+"):
        stratified(y, len(y) + 1, generator())
    full = np.repeat(np.arange(3), 100)
    kept = np.bincount(full[imbalanced(full, ratio, generator(seed))])
    assert kept.tolist() == [round(100 * ratio ** (-k / 2)) for k in range(3)]


def test_an_imbalance_takes_as_many_as_an_unbalanced_source_can_fill():
    y = np.repeat([0, 1], [10, 100])
    assert np.bincount(y[imbalanced(y, 5, generator())]).tolist() == [10, 2]


@pytest.mark.parametrize(
    ("name", "kind", "share"),
    [("digits", "exact", 0.9), ("digits", "varied", 0.5), ("points", "varied", 0.5)],
)
def test_redundancy_repeats_few_images_and_keeps_the_number_of_samples(name, kind, share):
    plain = load(name, limit=500).train
    train = load(name, limit=500, redundancy=share, copies=15, redundancy_kind=kind).train
    source = train.metadata["copy_of"].to_numpy()
    is_copy = source != np.arange(500)
    assert is_copy.sum() == round(500 * share)
    assert torch.equal(torch.bincount(train.y), torch.bincount(plain.y))
    # Each copy is of an original, which is no copy itself, and those not copied are as before.
    assert not is_copy[source].any()
    assert torch.equal(train.x[~is_copy], plain.x[~is_copy])
    assert (train.metadata["index"].to_numpy() == plain.metadata["index"][source]).all()
    times = np.bincount(source[is_copy])
    assert abs(np.median(times[times > 0]) - 15) <= 5
    original = plain.x[torch.tensor(source)]
    same = (train.x == original).flatten(1).all(1).numpy()
    assert same.all() if kind == "exact" else same[is_copy].mean() < 0.2
    # Varied copies are closer to their original than to others.
    own, other = train.x[is_copy].float(), original[is_copy].float()
    strangers = other[torch.randperm(len(other), generator=torch.Generator().manual_seed(0))]
    assert (own - other).abs().mean() < 0.8 * (own - strangers).abs().mean()


@pytest.mark.parametrize(
    ("options", "says"),
    [({"name": "shape"}, "did you mean 'shapes'"), ({"name": "folder:"}, "folder:PATH"),
     ({"name": "points:moon"}, "points:moons"), ({"limit": -1}, "limit -1"),
     ({"limit": 2000}, "more than the 1438 training"), ({"val_fraction": 1.0}, "val-fraction 1.0"),
     ({"val_fraction": 1e-6}, "leaves a split empty"), ({"label_noise": 1.5}, "label-noise 1.5"),
     ({"label_noise": float("nan")}, "nan"), ({"noise_kind": "asymmetric"}, "symmetric, pair"),
     ({"imbalance": 0.1}, "[1, 1000000]"), ({"imbalance": float("inf")}, "imbalance inf"),
     ({"seed": -1}, "seed -1"), ({"size": 3}, "8 to 1024"), ({"redundancy": 1.0}, "redundancy 1"),
     ({"redundancy": 0.5, "copies": 0}, "copies 0"),
     ({"redundancy_kind": "some"}, "redundancy kind 'some'"),
     ({"limit": 11, "redundancy": 0.95}, "nothing to copy")],
)  # fmt: skip
def test_bad_values_are_one_sentence(options, says):
    with pytest.raises(InputError) as caught:
        load(**({"name": "digits"} | options))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# Drawings and files


def draw(count: int, generator: np.random.Generator) -> SimpleNamespace:
    return SimpleNamespace(**drawing.draw(count, generator))


def test_the_bytes_are_the_same_on_every_machine():
    small = draw(300, generator(0))
    digest = hashlib.sha256(small.x.tobytes() + small.y.astype("<i8").tobytes()).hexdigest()
    assert digest == "42dae407a4bc26aeca4763d4cc66acaa9e8fd490faa1fbe829bdea8ad3c9f853"
    digest = hashlib.sha256(small.difficulty.astype("<f8").tobytes()).hexdigest()
    assert digest.startswith("afa0612fdd89ee64")


def test_outlines_are_their_own_mirror_image_and_have_their_areas():
    x, y = np.meshgrid(*[np.linspace(-1.3, 1.3, 601, dtype=np.float32)] * 2)
    for name in set(OUTLINES) - {"crescent"}:
        np.testing.assert_allclose(OUTLINES[name](-x, y), OUTLINES[name](x, y), atol=1e-6)
    areas = {"circle": np.pi * 0.85**2, "ring": np.pi * (0.9**2 - 0.5**2), "square": 1.44**2,
             "triangle": 3 * np.sqrt(3) / 4, "cross": 2 * 1.8 * 0.56 - 0.56**2,
             # A corner of side 0.75 * sqrt(2) and the two halves of a disc that reach over it.
             "heart": 2 * 0.75**2 + np.pi * 0.53**2}  # fmt: skip
    for name, area in areas.items():
        assert (OUTLINES[name](x, y) < 0).mean() * 2.6**2 == pytest.approx(area, rel=0.02), name


# Files in the formats of torchvision


def md5(path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_pickle(path, content) -> str:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return md5(path)


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def write_cifar(root, monkeypatch, kind: str, batches: list[list[int]], names: list[str]):
    """Batches of these labels, the last for testing, in the format of the set."""
    own, fine = getattr(datasets, kind), "fine_" * (kind == "CIFAR100")
    (root / own.base_folder).mkdir()
    files = []
    for number, labels in enumerate(batches):
        content = {"data": pixels(len(labels), number), f"{fine}labels": labels}
        file = root / own.base_folder / f"batch_{number}"
        files.append([file.name, write_pickle(file, content)])
    key = f"{fine}label_names"
    meta = write_pickle(root / own.base_folder / "meta", {key: names})
    monkeypatch.setattr(own, "train_list", files[:-1])
    monkeypatch.setattr(own, "test_list", files[-1:])
    monkeypatch.setattr(own, "meta", {"filename": "meta", "key": key, "md5": meta})
    return root


@pytest.mark.parametrize(
    ("kind", "classes", "mean", "std"),
    [("CIFAR10", 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
     ("CIFAR100", 100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))],
)  # fmt: skip
def test_cifar(kind, classes, mean, std, tmp_path, monkeypatch):
    labels, names = list(range(classes)), [f"thing {k}" for k in range(classes)]
    root = write_cifar(tmp_path, monkeypatch, kind, [labels * 2, labels], names)
    data = load(kind.lower(), root=root, download=False)
    assert (len(data.train), len(data.test), data.train.flip) == (2 * classes, classes, True)
    assert torch.equal(data.test.x[1], torch.from_numpy(pixels(2, 1)[1].reshape(3, 32, 32)))
    assert data.train.y.tolist() == labels * 2
    assert data.train.classes[3] == "thing 3"
    assert (data.train.mean, data.train.std) == (mean, std)
    limited = load(kind.lower(), root=root, limit=classes)
    assert (torch.bincount(limited.train.y) == 1).all()
    damaged = next((root / getattr(datasets, kind).base_folder).glob("batch_1"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{kind.lower()} is not in"):
        load(kind.lower(), root=root, download=False)


def test_svhn_takes_label_10_for_the_digit_0(tmp_path, monkeypatch):
    lists = {}
    images = pixels(10, 0).reshape(10, 32, 32, 3)
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": np.arange(1, 11)[:, None]})
        lists[split] = ["http://nowhere.invalid/", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    data = load("svhn", root=tmp_path, download=False)
    assert data.train.y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert torch.equal(data.train.x, torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    assert data.train.mean == data.train.std == (0.5, 0.5, 0.5)
    assert not data.train.flip


def test_a_failed_download_names_the_folder_and_the_remedy(tmp_path, monkeypatch, capsys):
    def refuse(self):
        print("chatter of the library")
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.CIFAR10, "download", refuse)
    with pytest.raises(InputError, match=r"no route to host.*check the connection"):
        load("cifar10", root=tmp_path)
    shown = capsys.readouterr()
    # Standard output belongs to results.
    assert shown.out == ""
    assert "downloading cifar10" in shown.err
    with pytest.raises(InputError):
        load("cifar10", root=tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")
    for name in ("cifar10", "cifar100", "svhn"):
        with pytest.raises(InputError, match=f"{name} is not in '.*nowhere'.*allow the download"):
            load(name, root=tmp_path / "nowhere", download=False)


# mini-ImageNet


def mini_imagenet(root, count=12):
    top = root / "mini-imagenet"
    (top / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        name = f"n{number:02d}.jpg"
        image = Image.new("RGB", (100, 120), (20 * number, 0, 0))
        image.save(top / "images" / name, quality=95)
        rows.append((name, f"class{number % 3}"))
    table = pd.DataFrame(rows, columns=["filename", "label"])
    for part, chosen in zip(("train", "val", "test"), np.array_split(table.index, 3), strict=True):
        table.loc[chosen].to_csv(top / f"{part}.csv", index=False)
    return top


def test_mini_imagenet_pools_shuffles_and_cuts_the_same_whatever_the_seed(tmp_path):
    mini_imagenet(tmp_path)
    data = load("mini-imagenet", root=tmp_path, progress=False)
    assert (len(data.train), len(data.test)) == (10, 2)
    assert data.train.sample_shape == (3, 84, 84)
    assert data.train.mean == (0.4728, 0.4487, 0.4031)
    index = np.concatenate([data.train.metadata["index"], data.test.metadata["index"]])
    assert sorted(index) == list(range(12)) != index.tolist()
    for split in (data.train, data.test):
        index = split.metadata["index"].to_numpy()
        assert (split.y.numpy() == index % 3).all()
        assert (abs(split.x[:, 0, 40, 40].numpy() - 20.0 * index) < 4).all()
    assert load("mini-imagenet", root=tmp_path, seed=5).fingerprint == data.fingerprint


def test_mini_imagenet_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"train\.csv' is missing"):
        load("mini-imagenet", root=tmp_path)
    top = mini_imagenet(tmp_path)
    (top / "images" / "n03.jpg").unlink()
    with pytest.warns(UserWarning, match=r"n03\.jpg: no such file"):
        data = load("mini-imagenet", root=tmp_path, progress=False)
    assert len(data.train) + len(data.test) == 11
    for content, says in (
        (b"a,b\n1,2\n", "columns filename and label"),
        (b"", "is not a table"),
        (b"filename,label\nn\0.jpg,a\n", r"null character in 'n\\x00.jpg,a'"),
    ):
        (top / "val.csv").write_bytes(content)
        with pytest.raises(InputError, match=says):
            load("mini-imagenet", root=tmp_path)
