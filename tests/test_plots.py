"""What is drawn: artists and their data, not pixels."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake_records import write_run
from matplotlib.figure import Figure

from budgetlab import analysis, plots
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.records import Record, open_records

mpl.use("Agg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        write_run(out, method="unif-SGD", budget=0.3, seed=seed)
        write_run(out, method="p-SGD", budget=0.3, seed=seed, gain=0.01 * (seed + 1))
    write_run(out, method="selective-backprop", budget=0.3, seed=0)
    return out


@pytest.fixture(scope="module")
def record(folder):
    return next(r for r in open_records(folder) if r.config["method"] == "p-SGD")


@pytest.fixture
def ax():
    return Figure().subplots()


def points(ax):
    """Offsets of all scattered points."""
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


ESTIMATES = pd.DataFrame(
    {"name": ["uniform", "loss"] * 2, "weights": "unbiased", "bias2": [0.0, 0.1, 0.0, 0.2],
     "steps": [10, 10, 200, 200], "variance": [4.0, 3.0, 2.0, 1.0],
     "variance_ratio": [1.0, 0.75, 1.0, 0.5]}
)  # fmt: skip

CELLS = pd.DataFrame(
    {"method": ["p-SGD", "p-SGD"], "redundancy": [0, 0.9], "label_noise": [0, 0],
     "difference": [0.001, 0.02], "ci_low": [-0.004, 0.015], "ci_high": [0.006, 0.025], "n": 5,
     "verdict": ["equivalent", "better"]}
)  # fmt: skip
LENGTHS = pd.DataFrame(
    {"epochs": [10, 100], "augmentation": "none", "mean": [0.5, 0.6], "ci_low": [0.4, 0.5],
     "ci_high": [0.6, 0.7], "n": 3}
)  # fmt: skip

# What each plot is given: a record, the folder of several, or what stands here.
ON_RECORDS = ("noisy_picks", "learning_curves", "frontier", "differences", "cost_ledger",
              "ranked_picks", "flagged_share", "agreement_matrix", "picks_by", "budget_curves",
              "coverage")  # fmt: skip
GIVEN = {
    "importance_map": (CELLS,),
    "crossing": (LENGTHS,),
    "gradient_errors": (ESTIMATES,),
    "gradient_quality": (ESTIMATES, "variance_ratio"),
    "points_map": (np.eye(2), [0, 1]),
    "image_rows": ({"as stored": [np.zeros((4, 4), np.uint8)] * 3},),
}
OPTIONS = {"points_map": {"chance": [0.5, 2], "picked": [0, 1]}, "sample_life": {"sample": 7},
           "coverage": {"budget": 0.3}}  # fmt: skip


def draw(name, folder, record, ax):
    given = GIVEN.get(name, (folder if name in ON_RECORDS else record,))
    return getattr(plots, name)(*given, **OPTIONS.get(name, {}), ax=ax)


def test_the_worst_class_is_on_top_and_the_confusion_names_it(record, ax):
    plots.class_accuracy(record, ax=ax)
    assert ax.get_yticklabels()[0].get_text() == "square (25)"
    means = [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1]
    assert means[-1] == pytest.approx(100 * analysis.mean_accuracies(record)["over_classes"])
    mixed = plots.confusion(record, ax=Figure().subplots())
    assert "15 of 100 test samples are wrong" in plots.alt_text(mixed)
    assert "circle taken for square (5)" in plots.alt_text(mixed)
    assert [text.get_text() for text in mixed.texts][:3] == ["80", "20", "100"]


def test_a_suspect_is_shown_with_its_label_and_what_the_network_says(ax):
    frame = pd.DataFrame({"label": [0, 1, 1], "suggested": [2, 1, 0], "p_wrong": [0.9, 0.1, 0.7]})
    images = np.zeros((3, 4, 4), np.uint8)
    plots.image_grid(frame, "p_wrong", images=images, classes=["ant", "bee", "cow"], ax=ax)
    assert [text.get_text() for text in ax.texts] == ["0.9\nant\ncow?", "0.7\nbee\nant?",
                                                      "0.1\nbee"]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(plots.__all__) - {"alt_text"}))
def test_a_plot_draws_on_the_axes_given_or_on_new_ones_and_says_so(name, folder, record, ax):
    open_before = plt.get_fignums()
    assert draw(name, folder, record, ax) is ax
    assert plt.get_fignums() == open_before
    text = plots.alt_text(ax)
    assert len(text) > 40
    assert any(character.isdigit() for character in text)
    ax.figure.savefig("/dev/null", format="png", dpi=30)
    made = draw(name, folder, record, None)
    assert plt.gcf() is made.figure
    assert made.figure.get_facecolor() == (1, 1, 1, 1)
    plt.close(made.figure)


def test_plain_axes_have_no_description(ax):
    assert plots.alt_text(ax) == ""


def test_learning_curves_draw_the_means_and_the_bands(folder, ax):
    frame = analysis.curves(folder, points=11)
    plots.learning_curves(frame, ax=ax)
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {"unif-SGD (n = 3)", "p-SGD (n = 3)", "selective-backprop (n = 1)"}
    ours = frame[frame["method"] == "p-SGD"]
    np.testing.assert_allclose(lines["p-SGD (n = 3)"].get_xdata(), ours["cost"])
    np.testing.assert_allclose(lines["p-SGD (n = 3)"].get_ydata(), 100 * ours["mean"])
    assert len(ax.collections) == 2  # no band at n = 1
    band = ax.collections[1].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(100 * (ours["mean"] + ours["spread"]).max())
    plots.learning_curves(folder, cost="flops", ax=(ax := Figure().subplots()))
    assert ax.get_xlabel() == "floating point operations"
    assert ax.lines[0].get_xdata()[-1] == 60 * 3000 * 6


def test_the_order_of_columns_says_nothing(folder, ax):
    frame = pd.DataFrame(analysis.curves(folder, points=5))
    plots.learning_curves(frame[["cost", *frame.columns.drop("cost")]], ax=ax)
    assert {line.get_label().split(" (")[0] for line in ax.lines} == {
        "unif-SGD", "p-SGD", "selective-backprop"
    }  # fmt: skip
    for name in ("differences", "budget_curves", "frontier"):
        made = {"differences": analysis.compare, "budget_curves": analysis.results,
                "frontier": analysis.frontier}[name](folder)  # fmt: skip
        plain = pd.DataFrame(made)
        turned = getattr(plots, name)(plain[plain.columns[::-1]])
        assert plots.alt_text(turned) == plots.alt_text(getattr(plots, name)(made))
    with pytest.raises(InputError, match="say with keys= which of them make a condition"):
        plots.learning_curves(frame[["cost", "mean", "spread", "n"]], ax=ax)
    own = frame[["cost", "mean", "spread", "n"]].assign(method="mine", rule=frame["method"])
    plots.learning_curves(own, keys=["method", "rule"], ax=ax)
    assert "rule p-SGD" in plots.alt_text(ax)


def test_nothing_is_told_apart_by_colour_alone(folder, ax):
    plots.learning_curves(folder, ax=ax)
    assert len({line.get_marker() for line in ax.lines}) == 3
    several = style.looks([f"m{i}" for i in range(7)]).values()
    assert len({str(look.line) for look in several}) == len({look.marker for look in several}) == 7


def test_a_method_looks_the_same_beside_others():
    alone, together = style.looks(["p-SGD"]), style.looks(["mine", "unif-SGD", "p-SGD"])
    assert alone["p-SGD"] == together["p-SGD"]
    assert len({look.colour for look in together.values()}) == 3
    many = style.looks([f"m{i}" for i in range(12)])
    assert len(set(many.values())) == 12


def test_colour_says_the_method_and_the_line_says_the_rest():
    names = {"a1": ("p-SGD", "1"), "a2": ("p-SGD", "2"), "b1": ("SGD", "1"), "b2": ("SGD", "2")}
    looks = style.condition_looks(names)
    assert looks["a1"].colour == looks["a2"].colour != looks["b1"].colour
    assert looks["a1"].line == looks["b1"].line != looks["a2"].line


def test_frontier_marks_each_condition(folder, ax):
    frame = analysis.frontier(folder)
    plots.frontier(frame, ax=ax)
    marks = [line for line in ax.lines if line.get_linestyle() == "None"]
    drawn = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in marks)
    expected = sorted(zip(frame["cost"], 100 * frame["mean"], strict=True))
    np.testing.assert_allclose(drawn, expected)
    low, high = ax.get_ylim()
    assert low < 100 * frame["ci_low"].min()
    assert high > 100 * frame["ci_high"].max()


def test_differences_draw_the_intervals(folder, ax):
    table = analysis.compare(folder, "unif-SGD")
    row = table.set_index("method").loc["p-SGD"]
    plots.differences(table, ax=ax)
    spans = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]
    expected = [100 * row["ci_low"], 100 * row["ci_high"]]
    assert any(np.allclose(span, expected) for span in spans)
    assert row["sentence"][1:] in plots.alt_text(ax)
    assert ax.get_title("left") == "Of 2 comparisons: 2 undecided"
    assert ax.get_xlabel() == "difference from unif-SGD (percentage points), 95% CI"
    half = plots.differences(analysis.compare(folder, confidence=0.5), ax=Figure().subplots())
    assert half.get_xlabel().endswith("50% CI")


def test_one_method_far_off_does_not_squeeze_the_others(ax):
    rows = [("a", 0.01, 0.002), ("b", -0.02, 0.004), ("c", 0.005, 0.004), ("far", -0.45, 0.03)]
    table = pd.DataFrame(
        {"method": [m for m, _, _ in rows], "baseline": "unif-SGD", "pairs": 5, "n": 5,
         "difference": [d for _, d, _ in rows], "ci_low": [d - h for _, d, h in rows],
         "ci_high": [d + h for _, d, h in rows]}
    )  # fmt: skip
    plots.differences(table, ax=ax)
    low, high = ax.get_xlim()
    assert -6 < low < -2.4
    assert 1.2 < high < 6
    # What lies outside stands at the edge, with its number.
    assert [text.get_text() for text in ax.texts] == ["◄ -45.0"]
    plots.differences(table[table["method"] != "far"], ax=(other := Figure().subplots()))
    assert not other.texts
    assert other.get_xlim()[0] < -2.4


def test_the_ledger_stacks_what_was_looked_at(folder, ax):
    plots.cost_ledger(folder, ax=ax)
    names = [label.get_text() for label in ax.get_yticklabels()]
    trained, looked = (container.datavalues for container in ax.containers)
    place = names.index("selective-backprop")
    assert (trained[place], looked[place]) == (360, 1200)
    assert ax.containers[1].patches[place].get_x() == 360
    assert looked[names.index("p-SGD")] == 0
    assert ax.get_title("left").startswith("selective-backprop looks at 3.3 samples")


def test_the_ledger_shows_what_second_networks_took(ax):
    frame = pd.DataFrame(
        {"dataset": "shapes", "augmentation": "standard", "budget": 0.2,
         "method": ["unif-SGD", "rho-loss", "rho-loss", "el2n-pruned"], "seed": [0, 0, 1, 0],
         "trained_samples": [100, 80, 80, 80], "looked_samples": [0, 600, 800, 0],
         "proxy_samples": [0, 20, 40, np.nan]}
    )  # fmt: skip
    plots.cost_ledger(frame, ax=ax)
    names = [label.get_text() for label in ax.get_yticklabels()]
    third = ax.containers[2]
    assert third.get_label() == "through a second network"
    place = names.index("rho-loss")
    assert third.datavalues[place] == 30
    assert third.patches[place].get_x() == 80 + 700
    assert third.datavalues[names.index("el2n-pruned")] == 0  # of an old record: not known
    assert "30 through a second network" in plots.alt_text(ax)


def test_long_names_do_not_squeeze_the_ledger(folder):
    frame = analysis.summaries(folder)
    short = plots.cost_ledger(frame).figure.get_figwidth()
    longer = frame.assign(method=frame["method"] + " with a name that goes on for a long while")
    assert plots.cost_ledger(longer).figure.get_figwidth() > short + 1


def test_loss_quantiles_are_those_of_the_record(record, ax):
    plots.loss_distribution(record, ax=ax)
    median = next(line for line in ax.lines if line.get_label() == "median")
    losses = record.samples["loss"].to_numpy()
    np.testing.assert_allclose(median.get_ydata(), np.nanmedian(losses, axis=1), rtol=1e-6)


def test_probabilities_are_shown_against_uniform(record, ax):
    plots.sampling_probability(record, ax=ax)
    median = next(line for line in ax.lines if line.get_label() == "median")
    assert median.get_ydata()[0] == pytest.approx(1, rel=0.01)
    q = record.samples["probability"].to_numpy()
    np.testing.assert_allclose(median.get_ydata(), 200 * np.median(q, axis=1), rtol=1e-6)


def test_the_chance_of_being_kept_is_shown_as_it_is(record, ax):
    keeps = Record(record.path)
    keeps.about["summary"] = {**record.summary, "probability_kind": "keep"}
    plots.sampling_probability(keeps, ax=ax)
    assert ax.get_ylabel() == "chance of being kept"
    assert ax.lines[0].get_ydata()[0] == pytest.approx(1 / 200, rel=0.01)
    # A frame of it says the same as the record.
    frame = analysis.quantiles(keeps, "probability", (0.05, 0.25, 0.5, 0.75, 0.95))
    again = plots.sampling_probability(frame)
    assert plots.alt_text(again) == plots.alt_text(ax)
    assert again.get_ylabel() == "chance of being kept"
    of_frame = plots.probability_vs_loss(analysis.one_epoch(keeps, 4))
    of_record = plots.probability_vs_loss(keeps, epoch=4)
    assert of_frame.get_ylabel() == of_record.get_ylabel() == "chance of being kept"
    np.testing.assert_allclose(points(of_frame), points(of_record))
    assert points(of_frame)[:, 1].max() <= 1


def test_no_probabilities_is_said(ax):
    plots.sampling_probability(pd.DataFrame(columns=[0.05, 0.25, 0.5, 0.75, 0.95, "n"]), ax=ax)
    assert "no probabilities" in ax.texts[0].get_text()


def test_probability_rises_with_the_loss_that_was_known(record, ax):
    plots.probability_vs_loss(record, epoch=4, ax=ax)
    frame = analysis.one_epoch(record, 4).dropna(subset=["last_loss", "probability"])
    drawn = points(ax)
    assert len(drawn) == len(frame)
    assert sorted(drawn[:, 0]) == pytest.approx(sorted(frame["last_loss"]))
    assert "Spearman correlation 1.00" in plots.alt_text(ax)  # p-SGD draws by the last error


def test_rank_frequency_falls(record, ax):
    plots.ranked_picks(record, ax=ax)
    counts = ax.lines[0].get_ydata()
    assert len(counts) == 200
    assert counts.sum() == 6 * 60
    assert (np.diff(counts) <= 0).all()


def test_measures_without_a_value_are_counted_not_drawn(record, ax):
    frame = analysis.measures(record)
    plots.measure_vs_measure(frame, "forgetting", "aum", ax=ax)
    finite = np.isfinite(frame[["forgetting", "aum"]]).all(axis=1)
    assert len(points(ax)) == finite.sum() < 200
    assert f"{(~finite).sum()} without a finite value" in plots.alt_text(ax)
    top, right = ax.child_axes
    assert sum(patch.get_height() for patch in top.patches) == finite.sum()
    assert sum(patch.get_width() for patch in right.patches) == finite.sum()


def test_class_share_is_relative_to_the_data(record, ax):
    plots.class_share(record, ax=ax)
    frame = analysis.class_share(record)
    line = next(line for line in ax.lines if line.get_label() == "square")
    expected = frame.loc[frame["class"] == "square", "share"] / 0.25
    np.testing.assert_allclose(line.get_ydata(), expected)


def test_flagged_share_shows_the_base_rate(record, ax):
    plots.flagged_share(record, flag="noisy", ax=ax)
    np.testing.assert_allclose(
        ax.lines[0].get_ydata(), 100 * analysis.selection(record)["noisy_share"]
    )
    assert ax.lines[-1].get_ydata()[0] == pytest.approx(10)
    with pytest.raises(InputError, match="noisy, ambiguous"):
        plots.flagged_share(record, flag="rare")


def test_images_come_in_order_with_their_numbers(record, ax):
    frame = analysis.measures(record)
    images = {sample: np.full((4, 4, 3), sample, np.uint8) for sample in range(200)}
    plots.image_grid(frame, "difficulty", count=5, columns=3, images=images, ax=ax)
    shown = [int(image.get_array()[0, 0, 0]) for image in ax.images]
    assert shown == [199, 198, 197, 196, 195]
    assert ax.texts[0].get_text() == "1\nclass 3"  # the label in question is always shown
    left, _, bottom, top = ax.images[3].get_extent()  # the fourth starts the second row
    assert left < 1 < top < bottom
    plots.image_grid(record, "mean_loss", highest=False, count=3, ax=Figure().subplots())
    ax = Figure().subplots()
    images = np.zeros((200, 4, 4), np.uint8)
    plots.image_grid(frame, "difficulty", highest=False, count=2, images=images, ax=ax)
    assert [text.get_text() for text in ax.texts] == ["0\nclass 0", "0.00503\nclass 1"]
    named = plots.image_grid(frame, "difficulty", count=1, images=images, classes=list("abcd"))
    assert named.texts[0].get_text() == "1\nd"


def test_one_life_marks_right_and_wrong(record, ax):
    sample = int(analysis.ranked_counts(record)["sample"].iloc[0])
    plots.sample_life(record, sample, ax=ax)
    life = analysis.sample_life(record, sample).query("correct >= 0")
    right, wrong = (len(collection.get_offsets()) for collection in ax.collections)
    assert (right, wrong) == ((life["correct"] == 1).sum(), (life["correct"] == 0).sum())
    assert ax.child_axes  # its thumbnail
    with pytest.raises(InputError, match="sample is missing"):
        plots.sample_life(record)


def test_credit_is_drawn_as_counted_and_against_a_run_without_mixing(folder, record, ax):
    plots.credit_calibration(record, bins=4, ax=ax)
    frame = analysis.calibration(record, 4)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), frame["right"])
    assert ax.get_title("left") == ""  # of one run alone there is no best
    ax = Figure().subplots()
    other = next(r for r in open_records(folder) if r.config["method"] == "unif-SGD")
    plots.credit_calibration([record, other], reference=other, bins=4, ax=ax)
    frame = analysis.credit_by_reference(record, other, 4)
    line = next(line for line in ax.lines if "p-SGD" in line.get_label())
    np.testing.assert_allclose(line.get_ydata(), frame["credited"])
    assert f"{frame.attrs['spearman']:.2f}" in plots.alt_text(ax)
    assert "finds its sample best: correlation" in ax.get_title("left")


@pytest.mark.parametrize(
    "call",
    [plots.learning_curves, plots.frontier, plots.differences, plots.cost_ledger,
     plots.loss_distribution, plots.probability_vs_loss, plots.ranked_picks,
     plots.measure_vs_measure, plots.class_share, plots.sample_life],
)  # fmt: skip
def test_missing_columns_are_named(call, ax):
    with pytest.raises(InputError, match=r"lacks the column.*: it has only"):
        call(pd.DataFrame({"only": [1.0]}), ax=ax)


def test_names_stay_literal(folder, ax):
    frame = analysis.curves(folder, points=3)
    frame["method"] = frame["method"].replace({"p-SGD": "$x_{$", "unif-SGD": "_hidden"})
    plots.learning_curves(frame, ax=ax)
    ax.figure.savefig("/dev/null", format="png", dpi=20)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any("hidden" in label for label in labels)
    assert len(labels) == 3


def test_the_gallery_shows_every_plot_with_its_call(folder, tmp_path):
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "docs" / "gallery.py"
    spec = importlib.util.spec_from_file_location("gallery", path)
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    text = gallery.build(folder, tmp_path / "gallery.html").read_text()
    for name in set(plots.__all__) - {"alt_text"}:
        assert f"bl.plots.{name}(" in text
    assert text.count("<img") == len(gallery.CALLS)


def test_no_bias_is_said_and_not_drawn_as_a_number(ax):
    plots.gradient_errors(ESTIMATES, ax=ax)
    marks = {line.get_label(): line for line in ax.lines}
    assert marks["bias²"].get_ydata().tolist() == [1]
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("no bias seen", 0)]
    table = ESTIMATES.assign(bias2=0.0)
    ax.clear()
    plots.gradient_errors(table, ax=ax)
    assert "bias²" not in {line.get_label() for line in ax.lines}


@pytest.mark.parametrize(
    ("ends", "value", "said"),
    [
        ({"a": 80.0, "b": 90.0}, "test_accuracy", "B ends best, with 90%"),
        ({"a": 0.5, "b": 0.7}, "test_loss", "A ends best, with 0.5"),
        ({"a": 80.0}, "test_accuracy", ""),
        ({"a": 80.0, "b": 80.0}, "test_accuracy", ""),
    ],
)
def test_a_title_names_the_leader_where_there_is_one(ends, value, said):
    assert style.leader(ends, value) == said


def test_the_finding_of_a_title_lies_furthest_from_none():
    assert style.furthest({"a": 1.1, "b": 0.2, "c": 1.5}) == "b"
    assert style.furthest({"a": 0.0, "b": 3.0}, 0.0) == "b"


# ---- where the legend is put ----


def named_lines(ax, heights):
    for number, height in enumerate(heights):
        ax.plot(np.arange(20), height, label=f"line {number}")
    return style.finish(ax, x="epoch", legend=True, text="Lines.")


def hidden(ax):
    """Lines that run through the legend, once everything is laid out."""
    ax.figure.draw_without_rendering()
    box = ax.get_legend().get_window_extent()
    paths = [line.get_path().transformed(ax.transData) for line in ax.lines]
    return [path for path in paths if path.intersects_bbox(box, filled=False)]


def is_beside(ax):
    ax.figure.draw_without_rendering()
    return ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


def test_a_legend_stands_beside_and_stays_in_the_picture():
    zigzag = [np.arange(20) % 2 * top for top in (1.0, 0.9, 0.8)]
    ax = named_lines(style.axes(None), zigzag)
    assert is_beside(ax)
    assert not hidden(ax)
    assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1


def test_a_legend_never_reaches_into_a_neighbour():
    zigzag = [np.arange(20) % 2 * top for top in (1.0, 0.9, 0.8)]
    axes = plt.subplots(1, 2, layout="constrained")[1]
    assert not is_beside(named_lines(axes[0], zigzag))
    assert not is_beside(named_lines(plt.subplots()[1], zigzag))
