"""The batches of a method within a budget, for the kit's loop and for anybody's."""

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from budgetlab import samplers, seeds
from budgetlab.budget import Budget, Costs, Ledger, schedule, steps_per_epoch
from budgetlab.config import RunConfig
from budgetlab.errors import RunError
from budgetlab.history import History
from budgetlab.samplers.base import TrainProxy

__all__ = ["BudgetedBatches"]

Forward = Callable[[Tensor], samplers.ForwardResult]


class _BudgetSpent(Exception):
    """The next forward pass or step would overstep the budget."""


class BudgetedBatches:
    """What a method chooses, batch by batch, until the budget is spent.

    Everything is charged before it is done: a step as its batch is handed out, a forward
    pass as the method asks for it.

    Parameters
    ----------
    config
        The run.
    size
        Number of training samples.
    costs
        Of the network that is trained.
    device
        Where indices lie.
    labels, metadata
        Of each sample, for methods that read them; None where they are not known.
    validation_size
        Number of samples held out for validation.
    train_proxy
        Trains another network, for methods that need one.
    step_seconds
        What a plain step takes; needed for a budget in seconds.

    Attributes
    ----------
    ledger, budget
        What has been spent, and may be.
    sampler
        The method.
    handed_out
        Batches of this epoch so far.

    Raises
    ------
    InputError
        If method and budget do not fit the data.
    """

    def __init__(
        self,
        config: RunConfig,
        size: int,
        costs: Costs,
        device: torch.device,
        *,
        labels: Tensor | None = None,
        metadata: pd.DataFrame | None = None,
        validation_size: int = 0,
        train_proxy: TrainProxy | None = None,
        step_seconds: Callable[[], float] = lambda: 0.0,
    ):
        self.config = config
        self.ledger = Ledger(costs)
        self.handed_out = 0
        context = samplers.SamplerContext(
            size,
            config,
            seeds.torch_generator(config.seed, "order", device),
            device,
            validation_size=validation_size,
            spent=lambda: self.budget.progress(self.ledger, 0),
            train_proxy=train_proxy,
            labels=labels,
            metadata=metadata,
        )
        self.sampler = samplers.build(config.method, context)
        steps = config.epochs * steps_per_epoch(size, self.sampler.budget, config.batch_size)
        seconds = step_seconds() if config.budget_unit == "seconds" else 0.0
        self.budget = Budget.of_steps(config.budget_unit, steps, config.batch_size, costs, seconds)
        self.budget.slowest_step = seconds

    def finished(self, epochs: int) -> bool:
        """Whether the budget allows no further step, or the method ends after so many epochs."""
        last = self.sampler.last_epoch
        if self.budget.exhausted or (last is not None and epochs >= last):
            return True
        return not self.budget.allows(self.ledger, trained=self.config.batch_size)

    def epoch(
        self, number: int, history: History, forward: Forward
    ) -> Iterator[tuple[samplers.Batch, float]]:
        """Yield the batches of an epoch, counted from 1, each with its progress in [0, 1].

        Progress is that of the learning rate schedule: 0 at the first step, 1 at the last
        one that the schedule runs over.

        Raises
        ------
        RunError
            If the method chooses nothing, or the budget is spent before the first step.
        """

        def charged(indices: Tensor) -> samplers.ForwardResult:
            if not self.budget.allows(self.ledger, looked=len(indices)):
                raise _BudgetSpent
            self.ledger.charge_look(len(indices))
            return forward(indices)

        self.handed_out = 0
        try:
            for batch in self.sampler.batches(number, history, charged):
                count = len(batch.indices)
                if not self.budget.allows(self.ledger, trained=count):
                    raise _BudgetSpent
                progress = self._progress(count)
                self.ledger.charge_step(count)
                self.handed_out += 1
                yield batch, progress
        except _BudgetSpent:
            self.budget.exhausted = True
        self._require_something(number)

    def _progress(self, batch_size: int) -> float:
        progress = self.sampler.progress(self.budget.progress(self.ledger, batch_size))
        full = self.config.schedule_horizon == "full"
        return progress * self.config.budget if full else progress

    def _require_something(self, epoch: int) -> None:
        if self.handed_out:
            return
        method, budget = self.config.method, self.budget
        if not self.ledger.steps and budget.exhausted:
            raise RunError(
                f"the budget of {budget.limit:.3g} {budget.unit} was spent before the first step "
                f"of method '{method}': raise --budget or --epochs"
            )
        if not budget.exhausted:
            raise RunError(
                f"method '{method}' chose nothing in epoch {epoch}, so the budget would never be "
                "spent: change its options or choose another method"
            )

    def learning_rate(self, progress: float) -> float:
        """Learning rate of the config at a progress in [0, 1]."""
        config = self.config
        return schedule(config.schedule, progress, config.lr, config.milestones, config.warmup)

    def summary(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        """What a record says of a run so far, from the rows of its epochs."""
        last, config = epochs[-1] if epochs else {}, self.config
        return {
            "method": config.method,
            "augmentation": config.augmentation,
            "dataset": config.dataset_name,
            "budget": config.budget,
            "budget_unit": config.budget_unit,
            "budget_limit": self.budget.limit,
            "seed": config.seed,
            "test_accuracy": _known(last.get("test_accuracy")),
            "test_loss": _known(last.get("test_loss")),
            "epochs": len(epochs),
            **{name: last.get(name, 0) for name in self.ledger.totals()},
            "proxy_samples": self.ledger.proxy_samples,
            "probability_kind": self.sampler.probability_kind,
        }


def _known(value: float | None) -> float | None:
    """None instead of NaN, which JSON does not have."""
    return None if value is None or value != value else value
