"""Widget that shows which samples a method prefers, how strongly, and with what effect."""

import threading
from pathlib import Path

import numpy as np

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
from budgetlab.plots import style
from budgetlab.plots.samples import histogram, ranked
from budgetlab.records import Record, open_record
from budgetlab.records.thin import subsample_note
from budgetlab.widgets.background import Player, RateLimiter
from budgetlab.widgets.controls import FigurePanel, Number, Panel, choice, ready, row

RECORDED = "as recorded"
FOLLOW_SECONDS = 1.0


class ProbabilityMicroscope(Panel):
    """Show what any method would draw in an epoch of a recorded run, even while it trains.

    Losses and scores are those the run had at the start of the epoch. With another method,
    smoothing or budget, the figure shows what that method would do with *this* history; its own run
    would have had another one. The widget extends :func:`budgetlab.explore.probabilities` to
    methods without scores; methods that decide within an epoch are only shown as recorded. Raises
    InputError if the record cannot be read or holds no epoch.

    ``record``: a record, or its folder. It may belong to a run that is still training, such as
    ``bench.records[-1]``: "Follow" shows its newest epoch and each new one, until the run ends or
    another epoch is chosen.

    Attributes
    ----------
    method, smoothing, power, budget, epoch
        The controls; set their ``value``.
    follower
        Follows a run that is still training: ``play()``, ``pause()`` and ``playing``.
    chances, numbers
        What is shown: :class:`~budgetlab.forecast.ExpectedDraw`, and its summary.

    Examples
    --------
    >>> microscope = bl.widgets.ProbabilityMicroscope(record)  # doctest: +SKIP
    >>> microscope.method.value = "c-SGD"  # doctest: +SKIP
    >>> microscope.numbers["effective_samples"]  # doctest: +SKIP
    """

    elsewhere = "that of the run"

    def __init__(self, record: Record | Path | str):
        super().__init__("bl-microscope")
        # Reopened: a record opened when its run began has no epochs yet.
        self.record = open_record(record.path if isinstance(record, Record) else record)
        self.config = config = RunConfig.from_dict(self.record.config)
        self.replay = Replay(self.record)
        self.chances: ExpectedDraw | None = None
        self.numbers: dict[str, float] = {}
        self._pace = RateLimiter(shortest=FOLLOW_SECONDS)
        # The follower reads and draws in its own thread.
        self._turn = threading.RLock()
        self._reader: int | None = None
        known = [(f"{RECORDED} ({config.method})", RECORDED), *((m, m) for m in supported())]
        self.control(
            method=choice("Method", known, RECORDED),
            epoch=Number("Epoch", self.replay.epochs, 1, self.replay.epochs, 1),
            budget=Number("Budget", config.budget, 0.01, 1.0, 0.01),
            smoothing=Number("Smoothing", min(config.smoothing, 10.0), 0.0, 10.0, 0.05),
            power=Number("Power", min(config.power, 5.0), 0.0, 5.0, 0.05),
        )
        self.follower = Player(
            self._follow, self._follow, FOLLOW_SECONDS, says=("Follow", "Stop following"),
            marker="bl-follow", hint="Go to the newest epoch, and to each new one of a run that "
            "still trains",
        )  # fmt: skip
        self.picture = FigurePanel(960, 320, columns=3, left=0.075, right=0.99, top=0.9,
                                    bottom=0.17, wspace=0.33)  # fmt: skip
        self.children = (
            row(self.method, self.epoch, self.budget),
            row(self.smoothing, self.power, self.follower.button),
            self.picture,
            self.status,
        )
        self.update()

    def changed(self, name: str) -> None:
        """Redraw, and stop following if the epoch was not changed by the follower."""
        if self._reader != threading.get_ident():
            if name == "epoch":
                self.follower.pause()
            self.update()

    def _follow(self) -> bool:
        """Show the newest epoch, if there is a new one; return False once the run has ended."""
        with self._turn, self.status.showing_errors():
            record = open_record(self.record.path)
            # Checked before the epochs are read, so that the last ones are not missed.
            training = record.is_training
            if len(record.epochs) > self.replay.epochs:
                self.record, self.replay = record, Replay(record)
                self._reader = threading.get_ident()
                try:
                    self.epoch.limit(1, self.replay.epochs)
                    self.epoch.value = self.replay.epochs
                finally:
                    self._reader = None
                with self._pace.working():
                    self.update()
                self.follower.seconds = self._pace.pause
            if not training and not self.status.is_problem:
                self.status.say(f"{self._say()} This run has ended: no epoch will follow.")
            return training
        return False

    def update(self) -> None:
        """Update the display to the controls; on a problem, say it and clear the figure."""
        with self._turn:
            self._update()
            if self.status.is_problem:
                self.chances, self.numbers = None, {}
                for ax in map(ready, self.picture.axes):
                    style.empty(ax, "no draw to show")
                self.picture.show(f"No draw to show: {self.status.text}")

    def _update(self) -> None:
        with self.status.showing_errors():
            method = self.method.value
            reads = () if method == RECORDED else methods.find(method).fields
            self.smoothing.disabled = "smoothing" not in reads
            self.power.disabled = "power" not in reads
            self.budget.disabled = method == RECORDED
            history = self.replay.before(self.epoch.value)
            if method == RECORDED:
                data = self.record.samples["probability"][self.epoch.value - 1].to_numpy()
                # A class of which only some samples are kept does not say how many were drawn.
                whole = not subsample_note(self.record)
                self.chances = recorded_forecast(
                    data, self.record.probability_kind, self.config,
                    labels=self.replay.labels if whole else None,
                )  # fmt: skip
            else:
                # Loss weights do not change the draw, and not every method allows them.
                changed = {n: getattr(self, n).value for n in ("budget", "smoothing", "power")}
                self.chances = forecast(
                    history,
                    self.config.replace(method=method, weights="none", **changed),
                    labels=self.replay.labels,
                )
            self.numbers = in_numbers(self.chances, history.seen.numpy())
            self._draw(self.chances, history.last_loss.numpy())
            self.status.say(self._say())

    def _say(self) -> str:
        assert self.chances is not None
        numbers, size = self.numbers, self.replay.size
        if self.method.value == RECORDED:
            which = f"{self.config.method} as recorded, budget {self.config.budget:g}"
        else:
            which = f"{self.method.value} at budget {self.budget.value:g}"
            if not self.smoothing.disabled:
                which += f", smoothing {self.smoothing.value:g}, power {self.power.value:g}"
            which += f", with what the run ({self.config.method}) knew"
        return (
            f"Epoch {self.epoch.value}: {which}. Drawn: {numbers['expected']:,.0f} of {size:,}, "
            f"each with a chance of {numbers['lowest']:.3f} to {numbers['highest']:.3f} "
            f"({self.chances.how}). Entropy of q {numbers['entropy']:.3f} of {np.log(size):.3f} "
            f"nats, effective sample size {numbers['effective_samples']:,.0f}; coverage "
            f"{numbers['coverage']:.1%} before and {numbers['coverage_after']:.1%} after the epoch."
        )

    def _draw(self, chances: ExpectedDraw, losses: np.ndarray) -> None:
        """Draw ``q`` relative to uniform, the chance against the loss, and the losses."""
        left, middle, right = map(ready, self.picture.axes)
        ranked(chances.q * len(chances.q), y="times that of a uniform draw", ax=left)
        known, loss = ~np.isnan(losses), "last known loss (nats)"
        if known.any():
            weights = chances.inclusion[known]
            middle.plot(losses[known], weights, ".", color=style.COLOURS[0], alpha=0.35,
                        markersize=3)  # fmt: skip
            middle.set_ylim(0, 1.05)
            style.finish(middle, x=loss, y="chance in this epoch")
            histogram(losses[known], x=loss, weights=weights, colour=style.COLOURS[1], ax=right)
        else:
            for axes in (middle, right):
                style.empty(axes, "no loss known yet")
        titles = ("Probability q, highest first", "Chance of being drawn", "Losses known before")
        for ax, title in zip(self.picture.axes, titles, strict=True):
            style.set_title(ax, title)
        median = f"median loss {np.median(losses[known]):.3g}" if known.any() else (
            "no loss known yet")  # fmt: skip
        self.picture.show(f"{self._say()} Three plots: q, chance and losses; {median}.")
