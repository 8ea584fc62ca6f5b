"""The batch sampler for custom training loops."""

import hashlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, SupportsIndex, Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler as TorchSampler

from budgetlab import samplers
from budgetlab.augment import AugmentedBatch
from budgetlab.budget import Costs, Ledger, model_costs
from budgetlab.config import RunConfig, Settings, takes_settings
from budgetlab.custom_loop.adapters import (
    class_numbers,
    collate,
    evaluated,
    labels_of,
    logits_of,
    require_one_process,
    size_of,
    validated_metadata,
)
from budgetlab.custom_loop.history import LateHistory, LoopHistory, measure_batch
from budgetlab.devices import describe_hardware
from budgetlab.errors import InputError, counted, one_each, one_line
from budgetlab.records import Record, RecordWriter, open_record
from budgetlab.samplers.base import ProxyRun
from budgetlab.training.loop import BudgetedBatches
from budgetlab.training.setup import require_no_changes


class BudgetSampler(TorchSampler[list[int]]):
    """A batch sampler for ``torch.utils.data.DataLoader``, driven by any method of the kit.

    Pass it as ``batch_sampler=`` and report each batch with ``history.update``. A pass over the
    loader is one epoch; batches end with the budget. ``len()`` works if the method knows it.

    With worker processes the loader prefetches, so that methods which look at samples see the
    network as it was a few steps earlier. Distributed training is not supported. Raises InputError
    if method and budget do not fit the data, or something the method needs is missing, and RunError
    if, while iterating, a method chooses nothing in a whole epoch.

    Parameters
    ----------
    data
        Map-style data set with items ``(sample, label)`` or dicts with a key such as
        ``label``; the number of samples is enough for a method that does not look.
    model
        The network being trained, for methods that look at samples first and for a budget
        in ``flops``. Looks run it in eval mode without gradient, on the device of its first
        parameter. It returns logits, or an object with ``logits``; of dict items it receives
        everything but the label as keyword arguments.
    proxy
        Results of a proxy network, for methods that need one (``rho-loss``, the pruned core
        sets): ``bl.samplers.ProxyRun(history, losses)``.
    labels
        Label of each sample, int64 ``[N]``, for methods that read them and for the record.
        By default those the data set holds as a whole, or else those reported; the record
        has -1, shown as ``unknown``, for samples not reported yet.
    metadata
        Further columns, one row per sample, for methods and for the record.
    collate_fn
        Collates items into a batch, as for the loader.
    config, **settings
        Settings of the run, or fields of :class:`budgetlab.RunConfig`: ``budget``,
        ``budget_unit``, ``epochs``, ``batch_size``, ``seed`` and the options of the method are
        used; ``dataset`` names the data in the record, ``out`` is where it is written.

    Attributes
    ----------
    history, ledger, budget
        The :class:`LoopHistory`, what has been spent, and the limit. Seconds count from the
        start of an epoch to its last reported batch.
    """

    @takes_settings
    def __init__(
        self,
        data: TorchDataset | SupportsIndex,
        method: str | None = None,
        *,
        model: nn.Module | None = None,
        proxy: ProxyRun | None = None,
        labels: Tensor | Sequence[int] | None = None,
        metadata: pd.DataFrame | None = None,
        collate_fn: Callable[[list], Any] | None = None,
        config: RunConfig | None = None,
        **settings: Unpack[Settings],
    ):
        given = settings if method is None else {**settings, "method": method}
        base = config.to_dict() if config else {"dataset": "own"}
        config = RunConfig.from_dict(base | given)
        self.config = config.replace(method=samplers.canonical(config.method))
        require_no_changes(self.config, config.dataset_name)
        self.data = None if hasattr(data, "__index__") else data
        size = size_of(data)
        self.model = model
        self._collate_fn = collate_fn
        self.labels = labels_of(data) if labels is None else class_numbers(labels)
        self.metadata = None if metadata is None else validated_metadata(metadata, self.labels)
        for what, known in (("labels", self.labels), ("metadata", metadata)):
            if known is not None:
                one_each(what, known, size)
        self.stream = BudgetedBatches(
            self.config,
            size,
            self._costs(),
            torch.device("cpu"),
            labels=self.labels,
            metadata=metadata,
            # The proxy was trained on separate data: nothing is held out here.
            validation_size=int(proxy is not None),
            train_proxy=lambda plan, generator: proxy,
        )
        self.sampler, self.ledger, self.budget = (
            self.stream.sampler, self.stream.ledger, self.stream.budget)  # fmt: skip
        self.stream.history = late = LateHistory(size)
        self.history = LoopHistory(late, self.ledger, self.labels)
        if self.sampler.proxy is not None and proxy is None:
            raise InputError(
                f"method '{self.config.method}' needs what another network has found: give "
                "proxy=bl.samplers.ProxyRun(history, losses)"
            )
        self._writer: RecordWriter | None = None
        self._classes: list[str] | None = None

    def _costs(self) -> Costs:
        unit = self.config.budget_unit
        if unit == "seconds":
            raise InputError(
                "budget unit 'seconds' cannot be kept in a loop of your own, whose steps are not "
                "timed beforehand: choose iterations, samples or flops"
            )
        if unit != "flops":
            return Costs(0, 0)
        if self.model is None or self.data is None:
            raise InputError("budget unit 'flops' needs data and model=: give both")
        sample, _ = collate(self.data, [0], self._collate_fn)
        if not isinstance(sample, Tensor):
            raise InputError(
                "budget unit 'flops' needs samples that are one tensor: choose iterations or "
                "samples"
            )
        return model_costs(self.model, tuple(sample.shape[1:]))

    @property
    def epoch(self) -> int:
        """Number of the epoch that was started last, from 1."""
        return self.stream.history.epoch

    @property
    def finished(self) -> bool:
        """Whether the budget allows no further step."""
        return self.stream.finished

    @property
    def progress(self) -> float:
        """Progress of the schedule for the current batch: 0 at the first step, 1 at the last."""
        waiting = self.history._pending
        return waiting[0][1] if waiting else self.history._last_progress

    @property
    def lr(self) -> float:
        """Learning rate for the current batch: the config's ``schedule`` at this progress."""
        return self.stream.learning_rate(self.progress)

    def __len__(self) -> int:
        """Return the number of batches in an epoch.

        Raises TypeError if the method decides only during the epoch how many there are.
        """
        steps, size = self.sampler.epoch_steps, self.config.batch_size
        if steps is None:
            raise TypeError(
                f"method '{self.config.method}' does not know beforehand how many batches an epoch "
                "has: loop until the sampler is finished"
            )
        left, ledger = 0, Ledger(self.ledger.costs)
        ledger.load_state_dict(self.ledger.state_dict())
        batch_count = 0 if self.stream.complete else self.stream.batch_count
        while left + batch_count < steps and self.budget.allows(ledger, trained=size):
            ledger.charge_step(size)
            left += 1
        return batch_count + left

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of one epoch, as lists of sample numbers."""
        if isinstance(sys._getframe(1).f_locals.get("self"), BatchSampler):
            raise InputError(
                "a BudgetSampler makes whole batches: give it to the loader as batch_sampler= alone"
            )
        require_one_process()
        return self._batches()

    def _batches(self) -> Iterator[list[int]]:
        self._begin_epoch()
        if self.finished:
            return
        for batch, progress in self.stream.epoch(self._look):
            self.history._pending.append((batch, progress))
            yield batch.indices.tolist()

    def _refund(self, sign: int = 1) -> None:
        """Take the charge for batches not trained on off the ledger; with -1, put it back."""
        for batch, _ in self.history._pending:
            self.ledger.steps -= sign
            self.ledger.trained_samples -= sign * len(batch.indices)

    def _begin_epoch(self) -> None:
        """Close the previous epoch, without charging for batches never trained on."""
        stream, history, waiting = self.stream, self.history, self.history._pending
        reported = history._reported  # read before the next epoch begins
        self._refund()
        if stream.complete and stream.batch_count and not reported:
            raise InputError(
                f"none of the {stream.batch_count} batches of epoch {self.epoch} was reported: "
                "call history.update(logits, labels) for each"
            )
        if stream.complete and waiting:
            warnings.warn(
                f"{len(waiting)} of {stream.batch_count} batches of epoch {self.epoch} were not "
                "reported: call history.update once for each batch, or others count for them",
                UserWarning, stacklevel=3,
            )  # fmt: skip
        # Iterating over the loader without training is not an epoch.
        if stream.complete or reported:
            stream.history.start_epoch(self.epoch + 1)
        waiting.clear()
        reported.clear()
        stream.batch_count, stream.complete = 0, False
        history._last_report = time.perf_counter()

    def _look(self, indices: Tensor) -> samplers.ForwardResult:
        if self.model is None or self.data is None:
            raise InputError(
                f"method '{self.config.method}' looks before it chooses: give data and model="
            )
        inputs, labels = collate(self.data, indices.tolist(), self._collate_fn)
        modes = [(part, part.training) for part in self.model.modules()]  # some may be frozen
        self.model.eval()
        try:
            with torch.no_grad():
                logits = logits_of(self.model, inputs, next(self.model.parameters()).device)
        finally:
            for part, mode in modes:
                part.training = mode
        seen = measure_batch(logits, labels, indices)
        own = indices[:, None]
        # The loop loads the samples itself: their numbers stand in for the images.
        shown = AugmentedBatch(own.float(), own, torch.ones(len(indices), 1))
        return samplers.ForwardResult(seen.loss, logits.softmax(1), labels, shown, seen.el2n)

    def record(
        self,
        test_accuracy: float = float("nan"),
        test_loss: float = float("nan"),
        *,
        val_accuracy: float = float("nan"),
        val_loss: float = float("nan"),
        classes: Sequence[str] | None = None,
    ) -> Record:
        """Record the epoch that was just trained; call it after every epoch.

        Raises InputError if no epoch was trained since the last call, or one was skipped; if a
        result is invalid, or a reported label has no name in ``classes``.

        - ``test_accuracy``, ``test_loss``, ``val_accuracy``, ``val_loss``: results on held-out
          samples, accuracies from 0 to 1; NaN if not evaluated.
        - ``classes``: names of the classes; by default their numbers.

        Returns a record like that of a run of the kit, in a folder under ``out``, for ``compare``,
        plots, triage and atlas. Its status is ``finished`` once the budget is spent.
        """
        found = {"test_accuracy": test_accuracy, "test_loss": test_loss,
                 "val_accuracy": val_accuracy, "val_loss": val_loss}  # fmt: skip
        found = {what: evaluated(what, value) for what, value in found.items()}
        self._require_new_epoch()
        labels = self.history._labels if self.labels is None else self.labels
        names = self._class_names(classes, labels)
        if self._writer is None:
            self._writer = self._create_record(labels, names)
        elif self.labels is None:
            self._writer.complete_labels(labels.numpy(), names)

        def mean(name: str) -> list[Tensor]:
            parts = [getattr(one, name) for one in self.history._reported]
            return [torch.cat(parts).mean()] if parts else []

        self._refund()  # of a pass that was broken off, what worker processes asked for ahead
        row = self.stream.row(self.lr, mean("loss"), mean("correct")) | found
        if self.ledger.costs == Costs(0, 0):
            row["flops"] = float("nan")  # not counted, which is not zero
        self._writer.append_epoch(row, self.stream.epoch_arrays())
        status = "finished" if self.finished else "running"
        summary = {"record": str(self._writer.path), "model": self._model_name,
                   **self.stream.summary(self._writer.epochs), "status": status}  # fmt: skip
        self._refund(-1)
        self._writer.set_status(status, "", summary)
        return open_record(self._writer.path)

    def _require_new_epoch(self) -> None:
        done = len(self._writer.epochs) if self._writer else 0
        if self.epoch > done + 1:
            raise InputError(
                f"epoch {self.epoch} cannot be recorded after {counted(done, 'recorded epoch')}: "
                "start anew with a new sampler, and call sampler.record after every epoch"
            )
        # If the rest of the budget paid only for a look, that epoch still ends the record.
        running = self._writer is not None and self._writer.about["status"] == "running"
        looked = self.finished and done > 0 and running
        if (self.history._reported or looked) and self.epoch == done + 1:
            return
        said = f"epoch {done} is recorded already" if done else "no epoch was trained yet"
        if done and self.finished:
            raise InputError(f"{said} and the budget is spent: leave this call out")
        raise InputError(
            f"{said}: train the next one, with history.update for each batch, and record it then"
        )

    @property
    def _model_name(self) -> str:
        return "own" if self.model is None else f"own:{type(self.model).__name__}"

    def _class_names(self, classes: Sequence[str] | None, labels: Tensor) -> list[str]:
        """Return names for the labels known so far; names given once are kept."""
        most = int(labels.max())
        names = self._classes if classes is None else classes
        if names and (isinstance(names, str) or len(names) <= most):
            raise InputError(
                f"classes is {one_line(repr(names), 60)} for labels up to {most}: give a list with "
                "a name for each label, counted from 0"
            )
        self._classes = list(map(str, names)) if names else None
        return self._classes or [str(number) for number in range(most + 1)]

    def _create_record(self, labels: Tensor, classes: list[str]) -> RecordWriter:
        size = self.history.samples.size
        metadata = pd.DataFrame({"index": np.arange(size)}) if self.metadata is None else (
            self.metadata.reset_index(drop=True)
        )  # fmt: skip
        device = torch.device("cpu")
        if self.model is not None:
            device = next(self.model.parameters()).device
        return RecordWriter.create(
            self.config,
            metadata=metadata.assign(label=labels.numpy()),
            data={"name": self.config.dataset_name, "fingerprint": self._fingerprint(),
                  "val_fingerprint": "", "classes": classes, "shape": [], "train": size, "test": 0,
                  "val": 0, "skipped": []},
            hardware=describe_hardware(device, torch.float32) | {"model": self._model_name},
        )  # fmt: skip

    def _fingerprint(self) -> str:
        """Hash the labels if known beforehand, else the name, type and size of the data."""
        if self.labels is not None:
            identity = self.labels.numpy().tobytes()
        else:
            kind = "" if self.data is None else type(self.data).__name__
            identity = f"{self.config.dataset_name}\n{kind}\n{self.history.samples.size}".encode()
        return hashlib.sha256(identity).hexdigest()[:16]

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`; call it between two epochs."""
        return {**self.stream.state_dict(), "complete": self.stream.complete}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        # The limit follows the current settings; states of earlier versions hold no other key.
        kept = {"exhausted": state.get("budget", state)["exhausted"]}
        self.stream.load_state_dict({**state, "budget": kept})
        self.stream.batch_count, self.stream.complete = 0, state["complete"]
