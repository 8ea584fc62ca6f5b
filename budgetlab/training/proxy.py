"""Another network, trained within a share of the budget: every cost is charged."""

import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from budgetlab import devices, models
from budgetlab.budget import Costs, model_costs
from budgetlab.data import Dataset
from budgetlab.devices import chooses_on, moved
from budgetlab.errors import InputError, RunError
from budgetlab.history import History, Trajectory, measure
from budgetlab.samplers.base import Batch, ProxyPlan, ProxyRun
from budgetlab.training.engine import EVALUATION_BATCH, Engine

if TYPE_CHECKING:
    from budgetlab.training.loop import Loop

__all__ = ["ProxyTrainer"]


class ProxyTrainer:
    """Trains the network that a method needs before its first step.

    It has the recipe of the run, with ``standard`` augmentation, initial weights of its own, and a
    learning rate that falls to zero over its share of the budget, which pays for all of it. It sees
    the training samples of the run, or validation samples ``val``, and never a test sample.
    """

    def __init__(self, loop: "Loop", val: Dataset | None):
        self.loop, self.val = loop, val
        self.engine, self.ledger, self.budget = loop.engine, loop.ledger, loop.budget
        self._slowest = 0.0

    def require_affordable(self, plan: ProxyPlan) -> None:
        """Refuse a share of the budget that does not pay for one step and what follows it."""
        config, own, name = self.engine.config, self.engine.samples, self._model(plan)
        network = models.build(name, own.sample_shape, len(own.classes))
        costs = model_costs(network, own.sample_shape)
        size = len(plan.samples) if isinstance(plan.samples, Tensor) else len(self._samples(plan))
        step = min(config.batch_size, size)
        # Seconds are not known before they have passed.
        if self.budget.unit != "seconds" and not self._fits(
            costs, step, self._reserve(plan, costs)
        ):
            then = f" and a look at all {len(own):,} samples" if plan.losses else ""
            raise InputError(
                f"method '{config.method}' trains a network '{name}' on {size:,} samples first, "
                f"and proxy-share {config.proxy_share:g} of the budget does not pay for one step "
                f"of it{then} in {self.budget.unit}: raise --budget, --epochs or --proxy-share"
            )

    def __call__(self, plan: ProxyPlan, generator: torch.Generator) -> ProxyRun:
        """Train until the share is spent, then look as the plan asks."""
        other = self._set_up(plan)
        kind = Trajectory if plan.trajectory else History
        chooser = chooses_on(other.device)
        history = kind(len(other.samples), chooser)
        start, self._slowest = self.ledger.spent(self.budget.unit), 0.0
        span = max(self._limit - start - self._reserve(plan, other.costs), 1e-12)
        for indices in self._endless_batches(len(other.samples), history, generator):
            if not self._fits(other.costs, len(indices), self._reserve(plan, other.costs)):
                break
            progress = min((self.ledger.spent(self.budget.unit) - start) / span, 1.0)
            lr = self.loop.learning_rate(progress)
            outcome = moved(other.step(Batch(indices.to(other.device)), lr), chooser)
            history.update(outcome.credit, outcome.seen)
            self.ledger.charge_proxy(other.costs, trained=len(indices))
            self._slowest = max(self._slowest, self.loop.charge_time())
        losses = self._losses(other).to(chooser) if plan.losses else None
        return ProxyRun(history, losses)

    def _set_up(self, plan: ProxyPlan) -> Engine:
        # Setting a network up is no training, for none of them.
        began, config = time.perf_counter(), self.engine.config
        own = config.replace(
            seed=devices.stream_seed(config.seed, "proxy"),
            augmentation="standard",
            credit="dominant",
        )
        name, samples = self._model(plan), self._samples(plan)
        other = Engine(own, name, samples, self.engine.device, self.engine.precision)
        self.loop.clock.skip(time.perf_counter() - began)
        return other

    @property
    def _limit(self) -> float:
        return self.engine.config.proxy_share * self.budget.limit

    def _samples(self, plan: ProxyPlan) -> Dataset:
        if isinstance(plan.samples, Tensor):
            return self.engine.samples.select(plan.samples)
        if plan.samples == "training":
            return self.engine.samples
        assert self.val is not None, "a plan for validation samples needs some"
        return self.val

    def _model(self, plan: ProxyPlan) -> str:
        name, shape = self.engine.config.proxy_model, self.engine.samples.sample_shape
        if name != "auto":
            return models.choose(name, shape, self.engine.device)
        if not plan.small or len(shape) != 3:
            return self.loop.model_name
        return "tiny" if self.loop.model_name == "small" else "small"

    def _cost(self, costs: Costs, trained: int, looked: int) -> float:
        after = dataclasses.replace(self.ledger)
        after.charge_proxy(costs, trained=trained, looked=looked)
        return after.spent(self.budget.unit) - self.ledger.spent(self.budget.unit)

    def _reserve(self, plan: ProxyPlan, costs: Costs) -> float:
        """What the forward of all training samples at the end costs."""
        if not plan.losses:
            return 0.0
        if self.budget.unit == "seconds":
            # A forward takes less than a step on as many samples.
            return self._slowest * len(self.engine.samples) / self.engine.config.batch_size
        return self._cost(costs, 0, len(self.engine.samples))

    def _fits(self, costs: Costs, trained: int, reserve: float) -> bool:
        step = self._slowest if self.budget.unit == "seconds" else self._cost(costs, trained, 0)
        return self.ledger.spent(self.budget.unit) + step + reserve <= self._limit

    def _endless_batches(
        self, size: int, history: History, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Pass after pass over shuffled samples, partial batches dropped."""
        batch, epoch = min(self.engine.config.batch_size, size), 0
        while True:
            epoch += 1
            history.start_epoch(epoch)
            order = torch.randperm(size, generator=generator, device=generator.device)
            yield from (order[i : i + batch] for i in range(0, size - batch + 1, batch))

    def _losses(self, other: Engine) -> Tensor:
        """Cross-entropy of every training sample of the run under the other network."""
        samples = self.engine.samples
        other.network.eval()
        parts = []
        with torch.no_grad():
            for start in range(0, len(samples), EVALUATION_BATCH):
                rows = slice(start, start + EVALUATION_BATCH)
                parts.append(measure(other.logits(samples.x[rows]), samples.y[rows]).loss)
                self.ledger.charge_proxy(other.costs, looked=len(parts[-1]))
        self.loop.charge_time()
        losses = torch.cat(parts)
        if not bool(torch.isfinite(losses).all()):
            raise RunError(
                f"the network '{self.engine.config.method}' trains first gives losses that are not "
                "finite: lower --lr, or try --precision float32"
            )
        return losses
