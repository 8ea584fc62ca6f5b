"""Frames and comparisons: against values worked out by hand and a known truth."""

import itertools
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from fake_records import write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from budgetlab import analysis
from budgetlab.analysis import RecordWarning, conditions
from budgetlab.analysis.statistics import sentence, verdict
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


def compared(rows, baseline="unif-SGD", **options):
    return analysis.compare(summary_frame(rows), baseline, **options)


def gained(gains, **options):
    """A method that gains so much, seed by seed, over 0.5 of unif-SGD: its row."""
    rows = [("unif-SGD", s, 0.5, {}) for s in range(len(gains))]
    rows += [("a", s, 0.5 + gain, {}) for s, gain in enumerate(gains)]
    return compared(rows, **options).set_index("method").loc["a"]


# Frames


def test_summaries_hold_what_the_runs_say(folder):
    frame = analysis.summaries(folder)
    assert len(frame) == 13
    full = frame[frame["method"] == "SGD"].iloc[0]
    # 200 samples x 6 epochs at budget 1 in batches of 10, three thousand operations each.
    expected = {"trained_samples": 1200, "steps": 120, "flops": 3_600_000, "dataset": "shapes",
                "train_size": 200, "hardware": "a CPU", "epochs_trained": 6, "model": "small",
                "fingerprint": "f00d"}  # fmt: skip
    assert full[list(expected)].to_dict() == expected
    assert full["test_accuracy"] == pytest.approx(0.9)
    record = open_records(folder)[0]
    assert len(open_records([record, record.path, str(record.path), folder])) == 13
    frame = analysis.epochs(folder)
    assert len(frame) == 13 * 6
    assert frame.groupby("run")["steps"].apply(lambda steps: steps.is_monotonic_increasing).all()
    assert set(frame["lr_start"]) == {0.1}
    table = analysis.compare(folder, ["unif-SGD", "SGD"]).drop_duplicates(["method", "budget"])
    costs = table.set_index(["method", "budget"])["cost_vs_full"]
    assert (costs["p-SGD", 0.2], costs["SGD", 1.0]) == pytest.approx((0.2, 1.0))


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


def test_a_run_cut_off_has_what_its_last_whole_epoch_reached(tmp_path):
    record = write_run(tmp_path, status="running", budget=0.2)
    row = analysis.summaries(record).iloc[0]
    assert (row["status"], row["epochs_trained"], row["trained_samples"]) == ("running", 6, 240)
    assert row["test_accuracy"] == pytest.approx(record.epochs["test_accuracy"].iloc[-1])
    (record.path / "epochs.csv").unlink()
    row = analysis.summaries(record.path).iloc[0]
    assert row["epochs_trained"] == 0
    assert row[["test_accuracy", "steps", "flops"]].isna().all()
    with pytest.raises(InputError, match="none of these records holds a finished epoch: train"):
        analysis.epochs(record.path)


def test_what_is_damaged_is_said_and_the_rest_is_read(tmp_path):
    good, path = write_run(tmp_path, budget=0.2), tmp_path / "damaged"
    shutil.copytree(good.path, path)
    about = json.loads((path / "record.json").read_text())
    (path / "epochs.csv").write_text("steps\n1\n")
    (path / "record.json").write_text(json.dumps(about | {"summary": {}}))
    with pytest.warns(RecordWarning, match="lacks the columns"):
        assert analysis.epochs(tmp_path)["run"].nunique() == 1
    with pytest.warns(RecordWarning, match="stay empty"):
        assert len(analysis.summaries(tmp_path)) == 2
    shutil.rmtree(path / "samples.zarr")
    with pytest.raises(InputError, match="only the summary"):
        analysis.measures(path)
    (path / "record.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.warns(RecordWarning, match="damaged.*format 99") as caught:
        assert len(open_records(tmp_path)) == 1
    assert caught[0].filename == __file__, "a warning names the line of whoever asked"


# Paired comparison


@settings(max_examples=8)
@given(st.integers(3, 8), st.integers(0, 10**6))
def test_paired_differences_are_the_t_tests_of_scipy_and_statsmodels(n, seed):
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.weightstats import ttost_paired

    a, b, c = 0.05 * np.random.default_rng(seed).normal(size=(3, n))
    ours, theirs = analysis.paired_difference(a, b, margin=1.0), stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((interval.low, interval.high))
    assert ours.p_equivalent == pytest.approx(ttost_paired(a, b, -1.0, 1.0)[0])
    assert analysis.mean_interval(a - b) == pytest.approx((ours.ci_low, ours.ci_high))
    assert math.isnan(analysis.paired_difference(a, b, margin=None).p_equivalent)
    # Several comparisons are corrected as by Holm.
    runs = zip(("unif-SGD", "a", "c"), (b, a, c), strict=True)
    table = compared([(m, s, value, {}) for m, values in runs for s, value in enumerate(values)])
    p = table["p"].dropna()
    corrected = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(table.loc[p.index, "p_corrected"], corrected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([], []), ([0.5], [0.4]), ([0.5, 0.9], [0.4, 0.6]), ([1.0, 2, 3], [0, 1, 2])],
)
def test_few_pairs_and_equal_differences_have_no_interval(ours, theirs):
    result = analysis.paired_difference(np.array(ours), np.array(theirs))
    assert result.pairs == len(ours)
    assert np.isnan([result.ci_low, result.ci_high, result.p, result.p_equivalent]).all()
    assert not ours or result.difference == pytest.approx(np.subtract(ours, theirs).mean())
    for other in ([*theirs, 0.7], [[0.7] * len(ours)]):
        with pytest.raises(InputError, match="are not pairs"):
            analysis.paired_difference(np.array(ours), np.array(other))


def test_comparison_pairs_by_seed_and_says_how_many_had_no_partner():
    baseline = [("unif-SGD", seed, a, {}) for seed, a in enumerate([0.50, 0.60, 0.70, 0.80])]
    # Shuffled seeds, and seed 9 without a partner: pairing by position would be wrong.
    ours = [("p-SGD", seed, a, {}) for seed, a in [(9, 0.1), (2, 0.73), (0, 0.51), (1, 0.62)]]
    row = compared(baseline + ours).set_index("method").loc["p-SGD"]
    assert (row["n"], row["pairs"], row["dropped"]) == (4, 3, 2)
    assert row["difference"] == pytest.approx(0.02)
    assert row["ci_low"] == pytest.approx(0.02 - 0.02484138)
    assert row["spread"] == pytest.approx(np.std([0.1, 0.73, 0.51, 0.62], ddof=1))
    for part in ("Whether p-SGD differs from unif-SGD is undecided: +2.00 percentage points (95%",
                 "n = 3 pairs); the pairs range from +1.00 to +3.00, all of them above zero; about "
                 "5 seeds might settle it",
                 "2 runs without a partner left out."):  # fmt: skip
        assert part in row["sentence"]


ROW = {"method": "p-SGD", "baseline": "unif-SGD", "pairs": 5, "dropped": 0, "difference": -0.2,
       "lowest": -0.3, "highest": 0.1, "above": 1, "ci_low": -0.3, "ci_high": -0.1, "p": 0.001,
       "p_corrected": 0.001, "p_equivalent": 1.0, "spread": 0.1, "baseline_spread": 0.1,
       "seeds_to_settle": math.nan, "verdict": "worse"}  # fmt: skip


def test_a_verdict_is_that_of_the_corrected_tests_and_at_the_level_nothing_is_claimed():
    equal = {"p_corrected": 0.5, "p_equivalent": 0.049}
    for changed, options, said in (
        ({}, {}, "worse"), ({}, {"metric": "test_loss"}, "better"), ({"pairs": 0}, {}, ""),
        ({"p_corrected": 0.05}, {}, "undecided"), ({"p_corrected": 0.05}, {"alpha": 0.06}, "worse"),
        (equal, {}, "equivalent"), (equal | {"p_equivalent": 0.05}, {}, "undecided"),
    ):  # fmt: skip
        assert verdict(ROW | changed, **options) == said


OPEN = {"verdict": "undecided", "p_corrected": 0.06}
FEW = OPEN | {"pairs": 2, "p": math.nan, "highest": -0.1, "above": 0}


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"dropped": 1}, ["p-SGD is worse than unif-SGD: -20.00 percentage points (95% CI -30.00 "
                          "to -10.00, corrected p = 0.001, n = 5 pairs); 1 run without a partner"]),
        ({"p_corrected": 0.0005}, ["p < 0.001"]),
        ({"p_corrected": 0.0498}, ["corrected p = 0.0498,"]),
        # A difference that is there and does not matter is said to be small.
        ({"p_equivalent": 0.01}, ["the difference is smaller than 1 percentage point."]),
        ({"verdict": "equivalent", "p_equivalent": 0.01},
         ["p-SGD and unif-SGD are equivalent within 1 percentage point: -20.00",
          "p = 0.010 of two one-sided tests"]),
        # What correcting took away, how the pairs lie, which method varies: all are said.
        (OPEN, ["corrected p = 0.060 but p = 0.001 before the correction, n = 5 pairs)",
                "range from -30.00 to +10.00, 1 of them above zero"]),
        (OPEN | {"above": 0}, ["none of them above zero"]),
        (OPEN | {"spread": 0.4}, ["; the runs of p-SGD vary 4 times as much as those of unif-SGD"]),
        (OPEN | {"spread": 0.02}, ["; the runs of unif-SGD vary 5 times as much"]),
        (OPEN | {"seeds_to_settle": 12.0}, ["; about 12 seeds might settle it."]),
        (OPEN | {"seeds_to_settle": 1e4}, ["; more than 10,000 seeds would be needed"]),
        (FEW, ["-30.00 and -10.00 percentage points in the two pairs, too few for an interval; "
               "train more seeds."]),
        (FEW | {"pairs": 1}, ["-20.00 percentage points in a single pair, which gives no"]),
        (FEW | {"lowest": -0.1}, ["in each of the 2 pairs, which leaves no spread to estimate"]),
    ],
)  # fmt: skip
def test_a_sentence_says_what_was_found_and_what_speaks_against_it(changed, parts):
    said = sentence(ROW | changed)
    assert all(part in said for part in parts), said
    assert ("vary" in said) == ("spread" in changed)
    assert "-0.2 in test loss (95% CI -0.3 to -0.1" in sentence(ROW, "test_loss", margin=None)


SMALL = [0.001, -0.002, 0.001, 0.002, -0.001, 0.0]


@pytest.mark.parametrize(
    ("gains", "margin", "said"),
    [
        (SMALL, None, "equivalent"),
        (SMALL, 0.001, "undecided"),
        ([0.02 + gain for gain in SMALL], None, "better"),
        ([gain - 0.02 for gain in SMALL], None, "worse"),
    ],
)
def test_verdicts(gains, margin, said):
    row = gained(gains, margin=margin)
    assert row["verdict"] == said
    assert said in row["sentence"]
    assert math.isnan(row["seeds_to_settle"]) == (said != "undecided")


def test_a_loss_has_no_margin_unless_one_is_given():
    rows = [(m, s, 0.5, {"test_loss": 1 + 0.001 * s * (m == "a")}) for m in ("unif-SGD", "a")
            for s in range(4)]  # fmt: skip
    frame = summary_frame(rows)
    assert analysis.compare(frame, metric="test_loss")["p_equivalent"].isna().all()
    table = analysis.compare(frame, metric="test_loss", margin=0.1)
    assert table.set_index("method").loc["a", "verdict"] == "equivalent"
    # Losses are no percentages.
    assert analysis.readable(table)["test loss"].tolist()[0] == "1 ± 0"


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


def test_summaries_in_a_file_are_compared_as_the_records_are(folder, tmp_path):
    runs = analysis.summaries(folder)
    runs.to_csv(tmp_path / "runs.csv", index=False)
    again = pd.read_csv(tmp_path / "runs.csv")
    for average in (analysis.compare, analysis.results, analysis.frontier):
        found, wanted = (pd.DataFrame(average(frame)) for frame in (again, runs))
        pd.testing.assert_frame_equal(found, wanted, check_dtype=False)


def test_a_comparison_shows_itself_and_stays_a_frame():
    table = compared([(m, s, 0.5 + s / 100 * (m == "a<b"), {}) for m in ("unif-SGD", "a<b")
                      for s in range(3)])  # fmt: skip
    shown = table._repr_html_()
    assert "a&lt;b" in shown
    assert "a<b" not in shown
    assert shown.count("<li>") == 1
    assert "is undecided: " in repr(table)
    part = table[table["method"] != "unif-SGD"]
    assert part.metric == "test_accuracy"
    assert "unif-SGD" in repr(part)
    assert "sentence" not in repr(table[["method", "n"]])
    assert "a<b" in table[["method", "n"]]._repr_html_().replace("&lt;", "<")


def test_both_baselines_are_compared_with_and_no_pair_is_tested_twice():
    rows = [(m, s, 0.5 + 0.1 * i + 0.01 * s * i, {}) for s in range(3)
            for i, m in enumerate(("unif-SGD", "SGD", "p-SGD"))]  # fmt: skip
    assert set(compared(rows)["baseline"]) == {"unif-SGD"}
    table = compared(rows, ["unif-SGD", "SGD"])
    tested = table.loc[table["pairs"] > 0, ["method", "baseline"]].to_records(index=False).tolist()
    assert set(tested) == {("SGD", "unif-SGD"), ("p-SGD", "unif-SGD"), ("p-SGD", "SGD")}
    assert compared(rows, "p-sgd").equals(compared(rows, "p-SGD"))
    assert len(compared([("p-SGD", 0, 0.5, {})])) == 1  # a usual baseline may be missing


@pytest.mark.parametrize(
    ("own", "paired"),
    [({"budget": 0.5}, 0), ({"augmentation": "mixup"}, 0), ({"lr": 0.2}, 0), ({"sb_beta": 2.0}, 3),
     ({"lr": math.nan}, 0)],
)  # fmt: skip
def test_runs_are_paired_where_only_settings_of_their_methods_differ(own, paired):
    usual = {"budget": 0.2, "lr": 0.1, "sb_beta": "auto"}
    rows = [("unif-SGD", s, 0.5, usual) for s in range(3)]
    rows += [("selective-backprop", s, 0.5 + s / 100, usual | own) for s in range(3)]
    row = compared(rows).set_index("method").loc["selective-backprop"]
    assert row["pairs"] == paired
    assert paired or "no run of unif-SGD with the same settings" in row["sentence"]
    # What neither recorded is the same.
    both = [(*one[:3], usual | own) for one in rows]
    assert compared(both).set_index("method").loc["selective-backprop", "pairs"] == 3


def test_sentences_tell_conditions_apart_by_what_differs():
    rows = [(m, s, 0.5 + s / 100 * (m == "a"), {"budget": b}) for m in ("unif-SGD", "a")
            for s in range(3) for b in (0.2, 0.4)]  # fmt: skip
    table = compared(rows)
    for row in table[table["method"] == "a"].to_dict("records"):
        assert (
            f"Whether a (budget {100 * row['budget']:g}%) differs from unif-SGD" in row["sentence"]
        )
    assert "Whether a differs from unif-SGD" in compared(rows[::2])["sentence"].iloc[-1]


def test_labels_hold_what_tells_conditions_apart_and_no_more():
    small = {"model": "compact", "epochs": 100, "batch_size": 32, "lr": 0.05, "limit": 1000}
    large = {"model": "resnet18", "epochs": 200, "batch_size": 128, "lr": 0.1, "limit": 0}
    rows = [(m, s, 0.5, setup | {"class_shares": "free", "power": 4.0 if m == "p-SGD" else 1.0})
            for m in ("unif-SGD", "p-SGD") for s in (0, 1) for setup in (small, large)]  # fmt: skip

    def named(more=(), changed=0):
        frame = summary_frame([*rows, *more])
        keys = analysis.condition_columns(frame)
        return list(dict.fromkeys(conditions.labels(frame, keys)))[-changed:]

    # Two presets are named by the network, and what one method alone reads by none.
    assert named() == ["unif-SGD, compact", "unif-SGD, resnet18", "p-SGD, compact",
                       "p-SGD, resnet18"]  # fmt: skip
    # Another length with the same network has to be said, another power too, where it is read.
    large |= {"class_shares": "free", "power": 4.0}
    longer = ("p-SGD", 0, 0.5, large | {"epochs": 400})
    assert named([longer], 1) == ["p-SGD, resnet18, epochs 400"]
    milder = ("p-SGD", 0, 0.5, small | {"class_shares": "free", "power": 2.0})
    assert named([milder])[::2] == ["unif-SGD, compact", "p-SGD, compact, power 4",
                                    "p-SGD, compact, power 2"]  # fmt: skip
    # A setting that differs between the methods is not the method.
    frame = summary_frame([("unif-SGD", 0, 0.5, {"lr": 0.1}), ("p-SGD", 0, 0.5, {"lr": 0.05})])
    assert list(conditions.labels(frame, ["method", "lr"])) == ["unif-SGD, lr 0.1",
                                                                "p-SGD, lr 0.05"]  # fmt: skip
    # What follows from the settings around it is left out.
    four = [
        {"lr": lr, "momentum": m, "warmup": w}
        for lr, m, w in ((0.1, 0.9, 0.0), (0.2, 0.9, 0.0), (0.1, 0.9, 0.5), (0.2, 0.8, 0.5))
    ]
    several = summary_frame([("p-SGD", 0, 0.5, one) for one in four])
    assert conditions.telling(several, ["lr", "momentum", "warmup"]) == ["lr", "warmup"]
    # Numbers that look the same are two conditions all the same.
    close = frame.assign(method="p-SGD", lr=[0.1, 0.1 + 1e-9])
    assert list(conditions.labels(close, ["method", "lr"])) == ["lr 0.1", "lr 0.1 (no. 2)"]


def test_seeds_are_pooled_however_often_they_were_tested(tmp_path):
    for seed in range(4):
        write_run(tmp_path, method="p-SGD", seed=seed, evaluate_every=seed)
    table = analysis.results(tmp_path)
    assert (table["n"].tolist(), "evaluate_every" in table) == ([4], False)


def test_a_grid_over_a_setting_of_one_method_pairs_each_run_with_the_baseline_once(tmp_path):
    for seed, power in itertools.product(range(3), (1.0, 4.0)):
        for shares in ("free", "kept"):
            write_run(tmp_path, method="unif-SGD", seed=seed, power=power, class_shares=shares,
                      gain=0.1 * (shares == "kept"))  # fmt: skip
        write_run(tmp_path, method="p-SGD", seed=seed, power=power, gain=0.01 * power)
    with pytest.warns(RecordWarning, match="as repeated later .* .6 of 18 runs"):
        table = analysis.compare(tmp_path)
    assert sorted(table[["class_shares", "power", "n"]].to_numpy().tolist()) == [
        ["free", 1, 3], ["free", 1, 3], ["free", 4, 3], ["kept", 1, 3]]  # fmt: skip
    drawn = table[table["method"] == "p-SGD"].sort_values("power")
    assert drawn["difference"].tolist() == pytest.approx([0.01, 0.04])
    for power, text in zip((1, 4), drawn["sentence"], strict=True):
        assert f"p-SGD (power {power}, " in text


def test_data_seeds_that_go_with_the_seeds_stay_replicates_beside_runs_of_another_preset():
    rows = [("p-SGD", s, 0.5, {"lr": lr, "data_seed": s * (lr == 0.1)})
            for s in range(3) for lr in (0.1, 0.2)]  # fmt: skip
    assert analysis.condition_columns(summary_frame(rows))[5:] == ["lr"]
    crossed = [*rows, ("p-SGD", 1, 0.5, {"lr": 0.1, "data_seed": 0})]
    assert analysis.condition_columns(summary_frame(crossed))[5:] == ["lr", "data_seed"]


def test_results_by_hand():
    rows = [("p-SGD", 0, 0.7, 0.2, 20), ("p-SGD", 1, 0.74, 0.2, 22), ("unif-SGD", 0, 0.8, 1.0, 100),
            ("unif-SGD", 1, 0.9, 1.0, 100), ("c-SGD", 0, 0.6, 0.2, 20)]  # fmt: skip
    cost = {"trained_samples": 10, "looked_samples": 0, "seconds": 1.0}
    frame = summary_frame([
        (*row[:3], cost | {"budget": row[3], "steps": row[4], "flops": row[4] * 1e9})
        for row in rows
    ])  # fmt: skip
    table = analysis.results(frame)
    assert table["method"].tolist() == ["p-SGD", "unif-SGD", "c-SGD"]
    assert table["n"].tolist() == [2, 2, 1]
    np.testing.assert_allclose(table["mean"], [0.72, 0.85, 0.60])
    np.testing.assert_allclose(table["spread"], [0.0282843, 0.0707107, np.nan], rtol=1e-5)
    assert table["steps"].tolist() == [21, 100, 20]
    np.testing.assert_allclose(table["cost_vs_full"], [0.21, 1, 0.2])
    assert "72.00 ± 2.83" in analysis.table(table)
    assert analysis.results(frame[frame["budget"] < 1])["cost_vs_full"].isna().all()
    varied = frame.assign(lr=[0.1, 0.2, 0.1, 0.2, 0.1])
    assert len(analysis.results(varied)) == 5
    assert analysis.results(varied, over=("seed", "lr"))["n"].tolist() == [2, 2, 1]
    # A setting that was not recorded keeps its runs.
    lacking = frame.assign(smoothing=[1.0, 1.0, math.nan, math.nan, math.nan])
    assert analysis.results(lacking)["n"].tolist() == [2, 2, 1]


THREE = [(m, s, 0.5 + s / 100, {"updated": "2020"}) for m in ("unif-SGD", "p-SGD")
         for s in range(3)]  # fmt: skip
LEFT_OUT = {
    r"as not finished: b \(stopped\) \(1 of 7 runs\)$": [
        ("p-SGD", 3, 0.1, {"status": "stopped", "path": "b"})
    ],
    r"as repeated later .* \(1 of 7 runs\)": [("p-SGD", 1, 0.8, {"updated": "2019"})],
    r"without test_accuracy: runs/3, runs/4, runs/5 and 2 more \(5 of 11 runs\)$": [
        ("p-SGD", s, math.nan, {"path": f"runs/{s}"}) for s in range(3, 8)
    ],
    "other data": [("c-SGD", s, 0.6, {"fingerprint": "other"}) for s in range(3)],
}


@pytest.mark.parametrize("said", LEFT_OUT)
def test_what_is_left_out_or_not_paired_is_said(said):
    with pytest.warns(RecordWarning, match=said) as caught:
        table = analysis.compare(summary_frame(LEFT_OUT[said] + THREE)).set_index("method")
    assert caught[0].filename == __file__
    assert table.loc["p-SGD", ["n", "pairs", "mean"]].tolist() == pytest.approx([3, 3, 0.51])
    assert "c-SGD" not in table.index or table.loc["c-SGD", "pairs"] == 0


def test_nothing_finished_cannot_be_compared():
    with (
        pytest.warns(RecordWarning, match=r"as not finished: .* \(1 of 1 run\)"),
        pytest.raises(InputError, match="no finished run to compare: train until the end, or"),
    ):
        compared([("p-SGD", 0, 0.5, {"status": "stopped"})])


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
    row = {
        "dataset": "shapes",
        "method": "p-SGD",
        "budget": 0.3,
        "budget_unit": "flops",
        "lr": 0.05,
    }
    named = analysis.label(row, ["dataset", "method", "budget", "budget_unit", "lr"])
    assert named == "shapes, p-SGD, budget 30%, budget unit flops, lr 0.05"
