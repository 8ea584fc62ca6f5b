"""Copies of a record: a small one to ship or send, and one to extend the run."""

import copy
import os
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, whole
from budgetlab.records.format import (
    SAMPLE_ARRAYS,
    checked_file,
    create_array,
    drop_implied_p_y,
    pack_thumbnails,
    write_atomically,
    write_column,
)
from budgetlab.records.reader import Record, open_record
from budgetlab.records.writer import new_folder, now, write_about

if TYPE_CHECKING:
    import xarray as xr

SHOWN = 50_000
"""Most samples that pages and widgets show: these can be processed in seconds."""

# Kept for every epoch: it is tiny, and keeps all counts right.
ALWAYS = "times_trained"


def thin(
    source: Record | Path | str,
    target: Path | str,
    *,
    samples: int | None = 5000,
    epochs: int | Sequence[int] | None = None,
    images: bool = False,
    seed: int = 0,
) -> Record:
    """Write a small copy of a record that opens like any other.

    The description, costs and table of epochs are copied whole. Weights and the resume state are
    left out: a thinned record can be read but not resumed. Raises InputError if the record cannot
    be read, the target exists or cannot be written, or a number is wrong.

    Parameters
    ----------
    source
        The record, which is not changed.
    target
        Folder of the copy; it must not exist yet.
    samples
        How many training samples to keep, drawn uniformly with ``seed`` and renumbered from 0 in
        their old order; the metadata ``recorded_as`` holds their original numbers. None, or a
        number not below the size, keeps all.
    epochs
        Epochs whose per-sample values are kept: a number, spread evenly from the first to the last,
        or a list of them, from 1. None keeps all. The other epochs keep their places and look as if
        nothing had been trained on; ``times_trained`` is kept for every epoch, so that counts and
        coverage stay right.
    images
        Keep the thumbnails of the samples kept.
    seed
        Seed of the draw. Records of the same data thinned with the same seed hold the same samples,
        so they can be compared sample by sample.

    Returns
    -------
    Record
        The copy, opened. Its ``about["thinned"]`` says what was kept. With fewer samples it has its
        own fingerprint, so that it is not mistaken for the whole data, and sampling probabilities
        of draws are multiplied by ``N / samples``, which keeps their ratios to the uniform one.

    Examples
    --------
    >>> bl.records.thin("runs/long", "small", samples=2000, epochs=10)  # doctest: +SKIP
    """
    record = open_record(source)
    target = Path(os.path.expanduser(target))
    if target.exists() or target.is_symlink():
        raise InputError(f"target '{target}' is there already: give a folder that does not exist")
    data = record.samples
    kept = _draw(data.sizes["sample"], samples, seed)
    chosen = _epochs(data.sizes["epoch"], epochs, record.path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise InputError(f"target '{target}' cannot be written ({error.strerror})") from None
    try:
        _write_arrays(folder, record, data, kept, chosen)
        if images and (shown := _renumbered(record, kept)):
            content = pack_thumbnails(np.array([*shown]), np.stack([*shown.values()]))
            write_atomically(folder / "thumbnails.npz", content)
        for name in ("epochs.csv", "predictions.npz"):
            if (record.path / name).is_file():
                write_atomically(folder / name, checked_file(record.path, name).read_bytes())
        write_about(folder, _about(record, kept, chosen, data.sizes["sample"], seed))
        folder.chmod(0o755)
        os.rename(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return open_record(target)


def subsample(
    record: Record, most: int = SHOWN, also: Collection[int] = (), seed: int = 0
) -> Record:
    """Restrict a large record to ``most`` of its samples, in memory only.

    The samples are drawn uniformly, the same ones for records of the same data; those in ``also``,
    such as samples with an image, are kept in addition. They are renumbered, with their original
    numbers in ``recorded_as``, and ``about["thinned"]`` says how many there were, as for
    :func:`thin`. A record with no more samples is returned as it is.
    """
    data = record.samples
    size = data.sizes["sample"]
    if size <= most:
        return record
    kept = np.union1d(_draw(size, most, seed), np.asarray(list(also), int))
    found = data.isel(sample=kept).load()
    if record.probability_kind == "draw":
        found["probability"] = found["probability"] * np.float32(size / len(kept))
    found = found.assign_coords(sample=np.arange(len(kept)))
    if "recorded_as" not in found:
        found["recorded_as"] = ("sample", kept)
    view = copy.copy(record)
    view.about = _about(record, kept, np.arange(1, data.sizes["epoch"] + 1), size, seed)
    view.__dict__["samples"] = found
    view.__dict__["thumbnails"] = _renumbered(record, kept)
    return view


def subsample_note(record: Record) -> str:
    """Say, after a space, that a record holds only some of the samples; empty if it holds all."""
    said = record.about.get("thinned", {})
    if said.get("samples", 0) >= said.get("of", 0):
        return ""
    return f" Shown are {said['samples']:,} of {said['of']:,} samples, drawn at random."


def _draw(size: int, samples: int | None, seed: int) -> np.ndarray:
    if samples is None or samples >= size:
        return np.arange(size)
    samples = whole("samples", samples, also=", or None")
    return np.sort(np.random.default_rng(seed).choice(size, samples, replace=False))


def _epochs(count: int, epochs: int | Sequence[int] | None, path: Path) -> np.ndarray:
    """Return the unique numbers of the epochs to keep, from 1, ascending."""
    if epochs is None:
        return np.arange(1, count + 1)
    if isinstance(epochs, int | np.integer):
        most = min(whole("epochs", epochs, also=", or None"), count)
        return np.unique(np.linspace(1, count, most).round().astype(int))
    wrong = [number for number in epochs if not 1 <= number <= count]
    if wrong or not len(epochs):
        name = wrong[0] if wrong else "none"
        raise InputError(f"epoch {name} does not exist in '{path}': give numbers from 1 to {count}")
    return np.unique(np.asarray(epochs, int))


def _write_arrays(
    folder: Path, record: Record, data: "xr.Dataset", kept: np.ndarray, chosen: np.ndarray
) -> None:
    import zarr

    group = zarr.create_group(folder / "samples.zarr")
    left_out = np.setdiff1d(np.arange(data.sizes["epoch"]), chosen - 1)
    some = data.isel(sample=kept)
    for name, (dtype, missing, _) in SAMPLE_ARRAYS.items():
        values = some[name].to_numpy().astype(dtype)
        if name == "p_y":
            values = drop_implied_p_y(values, some["loss"].to_numpy())
        if name == "probability" and record.probability_kind == "draw":
            values *= data.sizes["sample"] / len(kept)
        if name != ALWAYS:
            values[left_out] = missing
        create_array(group, name, values.shape, values.shape, level=9)[:] = values
    metadata = {str(name): data[name].to_numpy()[kept] for name in data if data[name].ndim == 1}
    if len(kept) < data.sizes["sample"]:
        metadata.setdefault("recorded_as", kept)
    for name, values in metadata.items():
        write_column(group, name, pd.Series(values))


def _renumbered(record: Record, kept: np.ndarray) -> dict[int, np.ndarray]:
    new_number = {int(old): new for new, old in enumerate(kept)}
    return {new_number[i]: image for i, image in record.thumbnails.items() if i in new_number}


def _about(
    record: Record, kept: np.ndarray, chosen: np.ndarray, size: int, seed: int
) -> dict[str, Any]:
    about = copy.deepcopy(record.about)
    # Epochs and samples left out before stay left out.
    before = {"of": size, "epochs": chosen} | about.get("thinned", {})
    about["thinned"] = {"samples": len(kept), "of": before["of"], "seed": seed,
                        "epochs": np.intersect1d(chosen, before["epochs"]).tolist()}  # fmt: skip
    if len(kept) < size:
        about["data"]["fingerprint"] = f"{record.fingerprint}-{len(kept)}-of-{size}-seed-{seed}"
    return about


def copy_unfinished(record: "Record", config: RunConfig, state: bytes) -> Path:
    """Copy a record as an unfinished one of another run, which resumes from ``state``."""
    about = record.about | {
        "id": config.id,
        "config": config.to_dict(),
        "status": "stopped",
        "message": "extended; resume to go on",
        "updated": now(),
    }
    with new_folder(config) as path:
        # Links stay links, which reading the copy refuses.
        shutil.copytree(record.path / "samples.zarr", path / "samples.zarr", symlinks=True)
        shutil.copy2(record.path / "epochs.csv", path / "epochs.csv", follow_symlinks=False)
        write_atomically(path / "state.pt", state)
        write_about(path, about)
    return path
