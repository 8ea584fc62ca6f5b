"""Adapters for custom loops: the usual forms of batches, data sets, labels and networks."""

import math
import operator
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from budgetlab.budget import Ledger
from budgetlab.data.arrays import LABEL_KEYS
from budgetlab.errors import InputError, a_kind, one_line
from budgetlab.history import Credit, History, Measures, measure, require_logits
from budgetlab.records.format import SAMPLE_ARRAYS, UNKNOWN
from budgetlab.samplers import Batch

IGNORE_INDEX = -100


class LoopHistory:
    """Collects what a loop reports, batch by batch; created by :class:`BudgetSampler`.

    It also has every measure of :class:`~budgetlab.history.History`: ``history.mean_loss``,
    ``history.forgotten`` and so on.

    Attributes
    ----------
    samples
        The resulting :class:`~budgetlab.history.History` of every sample.
    """

    def __init__(self, samples: History, ledger: Ledger, labels: Tensor | None = None):
        self.samples, self._known = samples, labels
        self._ledger, self._last_report = ledger, time.perf_counter()
        # Batches handed out but not yet reported, each with its progress.
        self._pending: deque[tuple[Batch, float]] = deque()
        self._last_progress = 0.0
        self._reported: list[Measures] = []
        self._labels = torch.full((samples.size,), UNKNOWN)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "samples":  # before __init__, as in copying
            raise AttributeError(name)
        return getattr(self.samples, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.samples)})

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor | None = None) -> Tensor:
        """Report one batch, before the optimiser's step; call it once per batch, in order.

        Parameters
        ----------
        logits
            As for :func:`measure_batch`, with or without gradient; only read.
        labels
            The labels that were trained on.
        indices
            Sample numbers, int64 ``[B]``; by default those of the oldest batch that was handed
            out and not yet reported. With them a batch may also be reported in parts.

        Returns
        -------
        Tensor
            Importance weights, float32 ``[B]`` on the device of the logits. All ones
            unless the method weights losses (``grad-norm``, ``infobatch``, or
            ``weights="unbiased"``); for those, train on
            ``(weights * F.cross_entropy(logits, labels, reduction="none")).mean()``.

        Raises
        ------
        InputError
            If no batch is waiting, its size differs, a sample number does not exist, or
            logits and labels do not fit.
        """
        logits, labels = _tensor("logits", logits), _tensor("labels", labels)
        if labels.is_floating_point() and not logits.is_floating_point():
            raise InputError(
                f"logits are {logits.dtype} and labels {labels.dtype}: call "
                "history.update(logits, labels), the logits first"
            )
        batch, labels = self._match_batch(indices), labels.detach().cpu()
        count = len(batch.indices)
        if not count == len(logits) == len(labels):
            raise InputError(
                f"the batch holds samples {batch.indices[:3].tolist()}... ({count}), "
                f"and {len(logits)} rows of logits and {len(labels)} labels were reported: call "
                "history.update once for each batch, with all its rows"
            )
        seen = measure_batch(logits, labels, batch.indices)
        self.samples.count(batch.indices)
        self.samples.update(Credit(torch.arange(count), batch.indices, torch.ones(count)), seen)
        if labels.numel() == count:  # one class each, no shares and no positions
            given = labels.reshape(-1).long()
            self._labels[batch.indices] = given
            self._compare_labels(batch.indices, given)
        self._reported.append(seen)
        now = time.perf_counter()
        self._ledger.seconds += now - self._last_report
        self._last_report = now
        weights = torch.ones(count) if batch.weights is None else batch.weights.float()
        return weights.to(logits.device)

    def _compare_labels(self, indices: Tensor, given: Tensor) -> None:
        """Warn once if the labels trained on differ from those known beforehand."""
        if self._known is None or not bool((other := self._known[indices] != given).any()):
            return
        number = int(indices[other][0])
        warnings.warn(
            f"sample {number} is trained on with label {int(given[other][0])}, and its label was "
            f"known as {int(self._known[number])}, which methods and the record go by: give the "
            "labels that are trained on as labels=", UserWarning, stacklevel=3,
        )  # fmt: skip
        self._known = None

    def _match_batch(self, indices: Tensor | None) -> Batch:
        if indices is None:
            if not self._pending:
                raise InputError(
                    "no batch is waiting to be reported: call history.update once for each batch "
                    "of the loader, or give indices="
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


def size_of(data: Any) -> int:
    """Return the number of samples, 1 or more, of a data set or given as a number."""
    number = hasattr(data, "__index__") and not isinstance(data, bool)
    try:
        size = operator.index(data) if number else len(data)
    except TypeError:
        raise InputError(
            f"data is {a_kind(data)}: give a map-style data set, which has a len(), or the "
            "number of samples"
        ) from None
    if size < 1:
        raise InputError(f"data has {size} samples: give a data set, or a number, of 1 or more")
    return size


def class_numbers(labels: Any) -> Tensor:
    """Check labels given beforehand and return class numbers, int64 ``[N]``."""
    wanted = "give class numbers, whole numbers [N] from 0 on"
    try:
        array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"labels is {a_kind(labels)} that is no array: {wanted}") from None
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise InputError(f"labels is {array.dtype} of shape {array.shape}: {wanted}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0) & (array == np.rint(array))))
    if len(bad):
        raise InputError(
            f"labels[{bad[0]}] is {array[bad[0]]:g}: {wanted}, and leave out samples without a "
            "label"
        )
    return torch.from_numpy(array.astype(np.int64))


def validated_metadata(metadata: Any, labels: Tensor | None) -> pd.DataFrame:
    """Return the table, or raise an error if a record could not hold it beside its arrays."""
    if not isinstance(metadata, pd.DataFrame):
        raise InputError(
            f"metadata is {a_kind(metadata)}: give a pandas DataFrame with a row for each sample"
        )
    names = list(map(str, metadata))
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"metadata has two columns '{name}': rename one of them")
        # Array names become folder names; zarr reserves those that start with two underscores.
        is_folder = name.strip(".") and "/" not in name and not name.startswith("__")
        if name in (*SAMPLE_ARRAYS, "epoch", "sample") or not is_folder:
            raise InputError(f"metadata has a column '{name}', which no record can hold: rename it")
    if "label" in names and (labels is None or list(metadata["label"]) != labels.tolist()):
        raise InputError(
            "metadata has a column 'label', and the record's is that of the labels: give these as "
            "labels=, or rename the column"
        )
    return metadata


def evaluated(what: str, value: Any) -> float:
    """Check a loss, or an accuracy from 0 to 1, and return it; NaN means not evaluated."""
    try:
        number = math.inf if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.inf
    share = what.endswith("accuracy")
    if math.isinf(number) or (share and (number < 0 or number > 1)):
        raise InputError(
            f"{what} is {one_line(repr(value), 40)}: give a number{' from 0 to 1' * share}, or "
            "leave it out where it was not evaluated"
        )
    return number


def measure_batch(
    logits: Tensor, labels: Tensor, indices: Sequence[int] | Tensor | None = None
) -> Measures:
    """Compute the measures of a batch from logits and labels in any of the usual forms.

    Parameters
    ----------
    logits
        ``[B, C]``; ``[B]`` or ``[B, 1]`` for two classes (binary cross-entropy); or with one
        class per position, ``[B, C, ...]`` or ``[B, ..., C]``: measures are averaged over
        positions, and a sample counts as right if most of its positions are.
    labels
        Class numbers ``[B]`` or ``[B, ...]``, -100 for ignored positions; or class
        probabilities ``[B, C]``, which sum to one.
    indices
        Sample numbers, for error messages.

    Returns
    -------
    Measures
        One value per sample, ``[B]``, on the CPU.

    Raises
    ------
    InputError
        If logits and labels do not fit each other, or a value is invalid.
    """
    logits, labels = logits.detach().cpu().float(), labels.detach().cpu()
    count = len(logits)
    numbers = range(count) if indices is None else indices
    finite = logits.reshape(count, -1).isfinite().all(1)
    if not bool(finite.all()):
        number = int(numbers[int((~finite).nonzero()[0, 0])])
        raise InputError(
            f"the logits of sample {number} are not finite: lower the learning rate, or look at "
            "that sample"
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


def collate(
    data: Any, indices: list[int], collate_fn: Callable[[list], Any] | None = None
) -> tuple[Any, Tensor]:
    """Collate items into inputs, a dict if items have several, and labels int64 ``[B]``."""
    items: list = [data[number] for number in indices]
    if collate_fn is None and not isinstance(items[0], Mapping):
        items = [tuple(item)[:2] for item in items]
    try:
        batch = (collate_fn or default_collate)(items)
    except TypeError as error:
        raise InputError(
            f"the items of the data set cannot be put into a batch ({error}): give "
            "collate_fn=, as to the loader"
        ) from error
    if not isinstance(batch, Mapping):
        return batch[0], batch[1].long()
    key = next((key for key in LABEL_KEYS if key in batch), None)
    if key is None:
        raise InputError(
            f"the items of the data set hold {', '.join(map(str, batch))} and no label: call "
            f"it one of {', '.join(LABEL_KEYS)}, or give collate_fn="
        )
    inputs = {name: value for name, value in batch.items() if name != key}
    return next(iter(inputs.values())) if len(inputs) == 1 else inputs, batch[key].long()


def labels_of(data: Any) -> Tensor | None:
    """Return the labels that a data set holds as a whole; None if only its items have them."""
    if getattr(data, "target_transform", None) is not None:
        return None  # its items have other labels
    found = getattr(data, "targets", None)
    if found is None and hasattr(data, "tensors") and len(data.tensors) > 1:
        found = data.tensors[1]
    columns = getattr(data, "column_names", None)
    if found is None and isinstance(columns, list):
        found = next((data[key] for key in LABEL_KEYS if key in columns), None)
    if found is None:
        return None
    labels = torch.as_tensor(np.asarray(found))
    fits = labels.ndim == 1 and len(labels) == len(data) and not labels.is_floating_point()
    return labels.long() if fits else None


def logits_of(model: nn.Module, inputs: Any, device: torch.device) -> Tensor:
    """Run a network on a batch of inputs and return float32 logits on the CPU."""
    if isinstance(inputs, Mapping):
        given = model(**{name: part.to(device) for name, part in inputs.items()})
    else:
        given = model(inputs.to(device))
    if isinstance(given, Mapping):
        given = given.get("logits")
    logits = given if isinstance(given, Tensor) else getattr(given, "logits", None)
    if not isinstance(logits, Tensor):
        raise InputError(
            f"model '{type(model).__name__}' returns {a_kind(given)} without logits: give "
            "a network that returns logits"
        )
    return logits.float().cpu()


def require_one_process() -> None:
    """Raise an error in distributed training, where each process would draw the same batches."""
    parallel = torch.distributed
    if parallel.is_available() and parallel.is_initialized() and parallel.get_world_size() > 1:
        raise InputError(
            f"{parallel.get_world_size()} processes train together, and each would be given the "
            "same batches: train in one process"
        )
