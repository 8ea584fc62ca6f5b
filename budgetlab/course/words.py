"""Values, shapes, types and errors, written short enough to read."""

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["array_of", "count", "error_text", "holds_numbers", "is_tensor", "number_text",
           "position", "shape_text", "show"]  # fmt: skip

SHOWN = 8
LONGEST = 200


def is_tensor(value: Any) -> bool:
    """Tell whether a value is a tensor, without loading torch to find out."""
    # Where there is a tensor, torch is loaded; where it is not, there is none to find.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def array_of(value: Any) -> np.ndarray:
    """Return numbers as an array on the host; of type object where they are none."""
    if is_tensor(value):
        value = value.detach().cpu()
        # NumPy knows no bfloat16.
        value = value.float() if value.is_floating_point() and value.itemsize < 4 else value
        return value.numpy()
    plain = not isinstance(value, set | Mapping | str | bytes) and not inspect.isgenerator(value)
    try:
        return np.asarray(value) if plain else np.empty((), dtype=object)
    except Exception:
        return np.empty((), dtype=object)


def holds_numbers(array: np.ndarray) -> bool:
    """Tell whether an array holds real numbers or bools."""
    return array.dtype.kind in "biuf"


def show(value: Any) -> str:
    """Write a value in one line."""
    if is_tensor(value) or isinstance(value, np.ndarray):
        return _show_array(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, tuple | list):
        inside = ", ".join(show(item) for item in value[:SHOWN])
        inside += f", ... ({len(value)} in all)" if len(value) > SHOWN else ""
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    try:
        text = getattr(value, "__name__", None) or " ".join(repr(value).split())
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _show_array(value: Any) -> str:
    array = array_of(value)
    body = np.array2string(array, precision=4, threshold=SHOWN, edgeitems=3, separator=", ")
    text = f"{type(value).__name__} {' '.join(body.split())}"
    return text if array.size <= SHOWN else f"{text} of shape {shape_text(array)}"


def number_text(value: Any) -> str:
    """Write one number with six digits."""
    number = np.asarray(value)
    return f"{float(number):.6g}" if number.dtype.kind == "f" else str(number)


def position(where: np.ndarray) -> str:
    """Name the first place that is True."""
    place = [int(i) for i in np.argwhere(where)[0]]
    return f"(at {place[0] if len(place) == 1 else tuple(place)}, counted from 0)"


def shape_text(array: np.ndarray) -> str:
    """Write a shape; a single number has none that a reader would know."""
    return str(array.shape) if array.ndim else "that of a single number"


def count(number: int, what: str) -> str:
    """Write a number of things."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def error_text(error: Exception) -> str:
    """Write an exception in one line."""
    text = " ".join(str(error).split())[:LONGEST]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
