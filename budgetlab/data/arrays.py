"""Read and validate samples and labels of the usual forms, from data sets, arrays and npz files."""

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from budgetlab.data.dataset import Dataset, Source, flip_keeps_class, make_parts, split_off_test
from budgetlab.data.images import eight_bit
from budgetlab.errors import InputError, counted, few, one_each, one_line, reason, unknown
from budgetlab.records.safety import DAMAGED_ARCHIVE, read_npz, require_memory

# Keys of samples and labels in the items of Hugging Face data sets.
SAMPLE_KEYS = ("image", "img", "pixel_values", "x", "features")
LABEL_KEYS = ("label", "labels", "y", "target", "targets", "fine_label")
# Accepted names of the arrays in a file: the kit's, and those of Keras and MedMNIST.
ARRAY_NAMES = {
    "x": ("x", "X", "x_train", "X_train", "train_images", "images", "data"),
    "y": ("y", "Y", "y_train", "Y_train", "train_labels", "labels", "targets"),
    "x_test": ("x_test", "X_test", "test_images"),
    "y_test": ("y_test", "Y_test", "test_labels"),
    "x_val": ("x_val", "X_val", "val_images"),
    "y_val": ("y_val", "Y_val", "val_labels"),
    "classes": ("classes", "class_names"),
}
NPZ_SPLITS = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}


def as_samples(x: np.ndarray, where: Callable[[int], str], channels_first: bool) -> np.ndarray:
    """Convert images or vectors ``[N, ...]`` to the form used in training.

    Images, uint8 or floats in [0, 1], are ``[H, W]``, ``[C, H, W]`` or, unless ``channels_first``,
    ``[H, W, C]``, with C of 1 or 3: they become uint8 ``[N, C, H, W]``. Float vectors become
    float32 ``[N, D]``. ``where`` names a sample by its number in error messages.
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
    span = f" from {x.min()} to {x.max()}" if x.size and x.dtype.kind in "iuf" else ""
    raise InputError(
        f"{where(0)} is {x.dtype}{span}: give uint8, or floats in [0, 1] "
        "(leave normalisation and augmentation out of the data)"
    )


def _finite(x: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """Raise an error that names the first sample with NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(x).all(axis=tuple(range(1, x.ndim))))
    if len(bad):
        value = "NaN" if np.isnan(x[bad[0]]).any() else "an infinite number"
        more = f", and so do {len(bad) - 1} more" if len(bad) > 1 else ""
        raise InputError(f"{where(int(bad[0]))} holds {value}{more}: mend or leave it out")
    return x


def encode_labels(
    parts: Mapping[str, Any], names: Sequence[str] | None = None, *, keep_all: bool = False
) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Encode labels of the usual kinds as class numbers from 0.

    ``parts`` are labels ``[N]`` or ``[N, 1]`` by array name, the training set first: integers (also
    as floats), -1 and 1, booleans, strings; or one-hot ``[N, C]``. ``names`` are the class names,
    for labels that are positions in it; ``keep_all`` keeps classes without samples. Returns the
    class numbers, int64 ``[N]`` by array name; the classes that occur in the training set, in the
    order of their labels; and sentences on oddities.
    """
    notes: list[str] = []
    flat = {what: _as_label_vector(values, what, notes) for what, values in parts.items()}
    first, train = next(iter(flat.items()))
    texts = np.array([str(name) for name in (() if names is None else names)])
    are_texts = {array.dtype.kind == "U" for array in flat.values()}
    if len(are_texts) > 1:
        raise InputError(f"{' and '.join(flat)} are of different kinds: give all as {train.dtype}")
    if twice := [name for name, count in Counter(texts.tolist()).items() if count > 1]:
        raise InputError(f"two classes are called '{twice[0]}': give each a name of its own")
    # The labels that are classes, and the names of these.
    used = np.unique(train)
    name_in_file = used
    if names is not None and not are_texts.pop():
        for what, array in flat.items():
            if len(array) and int(array.max()) >= len(texts):
                hint = "; do they begin at 1?" if array.max() == len(texts) and array.min() else ""
                raise InputError(
                    f"{what} has labels up to {array.max()} for {counted(len(texts), 'class')}: "
                    f"give a name for each label, counted from 0{hint}"
                )
        # If as many labels occur as there are names, these are all from 0 on, or -1 and 1.
        if len(used) != len(texts) and (keep_all or used.min(initial=0) < 0):
            used = np.arange(len(texts))
        elif len(used) != len(texts):
            unused = few(f"'{name}'" for name in np.delete(texts, used))
            notes.append(f"no sample has class {unused}, which is left out")
            texts = texts[used]
        name_in_file = texts
    elif keep_all and names is not None:
        used = name_in_file = texts
    elif used.dtype.kind in "iu" and len(used) and used[-1] != len(used) - 1:
        notes.append(
            f"labels of {first} run from {used[0]} to {used[-1]} and {len(used)} of them "
            "occur: these are the classes, named by their labels"
        )
    places = pd.Index(used)
    encoded = {what: places.get_indexer(array).astype(np.int64) for what, array in flat.items()}
    for what, place in encoded.items():
        if (place < 0).any():
            raise InputError(
                f"{what} has the label {str(flat[what][place < 0][0])!r}, which is not a class of "
                f"{first}: add training samples of it, or leave it out"
            )
    if names is None and len(used) > 20 and len(used) > len(train) / 2:
        shown = f"{counted(len(used), 'class')} for {counted(len(train), 'sample')}"
        notes.append(f"{shown}: are {first} class labels?")
    return encoded, [str(name) for name in name_in_file], notes


def _as_label_vector(values: Any, what: str, notes: list[str]) -> np.ndarray:
    """Return labels ``[N]`` as integers or strings."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf":
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            raise InputError(
                f"{what} {array.shape} is not one-hot: give one class a sample, whole numbers [N]"
            )
        notes.append(f"{what} is one-hot, of {array.shape[1]} classes")
        array = array.argmax(axis=1)
    if array.ndim != 1 or array.dtype.kind not in "biufUS":
        raise InputError(
            f"{what} is {array.dtype} {array.shape}: give whole numbers [N] from 0 on, or names"
        )
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "f":
        bad = np.flatnonzero(~(np.isfinite(array) & (array == np.rint(array))))
        if len(bad):
            raise InputError(
                f"{what}[{bad[0]}] is {array[bad[0]]:g}: give whole numbers [N] from 0 on, or names"
            )
    if array.dtype.kind in "bf":
        array = array.astype(np.int64)
    # -1 and 1 are the labels of support vector machines; other negative ones mark missing labels.
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
    """Read every item of a map-style data set; return ``x``, ``y`` and the class names.

    Items are ``(sample, label)``, or dicts such as ``{"image": ..., "label": ...}``; other entries
    are ignored. A sample is a PIL image, or an array or tensor as for :func:`as_samples`; a label
    is an integer or a string. Class names are by default those of the data set, also inside a
    ``Subset`` or of a Hugging Face data set; else the labels.
    """
    size = len(dataset) if hasattr(dataset, "__len__") else 0
    if not size or not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"{type(dataset).__name__} has no items: give a map-style data set with a len()"
        )
    first, label = _item(dataset, 0)
    require_memory("this data set", first.nbytes * size, "give fewer or smaller samples")
    x = np.empty((size, *first.shape), first.dtype)
    x[0], labels = first, [label]
    for number in range(1, size):
        sample, label = _item(dataset, number)
        if sample.shape != first.shape or sample.dtype != first.dtype:
            raise InputError(
                f"item {number} is {sample.dtype} of shape {sample.shape}, and item 0 "
                f"{first.dtype} of {first.shape}: bring all samples to the same size"
            )
        x[number] = sample
        labels.append(label)
    if not np.array_equal([_item(dataset, number)[0] for number in range(size)[:8]], x[:8]):
        raise InputError("items change when read again: leave augmentation out of the data")
    if len({isinstance(label, str) for label in labels}) > 1:
        raise InputError("some labels are texts and some numbers: give all as one or the other")
    encoded, names, _ = encode_labels(
        {"label": labels}, class_names(dataset, classes), keep_all=True
    )
    return x, encoded["label"], names


def _item(dataset: Any, number: int) -> tuple[np.ndarray, int | str]:
    """Return one item as uint8 ``[C, H, W]`` or float32 ``[features]``, and its label."""
    try:
        item = dataset[number]
    except (IndexError, KeyError) as error:
        raise InputError(
            f"item {number} of {len(dataset):,} cannot be read ({type(error).__name__}): give a "
            "data set that has as many items as its len() says, counted from 0"
        ) from error
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
    where = f"item {number}"
    if isinstance(value, Image):
        where += f", of Pillow's mode {value.mode},"
        value = eight_bit(value)
    is_tensor = isinstance(value, Tensor)
    if is_tensor and value.dtype == torch.bfloat16:
        value = value.float()  # NumPy has no bfloat16
    array = value.detach().cpu().numpy() if is_tensor else np.asarray(value)
    sample = as_samples(array[None], lambda _: where, is_tensor)[0]
    if isinstance(label, str):
        return sample, label
    try:
        whole = int(label)
    except (TypeError, ValueError, RuntimeError):
        whole = None
    if whole is None or whole != label or whole < -1:
        raise InputError(
            f"item {number} has the label {label!r}: give whole numbers from 0 on, or names"
        )
    return sample, whole


def class_names(dataset: Any, classes: Sequence[str] | None) -> list[str] | None:
    """Return the names of the classes; None if they are the labels themselves."""
    given, inner = classes, dataset
    # A Subset wraps the data set that has the names.
    while given is None and inner is not None:
        given = getattr(inner, "classes", None)
        if given is None and isinstance(features := getattr(inner, "features", None), Mapping):
            known = [features[key] for key in LABEL_KEYS if key in features]
            given = next((getattr(one, "names", None) for one in known), None)
        inner = getattr(inner, "dataset", None)
    return None if given is None else [str(name) for name in given]


def with_true_labels(
    samples: Dataset, true_label: Sequence[int | str | None], by_name: bool = False
) -> Dataset:
    """Add true classes by number or name, None if unknown; ``by_name``: numbers are names too."""
    one_each("true_label", true_label, len(samples))
    given = pd.Series(list(true_label), dtype=object)
    known = given.notna().to_numpy()
    values: Any = given[known].tolist()
    if by_name:
        values = [str(int(one) if not isinstance(one, str) and one == int(one) else one)
                  for one in values]  # fmt: skip
    if not all(isinstance(value, str) for value in values):
        values = np.array(values, float)
    if lost := [one for one in values if isinstance(one, str) and one not in samples.classes]:
        raise unknown("class in true_label", lost[0], samples.classes)
    encoded, _, _ = encode_labels({"true_label": values}, samples.classes, keep_all=True)
    true = pd.array([pd.NA] * len(given), dtype="Int64")
    true[known] = encoded["true_label"]
    wrong = true != samples.y.cpu().numpy()
    if known.all():
        # If all are known, the columns have the same types as those of generated data.
        true, wrong = true.astype(np.int64), wrong.astype(bool)
    metadata = samples.metadata.assign(true_label=true, is_noisy=wrong)
    return replace(samples, metadata=metadata)


def npz(path: str, seed: int, **_: Any) -> Source:
    """Load arrays ``x`` and ``y``, and ``x_test``, ``y_test`` and ``classes`` if present.

    ``x`` is as for :func:`as_samples`, with channels last if the last axis has length 1 or 3;
    ``y`` is as for :func:`encode_labels`; the classes are those that occur. Without ``x_test`` a
    stratified fifth is held out; ``x_val`` and ``y_val`` are for validation. No pickle is loaded,
    and sizes are checked in the headers before anything is read. The metadata has ``origin``, such
    as ``x[17]``.
    """
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise InputError(f"there is no file '{path}': give the path of an npz file")
    name_in_file, arrays = _read(file)
    parts = {part: names for part, names in NPZ_SPLITS.items()
             if part == "train" or {*names} & arrays.keys()}  # fmt: skip
    for name in (name for names in parts.values() for name in names):
        if name not in arrays:
            with zipfile.ZipFile(file) as archive:
                there = [one_line(one.removesuffix(".npy"), 40) for one in archive.namelist()[:20]]
            raise InputError(
                f"'{path}' has no array {name}: it has {', '.join(there) or 'none'}, and "
                f"{' or '.join(ARRAY_NAMES[name][:3])} is asked for"
            )
    given = arrays["classes"].reshape(-1).tolist() if "classes" in arrays else None
    try:
        labels = {name_in_file[y]: arrays[y] for _, y in parts.values()}
        encoded, classes, notes = encode_labels(labels, given)
    except InputError as error:
        raise InputError(f"in '{path}' {error}") from None
    if len(classes) < 2 and len(arrays["y"]):
        raise InputError(f"'{path}' has one class only, '{classes[0]}': at least two are needed")
    samples = {
        part: (
            _images(path, name_in_file[x], arrays[x], len(arrays[y])), encoded[name_in_file[y]]
        )
        for part, (x, y) in parts.items()
    }  # fmt: skip
    x, y = samples["train"]
    for part, other in ((part, one[0]) for part, one in samples.items()):
        if other.shape[1:] != x.shape[1:]:
            raise InputError(
                f"{parts[part][0]} of '{path}' has images of another shape than x: "
                f"{other.shape[1:]} and {x.shape[1:]} must be the same"
            )
    where = {part: name_in_file[names[0]] for part, names in parts.items()}
    rows = {part: np.arange(len(one)) for part, (_, one) in samples.items()}
    if "test" not in parts:
        rows["train"], rows["test"] = split_off_test(y, seed)
        samples["test"], where["test"] = (x, y), f"a fifth of {name_in_file['x']}, held out"
        name_in_file["x_test"] = name_in_file["x"]
    if not all(len(chosen) for chosen in rows.values()):
        raise InputError(f"'{path}' has too few images for training and testing: add some")
    scale = "floats in [0, 1] as 0 to 255" if arrays["x"].dtype.kind == "f" else "as they are"
    origins = {part: {"origin": [f"{name_in_file[NPZ_SPLITS[part][0]]}[{row}]" for row in chosen]}
               for part, chosen in rows.items()}  # fmt: skip
    made = make_parts(
        {part: (one[rows[part]], y[rows[part]]) for part, (one, y) in samples.items()},
        classes, flip=given is None or flip_keeps_class(classes), index=rows, metadata=origins,
    )  # fmt: skip
    return Source(made, where=where, scale=scale if x.ndim == 4 else "", odd=notes)


def _read(file: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the name in the file, and the array, of each role."""
    every = [name for names in ARRAY_NAMES.values() for name in names]
    try:
        arrays = read_npz(file, every, "give fewer or smaller images")
    except InputError:
        raise
    except DAMAGED_ARCHIVE as error:
        said = f"'{file}' cannot be read ({one_line(reason(error), 200)})"
        raise InputError(f"{said}: save it with numpy.savez(path, x=x, y=y)") from error
    name_in_file = {}
    for role, names in ARRAY_NAMES.items():
        there = [name for name in names if name in arrays]
        if len(there) > 1:
            raise InputError(f"'{file}' has both {' and '.join(there)}: leave one of them")
        name_in_file[role] = there[0] if there else role
    return name_in_file, {
        role: arrays[name] for role, name in name_in_file.items() if name in arrays
    }


def _images(path: str, name: str, x: np.ndarray, labels: int) -> np.ndarray:
    if x.ndim and not len(x):
        raise InputError(
            f"{name} of '{path}' is empty, of shape {x.shape}: give images, or no {name}"
        )
    if x.ndim and len(x) != labels:
        raise InputError(
            f"{name} of '{path}' has {len(x):,} images and {labels:,} labels: give one each"
        )
    return as_samples(x, lambda row: f"{name}[{row}] of '{path}'", channels_first=False)
