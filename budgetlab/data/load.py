"""Load a data set by name, change its training set as requested, and summarise it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from budgetlab.config import DATA_FIELDS, RunConfig
from budgetlab.data.arrays import npz
from budgetlab.data.builtin import BUILT_IN
from budgetlab.data.changes import Edits, imbalanced, mislabel, repeat
from budgetlab.data.copies import count_copies, find_copies
from budgetlab.data.dataset import Choose, Dataset, Source, Splits, fingerprint, stratified
from budgetlab.data.folder import folder
from budgetlab.devices import numpy_generator
from budgetlab.errors import InputError, counted, few, known, one_line

OWN: dict[str, tuple[str, Callable[..., Source]]] = {
    "folder": ("your images: one folder a class, optionally under train/ and test/", folder),
    "npz": ("your arrays: x, y and optionally x_test, y_test, classes", npz),
}
MOST_CLASSES = 12
FLIPPED = {
    True: "mirrored at random by augmentation; flip=no if that changes what an image shows",
    False: "never mirrored by augmentation; flip=yes if that changes nothing",
}
# Summaries already printed, as every run of a sweep loads the same data.
_printed: set[str] = set()


@dataclass(frozen=True)
class Intake:
    """Summary of loaded data: printed once, kept in the record, displayed in a notebook.

    Attributes
    ----------
    splits, where
        Number of samples by split and class, and where each split was found.
    shape, scale
        Shape of one sample, and how its pixels were scaled: empty for built-in data and vectors.
    mean, std
        Per channel, of the training samples.
    not_read, skipped
        Counts of files that are not images, by ending; unusable images, with the reason.
    copies
        Number of samples that are copies of an earlier one, by kind: ``exact within train``,
        ``near of test in train`` and the like.
    odd
        Sentences on oddities that deserve a look.
    """

    name: str
    splits: dict[str, dict[str, int]]
    where: dict[str, str]
    shape: tuple[int, ...]
    scale: str
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    not_read: dict[str, int]
    skipped: tuple[str, ...]
    copies: dict[str, int]
    odd: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return the summary as pairs of a heading and a text."""
        found = [("data", self.name)]
        for part, counts in self.splits.items():
            place = f" ({self.where[part]})" if part in self.where else ""
            total = counted(sum(counts.values()), "sample")
            found.append((part, f"{total}{place}: {_format_counts(counts, MOST_CLASSES)}"))
        scale = f", {self.scale}" if self.scale else ""
        found.append(("one sample", "x".join(map(str, self.shape)) + scale))
        if len(self.shape) == 3:
            found.append(("flip", FLIPPED[self.flip]))
        if self.not_read:
            found.append(("not read", _format_counts(self.not_read, 6)))
        if self.skipped:
            first = f"{counted(len(self.skipped), 'image')}, first {self.skipped[0]}"
            found.append(("skipped", first))
        if self.copies:
            found.append(("copies", _format_counts(self.copies, 6)))
        found += [("note", text) for text in self.odd]
        # Names of classes and files may contain line breaks and terminal codes.
        return [(heading, one_line(text)) for heading, text in found]

    def __str__(self) -> str:
        return "\n".join(f"{heading + ':':12}{text}" for heading, text in self.lines())

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return pd.DataFrame(self.lines()).to_html(header=False, index=False)


def _format_counts(counts: dict[str, int], most: int) -> str:
    """Format counts as ``a 10, b 12``, or if there are many, as their number and range."""
    if len(counts) > most:
        least, most_of_all = min(counts.values()), max(counts.values())
        ends = f"{least:,}" if least == most_of_all else f"{least:,} to {most_of_all:,}"
        return f"{len(counts):,} classes of {ends} samples each"
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def describe() -> dict[str, str]:
    """Describe each data set in one line, by name."""
    own = {f"{kind}:PATH": text for kind, (text, _) in OWN.items()}
    return {name: text for name, (text, _) in BUILT_IN.items()} | own


def canonical(name: str) -> str:
    """Return a name as spelt by :func:`describe`, whatever its case; a path is kept as it is.

    Raises InputError if there is no such data set.
    """
    kind, colon, path = name.partition(":")
    if not (colon and kind.lower() in OWN):
        try:
            return known("dataset", name, describe())
        except InputError:
            if not name or not Path(name).expanduser().exists():
                raise
            own = "npz" if name.endswith(".npz") else "folder"
            raise InputError(f"'{name}' is a place, not a data set: write {own}:{name}") from None
    if not path:
        raise InputError(f"'{name}' has no path: write {kind.lower()}:PATH")
    return f"{kind.lower()}:{path}"


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
    """Load a data set onto the CPU, and change its training set as requested.

    The order is: source, held-out test images, edits, dropping copies, imbalance, limit,
    validation split, planted copies, label noise. So ``limit`` counts samples of the imbalanced
    set, validation samples count towards the limit, copies may get other labels than their
    originals, and noise affects only training labels. Only edits change the test set. The summary
    of your own data is printed once to standard error, and kept as :attr:`Splits.intake`. Raises
    InputError if a name or value is not allowed, or data is missing or cannot be read.

    Parameters
    ----------
    name
        One of :func:`describe`, with the path filled in for ``folder:`` and ``npz:``.
    root
        Folder for downloads and caches.
    seed
        Seed of generated images and points, splits and noise.
    size
        Side of the images of ``folder:``, in pixels; None keeps images that all have one size
        of at most 128 pixels a side, and makes others 32.
    edits
        Samples to drop, relabel or mark, see :class:`budgetlab.data.Edits`; or their file.
    whole
        Decode all images of ``folder:`` even if a limit leaves few, and compute mean and
        deviation over all of them, as versions before 0.2 did.
    download, keep
        Whether missing files may be downloaded, and whether generated or decoded data may be
        cached under ``root``.
    progress
        Whether to show progress on standard error.
    limit, val_fraction, label_noise, noise_kind, imbalance, redundancy, copies, \
    redundancy_kind, flip, drop_copies
        As the fields of :class:`budgetlab.RunConfig`. Shares are met exactly and stratified by
        class; class sizes fall exponentially. With planted copies the metadata has ``copy_of``,
        the position of the original in the training set.
    """
    table = edits if isinstance(edits, Edits) else Edits(edits) if edits else None
    if table is not None and table is not edits and not table.path.exists():
        raise InputError(f"edits '{table.path}' are missing: give a file that is there, or none")
    asked = RunConfig(
        dataset=canonical(name), data_root=str(root), data_seed=seed, limit=limit,
        val_fraction=val_fraction, label_noise=label_noise, noise_kind=noise_kind,
        imbalance=imbalance, redundancy=redundancy, copies=copies, redundancy_kind=redundancy_kind,
        image_size=size or 0, flip=flip, drop_copies=drop_copies,
        edits=str(edits.path if isinstance(edits, Edits) else edits or ""),
    )  # fmt: skip
    kind, _, path = asked.dataset.partition(":")
    own = kind in OWN
    if asked.image_size and kind != "folder":
        raise InputError(
            f"image-size {asked.image_size} is for folder:, not for '{asked.dataset}': leave it out"
        )
    # Copies are found among all samples, so that the limit does not decide which are dropped.
    early = asked.limit > 0 and not whole and asked.drop_copies == "none"
    fewer = partial(_subsample, asked)
    choose = partial(_choose, table or None, fewer if early else None)
    read = partial(OWN[kind][1], path) if own else BUILT_IN[asked.dataset][1]
    source = read(root=Path(asked.data_root), seed=seed, size=size, download=download, keep=keep,
                  progress=progress, choose=choose)  # fmt: skip
    parts, odd = dict(source.parts), list(source.odd)
    if table:
        parts = {part: _with_origin(samples, part) for part, samples in parts.items()}
    if not source.chosen:
        parts = {part: _chosen(samples, choose, part) for part, samples in parts.items()}
    if table:
        table.require_all_found()
        parts = {part: table.noted(samples) for part, samples in parts.items()}
    if asked.drop_copies != "none":
        parts["train"] = _without_copies(parts, asked.drop_copies, source.cut, odd)
    if not early and (asked.limit or asked.imbalance != 1):
        parts["train"] = parts["train"].select(fewer(parts["train"].y.numpy()))
    if asked.val_fraction:
        parts["train"], parts["val"] = _split(parts, asked)
    if asked.flip != "auto":
        parts = {part: replace(one, flip=asked.flip == "yes") for part, one in parts.items()}
    settings = {field: getattr(asked, field) for field in ("data_root", *DATA_FIELDS)}
    splits = Splits(asked.dataset, parts["train"], parts.get("val"), parts["test"], "",
                    source.skipped, settings)  # fmt: skip
    found = count_copies(find_copies(splits, stretched=source.cut)) if own else {}
    intake = _summarise(splits, source, found, odd)
    if progress and own and str(intake) not in _printed:
        _printed.add(str(intake))
        print(intake, file=sys.stderr)
    train = splits.train
    if asked.redundancy:
        train = repeat(train, asked.redundancy, asked.copies, asked.redundancy_kind, seed)
    if asked.label_noise:
        train = mislabel(train, asked.label_noise, asked.noise_kind, seed)
    return replace(splits, train=train, fingerprint=fingerprint(train, splits.test), intake=intake)


def inspect(name: str, **options: Any) -> Intake:
    """Load data and return only the summary; ``options`` are those of :func:`load`."""
    intake = load(name, **({"progress": False} | options)).intake
    assert intake is not None
    return intake


def _with_origin(samples: Dataset, part: str) -> Dataset:
    """Give held-out samples of built-in data an origin, as training samples share their numbers."""
    known = samples.metadata
    if part == "train" or "origin" in known:
        return samples
    return replace(samples, metadata=known.assign(origin=f"{part}/" + known["index"].astype(str)))


def _choose(
    edits: Edits | None,
    fewer: Callable[[np.ndarray], np.ndarray] | None,
    part: str,
    y: np.ndarray,
    origins: np.ndarray,
    classes: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Select samples before they are read: by edits, then training samples by ``fewer``."""
    kept = np.arange(len(y))
    if edits is not None:
        y, kept = edits.choose(y, origins, classes)
        if not len(kept):
            raise InputError(f"edits '{edits.path}' leave no {part} samples: drop fewer")
    if fewer is not None and part == "train":
        chosen = fewer(y)
        y, kept = y[chosen], kept[chosen]
    return y, kept


def _chosen(samples: Dataset, choose: Choose, part: str) -> Dataset:
    """Select samples of data that was already read."""
    y, kept = choose(part, samples.y.numpy(), samples.origins, samples.classes)
    if len(kept) == len(samples) and np.array_equal(y, samples.y.numpy()):
        return samples
    samples = replace(samples.select(kept), y=torch.from_numpy(np.array(y)))
    known = samples.metadata
    if "true_label" in known:
        known = known.assign(is_noisy=known["true_label"].to_numpy() != y)
    return replace(samples, metadata=known)


def _subsample(asked: RunConfig, y: np.ndarray) -> np.ndarray:
    """Return the positions that imbalance and limit leave of labels ``[N]``."""
    kept, limit, seed = np.arange(len(y)), asked.limit, asked.data_seed
    if asked.imbalance != 1:
        kept = imbalanced(y, asked.imbalance, numpy_generator(seed, "imbalance"))
    if limit > len(kept):
        raise InputError(
            f"limit {limit} is more than the {len(kept)} training samples: give at most that, or 0"
        )
    return kept[stratified(y[kept], limit, numpy_generator(seed, "data"))] if limit else kept


def _without_copies(
    parts: dict[str, Dataset], kind: str, stretched: bool, odd: list[str]
) -> Dataset:
    """Leave out training samples that are copies of others, and add a note to ``odd``."""
    train = parts["train"]
    splits = Splits("", train, parts.get("val"), parts["test"], "")
    copies = find_copies(splits, near=kind == "near", stretched=stretched)
    gone = copies[(copies["split"] == "train") & (copies["kind"] != "first")]["sample"]
    if not len(gone):
        return train
    odd.append(f"copies of others, left out: {counted(len(gone), 'training sample')}")
    return train.select(np.setdiff1d(np.arange(len(train)), gone))


def _split(parts: dict[str, Dataset], asked: RunConfig) -> tuple[Dataset, Dataset]:
    """Hold out a share of the training set for validation."""
    train, fraction = parts["train"], asked.val_fraction
    if "val" in parts:
        raise InputError(
            f"val_fraction {fraction:g} is not needed, as '{asked.dataset}' has a validation "
            "split: leave it out"
        )
    count = round(fraction * len(train))
    if not 0 < count < len(train):
        raise InputError(
            f"val_fraction {fraction} of {len(train)} samples leaves a split empty: give another"
        )
    held = stratified(train.y.numpy(), count, numpy_generator(asked.data_seed, "split"))
    return train.select(np.setdiff1d(np.arange(len(train)), held)), train.select(held)


def _summarise(splits: Splits, source: Source, copies: dict[str, int], odd: list[str]) -> Intake:
    """Summarise loaded data, with counts of ``copies``; adds oddities to ``odd``."""
    classes, train = splits.train.classes, splits.train
    numbers = {part: np.bincount(samples.y.numpy(), minlength=len(classes)).tolist()
               for part, samples in splits.parts.items()}  # fmt: skip
    counts = {part: dict(zip(classes, sizes, strict=True)) for part, sizes in numbers.items()}
    leaked = sum(n for kind, n in copies.items() if kind.endswith("in train") and " of " in kind)
    if leaked:
        odd.append(
            f"copies of held-out samples: {counted(leaked, 'training sample')}, so that the "
            "accuracy is too high; drop_copies=near leaves these out"
        )
    if untested := [name for name, count in counts["test"].items() if not count]:
        odd.append(f"no test samples of {few(untested, 5)}: the accuracy says nothing of them")
    if rare := [name for name, count in counts["train"].items() if count < 5]:
        odd.append(f"fewer than five training samples of {few(rare, 5)}")
    return Intake(splits.name, counts, source.where, train.sample_shape, source.scale, train.flip,
                  train.mean, train.std, source.not_read, source.skipped, copies,
                  tuple(odd))  # fmt: skip
