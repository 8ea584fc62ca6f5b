"""Whether arrays will fit, asked before they are allocated."""

import os
from pathlib import Path

from budgetlab.errors import InputError

__all__ = ["available_memory", "require_memory"]

# The data is held once more for a moment, while it is split.
COPIES = 2


def available_memory() -> int | None:
    """Bytes that can be allocated now; the whole memory where that is not told; None if unknown."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def require_memory(what: str, size: int, remedy: str) -> None:
    """Refuse data that would not fit.

    Parameters
    ----------
    what
        Named in the message.
    size
        Bytes of the arrays.
    remedy
        What to do instead, ends the message.
    """
    free = available_memory()
    if free is not None and size * COPIES > free:
        raise InputError(
            f"{what} needs {size * COPIES / 2**30:.1f} GiB of memory and "
            f"{free / 2**30:.1f} GiB are free: {remedy}"
        )
