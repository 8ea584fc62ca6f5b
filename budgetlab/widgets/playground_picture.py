"""Two runs on the same points, side by side. Artists are made once."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb

from budgetlab.explore.points import GRID, Frame
from budgetlab.plots import style
from budgetlab.plots.points import CLASSES, SHAPES, USUAL, sizes, surface_colours
from budgetlab.widgets.panel import PicturePanel, few_ticks, fixed_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AS_COLOUR", "AS_SIZE", "PlaygroundPicture"]

AS_SIZE, AS_COLOUR = "size", "colour"


class PlaygroundPicture:
    """The predicted class behind, the points in front; picked ones have a dark edge.

    Parameters
    ----------
    x
        Points ``[N, 2]``.
    y
        Labels ``[N]``, at most three classes.
    extent
        Left, right, bottom, top.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, extent: tuple[float, float, float, float]):
        figure = fixed_figure(900, 470)
        self.panel = PicturePanel(figure)
        figure.subplots_adjust(left=0.05, right=0.985, top=0.9, bottom=0.06, wspace=0.12)
        self._halves = [_Half(axes, x, y, extent) for axes in figure.subplots(1, 2)]

    def draw(
        self,
        names: tuple[str, str],
        frames: tuple[Frame | None, Frame | None],
        way: str,
        epoch: int,
    ) -> None:
        """Show one epoch of two runs; ``way`` is how the probability is shown."""
        pairs = zip(self._halves, names, frames, strict=True)
        said = [half.draw(name, frame, way) for half, name, frame in pairs]
        self.panel.show(f"Epoch {epoch} of two runs on the same points. {' '.join(said)}")


class _Half:
    """One run: the surface, and one collection of points a class."""

    def __init__(
        self, axes: "Axes", x: np.ndarray, y: np.ndarray, extent: tuple[float, float, float, float]
    ):
        style.finish(axes)
        few_ticks(axes)
        axes.grid(False)
        self.axes = axes
        white = np.full((GRID, GRID, 3), 255, np.uint8)
        self.surface = axes.imshow(white, extent=extent, origin="lower", aspect="auto",
                                   interpolation="bilinear")  # fmt: skip
        self.members = [np.flatnonzero(y == k) for k in range(int(y.max()) + 1)]
        self.points = [
            axes.scatter(x[rows, 0], x[rows, 1], s=USUAL, marker=SHAPES[k % 3], linewidths=0.8)
            for k, rows in enumerate(self.members)
        ]
        axes.set_xlim(*extent[:2])
        axes.set_ylim(*extent[2:])

    def draw(self, name: str, frame: Frame | None, way: str) -> str:
        if frame is None:
            self.axes.set_title(f"{name}: not trained so far", loc="left", fontsize=10)
            self.surface.set_data(np.full((GRID, GRID, 3), 255, np.uint8))
            self._paint(np.ones(sum(map(len, self.members))), None, AS_SIZE)
            return f"{name}: not trained so far."
        accuracy = f"{100 * frame.accuracy:.1f}%"
        never = float((frame.trained == 0).mean())
        self.axes.set_title(
            f"{name}: accuracy {accuracy}, {frame.steps} steps, {100 * never:.0f}% never picked",
            loc="left", fontsize=10,
        )  # fmt: skip
        self.surface.set_data(surface_colours(frame.winner, frame.sure))
        chance = np.nan_to_num(frame.chance, nan=1.0)
        self._paint(chance, frame.picked > 0, way)
        return (
            f"{name}: accuracy {accuracy} after {frame.steps} steps; "
            f"{int((frame.picked > 0).sum())} of {len(frame.picked)} points were picked in this "
            f"epoch, {100 * never:.0f}% never so far; probability from {chance.min():.3g} to "
            f"{chance.max():.3g}."
        )

    def _paint(self, chance: np.ndarray, picked: np.ndarray | None, way: str) -> None:
        for k, (rows, points) in enumerate(zip(self.members, self.points, strict=True)):
            base = np.array(to_rgb(CLASSES[k % 3]))
            colours = np.tile(np.append(base, 0.85), (len(rows), 1))
            if way == AS_COLOUR:
                # From pale to full as the probability grows.
                depth = np.clip(chance[rows] / max(2.0, float(chance.max())), 0.08, 1)[:, None]
                colours[:, :3] = 1 - depth * (1 - base)
                points.set_sizes([USUAL * 1.6])
            else:
                points.set_sizes(sizes(chance[rows]))
            points.set_facecolor(colours.tolist())
            edges = np.tile((1.0, 1.0, 1.0, 0.5), (len(rows), 1))
            if picked is not None:
                edges[picked[rows]] = (0.05, 0.05, 0.05, 1)
            points.set_edgecolor(edges.tolist())
