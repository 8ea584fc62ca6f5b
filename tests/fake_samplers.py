"""Samplers without a run: histories whose losses are known, and forward passes that say them."""

from collections.abc import Iterable

import torch
from torch import Tensor

from budgetlab import samplers
from budgetlab.augment import AugmentedBatch
from budgetlab.config import RunConfig
from budgetlab.history import Credit, History, Measures
from budgetlab.samplers import Batch, ForwardResult, ProxyRun, SamplerContext


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(method: str, size: int = 200, *, seed: int = 1, spent: float = 0.0, val: int = 0,
         train_proxy=None, labels: Tensor | None = None, **options):  # fmt: skip
    config = RunConfig(**{"batch_size": 10, "budget": 0.5, "method": method} | options)
    context = SamplerContext(
        size, config, generator(seed), torch.device("cpu"), validation_size=val,
        spent=lambda: spent, train_proxy=train_proxy, labels=labels,
    )  # fmt: skip
    return samplers.build(method, context)


def seen(p_y, unseen: Iterable[int] = (), margin: Tensor | None = None) -> History:
    """A history in which all but the unseen were seen once, with this probability of the label."""
    p_y = torch.as_tensor(p_y)
    history = History(len(p_y))
    visit(history, torch.tensor([i for i in range(len(p_y)) if i not in set(unseen)]), p_y, margin)
    return history


def lost(losses: Tensor, unseen: Iterable[int] = ()) -> History:
    """As :func:`seen`, with these losses."""
    return seen((-losses).exp(), unseen)


def visit(history: History, indices: Tensor, p_y: Tensor, margin: Tensor | None = None) -> None:
    """One epoch in which these samples, of two classes, are trained on."""
    history.start_epoch(int(history.visits.max()) + 1)
    p = p_y[indices]
    margin = p if margin is None else margin[indices]
    both = torch.stack([p, 1 - p], 1)
    told = Measures(-p.log(), p, (p > 0.5).float(), margin, 1 - p, both)
    history.update(Credit(torch.arange(len(indices)), indices, torch.ones(len(indices))), told)


class Eye:
    """Looks at samples whose losses and error norms are known beforehand."""

    def __init__(self, losses: Tensor, error_norms: Tensor | None = None):
        self.losses = losses
        self.error_norms = losses if error_norms is None else error_norms
        self.looked: list[Tensor] = []

    def __call__(self, indices: Tensor) -> ForwardResult:
        self.looked.append(indices)
        # The image of a sample holds its number and the look, so that a test recognises it.
        images = torch.stack([indices.float(), torch.full((len(indices),), len(self.looked))], 1)
        augmented = AugmentedBatch(images, indices[:, None], torch.ones(len(indices), 1))
        empty, norms = torch.empty(len(indices), 2), self.error_norms[indices]
        return ForwardResult(self.losses[indices], empty, indices * 0, augmented, norms)


def no_look(indices: Tensor):
    raise AssertionError("this method must not look")


def epoch(sampler, history: History | None = None, number: int = 2, look=no_look) -> list[Batch]:
    return list(sampler.batches(number, history or History(sampler.size), look))


def drawn(batches: list[Batch]) -> Tensor:
    parts = [batch.indices for batch in batches]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def proxy(history: History, losses: Tensor | None = None, asked: list | None = None):
    """What trains another network, and finds this; plans and generators go to ``asked``."""

    def train_proxy(plan, random):
        if asked is not None:
            asked.append((plan, random))
        return ProxyRun(history, losses)

    return train_proxy
