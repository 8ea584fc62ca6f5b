"""Call an answer with each case and say the first thing that is wrong."""

import copy
import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from budgetlab.course.comparing import compare
from budgetlab.course.words import array_of, count, error_text, holds_numbers, is_tensor, show
from budgetlab.errors import InputError

__all__ = ["check", "passed"]

EMPTY = "nothing here yet"

_verdicts: dict[str, bool] = {}


def check(
    answer: Callable[..., Any],
    cases: Sequence[tuple[Any, Any]],
    *,
    hint: str = "",
    tolerance: float = 1e-6,
) -> None:
    """Call an answer with each case and print what is right or wrong, in words.

    Only the first thing that is wrong is shown. Whatever the answer does - nothing yet,
    an exception, the wrong type, shape or values, a change to what it was given - ends
    in a sentence, never in an exception.

    Parameters
    ----------
    answer
        The function a student wrote.
    cases
        Pairs ``(arguments, expected)``. The arguments are a tuple; anything else is one
        argument. Each call gets copies. What is expected is a number, text, list, array,
        tensor, a dict or tuple of these, or a predicate ``callable(result)`` that
        returns True or a sentence saying what is wrong. A tensor or array must be
        answered by one, of whole numbers or bools if it holds these; a list by any
        sequence of numbers.
    hint
        Shown when something is wrong, not before the student has begun.
    tolerance
        Largest difference allowed, absolute and relative to what is expected.

    Raises
    ------
    InputError
        If the cases are no such pairs or there is none: the fault of who wrote the
        exercise, which must not look like a pass.
    """
    pairs = _pairs(cases)
    name = getattr(answer, "__name__", "your answer")
    _verdicts[name] = False
    for number, (given, expected) in enumerate(pairs, start=1):
        problem = _try(answer, name, given, expected, tolerance)
        if problem == EMPTY:
            print(f"{name}: {EMPTY}. Write its body, run its cell, then this one again.")
            return
        if problem:
            print(f"{name}: not right yet ({number - 1} of {len(pairs)} checks pass so far).")
            print(problem)
            if hint:
                print(f"  Hint: {hint}")
            return
    _verdicts[name] = True
    print(f"{name}: right, {count(len(pairs), 'check')} passed.")


def passed(name: str) -> bool:
    """Tell whether the latest check of an answer passed, for an ``assert`` that gives marks.

    Parameters
    ----------
    name
        Of the function that was checked; False if none of that name was.
    """
    return _verdicts.get(name, False)


def _pairs(cases: Sequence[tuple[Any, Any]]) -> list[tuple[tuple, Any]]:
    pairs = []
    for case in cases:
        if not isinstance(case, tuple | list) or len(case) != 2:
            raise InputError(f"case {show(case)} is no pair: give (arguments, expected)")
        given, expected = case
        if expected is None or expected is Ellipsis:
            raise InputError(
                f"a case expects {expected}, which is what an empty answer gives: expect a value"
            )
        pairs.append((given if isinstance(given, tuple) else (given,), expected))
    if not pairs:
        raise InputError("there are no cases, so that any answer would pass: give at least one")
    return pairs


def _try(answer: Any, name: str, given: tuple, expected: Any, tolerance: float) -> str:
    """Return ``""`` if one case passes, :data:`EMPTY`, or what is wrong, in lines."""
    if answer is None or answer is Ellipsis:
        return EMPTY
    if not callable(answer):
        return f"  {show(answer)} is no function: define it with def, and give its name."
    call = f"  given:    {_arguments(answer, given)}"
    ours, theirs = _copied(given), _copied(given)
    try:
        result = answer(*theirs)
    except NotImplementedError:
        return EMPTY
    except Exception as error:
        return f"{call}\n  It stopped with {error_text(error)}{_place(answer, error)}"
    if result is None or result is Ellipsis:
        return EMPTY
    lines = [call, f"  returned: {show(result)}"]
    if not callable(expected):
        lines.append(f"  expected: {show(expected)}")
    try:
        # What an answer yields, or hands to a predicate, may be the part that is missing.
        wrong = compare(result, expected, tolerance) or _changed(ours, theirs, name)
    except NotImplementedError:
        return EMPTY
    except Exception as error:  # a result that cannot even be compared
        wrong = f"A {type(result).__name__} cannot be compared ({error_text(error)})."
    return "\n".join([*lines, f"  {wrong}"]) if wrong else ""


def _changed(before: tuple, after: tuple, name: str) -> str:
    """Return a sentence if an answer changed what it was given."""
    for number, pair in enumerate(zip(before, after, strict=True), start=1):
        want, have = map(array_of, pair)
        if not holds_numbers(want):
            continue
        floats = want.dtype.kind == "f"
        if have.shape != want.shape or not np.array_equal(have, want, equal_nan=floats):
            return (
                f"The result is right, but {name} changes its argument {number} in place: "
                "work on a copy, since others may still need it."
            )
    return ""


def _copied(given: tuple) -> tuple:
    return tuple(_copy(value) for value in given)


def _copy(value: Any) -> Any:
    """Copy an argument, so that one case cannot spoil the next or a second run."""
    if hasattr(value, "clone_state"):  # a torch.Generator, which cannot be deep-copied
        return value.clone_state()
    if is_tensor(value):
        return value.detach().clone().requires_grad_(value.requires_grad)
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def _arguments(answer: Any, given: tuple) -> str:
    """Write arguments with their names, as far as these can be found."""
    try:
        bound = inspect.signature(answer).bind(*given).arguments
        return ", ".join(f"{name} = {show(value)}" for name, value in bound.items()) or "nothing"
    except (TypeError, ValueError):
        return ", ".join(show(value) for value in given) or "nothing"


def _place(answer: Any, error: Exception) -> str:
    """Name the line of the answer in which it stopped."""
    code = getattr(answer, "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if code and frame.filename == code.co_filename]
    if not inside or not inside[-1].line:
        return "."
    return f"\n  in the line: {inside[-1].line.strip()}"
