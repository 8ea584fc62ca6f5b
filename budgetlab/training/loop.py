"""A method's batches within a budget, for custom loops, and the kit's own loop over them."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgetlab import devices, methods, models, samplers
from budgetlab.budget import Budget, Costs, Ledger, schedule, steps_per_epoch
from budgetlab.config import RunConfig
from budgetlab.data import Dataset
from budgetlab.errors import InputError, RunError
from budgetlab.history import History
from budgetlab.samplers.checking import CheckedBatches
from budgetlab.training.engine import Engine, Outcome, ProxyTrainer
from budgetlab.training.graphs import StepGraphs

Forward = Callable[[Tensor], samplers.ForwardResult]

# Fastest number of threads by kind of step, kept so that a repeated run is identical bit for bit.
_THREADS: dict[tuple, int] = {}


class _BudgetSpent(Exception):
    """The next forward pass or step would exceed the budget."""


class BudgetedBatches:
    """The batches that a method chooses, one by one, until the budget is spent.

    Costs are charged in advance: a step when its batch is yielded, a forward pass when the method
    requests it. ``batch_count`` counts the batches of this epoch, and ``complete`` is True once it
    has no more. An InputError means that method and budget do not fit the data.

    - ``config``, ``size``, ``costs``, ``device``: the run, its number of training samples, the
      costs of its network, and the device of the sampler and the history.
    - ``step_seconds``: measures the seconds of a plain step; needed for a budget in seconds.
    - ``**known``: further fields of :class:`budgetlab.samplers.SamplerContext`, such as labels.
    """

    def __init__(
        self,
        config: RunConfig,
        size: int,
        costs: Costs,
        device: torch.device,
        *,
        step_seconds: Callable[[], float] = lambda: 0.0,
        **known: Any,
    ):
        self.config = config
        self.history = History(size, device)
        self.ledger = Ledger(costs)
        self.batch_count, self.complete = 0, True
        order = devices.torch_generator(config.seed, "order", device)
        context = samplers.SamplerContext(
            size, config, order, device, spent=lambda: self.budget.progress(self.ledger, 0), **known
        )
        self.sampler = samplers.build(config.method, context)
        steps = config.epochs * steps_per_epoch(size, self.sampler.budget, config.batch_size)
        seconds = step_seconds() if config.budget_unit == "seconds" else 0.0
        self.budget = Budget.of_steps(config.budget_unit, steps, config.batch_size, costs, seconds)
        # An upper bound until one is timed: a forward pass takes less time than a step.
        looked = max(self.sampler.looks_before_step / config.batch_size, 1)
        self.budget.slowest_step, self.budget.slowest_look = seconds, seconds * looked

    @property
    def finished(self) -> bool:
        """Whether the budget allows no further step, or the method has ended by itself."""
        last, done = self.sampler.last_epoch, self.history.epoch - (not self.complete)
        if self.budget.exhausted or (last is not None and done >= last):
            return True
        return not self.budget.allows(self.ledger, trained=self.config.batch_size)

    def epoch(self, forward: Forward) -> Iterator[tuple[samplers.Batch, float]]:
        """Yield the batches of the epoch that the history has started, each with its progress.

        Progress, in [0, 1], is that of the learning-rate schedule: 0 at the first step, 1 at the
        last step of its horizon. Raises RunError if the method selects nothing, or the budget is
        spent before the first step.
        """

        def charged(indices: Tensor) -> samplers.ForwardResult:
            if not self.budget.allows(self.ledger, looked=len(indices)):
                raise _BudgetSpent
            self.ledger.charge_look(len(indices))
            return forward(indices)

        self.batch_count, self.complete = 0, False
        full = self.config.schedule_horizon == "full"
        own = None if methods.find(self.config.method).where else CheckedBatches(self.sampler)
        try:
            for batch in (own or self.sampler).batches(self.history.epoch, self.history, charged):
                count = len(batch.indices)
                if not self.budget.allows(self.ledger, trained=count):
                    raise _BudgetSpent
                progress = self.sampler.progress(self.budget.progress(self.ledger, count))
                self.ledger.charge_step(count)
                self.batch_count += 1
                yield batch, progress * self.sampler.budget if full else progress
        except _BudgetSpent:
            self.budget.exhausted = True
        if own:
            own.finish()
        self._require_progress()
        self.complete = True

    def _require_progress(self) -> None:
        method, budget = self.config.method, self.budget
        if not self.ledger.steps and budget.exhausted:
            raise RunError(
                f"the budget of {budget.limit:.3g} {budget.unit} was spent before the first step "
                f"of method '{method}': raise --budget or --epochs"
            )
        if not self.batch_count and not budget.exhausted:
            raise RunError(
                f"method '{method}' chose nothing in epoch {self.history.epoch}, so the budget "
                "would never be spent: change its options or choose another method"
            )

    def learning_rate(self, progress: float) -> float:
        """Return the learning rate of the config at a progress in [0, 1]."""
        config = self.config
        return schedule(config.schedule, progress, config.lr, config.milestones, config.warmup)

    def row(self, lr: float, losses: list[Tensor], corrects: list[Tensor]) -> dict[str, Any]:
        """Return an epoch's training columns of ``epochs.csv``, from values of its batches."""
        return {
            "epoch": self.history.epoch,
            "progress": self.budget.share_spent(self.ledger),
            **self.ledger.totals(),
            "lr": lr,
            "train_loss": _mean(losses),
            "train_accuracy": _mean(corrects),
        }

    def epoch_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of the last epoch for ``samples.zarr``."""
        arrays, probability = self.history.epoch_arrays(), self.sampler.probability
        # Without one too: all arrays of a record grow together.
        arrays["probability"] = (
            torch.full((self.history.size,), torch.nan) if probability is None else probability
        )
        return {name: values.cpu().numpy() for name, values in arrays.items()}

    def summary(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        """Summarise a run so far for its record, from the rows of its epochs."""
        last, config = epochs[-1] if epochs else {}, self.config
        # JSON has no NaN, which marks what was not evaluated.
        known = {name: None if last.get(name) != last.get(name) else last.get(name)
                 for name in ("test_accuracy", "test_loss")}  # fmt: skip
        return {
            "method": config.method,
            "augmentation": config.augmentation,
            "dataset": config.dataset_name,
            "budget": config.budget,
            "budget_unit": config.budget_unit,
            "budget_limit": self.budget.limit,
            "seed": config.seed,
            **known,
            "epochs": len(epochs),
            **{name: last.get(name, 0) for name in self.ledger.totals()},
            "proxy_samples": self.ledger.proxy_samples,
            "probability_kind": self.sampler.probability_kind,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`, between two epochs."""
        return {
            "history": self.history.state_dict(),
            "ledger": self.ledger.state_dict(),
            "sampler": self.sampler.state_dict(),
            "order": self.sampler.generator.get_state(),
            "budget": dataclasses.asdict(self.budget),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state; other entries in it are ignored."""
        self.history.load_state_dict(state["history"])
        self.ledger.load_state_dict(state["ledger"])
        device = self.sampler.device
        self.sampler.load_state_dict({
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in state["sampler"].items()
        })  # fmt: skip
        self.sampler.generator.set_state(state["order"])
        vars(self.budget).update(vars(dataclasses.replace(self.budget, **state["budget"])))


class Loop(BudgetedBatches):
    """The changing state of a run, and the epoch that changes it.

    ``val`` are validation samples for a proxy; ``threads`` is the number of CPU threads, by default
    the fastest for a step now. An InputError means that the parts do not fit together.
    """

    def __init__(
        self,
        config: RunConfig,
        train: Dataset,
        device: torch.device,
        precision: torch.dtype,
        *,
        val: Dataset | None = None,
        threads: int | None = None,
    ):
        self.config, self.device = config, device
        self.model_name = models.choose(config.model, train.sample_shape, device)
        self.engine = Engine(config, self.model_name, train, device, precision)
        self.chooser = devices.sampling_device(device)
        self.threads = threads or self._choose_threads()
        self._seconds_before, self._slowest_looks = 0.0, [0.0, 0.0]
        super().__init__(
            config,
            len(train),
            self.engine.costs,
            self.chooser,
            labels=self.engine.samples.y.to(self.chooser),
            metadata=train.metadata,
            validation_size=0 if val is None else len(val),
            train_proxy=self._train_proxy,
            step_seconds=self._time_plain_step,
        )
        self.clock = devices.Clock(device, waiting=config.budget_unit == "seconds")
        # A custom network may contain operations that a CUDA graph cannot capture.
        recorded = device.type == "cuda" and self.model_name in models.IMAGE_MODELS
        self.graphs = StepGraphs(self._step, self.engine, self.history) if recorded else None
        if self.sampler.proxy is not None:
            self._proxies = ProxyTrainer(self, val)
        self._require_affordable()

    def _require_affordable(self) -> None:
        """Refuse a method whose first step would not fit, before anything is written."""
        left = dataclasses.replace(self.budget)
        if self.sampler.proxy is not None:
            self._proxies.require_affordable(self.sampler.proxy)
            left.limit *= 1 - self.config.proxy_share
        looked, trained = self.sampler.looks_before_step, self.config.batch_size
        if not left.allows(self.ledger, trained=trained, looked=looked):
            method, unit = self.config.method, self.config.budget_unit
            if not looked:
                raise InputError(
                    f"method '{method}' has no step left beside its scoring run, which takes "
                    f"proxy-share {self.config.proxy_share:g} of the budget in {unit}: lower "
                    "--proxy-share, or raise --budget or --epochs"
                )
            raise InputError(
                f"method '{method}' looks at {looked:,} samples for its first step on {trained:,}, "
                f"more than the budget pays for in {unit}: raise --budget or --epochs, or let it "
                "look at fewer"
            )

    def _choose_threads(self) -> int:
        """Return the number of threads for this kind of step, measured once per process."""
        most = devices.max_threads_to_try()
        if self.device.type != "cpu" or most == 1:
            return torch.get_num_threads()
        config, shape = self.config, self.engine.samples.sample_shape
        kind = (self.model_name, shape, config.batch_size, config.augmentation, most)
        if kind not in _THREADS:  # a few rows are enough to tell
            _THREADS[kind] = devices.fastest_threads(self._trial(min(config.batch_size, 32)), most)
        return _THREADS[kind]

    def _trial(self, batch_size: int) -> Callable[[], object]:
        """Return a uniform step on a copy of the network."""
        own = self.engine
        engine = Engine(self.config, self.model_name, own.samples, self.device, own.precision)
        indices = torch.arange(batch_size, device=self.device)

        def step() -> None:
            # A custom network may draw from torch's global generator.
            with torch.random.fork_rng(devices=[]):
                engine.step(samplers.Batch(indices), lr=0.0)

        return step

    def _time_plain_step(self, repeats: int = 12, warm_up: int = 4) -> float:
        """Return the median seconds of a uniform step."""
        step, clock = self._trial(self.config.batch_size), devices.Clock(self.device, waiting=True)
        seconds = []
        with devices.using_threads(self.threads):
            for _ in range(repeats):
                clock.start()
                step()
                seconds.append(clock.stop())
        return float(np.median(seconds[warm_up:]))

    def train_epoch(
        self, number: int, on_step: Callable[[], object] = lambda: None
    ) -> dict[str, Any]:
        """Train epoch ``number``, from 1, and return its training columns of ``epochs.csv``."""
        # The built-in networks draw no random numbers.
        own = devices.seeded_layers(self.config.seed, number, self.device)
        with own if models.is_custom(self.config.model) else contextlib.nullcontext():
            return self._train_epoch(number, on_step)

    def _train_epoch(self, number: int, on_step: Callable[[], object]) -> dict[str, Any]:
        losses, corrects = list[Tensor](), list[Tensor]()
        lr, slowest = math.nan, 0.0
        # In the previous epoch, and so far in this one.
        self._slowest_looks = [self._slowest_looks[1] or self._slowest_looks[0], 0.0]
        self._seconds_before = self.ledger.seconds
        self.history.start_epoch(number)
        self.clock.start()
        for batch, progress in self.epoch(self._look):
            lr = self.learning_rate(progress)
            loss, correct = (self.graphs or self._step)(batch, lr)
            losses.append(loss)
            corrects.append(correct)
            slowest = max(slowest, self.update_seconds())
            if self.device.type == "cpu":  # reading every step would stall a GPU
                self._check_finite([loss], lr)
            began = time.perf_counter()
            on_step()
            self.clock.skip(time.perf_counter() - began)
        self.ledger.seconds = self._seconds_before + self.clock.stop()
        self.budget.slowest_step = slowest or self.budget.slowest_step
        self._check_finite(losses, lr)
        return self.row(lr, losses, corrects)

    def _step(self, batch: samplers.Batch, lr: float | Tensor) -> tuple[Tensor, Tensor]:
        """Take a step and update the history; return its loss and accuracy."""

        def learn(outcome: Outcome) -> tuple[Tensor, Tensor]:
            outcome = devices.moved(outcome, self.chooser)
            self.history.count(batch.indices)
            self.history.update(outcome.credit, outcome.seen)
            share = outcome.credit.weights
            return outcome.loss, (outcome.seen.correct * share).sum() / share.sum()

        return self.engine.step(devices.moved(batch, self.engine.device), lr, learn)

    def _look(self, indices: Tensor) -> samplers.ForwardResult:
        """Run a forward pass for the method, with results on the method's device."""
        seen = devices.moved(self.engine.look(indices.to(self.engine.device)), self.chooser)
        self._slowest_looks[1] = max(self._slowest_looks[1], self.update_seconds())
        self.budget.slowest_look = max(self._slowest_looks)
        return seen

    def _train_proxy(
        self, plan: samplers.ProxyPlan, generator: torch.Generator
    ) -> samplers.ProxyRun:
        done = self._proxies(plan, generator)
        self.budget.head_start = self.ledger.spent(self.budget.unit)
        return done

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`, between two epochs."""
        return {
            "network": self.engine.network.state_dict(),
            "optimiser": self.engine.optimiser.state_dict(),
            "augmentation": self.engine.generator.get_state(),
            **super().state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.engine.network.load_state_dict(state["network"])
        self.engine.optimiser.load_state_dict(state["optimiser"])
        self.engine.generator.set_state(state["augmentation"])
        super().load_state_dict(state)

    def update_seconds(self) -> float:
        """Bring the ledger's seconds up to date, and return those since the last call."""
        elapsed = self.clock.read()
        if elapsed is None:
            return 0.0
        last = self._seconds_before + elapsed - self.ledger.seconds
        self.ledger.seconds = self._seconds_before + elapsed
        return last

    def _check_finite(self, losses: list[Tensor], lr: float) -> None:
        values = torch.stack(losses).tolist() if losses else []
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                step = self.ledger.steps - len(losses) + offset + 1
                raise RunError(
                    f"the loss became {value} at step {step} with learning rate {lr:.3g}: "
                    "lower --lr, or try --precision float32"
                )


def _mean(values: list[Tensor]) -> float:
    """Return the mean of scalars; NaN if there are none, as in an epoch that only scored."""
    return torch.stack(values).mean().item() if values else math.nan
