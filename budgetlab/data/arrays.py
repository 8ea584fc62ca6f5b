"""The user's own images as arrays in an npz file."""

from pathlib import Path
from typing import Any

import numpy as np

from budgetlab.data.samples import channel_statistics, make_samples
from budgetlab.data.sources import Source, split_off_test
from budgetlab.errors import InputError, one_line
from budgetlab.records.safety import DAMAGED_ARCHIVE, read_npz

__all__ = ["npz"]

MOST_CLASSES = 100_000
KNOWN = ("x", "y", "x_test", "y_test", "classes")


def npz(path: str, seed: int, **_: Any) -> Source:
    """Arrays ``x`` and ``y``, and if there are ``x_test``, ``y_test``, ``classes``.

    ``x`` is uint8 ``[N, H, W]`` (grey), ``[N, H, W, C]`` or ``[N, C, H, W]`` with C of 1
    or 3: channels are last if the last axis is 1 or 3 long, else first. ``y`` is
    whole numbers ``[N]`` from 0 on. Without ``x_test`` a fifth is held out, every
    class at its share. No pickle is loaded, and sizes are checked in the headers
    before anything is read. A horizontal flip is taken to keep the label.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no file '{path}': give the path of an npz file")
    try:
        arrays = read_npz(file, KNOWN, "give fewer or smaller images")
    except InputError:
        raise
    except DAMAGED_ARCHIVE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"'{path}' cannot be read ({one_line(reason, 200)}): save it with "
            "numpy.savez(path, x=x, y=y)"
        ) from error
    y = _labels(path, "y", arrays)
    x = _images(path, "x", arrays, len(y))
    index = np.arange(len(y))
    if "x_test" in arrays or "y_test" in arrays:
        y_test = _labels(path, "y_test", arrays)
        x_test = _images(path, "x_test", arrays, len(y_test))
        index_test = np.arange(len(y_test))
        if x_test.shape[1:] != x.shape[1:]:
            raise InputError(
                f"x_test of '{path}' has images of another shape than x: {x_test.shape[1:]} and "
                f"{x.shape[1:]} must be the same"
            )
    else:
        index, index_test = split_off_test(y, seed)
        x, x_test, y, y_test = x[index], x[index_test], y[index], y[index_test]
    if not (len(y) and len(y_test)):
        raise InputError(f"'{path}' has too few images for training and testing: add some")
    classes = _classes(path, arrays, int(max(y.max(), y_test.max())))
    mean, std = channel_statistics(x)
    made = []
    for images, labels, rows in ((x, y, index), (x_test, y_test, index_test)):
        made.append(make_samples(images, labels, classes, mean=mean, std=std, flip=True))
        made[-1].metadata["index"] = rows
    return Source(made[0], made[1])


def _images(path: str, name: str, arrays: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Check images, and bring the channels to the front."""
    if name not in arrays:
        raise InputError(f"'{path}' has no array {name}: it has {', '.join(arrays) or 'none'}")
    x = arrays[name]
    if x.dtype != np.uint8:
        raise InputError(f"{name} of '{path}' is {x.dtype}: give uint8, 0 to 255")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3):
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise InputError(
            f"{name} of '{path}' has shape {arrays[name].shape}: give [N, H, W], [N, H, W, C] "
            "or [N, C, H, W] with 1 or 3 channels"
        )
    if len(x) != count:
        raise InputError(
            f"{name} of '{path}' has {len(x)} images and {count} labels: give one label an image"
        )
    return x


def _labels(path: str, name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Check labels."""
    if name not in arrays:
        raise InputError(f"'{path}' has no array {name}: it has {', '.join(arrays) or 'none'}")
    y = arrays[name]
    if y.ndim != 1 or y.dtype.kind not in "iu" or (len(y) and y.min() < 0):
        raise InputError(
            f"{name} of '{path}' is {y.dtype} of shape {y.shape}: give whole numbers [N] from 0 on"
        )
    return y.astype(np.int64)


def _classes(path: str, arrays: dict[str, np.ndarray], highest: int) -> list[str]:
    """Names of the classes: the given ones, or the numbers."""
    # Labels that are no class numbers at all would ask for billions of names.
    if highest >= MOST_CLASSES:
        raise InputError(f"'{path}' has labels up to {highest}: number the classes from 0 on")
    names = [str(name) for name in arrays.get("classes", np.arange(highest + 1)).reshape(-1)]
    if len(names) <= highest or len(names) < 2:
        raise InputError(
            f"'{path}' has labels up to {highest} and {len(names)} classes: at least two are "
            "needed, and a name for each label"
        )
    return names
