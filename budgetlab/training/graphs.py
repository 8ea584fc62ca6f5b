"""Forward and backward of a network as CUDA graphs: one launch instead of hundreds.

A small network on a GPU spends its time launching kernels. A graph records them once and
replays them. Whether that pays depends on network, batch and GPU, so it is tried on the first
batch: a graph is used only where it gives the same logits and gradients, and is faster.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["GraphedNetwork", "graph_if_it_pays"]

# At least so much faster, or the memory of a graph is not worth it.
WORTH = 1.05
# Relative difference in logits and gradients that rounding in bfloat16 can make.
TOLERANCE = 2e-2
SWITCH = "BUDGETLAB_GRAPHS"


class _Forward(nn.Module):
    """A module of its own around a network, for making a graph changes the module."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)


class GraphedNetwork:
    """A network whose training passes over batches of one shape are replayed.

    The logits it returns are overwritten by the next call.
    """

    def __init__(self, replay: Callable[[Tensor], Tensor], like: Tensor):
        self._replay = replay
        self._shape, self._dtype = like.shape, like.dtype

    def fits(self, inputs: Tensor) -> bool:
        """Whether a batch has the shape and type that was recorded."""
        return inputs.shape == self._shape and inputs.dtype == self._dtype

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` in the format the network computes in."""
        return self._replay(inputs)


def graph_if_it_pays(
    network: nn.Module,
    inputs: Tensor,
    precision: torch.dtype,
    *,
    capture: Callable[[nn.Module, Tensor, torch.dtype], Callable] | None = None,
    seconds: Callable[[Callable[[], Any]], float] | None = None,
) -> GraphedNetwork | None:
    """Try a graph of a network in training mode on one batch of normalised images.

    Weights, buffers and gradients of the network are as before. The environment variable
    ``BUDGETLAB_GRAPHS=0`` turns graphs off. ``capture`` and ``seconds``, how a graph is made and
    how passes are timed, are other ones in tests.

    Returns
    -------
    GraphedNetwork or None
        None where the graph cannot be made, differs, or is not at least 5% faster.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    capture, seconds = capture or _capture, seconds or _device_seconds
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def eager(batch: Tensor) -> Tensor:
        with _autocast(batch, precision):
            return network(batch)

    def passes(forward: Callable[[Tensor], Tensor]) -> list[Tensor]:
        _restore(network, before)
        network.zero_grad(set_to_none=True)
        logits = forward(inputs)
        logits.float().square().mean().backward()
        seen = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        return [logits.detach().float().clone(), *seen]

    try:
        replay = capture(network, inputs, precision)
        if not _alike(passes(eager), passes(replay)):
            return None
        slow, quick = seconds(lambda: passes(eager)), seconds(lambda: passes(replay))
        return GraphedNetwork(replay, inputs) if slow > WORTH * quick else None
    except RuntimeError:  # what cannot be recorded, memory that does not suffice
        return None
    finally:
        _restore(network, before)
        network.zero_grad(set_to_none=True)


def _autocast(inputs: Tensor, precision: torch.dtype) -> torch.autocast:
    # Weights that autocast keeps in a cache would be freed under a graph that reads them.
    return torch.autocast(inputs.device.type, precision, enabled=precision != torch.float32,
                          cache_enabled=False)  # fmt: skip


def _capture(network: nn.Module, inputs: Tensor, precision: torch.dtype) -> Callable:
    wrapped = _Forward(network).train()
    with _autocast(inputs, precision):
        return torch.cuda.make_graphed_callables(wrapped, (inputs.detach().clone(),))


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
    """Whether tensors agree, each to a tolerance of its own size."""
    return len(expected) == len(given) and all(
        bool(torch.linalg.vector_norm(a - b) <= TOLERANCE * torch.linalg.vector_norm(a) + 1e-8)
        for a, b in zip(expected, given, strict=True)
    )


def _restore(network: nn.Module, buffers: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
