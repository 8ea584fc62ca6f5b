"""What a custom loop reports of its batches, and the history made of it."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from budgetlab.budget import Ledger
from budgetlab.errors import InputError, a_kind
from budgetlab.history import Credit, History, Measures, measure, require_logits
from budgetlab.records.format import UNKNOWN
from budgetlab.samplers import Batch

IGNORE_INDEX = -100
# Bytes of logits that may wait on a GPU to be read; those of an epoch of CIFAR-10 are 2 MB.
MOST_WAITING = 2**26


class LateHistory(History):
    """A history that, before its measures are read, takes in what waits on a GPU."""

    def __init__(self, size: int):
        super().__init__(size)
        self.take_in: Callable[[], None] = lambda: None

    def _sum(self, name: str) -> Tensor:
        self.take_in()
        return super()._sum(name)

    def _last_column(self, name: str) -> Tensor:
        self.take_in()
        return super()._last_column(name)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`."""
        self.take_in()
        return super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.take_in()
        super().load_state_dict(state)


class LoopHistory:
    """Collects what a loop reports, batch by batch; created by :class:`BudgetSampler`.

    What is reported on a GPU stays there, so that no step waits for it, and is read when a measure
    is needed: once per epoch, unless the method looks at the history within the epoch, or the
    logits take much memory. Then mistakes in it are found.

    It also has every measure of :class:`~budgetlab.history.History`: ``history.mean_loss``,
    ``history.forgotten`` and so on.

    Attributes
    ----------
    samples
        The resulting :class:`~budgetlab.history.History` of every sample.
    """

    def __init__(self, samples: LateHistory, ledger: Ledger, labels: Tensor | None = None):
        self.samples, self._known = samples, labels
        samples.take_in = self._take_in
        self._ledger, self._last_report = ledger, time.perf_counter()
        # Batches handed out but not yet reported, each with its progress.
        self._pending: deque[tuple[Batch, float]] = deque()
        self._last_progress = 0.0
        # Samples, logits and labels of batches on a GPU that were reported and not yet read.
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._bytes = 0
        self._seen: list[Measures] = []
        self._labels = torch.full((samples.size,), UNKNOWN)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "samples":  # before __init__, as in copying
            raise AttributeError(name)
        return getattr(self.samples, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.samples)})

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor | None = None) -> Tensor:
        """Report one batch, before the optimiser's step; call it once per batch, in order.

        Raises InputError if no batch is waiting, its size differs, a sample number does not exist,
        or logits and labels do not fit.

        - ``logits``: as for :func:`measure_batch`, with or without gradient; only read.
        - ``labels``: the labels that were trained on.
        - ``indices``: sample numbers, int64 ``[B]``; by default those of the oldest batch that was
          handed out and not yet reported. With them a batch may also be reported in parts.

        Returns
        -------
        Tensor
            Importance weights, float32 ``[B]`` on the device of the logits. All ones
            unless the method weights losses (``grad-norm``, ``infobatch``, or
            ``weights="unbiased"``); for those, train on
            ``(weights * F.cross_entropy(logits, labels, reduction="none")).mean()``.
        """
        logits, labels = _tensor("logits", logits), _tensor("labels", labels)
        if labels.is_floating_point() and not logits.is_floating_point():
            raise InputError(
                f"logits are {logits.dtype}, labels {labels.dtype}: call update(logits, labels)"
            )
        batch, logits, labels = self._match_batch(indices), logits.detach(), labels.detach()
        count = len(batch.indices)
        if not count == len(logits) == len(labels):
            raise InputError(
                f"the batch holds samples {batch.indices[:3].tolist()}... ({count}), "
                f"and {len(logits)} rows of logits and {len(labels)} labels were reported: call "
                "history.update once for each batch, with all its rows"
            )
        if _must_wait(logits):
            # Copies, as the loop may go on to change what it gave.
            self._waiting.append((batch.indices, logits.clone(), labels.clone()))
            self.samples.count(batch.indices)
            self._bytes += logits.nbytes
            if self._bytes > MOST_WAITING:
                self._take_in()
        else:
            self._take_in()
            self._take(batch.indices, logits, labels)
            self.samples.count(batch.indices)
        now = time.perf_counter()
        self._ledger.seconds += now - self._last_report
        self._last_report = now
        if batch.weights is None:
            return torch.ones(count, device=logits.device)
        return batch.weights.float().to(logits.device, non_blocking=logits.is_cuda)

    @property
    def _reported(self) -> list[Measures]:
        """Measures of the batches of this epoch that were reported."""
        self._take_in()
        return self._seen

    def _take_in(self) -> None:
        """Read all that waits, which a GPU is waited for once."""
        began = time.perf_counter()
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        for given in waiting:
            self._take(*given)
        took = time.perf_counter() - began if waiting else 0.0
        self._ledger.seconds += took
        self._last_report += took

    def _take(self, indices: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Update the history with a batch."""
        count, labels = len(indices), labels.cpu()
        seen = measure_batch(logits, labels, indices)
        self.samples.update(Credit(torch.arange(count), indices, torch.ones(count)), seen)
        if labels.numel() == count:  # one class each, no shares and no positions
            given = labels.reshape(-1).long()
            self._labels[indices] = given
            self._compare_labels(indices, given)
        self._seen.append(seen)

    def _compare_labels(self, indices: Tensor, given: Tensor) -> None:
        """Warn once if the labels trained on differ from those known beforehand."""
        if self._known is None or not bool((other := self._known[indices] != given).any()):
            return
        number = int(indices[other][0])
        warnings.warn(
            f"sample {number} is trained on with label {int(given[other][0])}, and its label was "
            f"known as {int(self._known[number])}, which methods and the record go by: give the "
            "labels that are trained on as labels=", UserWarning, stacklevel=4,
        )  # fmt: skip
        self._known = None

    def _match_batch(self, indices: Tensor | None) -> Batch:
        if indices is None:
            if not self._pending:
                raise InputError(
                    "no batch is waiting: call history.update once for each batch, or give indices="
                )
            batch, self._last_progress = self._pending.popleft()
            return batch
        asked = self._numbers(_tensor("indices", indices).cpu())
        same = [one for one in self._pending
                if torch.equal(one[0].indices.sort().values, asked.sort().values)]  # fmt: skip
        if not same and any(one.weights is not None for one, _ in self._pending):
            raise InputError(
                "indices are those of no batch that was handed out, whose losses the method "
                "weights: report each batch whole, in any order of its rows"
            )
        # A part of a batch stands for the whole, which is charged once and not refunded.
        same = same or [one for one in self._pending if torch.isin(asked, one[0].indices).all()]
        if not same:
            return Batch(asked)
        batch, self._last_progress = same[0]
        self._pending = deque(one for one in self._pending if one is not same[0])
        return _in_order(batch, asked)

    def _numbers(self, asked: Tensor) -> Tensor:
        """Check sample numbers and return them as int64 ``[B]``."""
        last = self.samples.size - 1
        wanted = f"give the numbers of the samples, whole numbers [B] from 0 to {last}"
        if asked.ndim != 1 or asked.dtype == torch.bool:
            raise InputError(f"indices is {asked.dtype} of shape {tuple(asked.shape)}: {wanted}")
        known = (asked >= 0) & (asked <= last) & (asked == asked.round())
        if not bool(known.all()):
            first = int((~known).nonzero()[0, 0])
            raise InputError(f"indices[{first}] is {asked[first].item():g}: {wanted}")
        return asked.long()


def _must_wait(logits: Tensor) -> bool:
    """Whether reading would stall the device."""
    return logits.device.type != "cpu"


def _in_order(batch: Batch, asked: Tensor) -> Batch:
    """Return the batch with its rows in the order of ``asked``, their sample numbers."""
    if batch.weights is None:
        return Batch(asked)
    weights = torch.empty_like(batch.weights)
    weights[asked.argsort(stable=True)] = batch.weights[batch.indices.argsort(stable=True)]
    return Batch(asked, weights)


def _tensor(what: str, given: Any) -> Tensor:
    try:
        return torch.atleast_1d(torch.as_tensor(given))
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{what} is {a_kind(given)}: give a tensor") from None


def measure_batch(
    logits: Tensor, labels: Tensor, indices: Sequence[int] | Tensor | None = None
) -> Measures:
    """Compute the measures of a batch from logits and labels in any of the usual forms.

    Raises InputError if logits and labels do not fit each other, or a value is invalid. Returns one
    value per sample, ``[B]``, on the CPU.

    - ``logits``: ``[B, C]``; ``[B]`` or ``[B, 1]`` for two classes (binary cross-entropy); or with
      one class per position, ``[B, C, ...]`` or ``[B, ..., C]``: measures are averaged over
      positions, and a sample counts as right if most of its positions are.
    - ``labels``: class numbers ``[B]`` or ``[B, ...]``, -100 for ignored positions; or class
      probabilities ``[B, C]``, which sum to one.
    - ``indices``: sample numbers, for error messages.
    """
    logits, labels = logits.detach().cpu().float(), labels.detach().cpu()
    count = len(logits)
    numbers = range(count) if indices is None else indices
    finite = logits.reshape(count, -1).isfinite().all(1)
    if not bool(finite.all()):
        number = int(numbers[int((~finite).nonzero()[0, 0])])
        raise InputError(
            f"the logits of sample {number} are not finite: lower the learning rate, or look at it"
        )
    require_logits(logits, "the logits that were reported")
    if logits.ndim == 1 or logits.shape[1:] == (1,):
        logits = torch.stack([torch.zeros(count), logits.reshape(-1)], 1)
        labels = labels.reshape(-1) if labels.numel() == count else labels
    if labels.is_floating_point() and labels.shape == logits.shape and logits.ndim == 2:
        return _measure_shares(logits, labels)
    if logits.ndim > 2 and labels.shape == logits.shape[:-1] != (count, *logits.shape[2:]):
        logits = logits.movedim(-1, 1)
    if labels.shape != (count, *logits.shape[2:]):
        raise InputError(
            f"logits of shape {tuple(logits.shape)} and labels of shape {tuple(labels.shape)} do "
            "not fit: give logits [B, C] with labels [B], or [B, C, ...] with [B, ...]"
        )
    classes, counted = logits.shape[1], labels != IGNORE_INDEX
    wrong = counted & ((labels < 0) | (labels >= classes) | (labels != labels.round()))
    nothing = ~counted.reshape(count, -1).any(1)
    for rows in (nothing, wrong.reshape(count, -1).any(1)):
        if bool(rows.any()):
            row = int(rows.nonzero()[0, 0])
            value = labels.reshape(count, -1)[row][wrong.reshape(count, -1)[row]][:1].tolist()
            has = f"the label {value[0]:g}, which is not among" if value else "no label among"
            raise InputError(
                f"sample {int(numbers[row])} has {has} the {classes} classes: give class numbers "
                f"from 0 to {classes - 1}, and leave samples without one out"
            )
    of_row = torch.arange(count).reshape(-1, *[1] * (labels.ndim - 1)).expand_as(labels)[counted]
    seen = measure(logits.movedim(1, -1)[counted], labels[counted].long())
    if labels.ndim == 1:
        return seen
    each = torch.bincount(of_row, minlength=count)
    means = {name: torch.zeros(count).index_add_(0, of_row, values) / each
             for name, values in vars(seen).items() if name != "probabilities"}  # fmt: skip
    return Measures(**means | {"correct": (means["correct"] > 0.5).float()})


def _measure_shares(logits: Tensor, shares: Tensor) -> Measures:
    """Compute measures for labels that are class probabilities; the largest is the label."""
    if not bool(((shares.sum(1) - 1).abs() < 1e-3).all()) or bool((shares < 0).any()):
        raise InputError(
            "labels of the same shape as the logits are shares of the classes, and these do not "
            "sum to one in each row: give shares, or class numbers [B]"
        )
    hard = measure(logits, shares.argmax(1))
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    loss, p_y = -(shares * log_p).sum(1), (shares * p).sum(1)
    return Measures(loss, p_y, hard.correct, hard.margin, (p - shares).norm(dim=1), p)
