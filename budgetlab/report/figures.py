"""Figures of the report: PNGs with alternative text, drawn by :mod:`budgetlab.plots`."""

import base64
import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from budgetlab import analysis, explore, plots
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.records import Record
from budgetlab.records.thin import subsample, subsample_note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 160
WIDE = (9.4, 4.6)
HALF = 4.7
# Augmentations that mix several samples.
MIXING = ("mixup", "ricap", "cutmix")
# The width is in pixels; a figure shrinks on a narrow page.
FIGURE = Markup('<figure><img src="{}" alt="{}" width="{}"></figure>')


def draw(
    plot: Callable[..., "Axes"], *data: Any, size: tuple[float, float] = (9.4, 4.2), **options: Any
) -> Markup:
    """Draw a plot as an HTML figure; figures of half width have no legend."""
    figure = style.new_figure(size)
    ax = figure.subplots()
    plot(*data, ax=ax, **options)
    if size[0] <= HALF and (legend := ax.get_legend()):
        legend.remove()
    return _as_markup(figure, plots.alt_text(ax))


def panels(
    plot: Callable[..., "Axes"],
    items: dict[str, Any],
    looks: dict[str, style.LineStyle] | None = None,
) -> Markup:
    """Draw one panel per item, three in a row, with shared axes, in one HTML figure."""
    columns = min(3, len(items))
    rows = -(-len(items) // columns)
    figure = style.new_figure((max(4.2 * columns, 5.6), 3.3 * rows))
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    said = []
    for number, (ax, (name, item)) in enumerate(zip(grid, items.items(), strict=False)):
        plot(item, ax=ax, **({"look": looks[name]} if looks else {}))
        said.append(f"{name}: {plots.alt_text(ax)}")
        style.set_title(ax, name)
        if number and (legend := ax.get_legend()):
            legend.remove()
        if number % columns:
            ax.set_ylabel("")
        ax.tick_params(labelbottom=True)
    for ax in grid[len(items) :]:
        ax.axis("off")
    return _as_markup(figure, " ".join(said))


def _as_markup(figure: "Figure", alt: str) -> Markup:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the font lacks shows as boxes, which is harmless.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return FIGURE.format(source, alt, round(100 * figure.get_figwidth()))


def section_over_runs(
    curves: pd.DataFrame, frame: pd.DataFrame, compared: pd.DataFrame | None
) -> dict[str, Any]:
    """Return learning curves over each cost, and plots of differences, frontier and costs.

    ``curves`` is as returned by :func:`budgetlab.analysis.epochs`, ``frame`` by ``summaries`` and
    ``compared`` by ``compare``; None if nothing can be compared.
    """
    costs = [name for name in ("steps", "flops", "seconds") if curves[name].notna().any()]
    found: dict[str, Any] = dict.fromkeys(("differences", "frontier", "ledger")) | {
        "curves": [(analysis.COSTS[cost], draw(plots.learning_curves, curves, cost=cost, size=WIDE))
                   for cost in costs if _are_lines(curves)]
    }  # fmt: skip
    if compared is None:
        return found
    if rows := int((compared["pairs"] > 0).sum()):
        size = (9.4, 1.2 + 0.32 * max(rows, 2))
        found["differences"] = draw(plots.differences, compared, size=size)
    if len(compared.drop_duplicates(["method", "augmentation", "budget"])) > 1:
        conditions = len(frame.groupby(analysis.condition_columns(frame), dropna=False))
        cost = "flops" if "flops" in costs else "steps"  # custom loops may not count FLOPs
        found["frontier"] = draw(plots.frontier, frame, cost=cost, size=WIDE)
        found["ledger"] = draw(plots.cost_ledger, frame, size=(9.4, 1.4 + 0.32 * conditions))
    return found


def _are_lines(curves: pd.DataFrame) -> bool:
    """Whether any run was evaluated more than once."""
    return bool(curves.groupby("run")["test_accuracy"].count().max() > 1)


def section_classes(chosen: dict[str, Record]) -> list[dict[str, Any]]:
    """Return class accuracy and confusion matrix of each run that stored its predictions."""
    found, looks = [], style.style_by_name([*chosen])
    for name, record in chosen.items():
        with contextlib.suppress(InputError):
            table = analysis.group_accuracy(record)
            rows = min(20, len(table))
            high = 1.6 + 0.3 * rows
            classes = draw(plots.class_accuracy, table, look=looks[name], size=(HALF, high))
            mixed = draw(plots.confusion, record, size=(HALF, high))
            found.append({"name": name, "figures": [classes, mixed]} | table.attrs)
    return found


def section_charts(
    curves: pd.DataFrame, chosen: dict[str, Record]
) -> tuple[list[Markup], list[str]]:
    """Return interactive charts, and for each that cannot be made, the reason."""
    by_score = [run for run in chosen.values() if run.config["method"] == "p-SGD"]
    run = (by_score or list(chosen.values()))[0]
    makers: list[tuple[Callable[..., explore.Explorable], Any]] = [
        *([(explore.learning, curves)] if _are_lines(curves) else []),
        (explore.probabilities, run), (explore.atlas, run),
    ]  # fmt: skip
    charts, problems = [], []
    for make, data in makers:
        try:
            chart = make(data)
        except InputError as error:
            problems.append(f"no chart of {make.__name__}: {error}")
        else:
            charts.append(Markup(chart.to_html()))
    return charts, problems


def section_pay(runs: Sequence[Record]) -> dict[str, Any] | None:
    """Return the kit's map and a prediction for these runs; None if the kit ships no map."""
    shipped = analysis.importance_map()
    if shipped.empty:
        return None
    said: list[str] = []
    for run in runs:
        with contextlib.suppress(InputError):
            said = analysis.will_it_pay(subsample(run)).sentences
            break
    return {"map": draw(plots.importance_map, shipped, size=(9.4, 7.5)), "said": said}


def section_samples(
    chosen: dict[str, Record], reference: Record | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return the figures of the per-sample section, and a sentence on each run without any.

    ``chosen`` maps the page's names to one run per method; ``reference`` is a run on the same
    data without mixing, if there is one.
    """
    opened, problems = {}, []
    for name, record in chosen.items():
        try:
            if record.samples.sizes["epoch"]:
                opened[name] = subsample(record)
                if opened[name] is not record:
                    problems.append(f"'{record.path}' is large.{subsample_note(opened[name])}")
            else:
                problems.append(f"'{record.path}' holds no finished epoch")
        except InputError as error:
            problems.append(str(error))
    if not opened:
        return {}, problems
    runs, looks = list(opened.values()), style.style_by_name([*chosen])
    by_kind, said = _by_probability_kind(opened)
    found: dict[str, Any] = {
        "losses": panels(plots.loss_distribution, opened, looks),
        "picked": draw(plots.ranked_picks, runs),
        "images": [row for name in opened if (row := _most_and_least(name, chosen[name]))],
        "drawn": said,
        "probabilities": {kind: panels(plots.sampling_probability, same, looks)
                          for kind, same in by_kind.items()},
        "against_loss": [panels(plots.probability_vs_loss, same) for same in by_kind.values()],
        "flagged": {
            flag: draw(plots.flagged_share, known, flag=flag) for flag in ("noisy", "ambiguous")
            if (known := [run for run in runs if _has_any(run, f"is_{flag}")])
        },
        "credit": None,
    }  # fmt: skip
    if mixed := [run for run in runs if run.config.get("augmentation") in MIXING]:
        found["credit"] = draw(plots.credit_calibration, mixed,
                               reference=reference and subsample(reference))  # fmt: skip
    return found, problems


def _by_probability_kind(runs: dict[str, Record]) -> tuple[dict[str, dict[str, Record]], list[str]]:
    """Group runs by kind of probability, as units differ; constant ones get a sentence instead."""
    kinds: dict[str, dict[str, Record]] = {}
    said = []
    for name, run in runs.items():
        spread = analysis.quantiles(run, "probability", (0.0, 1.0))
        q = run.samples["probability"].to_numpy()
        ever = (q > 0).any(axis=0)
        if not len(spread):
            continue
        if run.probability_kind == "draw" and (np.ptp(q[:, ever], axis=1) == 0).all():
            part = "every sample" if ever.all() else f"the same {ever.mean():.0%} of the samples"
            said.append(f"{name} draws {part} with the same probability in every epoch.")
        else:
            kinds.setdefault(run.probability_kind, {})[name] = run
    return kinds, said


def _has_any(record: Record, name: str) -> bool:
    return name in record.samples and bool(record.samples[name].to_numpy().any())


def _most_and_least(name: str, record: Record) -> dict[str, Any] | None:
    """Return rows of images of one run: most trained, least trained, and hardest."""
    if not record.thumbnails:
        return None
    record = subsample(record, also=record.thumbnails)
    frame = analysis.measures(record)
    frame = frame[frame.index.isin(list(record.thumbnails))]
    return {"name": name, "rows": [
        draw(plots.image_grid, frame, by, highest=highest, count=8, size=(9.4, 1.6),
             images=record.thumbnails, classes=record.classes)
        for by, highest in (("times_trained", True), ("times_trained", False), ("mean_loss", True))
    ]}  # fmt: skip
