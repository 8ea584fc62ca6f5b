"""Frames, comparisons, curves: against values worked out by hand and a known truth."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from fake_records import write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from budgetlab import analysis
from budgetlab.analysis import RecordWarning
from budgetlab.analysis.statistics import sentence
from budgetlab.config import ADDED
from budgetlab.errors import InputError
from budgetlab.records import open_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two methods at two budgets over three seeds, and a full run of plain SGD."""
    out = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        for budget in (0.2, 0.4):
            write_run(out, method="unif-SGD", budget=budget, seed=seed)
            write_run(out, method="p-SGD", budget=budget, seed=seed, gain=0.01 * (seed + 1))
    write_run(out, method="SGD", budget=1.0, seed=0)
    return out


def summary_frame(rows):
    """Summaries of finished runs; each row is method, seed, accuracy and what differs."""
    settled = {"dataset": "shapes", "augmentation": "standard", "budget": 0.3, "flops": 30.0,
               "budget_unit": "iterations", "status": "finished", "path": "-",
               "fingerprint": "f"}  # fmt: skip
    names = ("method", "seed", "test_accuracy")
    return pd.DataFrame([settled | dict(zip(names, row, strict=False)) | row[3] for row in rows])


def test_reading_never_loads_torch():
    code = (
        "import sys, budgetlab.analysis, budgetlab.plots, budgetlab.report;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Frames


def test_summaries_hold_what_the_runs_say(folder):
    frame = analysis.summaries(folder)
    assert len(frame) == 13
    full = frame[frame["method"] == "SGD"].iloc[0]
    # 200 samples x 6 epochs at budget 1 in batches of 10, three thousand operations each.
    assert (full["trained_samples"], full["steps"], full["flops"]) == (1200, 120, 3_600_000)
    assert full["test_accuracy"] == pytest.approx(0.9)
    assert full["model"] == "small"
    assert (full["dataset"], full["train_size"], full["hardware"]) == ("shapes", 200, "a CPU")
    assert (full["epochs_trained"], full["fingerprint"]) == (6, "f00d")
    assert full["updated"].startswith("20")


def test_what_was_used_counts_and_what_was_asked_for_where_nothing_else_is_known(tmp_path):
    record = write_run(tmp_path, dataset="folder:/data/pets", model="resnet8", precision="float32")
    row = analysis.summaries(record).iloc[0]
    assert (row["dataset"], row["model"], row["precision"]) == ("pets", "small", "float32")
    assert row["milestones"] == (0.5, 0.75)  # in a frame, values have to be hashable
    record.about["hardware"] = {"device": "cuda", "precision": "bfloat16"}
    row = analysis.summaries(record).iloc[0]
    assert (row["hardware"], row["model"]) == ("cuda", "resnet8")
    assert row["precision"] == "bfloat16"
    del record.about["hardware"], record.about["updated"]
    row = analysis.summaries(record).iloc[0]
    assert (row["hardware"], row["precision"], row["updated"]) == (None, "float32", "")


def test_a_run_cut_off_before_its_first_epoch_has_no_results(tmp_path):
    record = write_run(tmp_path, status="running")
    (record.path / "epochs.csv").unlink()
    row = analysis.summaries(record.path).iloc[0]
    assert row["epochs_trained"] == 0
    assert row[["test_accuracy", "steps", "flops"]].isna().all()
    with pytest.raises(InputError, match="none of these records holds a finished epoch: train"):
        analysis.epochs(record.path)


def test_a_record_can_be_given_as_path_folder_or_object_and_counts_once(folder):
    record = open_records(folder)[0]
    assert len(open_records([record, record.path, str(record.path), folder])) == 13
    assert len(analysis.summaries(record)) == 1


def test_a_run_cut_off_takes_its_results_from_the_last_whole_epoch(tmp_path):
    record = write_run(tmp_path, status="running", budget=0.2)
    row = analysis.summaries(record).iloc[0]
    assert row["status"] == "running"
    assert row["epochs_trained"] == 6
    assert row["trained_samples"] == 240
    assert row["test_accuracy"] == pytest.approx(record.epochs["test_accuracy"].iloc[-1])


def test_epochs_are_one_row_a_run_and_epoch(folder):
    frame = analysis.epochs(folder)
    assert len(frame) == 13 * 6
    assert frame.groupby("run")["steps"].apply(lambda steps: steps.is_monotonic_increasing).all()
    assert set(frame["lr_start"]) == {0.1}
    assert frame["lr"].nunique() == 6


def damage(folder, kind):
    """Copy one record and break the copy in one way."""
    record = open_records(folder)[0]
    path = folder / f"damaged-{kind}"
    shutil.copytree(record.path, path)
    about = json.loads((path / "record.json").read_text())
    if kind == "newer":
        about["format"] = 99
        (path / "record.json").write_text(json.dumps(about))
    elif kind == "truncated":
        (path / "record.json").write_text(json.dumps(about)[:200])
    elif kind == "epochs":
        (path / "epochs.csv").write_text("steps\n1\n")
        (path / "record.json").write_text(json.dumps(about | {"summary": {}}))
    elif kind == "array":
        shutil.rmtree(path / "samples.zarr" / "margin")
    elif kind == "history":
        shutil.rmtree(path / "samples.zarr")
    return path


@pytest.mark.parametrize(
    ("kind", "says"), [("newer", "format 99"), ("truncated", "cannot be read")]
)
def test_a_record_that_cannot_be_opened_is_left_out_with_a_sentence(tmp_path, kind, says):
    write_run(tmp_path, budget=0.2)
    path = damage(tmp_path, kind)
    with pytest.warns(RecordWarning, match=says) as caught:
        frame = analysis.summaries(tmp_path)
    assert path.name in str(caught[0].message)
    assert len(frame) == 1
    with pytest.raises(InputError, match=says):
        analysis.summaries(path)


def test_a_damaged_table_of_epochs_leaves_the_other_curves(tmp_path):
    write_run(tmp_path, budget=0.2)
    damage(tmp_path, "epochs")
    with pytest.warns(RecordWarning, match="lacks the columns"):
        assert analysis.epochs(tmp_path)["run"].nunique() == 1
    with pytest.warns(RecordWarning, match="stay empty"):
        assert len(analysis.summaries(tmp_path)) == 2


@pytest.mark.parametrize(
    ("kind", "says"), [("array", "lacks the arrays margin"), ("history", "only the summary")]
)
def test_missing_arrays_are_named_and_the_summary_still_opens(tmp_path, kind, says):
    write_run(tmp_path, budget=0.2)
    path = damage(tmp_path, kind)
    assert analysis.summaries(path)["test_accuracy"].notna().all()
    with pytest.raises(InputError, match=says):
        analysis.measures(open_records(path)[0])


def test_arrays_of_other_lengths_after_a_kill_still_open(tmp_path):
    import zarr

    record = write_run(tmp_path, budget=0.2)
    before = analysis.measures(record)
    array = zarr.open_group(record.path / "samples.zarr")["loss"]
    array.resize((array.shape[0] + 1, array.shape[1]))
    after = analysis.measures(open_records(record.path)[0])
    pd.testing.assert_frame_equal(before, after, check_like=True)


def test_nothing_to_read_is_an_error_that_says_so(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        analysis.summaries(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no record"):
        analysis.summaries(tmp_path)
    with pytest.raises(InputError, match="no record was given"):
        analysis.summaries([])


# Paired comparison


def test_paired_interval_and_p_by_hand():
    result = analysis.paired_difference(np.array([2.0, 4, 6]), np.array([1.0, 2, 3]))
    # d = 1, 2, 3: mean 2, s = 1, t(2, 0.975) = 4.302653, half width 4.302653 / sqrt(3).
    assert result.pairs == 3
    assert result.difference == pytest.approx(2)
    assert result.ci_low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert result.ci_high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert result.p == pytest.approx(0.0741799, abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 8), st.integers(0, 10**6))
def test_paired_difference_is_the_paired_t_test_of_scipy(n, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, n))
    ours, theirs = analysis.paired_difference(a, b), stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((interval.low, interval.high))


def test_one_pair_and_equal_differences_have_no_interval():
    for ours, theirs in (([0.5], [0.4]), ([0.5, 0.7], [0.4, 0.6])):
        result = analysis.paired_difference(np.array(ours), np.array(theirs))
        assert result.difference == pytest.approx(0.1)
        assert math.isnan(result.ci_low)
        assert math.isnan(result.p)


def test_without_a_pair_there_is_no_difference():
    result = analysis.paired_difference(np.array([]), np.array([]))
    assert result.pairs == 0
    assert np.isnan([result.difference, result.ci_low, result.ci_high, result.p]).all()


def test_rows_follow_the_order_of_the_methods():
    methods = ("a", "p-SGD", "unif-SGD", "SGD")
    table = analysis.compare(summary_frame([(m, 0, 0.5, {}) for m in methods]), "unif-SGD")
    assert list(table["method"]) == ["unif-SGD", "SGD", "p-SGD", "a"]


def test_replicates_may_differ_in_more_than_the_seed():
    rows = [(m, s, 0.5 + lr + s * (m == "a") * lr, {"lr": lr}) for m in ("unif-SGD", "a")
            for s in range(2) for lr in (0.1, 0.2)]  # fmt: skip
    table = analysis.compare(summary_frame(rows), "unif-SGD", over=("seed", "lr"))
    row = table.set_index("method").loc["a"]
    assert (row["n"], row["pairs"]) == (4, 4)
    assert row["difference"] == pytest.approx((0.1 + 0.2) / 4)


def test_comparison_pairs_by_seed_and_says_how_many_had_no_partner():
    frame = summary_frame(
        [("unif-SGD", s, a, {}) for s, a in enumerate([0.50, 0.60, 0.70, 0.80])]
        # Shuffled seeds, and seed 9 without a partner: pairing by position would be wrong.
        + [("p-SGD", s, a, {}) for s, a in [(9, 0.1), (2, 0.73), (0, 0.51), (1, 0.62)]]
    )
    row = analysis.compare(frame, "unif-SGD").set_index("method").loc["p-SGD"]
    assert (row["n"], row["pairs"], row["dropped"]) == (4, 3, 2)
    assert row["difference"] == pytest.approx(0.02)
    assert row["ci_low"] == pytest.approx(0.02 - 0.02484138)
    assert row["spread"] == pytest.approx(np.std([0.1, 0.73, 0.51, 0.62], ddof=1))
    assert row["verdict"] == "undecided"
    assert row["sentence"] == (
        "undecided at n = 3: p-SGD against unif-SGD is +2.00 percentage points (95% CI -0.48 to "
        "+4.48, corrected p = 0.074), +1.00 to +3.00 pair by pair: above it in all 3; about 5 "
        "seeds might settle it; 2 runs without a partner left out."
    )


def test_a_large_difference_is_claimed_and_its_sign_is_said():
    rows = [("unif-SGD", s, 0.5 + 0.01 * s, {}) for s in range(4)]
    worse = [("p-SGD", s, 0.4 + 0.011 * s, {}) for s in range(4)]
    row = analysis.compare(summary_frame(rows + worse)).set_index("method").loc["p-SGD"]
    assert row["verdict"] == "worse"
    assert row["sentence"].startswith(
        "p-SGD is worse than unif-SGD: -9.85 percentage points (95% CI"
    )
    assert "n = 4 pairs" in row["sentence"]


ROW = {"method": "p-SGD", "baseline": "unif-SGD", "pairs": 5, "dropped": 0, "difference": -0.2,
       "lowest": -0.3, "highest": 0.1, "above": 1, "ci_low": -0.3, "ci_high": -0.1, "p": 0.001,
       "p_corrected": 0.001, "p_equivalent": 1.0, "spread": 0.1, "baseline_spread": 0.1,
       "seeds_to_settle": math.nan, "verdict": "worse"}  # fmt: skip


def test_less_loss_is_better():
    assert analysis.statistics.verdict(ROW, "test_loss") == "better"
    assert analysis.statistics.verdict(ROW, "test_accuracy") == "worse"
    # At the level itself nothing is claimed.
    assert analysis.statistics.verdict(ROW | {"p_corrected": 0.05}) == "undecided"
    assert analysis.statistics.verdict(ROW | {"p_corrected": 0.05}, alpha=0.06) == "worse"
    equal = ROW | {"p_corrected": 0.5, "p_equivalent": 0.049}
    assert analysis.statistics.verdict(equal) == "equivalent"
    assert analysis.statistics.verdict(equal | {"p_equivalent": 0.05}) == "undecided"
    assert analysis.statistics.verdict(ROW | {"pairs": 0}) == ""


def test_sentences_word_for_word():
    row = ROW | {"difference": -0.25, "ci_low": -0.5, "ci_high": -0.125, "p_corrected": 0.0005,
                 "dropped": 1}  # fmt: skip
    assert sentence(row | {"verdict": "better"}, "test_loss", margin=None) == (
        "p-SGD is better than unif-SGD: -0.25 in test loss (95% CI -0.5 to -0.125, corrected "
        "p < 0.001, n = 5 pairs); 1 run without a partner left out."
    )
    # A difference that is there and does not matter is said to be small.
    small = ROW | {"difference": -0.003, "ci_low": -0.005, "ci_high": -0.001, "p_equivalent": 0.01}
    assert sentence(small) == (
        "p-SGD is worse than unif-SGD: -0.30 percentage points (95% CI -0.50 to -0.10, corrected "
        "p = 0.001, n = 5 pairs); the difference is smaller than 1 percentage point."
    )
    assert sentence(small | {"verdict": "equivalent"}, margin=0.02) == (
        "p-SGD and unif-SGD are equivalent within 2 percentage points: -0.30 percentage points "
        "(95% CI -0.50 to -0.10, corrected p = 0.010 of two one-sided tests, n = 5 pairs)."
    )
    # What correcting took away, how the pairs lie, which method varies: all are said.
    open_ = ROW | {"p_corrected": 0.06, "verdict": "undecided", "spread": 0.4}
    assert sentence(open_ | {"seeds_to_settle": 12.0}) == (
        "undecided at n = 5: p-SGD against unif-SGD is -20.00 percentage points (95% CI -30.00 to "
        "-10.00, corrected p = 0.060 only because several comparisons were made), -30.00 to "
        "+10.00 pair by pair: above it in 1 of 5; runs of p-SGD vary 4 times as much as those of "
        "the other; about 12 seeds might settle it."
    )
    assert "vary 5 times" in sentence(open_ | {"spread": 0.02})
    assert "runs of unif-SGD" in sentence(open_ | {"spread": 0.02})
    assert "vary" not in sentence(open_ | {"spread": 0.2})


def test_a_single_seed_gives_no_spread_and_no_interval():
    frame = summary_frame([("unif-SGD", 0, 0.5, {}), ("p-SGD", 0, 0.6, {})])
    row = analysis.compare(frame).set_index("method").loc["p-SGD"]
    assert math.isnan(row["spread"])
    assert math.isnan(row["ci_low"])
    assert row["sentence"].startswith(
        "undecided at n = 1: p-SGD against unif-SGD is +10.00 percentage points in a single pair"
    )


def test_two_seeds_show_two_numbers_and_no_interval():
    """59 points in two pairs have an interval from -313 to +194 by Student: it says nothing."""
    frame = summary_frame(
        [("unif-SGD", s, 0.9, {}) for s in range(2)]
        + [("top-k", 0, 0.5, {}), ("top-k", 1, 0.11, {})]
    )
    table = analysis.compare(frame)
    row = table.set_index("method").loc["top-k"]
    assert row["difference"] == pytest.approx(-0.595)
    assert row[["ci_low", "ci_high", "p", "p_equivalent"]].isna().all()
    assert row["sentence"].startswith(
        "undecided at n = 2: top-k against unif-SGD is -79.00 and -40.00 percentage points in the "
        "two pairs, too few for an interval: below it in both; about "
    )
    assert "-79.00, -40.00" in analysis.table(table)


@pytest.mark.parametrize(
    ("gains", "margin", "said"),
    [
        ([0.001, -0.002, 0.001, 0.002, -0.001, 0.0], None, "equivalent"),
        ([0.001, -0.002, 0.001, 0.002, -0.001, 0.0], 0.001, "undecided"),
        ([0.021, 0.019, 0.022, 0.018, 0.02, 0.021], None, "better"),
        ([-0.021, -0.019, -0.022, -0.018, -0.02, -0.021], None, "worse"),
        ([0.05, -0.05, 0.04, -0.03, 0.0, 0.01], None, "undecided"),
    ],
)
def test_verdicts(gains, margin, said):
    rows = [("unif-SGD", s, 0.5, {}) for s in range(6)]
    rows += [("a", s, 0.5 + gain, {}) for s, gain in enumerate(gains)]
    row = analysis.compare(summary_frame(rows), margin=margin).set_index("method").loc["a"]
    assert row["verdict"] == said
    assert said in row["sentence"]
    assert math.isnan(row["seeds_to_settle"]) == (said != "undecided")


def test_equivalence_is_two_one_sided_tests_as_statsmodels_has_them():
    from statsmodels.stats.weightstats import ttost_paired

    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 0.01, (2, 12))
    ours = analysis.paired_difference(a, b, margin=0.01)
    assert ours.p_equivalent == pytest.approx(ttost_paired(a, b, -0.01, 0.01)[0])
    # The same as a 90% interval that lies within the margin.
    wide = analysis.paired_difference(a, b, 0.9)
    inside = wide.ci_low > -0.01 and wide.ci_high < 0.01
    assert inside == (ours.p_equivalent < 0.05)


def test_a_loss_has_no_margin_unless_one_is_given():
    rows = [(m, s, 0.5, {"test_loss": 1 + 0.001 * s * (m == "a")}) for m in ("unif-SGD", "a")
            for s in range(4)]  # fmt: skip
    frame = summary_frame(rows)
    assert analysis.compare(frame, metric="test_loss")["p_equivalent"].isna().all()
    row = analysis.compare(frame, metric="test_loss", margin=0.1).set_index("method").loc["a"]
    assert row["verdict"] == "equivalent"
    with pytest.raises(InputError, match=r"margin 0 is not allowed: give a number above 0"):
        analysis.compare(frame, margin=0)


def test_seeds_needed_gives_the_power_it_says():
    """By simulation, and at three pairs where the normal approximation would be far off."""
    rng = np.random.default_rng(0)
    for difference, margin in ((1.0, None), (3.2, None), (0.2, 1.5)):
        found = analysis.seeds_needed(difference, 1.0, margin=margin)
        d = rng.normal(difference, 1, (20_000, found.seeds))
        error = d.std(1, ddof=1) / np.sqrt(found.seeds)
        if margin is None:
            p = 2 * stats.t.sf(np.abs(d.mean(1)) / error, found.seeds - 1)
        else:
            p = stats.t.sf((margin - np.abs(d.mean(1))) / error, found.seeds - 1)
        assert found.power >= 0.8
        assert (p < 0.05).mean() == pytest.approx(found.power, abs=0.015)
    assert analysis.seeds_needed(1.0, 1.0).seeds == 10  # as in any table of the paired t test
    assert analysis.seeds_needed(100.0, 1.0).seeds == 3
    assert analysis.seeds_needed(1e-4, 1.0) == (10_000, pytest.approx(0.05, abs=0.01))
    assert analysis.seeds_needed(1.0, 1.0, power=0.9).seeds == 13
    assert analysis.seeds_needed(1.0, 1.0, alpha=0.01).seeds > 10


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"power": 1.0}, "power 1.0 is not allowed"),
        ({"alpha": 0}, "alpha 0 is not allowed"),
        ({"spread": 0.0}, r"spread 0.0 is not allowed: give a standard deviation above 0"),
        ({"difference": 0.0}, "cannot be found by any number of seeds"),
        ({"margin": 0.005}, r"difference 0.01 is not within the margin 0.005"),
    ],
)
def test_seeds_needed_refuses_what_has_no_answer(given, match):
    with pytest.raises(InputError, match=match):
        analysis.seeds_needed(**({"difference": 0.01, "spread": 0.01} | given))


def test_a_comparison_shows_itself_and_stays_a_frame():
    rows = [(m, s, 0.5 + s / 100 * (m == "a<b"), {}) for m in ("unif-SGD", "a<b")
            for s in range(3)]  # fmt: skip
    table = analysis.compare(summary_frame(rows))
    shown = table._repr_html_()
    assert "a&lt;b" in shown
    assert "a<b" not in shown
    assert shown.count("<li>") == 1
    assert "undecided at n = 3" in repr(table)
    part = table[table["method"] != "unif-SGD"]
    assert isinstance(part, pd.DataFrame)
    assert part.metric == "test_accuracy"
    assert "unif-SGD" in repr(part)
    assert "sentence" not in repr(table[["method", "n"]])


def test_holm_correction_by_hand():
    rng = np.random.default_rng(3)
    rows = [("unif-SGD", s, 0.5 + rng.normal(0, 0.01), {}) for s in range(5)]
    for name, gain in (("a", 0.03), ("b", 0.01), ("c", 0.0)):
        rows += [(name, s, 0.5 + gain + rng.normal(0, 0.01), {}) for s in range(5)]
    table = analysis.compare(summary_frame(rows), "unif-SGD").dropna(subset=["p"])
    p = table["p"].sort_values()
    by_hand = np.minimum(np.maximum.accumulate(p.to_numpy() * [3, 2, 1]), 1)
    np.testing.assert_allclose(table.loc[p.index, "p_corrected"], by_hand)


def test_both_baselines_are_compared_with_and_no_pair_is_tested_twice():
    rows = [(m, s, 0.5 + 0.1 * i + 0.01 * s * i, {}) for s in range(3)
            for i, m in enumerate(("unif-SGD", "SGD", "p-SGD"))]  # fmt: skip
    assert set(analysis.compare(summary_frame(rows))["baseline"]) == {"unif-SGD"}
    table = analysis.compare(summary_frame(rows), ["unif-SGD", "SGD"])
    tested = {
        tuple(row) for row in table.loc[table["pairs"] > 0, ["method", "baseline"]].to_numpy()
    }
    assert tested == {("SGD", "unif-SGD"), ("p-SGD", "unif-SGD"), ("p-SGD", "SGD")}


def test_runs_are_paired_only_within_budget_and_augmentation():
    rows = [("unif-SGD", s, 0.5, {"budget": 0.2}) for s in range(3)]
    rows += [("p-SGD", s, 0.9, {"budget": 0.5}) for s in range(3)]
    rows += [("p-SGD", s, 0.9, {"budget": 0.2, "augmentation": "mixup"}) for s in range(3)]
    table = analysis.compare(summary_frame(rows), "unif-SGD")
    assert (table["pairs"] == 0).all()
    assert table["sentence"].str.contains("no run of unif-SGD").sum() == 2


def test_a_setting_of_the_method_does_not_hide_the_baseline():
    rows = [("unif-SGD", s, 0.5, {"sb_beta": "auto"}) for s in range(3)]
    rows += [("selective-backprop", s, 0.5 + s / 100, {"sb_beta": b}) for s in range(3)
             for b in (2.0, 3.0)]  # fmt: skip
    table = analysis.compare(summary_frame(rows), "unif-SGD")
    assert list(table.loc[table["method"] != "unif-SGD", "pairs"]) == [3, 3]


def test_another_setting_makes_another_condition():
    rows = [("p-SGD", s, 0.5, {"lr": lr}) for s in range(3) for lr in (0.1, 0.2)]
    assert list(analysis.compare(summary_frame(rows), "SGD")["n"]) == [3, 3]


def test_sentences_tell_conditions_apart_by_what_differs():
    rows = [(m, s, 0.5 + s / 100 * (m == "a"), {"budget": b}) for m in ("unif-SGD", "a")
            for s in range(3) for b in (0.2, 0.4)]  # fmt: skip
    table = analysis.compare(summary_frame(rows), "unif-SGD")
    for row in table[table["method"] == "a"].to_dict("records"):
        assert f"a (budget {100 * row['budget']:g}%) against unif-SGD" in row["sentence"]
    same = [row for row in rows if row[3]["budget"] == 0.2]
    assert "a against unif-SGD" in analysis.compare(summary_frame(same))["sentence"].iloc[-1]


def test_cost_is_measured_against_the_full_run(folder):
    table = analysis.compare(folder, ["unif-SGD", "SGD"])
    table = table.drop_duplicates(["method", "budget"]).set_index(["method", "budget"])
    assert table.loc[("p-SGD", 0.2), "cost_vs_full"] == pytest.approx(0.2)
    assert table.loc[("SGD", 1.0), "cost_vs_full"] == pytest.approx(1.0)


def test_records_without_later_settings_are_repeats_of_those_with_them(tmp_path):
    """Settings that came later change nothing by default: an earlier version ran just so."""
    for seed in range(2):
        record = write_run(tmp_path, method="unif-SGD", seed=seed)
    about = json.loads((record.path / "record.json").read_text())
    about["config"] = {k: v for k, v in about["config"].items() if k not in ADDED}
    (record.path / "record.json").write_text(json.dumps(about))
    assert analysis.compare(tmp_path)["n"].tolist() == [2]


def test_other_data_is_said_and_not_paired():
    rows = [(m, s, 0.5 + s / 100, {}) for m in ("unif-SGD", "p-SGD") for s in range(3)]
    rows += [("c-SGD", s, 0.6, {"fingerprint": "other"}) for s in range(3)]
    with pytest.warns(RecordWarning, match="other data"):
        table = analysis.compare(summary_frame(rows), "unif-SGD")
    pairs = table.set_index("method")["pairs"]
    assert (pairs["p-SGD"], pairs["c-SGD"]) == (3, 0)


def test_unfinished_and_repeated_runs_are_left_out_and_said():
    rows = [(m, s, 0.5, {}) for m in ("unif-SGD", "p-SGD") for s in range(2)]
    with pytest.warns(RecordWarning, match=r"as not finished: .* \(1 of 5 runs\)"):
        table = analysis.compare(
            summary_frame([*rows, ("p-SGD", 2, 0.1, {"status": "stopped"})]), "unif-SGD"
        )
    assert list(table["n"]) == [2, 2]
    again = ("p-SGD", 1, 0.7, {"updated": "2030"})
    old = [(*row[:3], {"updated": "2020"}) for row in rows]
    with pytest.warns(RecordWarning, match=r"as repeated later .* \(1 run\)"):
        table = analysis.compare(summary_frame([again, *old]), "unif-SGD").set_index("method")
    assert (table.loc["p-SGD", "n"], table.loc["p-SGD", "mean"]) == (2, pytest.approx(0.6))


def test_an_unknown_baseline_names_the_nearest():
    frame = summary_frame([("p-SGD", 0, 0.5, {}), ("mine", 0, 0.5, {})])
    with pytest.raises(InputError, match="did you mean 'mine'"):
        analysis.compare(frame, "mien")
    assert len(analysis.compare(frame)) == 2  # a usual baseline may be missing


def test_a_setting_that_some_records_lack_still_pairs():
    rows = [(m, s, 0.5 + s / 10 * (m == "a"), {"lr": lr}) for m in ("unif-SGD", "a")
            for s in range(2) for lr in (0.1, float("nan"))]  # fmt: skip
    table = analysis.compare(summary_frame(rows), "unif-SGD")
    assert list(table.loc[table["method"] == "a", "pairs"]) == [2, 2]


def test_missing_columns_are_named():
    frame = summary_frame([("p-SGD", 0, 0.5, {})])
    with pytest.raises(InputError, match="this frame lacks the column budget: it has dataset, "):
        analysis.compare(frame.drop(columns="budget"))
    with pytest.raises(InputError, match="lacks the columns augmentation, budget: "):
        analysis.compare(frame.drop(columns=["augmentation", "budget"]))


@pytest.mark.parametrize(
    ("name", "values"),
    [("label_noise", (0.0, 0.1)), ("noise_kind", ("pair", "instance")), ("imbalance", (1.0, 9.0)),
     ("val_fraction", (0.0, 0.1)), ("limit", (0, 100)), ("data_seed", (0, 1))],
)  # fmt: skip
def test_settings_that_change_the_data_explain_other_data(name, values):
    rows = [("p-SGD", s, 0.5, {name: v, "fingerprint": f"of {v}"}) for s in (0, 1) for v in values]
    frame = summary_frame(rows)
    assert analysis.condition_columns(frame)[5:] == [name]
    # Under the same setting, it is not explained.
    same = frame.assign(**{name: values[0]})
    assert analysis.condition_columns(same)[5:] == ["fingerprint"]


def test_a_condition_is_named_by_its_settings():
    row = {"dataset": "shapes", "method": "p-SGD", "augmentation": "mixup", "model": "resnet8",
           "budget": 0.3, "budget_unit": "flops", "lr": 0.05, "epochs": 20}  # fmt: skip
    named = analysis.label(row, ["dataset", "method", "augmentation", "model", "budget", "lr"])
    assert named == "shapes, p-SGD, mixup, resnet8, budget 30%, lr 0.05"
    assert analysis.label(row, ["budget_unit", "epochs"]) == "budget unit flops, epochs 20"


def test_runs_without_the_metric_are_named_and_left_out():
    rows = [("p-SGD", s, 0.5, {"path": f"runs/{s}"}) for s in range(2)]
    rows += [("p-SGD", s, math.nan, {"path": f"runs/{s}"}) for s in range(2, 7)]
    with pytest.warns(RecordWarning) as caught:
        table = analysis.compare(summary_frame(rows), "SGD")
    assert list(table["n"]) == [2]
    said = str(caught[0].message)
    assert said.endswith("test_accuracy: runs/2, runs/3, runs/4 and 2 more (5 of 7 runs)")


def test_where_no_run_is_finished_there_is_nothing_to_compare():
    with (
        pytest.warns(RecordWarning, match=r"as not finished: .* \(1 of 1 run\)"),
        pytest.raises(InputError, match="no finished run to compare: train until the end, or"),
    ):
        analysis.compare(summary_frame([("p-SGD", 0, 0.5, {"status": "stopped"})]), "SGD")


def test_a_run_is_no_repeat_of_one_that_is_its_replicate():
    rows = [("p-SGD", 0, 0.5, {"lr": lr}) for lr in (0.1, 0.2)]
    table = analysis.compare(summary_frame(rows), "SGD", over=("seed", "lr"))
    assert list(table["n"]) == [2]


def test_a_warning_names_the_line_of_whoever_asked(tmp_path):
    rows = [("p-SGD", s, 0.5, {"status": "finished" if s else "failed"}) for s in range(2)]
    with pytest.warns(RecordWarning) as caught:
        analysis.compare(summary_frame(rows), "SGD")
    assert caught[0].filename == __file__
    write_run(tmp_path, budget=0.2)
    damage(tmp_path, "newer")
    with pytest.warns(RecordWarning) as caught:
        open_records(tmp_path)
    assert caught[0].filename == __file__


def test_runs_that_are_not_finished_are_named_with_their_status():
    rows = [("p-SGD", 0, 0.5, {"path": "a"}), ("p-SGD", 1, 0.5, {"path": "b", "status": "failed"})]
    with pytest.warns(RecordWarning, match=r"as not finished: b \(failed\) \(1 of 2 runs\)$"):
        analysis.compare(summary_frame(rows), "SGD")


# Curves


def curve_frame(runs):
    """Learning curves of one condition; each run is its steps and accuracies."""
    settled = {"dataset": "d", "method": "m", "augmentation": "a", "budget": 0.3}
    return pd.DataFrame(
        settled | {"run": run, "seed": run, "epoch": e + 1, "steps": x, "test_accuracy": y}
        for run, (steps, values) in enumerate(runs)
        for e, (x, y) in enumerate(zip(steps, values, strict=True))
    )


def test_curves_meet_on_one_axis_without_extrapolation():
    frame = curve_frame(
        [([10, 20, 40], [0.1, 0.2, 0.6]), ([0, 30], [0.0, 0.3]), ([0, 40], [0.05, 0.45])]
    )
    curve = analysis.curves(frame, points=3)
    # Common part 10 to 30. The runs there: 0.1, 0.2, 0.4; 0.1, 0.2, 0.3; 0.15, 0.25, 0.35.
    np.testing.assert_allclose(curve["cost"], [10, 20, 30])
    np.testing.assert_allclose(curve["mean"], [0.35 / 3, 0.65 / 3, 0.35])
    half = 4.30265273 * np.std([0.4, 0.3, 0.35], ddof=1) / np.sqrt(3)
    assert curve["ci_high"].iloc[-1] == pytest.approx(0.35 + half)
    assert set(curve["n"]) == {3}


def test_all_conditions_can_be_read_at_the_same_costs():
    short, long = curve_frame([([0, 10], [0, 1])]), curve_frame([([0, 30], [0, 1])])
    frame = pd.concat([short, long.assign(method="other", run=1)])
    curve = analysis.curves(frame, axis=[5, 15])
    assert list(curve["cost"]) == [5, 5, 15]
    np.testing.assert_allclose(curve["mean"], [0.5, 1 / 6, 0.5])


def test_a_single_run_has_no_band():
    curve = analysis.curves(curve_frame([([1, 2], [0.1, 0.2])]))
    assert curve["ci_low"].isna().all()
    assert curve["spread"].isna().all()


def test_curves_know_what_they_are_of():
    frame = curve_frame([([0, 2], [0.1, 0.2]), ([0, 2], [0.3, 0.4])])
    curve = analysis.curves(frame, confidence=0.9)
    assert (curve.metric, curve.cost_name, curve.confidence) == ("test_accuracy", "steps", 0.9)
    np.testing.assert_allclose(curve["spread"], np.std([0.1, 0.3], ddof=1))
    nothing = analysis.curves(frame.assign(test_accuracy=math.nan))
    assert list(nothing) == [*analysis.condition_columns(frame), "cost", "mean", "spread", "ci_low",
                             "ci_high", "n"]  # fmt: skip


def test_a_curve_leaves_out_what_is_not_finished_where_something_is():
    frame = curve_frame([([0, 10], [0.1, 0.2]), ([0, 4], [0.8, 0.9])])
    frame["status"] = frame["run"].map({0: "finished", 1: "running"})
    curve = analysis.curves(frame)
    assert (curve["n"].unique().item(), curve["mean"].iloc[-1]) == (1, 0.2)
    going = analysis.curves(frame.assign(status="running"))
    assert going["n"].unique().item() == 2


def test_a_setting_that_was_not_recorded_keeps_its_curve():
    frame = curve_frame([([0, 10], [0.1, 0.2]), ([0, 10], [0.3, 0.4])])
    frame["smoothing"] = frame["run"].map({0: 1.0, 1: math.nan})
    assert sorted(analysis.curves(frame, points=2)["mean"]) == [0.1, 0.2, 0.3, 0.4]


def test_runs_without_common_cost_are_said():
    frame = curve_frame([([1, 2], [0.1, 0.2]), ([5, 6], [0.1, 0.2])])
    with pytest.warns(UserWarning, match="share no part of the steps axis"):
        assert analysis.curves(frame).empty


def test_frontier_by_hand():
    rows = [("a", 0, 0.5, {"flops": 1.0}), ("b", 0, 0.4, {"flops": 2.0}),
            ("c", 0, 0.7, {"flops": 3.0}), ("d", 0, 0.7, {"flops": 4.0})]  # fmt: skip
    found = analysis.frontier(summary_frame(rows)).set_index("method")["on_frontier"]
    assert dict(found) == {"a": True, "b": False, "c": True, "d": False}


def test_the_frontier_has_intervals_and_leaves_out_what_has_no_result():
    rows = [("a", 0, 0.5, {"flops": 1.0}), ("a", 1, 0.7, {"flops": 3.0}),
            ("a", 2, 0.6, {"flops": 2.0}), ("b", 0, math.nan, {"flops": 9.0})]  # fmt: skip
    found = analysis.frontier(summary_frame(rows))
    assert list(found["method"]) == ["a"]
    row = found.iloc[0]
    assert (row["cost"], row["n"]) == (2.0, 3)
    half = 4.30265273 * np.std([0.5, 0.7, 0.6], ddof=1) / math.sqrt(3)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.6 - half, 0.6 + half))


def test_cost_to_reach_is_that_of_the_first_epoch_there():
    frame = curve_frame([([10, 20, 40], [0.1, 0.5, 0.4]), ([10, 20, 40], [0.1, 0.2, 0.3])])
    found = analysis.cost_to_reach(frame, 0.45, "steps")
    assert list(found["reached"]) == [True, False]
    assert found["cost"].iloc[0] == 20
    assert math.isnan(found["cost"].iloc[1])


def test_cost_to_reach_is_read_off_records_too(folder):
    found = analysis.cost_to_reach(folder, 0.0, "epoch")
    assert len(found) == 13
    assert (found["cost"] == 1).all()


def test_an_unknown_cost_names_those_that_exist():
    with pytest.raises(InputError, match="did you mean 'flops'"):
        analysis.curves(curve_frame([([1], [0.1])]), cost="flop")


# Tables


def compared():
    rows = [("unif-SGD", s, 0.5 + s / 100, {}) for s in range(3)]
    return analysis.compare(
        summary_frame(rows + [("p_SGD & co", s, 0.6 + s * s / 100, {}) for s in range(3)]),
        "unif-SGD",
    )


def test_the_table_holds_numbers_and_sentences():
    text = analysis.table(compared())
    row = next(line for line in text.splitlines() if line.startswith("shapes") and "p_SGD" in line)
    # d = 10, 10, 12 points: mean 10.67, half width 4.302653 * 1.1547 / sqrt(3) = 2.87.
    said = ["unif-SGD", "3", "+10.67", "+7.80", "to", "+13.54", "0.004", "better"]
    assert row.split()[-8:] == said
    assert "61.67 ± 2.08" in row
    assert "- p_SGD & co is better than unif-SGD" in text


def test_exports_keep_the_numbers_and_escape_names(tmp_path):
    frame = compared()
    back = pd.read_csv(analysis.export(frame, tmp_path / "t.csv"))
    np.testing.assert_allclose(back["difference"], frame["difference"])
    tex = analysis.export(frame, tmp_path / "t.tex").read_text()
    assert r"p\_SGD \& co" in tex
    assert r"61.67 $\pm$ 2.08" in tex
    lines = analysis.export(frame, tmp_path / "t.md").read_text().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(frame)


def test_the_table_line_by_line():
    table = analysis.compare(
        summary_frame(
            [(m, s, 0.5 + s * (m == "p-SGD") / 100, {"budget": b, "flops": 3e9, "seconds": 1.25})
             for m in ("unif-SGD", "p-SGD") for s in range(3) for b in (0.2, 1.0)]
        ), "unif-SGD",
    ).drop(columns="sentence")  # fmt: skip
    table[["flops", "steps"]] = [3e9, 1234.0]
    heading, rule, *rows = analysis.table(table).splitlines()
    assert rule.strip("- ") == ""
    assert [len(part) for part in rule.split("  ")][:2] == [len("dataset"), len("p-SGD") + 3]
    cells = [row.split() for row in rows]
    assert [row[1] for row in cells] == ["unif-SGD", "p-SGD"] * 2
    assert [row[3] for row in cells] == ["20%", "20%", "100%", "100%"]
    assert heading.index("budget") + len("budget") == rows[0].index("20%") + 3  # to the right
    assert rows[1].index("p-SGD") == heading.index("method")  # to the left
    assert all("1,234" in row and "3.00e+09" in row for row in rows)
    assert "pairs" in heading.split()
    assert rows[1].split()[-2:] == ["0.451", "undecided"]  # t = 1.73: 2 x 0.2254


def test_losses_are_no_percentages():
    frame = summary_frame([("p-SGD", s, 0.5, {"test_loss": 1.5}) for s in range(2)])
    readable = analysis.readable(analysis.compare(frame, "SGD", metric="test_loss"))
    assert readable["test loss"].tolist() == ["1.5 ± 0"]


def test_odd_names_come_out_whole(tmp_path):
    frame = pd.DataFrame(
        {"name": [r"a\b|c", "<d> & 5%"], "value": [1.0, None], "some": [None, "x"]}
    )
    lines = analysis.export(frame, tmp_path / "t.md").read_text().splitlines()
    assert lines[2] == r"| a\\b\|c | 1 |  |"
    tex = analysis.export(frame, tmp_path / "t.tex").read_text()
    assert r"$<$d$>$ \& 5\% &  & x" in tex
    assert r"\begin{tabular}{lrl}" in tex


def test_a_table_that_cannot_be_written_says_why(tmp_path):
    with pytest.raises(InputError, match=r"no/t\.csv' cannot be written \(.+\): give another file"):
        analysis.export(compared(), tmp_path / "no" / "t.csv")


def test_an_unknown_ending_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"\.csv, \.md, \.tex"):
        analysis.export(compared(), tmp_path / "table.xlsx")
