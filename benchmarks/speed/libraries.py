"""Benchmark library options for a step of the scale model against the kit's step.

Each on one core, in float32, with the compact network at batch 32, in turns.
"""

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from benchmarks.speed.measure import Row, alternate, compared, row
from budgetlab import models

__all__ = ["libraries"]

CPU = torch.device("cpu")


def libraries(seeds: int = 4, batch: int = 32, rounds: int = 10, compiled: bool = True,
              model: str = "compact") -> Iterator[Row]:  # fmt: skip
    """Time memory layouts, a compiled forward pass with frozen weights, and batched seeds.

    Parameters
    ----------
    seeds
        Number of networks trained by one batched call.
    batch, model
        Images per step, and the network.
    rounds
        Number of alternating measurements.
    compiled
        Whether to try inductor, which needs a C++ compiler and half a minute.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = models.build(model, (3, 32, 32), 10, seed=0)
        images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
        yield from _layouts(network, images, labels, rounds)
        if compiled:
            yield _frozen(network, images, rounds)
        yield _batched(model, seeds, images, labels, rounds)
    finally:
        torch.set_num_threads(threads)


def _step(network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    network.train()

    def work() -> None:
        F.cross_entropy(network(images), labels).backward()
        network.zero_grad(set_to_none=True)

    return work


def _layouts(network: nn.Module, images: Tensor, labels: Tensor, rounds: int) -> Iterator[Row]:
    """Time channels last, which the kit uses, against channels first."""
    work = {}
    for name, layout in (("last", torch.channels_last), ("first", torch.contiguous_format)):
        own = copy.deepcopy(network).to(memory_format=layout)
        work[name] = _step(own, images.contiguous(memory_format=layout), labels)
    seconds = alternate(work, rounds, CPU, 2)
    ratio = compared(seconds["first"], seconds["last"])
    yield row("libraries", "step, channels last: ours", [1000 * s for s in seconds["last"]], "ms")
    yield row("libraries", "channels last: times as fast as channels first", ratio, "ratio")


def _frozen(network: nn.Module, images: Tensor, rounds: int) -> Row:
    """Time an inductor forward pass with frozen weights: an upper bound, as weights change."""
    import torch._inductor.config as inductor

    own = copy.deepcopy(network).to(memory_format=torch.channels_last).eval()
    images = images.contiguous(memory_format=torch.channels_last)
    with inductor.patch(freezing=True), torch.no_grad():
        compiled = torch.compile(own)
        compiled(images)
        work = {"compiled": lambda: compiled(images), "ours": lambda: own(images)}
        seconds = alternate(work, rounds, CPU, 2)
    ratio = compared(seconds["ours"], seconds["compiled"])
    return row("libraries", "look, inductor with freezing: times as fast as ours", ratio, "ratio")


def _batched(model: str, seeds: int, images: Tensor, labels: Tensor, rounds: int) -> Row:
    """Time seeds with ``vmap`` against one after the other; batch norm has no running means."""
    networks = [models.build(model, (3, 32, 32), 10, seed=seed).train() for seed in range(seeds)]
    for module in (m for network in networks for m in network.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    weights, buffers = stack_module_state(networks)
    base = copy.deepcopy(networks[0]).to("meta")

    def loss(own: dict, fixed: dict) -> Tensor:
        return F.cross_entropy(functional_call(base, (own, fixed), (images,)), labels)

    gradient = vmap(grad(loss))
    steps = [_step(network, images, labels) for network in networks]

    def one_by_one() -> None:
        for step in steps:
            step()

    work = {"batched": lambda: gradient(weights, buffers), "one by one": one_by_one}
    seconds = alternate(work, rounds, CPU, 2)
    ratio = compared(seconds["one by one"], seconds["batched"])
    what = f"{seeds} seeds in one call: times as fast as one after the other"
    return row("libraries", what, ratio, "ratio")
