"""Accuracy by group and confusion against scikit-learn and by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from fake_records import write_run
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

import budgetlab as bl
from budgetlab import analysis
from budgetlab.errors import InputError

LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
SAID = np.array([0, 0, 0, 0, 0, 2, 0, 1, 0, 0])
NAMES = ["cat", "dog", "eel", "fox"]
DATA = pd.DataFrame({"label": LABELS, "predicted": SAID, "camera": ["a", "b"] * 5})


def test_by_class_worst_first():
    table = analysis.group_accuracy(DATA, classes=NAMES)
    assert table["group"].tolist() == ["eel", "dog", "cat"]
    assert table["accuracy"].tolist() == pytest.approx([0, 1 / 2, 5 / 6])
    assert table["n"].tolist() == [2, 2, 6]
    assert table["mistaken_for"].tolist() == ["cat", "cat", "eel"]
    # Wilson at 5 of 6.
    assert table.loc[2, ["ci_low", "ci_high"]].tolist() == pytest.approx([0.4365, 0.9699], abs=1e-4)
    wider = analysis.group_accuracy(DATA, classes=NAMES, confidence=0.99)
    assert (wider["ci_low"] <= table["ci_low"]).all()


def test_by_any_column_and_as_means():
    table = analysis.group_accuracy(DATA, "camera").set_index("group")
    assert table.loc["a", "accuracy"] == pytest.approx((LABELS == SAID)[::2].mean())
    assert table.loc["b", "mistaken_for"] in ("0", "2")
    found = analysis.mean_accuracies(DATA)
    assert found["over_samples"] == pytest.approx(0.6)
    assert found["over_classes"] == pytest.approx(balanced_accuracy_score(LABELS, SAID))
    assert analysis.group_accuracy(DATA).attrs == found | {"left_out": 0}
    # Where label, prediction or group is not known, a row counts nowhere but here.
    gaps = pd.DataFrame({"label": [None, 1], "predicted": [1, None], "camera": ["a", "b"]})
    gappy = pd.concat([DATA, gaps, DATA[:3].assign(camera=None)])
    table = analysis.group_accuracy(gappy, "camera")
    assert (table["n"].sum(), table.attrs["left_out"]) == (10, 5)
    assert analysis.group_accuracy(gappy)["mistaken_for"].tolist() == ["0", "0", "2"]
    assert analysis.confusion(gappy).to_numpy().sum() == 13


def test_the_confusion_is_that_of_scikit_learn_with_every_class():
    table = analysis.confusion(DATA, classes=NAMES)
    expected = confusion_matrix(LABELS, SAID, labels=range(4))
    np.testing.assert_array_equal(table, expected)
    assert list(table) == NAMES
    assert table.loc["eel", "cat"] == 2
    assert analysis.confusion(DATA).shape == (3, 3)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match="give the columns label and predicted"):
        analysis.confusion(DATA[["label"]])
    with pytest.raises(InputError, match="class 2 has no name: classes has 2 entries"):
        analysis.group_accuracy(DATA, classes=NAMES[:2])
    with pytest.raises(InputError, match=r"unknown group 'colour': .*choose one of label, camera"):
        analysis.group_accuracy(DATA, "colour")
    with pytest.raises(InputError, match="holds no predictions for the test samples"):
        analysis.confusion(write_run(tmp_path, status="stopped"))


def test_a_run_keeps_what_it_predicted_for_its_test_samples(tmp_path):
    """The last epoch's, so that the means are those it was evaluated with."""
    x = np.random.default_rng(0).integers(0, 256, (90, 8, 8), np.uint8)
    y = np.arange(90) % 3
    x[y == 0, :4] = 255
    samples = bl.Dataset.from_dataset(list(zip(x, y, strict=True)))
    splits = bl.Splits.of(samples.select(range(60)), samples.select([*range(60, 90)] * 2))
    splits.test.metadata["camera"] = ["Pentax", "Écran"] * 30
    record = bl.train("unif-SGD", splits=splits, epochs=2, batch_size=10, budget=1.0,
                      device="cpu", out=tmp_path, progress=False)  # fmt: skip
    kept = record.predictions
    assert kept["label"].tolist() == splits.test.y.tolist()
    assert kept["index"].tolist() == splits.test.metadata["index"].tolist()
    assert kept["origin"].tolist() == splits.test.metadata["origin"].tolist()
    assert kept["camera"].tolist() == splits.test.metadata["camera"].tolist()
    assert kept["predicted"].tolist()[:30] == kept["predicted"].tolist()[30:]
    means = analysis.mean_accuracies(record)
    assert means["over_samples"] == pytest.approx(record.summary["test_accuracy"], abs=1e-6)
    assert means["over_classes"] == record.summary["test_class_accuracy"]
    assert set(analysis.group_accuracy(record, "camera")["group"]) == {"Pentax", "Écran"}
    assert list(analysis.confusion(record)) == ["0", "1", "2"]
    # Against the weights that were kept.
    network = bl.models.build(record.summary["model"], splits.train.sample_shape, 3, 0)
    network.load_state_dict(load_file(record.path / "model.safetensors"))
    with torch.no_grad():
        logits = network.eval()(splits.test.normalised())
    same = logits.argmax(1).numpy() == kept["predicted"].to_numpy()
    # The run may have been in bfloat16.
    assert same.mean() > 0.9


def test_groups_of_a_record_follow_what_it_holds(tmp_path):
    record = write_run(tmp_path, method="unif-SGD", budget=0.5, epochs=8)
    by_label = analysis.groups_of_record(record)
    assert set(by_label["group"]) == {"circle", "square", "<b>star</b>", "ring"}
    assert by_label["n"].sum() == 200
    frame = analysis.measures(record)
    seen = frame[(frame["visits"] > 0) & frame["is_noisy"]]
    noisy = analysis.groups_of_record(record, "is_noisy").set_index("group")
    never = (seen["correctness"] == 0).mean()
    assert noisy.loc[True, "never_learned"] == pytest.approx(never)
    assert noisy.loc[True, "right"] < noisy.loc[False, "right"]
    assert (by_label["right"].diff().dropna() >= 0).all()
    with pytest.raises(InputError, match="unknown group 'colour'"):
        analysis.groups_of_record(record, "colour")
