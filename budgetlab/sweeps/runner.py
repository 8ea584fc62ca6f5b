"""The sweep itself: plans runs, trains them while it is iterated, and reports their state."""

import contextlib
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from concurrent.futures import ThreadPoolExecutor as Threads
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from budgetlab.config import RunConfig, preset_settings
from budgetlab.errors import InputError, RunError, counted, reason
from budgetlab.records.writer import holder, lock_of
from budgetlab.sweeps import dispatch
from budgetlab.sweeps.grid import (
    FIELDS,
    Grid,
    Trial,
    folders_of,
    lock_path,
    names,
    product,
    require_same_data,
    varied,
)

if TYPE_CHECKING:
    import pandas as pd

BAR = "{percentage:3.0f}% |{bar}| {elapsed} elapsed, about {remaining} left{postfix}"
POLL_SECONDS = 1.0
# Losses of a worker after which its run is given up.
MAX_LOSSES = 2


def sweep(
    grid: Grid | None = None,
    *,
    executor: Executor | None = None,
    workers: int | str = 1,
    scheduler: str = "",
    retry: bool = False,
    preset: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> "Sweep":
    """Plan a sweep; training starts when it is iterated, or with :meth:`Sweep.run`.

    Parameters
    ----------
    grid, **settings
        Fields of :class:`budgetlab.RunConfig`, each one value or several, as for
        :func:`budgetlab.sweeps.product`.
    executor
        Where to train: any :class:`concurrent.futures.Executor`, or the result of
        ``distributed.Client(...).get_executor()``. It must have access to the folders ``out`` and
        ``data_root``, and is not shut down.
    workers
        Number of processes of this machine to train in, which share its GPUs and use one thread
        each; ``"auto"`` or 0 is one per GPU, or one per core without GPUs. 1 trains in this
        process. Processes stay alive for the next sweep.
    scheduler
        Address of a Dask scheduler, such as ``tcp://host:8786``.
    retry
        Retry failed runs.
    preset
        Name of a preset, such as ``scale-model``; explicit settings override it.
    progress
        Show a progress bar with an estimate of the time left.

    Examples
    --------
    >>> plan = bl.sweep(method=["unif-SGD", "p-SGD"], seed=range(3))  # doctest: +SKIP
    >>> for row in plan:  # doctest: +SKIP
    ...     print(row["method"], row["seed"], row["test_accuracy"])
    """
    from budgetlab.training.setup import canonical_names

    dispatch.require_one_executor(executor, workers, scheduler)
    runs = product(grid, preset_settings(preset) if preset else {}, **settings)
    # Refuse unknown names before anything is trained, and spell the others as registered: another
    # case must not give a run another id.
    runs = list(dict.fromkeys(map(canonical_names, runs)))
    return Sweep(runs, (executor, scheduler, workers), retry=retry, progress=progress)


class Sweep:
    """Runs that are trained while it is iterated; made by :func:`sweep`.

    Iterating yields one row per run, as a dict: first those that had ended before, then the others
    as they end. You may break at any time: runs under way here are stopped, and resume from their
    last whole epoch when it is iterated again, here or elsewhere; on a cluster, or in your own
    executor, they run to their end. A failed run does not stop the others.
    """

    def __init__(
        self,
        runs: Iterable[RunConfig],
        place: tuple[Executor | None, str, int | str] = (None, "", 1),
        retry: bool = False,
        progress: bool = True,
    ):
        self.runs, self.retry, self.progress, self._place = list(runs), retry, progress, place
        executor, scheduler, _ = place
        if executor is not None or scheduler:
            # Another machine or process may have another working directory.
            self.runs = [
                run.replace(out=os.path.abspath(run.out), data_root=os.path.abspath(run.data_root))
                for run in self.runs
            ]
        here = isinstance(executor, Threads) or place == (None, "", 1)
        self._methods = b"" if here else dispatch.packed({run.method for run in self.runs})
        self._varied = varied(self.runs)
        named = zip(self.runs, names(self.runs), strict=True)
        self._trials = [Trial(run, name) for run, name in named]
        self.refresh()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        return f"Sweep({counted(len(self.runs), 'run')}: {counts}; iterate it, or .run(), to train)"

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def counts(self) -> dict[str, int]:
        """Number of runs planned, running, stopped, finished and failed."""
        count = Counter(one.status for one in self._trials)
        order = ("planned", "running", "stopped", "finished", "failed")
        return {status: count[status] for status in order if count[status]}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per run in its current state, in the order of the grid."""
        return [one.row(self._varied) for one in self._trials]

    @property
    def names(self) -> list[str]:
        """Display name of each run, in the order of the grid."""
        return [one.name for one in self._trials]

    @property
    def failed(self) -> dict[str, str]:
        """Reasons of failure, by the name of the run."""
        return {one.name: one.message for one in self._trials if one.status == "failed"}

    @property
    def records(self) -> list[Path]:
        """Finished records, ready for :func:`budgetlab.compare`."""
        return [one.record for one in self._trials if one.status == "finished" and one.record]

    @property
    def frame(self) -> "pd.DataFrame":
        """One row per run, at any time, in the order of the grid.

        Columns ``id``, ``status``, ``how``, ``message``, the settings, and the results of
        :func:`budgetlab.summaries`. Runs under way are shown at their last whole epoch; runs not
        begun have no results.
        """
        import pandas as pd

        from budgetlab import analysis

        self.refresh(ended=False)
        paths = [one.record for one in self._trials if one.record and one.record.is_dir()]
        table = analysis.summaries(paths) if paths else pd.DataFrame({"path": []})
        recorded = {row["path"]: row for row in table.to_dict("records")}
        rows = []
        for one in self._trials:
            state = {"id": one.run.id, "status": one.status, "how": one.how,
                     "message": one.message}  # fmt: skip
            settings = {name: getattr(one.run, name) for name in FIELDS}
            settings["dataset"] = one.run.dataset_name
            empty = dict.fromkeys(analysis.COSTS, nan) | {"test_accuracy": nan, "test_loss": nan}
            rows.append(state | settings | empty | recorded.get(str(one.record), {}) | state)
        return pd.DataFrame(rows)

    @property
    def cost_left(self) -> float:
        """Estimated cost of what is left, in samples trained on; a forward pass counts a third."""
        return sum(one.cost * (1 - one.share) for one in self._trials if self._is_due(one))

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left, from the finished runs of this grid; None without any."""
        done = [one for one in self._trials if one.status == "finished"]
        seconds = sum(one.summary.get("seconds") or 0.0 for one in done)
        cost = sum(one.cost for one in done)
        slots, _ = dispatch.slots_for(self._place[2], self.runs)
        return self.cost_left * seconds / cost / slots if cost else None

    def refresh(self, *, ended: bool = True) -> None:
        """Read the state of all runs from disk, or with ``ended=False`` of those not ended."""
        folders = folders_of(self.runs)
        for one in self._trials:
            if ended or not one.ended:
                one.look(folders[one.run])

    def run(self) -> "pd.DataFrame":
        """Train all that is left and return :attr:`frame`."""
        for _ in self:
            pass
        return self.frame

    def _is_due(self, one: Trial) -> bool:
        return one.status != "finished" and (one.status != "failed" or self.retry)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.refresh()
        require_same_data(self._trials)
        due = [one for one in self._trials if self._is_due(one)]
        for one in self._trials:
            one.lost, one.how = 0, "" if self._is_due(one) else "kept"
        for one in self._trials:
            if one.how == "kept":
                yield one.row(self._varied)
        for one in due:
            # Including failures to retry; runs trained elsewhere are waited for.
            if one.status != "running":
                one.status = "planned"
        if not due:
            return
        runs, keep = [one.run for one in due], not self._methods
        try:
            with dispatch.place(*self._place, runs, keep=keep) as executor:
                trainer = Dispatcher(self._trials, executor, self.progress)
                ended = trainer.train(due, self.retry, uuid.uuid4().hex, self._methods)
                with contextlib.closing(ended):
                    for one in ended:
                        yield one.row(self._varied)
        finally:
            self.refresh(ended=False)


class Dispatcher:
    """Submits runs to an executor, at most its ``slots`` at a time, and collects their outcomes."""

    def __init__(self, trials: list[Trial], executor: Executor, progress: bool):
        self._trials, self._executor = trials, executor
        locks = lock_path(trials[0].run).parent
        try:
            locks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"out '{locks.parent}' cannot be written ({error.strerror}): give another folder"
            ) from None
        # A cluster that scales with demand must see all that is left.
        self._slots = getattr(executor, "slots", sys.maxsize)
        self._waiting: list[Trial] = []
        self._under_way: dict[Future, Trial] = {}
        self._next_look = 0.0
        # Unsmoothed, the overall speed: runs end in bursts, which a moving average would follow.
        self._bar = tqdm(
            total=sum(one.cost for one in trials), initial=self._done(), bar_format=BAR,
            smoothing=0, file=sys.stderr, disable=not progress,
        )  # fmt: skip

    def train(self, due: list[Trial], *how: Any) -> Generator[Trial, None, None]:
        """Train ``due`` and yield each as it ends; ``how`` is as for :func:`dispatch.train_one`."""
        self._waiting = list(due)
        try:
            while self._waiting or self._under_way:
                self._submit_waiting(how)
                if not self._under_way:
                    # All that is left is trained elsewhere.
                    time.sleep(POLL_SECONDS)
                for future in wait(self._under_way, POLL_SECONDS, FIRST_COMPLETED).done:
                    one = self._under_way.pop(future)
                    self._collect(one, future)
                    if one.ended:
                        yield one
                    else:
                        self._waiting.append(one)
                self._look()
        finally:
            self._bar.close()
            for future in self._under_way:
                future.cancel()

    def _submit_waiting(self, how: tuple) -> None:
        for one in [*self._waiting]:
            if len(self._under_way) >= self._slots:
                return
            if one.status == "running" and one.is_running():
                continue
            self._waiting.remove(one)
            one.status = "running"
            self._under_way[self._submit(one, how)] = one

    def _submit(self, one: Trial, how: tuple) -> Future:
        if isinstance(self._executor, dispatch.InProcess):
            before, text = self._done() - one.done, f"{self._text()}: {one.name}"

            def follow(run: Any) -> None:
                one.share = run.budget.share_spent(run.ledger)
                self._show(before + one.cost * one.share, text)

            return self._executor.submit(dispatch.train_one, one.run, *how, follow)
        try:
            return self._executor.submit(dispatch.train_one, one.run, *how)
        except Exception as error:
            raise RunError(
                f"the executor takes no more runs ({reason(error)}): start the sweep "
                "again to go on, what is finished is kept"
            ) from error

    def _collect(self, one: Trial, future: Future) -> None:
        """Record how a run ended; one that did not is ``planned``, or ``running`` elsewhere."""
        try:
            outcome = future.result()
        except CancelledError as error:
            # Cancelled by the executor, which has lost its workers or its scheduler.
            raise RunError(
                "the executor gave the runs up: start the sweep again, which keeps what is finished"
            ) from error
        except Exception as error:
            # The worker itself was lost: dispatch.train_one returns all other failures as outcomes.
            one.lost += 1
            if one.lost < MAX_LOSSES:
                one.status = "planned"
                return
            times = f"its worker was lost {one.lost} times ({reason(error)})"
            outcome = dispatch.Outcome("failed", message=f"{times}: it may need more memory")
        one.status, one.how, one.message = outcome.status, outcome.how, outcome.message
        one.summary = outcome.summary or one.summary
        if one.status == "busy":
            one.status = "running"
        if one.status == "finished" and not (one.record and one.record.is_dir()):
            one.status = "failed"
            one.message = (
                f"its record '{one.record}' is not to be found on this machine: give a folder "
                "for out that all machines share"
            )
        if one.status == "failed" and not self._bar.disable:
            tqdm.write(f"failed: {one.name}: {one.message}", file=sys.stderr)

    def _look(self) -> None:
        """Read from disk how far the runs in other processes are, and show it."""
        began = time.monotonic()
        if not self._bar.disable and began >= self._next_look:
            going = [*self._under_way.values(), *self._elsewhere]
            folders = folders_of(one.run for one in going)
            for one in going:
                one.follow(folders[one.run])
            # Reading a thousand records takes a while: leave most of the time to the runs.
            spent = time.monotonic() - began
            self._next_look = began + max(POLL_SECONDS, 20 * spent)
        self._show(self._done(), self._text())

    @property
    def _elsewhere(self) -> list[Trial]:
        return [one for one in self._waiting if one.status == "running"]

    def _done(self) -> float:
        return sum(one.done for one in self._trials)

    def _show(self, done: float, text: str) -> None:
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)

    def _text(self) -> str:
        counts = Counter(one.status for one in self._trials)
        text = f"{counts['finished']} of {len(self._trials)} runs"
        if counts["failed"]:
            text += f", {counts['failed']} failed"
        elsewhere = self._elsewhere
        if not elsewhere:
            return text
        one = elsewhere[0]
        by = holder(lock_path(one.run)) or holder(lock_of(one.record or Path()))
        at = f"process {by.get('process', '?')} on {by.get('host', '?')}"
        return f"{text}, {len(elsewhere)} trained by {at}"
