"""Interactive chart of two methods on 2-D points, and the frames of a run that it needs."""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, whole
from budgetlab.explore.chart import (
    ROOM,
    SCHEMAS,
    SUBTITLE_LETTERS,
    VEGA_LITE,
    Explorable,
    axis,
    checkbox,
    hover,
    mark,
    slider,
    specification,
    words,
    wrap_title,
    wrapped,
)
from budgetlab.explore.packing import compact, joined, parted, png
from budgetlab.plots.images import CLASSES, LARGEST, SMALLEST, USUAL, extent_of, surface_colours
from budgetlab.records import Record, open_record

if TYPE_CHECKING:
    import torch

    from budgetlab.data import Dataset, Splits
    from budgetlab.training import Run

GRID = 60
SIDE = 330  # pixels of one half, where both fit
# Stacked in a narrow window.
FITS = {"side": f"clamp(room < 560 ? room - 70 : room / 2 - 80, 160, {SIDE})",
        **wrapped(560, {"": 2})}  # fmt: skip
LEGEND = ("Larger: likelier to be drawn. Dark edge: drawn in this epoch. Behind: the class "
          "predicted, paler where less sure")  # fmt: skip
SYMBOLS = ("circle", "square", "triangle-up")
STEP = 450  # milliseconds per epoch when playing
MOST_VALUES = 40_000  # points times epochs of a run, so that a chart stays under 1 MB


@dataclass(frozen=True)
class Frame:
    """State of a run on 2-D points after an epoch.

    - ``winner``: uint8 ``[60, 60]``: class predicted at each grid point; the first row has the
      lowest second feature.
    - ``sure``: float32 ``[60, 60]``: probability of that class.
    - ``chance``: float64 ``[N]``: sampling probability relative to a uniform draw, or a filter
      method's chance of being kept. NaN if unknown.
    - ``picked``, ``trained``: int ``[N]``: times in a batch, in this epoch and so far.
    - ``accuracy``: test accuracy, 0 to 1.
    - ``steps``: optimiser steps so far.
    """

    winner: np.ndarray
    sure: np.ndarray
    chance: np.ndarray
    picked: np.ndarray
    trained: np.ndarray
    accuracy: float
    steps: int

    def headline(self, name: str) -> str:
        """Summarise the state in one line."""
        never = 100 * float((self.trained == 0).mean())
        said = f"{100 * self.accuracy:.1f}% right, {self.steps} steps, {never:.0f}% never drawn"
        return f"{name}: {said}"


@dataclass(frozen=True)
class PointRun:
    """A run on points ``x`` ``[N, 2]`` with labels ``y`` ``[N]``, with a frame for each epoch."""

    name: str
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    frames: list[Frame] = field(default_factory=list, repr=False)


def grid_of(samples: "Dataset") -> "tuple[torch.Tensor, tuple[float, float, float, float]]":
    """Return a grid over the samples and its extent (left, right, bottom, top).

    The grid is float32 ``[3600, 2]``, row by row from the lowest second feature. Raises InputError
    if the samples are not 2-D points.
    """
    import torch

    if samples.x.ndim != 2 or samples.x.shape[1] != 2:
        raise InputError("this data set holds no points: choose points:moons or a similar one")
    left, right, bottom, top = extent = extent_of(samples.x.cpu().numpy())
    steps = (torch.arange(GRID) + 0.5) / GRID
    across, up = left + steps * (right - left), bottom + steps * (top - bottom)
    return torch.stack([across.repeat(GRID), up.repeat_interleave(GRID)], 1), extent


def frame_of(run: "Run", grid: "torch.Tensor") -> Frame:
    """Capture the state of a run between two epochs, without changing the run."""
    import torch

    engine, sampler, history = run.loop.engine, run.loop.sampler, run.history
    engine.network.eval()  # every step sets it to training again
    with torch.no_grad():
        best = engine.logits(grid.to(engine.device)).softmax(1).max(1)
    chance = np.full(history.size, np.nan)
    if sampler.probability is not None:
        factor = history.size if sampler.probability_kind == "draw" else 1
        chance = factor * sampler.probability.double().cpu().numpy()
    last = run.writer.epochs[-1]
    return Frame(
        winner=best.indices.reshape(GRID, GRID).byte().cpu().numpy(),
        sure=best.values.reshape(GRID, GRID).cpu().numpy(),
        chance=chance,
        picked=history.times_trained_this_epoch.cpu().numpy().copy(),
        trained=history.times_trained.cpu().numpy().copy(),
        accuracy=float(last["test_accuracy"]),
        steps=int(last["steps"]),
    )


def watch(run: RunConfig | Record | Path | str, splits: "Splits | None" = None) -> PointRun:
    """Train on 2-D points and keep a frame of each epoch; no record is kept.

    Raises InputError if the data are not 2-D points, or have changed since the record was written.

    - ``run``: settings of a run, or a record, which is trained again with the same result.
    - ``splits``: the data; loaded if not given.
    """
    from budgetlab.data import dataset
    from budgetlab.training import Run, load_data

    record = None
    if isinstance(run, RunConfig):
        config = run
    else:
        record = open_record(run)
        config = RunConfig.from_dict(record.config)
    splits = load_data(config, progress=False) if splits is None else splits
    dataset.require(splits, dataset.Splits, what="splits")
    if record is not None and splits.fingerprint != record.fingerprint:
        raise InputError(
            f"the data of '{record.path}' have changed: train it anew, or give them as splits"
        )
    grid, _ = grid_of(splits.train)
    kept = PointRun(config.method, splits.train.x.cpu().numpy(), splits.train.y.cpu().numpy())
    with tempfile.TemporaryDirectory(prefix="budgetlab-") as folder:
        trained = Run(config.replace(out=folder), splits=splits)
        for _ in trained:
            kept.frames.append(frame_of(trained, grid))
    return kept


def playground(
    left: PointRun | Record | Path | str, right: PointRun | Record | Path | str
) -> Explorable:
    """Compare two methods on 2-D points by epoch: a slider, or play as an animation.

    The size of a point encodes its sampling probability; a dark edge marks points drawn in this
    epoch. The background shows the predicted class, paler where the network is less sure. Raises
    InputError if the two are not on the same points, or one holds no epoch.

    ``left``, ``right``: runs on the same points: from :func:`watch`, from ``runs`` of a
    :class:`~budgetlab.widgets.SamplerPlayground`, or records, which are trained again.

    The chart's ``kind`` is ``vega``; its twin takes ``epoch`` and returns a frame of ``run`` (left
    or right), ``x``, ``y``, ``label``, ``chance`` and ``picked``.
    """
    runs = [one if isinstance(one, PointRun) else watch(one) for one in (left, right)]
    for run in runs:
        if not run.frames:
            raise InputError(f"the run of {run.name} holds no epoch: train it first")
    if runs[0].x.shape != runs[1].x.shape or not np.array_equal(runs[0].x, runs[1].x):
        raise InputError("the two runs are not on the same points: give two on the same data")
    x, y = runs[0].x, runs[0].y
    last = max(len(run.frames) for run in runs)
    # Long runs on many points are thinned: an epoch is shown until the next stored one.
    kept = np.linspace(1, last, max(2, min(last, MOST_VALUES // len(x)))).round().astype(int)
    kept = np.unique(kept)
    until = [*kept[1:].tolist(), last + 1]
    rows = [_row(place, run, int(epoch)) | {"until": end} for place, run in enumerate(runs)
            for epoch, end in zip(kept, until, strict=True)]  # fmt: skip

    def twin(epoch: int = last) -> pd.DataFrame:
        epoch = whole("epoch", epoch, 1, last)
        parts = []
        for name, run in zip(("left", "right"), runs, strict=True):
            frame = _frame(run, int(kept[np.searchsorted(kept, epoch, side="right") - 1]))
            chance = np.nan_to_num(frame.chance, nan=1.0)
            parts.append(pd.DataFrame({"run": name, "x": x[:, 0], "y": x[:, 1], "label": y,
                                       "chance": chance, "picked": frame.picked}))  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    said = [run.frames[-1].headline(run.name) for run in runs]
    alt = (
        f"{len(x):,} points and what two networks predict around them, over {last} epochs. "
        f"At the end, {said[0]}; {said[1]}. The larger a point, the more probable it was; a dark "
        "edge says that it was drawn."
    )
    where = [{"i": i + 1, "x": p[0], "y": p[1], "label": int(k)}
             for i, (p, k) in enumerate(zip(map(compact, x), y, strict=True))]  # fmt: skip
    title = "Two methods choose among the same points"
    heading = [_title(runs, int(kept[np.searchsorted(kept, epoch, side="right") - 1]), epoch)
               for epoch in range(1, last + 1)]  # fmt: skip
    spec = specification(
        {"text": {"expr": f"{json.dumps(heading)}[epoch - 1]"},
         "subtitle": wrap_title(LEGEND, SUBTITLE_LETTERS)}, alt,
        params=[checkbox("playing", "play", False), slider("epoch", "epoch", last, 1, last, 1)],
        data={"values": rows}, spacing=30,
        transform=[{"filter": "datum.epoch <= epoch && epoch < datum.until"}],
        hconcat=[_half(place, where, extent_of(x)) for place in (0, 1)],
    )  # fmt: skip
    return Explorable(_animate(spec, last), alt, twin, title=title, kind="vega")


def _title(runs: list[PointRun], shown: int, epoch: int) -> str:
    """Title naming the run that is ahead after an epoch."""
    a, b = (100 * _frame(run, shown).accuracy for run in runs)
    if round(a, 1) == round(b, 1):
        return f"Epoch {epoch}: both are right on {a:.1f}% (one run each)"
    ahead = runs[0 if a > b else 1].name
    return wrap_title(f"Epoch {epoch}: {ahead} is {abs(a - b):.1f} points ahead (one run each)")


def _frame(run: PointRun, epoch: int) -> Frame:
    """Return the frame of an epoch, from 1; a shorter run stays at its last one."""
    return run.frames[min(epoch, len(run.frames)) - 1]


def _row(place: int, run: PointRun, epoch: int) -> dict[str, Any]:
    """Return the chart's row for one epoch of one run."""
    frame = _frame(run, epoch)
    surface = surface_colours(frame.winner, frame.sure)[::-1]
    return {
        "side": place,
        "epoch": epoch,
        "headline": frame.headline(run.name),
        "surface": png(np.ascontiguousarray(surface)),
        "chances": joined(np.nan_to_num(frame.chance, nan=1.0), 3),
        "picks": joined(frame.picked),
    }


def _half(
    place: int, where: list[dict[str, Any]], extent: tuple[float, float, float, float]
) -> dict[str, Any]:
    left, right, bottom, top = extent
    behind = {
        "mark": mark("image", width={"expr": "side"}, height={"expr": "side"}, aspect=False),
        "encoding": {"x": {"value": {"expr": "side / 2"}}, "y": {"value": {"expr": "side / 2"}},
                     "url": {"field": "surface", "type": "nominal"}},
    }  # fmt: skip
    quiet = {"grid": False, "tickCount": 5}
    area = f"2 * clamp({USUAL} * datum.chance * datum.chance, {SMALLEST}, {LARGEST})"
    by_class = {
        channel: {"field": "label", "type": "nominal", "legend": None,
                  "scale": {"domain": [0, 1, 2], "range": list(values)}}
        for channel, values in (("shape", SYMBOLS), ("color", CLASSES))
    }  # fmt: skip
    points = {
        "transform": [
            *parted(chance="chances", picked="picks"),
            {"flatten": ["chance", "picked"]},
            {"window": [{"op": "row_number", "as": "i"}]},
            {"lookup": "i", "from": {"data": {"values": where}, "key": "i",
                                     "fields": ["x", "y", "label"]}},
            {"calculate": area, "as": "area"},
        ],
        "mark": mark("point", opacity=0.9, strokeWidth=1.1, clip=True),
        "encoding": by_class | {
            "x": axis("x", axis=quiet, scale={"domain": [left, right], "nice": False}),
            "y": axis("y", axis=quiet, scale={"domain": [bottom, top], "nice": False}),
            "size": axis("area", scale=None),
            "stroke": {"condition": {"test": "datum.picked > 0", "value": "#111111"},
                       "value": "#ffffff99"},
            "tooltip": hover({"i": "point", "label": "class", "chance": "chance, times uniform",
                              "picked": "times drawn"}),
        },
    }  # fmt: skip
    # The method has its own line: two headlines would not fit side by side.
    said = words("replace(datum.headline, ': ', '\\n')", y=-32)
    return {"width": SIDE, "height": SIDE, "transform": [{"filter": f"datum.side == {place}"}],
            "layer": [behind, points, said]}  # fmt: skip


def _animate(spec: dict[str, Any], last: int) -> dict[str, Any]:
    """Compile to Vega, whose timer events (absent from Vega-Lite) advance the epoch."""
    import vl_convert

    made = vl_convert.vegalite_to_vega(json.dumps(spec), vl_version=VEGA_LITE)
    made["$schema"] = SCHEMAS["vega"]
    # Updated only on change: when set to the same height again, Vega 5 drops the title.
    on_room = [{"events": {"signal": "room"}, "update": FITS["side"]}]
    made["signals"] = [ROOM, {"name": "side", "init": FITS["side"], "on": on_room},
                       {"name": "childWidth", "update": "side"},
                       *(s for s in made["signals"] if s["name"] != "childWidth")]  # fmt: skip
    made["height"] = {"signal": "side"}
    made["layout"]["columns"] = {"signal": FITS["/layout/columns"]}
    made["padding"] = {"signal": FITS["/padding"]}
    made["description"] = spec["description"]
    epoch = next(signal for signal in made["signals"] if signal["name"] == "epoch")
    on = f"playing ? (epoch >= {last} ? 1 : epoch + 1) : epoch"
    epoch["on"] = [{"events": {"type": "timer", "throttle": STEP}, "update": on}]
    return made
