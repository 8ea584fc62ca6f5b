"""Image files of any kind to one uint8 array, in parallel; the unreadable are left out."""

import contextlib
import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from budgetlab.errors import InputError
from budgetlab.memory import require_memory

__all__ = ["DEFAULT_SIZE", "Decoded", "decode", "decode_all", "is_image_name", "printable"]

DEFAULT_SIZE = 32
# Pictures that all have one size are kept as they are up to this side.
LARGEST_KEPT = 128
# More than any camera's; Pillow warns from 89 million on.
MOST_PIXELS = 64_000_000
# Of larger ones only one is unpacked at a time: a folder full of them, read by as many
# threads as there are processors, would need all the memory there is.
LARGE_PIXELS = 8_000_000
# These run another program, or only name one that could read them.
REFUSED_FORMATS = {"EPS", "WMF", "MPEG"}


@dataclass(frozen=True)
class Decoded:
    """``x`` uint8 ``[M, 3, H, W]``; ``kept`` the positions of the M files that could be
    read; ``skipped`` one entry each for the others, name and reason."""

    x: np.ndarray
    kept: np.ndarray
    skipped: tuple[str, ...]


_one_large = threading.Lock()


class _OtherSize(Exception):
    """An image is not of the size that all before it had."""


def printable(name: str) -> str:
    """Return a name that can be written anywhere: bytes that are no text show as a mark."""
    return os.fsencode(name).decode("utf-8", "replace")


def is_image_name(name: str) -> bool:
    """Whether a file's ending is one of a format that Pillow reads; hidden files are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _endings()


@cache
def _endings() -> frozenset[str]:
    Image.init()
    readable = Image.OPEN.keys() - REFUSED_FORMATS
    return frozenset(
        ending for ending, kind in Image.registered_extensions().items() if kind in readable
    )


def decode(path: Path, size: int | None) -> np.ndarray:
    """Read one image file.

    The orientation in its EXIF data is applied; of several frames the first is
    taken; transparent parts show white; grey, palette and CMYK become RGB, 16
    bit grey the upper 8 of them.

    Parameters
    ----------
    path
        The file.
    size
        The shorter side is resized to this, and the centre cut out; None keeps
        the image as it is.

    Returns
    -------
    numpy.ndarray
        uint8 ``[3, H, W]``.
    """
    Image.init()
    formats = [name for name in Image.OPEN if name not in REFUSED_FORMATS]
    with Image.open(path, formats=formats) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are too many")
        if size is not None:
            # JPEG only: decode at a half, a quarter or an eighth where that is enough.
            image.draft(None, (2 * size, 2 * size))
        large = image.width * image.height > LARGE_PIXELS
        with _one_large if large else contextlib.nullcontext():
            upright = _to_rgb(ImageOps.exif_transpose(image))
            if size is not None:
                upright = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
        return np.asarray(upright).transpose(2, 0, 1)


def decode_all(top: Path, names: Sequence[str], size: int | None, progress: bool) -> Decoded:
    """Read many image files into one array.

    Parameters
    ----------
    top, names
        A folder, and the files relative to it.
    size
        As in :func:`decode`, for all. None: images that all have the same size of
        at most 128 pixels a side stay as they are; else 32.
    progress
        Whether to show a bar on standard error.
    """
    with warnings.catch_warnings():
        # A picture so large that Pillow warns is refused.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Odd but harmless metadata is no news to the user.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        shape = (size, size) if size else _common_size(top, names)
        if size is None and shape is not None:
            try:
                return _decode_to(top, names, None, shape, progress)
            except _OtherSize:
                shape = None
        size = size or DEFAULT_SIZE
        return _decode_to(top, names, size, shape or (size, size), progress)


def _decode_to(
    top: Path,
    names: Sequence[str],
    size: int | None,
    shape: tuple[int, int],
    progress: bool,
) -> Decoded:
    """Decode with one thread a processor: Pillow lets go of the lock while it decodes."""
    total = len(names) * 3 * shape[0] * shape[1]
    require_memory(f"a set of {len(names)} images", total, "give a smaller size or fewer files")
    x = np.empty((len(names), 3, *shape), np.uint8)

    def read(position: int) -> str | None:
        try:
            image = decode(top / names[position], size)
        except MemoryError:
            raise
        except Exception as reason:
            # Decoders raise a dozen types on damaged files; none may end the rest.
            return _reason(reason)
        if image.shape != x.shape[1:]:
            raise _OtherSize
        x[position] = image
        return None

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        try:
            bar = tqdm(total=len(names), desc="reading images", disable=not progress, leave=False)
            problems: list[str | None] = []
            with bar:
                for problem in pool.map(read, range(len(names))):
                    problems.append(problem)
                    bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    kept = np.array([k for k, problem in enumerate(problems) if problem is None], dtype=np.int64)
    skipped = tuple(
        printable(f"{names[k]}: {why}") for k, why in enumerate(problems) if why is not None
    )
    return Decoded(x if len(kept) == len(x) else x[kept], kept, skipped)


def _common_size(top: Path, names: Sequence[str]) -> tuple[int, int] | None:
    """Height and width of the first image that can be read; None if it is a large one."""
    for name in names:
        try:
            height, width = decode(top / name, None).shape[1:]
        except Exception:
            continue
        return (height, width) if max(height, width) <= LARGEST_KEPT else None
    raise InputError(
        f"none of the {len(names)} images can be read: the first one is "
        f"'{top / printable(names[0])}', open it in another program to see why"
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB."""
    if image.mode == "F":
        raise ValueError("pixels are floating point numbers")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        # Pillow reads 16 bit files in a mode of 32 bits at times; 8 bits stay 8.
        levels = levels // 256 if levels.max(initial=0) > 255 else levels
        return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    """Why a file could not be read, in a few words and without its path."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that can be recognised"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
