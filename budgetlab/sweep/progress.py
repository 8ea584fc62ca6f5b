"""One bar over all runs of a sweep, each weighted by what it costs."""

import sys
from types import TracebackType

from tqdm.auto import tqdm

__all__ = ["Bar"]

FORMAT = "{percentage:3.0f}% |{bar:30}| {elapsed} gone, about {remaining} left{postfix}"


class Bar:
    """Shows how far a grid is, and about how long it still takes.

    Parameters
    ----------
    total
        Cost of all runs, in any unit.
    done
        Cost of what was there before; it does not count for the speed.
    shown
        Whether to show anything.
    """

    def __init__(self, total: float, done: float, shown: bool):
        self.shown = shown
        # The average speed so far: runs end in bursts, which a moving average would follow.
        self._bar = tqdm(
            total=total, initial=done, bar_format=FORMAT, smoothing=0, file=sys.stderr,
            disable=not shown,
        )  # fmt: skip

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, done: float, words: str) -> None:
        """Move to what is done now, and say so in a few words."""
        if self.shown:
            self._bar.set_postfix_str(words, refresh=False)
            self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        if self.shown:
            tqdm.write(text, file=sys.stderr)
