"""Recorded steps: used only where they are right and pay; here without a GPU, by fake replays."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from budgetlab import devices
from budgetlab.augment import AugmentedBatch
from budgetlab.config import RunConfig
from budgetlab.devices import Clock
from budgetlab.samplers import Batch
from budgetlab.training.graphs import SWITCH, StepGraphs, _device_seconds, capture_if_faster
from budgetlab.training.loop import Loop

FLOAT = torch.float32
CPU = torch.device("cpu")


def over_buffers(work, generator):
    """Record as CUDA does: by steps that count, and with results in tensors that are kept."""
    kept = [value.clone() for value in work()]
    work()

    def replay():
        for buffer, value in zip(kept, work(), strict=True):
            buffer.copy_(value)
        return tuple(kept)

    return replay


def quicker(factor: float):
    """Say that replays, timed second, take less by a factor."""
    told = iter([1.0, 1.0 / factor] * 9)
    return lambda work: next(told)


def counter():
    """Work on one tensor, with a random number; what it changes, and its generator."""
    value, generator = torch.zeros(3), torch.Generator().manual_seed(0)
    value[2] = torch.nan

    def work():
        value.add_(1 + torch.rand((), generator=generator))
        return (value.sum(),)

    return work, value, generator


@pytest.mark.parametrize(
    ("factor", "used"), [(2.0, True), (1.06, True), (1.04, False), (0.5, False)]
)
def test_a_replay_is_used_where_it_pays_and_the_trial_leaves_nothing_behind(factor, used):
    work, value, generator = counter()
    before, drawn = value.clone(), generator.get_state()
    replay = capture_if_faster(
        work, [value], generator, record=over_buffers, seconds=quicker(factor)
    )
    assert (replay is not None) is used
    assert torch.equal(value.nan_to_num(), before.nan_to_num())
    assert torch.equal(generator.get_state(), drawn)


def refuses(work, generator):
    work()
    raise RuntimeError("operation not permitted when stream is capturing")


# Recordings that leave something else, draw something else, return less, or are impossible.
WRONG = {
    "leaves": lambda work, generator: lambda: (work()[0] * 1.1,),
    "draws": lambda work, generator: lambda: (torch.rand(9, generator=generator), *work())[1:],
    "returns": lambda work, generator: lambda: work()[1:],
    "refuses": refuses,
}


@pytest.mark.parametrize("record", WRONG.values(), ids=WRONG)
def test_a_recording_that_is_wrong_or_impossible_is_not_used(record):
    work, value, generator = counter()
    value[2] = 0
    before = value.clone()
    given = {"record": record, "seconds": quicker(9)}
    assert capture_if_faster(work, [value], generator, **given) is None
    assert torch.equal(value, before)


def recorded(loop, record=over_buffers):
    """Let the steps of a loop be replayed, as on a GPU."""
    loop.graphs = StepGraphs(
        loop._step, loop.engine, loop.history, record=record, seconds=quicker(9)
    )
    return loop.graphs


def left(loop):
    """All that training leaves, as bytes."""
    held = {**loop.engine.network.state_dict(), **loop.history.state_dict()}
    arrays = {name: value.numpy() for name, value in held.items() if hasattr(value, "numpy")}
    return {name: value.tobytes() for name, value in (arrays | loop.epoch_arrays()).items()}


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("method", "augmentation"),
    [("p-SGD", "ricap"), ("c-SGD", "standard"), ("selective-backprop", "mixup"), ("loss", "none")],
)
def test_a_run_over_replayed_steps_leaves_what_plain_steps_leave(
    method, augmentation, optimiser, load_once
):
    """Draws, credit, weights and rates of learning; and no result in a tensor overwritten later."""
    samples = load_once("digits", limit=44).train
    config = RunConfig(dataset="digits", model="small", method=method, augmentation=augmentation,
                       optimiser=optimiser, epochs=8, budget=1.0, batch_size=8, lr=0.01,
                       weights="unbiased" if method == "loss" else "none")  # fmt: skip
    # With a rate that a float32 holds exactly: a recorded step reads it from a tensor.
    config = config.replace(schedule="constant", lr=2**-6)
    plain, replayed = (Loop(config, samples, CPU, FLOAT) for _ in range(2))
    graphs = recorded(replayed)
    for epoch in (1, 2):
        rows = [loop.train_epoch(epoch) for loop in (plain, replayed)]
        assert rows[0]["train_loss"] == rows[1]["train_loss"]
    assert graphs.in_use
    assert left(plain) == left(replayed)
    assert replayed.engine.optimiser.param_groups[0].get("capturable", False) is False


class Streams:
    """The streams of a GPU, as lists of what was put into them."""

    def __init__(self, monkeypatch, capturing=True):
        self.current, self.log = "main", []
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.named(self.current))
        monkeypatch.setattr(torch.cuda, "stream", self.using)
        monkeypatch.setattr(devices, "_branch_stream", lambda device: self.named("branch"))

    def named(self, name):
        return SimpleNamespace(
            name=name, wait_stream=lambda other: self.log.append(f"{name} waits for {other.name}")
        )

    @contextlib.contextmanager
    def using(self, stream):
        before, self.current = self.current, stream.name
        yield
        self.current = before

    def watch(self, owner, *names):
        for name in names:
            done = getattr(owner, name)

            def logged(*given, name=name, done=done, **more):
                self.log.append(f"{name} in {self.current}")
                return done(*given, **more)

            setattr(owner, name, logged)


@pytest.mark.parametrize("method", ["p-SGD", "selective-backprop"])
def test_in_a_captured_step_the_history_learns_beside_the_backward_pass(
    method, load_once, monkeypatch
):
    """Forked after the forward pass, joined behind the optimiser; elsewhere all is in order."""
    samples = load_once("digits", limit=64).train
    config = RunConfig(dataset="digits", model="small", batch_size=8, method=method)
    loop = Loop(config, samples, CPU, FLOAT)
    streams = Streams(monkeypatch)
    loop.engine.branch.device = CUDA
    streams.watch(loop.history, "count", "update")
    streams.watch(loop.engine.optimiser, "step")
    batch = Batch(torch.arange(8))
    beside = ["branch waits for main", "count in branch", "update in branch", "step in main",
              "main waits for branch"]  # fmt: skip
    for parallel, capturing in ((True, True), (False, True), (True, False)):
        loop.engine.branch.parallel = parallel
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda now=capturing: now)
        streams.log.clear()
        loop._step(batch, 0.1)
        expected = beside if parallel and capturing else [
            "count in main", "update in main", "step in main"]  # fmt: skip
        assert streams.log == expected


def test_a_graph_that_cannot_be_captured_in_branches_is_captured_in_order(config, load_once):
    loop = Loop(config, load_once("points", limit=128).train, CPU, FLOAT)
    tried = []

    def record(work, generator):
        tried.append(loop.engine.branch.parallel)
        return (refuses if tried[-1] else over_buffers)(work, generator)

    graphs = recorded(loop, record)
    loop.train_epoch(1)
    assert tried == [True, False]
    assert graphs.in_use


def test_graphs_can_be_turned_off(config, load_once, monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    loop = Loop(config, load_once("points", limit=128).train, CPU, FLOAT)
    graphs = recorded(loop)
    loop.train_epoch(1)
    assert not graphs.in_use
    assert graphs.replays == {}


def test_a_batch_of_another_kind_is_not_replayed(config, load_once):
    """Fewer samples, factors, or images that were looked at: each is another recording or none."""
    samples = load_once("digits", limit=64).train
    loop = Loop(config.replace(dataset="digits", model="small", batch_size=8), samples, CPU, FLOAT)
    graphs = recorded(loop)
    indices = torch.arange(8)
    images = AugmentedBatch(samples.x[:8], indices[:, None], torch.ones(8, 1))
    kinds = [Batch(indices), Batch(indices, torch.ones(8)), Batch(indices, None, images)]
    for batch in (*kinds, Batch(indices[:5]), *kinds):
        assert all(value.ndim == 0 for value in graphs(batch, 0.1))
    assert len(graphs.replays) == 3
    assert graphs.in_use


class FakeEvent:
    """An event of a GPU that works a second for each step, behind the program."""

    now, waited = 0.0, 0

    def __init__(self, enable_timing=False):
        assert enable_timing, "an event without timing has no time to read"

    def record(self):
        self.at = FakeEvent.now

    def synchronize(self):
        FakeEvent.waited += 1

    def elapsed_time(self, end):
        return 1000 * (end.at - self.at)


CUDA = SimpleNamespace(type="cuda")


@pytest.fixture
def event_clock(monkeypatch):
    """When the whole device is waited for."""
    FakeEvent.now, FakeEvent.waited, waits = 0.0, 0, []
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(FakeEvent.now))
    return waits


def test_an_epoch_on_a_gpu_is_timed_by_its_events_and_waited_for_once(
    config, load_once, monkeypatch, event_clock
):
    loop = Loop(config, load_once("points", limit=128).train, torch.device("cpu"), FLOAT)
    loop.device, loop.clock = CUDA, Clock(CUDA)
    step = loop._step

    def second(batch, lr):
        FakeEvent.now += 1.0
        return step(batch, lr)

    monkeypatch.setattr(loop, "_step", second)
    for epoch in (1, 2):
        row = loop.train_epoch(epoch)
        assert row["seconds"] == loop.ledger.steps == 4 * epoch
        assert FakeEvent.waited == epoch
    assert event_clock == []


def test_a_budget_in_seconds_waits_at_every_reading(event_clock):
    clock = Clock(CUDA, waiting=True)
    clock.start()
    assert 0 <= clock.read() <= clock.stop()
    assert len(event_clock) == 2
    assert FakeEvent.waited == 0


def test_passes_are_timed_by_events_after_a_warm_up(event_clock):
    done = []

    def work():
        done.append(1)
        FakeEvent.now += 2.0

    assert _device_seconds(work, repeats=3) == 6.0
    assert len(done) == 4
    assert (len(event_clock), FakeEvent.waited) == (1, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
@pytest.mark.parametrize("precision", [FLOAT, torch.bfloat16])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("method", "augmentation"),
    [("p-SGD", "ricap"), ("c-SGD", "cutmix"), ("selective-backprop", "mixup"),
     ("p-SGD", "randaugment")],
)  # fmt: skip
def test_a_step_recorded_on_a_gpu_is_used_and_leaves_what_a_plain_one_leaves(
    method, augmentation, optimiser, precision, load_once
):
    samples = load_once("digits", limit=256).train
    config = RunConfig(dataset="digits", model="small", method=method, augmentation=augmentation,
                       optimiser=optimiser, epochs=40, budget=1.0, batch_size=32, lr=0.001,
                       schedule="constant")  # fmt: skip
    loops = [Loop(config, samples, torch.device("cuda"), precision) for _ in range(2)]
    loops[1].graphs = None
    rows = [[loop.train_epoch(epoch) for epoch in (1, 2)] for loop in loops]
    assert loops[0].graphs.in_use
    for one, other in zip(*rows, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=2e-2)
    # The same random numbers were drawn, and as many of them.
    states = [loop.engine.generator.get_state() for loop in loops]
    assert torch.equal(*states)
    held = [loop.history.times_trained for loop in loops]
    assert torch.equal(*held)
