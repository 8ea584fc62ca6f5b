"""The sweep itself: hands out runs, collects what comes back, and knows how all stand."""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetlab import presets
from budgetlab.errors import InputError
from budgetlab.sweep.executors import (
    InProcess,
    Processes,
    connect,
    threads_each,
    visible_gpus,
)
from budgetlab.sweep.found import Folders
from budgetlab.sweep.grid import FIELDS, Grid, names, product, varied, with_known_names
from budgetlab.sweep.hands import Hands, stop_file
from budgetlab.sweep.planned import Planned
from budgetlab.sweep.progress import Bar
from budgetlab.sweep.worker import forget_data

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Sweep", "sweep"]


def sweep(
    grid: Grid | None = None,
    *,
    executor: Executor | None = None,
    workers: int = 1,
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
        :class:`budgetlab.RunConfig`. See :func:`budgetlab.sweep.product`.
    executor
        Where to train: any :class:`concurrent.futures.Executor`, or what
        ``distributed.Client(...).get_executor()`` returns. It must reach the folders
        ``out`` and ``data_root``. It is not shut down.
    workers
        Train in this many processes of this machine, which share its cores and GPUs;
        1 trains in this process.
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
    return Sweep(
        grid, executor=executor, workers=workers, scheduler=scheduler, retry=retry,
        preset=preset, progress=progress, **settings,
    )  # fmt: skip


class Sweep:
    """Runs of a grid, trained while it is iterated; see :func:`sweep`.

    Iterating yields one row a run, as a dict: those that had ended before first, the
    others as they end. Break whenever you like: runs under way are stopped at their
    next step and go on from their last whole epoch when it is iterated again, here or
    anywhere else. One run that fails does not stop the others.
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        executor: Executor | None = None,
        workers: int = 1,
        scheduler: str = "",
        retry: bool = False,
        preset: str | None = None,
        progress: bool = True,
        **settings: Any,
    ):
        _check_places(executor, workers, scheduler)
        base = presets.settings(preset) if preset else {}
        self.runs = with_known_names(product(grid, base, **settings))
        if executor is not None or scheduler:
            # Another machine, or process, may have another current folder.
            self.runs = [
                run.replace(out=os.path.abspath(run.out), data_root=os.path.abspath(run.data_root))
                for run in self.runs
            ]
        self.retry = retry
        self.progress = progress
        self._workers, self._scheduler, self._given = workers, scheduler, executor
        far = bool(scheduler) or not isinstance(executor, ThreadPoolExecutor | None)
        self._modules = _own_modules(
            {run.method for run in self.runs}, elsewhere=far, processes=workers > 1
        )
        self._varied = varied(self.runs)
        named = zip(self.runs, names(self.runs), strict=True)
        self._planned = [Planned(run, name) for run, name in named]
        self.refresh()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        return f"Sweep({len(self.runs)} runs: {counts}; iterate it, or .run(), to train)"

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are planned, running, stopped, finished and failed."""
        found = Counter(one.status for one in self._planned)
        order = ("planned", "running", "stopped", "finished", "failed")
        return {status: found[status] for status in order if found[status]}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row a run as it stands, in the order of the grid."""
        return [one.row(self._varied) for one in self._planned]

    @property
    def names(self) -> list[str]:
        """What each run is, in words, in the order of the grid."""
        return [one.name for one in self._planned]

    @property
    def failed(self) -> dict[str, str]:
        """Why runs failed, by what they are."""
        return {one.name: one.message for one in self._planned if one.status == "failed"}

    @property
    def records(self) -> list[Path]:
        """Finished records, ready for :func:`budgetlab.compare`."""
        return [one.record for one in self._planned if one.status == "finished" and one.record]

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
        paths = [one.record for one in self._planned if one.record and one.record.is_dir()]
        table = analysis.summaries(paths) if paths else pd.DataFrame({"path": []})
        found = {row["path"]: row for row in table.to_dict("records")}
        rows = []
        for one in self._planned:
            state = {"id": one.run.id, "status": one.status, "how": one.how,
                     "message": one.message}  # fmt: skip
            settings = {name: getattr(one.run, name) for name in FIELDS}
            settings["dataset"] = one.run.dataset_name
            empty = dict.fromkeys(analysis.COSTS, nan) | {"test_accuracy": nan, "test_loss": nan}
            rows.append(state | settings | empty | found.get(str(one.record), {}) | state)
        return pd.DataFrame(rows)

    @property
    def cost_left(self) -> float:
        """About what is left to train, in samples trained on; looking counts a third."""
        return sum(one.cost * (1 - one.share) for one in self._planned if self._is_due(one))

    @property
    def seconds_left(self) -> float | None:
        """About how long that takes, by the finished runs of this grid; None without any."""
        done = [one for one in self._planned if one.status == "finished"]
        seconds = sum(one.summary.get("seconds") or 0.0 for one in done)
        cost = sum(one.cost for one in done)
        return self.cost_left * seconds / cost / self._workers if cost else None

    def refresh(self, *, ended: bool = True) -> None:
        """Look at the folder again; ``ended=False`` only for runs that had not ended."""
        folders = Folders(run.out for run in self.runs)
        for one in self._planned:
            if ended or not one.ended:
                one.take(folders.record(one.run))
            if not one.ended:
                one.mark(folders.is_under_way(one.run))

    def run(self) -> "pd.DataFrame":
        """Train all that is left and return :attr:`frame`."""
        for _ in self:
            pass
        return self.frame

    def _is_due(self, one: Planned) -> bool:
        return one.status != "finished" and (one.status != "failed" or self.retry)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train; yields one row a run."""
        self.refresh()
        due = [one for one in self._planned if self._is_due(one)]
        for one in self._planned:
            one.lost, one.how = 0, "" if self._is_due(one) else "kept"
        for one in self._planned:
            if one.how == "kept":
                yield one.row(self._varied)
        if due:
            yield from self._train(due)

    def _train(self, due: list[Planned]) -> Iterator[dict[str, Any]]:
        total = sum(one.cost for one in self._planned)
        for one in due:
            # Failures too, where they are tried again.
            one.status = "planned"
        with (
            self._executor(len(due)) as executor,
            Bar(total, sum(one.done for one in self._planned), self.progress) as bar,
            stop_file(Path(due[0].run.out)) as stop,
        ):
            hands = Hands(
                self._planned, executor, bar, stop, retry=self.retry, modules=self._modules
            )
            try:
                for one in hands.train(due):
                    yield one.row(self._varied)
            finally:
                hands.end()
                self.refresh(ended=False)

    @contextlib.contextmanager
    def _executor(self, runs: int) -> Iterator[Executor]:
        if self._given is not None:
            yield self._given
        elif self._scheduler:
            with connect(self._scheduler) as executor:
                yield executor
        elif self._workers > 1:
            slots = min(self._workers, runs)
            # A GPU named by its number must stay visible under that number.
            numbered = any(":" in run.device for run in self.runs)
            gpus = () if numbered else visible_gpus()
            with Processes(slots, threads_each(slots), gpus) as executor:
                yield executor
        else:
            try:
                yield InProcess()
            finally:
                forget_data()


def _check_places(executor: Executor | None, workers: int, scheduler: str) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 1024:
        raise InputError(f"workers {workers!r} is not allowed: give a whole number in [1, 1024]")
    if executor is not None and not hasattr(executor, "submit"):
        raise InputError(
            f"executor {executor!r} is not allowed: give a concurrent.futures.Executor, or "
            "distributed.Client(...).get_executor()"
        )
    given = {"executor": executor is not None, "workers": workers > 1, "scheduler": scheduler}
    several = [name for name, is_given in given.items() if is_given]
    if len(several) > 1:
        raise InputError(f"{' and '.join(several)} cannot be combined: give one of them")


def _own_modules(methods: set[str], *, elsewhere: bool, processes: bool) -> tuple[str, ...]:
    """Modules that a worker must import to know methods of your own."""
    from budgetlab import samplers

    modules = set()
    for name in sorted(methods):
        module = samplers.lookup(name).__module__
        # A script is run again in a new process of this machine; a notebook is not.
        script = hasattr(sys.modules["__main__"], "__file__")
        if module == "__main__" and (elsewhere or (processes and not script)):
            raise InputError(
                f"method '{name}' is defined here, where a worker cannot see it: put it into a "
                "file, import that, or sweep in this process"
            )
        if module != "__main__" and not module.startswith("budgetlab."):
            modules.add(module)
    return tuple(sorted(modules))
