"""Which image files a folder of classes holds, found without opening any.

Classes and files come in the order of torchvision's ``ImageFolder``.
"""

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from budgetlab.data.images import is_image_name, printable
from budgetlab.errors import InputError, counted, few

__all__ = ["Listing", "Tree", "existing_folder", "list_tree", "split_of"]

# More folders in folders than anybody sorts pictures into; Python itself gives up at 1,000.
DEEPEST = 50
# Larger than any picture that is trained on; some decoders read a file whole.
MOST_BYTES = 256 * 2**20
SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
}
# Words that may stand beside: "train_images", "TestSet", "seg_train".
BESIDE = {"set", "sets", "data", "dataset", "split", "image", "images", "imgs", "img", "photos",
          "pictures", "pics", "samples", "files", "folder", "cropped", "seg"}  # fmt: skip
# Files that go with images and are none: labels, lists, notes.
SIDECARS = {".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md", ".html", ".yaml", ".yml",
            ".ini", ".db", ".log", ".npy", ".npz", ".mat", ".pkl", ".pt", ".zip"}  # fmt: skip
NO_ENDING = "no ending"


@dataclass(frozen=True)
class Listing:
    """Image files of one split, ordered as ``ImageFolder`` orders them.

    ``names`` are relative to the whole data set's folder, with ``/``; ``labels`` the
    class folder of each; ``skipped`` names and reasons; ``not_read`` counts by class the
    files of other endings; ``links`` how many files are reached through a link; ``stamp``
    changes with every name, size and time of change.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    skipped: tuple[str, ...]
    not_read: dict[str, Counter[str]]
    links: int
    stamp: str


@dataclass(frozen=True)
class Tree:
    """The splits of a folder by ``train``, ``val`` and ``test``; the name of the folder of
    each, which is empty where classes lie in the data set's own; and what is odd."""

    listings: dict[str, Listing]
    folders: dict[str, str]
    odd: list[str] = field(default_factory=list)


def existing_folder(path: Path) -> Path:
    """Return the folder, or raise an error that suggests the nearest one there is."""
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"'{path}' is a file: give a folder that holds one folder for each class")
    parent = path.parent
    siblings = (
        [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    )
    near = get_close_matches(path.name, siblings, n=1, cutoff=0.5)
    hint = f"did you mean '{parent / near[0]}'?" if near else "check the path"
    raise InputError(f"there is no folder '{path}': {hint}")


def split_of(name: str) -> str | None:
    """Return the split that a folder's name stands for: train, val or test; None for none.

    In any case, with numbers, and beside words such as *set* or *images*: ``Training``,
    ``train2017``, ``test_images``. ``train station`` is a class.
    """
    found = set()
    for word in re.findall(r"[^\W\d_]+", name.lower()):
        kinds = [
            kind
            for kind, words in SPLITS.items()
            for one in words
            if word == one or (word.startswith(one) and word.removeprefix(one) in BESIDE)
        ]
        if not kinds and word not in BESIDE:
            return None
        found |= set(kinds)
    return found.pop() if len(found) == 1 else None


def list_tree(top: Path) -> Tree:
    """Find the splits of a folder, and list the images of each.

    A folder that looks like a split is never taken for a class, but for ``train`` alone
    among other classes, with its images directly inside.

    Raises
    ------
    InputError
        If it is not plain which folder is what, or there are not two classes of images.
    """
    folders = _folders(top)
    kinds = {name: kind for name in folders if (kind := split_of(name)) is not None}
    kinds = {name: kind for name, kind in kinds.items() if any(_walk(top / name, [], ""))}
    flat = [name for name in kinds if not any(map(_has_images, _paths(top / name)))]
    others = [n for n in folders if kinds and n not in kinds and _has_images(top / n)]
    if len(kinds) == 1 and [*kinds.values()] == flat == ["train"] and len(others) > 1:
        tree = Tree({"train": list_classes(top, top)}, {"train": ""})
        tree.odd.append("'train' is taken for a class, as it stands among others")
    elif kinds:
        tree = _splits(top, kinds, flat, others)
    else:
        tree = Tree({"train": list_classes(top, top)}, {"train": ""})
    _require_classes(top, tree)
    return tree


def _splits(top: Path, kinds: dict[str, str], flat: list[str], others: list[str]) -> Tree:
    for kind in SPLITS:
        same = [name for name, one in kinds.items() if one == kind]
        if len(same) > 1:
            raise InputError(
                f"'{top}' has {' and '.join(same)}, which both look like the {kind} split: "
                "leave one"
            )
    if flat:
        raise InputError(
            f"'{flat[0]}' in '{top}' looks like a split and has no class folders with images: "
            "sort its images into one folder a class, or move it elsewhere"
        )
    if "train" not in kinds.values():
        raise InputError(
            f"'{top}' has {' and '.join(kinds)}, which looks like a split, and none for training: "
            "add a folder train/ with class folders, or rename it if it is a class"
        )
    if others and [*kinds.values()] == ["train"]:
        raise InputError(
            f"'{next(iter(kinds))}' in '{top}' looks like a split and lies beside "
            f"{few(map(printable, others))}, which look like classes: move these, or rename it"
        )
    folders = {kind: name for kind in SPLITS for name, one in kinds.items() if one == kind}
    listings = {kind: list_classes(top, top / name) for kind, name in folders.items()}
    odd = [f"not read, beside the splits: {few(map(printable, others))}"] if others else []
    return Tree(listings, folders, odd)


def list_classes(top: Path, part: Path) -> Listing:
    """List the images of every class folder in ``part``, subfolders included.

    Links are followed, a folder once. Hidden files and folders are passed over, and so is
    what lies more than 50 folders deep.

    Parameters
    ----------
    top
        Folder of the data set.
    part
        ``top`` itself, or the folder of one split in it.
    """
    start = "" if part == top else f"{part.name}/"
    names: list[str] = []
    labels: list[str] = []
    skipped: list[str] = []
    not_read: dict[str, Counter[str]] = {}
    links = 0
    digest = hashlib.sha256()
    for folder in _folders(part):
        label, before, cut = printable(folder), len(names), len(str(part / folder))
        for path, by_link in _walk(part / folder, skipped, start + folder):
            if not is_image_name(os.path.basename(path)):
                ending = os.path.splitext(path)[1].lower() or NO_ENDING
                not_read.setdefault(label, Counter())[printable(ending)] += 1
                continue
            name = f"{start}{folder}{path[cut:]}".replace(os.sep, "/")
            reason, status = _stat(path)
            if status is None:
                skipped.append(f"{name}: {reason}")
                continue
            links += by_link or os.path.islink(path)
            names.append(name)
            digest.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"))
        labels += [label] * (len(names) - before)
    shown = tuple(map(printable, skipped))
    return Listing(tuple(names), tuple(labels), shown, not_read, links, digest.hexdigest())


def _stat(path: str) -> tuple[str, os.stat_result | None]:
    """Why a file is not to be read, or what is known of it."""
    try:
        status = os.stat(path)
    except OSError:
        return "a link to nothing" if os.path.islink(path) else "cannot be opened", None
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        # Reading from a pipe would never end.
        return "no file, or too large a one", None
    return "", status


def _walk(folder: Path, skipped: list[str], shown: str) -> Iterator[tuple[str, bool]]:
    """Paths of the files below a folder, each with whether it lies behind a linked folder.

    In ``ImageFolder``'s order: folders by their whole path, the files of each by name.
    """
    found: list[tuple[str, list[str], bool]] = []
    followed = {os.path.realpath(folder)}
    linked = {str(folder)} if folder.is_symlink() else set()

    def complain(error: OSError) -> None:
        skipped.append(f"{shown}: {(error.strerror or 'cannot be opened').lower()}")

    for root, inside, files in os.walk(folder, followlinks=True, onerror=complain):
        behind = root in linked
        found.append((root, sorted(name for name in files if not name.startswith(".")), behind))
        kept = []
        for name in inside if root[len(str(folder)) :].count(os.sep) < DEEPEST else ():
            path = os.path.join(root, name)
            if name.startswith("."):
                continue
            if os.path.islink(path):
                if os.path.realpath(path) in followed:
                    shorter = os.path.relpath(path, folder.parent)
                    skipped.append(f"{shorter}: a link to a folder that is read already")
                    continue
                followed.add(os.path.realpath(path))
            if behind or os.path.islink(path):
                linked.add(path)
            kept.append(name)
        inside[:] = kept
    for root, files, behind in sorted(found):
        for name in files:
            yield os.path.join(root, name), behind


def _folders(path: Path) -> list[str]:
    """Names of the folders inside, sorted; hidden ones are none."""
    try:
        entries = [entry.name for entry in os.scandir(path) if entry.is_dir()]
    except OSError:
        return []
    return sorted(name for name in entries if not name.startswith(".") and name != "__MACOSX")


def _paths(path: Path) -> list[Path]:
    return [path / name for name in _folders(path)]


def _has_images(path: Path) -> bool:
    return any(is_image_name(os.path.basename(file)) for file, _ in _walk(path, [], ""))


def _require_classes(top: Path, tree: Tree) -> None:
    """Refuse a training split without two classes of images, and say where they may be."""
    part = top / tree.folders["train"]
    listing = tree.listings["train"]
    classes = sorted(set(listing.labels))
    if len(classes) > 1:
        return
    # As archives are unpacked: one folder too many around the classes.
    inner = part
    while len(_folders(inner)) == 1:
        inner = inner / _folders(inner)[0]
    below = _folders(inner)
    if inner != part and len(below) > 1 and any(map(_has_images, _paths(inner))):
        raise InputError(
            f"class folders of '{part}' lie deeper, in '{inner}' ({few(map(printable, below))}): "
            + (f"give folder:{inner}" if part == top else f"move them up into '{part}'")
        )
    if classes:
        raise InputError(
            f"'{part}' has one class only, '{classes[0]}': at least two folders of images are "
            "needed"
        )
    endings: Counter[str] = sum(listing.not_read.values(), Counter())
    seen = "".join(
        f"; it has {counted(count, 'file')} with {end}" for end, count in endings.most_common(1)
    )
    raise InputError(
        f"'{part}' has no images in class folders{seen}: give a folder that holds one folder of "
        "images for each class, or train/ and test/ with those inside"
    )
