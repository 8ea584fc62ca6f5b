"""Adapters for custom loops: the usual forms of data sets, labels, networks and results."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from budgetlab.data.arrays import LABEL_KEYS
from budgetlab.errors import InputError, a_kind, one_line
from budgetlab.records.format import SAMPLE_ARRAYS


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
        raise InputError(f"labels is {a_kind(labels)} that is not an array: {wanted}") from None
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise InputError(f"labels is {array.dtype} of shape {array.shape}: {wanted}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0) & (array == np.rint(array))))
    if len(bad):
        raise InputError(
            f"labels[{bad[0]}] is {array[bad[0]]:g}: {wanted}, and leave out samples without one"
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
            f"the items of the data set do not fit into a batch ({error}): give collate_fn="
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
            f"model '{type(model).__name__}' returns {a_kind(given)}: give one that returns logits"
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
