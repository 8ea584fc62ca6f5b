"""List of runs with overlaid curves and a table of results and costs."""

import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as W
import numpy as np
import pandas as pd

from budgetlab import plots
from budgetlab.analysis import AXES, condition_columns, label, load, one_epoch, summaries
from budgetlab.analysis.conditions import telling
from budgetlab.errors import InputError, RunError
from budgetlab.explore.chart import DASHES
from budgetlab.plots import style
from budgetlab.plots.samples import histogram
from budgetlab.records import EPOCH_COLUMNS, Record
from budgetlab.training import Run
from budgetlab.widgets.controls import (
    LABEL,
    FigurePanel,
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

MOST_CURVES = 7
LONGEST_NAME = 32  # characters, so that a title is no wider than its axes
NO_EPOCH = "no epoch yet"
PICTURES = ("accuracy", "loss", "losses", "probabilities")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Snapshot of a run: last known losses (NaN: unknown) and probabilities ``[N]``, and epochs."""

    epoch: int
    losses: np.ndarray
    probability: np.ndarray | None
    kind: str
    rows: pd.DataFrame = field(repr=False)


def standing_of_run(run: Run) -> Snapshot:
    """Take a snapshot of a run between two of its steps."""
    probability = run.loop.sampler.probability
    return Snapshot(
        epoch=max(run.history.epoch, 1),
        losses=run.history.last_loss.cpu().numpy().copy(),
        probability=None if probability is None else probability.cpu().numpy().copy(),
        kind=run.loop.sampler.probability_kind,
        rows=pd.DataFrame(run.writer.epochs, columns=list(EPOCH_COLUMNS)),
    )


def standing_of_record(record: Record) -> Snapshot | None:
    """Read a snapshot of the last complete epoch; None without one."""
    if not len(record.epochs):
        return None
    last = one_epoch(record)
    probability = last["probability"].to_numpy()
    return Snapshot(
        epoch=int(last["epoch"].iloc[0]),
        losses=last["loss"].fillna(last["last_loss"]).to_numpy(),
        probability=None if np.isnan(probability).all() else probability,
        kind=record.probability_kind,
        rows=record.epochs,
    )


class RunRow(W.HBox):
    """One run of the list: line style, checkbox to show or hide it, button to remove it."""

    def __init__(self, record: Record, shelf: "RunList"):
        self.chip = W.HTML(layout=W.Layout(width="46px", margin="0 4px 0 0"))
        self.box = W.Checkbox(value=True, indent=False, layout=W.Layout(width="auto", margin="0"))
        self.box.observe(lambda _: shelf.redraw(), "value")
        self.away = button("Remove", partial(shelf.remove, self), "bl-remove")
        self.away.layout.margin = "2px 0 2px 0.5em"
        super().__init__([self.chip, self.box, self.away],
                         layout=W.Layout(align_items="center", margin="0 2em 0 0"))  # fmt: skip
        self.take(record)

    def take(self, record: Record) -> None:
        """Replace the record by a newer one; its snapshot is read on demand."""
        self.record = record
        (self.summary,) = summaries([record]).to_dict("records")
        self._standing: Snapshot | None = None

    @property
    def name(self) -> str:
        """Name of the run in list, figures and table."""
        return self.box.description

    @name.setter
    def name(self, name: str) -> None:
        self.box.description = name
        self.away.tooltip = f"Take {name} off the list; its record stays"

    @property
    def standing(self) -> Snapshot | None:
        """Snapshot of the run; None before its first epoch."""
        if self._standing is None:
            self._standing = standing_of_record(self.record)
        return self._standing

    @standing.setter
    def standing(self, now: Snapshot) -> None:
        self._standing = now


class RunList(W.VBox):
    """Figures of the selected runs, the list to select from, and a table.

    Methods may be called from the training thread. ``lines`` holds one line per run, in order of
    arrival; problems are reported in ``status``. ``cost`` and ``path`` are controls; ``pictures``
    shows accuracy, loss, and, for one run, losses and probabilities of the samples.
    """

    def __init__(self, records: Sequence[Record], status: StatusLine):
        self.status = status
        self._lock = threading.RLock()
        self._quiet = False
        self._live: RunRow | None = None
        self.pictures = [FigurePanel(590, 210, left=0.12, right=0.975, top=0.88, bottom=0.22)
                         for _ in PICTURES]  # fmt: skip
        self._drawn: list[Any] = [None for _ in PICTURES]
        self.cost = choice("Cost axis", [(text, name) for name, text in AXES.items()], "steps",
                           "22em")  # fmt: skip
        self.cost.observe(lambda _: self.redraw(), "value")
        self.path = W.Text(description="Folder", placeholder="of records", style=LABEL)
        self.path.add_class("bl-folder")
        self.open_button = button("Open", self.open_folder, "bl-open",
                                  "Show the runs of this folder too")  # fmt: skip
        # At most two rows of 32 pixels, so that the figures below fit the window, and half of a
        # third one, which shows that there is more.
        self.runs = W.HBox(layout=W.Layout(width="100%", max_height="80px", overflow="auto",
                                           flex_flow="row wrap"))  # fmt: skip
        self.runs.add_class("bl-runs")
        self.table, self.too_many = markup(), markup()
        for one, name in zip(self.pictures, PICTURES, strict=True):
            one.layout.width = "50%"
            one.add_class(f"bl-{name}")
        shown = W.HBox(self.pictures, layout=W.Layout(flex_flow="row wrap", max_width="1180px"))
        opening = row(self.cost, self.path, self.open_button)
        super().__init__([self.runs, self.too_many, shown, opening, self.table])
        self._list([RunRow(record, self) for record in records])

    @property
    def lines(self) -> tuple[RunRow, ...]:
        """The runs, in order of arrival."""
        return self.runs.children

    def open_folder(self) -> None:
        """Add the runs of the folder in the path field."""
        with self.status.showing_errors():
            if not self.path.value.strip():
                raise InputError("no folder is given: type the folder of a record, or of several")
            found = load(self.path.value.strip())
            self._keep(found)
            self.status.say(f"Opened {len(found)} record{'s' * (len(found) != 1)}.")

    def add(self, record: Record, now: Snapshot | None = None) -> None:
        """Add a new run, which is drawn once it is followed, or update a known one."""
        self._keep([record], now)

    def _keep(self, records: Sequence[Record], now: Snapshot | None = None) -> None:
        with self._lock:
            known = {line.record.path.resolve(): line for line in self.lines}
            self._quiet = True
            for record in records:
                line = known.get(record.path.resolve())
                if line is None:
                    line = known[record.path.resolve()] = RunRow(record, self)
                else:
                    line.take(record)
                    line.box.value = True
                if now is not None:
                    line.standing = now
            self._quiet = False
            self._list(list(known.values()))

    def follow(self, path: Path | None, now: Snapshot | None = None) -> None:
        """Show the state of the run being trained; pass None when it has ended."""
        with self._lock:
            self._live = next((line for line in self.lines if line.record.path == path), None)
            if self._live is not None and now is not None:
                self._live.standing = now
                self.redraw()

    def _list(self, lines: Sequence[RunRow]) -> None:
        """Show these lines, and rebuild the table."""
        with self._lock:
            table = pd.DataFrame([line.summary for line in lines])
            for line, name in zip(lines, named_runs(table), strict=True):
                line.name = name
            self.runs.children = lines
            self.table.value = runs_table(table, [line.name for line in lines])
            self.redraw()

    def remove(self, line: RunRow) -> None:
        """Remove a run from the list; its record is kept."""
        with self._lock, self.status.showing_errors():
            if line is self._live:
                raise RunError("this run is training: stop it first, or wait")
            self._list([one for one in self.lines if one is not line])
            self.status.say(f"Taken off the list; the record stays in {line.record.path}.")

    def select(self, lines: Sequence[RunRow]) -> None:
        """Select exactly these runs."""
        with self._lock:
            self._quiet = True
            for line in self.lines:
                line.box.value = line in lines
            self._quiet = False
            self.redraw()

    def shown(self) -> list[RunRow]:
        """Return the selected runs, at most the last ``MOST_CURVES``."""
        return [line for line in self.lines if line.box.value][-MOST_CURVES:]

    def redraw(self) -> None:
        """Redraw the figures that changed; per-sample figures show the last selected run."""
        if self._quiet:
            return
        with self._lock, self.status.showing_errors():
            shown = self.shown()
            ticked = sum(line.box.value for line in self.lines)
            self.too_many.value = "" if ticked == len(shown) else (
                f"The last {len(shown)} of the {ticked} ticked runs are drawn: untick some to see "
                "others.")  # fmt: skip
            looks = style.style_by_name([line.name for line in shown], always=True)
            for line in self.lines:
                line.chip.value = _legend_key(looks[line.name]) if line in shown else ""
            begun = {line: line.standing for line in shown if line.standing is not None}
            last = self._live if self._live in begun else next(reversed(begun), None)
            now = None if last is None else begun.get(last)
            curves = {line.name: (one.rows, looks[line.name]) for line, one in begun.items()}
            for place, value in enumerate(("test_accuracy", "train_loss")):
                of = [(name, rows[value].count(), look) for name, (rows, look) in curves.items()]
                self._draw(place, (self.cost.value, of), _curves, curves, self.cost.value, value)
            self._draw(2, now, _losses, now, last and last.name)
            self._draw(3, now, _probabilities, now)

    def _draw(self, place: int, of: Any, draw: Callable[..., str], *given: Any) -> None:
        """Redraw a figure if the state it depends on, ``of``, has changed."""
        if self._drawn[place] != (of,):
            picture = self.pictures[place]
            picture.show(draw(ready(picture.axes[0]), *given))
            self._drawn[place] = (of,)


TITLES = {"test_accuracy": "Accuracy on the test set (%)",
          "train_loss": "Loss while training (nats)"}  # fmt: skip


def _curves(
    ax: "Axes", curves: Mapping[str, tuple[pd.DataFrame, style.LineStyle]], cost: str, value: str
) -> str:
    """Draw a metric of several runs over a cost; return the alternative text."""
    # Not every epoch is evaluated: the known values are joined.
    parts = {name: known for name, (rows, _) in curves.items()
             if len(known := rows.dropna(subset=[value]))}  # fmt: skip
    begin = f"{TITLES[value].partition(' (')[0]} over {style.axis_name(cost)}."
    if not parts:
        begun = any(len(rows) for rows, _ in curves.values())
        style.empty(ax, "not evaluated yet" if begun else NO_EPOCH, TITLES[value])
        return f"{begin} None yet."
    frames = [
        pd.DataFrame({"method": name.partition(", ")[0], "run": name, "cost": rows[cost],
                      "mean": rows[value], "spread": np.nan, "n": 1})
        for name, rows in parts.items()
    ]  # fmt: skip
    plots.learning_curves(
        pd.concat(frames), cost=cost, value=value, keys=("method", "run"),
        looks={name: look for name, (_, look) in curves.items()}, legend=False, ax=ax,
    )  # fmt: skip
    style.set_title(ax, TITLES[value])
    ax.set_ylabel("")
    form = "{}: {:.1%} after epoch {}" if value == "test_accuracy" else "{}: {:.3g} after epoch {}"
    ends = [form.format(name, rows[value].iloc[-1], len(curves[name][0]))
            for name, rows in parts.items()]  # fmt: skip
    return f"{begin} {'; '.join(ends)}."


def _losses(ax: "Axes", now: Snapshot | None, shown: str) -> str:
    """Draw a run's last known per-sample losses; return the alternative text."""
    title = "Losses of the samples"
    if now is None:
        style.empty(ax, NO_EPOCH, title)
        return "No samples yet."
    known = now.losses[~np.isnan(now.losses)]
    begin = f"Samples of {shown} in epoch {now.epoch}: {len(known):,} seen"
    if not len(known):
        style.empty(ax, "no sample seen yet", title)
        return f"{begin}."
    histogram(known, x="last known loss (nats)", ax=ax)
    # In the left-aligned title: in the axis label, a long name would be cut off.
    name = textwrap.shorten(shown, LONGEST_NAME, placeholder=" …")
    style.set_title(ax, f"{title}: {name}, epoch {now.epoch}")
    return f"{begin}, median loss {np.median(known):.3g}."


def _probabilities(ax: "Axes", now: Snapshot | None) -> str:
    """Draw a run's sampling probabilities; return the alternative text."""
    title = "Sampling probability"
    q = np.empty(0) if now is None or now.probability is None else now.probability
    q = q[~np.isnan(q)]
    if now is None or not len(q):
        why = NO_EPOCH if now is None else "this method has no probabilities yet"
        style.empty(ax, why, title)
        return f"{title}: {why}."
    draws = now.kind == "draw"
    name = "times that of a uniform draw" if draws else "chance of being kept"
    q = q * len(q) if draws else q
    histogram(q, x=name, least=1.5 if draws else 1.0, colour=style.COLOURS[2], ax=ax)
    style.set_title(ax, title)
    return f"{title}: {name} from {q.min():.3g} to {q.max():.3g}."


SIGNS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}


def _legend_key(look: style.LineStyle) -> str:
    """Return a legend key: a curve's line and marker on white, as SVG."""
    dashes = DASHES[look.line] if isinstance(look.line, str) else look.line[1]
    return (
        '<svg aria-hidden="true" width="38" height="16" style="background:white;display:block">'
        f'<line x1="2" x2="36" y1="8" y2="8" stroke="{look.colour}" stroke-width="2" '
        f'stroke-dasharray="{" ".join(map(str, dashes))}"/><text x="19" y="13" '
        f'text-anchor="middle" font-size="13" fill="{look.colour}">'
        f"{SIGNS.get(look.marker, '●')}</text></svg>"
    )


def named_runs(frame: pd.DataFrame) -> list[str]:
    """Name rows of a frame of ``summaries``: ``p-SGD, b 0.2, seed 0``; repeats are marked."""
    if frame.empty:
        return []
    said = ("method", "budget", "seed")
    others = [key for key in telling(frame, condition_columns(frame)) if key not in said]
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
    # A run that has just begun has no costs yet, rather than none.
    table = frame[list(COLUMNS)].where(frame["epochs_trained"] > 0).assign(status=frame["status"])
    table = table.set_axis(names)
    for name in COLUMNS:
        form = FORMATS.get(name, "{:,.0f}")
        table[name] = ["" if pd.isna(v) else form.format(v) for v in table[name]]
    return table_markup(table.rename(columns=COLUMNS).rename_axis(columns="run"))
