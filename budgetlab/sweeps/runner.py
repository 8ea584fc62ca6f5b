"""The sweep itself: plans runs, trains them while it is iterated, and knows how all stand."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetlab import presets
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, counted
from budgetlab.sweeps.dispatch import Dispatcher, InProcess, connect, processes, slots_for
from budgetlab.sweeps.grid import FIELDS, Grid, names, product, varied, with_known_names
from budgetlab.sweeps.trials import RunIndex, Trial, forget_data, packed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Sweep", "sweep"]


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
    """Plan a sweep; iterate it, or call :meth:`Sweep.run`, to train.

    Parameters
    ----------
    grid
        Settings by name, each one value or several; or a list of such, or of
        :class:`budgetlab.RunConfig`. See :func:`budgetlab.sweeps.product`.
    executor
        Where to train: any :class:`concurrent.futures.Executor`, or what
        ``distributed.Client(...).get_executor()`` returns. It must reach the folders
        ``out`` and ``data_root``. It is not shut down.
    workers
        Train in this many processes of this machine, which share its GPUs and take one
        thread each; ``"auto"`` or 0 takes one a GPU, or one a core where there is none.
        1 trains in this process. Processes stay alive for the next sweep.
    scheduler
        Address of a Dask scheduler, such as ``tcp://host:8786``.
    retry
        Try failed runs again.
    preset
        Name of settings that belong together, such as ``scale-model``; those that are
        given win over it.
    progress
        Show a bar with an estimate of the time left.
    **settings
        Fields of :class:`budgetlab.RunConfig`, each one value or several.

    Returns
    -------
    Sweep
        Nothing is trained yet.

    Raises
    ------
    InputError
        If a name or value is not allowed.

    Examples
    --------
    >>> plan = bl.sweep(method=["unif-SGD", "p-SGD"], seed=range(3))  # doctest: +SKIP
    >>> for row in plan:  # doctest: +SKIP
    ...     print(row["method"], row["seed"], row["test_accuracy"])
    """
    _check_places(executor, workers, scheduler)
    base = presets.settings(preset) if preset else {}
    runs = with_known_names(product(grid, base, **settings))
    return Sweep(
        runs, executor=executor, workers=workers, scheduler=scheduler, retry=retry,
        progress=progress,
    )  # fmt: skip


class Sweep:
    """Runs that are trained while it is iterated; :func:`sweep` makes one.

    Iterating yields one row a run, as a dict: those that had ended before first, the
    others as they end. Break whenever you like: runs under way are stopped at their
    next step and go on from their last whole epoch when it is iterated again, here or
    anywhere else. One run that fails does not stop the others.
    """

    def __init__(
        self,
        runs: Iterable[RunConfig],
        *,
        executor: Executor | None = None,
        workers: int | str = 1,
        scheduler: str = "",
        retry: bool = False,
        progress: bool = True,
    ):
        self.runs = list(runs)
        if executor is not None or scheduler:
            # Another machine, or process, may have another current folder.
            self.runs = [
                run.replace(out=os.path.abspath(run.out), data_root=os.path.abspath(run.data_root))
                for run in self.runs
            ]
        self.retry = retry
        self.progress = progress
        self._workers, self._scheduler, self._given = workers, scheduler, executor
        here = not scheduler and (
            isinstance(executor, ThreadPoolExecutor) or (executor is None and workers == 1)
        )
        self._methods = b"" if here else packed({run.method for run in self.runs})
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
        """How many runs are planned, running, stopped, finished and failed."""
        count = Counter(one.status for one in self._trials)
        order = ("planned", "running", "stopped", "finished", "failed")
        return {status: count[status] for status in order if count[status]}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row a run as it stands, in the order of the grid."""
        return [one.row(self._varied) for one in self._trials]

    @property
    def names(self) -> list[str]:
        """What each run is, in words, in the order of the grid."""
        return [one.name for one in self._trials]

    @property
    def failed(self) -> dict[str, str]:
        """Why runs failed, by what they are."""
        return {one.name: one.message for one in self._trials if one.status == "failed"}

    @property
    def records(self) -> list[Path]:
        """Finished records, ready for :func:`budgetlab.compare`."""
        return [one.record for one in self._trials if one.status == "finished" and one.record]

    @property
    def frame(self) -> "pd.DataFrame":
        """One row a run, at any time, in the order of the grid.

        Columns ``id``, ``status``, ``how``, ``message``, the settings, and the results
        that :func:`budgetlab.summaries` has. Runs under way stand at
        their last whole epoch; results of those not begun are missing.
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
        """About what is left to train, in samples trained on; a forward pass counts a third."""
        return sum(one.cost * (1 - one.share) for one in self._trials if self._is_due(one))

    @property
    def seconds_left(self) -> float | None:
        """About how long that takes, by the finished runs of this grid; None without any."""
        done = [one for one in self._trials if one.status == "finished"]
        seconds = sum(one.summary.get("seconds") or 0.0 for one in done)
        cost = sum(one.cost for one in done)
        slots, _ = slots_for(self._workers, self.runs)
        return self.cost_left * seconds / cost / slots if cost else None

    def refresh(self, *, ended: bool = True) -> None:
        """Look at the folder again; ``ended=False`` only for runs that had not ended."""
        index = RunIndex(self.runs)
        for one in self._trials:
            if ended or not one.ended:
                one.stand_as(index.record(one.run))
            if not one.ended:
                one.mark(index.is_under_way(one.run))

    def run(self) -> "pd.DataFrame":
        """Train all that is left and return :attr:`frame`."""
        for _ in self:
            pass
        return self.frame

    def _is_due(self, one: Trial) -> bool:
        return one.status != "finished" and (one.status != "failed" or self.retry)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train; yields one row a run."""
        self.refresh()
        due = [one for one in self._trials if self._is_due(one)]
        for one in self._trials:
            one.lost, one.how = 0, "" if self._is_due(one) else "kept"
        for one in self._trials:
            if one.how == "kept":
                yield one.row(self._varied)
        for one in due:
            # Failures too, where they are tried again.
            one.status = "planned"
        if not due:
            return
        try:
            with (
                self._executor(due) as executor,
                Dispatcher(self._trials, executor, self.progress) as dispatcher,
            ):
                for one in dispatcher.train(due, self.retry, self._methods):
                    yield one.row(self._varied)
        finally:
            self.refresh(ended=False)

    @contextlib.contextmanager
    def _executor(self, due: list[Trial]) -> Iterator[Executor]:
        slots, gpus = slots_for(self._workers, [one.run for one in due])
        if self._given is not None:
            yield self._given
        elif self._scheduler:
            with connect(self._scheduler) as executor:
                yield executor
        elif slots > 1:
            with processes(slots, gpus, keep=not self._methods) as executor:
                yield executor
        else:
            try:
                yield InProcess()
            finally:
                forget_data()


def _check_places(executor: Executor | None, workers: int | str, scheduler: str) -> None:
    whole = isinstance(workers, int) and not isinstance(workers, bool) and 0 <= workers <= 1024
    if workers != "auto" and not whole:
        raise InputError(
            f"workers {workers!r} is not allowed: give a whole number in [1, 1024], or auto"
        )
    if executor is not None and not hasattr(executor, "submit"):
        raise InputError(
            f"executor {executor!r} is not allowed: give a concurrent.futures.Executor, or "
            "distributed.Client(...).get_executor()"
        )
    given = {"executor": executor is not None, "workers": workers != 1, "scheduler": scheduler}
    several = [name for name, is_given in given.items() if is_given]
    if len(several) > 1:
        raise InputError(f"{' and '.join(several)} cannot be combined: give one of them")
