"""The data sets that need no file: drawn ones, and digits out of scikit-learn."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.data import points as points_problem
from budgetlab.data import shapes as shapes_drawing
from budgetlab.data.cache import read_cache, write_cache
from budgetlab.data.changes import stratified
from budgetlab.data.intake import Found
from budgetlab.data.samples import Dataset, channel_statistics, make_samples
from budgetlab.seeds import numpy_generator

__all__ = ["Choose", "Source", "digits", "everything", "points", "shapes", "split_off_test"]

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
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("x", "y", "difficulty", "other_label")
        }
        if keep:
            write_cache(cache, arrays)
    return _known(arrays, SHAPES_TEST, shapes_drawing.CLASSES, flip=True)


def points(problem: str, seed: int, **_: Any) -> Source:
    """Points in the plane, new ones for each seed."""
    drawn = points_problem.draw(problem, POINTS_TEST + POINTS_TRAIN, numpy_generator(seed, "data"))
    arrays = {
        "x": drawn.x,
        "y": drawn.y,
        "difficulty": drawn.difficulty,
        "other_label": drawn.other_label,
    }
    return _known(arrays, POINTS_TEST, drawn.classes, flip=False)


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
