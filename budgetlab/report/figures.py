"""Figures of the page: drawn by the plots of the package, kept as PNG with their alt text."""

import base64
import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from budgetlab import analysis, explore, plots
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.records import Record
from budgetlab.records.thin import sampled_down, sampled_sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MIXING", "Picture", "draw", "panels", "section_charts", "section_classes",
           "section_over_runs", "section_pay", "section_samples"]  # fmt: skip

DOTS_PER_INCH = 160
WIDE = (9.4, 4.6)
# Augmentations whose images hold several samples.
MIXING = ("mixup", "ricap", "cutmix")
OPTIONAL = ("probabilities_draw", "probabilities_keep", "against_loss_draw", "against_loss_keep",
            "noisy", "ambiguous", "credit")  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure ready for the page."""

    source: str  # "data:" address of the PNG
    alt: str
    width: int  # pixels on the page; it shrinks where there is less room
    name: str = ""  # what tells it from its neighbours, such as a cost axis


def draw(
    plot: Callable[..., "Axes"],
    *data: Any,
    size: tuple[float, float] = (9.4, 4.2),
    name: str = "",
    **options: Any,
) -> Picture:
    """Draw one plot into a picture."""
    figure = style.new_figure(size)
    ax = figure.subplots()
    plot(*data, ax=ax, **options)
    return _picture(figure, plots.alt_text(ax), name)


def panels(plot: Callable[..., "Axes"], items: dict[str, Any], columns: int = 3) -> Picture:
    """Draw one panel an item, side by side on the same axes, into one picture."""
    columns = min(columns, len(items))
    rows = -(-len(items) // columns)
    figure = style.new_figure((max(4.2 * columns, 5.6), 3.3 * rows))
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    said = []
    for number, (ax, (name, item)) in enumerate(zip(grid, items.items(), strict=False)):
        plot(item, ax=ax)
        said.append(f"{name}: {plots.alt_text(ax)}")
        style.set_title(ax, name)
        if number and (legend := ax.get_legend()):
            legend.remove()
        if number % columns:
            ax.set_ylabel("")
        ax.tick_params(labelbottom=True)
    for ax in grid[len(items) :]:
        ax.axis("off")
    return _picture(figure, " ".join(said))


def _picture(figure: "Figure", alt: str, name: str = "") -> Picture:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the font lacks shows as boxes: no reason to stop.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return Picture(source, alt, round(100 * figure.get_figwidth()), name)


def section_over_runs(
    curves: pd.DataFrame, frame: pd.DataFrame, compared: pd.DataFrame | None
) -> dict[str, Any]:
    """Learning curves over each cost; differences, frontier and costs where runs are compared.

    ``curves`` are as from :func:`budgetlab.analysis.epochs`, ``frame`` as from ``summaries`` and
    ``compared`` as from ``compare``; None where nothing can be compared.
    """
    costs = [name for name in ("steps", "flops", "seconds") if curves[name].notna().any()]
    pictures: dict[str, Any] = dict.fromkeys(("differences", "frontier", "ledger")) | {
        "curves": [
            draw(plots.learning_curves, curves, cost=cost, name=analysis.COSTS[cost], size=WIDE)
            for cost in costs
        ]
    }
    if compared is None:
        return pictures
    if rows := int((compared["pairs"] > 0).sum()):
        pictures["differences"] = draw(plots.differences, compared,
                                       size=(9.4, 1.2 + 0.32 * max(rows, 2)))  # fmt: skip
    if len(compared.drop_duplicates(["method", "augmentation", "budget"])) > 1:
        conditions = len(frame.groupby(analysis.condition_columns(frame)))
        pictures["frontier"] = draw(plots.frontier, frame, size=WIDE)
        pictures["ledger"] = draw(plots.cost_ledger, frame, size=(9.4, 1.4 + 0.32 * conditions))
    return pictures


def section_classes(chosen: dict[str, Record]) -> list[dict[str, Any]]:
    """Accuracy by class and confusion of each run that kept its predictions."""
    found = []
    for name, record in chosen.items():
        with contextlib.suppress(InputError):
            table = analysis.group_accuracy(record)
            rows = min(20, len(table))
            classes = draw(plots.class_accuracy, table, size=(9.4, 1.4 + 0.26 * rows))
            mixed = draw(plots.confusion, record, size=(2.2 + 0.36 * rows, 1.6 + 0.36 * rows))
            found.append({"name": name, "classes": classes, "confusion": mixed} | table.attrs)
    return found


def section_charts(
    curves: pd.DataFrame, chosen: dict[str, Record]
) -> tuple[list[dict[str, str]], list[str]]:
    """Charts that answer on the page, each with its heading, and the reasons for those left out."""
    by_score = [run for run in chosen.values() if run.config["method"] == "p-SGD"]
    run = (by_score or list(chosen.values()))[0]
    makers: list[tuple[Callable[..., explore.Explorable], Any]] = [
        (explore.learning, curves), (explore.probabilities, run), (explore.atlas, run),
    ]  # fmt: skip
    charts, problems = [], []
    for make, data in makers:
        try:
            chart = make(data)
        except InputError as error:
            problems.append(f"no chart of {make.__name__}: {error}")
        else:
            charts.append({"title": chart.title, "markup": Markup(chart.to_html())})
    return charts, problems


def section_pay(runs: Sequence[Record]) -> dict[str, Any] | None:
    """Where importance sampling paid elsewhere, and what a uniform run here says of it.

    None where the kit ships no map.
    """
    shipped = analysis.importance_map()
    if shipped.empty:
        return None
    said: list[str] = []
    for run in runs:
        with contextlib.suppress(InputError):
            said = analysis.will_it_pay(sampled_down(run)).sentences
            break
    return {"map": draw(plots.importance_map, shipped, size=(9.4, 7.5)), "said": said}


def section_samples(
    chosen: dict[str, Record], reference: Record | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Figures of the per-sample section, and a sentence on each run that had none.

    ``chosen`` is one run a method, by the name that the page gives it; ``reference`` one on the
    same data without mixing, if there is one.
    """
    readable, problems = {}, []
    for name, record in chosen.items():
        try:
            if record.samples.sizes["epoch"]:
                readable[name] = sampled_down(record)
                if readable[name] is not record:
                    said = sampled_sentence(readable[name])
                    problems.append(f"'{record.path}' is large.{said}")
            else:
                problems.append(f"'{record.path}' holds no finished epoch")
        except InputError as error:
            problems.append(str(error))
    if not readable:
        return {}, problems
    runs = list(readable.values())
    by_kind, uniform = _drawing(readable)
    pictures: dict[str, Any] = dict.fromkeys(OPTIONAL) | {
        "losses": panels(plots.loss_distribution, readable),
        "picked": draw(plots.ranked_picks, runs),
        "images": [row for n in readable if (row := _most_and_least(n, chosen[n]))],
        "uniform": uniform,
    }
    for kind, same in by_kind.items():
        pictures[f"probabilities_{kind}"] = panels(plots.sampling_probability, same)
        pictures[f"against_loss_{kind}"] = panels(plots.probability_vs_loss, same)
    for flag in ("noisy", "ambiguous"):
        if known := [run for run in runs if _has_any(run, f"is_{flag}")]:
            pictures[flag] = draw(plots.flagged_share, known, flag=flag)
    if mixed := [run for run in runs if run.config.get("augmentation") in MIXING]:
        pictures["credit"] = draw(plots.credit_calibration, mixed,
                                  reference=reference and sampled_down(reference))  # fmt: skip
    return pictures, problems


def _drawing(runs: dict[str, Record]) -> tuple[dict[str, dict[str, Record]], list[str]]:
    """Sort runs by what their probabilities mean: the units differ, so never on one axis.

    Those that always draw uniformly are named only, and not drawn.
    """
    kinds: dict[str, dict[str, Record]] = {}
    uniform = []
    for name, run in runs.items():
        spread = analysis.quantiles(run, "probability", (0.0, 1.0))
        if run.probability_kind == "draw" and len(spread) and (spread[0.0] == spread[1.0]).all():
            uniform.append(name)
        elif len(spread):
            kinds.setdefault(run.probability_kind, {})[name] = run
    return kinds, uniform


def _has_any(record: Record, name: str) -> bool:
    return name in record.samples and bool(record.samples[name].to_numpy().any())


def _most_and_least(name: str, record: Record) -> dict[str, Any] | None:
    """Rows of images: most and least trained, and hardest, of one run."""
    if not record.thumbnails:
        return None
    record = sampled_down(record, also=record.thumbnails)
    frame = analysis.measures(record)
    frame = frame[frame.index.isin(list(record.thumbnails))]
    rows = {"most": ("times_trained", True), "least": ("times_trained", False),
            "hardest": ("mean_loss", True)}  # fmt: skip
    return {"name": name} | {
        key: draw(plots.image_grid, frame, by, highest=highest, count=8, size=(9.4, 1.75),
                  images=record.thumbnails, classes=record.classes)
        for key, (by, highest) in rows.items()
    }  # fmt: skip
