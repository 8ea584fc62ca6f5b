"""Which samples does a method prefer, how strongly, and what follows from it?"""

import math
import threading
from pathlib import Path

import ipywidgets as W
import numpy as np
import pandas as pd

from budgetlab import methods
from budgetlab.config import RunConfig
from budgetlab.forecast import (
    ExpectedDraw,
    Replay,
    forecast,
    in_numbers,
    recorded_forecast,
    supported,
)
from budgetlab.history import History
from budgetlab.plots import style
from budgetlab.plots.samples import histogram, ranked
from budgetlab.records import Record, open_record
from budgetlab.widgets.background import Pace, Player
from budgetlab.widgets.controls import (
    Number,
    Panel,
    PicturePanel,
    button,
    choice,
    markup,
    ready,
    row,
    table_markup,
)

__all__ = ["ProbabilityMicroscope"]

RANKED, HISTOGRAM = "ranked curve", "histogram"
RECORDED = "as recorded"
FOLLOW_SECONDS = 1.0


class ProbabilityMicroscope(Panel):
    """Look at the draw of one epoch of a recorded run, and change how it is made.

    The losses and scores are those that the run had when the epoch began. With another
    method, smoothing, beta or budget, the picture says what that method would do with
    *this* knowledge; a run with it would have learned other things on the way.

    Methods that decide by what they see within an epoch are shown as recorded only.

    Parameters
    ----------
    record
        A record, or the folder of one. It may belong to a run that still trains, such as
        ``bench.records[-1]``: "Read again" then goes to its newest epoch, and "Follow" to
        each new one, until the run ends or another epoch is asked for.

    Attributes
    ----------
    method, smoothing, power, beta, auto_beta, budget, epoch, view
        The controls; set their ``value``.
    follower
        Follows a run that still trains: ``play()``, ``pause()`` and ``playing``.
    chances, numbers
        What is shown: :class:`~budgetlab.forecast.ExpectedDraw`, and the same summed up.

    Raises
    ------
    InputError
        If the record cannot be read or holds no epoch.

    Examples
    --------
    >>> microscope = bl.widgets.ProbabilityMicroscope(record)  # doctest: +SKIP
    >>> microscope.method.value = "c-SGD"  # doctest: +SKIP
    >>> microscope.numbers["effective_samples"]  # doctest: +SKIP
    """

    def __init__(self, record: Record | Path | str):
        super().__init__("bl-microscope")
        # Opened anew: a record that was opened as its run began knows no epoch.
        self.record = open_record(record.path if isinstance(record, Record) else record)
        self.config = RunConfig.from_dict(self.record.config)
        self.replay = Replay(self.record)
        self.chances: ExpectedDraw | None = None
        self.numbers: dict[str, float] = {}
        self._history: tuple[int, History] | None = None
        self._pace = Pace(shortest=FOLLOW_SECONDS)
        # What follows a run reads and draws in a thread of its own.
        self._turn = threading.RLock()
        self._reader: int | None = None
        self._build_controls()
        self.table = markup(min_height="6em")
        self.picture = PicturePanel(960, 320, columns=3, left=0.075, right=0.99, top=0.9,
                                    bottom=0.17, wspace=0.33)  # fmt: skip
        self.children = (
            row(self.method, self.epoch, self.budget),
            row(self.smoothing, self.power, self.view),
            row(self.beta, self.auto_beta, self.reload_button, self.follower.button),
            self.picture,
            self.table,
            self.status,
        )
        self.update()

    def _build_controls(self) -> None:
        config, own = self.config, f"{RECORDED} ({self.config.method})"
        beta = 1 / config.budget - 1 if config.sb_beta == "auto" else float(config.sb_beta)
        methods = [(own, RECORDED), *((name, name) for name in supported())]
        self.control(
            method=choice("Method", methods, RECORDED),
            epoch=Number("Epoch", self.replay.epochs, 1, self.replay.epochs, 1),
            budget=Number("Budget", config.budget, 0.01, 1.0, 0.01),
            smoothing=Number("Smoothing", min(config.smoothing, 10.0), 0.0, 10.0, 0.05),
            power=Number("Power", min(config.power, 5.0), 0.0, 5.0, 0.05),
            beta=Number("Beta", min(beta, 20.0), 0.0, 20.0, 0.1),
            auto_beta=W.Checkbox(value=config.sb_beta == "auto", indent=False,
                                 description="beta = 1 / budget - 1",
                                 layout=W.Layout(width="13em")),
            view=choice("Show", [RANKED, HISTOGRAM], RANKED),
        )  # fmt: skip
        self.reload_button = button("Read again", self.reload, "bl-reload",
                                    "Read what the run has added to its record")  # fmt: skip
        self.follower = Player(
            self._follow, self._follow, FOLLOW_SECONDS, says=("Follow", "Stop following"),
            marker="bl-follow", hint="Go to each new epoch of a run that still trains",
        )  # fmt: skip

    def changed(self, name: str) -> None:
        """Show it, and stop following where somebody else asks for an epoch."""
        if name == "epoch" and self._reader != threading.get_ident():
            self.follower.pause()
        self.update()

    def reload(self) -> None:
        """Read the record again, which may have grown, and go to its last epoch."""
        with self._turn, self.status.catching():
            self._read(open_record(self.record.path))

    def _read(self, record: Record) -> None:
        replay = Replay(record)
        self.record, self.replay, self._history = record, replay, None
        self._reader = threading.get_ident()
        try:
            self.epoch.limit(1, replay.epochs)
            self.epoch.value = replay.epochs
        finally:
            self._reader = None
        self.update()

    def _follow(self) -> bool:
        """Go to the newest epoch, if there is a new one; False where no more will come."""
        with self._turn, self.status.catching():
            record = open_record(self.record.path)
            # Asked before the epochs are read: what is written last is not missed.
            training = record.is_training
            if len(record.epochs) > self.replay.epochs:
                with self._pace.working():
                    self._read(record)
                self.follower.seconds = self._pace.pause
            if not training and not self.status.is_problem:
                self.status.say(f"{self._say()} This run has ended: no epoch will follow.")
            return training
        return False

    def update(self) -> None:
        """Show what the controls ask for; what cannot be is said in the status line."""
        with self._turn:
            # Once it has read, and not for each end of the slider that it moves.
            if self._reader is None:
                self._update()

    def _update(self) -> None:
        method = self.method.value
        reads = () if method == RECORDED else methods.find(method).fields
        self.smoothing.disabled = "smoothing" not in reads
        self.power.disabled = "power" not in reads
        self.auto_beta.disabled = "sb_beta" not in reads
        self.beta.disabled = self.auto_beta.disabled or self.auto_beta.value
        self.budget.disabled = method == RECORDED
        with self.status.catching():
            history = self._before(self.epoch.value)
            self.chances = self._find_chances(history)
            self.numbers = in_numbers(self.chances, history.seen.numpy())
            self.table.value = self._table()
            text = self._say()
            self._draw(self.chances, history.last_loss.numpy(), text)
            self.status.say(text)

    def _before(self, epoch: int) -> History:
        if self._history is None or self._history[0] != epoch:
            self._history = epoch, self.replay.before(epoch)
        return self._history[1]

    def _find_chances(self, history: History) -> ExpectedDraw:
        if self.method.value == RECORDED:
            data = self.record.samples["probability"]
            probability = data[self.epoch.value - 1].to_numpy()
            return recorded_forecast(probability, self.record.probability_kind, self.config)
        config = self.config.replace(
            method=self.method.value,
            budget=self.budget.value,
            sb_beta="auto" if self.auto_beta.value else self.beta.value,
            smoothing=self.smoothing.value,
            power=self.power.value,
            # It changes no chance, and not every method can be asked for it.
            weights="none",
        )
        return forecast(history, config)

    def _say(self) -> str:
        if self.method.value == RECORDED:
            who = f"{self.config.method} as recorded, budget {self.config.budget:g}"
        else:
            who = f"{self.method.value} at budget {self.budget.value:g}"
            if not self.auto_beta.disabled:
                beta = 1 / self.budget.value - 1 if self.auto_beta.value else self.beta.value
                who += f", beta {beta:.3g}"
            elif not self.smoothing.disabled:
                who += f", smoothing {self.smoothing.value:g}, power {self.power.value:g}"
            who += f", with what the run ({self.config.method}) knew"
        assert self.chances is not None
        return f"Epoch {self.epoch.value}: {who}. Chance of being drawn: {self.chances.how}."

    def _table(self) -> str:
        size, numbers = self.replay.size, self.numbers
        assert self.chances is not None
        kind = "analytic" if self.chances.analytic else "simulated"
        return table_markup(pd.DataFrame({"": {
            "Entropy of q": f"{numbers['entropy']:.3f} of {math.log(size):.3f} nats",
            "Effective sample size": f"{numbers['effective_samples']:,.0f} of {size:,}",
            "Expected number drawn": f"{numbers['expected']:,.0f} of {size:,}",
            f"Chance of being drawn ({kind})":
                f"{numbers['lowest']:.3f} to {numbers['highest']:.3f}",
            "Coverage before and (expected) after the epoch":
                f"{100 * numbers['coverage']:.1f}% and {100 * numbers['coverage_after']:.1f}%",
        }}), head=False)  # fmt: skip

    def _draw(self, chances: ExpectedDraw, losses: np.ndarray, text: str) -> None:
        """Left ``q``, times uniform; middle the chance of being drawn; right the losses of both."""
        left, middle, right = map(ready, self.picture.axes)
        relative = chances.q * len(chances.q)
        for ax, values, name, colour, least in (
            (left, relative, "times that of a uniform draw", style.COLOURS[2], 2.0),
            (middle, chances.inclusion, "chance in this epoch", style.COLOURS[0], 1.0),
        ):
            if self.view.value == RANKED:
                ranked(values, y=name, colour=colour, ax=ax)
            else:
                histogram(values, x=name, least=least, colour=colour, ax=ax)
        known = ~np.isnan(losses)
        if known.any():
            histogram(losses[known], x="last known loss (nats)", weights=chances.inclusion[known],
                      colour=style.COLOURS[1], ax=right)  # fmt: skip
        else:
            style.empty(right, "no loss known yet")
        titles = ("Probability q of the draw", "Chance of being drawn", "Losses known before")
        for ax, title in zip(self.picture.axes, titles, strict=True):
            style.set_title(ax, title)
        median = f"median loss {np.median(losses[known]):.3g}" if known.any() else (
            "no loss known yet")  # fmt: skip
        self.picture.show(
            f"{text} Three plots. q goes from {relative.min():.3g} to {relative.max():.3g} times "
            f"uniform; the chance of being drawn from {chances.inclusion.min():.3g} to "
            f"{chances.inclusion.max():.3g}; {median}."
        )
