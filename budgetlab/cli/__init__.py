"""The command line: ``budgetlab train``, ``sweep``, ``compare``, ``report``, ``inspect``, ``list``.

Results go to standard output, everything else to standard error. Exit codes: 0 success,
1 a run failed, 2 bad input, 130 interrupted (the record can be resumed).
"""

import argparse
import codecs
import contextlib
import io
import itertools
import re
import sys
import unicodedata
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from typing import get_args

import tyro

from budgetlab import __version__
from budgetlab.cli.commands import BAD_INPUT, DONE, FAILED, INTERRUPTED, Command, say
from budgetlab.config import RunConfig
from budgetlab.errors import DISK_FAULTS, InputError, RunError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # Replace characters that the terminal's encoding lacks instead of failing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(str(message))
            command = _parse(arguments)
            return command.run() if command is not None else DONE
    except InputError as error:
        say(str(error))
        return BAD_INPUT
    except RunError as error:
        say(str(error))
        return FAILED
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        say(f"{where}{error.strerror or error}")
        return FAILED if error.errno in DISK_FAULTS else BAD_INPUT
    except MemoryError:
        say("out of memory: use fewer samples, such as with --limit, or close other programs")
        return FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED


ASCII_EQUIVALENTS = {
    "±": "+/-",
    "×": "x",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
}


def _ascii_fallback(error: UnicodeError) -> tuple[str, int]:
    """Replace characters an encoding lacks by ASCII: ± by +/-, é by e, others by their escape."""
    assert isinstance(error, UnicodeEncodeError)
    shown = []
    for letter in error.object[error.start : error.end]:
        bare = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        code = letter.encode("ascii", "backslashreplace").decode()
        shown.append(ASCII_EQUIVALENTS.get(letter) or bare or code)
    return "".join(shown), error.end


codecs.register_error("plain", _ascii_fallback)


def _with_preset(arguments: list[str]) -> list[str]:
    """Append the preset's settings that the command line does not give."""
    from budgetlab.config import preset_settings

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    try:
        name = parser.parse_known_args(arguments)[0].preset
    except argparse.ArgumentError:
        name = None
    if not name:
        return arguments
    there = {word.partition("=")[0].replace("_", "-") for word in arguments}
    added = {f"--{k.replace('_', '-')}": str(v) for k, v in preset_settings(name).items()}
    return [*arguments, *(w for flag, v in added.items() if flag not in there for w in (flag, v))]


def _parse(arguments: list[str]) -> Command | None:
    """Parse the command; None if only help or the version was requested."""
    if arguments == ["--version"]:
        print(f"budgetlab {__version__}")
        return None
    arguments = _with_preset(arguments)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                Command,
                prog="budgetlab",
                description="Budgeted training with importance sampling.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        raise InputError(_one_line(complaint.getvalue(), arguments)) from None


def _one_line(box: str, arguments: list[str]) -> str:
    """Reduce the parser's framed message to one sentence, with the nearest valid name."""
    lines = [line.strip("│ \t") for line in box.splitlines()[1:]]
    # The box holds a title, the message and advice, separated by rules.
    lines = list(itertools.dropwhile(_is_rule, lines))
    text = " ".join(itertools.takewhile(lambda line: not _is_rule(line), lines))
    text = text or "the command cannot be read"
    if flag := re.match("Error parsing --([a-z-]+):", text):
        text = _not_a_number_message(flag[1], lines, arguments) or text
    elif flag := re.match("Missing value for argument '(--[a-z-]+)'", text):
        text = f"{flag[1]} has no value: give one after it"
    elif arguments[:1] == ["train"] and re.match("Unrecognized options: [^-]", text):
        text = f"{text}; train takes one value for each option, and sweep takes several"
    taken = [RunConfig, *get_args(Command)]
    names = ["help", *(name for kind in taken for name in kind.__dataclass_fields__)]
    known = [f"--{name.replace('_', '-')}" for name in names]
    commands = [command.__name__.lower() for command in get_args(Command)]
    flags = [word.partition("=")[0].replace("_", "-") for word in arguments if word[:2] == "--"]
    hints = [get_close_matches(word, known, n=1) for word in flags if word not in known]
    if arguments and arguments[0] not in commands:
        hints.append(get_close_matches(arguments[0], commands, n=1))
        text = f"unknown command '{arguments[0]}', choose one of {', '.join(commands)}"
    near = [f"; did you mean {hint[0]}?" for hint in hints if hint]
    return f"{text.split(' Perhaps')[0].rstrip('.')}{''.join(near)} (see budgetlab --help)"


def _not_a_number_message(flag: str, lines: list[str], arguments: list[str]) -> str | None:
    """Name the non-numeric value of a numeric option, worded as ``RunConfig`` words it."""
    about = " ".join(lines)
    kind = re.search(rf"--{flag} \[?(INT|FLOAT)", about)
    if not kind:
        return None
    words = [part for word in arguments for part in word.split("=", 1 if word[:2] == "--" else 0)]
    places = [n for n, word in enumerate(words) if word.replace("_", "-") == f"--{flag}"]
    after = words[places[-1] + 1 :] if places else []
    given = list(itertools.takewhile(lambda word: word[:2] != "--", after))
    wrong = next((word for word in given if not _is_number(word, kind[1])), " ".join(given))
    default = re.search(r"\(default: ([\d.]+)", about)
    such = f", such as {default[1]}" if default else ""
    auto = ", or auto" if "{auto}" in about else ""
    number = "whole number" if kind[1] == "INT" else "number"
    return f"{flag} '{wrong}' is not allowed: give a {number}{such}{auto}"


def _is_number(word: str, kind: str) -> bool:
    try:
        int(word) if kind == "INT" else float(word)
    except ValueError:
        return False
    return True


def _is_rule(line: str) -> bool:
    return not line.strip("─-╰╯ ")
