"""Widget to configure, train, stop, resume and compare runs."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as W

from budgetlab.analysis import load
from budgetlab.config import DATA_FIELDS, RunConfig
from budgetlab.data import Splits
from budgetlab.errors import InputError, counted
from budgetlab.records import Record, open_record
from budgetlab.training import Run, load_data
from budgetlab.widgets.background import RateLimiter, Session, Trainer
from budgetlab.widgets.bench_controls import RunControls, explain, first_settings
from budgetlab.widgets.bench_shelf import RunList, standing_of_run
from budgetlab.widgets.controls import LABEL, StatusLine, button, row

DATA_SETTINGS = {"data_root", *DATA_FIELDS}


class TrainingBench(Trainer):
    """Train runs in the background and watch them, while other cells can run.

    Every run leaves a record in ``out``; a stopped run can be resumed. :meth:`fit` trains the same
    run in the foreground and returns its record; with the same settings, the two records are equal
    except for timings. Raises InputError if a setting or a record cannot be used.

    Parameters
    ----------
    name
        A new bench of the same name stops and replaces the old one, so that a cell can be
        re-run at any time. Two benches at once need two names.
    records
        Runs to show from the start: records, or folders of records.
    splits
        Your own data, as returned by :func:`budgetlab.Splits.of`; disables the data controls.
    model
        Name of a network, a custom network, or a function that builds one.
    preset
        A named set of settings from :data:`budgetlab.config.PRESETS`. If no preset, data,
        model or length is given, a run takes a few seconds.
    **settings
        Initial values of the controls, and settings without a control: fields of
        :class:`budgetlab.RunConfig`.

    Attributes
    ----------
    controls
        Settings by name, such as ``bench.controls.by_name["budget"].value = 0.1``.
    shelf
        The runs, their figures and the table: :class:`~budgetlab.widgets.bench_shelf.RunList`.

    Examples
    --------
    >>> bench = bl.widgets.TrainingBench(method="p-SGD", budget=0.2)  # doctest: +SKIP
    >>> record = bench.fit()  # the Train button, in this cell  # doctest: +SKIP
    """

    what, elsewhere = "bench", "an argument of TrainingBench"

    def __init__(
        self,
        *,
        name: str = "bench",
        records: Any = (),
        splits: Splits | None = None,
        model: Any = None,
        preset: str | None = None,
        **settings: Any,
    ):
        if isinstance(model, str):
            settings, model = {**settings, "model": model}, None
        known = records if isinstance(records, str | Path | Record) else list(records)
        base = first_settings(settings, preset, own_data=splits is not None)
        super().__init__(name)
        self.own_splits, self.own_model = splits, model
        self.session: Session | None = None
        self._run: Run | None = None
        self._splits: tuple[RunConfig, Splits] | None = None
        self._pace, self._tick = RateLimiter(), RateLimiter(shortest=0.15)
        self._queue: list[RunConfig] = []
        self._total = 1
        self.controls = RunControls(base, self._explain)
        self.offered = self.controls.by_name
        given = {"dataset": splits, "label_noise": splits, "model": model}
        for setting, value in given.items():
            self.offered[setting].disabled = value is not None
        self._build_parts()
        self.shelf = RunList(load(known) if known else [], self.status)
        buttons = self.train_button, self.stop_button, self.resume_button
        line = row(*buttons, self.bar, self.progress)
        self.children = self.controls, self.explanation, line, self.status, self.shelf
        self.claim(*buttons, self.shelf.open_button)
        self.status.observe(lambda _: self._say_once(), "value")
        self._explain("budget")
        self.status.say(
            "Ready. Train starts a run; its record is kept. "
            "If nothing reacts, run the cell again or reload the page."
        )

    def _build_parts(self) -> None:
        self.explanation = StatusLine(advice=self._advice)
        self.explanation.add_class("bl-explanation")
        self.train_button = button("Train", self.train, "bl-train", "Start a run as it is set",
                                   primary=True)  # fmt: skip
        self.stop_button = button("Stop", self.stop, "bl-stop", "Stop after this step")
        self.resume_button = button("Resume", self.resume, "bl-resume",
                                    "Go on with the last stopped run that is shown")  # fmt: skip
        self.stop_button.disabled = True
        self.bar = W.FloatProgress(max=1, description="Progress", style=LABEL,
                                   layout=W.Layout(width="20em"))  # fmt: skip
        self.bar.add_class("bl-bar")
        self.progress = W.HTML(layout=W.Layout(min_height="1.6em"))

    @property
    def records(self) -> list[Record]:
        """Records of all runs so far, as currently written."""
        return [_as_it_stands(line.record) for line in self.shelf.lines]

    # ---- what the buttons do ----

    def train(self) -> None:
        """Start a run with the current settings, in the background."""
        self.train_in_background(self._begin_queue)

    def _begin_queue(self) -> list[Session]:
        first, *queue = [self.controls.config.replace(seed=s) for s in self.controls.seeds]
        return self._begin(config=first, queue=queue)

    def resume(self) -> None:
        """Resume the last stopped run that is shown, in the background."""
        self.train_in_background(lambda: self._begin(record=self._stopped_record()))

    def stop(self) -> None:
        """Stop after the current step; the record can be resumed."""
        self._queue = []
        session = self.session
        if session is None or not session.running:
            return
        session.stop()
        if session.run is None:
            # Data loading cannot be interrupted, but need not be waited for.
            self.session = None
            self._set_training(False)
            self.status.say("Stopped before the first step: nothing was written.")
        else:
            self.status.say("Stopping after this step.")

    def fit(self, resume: Record | Path | str | None = None) -> Record:
        """Train in the foreground, or resume a record; return the finished run's record.

        Errors, those of a sampler too, are raised and shown in the status line; an interrupt leaves
        a resumable record.
        """
        if resume is None:
            (session,) = self.train_in_foreground(lambda: self._begin(config=self.controls.config))
        else:
            path = getattr(resume, "path", resume)
            (session,) = self.train_in_foreground(lambda: self._begin(record=path))
        assert session.run is not None, "a session without a run ends in an error"
        return session.run.record

    def _begin(
        self,
        *,
        config: RunConfig | None = None,
        record: Any = None,
        after: Session | None = None,
        queue: Sequence[RunConfig] = (),
    ) -> list[Session]:
        """Create the session of a run, and set the queue of runs to train after it."""
        with self._lock:
            busy = self.session is not None and self.session is not after and self.session.running
            self.refuse(training=busy)
            self.session = Session(
                config, record=None if record is None else Path(record),
                splits=self._load_splits, model=self.own_model, on_step=self._on_step,
                on_epoch=self._on_epoch, on_end=self._on_end,
            )  # fmt: skip
            self.sessions = [one for one in self.sessions if one.running] + [self.session]
        self._run, self._queue = None, list(queue)
        if after is None:
            self._total = 1 + len(queue)
        self._set_training(True)
        self.bar.value, self.progress.value = 0.0, ""
        again = config is not None and self._has_run(config)
        self.status.say(
            "Loading the data and building the network."
            + (" These settings have run before: the same seed gives the same run." * again)
        )
        return [self.session]

    def _has_run(self, config: RunConfig) -> bool:
        """Whether a listed run has the same settings, ignoring ``out`` and ``device``."""
        for line in self.shelf.lines:
            with contextlib.suppress(InputError):
                known = RunConfig.from_dict(line.record.config)
                if known.replace(out=config.out, device=config.device) == config:
                    return True
        return False

    def _stopped_record(self) -> Path:
        paths = [line.record.path for line in self.shelf.shown()]
        shown = [path for path in paths if open_record(path).status != "finished"]
        if not shown:
            raise InputError("none of the runs shown can go on: select a stopped one in the list")
        return shown[-1]

    def _load_splits(self, config: RunConfig) -> Splits:
        """Load data, or reuse those of the last run if its data settings agree."""
        if self.own_splits is not None:
            return self.own_splits
        if self._splits is None or not _agree(config, self._splits[0], DATA_SETTINGS):
            self._splits = config, load_data(config, progress=False)
        return self._splits[1]

    # ---- callbacks of training, called in its thread ----

    def _on_step(self, run: Run) -> None:
        if self._detached:
            return
        if self._run is not run:
            self._adopt(run)
        if self._tick.due():
            with self._tick.working():
                self._show_progress(run)
        if self._pace.due(within_epoch=True):
            self._show_run(run)

    def _on_epoch(self, run: Run) -> None:
        if not self._detached and self._pace.due():
            self._show_run(run)

    def _on_end(self, session: Session) -> None:
        if self._detached or session is not self.session:
            return
        try:
            self._show_end(session)
        except Exception as error:
            # In a thread, the error would go unnoticed.
            self.status.complain(error)
        finally:
            self._set_training(False)
        if session.error is None and not session.stopped and self._queue:
            following, *queue = self._queue
            self.train_in_background(
                lambda: self._begin(config=following, after=session, queue=queue)
            )

    def _show_end(self, session: Session) -> None:
        run = session.run
        if run is not None:
            if self._run is not run:
                self._adopt(run)
            self._show_progress(run)
            self.shelf.follow(None)
            self.shelf.add(run.record, standing_of_run(run))
        if session.error is None or isinstance(session.error, KeyboardInterrupt):
            self.status.say(ending(run, stopped=session.stopped))
        else:
            self.status.complain(session.error)

    def _adopt(self, run: Run) -> None:
        """Add a run that has just begun to the list."""
        self._run = run
        self._pace.begin()
        self._tick.begin()
        self._share, self._begun = run.budget.share_spent(run.ledger), time.monotonic()
        self.shelf.add(run.record)
        place = f" run {self._total - len(self._queue)} of {self._total}" * (self._total > 1)
        self.status.say(f"Training{place}. {run.notes[0]}.")

    def _show_run(self, run: Run) -> None:
        with self._pace.working():
            self.shelf.follow(run.writer.path, standing_of_run(run))

    def _show_progress(self, run: Run) -> None:
        share = run.budget.share_spent(run.ledger)
        done, spent = share - self._share, time.monotonic() - self._begun
        left = f"about {minutes(spent * (1 - share) / done)} left" if done > 0 else ""
        self.bar.value = share
        accuracy = run.summary()["test_accuracy"]
        parts = [
            f"epoch {run.history.epoch}",
            f"step {run.ledger.steps:,}",
            f"{100 * (1 - share):.0f}% of the budget left",
            left if share < 1 else "",
            f"accuracy {100 * accuracy:.1f}%" if accuracy is not None else "",
        ]
        self.progress.value = ", ".join(part for part in parts if part)

    # ---- display ----

    def _explain(self, name: str) -> None:
        if self.status.is_problem:  # of the settings before
            self.status.say("")
        with self.explanation.showing_errors():
            config, size = self.controls.config, None
            if self.own_splits is not None:
                size = len(self.own_splits.train)
            elif self._splits and _agree(config, self._splits[0], DATA_SETTINGS - {"label_noise"}):
                size = len(self._splits[1].train)
            cost, seeds = explain("budget", config, size), self.controls.seeds
            if len(seeds) > 1:
                cost += f" {len(seeds)} runs in a row, seeds {seeds[0]} to {seeds[-1]}."
            said = "" if name in ("budget", "epochs", "repeats") else explain(name, config, size)
            self.explanation.say(f"{said} {cost}".strip())

    def _say_once(self) -> None:
        """Clear the explanation if the status line says the same problem."""
        if self.status.is_problem and self.status.text == self.explanation.text:
            self.explanation.say("")

    def _set_training(self, training: bool) -> None:
        self.train_button.disabled = self.resume_button.disabled = training
        self.stop_button.disabled = not training


def _agree(one: RunConfig, other: RunConfig, names: set[str]) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _as_it_stands(record: Record) -> Record:
    with contextlib.suppress(InputError):  # removed since
        return record if record.status == "finished" else open_record(record.path)
    return record


def minutes(seconds: float) -> str:
    """Format a duration: ``8 s``, ``3 min 20 s``, ``1 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def ending(run: Run | None, *, stopped: bool) -> str:
    """Describe how a run ended, and where its record is."""
    if run is None:
        return "Stopped before the first step: nothing was written."
    epochs = len(run.writer.epochs)
    if stopped:
        return (
            f"Stopped. The record holds {counted(epochs, 'whole epoch')}, and Resume goes on from "
            f"there: {run.writer.path}."
        )
    summary = run.summary()
    return (
        f"Finished: test accuracy {100 * summary['test_accuracy']:.1f}% after "
        f"{counted(epochs, 'epoch')}, {counted(summary['steps'], 'step')} and "
        f"{minutes(summary['seconds'])} of training. Record: {run.writer.path}."
    )
