"""The two errors that users meet, and the sentence for a name that does not exist."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real

# Letters in common, 0 to 1, from which on a name may be what was meant: below, it is far-fetched.
NEAR = 0.6


def one_line(text: object, most: int | None = None) -> str:
    """Write what a stranger may have chosen in one line, at most so long.

    Line breaks, codes of a terminal and other characters that cannot be printed are
    written as such, as in ``a\\nb``.
    """
    whole = str(text)
    cut = whole if most is None else whole[:most]
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
    return shown if len(cut) == len(whole) else f"{shown}..."


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 image``, ``1,200 images``, ``3 classes``."""
    plural = f"{noun}es" if noun.endswith(("ss", "tch")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def a_kind(value: object) -> str:
    """Name what something is: ``an ndarray``, ``a TensorDataset``, ``None``."""
    name = type(value).__name__
    vowel = name[0] in "aeiouAEIO" or name == "ndarray"
    return "None" if value is None else f"{'an' if vowel else 'a'} {name}"


def few(names: Iterable[str], most: int = 3) -> str:
    """Name the first few, and say how many more there are."""
    shown = list(names)
    more = f" and {len(shown) - most:,} more" if len(shown) > most else ""
    return f"{', '.join(shown[:most])}{more}"


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message is one sentence, in one line, that names the value, what is allowed and
    what to do. The command line prints it and exits with 2.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


class RunError(RuntimeError):
    """A run that had started could not go on.

    The record holds everything up to the last whole epoch and stays readable.
    The command line prints the message and exits with 1.
    """


def whole(
    what: str, value: object, low: int = 1, high: int | None = None, *, also: str = ""
) -> int:
    """Return a whole number from ``low`` to ``high``; ``what`` is the name of the argument.

    ``also`` ends the sentence with what else would be allowed.

    Raises
    ------
    InputError
        If it is none: a fraction, a text, True, None, or out of range.
    """
    inside = isinstance(value, Integral) and not isinstance(value, bool)
    if not inside or value < low or (high is not None and value > high):  # type: ignore[operator]
        to = "" if high is None else f" to {high}"
        raise InputError(
            f"{what} {one_line(repr(value), 60)} is not allowed: give a whole number from "
            f"{low}{to}{also}"
        )
    return int(value)  # type: ignore[call-overload]


def known(what: str, value: object, allowed: Iterable[str]) -> str:
    """Return a name as it is written among the allowed ones, whatever its case.

    ``what`` says what it stands for, such as ``"method"``.

    Raises
    ------
    InputError
        If there is no such name; names the nearest one, and all in their order.
    """
    names = list(allowed)
    if value in names:
        return str(value)
    by_lower = {name.lower(): name for name in names}
    if str(value).lower() not in by_lower:
        raise unknown(what, value, names)
    return by_lower[str(value).lower()]


def unknown(what: str, value: object, allowed: Iterable[str]) -> InputError:
    """Make the error of :func:`known`, with the nearest match where one is near."""
    names = [str(name) for name in allowed]
    by_lower = {name.lower(): name for name in names}
    near = get_close_matches(str(value).lower(), list(by_lower), n=1, cutoff=NEAR)
    hint = f"did you mean '{by_lower[near[0]]}'? " if near else ""
    return InputError(f"unknown {what} '{value}': {hint}choose one of {', '.join(names)}")


def require_number(
    what: str, value: object, low: float = -math.inf, high: float = math.inf
) -> float:
    """Return a number as a float, or say what is allowed."""
    if isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) <= high:
        return float(value)
    limits = f" from {low:g} to {high:g}" if high < math.inf else f" of at least {low:g}"
    kind = "a number" + limits * (low > -math.inf)
    raise InputError(f"{what} {value!r} is not allowed: give {kind}")
