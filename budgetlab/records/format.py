"""What the files of a record hold and may hold, in one place for the writer and the reader."""

import io
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.errors import one_line

if TYPE_CHECKING:
    import xarray as xr
    import zarr
    from zarr.codecs import BloscCodec

__all__ = ["EPOCH_COLUMNS", "FORMAT", "SAMPLE_ARRAYS", "complaint", "pack_table", "packing",
           "plain", "read_texts", "round_loss", "round_mantissa", "unpack_table", "without_implied",
           "write_atomically", "write_column"]  # fmt: skip

FORMAT = 1

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
    "test_accuracy": "accuracy on the test set after the epoch, 0 to 1",
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


def packing(chunk: int, level: int = 3) -> "BloscCodec":
    """Return how per-sample arrays are compressed.

    Parameters
    ----------
    chunk
        Bytes of a chunk. It is packed in one piece: several cost 5% more room.
    level
        0 to 9. At 7 a chunk takes a tenth less room and ten times as long as at 3.
    """
    from zarr.codecs import BloscCodec

    piece = min(max(chunk, 1024), 2**20)
    return BloscCodec(cname="zstd", clevel=level, shuffle="shuffle", blocksize=piece)


def round_mantissa(values: np.ndarray, bits: int = 8) -> np.ndarray:
    """Round float32 values to ``bits`` mantissa bits, so that they compress.

    The relative error is at most ``2**-(bits + 1)``, 0.2% at 8 bits; infinities,
    NaN and what would round to infinity stay.
    """
    raw = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    drop = np.uint32(23 - bits)
    half = np.uint32(1 << (int(drop) - 1))
    rounded = ((raw + half) >> drop << drop).view(np.float32)
    # The largest numbers would round up to infinity.
    finite = np.isfinite(values) & np.isfinite(rounded)
    return np.where(finite, rounded, values).astype(np.float32)


def round_loss(loss: np.ndarray) -> np.ndarray:
    """Round losses so that they compress, and so that ``exp(-loss)`` is good to 0.2%.

    Up to 1 as :func:`round_mantissa`; above it to multiples of 1/256, because the relative
    error of ``exp(-loss)`` is the absolute one of the loss.
    """
    with np.errstate(invalid="ignore"):
        rounded = np.where(np.abs(loss) > 1, np.round(loss * 256) / 256, round_mantissa(loss))
    return rounded.astype(np.float32)


def without_implied(p_y: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Return ``p_y`` as it is stored: NaN where all of it is ``exp(-loss)``.

    Both arrays have the same shape; an array of NaN alone takes no room on the disk.
    """
    implied = np.exp(-np.asarray(loss, np.float64))
    if np.allclose(p_y, implied, rtol=1e-3, atol=1e-6, equal_nan=True):
        return np.full_like(p_y, np.nan)
    return p_y


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or as it was before.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; the old file stays.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_column(group: "zarr.Group", name: str, column: pd.Series) -> None:
    """Write what is known of each sample: numbers, or texts as bytes of UTF-8 ``[N, width]``.

    What is missing in a column of whole numbers or truth values is NaN. Other columns are left
    out.
    """
    if isinstance(column.dtype, pd.BooleanDtype | pd.Int64Dtype):
        column = column.astype(float)
    values = column.to_numpy()
    if values.dtype.kind in "biuf":
        group.create_array(name, data=values, dimension_names=("sample",))
    elif len(values) and all(isinstance(one, str) for one in values):
        texts = np.char.encode(values.astype(str), "utf-8", "replace")
        data = texts.view(np.uint8).reshape(len(texts), -1)
        group.create_array(name, data=data, dimension_names=("sample", f"{name}_bytes"))


def read_texts(data: "xr.Dataset") -> "xr.Dataset":
    """Turn the bytes that :func:`write_column` made of texts into these again."""
    texts = [str(one) for one in data if data[one].dims == ("sample", f"{one}_bytes")]
    for name in [one for one in texts if data[one].shape[1]]:
        raw = np.ascontiguousarray(data[name].to_numpy().astype(np.uint8))
        read = np.char.decode(raw.view(f"S{raw.shape[1]}")[:, 0], "utf-8", "replace")
        data = data.drop_vars(name).assign({name: ("sample", read)})
    return data


def pack_table(table: pd.DataFrame) -> bytes:
    """Return the columns of a table that are numbers, truth values or texts as bytes of an npz."""
    columns: dict[str, Any] = {}
    for name, column in table.items():
        if isinstance(column.dtype, pd.BooleanDtype | pd.Int64Dtype):
            column = column.astype(float)
        values = column.to_numpy()
        if values.dtype.kind == "f":
            columns[str(name)] = round_mantissa(values.astype(np.float32))
        elif values.dtype.kind in "iu" and len(values):
            smallest = np.promote_types(*map(np.min_scalar_type, (values.min(), values.max())))
            columns[str(name)] = values.astype(smallest)
        elif values.dtype.kind == "b":
            columns[str(name)] = values
        elif all(isinstance(one, str) for one in values):
            columns[str(name)] = np.char.encode(values.astype(str), "utf-8", "replace")
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **columns)
    return file.getvalue()


def unpack_table(columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Turn the arrays that :func:`pack_table` wrote into a table again.

    Raises
    ------
    ValueError
        If they are not columns of one length, with whole numbers as ``label`` and ``predicted``.
    """
    if any(columns[name].dtype.kind not in "iu" for name in ("label", "predicted")):
        raise ValueError("labels and predictions are not whole numbers")
    return pd.DataFrame({
        name: np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values
        for name, values in columns.items()
    }).rename_axis("sample")  # fmt: skip


def plain(value: Any) -> Any:
    """Turn numpy values into plain ones, and NaN and infinities into null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


# What record.json may say: it may come from a stranger, and tables are made of it.


def _is_whole(value: object) -> bool:
    # It may be longer than any float.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**300


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_plain(value: object) -> bool:
    return all(map(_is_value, value)) if isinstance(value, list) else _is_value(value)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_value, value))


# A kind of value: how a complaint calls it, and whether a value is of that kind.
Kind = tuple[str, Callable[[object], bool]]
TABLE: Kind = ("a table", lambda value: isinstance(value, dict))
TEXT: Kind = ("text", lambda value: isinstance(value, str))
NUMBER: Kind = ("a number", _is_number)
WHOLE: Kind = ("a whole number", _is_whole)
MEASURED: Kind = ("a number", lambda value: value is None or _is_number(value))
LIST: Kind = ("a list of values", _is_list)
PLAIN: Kind = ("a value or a list of values", _is_plain)

NEEDED: dict[str, dict[str, Kind]] = {
    "": {"config": TABLE, "data": TABLE, "summary": TABLE, "status": TEXT, "format": WHOLE},
    "config": {"dataset": TEXT, "method": TEXT, "augmentation": TEXT, "budget": NUMBER,
               "budget_unit": TEXT, "seed": WHOLE},
}  # fmt: skip
KNOWN: dict[str, dict[str, Kind]] = {
    "": {"hardware": TABLE, "versions": TABLE, "id": TEXT, "message": TEXT, "updated": TEXT},
    "data": {"fingerprint": TEXT, "val_fingerprint": TEXT, "name": TEXT, "classes": LIST,
             "skipped": LIST, "shape": LIST, "train": WHOLE, "test": WHOLE, "val": WHOLE,
             "intake": TABLE},
    "summary": {**dict.fromkeys(("test_accuracy", "test_class_accuracy", "test_loss",
                                 "steps", "trained_samples",
                                 "looked_samples", "flops", "seconds", "proxy_samples"), MEASURED),
                "epochs": WHOLE, "probability_kind": TEXT},
}  # fmt: skip
MOST_SHOWN = 40
PARTS = ("config", "data", "summary", "hardware", "versions")


def complaint(about: Any) -> str:
    """Say what first keeps this from being the description of a run; empty if nothing does.

    Whatever is not known here may stand there, as long as tables can be made of it: what a
    later version adds does not keep this one from reading.
    """
    if not isinstance(about, dict):
        return f"it lacks {', '.join(NEEDED[''])}"
    return next((said for part in ("", *PARTS) if (said := _of_part(about, part))), "")


def _of_part(about: Mapping[str, Any], part: str) -> str:
    values = about.get(part, {}) if part else about
    prefix = f"{part}." if part else ""
    needed, known = NEEDED.get(part, {}), KNOWN.get(part, {})
    missing = [name for name in needed if name not in values]
    if missing:
        return f"it lacks {', '.join(prefix + name for name in missing)}"
    for name, value in values.items():
        kind = needed.get(name) or known.get(name) or (PLAIN if part else None)
        if kind is not None and not kind[1](value):
            shown = one_line(repr(value), MOST_SHOWN)
            return f"{prefix}{one_line(name, MOST_SHOWN)} is {shown} and not {kind[0]}"
    return ""
