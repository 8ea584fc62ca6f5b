"""Another network that a method trains before its first step: what is asked for, and got."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from budgetlab.history import History

__all__ = ["ProxyPlan", "ProxyRun", "TrainProxy"]


@dataclass(frozen=True)
class ProxyPlan:
    """Which network to train, on what, and what to find out with it.

    It may spend ``config.proxy_share`` of the limit of the run, in the run's own unit.

    Attributes
    ----------
    samples
        What to train on: ``training``, ``validation``, or training samples int64 ``[M]``.
    small
        What ``proxy_model="auto"`` means: a network smaller than that of the run, or
        the same one.
    losses
        Whether to run all training samples through it in the end.
    """

    samples: Tensor | Literal["training", "validation"]
    small: bool
    losses: bool


@dataclass(frozen=True)
class ProxyRun:
    """What came of it.

    Attributes
    ----------
    history
        Of the samples trained on, in the order of the plan.
    losses
        float32 ``[N]``: cross-entropy of every training sample, not augmented, in
        evaluation mode; None where they were not asked for.
    """

    history: History
    losses: Tensor | None


class TrainProxy(Protocol):
    """Trains another network; every step and every forward is charged to the ledger."""

    def __call__(self, plan: ProxyPlan, generator: torch.Generator) -> ProxyRun:
        """Train, with a random order from ``generator``."""
        ...
