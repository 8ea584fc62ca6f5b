"""Widget that shows a batch under each augmentation, and which samples get the credit."""

import html

import pandas as pd

from budgetlab import augment
from budgetlab.augment import Mixture, augmented
from budgetlab.config import CREDITS
from budgetlab.data import Dataset, Splits
from budgetlab.data.dataset import require
from budgetlab.errors import InputError, counted
from budgetlab.widgets.controls import (
    Number,
    Panel,
    button,
    choice,
    data_uri,
    image_tag,
    markup,
    row,
    table_markup,
)

COUNT = 6
CREDIT_WORDS = {"row": "row (as published)", "dominant": "dominant (default)",
                "weighted": "weighted"}  # fmt: skip


class AugmentationExplorer(Panel):
    """Show the same images under every augmentation, their parts, and the credit assigned.

    Raises InputError if the data are not images, or fewer than are shown.

    ``data``: a data set of images, or one of its splits.

    - ``first``, ``seed``, ``alpha``, ``operations``, ``magnitude``, ``detail``: the controls; set
      their ``value``.
    - ``mixtures``: augmented images by augmentation: lists of :class:`~budgetlab.augment.Mixture`.

    Examples
    --------
    >>> explorer = bl.widgets.AugmentationExplorer(bl.data.load("shapes"))  # doctest: +SKIP
    >>> explorer.detail.value = "ricap"  # doctest: +SKIP
    """

    def __init__(self, data: Splits | Dataset):
        self.samples = data.train if isinstance(data, Splits) else require(data, Splits, Dataset)
        if len(self.samples) < COUNT:
            found = counted(len(self.samples), "sample")
            raise InputError(f"{COUNT} images are shown, and the data has {found}: give more")
        augmented(self.samples, [0], "none")  # raises for 2-D points, before anything is shown
        self.mixtures: dict[str, list[Mixture]] = {}
        super().__init__("bl-explorer")
        self.sheet, self.credit = markup(), markup()
        self.control(
            first=Number("First sample", 0, 0, len(self.samples) - COUNT, 1),
            seed=Number("Draw", 0, 0, 999, 1),
            alpha=Number("Mixing alpha", 0.3, 0.05, 5.0, 0.05),
            operations=Number("RandAugment N", 2, 0, 8, 1),
            magnitude=Number("RandAugment M", 4, 0, 30, 1),
            detail=choice("Credit under", augment.names(), "ricap"),
        )
        self.again = button("Draw again", self._again, "bl-again", "Other random choices")
        self.children = (
            row(self.first, self.seed, self.again),
            row(self.alpha, self.operations, self.magnitude),
            self.sheet,
            self.detail,
            self.credit,
            self.status,
        )
        self.update()

    def changed(self, name: str) -> None:
        """Redraw; ``detail`` changes only the credit, not the images."""
        if name == "detail":
            self._show_credit()
        else:
            self.update()

    def _again(self) -> None:
        self.seed.value = (self.seed.value + 1) % 1000

    def update(self) -> None:
        """Augment and show the images; report problems in the status line."""
        with self.status.showing_errors():
            indices = list(range(self.first.value, self.first.value + COUNT))
            options = {"seed": self.seed.value, "alpha": self.alpha.value,
                       "randaugment_n": self.operations.value,
                       "randaugment_m": self.magnitude.value}  # fmt: skip
            self.mixtures = {name: augmented(self.samples, indices, name, **options)
                             for name in augment.names()}  # fmt: skip
            self.sheet.value = self._sheet(indices)
            self._show_credit()
            self.status.say(
                f"Samples {indices[0]} to {indices[-1]} as one batch, draw {self.seed.value}: "
                "mixtures take their parts from these six."
            )

    def _sheet(self, indices: list[int]) -> str:
        names = "".join(
            f'<th scope="col" style="{CELL}">#{i} {html.escape(self._class_of(i))}</th>'
            for i in indices
        )
        body = ""
        for name, mixtures in self.mixtures.items():
            cells = ""
            for index, one in zip(indices, mixtures, strict=True):
                alt = f"{name} of sample {index}: {self._parts(one.parts)}"
                cells += f'<td style="{CELL}">{image_tag(data_uri(one.image), alt, IMAGE)}'
                cells += f"{_said(one.parts) if name in MIXING else ''}</td>"
            body += f'<tr><th scope="row" style="{CELL};{WHOLE}">{name}</th>{cells}</tr>'
        head = f'<td style="width:19%"></td>{names}'
        return f"{TABLE}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _show_credit(self) -> None:
        with self.status.showing_errors():
            rows = {}
            for number, one in enumerate(self.mixtures[self.detail.value], self.first.value):
                said = {"made of": self._parts(one.parts)}
                for rule in CREDITS:
                    # Under the published rule, a sample may be credited for an image that
                    # contains no part of it.
                    absent = any(sample not in one.parts for sample in one.credit[rule])
                    note = ", which is not in the image" if absent else ""
                    said[f"credit: {CREDIT_WORDS[rule]}"] = _shares(one.credit[rule]) + note
                rows[f"#{number}"] = said
            self.credit.value = table_markup(pd.DataFrame(rows).T.rename_axis(columns="row"))

    def _class_of(self, index: int) -> str:
        return self.samples.classes[int(self.samples.y[index])]

    def _parts(self, parts: dict[int, float]) -> str:
        return ", ".join(
            f"{100 * share:.0f}% #{s} {self._class_of(s)}" for s, share in parts.items()
        )


WHOLE = "white-space:nowrap"
MIXING = ("mixup", "ricap", "cutmix")
# Equal column widths that shrink with the window.
TABLE = '<table style="table-layout:fixed;width:100%;max-width:760px">'
IMAGE = (
    "width:100%;max-width:72px;aspect-ratio:1;object-fit:contain;image-rendering:pixelated;"
    "background:white"
)
# Room for a mixture's maximum of four parts, so that the layout does not jump.
SAID = "font-size:11px;line-height:1.2;height:5em"
CELL = (
    "padding:1px 0.5em 1px 0;font-weight:normal;text-align:left;line-height:1.3;font-size:12px;"
    "overflow-wrap:anywhere"
)


def _said(parts: dict[int, float]) -> str:
    lines = "<br>".join(f"{100 * share:.0f}% #{sample}" for sample, share in parts.items())
    return f'<div style="{SAID}">{lines}</div>'


def _shares(parts: dict[int, float]) -> str:
    if len(parts) == 1:
        return f"#{next(iter(parts))}"
    return ", ".join(f"{100 * share:.0f}% #{sample}" for sample, share in parts.items())
