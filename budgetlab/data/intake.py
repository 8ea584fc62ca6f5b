"""What was found when data was loaded: said once, kept in the record, shown in a notebook."""

import html
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

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
    endings and their number, files that cannot be used, how pixels were scaled, oddities."""

    where: dict[str, str] = field(default_factory=dict)
    not_read: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    scale: str = ""
    odd: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Intake:
    """Summary of loaded data.

    Attributes
    ----------
    name
        As it was asked for.
    splits
        Number of samples by split and class, of what is trained and tested on.
    where
        Where each split was found.
    shape
        Of one sample.
    scale
        What was done to the pixels; empty for built-in data and vectors.
    flip
        Whether the standard augmentation mirrors images.
    mean, std
        Per channel, of the training samples.
    not_read
        Files by ending that are none of the images.
    skipped
        Images that cannot be used, each with the reason.
    copies
        Number of samples that are copies of an earlier one, by kind: ``exact within train``,
        ``near test in train`` and the like.
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
            found.append((part, f"{sum(counts.values()):,} samples{place}: {_counted(counts)}"))
        scale = f", {self.scale}" if self.scale else ""
        found.append(("one sample", "x".join(map(str, self.shape)) + scale))
        if len(self.shape) == 3:
            found.append(("flip", FLIPPED[self.flip]))
        if self.not_read:
            found.append(("not read", _counted(self.not_read, most=6)))
        if self.skipped:
            found.append(("skipped", f"{len(self.skipped)} images, first {self.skipped[0]}"))
        if self.copies:
            found.append(("copies", _counted(self.copies, most=6)))
        return found + [("note", text) for text in self.odd]

    def __str__(self) -> str:
        return "\n".join(f"{heading + ':':12}{text}" for heading, text in self.lines())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(heading)}</th>'
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for heading, text in self.lines()
        )
        return f"<table>{rows}</table>"


def _counted(counts: dict[str, int], most: int = MOST_CLASSES) -> str:
    """``a 10, b 12``; of many, how many and from what to what."""
    if len(counts) > most:
        return f"{len(counts):,} classes of {min(counts.values()):,} to {max(counts.values()):,}"
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def take_in(splits: "Splits", found: Found, copies: dict[str, int], odd: list[str]) -> Intake:
    """Summarise loaded data.

    Parameters
    ----------
    splits
        The data.
    found
        What its reader knows.
    copies
        As from :func:`budgetlab.data.copies.counted`.
    odd
        More that deserves a look.
    """
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    counts = {
        part: dict(zip(samples.classes, np.bincount(samples.y.cpu().numpy(),
                                                    minlength=len(samples.classes)).tolist(),
                       strict=True))
        for part, samples in parts.items() if samples is not None
    }  # fmt: skip
    untested = [name for name, count in counts["test"].items() if not count]
    few = [name for name, count in counts["train"].items() if count < 5]
    odd = [*found.odd, *odd]
    leaked = sum(n for kind, n in copies.items() if kind.endswith("in train") and " of " in kind)
    if leaked:
        odd.append(
            f"{leaked:,} training samples are copies of held-out ones, so that the accuracy is too "
            "high: drop_copies=near leaves them out"
        )
    if untested:
        odd.append(f"no test samples of {_names(untested)}: the accuracy says nothing of them")
    if few:
        odd.append(f"fewer than five training samples of {_names(few)}")
    train = splits.train
    return Intake(
        splits.name, counts, found.where, train.sample_shape, found.scale, train.flip, train.mean,
        train.std, found.not_read, tuple(splits.skipped), copies, tuple(odd),
    )  # fmt: skip


def _names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more classes" if len(names) > 5 else "")


def say_once(intake: Intake) -> None:
    """Print a summary on standard error, unless the very same was printed before."""
    text = str(intake)
    if text not in _said:
        _said.add(text)
        print(text, file=sys.stderr)
