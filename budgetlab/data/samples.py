"""What a data set is once loaded: tensors, labels, and what is known of each sample."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from budgetlab.data.changes import stratified
from budgetlab.data.own import read_dataset
from budgetlab.errors import InputError
from budgetlab.seeds import numpy_generator

__all__ = ["Dataset", "Splits", "channel_statistics", "fingerprint", "make_samples"]


@dataclass(frozen=True)
class Dataset:
    """Samples of one split, kept whole in memory.

    Attributes
    ----------
    x
        Images, uint8 ``[N, C, H, W]``; or points, float32 ``[N, 2]``.
    y
        The label that is trained on, int64 ``[N]``.
    classes
        Name of each class; a label is a position in it.
    metadata
        One row a sample. Always ``index`` (position in the source, before any
        limit or split), ``true_label`` and ``is_noisy``. Drawn data adds
        ``difficulty`` in [0, 1], ``is_ambiguous``, and ``other_label`` (the second
        class of an ambiguous sample, else -1).
    mean, std
        Per channel, on the scale where 255 is 1; per feature for points.
    flip
        Whether a horizontal flip keeps the label.
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

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(C, H, W)``, or ``(2,)`` for points."""
        return tuple(self.x.shape[1:])

    @classmethod
    def from_dataset(
        cls, dataset: TorchDataset, *, classes: Sequence[str] | None = None, flip: bool = False
    ) -> "Dataset":
        """Read any torch data set once and hold it whole.

        Parameters
        ----------
        dataset
            Map-style, with items ``(sample, label)`` as
            :func:`budgetlab.data.own.read_dataset` takes them: PIL images, uint8, or
            floats in [0, 1]; all of one size, without augmentation or normalisation.
        classes
            Names; by default ``dataset.classes``, else the numbers.
        flip
            Whether a horizontal flip keeps the label.

        Returns
        -------
        Dataset
            In the order of the data set: the tag ``index`` is what
            ``torch.utils.data.Subset`` takes. Mean and standard deviation are those of
            these samples.
        """
        x, y, names = read_dataset(dataset, classes)
        mean, std = channel_statistics(x)
        return make_samples(x, y, names, mean=mean, std=std, flip=flip)

    def normalised(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """Return samples as the network takes them: float32, mean 0, deviation 1 a channel."""
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
        """Return the same samples with ``x`` and ``y`` on a device; metadata stays where it is."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))


@dataclass(frozen=True)
class Splits:
    """A loaded data set.

    Attributes
    ----------
    name
        As it was asked for.
    train, val, test
        The three splits; ``val`` is None unless one was asked for.
    fingerprint
        16 hex digits that depend on every value of ``x`` and ``y`` of train and test. The
        validation split, on which nothing is trained, has its own (``val_fingerprint``).
    skipped
        One entry a file that could not be read: its name and the reason.
    settings
        What :func:`budgetlab.data.load` was asked for, by the names of
        :class:`budgetlab.RunConfig`; empty for data that was put together otherwise. A run
        on this data records these.
    """

    name: str
    train: Dataset
    val: Dataset | None
    test: Dataset
    fingerprint: str
    skipped: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def val_fingerprint(self) -> str:
        """The same of the validation split; empty where there is none."""
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
        """Put samples of your own together for a run.

        Parameters
        ----------
        train
            Training samples.
        test
            Held out; by default a fifth of ``train``, every class at its share, is
            taken out for it.
        val
            Held out for validation.
        name
            What records call the data.
        seed
            Seed of the draw of the fifth.

        Raises
        ------
        InputError
            If the parts have other shapes or classes, or one is empty.
        """
        if test is None:
            y = train.y.cpu().numpy()
            held = stratified(y, round(len(y) / 5), numpy_generator(seed, "split"))
            train, test = train.select(np.setdiff1d(np.arange(len(y)), held)), train.select(held)
        for part in (train, test, *([val] if val is not None else [])):
            if not len(part):
                raise InputError(f"'{name}' has too few samples for training and testing: add some")
            if part.sample_shape != train.sample_shape or part.classes != train.classes:
                raise InputError(
                    f"the parts of '{name}' differ: samples of {part.sample_shape} in classes "
                    f"{_few(part.classes)} beside {train.sample_shape} in {_few(train.classes)}; "
                    "give the same shape and classes= to all"
                )
        return cls(name, train, val, test, fingerprint(train, test))


def _few(names: Sequence[str]) -> str:
    return f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def make_samples(
    x: np.ndarray | Tensor,
    y: np.ndarray | Tensor,
    classes: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool,
    metadata: pd.DataFrame | None = None,
) -> Dataset:
    """Put arrays together as samples whose labels are all true, with the metadata all data has."""
    labels = torch.as_tensor(y, dtype=torch.int64)
    known = pd.DataFrame(
        {
            "index": np.arange(len(labels), dtype=np.int64),
            "true_label": labels.numpy().copy(),
            "is_noisy": np.zeros(len(labels), dtype=bool),
        }
    )
    if metadata is not None:
        known = pd.concat([known, metadata], axis=1)
    names = tuple(str(name) for name in classes)
    statistics = tuple(map(float, mean)), tuple(map(float, std))
    return Dataset(torch.as_tensor(x), labels, names, known, *statistics, flip)


def channel_statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel on the 0..1 scale, or per feature of points.

    Images are counted by value (a histogram of 256 bins), so that the result is
    exact and the same in whatever order it is summed. A channel that never
    varies gets a deviation of 1, so that dividing by it is harmless.

    Parameters
    ----------
    x
        uint8 ``[N, C, H, W]`` or float ``[N, features]``.
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
    """Sixteen hex digits of the SHA-256 of ``x`` and ``y`` of the splits, in their order."""
    digest = hashlib.sha256()
    for samples in splits:
        for tensor in (samples.x, samples.y):
            array = np.ascontiguousarray(tensor.cpu().numpy())
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()[:16]
