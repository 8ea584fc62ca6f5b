"""How a result differs from what is expected, as a sentence."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from budgetlab.course.words import (
    array_of,
    count,
    error_text,
    holds_numbers,
    is_tensor,
    number_text,
    position,
    shape_text,
    show,
)

__all__ = ["compare"]


def compare(result: Any, expected: Any, tolerance: float) -> str:
    """Return ``""`` if a result is as expected, else a sentence saying how it differs.

    Parameters
    ----------
    result
        What an answer returned.
    expected
        As in :func:`budgetlab.course.check`.
    tolerance
        Absolute, and relative to what is expected.

    Raises
    ------
    NotImplementedError
        If a predicate meets it in the result, such as a generator with an empty body.
    """
    if callable(expected):
        return _ask(expected, result)
    if isinstance(expected, str):
        return "" if isinstance(result, str) and result == expected else _kind(result, expected)
    if isinstance(expected, Mapping):
        return _compare_dicts(result, expected, tolerance)
    if _is_nested(expected):
        return _compare_items(result, expected, tolerance)
    have, want = array_of(result), array_of(expected)
    wrong = _wrong_kind(result, expected, have, want)
    if wrong:
        return wrong
    if have.shape != want.shape:
        return f"The shape is {shape_text(have)} instead of {shape_text(want)}."
    if not holds_numbers(want):
        return "" if result == expected else "They differ."
    if want.dtype.kind == "b":
        return _differences(have, want, have != want)
    return _compare_numbers(have, want, tolerance)


def _wrong_kind(result: Any, expected: Any, have: np.ndarray, want: np.ndarray) -> str:
    """Return a sentence if a container or the type of its numbers is not that expected."""
    if (
        holds_numbers(have) != holds_numbers(want)
        or (is_tensor(expected) and not is_tensor(result))
        or (isinstance(expected, np.ndarray) and not hasattr(result, "__array__"))
    ):
        return _kind(result, expected)
    bools = (have.dtype.kind == "b", want.dtype.kind == "b")
    # Indices are whole numbers; 3 and 3.0 in a list are the same.
    whole = hasattr(expected, "dtype") and want.dtype.kind in "iu" and have.dtype.kind == "f"
    if bools[0] != bools[1] or whole:
        return f"It holds {_holds(have)} instead of {_holds(want)}."
    return ""


def _holds(array: np.ndarray) -> str:
    names = {"b": "True and False", "f": "numbers with a fraction"}
    return f"{names.get(array.dtype.kind, 'whole numbers')} ({array.dtype})"


def _compare_numbers(have: np.ndarray, want: np.ndarray, tolerance: float) -> str:
    have, want = have.astype(np.float64), want.astype(np.float64)
    lost = np.isnan(have) & ~np.isnan(want)
    if lost.any():
        where = f" {position(lost)}" if have.ndim else ""
        return (
            f"There is a NaN{where}: is something divided by zero, or the logarithm of zero taken?"
        )
    far = ~np.isclose(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)
    return _differences(have, want, far)


def _differences(have: np.ndarray, want: np.ndarray, far: np.ndarray) -> str:
    if not far.any():
        return ""
    if not have.ndim:
        return f"It is {number_text(have)} instead of {number_text(want)}."
    first = tuple(np.argwhere(far)[0])
    return (
        f"{far.sum()} of {count(far.size, 'value')} {'is' if far.sum() == 1 else 'are'} off; "
        f"the first one {position(far)} is {number_text(have[first])} "
        f"instead of {number_text(want[first])}.{_pattern(have, want)}"
    )


def _pattern(have: np.ndarray, want: np.ndarray) -> str:
    """Name a simple relation between what is there and what should be, if there is one."""
    if have.dtype.kind == "b":
        return " All are the other way round." if (have != want).all() else ""
    if have.size > 2 and np.allclose(np.sort(have, axis=None), np.sort(want, axis=None)):
        return " The values are right, their order is not."
    # Two numbers at least, or every wrong number would be a multiple.
    known = want != 0
    if known.sum() > 1 and np.isfinite(have).all() and not have[~known].any():
        ratios = have[known] / want[known]
        if ratios[0] != 0 and np.allclose(ratios, ratios[0]):
            return f" All are {number_text(ratios[0])} times what they should be."
    return ""


def _compare_dicts(result: Any, expected: Mapping, tolerance: float) -> str:
    if not isinstance(result, Mapping):
        return _kind(result, expected)
    missing = [key for key in expected if key not in result]
    extra = [key for key in result if key not in expected]
    if missing or extra:
        lacks = f"lacks {show(missing)}" if missing else ""
        has = f"has {show(extra)} too much" if extra else ""
        return f"The dict {' and '.join(part for part in (lacks, has) if part)}."
    for key, value in expected.items():
        wrong = compare(result[key], value, tolerance)
        if wrong:
            return f"Under {key!r}: {wrong}"
    return ""


def _compare_items(result: Any, expected: Sequence, tolerance: float) -> str:
    if not isinstance(result, tuple | list):
        return _kind(result, expected)
    if len(result) != len(expected):
        return f"It has {count(len(result), 'part')} instead of {len(expected)}."
    for number, (have, want) in enumerate(zip(result, expected, strict=True), start=1):
        wrong = compare(have, want, tolerance)
        if wrong:
            return f"Part {number}: {wrong}"
    return ""


def _ask(predicate: Callable[[Any], Any], result: Any) -> str:
    """Ask a predicate; what it cannot work with is wrong too."""
    try:
        said = predicate(result)
        if isinstance(said, str):
            return said or "It is not what was asked for."
        return "" if bool(said) else "It is not what was asked for."
    except NotImplementedError:
        raise
    except Exception as error:
        return (
            f"A {type(result).__name__} cannot be checked here ({error_text(error)}): "
            "is it the kind of thing that was asked for?"
        )


def _is_nested(value: Any) -> bool:
    """Tell a tuple or list of arrays, texts or dicts from one of plain numbers."""
    if not isinstance(value, tuple | list):
        return False
    arrays = any(is_tensor(item) or isinstance(item, np.ndarray) for item in value)
    # Rows of different lengths, or texts, make no array of numbers.
    return arrays or not holds_numbers(array_of(value))


def _kind(result: Any, expected: Any) -> str:
    if type(result) is type(expected):
        return "They differ."
    return f"It is of type {type(result).__name__} instead of {type(expected).__name__}."
