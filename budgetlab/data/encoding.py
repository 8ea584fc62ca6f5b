"""Samples and labels as people have them, as arrays of the kit: checked, never guessed at."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from budgetlab.errors import InputError, counted, few
from budgetlab.records.safety import require_memory

__all__ = ["as_samples", "encode_labels", "read_dataset"]

# Under which names the items of Hugging Face data sets hold samples and labels.
SAMPLE_KEYS = ("image", "img", "pixel_values", "x", "features")
LABEL_KEYS = ("label", "labels", "y", "target", "targets", "fine_label")


def as_samples(x: np.ndarray, where: Callable[[int], str], channels_first: bool) -> np.ndarray:
    """Bring images or vectors into the form that is trained on.

    Parameters
    ----------
    x
        ``[N, ...]``: uint8 or floats in [0, 1] of ``[H, W]``, ``[H, W, C]`` or ``[C, H, W]``
        with C of 1 or 3; or float vectors ``[D]``.
    where
        Name of a sample by its number, for the message.
    channels_first
        Whether ``[H, W, C]`` is ruled out.

    Returns
    -------
    numpy.ndarray
        uint8 ``[N, C, H, W]`` or float32 ``[N, D]``.
    """
    if x.ndim == 2 and x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return _finite(x.astype(np.float32), where)
    shape = x.shape
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and not channels_first and x.shape[3] in (1, 3):
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape[1:]:
        raise InputError(
            f"{where(0)} has shape {shape[1:]}: give images [H, W] or [C, H, W], as arrays also "
            "[H, W, C], of 1 or 3 channels and 1 pixel or more, or features [D] as floats"
        )
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind == "f" and len(_finite(x, where)) and x.min() >= 0 and x.max() <= 1:
        return np.rint(x * 255).astype(np.uint8)
    low, high = (x.min(), x.max()) if x.size and x.dtype.kind in "iuf" else (0, 0)
    raise InputError(
        f"{where(0)} is {x.dtype} from {low:.3g} to {high:.3g}: give uint8, or floats in [0, 1] "
        "(leave normalisation and augmentation out of the data)"
    )


def _finite(x: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """Refuse NaN and infinity, and name the first sample that has one."""
    bad = np.flatnonzero(~np.isfinite(x).all(axis=tuple(range(1, x.ndim))))
    if len(bad):
        value = "NaN" if np.isnan(x[bad[0]]).any() else "an infinite number"
        more = f", and so do {len(bad) - 1} more" if len(bad) > 1 else ""
        raise InputError(f"{where(int(bad[0]))} holds {value}{more}: mend or leave it out")
    return x


def encode_labels(
    parts: Mapping[str, Any], names: Sequence[str] | None = None, *, keep_all: bool = False
) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Number the classes from 0 on, whatever labels came as.

    Parameters
    ----------
    parts
        Labels ``[N]`` or ``[N, 1]`` by the name of the array, that of the training set first:
        whole numbers (also as floats), -1 and 1, booleans, texts; or one-hot ``[N, C]``.
    names
        Names of the classes, for labels that are positions in it.
    keep_all
        Keep named classes that no sample has.

    Returns
    -------
    encoded, classes, odd
        int64 ``[N]`` by name; names of the classes, which are the ones that occur in the
        training set, in the order of their labels; sentences on what looks odd.

    Raises
    ------
    InputError
        If a label cannot be that of a class, or a class has no training sample.
    """
    odd: list[str] = []
    flat = {what: _flat(values, what, odd) for what, values in parts.items()}
    first, train = next(iter(flat.items()))
    kinds = {array.dtype.kind in "US" for array in flat.values()}
    if len(kinds) > 1:
        raise InputError(f"{' and '.join(flat)} are of different kinds: give all as {train.dtype}")
    texts = np.array([str(name) for name in (() if names is None else names)])
    if len(set(texts)) < len(texts):
        twice = next(name for name in texts if (texts == name).sum() > 1)
        raise InputError(f"two classes are called '{twice}': give each a name of its own")
    if names is not None and not kinds.pop():
        for what, array in flat.items():
            if len(array) and int(array.max()) >= len(texts):
                hint = "; do they begin at 1?" if array.max() == len(texts) and array.min() else ""
                raise InputError(
                    f"{what} has labels up to {array.max()} for {counted(len(texts), 'class')}: "
                    f"give a name for each label, counted from 0{hint}"
                )
        flat = {what: array.astype(np.int64) for what, array in flat.items()}
        used = np.unique(flat[first])
        if keep_all or len(used) == len(texts):
            return flat, list(map(str, texts)), odd
        unused = few(f"'{name}'" for name in np.delete(texts, used))
        odd.append(f"no sample has class {unused}, which is left out")
        classes = texts[used]
    else:
        used = np.unique(train)
        classes = used
        if keep_all and names is not None:
            used = classes = np.array([str(name) for name in names])
        elif used.dtype.kind in "iu" and len(used) and used[-1] != len(used) - 1:
            odd.append(
                f"labels of {first} run from {used[0]} to {used[-1]} and {len(used)} of them "
                "occur: these are the classes, named so"
            )
    encoded = {what: _positions(array, used, what, first) for what, array in flat.items()}
    if len(used) > 20 and len(used) > len(train) / 2:
        shown = f"{counted(len(used), 'class')} for {counted(len(train), 'sample')}"
        odd.append(f"{shown}: are {first} class labels?")
    return encoded, [str(name) for name in classes], odd


def _positions(array: np.ndarray, used: np.ndarray, what: str, first: str) -> np.ndarray:
    order = np.argsort(used, kind="stable")
    place = np.searchsorted(used, array, sorter=order).clip(max=max(len(used) - 1, 0))
    found = order[place] if len(used) else place
    lost = array[used[found] != array] if len(used) else array
    if len(lost):
        raise InputError(
            f"{what} has the label {str(lost[0])!r}, which is no class of {first}: add training "
            "samples of it, or leave it out"
        )
    return found.astype(np.int64)


def _flat(values: Any, what: str, odd: list[str]) -> np.ndarray:
    """Labels ``[N]`` as whole numbers or texts."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf":
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            raise InputError(
                f"{what} has shape {array.shape} and is not one-hot: give one class a sample, as "
                "whole numbers [N]"
            )
        odd.append(f"{what} is one-hot, of {array.shape[1]} classes")
        array = array.argmax(axis=1)
    if array.ndim != 1 or array.dtype.kind not in "biufUS":
        raise InputError(
            f"{what} is {array.dtype} of shape {array.shape}: give whole numbers [N] from 0 on, "
            "or names"
        )
    if array.dtype.kind == "S":
        array = np.array([value.decode("utf-8", "replace") for value in array.tolist()], dtype=str)
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind == "f":
        bad = np.flatnonzero(~(np.isfinite(array) & (array == np.rint(array))))
        if len(bad):
            raise InputError(
                f"{what}[{bad[0]}] is {array[bad[0]]:g}: give whole numbers [N] from 0 on, or names"
            )
        array = array.astype(np.int64)
    # -1 and 1 as support vector machines have them; anything else below zero marks a gap.
    below = array.dtype.kind == "i" and len(array) and array.min() < 0
    if below and set(np.unique(array).tolist()) != {-1, 1}:
        raise InputError(
            f"{what}[{int(array.argmin())}] is the label {array.min()}: give whole numbers [N] "
            "from 0 on, and leave out samples without a label"
        )
    return array


def read_dataset(
    dataset: TorchDataset, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read every item of a map-style data set once.

    Parameters
    ----------
    dataset
        With ``len()`` and items ``(sample, label)``, or dicts such as ``{"image": ...,
        "label": ...}``; what more an item holds is passed over. A sample is a PIL image, an
        array uint8 ``[H, W]`` or ``[H, W, C]``, a tensor uint8 ``[C, H, W]``, a float tensor
        or array ``[C, H, W]`` or ``[H, W, C]`` with values in [0, 1], or floats
        ``[features]``. C is 1 or 3. A label is a whole number or a text.
    classes
        Names of the classes; by default ``dataset.classes``, also inside a ``Subset``, or
        those that a Hugging Face data set has; else the labels that occur.

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
    require_memory("this data set", first.nbytes * size, "give fewer or smaller samples")
    x = np.empty((size, *first.shape), first.dtype)
    labels = [label]
    x[0] = first
    for number in range(1, size):
        sample, label = _item(dataset, number)
        if sample.shape != first.shape or sample.dtype != first.dtype:
            raise InputError(
                f"item {number} is {sample.dtype} of shape {sample.shape}, and item 0 "
                f"{first.dtype} of {first.shape}: bring all samples to the same size"
            )
        x[number] = sample
        labels.append(label)
    if len({isinstance(label, str) for label in labels}) > 1:
        raise InputError("some labels are texts and some numbers: give all as one or the other")
    encoded, names, _ = encode_labels({"label": labels}, _names(dataset, classes), keep_all=True)
    return x, encoded["label"], names


def _item(dataset: Any, number: int) -> tuple[np.ndarray, int | str]:
    """One item as uint8 ``[C, H, W]`` or float32 ``[features]``, and its label."""
    item = dataset[number]
    if isinstance(item, Mapping):
        keys = [next((key for key in known if key in item), None)
                for known in (SAMPLE_KEYS, LABEL_KEYS)]  # fmt: skip
        if None in keys:
            raise InputError(
                f"item {number} has {', '.join(map(str, item))}: give a dict with image and label"
            )
        item = tuple(item[key] for key in keys)
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(f"item {number} is {type(item).__name__}: give pairs (sample, label)")
    value, label = item[:2]
    is_tensor = isinstance(value, Tensor)
    array = value.detach().cpu().numpy() if is_tensor else np.asarray(value)
    sample = as_samples(array[None], lambda _: f"item {number}", is_tensor)[0]
    if isinstance(label, str):
        return sample, label
    try:
        whole = int(label)
    except (TypeError, ValueError, RuntimeError):
        whole = None
    if whole is None or whole != label or whole < -1:
        raise InputError(
            f"item {number} has the label {label!r}: give whole numbers from 0 on, one a class, "
            "or names"
        )
    return sample, whole


def _names(dataset: Any, classes: Sequence[str] | None) -> list[str] | None:
    given, inner = classes, dataset
    # A Subset holds the data set that knows the names.
    while given is None and inner is not None:
        given = getattr(inner, "classes", None)
        if given is None and isinstance(features := getattr(inner, "features", None), Mapping):
            known = [features[key] for key in LABEL_KEYS if key in features]
            given = next((getattr(one, "names", None) for one in known), None)
        inner = getattr(inner, "dataset", None)
    return None if given is None else [str(name) for name in given]
