"""The user's own samples as arrays in an npz file."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.data.encoding import as_samples, encode_labels
from budgetlab.data.intake import Found
from budgetlab.data.samples import Dataset, channel_statistics, keeps_label, make_samples
from budgetlab.data.sources import Source, split_off_test
from budgetlab.errors import InputError, one_line
from budgetlab.records.safety import DAMAGED_ARCHIVE, read_npz

__all__ = ["npz"]

# What the arrays may be called: as here, in the files of Keras, and in those of MedMNIST.
CALLED = {
    "x": ("x", "X", "x_train", "X_train", "train_images", "images", "data"),
    "y": ("y", "Y", "y_train", "Y_train", "train_labels", "labels", "targets"),
    "x_test": ("x_test", "X_test", "test_images"),
    "y_test": ("y_test", "Y_test", "test_labels"),
    "x_val": ("x_val", "X_val", "val_images"),
    "y_val": ("y_val", "Y_val", "val_labels"),
    "classes": ("classes", "class_names"),
}
SPLITS = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}


def npz(path: str, seed: int, **_: Any) -> Source:
    """Arrays ``x`` and ``y``, and if there are ``x_test``, ``y_test``, ``classes``.

    ``x`` is uint8, or floats in [0, 1], ``[N, H, W]`` (grey), ``[N, H, W, C]`` or
    ``[N, C, H, W]`` with C of 1 or 3: channels are last if the last axis is 1 or 3 long, else
    first; or float vectors ``[N, D]``. ``y`` is as :func:`encode_labels` takes it; the classes
    are those that occur. Without ``x_test`` a fifth is held out, every class at its share;
    ``x_val`` and ``y_val`` are for validation. No pickle is loaded, and sizes are checked in
    the headers before anything is read. The metadata has ``origin``, such as ``x[17]``.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"there is no file '{path}': give the path of an npz file")
    called, arrays = _read(file)
    parts = {part: names for part, names in SPLITS.items() if part == "train" or
             {*names} & arrays.keys()}  # fmt: skip
    for name in (name for names in parts.values() for name in names):
        if name not in arrays:
            raise InputError(
                f"'{path}' has no array {name}: it has {', '.join(_inside(file)) or 'none'}, and "
                f"{' or '.join(CALLED[name][:3])} is asked for"
            )
    labels = {called[names[1]]: arrays[names[1]] for names in parts.values()}
    given = arrays["classes"].reshape(-1).tolist() if "classes" in arrays else None
    try:
        encoded, classes, odd = encode_labels(labels, given)
    except InputError as error:
        raise InputError(f"in '{path}' {error}") from None
    if len(classes) < 2 and len(arrays["y"]):
        raise InputError(f"'{path}' has one class only, '{classes[0]}': at least two are needed")
    made = {}
    for part, (x, y) in parts.items():
        made[part] = _images(path, called[x], arrays[x], encoded[called[y]])
        if made[part].shape[1:] != made["train"].shape[1:]:
            raise InputError(
                f"{x} of '{path}' has images of another shape than x: {made[part].shape[1:]} and "
                f"{made['train'].shape[1:]} must be the same"
            )
    rows = {part: np.arange(len(made[part])) for part in parts}
    if "test" not in parts:
        rest, held = split_off_test(encoded[called["y"]], seed)
        rows |= {"train": rest, "test": held}
    if not all(len(one) for one in rows.values()):
        raise InputError(f"'{path}' has too few images for training and testing: add some")
    mean, std = channel_statistics(made["train"][rows["train"]])
    splits: dict[str, Dataset] = {}
    for part, chosen in rows.items():
        origin, target = (called[name] for name in parts.get(part, parts["train"]))
        splits[part] = make_samples(
            made.get(part, made["train"])[chosen], encoded[target][chosen], classes, mean=mean,
            std=std, flip=given is None or keeps_label(classes), index=chosen,
            metadata=pd.DataFrame({"origin": [f"{origin}[{row}]" for row in chosen]}),
        )  # fmt: skip
    where = {part: called[names[0]] for part, names in parts.items()}
    where.setdefault("test", f"a fifth of {called['x']}, held out")
    scale = "floats in [0, 1] as 0 to 255" if arrays["x"].dtype.kind == "f" else "as they are"
    found = Found(where, {}, (), scale if made["train"].ndim == 4 else "", odd)
    return Source(splits["train"], splits["test"], splits.get("val"), found=found)


def _read(file: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """What each array is called in the file, and the arrays."""
    every = [name for names in CALLED.values() for name in names]
    try:
        arrays = read_npz(file, every, "give fewer or smaller images")
    except InputError:
        raise
    except DAMAGED_ARCHIVE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"'{file}' cannot be read ({one_line(reason, 200)}): save it with "
            "numpy.savez(path, x=x, y=y)"
        ) from error
    called = {}
    for role, names in CALLED.items():
        there = [name for name in names if name in arrays]
        if len(there) > 1:
            raise InputError(f"'{file}' has both {' and '.join(there)}: leave one of them")
        called[role] = there[0] if there else role
    return called, {role: arrays[name] for role, name in called.items() if name in arrays}


def _inside(file: Path) -> list[str]:
    """Names of the arrays of a file."""
    with zipfile.ZipFile(file) as archive:
        return [one_line(name.removesuffix(".npy"), 40) for name in archive.namelist()[:20]]


def _images(path: str, name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Check samples, and bring the channels to the front."""
    if x.ndim and len(x) != len(y):
        raise InputError(
            f"{name} of '{path}' has {len(x)} images and {len(y)} labels: give one label an image"
        )
    return as_samples(x, lambda row: f"{name}[{row}] of '{path}'", channels_first=False)
