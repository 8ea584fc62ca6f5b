"""Runs that are collected, laid over each other, and listed with what they cost."""

import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as W
import numpy as np
import pandas as pd

from budgetlab import plots
from budgetlab.analysis import AXES, condition_columns, label, load, one_epoch, summaries, varying
from budgetlab.errors import InputError, RunError
from budgetlab.plots import style
from budgetlab.plots.samples import histogram
from budgetlab.records import Record
from budgetlab.training import Run
from budgetlab.widgets.controls import (
    LABEL,
    PicturePanel,
    StatusLine,
    button,
    choice,
    markup,
    ready,
    row,
    table_markup,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST_CURVES", "RunList", "RunShelf", "Standing", "named_runs", "runs_table",
           "standing_of_record", "standing_of_run"]  # fmt: skip

MOST_CURVES = 7
LONGEST_NAME = 32  # characters, so that a title ends where its axes do
NO_EPOCH = "no epoch yet"


@dataclass(frozen=True)
class Standing:
    """A run at one moment.

    For each sample ``[N]`` the last known loss, NaN where none is, and its probability, of kind
    ``draw`` or ``keep``, None without any; one row per finished epoch, as ``epochs.csv``.
    """

    epoch: int
    losses: np.ndarray
    probability: np.ndarray | None
    kind: str
    rows: pd.DataFrame = field(repr=False)


def standing_of_run(run: Run) -> Standing:
    """Copy what there is to see of a run, between two of its steps."""
    probability = run.loop.sampler.probability
    return Standing(
        epoch=max(run.history.epoch, 1),
        losses=run.history.last_loss.cpu().numpy().copy(),
        probability=None if probability is None else probability.cpu().numpy().copy(),
        kind=run.loop.sampler.probability_kind,
        rows=pd.DataFrame(run.writer.epochs),
    )


def standing_of_record(record: Record) -> Standing | None:
    """Read how a run stood at its last whole epoch, or None."""
    if not len(record.epochs):
        return None
    last = one_epoch(record)
    probability = last["probability"].to_numpy()
    return Standing(
        epoch=int(last["epoch"].iloc[0]),
        losses=last["loss"].fillna(last["last_loss"]).to_numpy(),
        probability=None if np.isnan(probability).all() else probability,
        kind=record.probability_kind,
        rows=record.epochs,
    )


class RunShelf(W.VBox):
    """Pictures of the runs that are selected, the list to select from, and a table.

    Safe to be told of news from the thread that trains. ``records`` holds all runs as they came;
    problems are said in ``status``. ``runs``, ``cost`` and ``path`` are the controls.
    """

    def __init__(self, records: Sequence[Record], status: StatusLine):
        self.records, self.status = list(records), status
        self._lock = threading.RLock()
        self._listing = False
        self._names: dict[Path, str] = {}
        self._standing: dict[Path, Standing | None] = {}
        self._known: dict[Path, dict] = {}
        self._live: Path | None = None
        self.picture = PicturePanel(1180, 420, 2, 2, left=0.06, right=0.985, top=0.94, bottom=0.11,
                                    wspace=0.16, hspace=0.52)  # fmt: skip
        axes = [(text, name) for name, text in AXES.items()]
        self.cost = choice("Cost axis", axes, "steps", "22em")
        self.cost.observe(lambda _: self.redraw(), "value")
        self.path = W.Text(description="Folder", placeholder="of records", style=LABEL)
        self.path.add_class("bl-folder")
        self.open_button = button("Open", self.open_folder, "bl-open",
                                  "Show the runs of this folder too")  # fmt: skip
        self.runs = RunList(self.redraw, self.remove)
        self.table = markup()
        opening = row(self.cost, self.path, self.open_button)
        super().__init__([self.runs, self.picture, opening, self.table])
        self.list_runs(select=self.records)

    def open_folder(self) -> None:
        """Add the runs of the folder that was typed."""
        with self.status.catching():
            if not self.path.value.strip():
                raise InputError("no folder is given: type the folder of a record, or of several")
            found = load(self.path.value.strip())
            for record in found:
                self._keep(record)
            self.list_runs(select=found)
            self.status.say(f"Opened {len(found)} record{'s' * (len(found) != 1)}.")

    def add(self, record: Record, now: Standing | None = None) -> None:
        """Take in a run that begins, to be drawn once it is followed, or what has become of one."""
        self._keep(record)
        if now is not None:
            self._standing[record.path] = now
        self.list_runs(select=[record], draw=now is not None)

    def follow(self, path: Path | None, now: Standing | None = None) -> None:
        """Show how a run stands that is training; None when it has ended."""
        self._live = path
        if path is not None and now is not None:
            self._standing[path] = now
            self.redraw()

    def _keep(self, record: Record) -> None:
        with self._lock:
            places = [one.path.resolve() for one in self.records]
            if record.path.resolve() in places:
                self.records[places.index(record.path.resolve())] = record
            else:
                self.records.append(record)
            self._standing.pop(record.path, None)
            self._known.pop(record.path, None)

    def list_runs(self, select: Sequence[Record], *, draw: bool = True) -> None:
        """Write list and table anew; what was selected stays so."""
        with self._lock:
            table = self._summaries()
            names = named_runs(table)
            self._names = {r.path: name for r, name in zip(self.records, names, strict=True)}
            chosen = {*self.runs.value, *(str(record.path) for record in select)}
            options = [(name, str(path)) for path, name in self._names.items()]
            self._listing = True
            self.runs.list(options, [path for _, path in options if path in chosen])
            self._listing = False
            self.table.value = runs_table(table, names)
        if draw:
            self.redraw()

    def _summaries(self) -> pd.DataFrame:
        """A row a run; a list that grows reads only what is new."""
        for record in self.records:
            if record.path not in self._known:
                (self._known[record.path],) = summaries([record]).to_dict("records")
        return pd.DataFrame([self._known[record.path] for record in self.records])

    def remove(self, path: str) -> None:
        """Take a run off the list; its record stays where it is."""
        with self._lock, self.status.catching():
            if self._live is not None and str(self._live) == path:
                raise RunError("this run is training: stop it first, or wait")
            self.records = [record for record in self.records if str(record.path) != path]
            self.list_runs(select=[])
            self.status.say(f"Taken off the list; the record stays in {path}.")

    def shown(self) -> list[Record]:
        """The runs that are selected: the last ones, where there are too many to draw."""
        return [r for r in self.records if str(r.path) in self.runs.value][-MOST_CURVES:]

    def redraw(self) -> None:
        """Draw the runs that are selected; the samples are those of the last one."""
        if self._listing:
            return
        with self._lock, self.status.catching():
            shown = self.shown()
            standings = {record.path: self._stand(record) for record in shown}
            curves = {
                self._names[path]: now.rows if now is not None else pd.DataFrame()
                for path, now in standings.items()
            }
            last = shown[-1].path if shown else None
            last = self._live if self._live in standings else last
            name, now = (self._names[last], standings[last]) if last is not None else ("", None)
            self._draw(curves, name, now)

    def _stand(self, record: Record) -> Standing | None:
        if record.path not in self._standing:
            self._standing[record.path] = standing_of_record(record)
        return self._standing[record.path]

    def _draw(self, curves: Mapping[str, pd.DataFrame], shown: str, now: Standing | None) -> None:
        """Accuracy, loss, losses of the samples, probabilities; the last two of one run."""
        above, beside, left, right = map(ready, self.picture.axes)
        said = self._curves(above, curves, "test_accuracy", "Accuracy on the test set (%)")
        self._curves(beside, curves, "train_loss", "Loss while training (nats)")
        of = f"Samples of {shown} in epoch {now.epoch}: " if now else ""
        self.picture.show(f"{said} {of}{_losses(left, shown, now)} {_probabilities(right, now)}")

    def _curves(
        self, ax: "Axes", curves: Mapping[str, pd.DataFrame], value: str, title: str
    ) -> str:
        cost = self.cost.value
        # Not every epoch is tested; what is known is joined.
        parts = {name: rows.dropna(subset=[value]) for name, rows in curves.items()
                 if value in rows and rows[value].notna().any()}  # fmt: skip
        begin = f"Training curves over {style.axis_name(cost)}."
        if not parts:
            style.empty(ax, NO_EPOCH, title)
            return f"{begin} None yet."
        frames = [
            pd.DataFrame({"method": name.partition(", ")[0], "run": name, "cost": rows[cost],
                          "mean": rows[value], "spread": np.nan, "n": 1})
            for name, rows in parts.items()
        ]  # fmt: skip
        plots.learning_curves(
            pd.concat(frames), cost=cost, value=value, keys=("method", "run"),
            looks=style.named_looks(list(curves), always=True), legend=False, ax=ax,
        )  # fmt: skip
        style.set_title(ax, title)
        ax.set_ylabel("")
        ends = [f"{name}: {style.fraction(value) * rows[value].iloc[-1]:.1f}% after epoch "
                f"{len(curves[name])}" for name, rows in parts.items()]  # fmt: skip
        return f"{begin} {'; '.join(ends)}."


def _losses(ax: "Axes", shown: str, now: Standing | None) -> str:
    """Draw the last known losses of the samples of a run, and say them."""
    title = "Losses of the samples"
    if now is None:
        style.empty(ax, NO_EPOCH, title)
        return "No samples yet."
    known = now.losses[~np.isnan(now.losses)]
    if not len(known):
        style.empty(ax, "no sample seen yet", title)
        return "0 seen;"
    histogram(known, x="last known loss (nats)", ax=ax)
    # In the title, which begins at the left: below, a long name would be cut off.
    name = textwrap.shorten(shown, LONGEST_NAME, placeholder=" …")
    style.set_title(ax, f"{title}: {name}, epoch {now.epoch}")
    return f"{len(known):,} seen, median loss {np.median(known):.3g};"


def _probabilities(ax: "Axes", now: Standing | None) -> str:
    """Draw the probabilities of the samples of a run, and say their range."""
    title = "Sampling probability"
    q = np.empty(0) if now is None or now.probability is None else now.probability
    q = q[~np.isnan(q)]
    if now is None or not len(q):
        why = NO_EPOCH if now is None else "this method has no probabilities yet"
        style.empty(ax, why, title)
        return "" if now is None else "no probabilities."
    draws = now.kind == "draw"
    name = "times that of a uniform draw" if draws else "chance of being kept"
    q = q * len(q) if draws else q
    histogram(q, x=name, least=1.5 if draws else 1.0, colour=style.COLOURS[2], ax=ax)
    style.set_title(ax, title)
    return f"{name} from {q.min():.3g} to {q.max():.3g}."


class RunList(W.VBox):
    """One line per run: colour and sign of its curve, show or hide, remove."""

    def __init__(self, changed: Callable[[], None], remove: Callable[[str], None]):
        self._changed, self._remove = changed, remove
        self.options: list[tuple[str, str]] = []
        self._lines: dict[tuple[str, str], W.HBox] = {}
        self._boxes: dict[str, W.Checkbox] = {}
        self._chips: dict[str, W.HTML] = {}
        self._quiet = False
        super().__init__([], layout=W.Layout(width="100%", max_height="9em", overflow="auto"))
        self.add_class("bl-runs")

    @property
    def value(self) -> tuple[str, ...]:
        """Paths of the runs that are shown; may be set."""
        return tuple(path for path, box in self._boxes.items() if box.value)

    @value.setter
    def value(self, paths: Sequence[str]) -> None:
        self._quiet = True
        for path, box in self._boxes.items():
            box.value = path in paths
        self._quiet = False
        self._tell()

    def list(self, options: Sequence[tuple[str, str]], shown: Sequence[str]) -> None:
        """Write the list anew; lines that say the same stay."""
        self.options = list(options)
        lines, boxes, self._lines = self._lines, self._boxes, {}
        self._boxes, self._chips = {}, {}
        for name, path in self.options:
            if (name, path) in lines:
                self._quiet = True
                boxes[path].value = path in shown
                self._quiet = False
                self._lines[name, path] = line = lines[name, path]
                self._chips[path], self._boxes[path], _ = line.children
                continue
            box = W.Checkbox(value=path in shown, description=name, indent=False,
                             layout=W.Layout(width="auto", margin="0"))  # fmt: skip
            box.observe(lambda _: self._tell(), "value")
            chip = W.HTML(layout=W.Layout(width="46px", margin="0 4px 0 0"))
            away = button("Remove", partial(self._remove, path), "bl-remove",
                          f"Take {name} off the list; its record stays")  # fmt: skip
            away.layout.height, away.layout.margin = "1.8em", "0 0 0 1em"
            self._boxes[path], self._chips[path] = box, chip
            self._lines[name, path] = W.HBox([chip, box, away],
                                             layout=W.Layout(align_items="center"))  # fmt: skip
        self.children = list(self._lines.values())
        self._paint()

    def _tell(self) -> None:
        if not self._quiet:
            self._paint()
            self._changed()

    def _paint(self) -> None:
        """Give each run that is shown the colour and sign of its curve."""
        names = dict((path, name) for name, path in self.options)
        drawn = style.named_looks([names[path] for path in self.value][-MOST_CURVES:], always=True)
        for path, chip in self._chips.items():
            shown = path in self.value and names[path] in drawn
            chip.value = _chip(drawn[names[path]]) if shown else ""


SIGNS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
DASHES = {"-": "", "--": "6 3", "-.": "6 2 2 2", ":": "2 2"}


def _chip(look: style.LineStyle) -> str:
    """The line and sign of a curve, on white as it is drawn."""
    line, colour = look.line, look.colour
    dashes = DASHES.get(line) if isinstance(line, str) else " ".join(map(str, line[1]))
    return (
        '<svg aria-hidden="true" width="38" height="16" style="background:white;display:block">'
        f'<line x1="2" x2="36" y1="8" y2="8" stroke="{colour}" stroke-width="2" '
        f'stroke-dasharray="{dashes}"/><text x="19" y="13" text-anchor="middle" font-size="13" '
        f'fill="{colour}">{SIGNS.get(look.marker, "●")}</text></svg>'
    )


def named_runs(frame: pd.DataFrame) -> list[str]:
    """Names of runs as people say them: ``p-SGD, b 0.2, seed 0``, and what else differs.

    A run with the settings of one before it says so. ``frame`` is as from ``summaries``.
    """
    if frame.empty:
        return []
    said = ("method", "budget", "seed")
    keys = varying(frame, condition_columns(frame))
    others = [key for key in keys if key not in said]
    names: list[str] = []
    for known in frame.to_dict("records"):
        name = f"{known['method']}, b {known['budget']:g}, seed {known['seed']:g}"
        names.append(f"{name}, {label(known, others)}" if others else name)
    return [
        name if name not in names[:place]
        else f"{name} (the same, run {names[:place].count(name) + 1})"
        for place, name in enumerate(names)
    ]  # fmt: skip


COLUMNS = {"status": "status", "epochs_trained": "epochs", "test_accuracy": "test accuracy",
           "steps": "steps", "trained_samples": "trained on", "looked_samples": "looked at",
           "flops": "flops", "seconds": "seconds"}  # fmt: skip
FORMATS = {"test_accuracy": "{:.1%}", "flops": "{:.2e}", "seconds": "{:,.1f}", "status": "{}"}


def runs_table(frame: pd.DataFrame, names: list[str]) -> str:
    """Return the runs as an HTML table, costs included; ``frame`` as for :func:`named_runs`."""
    if not len(frame):
        return "<p>No run yet.</p>"
    table = frame[list(COLUMNS)].set_axis(names)
    for name in COLUMNS:
        form = FORMATS.get(name, "{:,.0f}")
        table[name] = ["" if pd.isna(v) else form.format(v) for v in table[name]]
    return table_markup(table.rename(columns=COLUMNS).rename_axis(columns="run"))
