"""One network on one device, and the proxy network that some methods train before it."""

import contextlib
import copy
import dataclasses
import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from budgetlab import augment, devices, models
from budgetlab.augment import Augmentation, AugmentedBatch
from budgetlab.budget import Costs, model_costs
from budgetlab.config import RunConfig
from budgetlab.data import Dataset
from budgetlab.devices import keep_freed_memory, moved, sampling_device
from budgetlab.errors import InputError, RunError
from budgetlab.history import Credit, History, Measures, Trajectory, assign_credit, measure
from budgetlab.samplers.base import Batch, ForwardResult, ProxyPlan, ProxyRun

if TYPE_CHECKING:
    from budgetlab.training.loop import Loop

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Outcome:
    """Result of one step, from before the weights changed.

    - ``loss``: scalar tensor: mean cross-entropy of the batch, without importance weights.
    - ``credit``, ``seen``: arguments of :meth:`History.update`.
    """

    loss: Tensor
    credit: Credit
    seen: Measures


class Evaluation(NamedTuple):
    """Mean cross-entropy, accuracy, and predicted classes of some samples."""

    loss: float
    accuracy: float
    predicted: Tensor


def _require_single(model_name: str, network: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a network that cannot train on one sample: batch norm over a single value."""
    try:
        copy.deepcopy(network).to("meta").train()(torch.empty(1, *shape, device="meta"))
    except ValueError:
        raise InputError(
            f"batch size 1 is too small for batch norm in model '{model_name}' on images of "
            f"{shape[1]}x{shape[2]}: give a batch size of 2 or more, or choose another model"
        ) from None


def _plain(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimiser class without torch's wrappers, whose first call imports the compiler."""
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(torch.optim.Optimizer, name)) for name in names}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), plain | {"step": step})


def _build_optimiser(config: RunConfig, network: nn.Module) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    # Not available everywhere: not on meta, which tests use to check that nothing is read back, nor
    # for SGD on Apple's GPUs before torch 2.8.
    shared["fused"] = next(network.parameters()).device.type in ("cpu", "cuda")
    if config.optimiser == "adamw":
        betas = (config.momentum, 0.999)
        return _plain(torch.optim.AdamW)(network.parameters(), betas=betas, **shared)
    return _plain(torch.optim.SGD)(network.parameters(), momentum=config.momentum, **shared)


class Engine:
    """Network, optimiser and training samples, all on the device.

    - ``config``: configuration of the run.
    - ``model_name``: name of the network, not ``auto``.
    - ``samples``: training samples; moved to the device and kept there.
    - ``device``, ``precision``: training device, and the number format of autocast. Weights stay
      float32.
    """

    def __init__(
        self,
        config: RunConfig,
        model_name: str,
        samples: Dataset,
        device: torch.device,
        precision: torch.dtype,
    ):
        if device.type == "cpu":
            keep_freed_memory()
        self.config = config
        self.device = device
        self.precision = precision
        self.samples = samples.to(device)
        self.is_image = len(samples.sample_shape) == 3
        shape, classes = samples.sample_shape, len(samples.classes)
        network = models.build(model_name, shape, classes, devices.stream_seed(config.seed, "init"))
        self.costs: Costs = model_costs(network, shape)
        if config.batch_size == 1:
            _require_single(model_name, network, shape)
        memory = torch.channels_last if self.is_image else torch.preserve_format
        self.network: nn.Module = network.to(device).to(memory_format=memory)
        self.optimiser = _build_optimiser(config, self.network)
        scale = 255.0 if self.is_image else 1.0
        per_channel = (1, -1, 1, 1) if self.is_image else (1, -1)
        mean = torch.tensor(samples.mean, device=device).view(per_channel)
        std = torch.tensor(samples.std, device=device).view(per_channel)
        self._factor, self._shift = 1 / (scale * std), -mean / std
        # The published code credits the row, whatever the image shows.
        published = config.fidelity == "published"
        self.credit_rule = "row" if published else config.credit
        self.branch = devices.Branch(device)
        self._augment = self._build_augmentation(samples.flip)
        # Steps on meta, to predict memory or to test, need no random numbers.
        self.generator: Any = (
            None if device.type == "meta"
            else devices.torch_generator(config.seed, "augmentation", device)
        )  # fmt: skip

    def _build_augmentation(self, flip: bool) -> Augmentation | None:
        if not self.is_image:
            return None
        return augment.build(
            self.config.augmentation,
            flip=flip,
            alpha=self.config.alpha,
            randaugment_n=self.config.randaugment_n,
            randaugment_m=self.config.randaugment_m,
            fidelity=self.config.fidelity,
        )

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the autocast context of the chosen precision."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def logits(self, inputs: Tensor) -> Tensor:
        """Run the network on images (0 to 255) or points; returns float32 ``[B, C]``."""
        inputs = torch.addcmul(self._shift, inputs, self._factor)
        if self.is_image:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            logits = self.network(inputs).float()
        if len(logits) != len(inputs):
            raise RunError(
                f"model '{type(self.network).__name__}' returns {len(logits)} rows of logits for a "
                f"batch of {len(inputs)}: it must return one row a sample"
            )
        return logits

    def augment(self, indices: Tensor) -> AugmentedBatch:
        """Gather samples int64 ``[B]`` and augment each independently."""
        gathered = self.samples.x.index_select(0, indices)
        if self._augment is None:
            ones = torch.ones(len(indices), 1, device=self.device)
            return AugmentedBatch(gathered, indices[:, None], ones)
        return self._augment(gathered, self.generator).of_samples(indices)

    def look(self, indices: Tensor) -> ForwardResult:
        """Run a forward pass in evaluation mode without gradients."""
        augmented = self.augment(indices)
        self.network.eval()
        with torch.no_grad():
            logits = self.logits(augmented.images)
            losses = self._cross_entropy(logits, augmented)
            probabilities = logits.softmax(1)
            error_norms = self._error_norms(probabilities, augmented)
        return ForwardResult(losses, probabilities, self.samples.y[indices], augmented, error_norms)

    def _error_norms(self, probabilities: Tensor, augmented: AugmentedBatch) -> Tensor:
        """Return ``||softmax - target||_2`` of each row, ``[B]``; mixed images have soft labels."""
        targets = torch.zeros_like(probabilities)
        targets.scatter_add_(
            1, self.samples.y[augmented.sources], augmented.weights.to(targets.dtype)
        )
        return (probabilities - targets).norm(dim=1)

    def _cross_entropy(self, logits: Tensor, augmented: AugmentedBatch) -> Tensor:
        """Return the cross-entropy of each row, ``[B]``, averaged over its labels by weight."""
        parts = -logits.log_softmax(1).gather(1, self.samples.y[augmented.sources])
        return (augmented.weights * parts).sum(1)

    def step(
        self,
        batch: Batch,
        lr: float | Tensor,
        learn: Callable[[Outcome], Any] = lambda outcome: outcome,
    ) -> Any:
        """Train on a batch; nothing is copied to the host.

        - ``batch``: batch from the sampler.
        - ``lr``: learning rate; a scalar tensor on the device for a step captured in a graph.
        - ``learn``: called with the outcome between the passes; what it returns is returned. In a
          captured step its kernels run in parallel with the backward pass: it may not touch the
          network.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        shown = batch.augmented or self.augment(batch.indices)
        self.network.train()
        logits = self.logits(shown.images)
        losses = self._cross_entropy(logits, shown)
        objective = losses if batch.weights is None else losses * batch.weights
        # What it reads (logits, losses, shown) is referenced until the branches have joined, so
        # that the backward pass is not given its memory.
        with self.branch.forked():
            credit = assign_credit(self.credit_rule, batch.indices, shown.sources, shown.weights)
            seen = measure(logits.detach()[credit.rows], self.samples.y[credit.samples])
            made = learn(Outcome(losses.detach().mean(), credit, seen))
        objective.mean().backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.branch.join()
        return made

    def evaluate(self, samples: Dataset) -> Evaluation:
        """Evaluate samples that are on the device, without augmentation."""
        self.network.eval()
        loss = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        predicted = []
        with torch.no_grad():
            for start in range(0, len(samples), EVALUATION_BATCH):
                rows = slice(start, start + EVALUATION_BATCH)
                logits = self.logits(samples.x[rows])
                seen = measure(logits, samples.y[rows])
                loss += seen.loss.sum()
                correct += seen.correct.sum()
                predicted.append(logits.argmax(1))
        size = len(samples)
        return Evaluation(loss.item() / size, correct.item() / size, torch.cat(predicted))


class ProxyTrainer:
    """Trains the network that a method needs before its first step.

    It uses the recipe of the run with ``standard`` augmentation, its own initial weights, and the
    learning-rate schedule over its share of the budget, which pays for all of it. It sees the
    training samples of the run, or validation samples ``val``, and never a test sample.
    """

    def __init__(self, loop: "Loop", val: Dataset | None):
        self.loop, self.val = loop, val
        self.engine, self.ledger, self.budget = loop.engine, loop.ledger, loop.budget
        self._slowest = 0.0

    def require_affordable(self, plan: ProxyPlan) -> None:
        """Refuse a share of the budget that does not pay for one step and the final scoring."""
        config, own, name = self.engine.config, self.engine.samples, self._model(plan)
        network = models.build(name, own.sample_shape, len(own.classes))
        costs = model_costs(network, own.sample_shape)
        size = len(plan.samples) if isinstance(plan.samples, Tensor) else len(self._samples(plan))
        step = min(config.batch_size, size)
        # Seconds cannot be known in advance.
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
        """Train until the share is spent, then score the samples if planned."""
        other = self._set_up(plan)
        kind = Trajectory if plan.trajectory else History
        chooser = sampling_device(other.device)
        history = kind(len(other.samples), chooser)
        start, self._slowest = self.ledger.spent(self.budget.unit), 0.0
        span = max(self._limit - start - self._reserve(plan, other.costs), 1e-12)
        for indices in self._infinite_batches(len(other.samples), history, generator):
            if not self._fits(other.costs, len(indices), self._reserve(plan, other.costs)):
                break
            progress = min((self.ledger.spent(self.budget.unit) - start) / span, 1.0)
            lr = self.loop.learning_rate(progress)
            outcome = moved(other.step(Batch(indices.to(other.device)), lr), chooser)
            history.update(outcome.credit, outcome.seen)
            self.ledger.charge_proxy(other.costs, trained=len(indices))
            self._slowest = max(self._slowest, self.loop.update_seconds())
        losses = self._losses(other).to(chooser) if plan.losses else None
        return ProxyRun(history, losses)

    def _set_up(self, plan: ProxyPlan) -> Engine:
        # Set-up does not count as training time.
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
        """Return the cost of the final forward pass over all training samples."""
        if not plan.losses:
            return 0.0
        if self.budget.unit == "seconds":
            # An upper bound: a forward pass takes less time than a step.
            return self._slowest * len(self.engine.samples) / self.engine.config.batch_size
        return self._cost(costs, 0, len(self.engine.samples))

    def _fits(self, costs: Costs, trained: int, reserve: float) -> bool:
        step = self._slowest if self.budget.unit == "seconds" else self._cost(costs, trained, 0)
        return self.ledger.spent(self.budget.unit) + step + reserve <= self._limit

    def _infinite_batches(
        self, size: int, history: History, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield batches of one shuffled pass after another, without partial batches."""
        batch, epoch = min(self.engine.config.batch_size, size), 0
        while True:
            epoch += 1
            history.start_epoch(epoch)
            order = torch.randperm(size, generator=generator, device=generator.device)
            yield from (order[i : i + batch] for i in range(0, size - batch + 1, batch))

    def _losses(self, other: Engine) -> Tensor:
        """Return the proxy's cross-entropy of every training sample of the run."""
        samples = self.engine.samples
        other.network.eval()
        parts = []
        with torch.no_grad():
            for start in range(0, len(samples), EVALUATION_BATCH):
                rows = slice(start, start + EVALUATION_BATCH)
                parts.append(measure(other.logits(samples.x[rows]), samples.y[rows]).loss)
                self.ledger.charge_proxy(other.costs, looked=len(parts[-1]))
        self.loop.update_seconds()
        losses = torch.cat(parts)
        if not bool(torch.isfinite(losses).all()):
            raise RunError(
                f"losses of the proxy of '{self.engine.config.method}' are not finite: lower --lr"
            )
        return losses
