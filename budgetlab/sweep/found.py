"""What of a run is there already: its record, found by the name of its folder."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.records import Record
from budgetlab.records.lock import is_held, lock_of

__all__ = ["Folders", "find_record", "lock_path", "share_done"]

# Which record to trust where a run left several.
PREFERENCE = ("finished", "running", "stopped", "failed")
NUMBERED = re.compile(r"(.+-s\d+-[0-9a-f]{10})(-\d+)?")


class Folders:
    """Names of the folders under some ``out``, read once for many runs."""

    def __init__(self, outs: Iterable[str]):
        self._names: dict[tuple[str, str], list[str]] = {}
        for out in set(outs):
            for name in _listed(Path(out)):
                match = NUMBERED.fullmatch(name)
                if match:
                    self._names.setdefault((out, match[1]), []).append(name)

    def record(self, run: RunConfig) -> Record | None:
        """Return the record of a run, the best one where there are several."""
        names = self._names.get((run.out, run.folder_name), [])
        records = [_opened(Path(run.out) / name) for name in sorted(names)]
        fitting = [one for one in records if one is not None and one.about.get("id") == run.id]
        known = [one for one in fitting if one.status in PREFERENCE]
        return min(known, key=lambda one: PREFERENCE.index(one.status), default=None)

    def is_under_way(self, run: RunConfig) -> bool:
        """Whether somebody is at a run now: a sweep, or ``train`` and ``resume`` at its record."""
        names = self._names.get((run.out, run.folder_name), [])
        records = [lock_of(Path(run.out) / name) for name in names]
        return any(is_held(path) for path in (lock_path(run), *records))


def find_record(run: RunConfig) -> Record | None:
    """Return the record of one run as it is on disk now, if there is one."""
    return Folders([run.out]).record(run)


def lock_path(run: RunConfig) -> Path:
    """Where the lock of a run lies: beside the records, one file a run."""
    return Path(run.out) / ".sweep" / f"{run.folder_name}.lock"


def share_done(record: Record) -> float:
    """Share of the budget that the whole epochs of a record have spent, 0 to 1."""
    if record.status == "finished":
        return 1.0
    try:
        progress = record.epochs["progress"]
    except InputError:
        return 0.0
    last = float(progress.iloc[-1]) if len(progress) else 0.0
    return 0.0 if pd.isna(last) else min(max(last, 0.0), 1.0)


def _listed(out: Path) -> list[str]:
    try:
        return os.listdir(out)
    except (FileNotFoundError, NotADirectoryError):
        # Not there yet; a file in its place is refused when the first record is made.
        return []


def _opened(path: Path) -> Record | None:
    """A record, or None where the folder holds none that can be read: it is left alone."""
    try:
        return Record(path)
    except InputError:
        return None
