"""Curves over costs, the frontier, tables and exports: by hand."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from fake_records import write_run
from test_analysis import compared, summary_frame

from budgetlab import analysis
from budgetlab.analysis import RecordWarning
from budgetlab.errors import InputError

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
    assert (curve.metric, curve.cost_name, curve.confidence) == ("test_accuracy", "steps", 0.95)
    # Common part 10 to 30. The runs there: 0.1, 0.2, 0.4; 0.1, 0.2, 0.3; 0.15, 0.25, 0.35.
    np.testing.assert_allclose(curve["cost"], [10, 20, 30])
    np.testing.assert_allclose(curve["mean"], [0.35 / 3, 0.65 / 3, 0.35])
    half = 4.30265273 * np.std([0.4, 0.3, 0.35], ddof=1) / np.sqrt(3)
    assert curve["ci_high"].iloc[-1] == pytest.approx(0.35 + half)
    assert curve["spread"].iloc[-1] == pytest.approx(np.std([0.4, 0.3, 0.35], ddof=1))
    assert set(curve["n"]) == {3}
    nothing = analysis.curves(frame.assign(test_accuracy=math.nan))
    assert list(nothing) == [*analysis.condition_columns(frame), "cost", "mean", "spread", "ci_low",
                             "ci_high", "n", "finished"]  # fmt: skip


def test_curves_at_the_same_costs_of_single_and_of_unfinished_runs():
    short, long = curve_frame([([0, 10], [0, 1])]), curve_frame([([0, 30], [0, 1])])
    curve = analysis.curves(pd.concat([short, long.assign(method="other", run=1)]), axis=[5, 15])
    assert list(curve["cost"]) == [5, 5, 15]
    np.testing.assert_allclose(curve["mean"], [0.5, 1 / 6, 0.5])
    assert curve[["ci_low", "spread"]].isna().all(axis=None)
    frame = curve_frame([([0, 10], [0.1, 0.2]), ([0, 4], [0.8, 0.9])])
    for status, n in ((["finished", "running"], 1), (["running", "running"], 2)):
        curve = analysis.curves(frame.assign(status=frame["run"].map(dict(enumerate(status)))))
        assert curve["n"].unique().item() == n
        assert curve["finished"].unique().item() == ("finished" in status)
    # A setting that was not recorded keeps its curve.
    lacking = frame.assign(smoothing=frame["run"].map({0: 1.0, 1: math.nan}))
    assert sorted(analysis.curves(lacking, points=2)["mean"]) == [0.1, 0.2, 0.8, 0.9]
    apart = curve_frame([([1, 2], [0.1, 0.2]), ([5, 6], [0.1, 0.2])])
    with pytest.warns(UserWarning, match="share no part of the steps axis"):
        assert analysis.curves(apart).empty


def test_a_run_tested_once_does_not_cut_the_curve_of_the_others():
    often = [([0, 10, 20, 30], [0.1, 0.2, 0.3, 0.4 + seed]) for seed in range(2)]
    frame = curve_frame([*often, ([0, 15, 30], [0.1, math.nan, 0.5]), ([0, 30], [math.nan, 0.9])])
    with pytest.warns(RecordWarning, match=r"tested only once, .* \(1 of 4 runs\)"):
        curve = analysis.curves(frame, points=4)
    assert curve["cost"].tolist() == [0, 10, 20, 30]
    assert set(curve["n"]) == {3}
    # A seed that was trained again with fewer tests keeps its curve.
    again = frame[frame["run"].isin([0, 3])].assign(seed=0)
    with pytest.warns(RecordWarning, match=r"\(1 of 2 runs\)"):
        assert analysis.curves(again, points=4)["mean"].tolist() == pytest.approx(often[0][1])
    alone = analysis.curves(frame[frame["run"] == 3])
    assert set(alone["mean"]) == {0.9}


def test_frontier_by_hand():
    rows = [("a", s, 0.5 + s / 10, {"flops": 1.0 + s}) for s in range(3)]
    rows += [(m, 0, accuracy, {"flops": flops}) for m, accuracy, flops in
             (("b", 0.4, 3.0), ("c", 0.7, 4.0), ("d", 0.7, 5.0), ("e", math.nan, 9.0))]  # fmt: skip
    found = analysis.frontier(summary_frame(rows)).set_index("method")
    assert found["on_frontier"].to_dict() == {"a": True, "b": False, "c": True, "d": False}
    row, half = found.loc["a"], 4.30265273 * 0.1 / math.sqrt(3)
    assert (row["cost"], row["n"]) == (2.0, 3)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.6 - half, 0.6 + half))
    less = analysis.frontier(summary_frame(rows).assign(test_loss=1.0), value="test_loss")
    assert less.set_index("method")["on_frontier"].to_dict() == dict.fromkeys("abcde", False) | {
        "a": True
    }


def test_cost_to_reach_is_that_of_the_first_epoch_there(tmp_path):
    frame = curve_frame([([10, 20, 40], [0.1, 0.5, 0.4]), ([10, 20, 40], [0.1, 0.2, 0.3])])
    found = analysis.cost_to_reach(frame, 0.45, "steps")
    assert list(found["reached"]) == [True, False]
    assert found["cost"].iloc[0] == 20
    assert math.isnan(found["cost"].iloc[1])
    found = analysis.cost_to_reach(write_run(tmp_path), 0.0, "epoch")
    assert found["cost"].tolist() == [1]


# Tables


@pytest.fixture
def two_methods():
    rows = [("unif-SGD", s, 0.5 + s / 100, {}) for s in range(3)]
    return compared(rows + [("p_SGD & co", s, 0.6 + s * s / 100, {}) for s in range(3)])


def test_the_table_holds_numbers_and_sentences(two_methods):
    text = analysis.table(two_methods.assign(flops=3e9, steps=1234.0, cost_vs_full=0.21))
    heading, rule, first, second = text.splitlines()[:4]
    assert rule.strip("- ") == ""
    assert (first.split()[1], second.split()[1]) == ("unif-SGD", "p_SGD")
    assert heading.index("budget") + len("budget") == first.index("30%") + 3  # to the right
    assert second.index("p_SGD") == heading.index("method")  # to the left
    assert "cost of full" in heading
    assert all("1,234" in row and "3.00e+09" in row and "21%" in row for row in (first, second))
    # d = 10, 10, 12 points: mean 10.67, half width 4.302653 * 1.1547 / sqrt(3) = 2.87.
    assert all(part in second.split() for part in ("61.67", "2.08", "+10.67", "+7.80", "+13.54"))
    assert "- p_SGD & co is better than unif-SGD: +10.67 percentage points (95% CI" in text


def test_exports_keep_the_numbers_and_escape_names(two_methods, tmp_path):
    back = pd.read_csv(analysis.export(two_methods, tmp_path / "t.csv"))
    np.testing.assert_allclose(back["difference"], two_methods["difference"])
    tex = analysis.export(two_methods, tmp_path / "t.tex").read_text()
    assert r"p\_SGD \& co" in tex
    assert r"61.67 $\pm$ 2.08" in tex
    lines = analysis.export(two_methods, tmp_path / "t.md").read_text().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(two_methods)
    odd = pd.DataFrame({"name": [r"a\b|c", "<d> & 5%"], "value": [1.0, None], "some": [None, "x"]})
    assert r"| a\\b\|c | 1 |  |" in analysis.markdown(odd)
    assert r"$<$d$>$ \& 5\% &  & x" in analysis.latex(odd)
    for name, said in (("no/t.csv", r"no/t\.csv' cannot be written \(.+\): give another file"),
                       ("table.xlsx", r"\.csv, \.md, \.tex")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            analysis.export(two_methods, tmp_path / name)


# Refusals

FRAME = summary_frame([("p-SGD", 0, 0.5, {})])
CURVE = curve_frame([([0, 10], [0.1, 0.2])])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: analysis.summaries([]), "no record was given"),
        (lambda: analysis.compare(FRAME.drop(columns="budget")),
         "this frame lacks the column budget: it has dataset, "),
        (lambda: analysis.compare(FRAME.drop(columns=["augmentation", "budget"])),
         "lacks the columns augmentation, budget: "),
        (lambda: analysis.compare(FRAME, "p-SGDD"), "did you mean 'p-SGD'"),
        (lambda: analysis.compare(FRAME, margin=0), "margin 0 is not allowed: give a number abov"),
        (lambda: analysis.curves(CURVE, cost="flop"), "did you mean 'flops'"),
        (lambda: analysis.frontier(FRAME, "epoch"), "unknown cost 'epoch'"),
        (lambda: analysis.cost_to_reach(CURVE, 0.5, "hours"), "unknown cost 'hours'"),
        (lambda: analysis.seeds_needed(0.01, 0.01, power=1.0), "power 1.0 is not allowed"),
        (lambda: analysis.seeds_needed(0.01, 0.0),
         "spread 0.0 is not allowed: give a standard deviation above 0"),
        (lambda: analysis.seeds_needed(0.0, 0.01), "cannot be found"),
        (lambda: analysis.seeds_needed(0.01, 0.01, margin=0.005),
         "difference 0.01 is not within the margin 0.005"),
    ],
)  # fmt: skip
def test_what_has_no_answer_is_refused(call, says):
    with pytest.raises(InputError, match=re.escape(says)):
        call()
