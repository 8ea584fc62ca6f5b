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
# How records name a network that is not the kit's.
OWN_MODEL = "own:"


def command(record: Record) -> str:
    """Return what repeats a run: a command line with every setting that is not the default.

    A run of a network of one's own cannot be repeated from a command line; for it a call
    in Python is returned. Settings that this version does not know are left out.
    """
    settings = {}
    for field in dataclasses.fields(RunConfig):
        value = record.config.get(field.name, field.default)
        differs = _plain(value) != _plain(field.default)
        if field.name not in LEFT_OUT and (field.name in ALWAYS or differs):
            settings[field.name] = value
    model = str(settings.get("model", ""))
    if model.startswith(OWN_MODEL):
        del settings["model"]
        given = "".join(f", {name}={_plain(value)!r}" for name, value in settings.items())
        return f"bl.train(model=your_network{given})  # it was {model}"
    first, *longer = [*str(settings.pop("extended", "")).split("+"), str(settings["epochs"])]
    if longer:
        settings["epochs"] = first or settings["epochs"]
    words = ["budgetlab", "train"]
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", *_words(value)]
    # It began as a shorter run, whose record is gone on with.
    then = "".join(f"; budgetlab resume RECORD --epochs {n}" for n in longer if first)
    return shlex.join(words) + then


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _words(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list | tuple) else [str(value)]
