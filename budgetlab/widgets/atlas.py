"""Which samples are they? Images by any measure, and the life of each."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as W
import numpy as np
import pandas as pd

from budgetlab import plots
from budgetlab.analysis import MEANINGS, measures, sample_life
from budgetlab.analysis.conditions import label as short_name
from budgetlab.errors import InputError
from budgetlab.explore.ranking import (
    DIFFERENCE,
    agreement_sentence,
    beside,
    groups_of,
    images_of,
    ranking,
    with_more,
)
from budgetlab.records import Record, open_record, write_atomically
from budgetlab.records.thin import sampled_down, sampled_sentence
from budgetlab.widgets.controls import (
    LABEL,
    Number,
    Panel,
    PicturePanel,
    button,
    choice,
    data_uri,
    image_tag,
    markup,
    ready,
    row,
)

if TYPE_CHECKING:
    from budgetlab.data import Splits

__all__ = ["SampleAtlas"]

COUNT = 20
EVERY_CLASS = -1  # to ipywidgets, None would be a list in which nothing is chosen
IN_MEMORY = 256_000_000  # bytes of a history that is worth keeping, so that a life is instant


class SampleAtlas(Panel):
    """Look through the samples of a run: sort, filter, choose one, save the list.

    Parameters
    ----------
    record
        A record, or the folder of one.
    splits
        The data set of the record, for the images of all samples. A record keeps only
        some: those trained on most and least, and with the highest and lowest loss.
    other
        A second record on the same data, to compare what the two trained on.

    more
        Further measures to sort by, one row per sample, such as a map of the samples from
        :func:`budgetlab.analysis.embedding`.

    Attributes
    ----------
    by, order, label, group, page, sample
        The controls; set their ``value``.
    chosen
        DataFrame: all samples that the controls ask for, in order.

    Raises
    ------
    InputError
        If a record cannot be read, or the data or the second record do not belong to it.

    Examples
    --------
    >>> atlas = bl.widgets.SampleAtlas(record, splits)  # doctest: +SKIP
    >>> atlas.by.value, atlas.group.value = "mean_loss", "noisy"  # doctest: +SKIP
    >>> atlas.chosen.head(10)  # doctest: +SKIP
    """

    def __init__(
        self,
        record: Record | Path | str,
        splits: "Splits | None" = None,
        other: Record | Path | str | None = None,
        *,
        more: pd.DataFrame | None = None,
    ):
        super().__init__("bl-atlas")
        whole = open_record(record)
        second = None if other is None else open_record(other)
        pictured = {*whole.thumbnails, *(second.thumbnails if second else ())}
        self.record = sampled_down(whole, also=pictured)
        self.other = second and sampled_down(second, also=pictured)
        self.frame = with_more(measures(self.record), more)
        self._more = [] if more is None else [str(name) for name in more]
        if self.other is not None:
            self.frame = beside(self.frame, self.record, self.other)
            self._agreement = agreement_sentence(self.frame)
        self.images: Mapping[int, np.ndarray] = images_of(whole, splits)
        if self.record is not whole:
            numbers = enumerate(self.frame["recorded_as"])
            self.images = {new: self.images[old] for new, old in numbers if old in self.images}
        for one in (self.record, self.other):
            if one is not None and one.samples.nbytes <= IN_MEMORY:
                one.samples.load()
        self.chosen = pd.DataFrame()
        self._updating = False
        self._build_controls()
        self.sheet = TileSheet(COUNT, self.show_sample)
        self.life = PicturePanel(760, 260, columns=1 if self.other is None else 2, left=0.095,
                                 right=0.98, top=0.9, bottom=0.18, wspace=0.08)  # fmt: skip
        self.portrait = markup(width="150px", height="160px")
        self.facts = markup(min_height="9em")
        self.children = (
            row(self.by, self.order, self.label, self.group),
            row(self.page, self.only_images),
            self.sheet,
            self.status,
            row(self.file, self.save_button),
            row(self.sample),
            row(self.portrait, self.life),
            self.facts,
        )
        self.update()
        self.show_sample(int(self.chosen.index[0]) if len(self.chosen) else 0)

    def _build_controls(self) -> None:
        names = [name for name in MEANINGS if name in self.frame]
        shown = [(MEANINGS[name], name) for name in names]
        shown += [(name, name) for name in ("difficulty",) if name in self.frame]
        shown += [(name.replace("_", " "), name) for name in self._more if name not in names]
        if self.other is not None:
            shown.insert(1, ("times trained more than the other run", DIFFERENCE))
        classes = [("all classes", EVERY_CLASS)]
        if "label" in self.frame:
            classes += [(name, number) for number, name in enumerate(self.record.classes)]
        some = 0 < len(self.images) < len(self.frame)
        self.control(
            by=choice("Sort by", shown, "times_trained", "24em"),
            order=choice("Order", ["most first", "least first"], None, "13em"),
            label=choice("Class", classes, EVERY_CLASS, "15em"),
            group=choice("Samples", groups_of(self.frame), "all", "15em"),
            page=Number("Page", 1, 1, 1, 1),
            only_images=W.Checkbox(value=some, description="only samples with an image",
                                   indent=False, disabled=not some),
            sample=W.BoundedIntText(value=0, min=0, max=len(self.frame) - 1, description="Sample",
                                    style=LABEL),
            file=W.Text(value="samples.csv", description="List as", style=LABEL),
        )  # fmt: skip
        self.save_button = button("Save list", self._save, "bl-save", "Save all in this order")

    def changed(self, name: str) -> None:
        """Show a life, another page, or the first page of what is asked for, once."""
        if name == "sample":
            self._show(self.sample.value)
        elif name != "file":
            if name != "page":
                self._updating = True
                self.page.value = 1
                self._updating = False
            self.update()

    def update(self) -> None:
        """Show the samples that the controls ask for."""
        if self._updating:
            return
        with self.status.catching():
            label = self.label.value
            self.chosen = ranking(
                self.frame,
                self.by.value,
                highest=self.order.value == "most first",
                label=None if label == EVERY_CLASS else label,
                group=self.group.value,
                among=np.fromiter(self.images, int) if self.only_images.value else None,
            )
            pages = max(1, math.ceil(len(self.chosen) / COUNT))
            self._updating = True
            self.page.limit(1, pages)
            self._updating = False
            start = (self.page.value - 1) * COUNT
            shown = self.chosen.iloc[start : start + COUNT]
            lines = [self._line(int(s), value) for s, value in shown[self.by.value].items()]
            self.sheet.show(list(shown.index), self.images, lines)
            self.status.say(self._say(start, len(shown)))

    def _line(self, sample: int, value: float) -> str:
        name, truly = self._classes_of(sample)
        return f"{name}{truly and f' (truly {truly})'}, {value:.3g}".removeprefix(", ")

    def _classes_of(self, sample: int) -> tuple[str, str]:
        """Names of the class of a sample, and of its true one where its label is wrong."""
        known = self.frame.loc[sample]
        wrong = known.get("is_noisy") is not pd.NA and known.get("is_noisy")
        true = self._class_name(known.get("true_label")) if wrong else ""
        return self._class_name(known.get("label")), true

    def _class_name(self, number: float | None) -> str:
        classes = self.record.classes
        if number is None or pd.isna(number):
            return ""
        return classes[int(number)] if int(number) < len(classes) else str(int(number))

    def _say(self, start: int, count: int) -> str:
        if not count:
            return "No sample is like this: choose other filters."
        text = f"{start + 1:,} to {start + count:,} of {len(self.chosen):,} samples."
        text += sampled_sentence(self.record)
        if self.only_images.value:
            text += (
                f" Only the {len(self.images):,} samples whose images the record keeps are ranked; "
                "give splits= for all."
            )
        if self.other is not None:
            text += f" {self._agreement}"
        return text

    def show_sample(self, sample: int) -> None:
        """Show the life of one sample."""
        if sample == self.sample.value:
            self._show(sample)
        else:
            self.sample.value = sample

    def _show(self, sample: int) -> None:
        with self.status.catching():
            image = self.images.get(sample)
            name = self._line(sample, float(self.frame.loc[sample, self.by.value]))
            self.portrait.value = (
                "no image kept" if image is None
                else image_tag(data_uri(image), f"Sample {sample}: {name}", PORTRAIT)
            )  # fmt: skip
            said = []
            for ax, record in zip(self.life.axes, (self.record, self.other), strict=False):
                assert record is not None
                plots.sample_life(sample_life(record, sample), ax=ready(ax))
                run = short_name(record.config, ["method", "budget"])
                ax.set_title(f"Sample {sample} in {run}", loc="left", fontsize=10, y=1.0)
                said.append(f"{run}: {plots.alt_text(ax)}")
            for ax in self.life.axes[1:]:
                ax.set_ylabel("")
                ax.tick_params(labelleft=False)
            self.life.show(f"Sample {sample}. {' '.join(said)}")
            self.facts.value = self._facts(sample)

    def _facts(self, sample: int) -> str:
        known = self.frame.loc[sample]
        name, truly = self._classes_of(sample)
        rows = [("class", name), *([("true class", truly)] if truly else [])]
        rows += [(MEANINGS[n], f"{known[n]:.4g}") for n in MEANINGS if n in known]
        rows += [(n.replace("_", " "), f"{known[n]:.3g}") for n in ("difficulty",) if n in known]
        if self.other is not None:
            rows.append(("times in a batch of the other run", f"{known['times_trained_other']:g}"))
        cells = "".join(
            f"<div><strong>{html.escape(value)}</strong> {html.escape(name)}</div>"
            for name, value in rows
        )
        columns = "display:grid;grid-template-columns:repeat(auto-fill,minmax(19em,1fr))"
        return f'<div style="{columns};line-height:1.5">{cells}</div>'

    def export(self, path: Path | str) -> Path:
        """Save the numbers of the chosen samples, in order, with the measure, as CSV.

        Parameters
        ----------
        path
            File that ends in ``.csv``; replaced if it is there.

        Returns
        -------
        Path
            Where it lies. Columns ``rank``, ``sample`` (its number in the training set, or in
            ``recorded_as`` where only some of a large record are shown), ``index`` (its place
            in the source), ``label`` and the measure.
        """
        path = Path(path)
        if path.suffix.lower() != ".csv":
            raise InputError(f"list '{path}' does not end in .csv: give such a name")
        names = ["rank", "index", "recorded_as", "label", self.by.value]
        table = self.chosen[[name for name in names if name in self.chosen]]
        try:
            write_atomically(path, table.rename_axis("sample").to_csv().encode())
        except OSError as error:
            raise InputError(
                f"list '{path}' cannot be written ({error.strerror}): give another name"
            ) from None
        return path

    def _save(self) -> None:
        with self.status.catching():
            path = self.export(self.file.value)
            self.status.say(f"{len(self.chosen):,} samples are saved in {path}.")


PORTRAIT = "width:128px;height:128px;object-fit:contain;image-rendering:pixelated;background:white"

SIDE = 80
TALL = SIDE + 44  # with the caption


class Tile(W.VBox):
    """One image to click on, its number and a line under it."""

    def __init__(self, choose: Callable[[int], None]):
        self.picture = W.HTML(layout=W.Layout(height=f"{TALL}px", margin="0"))
        # Laid over the image, which is what one clicks on; its name is its tooltip.
        over = W.Layout(width=f"{SIDE + 8}px", height=f"{SIDE}px", margin=f"-{TALL}px 0 0 0")
        self.button = W.Button(layout=over, style={"button_color": "transparent"})
        self.sample = -1
        self.button.on_click(lambda _: choose(self.sample))
        size = W.Layout(
            width=f"{SIDE + 10}px", height=f"{TALL + 4}px", margin="2px", overflow="hidden"
        )
        super().__init__([self.picture, self.button], layout=size)

    def show(self, sample: int, image: np.ndarray | None, line: str) -> None:
        """Show a sample; without an image it says so."""
        self.sample = sample
        box = f"width:{SIDE}px;height:{SIDE}px;object-fit:contain;display:block;margin:0 auto"
        if image is None:
            picture = f'<div style="{box};border:1px dashed">no image kept</div>'
        else:
            alt = f"Sample {sample}: {line}"
            picture = image_tag(data_uri(image), alt, f"{box};image-rendering:pixelated")
        said = f"#{sample} {line}"
        text = f'<div style="{CAPTION}" title="{html.escape(line)}">{html.escape(said)}</div>'
        self.picture.value = picture + text
        self.button.tooltip = f"Show the life of sample {sample}"
        self.layout.visibility = "visible"

    def hide(self) -> None:
        """Leave the place empty, without moving what lies below."""
        self.sample = -1
        self.layout.visibility = "hidden"


CAPTION = (
    "line-height:1.25;font-size:11px;height:40px;overflow:hidden;text-align:center;"
    "overflow-wrap:anywhere"
)


class TileSheet(W.HBox):
    """A fixed number of tiles that wrap in a narrow window."""

    def __init__(self, count: int, choose: Callable[[int], None]):
        self.tiles = [Tile(choose) for _ in range(count)]
        super().__init__(self.tiles, layout=W.Layout(flex_flow="row wrap", max_width="980px"))
        self.add_class("bl-tiles")

    def show(
        self, samples: Sequence[int], images: Mapping[int, np.ndarray], lines: Sequence[str]
    ) -> None:
        """Show samples, at most as many as there are tiles."""
        for place, tile in enumerate(self.tiles):
            if place < len(samples):
                sample = int(samples[place])
                tile.show(sample, images.get(sample), lines[place])
            else:
                tile.hide()
