"""The two exceptions that users see, and argument checks that raise them."""

import errno
import math
from collections.abc import Iterable, Sized
from difflib import get_close_matches
from numbers import Integral, Real

# Similarity, 0 to 1, from which a known name is suggested for an unknown one.
NEAR = 0.6
# A file cannot be written for reasons that do not lie in its name: exit code 1, not 2.
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def one_line(text: object, most: int | None = None) -> str:
    """Write untrusted text in one line, cut after ``most`` characters.

    Line breaks, terminal codes and other unprintable characters are escaped, as in ``a\\nb``.
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
    """Name the type of a value, with its article: ``an ndarray``, ``a TensorDataset``, ``None``."""
    name = type(value).__name__
    vowel = name[0] in "aeiouAEIO" or name == "ndarray"
    return "None" if value is None else f"{'an' if vowel else 'a'} {name}"


def few(names: Iterable[str], most: int = 3) -> str:
    """Name the first few, and count the rest."""
    shown = list(names)
    more = f" and {len(shown) - most:,} more" if len(shown) > most else ""
    return f"{', '.join(shown[:most])}{more}"


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or its type."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one sentence, in one line, that names the value, what is allowed and what to do.
    The command line prints it and exits with 2.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


class RunError(RuntimeError):
    """A run failed after it had started.

    The record stays readable up to its last whole epoch. The command line prints the message and
    exits with 1.
    """


def whole(
    what: str, value: object, low: int = 1, high: int | None = None, *, also: str = ""
) -> int:
    """Return a whole number from ``low`` to ``high``; ``what`` names the argument.

    ``also`` adds to the message what else would be allowed. Raises InputError if the value is out
    of range or not an integer: a fraction, text, True or None.
    """
    inside = isinstance(value, Integral) and not isinstance(value, bool)
    if not inside or value < low or (high is not None and value > high):  # type: ignore[operator]
        to = "" if high is None else f" to {high}"
        raise InputError(
            f"{what} {one_line(repr(value), 60)} is not allowed: give a whole number from "
            f"{low}{to}{also}"
        )
    return int(value)  # type: ignore[call-overload]


def one_each(what: str, given: Sized, samples: int) -> None:
    """Raise an InputError unless ``given`` has one entry for each sample."""
    if len(given) != samples:
        raise InputError(f"{what} has {len(given)} entries for {samples} samples: give one each")


def known(what: str, value: object, allowed: Iterable[str]) -> str:
    """Match a name regardless of case, and return it as written in ``allowed``.

    ``what`` says in the message what it names, such as ``"method"``. Raises InputError if no name
    matches; the message suggests the nearest one and lists all in order.
    """
    names = list(allowed)
    if value in names:
        return str(value)
    by_lower = {name.lower(): name for name in names}
    if str(value).lower() not in by_lower:
        raise unknown(what, value, names)
    return by_lower[str(value).lower()]


def unknown(what: str, value: object, allowed: Iterable[str]) -> InputError:
    """Make the error of :func:`known`, with a suggestion if a name is similar."""
    names = [str(name) for name in allowed]
    by_lower = {name.lower(): name for name in names}
    near = get_close_matches(str(value).lower(), list(by_lower), n=1, cutoff=NEAR)
    hint = f"did you mean '{by_lower[near[0]]}'? " if near else ""
    return InputError(f"unknown {what} '{value}': {hint}choose one of {', '.join(names)}")


def require_number(
    what: str, value: object, low: float = -math.inf, high: float = math.inf
) -> float:
    """Return a number as a float, or raise an InputError that states the range."""
    if isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) <= high:
        return float(value)
    limits = f" from {low:g} to {high:g}" if high < math.inf else f" of at least {low:g}"
    kind = "a number" + limits * (low > -math.inf)
    raise InputError(f"{what} {value!r} is not allowed: give {kind}")
