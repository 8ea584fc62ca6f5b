"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable

__all__ = ["until"]


def until(happened: Callable[[], object], seconds: float = 180) -> None:
    """Return as soon as something is the case; fail where it does not come in time."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
