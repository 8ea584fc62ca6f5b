"""Check the answer to an exercise on given cases, and explain the first thing that is wrong.

In a notebook::

    bl.course.check(double, [((2,), 4), ((-1.5,), -3.0)], hint="Multiply by two.")

This prints a short message and raises nothing, so that an unsolved exercise never stops a notebook.
For grading, add ``assert bl.course.passed("double")``, as in the instructors' copy.
"""

import copy
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from budgetlab.errors import InputError, counted

EMPTY = "nothing here yet"
SHOWN = 8
MAX_LENGTH = 200

_verdicts: dict[str, bool] = {}


def check(
    answer: Callable[..., Any],
    cases: Sequence[tuple[Any, Any]],
    *,
    hint: str = "",
    tolerance: float = 1e-6,
) -> None:
    """Call an answer on each case and print that it is right, or what is wrong.

    Missing code, exceptions, wrong types, shapes or values, and arguments changed in place are all
    reported in a sentence, never raised. Raises InputError if there are no cases or they are not
    such pairs: a mistake in the exercise, which must not look like a pass.

    Parameters
    ----------
    answer
        The function a student wrote.
    cases
        Pairs ``(arguments, expected)``. The arguments are a tuple, or else a single argument;
        each call gets copies. The expected value is a number, a list of numbers, an array, a
        tensor, or a predicate ``callable(result)`` that returns True or a sentence saying what
        is wrong. A tensor or array must be matched by one, with integers or bools if it holds
        these; a list by any sequence of numbers.
    hint
        Shown when an answer is wrong, but not before the student has started.
    tolerance
        Largest difference allowed, absolute and relative to the expected value.
    """
    pairs = _pairs(cases)
    name = getattr(answer, "__name__", "your answer")
    _verdicts[name] = False
    for number, (given, expected) in enumerate(pairs):
        problem = _try(answer, name, given, expected, tolerance)
        if problem == EMPTY:
            print(f"{name}: {EMPTY}. Write its body, run its cell, then this one again.")
        elif problem:
            print(f"{name}: not right yet ({number} of {len(pairs)} checks pass so far).")
            print(problem + (f"\n  Hint: {hint}" if hint else ""))
        if problem:
            return
    _verdicts[name] = True
    print(f"{name}: right, {counted(len(pairs), 'check')} passed.")


def passed(name: str) -> bool:
    """Return whether the latest check of the function of this name passed; False if unchecked."""
    return _verdicts.get(name, False)


def _pairs(cases: Sequence[tuple[Any, Any]]) -> list[tuple[tuple, Any]]:
    for case in cases:
        if not isinstance(case, tuple | list) or len(case) != 2:
            raise InputError(f"case {_show(case)} is not a pair: give (arguments, expected)")
        if not callable(case[1]) and not _holds_numbers(_array(case[1])):
            raise InputError(
                f"a case expects {_show(case[1])}: expect numbers, or give a predicate"
            )
    if not cases:
        raise InputError("there are no cases, so that any answer would pass: give at least one")
    return [(given if isinstance(given, tuple) else (given,), want) for given, want in cases]


def _try(answer: Any, name: str, given: tuple, expected: Any, tolerance: float) -> str:
    """Return ``""`` if one case passes, :data:`EMPTY`, or lines that describe the problem."""
    if answer is None or answer is Ellipsis:
        return EMPTY
    if not callable(answer):
        return f"  {_show(answer)} is not a function: define it with def, and give its name."
    ours, theirs = (tuple(map(_copy, given)) for _ in range(2))
    lines = [f"  given:    {_arguments(answer, given)}"]
    try:
        result = answer(*theirs)
        if result is None or result is Ellipsis:
            return EMPTY
        lines.append(f"  returned: {_show(result)}")
        if not callable(expected):
            lines.append(f"  expected: {_show(expected)}")
        # Generators and returned functions run only here: their code may be missing too.
        wrong = _compare(result, expected, tolerance) or _changed(ours, theirs, name)
    except NotImplementedError:
        return EMPTY
    except Exception as error:
        if len(lines) > 1:  # it returned something that cannot even be compared
            wrong = f"A {type(result).__name__} cannot be compared ({_error_text(error)})."
        else:
            wrong = f"It stopped with {_error_text(error)}{_failing_line(answer, error)}"
    return "\n".join([*lines, f"  {wrong}"]) if wrong else ""


def _changed(before: tuple, after: tuple, name: str) -> str:
    """Return a sentence if an answer changed its arguments in place."""
    for number, pair in enumerate(zip(before, after, strict=True), start=1):
        want, have = map(_array, pair)
        if not _holds_numbers(want):
            continue
        floats = want.dtype.kind == "f"
        if have.shape != want.shape or not np.array_equal(have, want, equal_nan=floats):
            return (
                f"The result is right, but {name} changes its argument {number} in place: "
                "work on a copy, since others may still need it."
            )
    return ""


def _copy(value: Any) -> Any:
    """Copy an argument, so that one case cannot spoil the next or a second run."""
    if hasattr(value, "clone_state"):  # a torch.Generator, which cannot be deep-copied
        return value.clone_state()
    if _is_tensor(value):
        return value.detach().clone().requires_grad_(value.requires_grad)
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def _arguments(answer: Any, given: tuple) -> str:
    """Format arguments with their names, if the signature can be found."""
    try:
        bound = inspect.signature(answer).bind(*given).arguments
        shown = [f"{name} = {_show(value)}" for name, value in bound.items()]
    except (TypeError, ValueError):
        shown = [*map(_show, given)]
    return ", ".join(shown) or "nothing"


def _failing_line(answer: Any, error: Exception) -> str:
    """Quote the line of the answer that raised the error."""
    code = getattr(answer, "__code__", None)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__)
             if code and frame.filename == code.co_filename]  # fmt: skip
    return f"\n  in the line: {lines[-1].strip()}" if lines and lines[-1] else "."


def _compare(result: Any, expected: Any, tolerance: float) -> str:
    """Return ``""`` if a result is as expected, else a sentence on how it differs."""
    if callable(expected):
        return _apply_predicate(expected, result)
    have, want = _array(result), _array(expected)
    if (
        not _holds_numbers(have)
        or (_is_tensor(expected) and not _is_tensor(result))
        or (isinstance(expected, np.ndarray) and not hasattr(result, "__array__"))
    ):
        return f"It is of type {type(result).__name__} instead of {type(expected).__name__}."
    # Arrays of indices must hold integers; in lists, 3 and 3.0 are the same.
    whole = hasattr(expected, "dtype") and want.dtype.kind in "iu" and have.dtype.kind == "f"
    if (have.dtype.kind == "b") != (want.dtype.kind == "b") or whole:
        names = {"b": "True and False", "f": "numbers with a fraction"}
        held, asked = (f"{names.get(one.dtype.kind, 'whole numbers')} ({one.dtype})"
                       for one in (have, want))  # fmt: skip
        return f"It holds {held} instead of {asked}."
    if have.shape != want.shape:
        return f"The shape is {_shape(have)} instead of {_shape(want)}."
    if want.dtype.kind == "b":
        return _differences(have, want, have != want)
    have, want = have.astype(np.float64), want.astype(np.float64)
    lost = np.isnan(have) & ~np.isnan(want)
    if lost.any():
        where = f" {_position(lost)}" if have.ndim else ""
        return (
            f"There is a NaN{where}: is something divided by zero, or the logarithm of zero taken?"
        )
    close = np.isclose(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)
    return _differences(have, want, ~close)


def _apply_predicate(predicate: Callable[[Any], Any], result: Any) -> str:
    """Apply a predicate; a result on which it fails is wrong too."""
    try:
        said = predicate(result)
        right = not isinstance(said, str) and bool(said)
    except NotImplementedError:
        raise
    except Exception as error:
        return (
            f"A {type(result).__name__} cannot be checked here ({_error_text(error)}): "
            "is it the kind of thing that was asked for?"
        )
    text = said if isinstance(said, str) and said else "It is not what was asked for."
    return "" if right else text


def _differences(have: np.ndarray, want: np.ndarray, far: np.ndarray) -> str:
    if not far.any():
        return ""
    if not have.ndim:
        return f"It is {_number(have)} instead of {_number(want)}."
    first = tuple(np.argwhere(far)[0])
    return (
        f"{far.sum()} of {counted(far.size, 'value')} {'is' if far.sum() == 1 else 'are'} off; "
        f"the first one {_position(far)} is {_number(have[first])} "
        f"instead of {_number(want[first])}.{_pattern(have, want)}"
    )


def _pattern(have: np.ndarray, want: np.ndarray) -> str:
    """Describe a simple relation between the result and the expected values, if any."""
    if have.dtype.kind == "b":
        return " All are the other way round." if (have != want).all() else ""
    if have.size > 2 and np.allclose(np.sort(have, axis=None), np.sort(want, axis=None)):
        return " The values are right, their order is not."
    # A single wrong number would always be a multiple.
    known = want != 0
    if known.sum() > 1 and np.isfinite(have).all() and not have[~known].any():
        ratios = have[known] / want[known]
        if ratios[0] != 0 and np.allclose(ratios, ratios[0]):
            return f" All are {_number(ratios[0])} times what they should be."
    return ""


def _is_tensor(value: Any) -> bool:
    # If torch is not loaded, nothing can be a tensor.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _array(value: Any) -> np.ndarray:
    """Convert to an array on the CPU; its dtype is not numeric if the value is not."""
    if _is_tensor(value):
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        value = value.float() if value.is_floating_point() and value.itemsize < 4 else value
        return value.numpy()
    try:
        return np.asarray(value)
    except Exception:
        return np.empty((), dtype=object)


def _holds_numbers(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuf"


def _show(value: Any) -> str:
    if _is_tensor(value) or isinstance(value, np.ndarray):
        array = _array(value)
        body = np.array2string(array, precision=4, threshold=SHOWN, edgeitems=3, separator=", ")
        text = f"{type(value).__name__} {' '.join(body.split())}"
        return text if array.size <= SHOWN else f"{text} of shape {_shape(array)}"
    if isinstance(value, float | np.generic):
        return _number(value)
    if isinstance(value, tuple | list):
        inside = ", ".join(map(_show, value[:SHOWN]))
        inside += f", ... ({len(value)} in all)" if len(value) > SHOWN else ""
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    try:
        text = getattr(value, "__name__", None) or " ".join(repr(value).split())
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}..."


def _number(value: Any) -> str:
    number = np.asarray(value)
    return f"{float(number):.6g}" if number.dtype.kind == "f" else str(number)


def _position(where: np.ndarray) -> str:
    """Describe the first position that is True."""
    place = [int(i) for i in np.argwhere(where)[0]]
    return f"(at {place[0] if len(place) == 1 else tuple(place)}, counted from 0)"


def _shape(array: np.ndarray) -> str:
    # A student may not know the shape () of a single number.
    return str(array.shape) if array.ndim else "that of a single number"


def _error_text(error: Exception) -> str:
    text = " ".join(str(error).split())[:MAX_LENGTH]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
