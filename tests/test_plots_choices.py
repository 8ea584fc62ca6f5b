"""Whom methods pick, and whether they agree: numbers by hand, and what is drawn of them."""

import numpy as np
import pandas as pd
import pytest
from fake_records import write_arrays, write_run
from matplotlib.figure import Figure

from budgetlab import analysis, plots
from budgetlab.errors import InputError


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("choices")
    settings = {"budget": 0.3, "epochs": 20}
    return [
        write_run(out, method=method, seed=seed, **settings)
        for method in ("unif-SGD", "p-SGD")
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Six samples, trained on 4, 0, 1, 1, 0 and 0 times in two epochs."""
    trained = np.array([[2, 0, 1, 1, 0, 0], [2, 0, 0, 0, 0, 0]])
    arrays = {"times_trained": trained, "correct": np.where(trained > 0, 1, -1)}
    return write_arrays(tmp_path_factory.mktemp("counted"), arrays, [5, 5, 1, 1, 3, 3])


def test_picks_by_counts_places_over_those_of_a_uniform_draw(counted):
    frame = analysis.picks_by(counted, "label", groups=3)
    # Labels 1, 3 and 5 hold 2, 0 and 4 of the 6 places; uniform would be 2 each.
    np.testing.assert_allclose(frame["middle"], [1, 3, 5])
    np.testing.assert_allclose(frame["picked"], [1, 0, 2])
    np.testing.assert_allclose(frame["never"], [0, 1, 0.5])
    assert list(frame["samples"]) == [2, 2, 2]


def test_picks_by_finds_who_draws_the_hard_ones(runs):
    hard = {
        (run.config["method"], run.config["seed"]): analysis.picks_by(run, groups=5)["picked"]
        for run in runs
    }
    for seed in (0, 1):
        uniform, weighted = hard["unif-SGD", seed], hard["p-SGD", seed]
        assert weighted.iloc[-1] > 1.15 > 0.9 > weighted.iloc[0]
        assert np.abs(uniform - 1).max() < 0.15
        assert uniform.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("column", "groups", "said"),
    [
        ("hardness", 5, "unknown column 'hardness': choose one of difficulty, index, label"),
        ("is_noisy", 5, "unknown column 'is_noisy'"),
        ("difficulty", 0, "0 groups of 200 samples"),
        ("difficulty", 201, "give 1 to 200"),
    ],
)
def test_picks_by_says_what_is_wrong(runs, column, groups, said):
    with pytest.raises(InputError, match=said):
        analysis.picks_by(runs[0], column, groups=groups)


def test_picks_by_is_drawn_as_the_mean_over_seeds(runs, ax):
    plots.picks_by(runs, groups=5, ax=ax)
    drawn = {c.get_label(): c for c in ax.containers}
    assert set(drawn) == {"unif-SGD (n = 2)", "p-SGD (n = 2)"}
    both = [analysis.picks_by(run, groups=5)["picked"] for run in runs[2:]]
    heights = drawn["p-SGD (n = 2)"].lines[0].get_ydata()
    np.testing.assert_allclose(np.asarray(heights, float), sum(both) / 2)
    assert f"p-SGD: {(sum(both) / 2).iloc[0]:.2f} in the first group" in plots.alt_text(ax)


def shown(ax):
    """Text of every cell, as a table."""
    size = len(ax.get_xticks())
    cells = {tuple(map(int, t.get_position())): t.get_text() for t in ax.texts}
    return [[cells.get((column, row), "") for column in range(size)] for row in range(size)]


def test_agreement_matrix_is_symmetric_and_has_no_diagonal(ax):
    frame = pd.DataFrame(
        {"a": ["el2n", "el2n", "aum"], "b": ["aum", "first_learned", "first_learned"],
         "spearman": [0.9, -0.2, np.nan]}
    )  # fmt: skip
    plots.agreement_matrix(frame, ax=ax)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["el2n", "aum", "first learned"]
    assert shown(ax) == [["", "0.90", "-0.20"], ["0.90", "", ""], ["-0.20", "", ""]]
    text = plots.alt_text(ax)
    assert "Highest: el2n and aum, 0.90; lowest: el2n and first learned, -0.20" in text


def test_agreement_matrix_of_runs_names_them_and_holds_their_agreement(runs, ax):
    plots.agreement_matrix(runs, measure="times_trained", ax=ax)
    names = [t.get_text() for t in ax.get_xticklabels()]
    assert names == ["unif-SGD, seed 0", "unif-SGD, seed 1", "p-SGD, seed 0", "p-SGD, seed 1"]
    counts = [analysis.measures(run)["times_trained"] for run in runs[2:]]
    rho = counts[0].corr(counts[1], method="spearman")
    assert shown(ax)[2][3] == f"{rho:.2f}"
    assert rho > 0.1 > abs(float(shown(ax)[0][1])) - 0.05


def test_agreement_matrix_refuses_other_values_and_frames(runs):
    with pytest.raises(
        InputError, match=r"unknown value 'pearson': .*choose one of spearman, overlap"
    ):
        plots.agreement_matrix(runs, value="pearson")
    with pytest.raises(InputError, match="lacks the columns a, b"):
        plots.agreement_matrix(pd.DataFrame({"spearman": [1.0]}))


def test_image_rows_stand_below_each_other_with_their_captions(ax):
    grey = np.full((4, 4), 100, np.uint8)
    rows = {"before": [grey, grey, grey], "after": [grey + 50]}
    plots.image_rows(rows, captions={"after": ["60% a\n40% $b"]}, ax=ax)
    left, _, top, _ = np.array([image.get_extent() for image in ax.images]).T
    np.testing.assert_allclose(left - left[0], [0, 1, 2, 0])
    assert top[3] > top[0] == top[1]
    texts = [t.get_text() for t in ax.texts]
    assert texts == ["before", "60% a\n40% \\$b", "after"]
    assert "before (3 images), after (1 images)" in plots.alt_text(ax)


@pytest.mark.parametrize(
    ("rows", "captions", "said"),
    [
        ({}, None, "there are no images"),
        ({"a": []}, None, "there are no images"),
        ({"a": [np.zeros((2, 2))]}, {"b": ["x"]}, "unknown row of captions 'b'"),
        ({"a": [np.zeros((2, 2))]}, {"a": ["x", "y"]}, "1 images and 2 captions"),
    ],
)
def test_image_rows_say_what_is_wrong(rows, captions, said):
    with pytest.raises(InputError, match=said):
        plots.image_rows(rows, captions=captions)
