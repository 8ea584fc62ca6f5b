"""Which samples come first, among which, and what they look like: functions of measures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis import agreement, measures
from budgetlab.analysis.conditions import require_data_of
from budgetlab.analysis.per_sample import check_measure
from budgetlab.errors import InputError, unknown
from budgetlab.records import Record

if TYPE_CHECKING:
    from budgetlab.data import Splits

__all__ = ["DIFFERENCE", "GROUPS", "agreement_sentence", "beside", "groups_of", "images_of",
           "picture_of_point", "ranking", "with_more"]  # fmt: skip

GROUPS = {
    "all": ("", True),
    "noisy": ("is_noisy", True),
    "not noisy": ("is_noisy", False),
    "ambiguous": ("is_ambiguous", True),
    "not ambiguous": ("is_ambiguous", False),
    "never trained on": ("visits", False),
}
"""Groups of samples by what is known of them: a column, and whether it has to be true."""

DIFFERENCE = "trained_more"


def groups_of(frame: pd.DataFrame) -> list[str]:
    """Names of the groups that a frame knows."""
    return [name for name, (column, _) in GROUPS.items() if not column or column in frame]


def ranking(
    frame: pd.DataFrame,
    by: str,
    *,
    highest: bool = True,
    label: int | None = None,
    group: str = "all",
    among: np.ndarray | None = None,
) -> pd.DataFrame:
    """Order samples by a measure.

    Parameters
    ----------
    frame
        As from :func:`budgetlab.analysis.measures`.
    by
        Column to order by. Samples without a value are left out; of equal ones the
        lower number comes first.
    highest
        Highest first, else lowest first.
    label, group, among
        Only samples of a class, by its number; of one of :data:`GROUPS`; among these numbers.

    Returns
    -------
    DataFrame
        The rows of ``frame`` in that order, index ``sample``, with ``rank`` from 1 in
        front.

    Raises
    ------
    InputError
        If a measure or group is unknown.
    """
    check_measure(frame, by)
    if group not in GROUPS:
        raise unknown("group", group, GROUPS)
    column, wanted = GROUPS[group]
    if column and column not in frame:
        raise InputError(
            f"group '{group}' cannot be told: the record does not hold {column}; choose one of "
            f"{', '.join(groups_of(frame))}"
        )
    kept = frame[by].notna()
    if column:
        # Of what is not known of a sample, neither is true.
        kept &= frame[column].notna() & (frame[column].fillna(False).astype(bool) == wanted)
    if label is not None:
        kept &= frame["label"] == label
    if among is not None:
        kept &= frame.index.isin(among)
    ordered = frame[kept].sort_values(by, ascending=not highest, kind="stable")
    ordered.insert(0, "rank", np.arange(1, len(ordered) + 1))
    return ordered


def beside(frame: pd.DataFrame, record: Record, other: Record) -> pd.DataFrame:
    """Add ``times_trained_other`` of another run, and ``trained_more``: how much more this one did.

    Raises
    ------
    InputError
        If the two were trained on other data.
    """
    if record.fingerprint != other.fingerprint:
        raise InputError(
            f"'{record.path}' and '{other.path}' were trained on other data: compare runs on the "
            "same data"
        )
    counts = measures(other)["times_trained"]
    return frame.assign(times_trained_other=counts, **{DIFFERENCE: frame["times_trained"] - counts})


def agreement_sentence(frame: pd.DataFrame) -> str:
    """Say how far two runs chose the same samples, from a frame of :func:`beside`."""
    found = agreement(frame["times_trained"], frame["times_trained_other"])
    rank = found["spearman"]
    if np.isnan(rank):
        return "One of the runs trained on all samples equally often: no ranks to compare."
    # The overlap of the tops says little here: counts are few numbers, and most are ties.
    low, high = found["spearman_ci_low"], found["spearman_ci_high"]
    return (
        f"Rank correlation of the times trained: {rank:.2f} (95% CI {low:.2f} to {high:.2f}, "
        f"n = {found['n']:,})."
    )


def with_more(frame: pd.DataFrame, more: pd.DataFrame | None) -> pd.DataFrame:
    """Add further measures to those of a record, by sample."""
    if more is None:
        return frame
    if "recorded_as" in frame and frame["recorded_as"].max() < len(more) != len(frame):
        # Only some samples of a large record are shown.
        more = more.loc[frame["recorded_as"]].set_axis(frame.index)
    if not more.index.equals(frame.index):
        raise InputError(f"more has {len(more)} rows for {len(frame)} samples: give one a sample")
    return frame.drop(columns=more.columns, errors="ignore").join(more)


def images_of(record: Record, splits: "Splits | None") -> Mapping[int, np.ndarray]:
    """Images of the training samples of a record, by sample number.

    Without the data set of the record, ``splits``, they are its own thumbnails: some only.

    Raises
    ------
    InputError
        If the data set is not that of the record.
    """
    if splits is None:
        return record.thumbnails
    require_data_of(record, splits)
    return _Images(splits.train.x.cpu().numpy())


class _Images(Mapping):
    """Images of samples, made when asked for."""

    def __init__(self, x: np.ndarray):
        self.x = x

    def __getitem__(self, sample: int) -> np.ndarray:
        if not 0 <= sample < len(self.x):
            raise KeyError(sample)
        if self.x.ndim == 2:
            return picture_of_point(self.x, sample)
        return self.x[sample].transpose(1, 2, 0)

    def __iter__(self):
        return iter(range(len(self.x)))

    def __len__(self) -> int:
        return len(self.x)


def picture_of_point(x: np.ndarray, sample: int, side: int = 42) -> np.ndarray:
    """Where a point lies among all ``[N, 2]``: uint8 ``[side, side, 3]``, grey, it in orange."""
    low, high = x.min(axis=0), x.max(axis=0)
    span = np.where(high > low, high - low, 1)
    places = ((x - low) / span * (side - 5) + 2).round().astype(int)
    picture = np.full((side, side, 3), 255, np.uint8)
    picture[side - 1 - places[:, 1], places[:, 0]] = 200
    column, row = places[sample, 0], side - 1 - places[sample, 1]
    picture[row - 2 : row + 3, column - 2 : column + 3] = (213, 94, 0)
    return picture
