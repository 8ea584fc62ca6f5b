"""Handing runs out to an executor, taking back what comes, and stopping it all."""

import contextlib
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from pathlib import Path
from typing import TYPE_CHECKING

from budgetlab.errors import InputError, RunError
from budgetlab.records.lock import holder, is_held, lock_of
from budgetlab.sweep.executors import InProcess
from budgetlab.sweep.found import Folders, lock_path
from budgetlab.sweep.planned import Planned
from budgetlab.sweep.progress import Bar
from budgetlab.sweep.worker import ASK_SECONDS, Job, Outcome, train_one

if TYPE_CHECKING:
    from budgetlab.training import Run

__all__ = ["Hands", "stop_file"]

POLL_SECONDS = 1.0
STOP_SECONDS = 120.0
# A run that takes its worker with it would do so for ever.
MOST_LOST = 2


class Hands:
    """Hands runs to an executor and takes them back, for the length of one iteration.

    Parameters
    ----------
    planned
        All runs of the grid, for the progress.
    executor
        Where to train. With an attribute ``slots``, no more calls than that are under way.
    bar
        Shows the progress.
    stop
        File whose appearance stops all runs.
    retry, modules
        For every :class:`~budgetlab.sweep.worker.Job`.
    """

    def __init__(
        self,
        planned: list[Planned],
        executor: Executor,
        bar: Bar,
        stop: Path,
        *,
        retry: bool,
        modules: tuple[str, ...],
    ):
        self._planned, self._executor, self._bar, self._stop = planned, executor, bar, stop
        self._retry, self._modules = retry, modules
        # A cluster that grows with what is asked of it must see all that is left.
        self._slots = getattr(executor, "slots", sys.maxsize)
        self._under_way: dict[Future, Planned] = {}
        self._elsewhere: list[Planned] = []
        self._next_look = 0.0

    def train(self, due: list[Planned]) -> Iterator[Planned]:
        """Train them all; yields each as it ends."""
        todo = deque(due)
        while todo or self._under_way or self._elsewhere:
            while todo and len(self._under_way) < self._slots:
                self._hand_out(todo.popleft())
            for one in self._take_back():
                if one.status == "planned":
                    todo.append(one)
                else:
                    yield one
            todo.extend(self._freed())
            self._look()

    def _hand_out(self, one: Planned) -> None:
        one.status = "running"
        job = Job(one.run, self._retry, self._stop, self._modules)
        if isinstance(self._executor, InProcess):
            future = self._executor.submit(train_one, job, self._follow(one))
        else:
            try:
                future = self._executor.submit(train_one, job)
            except Exception as error:
                raise RunError(
                    f"the executor takes no more runs ({_reason(error)}): start the sweep again "
                    "to go on, what is finished is kept"
                ) from error
        self._under_way[future] = one

    def _follow(self, one: Planned) -> Callable[["Run"], None]:
        """Make what shows the progress of a run in this process after every step."""
        before, words = self._done() - one.done, self._words()

        def show(run: "Run") -> None:
            one.share = run.budget.share_spent(run.ledger)
            self._bar.show(before + one.cost * one.share, f"{words}: {one.name}")

        return show

    def _take_back(self) -> list[Planned]:
        """Runs that have ended, or must be handed out again (``planned``)."""
        if not self._under_way:
            return []
        done = wait(self._under_way, POLL_SECONDS, FIRST_COMPLETED).done
        back = []
        for future in done:
            one = self._under_way.pop(future)
            self._settle(one, future)
            if one.status == "busy":
                one.status = "running"
                self._elsewhere.append(one)
                continue
            if one.status == "failed":
                self._bar.say(f"failed: {one.name}: {one.message}")
            back.append(one)
        return back

    def _settle(self, one: Planned, future: Future) -> None:
        try:
            one.end(future.result())
        except CancelledError as error:
            # Not by us: the executor has lost its workers, or its scheduler.
            raise RunError(
                "the executor has given the runs up: start the sweep again to go on, what is "
                "finished is kept"
            ) from error
        except Exception as error:
            # No outcome: the worker itself was lost. train_one returns all other failures.
            one.lost += 1
            one.status = "planned"
            if one.lost >= MOST_LOST:
                one.end(Outcome("failed", message=_lost(one.lost, error)))

    def _freed(self) -> list[Planned]:
        """Runs that another sweep was at and has left, finished or not."""
        if self._elsewhere and not self._under_way:
            time.sleep(POLL_SECONDS)
        folders = Folders(one.run.out for one in self._elsewhere)
        freed = [one for one in self._elsewhere if not folders.is_under_way(one.run)]
        self._elsewhere = [one for one in self._elsewhere if one not in freed]
        return freed

    def _look(self) -> None:
        """See on disk how far the runs are that train elsewhere, and show it."""
        began = time.monotonic()
        if self._bar.shown and began >= self._next_look:
            waiting = [*self._under_way.values(), *self._elsewhere]
            folders = Folders(one.run.out for one in waiting)
            for one in waiting:
                one.look(folders.record(one.run))
            # A thousand at a time take a while to read: most of the time is for the runs.
            spent = time.monotonic() - began
            self._next_look = began + max(POLL_SECONDS, 20 * spent)
        self._bar.show(self._done(), self._words())

    def _done(self) -> float:
        return sum(one.done for one in self._planned)

    def _words(self) -> str:
        finished = sum(one.status == "finished" for one in self._planned)
        failed = sum(one.status == "failed" for one in self._planned)
        words = f"{finished} of {len(self._planned)} runs" + (f", {failed} failed" * bool(failed))
        if self._elsewhere:
            one = self._elsewhere[0]
            by = holder(lock_path(one.run)) or holder(lock_of(one.record or Path()))
            words += (
                f", {len(self._elsewhere)} trained by process {by.get('process', '?')} "
                f"on {by.get('host', '?')}"
            )
        return words

    def end(self) -> None:
        """Stop what is under way, and wait until it has."""
        if not self._under_way:
            return
        with contextlib.suppress(OSError):
            self._stop.touch()
        wait(self._under_way, 3 * ASK_SECONDS)
        for future, one in self._under_way.items():
            # What has begun must see the file before it is gone; the rest need not begin.
            if not is_held(lock_path(one.run)):
                future.cancel()
        wait(self._under_way, STOP_SECONDS)


@contextlib.contextmanager
def stop_file(out: Path) -> Iterator[Path]:
    """Name a file whose appearance stops all runs of this sweep, and remove it at the end."""
    stop = out / ".sweep" / f"stop-{uuid.uuid4().hex}"
    try:
        stop.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"out '{out}' cannot be written ({error.strerror}): give another folder"
        ) from None
    try:
        yield stop
    finally:
        stop.unlink(missing_ok=True)


def _lost(times: int, error: Exception) -> str:
    message = f"its worker was lost {times} times ({_reason(error)}): it may need more memory"
    if isinstance(error, BrokenExecutor):
        message += "; a script that starts processes must do so below if __name__ == '__main__'"
    return message


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
