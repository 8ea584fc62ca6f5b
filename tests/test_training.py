"""Runs: reproducible, stoppable, resumable, and never a step beyond the budget."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import budgetlab as bl
from budgetlab import methods, samplers
from budgetlab.config import BUDGET_UNITS, RunConfig
from budgetlab.data import Splits
from budgetlab.errors import InputError, RunError
from budgetlab.records import Record, open_record
from budgetlab.report.page import command
from budgetlab.samplers import Batch
from budgetlab.training import Run, finish, load_data

# The others need a long scoring run: tests/test_methods_runs.py.
METHODS = tuple(n for n in samplers.names() if n not in ("dyn-unc", "dual", "tdds"))
# 128 * 0.3 = 38 samples are 2 steps of 16 an epoch, 14 in all: SGD's second pass of 8 is cut.
AWKWARD = {"budget": 0.3, "epochs": 7}


def go(run: Run) -> Record:
    list(run)
    return run.record


def content(record: Record) -> dict[str, np.ndarray]:
    """All that a run computed, by name; what the clock says is left out."""
    table = record.epochs.drop(columns="seconds")
    kept = {f"epochs/{name}": table[name].to_numpy() for name in table}
    kept |= {f"samples/{name}": values.values for name, values in record.samples.items()}
    weights = safetensors.numpy.load_file(record.path / "model.safetensors")
    return kept | {f"weights/{name}": values for name, values in weights.items()}


def differences(one: Record, other: Record) -> list[str]:
    """Names of what is not the same bit for bit."""
    ours, theirs = content(one), content(other)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]


# Reproducible


def test_another_seed_gives_another_run_on_the_same_data(config):
    one, other = (go(Run(config.replace(seed=seed))) for seed in (0, 1))
    different = differences(one, other)
    assert {"weights/0.weight", "epochs/train_loss", "samples/times_trained"} <= set(different)
    assert one.fingerprint == other.fingerprint


def test_methods_at_one_seed_start_from_the_same_weights(config):
    runs = [Run(config.replace(method=method)) for method in METHODS]
    first = runs[0].loop.engine.network.state_dict()
    for run in runs[1:]:
        weights = run.loop.engine.network.state_dict()
        assert all(torch.equal(weights[name], first[name]) for name in first)


def test_no_global_random_state_is_touched_or_read(config):
    torch.manual_seed(1)
    np.random.seed(1)
    one, before = go(Run(config)), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(2)
    assert differences(one, go(Run(config))) == []


# Stopped and resumed


def stop_after(config: RunConfig, epochs: int) -> Run:
    run = Run(config)
    for row in run:
        if row["epoch"] == epochs:
            break
    return run


@pytest.mark.parametrize(
    ("method", "fidelity"),
    [(name, "default") for name in METHODS]
    + [(m.name, "published") for m in methods.BUILT_IN if "fidelity" in m.fields],
)
def test_a_run_resumed_from_its_record_is_the_uninterrupted_one(config, method, fidelity):
    config = config.replace(method=method, fidelity=fidelity, **AWKWARD)
    whole = go(Run(config))
    stopped = stop_after(config, 1)
    assert stopped.record.status == "stopped"
    resumed = go(Run.resume(stopped.writer.path))
    assert resumed.path == stopped.writer.path
    assert resumed.status == "finished"
    assert differences(whole, resumed) == []


@pytest.mark.parametrize("method", ["SGD", "rs2", "selective-backprop"])
def test_a_run_iterated_again_goes_on(config, method):
    config = config.replace(method=method, **AWKWARD)
    run = stop_after(config, 1)
    assert differences(go(Run(config)), go(run)) == []


@pytest.mark.parametrize("method", ["unif-SGD", "p-SGD", "SGD", "el2n-pruned"])
@pytest.mark.parametrize("unit", ["iterations", "flops"])
def test_a_finished_run_is_extended_in_a_record_of_its_own(config, method, unit):
    """Where the rate does not depend on the length, it is the run that was longer from the start.

    The network that scores for a core set has a share of the budget, so that there it is not.
    """
    config = config.replace(method=method, schedule="constant", epochs=2, budget_unit=unit,
                            **({"limit": 500} if method == "el2n-pruned" else {}))  # fmt: skip
    short = go(Run(config))
    before = {path: path.read_bytes() for path in short.path.rglob("*") if path.is_file()}
    first = len(short.epochs)
    longer = go(Run.resume(short.path, epochs=5))
    assert {path: path.read_bytes() for path in before} == before
    assert (longer.path.parent, longer.config["extended"]) == (short.path.parent, "2")
    assert (
        longer.epochs.iloc[:first]
        .drop(columns=["progress"])
        .equals(short.epochs.drop(columns=["progress"]))
    )
    if method != "el2n-pruned":
        whole = go(Run(config.replace(epochs=5)))
        assert longer.about["id"] != whole.about["id"]
        assert longer.samples["loss"].equals(whole.samples["loss"])
        assert longer.epochs["test_loss"].equals(whole.epochs["test_loss"])
        for name in ("steps", "flops", "budget_limit", "test_class_accuracy"):
            assert longer.summary[name] == whole.summary[name]
    again = go(Run.resume(longer.path, epochs=6))
    assert (again.config["extended"], again.config["epochs"]) == ("2+5", 6)
    assert command(again).endswith("; budgetlab resume RECORD --epochs 5"
                                   "; budgetlab resume RECORD --epochs 6")  # fmt: skip
    assert "--epochs 2 " in command(again)


def test_the_rate_of_an_extended_run_is_that_of_its_new_length(config):
    short = go(Run(config.replace(epochs=2, schedule="linear", lr=0.1)))
    assert short.epochs["lr"].iloc[-1] == pytest.approx(1e-6)
    longer = go(Run.resume(short.path, epochs=4))
    steps = longer.epochs["steps"]
    third = 0.1 * (1 - (steps[2] - 1) / (steps[3] - 1))
    assert longer.epochs["lr"].iloc[2] == pytest.approx(third, rel=1e-3)
    assert longer.epochs["lr"].iloc[-1] == pytest.approx(1e-6)


def test_what_cannot_be_extended_says_why_and_leaves_nothing(config, tmp_path):
    short = go(Run(config.replace(epochs=2)))
    with pytest.raises(InputError, match="epochs 2 is not more than the 2 that"):
        Run.resume(short.path, epochs=2)
    with pytest.raises(InputError, match="is stopped, and only a finished run is extended"):
        Run.resume(stop_after(config, 1).writer.path, epochs=9)
    with pytest.raises(InputError, match="is not a setting of a new run"):
        Run(config.replace(extended="2"))
    folders = sorted(short.path.parent.iterdir())
    other = load_data(config.replace(data_seed=99), progress=False)
    with pytest.raises(RunError, match="is not what record"):
        Run.resume(short.path, epochs=4, splits=other)
    (short.path / "state.pt").unlink()
    with pytest.raises(InputError, match="cannot be resumed from"):
        Run.resume(short.path, epochs=4)
    assert sorted(short.path.parent.iterdir()) == folders


def test_stopping_after_every_epoch_changes_nothing(config):
    config = config.replace(method="p-SGD", budget_unit="flops")
    path = stop_after(config, 1).writer.path
    for epoch in (2, 3):
        run = Run.resume(path)
        assert next(iter(run))["epoch"] == epoch
    record = go(Run.resume(path))
    assert differences(go(Run(config)), record) == []


@pytest.mark.parametrize("killed", [True, False])
def test_a_run_that_keeps_its_state_rarely_resumes_from_the_last_one(config, killed):
    config = config.replace(epochs=6)
    whole = go(Run(config))
    run = Run(config)
    run.state_seconds = 1000.0
    epochs = iter(run)
    for _ in range(4):
        next(epochs)
    rows = len(run.writer.epochs)
    path = run.writer.path
    if killed:  # the first epoch's state is all there is
        path = shutil.copytree(path, path.with_name("killed"))
    else:
        epochs.close()
    resumed = Run.resume(path)
    assert (resumed.epoch, rows) == (1 if killed else 4, 4)
    assert differences(whole, go(resumed)) == []


def test_images_and_adamw_resume_too(config):
    config = config.replace(dataset="digits", method="c-SGD", augmentation="mixup", epochs=2,
                            optimiser="adamw", lr=0.01)  # fmt: skip
    whole, stopped = go(Run(config)), stop_after(config, 1)
    assert differences(whole, go(Run.resume(stopped.writer.path))) == []


def interrupt_at(step: int, error: type[BaseException] = KeyboardInterrupt):
    def on_step(run: Run) -> None:
        if run.ledger.steps == step:
            raise error

    return on_step


@pytest.mark.parametrize(("step", "epochs"), [(2, 0), (6, 1)])
def test_an_interrupt_within_an_epoch_costs_that_epoch_only(config, step, epochs):
    config = config.replace(method="p-SGD")
    run = Run(config, on_step=interrupt_at(step))
    with pytest.raises(KeyboardInterrupt):
        go(run)
    record = run.record
    assert (record.status, len(record.epochs)) == ("stopped", epochs)
    assert record.summary["steps"] == 4 * epochs
    assert (run.summary()["test_accuracy"] is None) == (epochs == 0)
    assert record.samples.sizes["epoch"] == epochs
    # Half an epoch is in the network now: only the record can go on.
    with pytest.raises(RunError, match=r"interrupted within an epoch: go on with Run\.resume"):
        go(run)
    assert differences(go(Run(config)), go(Run.resume(record.path))) == []


def test_a_kill_between_row_and_state_is_made_up_for(config, monkeypatch):
    """The row of epoch 2 is written, its state is not: epoch 2 is trained again."""
    run = stop_after(config, 1)
    monkeypatch.setattr(run.writer, "save_state", lambda content: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        go(run)
    assert len(run.record.epochs) == 2
    assert differences(go(Run(config)), go(Run.resume(run.writer.path))) == []


def test_a_finished_run_has_nothing_left(config):
    record = go(Run(config))
    before = (record.path / "epochs.csv").read_bytes()
    again = Run.resume(record.path)
    assert list(again) == []
    assert open_record(record.path).status == "finished"
    assert again.summary() == record.summary
    assert (record.path / "epochs.csv").read_bytes() == before


def test_an_old_iterator_thrown_away_does_not_unfinish_a_run(config):
    run = Run(config)
    forgotten = iter(run)
    next(forgotten)
    go(run)
    del forgotten
    assert run.record.status == "finished"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"not a state"])
def test_a_damaged_state_is_said(config, damage):
    path = stop_after(config, 1).writer.path
    (path / "state.pt").write_bytes(damage)
    with pytest.raises(InputError, match=r"state\.pt' cannot be resumed from") as error:
        Run.resume(path)
    assert "\n" not in str(error.value)
    assert open_record(path).status == "stopped"


def test_a_state_with_code_in_it_is_not_run(config, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    path = stop_after(config, 1).writer.path
    torch.save({"epoch": Bomb()}, path / "state.pt")
    with pytest.raises(InputError, match="cannot be resumed from"):
        Run.resume(path)
    assert not (tmp_path / "was run").exists()


# The budget


@pytest.mark.parametrize("unit", BUDGET_UNITS[:3])
@pytest.mark.parametrize("method", METHODS)
def test_the_budget_is_spent_and_never_overstepped(train, method, unit):
    # So small a budget pays for a second network only if it gets most of it.
    proxy = {"proxy_share": 0.7, "keep_fraction": 0.5} if method == "rho-loss" else {}
    run = train(method=method, budget_unit=unit, **AWKWARD, **proxy)
    spent, limit = run.ledger.spent(unit), run.budget.limit
    assert spent <= limit
    # What is left is less than a step and the look before it.
    looks, costs = max(16, run.loop.sampler.looks_before_step), run.ledger.costs
    price = 16 * costs.forward_backward + max(16 * costs.forward_backward, looks * costs.forward)
    one = {"iterations": 1, "samples": 16 + looks, "flops": price}
    assert limit - spent < one[unit]
    assert run.record.epochs["progress"].iloc[-1] == pytest.approx(spent / limit)
    assert run.record.status == "finished"


def test_a_budget_in_seconds_ends_near_its_limit(train):
    run = train(budget_unit="seconds", epochs=40, budget=1.0)
    assert 0 < run.ledger.seconds <= run.budget.limit * 1.5
    assert run.record.status == "finished"


def test_the_rate_falls_to_nothing_at_the_last_step(config):
    rates = []
    run = Run(
        config, on_step=lambda run: rates.append(run.loop.engine.optimiser.param_groups[0]["lr"])
    )
    go(run)
    assert rates == pytest.approx([0.1 + (1e-6 - 0.1) * i / 11 for i in range(12)])
    assert run.record.epochs["lr"].tolist() == pytest.approx([rates[3], rates[7], rates[11]])


def test_a_method_that_looks_is_charged(train):
    @bl.sampler("look first")
    class LookFirst(bl.Sampler):
        """Trains on the half with the highest loss."""

        def batches(self, epoch, history, look):
            for candidates in self.shuffled().split(2 * self.batch_size):
                seen = look(candidates)
                best = seen.losses.topk(self.batch_size).indices
                yield Batch(candidates[best], augmented=seen.augmented.rows(best))

    by_steps = train(method="look first", budget_unit="iterations")
    assert by_steps.ledger.totals() | {"seconds": 0} == {
        "steps": 12, "trained_samples": 192, "looked_samples": 384, "seconds": 0,
        "flops": 192 * by_steps.ledger.costs.forward_backward
        + 384 * by_steps.ledger.costs.forward}  # fmt: skip
    by_samples = train(method="look first", budget_unit="samples")
    # A step costs 16 trained and 32 looked at, out of 192.
    assert (by_samples.ledger.steps, by_samples.ledger.looked_samples) == (4, 128)


def test_weights_of_a_method_scale_the_step(config):
    def of(weight: float) -> type[bl.Sampler]:
        class Weighted(bl.Sampler):
            def batches(self, epoch, history, look):
                for indices in self.full_batches(torch.arange(self.size)):
                    yield Batch(indices, torch.full((len(indices),), weight))

        return Weighted

    # Without momentum and decay, twice the weight is twice the rate.
    plain = config.replace(method="weighted", momentum=0, weight_decay=0, schedule="constant")
    bl.sampler("weighted")(of(2.0))
    doubled = go(Run(plain))
    bl.sampler("weighted")(of(1.0))
    faster = go(Run(plain.replace(lr=0.2)))
    ours, theirs = content(doubled), content(faster)
    for name in ours:
        if name.startswith("weights/"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)
    # The loss that is reported is the plain one.
    assert doubled.epochs["train_loss"].iloc[0] == pytest.approx(
        faster.epochs["train_loss"].iloc[0], rel=1e-4
    )


# What is reported


def test_the_accuracy_of_the_last_epoch_is_reported_not_the_best(config):
    """A rate this high makes the accuracy go up and down."""
    record = go(Run(config.replace(lr=0.8, epochs=8, schedule="constant")))
    accuracies = record.epochs["test_accuracy"]
    assert accuracies.iloc[-1] < accuracies.max(), "this run cannot tell: its last is its best"
    assert record.summary["test_accuracy"] == accuracies.iloc[-1]


def test_the_accuracy_is_that_of_the_weights_that_are_kept(config):
    run = Run(config.replace(dataset="digits", limit=600, epochs=3, augmentation="none"))
    record = go(run)
    weights = safetensors.numpy.load_file(record.path / "model.safetensors")
    network = bl.models.build("small", (1, 8, 8), 10, seed=99).eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    test, train = run.splits.test, run.splits.train
    images = (test.x.float() / 255 - train.mean[0]) / train.std[0]
    with torch.no_grad():
        correct = (network(images).argmax(1) == test.y).float().mean().item()
    assert record.summary["test_accuracy"] == pytest.approx(correct, abs=2 / len(test))
    assert correct > 0.5


def test_the_record_counts_what_was_trained_on(train):
    run = train(method="p-SGD")
    samples = run.record.samples
    counts = samples["times_trained"].values
    assert counts.sum(1).tolist() == [64, 64, 64]
    assert np.array_equal(counts > 0, ~np.isnan(samples["loss"].values))
    assert np.array_equal(counts > 0, samples["correct"].values >= 0)
    assert samples["probability"].values.sum(1) == pytest.approx([1, 1, 1], abs=0.005)
    assert samples["label"].values.tolist() == run.splits.train.y.tolist()
    row = run.record.epochs.iloc[1]
    correct = samples["correct"].values[1]
    assert row["train_accuracy"] == pytest.approx(correct[correct >= 0].mean())
    assert row["train_loss"] == pytest.approx(np.nanmean(samples["loss"].values[1]), rel=5e-3)


def test_points_are_learned(train):
    run = train(limit=0, epochs=10, budget=1.0, lr=0.1, batch_size=32)
    assert run.record.summary["model"] == "mlp"
    assert run.record.summary["test_accuracy"] > 0.88
    assert run.record.thumbnails == {}


def test_images_leave_thumbnails_of_both_ends(train):
    run = train(dataset="digits", epochs=2)
    thumbnails = run.record.thumbnails
    assert 64 <= len(thumbnails) <= 128
    most = int(run.history.mean_loss.nan_to_num(0).argmax())
    expected = run.splits.train.x[most].permute(1, 2, 0).numpy()
    assert np.array_equal(thumbnails[most], expected)


def test_a_validation_split_is_held_out_and_measured(train):
    run = train(val_fraction=0.25)
    assert len(run.splits.train) == 96
    table = run.record.epochs
    assert table["val_accuracy"].between(0, 1).all()
    assert not np.array_equal(table["val_accuracy"], table["test_accuracy"])
    assert run.record.about["data"]["val"] == 32
    assert train().record.epochs["val_accuracy"].isna().all()


def test_train_is_that_loop(config, capsys):
    record = bl.train(config, progress=False)
    assert differences(record, go(Run(config))) == []
    assert capsys.readouterr() == ("", "")
    shown = bl.train(config, seed=3)
    assert shown.config["seed"] == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "unif-SGD on points: 128 samples, model mlp, float32 on cpu" in err
    assert "100% of the budget" in err


def test_showing_progress_keeps_what_the_caller_asked_for(config, capsys):
    steps = []
    run = Run(config, on_step=lambda run: steps.append(run.ledger.steps))
    finish(run)
    assert steps == list(range(1, 13))
    assert "100%" in capsys.readouterr().err


def test_data_can_be_shared_by_runs(config):
    splits = load_data(config, progress=False)
    shared = go(Run(config, splits=splits))
    assert isinstance(splits, Splits)
    assert differences(shared, go(Run(config))) == []


def test_a_method_comes_first_and_names_are_matched_in_any_case(config, data_root):
    settings = config.to_dict() | {"dataset": "Points", "augmentation": "NONE", "model": "MLP"}
    del settings["method"]
    record = bl.train("P-sgd", progress=False, **settings | {"schedule": "Linear"})
    assert {n: record.config[n] for n in ("method", "dataset", "augmentation", "model")} == {
        "method": "p-SGD", "dataset": "points", "augmentation": "none", "model": "mlp"
    }  # fmt: skip
    with pytest.raises(InputError, match="did you mean 'p-SGD'"):
        bl.train("p-SDG")
    with pytest.raises(InputError, match="unknown setting 'metod': did you mean 'method'"):
        bl.train(metod="p-SGD")
    with pytest.raises(InputError, match="3 is no method: give the name of one"):
        bl.train(3)


# A run never records what it did not apply

NOISY = {"limit": 200, "label_noise": 0.25, "data_seed": 3}


@pytest.fixture
def noisy(data_root):
    return bl.data.load("points", root=data_root, limit=200, label_noise=0.25, seed=3)


def small(config):
    return {"epochs": 1, "batch_size": 16, "out": config.out, "progress": False}


def test_a_run_on_loaded_data_records_how_it_was_loaded(config, noisy, data_root):
    record = bl.train(splits=noisy, preset="scale-model", **small(config), model="mlp")
    assert {name: record.config[name] for name in NOISY} == NOISY
    assert record.config["dataset"] == "points"
    # So the data is found again, too.
    assert record.config["data_root"] == str(data_root)
    assert Run.resume(record.path).splits.fingerprint == noisy.fingerprint
    again = bl.train(bl.RunConfig(**NOISY, dataset="POINTS"), splits=noisy, **small(config))
    assert {name: again.config[name] for name in NOISY} == NOISY


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"label_noise": 0.3}, "label-noise 0.3 .* which is 0.25"),
        ({"label_noise": 0.0}, "label-noise 0.0 .* which is 0.25"),
        ({"limit": 100}, "limit 100 .* which is 200"),
        ({"dataset": "shapes"}, "dataset shapes .* which is points"),
        ({"data_seed": 0}, "data-seed 0 .* which is 3"),
        ({"noise_kind": "pair"}, "noise-kind pair .* which is symmetric"),
    ],
)
def test_settings_that_loaded_data_does_not_have_are_refused(other, said, config, noisy):
    with pytest.raises(InputError, match=said):
        bl.train(splits=noisy, **small(config), **other)
    assert not Path(config.out).exists()


def test_data_of_ones_own_is_never_recorded_as_a_named_data_set(config, noisy):
    own = bl.Splits.of(noisy.train, name="mine")
    for first in (None, bl.RunConfig()):
        record = bl.train(first, splits=own, **small(config))
        assert (record.config["dataset"], record.config["label_noise"]) == ("mine", 0.0)
    assert bl.train(splits=own, dataset="ours", **small(config)).config["dataset"] == "ours"
    for wrong in ({"dataset": "CIFAR10"}, {"dataset": "shapes"}, {"data_seed": 3}, {"limit": 9}):
        with pytest.raises(InputError, match="leave it out"):
            bl.train(splits=own, **small(config), **wrong)


@pytest.mark.parametrize(
    ("budget", "size", "advice"),
    [(0.2, 500, "lower the batch size to 16, or raise the budget"), (0.1, 40, "to 2, or raise"),
     (0.02, 50, "lower the batch size, or raise the budget")],
)  # fmt: skip
def test_a_budget_below_one_batch_names_a_batch_size_that_works(config, budget, size, advice):
    with pytest.raises(InputError, match=advice) as error:
        Run(config.replace(budget=budget, limit=size, batch_size=128))
    size_that_works = re.search(r"batch size to (\d+)", str(error.value))
    if size_that_works:
        Run(config.replace(budget=budget, limit=size, batch_size=int(size_that_works[1])))


# What goes wrong


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "p-SDG"}, "unknown method 'p-SDG': did you mean 'p-SGD'"),
        ({"augmentation": "standart"}, "unknown augmentation 'standart': did you mean 'standard'"),
        ({"schedule": "linaer"}, "unknown schedule"),
        ({"model": "resnet19"}, "unknown model 'resnet19': did you mean 'resnet18'"),
        ({"model": "small"}, "model 'small' cannot take points"),
        ({"augmentation": "mixup"}, "augmentation 'mixup' needs images, and 'points' holds points"),
        ({"dataset": "shape"}, "unknown dataset 'shape': did you mean 'shapes'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"budget": 0.1}, "budget 0.1 of 128 samples is 12, less than one batch of 16"),
        ({"limit": 10_000}, "limit 10000 is more than the 1000"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_leaves_no_record(config, settings, says):
    with pytest.raises(InputError, match=says):
        Run(config.replace(**settings))
    assert not Path(config.out).exists()


def test_a_method_that_trains_on_nothing_is_said(config):
    @bl.sampler("nothing")
    class Nothing(bl.Sampler):
        def batches(self, epoch, history, look) -> Iterator[Batch]:
            return iter(())

    run = Run(config.replace(method="nothing"))
    with pytest.raises(RunError, match="method 'nothing' chose nothing in epoch 1"):
        go(run)
    assert run.record.status == "failed"


def test_an_error_in_a_method_is_the_caller_s_and_is_written_down(config):
    @bl.sampler("broken")
    def score(history):
        return history.no_such_thing

    run = Run(config.replace(method="broken"))
    with pytest.raises(AttributeError):
        go(run)
    assert run.record.status == "failed"
    assert "no_such_thing" in run.record.about["message"]


def test_one_image_a_batch_is_trained_or_refused(config):
    """Batch norm cannot train on a single value a channel."""
    settings = {"dataset": "digits", "limit": 20, "batch_size": 1, "epochs": 1, "model": "resnet18"}
    with pytest.raises(InputError, match="batch"):
        go(Run(config.replace(**settings)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_a_gpu_trains_the_same_steps(config):
    run = Run(config.replace(device="cuda", dataset="digits", model="small"))
    record = go(run)
    assert record.status == "finished"
    assert run.ledger.steps == 12
    assert record.summary["test_accuracy"] > 0.1


def test_what_is_shown_between_steps_is_not_charged(config):
    def draw_slowly(run: Run) -> None:
        time.sleep(0.05)

    run = Run(config, on_step=draw_slowly)
    list(run)
    assert run.ledger.steps * 0.05 > 2 * run.ledger.seconds


@pytest.mark.parametrize(
    ("every", "wanted"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3, 4]), (0, [4])]
)
def test_evaluates_every_nth_epoch_and_the_last(train, every, wanted):
    run = train(epochs=4, evaluate_every=every)
    table = run.record.epochs
    assert list(table["epoch"][table["test_accuracy"].notna()]) == wanted
    assert run.summary()["test_accuracy"] == table["test_accuracy"].iloc[-1]


def test_evaluating_seldom_changes_nothing_but_what_is_shown(train):
    often, seldom = train(epochs=4), train(epochs=4, evaluate_every=0)
    assert often.summary()["test_accuracy"] == seldom.summary()["test_accuracy"]
    assert often.record.samples.equals(seldom.record.samples)
    assert often.config.id != seldom.config.id


def test_a_run_stopped_at_an_epoch_not_evaluated_has_no_accuracy_and_goes_on(config):
    run = Run(config.replace(epochs=4, evaluate_every=0))
    for _ in run:
        break
    assert run.summary()["test_accuracy"] is None
    assert run.record.summary["test_accuracy"] is None
    resumed = Run.resume(run.writer.path)
    list(resumed)
    assert resumed.summary()["test_accuracy"] > 0


# Another optimiser


def test_adamw_takes_the_steps_that_torch_takes(config):
    """Decoupled decay, betas of the momentum and 0.999, the rate of the schedule."""
    run = Run(config.replace(optimiser="adamw", lr=0.01, weight_decay=0.1, momentum=0.8))
    engine = run.loop.engine
    before = [p.detach().clone() for p in engine.network.parameters()]
    engine.step(Batch(torch.arange(16)), lr=0.005)
    state = engine.optimiser.state
    for old, new in zip(before, engine.network.parameters(), strict=True):
        gradient = state[new]["exp_avg"] / (1 - 0.8)
        # At the first step the bias-corrected moments are the gradient and its square.
        expected = old * (1 - 0.005 * 0.1) - 0.005 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(new.detach(), expected, rtol=1e-4, atol=1e-6)
