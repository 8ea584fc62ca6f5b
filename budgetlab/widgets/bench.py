"""Train and watch: choose, start, stop, go on, and lay runs over each other."""

import html
import threading
import time
from pathlib import Path
from typing import Any

import ipywidgets as W
import pandas as pd

from budgetlab.analysis import AXES, load, summaries
from budgetlab.config import RunConfig
from budgetlab.data import Splits
from budgetlab.errors import InputError, RunError
from budgetlab.plots.samples import run_names
from budgetlab.records import Record, open_record
from budgetlab.training import Run, load_data
from budgetlab.widgets.bench_controls import RunControls
from budgetlab.widgets.bench_picture import MOST_CURVES, BenchPicture
from budgetlab.widgets.controls import LABEL, button, choice, row
from budgetlab.widgets.explain import explain
from budgetlab.widgets.live import Standing, minutes, standing_of_record, standing_of_run
from budgetlab.widgets.pace import Pace
from budgetlab.widgets.session import Session, claim
from budgetlab.widgets.status import StatusLine

__all__ = ["TrainingBench"]

DATA_SETTINGS = ("dataset", "data_root", "data_seed", "limit", "val_fraction", "label_noise",
                 "noise_kind", "imbalance")  # fmt: skip


class TrainingBench(W.VBox):
    """Train a run in the background and watch it; other cells stay free.

    Every run leaves a record in ``out``; a stopped one can be resumed. :meth:`fit` trains
    the same run in the cell itself and returns its record: at the same settings the two
    records are the same, but for the seconds.

    Parameters
    ----------
    name
        A bench created again under the same name stops and replaces the one before, so
        that a cell can be run again at any time. Give two benches two names.
    records
        Runs to show from the start: records, or folders that hold some.
    **settings
        First values of the controls, and settings without a control: fields of
        :class:`budgetlab.RunConfig`.

    Attributes
    ----------
    controls
        Settings by name, such as ``bench.controls.by_name["budget"].value = 0.1``.
    records
        The runs so far.

    Raises
    ------
    InputError
        If a setting or a record cannot be used.

    Examples
    --------
    >>> bench = bl.widgets.TrainingBench(method="p-SGD", budget=0.2)  # doctest: +SKIP
    >>> record = bench.fit()  # the Train button, in this cell  # doctest: +SKIP
    """

    def __init__(self, *, name: str = "bench", records: Any = (), **settings: Any):
        self.name = name
        self.records: list[Record] = load(records) if _some(records) else []
        self.session: Session | None = None
        self._lock = threading.RLock()
        self._detached = self._listing = False
        self._run: Run | None = None
        self._names: dict[Path, str] = {}
        self._standing: dict[Path, Standing | None] = {}
        self._splits: tuple[tuple, Splits] | None = None
        self._pace, self._tick = Pace(), Pace(shortest=0.15)
        self.controls = RunControls(RunConfig(**settings), self._explain)
        self._build_parts()
        super().__init__(
            [
                self.controls,
                self.explanation,
                row(self.train_button, self.stop_button, self.resume_button),
                row(self.bar, self.progress),
                self.status,
                self.picture.panel,
                row(self.cost, self.path, self.open_button),
                self.runs,
                self.table,
            ]
        )
        self.add_class("bl-bench")
        claim(name, self)
        self._explain("budget")
        self._list_runs(select=self.records)
        self.status.say(
            "Ready. Train starts a run; its record is kept. If nothing reacts, run this cell again."
        )

    def _build_parts(self) -> None:
        self.explanation, self.status = StatusLine(), StatusLine()
        self.explanation.add_class("bl-explanation")
        self.train_button = button("Train", self.train, "bl-train", "Start a run as it is set")
        self.stop_button = button("Stop", self.stop, "bl-stop", "Stop after this step")
        self.resume_button = button(
            "Resume", self.resume, "bl-resume", "Go on with the last stopped run that is shown"
        )
        self.stop_button.disabled = True
        self.bar = W.FloatProgress(
            min=0, max=1, description="Progress", style=LABEL, layout=W.Layout(width="20em")
        )
        self.bar.add_class("bl-bar")
        self.progress = W.HTML(layout=W.Layout(min_height="1.6em"))
        self.picture = BenchPicture()
        axes = [(text, name) for name, text in AXES.items()]
        self.cost = choice("Cost axis", axes, "steps", "bl-cost", "22em")
        self.cost.observe(lambda _: self._redraw(), "value")
        self.path = W.Text(description="Records", placeholder="folder", style=LABEL)
        self.open_button = button("Open", self._open, "bl-open", "Show the runs of a folder too")
        self.runs = W.SelectMultiple(
            description="Runs shown", style=LABEL, rows=5,
            layout=W.Layout(width="100%", max_width="900px", margin="0"),
        )  # fmt: skip
        self.runs.add_class("bl-runs")
        self.runs.observe(lambda _: self._redraw(), "value")
        self.table = W.HTML(layout=W.Layout(width="100%", margin="0", overflow="auto"))

    # ---- what the buttons do ----

    def train(self) -> None:
        """Start a run as it is set, in the background."""
        with self.status.catching():
            self._begin(config=self.controls.config).start()

    def resume(self) -> None:
        """Go on with the last stopped run that is shown, in the background."""
        with self.status.catching():
            self._begin(record=self._stopped_record()).start()

    def stop(self) -> None:
        """Stop after the step that is being made; the record can be resumed."""
        if self.session is not None and self.session.running:
            self.status.say("Stopping after this step.")
            self.session.stop()

    def fit(self, resume: Record | Path | str | None = None) -> Record:
        """Do what Train does, or Resume, here: returns at the end.

        Parameters
        ----------
        resume
            A record to go on with, in place of a new run.

        Returns
        -------
        Record
            Of the finished run.

        Raises
        ------
        InputError, RunError
            What also stands in the status line. Any error of a sampler too. An
            interrupt leaves a record that can be resumed.
        """
        try:
            if resume is None:
                session = self._begin(config=self.controls.config)
            else:
                path = resume.path if isinstance(resume, Record) else Path(resume)
                session = self._begin(record=path)
        except Exception as error:
            self.status.complain(error)
            raise
        session.train_here()
        assert session.run is not None, "a session without a run ends in an error"
        return session.run.record

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until no run is training; False if that takes longer."""
        return self.session is None or self.session.wait(seconds)

    def detach(self) -> None:
        """Stop, and never draw again: another bench of this name has taken over."""
        self._detached = True
        if self.session is not None:
            self.session.stop()
        for part in (self.train_button, self.stop_button, self.resume_button, self.open_button):
            part.disabled = True
        self.status.say(f"A newer bench named '{self.name}' has taken over: go on there.")

    def _begin(self, *, config: RunConfig | None = None, record: Path | None = None) -> Session:
        if self._detached:
            raise RunError(f"a newer bench named '{self.name}' has taken over: go on there")
        with self._lock:
            if self.session is not None and self.session.running:
                raise RunError("a run is training in this bench: stop it first, or wait")
            self.session = Session(
                config, record=record, splits=self._load_splits, on_step=self._on_step,
                on_epoch=self._on_epoch, on_end=self._on_end,
            )  # fmt: skip
        self._run = None
        self._pace, self._tick = Pace(), Pace(shortest=0.15)
        self._set_training(True)
        self.bar.value, self.progress.value = 0.0, ""
        self.status.say("Loading the data and building the network.")
        return self.session

    def _stopped_record(self) -> Path:
        shown = [r for r in self._shown() if open_record(r.path).status != "finished"]
        if not shown:
            raise InputError("none of the runs shown can go on: select a stopped one in the list")
        return shown[-1].path

    def _open(self) -> None:
        with self.status.catching():
            if not self.path.value.strip():
                raise InputError("no folder is given: type the folder of a record, or of several")
            found = load(self.path.value.strip())
            for record in found:
                self._keep(record)
            self._list_runs(select=found)
            self.status.say(f"Opened {len(found)} records.")

    def _load_splits(self, config: RunConfig) -> Splits:
        """Load data, or take those of the last run where the settings are the same."""
        key = tuple(getattr(config, name) for name in DATA_SETTINGS)
        if self._splits is None or self._splits[0] != key:
            self._splits = key, load_data(config, progress=False)
        return self._splits[1]

    # ---- what the training tells; called in the thread that trains ----

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
        if self._detached:
            return
        try:
            self._show_end(session)
        except Exception as error:
            # Nobody else would hear of it in a thread.
            self.status.complain(error)
        finally:
            self._set_training(False)

    def _show_end(self, session: Session) -> None:
        run = session.run
        if run is not None:
            if self._run is not run:
                self._adopt(run)
            self._show_progress(run)
            record = run.record
            self._keep(record)
            self._standing[record.path] = standing_of_run(run)
            self._list_runs(select=[record])
        if session.error is None or isinstance(session.error, KeyboardInterrupt):
            self.status.say(_ending(session, run))
        else:
            self.status.complain(session.error)

    def _adopt(self, run: Run) -> None:
        """Take a run that has just begun into the list."""
        self._run = run
        self._share, self._begun = run.budget.share_spent(run.ledger), time.monotonic()
        record = run.record
        self._keep(record)
        self._list_runs(select=[record])
        self.status.say(f"Training. {run.notes[0]}.")

    def _show_run(self, run: Run) -> None:
        with self._pace.working():
            self._standing[run.writer.path] = standing_of_run(run)
            self._redraw()

    def _show_progress(self, run: Run) -> None:
        share = run.budget.share_spent(run.ledger)
        done, spent = share - self._share, time.monotonic() - self._begun
        left = f"about {minutes(spent * (1 - share) / done)} left" if done > 0 else ""
        self.bar.value = share
        accuracy = run.writer.epochs[-1]["test_accuracy"] if run.writer.epochs else None
        parts = [
            f"epoch {run.history.epoch}",
            f"step {run.ledger.steps:,}",
            f"{100 * (1 - share):.0f}% of the budget left",
            left if share < 1 else "",
            f"accuracy {100 * accuracy:.1f}%" if accuracy is not None else "",
        ]
        self.progress.value = ", ".join(part for part in parts if part)

    # ---- what is shown ----

    def _explain(self, name: str) -> None:
        with self.explanation.catching():
            config = self.controls.config
            key = tuple(getattr(config, name) for name in DATA_SETTINGS if name != "label_noise")
            size = None
            if self._splits is not None:
                held = [v for n, v in zip(DATA_SETTINGS, self._splits[0], strict=True)
                        if n != "label_noise"]  # fmt: skip
                size = len(self._splits[1].train) if tuple(held) == key else None
            self.explanation.say(explain(name, config, size))

    def _keep(self, record: Record) -> None:
        with self._lock:
            places = [one.path.resolve() for one in self.records]
            if record.path.resolve() in places:
                self.records[places.index(record.path.resolve())] = record
            else:
                self.records.append(record)
            self._standing.pop(record.path, None)

    def _list_runs(self, select: list[Record]) -> None:
        """Write list and table anew; what was selected stays so."""
        with self._lock:
            records = list(self.records)
            names = run_names(records) if records else []
            self._names = {r.path: name for r, name in zip(records, names, strict=True)}
            chosen = {*self.runs.value, *(str(record.path) for record in select)}
            options = [(name, str(path)) for path, name in self._names.items()]
            self._listing = True
            self.runs.options = options
            self.runs.value = [path for _, path in options if path in chosen]
            self._listing = False
            self.table.value = runs_table(records, names)
        self._redraw()

    def _shown(self) -> list[Record]:
        return [r for r in self.records if str(r.path) in self.runs.value][-MOST_CURVES:]

    def _redraw(self) -> None:
        """Draw the runs that are selected; the samples are those of the last one."""
        if self._listing:
            return
        with self._lock, self.status.catching():
            shown = self._shown()
            standings = {record.path: self._stand(record) for record in shown}
            curves = {
                self._names[path]: now.rows if now is not None else pd.DataFrame()
                for path, now in standings.items()
            }
            last = shown[-1] if shown else None
            running = self._run.writer.path if self._run is not None else None
            if running in standings and self.session is not None and self.session.running:
                last = next(record for record in shown if record.path == running)
            name = self._names[last.path] if last is not None else ""
            now = standings[last.path] if last is not None else None
            self.picture.draw(curves, self.cost.value, name, now)

    def _stand(self, record: Record) -> Standing | None:
        if record.path not in self._standing:
            self._standing[record.path] = standing_of_record(record)
        return self._standing[record.path]

    def _set_training(self, training: bool) -> None:
        self.train_button.disabled = self.resume_button.disabled = training
        self.stop_button.disabled = not training


def _some(records: Any) -> bool:
    return isinstance(records, str | Path | Record) or bool(list(records))


def _ending(session: Session, run: Run | None) -> str:
    if run is None:
        return "Stopped before the first step: nothing was written."
    epochs = len(run.writer.epochs)
    if session.stopped:
        return (
            f"Stopped. The record holds {epochs} whole epochs, and Resume goes on from there: "
            f"{run.writer.path}."
        )
    summary = run.summary()
    return (
        f"Finished: test accuracy {100 * summary['test_accuracy']:.1f}% after {epochs} epochs, "
        f"{summary['steps']:,} steps and {minutes(summary['seconds'])} of training. Record: "
        f"{run.writer.path}."
    )


COLUMNS = {"status": "status", "epochs_trained": "epochs", "test_accuracy": "test accuracy",
           "steps": "steps", "trained_samples": "trained on", "looked_samples": "looked at",
           "flops": "flops", "seconds": "seconds"}  # fmt: skip


def runs_table(records: list[Record], names: list[str]) -> str:
    """Return the runs as an HTML table, costs included."""
    if not records:
        return "<p>No run yet.</p>"
    head = "".join(f'<th scope="col" style="{CELL}">{n}</th>' for n in ("run", *COLUMNS.values()))
    body = ""
    for name, row_ in zip(names, summaries(records).to_dict("records"), strict=True):
        cells = "".join(f'<td style="{CELL}">{_cell(row_[n], n)}</td>' for n in COLUMNS)
        body += f'<tr><th scope="row" style="{CELL};text-align:left">{html.escape(name)}</th>'
        body += f"{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


CELL = "padding:0 0.7em 0 0;font-weight:normal;text-align:right;line-height:1.4"


def _cell(value: Any, column: str) -> str:
    if isinstance(value, str):
        return html.escape(value)
    if pd.isna(value):
        return ""
    if column == "test_accuracy":
        return f"{100 * value:.1f}%"
    if column == "flops":
        return f"{value:.2e}"
    return f"{value:,.1f}" if column == "seconds" else f"{value:,.0f}"
