"""Where data comes from: drawn by code, out of scikit-learn, or your own arrays; and its cache."""

import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.data import points as points_problem
from budgetlab.data import shapes as shapes_drawing
from budgetlab.data.changes import stratified
from budgetlab.data.encoding import as_samples, encode_labels
from budgetlab.data.intake import Found
from budgetlab.data.samples import Dataset, channel_statistics, keeps_label, make_samples
from budgetlab.errors import InputError, counted, one_line
from budgetlab.records.safety import DAMAGED_ARCHIVE, declared_sizes, read_npz, require_memory
from budgetlab.seeds import numpy_generator

__all__ = ["Choose", "Source", "digits", "everything", "npz", "points", "read_cache", "shapes",
           "split_off_test", "write_cache"]  # fmt: skip

# From the split, its labels [N], origins [N] and class names to new labels [M] and the
# positions [M] of the samples that are kept.
Choose = Callable[[str, np.ndarray, np.ndarray, Sequence[str]], tuple[np.ndarray, np.ndarray]]

TEST_SHARE = 0.2

SHAPES_TRAIN, SHAPES_TEST = 10_000, 10_000
# The test images of the first version, which records made then were evaluated on.
SHAPES_TEST_BEFORE = 2_500
POINTS_TRAIN, POINTS_TEST = 1_000, 1_000
# Part of the cache's name: to be raised whenever other pictures come out.
SHAPES_VERSION = 2


@dataclass(frozen=True)
class Source:
    """What a data set is before the training set is changed.

    ``chosen`` says that samples were picked already, before they were read.
    """

    train: Dataset
    test: Dataset
    val: Dataset | None = None
    skipped: Sequence[str] = ()
    chosen: bool = False
    found: Found = field(default_factory=Found)


def everything(
    part: str, y: np.ndarray, origins: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Keep all samples with their labels."""
    return y, np.arange(len(y))


def shapes(root: Path, seed: int, keep: bool = True, **_: Any) -> Source:
    """Pictures of ten shapes; drawn once for a seed, then read from the cache."""
    cache = root / "shapes" / f"shapes-v{SHAPES_VERSION}-seed{seed}.npz"
    arrays = read_cache(cache, ("x", "y", "difficulty", "other_label"))
    if arrays is None:
        # Test images drawn later come first, so that those before and the training images stay.
        # A thread each: nearly all of it is numpy's, which lets others compute meanwhile.
        with ThreadPoolExecutor(2) as threads:
            counts = SHAPES_TEST - SHAPES_TEST_BEFORE, SHAPES_TEST_BEFORE + SHAPES_TRAIN
            streams = [numpy_generator(seed, stream) for stream in ("test", "data")]
            parts = list(threads.map(shapes_drawing.draw, counts, streams))
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if keep:
            write_cache(cache, arrays)
    return _known(arrays, SHAPES_TEST, shapes_drawing.CLASSES, flip=True)


def points(problem: str, seed: int, **_: Any) -> Source:
    """Points in the plane, new ones for each seed."""
    total = POINTS_TEST + POINTS_TRAIN
    arrays = points_problem.draw(problem, total, numpy_generator(seed, "data"))
    classes = [f"{problem[:-1]} {number}" for number in range(arrays["y"].max() + 1)]
    return _known(arrays, POINTS_TEST, classes, flip=False)


def digits(seed: int, **_: Any) -> Source:
    """Handwritten digits of 8x8 pixels: 17 grey levels (0 to 16), stretched to 0 to 255."""
    # Slow to import, and needed here only.
    from sklearn.datasets import load_digits

    images, y = load_digits(return_X_y=True)
    x = np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    rest, held = split_off_test(y, seed)
    mean, std = channel_statistics(x[rest])
    names = [str(digit) for digit in range(10)]
    train, test = (
        make_samples(x[part], y[part], names, mean=mean, std=std, flip=False, index=part)
        for part in (rest, held)
    )
    return Source(train, test)


def split_off_test(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions for training and, every class at its share, a fifth for testing."""
    held = stratified(y, round(TEST_SHARE * len(y)), numpy_generator(seed, "split"))
    return np.setdiff1d(np.arange(len(y)), held), held


def _known(
    arrays: dict[str, np.ndarray], test: int, classes: Sequence[str], *, flip: bool
) -> Source:
    """Split drawn data, the first ``test`` samples for testing, and add what is known."""
    mean, std = channel_statistics(arrays["x"][test:])
    splits = []
    for part in (slice(test, None), slice(0, test)):
        other = arrays["other_label"][part]
        metadata = pd.DataFrame(
            {
                "difficulty": arrays["difficulty"][part],
                "is_ambiguous": other >= 0,
                "other_label": other,
            }
        )
        x, y = arrays["x"][part].copy(), arrays["y"][part]
        splits.append(
            make_samples(x, y, classes, mean=mean, std=std, flip=flip, metadata=metadata, true=True)
        )
    train, held_out = splits
    return Source(train, held_out)


def read_cache(
    path: Path, names: Sequence[str], *, key: str | None = None
) -> dict[str, np.ndarray] | None:
    """Read arrays written by :func:`write_cache`; None where that is not possible.

    A missing, damaged or foreign file is no error: the data is made again. Where a
    ``key`` is given, the file must hold the same one.
    """
    try:
        require_memory(f"'{path}'", declared_sizes(path, names), "")
        # Opened here: numpy leaves a damaged file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if key is not None and str(stored["key"]) != key:
                return None
            return {name: stored[name] for name in names}
    except DAMAGED_ARCHIVE:
        return None


def write_cache(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    """Write arrays under another name first, then rename: never a half-written file.

    Returns
    -------
    bool
        False if the folder cannot be written to: the cache is then left out.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return False
    return True


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
NPZ_SPLITS = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}


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
    parts = {part: names for part, names in NPZ_SPLITS.items() if part == "train" or
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
            f"{name} of '{path}' has {counted(len(x), 'image')} and {counted(len(y), 'label')}: "
            "give one label an image"
        )
    return as_samples(x, lambda row: f"{name}[{row}] of '{path}'", channels_first=False)
