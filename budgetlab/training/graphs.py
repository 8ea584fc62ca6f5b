"""A whole training step as one CUDA graph: one launch instead of hundreds.

A step launches some five hundred kernels, and on a fast GPU handing them out takes longer than
running them. A graph records them once and replays them: augmentation, forward and backward
pass, optimiser, and what is learned of the samples. Whether that pays is tried, not assumed: a
graph is used only where it leaves what the plain step leaves, and is faster.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from budgetlab.augment import AugmentedBatch
from budgetlab.history import History
from budgetlab.samplers.base import Batch
from budgetlab.training.engine import Engine

__all__ = ["StepGraphs", "replay_if_it_pays"]

# At least so much faster, or the memory of a graph is not worth it.
WORTH = 1.05
# Relative difference in anything a step leaves that rounding in bfloat16 can make.
TOLERANCE = 2e-2
SWITCH = "BUDGETLAB_GRAPHS"

Step = Callable[[Batch, float | Tensor], tuple[Tensor, ...]]
Work = Callable[[], tuple[Tensor, ...]]


class StepGraphs:
    """The steps of a run, those on whole batches replayed where that pays.

    The first step of each kind of batch is plain, for it makes what an optimiser keeps; then a
    graph is tried. The environment variable ``BUDGETLAB_GRAPHS=0`` turns graphs off.

    Parameters
    ----------
    step
        The plain step: takes a batch and a learning rate, returns scalars.
    engine, history
        What the step changes.
    record, seconds
        How a graph is made and how work is timed; others in tests.
    """

    def __init__(
        self,
        step: Step,
        engine: Engine,
        history: History,
        *,
        record: Callable[[Work, torch.Generator], Work] | None = None,
        seconds: Callable[[Work], float] | None = None,
    ):
        self.step, self.engine, self.history = step, engine, history
        self.record, self.seconds = record or _record, seconds or _device_seconds
        self.lr = torch.zeros((), device=engine.device)
        self.replays: dict[tuple, tuple[Batch, Work] | None] = {}
        """By kind of batch: the tensors that a replay reads, and the replay; None for plain."""

    @property
    def in_use(self) -> bool:
        """Whether any kind of batch is replayed."""
        return any(self.replays.values())

    def __call__(self, batch: Batch, lr: float) -> tuple[Tensor, ...]:
        """Take a step."""
        kind = _kind(batch)
        if len(batch.indices) != self.engine.config.batch_size or os.environ.get(SWITCH) == "0":
            return self.step(batch, lr)
        if kind not in self.replays:
            self.replays[kind] = None
            made = self.step(batch, lr)
            self.replays[kind] = self._recorded(batch, lr)
            return made
        found = self.replays[kind]
        if found is None:
            return self.step(batch, lr)
        own, replay = found
        _fill(own, batch)
        self.lr.fill_(lr)
        # What a replay returns lies in tensors that the next one overwrites.
        return tuple(value.clone() for value in replay())

    def _recorded(self, batch: Batch, lr: float) -> tuple[Batch, Work] | None:
        own = _copy(batch)
        self.lr.fill_(lr)
        group = self.engine.optimiser.param_groups[0]
        plain: dict[str, Any] = {n: group[n] for n in ("lr", "capturable") if n in group}
        if "capturable" in group:
            group["capturable"] = True
        try:
            replay = replay_if_it_pays(
                lambda: self.step(own, self.lr), self._state(), self.engine.generator,
                record=self.record, seconds=self.seconds,
            )  # fmt: skip
        finally:
            group.update(plain)
            self.engine.optimiser.zero_grad(set_to_none=True)
        return replay and (own, replay)

    def _state(self) -> list[Tensor]:
        """Every tensor that a step changes."""
        optimiser = self.engine.optimiser.state.values()
        held = [value for one in optimiser for value in one.values()]
        held += [*self.engine.network.state_dict().values(), *vars(self.history).values()]
        return [value for value in held if isinstance(value, Tensor)]


def _kind(batch: Batch) -> tuple:
    """What a batch must have in common with the one that was recorded."""
    parts = vars(batch.augmented) if batch.augmented else {}
    tensors = [batch.indices, batch.weights, *parts.values()]
    return tuple(None if one is None else (one.shape, one.dtype) for one in tensors)


def _copy(batch: Batch) -> Batch:
    parts = batch.augmented and AugmentedBatch(
        **{name: value.clone() for name, value in vars(batch.augmented).items()}
    )
    weights = None if batch.weights is None else batch.weights.clone()
    return Batch(batch.indices.clone(), weights, parts)


def _fill(own: Batch, batch: Batch) -> None:
    own.indices.copy_(batch.indices)
    if own.weights is not None and batch.weights is not None:
        own.weights.copy_(batch.weights)
    if own.augmented and batch.augmented:
        for name, value in vars(own.augmented).items():
            value.copy_(getattr(batch.augmented, name))


def replay_if_it_pays(
    work: Work,
    state: list[Tensor],
    generator: torch.Generator,
    *,
    record: Callable[[Work, torch.Generator], Work],
    seconds: Callable[[Work], float],
) -> Work | None:
    """Try a graph of some work.

    Parameters
    ----------
    work
        Reads and changes tensors in place, and returns some; the same ones in every call.
    state
        What it changes; as before when this returns, and so is the generator.
    generator
        Of its random numbers, on its device.

    Returns
    -------
    callable or None
        The replay; None where no graph can be made, or it leaves something else, or is not at
        least 5% faster.
    """
    before, drawn = [value.clone() for value in state], generator.get_state()

    def restore() -> None:
        for value, old in zip(state, before, strict=True):
            value.copy_(old)
        generator.set_state(drawn)

    def left(done: Work) -> list[Tensor]:
        restore()
        return [value.clone() for value in (*done(), *state)]

    try:
        replay = record(work, generator)
        if not _alike(left(work), left(replay)):
            return None
        return replay if seconds(work) > WORTH * seconds(replay) else None
    except RuntimeError:  # what cannot be recorded, memory that does not suffice
        return None
    finally:
        with torch.no_grad():
            restore()
        if torch.cuda.is_available():
            # What was held twice for the trial; the graph keeps what it needs.
            torch.cuda.empty_cache()


@functools.cache
def _stream(device: int) -> torch.cuda.Stream:
    """The one that all graphs are recorded on: libraries keep 32 MiB for every stream they see."""
    return torch.cuda.Stream(device)


def _record(work: Work, generator: torch.Generator) -> Work:
    # As CUDA wants it: a few calls on a stream of their own, then one that is recorded.
    aside = _stream(torch.cuda.current_device())
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph, stream=aside):
        made = work()

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return made

    return replay


def _device_seconds(work: Callable[[], Any], repeats: int = 10) -> float:
    """Seconds of several calls, waiting for the device before and after."""
    work()
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begun.record()
    for _ in range(repeats):
        work()
    ended.record()
    ended.synchronize()
    return begun.elapsed_time(ended) / 1000


def _alike(expected: list[Tensor], given: list[Tensor]) -> bool:
    """Whether tensors agree, each to a tolerance of its own size; NaN agrees with NaN."""

    def close(a: Tensor, b: Tensor) -> bool:
        if not torch.equal(a.isnan(), b.isnan()):
            return False
        a, b = (value.detach().double().nan_to_num() for value in (a, b))
        norm = torch.linalg.vector_norm
        return bool(norm(a - b) <= TOLERANCE * norm(a) + 1e-8)

    return len(expected) == len(given) and all(map(close, expected, given))
