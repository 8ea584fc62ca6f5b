"""What is drawn of runs: artists and their data, not pixels; style, names and legends."""

import importlib.util
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake_records import write_run
from matplotlib.figure import Figure

from budgetlab import analysis, explore, plots
from budgetlab.analysis import RecordWarning
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.records import open_records

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


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def rows(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


ESTIMATES = pd.DataFrame(
    {"name": ["uniform", "loss"] * 2, "weights": "unbiased", "bias2": [0.0, 0.1, 0.0, 0.2],
     "steps": [10, 10, 200, 200], "variance": [4.0, 3.0, 2.0, 1.0],
     "variance_ratio": [1.0, 0.75, 1.0, 0.5]}
)  # fmt: skip
CELLS = pd.DataFrame(
    {"method": "p-SGD", "redundancy": [0, 0.9], "label_noise": 0, "difference": [0.001, 0.02],
     "ci_low": [-0.004, 0.015], "ci_high": [0.006, 0.025], "n": 5,
     "verdict": ["equivalent", "better"]}
)  # fmt: skip
LENGTHS = pd.DataFrame(
    {"epochs": [100, 10] * 2, "augmentation": ["ricap", "ricap", "none", "none"],
     "mean": [0.6, 0.4, 0.55, 0.5], "n": [5, 10] * 2}
)  # fmt: skip
LENGTHS = LENGTHS.assign(ci_low=LENGTHS["mean"] - 0.01, ci_high=LENGTHS["mean"] + 0.01)
# What each plot is given: a record, the folder of several, or what stands here.
ON_RECORDS = ("noisy_picks", "learning_curves", "frontier", "differences", "cost_ledger",
              "ranked_picks", "flagged_share", "agreement_matrix", "picks_by", "budget_curves",
              "coverage")  # fmt: skip
GIVEN = {
    "importance_map": (CELLS,), "crossing": (LENGTHS,), "gradient_errors": (ESTIMATES,),
    "gradient_quality": (ESTIMATES, "variance_ratio"), "points_map": (np.eye(2), [0, 1]),
    "image_rows": ({"as stored": [np.zeros((4, 4), np.uint8)] * 3},),
}  # fmt: skip
OPTIONS = {"points_map": {"chance": [0.5, 2], "picked": [0, 1]}, "sample_life": {"sample": 7},
           "coverage": {"budget": 0.3}}  # fmt: skip
NAMES = sorted(set(plots.__all__) - {"alt_text"})
FREE = ("image_grid", "image_rows", "points_map", "confusion", "class_accuracy", "detection_curve",
        "noisy_picks", "flagged_share", "picks_by", "credit_calibration")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_plot_draws_on_the_axes_given_or_on_new_ones_and_says_so(name, folder, record, ax):
    given = GIVEN.get(name, (folder if name in ON_RECORDS else record,))
    draw, options, before = getattr(plots, name), OPTIONS.get(name, {}), plt.get_fignums()
    assert plots.alt_text(ax) == ""
    assert draw(*given, **options, ax=ax) is ax
    assert plt.get_fignums() == before
    text = plots.alt_text(ax)
    assert len(text) > 40
    assert any(character.isdigit() for character in text)
    ax.figure.savefig("/dev/null", format="png", dpi=30)
    made = draw(*given, **options)
    assert plt.gcf() is made.figure
    assert made.figure.get_facecolor() == (1, 1, 1, 1)
    if name not in FREE:
        with pytest.raises(InputError, match=r"lacks the column.*: it has only"):
            draw(pd.DataFrame({"only": [1.0]}), ax=ax)


# ---- curves over training, budget and length ----


def test_learning_curves_draw_the_means_and_the_bands(folder, ax):
    frame = analysis.curves(folder, points=11)
    plots.learning_curves(frame, ax=ax)
    drawn = lines(ax)
    assert set(drawn) == {"unif-SGD (n = 3)", "p-SGD (n = 3)", "selective-backprop (n = 1)"}
    assert len({line.get_marker() for line in ax.lines}) == 3  # not by colour alone
    ours = frame[frame["method"] == "p-SGD"]
    np.testing.assert_allclose(drawn["p-SGD (n = 3)"].get_xdata(), ours["cost"])
    np.testing.assert_allclose(drawn["p-SGD (n = 3)"].get_ydata(), 100 * ours["mean"])
    assert len(ax.collections) == 2  # no band at n = 1
    band = ax.collections[1].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(100 * (ours["mean"] + ours["spread"]).max())
    plots.learning_curves(folder, cost="flops", ax=(ax := Figure().subplots()))
    assert ax.get_xlabel() == "floating point operations"
    assert ax.lines[0].get_xdata()[-1] == 60 * 3000 * 6


def test_a_condition_without_a_finished_run_is_marked_and_not_ranked(tmp_path, folder, ax):
    stopped = [write_run(tmp_path, method="c-SGD", budget=0.3, seed=seed, gain=0.3,
                         status="stopped") for seed in range(2)]  # fmt: skip
    runs = [*open_records(folder), *stopped]
    plots.learning_curves(runs, ax=ax)
    assert set(lines(ax)) == {"unif-SGD (n = 3)", "p-SGD (n = 3)", "selective-backprop (n = 1)",
                              "c-SGD (n = 2, unfinished)"}  # fmt: skip
    assert "c-SGD" not in ax.get_title("left")
    assert "ends best" in ax.get_title("left")
    chart = explore.learning(runs)
    assert [*chart.twin()["condition"].unique()][2:] == ["c-SGD (unfinished)", "selective-backprop"]
    assert "c-SGD" not in str(chart.spec["title"]["text"])
    colours = chart.spec["layer"][0]["layer"][0]["encoding"]["color"]["scale"]
    looks = dict(zip(colours["domain"], colours["range"], strict=True))
    assert looks["c-SGD (unfinished)"] == lines(ax)["c-SGD (n = 2, unfinished)"].get_color()
    alone = explore.learning(write_run(tmp_path / "alone", status="running"))
    assert alone.spec["title"]["text"]["expr"].count("over what training costs") == 2


def test_neither_columns_in_another_order_nor_odd_names_change_a_plot(folder, ax):
    makers = {"differences": analysis.compare, "budget_curves": analysis.results,
              "frontier": analysis.frontier, "learning_curves": analysis.curves}  # fmt: skip
    for name, make in makers.items():
        draw, made = getattr(plots, name), make(folder)
        plain = pd.DataFrame(made)
        said = [plots.alt_text(draw(f, ax=Figure().subplots()))
                for f in (made, plain[plain.columns[::-1]])]  # fmt: skip
        assert said[0] == said[1]
    frame = plain[["cost", "mean", "spread", "n"]]
    with pytest.raises(InputError, match="say with keys= which of them make a condition"):
        plots.learning_curves(frame, ax=ax)
    odd = plain["method"].replace({"p-SGD": "$x_{$", "unif-SGD": "_hidden"})
    plots.learning_curves(frame.assign(method="mine", rule=odd), keys=["method", "rule"], ax=ax)
    ax.figure.savefig("/dev/null", format="png", dpi=20)
    labels = " ".join(text.get_text() for text in ax.get_legend().get_texts())
    assert all(name in labels for name in ("hidden", r"\$x_{\$", "selective-backprop"))


def test_budget_curves_are_means_over_seeds_with_their_deviation(tmp_path, ax):
    runs = [write_run(tmp_path, method="unif-SGD", budget=budget, schedule=name, seed=seed, gain=g)
            for budget in (0.5, 0.1) for name, g in (("linear", 0.0), ("constant", -0.2))
            for seed in (0, 1)]  # fmt: skip
    table = analysis.results(runs)
    plots.budget_curves(runs, ax=ax)
    drawn = {bars.get_label(): bars for bars in ax.containers}
    for name in ("linear", "constant"):
        own = table[table["schedule"] == name].sort_values("budget")
        curve, _, (bars,) = drawn.pop(f"schedule {name} (n = 2)").lines
        # Budgets in order, whatever the order of the runs, and beside their tick.
        np.testing.assert_allclose(curve.get_xdata(), [10, 50], rtol=0.03)
        np.testing.assert_allclose(curve.get_ydata(), 100 * own["mean"])
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(np.ptp(ends, axis=1) / 2, 100 * own["spread"])
    assert not drawn
    # At the smallest budget that all of them have.
    assert ax.get_title("left").startswith("Schedule linear is best at 10%, with")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10", "50"]


def test_the_crossing_names_what_leads_where(ax):
    plots.crossing(LENGTHS, ax=ax)
    assert ax.get_title("left") == "'none' leads at 10 epochs, ricap at 100"
    line = lines(ax)["ricap (n = 5 to 10)"]
    np.testing.assert_allclose(line.get_xdata(), [10, 100])
    np.testing.assert_allclose(line.get_ydata(), [40, 60])
    # Names in the order of the right ends of the lines.
    assert [text.get_text()[:4] for text in ax.get_legend().get_texts()] == ["rica", "none"]
    bands = [band.get_paths()[0].get_extents() for band in ax.collections]
    assert (39, 61) in [(round(band.ymin, 6), round(band.ymax, 6)) for band in bands]
    alone = LENGTHS[:2]
    for frame, title in ((alone, "Ricap leads at 10 epochs and at 100"), (alone[1:], "")):
        assert plots.crossing(frame, ax=Figure().subplots()).get_title("left") == title


def test_frontier_marks_each_condition(folder, ax):
    frame = analysis.frontier(folder)
    plots.frontier(frame, ax=ax)
    marks = [line for line in ax.lines if line.get_linestyle() == "None"]
    drawn = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in marks)
    np.testing.assert_allclose(drawn, sorted(zip(frame["cost"], 100 * frame["mean"], strict=True)))
    low, high = ax.get_ylim()
    assert low < 100 * frame["ci_low"].min()
    assert high > 100 * frame["ci_high"].max()


# ---- rows: differences, costs, gradients ----


def test_differences_draw_the_intervals(folder, ax):
    table = analysis.compare(folder, "unif-SGD", confidence=0.5)
    row = table.set_index("method").loc["p-SGD"]
    plots.differences(table, ax=ax)
    spans = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]
    expected = [100 * row["ci_low"], 100 * row["ci_high"]]
    assert any(np.allclose(span, expected) for span in spans)
    assert row["sentence"][1:] in plots.alt_text(ax)
    assert ax.get_title("left").startswith("Of 2 comparisons: ")
    assert ax.get_xlabel() == "difference from unif-SGD (percentage points), 50% CI"


def test_one_method_far_off_does_not_squeeze_the_others(ax):
    far = [("a", 0.01, 0.002), ("b", -0.02, 0.004), ("c", 0.005, 0.004), ("far", -0.45, 0.03)]
    table = pd.DataFrame(far, columns=["method", "difference", "half"])
    table = table.assign(baseline="unif-SGD", pairs=5, n=5,
                         ci_low=table["difference"] - table["half"],
                         ci_high=table["difference"] + table["half"])  # fmt: skip
    plots.differences(table, ax=ax)
    low, high = ax.get_xlim()
    assert -6 < low < -2.4
    assert 1.2 < high < 6
    # What lies outside stands at the edge, with its number.
    assert [text.get_text() for text in ax.texts] == ["◄ -45.0"]
    table.loc[3, ["difference", "ci_low", "ci_high"]] = [-0.055, -0.06, -0.05]  # there is room
    for kept, lowest in ((table[:3], -2.4), (table, -6)):
        plots.differences(kept, ax=(other := Figure().subplots()))
        assert not other.texts
        assert other.get_xlim()[0] < lowest


def test_the_ledger_stacks_what_was_trained_looked_at_and_run_elsewhere(folder, ax):
    frame = analysis.summaries(folder).assign(proxy_samples=np.nan)  # of old records: not known
    frame.loc[frame["method"] == "p-SGD", "proxy_samples"] = [20, 40, 60]
    plots.cost_ledger(frame, ax=ax)
    trained, looked, elsewhere = ax.containers
    for method, counts in {"selective-backprop": (360, 1200, 0), "p-SGD": (360, 0, 40)}.items():
        place = rows(ax).index(method)
        assert [part.datavalues[place] for part in ax.containers] == list(counts)
        assert looked.patches[place].get_x() == counts[0]
        assert elsewhere.patches[place].get_x() == counts[0] + counts[1]
    assert len(trained) == 3
    # A second network is trained: that is no look.
    assert not plots.cost_ledger(frame[frame["method"] == "p-SGD"]).get_title(loc="left")
    assert ax.get_title("left").startswith("selective-backprop looks at 3.3 samples")
    assert "40 through a second network" in plots.alt_text(ax)
    longer = frame.assign(method=frame["method"] + " with a name that goes on for a long while")
    short, wide = (plots.cost_ledger(one).figure.get_figwidth() for one in (frame, longer))
    assert wide > short + 1


def test_no_bias_is_said_and_not_drawn_as_a_number(ax):
    plots.gradient_errors(ESTIMATES, ax=ax)
    assert list(lines(ax)["bias²"].get_ydata()) == [1]
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("no bias seen", 0)]


def test_the_gallery_shows_every_plot_with_its_call(folder, tmp_path):
    path = Path(__file__).parents[1] / "docs" / "gallery.py"
    spec = importlib.util.spec_from_file_location("gallery", path)
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    text = gallery.build(folder, tmp_path / "gallery.html").read_text()
    assert [name for name in NAMES if f"bl.plots.{name}(" not in text] == []
    assert text.count("<img") == len(gallery.CALLS)


# ---- style ----


def test_each_has_a_look_of_its_own_and_a_method_always_the_same():
    alone, together = style.looks(["p-SGD"]), style.looks(["mine", "unif-SGD", "p-SGD"])
    assert alone["p-SGD"] == together["p-SGD"]
    assert len({look.colour for look in together.values()}) == 3
    assert len(set(style.looks([f"m{i}" for i in range(12)]).values())) == 12
    seven = style.looks([f"m{i}" for i in range(7)]).values()
    assert len({str(look.line) for look in seven}) == len({look.marker for look in seven}) == 7
    # Colour says the method, and the line says the rest.
    names = {"a1": ("p-SGD", "1"), "a2": ("p-SGD", "2"), "b1": ("SGD", "1"), "b2": ("SGD", "2")}
    looks = style.style_conditions(names)
    assert looks["a1"].colour == looks["a2"].colour != looks["b1"].colour
    assert looks["a1"].line == looks["b1"].line != looks["a2"].line


def test_a_method_keeps_its_look_in_class_accuracy_and_behind_the_name_of_a_data_set(tmp_path):
    for method in ("unif-SGD", "p-SGD"):
        look = style.looks([method])[method]
        bars = plots.class_accuracy(write_run(tmp_path, method=method)).containers[0]
        points = bars.lines[0]
        assert (points.get_color(), points.get_marker()) == (look.colour, look.marker)
    names = [f"{data}, {m}, seed 1" for data in ("digits", "shapes") for m in ("SGD", "p-SGD")]
    found = style.style_by_name(names)
    for name in names:
        assert found[name].colour == style.looks([name.split(", ")[1]])[name.split(", ")[1]].colour
    assert len({(look.colour, str(look.line)) for look in found.values()}) == 4


def test_long_labels_are_wrapped_between_settings_and_never_cut(tmp_path):
    many = {"weight_decay": 0.000123, "momentum": 0.123, "warmup": 0.123, "lr": 0.0123}
    for place in range(4):
        changed = [{}, *({n: many[n]} for n in ("lr", "warmup")), many][place]
        write_run(tmp_path, method="selective-backprop", augmentation="randaugment", **changed)
        write_run(tmp_path, method="unif-SGD", augmentation="randaugment", **changed)
    for draw in (plots.frontier, plots.learning_curves, plots.cost_ledger, plots.differences):
        ax = draw(tmp_path)
        ax.figure.draw_without_rendering()
        whole = ax.figure.bbox
        assert ax.get_window_extent().width > 100
        boxes = [ax.title, ax._left_title, *ax.get_yticklabels()]
        for shown in filter(None, [ax.get_legend(), *boxes]):
            box = shown.get_window_extent()
            assert whole.x0 - 1 <= box.x0
            assert box.x1 <= whole.x1 + 1
        texts = ax.get_legend().get_texts() if ax.get_legend() else ax.get_yticklabels()
        lines = [line for text in texts for line in text.get_text().split("\n")]
        assert max(map(len, lines)) <= style.LEGEND_LETTERS
    assert style.wrap("a long name, seed 12, lr 0.1 (n = 2)", 21) == (
        "a long name, seed 12,\nlr 0.1 (n = 2)"
    )


def test_unfinished_and_repeated_runs_are_not_averaged_into_costs_and_picks(tmp_path):
    write_run(tmp_path, method="p-SGD", seed=0)
    write_run(tmp_path, method="p-SGD", seed=1, status="stopped")
    write_run(tmp_path / "again", method="p-SGD", seed=0)
    with pytest.warns(RecordWarning, match=r"repeated later .* \(1 of 2 runs\)"):
        assert plots.coverage(tmp_path).lines[0].get_label().endswith("(n = 1)")
    frame = analysis.summaries(tmp_path)
    frame.loc[frame["status"] != "finished", "trained_samples"] = 0
    with pytest.warns(RecordWarning, match="repeated later"):
        assert "p-SGD: 360 trained on" in plots.alt_text(plots.cost_ledger(frame))


def test_runs_on_two_data_sets_or_at_two_budgets_are_not_mixed(tmp_path):
    for data in ("digits", "shapes"):
        for budget, seed in ((0.2, 0), (0.2, 1), (0.4, 0)):
            write_run(tmp_path, method="p-SGD", dataset=data, budget=budget, seed=seed,
                      fingerprint=data)  # fmt: skip
    names = plots.noisy_picks(tmp_path).get_legend_handles_labels()[1]
    assert names == [f"{data}, budget {b}% (n = {n})" for data in ("digits", "shapes")
                     for b, n in ((20, 2), (40, 1))]  # fmt: skip
    for draw in (plots.learning_curves, plots.budget_curves):
        assert draw(tmp_path).get_title("left") == ""
    # Of one colour and marker, told apart by how they are filled.
    for data in ("digits", "shapes"):
        write_run(tmp_path, method="unif-SGD", dataset=data, fingerprint=data)
    marks = {line.get_label(): line for line in plots.frontier(tmp_path).lines
             if not line.get_label().startswith("_")}  # fmt: skip
    look = {(m.get_color(), m.get_marker(), m.get_fillstyle()) for m in marks.values()}
    assert len(look) == len(marks) == 4
    bars = [bar.lines[0] for bar in plots.picks_by(tmp_path).containers]
    assert len({(b.get_color(), b.get_marker(), b.get_fillstyle()) for b in bars}) == len(bars) == 6
    other = tmp_path / "other"
    for method in ("p-SGD", "unif-SGD"):  # and of one name
        write_run(other, method=method, fingerprint=method, gain=0.1 * (method == "p-SGD"))
    assert plots.learning_curves(other).get_title("left") == ""
    assert "ends" not in str(explore.learning(other).spec["title"])


def test_differences_without_a_pair_say_so(tmp_path):
    write_run(tmp_path, method="p-SGD")
    assert "No run of another method" in plots.alt_text(plots.differences(tmp_path))


def test_a_title_names_the_leader_where_there_is_one():
    assert style.leader({"a": 80.0, "b": 90.0}, "test_accuracy") == "B ends best, with 90%"
    assert style.leader({"a": 0.5, "b": 0.7}, "test_loss") == "A ends best, with 0.5"
    for nobody in ({"a": 80.0}, {"a": 80.0, "b": 80.0}):
        assert style.leader(nobody, "test_accuracy") == ""


def beside(ax):
    """Draw lines and a legend, and say whether it stands beside the axes."""
    for number, top in enumerate((1.0, 0.9, 0.8)):
        ax.plot(np.arange(20), np.arange(20) % 2 * top, label=f"line {number}")
    style.finish(ax, x="epoch", legend=True, text="Lines.")
    ax.figure.draw_without_rendering()
    return ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


def test_a_legend_hides_no_line_and_stays_out_of_a_neighbour():
    ax = style.axes(None)
    assert beside(ax)
    assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1
    assert not beside(plt.subplots(1, 2, layout="constrained")[1][0])
    assert not beside(plt.subplots()[1])


def test_long_names_leave_room_for_what_is_drawn():
    long = {f"method {i}, {'a setting 0.1, ' * 6}end": style.Curve([0, 1], [0, i])
            for i in range(14)}  # fmt: skip
    ax = style.axes(None)
    style.draw(ax, long)
    style.finish(ax, title=f"{next(iter(long))} ends best", legend=True)
    ax.figure.draw_without_rendering()
    assert ax.get_window_extent().height > 200
    whole = ax.figure.bbox
    for shown in (ax.get_legend(), ax.title, ax._left_title):
        box = shown.get_window_extent()
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1 + 1
