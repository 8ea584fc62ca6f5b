"""How often to draw, so that watching costs little."""

import contextlib
import time
from collections.abc import Iterator

__all__ = ["Pace"]

WITHIN_EPOCH = 2.0


class Pace:
    """Says when it is time to draw again.

    Drawing may take a sixteenth of the time. Within an epoch the clock of the run goes on,
    so that it may take half of that only, and every two seconds at most.

    Parameters
    ----------
    shortest
        Seconds between two pictures, at least.
    """

    def __init__(self, shortest: float = 0.5):
        self.shortest = shortest
        self.took = 0.0
        self.ended: float | None = None

    def due(self, *, within_epoch: bool = False) -> bool:
        """Whether it is time; the first picture always is."""
        if self.ended is None:
            return True
        pause = max(WITHIN_EPOCH, 30 * self.took) if within_epoch else self.pause
        return time.perf_counter() - self.ended >= pause

    @property
    def pause(self) -> float:
        """Seconds from the end of one picture to the next."""
        return max(self.shortest, 15 * self.took)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Measure what drawing takes."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.ended = time.perf_counter()
            self.took = self.ended - begun
