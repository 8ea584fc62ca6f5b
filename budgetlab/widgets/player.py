"""A button that plays and pauses, by a clock in the kernel."""

import threading
from collections.abc import Callable

from budgetlab.widgets.controls import button

__all__ = ["Player"]


class Player:
    """Goes on by one step again and again until it is paused, or there is nothing left.

    The clock is here and not in the browser: a browser sends a tick whether the last
    picture has been drawn or not, and a pause would wait behind all of them.

    Parameters
    ----------
    first
        Called when it begins to play: goes on by one, or back to the start.
    step
        Goes on by one; False where there is nothing left. Both are called in a thread.
    seconds
        Pause between two steps.
    says
        What the button says while it rests, and while it goes on.
    marker, hint
        CSS class of the button, and what it does in words.

    Attributes
    ----------
    button
        Says what a click will do.
    seconds
        May be changed while it plays.
    """

    def __init__(
        self,
        first: Callable[[], object],
        step: Callable[[], bool],
        seconds: float,
        *,
        says: tuple[str, str] = ("Play", "Pause"),
        marker: str = "bl-play",
        hint: str = "Go through the epochs",
    ):
        self.first, self.step, self.seconds, self.says = first, step, seconds, says
        self._lock = threading.Lock()
        self._paused: threading.Event | None = None
        self.button = button(says[0], self.toggle, marker, hint)

    @property
    def playing(self) -> bool:
        """Whether it goes on."""
        return self._paused is not None

    def toggle(self) -> None:
        """Play, or pause where it plays."""
        if self.playing:
            self.pause()
        else:
            self.play()

    def play(self) -> None:
        """Go on, step by step; the first one at once."""
        with self._lock:
            if self._paused is None:
                self._paused = threading.Event()
                self._say()
                threading.Thread(
                    target=self._go, args=(self._paused,), name="budgetlab-player", daemon=True
                ).start()

    def pause(self) -> None:
        """Stay where it is."""
        with self._lock:
            if self._paused is not None:
                self._paused.set()
                self._paused = None
                self._say()

    def _say(self) -> None:
        self.button.description = self.says[self.playing]

    def _go(self, paused: threading.Event) -> None:
        try:
            self.first()
            while not paused.wait(self.seconds) and self.step():
                pass
        finally:
            with self._lock:
                # Paused and played again, another thread has taken over.
                if self._paused is paused:
                    self._paused = None
                    self._say()
