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


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("dataset", "poinds", "unknown dataset 'poinds': did you mean 'points'"),
        ("dataset", "  ", "unknown dataset"),
        ("dataset", "folder:/nowhere", "/nowhere"),
        ("budget", 0.01, "raise the budget"),
        ("augmentation", "mixup", "needs images"),
        ("model", "small", "cannot take points"),
    ],
)
def test_a_wrong_value_is_said_and_raised(make, setting, value, sentence):
    bench = make()
    bench.controls.by_name[setting].value = value
    bench.train_button.click()
    bench.wait(WAIT)
    assert bench.status.is_problem
    assert sentence in bench.status.text
    with pytest.raises(InputError):
        bench.fit()
    assert bench.records == []
    assert not bench.train_button.disabled


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


def test_nothing_to_resume_is_said(make):
    bench = make()
    bench.resume_button.click()
    assert "none of the runs shown can go on" in bench.status.text
    bench.fit()
    bench.resume_button.click()
    assert bench.status.is_problem


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


def test_every_control_explains_itself_and_every_end_is_usable(make):
    bench = make()
    for name, control in bench.controls.by_name.items():
        before = control.value
        box = getattr(control, "box", control)
        ends = box.options if hasattr(box, "options") else (box.min, box.max)
        for value in ends:
            control.value = value
            assert bench.explanation.text
            assert bench.explanation.is_problem == (name == "nothing"), bench.explanation.text
        control.value = before
    assert bench.controls.config == bench.controls.base


def test_each_control_explains_itself_when_it_is_changed(make):
    bench = make()
    other = {
        "dataset": "digits", "method": "c-SGD", "augmentation": "mixup", "model": "mlp",
        "budget": 0.25, "budget_unit": "flops", "epochs": 7, "label_noise": 0.2, "seed": 5,
    }  # fmt: skip
    assert set(other) == set(bench.controls.by_name)
    for name, value in other.items():
        control = bench.controls.by_name[name]
        bench.explanation.say("of another control")
        control.value = value if control.value != value else "small"
        said = explain(name, bench.controls.config)
        assert bench.explanation.text.startswith(said), name
        assert bench.explanation.text.endswith(explain("budget", bench.controls.config)), name


def test_only_data_that_can_be_trained_on_is_offered(make):
    offered = make().controls.by_name["dataset"].options
    assert {"points", "shapes", "digits", "cifar10"} <= set(offered)
    assert not any("PATH" in name for name in offered)


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
    bench.fit()
    bench.controls.by_name["method"].value = "unif-SGD"
    bench.fit()
    names = [name for name, _ in bench.shelf.runs.options]
    assert names == ["p-SGD, b 0.5, seed 0", "unif-SGD, b 0.5, seed 0"]
    assert len(bench.shelf.runs.value) == 2
    alt = bench.shelf.picture.alt
    assert "p-SGD, b 0.5, seed 0: " in alt
    assert "Samples of unif-SGD, b 0.5, seed 0 in epoch 3" in alt
    for _, cost in bench.shelf.cost.options:
        bench.shelf.cost.value = cost
        assert not bench.status.is_problem
        line = bench.shelf.picture.axes[0].lines[-1]  # uniform sampling is drawn first
        assert np.array_equal(line.get_xdata(), bench.records[0].epochs[cost])
    assert {cost for _, cost in bench.shelf.cost.options} == set(AXES)
    bench.shelf.runs.value = bench.shelf.runs.options[0][1:]
    assert "unif-SGD" not in bench.shelf.picture.alt
    assert "Samples of p-SGD" in bench.shelf.picture.alt
    bench.shelf.runs.value = ()
    assert "No samples yet" in bench.shelf.picture.alt


def test_records_can_be_opened(make, train, tmp_path):
    train(method="c-SGD")
    bench = make()
    bench.shelf.path.value = str(tmp_path / "runs")
    bench.shelf.open_button.click()
    assert bench.status.text == "Opened 1 record."
    bench.shelf.open_button.click()
    assert len(bench.records) == 1
    bench.shelf.path.value = str(tmp_path / "nowhere")
    bench.shelf.open_button.click()
    assert "does not exist" in bench.status.text
    again = make(records=tmp_path / "runs")
    assert "c-SGD" in again.shelf.picture.alt
    assert "c-SGD" in again.shelf.table.value or "budget" in again.shelf.table.value


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


def test_the_table_shows_text_as_text(train):
    table = runs_table([train().record], ["<b>run</b>"])
    assert "&lt;b&gt;run" in table
    assert "%</td>" in table


def test_a_run_stands_in_its_record_as_it_stood(train):
    run = train(method="p-SGD", epochs=5)
    live, read = standing_of_run(run), standing_of_record(run.record)
    assert live.epoch == read.epoch == 5
    assert live.kind == read.kind == "draw"
    assert read.losses == pytest.approx(live.losses, rel=0.005, nan_ok=True)
    assert read.probability == pytest.approx(live.probability, rel=0.005)
    assert list(live.rows["test_accuracy"]) == list(read.rows["test_accuracy"])
    assert standing_of_record(Run(run.config).record) is None


def test_a_picture_never_changes_the_run(make, config, monkeypatch):
    # Drawn at every step instead of now and then.
    monkeypatch.setattr(Pace, "due", lambda self, within_epoch=False: True)
    watched = make(method="c-SGD").fit()
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


def test_records_may_come_from_anywhere_and_the_last_are_shown(make, train):
    records = [train(seed=seed).record for seed in range(9)]
    bench = make(records=(record for record in records))
    assert [record.path for record in bench.records] == [record.path for record in records]
    assert [record.path for record in bench.shelf.shown()] == [r.path for r in records[2:]]
    assert not bench.status.is_problem


def test_names_are_taken_in_any_case_and_a_wrong_one_is_said():
    bench = TrainingBench(method="P-SGD", dataset="points")
    assert bench.controls.by_name["method"].value == "p-SGD"
    with pytest.raises(InputError, match="unknown setting 'metod': did you mean 'method'"):
        TrainingBench(metod="p-SGD")
    with pytest.raises(InputError, match="did you mean 'p-SGD'"):
        TrainingBench(method="p-SDG")
    with pytest.raises(InputError, match="scale-model"):
        TrainingBench(preset="scale")


def test_the_same_settings_twice_say_so(make):
    bench = make(method="p-SGD")
    bench.fit()
    assert "These settings have run before" not in bench.status.text
    said = []
    bench.status.observe(lambda change: said.append(change["new"]), "value")
    bench.fit()
    assert any("These settings have run before" in text for text in said)
    names = [name for name, _ in bench.shelf.runs.options]
    assert names == ["p-SGD, b 0.5, seed 0", "p-SGD, b 0.5, seed 0 (the same, run 2)"]


def test_no_text_of_the_picture_is_cut_off(make, train):
    records = [train(method="selective-backprop", lr=0.0625, weight_decay=0.0003125, seed=s,
                     epochs=e).record for s in (0, 123456) for e in (3, 4)]  # fmt: skip
    bench = make(records=records)
    figure = bench.shelf.picture.figure
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    for axes in bench.shelf.picture.axes:
        for text in (axes.xaxis.label, axes.yaxis.label, axes._left_title):
            box = text.get_window_extent()
            assert 0 <= box.x0 <= box.x1 <= width, text.get_text()
            assert 0 <= box.y0 <= box.y1 <= height, text.get_text()
        assert axes.get_legend() is None


def test_a_run_is_hidden_and_taken_off_the_list(make, train):
    records = [train(seed=seed).record for seed in (0, 1)]
    bench = make(records=records)
    runs = bench.shelf.runs
    chip, box, remove = runs.children[0].children
    assert "<svg" in chip.value
    box.value = False
    assert runs.value == (str(records[1].path),)
    assert chip.value == ""
    remove.click()
    assert [record.path for record in bench.records] == [records[1].path]
    assert records[0].path.is_dir()


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
    bench.stop_button.click()
    assert "nothing was written" in bench.status.text
    assert not bench.train_button.disabled
    assert not bench.wait(0.05)  # what loads cannot be interrupted
    go.set()
    assert bench.wait(WAIT)
    assert bench.records == []
    assert "nothing was written" in bench.status.text
    assert bench.fit().status == "finished"


def test_data_and_a_network_of_ones_own(make, load_once, config, tmp_path):
    splits = load_once("points", limit=128)
    bench = TrainingBench(
        splits=splits, model=lambda: torch.nn.Linear(2, 2), name="own", device="cpu",
        out=str(tmp_path / "own"), batch_size=16, epochs=2, precision="float32", limit=128,
        dataset="points",
    )  # fmt: skip
    assert bench.controls.by_name["dataset"].disabled
    record = bench.fit()
    assert record.status == "finished"
    assert record.fingerprint == splits.fingerprint


def test_a_preset_sets_what_belongs_together(make):
    bench = make()
    bench.controls.preset.value = "scale-model"
    config = bench.controls.config
    assert (config.model, config.epochs, config.limit) == ("compact", 100, 1000)
    quick = TrainingBench(name="quick").controls
    assert (quick.config.limit, quick.config.model) == (1000, "compact")
    # Points cannot go through a network for images.
    quick.by_name["dataset"].value = "points:moons"
    assert quick.config.model == "auto"


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


def test_watching_leaves_the_random_state_alone(make):
    before = torch.random.get_rng_state()
    make().fit()
    assert torch.equal(torch.random.get_rng_state(), before)
