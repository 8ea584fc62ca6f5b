"""Explorables: what a chart computes is what Python computes, at any position of its controls."""

import base64
import io
import itertools
import json
import re
import sys
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest
import vl_convert
from fake_records import write_run
from PIL import Image

import budgetlab as bl
from budgetlab import analysis
from budgetlab.analysis import RecordWarning
from budgetlab.errors import InputError
from budgetlab.explore.chart import SYMBOLS, VEGA_LITE, Explorable
from budgetlab.explore.packing import _Images, compact, images_of
from budgetlab.explore.samples import IS_SHOWN
from budgetlab.forecast import Replay, forecast, scores_of
from budgetlab.plots.images import surface_colours

SPEC_LIMIT = 1_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return [write_run(out, method=method, seed=seed, budget=0.3, size=300)
            for method in ("unif-SGD", "p-SGD") for seed in (0, 1)]  # fmt: skip


def drawn(chart, role="mark"):
    """All marks of a chart as Vega would put them on a page, group by group."""
    if chart.kind == "vega":
        scene = vl_convert.vega_to_scenegraph(chart.to_json())
    else:
        scene = vl_convert.vegalite_to_scenegraph(chart.to_json(), vl_version=VEGA_LITE)
    found = []

    def walk(mark):
        for item in mark.get("items", []):
            if mark.get("marktype") == "group":
                for inner in item.get("items", []):
                    walk(inner)
            elif mark.get("role") == role:
                found.append((mark["marktype"], item))

    walk(scene["scenegraph"])
    return found


def texts(chart, role="mark"):
    return [str(item.get("text", "")) for kind, item in drawn(chart, role) if kind == "text"]


def heading(chart):
    """The title that is drawn, in one line."""
    return texts(chart, "title-text")[0].replace("\n", " ")


def computed(chart, *columns, more=()):
    """Columns of the data of a chart after its transforms, at full precision."""
    said = " + ' ' + ".join(f"toString(datum.{name})" for name in columns)
    probe = {key: chart.spec[key] for key in ("$schema", "params", "data")}
    probe["transform"] = [*chart.spec["transform"], *more, {"calculate": said, "as": "said"}]
    probe["mark"], probe["encoding"] = "text", {"text": {"field": "said"}}
    shown = texts(bl.explore.Explorable(probe, "", dict, title="probe"))
    return np.array([[float(part) for part in text.split()] for text in shown]).T


# ---- probabilities ----


@pytest.mark.parametrize(
    ("smoothing", "power", "budget", "epoch"),
    [(1, 1, 0.3, 6), (0, 1, 0.5, 3), (0.05, 3, 0.05, 6), (0, 3, 0.95, 4), (5, 0, 0.95, 2),
     (0, 0.05, 0.9, 5), (0.1, 2, 0.8, 6)],
)  # fmt: skip
def test_the_page_computes_what_python_computes(runs, smoothing, power, budget, epoch):
    chart = bl.explore.probabilities(runs[2])
    values = dict(smoothing=smoothing, power=power, budget=budget, epoch=epoch)
    moved, twin = chart.with_values(**values), chart.twin(**values)
    q, inclusion = computed(moved, "q", "inclusion")
    assert q == pytest.approx(twin["q"], rel=1e-9, abs=1e-15)
    assert inclusion == pytest.approx(twin["inclusion"], rel=1e-6, abs=1e-9)
    assert inclusion.sum() == pytest.approx(twin["draws"], rel=1e-6)
    said = texts(moved)
    assert f"Entropy of q: {twin['entropy']:.3f} of {np.log(300):.3f} nats" in said
    assert f"Effective sample size: {twin['effective_samples']:,.0f}" in said
    assert f"Drawn: {twin['draws']} of 300" in said
    assert f"Chance of being drawn: {twin['lowest']:.3f} to {twin['highest']:.3f}" in said


def test_the_twin_is_what_the_method_would_do_and_no_scores_are_a_uniform_draw(runs):
    record = runs[2]
    chart = bl.explore.probabilities(record)
    twin = chart.twin(epoch=4)
    foreseen = forecast(Replay(record).before(4), bl.RunConfig.from_dict(record.config))
    # The chart keeps four digits of a score; the chance is simulated there.
    assert twin["q"] == pytest.approx(foreseen.q, rel=1e-3)
    assert twin["inclusion"] == pytest.approx(foreseen.inclusion, rel=0.05)
    for row in chart.spec["data"]["values"]:
        row["scores"] = " ".join("0" for _ in row["scores"].split())
    (q,) = computed(chart, "q")
    assert q == pytest.approx(np.full(300, 1 / 300))


@pytest.mark.parametrize(
    ("samples", "budget", "draws"),
    [(300, 0.25, 70), (90, 0.25, 21), (300, 0.95, 280), (90, 0.95, 84)],
)
def test_page_and_twin_draw_whole_batches(runs, samples, budget, draws):
    chart = bl.explore.probabilities(runs[2], samples=samples)
    twin = chart.twin(budget=budget)
    (inclusion,) = computed(chart.with_values(budget=budget), "inclusion")
    assert twin["draws"] == draws
    assert inclusion == pytest.approx(twin["inclusion"], rel=1e-6)
    assert inclusion.sum() == pytest.approx(draws, rel=1e-6)


def test_a_long_record_of_many_samples_stays_small(tmp_path):
    record = write_run(tmp_path, method="p-SGD", size=2_500, epochs=60, budget=0.3)
    chart = bl.explore.probabilities(record, samples=2_000)
    assert len(chart.to_json()) < SPEC_LIMIT
    said = " ".join(texts(chart, "title-text")).replace("\n", " ")
    assert "2,000 of 2,500 samples, at random" in said
    assert len(chart.spec["data"]["values"][0]["scores"].split()) == 9
    # Between two epochs that are kept, the one before holds.
    assert (chart.twin(epoch=3)["q"] == chart.twin(epoch=2)["q"]).all()
    for epoch in (2, 3, 40, 60):
        (q,) = computed(chart.with_values(epoch=epoch), "q")
        assert q == pytest.approx(chart.twin(epoch=epoch)["q"])


def test_scores_of_a_method_without_any_are_those_of_p_sgd(runs):
    config = bl.RunConfig(method="selective-backprop", batch_size=10)
    name, score = scores_of(config, 300)
    assert name == "p-SGD"
    history = Replay(runs[2]).before(3)
    assert not history.seen.all()
    found = score(history)
    assert (found[~history.seen] == found[history.seen].max()).all()


# ---- atlas ----


def shown_life(chart):
    """What the life of a chart says: its lines, and loss and chance by epoch as they are drawn."""
    loss, chance = (view | {"mark": "text"} for view in chart.spec["vconcat"][1]["hconcat"][1:])
    found = []
    for view, name in ((loss, "loss"), (chance, "chance")):
        said = [f"toString(datum.{column})" for column in ("epoch", name, "drawn")]
        steps = [*chart.spec["transform"], *view["transform"],
                 {"calculate": " + ' ' + ".join(said), "as": "said"}]  # fmt: skip
        probe = {key: chart.spec[key] for key in ("$schema", "data")} | {
            "params": [p for p in chart.spec["params"] if "views" not in p]}  # fmt: skip
        steps = [one for one in steps if one.get("filter") != {"param": "brush"}]
        steps = json.loads(json.dumps(steps).replace(IS_SHOWN, IS_SHOWN.partition(" : ")[2]))
        probe |= {"transform": steps, "mark": "text", "encoding": {"text": {"field": "said"}}}
        found.append([line.split() for line in texts(Explorable(probe, "", dict, title="probe"))])
    return found


def test_the_atlas_selects_what_its_twin_selects_and_shows_the_same_life(runs):
    chart = bl.explore.atlas(runs[2], "mean_loss", "times_trained")
    limits = dict(label="square", x_low=0.2, x_high=2.0, y_low=2, y_high=5)
    for values in (limits, {"group": "noisy", "label": "ring"}, {"group": "not noisy", "x_low": 1}):
        moved, twin = chart.with_values(**values), chart.twin(**values)
        assert 2 < len(twin) < 100
        assert twin["mean_loss"].is_monotonic_decreasing
        (samples,) = computed(moved, "sample")
        assert set(samples) == set(twin.index)
        pictured = [sample for sample in twin.index if sample in runs[2].thumbnails]
        assert f"{len(twin)} selected, {len(pictured)} with an image" in " ".join(texts(moved))
        images = [item for kind, item in drawn(moved) if kind == "image"]
        assert len(images) == len(pictured) + bool(pictured)  # and the one of the life
        # Those with an image first, the highest loss first.
        order = [*pictured, *(sample for sample in twin.index if sample not in pictured)]
        for place in (1, len(order), 300):
            at = moved.with_values(nth=min(place, 281))
            sample = order[min(place, len(order)) - 1]
            life, by_hand = chart.twin(life=sample), analysis.sample_life(runs[2], sample)
            for said, name in zip(shown_life(at), ("loss", "chance"), strict=True):
                expected = [v for v in life[name] if v == v]
                value = [float(v) for _, v, _ in said if v != "null"]
                assert value == expected, (values, place, name)
                assert [int(float(n)) for _, _, n in said] == life["drawn"].tolist()
            assert life["drawn"].tolist() == by_hand["times_trained"].cumsum().tolist()
            assert life["loss"].tolist() == pytest.approx(
                by_hand["loss"].ffill().tolist(), rel=0.01, nan_ok=True)  # fmt: skip
            assert life["chance"].tolist() == pytest.approx(
                (300 * by_hand["probability"]).tolist(), rel=0.01, nan_ok=True)  # fmt: skip
            begin = f"Sample {sample}: {runs[2].classes[int(twin.label[sample])]}"
            assert any(text.startswith(begin) for text in texts(at))
    assert "(truly circle)" in " ".join(texts(chart.with_values(label="ring", group="noisy")))


def test_what_the_atlas_may_be_given(runs, load_once, train):
    record, other = runs[2], runs[0]
    pair = bl.explore.atlas(
        record, "times_trained", "times_trained_other", other=other, samples=100
    )
    counts = [
        r.samples["times_trained"].sum("epoch").to_numpy().astype(int) for r in (record, other)
    ]
    twin = pair.twin()
    assert (twin["trained_more"] == (counts[0] - counts[1])[twin.index]).all()
    assert heading(pair).endswith("of times trained and times trained other")
    measured = bl.explore.atlas(record, colour="difficulty", samples=100)
    (difficulty,) = computed(measured, "colour")
    # Those with images come first.
    assert len(difficulty) == 100
    assert set(record.thumbnails) & set(bl.explore.atlas(record).twin().index) <= set(
        measured.twin().index)  # fmt: skip
    colour = measured.spec["vconcat"][0]["hconcat"][0]["encoding"]["color"]["condition"]
    assert (colour["type"], colour["title"]) == ("quantitative", "difficulty it was drawn with")
    more = pd.DataFrame({"mine": np.arange(300) % 7})
    assert bl.explore.atlas(record, "mine", more=more).twin(x_low=6)["mine"].eq(6).all()
    # Of an embedding no correlation is of interest: by hand, on a line, neighbours are next to it.
    line = pd.DataFrame({"embedding_1": np.arange(300.0) ** 1.5, "embedding_2": 0.0})
    labels = analysis.measures(record)["label"].to_numpy()
    alike = [labels[0] == labels[1], *(labels[1:] == labels[:-1])]  # the one before is nearer
    title = heading(bl.explore.atlas(record, *line, more=line))
    assert (
        title
        == f"The nearest neighbour of {np.mean(alike):.0%} of the samples is of their own class"
    )
    # Points have images too: where each lies among all.
    run = train(method="p-SGD")
    rows = bl.explore.atlas(run.record, splits=load_once("points", limit=128)).spec["data"][
        "values"
    ]
    assert all(row["image"].startswith("data:image/webp") for row in rows)
    alone = bl.explore.atlas(run.record)
    assert "0 with an image: give splits=" in " ".join(texts(alone))
    image = _Images(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], np.float32))[1]
    assert (image == [213, 94, 0]).all(axis=2).sum() == 25
    assert image[-3, -3].tolist() == [213, 94, 0]
    assert images_of(run.record, load_once("points", limit=128)).get(128) is None
    selective = bl.explore.atlas(train(method="selective-backprop", epochs=8).record)
    assert "chance of being kept" in selective.to_json()
    assert selective.twin(life=0)["chance"].dropna().between(0, 1).all()


@pytest.mark.parametrize(
    ("values", "samples"),
    [(np.full(300, 1 / 3), 300), (np.full(300, 0.123456789), 300), (np.arange(300) + 1234567, 300),
     (np.linspace(0.1, 7.7, 300) ** 9, 1), (1e-9 * np.arange(300), 300),
     (-np.arange(300) / 7, 300), (np.zeros(300), 300)],
)  # fmt: skip
def test_all_samples_lie_within_the_limits_that_an_atlas_begins_with(runs, values, samples):
    more = pd.DataFrame({"mine": values})
    chart = bl.explore.atlas(runs[2], "mine", more=more, samples=samples)
    twin = chart.twin()
    assert len(twin) == samples
    (sample,) = computed(chart, "sample")
    assert set(sample) == set(twin.index)
    shown = chart.spec["data"]["values"]
    assert len({row["x"] for row in shown}) == len(set(values[twin.index]))


def test_the_atlas_of_all_images_stays_small(tmp_path, load_once):
    splits = load_once("shapes", limit=2_000)
    record = write_run(tmp_path, size=2_000, epochs=40, budget=0.9, fingerprint=splits.fingerprint)
    chart = bl.explore.atlas(record, splits=splits)
    rows = chart.spec["data"]["values"]
    assert len(chart.to_json()) < SPEC_LIMIT
    assert sum(row["image"] is not None for row in rows) > 1_000
    assert chart.twin(life=7)["epoch"].tolist() == [1, 9, 17, 24, 32, 40]
    assert sum(item is not None for kind, item in drawn(chart) if kind == "image") == 25


# ---- learning ----


def three_seeds():
    """Two methods of three and of four seeds; the fourth has ended early."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [{"run": f"{m}-{seed}", "method": m, "seed": seed, "epoch": e, "steps": 10 * e,
          "flops": 1e9 * e * (1 + k),
          "test_accuracy": 0.5 + 0.04 * e + 0.03 * k + rng.normal(0, 0.003)}
         for k, m in enumerate(("unif-SGD", "p-SGD")) for seed in range(3 + k)
         for e in range(1, 6 if seed < 3 else 4)]
    )  # fmt: skip


def test_learning_shows_mean_interval_and_runs_over_any_cost():
    frame = three_seeds()
    chart = bl.explore.learning(frame)
    means = chart.spec["layer"][1]["transform"]
    for values, shown in (
        ({}, {}),
        ({"condition_0": False}, {"condition": ["p-SGD"]}),
        ({"condition_0": False, "seed_0": False}, {"condition": ["p-SGD"], "seed": [1, 2, 3]}),
        ({"seed_1": False, "seed_3": False}, {"seed": [0, 2]}),
    ):
        at = {"cost": "flops"} if values else {}
        moved = chart.with_values(**at, **values)
        single = chart.twin(**at, **shown, single=True)
        for name, column in zip(("cost", "value"), computed(moved, "cost", "value"), strict=True):
            assert sorted(column) == pytest.approx(sorted(single[name]))
        twin = chart.twin(**at, **shown)
        names = ("epoch", "cost", "mean", "n")
        found = dict(zip(names, computed(moved, *names, more=means), strict=True))
        for name, column in (("epoch", "epoch"), ("cost", "cost"), ("mean", "value"), ("n", "n")):
            assert sorted(found[name]) == pytest.approx(sorted(twin[column]))
        if (twin["n"] > 2).all():
            low, high = computed(moved, "low", "high", more=means)
            assert sorted(low) == pytest.approx(sorted(twin["low"]), rel=1e-5)
            assert sorted(high) == pytest.approx(sorted(twin["high"]), rel=1e-5)
        else:
            assert twin["low"].isna().all()
            assert "none with so few seeds" in json.dumps(moved.spec)
    # Where one of the seeds has ended, the mean would be another mean: the line ends too.
    lines = chart.twin()
    assert lines.groupby("condition")["epoch"].max().to_dict() == {"unif-SGD": 5, "p-SGD": 3}
    at_end = frame[(frame["method"] == "unif-SGD") & (frame["epoch"] == 5)]["test_accuracy"]
    low, high = bl.analysis.statistics.mean_interval(100 * at_end.to_numpy())
    last = lines[lines["condition"] == "unif-SGD"].iloc[-1]
    assert [last["low"], last["high"]] == pytest.approx([low, high], rel=1e-4)
    assert len(chart.to_json()) < SPEC_LIMIT
    chart = chart.with_values(floor=0)
    kinds = [kind for kind, _ in drawn(chart)]
    assert (kinds.count("area"), kinds.count("symbol")) == (8, 8 + len(frame) + 4)
    assert kinds.count("symbol") - len(frame) == [
        kind for kind, _ in drawn(chart.with_values(runs=False))].count("symbol")  # fmt: skip
    assert "floating point operations" in texts(chart.with_values(cost="flops"))
    assert f"unif-SGD\u2002{last['value']:.1f}" in texts(chart)


def test_names_beside_the_lines_are_wrapped_and_each_starts_below_the_one_before():
    frame = three_seeds()
    both = [
        frame.assign(run=frame["run"] + name, augmentation=name, lr_start=lr)
        for name, lr in (("standard", 0.1), ("randaugment", 0.0123), ("cutmix", 0.1))
    ]
    chart = bl.explore.learning(pd.concat(both))
    names = sorted((item["y"], str(item["text"])) for kind, item in drawn(chart)
                   if kind == "text" and "\u2002" in str(item["text"]))  # fmt: skip
    assert len(names) == 6
    assert max(len(line) for _, name in names for line in name.split("\n")) <= 25
    assert max(name.count("\n") for _, name in names) == 1
    for (y, name), (after, _) in itertools.pairwise(names):
        assert after - y >= 13 * (name.count("\n") + 1)


def test_a_repeated_seed_and_a_run_tested_once_are_not_in_the_mean():
    frame = three_seeds().query("seed < 3").assign(updated="1")
    again = frame[frame["run"] == "p-SGD-0"].assign(run="again", updated="2")
    once = frame[frame["run"] == "p-SGD-0"].assign(run="once", seed=7)
    once["test_accuracy"] = once["test_accuracy"].where(once["epoch"] == 5)
    with pytest.warns(RecordWarning):
        lines = bl.explore.learning(pd.concat([frame, again, once])).twin()
    assert set(lines["n"]) == {3}
    assert set(lines["epoch"]) == {1, 2, 3, 4, 5}


def test_intervals_of_runs_that_were_tested_once_stand_side_by_side():
    frame = three_seeds().query("epoch == 3")
    for columns, apart in ((frame, True), (three_seeds(), False)):
        rules = {round(item["x"]) for kind, item in drawn(bl.explore.learning(columns))
                 if kind == "rule"}  # fmt: skip
        assert len(rules) == 2 * apart


def test_learning_says_which_ends_best_and_how_sure_that_is():
    frame = three_seeds().query("seed < 3 and epoch < 4")
    chart = bl.explore.learning(frame)
    ends = frame[frame["epoch"] == 3].pivot(index="seed", columns="method", values="test_accuracy")
    gain = 100 * (ends["p-SGD"] - ends["unif-SGD"])
    by_hand = analysis.paired_difference(100 * ends["p-SGD"], 100 * ends["unif-SGD"])
    lines = chart.twin().groupby("condition")["value"].last()
    assert lines["p-SGD"] - lines["unif-SGD"] == pytest.approx(gain.mean(), rel=1e-3)
    said = (f"p-SGD ends {gain.mean():.1f} points above unif-SGD ({by_hand.ci_low:+.1f} to "
            f"{by_hand.ci_high:+.1f}, n = 3)")  # fmt: skip
    assert heading(chart) == said
    assert said in chart.alt
    # What is switched off takes the finding with it.
    assert heading(chart.with_values(seed_0=False)) == "Test accuracy over what training costs"
    subtitle = texts(chart, "title-subtitle")[0]
    assert subtitle.startswith("Mean and 95% interval of 3 seeds, or of those")
    same = frame.assign(
        test_accuracy=[
            v - 0.03 * (m == "p-SGD")
            for v, m in zip(frame["test_accuracy"], frame["method"], strict=True)
        ]
    )
    assert heading(bl.explore.learning(same)).startswith("No difference seen between ")
    loss = frame.rename(columns={"test_accuracy": "test_loss"})
    assert re.match(r"unif-SGD ends 0\.\d\d nats below p-SGD",
                    heading(bl.explore.learning(loss, value="test_loss")))  # fmt: skip
    three = pd.concat([frame, frame.query("method == 'p-SGD'").assign(
        method="c-SGD", test_accuracy=0.1, run=lambda f: "c" + f["run"])])  # fmt: skip
    assert "above unif-SGD, the next of 3 (" in heading(bl.explore.learning(three))
    one = frame.query("seed == 0")
    assert heading(bl.explore.learning(one)).endswith("points above unif-SGD (n = 1)")
    assert heading(bl.explore.learning(frame.query("method == 'p-SGD'"))).startswith(
        "p-SGD ends at"
    )
    far = pd.concat([frame.assign(dataset="shapes"), frame.assign(dataset="digits",
                     run=lambda f: "d" + f["run"])])  # fmt: skip
    assert heading(bl.explore.learning(far)) == "Test accuracy over what training costs"


def test_charts_of_many_runs_stay_small():
    """As many rows as two thousand samples give to the others: sixty runs, a whole map."""
    epochs = pd.DataFrame(
        [{"run": f"{m}-{seed}", "method": m, "seed": seed, "epoch": e, "steps": 31 * e,
          "trained_samples": 1000 * e, "looked_samples": 3000 * e, "flops": 1.7e9 * e,
          "seconds": 0.123456 * e, "test_accuracy": 0.123456 + e / 200}
         for m in ("unif-SGD", "p-SGD", "c-SGD", "SGD", "loss", "rs2") for seed in range(10)
         for e in range(1, 51)]
    )  # fmt: skip
    lengths = pd.DataFrame(
        [{"dataset": d, "method": m, "budget": b, "augmentation": a, "epochs": e, "mean": 45.123456,
          "ci_low": 40.123456, "ci_high": 51.123456, "n": 10}
         for d in ("shapes", "cifar10-jpeg") for m in ("unif-SGD", "p-SGD", "c-SGD")
         for b in (0.1, 0.2, 0.3) for a in ("none", "standard", "mixup", "ricap", "cutmix")
         for e in (10, 30, 100, 200, 300)]
    )  # fmt: skip
    cells = pd.concat([a_map().assign(method=m, budget=b) for m in bl.methods.names()
                       for b in (0.1, 0.2, 0.3)], ignore_index=True)  # fmt: skip
    for chart in (bl.explore.learning(epochs), bl.explore.crossing(lengths),
                  bl.explore.importance_map(cells)):  # fmt: skip
        assert len(chart.to_json()) < SPEC_LIMIT


def test_a_method_looks_the_same_in_plots_explorables_and_the_bench():
    looks = {m.name: (m.style.colour, m.style.marker) for m in bl.methods.BUILT_IN}
    assert len(set(looks.values())) == len(looks)
    assert len({SYMBOLS[marker] for marker in bl.methods.MARKERS}) == len(bl.methods.MARKERS)
    frame = pd.DataFrame([{"run": m, "method": m, "seed": 0, "epoch": e, "steps": e,
                           "test_accuracy": 0.5} for m in looks for e in (1, 2)])  # fmt: skip
    for some in (frame, frame.tail(6)):
        encoding = bl.explore.learning(some).spec["layer"][0]["layer"][3]["encoding"]
        colours, shapes = (encoding[channel]["scale"] for channel in ("color", "shape"))
        for name, *drawn in zip(colours["domain"], colours["range"], shapes["range"], strict=True):
            assert drawn == [looks[name][0], SYMBOLS[looks[name][1]]]
        for line in bl.plots.learning_curves(some, keys=["method"]).lines:
            name = line.get_label().partition(" (n")[0]
            assert (line.get_color(), line.get_marker()) == looks[name]
    # Several runs of one method are told apart by their lines.
    runs = [f"{m}, b 0.2, seed {seed}" for m in ("p-SGD", "c-SGD") for seed in (0, 1)]
    for names in (runs, runs[:2], runs[:1]):
        drawn = bl.plots.style.style_by_name(names, always=True)
        assert len({str(look.line) for look in drawn.values()}) == min(2, len(names))
        assert drawn[runs[0]].line == "-"  # and the first keeps its line when others join it
        for name, look in drawn.items():
            assert (look.colour, look.marker) == looks[name.partition(",")[0]]
        parts = [name.partition(", b 0.2, seed ") for name in names]
        several = pd.concat([
            frame.head(2).assign(run=f"{m} {seed}", method=m, budget=0.2 + int(seed))
            for m, _, seed in parts
        ])  # fmt: skip
        encoding = bl.explore.learning(several).spec["layer"][0]["layer"][2]["encoding"]
        assert len({str(d) for d in encoding["strokeDash"]["scale"]["range"]}) == min(2, len(names))
        if len(names) == 4:
            drawn = encoding["color"]["scale"]["range"]
            assert drawn == [looks[m][0] for m in ("p-SGD", "p-SGD", "c-SGD", "c-SGD")]


# ---- maps ----


def a_map(dial="redundancy"):
    rows = [
        {"dataset": d, "method": m, dial: r, "label_noise": noise, "difference": r - 2 * noise + k,
         "ci_low": r - 2 * noise + k - 0.6, "ci_high": r - 2 * noise + k + 0.6, "n": 10,
         "verdict": "helps" if r > noise else "equivalent"}
        for k, (d, m) in enumerate([("shapes", "p-SGD"), ("shapes", "c-SGD"), ("cifar", "p-SGD")])
        for r in (0.0, 0.5, 0.9)
        for noise in (0.0, 0.4)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("dial", ["redundancy", "imbalance"])
def test_the_map_shows_the_rows_chosen(dial):
    chart = bl.explore.importance_map(a_map(dial))
    for values in ({}, {"method": "c-SGD"}, {"dataset": "cifar"}):
        twin = chart.twin(**values)
        assert len(twin) == 6
        difference, n = computed(chart.with_values(**values), "difference", "n")
        assert difference.tolist() == pytest.approx(twin["difference"].tolist())
        assert set(n) == {10}
        shown = [text.replace("−", "-") for text in texts(chart.with_values(**values))]
        assert {f"{v:+.1f}" for v in twin["difference"]} <= set(shown)
    assert "0.9, label noise 0.4: 0.1 (-0.50 to +0.70, n = 10)" in chart.alt
    assert heading(chart.with_values(method="c-SGD")) == (
        "c-SGD helps in 5 of 6 cells and costs in 0"
    )
    (alone,) = [bl.explore.importance_map(a_map(dial).query("dataset == 'cifar'"))]
    assert alone.spec["params"] == []
    assert heading(alone) == "p-SGD helps in 6 of 6 cells and costs in 0"


def test_the_crossing_shows_the_rows_chosen():
    frame = pd.DataFrame(
        [{"dataset": d, "augmentation": a, "epochs": e, "mean": 45 + k + e / 50, "ci_low": low,
          "ci_high": low + 9, "n": 3}
         for d in ("shapes", "cifar") for k, a in enumerate(("none", "ricap"))
         for e, low in ((30, 40.0), (100, np.nan), (300, 42.0))]
    )  # fmt: skip
    chart = bl.explore.crossing(frame)
    mean, epochs = computed(chart.with_values(dataset="cifar"), "mean", "epochs")
    twin = chart.twin(dataset="cifar")
    assert sorted(mean) == pytest.approx(sorted(twin["mean"]))
    assert sorted(epochs) == sorted(twin["epochs"])
    assert "none with so few seeds" in chart.alt
    assert heading(chart) == "Ricap leads at 30 epochs and at 300"
    assert len([1 for kind, _ in drawn(chart) if kind == "symbol"]) == 6 + 4
    # In the order of the right ends of the lines, as in the drawn figure.
    beside = {item["y"]: item["text"].split("\u2002") for kind, item in drawn(chart)
              if kind == "text"}  # fmt: skip
    assert [said for _, said in sorted(beside.items())] == [["ricap", "52.0"], ["none", "51.0"]]
    own = frame[frame["dataset"] == "cifar"].assign(mean=lambda f: f["mean"] / 100)
    legend = bl.plots.crossing(own.assign(ci_low=np.nan, ci_high=np.nan)).get_legend()
    names = [text.get_text().partition(" ")[0] for text in legend.get_texts()]
    assert names == list(dict.fromkeys(twin["augmentation"])) == ["ricap", "none"]


# ---- playground ----


@pytest.fixture(scope="module")
def watched(tmp_path_factory, load_once, data_root):
    config = bl.RunConfig(dataset="points", limit=128, epochs=4, batch_size=16, budget=0.5,
                          device="cpu", precision="float32", data_root=str(data_root))  # fmt: skip
    splits = load_once("points", limit=128)
    return [bl.explore.watch(config.replace(method=m), splits) for m in ("unif-SGD", "p-SGD")]


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_the_playground_draws_what_was_picked(watched, epoch):
    chart = bl.explore.playground(*watched)
    twin = chart.twin(epoch=epoch)
    moved = chart.with_values(epoch=epoch)
    points = [item for kind, item in drawn(moved) if kind == "symbol"]
    assert len(points) == len(twin) == 256
    dark = [point.get("stroke") == "#111111" for point in points]
    assert dark == (twin["picked"] > 0).tolist()
    expected = 2 * bl.plots.images.sizes(compact(twin["chance"], 3))
    assert [point["size"] for point in points] == pytest.approx(expected.tolist())
    said = [run.frames[epoch - 1].headline(run.name) for run in watched]
    assert said == [text.replace("\n", ": ") for text in texts(moved)]
    ends = [100 * run.frames[epoch - 1].accuracy for run in watched]
    apart = f"{abs(ends[0] - ends[1]):.1f} points ahead"
    ahead = "both are right on" if ends[0] == ends[1] else apart
    assert heading(moved).startswith(f"Epoch {epoch}: ")
    assert ahead in heading(moved)
    assert "Dark edge: drawn in this epoch" in texts(moved, "title-subtitle")[0]


def test_the_surface_of_the_playground_keeps_its_colours_up_to_the_edges(watched):
    data = bl.explore.playground(*watched).spec["data"]
    rows = [row for part in data for row in part.get("values", []) if "surface" in row]
    assert len(rows) == 8
    for row in rows:
        frame = watched[row["side"]].frames[row["epoch"] - 1]
        image = Image.open(io.BytesIO(base64.b64decode(row["surface"].split(",")[1])))
        meant = surface_colours(frame.winner, frame.sure)[::-1]
        assert np.abs(np.asarray(image.convert("RGB"), int) - meant).max() < 12


def test_a_long_playground_of_many_points_stays_small():
    rng, size, frames = np.random.default_rng(0), 2_000, []
    for epoch in range(60):
        frames.append(bl.explore.Frame(
            winner=rng.integers(0, 2, (60, 60)).astype(np.uint8), sure=rng.random((60, 60)),
            chance=rng.random(size), picked=rng.integers(0, 2, size), trained=np.ones(size, int),
            accuracy=0.5, steps=epoch))  # fmt: skip
    run = bl.explore.PointRun("p-SGD", rng.random((size, 2)), rng.integers(0, 2, size), frames)
    chart = bl.explore.playground(run, run)
    assert len(chart.to_json()) < SPEC_LIMIT
    # Between two epochs that are kept, the one before holds.
    held = {epoch: chart.twin(epoch=epoch)["picked"].to_numpy()[:size] for epoch in (1, 30, 60)}
    assert (held[1] == frames[0].picked).all()
    assert (held[60] == frames[59].picked).all()
    dark = [item.get("stroke") == "#111111" for kind, item in drawn(chart.with_values(epoch=30))
            if kind == "symbol"]  # fmt: skip
    assert dark[:size] == (held[30] > 0).tolist()


def test_the_playground_plays_by_a_clock(watched):
    chart = bl.explore.playground(*watched)
    signals = {signal["name"]: signal for signal in chart.spec["signals"]}
    assert signals["epoch"]["on"][0]["events"]["type"] == "timer"
    assert "playing" in signals["epoch"]["on"][0]["update"]
    assert chart.mime == "application/vnd.vega.v5+json"


def test_a_record_is_watched_by_training_it_again(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(method="p-SGD")
    watched = bl.explore.watch(run.record)
    last = run.record.epochs.iloc[-1]
    assert watched.frames[-1].accuracy == last["test_accuracy"]
    assert watched.frames[-1].steps == last["steps"]
    trained = run.record.samples["times_trained"].to_numpy()
    assert (watched.frames[1].picked == trained[1]).all()
    assert list(tmp_path.rglob("record.json")) == [run.record.path / "record.json"]


# ---- what charts refuse ----


def test_what_charts_refuse(runs, watched, train, load_once):
    def refused(said, call, *args, **kwargs):
        with pytest.raises(InputError, match=said):
            call(*args, **kwargs)

    explore, one = bl.explore, watched[0]
    refused("draws by no scores", explore.probabilities, runs[0], method="top-k")
    refused("samples 1", explore.probabilities, runs[0], samples=1)
    chart = explore.probabilities(runs[0])
    refused("'smoothed' is not a control", chart.twin, smoothed=1)
    refused("epoch 9 is not in this chart: give 2 to 6", chart.twin, epoch=9)
    refused("no control 'speed'", chart.with_values, speed=1)
    refused("measure", explore.atlas, runs[0], "loss_mean")
    refused("not the data of", explore.atlas, runs[0], splits=load_once("digits", limit=64))
    refused("samples 0", explore.atlas, runs[0], samples=0)
    for given, said in (({"label": "starr"}, "star"), ({"x_lo": 1}, "x_low"),
                        ({"group": "noise"}, "noisy"), ({"life": 300}, "sample 300")):  # fmt: skip
        refused(said, explore.atlas(runs[0]).twin, **given)
    refused("other data", explore.atlas, runs[0], other=train().record)
    refused(
        "of index 0 for 300 samples of index 0, 1, 2 and 297 more: give one row",
        explore.atlas,
        runs[0],
        more=pd.DataFrame({"a": [1]}),
    )
    later = pd.DataFrame({"mine": range(300)}, index=range(1, 301))
    text = pd.DataFrame({"mine": ["a"] * 300})
    for given, said in (
        ({"x": "learning"}, "measure 'learning' holds no numbers: choose one of label, diff"),
        ({"colour": "learning"}, "measure 'learning' holds no numbers"),
        ({"y": "mine", "more": text}, "measure 'mine' holds no numbers"),
        ({"more": [1, 2]}, "more is a list and no frame: give one row per sample"),
        ({"more": later}, "index 1, 2, 3 and 297 more for 300 samples of index 0, 1, 2 and 297"),
        *(({name: value}, f"{name} {value!r} is not allowed: give a whole number from")
          for name, values in (("samples", (2.5, "all", None, True)), ("seed", (-1, 1.5, "x")))
          for value in values),
    ):  # fmt: skip
        refused(said, explore.atlas, runs[0], **given)
    for given, said in (
        ({"x_low": "a"}, "x_low 'a' is not allowed: give a number"),
        ({"y_high": None}, "y_high None is not allowed"),
        ({"life": [1]}, r"life \[1\] is not allowed: give a whole number"),
    ):
        refused(said, explore.atlas(runs[0]).twin, **given)
    assert explore.atlas(runs[0]).twin(label="Square", group="Noisy")["label"].nunique() == 1
    refused("seed -1", explore.probabilities, runs[0], seed=-1)
    for given, said in (
        ({"power": "x"}, "power 'x' is not allowed: give a number from 0 to 100"),
        ({"smoothing": -1}, "smoothing -1 is not allowed: give a number of at least 0"),
        ({"epoch": 2.5}, "epoch 2.5 is not allowed: give a whole number"),
        ({"budget": 5}, "budget 5 is not allowed: give a number from 0 to 1"),
        ({"budget": 0.01}, "budget 0.01 of 300 samples is 3, less than one batch of 10"),
        ({"budget": float("nan")}, "budget nan"),
    ):
        refused(said, chart.twin, **given)
    nothing = pd.DataFrame({"mine": np.full(300, np.nan)})
    refused("no sample with a value of mine", explore.atlas, runs[0], "mine", more=nothing)
    refused("steps", explore.learning, runs, cost="step")
    refused("flops", explore.learning(runs).twin, cost="flop")
    refused("unknown seed '7'", explore.learning(runs).twin, seed=[7])
    refused("unknown control 'sead'", explore.learning(runs).twin, sead=[0])
    empty = bl.analysis.epochs(runs).assign(test_accuracy=np.nan)
    refused("none of these runs holds a test accuracy", explore.learning, empty)
    refused("p-SGD", explore.importance_map(a_map()).twin, method="p-SDG")
    refused("unknown control 'seed'", explore.importance_map(a_map()).twin, seed=1)
    for draw in (explore.importance_map, explore.crossing):
        refused("lacks the column", draw, pd.DataFrame({"dataset": ["shapes"]}))
        refused("no row", draw, pd.DataFrame(columns=[*a_map(), "augmentation", "epochs", "mean"]))
    refused("no epoch", explore.playground, one, explore.PointRun("p-SGD", one.x, one.y))
    fewer = explore.PointRun("p-SGD", one.x[:9], one.y[:9], one.frames)
    refused("not on the same points", explore.playground, one, fewer)
    for epoch in (5, 0, 2.5, "x"):
        refused(f"epoch {epoch!r} is not allowed: give a whole number from 1 to 4",
                explore.playground(*watched).twin, epoch=epoch)  # fmt: skip
    refused("have changed", explore.watch, train().record, load_once("points", limit=64))


# ---- how a chart is stored ----


def every_chart(runs, watched):
    yield bl.explore.probabilities(runs[2])
    yield bl.explore.atlas(runs[2])
    yield bl.explore.learning(runs)
    yield bl.explore.importance_map(a_map())
    yield bl.explore.playground(*watched)


def test_each_chart_is_stored_with_an_image_and_its_words(runs, watched):
    for chart in every_chart(runs, watched):
        bundle, about = chart._repr_mimebundle_()
        assert ".vega-bindings" in about[chart.mime]["embed_options"]["defaultStyle"]
        assert set(bundle) == {chart.mime, "image/png", "text/plain"}
        assert bundle["text/plain"] == chart.alt
        assert chart.spec["description"] == chart.alt
        output = nbformat.v4.new_output("display_data", bundle, metadata=about)
        nbformat.validate(output, ref="display_data", version=4, version_minor=5)
        # Plain JSON: no NaN, which a browser would refuse.
        json.loads(chart.to_json(), parse_constant=pytest.fail)
        assert chart.title in repr(chart)


def test_in_colab_a_chart_brings_the_script_that_draws_it(runs, monkeypatch):
    chart = bl.explore.learning(runs)
    # JupyterLab would prefer it to the chart.
    assert "text/html" not in chart._repr_mimebundle_()[0]
    monkeypatch.setitem(sys.modules, "google.colab", object())
    bundle, _ = chart._repr_mimebundle_()
    assert set(bundle) == {chart.mime, "text/html", "text/plain"}
    page = bundle["text/html"]
    assert "dataset.drawn" in page
    assert 'src="data:image/png' in page
    assert 'src="http' not in page


def test_a_saved_page_needs_nothing_from_elsewhere(runs, tmp_path):
    chart = bl.explore.learning(runs)
    page = chart.save(tmp_path / "new" / "page.html").read_text()
    assert "dataset.drawn" in page
    assert chart.alt.split(";")[0] in page
    assert "<script src" not in page
    assert '<link rel="stylesheet' not in page
    with pytest.raises(InputError, match=r"does not end in \.html"):
        chart.save(tmp_path / "page.pdf")
    with pytest.raises(InputError, match="cannot be written"):
        chart.save(tmp_path / "new" / "page.html" / "page.html")


def test_a_label_cannot_end_the_place_that_holds_a_chart(runs):
    chart = bl.explore.atlas(runs[2])  # one of its classes is called <b>star</b>
    assert "<b>star</b>" in chart.to_json()
    assert "<b>star" not in chart.to_html()
    chart.spec["description"] = """a'b"c&lt;</script>"""
    held, kept = HTMLParser(), []
    held.handle_starttag = lambda tag, attributes: kept.append((tag, dict(attributes)))
    held.feed(chart.to_html())
    assert [tag for tag, _ in kept] == ["div", "div", "img"]
    assert json.loads(kept[0][1]["data-spec"]) == json.loads(chart.to_json())


def test_numbers_are_short_and_finite():
    assert compact([1 / 3, 2, np.nan, np.inf, 123456.0]) == [0.3333, 2, None, None, 123500]


@pytest.mark.parametrize("name", ["a\x1b[31mb", "\x0crac{$", "\x00", "\ud800", "\uffff", "a\nb"])
def test_a_name_that_no_image_can_hold_is_drawn_with_a_mark(name):
    spec = {"data": {"values": [{"a": name, "b": 1}]}, "mark": "bar",
            "encoding": {"x": {"field": "b", "type": "quantitative"},
                         "y": {"field": "a", "type": "nominal"}}}  # fmt: skip
    chart = Explorable(spec, "", dict, title="names")
    assert chart.to_png().startswith(b"\x89PNG")
    assert ("\ufffd" in chart.spec["data"]["values"][0]["a"]) == (name != "a\nb")
