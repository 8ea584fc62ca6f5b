"""Memory of a step is kept for the next, where the C library can."""

import ctypes
import os
import subprocess
import sys

import pytest

from budgetlab.training import allocation

# Straight from the C library: what torch keeps in between decides by luck whether the blocks of
# the last step can be given back (with torch 2.6 they mostly cannot).
COUNT = """
import ctypes, resource
from budgetlab.training.allocation import keep_freed_memory

c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
BLOCK = ctypes.c_size_t(2**24)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed_memory()
def like_a_step():
    held = [ctypes.c_void_p(c.malloc(BLOCK)) for _ in range(8)]
    for block in held:
        c.memset(block, 1, BLOCK)
    for block in held:
        c.free(block)

like_a_step()
before = faults()
for _ in range(10):
    like_a_step()
print(kept, faults() - before)
"""


def glibc() -> bool:
    try:
        return bool(ctypes.CDLL(None).mallopt)
    except (AttributeError, OSError, TypeError):
        return False


def counted(**environment: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=os.environ | environment, capture_output=True,
        text=True, check=True, timeout=120,
    )  # fmt: skip
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(not glibc(), reason="only glibc can be told to keep memory")
def test_freed_memory_is_used_again_without_asking_the_system():
    without, with_it = counted(BUDGETLAB_KEEP_MEMORY="0"), counted()
    assert (without[0], with_it[0]) == ("False", "True")
    # Ten times 128 MiB, in pages of 4 kB or of 2 MB.
    assert without[1] >= 10 * 64
    assert with_it[1] < without[1] / 10


@pytest.mark.parametrize("missing", [AttributeError, OSError, TypeError])
def test_another_c_library_is_left_as_it_is(monkeypatch, missing):
    def no_library(_: None) -> None:
        raise missing

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert allocation.keep_freed_memory.__wrapped__() is False
