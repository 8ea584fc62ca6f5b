"""Contents and limits of a record's files, shared by the writer and the reader."""

import io
import math
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pandas as pd

from budgetlab.errors import DISK_FAULTS, InputError, RunError, one_line

if TYPE_CHECKING:
    import xarray as xr
    import zarr

FORMAT = 1

MIB = 2**20
# Largest accepted file sizes in bytes. Our own largest files, of runs with 100,000 epochs or as
# many classes, need a tenth of them.
MAX_BYTES = {"record.json": 64 * MIB, "epochs.csv": 256 * MIB, "thumbnails.npz": 256 * MIB,
        "predictions.npz": 256 * MIB, "zarr.json": MIB, "state.pt": 64 * 1024 * MIB}  # fmt: skip

EPOCH_COLUMNS = {
    "epoch": "epoch, from 1",
    "progress": "share of the budget spent, 0 to 1",
    "steps": "optimiser steps so far",
    "trained_samples": "samples run forward and backward so far",
    "looked_samples": "samples run forward only, to choose among, so far",
    "flops": "floating point operations so far, a multiply-add counted as two",
    "seconds": "seconds of training so far; evaluation and recording not counted",
    "lr": "learning rate of the last step of the epoch",
    "train_loss": "mean cross-entropy of the samples trained on this epoch, before each step",
    "train_accuracy": "share of those samples that were classified right, 0 to 1",
    "test_loss": "mean cross-entropy on the test set after the epoch; NaN if not evaluated",
    "test_accuracy": "accuracy on the test set after the epoch, 0 to 1; a tie for the highest "
    "logit counts as wrong, which in bfloat16 takes 0.1 to 0.2 percentage points",
    "val_loss": "the same on the validation set, if one was held out",
    "val_accuracy": "the same on the validation set, if one was held out",
}

# name: (dtype, value where the sample was not trained on, meaning)
SAMPLE_ARRAYS: dict[str, tuple[str, Any, str]] = {
    "loss": ("float32", np.nan, "cross-entropy of the label when last trained on, nats"),
    "p_y": ("float32", np.nan, "softmax probability of the label then; exp(-loss) where empty"),
    "correct": ("int8", -1, "1 if the label had the highest logit then, else 0"),
    "margin": ("float32", np.nan, "logit of the label less the highest other logit then"),
    "el2n": ("float32", np.nan, "L2 norm of softmax less one-hot label then"),
    "probability": ("float32", np.nan, "sampling probability this epoch, where the method has one"),
    "times_trained": ("uint8", 0, "how often the sample was in a training batch this epoch"),
}

# Label of a sample that a custom loop has not yet reported.
UNKNOWN = -1


def checked_file(record: Path, name: str) -> Path:
    """Return the path of a record's file after checking that it is regular and not too large."""
    path = record / name
    inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(record))
    if path.is_symlink() and not inside:
        raise ValueError("it is a link that leaves the record")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a file")
    most = MAX_BYTES[path.name]
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size / MIB:,.0f} MiB, and {most // MIB:,} are allowed")
    return path


# Per-sample arrays


def create_array(
    group: "zarr.Group", name: str, shape: tuple[int, int], chunks: tuple[int, int], level: int
) -> "zarr.Array":
    """Create one of :data:`SAMPLE_ARRAYS` ``[epoch, sample]``, empty.

    A chunk at level 7 of 9 takes 10% less space than at 3, and ten times as long to write. It is
    compressed as one block: several would take 5% more space.
    """
    from zarr.codecs import BloscCodec

    dtype, missing, meaning = SAMPLE_ARRAYS[name]
    piece = min(max(np.dtype(dtype).itemsize * math.prod(chunks), 1024), 2**20)
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(side, 1) for side in chunks),
        dtype=dtype,
        fill_value=missing,
        compressors=BloscCodec(cname="zstd", clevel=level, shuffle="shuffle", blocksize=piece),
        dimension_names=("epoch", "sample"),
        attributes={"description": meaning},
    )


def compact(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert values ``[N]`` of one epoch to their stored form, which compresses well."""
    arrays, stored = dict(arrays), {}
    if {"p_y", "loss"} <= arrays.keys():
        arrays["p_y"] = drop_implied_p_y(arrays["p_y"], arrays["loss"])
    for name, values in arrays.items():
        dtype = SAMPLE_ARRAYS[name][0]
        if dtype == "float32":
            floats = values.astype(np.float32)
            stored[name] = round_loss(floats) if name == "loss" else round_mantissa(floats)
        else:
            limits = np.iinfo(dtype)
            stored[name] = np.clip(values, limits.min, limits.max).astype(dtype)
    return stored


def round_mantissa(values: np.ndarray, bits: int = 8) -> np.ndarray:
    """Round float32 values to ``bits`` mantissa bits, so that they compress.

    The relative error is at most ``2**-(bits + 1)``, 0.2% at 8 bits. Infinities, NaN and values
    that would round to infinity are kept.
    """
    raw = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    drop = np.uint32(23 - bits)
    half = np.uint32(1 << (int(drop) - 1))
    rounded = ((raw + half) >> drop << drop).view(np.float32)
    finite = np.isfinite(values) & np.isfinite(rounded)
    return np.where(finite, rounded, values).astype(np.float32)


def round_loss(loss: np.ndarray) -> np.ndarray:
    """Round losses so that they compress and ``exp(-loss)`` stays accurate to 0.2%.

    Losses up to 1 are rounded by :func:`round_mantissa`, larger ones to multiples of 1/256, because
    the relative error of ``exp(-loss)`` is the absolute error of the loss.
    """
    with np.errstate(invalid="ignore"):
        rounded = np.where(np.abs(loss) > 1, np.round(loss * 256) / 256, round_mantissa(loss))
    return rounded.astype(np.float32)


def drop_implied_p_y(p_y: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Return ``p_y`` as stored: NaN, which takes no space, if all of it equals ``exp(-loss)``."""
    implied = np.exp(-np.asarray(loss, np.float64))
    if np.allclose(p_y, implied, rtol=1e-3, atol=1e-6, equal_nan=True):
        return np.full_like(p_y, np.nan)
    return p_y


# Metadata columns


def _as_array(column: pd.Series) -> np.ndarray | None:
    """Keep numbers and booleans, with NaN for missing values; encode text as UTF-8 bytes."""
    if isinstance(column.dtype, pd.BooleanDtype | pd.Int64Dtype):
        column = column.astype(float)
    values = column.to_numpy()
    if values.dtype.kind in "biuf":
        return values
    if all(isinstance(one, str) for one in values):
        return np.char.encode(values.astype(str), "utf-8", "replace")
    return None


def write_column(group: "zarr.Group", name: str, column: pd.Series) -> None:
    """Write numbers, or text as bytes ``[N, width]``; skip columns of other types."""
    values, dims = _as_array(column), ["sample"]
    if values is None or (values.dtype.kind == "S" and not len(values)):
        return
    if values.dtype.kind == "S":
        values, dims = values.view(np.uint8).reshape(len(values), -1), ["sample", f"{name}_bytes"]
    group.create_array(name, data=values, dimension_names=dims)


def read_texts(data: "xr.Dataset") -> "xr.Dataset":
    """Decode the bytes that :func:`write_column` stored for text columns."""
    texts = [str(one) for one in data if data[one].dims == ("sample", f"{one}_bytes")]
    for name in [one for one in texts if data[one].shape[1]]:
        raw = np.ascontiguousarray(data[name].to_numpy().astype(np.uint8))
        read = np.char.decode(raw.view(f"S{raw.shape[1]}")[:, 0], "utf-8", "replace")
        data = data.drop_vars(name).assign({name: ("sample", read)})
    return data


def pack_table(table: pd.DataFrame) -> bytes:
    """Pack the numeric, boolean and text columns of a table as the bytes of an npz file."""
    columns: dict[str, Any] = {}
    for name, column in table.items():
        values = _as_array(column)
        if values is None:
            continue
        if values.dtype.kind == "f":
            values = round_mantissa(values.astype(np.float32))
        elif values.dtype.kind in "iu" and len(values):
            ends = map(np.min_scalar_type, (values.min(), values.max()))
            values = values.astype(np.promote_types(*ends))
        columns[str(name)] = values
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **columns)
    return file.getvalue()


def pack_thumbnails(indices: np.ndarray, images: np.ndarray) -> bytes:
    """Pack images ``uint8 [K, H, W, C]`` of samples ``[K]`` as the bytes of ``thumbnails.npz``."""
    file = io.BytesIO()
    np.savez_compressed(file, indices=indices.astype(np.int64), images=images)
    return file.getvalue()


def unpack_table(columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Rebuild a table from the arrays of :func:`pack_table`."""
    if any(columns[name].dtype.kind not in "iu" for name in ("label", "predicted")):
        raise ValueError("labels and predictions are not whole numbers")
    return pd.DataFrame({
        name: np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values
        for name, values in columns.items()
    }).rename_axis("sample")  # fmt: skip


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file from bytes or a writer function; on failure the old file stays as it was."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_file(path: Path, content: bytes, *, folders: bool = False) -> Path:
    """Write a file that a user asked for, with missing ``folders`` if wanted, and return it."""
    try:
        if folders:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        kind = RunError if error.errno in DISK_FAULTS else InputError
        said = f"'{path}' cannot be written ({error.strerror}): give another file"
        raise kind(said) from None
    return path


def plain(value: Any) -> Any:
    """Convert numpy values to plain ones, and NaN and infinities to None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


# Validation of record.json: it may come from a stranger, and tables are built from it.


def _is_integer(value: object) -> bool:
    # JSON integers can be too large for a float.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**300


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_integer(value)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(one is None or isinstance(one, str | int | float)
                                           for one in value)  # fmt: skip


# A kind of value: its name in error messages, and a test for it.
Kind = tuple[str, Callable[[object], bool]]
TABLE: Kind = ("a table", lambda value: isinstance(value, dict))
TEXT: Kind = ("text", lambda value: isinstance(value, str))
NUMBER: Kind = ("a number", _is_number)
WHOLE: Kind = ("a whole number", _is_integer)
MEASURED: Kind = ("a number", lambda value: value is None or _is_number(value))
LIST: Kind = ("a list of values", _is_list)
PLAIN: Kind = ("a value or a list of values", lambda value: _is_list([value]) or _is_list(value))

KINDS: dict[str, dict[str, Kind]] = {
    "": {"config": TABLE, "data": TABLE, "summary": TABLE, "status": TEXT, "format": WHOLE,
         "hardware": TABLE, "versions": TABLE, "id": TEXT, "message": TEXT, "updated": TEXT},
    "config": {"dataset": TEXT, "method": TEXT, "augmentation": TEXT, "budget": NUMBER,
               "budget_unit": TEXT, "seed": WHOLE},
    "data": {"fingerprint": TEXT, "val_fingerprint": TEXT, "name": TEXT, "classes": LIST,
             "skipped": LIST, "shape": LIST, "train": WHOLE, "test": WHOLE, "val": WHOLE,
             "intake": TABLE},
    "summary": {**dict.fromkeys(("test_accuracy", "test_class_accuracy", "test_loss", "steps",
                                 "trained_samples", "looked_samples", "flops", "seconds",
                                 "proxy_samples"), MEASURED),
                "epochs": WHOLE, "probability_kind": TEXT},
    "hardware": {}, "versions": {},
}  # fmt: skip
NEEDED = {"": ("config", "data", "summary", "status", "format"), "config": tuple(KINDS["config"])}


def complaint(about: Any) -> str:
    """Say what is first found wrong with the description of a run; empty if nothing is.

    Unknown entries are allowed if tables can be made of them, so that this version can read the
    records of later ones.
    """
    about = about if isinstance(about, dict) else {}
    for part, known in KINDS.items():
        values, prefix = (about.get(part, {}), f"{part}.") if part else (about, "")
        missing = [prefix + name for name in NEEDED.get(part, ()) if name not in values]
        if missing:
            return f"it lacks {', '.join(missing)}"
        for name, value in values.items():
            said, fits = known.get(name, PLAIN)
            if not fits(value) and (part or name in known):
                return f"{prefix}{one_line(name, 40)} is {one_line(repr(value), 40)} and not {said}"
    return ""
