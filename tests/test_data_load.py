"""`load` on the data sets that need no file: contents, order of changes, errors."""

import dataclasses

import numpy as np
import pytest
import torch

from budgetlab.data import Dataset, Splits, describe, load
from budgetlab.data import shapes as drawing
from budgetlab.data.builtin import shapes as shapes_source
from budgetlab.data.dataset import channel_statistics
from budgetlab.errors import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def shapes(root) -> Splits:
    return load("shapes", root=root)


def test_shapes_is_what_the_page_says(shapes):
    train, test = shapes.train, shapes.test
    assert (len(train), len(test)) == (10_000, 10_000)
    assert train.x.dtype == torch.uint8
    assert train.y.dtype == torch.int64
    assert train.sample_shape == (3, 32, 32)
    assert torch.bincount(train.y).min() >= 950
    assert train.flip
    assert shapes.val is None
    difficulty = train.metadata["difficulty"]
    assert difficulty.between(0, 1).all()
    assert (difficulty < 0.1).mean() > 0.4
    assert 0.03 < (difficulty > 0.8).mean() < 0.15
    assert 0.02 < train.metadata["is_ambiguous"].mean() < 0.04
    other = train.metadata["other_label"]
    assert ((other >= 0) == train.metadata["is_ambiguous"]).all()
    assert (other != train.metadata["true_label"]).all()


def test_second_load_reads_the_cache_and_is_the_same(shapes, root, monkeypatch):
    monkeypatch.setattr(drawing, "draw", None)
    again = load("shapes", root=root)
    assert again.fingerprint == shapes.fingerprint
    assert torch.equal(again.train.x, shapes.train.x)
    assert again.train.metadata.equals(shapes.train.metadata)


def test_a_damaged_cache_is_drawn_again(root, monkeypatch):
    monkeypatch.setattr("budgetlab.data.builtin.SHAPES_TRAIN", 30)
    monkeypatch.setattr("budgetlab.data.builtin.SHAPES_TEST", 20)
    monkeypatch.setattr("budgetlab.data.builtin.SHAPES_TEST_BEFORE", 10)
    first = shapes_source(root / "small", seed=3)
    (cache,) = (root / "small").rglob("*.npz")
    cache.write_bytes(cache.read_bytes()[:1000])
    assert torch.equal(shapes_source(root / "small", seed=3).train.x, first.train.x)
    assert len(cache.read_bytes()) > 1000


def test_a_root_that_cannot_be_written_only_skips_the_cache(tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    assert len(load("digits", root=tmp_path / "taken").train) == 1438
    from budgetlab.data.images import write_cache

    assert not write_cache(tmp_path / "taken" / "x.npz", {"x": np.zeros(1)})


def test_order_of_changes_and_their_tags(shapes, root):
    changed = load(
        "shapes", root=root, imbalance=10, limit=1000, val_fraction=0.2, label_noise=0.25
    )
    train, val = changed.train, changed.val
    assert (len(train), len(val)) == (800, 200)
    # Noise on train only, exact, and every changed label known.
    assert train.metadata["is_noisy"].sum() == 200
    assert not val.metadata["is_noisy"].any()
    true = torch.tensor(train.metadata["true_label"].to_numpy())
    assert ((train.y != true).numpy() == train.metadata["is_noisy"].to_numpy()).all()
    # The index leads back to the picture in the unchanged set.
    index = torch.tensor(train.metadata["index"].to_numpy())
    assert torch.equal(train.x, shapes.train.x[index])
    assert torch.equal(true, shapes.train.y[index])
    assert not set(train.metadata["index"]) & set(val.metadata["index"])
    # The profile of the imbalance survives limit and split.
    counts = torch.bincount(true).numpy()
    assert counts[0] / counts[-1] == pytest.approx(10, rel=0.15)
    assert torch.equal(changed.test.x, shapes.test.x)
    clean = load("shapes", root=root, imbalance=10, limit=1000, val_fraction=0.2)
    assert torch.equal(clean.train.x, train.x)
    assert clean.fingerprint != changed.fingerprint
    assert torch.bincount(changed.test.y).max() < 1050


def test_digits_hold_out_a_fifth_of_every_class():
    digits = load("digits")
    assert digits.train.x.shape == (1438, 1, 8, 8)
    assert digits.train.x.max() == 255
    assert not digits.train.flip
    both = torch.bincount(digits.train.y) + torch.bincount(digits.test.y)
    share = torch.bincount(digits.test.y) / both
    assert (abs(share - 0.2) < 0.01).all()


def test_select_and_to():
    train = load("digits").train
    picked = train.select([5, 3, 3])
    assert torch.equal(picked.x, train.x[[5, 3, 3]])
    assert picked.metadata["index"].tolist() == train.metadata["index"].iloc[[5, 3, 3]].tolist()
    assert picked.metadata.index.tolist() == [0, 1, 2]
    assert torch.equal(train.select(torch.tensor([7])).y, train.y[7:8])
    assert train.to("meta").x.device.type == "meta"
    assert isinstance(picked, Dataset)
    with pytest.raises(dataclasses.FrozenInstanceError):
        picked.flip = True


def test_statistics_by_hand():
    x = np.zeros((2, 2, 1, 2), np.uint8)
    x[:, 0] = [[[0, 255]], [[0, 255]]]
    x[:, 1] = 51
    mean, std = channel_statistics(x)
    assert mean == pytest.approx((0.5, 0.2))
    # A constant channel gets 1, so that dividing by it is harmless.
    assert std == pytest.approx((0.5, 1.0))
    train = load("digits").train
    pixels = train.x.double() / 255
    assert train.mean[0] == pytest.approx(pixels.mean().item())
    assert train.std[0] == pytest.approx(pixels.std(correction=0).item())


@pytest.mark.parametrize(
    ("options", "says"),
    [({"name": "shape"}, "did you mean 'shapes'"), ({"name": "folder:"}, "folder:PATH"),
     ({"name": "points:moon"}, "points:moons"), ({"limit": -1}, "limit -1"),
     ({"limit": 2000}, "at most 1438"), ({"val_fraction": 1.0}, "val_fraction 1.0"),
     ({"val_fraction": 1e-6}, "leaves a split empty"), ({"label_noise": 1.5}, "label_noise 1.5"),
     ({"label_noise": float("nan")}, "nan"), ({"noise_kind": "asymmetric"}, "symmetric, pair"),
     ({"imbalance": 0.1}, "at least 1"), ({"seed": -1}, "seed -1"), ({"size": 3}, "8 to 1024")],
)  # fmt: skip
def test_bad_values_are_one_sentence(options, says):
    with pytest.raises(InputError) as caught:
        load(**({"name": "digits"} | options))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_describe_names_what_load_takes():
    names = describe()
    assert {"shapes", "points", "digits", "cifar10", "folder:PATH", "npz:PATH"} <= names.keys()
    for name in ("points", "points:moons", "points:spirals", "points:blobs"):
        assert load(name).name == name


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
def test_redundancy_repeats_few_images_and_keeps_the_number_of_samples(share):
    plain = load("digits", limit=1000)
    train = load("digits", limit=1000, redundancy=share, copies=15).train
    source = train.metadata["copy_of"].to_numpy()
    is_copy = source != np.arange(1000)
    assert is_copy.sum() == round(1000 * share)
    assert torch.equal(torch.bincount(train.y), torch.bincount(plain.train.y))
    # Each copy is its original, which is no copy itself, and those not copied are as before.
    assert torch.equal(train.x, plain.train.x[torch.tensor(source)])
    assert not is_copy[source].any()
    times = np.bincount(source[is_copy])
    assert abs(np.median(times[times > 0]) - 15) <= 5
    assert (train.metadata["index"].to_numpy() == plain.train.metadata["index"][source]).all()


def test_varied_copies_differ_a_little_from_their_original():
    train = load("digits", limit=500, redundancy=0.5, redundancy_kind="varied").train
    source = train.metadata["copy_of"].to_numpy()
    is_copy = source != np.arange(500)
    same = (train.x == train.x[torch.tensor(source)]).flatten(1).all(1).numpy()
    assert same[~is_copy].all()
    assert same[is_copy].mean() < 0.2
    own, other = train.x[is_copy].float(), train.x[torch.tensor(source[is_copy])].float()
    strangers = other[torch.randperm(len(other), generator=torch.Generator().manual_seed(0))]
    assert (own - other).abs().mean() < 0.8 * (own - strangers).abs().mean()


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"redundancy": 1.0}, "redundancy 1.0"), ({"redundancy": 0.5, "copies": 0}, "copies 0"),
     ({"redundancy_kind": "some"}, "kind of redundancy 'some'"),
     ({"limit": 11, "redundancy": 0.95}, "without a sample to copy")],
)  # fmt: skip
def test_a_redundancy_that_cannot_be_is_refused(settings, named):
    with pytest.raises(InputError, match=named):
        load("digits", **settings)
