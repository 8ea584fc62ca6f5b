"""Shared style of all plots: colour-blind safe, opaque white, with alternative text."""

import re
import textwrap
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from budgetlab import methods
from budgetlab.analysis import (
    AXES,
    COMPARISON_VERDICTS,
    COSTS,
    MEANINGS,
    condition_columns,
    label,
    summaries,
)
from budgetlab.analysis.conditions import labels, method_order, require, telling
from budgetlab.methods import COLOURS, LINES, LineStyle
from budgetlab.records import Record, Records, open_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#d9d9d9"
UNFINISHED = " (unfinished)"  # after the name of a condition without a finished run
LEGEND_LETTERS, LETTERS_AN_INCH = 40, 12
AUGMENTATIONS = ("none", "standard", "mixup", "cutmix", "ricap", "randaugment")

NAMES = {
    "test_accuracy": "test accuracy (%)",
    "val_accuracy": "validation accuracy (%)",
    "train_accuracy": "training accuracy (%)",
    "test_loss": "test loss (nats)",
    "val_loss": "validation loss (nats)",
    "train_loss": "training loss (nats)",
    "lr": "learning rate",
    "difficulty": "difficulty it was drawn with",
}

_descriptions: "weakref.WeakKeyDictionary[Axes, str]" = weakref.WeakKeyDictionary()


def looks(values: Sequence[Hashable]) -> dict[Hashable, LineStyle]:
    """Assign a distinct style to each value; methods and augmentations have fixed styles."""
    values = list(dict.fromkeys(values))
    entries = {value: methods.known(value) for value in values}
    result = {value: entry.style for value, entry in entries.items() if entry and entry.style}
    result |= {v: methods.style(AUGMENTATIONS.index(v)) for v in values if v in AUGMENTATIONS}
    taken = {COLOURS.index(s.colour) for s in result.values() if s.colour in COLOURS}
    # A second round of colours comes with other lines and markers.
    free = [place for place in range(len(COLOURS)) if place not in taken]
    free += [place for place in range(len(COLOURS), 49) if methods.style(place) not in
             result.values()]  # fmt: skip
    markers = {look.marker for look in result.values()}
    free.sort(key=lambda place: (place >= len(COLOURS), methods.style(place).marker in markers))
    for value in values:
        if value not in result:
            result[value] = methods.style(free.pop(0) if free else len(result))
    return {value: result[value] for value in values}


class Curve(NamedTuple):
    """One line of a plot: its points, a note for the legend, and the ends of its band."""

    x: Any
    y: Any
    note: str = ""
    low: Any = None
    high: Any = None


def averaged(frame: pd.DataFrame, by: str, over: str, value: str) -> dict[str, Curve]:
    """Return one curve per value of ``by``: mean of ``value`` at each ``over``, ± std.

    A curve ends where its shortest run ends: means of fewer seeds are not comparable.
    """
    found = {}
    for name, group in frame.groupby(by, sort=False):
        table = group.groupby(over)[value].agg(["mean", "std", "count"])
        n = int(table["count"].max())
        table = table[table["count"] == n]
        mean, std = table["mean"], table["std"].fillna(0)
        band = (mean - std, mean + std) if n > 1 else ()
        found[str(name)] = Curve(table.index, mean, f"n = {n}", *band)
    return found


def frame_of(
    data: Any,
    make: Callable[[Any], pd.DataFrame],
    columns: Sequence[Hashable],
    made: str | None = None,
) -> pd.DataFrame:
    """Return ``data`` if it is a frame with column ``made``, else the frame made from it."""
    ready = isinstance(data, pd.DataFrame) and (made is None or made in data)
    frame = data if ready else make(data)
    require(frame, columns)
    return frame


def spans(epochs: pd.Series, most: int) -> pd.Series:
    """Number each epoch's stretch, ``most`` at most; their means vary less than single epochs."""
    place = epochs.rank(method="dense").astype(int) - 1
    return place // -(-(place.max() + 1) // most)


def draw(
    ax: "Axes",
    curves: Mapping[str, Curve],
    styles: Mapping[Any, LineStyle] | None = None,
    *,
    bars: bool = False,
    **changes: Any,
) -> None:
    """Draw named curves, with about eight markers each, and their spread as bands or error bars.

    ``styles`` defaults to :func:`style_by_name`; ``changes`` are passed to ``Axes.plot``.
    """
    styles = styles or style_by_name(list(curves))
    for name, (x, y, note, low, high) in curves.items():
        look = styles[name]
        said = escape_text(f"{name} ({note})" if note else name)
        own = {"color": look.colour, "linestyle": look.line, "marker": look.marker,
               "markersize": 5, "label": said}  # fmt: skip
        if bars:
            # Lists: matplotlib 3.10 warns when it turns an array of one entry into a number.
            sides = None if low is None else [list(y - low), list(high - y)]
            ax.errorbar(x, y, sides, capsize=2, **own | changes)
            continue
        ax.plot(x, y, **own | {"markevery": max(1, len(x) // 8)} | changes)
        if low is not None:
            ax.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)


def rule(ax: "Axes", y: float, label: str | None = None) -> None:
    """Draw a horizontal reference line."""
    ax.axhline(y, color=INK, linewidth=1, linestyle=":" if label else "-", label=label)


def correlation(x: pd.Series, y: pd.Series) -> str:
    """Return the Spearman correlation of two columns as text; empty if undefined."""
    varied = len(x) > 2 and x.nunique() > 1 and y.nunique() > 1
    rho = x.rank().corr(y.rank()) if varied else float("nan")
    return f"Spearman correlation {rho:.2f}" if pd.notna(rho) else ""


def style_conditions(
    names: dict[str, tuple[str, str]], *, always: bool = False
) -> dict[str, LineStyle]:
    """Style conditions: colour and marker encode the method, the line style everything else.

    ``names`` maps each legend entry to its method and its other distinguishing settings.
    With a single method, colours encode these settings instead, and with a single setting the
    method has its own line style, unless ``always``.
    """
    styles = looks([method for method, _ in names.values()])
    rests = looks([rest for _, rest in names.values()])
    if len(rests) == 1 and not always:
        return {name: styles[method] for name, (method, _) in names.items()}
    if len(styles) == 1 and not always:
        return {name: rests[rest] for name, (_, rest) in names.items()}
    order = list(rests)
    return {
        name: LineStyle(styles[m].colour, LINES[order.index(r) % len(LINES)], styles[m].marker)
        for name, (m, r) in names.items()
    }


def style_by_name(names: Sequence[str], *, always: bool = False) -> dict[str, LineStyle]:
    """Style names that begin with a method, such as those of runs, like that method.

    ``p-SGD, seed 1``, ``p-SGD (credit row)`` and ``digits, p-SGD`` belong to p-SGD; other names as
    in :func:`looks`.
    """
    found = {}
    for name in names:
        parts = re.split(r"(?=, | \()", name.removesuffix(UNFINISHED))
        # A data set may stand before the method.
        at = next((n for n, p in enumerate(parts[:2]) if methods.known(p.removeprefix(", "))), None)
        if at is None:
            return {str(name): look for name, look in looks(names).items()}
        found[name] = (parts.pop(at).removeprefix(", "), "".join(parts))
    return style_conditions(found, always=always)


def new_figure(size: tuple[float, float] = (6.4, 4.0)) -> "Figure":
    """Make a figure that is not displayed automatically."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained", facecolor="white")


def axes(ax: "Axes | None", size: tuple[float, float] = (6.4, 4.0)) -> "Axes":
    """Return ``ax``, or new axes in a pyplot figure, which a notebook displays."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained", facecolor="white")[1]


def finish(
    ax: "Axes",
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    legend: bool = True,
    text: str = "",
) -> "Axes":
    """Apply the common style, with a legend of what is labelled, and store the alternative text."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    if x.partition(" (")[0] == "epoch":
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    elif x in COSTS.values() and x != COSTS["seconds"]:
        ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
    ax.set_facecolor("white")
    set_title(ax, title)
    ax.set_xlabel(x, color=INK)
    ax.set_ylabel(y, color=INK)
    ax.grid(True, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    if legend and ax.get_legend_handles_labels()[0]:
        _add_legend(ax)
    describe(ax, text)
    return ax


def set_title(ax: "Axes", title: str, **place: Any) -> None:
    """Set a left-aligned title, wrapped to the figure's width, without mathtext."""
    # A fixed place: finding a free one takes as long as drawing the axis.
    place = {"y": 1.0} | place
    grid = ax.get_subplotspec()
    width = ax.figure.get_figure(root=True).get_figwidth()
    # The axis to the left of the title takes room too, more if it has names.
    names = "\n".join(label.get_text() for label in ax.get_yticklabels()).split("\n")
    room = max(0.7, 0.2 + max(map(len, names)) / LETTERS_AN_INCH)
    inches = width / (grid.get_gridspec().ncols if grid else 1) - room
    title = textwrap.fill(capitalise(title), max(30, round(LETTERS_AN_INCH * inches)))
    ax.set_title(escape_text(title), loc="left", fontsize=11, color=INK, **place)


def empty(ax: "Axes", why: str, title: str = "") -> "Axes":
    """Show the reason why there is nothing to draw, in place of the axes."""
    finish(ax, title=title, text=why)
    ax.grid(False)
    for part in (ax.xaxis, ax.yaxis, ax.spines["left"], ax.spines["bottom"]):
        part.set_visible(False)
    ax.text(0.5, 0.5, why, ha="center", va="center", color=INK, transform=ax.transAxes)
    return ax


def _add_legend(ax: "Axes") -> None:
    """Put the legend beside the axes where there is room, so that it hides nothing."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = ax.figure.get_figure(root=True)
    # Only a constrained layout with a single Axes makes room beside it.
    alone = figure.axes == [ax] and isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)
    handles, names = ax.get_legend_handles_labels()
    names = [wrap(name) for name in names]
    if alone:  # tall enough for all lines of the legend
        lines = sum(name.count("\n") + 1 for name in names)
        figure.set_figheight(max(figure.get_figheight(), 0.7 + 0.2 * lines))
    many = len(names) > 5
    place: dict[str, Any] = (
        {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if alone or many else {}
    )
    # Nearly opaque: entries stay readable on top of data.
    ax.legend(handles, names, facecolor="white", edgecolor="none", framealpha=0.8, fontsize=9,
              labelcolor=INK, handlelength=3, **place)  # fmt: skip


def wrap(text: str, letters: int = LEGEND_LETTERS) -> str:
    """Wrap a label, between two settings if each of them fits on a line."""
    kept = re.sub(r"(?<!,) (?!\()", "\xa0", text)
    kept = kept if all(len(part) <= letters for part in kept.split(" ")) else text
    return textwrap.fill(kept, letters, break_on_hyphens=False).replace("\xa0", " ")


def describe(ax: "Axes", text: str) -> None:
    """Store the alternative text of a plot, for :func:`alt_text`."""
    _descriptions[ax] = capitalise(text)


def alt_text(ax: "Axes") -> str:
    """Return the alternative text of a plot, generated from its data.

    Empty for axes that no function of this package has drawn on.
    """
    return _descriptions.get(ax, "")


def escape_text(name: object) -> str:
    """Escape a name for matplotlib: no mathtext, and no leading underscore to hide it."""
    text = str(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def capitalise(text: str) -> str:
    """Capitalise the first letter, except of a method's name."""
    return text if text.startswith(tuple(methods.names())) else text[:1].upper() + text[1:]


def axis_name(column: str) -> str:
    """Return the axis title of a column."""
    for names in (NAMES, COSTS, AXES, MEANINGS):
        if column in names:
            return names[column]
    return str(column).replace("_", " ")


def leader(ends: Mapping[str, float], value: str) -> str:
    """Title naming the best of several conditions; empty for a single one, or a tie."""
    if len(ends) < 2:
        return ""
    best = (max if value.endswith("accuracy") else min)(ends, key=lambda name: ends[name])
    if sorted(ends.values()).count(ends[best]) > 1:
        return ""
    unit = "%" if value.endswith("accuracy") else ""
    return f"{capitalise(best)} ends best, with {ends[best]:.4g}{unit}"


def most_extreme(values: Mapping[str, float], base: float = 1.0) -> str:
    """Return the name whose value lies furthest from ``base``."""
    return max(values, key=lambda name: abs(values[name] - base))


def fraction(column: str) -> float:
    """Return the display factor of a column: 100 for accuracies, which are shown in percent."""
    return 100.0 if column.endswith("accuracy") else 1.0


def verdicts(frame: pd.DataFrame) -> str:
    """Title for a table of comparisons: the number of rows by verdict."""
    counts = frame["verdict"].value_counts() if "verdict" in frame else {}
    reached = [name for name in COMPARISON_VERDICTS if name and name in counts]
    said = [f"{counts[name]} {name}" for name in reached]
    if left := len(frame) - sum(counts[name] for name in reached):
        said.append(f"{left} without a verdict")
    many = f"Of {len(frame)} comparison{'s' * (len(frame) > 1)}"
    return f"{many}: {', '.join(said)}" if reached else ""


def named_groups(
    frame: pd.DataFrame, keys: Sequence[str]
) -> tuple[dict[str, pd.DataFrame], dict[str, LineStyle]]:
    """Split a frame into conditions named by what tells them apart; also return their styles."""
    groups, parts = dict(list(frame.groupby(labels(frame, keys), sort=False))), {}
    for name, group in groups.items():
        method = group["method"].iloc[0]
        parts[name] = (method, ", ".join(part for part in name.split(", ") if part != method))
    order = method_order(method for method, _ in parts.values())
    parts = dict(sorted(parts.items(), key=lambda item: order.index(item[1][0])))
    return {name: groups[name] for name in parts}, style_conditions(parts)


def by_method(records: Records) -> list[Record]:
    """Open records, in the common order of methods."""
    runs = open_records(records)
    order = method_order(run.config["method"] for run in runs)
    return sorted(runs, key=lambda run: order.index(run.config["method"]))


def run_names(records: Sequence[Record]) -> list[str]:
    """Return short names of runs: the method, and what else tells them apart."""
    frame = summaries(records)
    shown = telling(frame, [*condition_columns(frame), "seed"])
    shown = ["method", *(name for name in shown if name != "method")]
    names = [label(row, shown) for row in frame.to_dict("records")]
    again = pd.Series(names).duplicated(keep=False)
    return [
        f"{n}, {r.path.name}" if a else n for n, r, a in zip(names, records, again, strict=True)
    ]
