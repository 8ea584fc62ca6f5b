"""Wrong labels against a known truth, by hand and on simulated runs."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from fake_records import write_arrays, write_run

from budgetlab import analysis
from budgetlab.analysis.ranks import _noise_statistics
from budgetlab.errors import InputError
from budgetlab.records import open_record


def frame(loss, wrong, **more):
    index = pd.RangeIndex(len(loss), name="sample")
    return pd.DataFrame({"mean_loss": loss, "is_noisy": np.array(wrong, bool)} | more, index=index)


def test_lists_by_hand():
    # From the hardest: wrong, right, wrong, right, right.
    table = analysis.detection(frame([5.0, 4.0, 3.0, 2.0, 1.0], [1, 0, 1, 0, 0])).iloc[0]
    assert table["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert table["roc_auc"] == pytest.approx(5 / 6)
    assert table["precision"] == table["recall"] == pytest.approx(1 / 2)
    assert (table["n"], table["unknown"], table["base"]) == (5, 0, pytest.approx(2 / 5))
    # Ties share the places.
    table = analysis.detection(frame([1.0] * 8, [1, 1] + [0] * 6)).iloc[0]
    assert table["precision"] == table["average_precision"] == pytest.approx(2 / 8)
    # Infinite and missing values, and low values that are hard.
    given = frame(
        [1.0, 2.0, np.nan, 4.0], [1, 0, 1, 0],
        forgetting=[math.inf, 0.0, np.nan, 2.0], confidence=[0.1, 0.9, np.nan, 0.8],
    )  # fmt: skip
    table = analysis.detection(given).set_index("measure")
    for name in ("forgetting", "confidence"):
        assert table.loc[name, "average_precision"] == table.loc[name, "precision"] == 1
        assert table.loc[name, "recall"] == pytest.approx(1 / 2)  # one has no value at all
        assert table.loc[name, "unknown"] == 1
    assert table.loc["mean_loss", "average_precision"] == pytest.approx(1 / 3)
    # The curve counts recall as the table does: among all wrong labels.
    curve = analysis.detection_curve(given, "forgetting")
    assert curve["recall"].iloc[[0, -1]].tolist() == [1 / 2, 1 / 2]
    assert curve.attrs["unknown"] == {"forgetting": 1}
    for data, names, says in (
        (pd.DataFrame({"mean_loss": [1.0]}), None, "does not know which labels are wrong"),
        (frame([1.0, 2.0], [0, 0]), None, "no wrong labels"),
        (frame([1.0, 2.0], [1, 1]), None, "only wrong labels"),
        (given.assign(is_noisy=pd.NA), None, "does not know of any label"),
        (given, ["loss"], "unknown measure of hardness 'loss'"),
    ):
        with pytest.raises(InputError, match=says):
            analysis.detection(data, names)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of two methods, with and without wrong labels, which cost p-SGD twice as much."""
    out = tmp_path_factory.mktemp("noisy")
    return [
        write_run(out, method=method, seed=seed, label_noise=noise, budget=0.5,
                  gain=-times * cost if noise else 0.0)
        for method, times in (("unif-SGD", 1), ("p-SGD", 2))
        for seed, cost in enumerate((0.10, 0.14, 0.12))
        for noise in (0.0, 0.1)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def noisy(runs):
    return [run for run in runs if run.config["label_noise"]]


def test_runs_rank_the_wrong_labels_first(noisy):
    table = analysis.detection(noisy, ["aum", "mean_loss"])
    assert len(table) == len(noisy) * 2
    assert set(table["method"]) == {"unif-SGD", "p-SGD"}
    assert (table["average_precision"] > 2 * table["base"]).all()
    early, late = (
        analysis.detection(noisy[0], ["aum"], epochs=e)["average_precision"][0] for e in (1, 6)
    )
    assert early != late
    # The area under the curve is the average precision.
    curve = analysis.detection_curve(noisy[0], ["aum"])
    steps = np.diff(curve["recall"], prepend=0)
    assert curve.attrs["average_precision"]["aum"] == pytest.approx(late)
    assert float((steps * curve["precision"]).sum()) == pytest.approx(late)
    assert curve["listed"].is_monotonic_increasing


def test_who_picks_the_wrong_labels_and_when(noisy, tmp_path):
    picks = analysis.noisy_picks(noisy)
    first = picks[picks["epoch"] == 1].groupby("method")["times_base"].mean()
    later = picks[picks["epoch"] > 2].groupby("method")["times_base"].mean()
    assert later["p-SGD"] > max(1.1, later["unif-SGD"])
    assert abs(first["p-SGD"] - first["unif-SGD"]) < 0.5
    clean = write_run(tmp_path, method="p-SGD", budget=0.5)
    clean.samples["is_noisy"] = clean.samples["is_noisy"] & False
    with pytest.raises(InputError, match="has no wrong labels: give runs with label noise"):
        analysis.noisy_picks(clean)


def test_what_wrong_labels_cost(runs, noisy):
    table = analysis.noise_cost(runs, confidence=0.8).set_index(["method", "label_noise"])
    ours, theirs = table.loc[("p-SGD", 0.1)], table.loc[("unif-SGD", 0.1)]
    assert (ours["pairs"], ours["noise_kind"]) == (3, "symmetric")
    assert table.loc[("p-SGD", 0.0), ["cost", "noise_kind"]].tolist() == [0, "none"]
    # The interval is of the pairs: by Student's t, with two degrees of freedom.
    half = 1.8856181 * 0.02 / math.sqrt(3)
    expected = [0.12, 0.12 - half, 0.12 + half]
    assert theirs[["cost", "cost_ci_low", "cost_ci_high"]].tolist() == pytest.approx(expected)
    assert ours["cost"] == pytest.approx(0.24)
    # The fake runs hold the same samples, noisy or not; only the setting differs.
    assert ours["picked"] > theirs["picked"]
    alone = analysis.noise_cost(noisy)
    assert alone["cost"].isna().all()
    assert (alone["pairs"] == 0).all()


def test_learned_by_heart_is_what_was_right_at_the_last_visit(tmp_path):
    right = np.array([[1, 0, 1, 0], [0, 1, -1, 1]])
    arrays = {name: np.full((2, 4), np.nan) for name in ("loss", "p_y", "margin", "el2n")}
    arrays |= {"times_trained": np.ones((2, 4)), "correct": right}
    record = write_arrays(tmp_path, arrays, [0, 1, 0, 1])
    record.samples["is_noisy"] = ("sample", np.array([True, True, True, False]))
    found = _noise_statistics(record)
    assert (found["learned"], found["picked"]) == pytest.approx((2 / 3, 1.0))
    record.samples["is_noisy"] = record.samples["is_noisy"] & False
    assert np.isnan(list(_noise_statistics(record).values())).all()


def test_a_cost_is_of_runs_that_differ_in_nothing_but_the_noise(tmp_path):
    """Another learning rate is another run, and so is an earlier one; the order says nothing."""
    runs = [
        write_run(tmp_path / str(year), method="p-SGD", lr=lr, label_noise=noise, budget=0.5,
                  gain=gain)
        for year, lr, noise, gain in ((20, 0.1, 0.0, -0.3), (21, 0.1, 0.0, 0.0),
                                      (22, 0.1, 0.1, -0.01), (23, 0.2, 0.0, 0.05),
                                      (24, 0.2, 0.1, 0.03))
    ]  # fmt: skip
    for year, run in enumerate(runs, 20):
        about = json.loads((run.path / "record.json").read_text())
        (run.path / "record.json").write_text(json.dumps(about | {"updated": f"20{year}"}))
    runs = [open_record(run.path) for run in runs]
    for order in (runs, runs[::-1]):
        with pytest.warns(analysis.RecordWarning, match="as repeated later"):
            table = analysis.noise_cost(order)
        cost = table[table["label_noise"] > 0].set_index("lr")["cost"]
        assert cost.to_dict() == pytest.approx({0.1: 0.01, 0.2: 0.02})


def measures_by_hand():
    rows = {
        #              aum   conf  var   corr  forg  el2n  loss  visits label index
        "wrong":      (-2.0, 0.10, 0.05, 0.00, math.inf, 1.3, 3.0, 4, 0, 10),
        "worse":      (-3.0, 0.05, 0.05, 0.00, math.inf, 1.4, 4.0, 4, 0, 11),
        "easy":       (9.0, 0.99, 0.01, 1.00, 0.0, 0.01, 0.01, 4, 1, 12),
        "less easy":  (6.0, 0.95, 0.03, 1.00, 0.0, 0.08, 0.05, 4, 1, 13),
        "wavering":   (0.5, 0.60, 0.40, 0.50, 2.0, 0.50, 0.9, 4, 1, 14),
        "steady":     (1.0, 0.70, 0.09, 0.75, 0.0, 0.40, 0.4, 4, 1, 15),
        "never":      (np.nan,) * 7 + (0, 1, 16),
        "copy":       (2.0, 0.80, 0.08, 0.75, 0.0, 0.3, 0.3, 4, 1, 17),
    }  # fmt: skip
    columns = ("aum", "confidence", "variability", "correctness", "forgetting", "el2n",
               "mean_loss", "visits", "label", "index")  # fmt: skip
    made = pd.DataFrame(rows.values(), columns=columns)
    return made, list(rows)


def test_triage_by_hand(tmp_path):
    made, names = measures_by_hand()
    copies = np.arange(8)
    copies[7] = 5
    ranked = analysis.triage(made, copies=copies, names=names)
    assert ranked["rank"].tolist() == list(range(1, 9))
    assert ranked["name"].tolist()[:2] == ["worse", "wrong"]
    verdicts = ranked.set_index("name")["verdict"].to_dict()
    assert verdicts == {"wrong": "low margin", "worse": "low margin", "easy": "redundant",
                        "less easy": "ordinary", "wavering": "decisive", "steady": "ordinary",
                        "never": "not seen", "copy": "redundant"}  # fmt: skip
    # Nothing has judged these labels: by default they are kept.
    assert analysis.indices(ranked).tolist() == [10, 11, 13, 14, 15, 16]
    assert "not a verdict" in ranked.attrs["note"]
    assert analysis.indices(ranked, drop=["not seen"]).tolist() == [10, 11, 12, 13, 14, 15, 17]
    with pytest.raises(InputError, match="unknown verdict"):
        analysis.indices(ranked, drop=["wrong"])
    with pytest.raises(InputError, match="names has 2 entries for 8"):
        analysis.triage(made, names=names[:2])
    table = pd.read_csv(analysis.export(ranked, tmp_path / "list.csv"))
    assert table["name"].tolist() == ranked["name"].tolist()
    # 'easy', label 1, is a copy of 'wrong', label 0: both are suspect.
    copies[[2, 5, 7]] = 0, 4, 7
    both = analysis.triage(made, copies=copies, names=names).set_index("name")["verdict"]
    assert both["easy"] == both["wrong"] == "check the label"
    assert both["steady"] == "redundant"
    # Nor is a suspect dropped that is more likely right.
    quality = pd.DataFrame(
        {"suspect": [True] * 3 + [False] * 5, "p_wrong": [0.9, 0.4, 0.6] + [0] * 5}
    )
    ranked = analysis.triage(made, quality=quality, names=names).set_index("name")
    assert ranked["verdict"][["wrong", "easy", "worse"]].tolist() == ["check the label"] * 2 + [
        "low margin"
    ]
    assert ranked.attrs["note"].startswith("about 75% of 2 suspected labels")
    assert 11 in analysis.indices(ranked)


def test_within_a_verdict_the_clearest_cases_come_first():
    made, names = measures_by_hand()
    many = pd.concat([made] * 4, ignore_index=True)
    many["aum"] += np.arange(32) / 100 * (many["aum"] < 0)
    many["variability"] += np.arange(32) / 1000
    many["el2n"] += np.arange(32) / 10000
    many["index"] = np.arange(32)
    copies = np.arange(32)
    copies[15] = 7
    ranked = analysis.triage(many, copies=copies, names=names * 4)
    assert list(ranked)[:6] == ["rank", "verdict", "index", "label", "name", "copy_of"]
    by = {verdict: ranked[ranked["verdict"] == verdict] for verdict in analysis.VERDICTS}
    assert by["low margin"]["aum"].is_monotonic_increasing
    assert by["decisive"]["variability"].is_monotonic_decreasing
    assert by["ordinary"]["mean_loss"].is_monotonic_decreasing
    redundant = by["redundant"]
    assert redundant["index"].iloc[0] == 15  # a copy is the surest
    assert redundant["el2n"].iloc[1:].is_monotonic_increasing
    assert ranked["verdict"].drop_duplicates().tolist() == list(analysis.VERDICTS)[1:]


def test_seeds_are_averaged_and_other_data_refused(noisy, tmp_path):
    both = analysis.triage(noisy[:2])
    one, two = (analysis.measures(run)["aum"] for run in noisy[:2])
    expected = pd.concat([one, two], axis=1).mean(axis=1)
    pd.testing.assert_series_equal(both["aum"].sort_index(), expected, check_names=False)
    found = both[both["verdict"] == "low margin"]
    assert found["is_noisy"].mean() > 2 * both["is_noisy"].mean()
    with pytest.raises(InputError, match="other data"):
        analysis.triage([noisy[0], write_run(tmp_path, fingerprint="beef")])
