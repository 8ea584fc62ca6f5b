"""One training that can be stopped, in the background or here, with one end for all ways."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from budgetlab.config import RunConfig
from budgetlab.data import Splits
from budgetlab.errors import RunError
from budgetlab.training import Run, load_data

__all__ = ["Session", "claim"]

OnStep = Callable[[Run], None]

# Building a network borrows the global random state for a moment.
_building = threading.Lock()


class _Stop(KeyboardInterrupt):
    """Ends a run from within a step as an interrupt would: its record stays resumable."""


class Session:
    """Train one run, or what is left of one.

    Parameters
    ----------
    config
        A new run.
    record
        The folder of a record to go on with, in place of ``config``.
    splits
        Gives the data of a config; may be slow.
    model
        A network of one's own, or a function that builds one.
    on_step, on_epoch
        Called with the run, in the thread that trains. Neither may touch the training.
    on_end
        Called once after everything, with the session.

    Attributes
    ----------
    run
        The run, once it is built.
    error
        What went wrong, or None.
    stopped
        Whether it was asked to stop before its end.
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
        self.started = time.monotonic()
        self._asked = threading.Event()
        self._over = threading.Event()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._over.is_set()

    def start(self) -> None:
        """Train in the background; an error is kept in :attr:`error`."""
        threading.Thread(target=self._go, name="budgetlab-training", daemon=True).start()

    def train_here(self) -> None:
        """Train and return at the end; errors and interrupts are raised."""
        self._go()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Ask to stop after the step that is being made."""
        self._asked.set()

    def abandon(self) -> None:
        """End without having begun, where what came before went wrong."""
        self.stopped = True
        self.on_end(self)
        self._over.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; False if it has not come by then."""
        # An event: an interrupt within Thread.join() makes Python take a live thread for dead.
        return self._over.wait(seconds)

    def _go(self) -> None:
        try:
            self.run = self._build()
            self._train(self.run)
        except _Stop:
            self.stopped = True
        except BaseException as error:
            # Also an interrupt, which a thread cannot pass on; train_here() raises it.
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
            if self.record is None:
                raise RunError("nothing to train: give a config or a record")
            from budgetlab.records import open_record

            config = RunConfig.from_dict(open_record(self.record).config)
        splits = self.splits(config)
        if self._asked.is_set():
            raise _Stop
        with _building:
            # Asked for while another run was being built, or the data were on their way.
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
            # Marks the record as stopped where it has not ended by itself.
            epochs.close()  # type: ignore[attr-defined]

    def _step(self, run: Run) -> None:
        if self._asked.is_set():
            raise _Stop
        self.on_step(run)


_owners: dict[str, Any] = {}
_owning = threading.Lock()


def claim(name: str, owner: Any) -> None:
    """Make ``owner`` the one of this name; ``detach()`` is called on the one before.

    So a cell that is run again leaves no training behind that draws into new widgets.
    """
    with _owning:
        before, _owners[name] = _owners.get(name), owner
    if before is not None and before is not owner:
        before.detach()
