"""From a name to splits: which source, then what is done to its training set."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from budgetlab.config import DROPS, FLIPS, REDUNDANCY_KINDS
from budgetlab.data.changes import (
    NOISE_KINDS,
    imbalanced,
    noisy_labels,
    redundant,
    stratified,
    varied,
)
from budgetlab.data.copies import count_copies, find_copies, without_copies
from budgetlab.data.edits import Edits, origins_of
from budgetlab.data.folder import folder, mini_imagenet
from budgetlab.data.intake import Intake, say_once, take_in
from budgetlab.data.points import PROBLEMS
from budgetlab.data.samples import Dataset, Splits, fingerprint
from budgetlab.data.sources import Choose, Source, digits, npz, points, shapes
from budgetlab.data.torchvision_sets import cifar10, cifar100, svhn
from budgetlab.errors import InputError, known
from budgetlab.seeds import numpy_generator

__all__ = ["canonical", "describe", "inspect", "load"]

NAMES: dict[str, tuple[str, Callable[..., Source]]] = {
    "shapes": ("32x32 RGB, 10 drawn shapes of known difficulty (10,000 + 10,000)", shapes),
    "points": ("2-D: the same as points:moons", partial(points, "moons")),
    **{
        f"points:{problem}": (f"2-D: {text} (1,000 + 1,000)", partial(points, problem))
        for problem, text in PROBLEMS.items()
    },
    "digits": ("8x8 grey, 10 handwritten digits (1,438 + 359), ships with scikit-learn", digits),
    "cifar10": ("32x32 RGB, 10 classes of things and animals (50,000 + 10,000)", cifar10),
    "cifar100": ("32x32 RGB, 100 classes of things and animals (50,000 + 10,000)", cifar100),
    "svhn": ("32x32 RGB, 10 digits on house numbers (73,257 + 26,032)", svhn),
    "mini-imagenet": (
        "84x84 RGB, 100 classes of photographs (50,000 + 10,000), from your own copy",
        mini_imagenet,
    ),
}
OWN: dict[str, tuple[str, Callable[..., Source]]] = {
    "folder": ("your images: one folder a class, optionally under train/ and test/", folder),
    "npz": ("your arrays: x, y and optionally x_test, y_test, classes", npz),
}


def describe() -> dict[str, str]:
    """One line on each data set, by the name to give."""
    known = {name: text for name, (text, _) in NAMES.items()}
    return known | {f"{kind}:PATH": text for kind, (text, _) in OWN.items()}


def load(
    name: str = "shapes",
    *,
    root: str | Path = "data",
    seed: int = 0,
    limit: int = 0,
    val_fraction: float = 0.0,
    label_noise: float = 0.0,
    noise_kind: str = "symmetric",
    imbalance: float = 1.0,
    redundancy: float = 0.0,
    copies: int = 15,
    redundancy_kind: str = "exact",
    size: int | None = None,
    flip: str = "auto",
    drop_copies: str = "none",
    edits: Edits | str | Path | None = None,
    whole: bool = False,
    download: bool = True,
    keep: bool = True,
    progress: bool = True,
) -> Splits:
    """Load a data set, and change its training set as asked.

    The order is: source, held-out test images, edits, copies dropped, imbalance, limit,
    validation split, planted copies, label noise. So
    ``limit`` counts what is left of an imbalanced set, validation samples come
    out of the limit, copies may get other labels than their originals, and noise
    touches the training labels only: validation and test labels are those of the source. The
    test set is never changed, but by edits. What was found in data of one's own is said once
    on standard error, and kept as :attr:`Splits.intake`.

    Parameters
    ----------
    name
        One of :func:`describe`, with the path filled in for ``folder:`` and ``npz:``.
    root
        Folder for downloads and caches.
    seed
        Seed of what is drawn: the pictures of ``shapes``, the points, splits, noise.
    size
        Side of the images of ``folder:``, in pixels; None keeps images of one size of at
        most 128 pixels a side as they are, and makes others 32.
    edits
        Samples to drop, relabel or mark, see :class:`budgetlab.data.Edits`; or their file.
    whole
        Decode all images of ``folder:``, where a limit leaves few, and take mean and deviation
        of all of them, as versions before 0.2 did.
    download
        Whether missing files may be downloaded.
    keep
        Whether what was drawn or decoded may be written under ``root``, to be read the
        next time.
    progress
        Whether to show progress on standard error.
    limit, val_fraction, label_noise, noise_kind, imbalance, redundancy, copies, \
    redundancy_kind, flip, drop_copies
        As the fields of :class:`budgetlab.RunConfig`. Shares are met exactly, every class at
        its own, and class sizes fall exponentially. Of copies that are planted the metadata
        has ``copy_of``, the position of the original in the training set.

    Returns
    -------
    Splits
        On the CPU.

    Raises
    ------
    InputError
        If a name or value is not allowed, or data is missing or cannot be read.
    """
    name = canonical(name)
    noise_kind = known("kind of label noise", noise_kind, NOISE_KINDS)
    redundancy_kind = known("kind of redundancy", redundancy_kind, REDUNDANCY_KINDS)
    flip = known("flip", flip, FLIPS)
    drop_copies = known("kind of copies to drop", drop_copies, DROPS)
    asked = {
        "dataset": name, "data_root": str(root), "data_seed": seed, "limit": limit,
        "val_fraction": val_fraction, "label_noise": label_noise, "noise_kind": noise_kind,
        "imbalance": imbalance, "redundancy": redundancy, "copies": copies,
        "redundancy_kind": redundancy_kind, "image_size": size or 0, "flip": flip,
        "drop_copies": drop_copies,
        "edits": str(edits.path if isinstance(edits, Edits) else edits or ""),
    }  # fmt: skip
    _check(seed, limit, val_fraction, label_noise, size)
    own = name.partition(":")[0] in OWN
    table = Edits(edits) if isinstance(edits, str | Path) and str(edits) else None
    if isinstance(edits, Edits) and edits:
        table = edits
    # Copies are looked for among all samples, so that it does not depend on the limit which go.
    first = not (whole or drop_copies != "none")
    choose = _chooser(table, partial(_kept, imbalance, limit, seed) if first and limit else None)
    source = _source(name)(
        root=Path(root).expanduser(), seed=seed, size=size, download=download, keep=keep,
        progress=progress, choose=choose,
    )  # fmt: skip
    train, val, test = source.train, source.val, source.test
    if not source.chosen:
        train, test = _chosen(train, choose, "train"), _chosen(test, choose, "test")
        val = None if val is None else _chosen(val, choose, "val")
    if table is not None:
        table.require_met()
        train, test = table.noted(train), table.noted(test)
    odd: list[str] = []
    if drop_copies != "none":
        train = without_copies(train, val, test, near=drop_copies == "near",
                               stretched=source.found.cut, odd=odd)  # fmt: skip
    if not (first and limit):
        train = _fewer(train, imbalance, limit, seed)
    if val_fraction and val is not None:
        raise InputError(
            f"val_fraction {val_fraction:g} is not needed, as '{name}' has a validation split: "
            "leave it out, or take that split away"
        )
    if val_fraction:
        train, val = _split(train, val_fraction, seed)
    if flip != "auto":
        train, test = replace(train, flip=flip == "yes"), replace(test, flip=flip == "yes")
        val = None if val is None else replace(val, flip=flip == "yes")
    splits = Splits(name, train, val, test, "", tuple(source.skipped), asked)
    found = count_copies(find_copies(splits, stretched=source.found.cut)) if own else {}
    train = _repeat(train, redundancy, copies, redundancy_kind, seed)
    train = _mislabel(train, label_noise, noise_kind, seed)
    intake = take_in(splits, source.found, found, odd)
    splits = replace(splits, train=train, fingerprint=fingerprint(train, test), intake=intake)
    if progress and own:
        say_once(intake)
    return splits


def inspect(name: str, **options: Any) -> Intake:
    """Load data and return the summary alone; the options are those of :func:`load`."""
    intake = load(name, **({"progress": False} | options)).intake
    assert intake is not None
    return intake


def canonical(name: str) -> str:
    """Return a name as :func:`describe` writes it, whatever its case; a path stays as it is.

    Raises
    ------
    InputError
        If there is no such data set.
    """
    kind, colon, path = name.partition(":")
    if not (colon and kind.lower() in OWN):
        return known("dataset", name, describe())
    if not path:
        raise InputError(f"'{name}' has no path: write {kind.lower()}:PATH")
    return f"{kind.lower()}:{path}"


def _source(name: str) -> Callable[..., Source]:
    """The function that loads a data set."""
    if name in NAMES:
        return NAMES[name][1]
    kind, _, path = name.partition(":")
    return partial(OWN[kind][1], path)


def _check(
    seed: int, limit: int, val_fraction: float, label_noise: float, size: int | None
) -> None:
    """Refuse values out of range before anything is read."""
    for what, value in (("seed", seed), ("limit", limit)):
        if value < 0 or value != int(value):
            raise InputError(f"{what} {value} is not allowed: give a whole number of 0 or more")
    for what, share in (("val_fraction", val_fraction), ("label_noise", label_noise)):
        if not (math.isfinite(share) and 0 <= share < 1):
            raise InputError(f"{what} {share} is not allowed: give a share in [0, 1)")
    if size is not None and not 8 <= size <= 1024:
        raise InputError(f"size {size} is not allowed: give 8 to 1024 pixels, or leave it out")


def _chooser(edits: Edits | None, then: Callable[[np.ndarray], np.ndarray] | None) -> Choose:
    """What picks samples before they are read: by edits, then the training samples by labels."""

    def choose(
        part: str, y: np.ndarray, origins: np.ndarray, classes: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        kept = np.arange(len(y))
        if edits is not None:
            y, kept = edits.choose(y, origins, classes)
        if then is not None and part == "train":
            fewer = then(y)
            y, kept = y[fewer], kept[fewer]
        return y, kept

    return choose


def _chosen(samples: Dataset, choose: Choose, part: str) -> Dataset:
    """Pick samples of data that is read already."""
    y, kept = choose(part, samples.y.numpy(), origins_of(samples), samples.classes)
    if len(kept) == len(samples) and np.array_equal(y, samples.y.numpy()):
        return samples
    return replace(samples.select(kept), y=torch.from_numpy(np.array(y)))


def _fewer(train: Dataset, imbalance: float, limit: int, seed: int) -> Dataset:
    """Apply the imbalance, then the limit."""
    kept = _kept(imbalance, limit, seed, train.y.numpy())
    return train if len(kept) == len(train) else train.select(kept)


def _kept(imbalance: float, limit: int, seed: int, y: np.ndarray) -> np.ndarray:
    """Positions that imbalance and limit leave of labels ``[N]``, each with draws of its own."""
    kept = imbalanced(y, imbalance, numpy_generator(seed, "imbalance"))
    if limit > len(kept):
        raise InputError(
            f"limit {limit} is more than the {len(kept)} training samples there are: "
            f"give at most {len(kept)}, or 0 for all"
        )
    if limit:
        kept = kept[stratified(y[kept], limit, numpy_generator(seed, "data"))]
    return kept


def _split(train: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Hold a share of the training set out."""
    count = round(fraction * len(train))
    if not 0 < count < len(train):
        raise InputError(
            f"val_fraction {fraction} of {len(train)} training samples leaves a split empty: "
            "give another share"
        )
    held = stratified(train.y.numpy(), count, numpy_generator(seed, "split"))
    rest = np.setdiff1d(np.arange(len(train)), held)
    return train.select(rest), train.select(held)


def _repeat(train: Dataset, share: float, copies: int, kind: str, seed: int) -> Dataset:
    """Put copies of few samples in the place of others, and say in the metadata of which."""
    if not share:
        return train
    generator = numpy_generator(seed, "redundancy")
    source = redundant(train.y.numpy(), share, copies, generator)
    repeated = train.select(source)
    if kind == "varied":
        is_copy = source != np.arange(len(source))
        x = repeated.x.numpy().copy()
        x[is_copy] = varied(x[is_copy], generator)
        repeated = replace(repeated, x=torch.from_numpy(x))
    return replace(repeated, metadata=repeated.metadata.assign(copy_of=source))


def _mislabel(train: Dataset, rate: float, kind: str, seed: int) -> Dataset:
    """Change labels, and say in the metadata which."""
    if not rate:
        return train
    y = train.y.numpy()
    generator = numpy_generator(seed, "noise")
    given = noisy_labels(y, len(train.classes), rate, kind, generator, train.x.numpy())
    metadata = train.metadata.assign(true_label=y, is_noisy=given != y)
    return replace(train, y=torch.from_numpy(given), metadata=metadata)
