"""Safety checks on records from strangers, before anything of them is read.

A record is data: nothing in it is ever run. What remains possible are links that point outside it,
files that never end, and sizes beyond memory; all are detected before anything is allocated.
Violations raise ValueError unless stated otherwise.
"""

import math
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
import psutil

from budgetlab.errors import InputError
from budgetlab.records.format import checked_file

# Codecs of our own arrays; a chunk begins with its unpacked size.
CODECS = {"bytes", "blosc", "zstd"}
CHUNK_START = 18
# Splitting the data briefly needs a second copy.
COPIES = 2

DAMAGED_ARCHIVE = (OSError, ValueError, KeyError, EOFError, TypeError, IndexError, SyntaxError,
                   RuntimeError, NotImplementedError, OverflowError, zlib.error, struct.error,
                   zipfile.BadZipFile, tokenize.TokenError)  # fmt: skip


def check_arrays(group: Path) -> None:
    """Refuse links and special files among the arrays of a record."""
    if group.is_symlink():
        raise ValueError("it is a link")
    for folder, folders, files in os.walk(group):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise ValueError(f"'{os.path.relpath(path, group)}' is a link or no file")
        if "zarr.json" in files:
            checked_file(Path(folder), "zarr.json")


def check_chunks(group: Path, arrays: dict[str, Any]) -> None:
    """Refuse zarr arrays with unknown compressors or chunks that unpack to the wrong size.

    A single chunk that does not fit into memory is an InputError. No values are read.
    """
    for name, array in arrays.items():
        codecs = {codec.to_dict()["name"] for codec in array.metadata.codecs}
        if not codecs <= CODECS:
            raise ValueError(f"'{name}' is packed with {', '.join(sorted(codecs - CODECS))}")
        expected = array.dtype.itemsize * math.prod(array.chunks)
        require_memory(f"a chunk of '{group / name}'", expected, "it is not a record of a run")
        chunks = (Path(folder, file) for folder, _, files in os.walk(group / name / "c")
                  for file in files)  # fmt: skip
        for path in chunks:
            with path.open("rb") as file:
                start = file.read(CHUNK_START)
            # A truncated chunk fails when it is read.
            if len(start) == CHUNK_START and _unpacked(start, codecs, expected) != expected:
                shown = path.relative_to(group)
                raise ValueError(f"chunk '{shown}' is not as long as its array says")


def _unpacked(start: bytes, codecs: set[str], expected: int) -> int:
    """Return a chunk's unpacked size in bytes from its header; -1 if not stated."""
    if "blosc" in codecs:
        # Two version bytes, flags and item size; then the unpacked, block and packed sizes.
        return int.from_bytes(start[4:8], "little")
    if "zstd" not in codecs:
        return expected
    # Zstandard frame header (RFC 8878, 3.1.1.1).
    descriptor = start[4]
    single = bool(descriptor & 0b0010_0000)
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 0b11]
    if start[:4] != b"\x28\xb5\x2f\xfd" or width == 0 or at + width > len(start):
        return -1
    return int.from_bytes(start[at : at + width], "little") + (256 if width == 2 else 0)


def check_stored(file: Path) -> None:
    """Refuse an archive that is compressed or claims to be larger than its file.

    ``torch.save`` writes uncompressed archives, so a small file cannot unpack to a large one.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > file.stat().st_size:
            raise ValueError("it is not as torch writes it")


def _declared_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Return an array's size in bytes from its header, which must match the stored bytes."""
    name = entry.filename.removesuffix(".npy")
    with archive.open(entry) as stream:
        first = np.lib.format.read_magic(stream) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        size = dtype.itemsize * math.prod(shape)
        if stream.tell() + size != entry.file_size:
            raise ValueError(f"{name} is not as long as its header says")
    return size


def read_npz(file: Path, known: Collection[str] | None, remedy: str) -> dict[str, np.ndarray]:
    """Read the known arrays of an npz file, or all, after checking their headers.

    Raises one of DAMAGED_ARCHIVE if the file is damaged or holds objects, and InputError if the
    arrays would not fit into memory.
    """
    with zipfile.ZipFile(file) as archive:
        inside = [one for one in archive.infolist()
                  if known is None or one.filename.removesuffix(".npy") in known]  # fmt: skip
        size = sum(_declared_size(archive, one) for one in inside)
    require_memory(f"'{file}'", size, remedy)
    # Opened here, because numpy does not close a damaged file.
    with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored if known is None or name in known}


def require_memory(what: str, size: int, remedy: str) -> None:
    """Refuse data of ``size`` bytes that would not fit; the message includes ``remedy``."""
    free = psutil.virtual_memory().available
    if size * COPIES > free:
        raise InputError(
            f"{what} needs {size * COPIES / 2**30:.1f} GiB of memory and "
            f"{free / 2**30:.1f} GiB are free: {remedy}"
        )
