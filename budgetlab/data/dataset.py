"""Loaded data sets: tensors, labels, and metadata of each sample."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from budgetlab.devices import numpy_generator
from budgetlab.errors import InputError, a_kind, counted, few

if TYPE_CHECKING:
    from budgetlab.data.load import Intake


DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


@dataclass(frozen=True)
class Dataset:
    """Samples of one split, held in memory.

    - ``x``: images, uint8 ``[N, C, H, W]``; or points, float32 ``[N, features]``.
    - ``y``: labels that are trained on, int64 ``[N]``.
    - ``classes``: class names; a label is a position in it.
    - ``metadata``: one row per sample. Always has ``index``, the position in the source before any
      limit or split. Your own data has ``origin``, the path of a file or the place in an array.
      ``true_label`` and ``is_noisy`` exist if any true labels are known, because the data is
      generated, noise was added or they were given; they are missing for samples whose true label
      is unknown. Generated data adds ``difficulty`` in [0, 1], ``is_ambiguous``, and
      ``other_label`` (the second class of an ambiguous sample, else -1).
    - ``mean``, ``std``: per channel, on the scale where 255 is 1; per feature for points.
    - ``flip``: whether a horizontal flip preserves the label.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    metadata: pd.DataFrame
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.sample_shape))
        classes = counted(len(self.classes), "class")
        return f"Dataset({counted(len(self), 'sample')} of {shape}, {classes})"

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(C, H, W)``, or ``(2,)`` for points."""
        return tuple(self.x.shape[1:])

    @property
    def origins(self) -> np.ndarray:
        """Origin of each sample, or else its position in the source as a string."""
        known = self.metadata
        return known.get("origin", known["index"].astype(str)).to_numpy()

    @classmethod
    def from_dataset(
        cls,
        dataset: TorchDataset,
        *,
        classes: Sequence[str] | None = None,
        flip: bool = False,
        true_label: Sequence[int | str | None] | None = None,
    ) -> "Dataset":
        """Read a torch data set once and hold it in memory, in its order.

        Parameters
        ----------
        dataset
            Map-style, with items ``(sample, label)``, or dicts with these (``image``, ``label``
            and the like): PIL images, uint8, or floats in [0, 1]; all of one size, without
            augmentation or normalisation.
        classes
            Class names; by default those of the data set, else the labels that occur.
        flip
            Whether a horizontal flip preserves the label.
        true_label
            True label of each sample, as a label of the data set or a class name; None if
            unknown. It is never trained on, but measures of wrong labels are evaluated by it.
        """
        from budgetlab.data.arrays import class_names, read_dataset, with_true_labels

        x, y, names = read_dataset(dataset, classes)
        samples = make_samples(x, y, names, flip=flip)
        samples.metadata["origin"] = [str(number) for number in range(len(y))]
        by_name = class_names(dataset, classes) is None  # they may start at 1 or skip numbers
        return samples if true_label is None else with_true_labels(samples, true_label, by_name)

    def normalised(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """Return inputs of the network: float32, mean 0 and standard deviation 1 per channel."""
        x = self.x[indices]
        is_image = len(self.sample_shape) == 3
        shape = (1, -1, 1, 1) if is_image else (1, -1)
        mean, std = (torch.tensor(v, device=x.device).view(shape) for v in (self.mean, self.std))
        return (x / (255.0 if is_image else 1.0) - mean) / std

    def select(self, indices: Tensor | np.ndarray | Sequence[int]) -> "Dataset":
        """Return the samples at these positions, in this order."""
        positions = torch.as_tensor(indices, dtype=torch.int64)
        here = positions.to(self.x.device)
        metadata = self.metadata.iloc[positions.cpu().numpy()].reset_index(drop=True)
        return replace(self, x=self.x[here], y=self.y[here], metadata=metadata)

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the same samples with ``x`` and ``y`` on a device; metadata is not moved."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))


# Maps a split, its labels [N], origins [N] and class names to new labels [M] and the
# positions [M] of the samples to keep.
Choose = Callable[[str, np.ndarray, np.ndarray, Sequence[str]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Source:
    """The unchanged splits by name, and what the loader of the files found.

    ``chosen``: samples were already selected before reading. ``where``: location of each split.
    ``not_read``: counts of files by ending. ``skipped``: unusable images. ``scale``: how pixels
    were scaled. ``cut``: images were cropped to squares. ``odd``: sentences on oddities.
    """

    parts: dict[str, Dataset]
    chosen: bool = False
    where: dict[str, str] = field(default_factory=dict)
    not_read: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    scale: str = ""
    cut: bool = False
    odd: Sequence[str] = ()


@dataclass(frozen=True)
class Splits:
    """A loaded data set.

    - ``name``: the name of the data set, as requested.
    - ``train``, ``val``, ``test``: the three splits; ``val`` may be None.
    - ``fingerprint``: 16 hex digits that depend on every value of ``x`` and ``y`` of train and
      test. The validation split, which is not trained on, has its own (``val_fingerprint``).
    - ``skipped``: name and reason of every file that could not be read.
    - ``settings``, ``intake``: the arguments of :func:`budgetlab.data.load`, named as in
      :class:`budgetlab.RunConfig`, which a run records; and its summary. Empty, and None, for
      splits made by hand.
    """

    name: str
    train: Dataset
    val: Dataset | None
    test: Dataset
    fingerprint: str
    skipped: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    intake: "Intake | None" = None

    def __repr__(self) -> str:
        val = f" + {len(self.val):,} val" if self.val is not None else ""
        shape = "x".join(map(str, self.train.sample_shape))
        return (
            f"Splits({self.name!r}: {len(self.train):,} train{val} + {len(self.test):,} test "
            f"samples of {shape}, {counted(len(self.train.classes), 'class')})"
        )

    @property
    def parts(self) -> dict[str, Dataset]:
        """The existing splits, by name."""
        given = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in given.items() if part is not None}

    @property
    def val_fingerprint(self) -> str:
        """Fingerprint of the validation split; empty if there is none."""
        return fingerprint(self.val) if self.val is not None else ""

    @classmethod
    def of(
        cls,
        train: Dataset,
        test: Dataset | None = None,
        *,
        val: Dataset | None = None,
        name: str = "own",
        seed: int = 0,
    ) -> "Splits":
        """Combine your own samples into splits for a run.

        Raises InputError if a part is not a Dataset or empty, or the parts differ in shape or
        classes.

        - ``train``, ``test``, ``val``: samples for training, testing and validation; without
          ``test``, a stratified fifth of ``train`` is held out.
        - ``name``: name of the data in records.
        - ``seed``: seed for drawing the fifth.
        """
        for what, given in (("train", train), ("test", test), ("val", val)):
            if given is not None or what == "train":
                require(given, Dataset, what=what)
        if test is None:
            rest, held = split_off_test(train.y.cpu().numpy(), seed)
            train, test = train.select(rest), train.select(held)
        test = _beside(train, test)
        val = None if val is None else _beside(train, val)
        if len(train.classes) < 2:
            raise InputError(f"'{name}' has one class only, '{train.classes[0]}': give more")
        splits = cls(name, train, val, test, "")
        for part in splits.parts.values():
            if not len(part):
                raise InputError(f"'{name}' has too few samples for training and testing: add some")
            if part.sample_shape != train.sample_shape or part.classes != train.classes:
                raise InputError(
                    f"the parts of '{name}' differ: samples of {part.sample_shape} in classes "
                    f"{few(part.classes)} beside {train.sample_shape} in {few(train.classes)}; "
                    "give the same shape and classes= to all"
                )
        return replace(splits, fingerprint=fingerprint(train, test))


def require(given: Any, *kinds: type, what: str = "data") -> Any:
    """Return ``given`` if it is of one of these kinds; else raise an error that says what to do."""
    if isinstance(given, kinds):
        return given
    then = "" if Dataset in kinds else ", then bl.Splits.of"
    if isinstance(given, str | os.PathLike):
        raise InputError(f"{what} is the text {str(given)!r}: load it first, with bl.data.load")
    if isinstance(given, Dataset):
        raise InputError(f"{what} is a Dataset: make splits of it with bl.Splits.of")
    if isinstance(given, Splits):
        raise InputError(f"{what} is all Splits together: give one of them, such as splits.train")
    raise InputError(f"{what} is {a_kind(given)}: wrap it with bl.Dataset.from_dataset{then}")


def _beside(train: Dataset, samples: Dataset) -> Dataset:
    """Take over mean and deviation, and the numbers of the classes if all are in ``train``."""
    samples, classes = replace(samples, mean=train.mean, std=train.std), train.classes
    if samples.classes == classes or not set(samples.classes) <= set(classes):
        return samples
    place = torch.tensor([classes.index(name) for name in samples.classes])
    return replace(samples, y=place.to(samples.y.device)[samples.y], classes=classes)


def make_samples(
    x: np.ndarray | Tensor,
    y: np.ndarray | Tensor,
    classes: Sequence[str],
    *,
    flip: bool,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
    metadata: Mapping[str, Any] | None = None,
    index: np.ndarray | None = None,
    true: bool = False,
) -> Dataset:
    """Create a Dataset from arrays, with the metadata that all data has.

    ``index`` is the position in the source, by default from 0; ``true`` marks all labels as known
    to be right; ``statistics``, mean and standard deviation, are by default those of ``x``.
    """
    labels = torch.as_tensor(y, dtype=torch.int64)
    known = pd.DataFrame({"index": np.arange(len(labels)) if index is None else np.array(index)})
    if true:
        known = known.assign(true_label=labels.numpy().copy(), is_noisy=False)
    known = known.assign(**(metadata or {}))
    mean, std = statistics or channel_statistics(np.asarray(x))
    names = tuple(str(name) for name in classes)
    return Dataset(torch.as_tensor(x), labels, names, known, tuple(map(float, mean)),
                   tuple(map(float, std)), flip)  # fmt: skip


def make_parts(
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str],
    *,
    flip: bool,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    index: Mapping[str, np.ndarray] | None = None,
    true: bool = False,
) -> dict[str, Dataset]:
    """Create the Dataset of each split; ``statistics`` are by default those of the training set."""
    statistics = statistics or channel_statistics(arrays["train"][0])
    return {
        part: make_samples(*arrays[part], classes, flip=flip, statistics=statistics, true=true,
                           metadata=(metadata or {}).get(part), index=(index or {}).get(part))
        for part in ("train", "val", "test") if part in arrays
    }  # fmt: skip


def stratified(y: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a stratified sample of ``count`` positions of labels ``[N]``, int64 and ascending.

    Class shares are rounded by largest remainder, so that exactly ``count`` are drawn; equal
    remainders go to classes drawn at random.
    """
    if not 0 <= count <= len(y):
        raise InputError(f"cannot pick {count} of {len(y)} samples: give 0 to {len(y)}")
    if count == 0:
        return np.empty(0, np.int64)
    labels, sizes = np.unique(y, return_counts=True)
    quota, remainder = np.divmod(sizes * count, len(y))
    order = generator.permutation(len(labels))
    first = order[np.argsort(-remainder[order], kind="stable")]
    quota[first[: count - quota.sum()]] += 1
    return draw_per_class(y, quota, generator)


def draw_per_class(y: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw positions, ascending, ``sizes`` of each class that occurs."""
    chosen = [generator.permutation(np.flatnonzero(y == label))[:size]
              for label, size in zip(np.unique(y), sizes, strict=True)]  # fmt: skip
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def split_off_test(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions for training, and of a stratified fifth for testing."""
    held = stratified(y, round(0.2 * len(y)), numpy_generator(seed, "split"))
    return np.setdiff1d(np.arange(len(y)), held), held


def flip_keeps_class(classes: Sequence[str]) -> bool:
    """Guess from the names whether mirroring keeps the class: not for digits, letters or sides."""
    names = [str(name).strip().lower() for name in classes]
    signs = sum((len(name) == 1 and name.isalnum()) or name in DIGITS for name in names)
    sides = any({"left", "right"} & set(re.findall(r"[a-z]+", name)) for name in names)
    return not sides and 2 * signs <= len(names)


def channel_statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel on the 0..1 scale, or per feature of points.

    For images ``[N, C, H, W]`` they come from a histogram of 256 bins, which is exact. A channel
    that never varies gets a deviation of 1.
    """
    if x.ndim == 2:
        spread = x.std(axis=0, dtype=np.float64)
        return tuple(x.mean(axis=0, dtype=np.float64)), tuple(np.where(spread > 0, spread, 1.0))
    levels = np.arange(256) / 255
    means, spreads = [], []
    for channel in range(x.shape[1]):
        counts = np.zeros(256, np.int64)
        for part in np.array_split(x, max(1, len(x) // 4096)):
            counts += np.bincount(part[:, channel].reshape(-1), minlength=256)
        share = counts / counts.sum()
        mean = float((share * levels).sum())
        spread = float((share * (levels - mean) ** 2).sum()) ** 0.5
        means.append(mean)
        spreads.append(spread or 1.0)
    return tuple(means), tuple(spreads)


def fingerprint(*splits: Dataset) -> str:
    """Return 16 hex digits of the SHA-256 of ``x`` and ``y`` of the splits, in order."""
    digest = hashlib.sha256()
    for samples in splits:
        for tensor in (samples.x, samples.y):
            array = np.ascontiguousarray(tensor.cpu().numpy())
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()[:16]
