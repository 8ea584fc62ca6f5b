"""The commands that give the same runs again."""

import dataclasses
import shlex
from typing import Any

from budgetlab.config import RunConfig
from budgetlab.records import Record

__all__ = ["command"]

# Said even where it is the default: what the run was about.
ALWAYS = ("dataset", "method", "augmentation", "budget", "epochs", "seed")
# Where a run lay says nothing on how to repeat it.
LEFT_OUT = ("out", "data_root")


def command(record: Record) -> str:
    """Return the command line that repeats a run: every setting that is not the default.

    Settings that this version does not know are left out.
    """
    words = ["budgetlab", "train"]
    for field in dataclasses.fields(RunConfig):
        value = record.config.get(field.name, field.default)
        differs = _plain(value) != _plain(field.default)
        if field.name not in LEFT_OUT and (field.name in ALWAYS or differs):
            words += [f"--{field.name.replace('_', '-')}", *_words(value)]
    return shlex.join(words)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _words(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list | tuple) else [str(value)]
