"""One run, one trainer: locks that the system frees when their holder dies.

A lock is an empty place in a file, held with ``flock``. The kernel frees it however
its process ends, ``kill -9`` included, so there are no stale locks, no clocks to
compare and nothing to clean up. Lock files are never removed: on a network folder
another machine may still see the old one, and both would believe to hold the lock.

On a network folder the lock is as good as the file system's: NFS takes it to the server
(and frees those of a machine that vanished after its lease, about 90 seconds on
version 4); Lustre must be mounted with ``flock``, BeeGFS with global locks. A system
without such locks is met with a warning: there, start one sweep at a time.
"""

import contextlib
import errno
import json
import os
import platform
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

__all__ = ["hold", "holder", "is_held"]

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO}


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
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
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
    handle = os.open(path, os.O_RDWR)
    try:
        return not _lock(handle, path, wait=False)
    finally:
        os.close(handle)


def holder(path: Path) -> dict[str, Any]:
    """Who held a lock last: ``process``, ``host``, ``since``; empty where unknown."""
    try:
        signed = json.loads(path.read_text())
    except (OSError, ValueError):
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
        f"'{path.parent}' cannot be locked ({reason}): do not start a second sweep on this folder",
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
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
