"""Accuracy by group and confusion against scikit-learn and by hand."""

import numpy as np
import pytest
from fake_records import write_run
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from budgetlab import analysis
from budgetlab.errors import InputError

LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
SAID = np.array([0, 0, 0, 0, 0, 2, 0, 1, 0, 0])
NAMES = ["cat", "dog", "eel", "fox"]


def test_by_class_worst_first():
    table = analysis.group_accuracy(LABELS, SAID, names=NAMES)
    assert table["group"].tolist() == ["eel", "dog", "cat"]
    assert table["accuracy"].tolist() == pytest.approx([0, 1 / 2, 5 / 6])
    assert table["n"].tolist() == [2, 2, 6]
    assert table["mistaken_for"].tolist() == ["cat", "cat", "eel"]
    # Wilson at 5 of 6.
    assert table.loc[2, ["ci_low", "ci_high"]].tolist() == pytest.approx([0.4365, 0.9699], abs=1e-4)
    wider = analysis.group_accuracy(LABELS, SAID, names=NAMES, confidence=0.99)
    assert (wider["ci_low"] <= table["ci_low"]).all()


def test_by_any_column():
    camera = np.array(["a", "b"] * 5)
    table = analysis.group_accuracy(LABELS, SAID, camera).set_index("group")
    assert table.loc["a", "accuracy"] == pytest.approx((LABELS == SAID)[::2].mean())
    assert table.loc["b", "mistaken_for"] in ("0", "2")


def test_the_mean_over_classes_is_the_balanced_accuracy():
    found = analysis.mean_accuracies(LABELS, SAID)
    assert found["over_samples"] == pytest.approx(0.6)
    assert found["over_classes"] == pytest.approx(balanced_accuracy_score(LABELS, SAID))


def test_the_confusion_is_that_of_scikit_learn_with_every_class():
    table = analysis.confusion(LABELS, SAID, names=NAMES)
    expected = confusion_matrix(LABELS, SAID, labels=range(4))
    np.testing.assert_array_equal(table, expected)
    assert list(table) == NAMES
    assert table.loc["eel", "cat"] == 2
    assert analysis.confusion(LABELS, SAID).shape == (3, 3)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"labels of shape \[10\] and predictions of shape \[9\]"):
        analysis.confusion(LABELS, SAID[1:])
    with pytest.raises(InputError, match="class 2 has no name: names has 2 entries"):
        analysis.group_accuracy(LABELS, SAID, names=NAMES[:2])
    with pytest.raises(InputError, match="groups has 2 entries for 10 samples"):
        analysis.group_accuracy(LABELS, SAID, np.zeros(2))


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
