"""Data of one's own: a map of it, which augmentation fits it, and which labels are wrong."""

import functools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import budgetlab as bl
from budgetlab import analysis, cli
from budgetlab.analysis import label_quality, precision_and_recall, suspects, threshold_quality
from budgetlab.analysis.wrong_labels import _folds
from budgetlab.errors import InputError

# A map, and augmentations


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


@pytest.mark.parametrize("model", [None, "own"])
def test_the_map_keeps_classes_apart_and_the_atlas_takes_it(
    tmp_path, two_colours, model, monkeypatch
):
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
    # UMAP, where it is installed, takes the same features and makes its own places of them.
    umap = SimpleNamespace(UMAP=lambda **_: SimpleNamespace(fit_transform=lambda x: x[:, :2]))
    monkeypatch.setitem(sys.modules, "umap", umap)
    mapped = analysis.embedding(record, splits, method="umap", model=given)
    assert mapped.shape == (60, 2)
    assert np.isnan(mapped.attrs["explained"])
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match="pip install umap-learn"):
        analysis.embedding(record, splits, method="umap", model=given)
    chart = bl.explore.atlas(record, *where, more=where, colour="aum", splits=splits)
    right = chart.twin(x_low=float(low.max() + high.min()) / 2)
    assert sorted(right.index) == np.flatnonzero(first >= high.min()).tolist()
    assert right.index[0] == first.argmax()


def test_a_map_is_of_the_data_and_weights_of_the_record(tmp_path, two_colours):
    splits, _ = two_colours
    record = bl.train("unif-SGD", splits=splits, epochs=1, budget=1.0, batch_size=10,
                      out=tmp_path, device="cpu", progress=False)  # fmt: skip
    with pytest.raises(InputError, match="are not the data of"):
        analysis.embedding(record, bl.Splits.of(splits.train))
    with pytest.raises(InputError, match="unknown map 'tsne'"):
        analysis.embedding(record, splits, method="tsne")
    with pytest.raises(InputError, match="give one row per sample"):
        bl.explore.atlas(record, more=pd.DataFrame({"a": [1]}))
    (record.path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="give a finished run that is not thinned"):
        analysis.embedding(record, splits)


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
    assert flipped["difference"] < -0.1
    assert set(found["n"]) == {3}
    assert (
        f"'{found.index[0]}' (augmentation {found['augmentation'].iloc[0]}, flip no) is best"
        in found.attrs["advice"]
    )
    with pytest.raises(InputError, match="augmentation and flip are what is compared"):
        analysis.compare_augmentations(splits, augmentation="none")
    with pytest.raises(InputError, match="these samples are vectors"):
        analysis.compare_augmentations(bl.data.load("points", progress=False))


# Wrong labels, from held-out folds or threshold samples


def planted(rate, *, sharpness=4.0, classes=5, size=4000, seed=0):
    """Labels, the probabilities of a calibrated network on them, and which are wrong."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(size, classes))
    true_chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (true_chance.cumsum(axis=1) > rng.random((size, 1))).argmax(axis=1)
    wrong = rng.random(size) < rate
    labels = np.where(wrong, (true + rng.integers(1, classes, size)) % classes, true)
    noise = (1 - rate) * np.eye(classes) + rate / (classes - 1) * (1 - np.eye(classes))
    return labels, true_chance @ noise, wrong


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("power", [1.0, 3.0])
def test_the_expected_precision_is_the_true_one(rate, power):
    """Also where the probabilities are far too sure: they are calibrated."""
    labels, chance, wrong = planted(rate)
    sure = chance**power / (chance**power).sum(axis=1, keepdims=True)
    quality = label_quality(labels, sure)
    assert quality.attrs["temperature"] == pytest.approx(power, rel=0.2)
    assert quality.attrs["weak"] == ""
    found = precision_and_recall(quality["suspect"], wrong)
    listed = suspects(quality)
    assert listed.attrs["expected_precision"] == pytest.approx(found["precision"], abs=0.1)
    assert listed["p_wrong"].is_monotonic_decreasing
    assert found["precision"] > 0.8
    assert found["recall"] > 0.5
    # By parts of the estimate, too.
    part = pd.cut(quality["p_wrong"], [0, 0.1, 0.5, 0.9, 1], include_lowest=True)
    for _, rows in quality.groupby(part, observed=True):
        if len(rows) > 100:
            assert abs(rows["p_wrong"].mean() - wrong[rows.index].mean()) < 0.15
    assert quality["p_wrong"].sum() == pytest.approx(wrong.sum(), rel=0.25)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4])
def test_a_network_that_is_too_weak_is_said_to_be(rate):
    """It takes hard samples for wrong ones, so that too many are expected to be."""
    labels, chance, wrong = planted(rate, sharpness=1.0)
    quality = label_quality(labels, chance)
    assert "too few to judge" in quality.attrs["weak"]
    assert wrong[quality["suspect"]].mean() < quality["p_wrong"][quality["suspect"]].mean()
    listed = suspects(quality)
    assert "cannot be told" in listed.attrs["note"]
    assert "%" not in listed.attrs["note"].split(";")[1]
    assert np.isnan(listed.attrs["expected_precision"])
    assert listed["expected_precision"].isna().all()
    guessing = np.random.default_rng(1).dirichlet(np.ones(5), len(labels))
    assert "too few to judge" in label_quality(labels, guessing).attrs["weak"]


def test_clean_labels_of_a_good_network_are_hardly_suspected_and_folds_spread_every_class():
    labels, chance, _ = planted(0.0, sharpness=8.0)
    quality = label_quality(labels, chance)
    assert max(quality["suspect"].mean(), quality["p_wrong"].mean()) < 0.01
    y = np.repeat([0, 1, 2], [50, 20, 7])
    fold = _folds(y, 5, seed=0)
    for part in (fold, *(fold[y == label] for label in range(3))):
        sizes = np.bincount(part, minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_precision_and_recall_by_hand():
    found = precision_and_recall([1, 1, 1, 0, 0, 1], pd.array([1, 1, 0, 1, 0, None], "boolean"))
    assert (found["listed"], found["wrong"], found["found"]) == (3, 3, 2)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    # Wilson's interval of 2 of 3.
    assert found["precision_low"] == pytest.approx(0.2077, abs=1e-3)
    assert found["precision_high"] == pytest.approx(0.9385, abs=1e-3)
    assert np.isnan(precision_and_recall([0, 0], [0, 0])["precision"])


SHORT = {"epochs": 8, "batch_size": 16, "lr": 0.05, "model": "small", "augmentation": "none",
         "device": "cpu"}  # fmt: skip


@pytest.fixture(scope="module")
def faulty():
    return digits()


@functools.cache
def digits():
    """Handwritten digits of which 15% have a wrong label."""
    return bl.data.load("digits", limit=400, label_noise=0.15, progress=False)


def test_planted_faults_are_found_by_held_out_folds(faulty, config):
    wrong = faulty.train.metadata["is_noisy"]
    probs = bl.analysis.held_out_probabilities(faulty, folds=2, **SHORT)
    assert probs.shape == (400, 10)
    assert np.allclose(probs.sum(axis=1), 1)
    quality = label_quality(faulty.train.y.numpy(), probs)
    listed = suspects(quality, faulty)
    found = precision_and_recall(quality["suspect"], wrong)
    assert found["recall"] > 0.5
    assert listed.attrs["expected_precision"] == pytest.approx(found["precision"], abs=0.2)
    assert (listed["instead"] != listed["label"]).all()
    assert listed["index"].tolist() == faulty.train.metadata["index"][listed.index].tolist()
    settings = config.replace(dataset="digits", limit=400, label_noise=0.15, epochs=2)
    run = bl.Run(settings, splits=faulty)
    list(run)
    ranked = bl.analysis.triage(run.record, quality=quality)
    checked = ranked[ranked["verdict"] == "check the label"]
    assert checked.index.tolist() == listed.index.tolist()
    assert not (ranked["verdict"] == "low margin").any()
    assert ranked.attrs["note"] == listed.attrs["note"]
    with pytest.raises(InputError, match="quality has 9 entries for 400"):
        bl.analysis.triage(run.record, quality=quality[:9])
    # Of a network that is too weak nothing is dropped.
    quality.attrs["weak"] = "the network is too weak"
    unsure = bl.analysis.triage(run.record, quality=quality)
    assert "check the label" not in set(unsure["verdict"])
    assert (unsure["verdict"] == "low margin").sum() >= quality["suspect"].sum()
    assert "cannot be told" in unsure.attrs["note"]


@pytest.mark.parametrize("method", ["unif-SGD", "selective-backprop"])
def test_threshold_samples_judge_whatever_the_method_trains_on(method, faulty):
    """Margins below zero list many right labels where hard samples are trained on most."""
    wrong = faulty.train.metadata["is_noisy"]
    quality = threshold_quality(faulty, method=method, **SHORT)
    found = precision_and_recall(quality["suspect"], wrong)
    assert found["precision"] > 0.7
    assert found["recall"] > 0.75
    listed = suspects(quality)
    # Of 36 threshold samples a run, so that it is a rough estimate.
    assert listed.attrs["expected_precision"] == pytest.approx(found["precision"], abs=0.3)
    assert listed["p_wrong"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("call", "says"),
    [*((lambda labels=labels, chance=chance: label_quality(np.array(labels, int), chance), says)
       for labels, chance, says in (
           ([0, 1], np.full((3, 2), 0.5), r"labels \(2,\) and pred_probs \(3, 2\) do not fit"),
           ([0, 2], np.full((2, 2), 0.5), "labels from 0 to 2: give 0 to 1"),
           ([0, -1], np.full((2, 2), 0.5), "labels from -1 to 0: give 0 to 1"),
           ([], np.full((0, 2), 0.5), "do not fit"),
           ([0, 1], np.array([[np.nan, 0.5], [0.5, 0.5]]), r"pred_probs\[0, 0\] is nan: give prob"),
           ([0, 1], np.array([[3, 5], [5, 1]]), "row 0 of pred_probs is not a distribution"))),
     (lambda: threshold_quality(digits(), percentile=0), "percentile 0 is not allowed"),
     (lambda: threshold_quality(digits().train.select(range(100))),
      "give 9 threshold samples, and 20 are needed")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


@pytest.mark.parametrize("by", ["folds", "threshold"])
def test_suspects_from_the_command_line(by, tmp_path, capsys):
    """A third of one class lies in the folder of another."""
    rng = np.random.default_rng(0)
    for k in range(2):
        for number in range(60):
            folder = tmp_path / "top" / f"c{1 - k if number < 10 * k else k}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 100, (12, 12), np.uint8)
            pixels[:, 6 * k : 6 * k + 6] += 120
            Image.fromarray(pixels).save(folder / f"{k}-{number:02}.png")
    given = ["inspect", f"folder:{tmp_path}/top", "--data-root", str(tmp_path / "root"),
             "--suspects", by, "--epochs", "6", "--batch-size", "16", "--lr", "0.05"]  # fmt: skip
    out = tmp_path / "list.csv"
    assert cli.main([*given, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    table = pd.read_csv(out)
    assert [row["origin"] for row in found["suspects"]] == table.origin.tolist()
    assert 0 < found["expected_precision"] <= 1
    really = table.origin.str.startswith("c0/1-")
    assert really.sum() >= 6
    assert really.mean() > (0.8 if by == "folds" else 0.2)  # a tenth would be chance
    assert set(table.label) <= {"c0", "c1"}
    assert cli.main([*given[:4], "--out", str(out)]) == 2
    for lost in ("list.xlsx", "no/list.csv"):
        assert cli.main([*given, "--out", str(tmp_path / lost)]) == 2
    assert capsys.readouterr().out == ""  # refused before any work
