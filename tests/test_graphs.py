"""Graphs of forward and backward: used only where they are right and pay; here without a GPU."""

import pytest
import torch

from budgetlab import models
from budgetlab.devices import Clock
from budgetlab.training import graphs
from budgetlab.training.engine import Engine
from budgetlab.training.graphs import GraphedNetwork, graph_if_it_pays
from budgetlab.training.loop import Loop

FLOAT = torch.float32


@pytest.fixture
def network() -> torch.nn.Module:
    return models.build("small", (3, 8, 8), 4, seed=0).train()


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def warmed_up(network, inputs, precision):
    """Make a graph as CUDA does, by passes that move the running means of batch norm."""
    for _ in range(3):
        network(inputs + 5)
    return lambda batch: network(batch)


def quicker(factor: float):
    """Say that passes of the graph, timed second, take less by a factor."""
    told = iter([1.0, 1.0 / factor])
    return lambda work: next(told)


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("factor", "used"), [(2.0, True), (1.06, True), (1.04, False), (0.5, False)]
)
def test_a_graph_is_used_where_it_pays_and_leaves_nothing_behind(network, inputs, factor, used):
    before = state(network)
    graph = graph_if_it_pays(network, inputs, FLOAT, capture=warmed_up, seconds=quicker(factor))
    assert (graph is not None) is used
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in network.parameters())


def test_a_graph_that_computes_something_else_is_not_used(network, inputs):
    def wrong_logits(network, inputs, precision):
        return lambda batch: network(batch) * 1.1

    def wrong_gradients(network, inputs, precision):
        # As if a part of the network had been recorded without its backward.
        return lambda batch: network.classifier(network.features(batch).mean((2, 3)).detach())

    def fine(network, inputs, precision):
        return lambda batch: network(batch) * (1 + 1e-4)

    for capture, used in ((wrong_logits, False), (wrong_gradients, False), (fine, True)):
        graph = graph_if_it_pays(network, inputs, FLOAT, capture=capture, seconds=quicker(2))
        assert (graph is not None) is used, capture


def test_what_cannot_be_recorded_is_trained_without_a_graph(network, inputs):
    def refuses(network, inputs, precision):
        network(inputs + 5)
        raise RuntimeError("operation not permitted when stream is capturing")

    before = state(network)
    assert graph_if_it_pays(network, inputs, FLOAT, capture=refuses) is None
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_graphs_can_be_turned_off(network, inputs, monkeypatch):
    monkeypatch.setenv(graphs.SWITCH, "0")
    assert graph_if_it_pays(network, inputs, FLOAT, capture=warmed_up, seconds=quicker(9)) is None


def test_a_batch_of_another_shape_does_not_fit(inputs):
    graph = GraphedNetwork(lambda batch: batch, inputs)
    assert graph.fits(torch.zeros_like(inputs))
    assert not graph.fits(inputs[:5])
    assert not graph.fits(inputs.double())


def make_engine(config, load_once) -> Engine:
    samples = load_once("digits", limit=40).train
    return Engine(config, "small", samples, torch.device("cpu"), FLOAT)


def test_steps_through_a_graph_are_the_steps_without(config, load_once, monkeypatch):
    """The way through the engine, with a graph that replays on the CPU."""
    from budgetlab.samplers import Batch

    config = config.replace(dataset="digits", batch_size=8)
    plain, graphed = make_engine(config, load_once), make_engine(config, load_once)
    assert not plain._may_graph
    tried = []

    def graph(network, inputs, precision):
        tried.append(inputs.shape)
        return GraphedNetwork(network, inputs)

    monkeypatch.setattr("budgetlab.training.engine.graph_if_it_pays", graph)
    graphed._may_graph = True
    for size in (8, 8, 5, 8):
        batch = Batch(torch.arange(size))
        one, other = plain.step(batch, 0.1), graphed.step(batch, 0.1)
        assert torch.equal(one.loss, other.loss)
    assert len(tried) == 1
    for a, b in zip(plain.network.parameters(), graphed.network.parameters(), strict=True):
        assert torch.equal(a, b)


class FakeReplay:
    """Passes as a graph on a GPU replays them: over buffers that every call overwrites."""

    def __init__(self, network, inputs):
        self.network, self.weights = network, list(network.parameters())
        self.inputs, self.logits = inputs.detach().clone(), network(inputs).detach()
        self.gradients = [torch.zeros_like(w) for w in self.weights]
        self.calls = 0

    def __call__(self, inputs):
        return _Replayed.apply(self, inputs, *self.weights)


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, graph, inputs, *weights):
        graph.calls += 1
        ctx.graph = graph
        graph.inputs.copy_(inputs)
        with torch.enable_grad():
            graph.made = graph.network(graph.inputs)
        return graph.logits.copy_(graph.made).detach()

    @staticmethod
    def backward(ctx, gradient):
        graph = ctx.graph
        for buffer, new in zip(
            graph.gradients, torch.autograd.grad(graph.made, graph.weights, gradient), strict=True
        ):
            buffer.copy_(new)
        return (None, None, *(buffer.detach() for buffer in graph.gradients))


def test_a_run_over_replayed_buffers_leaves_the_same_weights_and_history(
    config, load_once, monkeypatch
):
    """What a step hands on must not lie in a buffer that the next one overwrites."""
    samples = load_once("digits", limit=40).train
    made = []

    def capture(network, inputs, precision):
        made.append(FakeReplay(network, inputs))
        return made[-1]

    def try_graph(*given):
        return graph_if_it_pays(*given, capture=capture, seconds=quicker(9))

    monkeypatch.setattr("budgetlab.training.engine.graph_if_it_pays", try_graph)
    config = config.replace(dataset="digits", model="small", method="p-SGD", epochs=8, budget=1.0)
    plain, graphed = (Loop(config, samples, torch.device("cpu"), FLOAT) for _ in range(2))
    graphed.engine._may_graph = True
    for epoch in (1, 2):
        losses, others = [], []
        for loop, kept in ((plain, losses), (graphed, others)):
            step = loop._step

            def keep(batch, lr, step=step, kept=kept):
                outcome = step(batch, lr)
                kept.append(outcome[0])  # read only after the epoch, as on a GPU
                return outcome

            monkeypatch.setattr(loop, "_step", keep)
            loop.train_epoch(epoch)
        assert torch.equal(torch.stack(losses), torch.stack(others))
        assert len(set(torch.stack(others).tolist())) == len(others)
    assert made[0].calls > plain.ledger.steps
    a, b = plain.engine.network.state_dict(), graphed.engine.network.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    first, other = plain.epoch_arrays(), graphed.epoch_arrays()
    assert all((first[name].tobytes() == other[name].tobytes()) for name in first)


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


class LikeCuda:
    type = "cuda"


@pytest.fixture
def event_clock(monkeypatch):
    FakeEvent.now, FakeEvent.waited = 0.0, 0
    waits = []
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(FakeEvent.now))
    return waits


def test_an_epoch_on_a_gpu_is_timed_by_its_events_and_waited_for_once(
    config, load_once, monkeypatch, event_clock
):
    loop = Loop(config, load_once("points", limit=128).train, torch.device("cpu"), FLOAT)
    loop.device, loop.clock = LikeCuda(), Clock(LikeCuda())
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
    clock = Clock(LikeCuda(), waiting=True)
    clock.start()
    assert 0 <= clock.read() <= clock.stop()
    assert len(event_clock) == 2
    assert FakeEvent.waited == 0


def test_passes_are_timed_by_events_after_a_warm_up(event_clock):
    done = []

    def work():
        done.append(1)
        FakeEvent.now += 2.0

    assert graphs._device_seconds(work, repeats=3) == 6.0
    assert len(done) == 4
    assert (len(event_clock), FakeEvent.waited) == (1, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_graph_on_a_gpu_computes_what_the_network_does(precision):
    network = models.build("small", (3, 32, 32), 10).cuda().train()
    inputs = torch.randn(128, 3, 32, 32, device="cuda")
    graph = graph_if_it_pays(network, inputs, precision, seconds=quicker(9))
    assert graph is not None
    with torch.autocast("cuda", precision, enabled=precision != FLOAT):
        expected = network(inputs + 1)
    assert torch.allclose(graph(inputs + 1).float(), expected.float(), rtol=2e-2, atol=2e-2)
