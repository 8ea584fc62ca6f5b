"""What ``record.json`` may say: it may come from a stranger, and tables are made of it."""

from collections.abc import Callable, Mapping
from typing import Any

from budgetlab.errors import one_line

__all__ = ["complaint"]


def _is_whole(value: object) -> bool:
    # It may be longer than any float.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**300


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_plain(value: object) -> bool:
    return all(map(_is_value, value)) if isinstance(value, list) else _is_value(value)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_value, value))


# A kind of value: how a complaint calls it, and whether a value is of that kind.
Kind = tuple[str, Callable[[object], bool]]
TABLE: Kind = ("a table", lambda value: isinstance(value, dict))
TEXT: Kind = ("text", lambda value: isinstance(value, str))
NUMBER: Kind = ("a number", _is_number)
WHOLE: Kind = ("a whole number", _is_whole)
MEASURED: Kind = ("a number", lambda value: value is None or _is_number(value))
LIST: Kind = ("a list of values", _is_list)
PLAIN: Kind = ("a value or a list of values", _is_plain)

NEEDED: dict[str, dict[str, Kind]] = {
    "": {"config": TABLE, "data": TABLE, "summary": TABLE, "status": TEXT, "format": WHOLE},
    "config": {"dataset": TEXT, "method": TEXT, "augmentation": TEXT, "budget": NUMBER,
               "budget_unit": TEXT, "seed": WHOLE},
}  # fmt: skip
KNOWN: dict[str, dict[str, Kind]] = {
    "": {"hardware": TABLE, "versions": TABLE, "id": TEXT, "message": TEXT, "updated": TEXT},
    "data": {"fingerprint": TEXT, "val_fingerprint": TEXT, "name": TEXT, "classes": LIST,
             "skipped": LIST, "shape": LIST, "train": WHOLE, "test": WHOLE, "val": WHOLE,
             "intake": TABLE},
    "summary": {**dict.fromkeys(("test_accuracy", "test_loss", "steps", "trained_samples",
                                 "looked_samples", "flops", "seconds", "proxy_samples"), MEASURED),
                "epochs": WHOLE, "probability_kind": TEXT},
}  # fmt: skip
MOST_SHOWN = 40
PARTS = ("config", "data", "summary", "hardware", "versions")


def complaint(about: Any) -> str:
    """Say what first keeps this from being the description of a run; empty if nothing does.

    Whatever is not known here may stand there, as long as tables can be made of it: what a
    later version adds does not keep this one from reading.
    """
    if not isinstance(about, dict):
        return f"it lacks {', '.join(NEEDED[''])}"
    return next((said for part in ("", *PARTS) if (said := _of_part(about, part))), "")


def _of_part(about: Mapping[str, Any], part: str) -> str:
    values = about.get(part, {}) if part else about
    prefix = f"{part}." if part else ""
    needed, known = NEEDED.get(part, {}), KNOWN.get(part, {})
    missing = [name for name in needed if name not in values]
    if missing:
        return f"it lacks {', '.join(prefix + name for name in missing)}"
    for name, value in values.items():
        kind = needed.get(name) or known.get(name) or (PLAIN if part else None)
        if kind is not None and not kind[1](value):
            shown = one_line(repr(value), MOST_SHOWN)
            return f"{prefix}{one_line(name, MOST_SHOWN)} is {shown} and not {kind[0]}"
    return ""
