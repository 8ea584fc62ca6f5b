"""Three views of one draw: probabilities, inclusion, losses. Artists are made once."""

import numpy as np

from budgetlab.forecast import ExpectedDraw
from budgetlab.plots import style
from budgetlab.widgets.panel import PicturePanel, few_ticks, fixed_figure

__all__ = ["MicroscopePicture"]

RANKED, HISTOGRAM = "ranked curve", "histogram"
BINS = 40
CURVE_POINTS = 400


class MicroscopePicture:
    """Draws :class:`ExpectedDraw` beside the losses they come from.

    Left: ``q`` relative to a uniform draw. Middle: chance of being drawn in this epoch.
    Right: losses known before the epoch, of all samples and of those that are drawn.
    """

    def __init__(self, width: int = 960, height: int = 320):
        figure = fixed_figure(width, height)
        self.panel = PicturePanel(figure)
        self.axes = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.075, right=0.99, top=0.9, bottom=0.17, wspace=0.33)
        self._parts = [
            _Ranks(axes, colour)
            for axes, colour in zip(self.axes, (style.COLOURS[2], style.COLOURS[0]), strict=False)
        ]
        right = self.axes[2]
        self._all = right.stairs([0, 0], [0, 1, 2], color=style.INK, linewidth=1.5,
                                 label="all seen")  # fmt: skip
        self._drawn = right.stairs([0, 0], [0, 1, 2], color=style.COLOURS[1], fill=True,
                                   alpha=0.35, label="expected draw")  # fmt: skip
        titles = ("Probability q of the draw", "Chance of being drawn", "Losses known before")
        for axes, title in zip(self.axes, titles, strict=True):
            style.finish(axes, title=title)
            few_ticks(axes)
        right.set_xlabel("last known loss (nats)")
        right.set_ylabel("samples")
        right.legend(frameon=False, fontsize=9, loc="upper right", labelcolor=style.INK)

    def draw(self, chances: ExpectedDraw, losses: np.ndarray, view: str, text: str) -> None:
        """Show a draw.

        Parameters
        ----------
        chances
            Of one epoch.
        losses
            ``[N]``: last known loss, NaN where none is.
        view
            ``ranked curve`` or ``histogram``.
        text
            What is shown, for the description of the picture.
        """
        relative = chances.q * len(chances.q)
        left, middle = self._parts
        left.draw(relative, view, "times that of a uniform draw", top=None)
        middle.draw(chances.inclusion, view, "chance in this epoch", top=1.0)
        self._draw_losses(chances.inclusion, losses)
        known = losses[~np.isnan(losses)]
        median = f"median loss {np.median(known):.3g}" if len(known) else "no loss known yet"
        self.panel.show(
            f"{text} Three plots. q goes from {relative.min():.3g} to {relative.max():.3g} times "
            f"uniform; the chance of being drawn from "
            f"{chances.inclusion.min():.3g} to {chances.inclusion.max():.3g}; {median}."
        )

    def _draw_losses(self, inclusion: np.ndarray, losses: np.ndarray) -> None:
        axes, known = self.axes[2], ~np.isnan(losses)
        # The last twentieth of a thousand would squeeze the rest into one bin.
        top = max(float(np.quantile(losses[known], 0.995)), 1e-3) if known.any() else 1.0
        edges = np.linspace(0, top, BINS + 1)
        inside = np.minimum(losses[known], top)
        counts, _ = np.histogram(inside, edges)
        expected, _ = np.histogram(inside, edges, weights=inclusion[known])
        self._all.set_data(counts, edges)
        self._drawn.set_data(expected, edges, baseline=0)
        axes.set_xlim(0, top)
        # Room for the legend, which would cost more to be placed anew each time.
        axes.set_ylim(0, max(counts.max(), 1) * 1.35)


class _Ranks:
    """One value a sample, as a falling curve or as a histogram."""

    def __init__(self, axes, colour: str):
        self.axes = axes
        (self.curve,) = axes.plot([0, 100], [0, 0], color=colour, linewidth=2)
        self.stairs = axes.stairs([0, 0], [0, 1, 2], color=colour, fill=True, alpha=0.6)
        self.even = axes.axhline(1, color=style.INK, linewidth=1, linestyle=":")

    def draw(self, values: np.ndarray, view: str, name: str, top: float | None) -> None:
        ranked = view == RANKED
        self.curve.set_visible(ranked)
        self.stairs.set_visible(not ranked)
        self.even.set_visible(ranked and top is None)
        highest = top if top is not None else max(2.0, float(values.max()))
        if ranked:
            shares = np.linspace(0, 1, CURVE_POINTS)
            # Sorted once; the curve needs no more points than the picture has.
            falling = np.sort(values)[::-1]
            places = (shares * (len(values) - 1)).round().astype(int)
            self.curve.set_data(100 * shares, falling[places])
            self.axes.set_xlim(0, 100)
            self.axes.set_ylim(0, highest * 1.05)
        else:
            edges = np.linspace(0, highest * (1 + 1e-9), BINS + 1)
            counts, _ = np.histogram(values, edges)
            self.stairs.set_data(counts, edges, baseline=0)
            self.axes.set_xlim(0, highest * 1.02)
            self.axes.set_ylim(0, max(counts.max(), 1) * 1.05)
        self.axes.set_xlabel("samples, highest first (%)" if ranked else name)
        self.axes.set_ylabel(name if ranked else "samples")
