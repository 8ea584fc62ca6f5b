"""Any torch ``Dataset`` as samples, and samples that stand in a data set twice."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from budgetlab.errors import InputError
from budgetlab.memory import require_memory

__all__ = ["duplicates", "read_dataset"]


def read_dataset(
    dataset: TorchDataset, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read every item of a map-style data set once.

    Parameters
    ----------
    dataset
        With ``len()`` and items ``(sample, label)``; what more an item holds is passed
        over. A sample is a PIL image, an array uint8 ``[H, W]`` or ``[H, W, C]``, a
        tensor uint8 ``[C, H, W]``, a float tensor or array ``[C, H, W]`` or
        ``[H, W, C]`` with values in [0, 1], or floats ``[features]``. C is 1 or 3.
    classes
        Names of the classes; by default ``dataset.classes``, also inside a ``Subset``, else
        the numbers.

    Returns
    -------
    x, y, classes
        uint8 ``[N, C, H, W]`` or float32 ``[N, features]``; int64 ``[N]``; names.

    Raises
    ------
    InputError
        If an item cannot be used; the message says which and why.
    """
    size = len(dataset) if hasattr(dataset, "__len__") else 0
    if not size or not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"{type(dataset).__name__} has no items to count: give a map-style data set with "
            "len() of 1 or more"
        )
    first, label = _item(dataset, 0)
    x = _allocate(first, size)
    y = np.empty(size, np.int64)
    x[0], y[0] = first, label
    for number in range(1, size):
        sample, y[number] = _item(dataset, number)
        if sample.shape != first.shape or sample.dtype != first.dtype:
            raise InputError(
                f"item {number} is {sample.dtype} of shape {sample.shape}, and item 0 "
                f"{first.dtype} of {first.shape}: bring all samples to the same size"
            )
        x[number] = sample
    return x, y, _names(dataset, classes, y)


def _allocate(first: np.ndarray, size: int) -> np.ndarray:
    require_memory("this data set", first.nbytes * size, "give fewer or smaller samples")
    return np.empty((size, *first.shape), first.dtype)


def _item(dataset: Any, number: int) -> tuple[np.ndarray, int]:
    """One item as uint8 ``[C, H, W]`` or float32 ``[features]``, and its label."""
    item = dataset[number]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(f"item {number} is {type(item).__name__}: give pairs (sample, label)")
    sample, label = _sample(item[0], number), item[1]
    try:
        whole = int(label)
    except (TypeError, ValueError):
        whole = -1
    if whole < 0 or whole != label:
        raise InputError(
            f"item {number} has the label {label!r}: give whole numbers from 0 on, one a class"
        )
    return sample, whole


def _sample(value: Any, number: int) -> np.ndarray:
    is_tensor = isinstance(value, Tensor)
    array = value.detach().cpu().numpy() if is_tensor else np.asarray(value)
    if array.ndim == 1 and array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and not is_tensor and array.shape[2] in (1, 3):
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise InputError(
            f"item {number} has shape {np.shape(value)}: give images [C, H, W] (tensors) or "
            "[H, W, C] (arrays, PIL) of 1 or 3 channels, or features [D] as floats"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        return np.rint(array * 255).astype(np.uint8)
    raise InputError(
        f"item {number} is {array.dtype} from {array.min():.3g} to {array.max():.3g}: give uint8, "
        "or floats in [0, 1] (leave normalisation and augmentation out of the data set)"
    )


def _names(dataset: Any, classes: Sequence[str] | None, y: np.ndarray) -> list[str]:
    given, inner = classes, dataset
    # A Subset holds the data set that knows the names.
    while given is None and inner is not None:
        given, inner = getattr(inner, "classes", None), getattr(inner, "dataset", None)
    count = max(int(y.max()) + 1, 2)
    if given is None:
        return [str(number) for number in range(count)]
    names = [str(name) for name in given]
    if len(names) < count:
        raise InputError(
            f"there are {len(names)} classes and labels up to {y.max()}: name them all"
        )
    return names


def duplicates(x: Tensor) -> np.ndarray:
    """Find samples whose values are the same to the last bit as those of an earlier one.

    Parameters
    ----------
    x
        ``[N, ...]``.

    Returns
    -------
    numpy.ndarray
        int64 ``[N]``: number of the first sample with the same values, which for a
        sample that has no twin, and for the first of each, is its own.
    """
    rows = torch.as_tensor(x).cpu().numpy().reshape(len(x), -1)
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(row.tobytes(), n) for n, row in enumerate(rows)], np.int64)
