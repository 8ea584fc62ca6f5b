"""Maps and curves over budget and length: what is drawn is what the frame says."""

import numpy as np
import pandas as pd
import pytest
from fake_records import write_run
from matplotlib.figure import Figure

from budgetlab import analysis, plots
from budgetlab.errors import InputError
from budgetlab.plots import style


def cell(method, redundancy, noise, difference, half, verdict, **more):
    return {"method": method, "redundancy": redundancy, "label_noise": noise,
            "difference": difference, "ci_low": difference - half,
            "ci_high": difference + half, "n": 5, "verdict": verdict} | more  # fmt: skip


@pytest.fixture
def frame():
    return pd.DataFrame(
        [
            cell("p-SGD", 0.0, 0.0, 0.001, 0.004, "equivalent"),
            cell("p-SGD", 0.9, 0.0, 0.021, 0.005, "better"),
            cell("p-SGD", 0.0, 0.4, -0.012, 0.003, "worse"),
            cell("p-SGD", 0.9, 0.4, 0.004, 0.03, "undecided"),
            cell("c-SGD", 0.0, 0.0, 0.005, 0.002, "better"),
        ]
    )


def texts(ax):
    return {t.get_text(): t.get_position() for t in ax.texts}


def test_each_cell_stands_at_its_place_with_its_marks(frame):
    ax = plots.importance_map(frame)
    first, second = ax.child_axes
    assert [panel.get_title() for panel in (first, second)] == ["p-SGD", "c-SGD"]
    # Noise to the right, redundancy upwards: 0.9 is the first line of the image.
    assert texts(first) == {"+0.1\n≈": (0, 1), "+2.1\n●": (0, 0), "-1.2\n●": (1, 1),
                            "+0.4": (1, 0)}  # fmt: skip
    cells = first.images[0].get_array()
    np.testing.assert_allclose(cells, [[2.1, 0.4], [0.1, -1.2]])
    assert first.images[0].get_clim() == (-2.1, 2.1)
    assert [label.get_text() for label in first.get_yticklabels()] == ["0.9", "0"]
    # Both marks: a difference that is there and does not matter; the rest was not run.
    assert texts(second) == {"+0.5\n●≈": (0, 1)}
    assert np.isnan(np.ma.filled(second.images[0].get_array(), np.nan)).sum() == 3
    assert ax.get_title("left") == (
        "Of 5 comparisons: 2 better, 1 worse, 1 equivalent, 1 undecided"
    )
    said = plots.alt_text(ax)
    assert "3 intervals leave out zero and 2 lie within 1" in said
    assert "Highest: p-SGD at redundancy 0.9, label noise 0, +2.1 percentage points" in said


def test_imbalance_and_data_sets_have_rows_of_their_own(frame):
    both = pd.concat([frame.assign(imbalance=1), frame.assign(imbalance=10, redundancy=0.0)])
    both = both.drop_duplicates(["method", "redundancy", "imbalance", "label_noise"])
    two = pd.concat([both.assign(dataset=name) for name in ("shapes", "digits")])
    ax = plots.importance_map(two)
    assert len(ax.child_axes) == 4
    panel = ax.child_axes[0]
    assert panel.get_ylabel() == "digits"
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "redundancy 0.9", "imbalance 10", "neither"
    ]  # fmt: skip
    with pytest.raises(InputError, match="has several rows where label_noise is 0"):
        plots.importance_map(both, y="redundancy")
    with pytest.raises(InputError, match="lacks the column verdict"):
        plots.importance_map(frame.drop(columns="verdict"))


def test_a_wider_margin_marks_more(frame):
    ax = plots.importance_map(frame, margin=0.05)
    assert sum("≈" in text.get_text() for panel in ax.child_axes for text in panel.texts) == 5


def test_the_crossing_names_who_leads_where():
    rows = [
        {"epochs": e, "augmentation": a, "mean": m, "ci_low": m - 0.01, "ci_high": m + 0.01, "n": n}
        for a, levels in {"ricap": (0.4, 0.6), "none": (0.5, 0.55)}.items()
        for e, m, n in zip((100, 10), levels[::-1], (5, 10), strict=True)
    ]
    ax = plots.crossing(pd.DataFrame(rows), line_kws={"linewidth": 4})
    assert ax.get_title("left") == "No augmentation leads at 10 epochs, ricap at 100"
    line = next(line for line in ax.lines if line.get_label().startswith("ricap"))
    np.testing.assert_allclose(line.get_xdata(), [10, 100])
    np.testing.assert_allclose(line.get_ydata(), [40, 60])
    assert line.get_linewidth() == 4
    assert line.get_label() == "ricap (n = 5 to 10)"
    assert line.get_color() == style.looks(["ricap", "mixup"])["ricap"].colour
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.ymin, band.ymax) == pytest.approx((39, 61))
    assert "none goes from 50.0 at 10 epochs to 55.0 at 100" in plots.alt_text(ax)


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
