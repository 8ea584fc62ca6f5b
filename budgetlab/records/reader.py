"""Reading records, without torch."""

import html
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.config import RENAMED
from budgetlab.errors import InputError, a_kind, reason
from budgetlab.records.format import (
    EPOCH_COLUMNS,
    FORMAT,
    SAMPLE_ARRAYS,
    checked_file,
    complaint,
    read_texts,
    unpack_table,
)
from budgetlab.records.safety import (
    DAMAGED_ARCHIVE,
    check_arrays,
    check_chunks,
    read_npz,
    require_memory,
)
from budgetlab.records.writer import is_held, lock_of

if TYPE_CHECKING:
    import xarray as xr

NO_RECORD = "no run leaves so much behind, so do not read it"


class RecordWarning(UserWarning):
    """An unusable record was left out; the others are still used."""


class Record:
    """One run, opened for reading.

    ``about`` holds ``record.json``; everything else is read on first access. Opening reads one
    small file. Raises InputError if the folder holds no readable record; the message says why.
    """

    def __init__(self, path: Path | str):
        self.path = _place(path)
        self.about = _read_about(self.path)

    def __repr__(self) -> str:
        return (
            f"Record({str(self.path)!r}, status={self.status!r}, epochs={self._counted_epochs()})"
        )

    def _repr_html_(self) -> str:
        config, summary = self.config, self.summary
        accuracy, flops = summary.get("test_accuracy"), summary.get("flops")
        rows = {
            "record": self.path.name,
            "method": config["method"],
            "data": self.about["data"].get("name", config["dataset"]),
            "budget": f"{config['budget']:g} of the full run, in {config['budget_unit']}",
            "test accuracy": "not evaluated" if accuracy is None else f"{accuracy:.2%}",
            "cost": f"{summary.get('trained_samples') or 0:,} samples trained on, "
            f"{summary.get('looked_samples') or 0:,} run forward only, "
            + ("flops not counted" if flops is None else f"{flops:.3g} flops"),
            "status": f"{self.status}, epochs: {self._counted_epochs()}",
        }
        cells = (f"<tr><th>{k}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table>{''.join(cells)}</table>"

    def _counted_epochs(self) -> int | str:
        """Count the epochs; a damaged record must not break its own display."""
        try:
            return len(self.epochs)
        except InputError:
            return "damaged"

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the run; see :class:`budgetlab.RunConfig`."""
        return {RENAMED.get(k, k): v for k, v in self.about["config"].items()}

    @property
    def status(self) -> str:
        """running, finished, stopped or failed."""
        return self.about["status"]

    @property
    def is_training(self) -> bool:
        """Whether a run is writing to it now."""
        return is_held(lock_of(self.path))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Costs and accuracy so far, as ``budgetlab train --json`` prints them."""
        summary = self.about["summary"]
        # Written when training begins and ends; in between, or after a kill, the table is newer.
        if self.status != "running" or self._counted_epochs() in (0, "damaged"):
            return summary
        last = {k: v for k, v in self.epochs.iloc[-1].items() if k in summary}
        counts = {k: int(v) for k, v in last.items() if isinstance(summary[k], int)}
        last = {k: None if math.isnan(v) else float(v) for k, v in last.items()}
        return summary | last | counts | {"epochs": len(self.epochs)}

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return [str(name) for name in self.about["data"].get("classes", [])]

    @property
    def fingerprint(self) -> str:
        """Hex digits, a hash of every value of the data; empty if unknown."""
        return str(self.about["data"].get("fingerprint", ""))

    @property
    def method_code(self) -> str:
        """Digest of a custom method's code; empty for built-in methods and if none was kept."""
        return str(self.about.get("hardware", {}).get("method_code", ""))

    @property
    def probability_kind(self) -> str:
        """Meaning of the array ``probability``.

        ``draw``: the distribution of that epoch's draw, which sums to 1. ``keep``: the probability
        of being kept when last scored.
        """
        return str(self.summary.get("probability_kind", "draw"))

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch; columns :data:`budgetlab.records.EPOCH_COLUMNS`."""

        def read(file: Path) -> pd.DataFrame:
            table = pd.read_csv(file)
            missing = [name for name in EPOCH_COLUMNS if name not in table]
            if missing:
                raise ValueError(f"it lacks the columns {', '.join(missing)}")
            if text := [n for n in EPOCH_COLUMNS if not pd.api.types.is_numeric_dtype(table[n])]:
                raise ValueError(f"it has entries that are not numbers in {', '.join(text)}")
            return table

        return self._part("epochs.csv", read, pd.DataFrame(columns=[*EPOCH_COLUMNS], dtype=float))

    @cached_property
    def samples(self) -> "xr.Dataset":
        """Per-sample history, dims epoch x sample, read lazily.

        Arrays :data:`budgetlab.records.SAMPLE_ARRAYS`, plus ``label`` and the metadata of the data
        set, dims ``sample``. The coordinate ``epoch`` counts from 1, ``sample`` from 0.
        """
        path = self.path / "samples.zarr"
        if not path.is_dir():
            raise InputError(f"'{path}' is missing: only the summary and the epochs can be read")
        try:
            data = _open_arrays(path, epochs=len(self.epochs))
        except Exception as error:
            # zarr raises many exceptions on damaged files; all mean the same here.
            raise _unreadable(path, error) from None
        return read_texts(data).assign_coords(
            epoch=np.arange(1, data.sizes["epoch"] + 1), sample=np.arange(data.sizes["sample"])
        )

    def require_readable(self) -> None:
        """Refuse a record whose epochs or arrays cannot be read; the InputError names the part."""
        _ = self.epochs, self.samples

    @cached_property
    def thumbnails(self) -> dict[int, np.ndarray]:
        """Images ``uint8 [H, W, C]`` of some training samples, by sample index.

        These are the most and least trained samples, and those of highest and lowest mean loss.
        Empty if the run kept none (points, or not finished).
        """

        def read(file: Path) -> dict[int, np.ndarray]:
            arrays = read_npz(file, ("indices", "images"), NO_RECORD)
            numbers, images = arrays["indices"], arrays["images"]
            if numbers.ndim != 1 or len(numbers) != len(images):
                raise ValueError("it does not hold one image for each number")
            return dict(zip(numbers.tolist(), images, strict=True))

        return self._part("thumbnails.npz", read, {})

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Predictions for the test samples after the last epoch.

        Columns ``label``, ``predicted`` and metadata; empty if unfinished or of an earlier version.
        """
        return self._part("predictions.npz", lambda file: unpack_table(
            read_npz(file, None, NO_RECORD)), pd.DataFrame())  # fmt: skip

    def _part(self, name: str, read: Callable[[Path], Any], missing: Any) -> Any:
        """Read one file of the record, with any damage as an InputError."""
        path = self.path / name
        if not path.is_file():
            return missing
        try:
            return read(checked_file(self.path, name))
        except InputError:
            raise
        except DAMAGED_ARCHIVE as error:
            raise _unreadable(path, error) from None


OneRecord = Path | str | Record
Records = OneRecord | Iterable[OneRecord]


def open_record(record: OneRecord) -> Record:
    """Open the record in a folder, see :class:`Record`; an open record is returned as it is."""
    return record if isinstance(record, Record) else Record(record)


def open_records(records: Records) -> list[Record]:
    """Open several records, skipping those that cannot be opened with a warning each.

    Raises InputError if a path does not exist or holds no record, or if no record can be opened.

    ``records``: a record or its path, a folder that holds records at any depth, or several of
    these. Per-sample arrays are not read.

    Returns the records in the order given, each once; those below one folder are sorted by path.
    """
    given = [records] if isinstance(records, Record) else _several(records)
    opened: dict[str, Record] = {}
    problems = []
    for item in given:
        for path in [item.path] if isinstance(item, Record) else find_records(item):
            try:
                record = item if isinstance(item, Record) else Record(path)
                opened.setdefault(os.path.realpath(path), record)
            except InputError as error:
                problems.append(str(error))
    if not opened:
        raise InputError(problems[0] if problems else "no record was given: name one, such as runs")
    for problem in problems:
        warnings.warn(f"{problem}; this record is left out", RecordWarning, stacklevel=2)
    return list(opened.values())


def find_records(paths: Path | str | Iterable[Path | str]) -> list[Path]:
    """Find the folders of records at or below some paths, sorted; InputError if one has none."""
    # Keyed by real path, so that a record given in two ways does not count twice.
    found: dict[str, Path] = {}
    for path in map(_place, _several(paths)):
        if not path.exists():
            raise InputError(f"record '{path}' does not exist: give the folder of a record")
        inside = []
        for folder, folders, files in os.walk(path):
            if "record.json" in files:
                inside.append(Path(folder))
                # Its subfolders are full of small files: skip them.
                folders.clear()
        if not inside:
            raise InputError(f"'{path}' holds no record: give a folder with a record.json")
        for one in inside:
            found.setdefault(os.path.realpath(one), one)
    return sorted(found.values())


def _open_arrays(path: Path, epochs: int) -> "xr.Dataset":
    """Open the arrays for as many epochs as the table has, after checking that they are safe.

    zarr reads each one on demand, and damage becomes an InputError. A kill while arrays grow leaves
    them of different lengths, which xarray's own reader refuses.
    """
    import xarray as xr
    import zarr
    from xarray.core import indexing

    class Stored(xr.backends.BackendArray):
        def __init__(self, array: "zarr.Array", shape: tuple[int, ...]):
            self.array, self.shape, self.dtype = array, shape, array.dtype

        def __getitem__(self, key: Any) -> Any:
            support = indexing.IndexingSupport.OUTER
            return indexing.explicit_indexing_adapter(key, self.shape, support, self.read)

        def read(self, key: tuple) -> np.ndarray:
            within = tuple(slice(*one.indices(size)) if isinstance(one, slice) else one
                           for one, size in zip(key, self.shape, strict=True))  # fmt: skip
            try:
                return np.asarray(self.array.oindex[within])
            except Exception as error:
                raise _unreadable(path / self.array.basename, error) from None

    class ImpliedByLoss(Stored):
        """Storing ``exp(-loss)`` would add a fifth to a record without adding information."""

        def read(self, key: tuple) -> np.ndarray:
            stored = super().read(key)
            empty = np.isnan(stored)
            if not empty.any():
                return stored
            return np.where(empty, np.exp(-Stored(arrays["loss"], self.shape).read(key)), stored)

    check_arrays(path)
    arrays: dict[str, Any] = dict(zarr.open_group(path, mode="r", zarr_format=3).arrays())
    check_chunks(path, arrays)
    missing = [name for name in SAMPLE_ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f"it lacks the arrays {', '.join(missing)}")
    variables: dict[str, Any] = {}
    kept = 0
    for name, array in sorted(arrays.items()):
        dims, shape = tuple(array.metadata.dimension_names or ()), array.shape
        if dims[:1] == ("epoch",):
            shape = (min(shape[0], epochs), *shape[1:])
        kept += array.dtype.itemsize * math.prod(shape)
        kind = ImpliedByLoss if name == "p_y" and shape == variables["loss"][1].shape else Stored
        variables[name] = dims, kind(array, shape), array.attrs.asdict()
    require_memory(f"'{path}'", kept, NO_RECORD)
    return xr.Dataset({name: (dims, indexing.LazilyIndexedArray(array), attributes)
                       for name, (dims, array, attributes) in variables.items()})  # fmt: skip


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"'{path}' cannot be read: {reason(error)}")


def _several(given: Any) -> list[Any]:
    one = isinstance(given, str | os.PathLike) or not isinstance(given, Iterable)
    return [given] if one else list(given)


def _place(path: Any) -> Path:
    """Return the path of a record's folder, or raise an InputError for another type."""
    if not isinstance(path, str | os.PathLike):
        one = ", one of them" if isinstance(path, list | tuple) else ""
        raise InputError(f"{a_kind(path)} is not a record: give a Record or its folder{one}")
    return Path(os.path.expanduser(path))


def _read_about(path: Path) -> dict[str, Any]:
    file = path / "record.json"
    if not file.is_file():
        raise InputError(f"'{path}' is not a record: give a folder with a record.json")
    try:
        about = json.loads(checked_file(path, file.name).read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise _unreadable(file, error) from None
    wrong = complaint(about)
    if wrong:
        raise InputError(f"'{file}' is not the description of a run: {wrong}")
    if about["format"] > FORMAT:
        raise InputError(
            f"'{file}' has format {about['format']}, newer than {FORMAT}: upgrade budgetlab"
        )
    return about
