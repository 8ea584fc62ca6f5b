"""What is checked of a record before any of it is read: it may come from a stranger.

A record is data, and nothing in it is ever run. What is left to a stranger is a link that
points out of it, a file that never ends, and a size that no memory holds: those are found
here, before anything is allocated.
"""

import io
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from budgetlab.errors import InputError

__all__ = ["DAMAGED_ARCHIVE", "MOST", "check_arrays", "check_chunks", "check_stored",
           "declared_sizes", "own_file", "read_npz", "require_memory"]  # fmt: skip

MIB = 2**20
# Bytes that a file of a record may have. The largest of our own, with 100,000 epochs or as
# many classes, need a tenth of it.
MOST = {"record.json": 64 * MIB, "epochs.csv": 256 * MIB, "thumbnails.npz": 256 * MIB,
        "predictions.npz": 256 * MIB, "zarr.json": MIB, "state.pt": 64 * 1024 * MIB}  # fmt: skip
# How arrays of ours are packed; chunks begin with what they are unpacked to.
CODECS = {"bytes", "blosc", "zstd"}
CHUNK_START = 18
# Data is held once more for a moment, while it is split.
COPIES = 2

DAMAGED_ARCHIVE = (OSError, ValueError, KeyError, EOFError, TypeError, IndexError, SyntaxError,
                   RuntimeError, NotImplementedError, zlib.error, struct.error,
                   zipfile.BadZipFile, tokenize.TokenError)  # fmt: skip


def own_file(record: Path, name: str) -> Path:
    """Return a file of a record, once it is sure that it is one and of a size to be read.

    Raises
    ------
    ValueError
        If it is a link that leaves the record, no file, or too large.
    OSError
        If it is not there.
    """
    path = record / name
    if path.is_symlink() and not _is_inside(path, record):
        raise ValueError("it is a link that leaves the record")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file")
    most = MOST[path.name]
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size / MIB:,.0f} MiB, and {most // MIB:,} are allowed")
    return path


def _is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def check_arrays(group: Path) -> None:
    """Refuse links, odd files and unknown compressors among the arrays of a record.

    Raises
    ------
    ValueError
        If something is not as a record's arrays are.
    """
    if group.is_symlink():
        raise ValueError("it is a link")
    for folder, folders, files in os.walk(group):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise ValueError(f"'{os.path.relpath(path, group)}' is a link or no file")
        if "zarr.json" in files:
            own_file(Path(folder), "zarr.json")


def check_chunks(group: Path, arrays: dict[str, Any]) -> None:
    """Refuse arrays that would not fit, and chunks that unpack to more than they should.

    Parameters
    ----------
    group
        Folder of the arrays.
    arrays
        The opened zarr arrays by name; none of their values is read.

    Raises
    ------
    ValueError
        If a compressor is unknown or a chunk is not as long as the array says.
    InputError
        If a chunk alone would not fit into memory.
    """
    for name, array in arrays.items():
        codecs = {codec.to_dict()["name"] for codec in array.metadata.codecs}
        if not codecs <= CODECS:
            raise ValueError(f"'{name}' is packed with {', '.join(sorted(codecs - CODECS))}")
        expected = array.dtype.itemsize
        for side in array.chunks:
            expected *= side
        require_memory(f"a chunk of '{group / name}'", expected, "it is no record of a run")
        for folder, _, files in os.walk(group / name / "c"):
            for file in files:
                _check_chunk(Path(folder, file), codecs, expected, group)


def _check_chunk(path: Path, codecs: set[str], expected: int, group: Path) -> None:
    with path.open("rb") as file:
        start = file.read(CHUNK_START)
    # A torn one is met when it is read.
    if len(start) < CHUNK_START:
        return
    size = expected
    if "blosc" in codecs:
        # Two versions, flags, size of an entry; then bytes unpacked, of a block, and packed.
        size = int.from_bytes(start[4:8], "little")
    elif "zstd" in codecs:
        size = _zstd_size(start)
    if size != expected:
        raise ValueError(f"chunk '{path.relative_to(group)}' is not as long as its array says")


def _zstd_size(start: bytes) -> int:
    """Bytes that a frame of Zstandard unpacks to (RFC 8878, 3.1.1.1); -1 where it hides them."""
    if start[:4] != b"\x28\xb5\x2f\xfd":
        return -1
    descriptor = start[4]
    single = bool(descriptor & 0b0010_0000)
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 0b11]
    size = int.from_bytes(start[at : at + width], "little")
    if width == 0 or at + width > len(start):
        return -1
    return size + 256 if width == 2 else size


def check_stored(file: Path) -> None:
    """Refuse an archive that is packed, or says that it is larger than it is.

    What ``torch.save`` writes lies in its archive as it is, so that a small file cannot
    unpack to a large one.

    Raises
    ------
    ValueError
        If it is anything else.
    zipfile.BadZipFile
        If it is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > file.stat().st_size:
            raise ValueError("it is not as torch writes it")


def declared_sizes(file: Path | io.BufferedIOBase, known: Collection[str] | None) -> int:
    """Bytes of the known arrays of an npz file by their headers, which must be true.

    Raises
    ------
    ValueError
        If an array holds objects, or is not as long as its header says.
    zipfile.BadZipFile
        If it is no archive.
    """
    total = 0
    with zipfile.ZipFile(file) as archive:
        inside = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        for name in inside:
            if known is None or name in known:
                total += _declared_size(archive, inside[name], name)
    return total


def _declared_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> int:
    """Bytes of an array by its header, which must agree with the bytes that are there."""
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        size = dtype.itemsize
        for side in shape:
            size *= side
        if stream.tell() + size != entry.file_size:
            raise ValueError(f"{name} is not as long as its header says")
    return size


def read_npz(file: Path, known: Collection[str] | None, remedy: str) -> dict[str, np.ndarray]:
    """Read the known arrays of an npz file, once their headers say that they are harmless.

    ``known`` may be None, for all there are.

    Raises
    ------
    DAMAGED_ARCHIVE
        One of these, where the file is damaged or holds objects.
    InputError
        If they would not fit into memory.
    """
    require_memory(f"'{file}'", declared_sizes(file, known), remedy)
    # Opened here: numpy leaves a damaged file open.
    with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored if known is None or name in known}


def available_memory() -> int | None:
    """Bytes that can be allocated now; the whole memory where that is not told; None if unknown."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def require_memory(what: str, size: int, remedy: str) -> None:
    """Refuse data of ``size`` bytes that would not fit; ``what`` and ``remedy`` are said."""
    free = available_memory()
    if free is not None and size * COPIES > free:
        raise InputError(
            f"{what} needs {size * COPIES / 2**30:.1f} GiB of memory and "
            f"{free / 2**30:.1f} GiB are free: {remedy}"
        )
