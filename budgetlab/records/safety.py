"""What guards a record: one trainer at a time, and nothing of a stranger's before it is checked.

A record is data, and nothing in it is ever run. What is left to a stranger is a link that
points out of it, a file that never ends, and a size that no memory holds: those are found
here, before anything is allocated.

A lock is a file that is held with filelock: with ``flock``, on Windows with ``LockFileEx``.
The system frees it however its process ends, ``kill -9`` included, so there are no stale
locks, no clocks to compare and nothing to clean up. Reading a record needs no lock.
On a network folder the lock is as good as the file system's: NFS takes it to the server
(and frees those of a machine that vanished after its lease, about 90 seconds on
version 4); Lustre must be mounted with ``flock``, BeeGFS with global locks. A system
without such locks is met with a warning: there, train in one place at a time.
"""

import contextlib
import errno
import json
import math
import os
import platform
import stat
import struct
import tokenize
import warnings
import weakref
import zipfile
import zlib
from collections.abc import Collection, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from budgetlab.errors import InputError, RunError

__all__ = ["DAMAGED_ARCHIVE", "MOST", "ExclusiveUse", "InUse", "available_memory", "check_arrays",
           "check_chunks", "check_stored", "hold", "holder", "is_held", "lock_of",
           "only_iterator", "own_file", "read_npz", "require_memory"]  # fmt: skip

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
                   RuntimeError, NotImplementedError, OverflowError, zlib.error, struct.error,
                   zipfile.BadZipFile, tokenize.TokenError)  # fmt: skip

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO}
# Asking whether a lock is held takes it for a moment: that is waited for, and no longer.
MOMENT_SECONDS = 0.1
# Windows locks the first byte, which nobody else can read then: the holder is named behind it.
SIGNED_FROM, MOST_SIGNED = 1, 4096


# Who trains it

Iteration = Generator[dict[str, Any], None, None]

# Epochs of this process that are being iterated, by the real place of their record.
_being_iterated: weakref.WeakValueDictionary[str, Iteration] = weakref.WeakValueDictionary()


class InUse(RunError):
    """The record is being trained elsewhere now."""


def lock_of(record: Path) -> Path:
    """Where the lock of a record lies."""
    return record / ".lock"


@contextlib.contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Try to hold a lock while the block runs; yields whether it is held now.

    The file is made if missing, with its folder. ``wait`` until it is free, instead of giving up.
    An OSError says that the file cannot be made, or is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of no thread: what trains is a generator, which another thread may close.
    lock, ours = FileLock(path, thread_local=False), True
    try:
        lock.acquire(timeout=-1 if wait else MOMENT_SECONDS, poll_interval=MOMENT_SECONDS / 5)
    except Timeout:
        ours = False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        reason = error.strerror or "no reason given"
        warnings.warn(
            f"'{path.parent}' cannot be locked ({reason}): train in this folder from one place "
            "only",
            stacklevel=3,
        )
    try:
        if ours:
            _sign(path)
        yield ours
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a lock is held now, here or elsewhere; nothing is made."""
    if not path.is_file():
        return False
    try:
        with FileLock(path, thread_local=False, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        # Whoever may only read cannot tell: training would be refused in any case.
        return False


def holder(path: Path) -> dict[str, Any]:
    """Who held a lock last: ``process``, ``host``, ``since``; empty where unknown."""
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            file.seek(SIGNED_FROM)
            signed = json.loads(file.read(MOST_SIGNED))
    except (OSError, ValueError, RecursionError):
        return {}
    return signed if isinstance(signed, dict) else {}


def _sign(path: Path) -> None:
    """Leave word of who holds the lock, for people and messages; nothing depends on it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"process": os.getpid(), "host": platform.node(), "since": now})
    with contextlib.suppress(OSError):
        about = path.lstat()
        # Out of a stranger's record it may be a pipe, or a second name of a file elsewhere.
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
            with path.open("r+b") as file:
                file.seek(SIGNED_FROM)
                file.write(text.encode())
                file.truncate()


def only_iterator(record: Path, epochs: Iteration) -> Iteration:
    """Let an iterator take the place of an earlier one over the same record, here.

    An iterator that was left in the middle, in a cell that raised an error, would hold
    the record as long as the error is kept. One that is training in another thread goes on.
    """
    place = os.path.realpath(record)
    before = _being_iterated.get(place)
    if before is not None:
        # ValueError: it is training now, in another thread, and keeps the lock.
        with contextlib.suppress(ValueError):
            before.close()
    _being_iterated[place] = epochs
    return epochs


class ExclusiveUse:
    """The right to train a record, from when it was opened.

    Parameters
    ----------
    record
        Its folder. Make the object before reading anything out of it.
    """

    def __init__(self, record: Path):
        self._record = record
        self._seen = self._now()

    def _now(self) -> list[tuple[int, int, int] | None]:
        """What changes with every epoch that anybody trains."""
        return [_stamp(self._record / name) for name in ("epochs.csv", "state.pt")]

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the record while the block runs.

        Raises
        ------
        InUse
            If another process or thread trains it; the message says which.
        RunError
            If another one trained it since: what is known of it here is old.
        OSError
            If the record is gone or its folder cannot be written.
        """
        record, lock = self._record, lock_of(self._record)
        # A folder that was removed must not come back with nothing but a lock in it.
        record.stat()
        with hold(lock) as ours:
            if not ours:
                by = holder(lock)
                raise InUse(
                    f"record '{record}' is being trained by process {by.get('process', '?')} on "
                    f"{by.get('host', '?')} since {by.get('since', '?')}: wait until it has "
                    "ended, or stop it"
                )
            if self._now() != self._seen:
                raise RunError(
                    f"record '{record}' was written by somebody else since it was opened here: "
                    f"open it again with Run.resume({str(record)!r})"
                )
            try:
                yield
            finally:
                self._seen = self._now()


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


# Files and sizes. What is refused is a ValueError, where nothing else is said.


def own_file(record: Path, name: str) -> Path:
    """Return a file of a record, once it is sure that it is one and of a size to be read."""
    path = record / name
    inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(record))
    if path.is_symlink() and not inside:
        raise ValueError("it is a link that leaves the record")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file")
    most = MOST[path.name]
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size / MIB:,.0f} MiB, and {most // MIB:,} are allowed")
    return path


def check_arrays(group: Path) -> None:
    """Refuse links and odd files among the arrays of a record."""
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
    """Refuse opened zarr arrays of unknown compressors, and chunks of other sizes than they say.

    A chunk that alone would not fit into memory is an InputError. No value is read.
    """
    for name, array in arrays.items():
        codecs = {codec.to_dict()["name"] for codec in array.metadata.codecs}
        if not codecs <= CODECS:
            raise ValueError(f"'{name}' is packed with {', '.join(sorted(codecs - CODECS))}")
        expected = array.dtype.itemsize * math.prod(array.chunks)
        require_memory(f"a chunk of '{group / name}'", expected, "it is no record of a run")
        chunks = (Path(folder, file) for folder, _, files in os.walk(group / name / "c")
                  for file in files)  # fmt: skip
        for path in chunks:
            with path.open("rb") as file:
                start = file.read(CHUNK_START)
            # A torn one is met when it is read.
            if len(start) == CHUNK_START and _unpacked(start, codecs, expected) != expected:
                shown = path.relative_to(group)
                raise ValueError(f"chunk '{shown}' is not as long as its array says")


def _unpacked(start: bytes, codecs: set[str], expected: int) -> int:
    """Bytes that a chunk unpacks to by its start; -1 where it hides them."""
    if "blosc" in codecs:
        # Two versions, flags, size of an entry; then bytes unpacked, of a block, and packed.
        return int.from_bytes(start[4:8], "little")
    if "zstd" not in codecs:
        return expected
    # A frame of Zstandard (RFC 8878, 3.1.1.1).
    descriptor = start[4]
    single = bool(descriptor & 0b0010_0000)
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 0b11]
    if start[:4] != b"\x28\xb5\x2f\xfd" or width == 0 or at + width > len(start):
        return -1
    return int.from_bytes(start[at : at + width], "little") + (256 if width == 2 else 0)


def check_stored(file: Path) -> None:
    """Refuse an archive that is packed, or says that it is larger than it is.

    What ``torch.save`` writes lies in its archive as it is, so that a small file cannot
    unpack to a large one.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > file.stat().st_size:
            raise ValueError("it is not as torch writes it")


def _declared_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Bytes of an array by its header, which must agree with the bytes that are there."""
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
    """Read the known arrays of an npz file, or all, once their headers say that they are harmless.

    Raises
    ------
    DAMAGED_ARCHIVE
        One of these, where the file is damaged or holds objects.
    InputError
        If they would not fit into memory.
    """
    with zipfile.ZipFile(file) as archive:
        inside = [one for one in archive.infolist()
                  if known is None or one.filename.removesuffix(".npy") in known]  # fmt: skip
        size = sum(_declared_size(archive, one) for one in inside)
    require_memory(f"'{file}'", size, remedy)
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
