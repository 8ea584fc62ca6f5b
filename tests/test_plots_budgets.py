"""Results over the budget, and the share of the data that was seen."""

import numpy as np
import pytest
from fake_records import write_run
from matplotlib.figure import Figure

from budgetlab import analysis, plots
from budgetlab.errors import InputError


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("budgets")
    return [
        write_run(out, method="unif-SGD", budget=budget, schedule=name, seed=seed, gain=gain)
        for budget in (0.5, 0.1)
        for name, gain in (("linear", 0.0), ("constant", -0.2))
        for seed in (0, 1)
    ]


def lines(ax):
    """Curves by their name in the legend."""
    return {bars.get_label(): bars.lines[0] for bars in ax.containers}


def test_one_curve_a_condition_rises_with_the_budget(runs, ax):
    plots.budget_curves(runs, ax=ax)
    drawn = lines(ax)
    assert set(drawn) == {"schedule linear (n = 2)", "schedule constant (n = 2)"}
    table = analysis.results(runs).set_index(["schedule", "budget"])["mean"]
    for name in ("linear", "constant"):
        curve = drawn[f"schedule {name} (n = 2)"]
        # Budgets in order, whatever the order of the runs, and beside their tick.
        np.testing.assert_allclose(curve.get_xdata(), [10, 50], rtol=0.03)
        np.testing.assert_allclose(curve.get_ydata(), [100 * table[name, 0.1],
                                                       100 * table[name, 0.5]])  # fmt: skip
    assert len({line.get_linestyle() for line in drawn.values()}) == 2
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10", "50"]


def test_bars_are_one_standard_deviation(runs, ax):
    table = analysis.results(runs)
    plots.budget_curves(table, ax=ax)
    row = table[(table["schedule"] == "linear") & (table["budget"] == 0.1)].iloc[0]
    bars = ax.containers[0].lines[2][0].get_segments()
    low, high = bars[0][:, 1]
    assert (low + high) / 2 == pytest.approx(100 * row["mean"])
    assert (high - low) / 2 == pytest.approx(100 * row["spread"])


def test_results_without_a_budget_are_refused(runs, ax):
    with pytest.raises(InputError, match="lacks the column budget"):
        plots.budget_curves(analysis.results(runs).drop(columns="budget"), ax=ax)


def test_coverage_is_averaged_over_the_seeds(runs, ax):
    same = [run for run in runs if run.config["budget"] == 0.1][:2]
    plots.coverage(same, budget=0.1, ax=ax)
    ours, expected = ax.lines
    parts = [analysis.selection(run)["coverage"].to_numpy() for run in same]
    np.testing.assert_allclose(ours.get_ydata(), 100 * np.mean(parts, axis=0))
    np.testing.assert_allclose(expected.get_ydata()[:2], [10, 19])
    # Draws of an even tenth follow the expectation, to within a few points.
    np.testing.assert_allclose(ours.get_ydata(), expected.get_ydata(), atol=4)


def test_coverage_of_one_frame(runs, ax):
    frame = analysis.selection(runs[0])
    plots.coverage(frame, ax=ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * frame["coverage"])
    assert len(ax.lines) == 1
