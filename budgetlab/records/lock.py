"""One record, one trainer: locks that the system frees when their holder dies.

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
import os
import platform
import stat
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from budgetlab.errors import RunError

__all__ = ["InUse", "hold", "hold_record", "holder", "is_held", "lock_of"]

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO}
# Asking whether a lock is held takes it for a moment: that is waited for, and no longer.
MOMENT_SECONDS = 0.1
# Windows locks the first byte, which nobody else can read then: the holder is named behind it.
SIGNED_FROM, MOST_SIGNED = 1, 4096


class InUse(RunError):
    """The record is being trained elsewhere now."""


def lock_of(record: Path) -> Path:
    """Where the lock of a record lies."""
    return record / ".lock"


@contextlib.contextmanager
def hold_record(record: Path) -> Iterator[None]:
    """Be the only one who trains a record while the block runs.

    Raises
    ------
    InUse
        If another process or thread is; the message says which.
    OSError
        If the record is gone or its folder cannot be written.
    """
    # A folder that was removed must not come back with nothing but a lock in it.
    record.stat()
    path = lock_of(record)
    with hold(path) as ours:
        if not ours:
            by = holder(path)
            raise InUse(
                f"record '{record}' is being trained by process {by.get('process', '?')} on "
                f"{by.get('host', '?')} since {by.get('since', '?')}: wait until it has ended, "
                "or stop it"
            )
        yield


@contextlib.contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Try to hold a lock while the block runs.

    Parameters
    ----------
    path
        Its file, made if missing, with its folder.
    wait
        Wait until it is free, instead of giving up.

    Yields
    ------
    bool
        Whether it is held now. False: it is held elsewhere.

    Raises
    ------
    OSError
        If the file cannot be made, or is a link.
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
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        # Whoever may only read cannot tell: training would be refused in any case.
        return False
    lock.release()
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
