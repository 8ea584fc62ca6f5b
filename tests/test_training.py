"""Runs: reproducible, stoppable, resumable, and never a step beyond the budget."""

import re
import shutil
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
import torch
from same_results import same_results

import budgetlab as bl
from budgetlab import methods, samplers
from budgetlab.config import BUDGET_UNITS, RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records import Record, open_record
from budgetlab.report.page import command
from budgetlab.samplers import Batch
from budgetlab.training import Run, finish, load_data
from budgetlab.training.loop import Loop

METHODS = samplers.names()
# 128 * 0.3 = 38 samples are 2 steps of 16 an epoch, 14 in all: SGD's second pass of 8 is cut.
AWKWARD = {"budget": 0.3, "epochs": 7}
# So small a budget pays for a second network only if it gets most of it; and scores of whole
# trajectories take four visits of each sample in the scoring run, and some steps after it.
LONG = {"budget": 1.0, "epochs": 8, "batch_size": 8, "proxy_share": 0.8, "subset_fraction": 0.25}
NEEDS = {
    "rho-loss": AWKWARD | {"proxy_share": 0.7, "keep_fraction": 0.5},
    **dict.fromkeys(("dyn-unc", "dual", "tdds"), LONG),
}


def go(run: Run) -> Record:
    list(run)
    return run.record


def stop_after(config: RunConfig, epochs: int) -> Run:
    run = Run(config)
    for row in run:
        if row["epoch"] == epochs:
            break
    return run


def weights(record: Record) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(record.path / "model.safetensors")


# Reproducible


def test_another_seed_is_another_run_on_the_same_data_and_methods_start_alike(config):
    one, other = (go(Run(config.replace(seed=seed))) for seed in (0, 1))
    assert one.fingerprint == other.fingerprint
    assert not np.array_equal(weights(one)["0.weight"], weights(other)["0.weight"])
    assert not one.epochs["train_loss"].equals(other.epochs["train_loss"])
    assert not one.samples["times_trained"].equals(other.samples["times_trained"])
    runs = [Run(config.replace(method=method, **NEEDS.get(method, {}))) for method in METHODS]
    first, *others = (run.loop.engine.network.state_dict() for run in runs)
    for network in others:
        assert all(torch.equal(network[name], first[name]) for name in first)


def test_no_global_random_state_is_touched_or_read(config):
    records = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        records.append(go(Run(config)))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
    same_results(*records)


# The budget, stopping and going on


def require_budget_spent(run: Run) -> None:
    """What is left is less than a step and the look before it."""
    unit, batch, costs = run.config.budget_unit, run.config.batch_size, run.ledger.costs
    looks = max(batch, run.loop.sampler.looks_before_step)
    step = batch * costs.forward_backward
    most = {
        "iterations": 1,
        "samples": batch + looks,
        "flops": step + max(step, looks * costs.forward),
    }
    assert 0 <= run.budget.limit - run.ledger.spent(unit) < most[unit]
    assert run.record.epochs["progress"].iloc[-1] == pytest.approx(
        run.ledger.spent(unit) / run.budget.limit
    )


VARIANTS = [
    *((name, {"budget_unit": BUDGET_UNITS[number % 3]}) for number, name in enumerate(METHODS)),
    *((m.name, {"fidelity": "published"}) for m in methods.BUILT_IN if "fidelity" in m.fields),
    ("p-SGD", {"weights": "unbiased"}),
    ("c-SGD", {"dataset": "digits", "augmentation": "mixup", "optimiser": "adamw", "lr": 0.01}),
]


@pytest.mark.parametrize(("method", "settings"), VARIANTS)
def test_a_method_spends_its_budget_and_a_stop_changes_nothing(config, method, settings):
    config = config.replace(method=method, **NEEDS.get(method, AWKWARD) | settings)
    whole = Run(config)
    record = go(whole)
    if settings.get("fidelity") != "published":  # whose code counts in another way
        require_budget_spent(whole)
    stopped = stop_after(config, 1)
    assert stopped.record.status == "stopped"
    resumed = go(Run.resume(stopped.writer.path))
    assert (resumed.path, resumed.status) == (stopped.writer.path, "finished")
    same_results(record, resumed)


def test_published_selective_backprop_ends_after_its_passes(config):
    wanted = {"fidelity": "published", "sb_beta": 0.5, "batch_size": 8, "epochs": 5}
    config = config.replace(method="selective-backprop", **wanted)
    assert go(Run(config)).epochs["epoch"].tolist() == [1, 2, 3, 4, 5]
    # In a loop of one's own, the last epoch can be trained on to its end.
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(96, 2), torch.arange(96) % 2)
    sampler = bl.BudgetSampler(data, "selective-backprop", model=torch.nn.Linear(2, 2), **wanted)
    ended = []
    while not sampler.finished:
        for batch in sampler:
            ended.append((sampler.epoch, sampler.finished))
            sampler.history.update(torch.zeros(len(batch), 2), data[batch][1])
    assert {epoch for epoch, _ in ended} == {1, 2, 3, 4, 5}
    assert not any(finished for _, finished in ended)


def iterated_again(config: RunConfig) -> Run:
    return stop_after(config, 1)


def kept_rarely(config: RunConfig, killed: bool) -> Run:
    """Four epochs of a run that keeps its state after the first, and when it is stopped."""
    run = Run(config)
    run.state_seconds = 1000.0
    epochs = iter(run)
    for _ in range(4):
        next(epochs)
    path = run.writer.path
    if killed:
        path = shutil.copytree(path, path.with_name("killed"))
    else:
        epochs.close()
    resumed = Run.resume(path)
    assert (resumed.epoch, len(run.writer.epochs)) == (1 if killed else 4, 4)
    return resumed


def resumed_after_the_last_epoch(config: RunConfig) -> Run:
    """It was trained and measured, and not yet summed up."""
    run = Run(config)
    for _ in run:
        if run.loop.finished:
            break
    assert run.record.status == "stopped"
    return Run.resume(run.writer.path)


CUTS = {
    "iterated again": iterated_again,
    "resumed after the last epoch": resumed_after_the_last_epoch,
    "killed, state kept rarely": partial(kept_rarely, killed=True),
    "stopped, state kept rarely": partial(kept_rarely, killed=False),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_however_a_run_is_cut_off_it_goes_on_as_if_it_had_not_been(config, cut):
    config = config.replace(method="selective-backprop", epochs=6)
    same_results(go(Run(config)), go(cut(config)))


@pytest.mark.parametrize(("step", "epochs"), [(2, 0), (6, 1)])
def test_an_interrupt_within_an_epoch_costs_that_epoch_only(config, step, epochs):
    def interrupt(run: Run) -> None:
        if run.ledger.steps == step:
            raise KeyboardInterrupt

    run = Run(config, on_step=interrupt)
    with pytest.raises(KeyboardInterrupt):
        go(run)
    record = run.record
    assert (record.status, len(record.epochs)) == ("stopped", epochs)
    assert (record.summary["steps"], record.samples.sizes["epoch"]) == (4 * epochs, epochs)
    assert (run.summary()["test_accuracy"] is None) == (epochs == 0)
    # Half an epoch is in the network now: only the record can go on.
    with pytest.raises(RunError, match=r"interrupted within an epoch: go on with Run\.resume"):
        go(run)
    same_results(go(Run(config)), go(Run.resume(record.path)))


@pytest.mark.parametrize("method", ["p-SGD", "SGD", "el2n-pruned"])
def test_a_finished_run_is_extended_in_a_record_of_its_own(config, method):
    """Where the rate does not depend on the length, it is the run that was longer from the start.

    The network that scores for a core set has a share of the budget, so that there it is not.
    """
    config = config.replace(method=method, schedule="constant", epochs=2, budget_unit="flops")
    if method == "el2n-pruned":
        config = config.replace(limit=500)
    short = go(Run(config))
    before = {path: path.read_bytes() for path in short.path.rglob("*") if path.is_file()}
    longer = go(Run.resume(short.path, epochs=5))
    assert {path: path.read_bytes() for path in before} == before
    assert (longer.path.parent, longer.config["extended"]) == (short.path.parent, "2")
    first = longer.epochs.iloc[: len(short.epochs)]
    assert first.drop(columns="progress").equals(short.epochs.drop(columns="progress"))
    if method != "el2n-pruned":
        whole = go(Run(config.replace(epochs=5)))
        assert longer.about["id"] != whole.about["id"]
        assert longer.samples.equals(whole.samples)
        assert longer.epochs["test_loss"].equals(whole.epochs["test_loss"])
        for name in ("steps", "flops", "budget_limit", "test_class_accuracy"):
            assert longer.summary[name] == whole.summary[name]
    again = go(Run.resume(longer.path, epochs=6))
    assert (again.config["extended"], again.config["epochs"]) == ("2+5", 6)
    resumed = "; budgetlab resume RECORD --epochs "
    assert "--epochs 2 " in command(again)
    assert command(again).endswith(f"{resumed}5{resumed}6")


def test_the_rate_falls_to_nothing_at_the_last_step_and_anew_over_an_extension(config):
    rates = []
    run = Run(
        config, on_step=lambda run: rates.append(run.loop.engine.optimiser.param_groups[0]["lr"])
    )
    record = go(run)
    assert rates == pytest.approx([0.1 + (1e-6 - 0.1) * i / 11 for i in range(12)])
    assert record.epochs["lr"].tolist() == pytest.approx([rates[3], rates[7], rates[11]])
    longer = go(Run.resume(record.path, epochs=5))
    # Of 20 steps the 16th and the last.
    expected = [0.1 * (1 - 15 / 19), 1e-6]
    assert longer.epochs["lr"].iloc[3:].tolist() == pytest.approx(expected, rel=1e-3)


def test_what_cannot_be_extended_says_why_and_leaves_nothing(config):
    short = go(Run(config.replace(epochs=2)))
    stopped = stop_after(config, 1).writer.path
    folders = sorted(short.path.parent.iterdir())
    other = load_data(config.replace(data_seed=99), progress=False)
    for call, error, says in (
        (lambda: Run.resume(short.path, epochs=2), InputError, "2 is not more than the 2 that"),
        (lambda: Run.resume(stopped, epochs=9), InputError, "is stopped, not finished"),
        (lambda: Run(config.replace(extended="2")), InputError, "is not a setting of a new run"),
        (lambda: Run.resume(short.path, epochs=4, splits=other), RunError, "is not what record"),
    ):
        with pytest.raises(error, match=says):
            call()
    (short.path / "state.pt").unlink()
    with pytest.raises(InputError, match="cannot be resumed from"):
        Run.resume(short.path, epochs=4)
    assert sorted(short.path.parent.iterdir()) == folders


def test_a_finished_run_has_nothing_left_and_no_old_iterator_unfinishes_it(config):
    run = Run(config)
    forgotten = iter(run)
    next(forgotten)
    record = go(run)
    del forgotten
    assert run.record.status == "finished"
    before = {path: path.stat().st_mtime_ns for path in record.path.glob("*.*")}
    again = Run.resume(record.path)
    assert list(again) == []
    assert (open_record(record.path).status, again.summary()) == ("finished", record.summary)
    assert {path: path.stat().st_mtime_ns for path in before} == before


# What a step does and costs


def test_a_budget_in_seconds_ends_near_its_limit_and_drawing_a_page_is_not_charged(config):
    run = Run(config.replace(budget_unit="seconds", epochs=40, budget=1.0))
    go(run)
    assert 0 < run.ledger.seconds <= run.budget.limit * 1.5
    shown = Run(config, on_step=lambda run: time.sleep(0.05))
    go(shown)
    assert shown.ledger.steps * 0.05 > 2 * shown.ledger.seconds


@pytest.fixture
def clocked(config, load_once, monkeypatch):
    """A loop with a budget of 12 seconds, and the seconds that its steps and looks take."""
    monkeypatch.setattr(Loop, "_time_plain_step", lambda loop: 1.0)
    config = config.replace(method="top-k", keep_fraction=0.5, budget_unit="seconds")
    loop = Loop(config, load_once("points", limit=128).train, torch.device("cpu"), torch.float32)
    now, before, takes = [0.0], [], {"step": 1.0, "look": 0.9}

    def timed(kind, work):
        def working(*given):
            now[0] += takes[kind]
            return work(*given)

        return working

    for kind in takes:
        setattr(loop.engine, kind, timed(kind, getattr(loop.engine, kind)))
    loop.clock = SimpleNamespace(
        start=lambda: before.append(now[0]), skip=lambda seconds: None,
        read=lambda: now[0] - before[-1], stop=lambda: now[0] - before[-1],
    )  # fmt: skip
    return loop, takes


def test_a_budget_in_seconds_foresees_looks_as_it_does_steps(clocked):
    """Of 12 seconds, six looks of 0.9 and steps of 1 take 11.4: a seventh look does not fit."""
    loop, _ = clocked
    # Before the first one, a look at two batches is taken to last as long as two steps.
    assert (loop.budget.limit, loop.budget.slowest_look) == (12, 2)
    while not loop.finished:
        loop.train_epoch(loop.history.epoch + 1)
    assert (loop.ledger.seconds, loop.ledger.steps) == (pytest.approx(11.4), 6)
    assert (loop.budget.slowest_look, loop.budget.slowest_step) == pytest.approx((0.9, 1))


def test_the_slowest_look_is_that_of_the_last_two_epochs_with_looks(clocked):
    loop, takes = clocked

    def batches(epoch, history, look):
        if epoch != 2:
            look(torch.arange(32))
        yield Batch(torch.arange(16))

    loop.sampler.batches = batches
    for epoch, seconds, slowest in ((1, 0.9, 0.9), (2, 0.0, 0.9), (3, 0.1, 0.9), (4, 0.2, 0.2)):
        takes["look"] = seconds
        loop.train_epoch(epoch)
        assert loop.budget.slowest_look == pytest.approx(slowest)


def test_an_epoch_without_a_step_has_no_learning_rate(train):
    run = train(method="top-k", keep_fraction=0.25, budget_unit="samples")
    before, last = run.record.epochs[["steps", "lr", "train_loss"]].to_numpy()[-2:]
    assert before[0] == last[0]
    assert np.isfinite(before).all()
    assert np.isnan(last[1:]).all()


def test_a_method_that_looks_is_charged(train):
    @bl.sampler("look first")
    class LookFirst(bl.Sampler):
        """Trains on the half with the highest loss."""

        def batches(self, epoch, history, look):
            for candidates in self.shuffled().split(2 * self.batch_size):
                seen = look(candidates)
                best = seen.losses.topk(self.batch_size).indices
                yield Batch(candidates[best], augmented=seen.augmented.rows(best))

    ledger = train(method="look first", budget_unit="iterations").ledger
    assert (ledger.steps, ledger.trained_samples, ledger.looked_samples) == (12, 192, 384)
    assert ledger.totals()["flops"] == (
        192 * ledger.costs.forward_backward + 384 * ledger.costs.forward
    )
    ledger = train(method="look first", budget_unit="samples").ledger
    # A step costs 16 trained and 32 looked at, out of 192.
    assert (ledger.steps, ledger.looked_samples) == (4, 128)


def test_weights_of_a_method_scale_the_step(config):
    def register(weight: float) -> None:
        @bl.sampler("weighted")
        class Weighted(bl.Sampler):
            def batches(self, epoch, history, look):
                for indices in self.full_batches(torch.arange(self.size)):
                    yield Batch(indices, torch.full((len(indices),), weight))

    # Without momentum and decay, twice the weight is twice the rate.
    plain = config.replace(method="weighted", momentum=0, weight_decay=0, schedule="constant")
    register(2.0)
    doubled = go(Run(plain))
    register(1.0)
    faster = go(Run(plain.replace(lr=0.2)))
    for name, values in weights(doubled).items():
        np.testing.assert_allclose(values, weights(faster)[name], rtol=1e-4, atol=1e-6)
    # The loss that is reported is the plain one.
    losses = [record.epochs["train_loss"].iloc[0] for record in (doubled, faster)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_adamw_takes_the_steps_that_torch_takes(config):
    """Decoupled decay, betas of the momentum and 0.999, the rate of the schedule."""
    run = Run(config.replace(optimiser="adamw", lr=0.01, weight_decay=0.1, momentum=0.8))
    engine = run.loop.engine
    before = [p.detach().clone() for p in engine.network.parameters()]
    engine.step(Batch(torch.arange(16)), lr=0.005)
    for old, new in zip(before, engine.network.parameters(), strict=True):
        gradient = engine.optimiser.state[new]["exp_avg"] / (1 - 0.8)
        # At the first step the bias-corrected moments are the gradient and its square.
        expected = old * (1 - 0.005 * 0.1) - 0.005 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(new.detach(), expected, rtol=1e-4, atol=1e-6)


# What is reported


def test_the_accuracy_is_of_the_last_epoch_not_the_best_and_of_the_weights_that_are_kept(config):
    """A rate this high makes the accuracy go up and down."""
    record = go(Run(config.replace(lr=0.8, epochs=8, schedule="constant")))
    accuracies = record.epochs["test_accuracy"]
    assert accuracies.iloc[-1] < accuracies.max(), "this run cannot tell: its last is its best"
    assert record.summary["test_accuracy"] == accuracies.iloc[-1]
    run = Run(config.replace(dataset="digits", limit=600, epochs=3, augmentation="none"))
    record = go(run)
    network = bl.models.build("small", (1, 8, 8), 10, seed=99).eval()
    kept = weights(record).items()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in kept})
    test, train = run.splits.test, run.splits.train
    images = (test.x.float() / 255 - train.mean[0]) / train.std[0]
    with torch.no_grad():
        correct = (network(images).argmax(1) == test.y).float().mean().item()
    assert record.summary["test_accuracy"] == pytest.approx(correct, abs=2 / len(test))
    assert correct > 0.5
    # Thumbnails are of both ends: those trained on most are among them.
    assert 64 <= len(record.thumbnails) <= 128
    most = int(run.history.mean_loss.nan_to_num(0).argmax())
    expected = run.splits.train.x[most].permute(1, 2, 0).numpy()
    assert np.array_equal(record.thumbnails[most], expected)


def test_the_record_counts_what_was_trained_on_and_a_validation_split_is_held_out(train):
    run = train(method="p-SGD", val_fraction=0.25)
    samples, table = run.record.samples, run.record.epochs
    counts = samples["times_trained"].values
    assert counts.sum(1).tolist() == [48, 48, 48]
    assert np.array_equal(counts > 0, ~np.isnan(samples["loss"].values))
    assert np.array_equal(counts > 0, samples["correct"].values >= 0)
    assert samples["probability"].values.sum(1) == pytest.approx([1, 1, 1], abs=0.005)
    assert samples["label"].values.tolist() == run.splits.train.y.tolist()
    correct = samples["correct"].values[1]
    assert table["train_accuracy"][1] == pytest.approx(correct[correct >= 0].mean())
    assert table["train_loss"][1] == pytest.approx(np.nanmean(samples["loss"].values[1]), rel=5e-3)
    assert (len(run.splits.train), run.record.about["data"]["val"]) == (96, 32)
    assert table["val_accuracy"].between(0, 1).all()
    assert not np.array_equal(table["val_accuracy"], table["test_accuracy"])


def test_evaluating_seldom_changes_nothing_but_what_is_shown(config, train):
    often = train(epochs=4)
    for every, wanted in ((2, [2, 4]), (3, [3, 4]), (0, [4])):
        run = train(epochs=4, evaluate_every=every)
        table = run.record.epochs
        assert list(table["epoch"][table["test_accuracy"].notna()]) == wanted
        assert run.summary()["test_accuracy"] == often.summary()["test_accuracy"]
        assert run.record.samples.equals(often.record.samples)
        assert run.config.id != often.config.id
    stopped = stop_after(config.replace(epochs=4, evaluate_every=0), 1)
    assert stopped.summary()["test_accuracy"] is stopped.record.summary["test_accuracy"] is None


def test_train_is_that_loop_on_data_given_or_loaded_and_says_what_it_does(config, capsys):
    """Names are matched in any case, and what is said goes to standard error."""
    record = bl.train(config, progress=False)
    assert capsys.readouterr() == ("", "")
    steps = []
    run = Run(
        config,
        splits=load_data(config, progress=False),
        on_step=lambda run: steps.append(run.ledger.steps),
    )
    finish(run)
    assert steps == list(range(1, 13))
    assert "100%" in capsys.readouterr().err
    same_results(record, run.record)
    settings = config.to_dict() | {"dataset": "Points", "augmentation": "NONE", "model": "MLP"}
    del settings["method"]
    record = bl.train("P-sgd", **settings | {"schedule": "Linear"})
    names = [record.config[name] for name in ("method", "dataset", "augmentation", "model")]
    assert names == ["p-SGD", "points", "none", "mlp"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "p-SGD on points: 128 samples, model mlp, float32 on cpu" in err
    assert "100% of the budget" in err


# A run never records what it did not apply

NOISY = {"limit": 200, "label_noise": 0.25, "data_seed": 3}


@pytest.fixture
def noisy(load_once):
    return load_once("points", limit=200, label_noise=0.25, seed=3)


@pytest.fixture
def small(config):
    return {"epochs": 1, "batch_size": 16, "out": config.out, "progress": False}


def test_a_run_on_loaded_data_records_how_it_was_loaded(small, noisy, data_root):
    record = bl.train(splits=noisy, preset="scale-model", **small, model="mlp")
    assert {name: record.config[name] for name in NOISY} == NOISY
    # So the data is found again, too.
    assert (record.config["dataset"], record.config["data_root"]) == ("points", str(data_root))
    assert Run.resume(record.path).splits.fingerprint == noisy.fingerprint
    again = bl.train(bl.RunConfig(**NOISY, dataset="POINTS"), splits=noisy, **small)
    assert {name: again.config[name] for name in NOISY} == NOISY


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"label_noise": 0.3}, "label-noise 0.3 .* which is 0.25"),
        ({"limit": 100}, "limit 100 .* which is 200"),
        ({"data_seed": 0}, "data-seed 0 .* which is 3"),
        ({"dataset": "shapes"}, "dataset shapes .* which is points"),
        ({"noise_kind": "pair"}, "noise-kind pair .* which is symmetric"),
    ],
)
def test_settings_that_loaded_data_does_not_have_are_refused(other, said, small, noisy):
    with pytest.raises(InputError, match=said):
        bl.train(splits=noisy, **small, **other)
    assert not Path(small["out"]).exists()


def test_data_of_ones_own_is_never_recorded_as_a_named_data_set(small, noisy):
    own = bl.Splits.of(noisy.train, name="mine")
    for first in (None, bl.RunConfig()):
        record = bl.train(first, splits=own, **small)
        assert (record.config["dataset"], record.config["label_noise"]) == ("mine", 0.0)
    with pytest.raises(InputError, match="on your own data: give it again with splits="):
        Run.resume(record.path)
    assert bl.train(splits=own, dataset="ours", **small).config["dataset"] == "ours"
    for wrong in ({"dataset": "CIFAR10"}, {"dataset": "shapes"}, {"data_seed": 3}, {"limit": 9}):
        with pytest.raises(InputError, match="leave it out"):
            bl.train(splits=own, **small, **wrong)


# What goes wrong


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "p-SDG"}, "unknown method 'p-SDG': did you mean 'p-SGD'"),
        ({"method": 3}, "3 is not a method: give the name of one"),
        ({"augmentation": "standart"}, "unknown augmentation 'standart': did you mean 'standard'"),
        ({"model": "resnet19"}, "unknown model 'resnet19': did you mean 'resnet18'"),
        ({"model": "small"}, "model 'small' cannot take points"),
        ({"augmentation": "mixup"}, "augmentation 'mixup' needs images"),
        ({"dataset": "shape"}, "unknown dataset 'shape': did you mean 'shapes'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cuda:77"}, "device 'cuda:77' is not there"),
        ({"budget": 0.1}, "budget 0.1 of 128 samples is 12, less than one batch of 16"),
        ({"limit": 10_000}, "limit 10000 is more than the 1000"),
        # Batch norm cannot train on a single value a channel.
        ({"dataset": "digits", "limit": 20, "batch_size": 1, "model": "resnet18"}, "batch"),
    ],
)
def test_what_cannot_be_run_leaves_no_record(config, settings, says):
    settings = config.to_dict() | settings
    with pytest.raises(InputError, match=says):
        bl.train(settings.pop("method"), progress=False, **settings)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(("budget", "size", "fits"), [(0.2, 500, 16), (0.1, 40, 2), (0.02, 50, 0)])
def test_a_budget_below_one_batch_names_what_works(config, budget, size, fits):
    with pytest.raises(InputError, match="less than one batch of 128: ") as error:
        Run(config.replace(budget=budget, limit=size, batch_size=128))
    enough = [float(number) for number in re.findall(r"the budget to (\S+) or", str(error.value))]
    assert enough == ([0.26] if size > 128 else [])
    for number in enough:
        Run(config.replace(budget=number, limit=size, batch_size=128))
    named = [int(number) for number in re.findall(r"--batch-size (\d+)", str(error.value))]
    assert named == ([fits] if fits else [])
    for number in named:
        Run(config.replace(budget=budget, limit=size, batch_size=number))


def test_an_error_in_a_method_is_the_caller_s_and_is_written_down(config):
    @bl.sampler("nothing")
    class Nothing(bl.Sampler):
        def batches(self, epoch, history, look):
            return iter(())

    @bl.sampler("broken")
    def score(history):
        return history.no_such_thing

    for method, error, says in (
        ("nothing", RunError, "method 'nothing' chose nothing in epoch 1"),
        ("broken", AttributeError, "no_such_thing"),
    ):
        run = Run(config.replace(method=method))
        with pytest.raises(error, match=says):
            go(run)
        assert run.record.status == "failed"
        assert says in run.record.about["message"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_a_gpu_trains_the_same_steps(config):
    run = Run(config.replace(device="cuda", dataset="digits", model="small"))
    record = go(run)
    assert record.status == "finished"
    assert run.ledger.steps == 12
    assert record.summary["test_accuracy"] > 0.1
