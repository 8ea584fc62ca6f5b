"""Writing a record while training."""

import csv
import errno
import io
import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records.format import (
    EPOCH_COLUMNS,
    FORMAT,
    SAMPLE_ARRAYS,
    compact,
    create_array,
    pack_table,
    plain,
    write_atomically,
    write_column,
)

if TYPE_CHECKING:
    from budgetlab.records.reader import Record

__all__ = ["RecordWriter", "copy_unfinished", "pack_thumbnails", "write_about"]

LARGE_BUDGET = 0.6
PACKAGES = ("budgetlab", "torch", "torchvision", "numpy")


class RecordWriter:
    """Writes one record, an epoch at a time.

    Make one with :meth:`create` for a new run or :meth:`reopen` to go on with one.
    """

    def __init__(self, path: Path, about: dict[str, Any], epochs: list[dict[str, Any]]):
        self.path = path
        self.about = about
        self.epochs = epochs
        # Opening an array reads its description: once a run, not once an epoch.
        self._opened: dict[str, Any] = {}

    @classmethod
    def create(
        cls,
        config: RunConfig,
        *,
        metadata: pd.DataFrame,
        data: dict[str, Any],
        hardware: dict[str, Any],
    ) -> "RecordWriter":
        """Make the folder of a new record under ``config.out``.

        Its :attr:`~RunConfig.folder_name` names the folder; where that is taken, a number is put
        behind it, so that nothing is overwritten. ``metadata`` has a row per training sample, with
        a column ``label``; ``data`` (name, fingerprint, classes, counts) and ``hardware`` are kept
        as they are. Where the folder cannot be made, or the disk is full, nothing is left behind.
        """
        about = {
            "format": FORMAT,
            "id": config.id,
            "status": "running",
            "message": "",
            "started": _now(),
            "updated": _now(),
            "config": config.to_dict(),
            "data": data,
            "hardware": hardware,
            "versions": {name: _version(name) for name in PACKAGES}
            | {"python": platform.python_version()},
            "summary": {},
        }
        import zarr

        with _new_folder(config) as path:
            group = zarr.create_group(path / "samples.zarr", overwrite=True)
            shape = config.epochs, len(metadata)
            # Where epochs are short, time counts; where all samples are seen, room does.
            level = 7 if config.budget > LARGE_BUDGET else 3
            for name in SAMPLE_ARRAYS:
                create_array(group, name, shape, (1, len(metadata)), level)
            for name, column in metadata.items():
                write_column(group, str(name), column)
            write_about(path, about)
        return cls(path, about, [])

    @classmethod
    def reopen(cls, path: Path | str, epochs: int) -> "RecordWriter":
        """Go on with a record from the end of epoch number ``epochs``."""
        from budgetlab.records.reader import open_record

        record = open_record(path)
        rows = []
        if len(record.epochs):
            # To the last digit, which pandas before 3 may change.
            table = (record.path / "epochs.csv").read_text(encoding="utf-8").splitlines()
            rows = [{name: int(text) if text.isdigit() else float(text or "nan")
                     for name, text in row.items()} for row in csv.DictReader(table)]  # fmt: skip
        return cls(record.path, dict(record.about), rows[:epochs])

    def append_epoch(self, row: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Add one epoch: values for :data:`EPOCH_COLUMNS`, and ``[N]`` for :data:`SAMPLE_ARRAYS`.

        Missing ones stay empty. An OSError says that the record was removed, in whole or in part,
        or that the disk is full.
        """
        import zarr

        # An array that is open would make its folder again, and nothing else in it.
        for part in ("record.json", "samples.zarr/zarr.json"):
            (self.path / part).stat()
        # By zarr, into arrays made for all epochs: ``to_zarr(append_dim=...)`` of xarray writes the
        # description of every array anew each epoch, which a kill may leave of different lengths,
        # and takes three times as long (23 ms against 6 for 10,000 samples).
        position = len(self.epochs)
        for name, values in compact(arrays).items():
            if name not in self._opened:
                self._opened[name] = zarr.open_array(self.path / "samples.zarr" / name, mode="r+")
            array = self._opened[name]
            if position >= array.shape[0]:
                array.resize((position + 1, array.shape[1]))
            array[position] = values
        # The row comes last: a reader trusts as many epochs as there are rows.
        epochs = [*self.epochs, {name: row.get(name, np.nan) for name in EPOCH_COLUMNS}]
        table = pd.DataFrame(epochs, columns=list(EPOCH_COLUMNS))
        write_atomically(self.path / "epochs.csv", table.to_csv(index=False).encode())
        self.epochs = epochs

    def set_status(self, status: str, message: str = "", summary: dict | None = None) -> None:
        """Say how the run stands; ``summary`` replaces the one kept so far."""
        self.about |= {"status": status, "message": message, "updated": _now()}
        if summary is not None:
            self.about["summary"] = summary
        write_about(self.path, self.about)

    def save_state(self, content: bytes) -> None:
        """Keep what resuming needs (bytes of ``torch.save``)."""
        write_atomically(self.path / "state.pt", content)

    def save_model(self, content: bytes) -> None:
        """Keep the trained weights (bytes of ``safetensors.torch.save``)."""
        write_atomically(self.path / "model.safetensors", content)

    def save_thumbnails(self, indices: np.ndarray, images: np.ndarray) -> None:
        """Keep images ``uint8 [K, H, W, C]`` of the training samples ``indices [K]``."""
        write_atomically(self.path / "thumbnails.npz", pack_thumbnails(indices, images))

    def save_predictions(self, table: pd.DataFrame) -> None:
        """Keep what was predicted for the test samples: ``label``, ``predicted``, metadata."""
        write_atomically(self.path / "predictions.npz", pack_table(table))


def write_about(path: Path, about: dict[str, Any]) -> None:
    """Write ``record.json``."""
    text = json.dumps(plain(about), indent=1, allow_nan=False)
    write_atomically(path / "record.json", text.encode())


def pack_thumbnails(indices: np.ndarray, images: np.ndarray) -> bytes:
    """Return images ``uint8 [K, H, W, C]`` of samples ``[K]`` as bytes of ``thumbnails.npz``."""
    file = io.BytesIO()
    np.savez_compressed(file, indices=indices.astype(np.int64), images=images)
    return file.getvalue()


def copy_unfinished(record: "Record", config: RunConfig, state: bytes) -> Path:
    """Copy a record as that of another run, not finished yet, which goes on from ``state``."""
    about = record.about | {
        "id": config.id,
        "config": config.to_dict(),
        "status": "stopped",
        "message": "extended; resume to go on",
        "updated": _now(),
    }
    with _new_folder(config) as path:
        # Links stay links, which whoever reads the copy refuses.
        shutil.copytree(record.path / "samples.zarr", path / "samples.zarr", symlinks=True)
        shutil.copy2(record.path / "epochs.csv", path / "epochs.csv", follow_symlinks=False)
        RecordWriter(path, about, []).save_state(state)
        write_about(path, about)
    return path


@contextmanager
def _new_folder(config: RunConfig) -> Iterator[Path]:
    """Make the folder of a new record; nothing is left behind where filling it fails.

    Half a record would be found, and said to be damaged, by whoever reads the folder.
    """
    out, made = Path(config.out), None
    try:
        for number in range(1, 10_000):
            path = out / (config.folder_name + (f"-{number}" if number > 1 else ""))
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not out.is_dir():
                    raise
            else:
                made = path
                yield made
                return
        raise InputError(f"out '{out}' holds 10,000 records of this run: give another folder")
    except BaseException as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, OSError):
            raise _not_written(out, error) from None
        raise


def _not_written(out: Path, error: OSError) -> InputError | RunError:
    if out.is_file():
        return InputError(f"out '{out}' is a file: give a folder")
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"out '{out}' cannot be written ({reason}): make room and start again")
    return InputError(f"out '{out}' cannot be written ({reason}): give another folder with --out")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # used from a checkout, without being installed
        return "not installed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
