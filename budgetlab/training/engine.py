"""One network on one device: augmentation, forward passes, steps and evaluation.

Knows nothing of epochs, records or methods.
"""

import contextlib
import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from budgetlab import augment, devices, models
from budgetlab.augment import Augmentation, AugmentedBatch
from budgetlab.budget import Costs, model_costs
from budgetlab.config import RunConfig
from budgetlab.data import Dataset
from budgetlab.devices import keep_freed_memory
from budgetlab.errors import InputError
from budgetlab.history import Credit, Measures, assign_credit, measure
from budgetlab.samplers.base import Batch, ForwardResult

__all__ = ["Engine", "Evaluation", "Outcome"]

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Outcome:
    """What one step saw, before its weights changed.

    Attributes
    ----------
    loss
        Scalar tensor: mean cross-entropy of the batch, without importance weights.
    credit, seen
        What the history takes.
    """

    loss: Tensor
    credit: Credit
    seen: Measures


class Evaluation(NamedTuple):
    """Mean cross-entropy and accuracy on some samples, and the class predicted for each."""

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
            f"{shape[1]}x{shape[2]}: give --batch-size 2 or more, or choose another model"
        ) from None


def _plain(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """An optimiser without what torch wraps it in for ``torch.compile``.

    The first call of a wrapper imports the compiler, for longer than the small network
    needs for its first steps.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(torch.optim.Optimizer, name)) for name in names}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), plain | {"step": step})


def _build_optimiser(config: RunConfig, network: nn.Module) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    # Elsewhere there may be none: on meta, where tests see that nothing is read back, and for
    # SGD on Apple's GPUs before torch 2.8.
    shared["fused"] = next(network.parameters()).device.type in ("cpu", "cuda")
    if config.optimiser == "adamw":
        betas = (config.momentum, 0.999)
        return _plain(torch.optim.AdamW)(network.parameters(), betas=betas, **shared)
    return _plain(torch.optim.SGD)(network.parameters(), momentum=config.momentum, **shared)


class Engine:
    """Network, optimiser and training samples, all on the device.

    Parameters
    ----------
    config
        The run.
    model_name
        Name of the network, not ``auto``.
    samples
        Training samples; moved to the device and kept there.
    device, precision
        Where to train and in which format the heavy work is done. Weights stay float32.
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
        self._augment = self._build_augmentation(samples.flip)
        # There is nothing to draw on meta, where memory is predicted and steps are tested.
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
        """Return the context in which the network runs in the chosen precision."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def logits(self, inputs: Tensor) -> Tensor:
        """Run the network on images (0 to 255) or points; float32 ``[B, C]``."""
        inputs = torch.addcmul(self._shift, inputs, self._factor)
        if self.is_image:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            return self.network(inputs).float()

    def augment(self, indices: Tensor) -> AugmentedBatch:
        """Gather samples int64 ``[B]`` and augment them, each with a draw of its own."""
        gathered = self.samples.x.index_select(0, indices)
        if self._augment is None:
            ones = torch.ones(len(indices), 1, device=self.device)
            return AugmentedBatch(gathered, indices[:, None], ones)
        return self._augment(gathered, self.generator).of_samples(indices)

    def look(self, indices: Tensor) -> ForwardResult:
        """Forward in evaluation mode without a gradient."""
        augmented = self.augment(indices)
        self.network.eval()
        with torch.no_grad():
            logits = self.logits(augmented.images)
            losses = self._cross_entropy(logits, augmented)
            probabilities = logits.softmax(1)
            error_norms = self._error_norms(probabilities, augmented)
        return ForwardResult(losses, probabilities, self.samples.y[indices], augmented, error_norms)

    def _error_norms(self, probabilities: Tensor, augmented: AugmentedBatch) -> Tensor:
        """``||softmax - target||_2`` of each row, ``[B]``; a target has several labels."""
        targets = torch.zeros_like(probabilities)
        targets.scatter_add_(
            1, self.samples.y[augmented.sources], augmented.weights.to(targets.dtype)
        )
        return (probabilities - targets).norm(dim=1)

    def _cross_entropy(self, logits: Tensor, augmented: AugmentedBatch) -> Tensor:
        """Cross-entropy ``[B]`` of each row: its parts, by their shares."""
        parts = -logits.log_softmax(1).gather(1, self.samples.y[augmented.sources])
        return (augmented.weights * parts).sum(1)

    def step(self, batch: Batch, lr: float | Tensor) -> Outcome:
        """Train on a batch; nothing is copied to the host.

        Parameters
        ----------
        batch
            What the sampler yielded.
        lr
            Learning rate of this step; a scalar tensor on the device for a step that is recorded.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        shown = batch.augmented or self.augment(batch.indices)
        self.network.train()
        logits = self.logits(shown.images)
        losses = self._cross_entropy(logits, shown)
        objective = losses if batch.weights is None else losses * batch.weights
        objective.mean().backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        credit = assign_credit(self.credit_rule, batch.indices, shown.sources, shown.weights)
        seen = measure(logits.detach()[credit.rows], self.samples.y[credit.samples])
        return Outcome(losses.detach().mean(), credit, seen)

    def evaluate(self, samples: Dataset) -> Evaluation:
        """Judge samples that are on the device, as they are."""
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
