"""Write a record while training, with a lock that allows one writer at a time.

The lock is a file held with filelock: with ``flock``, on Windows with ``LockFileEx``. The system
releases it however the process ends, ``kill -9`` included, so there are no stale locks, no clocks
to compare and nothing to clean up. Reading a record needs no lock. On a network folder the lock is
as good as the file system's: NFS forwards it to the server (which releases those of a vanished
machine after its lease, about 90 seconds on version 4); Lustre must be mounted with ``flock``,
BeeGFS with global locks. Without such locks there is a warning: train in one place at a time.
"""

import contextlib
import csv
import errno
import json
import os
import platform
import shutil
import stat
import warnings
import weakref
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records.format import (
    EPOCH_COLUMNS,
    FORMAT,
    SAMPLE_ARRAYS,
    compact,
    create_array,
    pack_table,
    pack_thumbnails,
    plain,
    write_atomically,
    write_column,
)

LARGE_BUDGET = 0.6
PACKAGES = ("budgetlab", "torch", "torchvision", "numpy")

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO}
# Testing whether a lock is held takes it for a moment: wait that long, and no longer.
MOMENT_SECONDS = 0.1
# Windows makes the locked first byte unreadable to others: the holder's details follow it.
HOLDER_OFFSET, MAX_HOLDER_BYTES = 1, 4096


class RecordWriter:
    """Writes one record, epoch by epoch.

    Use :meth:`create` for a new run, :meth:`reopen` to continue one.
    """

    def __init__(self, path: Path, about: dict[str, Any], epochs: list[dict[str, Any]]):
        self.path = path
        self.about = about
        self.epochs = epochs
        # Each array is opened once per run, because opening it reads its metadata.
        self._opened: dict[str, Any] = {}

    @classmethod
    def create(
        cls,
        config: RunConfig,
        *,
        metadata: pd.DataFrame,
        data: dict[str, Any],
        hardware: dict[str, Any],
    ) -> "RecordWriter":
        """Create the folder of a new record under ``config.out``.

        It is named :attr:`~RunConfig.folder_name`, with a number appended if that exists, so that
        nothing is overwritten. ``metadata`` has one row per training sample, with a column
        ``label``; ``data`` (name, fingerprint, classes, counts) and ``hardware`` are stored as
        given. If the folder cannot be made, or the disk is full, nothing is left behind.
        """
        about = {
            "format": FORMAT,
            "id": config.id,
            "status": "running",
            "message": "",
            "started": now(),
            "updated": now(),
            "config": config.to_dict(),
            "data": data,
            "hardware": hardware,
            "versions": {name: _version(name) for name in PACKAGES}
            | {"python": platform.python_version()},
            "summary": {},
        }
        import zarr

        with new_folder(config) as path:
            group = zarr.create_group(path / "samples.zarr", overwrite=True)
            shape = config.epochs, len(metadata)
            # Speed matters if epochs are short, space if all samples are trained on.
            level = 7 if config.budget > LARGE_BUDGET else 3
            for name in SAMPLE_ARRAYS:
                create_array(group, name, shape, (1, len(metadata)), level)
            for name, column in metadata.items():
                write_column(group, str(name), column)
            write_about(path, about)
        return cls(path, about, [])

    @classmethod
    def reopen(cls, path: Path | str, epochs: int) -> "RecordWriter":
        """Continue a record after epoch ``epochs``."""
        from budgetlab.records.reader import open_record

        record = open_record(path)
        rows = []
        if len(record.epochs):
            # Read exactly: pandas before 3 may change the last digit.
            table = (record.path / "epochs.csv").read_text(encoding="utf-8").splitlines()
            rows = [{name: int(text) if text.isdigit() else float(text or "nan")
                     for name, text in row.items()} for row in csv.DictReader(table)]  # fmt: skip
        return cls(record.path, dict(record.about), rows[:epochs])

    def append_epoch(self, row: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Append one epoch: values of :data:`EPOCH_COLUMNS`, and ``[N]`` of :data:`SAMPLE_ARRAYS`.

        Missing values stay empty. An OSError means that the record was removed, at least in part,
        or that the disk is full.
        """
        import zarr

        # Writing to an open array would recreate its folder in a record that was removed.
        for part in ("record.json", "samples.zarr/zarr.json"):
            (self.path / part).stat()
        # Written with zarr into arrays made for all epochs: xarray's ``to_zarr(append_dim=...)``
        # rewrites the metadata of every array each epoch, so a kill may leave them of different
        # lengths, and takes almost four times as long (23 ms instead of 6 for 10,000 samples).
        position = len(self.epochs)
        for name, values in compact(arrays).items():
            if name not in self._opened:
                self._opened[name] = zarr.open_array(self.path / "samples.zarr" / name, mode="r+")
            array = self._opened[name]
            if position >= array.shape[0]:
                array.resize((position + 1, array.shape[1]))
            array[position] = values
        # The row comes last: readers trust as many epochs as there are rows.
        epochs = [*self.epochs, {name: row.get(name, np.nan) for name in EPOCH_COLUMNS}]
        table = pd.DataFrame(epochs, columns=list(EPOCH_COLUMNS))
        write_atomically(self.path / "epochs.csv", table.to_csv(index=False).encode())
        self.epochs = epochs

    def complete_labels(self, labels: np.ndarray, classes: list[str]) -> None:
        """Fill in labels ``[N]`` that were :data:`UNKNOWN` when the record was created.

        Chunks are replaced whole, and old ones beside new ones are merely incomplete; the classes
        are written first, so that no label ever lacks a name.
        """
        import zarr

        column = zarr.open_array(self.path / "samples.zarr" / "label", mode="r+")
        if not np.array_equal(column[:], labels):
            self.about["data"]["classes"] = classes
            write_about(self.path, self.about)
            column[:] = labels

    def set_status(self, status: str, message: str = "", summary: dict | None = None) -> None:
        """Set the status of the run; ``summary`` replaces the stored one."""
        self.about |= {"status": status, "message": message, "updated": now()}
        if summary is not None:
            self.about["summary"] = summary
        write_about(self.path, self.about)

    def save(self, name: str, content: bytes) -> None:
        """Store a whole file of the record, such as the weights."""
        write_atomically(self.path / name, content)

    def save_thumbnails(self, indices: np.ndarray, images: np.ndarray) -> None:
        """Store images ``uint8 [K, H, W, C]`` of the training samples ``indices [K]``."""
        self.save("thumbnails.npz", pack_thumbnails(indices, images))

    def save_predictions(self, table: pd.DataFrame) -> None:
        """Store the predictions for the test samples: ``label``, ``predicted``, metadata."""
        self.save("predictions.npz", pack_table(table))


def write_about(path: Path, about: dict[str, Any]) -> None:
    """Write ``record.json``."""
    text = json.dumps(plain(about), indent=1, allow_nan=False)
    write_atomically(path / "record.json", text.encode())


@contextlib.contextmanager
def new_folder(config: RunConfig) -> Iterator[Path]:
    """Create the folder of a new record, and leave nothing behind if filling it fails."""
    out, made = Path(config.out), None
    try:
        for number in range(1, 10_000):
            path = out / (config.folder_name + (f"-{number}" if number > 1 else ""))
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not out.is_dir():
                    raise
            else:
                made = path
                yield made
                return
        raise InputError(f"out '{out}' holds 10,000 records of this run: give another folder")
    except BaseException as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, OSError):
            raise _not_written(out, error) from None
        raise


def _not_written(out: Path, error: OSError) -> InputError | RunError:
    if out.is_file():
        return InputError(f"out '{out}' is a file: give a folder")
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"out '{out}' cannot be written ({reason}): make room and start again")
    return InputError(f"out '{out}' cannot be written ({reason}): give another folder with --out")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # used from a checkout, without being installed
        return "not installed"


def now() -> str:
    """Return the current time in UTC, to the second, as records store it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


# Exclusive use

Iteration = Generator[dict[str, Any], None, None]

# Epoch iterators of this process, by the real path of their record.
_being_iterated: weakref.WeakValueDictionary[str, Iteration] = weakref.WeakValueDictionary()


class InUse(RunError):
    """The record is being trained elsewhere."""


def lock_of(record: Path) -> Path:
    """Return the path of a record's lock."""
    return record / ".lock"


@contextlib.contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Try to hold a lock inside the block; yields whether it is held.

    The file and its folder are created if missing. ``wait`` blocks until the lock is free. An
    OSError means that the file cannot be created or is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not bound to a thread: training is a generator, which another thread may close.
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
            _write_holder(path)
        yield ours
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Tell whether a lock is held now, here or elsewhere, without creating anything."""
    if not path.is_file():
        return False
    try:
        with FileLock(path, thread_local=False, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        # Without write permission we cannot tell; training would be refused anyway.
        return False


def holder(path: Path) -> dict[str, Any]:
    """Return the last holder of a lock: ``process``, ``host``, ``since``; empty if unknown."""
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            file.seek(HOLDER_OFFSET)
            signed = json.loads(file.read(MAX_HOLDER_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return signed if isinstance(signed, dict) else {}


def _write_holder(path: Path) -> None:
    """Write down who holds the lock, for messages only."""
    text = json.dumps({"process": os.getpid(), "host": platform.node(), "since": now()})
    with contextlib.suppress(OSError):
        about = path.lstat()
        # In a stranger's record it may be a pipe, or a hard link to a file elsewhere.
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
            with path.open("r+b") as file:
                file.seek(HOLDER_OFFSET)
                file.write(text.encode())
                file.truncate()


def only_iterator(record: Path, epochs: Iteration) -> Iteration:
    """Replace an earlier iterator of this process over the same record.

    An iterator abandoned midway, in a cell that raised an error, would hold the record as long as
    the error is kept. One that is training in another thread goes on.
    """
    place = os.path.realpath(record)
    before = _being_iterated.get(place)
    if before is not None:
        # It raises ValueError if it is training in another thread, and keeps the lock.
        with contextlib.suppress(ValueError):
            before.close()
    _being_iterated[place] = epochs
    return epochs


class ExclusiveUse:
    """The right to train a record; created before anything is read from its folder."""

    def __init__(self, record: Path):
        self._record = record
        self._seen = self._now()

    def _now(self) -> list[tuple[int, int, int] | None]:
        """Return stamps of the files that every trained epoch changes."""
        return [_stamp(self._record / name) for name in ("epochs.csv", "state.pt")]

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the record inside the block.

        Raises InUse if another process or thread trains it, and names it; RunError if another one
        trained it since, so that what is known of it here is outdated; OSError if it is gone or its
        folder cannot be written.
        """
        record, lock = self._record, lock_of(self._record)
        # A removed folder must not be recreated with nothing but a lock in it.
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
