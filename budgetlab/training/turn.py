"""One record, one trainer: whose turn it is, and whether somebody else had it meanwhile."""

import contextlib
import os
import weakref
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from budgetlab.errors import RunError
from budgetlab.records.lock import hold_record

__all__ = ["Turn", "alone"]

Epochs = Generator[dict[str, Any], None, None]

# Epochs of this process that are being iterated, by the real place of their record.
_under_way: weakref.WeakValueDictionary[str, Epochs] = weakref.WeakValueDictionary()


def alone(record: Path, epochs: Epochs) -> Epochs:
    """Let an iterator take the place of an earlier one over the same record, here.

    An iterator that was left in the middle, in a cell that raised an error, would hold
    the record as long as the error is kept. One that is training in another thread goes on.
    """
    place = os.path.realpath(record)
    before = _under_way.get(place)
    if before is not None:
        # ValueError: it is training now, in another thread, and keeps the lock.
        with contextlib.suppress(ValueError):
            before.close()
    _under_way[place] = epochs
    return epochs


class Turn:
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
            If somebody else is training it.
        RunError
            If somebody else trained it since: what is known of it here is old.
        OSError
            If the record is gone or cannot be written.
        """
        with hold_record(self._record):
            if self._now() != self._seen:
                raise RunError(
                    f"record '{self._record}' was written by somebody else since it was opened "
                    f"here: open it again with Run.resume({str(self._record)!r})"
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
