"""Samples to drop, relabel or mark: a small table beside the data, which itself stays as it is."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from budgetlab.data.arrays import with_truth
from budgetlab.data.dataset import Dataset
from budgetlab.errors import InputError, counted, unknown
from budgetlab.records import write_atomically

__all__ = ["ACTIONS", "Edits"]

ACTIONS = {
    "drop": "left out, whatever its split",
    "relabel": "gets another label",
    "mark": "stays as it is, and the metadata says that it is marked",
    "true": "stays as it is, and its right label is known: wrong labels are judged by it",
}
COLUMNS = ("origin", "action", "label", "note")


class Edits:
    """What to do with single samples on loading, by their ``origin``.

    Kept as a table with the columns ``origin``, ``action`` (:data:`ACTIONS`), ``label`` (name of
    a class, for ``relabel`` and ``true``) and ``note``, which can be written by hand as well.
    The later of two contradicting rows wins.

    Parameters
    ----------
    path
        The CSV file; it need not exist yet.

    Examples
    --------
    >>> edits = bl.data.Edits.beside("folder:~/flowers")  # doctest: +SKIP
    >>> edits.drop(["rose/17.jpg"]).relabel({"rose/4.jpg": "tulip"}).save()  # doctest: +SKIP
    >>> splits = bl.data.load("folder:~/flowers", edits=edits)  # doctest: +SKIP
    """

    def __init__(self, path: Path | str):
        self.path = Path(path).expanduser()
        self.table = _read(self.path) if self.path.exists() else pd.DataFrame(columns=[*COLUMNS])
        self._met: set[str] = set()

    @classmethod
    def beside(cls, dataset: str) -> "Edits":
        """Open the edits that lie beside ``folder:PATH`` or ``npz:PATH``, never in it."""
        kind, _, path = dataset.partition(":")
        if kind not in ("folder", "npz") or not path:
            raise InputError(f"'{dataset}' lies in no place: give folder:PATH or npz:PATH")
        place = Path(path).expanduser().absolute()
        return cls(place.with_name(f"{place.name}.edits.csv"))

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        said = ", ".join(f"{action} {count}" for action, count in self.counts.items())
        return f"Edits({str(self.path)!r}: {said or 'none'})"

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples by action."""
        return self._last()["action"].value_counts().to_dict()

    def drop(self, samples: pd.DataFrame | Iterable[str], note: str = "") -> "Edits":
        """Leave samples out: their origins, or a frame with that column, as from ``triage``."""
        return self._add("drop", dict.fromkeys(_origins(samples), ""), note)

    def mark(self, samples: pd.DataFrame | Iterable[str], note: str = "") -> "Edits":
        """Mark samples, for a second look."""
        return self._add("mark", dict.fromkeys(_origins(samples), ""), note)

    def relabel(self, labels: Mapping[str, str], note: str = "") -> "Edits":
        """Give samples another label: names of classes by origin."""
        return self._add("relabel", labels, note)

    def true_label(self, labels: Mapping[str, str], note: str = "") -> "Edits":
        """Say what the right label is, without changing the one that is trained on."""
        return self._add("true", labels, note)

    def undo(self, samples: pd.DataFrame | Iterable[str]) -> "Edits":
        """Take back all that was said of samples."""
        self.table = self.table[~self.table["origin"].isin(_origins(samples))]
        return self

    def save(self) -> Path:
        """Write the table."""
        try:
            write_atomically(self.path, self.table.to_csv(index=False).encode())
        except OSError as error:
            raise InputError(
                f"edits '{self.path}' cannot be written ({error.strerror}): give another file"
            ) from None
        return self.path

    def _add(self, action: str, labels: Mapping[str, str], note: str) -> "Edits":
        rows = [(origin, action, str(label), note) for origin, label in labels.items()]
        self.table = pd.concat(
            [self.table, pd.DataFrame(rows, columns=[*COLUMNS], dtype=object)], ignore_index=True
        )
        return self

    def _last(self) -> pd.DataFrame:
        """The rows that count: what is done to a sample, and what is known of it."""
        kind = self.table["action"].replace({"relabel": "drop"})
        return self.table[~self.table.assign(kind=kind).duplicated(["origin", "kind"], keep="last")]

    def _of(self, action: str) -> pd.Series:
        rows = self._last()
        return rows[rows["action"] == action].set_index("origin")["label"]

    def choose(
        self, y: np.ndarray, origins: np.ndarray, classes: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Apply what changes labels ``[N]``, and drop: new labels and positions ``[M]``."""
        self._met |= {str(origin) for origin in origins}
        shown = pd.Series(origins).astype(str)
        new = shown.map(self._of("relabel"))
        given = new.notna().to_numpy()
        changed = y.copy()
        changed[given] = [_number(name, classes) for name in new[given]]
        kept = np.flatnonzero(~shown.isin(self._of("drop").index).to_numpy())
        return changed[kept], kept

    def noted(self, samples: Dataset) -> Dataset:
        """Add what is known by the edits to the metadata: ``marked``, ``relabelled``, the truth."""
        shown = samples.origins.astype(str)
        added = {}
        for action, column in (("mark", "marked"), ("relabel", "relabelled")):
            listed = self._of(action).index
            if len(listed):
                added[column] = np.isin(shown, listed.to_numpy(dtype=str))
        samples = replace(samples, metadata=samples.metadata.assign(**added))
        true = pd.Series(shown).map(self._of("true"))
        if not true.notna().any():
            return samples
        for name in true.dropna():
            _number(name, samples.classes)
        return with_truth(samples, [None if pd.isna(name) else name for name in true])

    def require_met(self) -> None:
        """Refuse edits of samples that the data does not have."""
        lost = [origin for origin in self.table["origin"] if origin not in self._met]
        if lost:
            raise InputError(
                f"edits '{self.path}' name {counted(len(set(lost)), 'sample')} missing from the "
                f"data, first '{lost[0]}': give origins as in its metadata, or remove these rows"
            )


def _origins(samples: pd.DataFrame | Iterable[str]) -> list[str]:
    if isinstance(samples, pd.DataFrame):
        if "origin" not in samples and "index" not in samples:
            raise InputError("this frame has no column origin: give one as from triage")
        return samples.get("origin", samples.get("index")).astype(str).tolist()
    if isinstance(samples, str):
        raise InputError(f"'{samples}' is one text: give a list of origins")
    return [str(one) for one in samples]


def _number(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise unknown("class", name, classes)
    return [*classes].index(name)


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(io.BytesIO(path.read_bytes()), dtype=str, keep_default_na=False).rename(
            columns=str.strip
        )
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"edits '{path}' cannot be read as a table: {reason}") from None
    if not {"origin", "action"} <= set(table.columns):
        raise InputError(
            f"edits '{path}' need the columns origin and action: they have {[*table.columns]}"
        )
    for column in ("label", "note"):
        if column not in table:
            table[column] = ""
    for action in table["action"].unique():
        if action not in ACTIONS:
            raise unknown("action", action, ACTIONS)
    return table[[*COLUMNS]]
