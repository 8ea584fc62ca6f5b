"""Your own images in class folders, in the order of torchvision's ``ImageFolder``."""

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from budgetlab.data.dataset import Choose, Source, flip_keeps_class, make_parts, split_off_test
from budgetlab.data.images import Decoded, is_image_name, printable, read_images, warn_of
from budgetlab.errors import NEAR, InputError, counted, few

# Levels of nested folders that are read; Python itself gives up at 1,000.
MAX_DEPTH = 50
# Larger files are skipped, as some decoders read a file whole.
MAX_BYTES = 256 * 2**20
SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
}
# Words that may accompany the name of a split: "train_images", "TestSet", "seg_train".
FILLER_WORDS = {"set", "sets", "data", "dataset", "split", "image", "images", "imgs", "img",
                "photos", "pictures", "pics", "samples", "files", "folder", "cropped",
                "seg"}  # fmt: skip
# Files that accompany images: labels, lists, notes.
SIDECARS = {".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md", ".html", ".yaml", ".yml",
            ".ini", ".db", ".log", ".npy", ".npz", ".mat", ".pkl", ".pt", ".zip"}  # fmt: skip
# Endings that torchvision's ImageFolder reads.
IMAGE_FOLDER = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Listing:
    """Image files of one split, in the order of ``ImageFolder``.

    ``folder`` is the split's folder, empty if it is the data set's own; ``names`` are relative to
    the latter, with ``/``; ``labels`` are the class folders; ``skipped`` has names and reasons;
    ``not_read`` counts files with other endings by class; ``links`` counts files reached through a
    link; ``hidden`` counts hidden images, which are left out; ``stamp`` changes with any name, size
    or modification time.
    """

    folder: str
    names: list[str]
    labels: list[str]
    skipped: list[str]
    not_read: dict[str, Counter[str]]
    links: int
    hidden: int
    stamp: str

    @property
    def all_not_read(self) -> Counter[str]:
        """Counts of files with other endings over all classes."""
        return sum(self.not_read.values(), Counter[str]())


def folder(
    path: str,
    root: Path,
    seed: int,
    size: int | None,
    progress: bool,
    keep: bool,
    choose: Choose,
    **_: Any,
) -> Source:
    """Load images from one folder per class, decoded once and cached under ``root``.

    The class folders are in the folder itself, or in its subfolder ``train/``, with ``test/`` and
    ``val/`` beside that if present; for other accepted names see :func:`split_of`. Without
    ``test/`` a stratified fifth of the training images is held out. The metadata has ``origin``,
    the path of each file in the folder. ``choose`` selects samples of each split by labels and
    origins: only these are decoded, at a ``size`` as for :func:`read_images`.
    """
    top = _require_folder(Path(os.path.expanduser(path)))
    listings, odd = _list_tree(top)
    classes = _class_names(top, listings)
    number = {name: k for k, name in enumerate(classes)}
    names = [name for one in listings.values() for name in one.names]
    y = np.array([number[label] for one in listings.values() for label in one.labels])
    sizes = [len(one.names) for one in listings.values()]
    part_of = np.repeat([*listings], sizes)
    origins = np.array([printable(name) for name in names], dtype=object)
    stamp = "".join(one.stamp for one in listings.values())
    _require_mostly_readable(top, listings, Counter())

    def rows_of(usable: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return positions and labels of each split, among the usable files."""
        parts = {part: usable[part_of[usable] == part] for part in listings}
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

    decode = partial(read_images, top, names, stamp=stamp, size=size, root=root, keep=keep,
                     progress=progress)  # fmt: skip
    rows = rows_of(np.arange(len(names)))
    decoded = decode(np.sort(np.concatenate([chosen for chosen, _ in rows.values()])))
    if decoded.skipped:
        # Draw among the readable files only, so that the result does not depend on what was
        # decoded before.
        decoded = decode(np.arange(len(names)))
        bad = zip(part_of[decoded.bad], [classes[k] for k in y[decoded.bad]], strict=True)
        _require_mostly_readable(top, listings, Counter(bad))
        rows = rows_of(decoded.kept)
    skipped = [text for one in listings.values() for text in one.skipped] + [*decoded.skipped]
    warn_of(path, skipped)
    # The index counts within the split, like ImageFolder of that folder.
    starts = dict(zip(listings, np.cumsum([0, *sizes[:-1]]), strict=True))
    made = make_parts(
        {part: (decoded.x[np.searchsorted(decoded.kept, chosen)], labels)
         for part, (chosen, labels) in rows.items()},
        classes, flip=flip_keeps_class(classes),
        index={part: chosen - starts.get(part, 0) for part, (chosen, _) in rows.items()},
        metadata={part: {"origin": origins[chosen]} for part, (chosen, _) in rows.items()},
    )  # fmt: skip
    found = _file_summary(listings, decoded, odd)
    return Source(made, True, skipped=tuple(skipped), cut=decoded.fit is not None, **found)


def _file_summary(listings: dict[str, Listing], decoded: Decoded, odd: list[str]) -> dict[str, Any]:
    parts = listings.values()
    if links := sum(one.links for one in parts):
        odd.append(f"links, which were followed: {counted(links, 'file')}")
    endings = {os.path.splitext(name)[1].lower() for one in parts for name in one.names}
    if endings - IMAGE_FOLDER:
        odd.append(
            f"ImageFolder does not read {', '.join(sorted(endings - IMAGE_FOLDER))}: its positions "
            "differ from index, so go by origin"
        )
    if more := sum(one.hidden + len(one.skipped) for one in parts):
        odd.append(
            f"left out: {counted(more, 'hidden or unusable file')}, which ImageFolder may count: "
            "its positions then differ from index, so go by origin"
        )
    alike: dict[str, list[str]] = {}
    for name in sorted(set(listings["train"].labels)):
        alike.setdefault("".join(name.casefold().split()), []).append(name)
    odd += [f"classes {' and '.join(names)} differ in case or spaces only"
            for names in alike.values() if len(names) > 1]  # fmt: skip
    scale = "of their own size; image_size sets another"
    if decoded.fit:
        scale = f"resized to {decoded.fit} and cut to a square; image_size sets another size"
    if decoded.bits > 8:
        scale += f"; grey levels of {decoded.bits} bits shown with 8, on one scale for all"
    where = {"test": "a fifth of the training images, held out"}
    where |= {part: f"{one.folder}/" if one.folder else "class folders"
              for part, one in listings.items()}  # fmt: skip
    not_read = sum((one.all_not_read for one in parts), Counter[str]())
    return {"where": where, "not_read": dict(not_read), "scale": scale, "odd": odd}


def _class_names(top: Path, listings: dict[str, Listing]) -> list[str]:
    """Return the sorted classes of the training images; other splits may have no more."""
    classes = sorted(set(listings["train"].labels))
    for listing in listings.values():
        for name in sorted(set(listing.labels) - set(classes)):
            raise InputError(
                f"class '{name}' of '{top}' is in {listing.folder}/ and not in "
                f"{listings['train'].folder}/: add images for training, or remove it"
            )
    return classes


def _require_mostly_readable(
    top: Path, listings: dict[str, Listing], damaged: Counter[tuple[str, str]]
) -> None:
    """Raise an error if most files of a class have other endings or are ``damaged``."""
    for part, listing in listings.items():
        counts = Counter(listing.labels)
        for name in sorted({*counts, *listing.not_read}):
            others = {ending: count for ending, count in listing.not_read.get(name, {}).items()
                      if ending not in SIDECARS}  # fmt: skip
            bad = damaged[part, name]
            read, missing = counts[name] - bad, sum(others.values()) + bad
            if missing > read and (read or others):
                said = [f"{count} with {end}" for end, count in others.items()]
                said += [f"{bad} damaged"] if bad else []
                where = f"{listing.folder}/{name}".lstrip("/")
                raise InputError(
                    f"most of '{where}' in '{top}' cannot be read: {missing} of {missing + read} "
                    f"files ({', '.join(said)}); save them as PNG or JPEG, or remove them"
                )


def _require_folder(path: Path) -> Path:
    """Return the folder, or raise an error that suggests an existing one."""
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise InputError(f"'{path}' cannot be opened (permission denied): ask for the right to")
        return path
    if path.exists():
        raise InputError(f"'{path}' is a file: give a folder that holds one folder for each class")
    siblings = [one.name for one in path.parent.glob("*") if one.is_dir()]
    near = get_close_matches(path.name, siblings, n=1, cutoff=NEAR)
    hint = f"did you mean '{path.parent / near[0]}'?" if near else "check the path"
    raise InputError(f"there is no folder '{path}': {hint}")


def split_of(name: str) -> str | None:
    """Return the split that a folder name stands for, train, val or test, or else None.

    Case, numbers, and words such as *set* or *images* are ignored: ``Training``, ``train2017``,
    ``test_images``. ``train station`` is a class.
    """
    found = set()
    for word in re.findall(r"[^\W\d_]+", name.lower()):
        kinds = {kind for kind, words in SPLITS.items() for one in words
                 if word == one or word.removeprefix(one) in FILLER_WORDS - {word}}  # fmt: skip
        if not kinds and word not in FILLER_WORDS:
            return None
        found |= kinds
    return found.pop() if len(found) == 1 else None


def _list_tree(top: Path) -> tuple[dict[str, Listing], list[str]]:
    """Find the splits of a folder and list the images of each; also return oddities.

    A folder that looks like a split is never taken for a class, except a single ``train`` among
    other classes with its images directly inside.
    """
    folders = _folders(top)
    kinds = {name: kind for name in folders if (kind := split_of(name)) is not None}
    kinds = {name: kind for name, kind in kinds.items()
             if not all(_is_hidden(file) for file, _ in _walk(top / name, [], ""))}  # fmt: skip
    flat = [name for name in kinds if not _have_images(top / name, _folders(top / name))]
    others = [n for n in folders if kinds and n not in kinds and _have_images(top, [n])]
    if len(kinds) == 1 and [*kinds.values()] == flat == ["train"] and len(others) > 1:
        kinds, odd = {}, ["'train' is taken for a class, as it stands among others"]
    else:
        _require_splits(top, kinds, flat, others)
        odd = [f"not read, beside the splits: {few(map(printable, others))}"] if others else []
    found = {kind: name for kind in SPLITS for name, one in kinds.items() if one == kind}
    listings = {kind: _list_classes(top, name) for kind, name in (found or {"train": ""}).items()}
    _require_classes(top, listings["train"])
    return listings, odd


def _require_splits(top: Path, kinds: dict[str, str], flat: list[str], others: list[str]) -> None:
    """Raise an error if it is unclear which folders are splits and which are classes."""
    for kind in SPLITS:
        same = [name for name, one in kinds.items() if one == kind]
        if len(same) > 1:
            raise InputError(f"'{top}' has {' and '.join(same)} for the {kind} split: leave one")
    if flat:
        raise InputError(
            f"'{flat[0]}' in '{top}' looks like a split and has no class folders with images: "
            "sort its images into one folder a class, or move it elsewhere"
        )
    if kinds and "train" not in kinds.values():
        raise InputError(
            f"'{top}' has {' and '.join(kinds)}, which looks like a split, and none for training: "
            "add a folder train/ with class folders, or rename it if it is a class"
        )
    if others and [*kinds.values()] == ["train"]:
        raise InputError(
            f"'{next(iter(kinds))}' in '{top}' looks like a split and lies beside "
            f"{few(map(printable, others))}, which look like classes: move these, or rename it"
        )


def _list_classes(top: Path, part: str) -> Listing:
    """List the images of every class folder of one split, without opening any.

    Links are followed, but each folder is read only once. Hidden files and folders, and folders
    nested more than 50 deep, are ignored.
    """
    names: list[str] = []
    labels: list[str] = []
    skipped: list[str] = []
    not_read: dict[str, Counter[str]] = {}
    links, hidden, digest = 0, 0, hashlib.sha256()
    for inside in _folders(top / part):
        label, shown = printable(inside), f"{part}/{inside}".lstrip("/")
        cut = len(str(top / part / inside))
        for path, by_link in _walk(top / part / inside, skipped, shown):
            ending = os.path.splitext(path)[1].lower() or "no ending"
            if _is_hidden(path):
                hidden += ending in IMAGE_FOLDER
                continue
            if not is_image_name(os.path.basename(path)):
                not_read.setdefault(label, Counter())[printable(ending)] += 1
                continue
            name = f"{shown}{path[cut:]}".replace(os.sep, "/")
            try:
                status = os.stat(path)
            except OSError:
                reason = "a link to nothing" if os.path.islink(path) else "cannot be opened"
                skipped.append(f"{name}: {reason}")
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                # Reading from a pipe would never end.
                skipped.append(f"{name}: no file, or too large a one")
                continue
            links += by_link or os.path.islink(path)
            names.append(name)
            labels.append(label)
            digest.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    skipped = [printable(one) for one in skipped]
    return Listing(part, names, labels, skipped, not_read, links, hidden, digest.hexdigest())


def _walk(folder: Path, skipped: list[str], shown: str) -> Iterator[tuple[str, bool]]:
    """Yield files in ``ImageFolder``'s order, each with whether a linked folder led to it."""
    found: list[tuple[str, list[str], bool]] = []
    followed = {os.path.realpath(folder)}
    linked = {str(folder)} if folder.is_symlink() else set()

    def on_error(error: OSError) -> None:
        skipped.append(f"{shown}: {(error.strerror or 'cannot be opened').lower()}")

    for root, inside, files in os.walk(folder, followlinks=True, onerror=on_error):
        found.append((root, sorted(files), root in linked))
        too_deep = root[len(str(folder)) :].count(os.sep) >= MAX_DEPTH
        for name in [*inside]:
            path = os.path.join(root, name)
            place = os.path.realpath(path) if os.path.islink(path) else None
            if place in followed:
                shorter = os.path.relpath(path, folder.parent)
                skipped.append(f"{shorter}: a link to a folder that is read already")
            if too_deep or name.startswith(".") or place in followed:
                inside.remove(name)
            elif place or root in linked:
                followed.add(place or path)
                linked.add(path)
    for root, files, behind in sorted(found):
        yield from ((os.path.join(root, name), behind) for name in files)


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")


def _folders(path: Path) -> list[str]:
    """Return the sorted names of the folders inside, without hidden ones."""
    try:
        entries = [entry.name for entry in os.scandir(path) if entry.is_dir()]
    except OSError:
        return []
    return sorted(name for name in entries if not name.startswith(".") and name != "__MACOSX")


def _have_images(path: Path, folders: Iterable[str]) -> bool:
    return any(is_image_name(os.path.basename(file))
               for name in folders for file, _ in _walk(path / name, [], ""))  # fmt: skip


def _require_classes(top: Path, listing: Listing) -> None:
    """Raise an error unless there are two classes of images, suggesting where they may be."""
    classes = sorted(set(listing.labels))
    if len(classes) > 1:
        return
    # Unpacked archives often have an extra folder around the classes.
    part = inner = top / listing.folder
    while len(_folders(inner)) == 1:
        inner = inner / _folders(inner)[0]
    below = _folders(inner)
    if inner != part and len(below) > 1 and _have_images(inner, below):
        raise InputError(
            f"class folders of '{part}' lie deeper, in '{inner}' ({few(map(printable, below))}): "
            + (f"give folder:{inner}" if part == top else f"move them up into '{part}'")
        )
    if classes:
        lost = f" (skipped: {few(listing.skipped)})" if listing.skipped else ""
        raise InputError(
            f"'{part}' has one class only, '{classes[0]}'{lost}: give two or more folders of images"
        )
    seen = "".join(f"; it has {counted(count, 'file')} with {end}"
                   for end, count in listing.all_not_read.most_common(1))  # fmt: skip
    raise InputError(
        f"'{part}' has no images in class folders{seen}: give a folder that holds one folder of "
        "images for each class, or train/ and test/ with those inside"
    )
