"""Background work of widgets: training sessions, widgets that train, drawing pace, a player."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as W

from budgetlab.config import RunConfig
from budgetlab.data import Splits
from budgetlab.errors import RunError
from budgetlab.records import open_record
from budgetlab.training import Run, load_data
from budgetlab.widgets.controls import Panel, button

OnStep = Callable[[Run], None]
WITHIN_EPOCH = 2.0  # seconds

# Building a network temporarily uses the global random state.
_building = threading.Lock()
_owners: dict[tuple[type, str], "Trainer"] = {}
_owning = threading.Lock()


class _Stop(KeyboardInterrupt):
    """Raised within a step to end a run like an interrupt: its record stays resumable."""


class Session:
    """A stoppable training of one run, new or resumed, in a thread or in the foreground.

    Pass ``config`` for a new run or ``record``, a folder, to resume one. ``splits`` loads the data
    of a config, possibly slowly; ``model`` is a custom network, or a function that builds one.
    ``on_step`` and ``on_epoch`` are called with the run in the training thread and must not change
    it; ``on_end`` is called with the session at the very end. ``run`` is set once it is built,
    ``error`` is an exception if training failed, ``stopped`` whether it was stopped early.
    """

    def __init__(
        self,
        config: RunConfig | None = None,
        *,
        record: Path | None = None,
        splits: Callable[[RunConfig], Splits] = load_data,
        model: Any = None,
        on_step: OnStep = lambda run: None,
        on_epoch: OnStep = lambda run: None,
        on_end: Callable[["Session"], None] = lambda session: None,
    ):
        self.config, self.record, self.splits, self.model = config, record, splits, model
        self.on_step, self.on_epoch, self.on_end = on_step, on_epoch, on_end
        self.run: Run | None = None
        self.error: BaseException | None = None
        self.stopped = False
        self._asked, self._over = threading.Event(), threading.Event()

    @property
    def running(self) -> bool:
        """Whether the session has not ended."""
        return not self._over.is_set()

    def start(self) -> None:
        """Train in the background; an error is kept in :attr:`error`."""
        threading.Thread(target=self._go, name="budgetlab-training", daemon=True).start()

    def train_in_foreground(self) -> None:
        """Train in the foreground; raise errors and interrupts."""
        self._go()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Request a stop after the current step."""
        self._asked.set()

    def abandon(self) -> None:
        """Stop; end a session that has not started, because an earlier one failed."""
        self.stop()
        if self.run is None and self.error is None:
            self.stopped = True
            self.on_end(self)
            self._over.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; return False on timeout."""
        # Not Thread.join(): after an interrupt within it, Python takes a live thread for dead.
        return self._over.wait(seconds)

    def _go(self) -> None:
        try:
            self.run = self._build()
            self._train(self.run)
        except _Stop:
            self.stopped = True
        except BaseException as error:
            # Interrupts too, which a thread cannot propagate; train_here() raises them.
            self.stopped = isinstance(error, KeyboardInterrupt)
            self.error = error
        finally:
            try:
                self.on_end(self)
            finally:
                self._over.set()

    def _build(self) -> Run:
        config = self.config
        if config is None:
            assert self.record is not None, "a session has a config or a record"
            config = RunConfig.from_dict(open_record(self.record).config)
        splits = self.splits(config)
        with _building:
            # Stopped while another run was being built, or the data were loading.
            if self._asked.is_set():
                raise _Stop
            if self.record is not None:
                return Run.resume(self.record, splits=splits, model=self.model, on_step=self._step)
            return Run(config, splits=splits, model=self.model, on_step=self._step)

    def _train(self, run: Run) -> None:
        epochs = iter(run)
        try:
            for _ in epochs:
                self.on_epoch(run)
                if self._asked.is_set() and not run.loop.finished:
                    raise _Stop
        finally:
            # Marks the record as stopped if the run did not finish.
            epochs.close()  # type: ignore[attr-defined]

    def _step(self, run: Run) -> None:
        if self._asked.is_set():
            raise _Stop
        self.on_step(run)


class Trainer(Panel):
    """A widget that trains. A new one of the same name stops and replaces the old one, so that
    re-running a cell leaves no training behind that draws into new widgets.
    """

    what = "widget"
    sessions: Sequence[Session] = ()

    def __init__(self, name: str):
        super().__init__(f"bl-{self.what}")
        self.name = name
        self._lock, self._detached = threading.RLock(), False

    def claim(self, *parts: W.Widget) -> None:
        """Take over the name; ``parts`` are disabled once a newer widget does so."""
        self._ends = parts
        with _owning:
            before = _owners.get((type(self), self.name))
            _owners[type(self), self.name] = self
        if before is not None:
            before.detach()

    def detach(self) -> None:
        """Stop and never draw again, as another widget of this name has taken over."""
        self._detached = True
        for session in self.sessions:
            session.stop()
        for part in self._ends:
            part.disabled = True
        self.status.say(f"A newer {self.what} named '{self.name}' has taken over: go on there.")

    def close(self) -> None:
        """Stop training, which nobody could see or stop any more, and close the widget."""
        for session in self.sessions:
            session.stop()
        super().close()

    def train_in_background(self, begin: Callable[[], Sequence[Session]]) -> None:
        """Train the sessions made by ``begin`` in the background."""
        with self.status.showing_errors():
            for session in begin():
                session.start()

    def train_in_foreground(self, begin: Callable[[], Sequence[Session]]) -> Sequence[Session]:
        """Train the sessions made by ``begin`` in turn; report errors and raise them."""
        try:
            sessions = begin()
        except Exception as error:
            self.status.complain(error)
            raise
        try:
            for session in sessions:
                session.train_in_foreground()
        except BaseException:
            for session in sessions:
                session.abandon()
            raise
        return sessions

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until nothing is training; return False on timeout."""
        end = None if seconds is None else time.monotonic() + seconds
        while running := [session for session in self.sessions if session.running]:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not running[0].wait(left):
                return False
        return True

    def refuse(self, training: bool) -> None:
        """Raise RunError if a newer widget has taken over, or a run is already ``training``."""
        if self._detached:
            raise RunError(f"a newer {self.what} named '{self.name}' has taken over: go on there")
        if training:
            raise RunError(f"a run is training in this {self.what}: stop it first, or wait")


class RateLimiter:
    """Rate limiter for drawing, so that watching costs little.

    Drawing may take 1/25 of the time between drawings. Within an epoch, where it counts towards
    the run's own time, it may take half of that, and happens every two seconds at most. Drawings
    are at least ``shortest`` seconds apart, the first one included. The measured drawing time
    carries over from one run to the next.
    """

    def __init__(self, shortest: float = 0.5):
        self.shortest = shortest
        self.took = 0.0
        self.ended = time.perf_counter()

    def begin(self) -> None:
        """Restart the clock; keep the measured drawing time."""
        self.ended = time.perf_counter()

    def due(self, *, within_epoch: bool = False) -> bool:
        """Whether it is time to draw."""
        slow = max(WITHIN_EPOCH, 50 * self.took) if within_epoch and self.took else self.pause
        return time.perf_counter() - self.ended >= slow

    @property
    def pause(self) -> float:
        """Seconds to wait between drawings."""
        return max(self.shortest, 25 * self.took)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Measure the time of a drawing."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.ended = time.perf_counter()
            self.took = self.ended - begun


class Player:
    """A play/pause button that steps until it is paused or no step is left.

    The clock runs in the kernel: a browser would send ticks whether or not the last drawing is
    done, and a pause would queue behind them.

    ``first`` makes the first step, or returns to the start; ``step`` advances by one and returns
    False if nothing is left. Both are called in a thread, ``seconds`` apart. ``says`` holds the
    button's text when paused and when playing.
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
        """Whether it is playing."""
        return self._paused is not None

    def toggle(self) -> None:
        """Switch between playing and paused."""
        if self.playing:
            self.pause()
        else:
            self.play()

    def play(self) -> None:
        """Start stepping, with the first step at once."""
        with self._lock:
            if self._paused is None:
                self._say(threading.Event())
                threading.Thread(
                    target=self._go, args=(self._paused,), name="budgetlab-player", daemon=True
                ).start()

    def pause(self) -> None:
        """Stop stepping."""
        with self._lock:
            if self._paused is not None:
                self._paused.set()
                self._say(None)

    def _say(self, paused: threading.Event | None) -> None:
        self._paused = paused
        self.button.description = self.says[self.playing]

    def _go(self, paused: threading.Event) -> None:
        try:
            self.first()
            while not paused.wait(self.seconds) and self.step():
                pass
        finally:
            with self._lock:
                # Unless paused and played again: then another thread has taken over.
                if self._paused is paused:
                    self._say(None)
