"""Keep the memory of one training step for the next, on a CPU.

The C library of Linux (glibc) gives blocks of more than 128 kB back to the system as soon as
they are freed, so that every step asks for its activations again and the system clears each
page of them again: for the small network a tenth to a third of the time of a step. What is
computed does not change.
"""

import ctypes
import functools
import os

__all__ = ["keep_freed_memory"]

SWITCH = "BUDGETLAB_KEEP_MEMORY"

# Numbers and limits of mallopt, from malloc.h and its manual page.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
KEPT = 2**30
# The largest block that may lie on the heap: glibc allows no more.
LARGEST = 32 * 2**20


@functools.cache
def keep_freed_memory() -> bool:
    """Ask the C library to keep up to 1 GiB of freed memory in this process, once.

    The environment variable ``BUDGETLAB_KEEP_MEMORY=0`` leaves all as it is.

    Returns
    -------
    bool
        Whether it does so: False where another C library is in use, or where it was
        turned off.
    """
    if os.environ.get(SWITCH) == "0":
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function: not glibc
        return False
    # One heap for all threads, for the others' heaps are of 64 MiB and too small.
    options = {ARENA_MAX: 1, MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT}
    return all([set_option(name, value) == 1 for name, value in options.items()])
