"""Any method in a training loop of your own: a batch sampler, and one more line.

>>> sampler = bl.BudgetSampler(dataset, method="p-SGD", budget=0.2, epochs=12)  # doctest: +SKIP
>>> history = sampler.history  # doctest: +SKIP
>>> loader = DataLoader(dataset, batch_sampler=sampler)  # doctest: +SKIP
>>> while not sampler.finished:  # doctest: +SKIP
...     for x, y in loader:
...         logits = model(x)
...         history.update(logits, y)  # the only other line
...         F.cross_entropy(logits, y).backward()
"""

import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler as TorchSampler
from torch.utils.data import default_collate

from budgetlab import samplers, seeds
from budgetlab.augment import AugmentedBatch
from budgetlab.budget import Budget, Costs, Ledger, model_costs, schedule, steps_per_epoch
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.history import Credit, History, measure
from budgetlab.samplers.base import ProxyPlan, ProxyRun
from budgetlab.settings import Settings, takes_settings

__all__ = ["BudgetSampler", "LoopHistory"]


class _BudgetSpent(Exception):
    """The next look or step would overstep the budget."""


@dataclass(frozen=True)
class _Pending:
    """A batch that was handed out and not yet reported."""

    indices: Tensor
    weights: Tensor | None
    progress: float


class LoopHistory:
    """What a loop reports, batch by batch; made by :class:`BudgetSampler`.

    Attributes
    ----------
    samples
        The :class:`~budgetlab.history.History` of every sample that comes of it.
    """

    def __init__(self, size: int):
        self.samples = History(size)
        self._pending: deque[_Pending] = deque()
        self._last_progress = 0.0
        self._reported = 0

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor | None = None) -> Tensor:
        """Report what one batch gave, before the optimiser's step; once a batch, in order.

        Parameters
        ----------
        logits
            ``[B, C]``, with or without gradient; only read.
        labels
            int64 ``[B]``: what was trained on.
        indices
            Numbers of the samples, int64 ``[B]``; by default those of the oldest batch
            that was handed out and not yet reported.

        Returns
        -------
        Tensor
            float32 ``[B]`` on the device of the logits: importance weights. All one
            unless the method weights (``grad-norm``, ``infobatch``, or
            ``weights="unbiased"``); for those, train on
            ``(weights * F.cross_entropy(logits, labels, reduction="none")).mean()``.

        Raises
        ------
        InputError
            If no batch is waiting, or its size is another one.
        """
        batch = self._take(indices)
        if not len(batch.indices) == len(logits) == len(labels):
            raise InputError(
                f"the batch holds samples {batch.indices[:3].tolist()}... ({len(batch.indices)}), "
                f"and {len(logits)} rows of logits and {len(labels)} labels were reported: call "
                "history.update once for each batch, with all its rows"
            )
        seen = measure(logits.detach().cpu(), labels.detach().cpu().long())
        count = len(batch.indices)
        self.samples.count(batch.indices)
        self.samples.update(Credit(torch.arange(count), batch.indices, torch.ones(count)), seen)
        self._reported += 1
        weights = torch.ones(count) if batch.weights is None else batch.weights.float()
        return weights.to(logits.device)

    def _take(self, indices: Tensor | None) -> _Pending:
        if indices is None:
            if not self._pending:
                raise InputError(
                    "no batch is waiting to be reported: call history.update once for each batch "
                    "of the loader, or give indices="
                )
            taken = self._pending.popleft()
        else:
            asked = torch.as_tensor(indices).cpu().long()
            same = [one for one in self._pending if torch.equal(one.indices, asked)]
            taken = same[0] if same else _Pending(asked, None, self._last_progress)
            self._pending = deque(one for one in self._pending if one is not taken)
        self._last_progress = taken.progress
        return taken


class BudgetSampler(TorchSampler[list[int]]):
    """A batch sampler for ``torch.utils.data.DataLoader`` that any method of the kit drives.

    Give it as ``batch_sampler=``, and report each batch with ``history.update``. Every
    pass over the loader is one epoch; batches end when the budget is spent. It has no
    length: some methods do not know how many batches they will keep.

    With worker processes the loader asks for batches ahead, so a method that looks sees
    the network as it was a few steps before. One process trains: there is no support
    for distributed training.

    Parameters
    ----------
    data
        Map-style data set with items ``(sample, label)``, or only the number of samples
        for a method that does not look.
    method
        Sampling method by name.
    model
        The network that is trained, for methods that look at samples first and for a
        budget in ``flops``. Looks run it in evaluation mode without a gradient on what
        the data set gives, on the device of its first weight.
    proxy
        What another network has found, for methods that need one (``rho-loss``, the
        pruned core sets): ``bl.samplers.ProxyRun(history, losses)``.
    config
        The run; alternatively its fields by name.
    **settings
        Fields of :class:`budgetlab.RunConfig`: ``budget``, ``budget_unit``,
        ``epochs``, ``batch_size``, ``seed`` and the options of the method are read.

    Attributes
    ----------
    history
        A :class:`LoopHistory`.
    ledger, budget
        What has been spent, and may be.
    epoch
        Number of the epoch that has been begun last, from 1.

    Raises
    ------
    InputError
        If method and budget do not fit the data, or the method needs what is not given.
    RunError
        While iterating, if a method chooses nothing in a whole epoch.
    """

    @takes_settings
    def __init__(
        self,
        data: TorchDataset | int,
        method: str | None = None,
        *,
        model: nn.Module | None = None,
        proxy: ProxyRun | None = None,
        config: RunConfig | None = None,
        **settings: Unpack[Settings],
    ):
        given = settings if method is None else {**settings, "method": method}
        config = RunConfig.from_dict((config.to_dict() if config else {}) | given)
        self.config = config.replace(method=samplers.canonical(config.method))
        self.data = None if isinstance(data, int) else data
        size = data if isinstance(data, int) else len(data)  # type: ignore[arg-type]
        self.model = model
        self._proxy = proxy
        self.history = LoopHistory(size)
        self.ledger = Ledger(self._costs())
        self.sampler = self._build(size)
        steps = self.config.epochs * steps_per_epoch(
            size, self.sampler.budget, self.config.batch_size
        )
        self.budget = Budget.of_steps(
            self.config.budget_unit, steps, self.config.batch_size, self.ledger.costs
        )
        self.epoch = 0
        self._handed_out = 0
        self._complete = False

    def _costs(self) -> Costs:
        unit = self.config.budget_unit
        if unit == "seconds":
            raise InputError(
                "budget unit 'seconds' cannot be kept in a loop of your own, whose steps are not "
                "timed here: choose iterations, samples or flops"
            )
        if unit != "flops":
            return Costs(0, 0)
        if self.model is None or self.data is None:
            raise InputError("budget unit 'flops' needs data and model=: give both")
        sample, _ = self._collate([0])
        return model_costs(self.model, tuple(sample.shape[1:]))

    def _build(self, size: int) -> samplers.Sampler:
        generator = seeds.torch_generator(self.config.seed, "order")
        context = samplers.SamplerContext(
            size,
            self.config,
            generator,
            torch.device("cpu"),
            # What a proxy has found was found on data of its own: nothing is held out here.
            validation_size=int(self._proxy is not None),
            spent=lambda: self.budget.share_spent(self.ledger),
            train_proxy=self._found_by_proxy,
        )
        sampler = samplers.build(self.config.method, context)
        if sampler.proxy is not None and self._proxy is None:
            raise InputError(
                f"method '{self.config.method}' needs what another network has found: give "
                "proxy=bl.samplers.ProxyRun(history, losses)"
            )
        return sampler

    def _found_by_proxy(self, plan: ProxyPlan, generator: torch.Generator) -> ProxyRun:
        assert self._proxy is not None
        return self._proxy

    @property
    def finished(self) -> bool:
        """Whether the budget allows no further step."""
        last = self.sampler.last_epoch
        if self.budget.exhausted or (last is not None and self._complete and self.epoch >= last):
            return True
        return not self.budget.allows(self.ledger, trained=self.config.batch_size)

    @property
    def progress(self) -> float:
        """Progress of the schedule for the batch that is trained on now, in [0, 1].

        0 at the first step and 1 at the last one.
        """
        waiting = self.history._pending
        return waiting[0].progress if waiting else self.history._last_progress

    @property
    def lr(self) -> float:
        """Learning rate for this batch: ``lr`` and ``schedule`` of the config at this progress."""
        config = self.config
        return schedule(config.schedule, self.progress, config.lr, config.milestones, config.warmup)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of one epoch, as lists of sample numbers."""
        self._begin_epoch()
        if self.finished:
            return
        samples = self.history.samples
        try:
            for batch in self.sampler.batches(self.epoch, samples, self._look):
                if not self.budget.allows(self.ledger, trained=len(batch.indices)):
                    raise _BudgetSpent
                spent = self.budget.progress(self.ledger, len(batch.indices))
                self.ledger.charge_step(len(batch.indices))
                self._handed_out += 1
                self.history._pending.append(
                    _Pending(batch.indices, batch.weights, self.sampler.progress(spent))
                )
                yield batch.indices.tolist()
        except _BudgetSpent:
            self.budget.exhausted = True
        self._complete = True
        if not self._handed_out and not self.budget.exhausted:
            raise RunError(
                f"method '{self.config.method}' chose nothing in epoch {self.epoch}, so the budget "
                "would never be spent: change its options or choose another method"
            )

    def _begin_epoch(self) -> None:
        """Close the epoch before: what was handed out and never trained on is not charged."""
        waiting, history = self.history._pending, self.history
        for batch in waiting:
            self.ledger.steps -= 1
            self.ledger.trained_samples -= len(batch.indices)
        if self._complete and self._handed_out and not history._reported:
            raise InputError(
                f"none of the {self._handed_out} batches of epoch {self.epoch} was reported: call "
                "history.update(logits, labels) for each"
            )
        if self._complete and waiting:
            warnings.warn(
                f"{len(waiting)} of {self._handed_out} batches of epoch {self.epoch} were not "
                "reported: call history.update once for each batch, or others count for them",
                UserWarning,
                stacklevel=3,
            )
        # Looking into the loader without training is no epoch.
        if self._complete or history._reported or self.epoch == 0:
            self.epoch += 1
            history.samples.start_epoch(self.epoch)
        waiting.clear()
        self._handed_out, history._reported, self._complete = 0, 0, False

    def _look(self, indices: Tensor) -> samplers.ForwardResult:
        if self.model is None or self.data is None:
            raise InputError(
                f"method '{self.config.method}' looks at samples before it chooses: give the data "
                "set and model="
            )
        if not self.budget.allows(self.ledger, looked=len(indices)):
            raise _BudgetSpent
        self.ledger.charge_look(len(indices))
        inputs, labels = self._collate(indices.tolist())
        was_training = self.model.training
        device = next(self.model.parameters()).device
        self.model.eval()
        try:
            with torch.no_grad():
                logits = self.model(inputs.to(device)).float().cpu()
        finally:
            self.model.train(was_training)
        seen = measure(logits, labels)
        own = indices[:, None]
        # The loop gathers the samples itself: their numbers stand for the images.
        augmented = AugmentedBatch(own.float(), own, torch.ones(len(indices), 1))
        return samplers.ForwardResult(seen.loss, logits.softmax(1), labels, augmented, seen.el2n)

    def _collate(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        items = default_collate([tuple(self.data[number])[:2] for number in indices])  # type: ignore[index]
        return items[0], items[1].long()

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes; call it between two epochs."""
        return {
            "epoch": self.epoch,
            "history": self.history.samples.state_dict(),
            "sampler": self.sampler.state_dict(),
            "order": self.sampler.generator.get_state(),
            "ledger": self.ledger.state_dict(),
            "exhausted": self.budget.exhausted,
            "complete": self._complete,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.epoch = state["epoch"]
        self.history.samples.load_state_dict(state["history"])
        self.sampler.load_state_dict(state["sampler"])
        self.sampler.generator.set_state(state["order"])
        self.ledger.load_state_dict(state["ledger"])
        self.budget.exhausted = state["exhausted"]
        self._handed_out, self._complete = 0, state["complete"]
