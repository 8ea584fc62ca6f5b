"""What is drawn of samples: what was chosen, measures, cells, images and points."""

import numpy as np
import pandas as pd
import pytest
from fake_records import write_run
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from budgetlab import analysis, methods, plots
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.plots.images import CLASSES, extent_of, sizes, surface_colours
from budgetlab.plots.samples import histogram, ranked
from budgetlab.records import Record


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of uniform draws, two of p-SGD, over 20 epochs."""
    out = tmp_path_factory.mktemp("choices")
    return [write_run(out, method=method, seed=seed, budget=0.3, epochs=20)
            for method in ("unif-SGD", "p-SGD") for seed in (0, 1)]  # fmt: skip


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("one"), method="p-SGD", budget=0.3)


@pytest.fixture
def ax():
    return Figure().subplots()


def points(ax):
    """Offsets of all scattered points."""
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


def line(ax, name=""):
    """Heights of the first line whose label holds this."""
    found = next(one for one in ax.lines if name in one.get_label())
    return np.asarray(found.get_ydata(), float)


def said(ax):
    return [text.get_text() for text in ax.texts]


def rows(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


# What is drawn of a record of p-SGD, and what the analysis says of it.
DRAWN = {
    "times trained, by rank": (
        lambda r: line(plots.ranked_picks(r)),
        lambda r: analysis.ranked_counts(r)["times_trained"],
    ),
    "share of wrong labels": (
        lambda r: line(plots.flagged_share(r)),
        lambda r: 100 * analysis.selection(r)["noisy_share"],
    ),
    "their share of the data": (lambda r: plots.flagged_share(r).lines[1].get_ydata(), 10),
    "coverage": (
        lambda r: line(plots.coverage(analysis.selection(r))),
        lambda r: 100 * analysis.selection(r)["coverage"],
    ),
    "calibration": (
        lambda r: plots.credit_calibration(r, bins=4).lines[1].get_ydata(),
        lambda r: analysis.calibration(r, 4)["right"],
    ),
    "losses": (
        lambda r: line(plots.loss_distribution(r), "median"),
        lambda r: np.nanmedian(r.samples["loss"], axis=1),
    ),
    "probabilities, against uniform ones": (
        lambda r: line(plots.sampling_probability(r), "median"),
        lambda r: 200 * np.median(r.samples["probability"], axis=1),
    ),
    "losses of a scatter": (
        lambda r: sorted(points(plots.probability_vs_loss(r, epoch=4))[:, 0]),
        lambda r: sorted(analysis.one_epoch(r, 4).dropna(subset=["last_loss"])["last_loss"]),
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_is_what_the_analysis_says(record, name):
    drawn, expected = DRAWN[name]
    expected = expected(record) if callable(expected) else expected
    np.testing.assert_allclose(drawn(record), expected, rtol=1e-6)


def test_a_fan_has_the_colour_of_its_method(record, tmp_path):
    other = write_run(tmp_path, method="selective-backprop")
    for fan in (plots.loss_distribution, plots.sampling_probability):
        for run in (record, other):
            ax, look = fan(run), methods.find(run.config["method"]).style
            bands = [band.get_facecolor()[0][:3] for band in ax.collections]
            colours = {to_hex(colour).upper() for colour in (*bands, ax.lines[-1].get_color())}
            assert colours == {look.colour.upper()}
        given = fan(record, look=style.LineStyle("#CC79A7", "-", "o"))
        assert given.lines[-1].get_color() == "#CC79A7"


# ---- what was chosen ----


def test_that_nothing_was_left_out_is_said_and_an_unknown_flag_is_refused(record):
    counts = pd.DataFrame({"rank": [1, 2], "times_trained": [3, 1]})
    assert plots.ranked_picks(counts).get_title("left") == "Every sample is trained on"
    with pytest.raises(InputError, match="noisy, ambiguous"):
        plots.flagged_share(record, flag="rare")


def test_picks_and_coverage_are_means_over_the_seeds(runs, ax):
    picked = [analysis.picks_by(run, groups=5)["picked"] for run in runs]
    plots.picks_by(runs, groups=5, ax=ax)
    drawn = {c.get_label(): c.lines[0] for c in ax.containers}
    mean = (picked[2] + picked[3]) / 2
    np.testing.assert_allclose(np.asarray(drawn["p-SGD (n = 2)"].get_ydata(), float), mean)
    assert drawn["p-SGD (n = 2)"].get_linestyle() == "None"  # between two groups is no line
    plots.coverage(runs[:2], budget=0.3, ax=(ax := Figure().subplots()))
    expected, ours = ax.lines
    parts = [analysis.selection(run)["coverage"].to_numpy() for run in runs[:2]]
    np.testing.assert_allclose(ours.get_ydata(), 100 * np.mean(parts, axis=0))
    np.testing.assert_allclose(expected.get_ydata()[:2], [30, 51])


def test_each_class_has_a_row_of_its_share_in_at_most_ten_spans_of_epochs(record, runs):
    def shown(data):
        panel = plots.class_share(data, ax=Figure().subplots())
        return rows(panel), 1 + panel.images[0].get_array(), panel

    frame = analysis.class_share(record)
    ratio = frame.pivot(index="class", columns="epoch", values="share") / 0.25
    names, cells, panel = shown(record)
    np.testing.assert_allclose(cells, ratio.loc[names])
    assert list(cells[:, -1]) == sorted(cells[:, -1], reverse=True)
    assert said(panel)[0] == f"{cells[0, 0]:.2f}"
    long = analysis.class_share(runs[2])  # 20 epochs
    names, cells, panel = shown(long)
    assert (cells.shape, panel.get_xlabel()) == ((4, 10), "up to epoch (means of 2)")
    first = long[(long["class"] == names[0]) & (long["epoch"] <= 2)]["share"]
    assert cells[0, 0] == pytest.approx((first / 0.25).mean())
    many = pd.concat(long.assign(**{"class": long["class"] + str(i)}) for i in range(8))
    assert len(shown(many)[0]) == 20


def test_a_mean_over_seeds_ends_with_the_first_of_them_and_long_runs_are_averaged(ax):
    def seeds(*lengths):
        return pd.concat(
            pd.DataFrame({"method": "p-SGD", "seed": seed, "epoch": range(1, length + 1),
                          "times_base": 1.0 + seed}) for seed, length in enumerate(lengths)
        )  # fmt: skip

    curve = plots.noisy_picks(seeds(12, 13), ax=ax).lines[0]
    np.testing.assert_allclose(curve.get_xdata(), range(1, 13))
    np.testing.assert_allclose(curve.get_ydata(), 1.5)
    assert ax.get_title("left") == "p-SGD ends at 1.50 times their share"
    long = plots.noisy_picks(seeds(100, 100), ax=Figure().subplots())
    np.testing.assert_allclose(long.lines[0].get_xdata(), np.arange(3, 100, 5))
    assert long.get_xlabel() == "epoch (means of 5)"


def test_credit_is_drawn_against_a_run_without_mixing(runs, ax):
    plots.credit_calibration([runs[2], runs[0]], reference=runs[0], bins=4, ax=ax)
    frame = analysis.credit_by_reference(runs[2], runs[0], 4)
    np.testing.assert_allclose(line(ax, "p-SGD"), frame["credited"])
    assert f"{frame.attrs['spearman']:.2f}" in plots.alt_text(ax)
    assert "finds its sample best: correlation" in ax.get_title("left")


# ---- losses, probabilities, measures ----


def test_the_chance_of_being_kept_is_shown_as_it_is(record, ax):
    keeps = Record(record.path)
    keeps.about["summary"] = {**record.summary, "probability_kind": "keep"}
    plots.sampling_probability(keeps, ax=ax)
    assert ax.lines[0].get_ydata()[0] == pytest.approx(1 / 200, rel=0.01)
    # A frame of it says the same as the record.
    frame = analysis.quantiles(keeps, "probability", (0.05, 0.25, 0.5, 0.75, 0.95))
    assert plots.alt_text(plots.sampling_probability(frame)) == plots.alt_text(ax)
    of_frame = plots.probability_vs_loss(analysis.one_epoch(keeps, 4))
    of_record = plots.probability_vs_loss(keeps, epoch=4)
    for one in (ax, of_frame, of_record):
        assert one.get_ylabel() == "chance of being kept"
    np.testing.assert_allclose(points(of_frame), points(of_record))
    assert points(of_frame)[:, 1].max() <= 1
    # p-SGD draws by the last error.
    assert "Spearman correlation 1.00" in plots.alt_text(of_record)
    none = pd.DataFrame(columns=[0.05, 0.25, 0.5, 0.75, 0.95, "n"])
    assert "no probabilities" in said(plots.sampling_probability(none))[0]


def test_a_scatter_shows_and_counts_every_sample_that_has_both_values(record, ax):
    frame = analysis.measures(record)
    plots.measure_vs_measure(frame, "forgetting", "aum", ax=ax)
    finite = np.isfinite(frame[["forgetting", "aum"]]).all(axis=1)
    assert len(points(ax)) == finite.sum() < 200
    assert f"{(~finite).sum()} without a finite value" in plots.alt_text(ax)
    top, right = ax.child_axes
    assert sum(patch.get_height() for patch in top.patches) == finite.sum()
    assert sum(patch.get_width() for patch in right.patches) == finite.sum()


def test_one_life_marks_right_and_wrong(record, ax):
    sample = int(analysis.ranked_counts(record)["sample"].iloc[0])
    plots.sample_life(record, sample, ax=ax)
    life = analysis.sample_life(record, sample).query("correct >= 0")
    right, wrong = (len(collection.get_offsets()) for collection in ax.collections)
    assert (right, wrong) == ((life["correct"] == 1).sum(), (life["correct"] == 0).sum())
    assert ax.child_axes  # its thumbnail
    with pytest.raises(InputError, match="sample is missing"):
        plots.sample_life(record)


def test_values_are_ranked_and_counted_with_the_few_extreme_ones_in_the_last_bar(ax):
    values = np.r_[np.linspace(0, 1, 999), 50.0].astype(np.float32)
    ranked(values, y="q", ax=ax)
    assert ax.lines[0].get_ydata()[[0, -1]].tolist() == [50, 0]
    assert len(ax.lines[0].get_ydata()) == 400
    (bars,) = histogram(values, x="loss").patches
    assert bars.get_data().values.sum() == 1000
    seen, expected = histogram(values, x="loss", weights=np.full(1000, 0.5), least=3).patches
    np.testing.assert_allclose(expected.get_data().values, seen.get_data().values / 2)
    assert seen.get_data().edges[-1] == 3


# ---- cells ----

CELLS = pd.DataFrame(
    [
        ("p-SGD", 0.0, 0.0, 0.001, 0.004, "equivalent"),
        ("p-SGD", 0.9, 0.0, 0.021, 0.005, "better"),
        ("p-SGD", 0.0, 0.4, -0.012, 0.003, "worse"),
        ("p-SGD", 0.9, 0.4, 0.004, 0.03, "undecided"),
        ("c-SGD", 0.0, 0.0, 0.005, 0.002, "better"),
    ],
    columns=["method", "redundancy", "label_noise", "difference", "half", "verdict"],
)
CELLS = CELLS.assign(n=5, ci_low=CELLS["difference"] - CELLS["half"],
                     ci_high=CELLS["difference"] + CELLS["half"])  # fmt: skip


def test_each_cell_of_a_map_stands_at_its_place_with_its_marks(ax):
    plots.importance_map(CELLS, ax=ax)
    first, second = ax.child_axes
    assert [panel.get_title() for panel in (first, second)] == ["p-SGD", "c-SGD"]
    # Noise to the right, redundancy upwards: 0.9 is the first line of the image.
    assert {t.get_text(): t.get_position() for t in first.texts} == {
        "+0.1 ≈": (0, 1), "+2.1 ●": (0, 0), "-1.2 ●": (1, 1), "+0.4": (1, 0)
    }  # fmt: skip
    np.testing.assert_allclose(first.images[0].get_array(), [[2.1, 0.4], [0.1, -1.2]])
    assert first.images[0].get_clim() == (-2.1, 2.1)
    assert rows(first) == ["0.9", "0"]
    # Both marks: a difference that is there and does not matter; the rest was not run.
    assert said(second) == ["+0.5 ●≈"]
    assert np.isnan(np.ma.filled(second.images[0].get_array(), np.nan)).sum() == 3
    assert ax.get_title("left") == "Of 5 comparisons: 2 better, 1 worse, 1 equivalent, 1 undecided"
    text = plots.alt_text(ax)
    assert "Intervals without zero: 3; within 1 of zero: 2." in text
    assert "Highest: p-SGD at redundancy 0.9, label noise 0, +2.1 percentage points" in text
    wider = plots.importance_map(CELLS, margin=0.05)
    assert sum("≈" in text for panel in wider.child_axes for text in said(panel)) == 5


def test_imbalance_and_data_sets_have_rows_of_their_own():
    both = pd.concat([CELLS.assign(imbalance=1), CELLS.assign(imbalance=10, redundancy=0.0)])
    both = both.drop_duplicates(["method", "redundancy", "imbalance", "label_noise"])
    two = pd.concat([both.assign(dataset=name) for name in ("shapes", "digits")])
    first, *others = plots.importance_map(two).child_axes
    assert (len(others), first.get_ylabel()) == (3, "digits")
    assert rows(first) == ["redundancy 0.9", "imbalance 10", "neither"]
    with pytest.raises(InputError, match="has several rows where label_noise is 0"):
        plots.importance_map(both, y="redundancy")


def test_agreement_is_a_symmetric_table_without_a_diagonal(runs, ax):
    def shown(ax):
        size = len(ax.get_xticks())
        cells = {tuple(map(int, t.get_position())): t.get_text() for t in ax.texts}
        return [[cells.get((column, row), "") for column in range(size)] for row in range(size)]

    frame = pd.DataFrame(
        {"a": ["el2n", "el2n", "aum"], "b": ["aum", "first_learned", "first_learned"],
         "spearman": [0.9, -0.2, np.nan]}
    )  # fmt: skip
    plots.agreement_matrix(frame, ax=ax)
    assert rows(ax) == ["el2n", "aum", "first learned"]
    assert shown(ax) == [["", "0.90", "-0.20"], ["0.90", "", ""], ["-0.20", "", ""]]
    assert "Highest: el2n and aum, 0.90; lowest: el2n and first" in plots.alt_text(ax)
    of_runs = plots.agreement_matrix(runs, measure="times_trained", ax=Figure().subplots())
    assert rows(of_runs) == [f"{m}, seed {seed}" for m in ("unif-SGD", "p-SGD") for seed in (0, 1)]
    counts = [analysis.measures(run)["times_trained"] for run in runs[2:]]
    assert shown(of_runs)[2][3] == f"{counts[0].corr(counts[1], method='spearman'):.2f}"
    with pytest.raises(InputError, match=r"'pearson': .*choose one of spearman, overlap"):
        plots.agreement_matrix(runs, value="pearson")
    with pytest.raises(InputError, match="is a single run: give two or more"):
        plots.agreement_matrix(runs[:1])
    unknown = plots.agreement_matrix(frame[2:], ax=Figure().subplots())
    assert "none of the 1 pairs can be compared" in plots.alt_text(unknown)


def test_the_worst_class_is_on_top_and_the_confusion_names_it(record, ax):
    plots.class_accuracy(record, ax=ax)
    table = analysis.group_accuracy(record).sort_values("accuracy", kind="stable")
    assert rows(ax) == [f"{r.group} ({r.n})" for r in table.itertuples()]
    assert ax.yaxis_inverted()
    means = [one.get_xdata()[0] for one in ax.lines if len(set(one.get_xdata())) == 1]
    assert means[-1] == pytest.approx(100 * analysis.mean_accuracies(record)["over_classes"])
    mixed = plots.confusion(record, ax=Figure().subplots())
    assert "15 of 100 test samples are wrong" in plots.alt_text(mixed)
    assert "circle taken for square (5)" in plots.alt_text(mixed)
    assert said(mixed)[:3] == ["80", "20", "100"]


# ---- images ----


def test_images_come_in_order_with_their_numbers(record, ax):
    frame = analysis.measures(record)
    images = {sample: np.full((4, 4, 3), sample, np.uint8) for sample in range(200)}
    plots.image_grid(frame, "difficulty", count=5, columns=3, images=images, ax=ax)
    shown = [int(image.get_array()[0, 0, 0]) for image in ax.images]
    assert shown == [199, 198, 197, 196, 195]
    assert said(ax)[0] == "1\nclass 3"  # the label in question is always shown
    left, _, bottom, top = ax.images[3].get_extent()  # the fourth starts the second row
    assert left < 1 < top < bottom
    grey = np.zeros((200, 4, 4), np.uint8)
    suspects = pd.DataFrame({"label": [0, 1], "suggested": [2, 1], "p_wrong": [0.9, 0.1]})
    classes = ["ant", "bee", "cow", "dog"]
    for data, by, options, expected in (
        (frame, "difficulty", {"highest": False, "count": 2}, ["0\nclass 0", "0.00503\nclass 1"]),
        (frame, "difficulty", {"count": 1, "classes": classes}, ["1\ndog"]),
        (frame[["difficulty"]], "difficulty", {"count": 1}, ["1"]),
        # With its label, and what the network says.
        (suspects, "p_wrong", {"classes": classes}, ["0.9\nant\ncow?", "0.1\nbee"]),
    ):
        assert said(plots.image_grid(data, by, images=grey, **options)) == expected
    with pytest.raises(InputError, match="give images=, by sample number"):
        plots.image_grid(frame, "difficulty")


def test_image_rows_stand_below_each_other_with_their_captions(ax):
    grey = np.full((4, 4), 100, np.uint8)
    given = {"before": [grey, grey, grey], "after": [grey + 50]}
    plots.image_rows(given, captions={"after": ["60% a\n40% $b"]}, ax=ax)
    left, _, top, _ = np.array([image.get_extent() for image in ax.images]).T
    np.testing.assert_allclose(left - left[0], [0, 1, 2, 0])
    assert top[3] > top[0] == top[1]
    assert said(ax) == ["before", "60% a\n40% \\$b", "after"]
    assert "before (3 images), after (1 images)" in plots.alt_text(ax)
    for given, captions, reason in (
        ({"a": []}, None, "there are no images"),
        ({"a": [grey]}, {"b": ["x"]}, "unknown row of captions 'b'"),
        ({"a": [grey]}, {"a": ["x", "y"]}, "1 images, 2 captions"),
    ):
        with pytest.raises(InputError, match=reason):
            plots.image_rows(given, captions=captions)


# ---- points ----

X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
Y = np.array([0, 0, 1, 1])


def test_a_point_says_its_chance_its_class_and_whether_it_was_picked(ax):
    area = sizes(np.array([1.0, 2.0, 0.5, 0.0, 1e3, 1e6]))
    np.testing.assert_allclose(np.sqrt(area[:3] / area[0]), [1, 2, 0.5])
    # Neither invisible nor as large as the figure.
    assert area[3] > 0
    assert area[4] == area[5]
    plots.points_map(X, Y, chance=[1, 2, np.nan, 0.5], picked=[True, False, False, True], ax=ax)
    first, second = ax.collections
    np.testing.assert_array_equal(first.get_offsets(), X[:2])
    np.testing.assert_allclose(second.get_sizes(), sizes(np.array([1, 0.5])))
    paths = [collection.get_paths()[0].vertices for collection in (first, second)]
    assert paths[0].shape != paths[1].shape
    np.testing.assert_allclose(first.get_facecolor()[0, :3], to_rgb(CLASSES[0]))
    dark = [np.allclose(edge[:3], to_rgb(style.INK))
            for collection in ax.collections for edge in collection.get_edgecolor()]  # fmt: skip
    assert dark == [True, False, False, True]
    assert "2 picked" in plots.alt_text(ax)
    shaded = plots.points_map(X, Y, chance=[0.1, 2, 1, 1], shade=True).collections[0]
    assert len(set(shaded.get_sizes())) == 1
    pale, deep = shaded.get_facecolor()[:, :3]
    assert pale.sum() > deep.sum()


def test_places_have_the_colour_of_their_class_and_are_pale_where_it_is_unsure(ax):
    winner, sure = np.array([[0, 1], [0, 1]]), np.array([[1.0, 1.0], [0.6, 0.5]])
    away = 255 - surface_colours(winner, sure).astype(int)
    # On the line from white to the colour of the class; half and half says nothing.
    towards = 255 * (1 - np.array([to_rgb(colour) for colour in CLASSES[:2]]))
    np.testing.assert_allclose(away[0], 0.4 * towards, atol=1)
    np.testing.assert_allclose(away[1], [0.2 * 0.4 * towards[0], 0 * towards[1]], atol=1)
    plots.points_map(X, Y, surface=(winner, sure), ax=ax)
    (image,) = ax.images
    # The lowest row comes first, as in the frames of the playground.
    assert (image.origin, image.get_extent()) == ("lower", pytest.approx(extent_of(X)))
    assert extent_of(X) == pytest.approx((-0.06, 1.06, -0.12, 2.12))


@pytest.mark.parametrize(
    ("x", "y", "more"),
    [
        (X, Y[:3], {}),
        (X[:, :1], Y, {}),
        (X[:0], Y[:0], {}),
        (X, Y, {"chance": [1, 2]}),
        (X, Y, {"picked": [[True] * 4]}),
    ],
)
def test_points_that_do_not_fit_are_refused(x, y, more, ax):
    with pytest.raises(InputError, match="do not fit"):
        plots.points_map(x, y, ax=ax, **more)
