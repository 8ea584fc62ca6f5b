"""What was found when data was loaded: said once, kept in the record, shown in a notebook."""

import html
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from budgetlab.errors import counted, few, one_line

if TYPE_CHECKING:
    from budgetlab.data.samples import Splits

__all__ = ["Found", "Intake", "say_once", "take_in"]

MOST_CLASSES = 12
FLIPPED = {
    True: "mirrored at random by augmentation; flip=no if that changes what an image shows",
    False: "never mirrored by augmentation; flip=yes if that changes nothing",
}
# The same data is loaded again for each run of a sweep.
_said: set[str] = set()


@dataclass(frozen=True)
class Found:
    """What only the reader of the files knows: where each split was found, files of other
    endings and their number, files that cannot be used, how pixels were scaled, oddities, and
    whether images were cut to squares."""

    where: dict[str, str] = field(default_factory=dict)
    not_read: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    scale: str = ""
    odd: list[str] = field(default_factory=list)
    cut: bool = False


@dataclass(frozen=True)
class Intake:
    """Summary of loaded data.

    Attributes
    ----------
    splits, where
        Number of samples by split and class, and where each split was found.
    shape, scale
        Of one sample, and what was done to its pixels: empty for built-in data and vectors.
    mean, std
        Per channel, of the training samples.
    not_read, skipped
        Files by ending that are none of the images; images that cannot be used, with the reason.
    copies
        Number of samples that are copies of an earlier one, by kind: ``exact within train``,
        ``near of test in train`` and the like.
    odd
        Sentences on what deserves a look.
    """

    name: str
    splits: dict[str, dict[str, int]]
    where: dict[str, str]
    shape: tuple[int, ...]
    scale: str
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    not_read: dict[str, int]
    skipped: tuple[str, ...]
    copies: dict[str, int]
    odd: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """What to say, as pairs of a heading and a text."""
        found = [("data", self.name)]
        for part, counts in self.splits.items():
            place = f" ({self.where[part]})" if part in self.where else ""
            found.append(
                (part, f"{counted(sum(counts.values()), 'sample')}{place}: {_shown(counts)}")
            )
        scale = f", {self.scale}" if self.scale else ""
        found.append(("one sample", "x".join(map(str, self.shape)) + scale))
        if len(self.shape) == 3:
            found.append(("flip", FLIPPED[self.flip]))
        if self.not_read:
            found.append(("not read", _shown(self.not_read, most=6)))
        if self.skipped:
            found.append(
                ("skipped", f"{counted(len(self.skipped), 'image')}, first {self.skipped[0]}")
            )
        if self.copies:
            found.append(("copies", _shown(self.copies, most=6)))
        found += [("note", text) for text in self.odd]
        # Names of classes and files are those of strangers.
        return [(heading, one_line(text)) for heading, text in found]

    def __str__(self) -> str:
        return "\n".join(f"{heading + ':':12}{text}" for heading, text in self.lines())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(heading)}</th>'
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for heading, text in self.lines()
        )
        return f"<table>{rows}</table>"


def _shown(counts: dict[str, int], most: int = MOST_CLASSES) -> str:
    """``a 10, b 12``; of many, how many and from what to what."""
    if len(counts) > most:
        return f"{len(counts):,} classes of {min(counts.values()):,} to {max(counts.values()):,}"
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def take_in(splits: "Splits", found: Found, copies: dict[str, int], odd: list[str]) -> Intake:
    """Summarise loaded data: ``copies`` as counted, and ``odd`` things that deserve a look."""
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    counts = {
        part: dict(zip(samples.classes, np.bincount(samples.y.cpu().numpy(),
                                                    minlength=len(samples.classes)).tolist(),
                       strict=True))
        for part, samples in parts.items() if samples is not None
    }  # fmt: skip
    untested = [name for name, count in counts["test"].items() if not count]
    rare = [name for name, count in counts["train"].items() if count < 5]
    odd = [*found.odd, *odd]
    leaked = sum(n for kind, n in copies.items() if kind.endswith("in train") and " of " in kind)
    if leaked:
        odd.append(
            f"copies of held-out samples: {counted(leaked, 'training sample')}, so that the "
            "accuracy is too high; drop_copies=near leaves these out"
        )
    if untested:
        odd.append(f"no test samples of {few(untested, 5)}: the accuracy says nothing of them")
    if rare:
        odd.append(f"fewer than five training samples of {few(rare, 5)}")
    train = splits.train
    return Intake(
        splits.name, counts, found.where, train.sample_shape, found.scale, train.flip, train.mean,
        train.std, found.not_read, tuple(splits.skipped), copies, tuple(odd),
    )  # fmt: skip


def say_once(intake: Intake) -> None:
    """Print a summary on standard error, unless the very same was printed before."""
    text = str(intake)
    if text not in _said:
        _said.add(text)
        print(text, file=sys.stderr)
