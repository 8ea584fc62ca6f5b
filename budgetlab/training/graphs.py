"""A whole training step as one CUDA graph: one launch instead of hundreds.

A step launches some five hundred kernels, and on a fast GPU launching takes longer than running
them. A graph captures them once and replays them: augmentation, forward and backward pass,
optimiser, and history update, which runs in parallel with the backward pass. A graph is used only
if a trial shows that it gives the same results as the plain step, and faster.
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

# Least speed-up that is worth the memory of a graph.
WORTH = 1.05
# Relative difference that rounding in bfloat16 can cause in anything a step changes.
TOLERANCE = 2e-2
SWITCH = "BUDGETLAB_GRAPHS"

Step = Callable[[Batch, float | Tensor], tuple[Tensor, ...]]
Work = Callable[[], tuple[Tensor, ...]]


class StepGraphs:
    """The steps of a run, with those on whole batches replayed as graphs if that pays.

    The first step of each kind of batch is plain, because it creates the optimiser's state; then a
    graph is tried. ``BUDGETLAB_GRAPHS=0`` in the environment turns graphs off.

    - ``step``: the plain step, from a batch and a learning rate to scalars.
    - ``engine``, ``history``: the state that a step changes.
    - ``record``, ``seconds``: functions that capture a graph and that time work; replaced in tests.
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
        """Take a step, and return what the plain one returns."""
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
        # The next replay overwrites the tensors that this one returns.
        return tuple(value.clone() for value in replay())

    def _recorded(self, batch: Batch, lr: float) -> tuple[Batch, Work] | None:
        own = _copy(batch)
        self.lr.fill_(lr)
        group = self.engine.optimiser.param_groups[0]
        plain: dict[str, Any] = {n: group[n] for n in ("lr", "capturable") if n in group}
        if "capturable" in group:
            group["capturable"] = True
        replay = None
        try:
            # Branches are an optimisation: without them a graph still saves most of the time.
            for self.engine.branch.parallel in (True, False):
                replay = replay or capture_if_faster(
                    lambda: self.step(own, self.lr), self._state(), self.engine.generator,
                    record=self.record, seconds=self.seconds,
                )  # fmt: skip
        finally:
            group.update(plain)
            self.engine.optimiser.zero_grad(set_to_none=True)
        return replay and (own, replay)

    def _state(self) -> list[Tensor]:
        """Return every tensor that a step changes."""
        optimiser = self.engine.optimiser.state.values()
        held = [value for one in optimiser for value in one.values()]
        held += [*self.engine.network.state_dict().values(), *vars(self.history).values()]
        return [value for value in held if isinstance(value, Tensor)]


def _kind(batch: Batch) -> tuple:
    """Return the shapes and types that a batch must share with the captured one."""
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


def capture_if_faster(
    work: Work,
    state: list[Tensor],
    generator: torch.Generator,
    *,
    record: Callable[[Work, torch.Generator], Work],
    seconds: Callable[[Work], float],
) -> Work | None:
    """Capture some work as a graph, if that gives the same results faster.

    Returns the replay; None if capture fails, results differ, or it is not at least 5% faster.

    - ``work``: reads and changes tensors in place, and returns some, the same ones in every call.
    - ``state``: the tensors it changes; restored on return, as is the generator.
    - ``generator``: generator of its random numbers, on its device.
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
    except RuntimeError:  # not capturable, or out of memory
        return None
    finally:
        with torch.no_grad():
            restore()
        if torch.cuda.is_available():
            # Release what the trial held twice; the graph keeps what it needs.
            torch.cuda.empty_cache()


@functools.cache
def _stream(device: int) -> torch.cuda.Stream:
    """Return the stream of all captures: libraries keep 32 MiB for every stream they see."""
    return torch.cuda.Stream(device)


def _record(work: Work, generator: torch.Generator) -> Work:
    # CUDA requires warm-up calls on a side stream before the capture.
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
    """Tell whether tensors agree, each to a tolerance relative to its norm; NaN agrees with NaN."""

    def close(a: Tensor, b: Tensor) -> bool:
        if not torch.equal(a.isnan(), b.isnan()):
            return False
        a, b = (value.detach().double().nan_to_num() for value in (a, b))
        norm = torch.linalg.vector_norm
        return bool(norm(a - b) <= TOLERANCE * norm(a) + 1e-8)

    return len(expected) == len(given) and all(map(close, expected, given))
