"""The bench: the button and its twin, stopping, going on, and what goes wrong."""

import shutil
import threading
import time

import numpy as np
import pytest
import torch
from waiting import until

import budgetlab as bl
from budgetlab.analysis import AXES
from budgetlab.errors import InputError, RunError
from budgetlab.plots import style
from budgetlab.training import Run, load_data
from budgetlab.widgets import ProbabilityMicroscope, TrainingBench
from budgetlab.widgets.background import Pace, Session
from budgetlab.widgets.bench import minutes
from budgetlab.widgets.bench_controls import explain
from budgetlab.widgets.bench_shelf import runs_table, standing_of_record, standing_of_run

WAIT = 60


@pytest.fixture
def make(config):
    """Benches on 128 points; none goes on training after its test."""
    made = []

    def bench(**settings):
        plain = {**config.to_dict(), **settings}
        made.append(TrainingBench(**plain))
        return made[-1]

    yield bench
    for one in made:
        one.stop()
        assert one.wait(WAIT)


@pytest.fixture
def slow():
    """A method that waits at each batch until it is told to go on."""
    go = threading.Event()

    @bl.sampler("slow")
    class Slow(bl.Sampler):
        """Waits."""

        def batches(self, epoch, history, look):
            for indices in self.full_batches(self.shuffled()):
                go.wait(0.02)
                yield bl.Batch(indices)

    yield go
    go.set()


def begun(bench):
    """Wait for the first step."""
    until(lambda: bench.bar.value > 0)


def same(a, b):
    """Whether two records hold the same, but for the seconds."""
    left, right = a.epochs.drop(columns="seconds"), b.epochs.drop(columns="seconds")
    assert left.equals(right)
    assert a.samples.load().identical(b.samples.load())
    weights = [(record.path / "model.safetensors").read_bytes() for record in (a, b)]
    return weights[0] == weights[1]


# ---- the same record, however it is made ----


def test_button_twin_and_plain_call_give_the_same_record(make, config):
    bench = make(method="p-SGD", epochs=4)
    bench.train_button.click()
    assert bench.wait(WAIT)
    assert "Finished" in bench.status.text
    twin = bench.fit()
    plain = bl.train(config.replace(method="p-SGD", epochs=4), progress=False)
    assert twin.status == bench.records[0].status == "finished"
    assert same(bench.records[0], twin)
    assert same(twin, plain)
    assert len({record.path for record in (bench.records[0], twin, plain)}) == 3


def test_stop_leaves_a_record_that_goes_on_to_the_same_end(make, slow):
    bench = make(method="slow", epochs=30, budget=1.0)
    bench.train_button.click()
    begun(bench)
    clicked = time.monotonic()
    bench.stop_button.click()
    assert "Stopping" in bench.status.text or "Stopped" in bench.status.text
    assert bench.wait(WAIT)
    assert time.monotonic() - clicked < 1.5
    assert "Stopped" in bench.status.text
    (stopped,) = bench.records
    assert stopped.status == "stopped"
    done = len(stopped.epochs)
    assert done < 30
    slow.set()
    bench.resume_button.click()
    assert bench.wait(WAIT)
    (finished,) = bench.records
    assert finished.path == stopped.path
    assert (finished.status, len(finished.epochs)) == ("finished", 30)
    assert same(finished, bench.fit())


def test_an_interrupt_of_the_twin_leaves_a_resumable_record(make):
    interrupt = [True]

    @bl.sampler("interrupted")
    class Interrupted(bl.Sampler):
        """Stands for the interrupt button of the kernel."""

        def batches(self, epoch, history, look):
            for step, indices in enumerate(self.full_batches(self.shuffled())):
                if epoch == 3 and step == 2 and interrupt:
                    raise KeyboardInterrupt
                yield bl.Batch(indices)

    bench = make(method="interrupted", budget=1.0, epochs=5)
    with pytest.raises(KeyboardInterrupt):
        bench.fit()
    assert "Stopped. The record holds 2 whole epochs" in bench.status.text
    assert not bench.train_button.disabled
    interrupt.clear()
    resumed = bench.fit(resume=bench.records[0])
    assert (len(bench.records), resumed.status) == (1, "finished")
    assert same(resumed, bench.fit())


# ---- what goes wrong ----


def test_an_error_in_a_sampler_shows_and_is_raised(make):
    @bl.sampler("broken")
    def score(history):
        raise ZeroDivisionError("my score divides by nothing")

    bench = make(method="broken")
    bench.train_button.click()
    bench.wait(WAIT)
    assert bench.status.is_problem
    assert "my score divides by nothing" in bench.status.text
    assert not bench.train_button.disabled
    assert bench.stop_button.disabled
    with pytest.raises(ZeroDivisionError):
        bench.fit()
    bench.controls.by_name["method"].value = "unif-SGD"
    assert bench.fit().status == "finished"
    assert not bench.status.is_problem


def test_a_wrong_value_is_said_and_raised(make):
    bench = make()
    for setting, value, sentence in (
        ("dataset", "poinds", "unknown dataset 'poinds': did you mean 'points'"),
        ("dataset", "  ", "unknown dataset"),
        ("dataset", "folder:/nowhere", "/nowhere"),
        ("budget", 0.01, "raise the budget"),
        ("augmentation", "mixup", "needs images"),
        ("model", "small", "cannot take points"),
    ):
        control = bench.controls.by_name[setting]
        before, control.value = control.value, value
        bench.train_button.click()
        bench.wait(WAIT)
        assert bench.status.is_problem
        assert sentence in bench.status.text
        with pytest.raises(InputError):
            bench.fit()
        assert not bench.train_button.disabled
        control.value = before
    bench.resume_button.click()
    assert "none of the runs shown can go on" in bench.status.text
    assert bench.records == []


def test_a_second_run_has_to_wait(make, slow):
    bench = make(method="slow", epochs=30, budget=1.0)
    bench.train()
    begun(bench)
    assert bench.train_button.disabled
    bench.train()
    assert "a run is training in this bench" in bench.status.text
    with pytest.raises(RunError, match="stop it first"):
        bench.fit()
    bench.stop()
    bench.wait(WAIT)
    assert len(bench.records) == 1


# ---- a cell that is run again ----


def test_a_new_bench_of_the_same_name_stops_the_old_one(make, slow):
    old = make(method="slow", epochs=100, budget=1.0)
    old.train()
    begun(old)
    new = make(method="unif-SGD")
    assert old.wait(WAIT)
    picture = old.shelf.picture.value
    assert "has taken over" in old.status.text
    assert bl.open_record(old._run.writer.path).status == "stopped"
    assert new.fit().status == "finished"
    assert old.shelf.picture.value == picture
    assert old.train_button.disabled
    with pytest.raises(RunError, match="taken over"):
        old.fit()


def test_two_names_are_two_benches(make, slow):
    slow.set()
    first, second = make(name="a", method="slow"), make(name="b")
    second.train()
    first.train()
    assert first.wait(WAIT)
    assert second.wait(WAIT)
    assert "Finished" in first.status.text
    assert "Finished" in second.status.text


# ---- what is shown ----


def test_each_control_explains_itself_when_it_is_changed_and_every_end_is_usable(make):
    bench = make()
    other = {
        "dataset": "digits", "method": "c-SGD", "augmentation": "mixup", "model": "mlp",
        "budget": 0.25, "budget_unit": "flops", "epochs": 7, "label_noise": 0.2, "seed": 5,
    }  # fmt: skip
    assert set(other) == set(bench.controls.by_name)
    for name, control in bench.controls.by_name.items():
        before, box = control.value, getattr(control, "box", control)
        for value in box.options if hasattr(box, "options") else (box.min, box.max):
            control.value = value
            assert not bench.explanation.is_problem, bench.explanation.text
        bench.explanation.say("of another control")
        control.value = other[name] if control.value != other[name] else "small"
        config = bench.controls.config
        assert bench.explanation.text.startswith(explain(name, config)), name
        assert bench.explanation.text.endswith(explain("budget", config)), name
        control.value = before
    assert bench.controls.config == bench.controls.base


def bars(axes):
    """Counts and edges of a histogram that is drawn."""
    (stairs,) = axes.patches
    counts, edges, _ = stairs.get_data()
    return counts, edges


def test_the_picture_shows_what_plots_draw_of_the_last_run(make):
    bench = make(method="p-SGD", epochs=5, evaluate_every=2)
    record = bench.fit()
    accuracy, loss, losses, probabilities = bench.shelf.picture.axes
    assert record.epochs["test_accuracy"].isna().any()  # what is known is joined
    for axes, column, scale in ((accuracy, "test_accuracy", 100), (loss, "train_loss", 1)):
        (line,) = axes.lines
        assert line.get_ydata() == pytest.approx(scale * record.epochs[column].dropna())
        assert axes.get_legend() is None
    known = standing_of_record(record).losses
    known = known[~np.isnan(known)]
    counts, edges = bars(losses)
    assert counts.sum() == len(known)
    assert edges[-1] == pytest.approx(1.02 * np.quantile(known, 0.995), rel=1e-3)
    assert losses.get_xlabel() == "last known loss (nats)"
    title = "Losses of the samples: p-SGD, b 0.5, seed 0, epoch 5"
    assert losses.get_title("left") == title
    assert bars(probabilities)[0].sum() == 128
    assert probabilities.get_xlabel() == "times that of a uniform draw"
    bench.shelf.runs.value = ()
    # Axes of nothing would mean nothing.
    for axes in bench.shelf.picture.axes:
        assert [text.get_text() for text in axes.texts] == ["no epoch yet"]
        assert not axes.xaxis.get_visible()
        assert not axes.yaxis.get_visible()
    bench.controls.by_name["method"].value = "unif-SGD"
    bench.fit()
    bench.shelf.runs.value = [path for _, path in bench.shelf.runs.options]
    drawn = {(line.get_color(), line.get_marker()) for line in accuracy.lines}
    for axes in bench.shelf.picture.axes:
        assert axes.xaxis.get_visible()
        assert axes.yaxis.get_visible()
    looks = style.looks(["p-SGD", "unif-SGD"]).values()
    assert drawn == {(look.colour, look.marker) for look in looks}


def test_runs_are_collected_overlaid_and_switched(make):
    bench = make(method="p-SGD")
    first = bench.fit()
    said = []
    bench.status.observe(lambda change: said.append(change["new"]), "value")
    assert not any("These settings have run before" in text for text in said)
    bench.fit()
    assert any("These settings have run before" in text for text in said)
    bench.controls.by_name["method"].value = "unif-SGD"
    bench.fit()
    runs, cost = bench.shelf.runs, bench.shelf.cost
    assert [name for name, _ in runs.options] == [
        "p-SGD, b 0.5, seed 0", "p-SGD, b 0.5, seed 0 (the same, run 2)",
        "unif-SGD, b 0.5, seed 0"]  # fmt: skip
    assert len(runs.value) == 3
    assert "p-SGD, b 0.5, seed 0: " in bench.shelf.picture.alt
    assert "Samples of unif-SGD, b 0.5, seed 0 in epoch 3" in bench.shelf.picture.alt
    assert {value for _, value in cost.options} == set(AXES)
    for cost.value in AXES:
        assert not bench.status.is_problem
        # Uniform sampling is drawn first.
        assert any(np.array_equal(line.get_xdata(), first.epochs[cost.value])
                   for line in bench.shelf.picture.axes[0].lines)  # fmt: skip
    chip, box, remove = runs.children[2].children
    assert "<svg" in chip.value
    box.value = False
    assert (len(runs.value), chip.value) == (2, "")
    assert "unif-SGD" not in bench.shelf.picture.alt
    assert "Samples of p-SGD" in bench.shelf.picture.alt
    remove.click()
    assert [record.config["method"] for record in bench.records] == ["p-SGD", "p-SGD"]
    runs.value = ()
    assert "No samples yet" in bench.shelf.picture.alt
    assert first.path.is_dir()


def test_records_can_be_opened_and_the_last_are_shown_whole(make, train, tmp_path):
    settings = {"method": "selective-backprop", "lr": 0.0625, "weight_decay": 0.0003125}
    records = [train(seed=s, epochs=e, **settings).record for s in (0, 1, 2, 123456)
               for e in (3, 4)]  # fmt: skip
    bench = make(records=(record for record in records))
    assert [record.path for record in bench.records] == [record.path for record in records]
    assert [record.path for record in bench.shelf.shown()] == [r.path for r in records[1:]]
    assert not bench.status.is_problem
    # No text of the picture is cut off.
    canvas = bench.shelf.picture.figure.canvas
    canvas.draw()
    width, height = canvas.get_width_height()
    for axes in bench.shelf.picture.axes:
        for text in (axes.xaxis.label, axes.yaxis.label, axes._left_title):
            box = text.get_window_extent()
            assert 0 <= box.x0 <= box.x1 <= width, text.get_text()
            assert 0 <= box.y0 <= box.y1 <= height, text.get_text()
        assert axes.get_legend() is None
    bench = make()
    for folder, said in (("runs", "Opened 8 records."), ("runs", "Opened 8 records."),
                         ("nowhere", "does not exist"), ("", "no folder is given")):  # fmt: skip
        bench.shelf.path.value = str(tmp_path / folder) if folder else ""
        bench.shelf.open_button.click()
        assert said in bench.status.text
        assert len(bench.records) == 8
    assert "selective-backprop" in bench.shelf.table.value
    assert "%</td>" in bench.shelf.table.value
    assert "&lt;b&gt;run" in runs_table(bl.analysis.summaries(records[:1]), ["<b>run</b>"])


def test_a_run_within_its_first_epoch_can_be_drawn(make, slow):
    bench = make(method="slow")
    run = Run(bench.controls.config)
    pictures = []

    def look(run):
        bench.shelf.follow(run.writer.path, standing_of_run(run))
        pictures.append(bench.shelf.picture.alt)

    run.on_step = look
    bench.shelf.add(run.record)
    next(iter(run))
    assert len(pictures) == run.ledger.steps > 1
    assert "None yet" in pictures[0]
    assert "16 seen" in pictures[0]
    assert not bench.status.is_problem


def test_the_record_of_a_run_that_trains_holds_what_is_written_by_now(make, slow):
    bench = make(method="slow", epochs=30, budget=1.0)
    bench.train()
    begun(bench)
    (early,) = bench.records
    done = len(early.epochs)
    until(lambda: len(bench.records[-1].epochs) > done + 1)
    assert bench.records[-1].status == "running"
    microscope = ProbabilityMicroscope(early)
    assert microscope.replay.epochs > done
    bench.stop()
    assert bench.wait(WAIT)
    assert bench.records[-1].status == "stopped"
    shutil.rmtree(early.path)
    assert [record.path for record in bench.records] == [early.path]


def test_a_run_stands_in_its_record_as_it_stood(train):
    run = train(method="p-SGD", epochs=5)
    live, read = standing_of_run(run), standing_of_record(run.record)
    assert live.epoch == read.epoch == 5
    assert live.kind == read.kind == "draw"
    assert read.losses == pytest.approx(live.losses, rel=0.005, nan_ok=True)
    assert read.probability == pytest.approx(live.probability, rel=0.005)
    assert list(live.rows["test_accuracy"]) == list(read.rows["test_accuracy"])
    assert standing_of_record(Run(run.config).record) is None


def test_watching_changes_neither_the_run_nor_the_random_state(make, config, monkeypatch):
    # Drawn at every step instead of now and then.
    monkeypatch.setattr(Pace, "due", lambda self, within_epoch=False: True)
    before = torch.random.get_rng_state()
    watched = make(method="c-SGD").fit()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(watched, bl.train(config.replace(method="c-SGD"), progress=False))


def test_data_are_loaded_once(make, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "budgetlab.widgets.bench.load_data",
        lambda config, progress: calls.append(config) or load_data(config, progress=False),
    )
    bench = make()
    bench.fit()
    bench.controls.by_name["method"].value = "p-SGD"
    bench.fit()
    assert len(calls) == 1
    bench.controls.by_name["label_noise"].value = 0.25
    bench.fit()
    assert len(calls) == 2


# ---- settings and runs as people meet them ----


def test_several_seeds_are_trained_in_a_row_and_stop_ends_them_all(make, slow):
    bench = make(method="slow", epochs=30, budget=1.0)
    bench.controls.repeats.value = 3
    assert "3 runs in a row, seeds 0 to 2" in bench.explanation.text
    bench.train()
    begun(bench)
    bench.stop()
    assert bench.wait(WAIT)
    assert [record.status for record in bench.records] == ["stopped"]
    slow.set()
    bench.controls.by_name["epochs"].value = 2
    bench.train()
    until(lambda: len(bench.records) == 4 and bench.wait(0))
    assert [record.config["seed"] for record in bench.records[1:]] == [0, 1, 2]
    assert {record.status for record in bench.records[1:]} == {"finished"}


def test_stop_while_the_data_are_loading_answers_at_once(make, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(
        "budgetlab.widgets.bench.load_data",
        lambda config, progress: go.wait(WAIT) and load_data(config, progress=False),
    )
    bench = make()
    bench.train()
    clicked = time.monotonic()
    bench.stop_button.click()
    assert "nothing was written" in bench.status.text
    assert time.monotonic() - clicked < 1
    assert not bench.train_button.disabled
    assert not bench.wait(0.05)  # what loads cannot be interrupted
    go.set()
    assert bench.wait(WAIT)
    assert bench.records == []
    assert "nothing was written" in bench.status.text
    assert bench.fit().status == "finished"


def test_data_and_a_network_of_ones_own(load_once, tmp_path):
    splits = load_once("points", limit=128)
    bench = TrainingBench(
        splits=splits, model=lambda: torch.nn.Linear(2, 2), name="own", device="cpu",
        out=str(tmp_path / "own"), batch_size=16, epochs=2, precision="float32", limit=128,
        dataset="points",
    )  # fmt: skip
    assert bench.controls.by_name["dataset"].disabled
    assert "of 128" in bench.explanation.text
    record = bench.fit()
    assert record.status == "finished"
    assert record.fingerprint == splits.fingerprint


def test_what_a_bench_begins_with(make):
    controls = make().controls
    controls.preset.value = "scale-model"
    config = controls.config
    assert (config.model, config.epochs, config.limit) == ("compact", 100, 1000)
    quick = TrainingBench(name="quick").controls
    assert (quick.config.limit, quick.config.model) == (1000, "compact")
    # Points cannot go through a network for images.
    quick.by_name["dataset"].value = "points:moons"
    assert quick.config.model == "auto"
    named = TrainingBench(method="P-SGD", dataset="points", name="any case").controls
    assert named.by_name["method"].value == "p-SGD"
    for settings, said in (({"metod": "p-SGD"}, "unknown setting 'metod': did you mean 'method'"),
                           ({"method": "p-SDG"}, "did you mean 'p-SGD'"),
                           ({"preset": "scale"}, "scale-model")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            TrainingBench(**settings)
    offered = controls.by_name["dataset"].options
    assert {"points", "shapes", "digits", "cifar10"} <= set(offered)
    assert not any("PATH" in name for name in offered)


# ---- the parts ----


def test_sentences_of_settings(config):
    assert explain("budget", config, 128) == (
        "Budget 0.5 of 3 epochs: 64 of 128 samples an epoch, 12 steps instead of 24."
    )
    assert "50% of the work" in explain("budget", config)
    assert "32 of the 128 training" in explain("label_noise", config.replace(label_noise=0.25), 128)
    assert "looking at samples is free" in explain("budget_unit", config)
    assert explain("method", config).startswith("unif-SGD: ")
    assert "your images" in explain("dataset", config.replace(dataset="folder:x"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (8.4, "8 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"),
     (3599.4, "59 min 59 s"), (3600, "1 h 0 min"), (3900, "1 h 5 min")],
)  # fmt: skip
def test_times_in_words(seconds, said):
    assert minutes(seconds) == said


def test_pace_by_hand(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pace = Pace()
    assert pace.due()
    with pace.working():
        now[0] += 0.2
    now[0] += 4.9
    assert not pace.due()  # twenty-five times what drawing took
    now[0] += 0.2
    assert pace.due()
    assert not pace.due(within_epoch=True)
    now[0] += 5
    assert pace.due(within_epoch=True)


def test_a_session_stopped_while_loading_writes_nothing(config):
    session = Session(config, splits=lambda c: session.stop() or load_data(c, progress=False))
    session.train_here()
    assert session.stopped
    assert session.run is None
    assert not session.running
