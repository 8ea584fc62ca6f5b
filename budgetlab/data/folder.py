"""The user's own images in class folders, and mini-ImageNet."""

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.data.cache import read_cache, write_cache
from budgetlab.data.images import Decoded, decode_all
from budgetlab.data.listing import Listing, existing_folder, list_classes
from budgetlab.data.samples import channel_statistics, make_samples
from budgetlab.data.sources import Source, split_off_test
from budgetlab.errors import InputError

__all__ = ["folder", "mini_imagenet"]

MINI_IMAGENET_STATISTICS = (0.4728, 0.4487, 0.4031), (0.2744, 0.2663, 0.2806)
MINI_IMAGENET_SIZE = 84
# Raised whenever the same files would be decoded to other pixels.
DECODER_VERSION = 1


def folder(
    path: str,
    root: Path,
    seed: int,
    size: int | None,
    progress: bool,
    keep: bool = True,
    **_: Any,
) -> Source:
    """Images in one folder for each class, decoded once and cached under ``root``.

    The class folders lie in the folder itself, or in ``train/`` in it, with
    ``test/`` and ``val/`` beside it if there are any. Without ``test/`` a fifth of
    the training images is held out, every class at its share. Folders without
    any image are passed over. A horizontal flip is taken to keep the label.

    Parameters
    ----------
    path
        The folder.
    size
        As in :func:`budgetlab.data.images.decode_all`.
    """
    top = existing_folder(Path(path))
    has_parts = (top / "train").is_dir()
    parts = ["train", *(name for name in ("val", "test") if (top / name).is_dir())]
    listings = {
        part: list_classes(top, top / part if has_parts else top)
        for part in (parts if has_parts else ["train"])
    }
    classes = _class_names(path, listings)
    names = [name for listing in listings.values() for name in listing.names]
    stamp = "".join(listing.stamp for listing in listings.values())
    decoded = _decode_cached(top, names, stamp, root, size, progress, keep)
    links = tuple(link for listing in listings.values() for link in listing.skipped)
    skipped = links + decoded.skipped
    _warn(path, skipped)
    label = {name: number for number, name in enumerate(classes)}
    y = np.array([label[one] for part in listings.values() for one in part.labels])[decoded.kept]
    ends = np.cumsum([len(listing.names) for listing in listings.values()])
    part_of = np.searchsorted(ends, decoded.kept, side="right")
    return _assemble(path, decoded, y, part_of, list(listings), classes, seed, skipped)


def _assemble(
    path: str,
    decoded: Decoded,
    y: np.ndarray,
    part_of: np.ndarray,
    parts: Sequence[str],
    classes: Sequence[str],
    seed: int,
    skipped: tuple[str, ...],
) -> Source:
    """Cut the decoded images into splits; positions count the files that were listed."""
    rows = {part: np.flatnonzero(part_of == number) for number, part in enumerate(parts)}
    if "test" not in rows:
        rest, held = split_off_test(y[rows["train"]], seed)
        rows["train"], rows["test"] = rows["train"][rest], rows["train"][held]
    for part, chosen in rows.items():
        if len(chosen) == 0:
            raise InputError(f"'{path}' has no readable image for {part}: add some")
    mean, std = channel_statistics(decoded.x[rows["train"]])
    made = {}
    for part, chosen in rows.items():
        made[part] = make_samples(
            decoded.x[chosen], y[chosen], classes, mean=mean, std=std, flip=True
        )
        made[part].metadata["index"] = decoded.kept[chosen]
    return Source(made["train"], made["test"], made.get("val"), skipped)


def mini_imagenet(root: Path, progress: bool, keep: bool = True, **_: Any) -> Source:
    """mini-ImageNet as in Arazo et al.: all images pooled, shuffled once and cut.

    Needs ``train.csv``, ``val.csv``, ``test.csv`` (columns filename and label) and
    ``images/`` in ``root/mini-imagenet``. Of the 60,000 images the first 50,000 of
    a fixed order are for training, whatever the seed.
    """
    top = root / "mini-imagenet"
    tables = [top / f"{part}.csv" for part in ("train", "val", "test")]
    for needed in (*tables, top / "images"):
        if not needed.exists():
            raise InputError(
                f"mini-imagenet is not complete, '{needed}' is missing: put train.csv, val.csv, "
                f"test.csv and images/ into '{top}'"
            )
    table = pd.concat([_table(file) for file in tables], ignore_index=True)
    # Only the last part of a name counts: a table cannot point out of the folder.
    names = [f"images/{Path(name).name}" for name in table["filename"]]
    stamps = "\0".join(_stamp(top / name) for name in names)
    stamp = hashlib.sha256(stamps.encode()).hexdigest()
    decoded = _decode_cached(top, names, stamp, root, MINI_IMAGENET_SIZE, progress, keep)
    _warn(str(top), decoded.skipped)
    if len(decoded.kept) < 2:
        raise InputError(f"'{top}' has {len(decoded.kept)} readable images: put all into images/")
    classes = sorted(set(table["label"]))
    y = table["label"].map({name: k for k, name in enumerate(classes)}).to_numpy()[decoded.kept]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(table))
    place = np.argsort(order)[decoded.kept]
    in_order = np.argsort(place)
    first = int((place < round(len(table) * 5 / 6)).sum())
    mean, std = MINI_IMAGENET_STATISTICS
    made = []
    for rows in (in_order[:first], in_order[first:]):
        made.append(make_samples(decoded.x[rows], y[rows], classes, mean=mean, std=std, flip=True))
        made[-1].metadata["index"] = decoded.kept[rows]
    return Source(made[0], made[1], skipped=decoded.skipped)


def _table(file: Path) -> pd.DataFrame:
    """Read one table of file names and labels."""
    try:
        content = file.read_bytes()
        table = pd.read_csv(io.BytesIO(content), dtype=str)
    except (ValueError, OSError) as error:
        # What pandas says may take several lines.
        reason = " ".join(str(error).split())
        raise InputError(f"'{file}' is not a table of filename and label: {reason}") from error
    if not {"filename", "label"} <= set(table.columns):
        raise InputError(f"'{file}' needs the columns filename and label: it has {[*table]}")
    # pandas before 3 cuts a name there.
    odd = [line for line in content.splitlines() if b"\0" in line]
    if odd:
        raise InputError(
            f"'{file}' has a null character in {odd[0].decode(errors='replace')!r}, which no file "
            "can have in its name: remove the row"
        )
    return table[["filename", "label"]].dropna()


def _stamp(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:
        return f"{file.name} missing"
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"


def _class_names(path: str, listings: dict[str, Listing]) -> list[str]:
    """Classes of the training images, sorted; the other splits may have no more."""
    classes = sorted(set(listings["train"].labels))
    if not classes:
        raise InputError(
            f"'{path}' has no images in class folders: give a folder that holds one folder of "
            "images for each class, or train/ and test/ with those inside"
        )
    if len(classes) == 1:
        raise InputError(
            f"'{path}' has one class only, '{classes[0]}': at least two folders of images are "
            "needed"
        )
    for part, listing in listings.items():
        for name in sorted(set(listing.labels) - set(classes)):
            raise InputError(
                f"class '{name}' of '{path}' is in {part}/ and not in train/: add images for "
                "training, or remove it"
            )
    return classes


def _decode_cached(
    top: Path,
    names: Sequence[str],
    stamp: str,
    root: Path,
    size: int | None,
    progress: bool,
    keep: bool,
) -> Decoded:
    """Decode, or take the pixels of the last time if no file has changed since."""
    key = hashlib.sha256(f"{DECODER_VERSION} {size} {stamp}".encode()).hexdigest()
    # One cache for each folder and size: a changed folder replaces its own.
    place = hashlib.sha256(f"{os.path.realpath(top)} {size}".encode()).hexdigest()[:8]
    cache = root / "folders" / f"{top.resolve().name}-{place}.npz"
    stored = read_cache(cache, ("key", "skipped", "kept", "x"), key=key)
    if stored is not None:
        return Decoded(stored["x"], stored["kept"], tuple(map(str, stored["skipped"])))
    decoded = decode_all(top, names, size, progress)
    if not keep:
        return decoded
    skipped = np.array(decoded.skipped, dtype=str)
    arrays = {"key": np.array(key), "skipped": skipped, "kept": decoded.kept, "x": decoded.x}
    write_cache(cache, arrays)
    return decoded


def _warn(path: str, skipped: Sequence[str]) -> None:
    """Say how many files were left out, and the first few of them."""
    if skipped:
        more = ", ..." if len(skipped) > 3 else ""
        warnings.warn(
            f"{len(skipped)} of the files in '{path}' cannot be used and are skipped: "
            f"{', '.join(skipped[:3])}{more}",
            UserWarning,
            stacklevel=2,
        )
