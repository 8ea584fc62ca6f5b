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
from budgetlab.training import Run, load_data
from budgetlab.widgets import TrainingBench
from budgetlab.widgets.background import RateLimiter, Session
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
        ("budget", 0.01, "raise the budget to 0.13 or more"),
        ("budget", 0.01, "such as batch_size, is an argument of TrainingBench."),
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


def test_a_problem_is_said_in_one_line_and_goes_with_its_cause(make):
    bench = make()
    bench.fit()  # from now on, the number of samples is known
    budget = bench.controls.by_name["budget"]
    for again in (0.01, 0.02):
        budget.value = again
        assert bench.explanation.is_problem
        assert not bench.status.is_problem
        bench.train_button.click()
        bench.wait(WAIT)
        assert bench.status.is_problem
        assert bench.explanation.text == ""
    budget.value = 0.5
    assert bench.explanation.text.startswith("Budget 0.5 of 3 epochs")
    assert not bench.status.is_problem


def test_a_second_run_has_to_wait(make, slow):
    bench = make(method="slow", epochs=30, budget=1.0)
    bench.train()
    begun(bench)
    assert bench.train_button.disabled
    bench.train_button.click()  # the second of a double click
    assert not bench.status.is_problem
    bench.train()
    assert "a run is training in this bench" in bench.status.text
    with pytest.raises(RunError, match="stop it first"):
        bench.fit()
    bench.stop()
    bench.wait(WAIT)
    assert len(bench.records) == 1


# ---- a cell that is run again, a bench that is closed ----


def test_a_bench_that_is_closed_trains_no_more(make, slow):
    bench = make(method="slow", epochs=100, budget=1.0)
    bench.train()
    begun(bench)
    bench.close()
    assert bench.wait(WAIT)
    assert [record.status for record in bench.records] == ["stopped"]


def test_a_new_bench_of_the_same_name_stops_the_old_one_and_another_name_does_not(make, slow):
    old = make(method="slow", epochs=100, budget=1.0)
    old.train()
    begun(old)
    new, beside = make(), make(name="beside")
    assert old.wait(WAIT)
    drawn = [one.value for one in old.shelf.pictures]
    assert "has taken over" in old.status.text
    assert bl.open_record(old._run.writer.path).status == "stopped"
    beside.train()
    assert new.fit().status == "finished"
    assert beside.wait(WAIT)
    assert "Finished" in beside.status.text
    assert [one.value for one in old.shelf.pictures] == drawn
    assert old.train_button.disabled
    with pytest.raises(RunError, match="taken over"):
        old.fit()


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


def axes_of(bench):
    return [one.axes[0] for one in bench.shelf.pictures]


def test_the_pictures_show_the_last_run_and_no_text_is_cut_off(make):
    bench = make(method="p-SGD", epochs=5, evaluate_every=2, lr=0.0625, weight_decay=0.0003125)
    record = bench.fit()
    accuracy, loss, losses, probabilities = axes_of(bench)
    assert record.epochs["test_accuracy"].isna().any()  # what is known is joined
    for axes, column, scale in ((accuracy, "test_accuracy", 100), (loss, "train_loss", 1)):
        (line,) = axes.lines
        assert line.get_ydata() == pytest.approx(scale * record.epochs[column].dropna())
    known = standing_of_record(record).losses
    known = known[~np.isnan(known)]
    for axes, count, name in ((losses, len(known), "last known loss (nats)"),
                              (probabilities, 128, "times that of a uniform draw")):  # fmt: skip
        (stairs,) = axes.patches
        assert (stairs.get_data().values.sum(), axes.get_xlabel()) == (count, name)
    assert losses.get_title("left") == "Losses of the samples: p-SGD, b 0.5, seed 0, epoch 5"
    for axes in axes_of(bench):
        canvas = axes.figure.canvas
        canvas.draw()
        for text in (axes.xaxis.label, axes.yaxis.label, axes._left_title):
            box = text.get_window_extent()
            for low, high, size in zip(box.min, box.max, canvas.get_width_height(), strict=True):
                assert 0 <= low <= high <= size, text.get_text()
        assert axes.get_legend() is None
    bench.shelf.select([])
    # Axes of nothing would mean nothing.
    for axes in axes_of(bench):
        assert [text.get_text() for text in axes.texts] == ["no epoch yet"]
        assert not axes.xaxis.get_visible()
    bench.shelf.select(bench.shelf.lines)
    assert all(axes.xaxis.get_visible() for axes in axes_of(bench))


def test_runs_are_collected_overlaid_switched_and_removed(make):
    bench = make(method="p-SGD")
    first = bench.fit()
    said = []
    bench.status.observe(lambda change: said.append(change["new"]), "value")
    bench.fit()
    assert any("These settings have run before" in text for text in said)
    bench.controls.by_name["method"].value = "unif-SGD"
    bench.fit()
    shelf = bench.shelf
    assert [line.name for line in shelf.lines] == [
        "p-SGD, b 0.5, seed 0", "p-SGD, b 0.5, seed 0 (the same, run 2)",
        "unif-SGD, b 0.5, seed 0"]  # fmt: skip
    curves, _, samples, _ = shelf.pictures
    assert "p-SGD, b 0.5, seed 0: " in curves.alt
    assert "Samples of unif-SGD, b 0.5, seed 0 in epoch 3" in samples.alt
    assert {value for _, value in shelf.cost.options} == set(AXES)
    for shelf.cost.value in AXES:
        # Uniform sampling is drawn first.
        assert any(np.array_equal(line.get_xdata(), first.epochs[shelf.cost.value])
                   for line in curves.axes[0].lines)  # fmt: skip
    assert not bench.status.is_problem
    line, drawn = shelf.lines[2], samples.value
    assert "<svg" in line.chip.value
    line.box.value = False
    assert line.chip.value == ""
    assert "unif-SGD" not in curves.alt
    assert "Samples of p-SGD" in samples.alt
    assert samples.value != drawn
    line.away.click()
    assert [record.config["method"] for record in bench.records] == ["p-SGD", "p-SGD"]
    shelf.select([])
    assert "No samples yet" in samples.alt
    assert first.path.is_dir()


def test_only_what_has_changed_is_drawn_anew(make, monkeypatch):
    bench, drawn = make(method="p-SGD"), []
    bench.fit()
    for place, one in enumerate(bench.shelf.pictures):
        monkeypatch.setattr(one, "show", lambda alt, place=place: drawn.append(place))
    bench.shelf.redraw()
    assert drawn == []
    bench.shelf.cost.value = "flops"
    assert drawn == [0, 1]
    bench.shelf.add(bench.records[0])  # read again
    assert drawn == [0, 1, 2, 3]


def test_records_can_be_opened_and_the_last_are_shown(make, train, tmp_path):
    records = [train(method="selective-backprop", seed=seed, epochs=epochs).record
               for seed in (0, 1, 2, 123456) for epochs in (3, 4)]  # fmt: skip
    bench = make(records=(record for record in records))
    assert [record.path for record in bench.records] == [record.path for record in records]
    assert [one.record.path for one in bench.shelf.shown()] == [r.path for r in records[1:]]
    assert "The last 7 of the 8 ticked runs are drawn" in bench.shelf.too_many.value
    bench.shelf.lines[5].box.value = False
    assert bench.shelf.shown()[0].record.path == records[0].path
    assert bench.shelf.too_many.value == ""
    assert not bench.status.is_problem
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


def test_a_run_within_its_first_epoch_can_be_drawn_and_not_removed(make, slow):
    bench = make(method="slow")
    run = Run(bench.controls.config)
    said = []

    def look(run):
        bench.shelf.follow(run.writer.path, standing_of_run(run))
        said.append([one.alt for one in bench.shelf.pictures])

    run.on_step = look
    bench.shelf.add(run.record)
    cells = bench.shelf.table.value
    assert "running</td>" in cells
    assert not any(f">{none}<" in cells for none in ("0", "0.0", "0.00e+00"))
    next(iter(run))
    assert len(said) == run.ledger.steps > 1
    assert "None yet" in said[0][0]
    assert "16 seen" in said[0][2]
    assert not bench.status.is_problem
    bench.shelf.lines[0].away.click()
    assert "this run is training" in bench.status.text


def test_epochs_that_were_not_evaluated_are_not_called_none(make):
    bench = make(evaluate_every=2)
    run = Run(bench.controls.config)
    epochs = iter(run)
    next(epochs)
    bench.shelf.add(run.record, standing_of_run(run))
    accuracy, loss, *_ = axes_of(bench)
    assert [text.get_text() for text in accuracy.texts] == ["not evaluated yet"]
    assert len(loss.lines) == 1
    epochs.close()


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
    monkeypatch.setattr(RateLimiter, "due", lambda self, within_epoch=False: True)
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
    for name, value, count in (("seed", 0, 1), ("method", "p-SGD", 1), ("label_noise", 0.25, 2)):
        bench.controls.by_name[name].value = value
        bench.fit()
        assert len(calls) == count


# ---- settings and runs as people meet them ----


def test_several_seeds_are_trained_in_a_row_and_stop_ends_them_all(make, slow):
    bench = make(method="slow", epochs=30, budget=1.0)
    bench.controls.repeats.value = 3
    assert "3 runs in a row, seeds 0 to 2" in bench.explanation.text
    bench.train()
    begun(bench)
    (early,) = bench.records
    done = len(early.epochs)
    # A record of the list holds what is written by now.
    until(lambda: len(bench.records[-1].epochs) > done + 1)
    assert bench.records[-1].status == "running"
    assert bench.status.text.startswith("Training run 1 of 3. ")
    bench.stop()
    assert bench.wait(WAIT)
    assert [record.status for record in bench.records] == ["stopped"]
    slow.set()
    bench.controls.by_name["epochs"].value = 2
    said = []
    bench.status.observe(lambda change: said.append(bench.status.text), "value")
    bench.train()
    until(lambda: len(bench.records) == 4 and bench.wait(0))
    assert [text[:20] for text in said if text.startswith("Training")] == [
        f"Training run {number} of 3." for number in (1, 2, 3)]  # fmt: skip
    assert [record.config["seed"] for record in bench.records[1:]] == [0, 1, 2]
    assert {record.status for record in bench.records[1:]} == {"finished"}
    shutil.rmtree(early.path)
    assert bench.records[0].path == early.path


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
    assert bench.fit().status == "finished"


def test_data_and_a_network_of_ones_own(load_once, config):
    splits = load_once("points", limit=128)
    settings = config.replace(epochs=2).to_dict() | {"model": lambda: torch.nn.Linear(2, 2)}
    bench = TrainingBench(splits=splits, name="own", **settings)
    assert bench.controls.by_name["dataset"].disabled
    assert "of 128" in bench.explanation.text
    record = bench.fit()
    assert (record.status, record.fingerprint) == ("finished", splits.fingerprint)


def test_what_a_bench_begins_with(make):
    controls = make().controls
    controls.preset.value = "scale-model"
    config = controls.config
    assert (config.model, config.epochs, config.limit) == ("compact", 100, 1000)
    quick = TrainingBench(name="quick", preset="scale-model", method="P-SGD").controls
    assert (quick.config.limit, quick.config.model, quick.config.method) == (
        1000, "compact", "p-SGD")  # fmt: skip
    # Points cannot go through a network for images.
    quick.by_name["dataset"].value = "points:moons"
    assert quick.config.model == "auto"
    assert TrainingBench(name="short").controls.config.epochs == 12
    for settings, said in (({"metod": "p-SGD"}, "unknown setting 'metod': did you mean 'method'"),
                           ({"method": "p-SDG"}, "did you mean 'p-SGD'"),
                           ({"preset": "scale"}, "scale-model")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            TrainingBench(**settings)
    offered = controls.by_name["dataset"].options
    assert {"points", "shapes", "digits", "cifar10"} <= set(offered)
    assert not any("PATH" in name for name in offered)


# ---- the parts ----


def test_sentences_of_settings_and_times(config):
    for name, given, said in (
        ("budget", 128, "Budget 0.5 of 3 epochs: 64 of 128 samples an epoch, 12 steps instead of "
                        "24."),
        ("budget", None, "50% of the work"), ("label_noise", 128, "32 of the 128 training"),
        ("budget_unit", None, "looking at samples is free"), ("method", None, "unif-SGD: "),
        ("dataset", None, "your images"), ("seed", None, "the same one gives the same run"),
    ):  # fmt: skip
        one = config.replace(
            label_noise=0.25, dataset="folder:x" if name == "dataset" else "points"
        )
        assert said in explain(name, one, given)
    for seconds, said in ((-1, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"),
                          (3599.4, "59 min 59 s"), (3900, "1 h 5 min")):  # fmt: skip
        assert minutes(seconds) == said


def test_pace_by_hand(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pace = RateLimiter()
    assert not pace.due()
    now[0] += 0.6
    assert pace.due()
    assert pace.due(within_epoch=True)  # the first one
    with pace.working():
        now[0] += 0.2
    now[0] += 4.9
    assert not pace.due()  # twenty-five times what drawing took
    now[0] += 0.2
    assert pace.due()
    assert not pace.due(within_epoch=True)
    now[0] += 5
    assert pace.due(within_epoch=True)
    pace.begin()  # another run, whose pictures take as long
    now[0] += 4.9
    assert not pace.due()
    now[0] += 0.2
    assert pace.due()


def test_a_session_stopped_while_loading_writes_nothing(config):
    session = Session(config, splits=lambda c: session.stop() or load_data(c, progress=False))
    session.train_in_foreground()
    assert (session.stopped, session.run, session.running) == (True, None, False)
