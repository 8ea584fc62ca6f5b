"""Arrays kept between starts: read if whole, written in one step, never required."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from budgetlab.records.safety import DAMAGED_ARCHIVE, declared_sizes, require_memory

__all__ = ["read_cache", "write_cache"]


def read_cache(
    path: Path, names: Sequence[str], *, key: str | None = None
) -> dict[str, np.ndarray] | None:
    """Read arrays written by :func:`write_cache`; None where that is not possible.

    A missing, damaged or foreign file is no error: the data is made again. Where a
    ``key`` is given, the file must hold the same one.
    """
    try:
        require_memory(f"'{path}'", declared_sizes(path, names), "")
        # Opened here: numpy leaves a damaged file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if key is not None and str(stored["key"]) != key:
                return None
            return {name: stored[name] for name in names}
    except DAMAGED_ARCHIVE:
        return None


def write_cache(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    """Write arrays under another name first, then rename: never a half-written file.

    Returns
    -------
    bool
        False if the folder cannot be written to: the cache is then left out.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return False
    return True
