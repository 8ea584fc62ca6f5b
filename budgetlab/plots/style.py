"""One style for every plot: colour-blind safe, opaque white, described in words."""

import weakref
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from budgetlab import methods
from budgetlab.analysis import AXES, COMPARISON_VERDICTS, COSTS, MEANINGS, label, varying
from budgetlab.methods import COLOURS, LINES, LineStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LineStyle", "alt_text", "axes", "axis_name", "capital", "condition_looks", "describe",
           "empty", "finish", "fraction", "furthest", "keep_possible", "leader", "line", "line_kws",
           "line_labels", "literal", "looks", "new_figure", "scatter_kws",
           "verdicts"]  # fmt: skip

INK, FAINT = "#222222", "#d9d9d9"
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
    """Give each value a style of its own; methods and augmentations always have theirs."""
    values = list(dict.fromkeys(values))
    entries = {value: methods.known(value) for value in values}
    result = {value: entry.style for value, entry in entries.items() if entry and entry.style}
    result |= {v: methods.style(AUGMENTATIONS.index(v)) for v in values if v in AUGMENTATIONS}
    taken = {COLOURS.index(s.colour) for s in result.values() if s.colour in COLOURS}
    # A second round of colours comes with other lines and markers.
    free = [place for place in range(len(COLOURS)) if place not in taken]
    free += [place for place in range(len(COLOURS), 49) if methods.style(place) not in
             result.values()]  # fmt: skip
    for value in values:
        if value not in result:
            result[value] = methods.style(free.pop(0) if free else len(result))
    return {value: result[value] for value in values}


def line_kws(
    look: LineStyle, changes: Mapping[str, Any] | None = None, **usual: Any
) -> dict[str, Any]:
    """Arguments for ``Axes.plot``; what a caller changes goes before what is usual."""
    own = {"color": look.colour, "linestyle": look.line, "marker": look.marker, "markersize": 5}
    return own | usual | dict(changes or {})


def line(
    ax: "Axes",
    x: Sequence[float],
    y: Sequence[float],
    look: LineStyle,
    name: Hashable,
    band: tuple[Any, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Draw a line with a marker here and there, and a band between two others."""
    usual = {"markevery": max(1, len(x) // 8), "label": literal(name)}
    ax.plot(x, y, **line_kws(look, changes, **usual))
    if band is not None:
        ax.fill_between(x, *band, color=look.colour, alpha=0.15, linewidth=0)


def scatter_kws(count: int) -> dict[str, Any]:
    """Smaller and fainter the more points there are, so that their density still shows."""
    return {"s": min(14.0, max(2.0, 14_000 / max(count, 1))), "rasterized": True,
            "alpha": min(0.6, max(0.15, 600 / max(count, 1)))}  # fmt: skip


def condition_looks(names: dict[str, tuple[str, str]]) -> dict[str, LineStyle]:
    """Give conditions looks: colour and marker say the method, the line says the rest.

    Parameters
    ----------
    names
        For each name in a legend, its method and what else tells it from the others.
    """
    styles = looks([method for method, _ in names.values()])
    rests = looks([rest for _, rest in names.values()])
    if len(rests) == 1:
        return {name: styles[method] for name, (method, _) in names.items()}
    if len(styles) == 1:
        return {name: rests[rest] for name, (_, rest) in names.items()}
    order = list(rests)
    return {
        name: LineStyle(styles[m].colour, LINES[order.index(r) % len(LINES)], styles[m].marker)
        for name, (m, r) in names.items()
    }


def new_figure(size: tuple[float, float] = (6.4, 4.0)) -> "Figure":
    """Make a figure that no window and no notebook shows by itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained", facecolor="white")


def axes(ax: "Axes | None", size: tuple[float, float] = (6.4, 4.0)) -> "Axes":
    """Return the axes given, or new ones in a figure that a notebook shows."""
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
    legend: bool = False,
    text: str = "",
) -> "Axes":
    """Name the axes, set the common look, and keep the description of what is drawn."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    if x == "epoch":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif x in COSTS.values() and x != COSTS["seconds"]:
        ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
    ax.set_facecolor("white")
    ax.set_title(title, loc="left", fontsize=11, color=INK)
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


def empty(ax: "Axes", why: str, title: str = "") -> "Axes":
    """Say why there is nothing, in place of axes that would mean nothing."""
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
    # There is room beside axes of their own, which a layout makes narrower, and no other.
    alone = figure.axes == [ax] and isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)
    many = len(ax.get_legend_handles_labels()[1]) > 5
    place: dict[str, Any] = (
        {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if alone or many else {}
    )
    # Where no place is free, the entries stay readable on what they cover.
    ax.legend(facecolor="white", edgecolor="none", framealpha=0.8, fontsize=9, labelcolor=INK,
              handlelength=3, **place)  # fmt: skip


def describe(ax: "Axes", text: str) -> None:
    """Keep what an image says in words, for :func:`alt_text`."""
    _descriptions[ax] = capital(text)


def alt_text(ax: "Axes") -> str:
    """Return what is drawn, in words made from the data.

    Empty for axes that no function of this package has drawn on.
    """
    return _descriptions.get(ax, "")


def literal(name: object) -> str:
    """Let a name stand as it is: no formula between dollars, none hidden from a legend."""
    text = str(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def capital(text: str) -> str:
    """Begin a sentence with a capital letter; methods keep their names."""
    return text if text.startswith(tuple(methods.names())) else text[:1].upper() + text[1:]


def axis_name(column: str) -> str:
    """Name of a column as an axis says it."""
    for names in (NAMES, COSTS, AXES, MEANINGS):
        if column in names:
            return names[column]
    return str(column).replace("_", " ")


def leader(ends: Mapping[str, float], value: str) -> str:
    """Which of several conditions is ahead, as a title; nothing of one alone, or of a tie."""
    if len(ends) < 2:
        return ""
    best = (max if value.endswith("accuracy") else min)(ends, key=lambda name: ends[name])
    if sorted(ends.values()).count(ends[best]) > 1:
        return ""
    unit = "%" if value.endswith("accuracy") else ""
    return literal(f"{capital(best)} ends best, with {ends[best]:.4g}{unit}")


def furthest(values: Mapping[str, float], base: float = 1.0) -> str:
    """The name whose value lies furthest from what would be no finding."""
    return max(values, key=lambda name: abs(values[name] - base))


def keep_possible(ax: "Axes", column: str) -> None:
    """Show no more of an axis of accuracies than 0 to 100%, however wide an interval is."""
    if column.endswith("accuracy"):
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, -2), min(high, 102))


def fraction(column: str) -> float:
    """Factor by which a column is shown: accuracies in percent."""
    return 100.0 if column.endswith("accuracy") else 1.0


def verdicts(frame: pd.DataFrame) -> str:
    """What a table of comparisons shows, as a title: how many rows of which verdict."""
    counts = frame["verdict"].value_counts() if "verdict" in frame else {}
    said = [f"{counts[name]} {name}" for name in COMPARISON_VERDICTS if name and name in counts]
    many = f"Of {len(frame)} comparison{'s' * (len(frame) > 1)}"
    return f"{many}: {', '.join(said)}" if said else ""


def line_labels(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Text that tells the rows of a frame apart by those columns that differ."""
    shown = varying(frame, columns) or ["method"]
    return pd.Series([label(row, shown) for row in frame.to_dict("records")], index=frame.index)
