"""Which image files a folder of classes holds, found without opening any."""

import hashlib
import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from budgetlab.data.images import is_image_name
from budgetlab.errors import InputError

__all__ = ["Listing", "existing_folder", "list_classes"]


@dataclass(frozen=True)
class Listing:
    """Image files of one split, ordered by class and name.

    ``names`` are relative to the whole data set's folder, ``labels`` the class
    folder of each, ``stamp`` changes with every name, size and time of change.
    """

    files: tuple[Path, ...]
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
    skipped. Hidden files and folders are passed over.

    Parameters
    ----------
    top
        Folder of the data set.
    part
        ``top`` itself, or the folder of one split in it.
    """
    home = Path(os.path.realpath(top))
    files: list[Path] = []
    names: list[str] = []
    labels: list[str] = []
    skipped: list[str] = []
    digest = hashlib.sha256()
    for entry in sorted(os.scandir(part), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and entry.is_dir():
            skipped.append(f"{Path(entry.path).relative_to(top)}: a link to a folder")
        elif entry.is_dir():
            for found in _walk(entry.path):
                name = Path(found.path).relative_to(top).as_posix()
                if found.is_symlink() and not _inside(found.path, home):
                    skipped.append(f"{name}: a link that leaves the folder")
                    continue
                try:
                    status = found.stat()
                except OSError:
                    skipped.append(f"{name}: cannot be opened")
                    continue
                files.append(Path(found.path))
                names.append(name)
                labels.append(entry.name)
                digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return Listing(tuple(files), tuple(names), tuple(labels), tuple(skipped), digest.hexdigest())


def _walk(folder: str) -> list[os.DirEntry[str]]:
    """Image files below a folder, sorted by name, without following links to folders."""
    found: list[os.DirEntry[str]] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    found += _walk(entry.path)
            elif is_image_name(entry.name):
                found.append(entry)
    return found


def _inside(path: str, home: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(home)
