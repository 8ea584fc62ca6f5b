"""Decode image files of any kind to one uint8 array, in parallel and with a cache."""

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from budgetlab.errors import InputError, counted, few, reason
from budgetlab.records import write_atomically
from budgetlab.records.safety import DAMAGED_ARCHIVE, read_npz, require_memory

DEFAULT_SIZE = 32
# Images that all have one size keep it, up to this side length.
LARGEST_KEPT = 128
# More than any camera's; Pillow warns from 89 million on.
MAX_PIXELS = 64_000_000
# Larger images are decoded one at a time: with one thread per core, a folder full of them could
# exhaust memory.
LARGE_PIXELS = 8_000_000
# Pillow reads these through another program, or only identifies them.
REFUSED_FORMATS = {"EPS", "WMF", "MPEG"}
# EXIF tag of the orientation; from 5 on, width and height are swapped.
ORIENTATION = 0x0112
# Increase whenever the same files would be decoded to other pixels.
DECODER_VERSION = 3


@dataclass(frozen=True)
class Decoded:
    """Decoded image files.

    ``x`` is uint8 ``[M, 3, H, W]``; ``kept`` the positions of the M files that could be read;
    ``bad`` those of the others, with name and reason in ``skipped``; ``bits`` the depth of grey
    images with more than 256 levels, else 0; ``fit`` the side of the square that all were fitted
    to, None if they were not resized.
    """

    x: np.ndarray
    kept: np.ndarray
    bad: np.ndarray
    skipped: tuple[str, ...]
    bits: int = 0
    fit: int | None = None


_large_image_lock = threading.Lock()


class _DeepGreyLevels(Exception):
    """Raised for an image with grey levels of more than 8 bits; the argument is the highest."""


def read_cache(
    path: Path, names: Sequence[str], *, key: str | None = None
) -> dict[str, np.ndarray] | None:
    """Read arrays of :func:`write_cache`; None if missing, damaged, or of another ``key``."""
    try:
        stored = read_npz(path, {"key", *names}, "")
        same = key is None or str(stored["key"]) == key
        return {name: stored[name] for name in names} if same else None
    except DAMAGED_ARCHIVE:
        return None


def write_cache(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to a cache file; do nothing if the folder cannot be written to."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def warn_of(folder: Path | str, skipped: Sequence[str]) -> None:
    """Warn how many files were skipped, naming the first few."""
    if skipped:
        text = f"skipped in '{folder}', as they cannot be used: {few(skipped)} "
        warnings.warn(f"{text}({counted(len(skipped), 'file')})", UserWarning, stacklevel=2)


def printable(name: str) -> str:
    """Return a name as valid Unicode, with undecodable bytes replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def is_image_name(name: str) -> bool:
    """Whether a file has the ending of a format that Pillow reads, and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _endings()


@cache
def _endings() -> frozenset[str]:
    Image.init()
    readable = Image.OPEN.keys() - REFUSED_FORMATS
    return frozenset(
        ending for ending, kind in Image.registered_extensions().items() if kind in readable
    )


def decode(path: Path, size: int | None, bits: int | None = 16) -> np.ndarray:
    """Read one image file as uint8 ``[3, H, W]``.

    EXIF orientation is applied; of several frames the first is read; transparent areas become
    white; grey, palette, CMYK and LAB become RGB. Unless ``size`` is None, the shorter side is
    resized to it and the centre cropped. Grey levels of more than 8 bits keep the upper 8 of
    ``bits``, so that a data set has one scale; with None such an image raises an error.
    """
    with _open_image(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are too many")
        if size is not None:
            # JPEG only: decode at 1/2, 1/4 or 1/8 of the size if that is enough.
            image.draft(None, (2 * size, 2 * size))
        # Pillow returns the upper 8 bits of 16-bit colours.
        deep = "RGB" in image.mode and any(";16" in str(t[3]) for t in getattr(image, "tile", ()))
        # Pillow turns those of 8 bits round, and no others.
        from_white = image.mode.startswith("I") and getattr(image, "tag_v2", {}).get(262) == 0
        large = image.width * image.height > LARGE_PIXELS
        with _large_image_lock if large else contextlib.nullcontext():
            upright = _to_rgb(ImageOps.exif_transpose(image), bits)
            if from_white:
                upright = ImageOps.invert(upright)
            if size is not None:
                upright = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
        if deep and np.asarray(upright).max() < 16:
            raise ValueError("its colours have 16 bits and use 12: save them with 8 bits")
        return np.asarray(upright).transpose(2, 0, 1)


def read_images(
    top: Path,
    names: Sequence[str],
    wanted: np.ndarray,
    *,
    stamp: str,
    size: int | None,
    root: Path,
    keep: bool,
    progress: bool,
) -> Decoded:
    """Decode some of the files of a data set, or take their pixels from the cache.

    The cache is under ``root``; newly decoded images are added to it if ``keep``. Size and scale
    are those of the whole data set, so that an image looks the same whatever else is wanted.
    ``names`` are all its files, relative to the folder ``top``; ``wanted`` are positions in it,
    ascending; ``stamp`` changes whenever one of the files does. Without a ``size``, images that
    all have one size of at most 128 pixels a side keep it; others are resized to 32.
    """
    key = hashlib.sha256(f"{size} {stamp}".encode()).hexdigest()
    # One cache for each folder and size: a changed folder replaces its own.
    own = f"{os.path.realpath(top)} {size} {DECODER_VERSION}"
    place = hashlib.sha256(own.encode(errors="surrogateescape")).hexdigest()[:8]
    cache = root / "folders" / f"{printable(top.resolve().name)}-{place}.npz"
    stored = read_cache(cache, ("x", "kept", "bad", "skipped", "bits", "fit"), key=key)
    if stored is None:
        fit, shape = _target(top, names, size)
        stored = {"x": np.empty((0, 3, *shape), np.uint8), "kept": np.empty(0, np.int64),
                  "bad": np.empty(0, np.int64), "skipped": np.empty(0, "U1"), "bits": np.array(0),
                  "fit": np.array(fit or 0)}  # fmt: skip
    fit, shape = int(stored["fit"]) or None, stored["x"].shape[2:]
    known = np.concatenate([stored["kept"], stored["bad"]])
    missing = np.setdiff1d(wanted, known)
    if len(missing):
        with _quiet_pillow():
            new = _decode_to(top, names, missing, fit, shape, progress)
            if new.bits and len(known) + len(missing) < len(names):
                # The scale depends on all deep images of the data set.
                missing = np.setdiff1d(np.arange(len(names)), known)
                new = _decode_to(top, names, missing, fit, shape, progress)
        stored["bits"] = np.array(new.bits)
        for where, *of in (("kept", "x"), ("bad", "skipped")):
            order = np.argsort(np.concatenate([stored[where], getattr(new, where)]))
            for name in (where, *of):
                both = stored[name], np.asarray(getattr(new, name))
                stored[name] = np.concatenate(both)[order] if len(both[0]) else both[1]
        if keep:
            write_cache(cache, stored | {"key": np.array(key)})
    rows, bad = (np.isin(stored[name], wanted) for name in ("kept", "bad"))
    x = stored["x"] if rows.all() else stored["x"][rows]
    skipped = tuple(map(str, stored["skipped"][bad]))
    return Decoded(x, stored["kept"][rows], stored["bad"][bad], skipped, int(stored["bits"]), fit)


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    with warnings.catch_warnings():
        # Images so large that Pillow warns are refused.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Odd but harmless metadata does not concern the user.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        yield


def _decode_to(
    top: Path,
    names: Sequence[str],
    positions: np.ndarray,
    fit: int | None,
    shape: tuple[int, int],
    progress: bool,
) -> Decoded:
    """Decode files with one thread per core, as Pillow releases the GIL while it decodes."""
    total = len(positions) * 3 * shape[0] * shape[1]
    require_memory(
        f"a set of {counted(len(positions), 'image')}", total, "give a smaller size or fewer files"
    )
    x = np.empty((len(positions), 3, *shape), np.uint8)
    bits: int | None = None

    def read(row: int) -> str | int | None:
        try:
            image = decode(top / names[positions[row]], fit, bits)
            if image.shape[1:] != shape:
                raise ValueError("not of the size that its header says")
        except MemoryError:
            raise
        except _DeepGreyLevels as deep:
            return int(deep.args[0])
        except Exception as error:
            # Decoders raise a dozen types on damaged files; none may stop the others.
            return _reason(error)
        x[row] = image
        return None

    with (
        _threads() as pool,
        tqdm(total=len(x), desc="reading images", disable=not progress, leave=False) as bar,
    ):
        outcomes: list[str | int | None] = []
        for one in pool.map(read, range(len(x))):
            outcomes.append(one)
            bar.update()
        deep = [row for row, one in enumerate(outcomes) if isinstance(one, int)]
        if deep:
            bits = _bits(max(one for one in outcomes if isinstance(one, int)))
            for row, one in zip(deep, pool.map(read, deep), strict=True):
                outcomes[row] = one
    succeeded = np.array([one is None for one in outcomes], bool)
    skipped = [printable(f"{names[positions[n]]}: {one}") for n, one in enumerate(outcomes) if one]
    x = x if succeeded.all() else x[succeeded]
    return Decoded(x, positions[succeeded], positions[~succeeded], tuple(skipped), bits or 0, fit)


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _bits(highest: int) -> int:
    """Return the depth in bits of grey levels, as common in cameras and scanners."""
    return next((bits for bits in (8, 10, 12, 14, 16) if highest < 2**bits), highest.bit_length())


def _target(
    top: Path, names: Sequence[str], size: int | None
) -> tuple[int | None, tuple[int, int]]:
    """Return the side to fit images to (None if all have the same small size) and their shape."""
    if size is not None:
        return size, (size, size)
    found: set[tuple[int, int]] = set()
    with _quiet_pillow(), _threads() as pool:
        for start in range(0, len(names), 1024):
            part = names[start : start + 1024]
            found |= {side for side in pool.map(partial(_size_of, top), part) if side is not None}
            if len(found) > 1 or max(max(found, default=(0, 0))) > LARGEST_KEPT:
                return DEFAULT_SIZE, (DEFAULT_SIZE, DEFAULT_SIZE)
    if not found:
        raise InputError(
            f"none of {counted(len(names), 'image')} can be read: the first one is "
            f"'{top / printable(names[0])}', open it in another program to see why"
        )
    return None, found.pop()


def _size_of(top: Path, name: str) -> tuple[int, int] | None:
    """Read height and width of an upright image from its header; None if it cannot be read."""
    try:
        with _open_image(top / name) as image:
            turned = image.getexif().get(ORIENTATION, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:
        return None


def _open_image(path: Path) -> Image.Image:
    Image.init()
    formats = [name for name in Image.OPEN if name not in REFUSED_FORMATS]
    return Image.open(path, formats=formats)


def eight_bit(image: Image.Image) -> Image.Image:
    """Return an image that a data set gives as :func:`decode` reads it; grey stays grey.

    Grey levels of more than 8 bits and floating point numbers stay as they are.
    """
    plain = image.mode in ("L", "RGB") and not image.has_transparency_data
    if plain or image.mode == "F" or image.mode.startswith("I"):
        return image
    colour = _to_rgb(image, None)
    return colour.convert("L") if image.mode in ("1", "L") else colour


def _to_rgb(image: Image.Image, bits: int | None) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers (mode F): save them with 8 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min(initial=0) < 0:
            raise ValueError("grey levels are negative")
        if bits is None:
            raise _DeepGreyLevels(levels.max(initial=0))
        return Image.fromarray((levels >> max(0, bits - 8)).astype(np.uint8)).convert("RGB")
    if image.mode == "La":  # of which Pillow makes nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    """Describe briefly, without its path, why a file could not be read."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that can be recognised"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return reason(error)[:120]
