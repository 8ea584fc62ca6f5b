"""CIFAR-10, CIFAR-100 and SVHN: fetched, checked and read by torchvision."""

import io
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from budgetlab.data.samples import make_samples
from budgetlab.data.sources import Source
from budgetlab.errors import InputError

__all__ = ["cifar10", "cifar100", "svhn"]

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
# Arazo et al. (BMVC 2021) and its published code.
CIFAR10_STATISTICS = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100_STATISTICS = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
SVHN_STATISTICS = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def cifar10(**options: Any) -> Source:
    """CIFAR-10: 32x32 RGB, 50,000 + 10,000."""
    return _cifar("cifar10", "CIFAR10", CIFAR10_STATISTICS, **options)


def cifar100(**options: Any) -> Source:
    """CIFAR-100: 32x32 RGB, 50,000 + 10,000."""
    return _cifar("cifar100", "CIFAR100", CIFAR100_STATISTICS, **options)


def _cifar(
    name: str,
    kind: str,
    statistics: Statistics,
    root: Path,
    download: bool,
    progress: bool,
    **_: Any,
) -> Source:
    from torchvision import datasets  # slow to import, and only these need it

    read = [_open(name, partial(getattr(datasets, kind), str(root), part), root, download, progress)
            for part in (True, False)]  # fmt: skip
    parts = [(np.ascontiguousarray(one.data.transpose(0, 3, 1, 2)), one.targets) for one in read]
    return _source(parts, read[0].classes, statistics, flip=True)


def svhn(root: Path, download: bool, progress: bool, **_: Any) -> Source:
    """SVHN, cropped digits: 32x32 RGB, 73,257 + 26,032. A mirrored digit is no digit."""
    from torchvision import datasets  # slow to import, and only these need it

    read = [_open("svhn", partial(datasets.SVHN, str(root), part), root, download, progress)
            for part in ("train", "test")]  # fmt: skip
    parts = [(np.ascontiguousarray(one.data), one.labels) for one in read]
    return _source(parts, [str(digit) for digit in range(10)], SVHN_STATISTICS, flip=False)


def _source(
    parts: list[tuple[np.ndarray, Any]], classes: list[str], statistics: Statistics, *, flip: bool
) -> Source:
    mean, std = statistics
    train, test = (
        make_samples(x, np.asarray(y), classes, mean=mean, std=std, flip=flip) for x, y in parts
    )
    return Source(train, test)


def _open(name: str, read: Callable[..., Any], root: Path, download: bool, progress: bool) -> Any:
    """Read what is there; fetch it first where it is missing and that is allowed."""
    try:
        return _quietly(read, False)
    except RuntimeError as missing:
        if not download:
            raise InputError(
                f"{name} is not in '{root}': put its files there, or allow the download"
            ) from missing
    except Exception as damaged:
        raise _unreadable(name, root, damaged) from damaged
    if progress:
        print(f"downloading {name} into '{root}'", file=sys.stderr)
    # torchvision may report on standard output, which belongs to results.
    out = sys.stderr if progress else io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(out):
            return _quietly(read, True)
    except (URLError, OSError, RuntimeError) as failed:
        raise InputError(
            f"{name} could not be downloaded into '{root}' ({_one_line(failed)}): check the "
            "connection and the free space, or put the files of the official archive there"
        ) from failed
    except Exception as damaged:
        raise _unreadable(name, root, damaged) from damaged


def _quietly(read: Callable[..., Any], fetch: bool) -> Any:
    """Read without numpy's remark on the age of CIFAR's own files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        return read(download=fetch)


def _unreadable(name: str, root: Path, reason: Exception) -> InputError:
    return InputError(
        f"the files of {name} in '{root}' cannot be read ({_one_line(reason)}): "
        "delete them, so that they are downloaded again"
    )


def _one_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
