"""Which image files a folder of classes holds, found without opening any."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from budgetlab.data.images import is_image_name, printable
from budgetlab.errors import InputError

__all__ = ["Listing", "existing_folder", "list_classes"]


# More folders in folders than anybody sorts pictures into; Python itself gives up at 1,000.
DEEPEST = 50
# Larger than any picture that is trained on; some decoders read a file whole.
MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Listing:
    """Image files of one split, ordered by class and name.

    ``names`` are relative to the whole data set's folder, with ``/``; ``labels`` the
    class folder of each; ``stamp`` changes with every name, size and time of change.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    skipped: tuple[str, ...]
    stamp: str


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


def list_classes(top: Path, part: Path) -> Listing:
    """List the images of every class folder in ``part``, subfolders included.

    Links are followed to files inside ``top`` only; the others are reported as
    skipped. Hidden files and folders are passed over, and so is what lies more than
    50 folders deep.

    Parameters
    ----------
    top
        Folder of the data set.
    part
        ``top`` itself, or the folder of one split in it.
    """
    home = Path(os.path.realpath(top))
    start = "" if part == top else f"{part.name}/"
    names: list[str] = []
    labels: list[str] = []
    skipped: list[str] = []
    digest = hashlib.sha256()
    for entry in sorted(os.scandir(part), key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        if entry.is_symlink():
            skipped.append(f"{start}{entry.name}: a link to a folder")
            continue
        for name, found in _walk(entry.path, f"{start}{entry.name}/"):
            if found.is_symlink() and not Path(os.path.realpath(found.path)).is_relative_to(home):
                skipped.append(f"{name}: a link that leaves the folder")
                continue
            try:
                status = found.stat()
            except OSError:
                skipped.append(f"{name}: cannot be opened")
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
                # Reading from a pipe would never end.
                skipped.append(f"{name}: no file, or too large a one")
                continue
            names.append(name)
            labels.append(printable(entry.name))
            digest.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    shown = tuple(map(printable, skipped))
    return Listing(tuple(names), tuple(labels), shown, digest.hexdigest())


def _walk(folder: str, prefix: str, depth: int = 0) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Image files below a folder by name, without following links to folders.

    Names are joined as text: with paths, listing 60,000 files takes seconds.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and depth < DEEPEST:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", depth + 1)
            elif is_image_name(entry.name):
                yield prefix + entry.name, entry
