"""One record, one trainer: locks that the system frees when their holder dies.

A lock is an empty place in a file, held with ``flock``. The kernel frees it however
its process ends, ``kill -9`` included, so there are no stale locks, no clocks to
compare and nothing to clean up. Lock files are never removed: on a network folder
another machine may still see the old one, and both would believe to hold the lock.

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
from types import ModuleType
from typing import Any

from budgetlab.errors import RunError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

__all__ = ["LOCKS", "InUse", "hold", "hold_record", "holder", "is_held", "lock_of"]

LOCKS = fcntl is not None
"""Whether this system has such locks."""

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO}


MOST_SIGNED = 4096
# A lock file out of a stranger's record may be a link to a file elsewhere, or a pipe.
CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class InUse(RunError):
    """Somebody else is training this record now."""


def lock_of(record: Path) -> Path:
    """Where the lock of a record lies."""
    return record / ".lock"


@contextlib.contextmanager
def hold_record(record: Path) -> Iterator[None]:
    """Be the only one who trains a record while the block runs.

    Raises
    ------
    InUse
        If somebody else is; the message says who.
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
        Whether it is held now. False: somebody else holds it.

    Raises
    ------
    OSError
        If the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | CAREFUL, 0o666)
    try:
        ours = _lock(handle, path, wait)
        if ours:
            _sign(handle)
        yield ours
    finally:
        # Closing frees the lock.
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock now; nothing is made."""
    if fcntl is None or not path.is_file():
        return False
    try:
        handle = os.open(path, os.O_RDWR | CAREFUL)
    except OSError:
        # Nobody who may only read can tell: training would be refused in any case.
        return False
    try:
        return not _lock(handle, path, wait=False)
    finally:
        os.close(handle)


def holder(path: Path) -> dict[str, Any]:
    """Who held a lock last: ``process``, ``host``, ``since``; empty where unknown."""
    try:
        with path.open("rb") as file:
            signed = json.loads(file.read(MOST_SIGNED))
    except (OSError, ValueError, RecursionError):
        return {}
    return signed if isinstance(signed, dict) else {}


def _lock(handle: int, path: Path, wait: bool) -> bool:
    if fcntl is None:
        _warn(path, "this system has no flock")
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _warn(path, error.strerror or "no reason given")
    return True


def _warn(path: Path, reason: str) -> None:
    warnings.warn(
        f"'{path.parent}' cannot be locked ({reason}): train in this folder from one place only",
        stacklevel=4,
    )


def _sign(handle: int) -> None:
    """Leave word of who holds the lock, for people and messages; nothing depends on it."""
    text = json.dumps(
        {
            "process": os.getpid(),
            "host": platform.node(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        # A second name of a file elsewhere: nothing is written into it.
        return
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
