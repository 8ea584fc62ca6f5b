"""The user's own images in class folders, and mini-ImageNet."""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.data.images import Decoded, printable, read_images
from budgetlab.data.intake import Found
from budgetlab.data.listing import SIDECARS, Tree, existing_folder, list_tree
from budgetlab.data.samples import channel_statistics, keeps_label, make_samples
from budgetlab.data.sources import Choose, Source, everything, split_off_test
from budgetlab.errors import InputError, counted, few

__all__ = ["folder", "mini_imagenet"]

MINI_IMAGENET_STATISTICS = (0.4728, 0.4487, 0.4031), (0.2744, 0.2663, 0.2806)
MINI_IMAGENET_SIZE = 84
# What torchvision's ImageFolder reads.
IMAGE_FOLDER = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


def folder(
    path: str,
    root: Path,
    seed: int,
    size: int | None,
    progress: bool,
    keep: bool = True,
    choose: Choose = everything,
    **_: Any,
) -> Source:
    """Images in one folder for each class, decoded once and cached under ``root``.

    The class folders lie in the folder itself, or in ``train/`` in it, with
    ``test/`` and ``val/`` beside it if there are any; :func:`budgetlab.data.listing.split_of`
    says how these may be named. Without ``test/`` a fifth of the training images is held
    out, every class at its share. Classes, files and ``index`` are in the order of
    torchvision's ``ImageFolder``; the metadata has ``origin``, the path of each file in the
    folder. Only files that are needed are decoded.

    Parameters
    ----------
    path
        The folder.
    size
        As in :func:`budgetlab.data.images.read_images`.
    choose
        Picks samples of each split by their labels and origins before any is decoded.
    """
    top = existing_folder(Path(path).expanduser())
    tree = list_tree(top)
    classes = _class_names(top, tree)
    listings = list(tree.listings.values())
    names = [name for listing in listings for name in listing.names]
    number = {name: k for k, name in enumerate(classes)}
    y = np.array([number[one] for listing in listings for one in listing.labels])
    sizes = [len(listing.names) for listing in listings]
    part_of = np.repeat(np.arange(len(sizes)), sizes)
    origins = np.array([printable(name) for name in names], dtype=object)
    _require_most(top, tree, Counter())

    def rows_of(usable: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Positions and labels of each split, of the files that can be used."""
        parts = {part: usable[part_of[usable] == k] for k, part in enumerate(tree.listings)}
        if "test" not in parts:
            rest, held = split_off_test(y[parts["train"]], seed)
            parts |= {"test": parts["train"][held], "train": parts["train"][rest]}
        found = {}
        for part, rows in parts.items():
            if not len(rows):
                raise InputError(f"'{path}' has no readable image for {part}: add some")
            labels, kept = choose(part, y[rows], origins[rows], classes)
            found[part] = rows[kept], labels
        return found

    def decoded_of(wanted: np.ndarray) -> Decoded:
        return read_images(
            top, names, wanted, stamp="".join(listing.stamp for listing in listings),
            size=size, root=root, keep=keep, progress=progress,
        )  # fmt: skip

    rows = rows_of(np.arange(len(names)))
    decoded = decoded_of(np.sort(np.concatenate([chosen for chosen, _ in rows.values()])))
    if decoded.skipped:
        # What is drawn is drawn among the readable, so that it does not depend on what was
        # decoded before.
        decoded = decoded_of(np.arange(len(names)))
        bad = np.setdiff1d(np.arange(len(names)), decoded.kept)
        _require_most(top, tree, Counter(zip(part_of[bad].tolist(), y[bad].tolist(), strict=True)))
        rows = rows_of(decoded.kept)
    skipped = tuple(one for listing in listings for one in listing.skipped) + decoded.skipped
    _warn(path, skipped)
    made = _assemble(decoded, rows, classes, origins)
    # An offset within the split, as ImageFolder of that folder counts.
    starts = dict(zip(tree.listings, np.cumsum([0, *sizes[:-1]]), strict=True))
    for part, samples in made.items():
        samples.metadata["index"] -= starts.get(part, 0)
    return Source(
        made["train"], made["test"], made.get("val"), skipped, chosen=True,
        found=_found(tree, decoded, skipped),
    )  # fmt: skip


def _assemble(
    decoded: Decoded,
    rows: dict[str, tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str],
    origins: np.ndarray,
) -> dict:
    """Cut the decoded images into splits; ``index`` counts the files that were listed."""
    place = {part: np.searchsorted(decoded.kept, chosen) for part, (chosen, _) in rows.items()}
    mean, std = channel_statistics(decoded.x[place["train"]])
    flip = keeps_label(classes)
    made = {}
    for part, (chosen, labels) in rows.items():
        known = pd.DataFrame({"origin": origins[chosen]})
        made[part] = make_samples(
            decoded.x[place[part]], labels, classes, mean=mean, std=std, flip=flip,
            metadata=known, index=chosen,
        )  # fmt: skip
    return made


def _found(tree: Tree, decoded: Decoded, skipped: tuple[str, ...]) -> Found:
    """What the summary says of the files."""
    listings = tree.listings.values()
    not_read = sum((sum(one.not_read.values(), Counter()) for one in listings), Counter())
    odd = list(tree.odd)
    links = sum(one.links for one in listings)
    if links:
        odd.append(f"links, which were followed: {counted(links, 'file')}")
    endings = {os.path.splitext(name)[1].lower() for one in listings for name in one.names}
    if endings - IMAGE_FOLDER:
        odd.append(
            f"ImageFolder does not read {', '.join(sorted(endings - IMAGE_FOLDER))}: its positions "
            "are others than index, so go by origin"
        )
    labels = tree.listings["train"].labels
    alike = [names for names in _alike(labels) if len(names) > 1]
    odd += [f"classes {' and '.join(names)} differ in case or spaces only" for names in alike]
    scale = "of their own size; image_size sets another"
    if decoded.fit:
        scale = f"resized to {decoded.fit} and cut to a square; image_size sets another size"
    if decoded.bits > 8:
        scale += f"; grey levels of {decoded.bits} bits shown with 8, on one scale for all"
    where = {part: f"{name}/" if name else "class folders" for part, name in tree.folders.items()}
    where.setdefault("test", "a fifth of the training images, held out")
    return Found(where, dict(not_read), skipped, scale, odd, decoded.fit is not None)


def _alike(labels: Sequence[str]) -> list[list[str]]:
    """Classes whose names are the same but for case and spaces."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(labels)):
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    return list(groups.values())


def _class_names(top: Path, tree: Tree) -> list[str]:
    """Classes of the training images, sorted; the other splits may have no more."""
    classes = sorted(set(tree.listings["train"].labels))
    for part, listing in tree.listings.items():
        for name in sorted(set(listing.labels) - set(classes)):
            raise InputError(
                f"class '{name}' of '{top}' is in {tree.folders[part]}/ and not in "
                f"{tree.folders['train']}/: add images for training, or remove it"
            )
    return classes


def _require_most(top: Path, tree: Tree, unreadable: Counter[tuple[int, int]]) -> None:
    """Refuse a folder of which most files of a class cannot be read.

    ``unreadable`` counts files that could not be decoded, by numbers of split and class.
    """
    classes = sorted(set(tree.listings["train"].labels))
    for number, (part, listing) in enumerate(tree.listings.items()):
        counts = Counter(listing.labels)
        for name in sorted({*counts, *listing.not_read}):
            others = {ending: count for ending, count in listing.not_read.get(name, {}).items()
                      if ending not in SIDECARS}  # fmt: skip
            bad = unreadable[number, classes.index(name)] if name in classes else 0
            read = counts[name] - bad
            missing = sum(others.values()) + bad
            if missing > read and (read or others):
                said = [f"{count} with {end}" for end, count in others.items()]
                said += [f"{bad} damaged"] if bad else []
                where = f"{tree.folders[part]}/{name}".lstrip("/")
                raise InputError(
                    f"most of '{where}' in '{top}' cannot be read: {missing} of {missing + read} "
                    f"files ({', '.join(said)}); save them as PNG or JPEG, or remove them"
                )


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
    decoded = read_images(
        top, names, np.arange(len(names)), stamp=stamp, size=MINI_IMAGENET_SIZE, root=root,
        keep=keep, progress=progress,
    )  # fmt: skip
    _warn(str(top), decoded.skipped)
    if len(decoded.kept) < 2:
        raise InputError(
            f"'{top}' has {counted(len(decoded.kept), 'readable image')}: put all into images/"
        )
    classes = sorted(set(table["label"]))
    y = table["label"].map({name: k for k, name in enumerate(classes)}).to_numpy()[decoded.kept]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(table))
    place = np.argsort(order)[decoded.kept]
    in_order = np.argsort(place)
    first = int((place < round(len(table) * 5 / 6)).sum())
    mean, std = MINI_IMAGENET_STATISTICS
    train, test = (
        make_samples(
            decoded.x[rows], y[rows], classes, mean=mean, std=std, flip=True,
            index=decoded.kept[rows],
            metadata=pd.DataFrame({"origin": [names[k] for k in decoded.kept[rows]]}),
        )
        for rows in (in_order[:first], in_order[first:])
    )  # fmt: skip
    return Source(train, test, skipped=decoded.skipped)


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


def _warn(path: str, skipped: Sequence[str]) -> None:
    """Say how many files were left out, and the first few of them."""
    if skipped:
        text = f"skipped in '{path}', as they cannot be used: {few(skipped)} "
        warnings.warn(f"{text}({counted(len(skipped), 'file')})", UserWarning, stacklevel=2)
