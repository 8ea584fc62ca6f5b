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
from budgetlab.errors import InputError
from budgetlab.records.format import (
    EPOCH_COLUMNS,
    FORMAT,
    SAMPLE_ARRAYS,
    complaint,
    read_texts,
    unpack_table,
)
from budgetlab.records.lock import is_held, lock_of
from budgetlab.records.safety import (
    DAMAGED_ARCHIVE,
    check_arrays,
    check_chunks,
    own_file,
    read_npz,
    require_memory,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Record", "RecordWarning", "Records", "find_records", "open_record", "open_records"]

NO_RECORD = "no run leaves so much behind, so do not read it"


class RecordWarning(UserWarning):
    """A record that cannot be used was left out; the others go on."""


class Record:
    """One run, opened for reading.

    ``about`` is ``record.json`` as it is; everything else is read when first
    asked for. Opening reads one small file.

    Raises
    ------
    InputError
        If the folder holds no record that can be read; the message says why.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
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
            f"{summary.get('looked_samples') or 0:,} run forward only, {flops or 0:.3g} flops",
            "status": f"{self.status}, epochs: {self._counted_epochs()}",
        }
        cells = (f"<tr><th>{k}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table>{''.join(cells)}</table>"

    def _counted_epochs(self) -> int | str:
        """How many epochs there are: what only shows a record must not fail at its damage."""
        try:
            return len(self.epochs)
        except InputError:
            return "damaged"

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the run; see :class:`budgetlab.RunConfig`."""
        return {RENAMED.get(k, k): v for k, v in self.about["config"].items()}

    @property
    def status(self) -> str:
        """running, finished, stopped or failed."""
        return self.about["status"]

    @property
    def is_training(self) -> bool:
        """Whether a run adds to it now."""
        return is_held(lock_of(self.path))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Costs and accuracy so far, as ``budgetlab train --json`` prints them."""
        summary = self.about["summary"]
        # Written when training begins and ends: in between, or after a kill, the table knows more.
        if self.status != "running" or not isinstance(self._counted_epochs(), int):
            return summary
        if self.epochs.empty:
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
        """Hex digits that depend on every value of the data; empty where unknown."""
        return str(self.about["data"].get("fingerprint", ""))

    @property
    def probability_kind(self) -> str:
        """What the array ``probability`` holds.

        ``draw``: the distribution of that epoch's draw, which sums to 1. ``keep``:
        the chance of being kept when last looked at.
        """
        return str(self.summary.get("probability_kind", "draw"))

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row an epoch; columns :data:`budgetlab.records.EPOCH_COLUMNS`."""
        path = self.path / "epochs.csv"
        if not path.is_file():
            return pd.DataFrame(columns=list(EPOCH_COLUMNS), dtype=float)
        try:
            table = pd.read_csv(own_file(self.path, path.name))
        except (ValueError, OSError, OverflowError) as error:
            raise InputError(f"'{path}' cannot be read as a table: {_reason(error)}") from None
        missing = [name for name in EPOCH_COLUMNS if name not in table]
        if missing:
            raise InputError(f"'{path}' lacks the columns {', '.join(missing)}")
        if text := [n for n in EPOCH_COLUMNS if not pd.api.types.is_numeric_dtype(table[n])]:
            raise InputError(f"'{path}' has entries that are no numbers in {', '.join(text)}")
        return table

    @cached_property
    def samples(self) -> "xr.Dataset":
        """Per-sample history, dims epoch x sample, read lazily.

        Arrays :data:`budgetlab.records.SAMPLE_ARRAYS` plus what is known of each
        sample: ``label`` and the metadata of the data set, dims ``sample``. The
        coordinate ``epoch`` counts from 1, ``sample`` from 0.
        """
        path = self.path / "samples.zarr"
        if not path.is_dir():
            raise InputError(f"'{path}' is missing: only the summary and the epochs can be read")
        try:
            data = _open_arrays(path, epochs=len(self.epochs))
        except Exception as error:
            # zarr raises many kinds of error on damaged files, all meaning the same here.
            raise InputError(f"'{path}' cannot be read: {_reason(error)}") from None
        missing = [name for name in SAMPLE_ARRAYS if name not in data]
        if missing:
            raise InputError(f"'{path}' lacks the arrays {', '.join(missing)}")
        return read_texts(_guarded(data, path)).assign_coords(
            epoch=np.arange(1, data.sizes["epoch"] + 1), sample=np.arange(data.sizes["sample"])
        )

    def require_whole(self) -> None:
        """Refuse a record whose epochs or arrays cannot be read.

        Raises
        ------
        InputError
            That names the part.
        """
        _ = self.epochs, self.samples

    @cached_property
    def thumbnails(self) -> dict[int, np.ndarray]:
        """Images ``uint8 [H, W, C]`` of some training samples, by sample number.

        The most and least trained, and those of highest and lowest mean loss.
        Empty where the run kept none (points, or not finished).
        """
        path = self.path / "thumbnails.npz"
        if not path.is_file():
            return {}
        try:
            arrays = read_npz(own_file(self.path, path.name), ("indices", "images"), NO_RECORD)
            indices, images = (arrays[name] for name in ("indices", "images"))
            if indices.ndim != 1 or len(indices) != len(images):
                raise ValueError("it does not hold one image for each number")
        except InputError:
            raise
        except DAMAGED_ARCHIVE as error:
            raise InputError(f"'{path}' cannot be read: {_reason(error)}") from None
        return dict(zip(indices.tolist(), images, strict=True))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """What was predicted for each test sample after the last epoch.

        ``label``, ``predicted``, metadata; empty if not finished, or of an earlier version.
        """
        path = self.path / "predictions.npz"
        if not path.is_file():
            return pd.DataFrame()
        try:
            return unpack_table(read_npz(own_file(self.path, path.name), None, NO_RECORD))
        except InputError:
            raise
        except DAMAGED_ARCHIVE as error:
            raise InputError(f"'{path}' cannot be read: {_reason(error)}") from None


def open_record(path: Path | str) -> Record:
    """Open one record; see :class:`Record`."""
    return Record(path)


Records = Path | str | Record | Iterable[Path | str | Record]


def open_records(records: Records) -> list[Record]:
    """Open several records; those that cannot be opened are left out with a warning each.

    Parameters
    ----------
    records
        A record or the path of one, a folder that holds records at any depth, or
        several of these. Per-sample arrays are not read.

    Returns
    -------
    list of Record
        In the order given; those below one folder sorted by path. Each once.

    Raises
    ------
    InputError
        If a path does not exist or holds no record, or if no record can be opened.
    """
    given = [records] if isinstance(records, Path | str | Record) else list(records)
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
    """Find the folders of records: each path is a record, or a folder that holds some at any depth.

    Returns
    -------
    list of Path
        Sorted, each once.

    Raises
    ------
    InputError
        If a path does not exist or holds no record.
    """
    # By its real place, so that a record given in two ways does not count twice.
    found: dict[str, Path] = {}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(path)
        if not path.exists():
            raise InputError(f"record '{path}' does not exist: give the folder of a record")
        inside = [path] if _is_record(path) else _inside(path)
        if not inside:
            raise InputError(f"'{path}' holds no record: give a folder with a record.json")
        for one in inside:
            found.setdefault(os.path.realpath(one), one)
    return sorted(found.values())


def _inside(folder: Path) -> list[Path]:
    """Records below a folder; their own folders, full of small files, are not entered."""
    found = []
    for path, folders, files in os.walk(folder):
        if "record.json" in files:
            found.append(Path(path))
            folders.clear()
    return found


def _open_arrays(path: Path, epochs: int) -> "xr.Dataset":
    import xarray as xr
    import zarr

    check_arrays(path)
    arrays: dict[str, Any] = dict(zarr.open_group(path, mode="r", zarr_format=3).arrays())
    check_chunks(path, arrays)
    kept = sum(
        array.dtype.itemsize * math.prod([min(array.shape[0], epochs), *array.shape[1:]])
        for array in arrays.values()
        if array.shape and (array.metadata.dimension_names or ())[:1] == ("epoch",)
    )
    kept += sum(array.nbytes for array in arrays.values() if array.ndim < 2)
    require_memory(f"'{path}'", kept, NO_RECORD)
    options: dict[str, Any] = {"consolidated": False, "chunks": None, "zarr_format": 3,
                               "mask_and_scale": False}  # fmt: skip
    try:
        return xr.open_zarr(path, **options).isel(epoch=slice(0, epochs))
    except ValueError:
        # A kill while the arrays grow leaves them of different lengths: take one at a time.
        names = set(arrays)
        parts = [xr.open_zarr(path, drop_variables=names - {name}, **options) for name in names]
        parts = [p.isel(epoch=slice(0, epochs)) if "epoch" in p.dims else p for p in parts]
        return xr.merge(parts, join="exact", compat="no_conflicts")


def _guarded(data: "xr.Dataset", path: Path) -> "xr.Dataset":
    """Return arrays as they are, still read lazily, that say in a sentence what is damaged.

    ``p_y`` is ``exp(-loss)`` where nothing is stored: written out it would cost a fifth of a
    record and say nothing new.
    """
    import xarray as xr
    from xarray.core import indexing

    class Lazy(xr.backends.BackendArray):
        def __init__(self, stored: Any, read: Callable[[Any], np.ndarray]):
            self.shape, self.dtype, self.read = stored.shape, stored.dtype, read

        def __getitem__(self, key: Any) -> Any:
            support = indexing.IndexingSupport.OUTER
            return indexing.explicit_indexing_adapter(key, self.shape, support, self.read)

    def reader(name: str) -> Callable[[Any], np.ndarray]:
        def read(key: Any) -> np.ndarray:
            try:
                return np.asarray(data[name].variable[key].values)
            except Exception as error:
                # zarr and its compressors raise many kinds of error on damaged files.
                raise InputError(f"'{path / name}' cannot be read: {_reason(error)}") from None

        return read

    def read_p_y(key: Any) -> np.ndarray:
        stored = reader("p_y")(key)
        empty = np.isnan(stored)
        return np.where(empty, np.exp(-reader("loss")(key)), stored) if empty.any() else stored

    derived = data["p_y"].dims == data["loss"].dims
    lazy = {}
    for name, values in data.data_vars.items():
        read = read_p_y if name == "p_y" and derived else reader(str(name))
        array = indexing.LazilyIndexedArray(Lazy(values.variable, read))
        lazy[name] = (values.dims, array, values.attrs)
    return data.assign(lazy)


def _reason(error: Exception) -> str:
    """First line of what an error says, or its kind."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _is_record(path: Path) -> bool:
    return (path / "record.json").is_file()


def _read_about(path: Path) -> dict[str, Any]:
    if not _is_record(path):
        raise InputError(f"'{path}' is no record: give a folder with a record.json")
    file = path / "record.json"
    try:
        about = json.loads(own_file(path, file.name).read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"'{file}' cannot be read: {_reason(error)}") from None
    wrong = complaint(about)
    if wrong:
        raise InputError(f"'{file}' is not the description of a run: {wrong}")
    if about["format"] > FORMAT:
        raise InputError(
            f"'{file}' has format {about['format']}, newer than {FORMAT}: upgrade budgetlab"
        )
    return about
