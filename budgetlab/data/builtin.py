"""Built-in data sets: generated ones, scikit-learn's digits, torchvision's, and mini-ImageNet."""

import hashlib
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pandas as pd

from budgetlab.data import shapes as shapes_drawing
from budgetlab.data.dataset import Source, make_parts, split_off_test
from budgetlab.data.images import read_cache, read_images, warn_of, write_cache
from budgetlab.devices import numpy_generator
from budgetlab.errors import InputError, counted, reason

SHAPES_TRAIN, SHAPES_TEST = 10_000, 10_000
# Test images of the first version, on which its records were evaluated.
SHAPES_TEST_V1 = 2_500
# Part of the cache's name: increase it whenever the images change.
SHAPES_VERSION = 2
POINTS_TRAIN, POINTS_TEST = 1_000, 1_000

PROBLEMS = {
    "moons": "two interleaved half circles that overlap",
    "spirals": "two noisy spiral arms",
    "blobs": "three round clouds, of 80%, 16% and 4% of the points",
}
MOON_NOISE = 0.22
SPIRAL_NOISE = 0.18
BLOB_CENTRES = ((0.0, 0.0), (2.2, 1.0), (-0.4, 2.4))
BLOB_SHARES = (0.80, 0.16, 0.04)
BLOB_SPREAD = 0.8
# Points along a curve over which its density is summed: the curves are a few units long, so the
# spacing is much smaller than the noise.
CURVE_POINTS = 200

# Means and standard deviations of Arazo et al. (BMVC 2021) and their published code.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mini-imagenet": ((0.4728, 0.4487, 0.4031), (0.2744, 0.2663, 0.2806)),
}
MINI_IMAGENET_SIZE = 84


def shapes(root: Path, seed: int, keep: bool = True, **_: Any) -> Source:
    """Load images of ten shapes, rendered once per seed and then cached."""
    cache = root / "shapes" / f"shapes-v{SHAPES_VERSION}-seed{seed}.npz"
    arrays = read_cache(cache, ("x", "y", "difficulty", "other_label"))
    if arrays is None:
        # Test images added in a later version come first, from their own stream, so that the
        # others stay the same. One thread each: nearly all work is NumPy's, outside of the GIL.
        with ThreadPoolExecutor(2) as threads:
            counts = SHAPES_TEST - SHAPES_TEST_V1, SHAPES_TEST_V1 + SHAPES_TRAIN
            streams = [numpy_generator(seed, stream) for stream in ("test", "data")]
            parts = list(threads.map(shapes_drawing.draw, counts, streams))
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if keep:
            write_cache(cache, arrays)
    return _drawn(arrays, SHAPES_TEST, shapes_drawing.CLASSES, flip=True)


def points(problem: str, seed: int, **_: Any) -> Source:
    """Generate points in the plane, new ones for each seed."""
    arrays = draw_points(problem, POINTS_TEST + POINTS_TRAIN, numpy_generator(seed, "data"))
    classes = [f"{problem[:-1]} {number}" for number in range(arrays["y"].max() + 1)]
    return _drawn(arrays, POINTS_TEST, classes, flip=False)


def _drawn(
    arrays: dict[str, np.ndarray], test: int, classes: Sequence[str], *, flip: bool
) -> Source:
    """Split generated data, the first ``test`` samples for testing, and add its ground truth."""
    other = arrays["other_label"]
    known = {"difficulty": arrays["difficulty"], "is_ambiguous": other >= 0, "other_label": other}
    rows = {"train": slice(test, None), "test": slice(0, test)}
    return Source(make_parts(
        {part: (arrays["x"][row].copy(), arrays["y"][row]) for part, row in rows.items()},
        classes, flip=flip, true=True,
        metadata={part: {name: values[row] for name, values in known.items()}
                  for part, row in rows.items()},
    ))  # fmt: skip


def digits(seed: int, **_: Any) -> Source:
    """Load handwritten digits of 8x8 pixels, with grey levels 0 to 16 scaled to 0 to 255."""
    # Slow to import, and only needed here.
    from sklearn.datasets import load_digits

    images, y = load_digits(return_X_y=True)
    x = np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    rows = dict(zip(("train", "test"), split_off_test(y, seed), strict=True))
    arrays = {part: (x[row], y[row]) for part, row in rows.items()}
    return Source(make_parts(arrays, [str(n) for n in range(10)], flip=False, index=rows))


def torchvision_set(name: str, kind: str, root: Path, download: bool, progress: bool,
                    **_: Any) -> Source:  # fmt: skip
    """Load CIFAR or SVHN (cropped digits, which mirroring would change), downloaded if needed."""
    from torchvision import datasets  # slow to import, and only needed here

    house = kind == "SVHN"
    arrays = {}
    for part, which in (("train", True), ("test", False)):
        make = partial(getattr(datasets, kind), str(root), part if house else which)
        one = _open(name, make, root, download, progress)
        x = one.data if house else one.data.transpose(0, 3, 1, 2)
        arrays[part] = np.ascontiguousarray(x), np.asarray(one.labels if house else one.targets)
    classes = [str(digit) for digit in range(10)] if house else one.classes
    return Source(make_parts(arrays, classes, statistics=STATISTICS[name], flip=not house))


def _open(name: str, read: Callable[..., Any], root: Path, download: bool, progress: bool) -> Any:
    """Read a data set, downloading it first if it is missing and that is allowed."""
    # torchvision may report on standard output, which belongs to results.
    out = sys.stderr if progress else io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), warnings.catch_warnings():
        # NumPy warns about the old format of CIFAR's files.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        try:
            try:
                return read(download=False)
            except RuntimeError as missing:
                if not download:
                    raise InputError(
                        f"{name} is not in '{root}': put its files there, or allow the download"
                    ) from missing
            try:
                print(f"downloading {name} into '{root}'")
                return read(download=True)
            except (URLError, OSError, RuntimeError) as failed:
                raise InputError(
                    f"{name} could not be downloaded into '{root}' ({reason(failed)}): check "
                    "the connection and the free space, or put the files of the official archive "
                    "there"
                ) from failed
        except InputError:
            raise
        except Exception as damaged:
            raise InputError(
                f"the files of {name} in '{root}' cannot be read ({reason(damaged)}): "
                "delete them, so that they are downloaded again"
            ) from damaged


def mini_imagenet(root: Path, progress: bool, keep: bool = True, **_: Any) -> Source:
    """Load mini-ImageNet as in Arazo et al.: all images pooled, shuffled once and split.

    Needs ``train.csv``, ``val.csv``, ``test.csv`` (columns filename and label) and ``images/`` in
    ``root/mini-imagenet``. The first 50,000 of the 60,000 images, in a fixed order, are for
    training, whatever the seed.
    """
    top = root / "mini-imagenet"
    tables = [top / f"{part}.csv" for part in ("train", "val", "test")]
    for needed in (*tables, top / "images"):
        if not needed.exists():
            raise InputError(
                f"'{needed}' is missing: put train.csv, val.csv, test.csv and images/ into '{top}'"
            )
    table = pd.concat([_table(file) for file in tables], ignore_index=True)
    # Only the last part of a name is used, so that a table cannot point outside the folder.
    names = [f"images/{Path(name).name}" for name in table["filename"]]
    stamp = hashlib.sha256("\0".join(_stamp(top / name) for name in names).encode()).hexdigest()
    decoded = read_images(
        top, names, np.arange(len(names)), stamp=stamp, size=MINI_IMAGENET_SIZE, root=root,
        keep=keep, progress=progress,
    )  # fmt: skip
    warn_of(top, decoded.skipped)
    if len(decoded.kept) < 2:
        raise InputError(
            f"'{top}' has {counted(len(decoded.kept), 'readable image')}: put all into images/"
        )
    y, classes = pd.factorize(table["label"], sort=True)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(table))
    place = np.argsort(order)[decoded.kept]
    in_order = np.argsort(place)
    first = int((place < round(len(table) * 5 / 6)).sum())
    rows = {"train": in_order[:first], "test": in_order[first:]}
    index = {part: decoded.kept[row] for part, row in rows.items()}
    made = make_parts(
        {part: (decoded.x[row], y[index[part]]) for part, row in rows.items()}, classes,
        statistics=STATISTICS["mini-imagenet"], flip=True, index=index,
        metadata={part: {"origin": [names[k] for k in ks]} for part, ks in index.items()},
    )  # fmt: skip
    return Source(made, skipped=decoded.skipped)


def _table(file: Path) -> pd.DataFrame:
    try:
        content = file.read_bytes()
        table = pd.read_csv(io.BytesIO(content), dtype=str)
    except (ValueError, OSError) as error:
        said = f"'{file}' is not a table of filename and label: {reason(error)}"
        raise InputError(said) from error
    if not {"filename", "label"} <= set(table.columns):
        raise InputError(f"'{file}' needs the columns filename and label: it has {[*table]}")
    # pandas before 3 truncates names at a null character.
    odd = [line for line in content.splitlines() if b"\0" in line]
    if odd:
        raise InputError(
            f"'{file}' has a null character in {odd[0].decode(errors='replace')!r}: remove the row"
        )
    return table[["filename", "label"]].dropna()


def _stamp(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:
        return f"{file.name} missing"
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"


def draw_points(problem: str, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw points in the plane for one of :data:`PROBLEMS`, as arrays like those of shapes.

    Each problem is a mixture of known densities. Difficulty is ``1 - P(y | x)`` under them: near 0
    deep inside a class, near 1 for a point among another class. A point is ambiguous if no class
    has 60%; ``other_label`` is then the likeliest class other than ``y``, else -1.
    """
    curves, spread, shares = _mixture(problem)
    # In the given shares, exact up to rounding.
    sizes = np.diff(np.rint(np.cumsum(shares) * count).astype(np.int64), prepend=0)
    y = generator.permutation(np.repeat(np.arange(len(shares)), sizes))
    place = generator.integers(0, len(curves[0]), count)
    x = np.stack(curves)[y, place] + spread * generator.standard_normal((count, 2))
    chance = posterior(problem, x)
    rows = np.arange(count)
    others = chance.copy()
    others[rows, y] = -1
    ambiguous = chance.max(axis=1) < 0.6
    return {
        "x": x.astype(np.float32), "y": y, "difficulty": np.clip(1 - chance[rows, y], 0.0, 1.0),
        "other_label": np.where(ambiguous, others.argmax(axis=1), -1),
    }  # fmt: skip


def posterior(problem: str, x: np.ndarray) -> np.ndarray:
    """Compute class probabilities ``[N, C]`` at points ``[N, 2]`` under the true densities."""
    curves, spread, shares = _mixture(problem)
    logs = []
    for curve, share in zip(curves, shares, strict=True):
        squared = ((x[:, None, :] - curve[None]) ** 2).sum(axis=2)
        exponent = -squared / (2 * spread**2)
        peak = exponent.max(axis=1)
        inside = np.exp(exponent - peak[:, None]).mean(axis=1)
        logs.append(np.log(share) + peak + np.log(inside))
    stacked = np.stack(logs, axis=1)
    weights = np.exp(stacked - stacked.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _mixture(problem: str) -> tuple[list[np.ndarray], float, tuple[float, ...]]:
    """Return the curve ``[nodes, 2]`` of each class, the noise around them, and class shares."""
    if problem == "blobs":
        return [np.array([centre]) for centre in BLOB_CENTRES], BLOB_SPREAD, BLOB_SHARES
    along = (np.arange(CURVE_POINTS) + 0.5) / CURVE_POINTS
    if problem == "moons":
        angle = np.pi * along
        upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return [upper, np.array([1.0, 0.5]) - upper], MOON_NOISE, (0.5, 0.5)
    # The radius grows with the angle; the square root spreads points evenly.
    turn = np.sqrt(0.04 + 0.96 * along)
    arms = []
    for arm in range(2):
        angle = 2 * np.pi * (1.4 * turn + arm / 2)
        arms.append(2 * turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return arms, SPIRAL_NOISE, (0.5, 0.5)


# Description and loader by name.
BUILT_IN: dict[str, tuple[str, Callable[..., Source]]] = {
    "shapes": ("32x32 RGB, 10 rendered shapes of known difficulty (10,000 + 10,000)", shapes),
    "points": ("2-D: the same as points:moons", partial(points, "moons")),
    **{
        f"points:{problem}": (f"2-D: {text} (1,000 + 1,000)", partial(points, problem))
        for problem, text in PROBLEMS.items()
    },
    "digits": ("8x8 grey, 10 handwritten digits (1,438 + 359), ships with scikit-learn", digits),
    "cifar10": ("32x32 RGB, 10 classes of things and animals (50,000 + 10,000)",
                partial(torchvision_set, "cifar10", "CIFAR10")),
    "cifar100": ("32x32 RGB, 100 classes of things and animals (50,000 + 10,000)",
                 partial(torchvision_set, "cifar100", "CIFAR100")),
    "svhn": ("32x32 RGB, 10 digits on house numbers (73,257 + 26,032)",
             partial(torchvision_set, "svhn", "SVHN")),
    "mini-imagenet": ("84x84 RGB, 100 classes of photographs (50,000 + 10,000), from your own copy",
                      mini_imagenet),
}  # fmt: skip
