"""The command line: ``budgetlab train``, ``resume``, ``sweep``, ``compare``, ``report``, ``list``.

Results go to standard output, everything else to standard error. Exit code 0: done;
1: a run failed; 2: bad input; 130: interrupted, the record can be resumed.
"""

import argparse
import contextlib
import errno
import io
import itertools
import json
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import tyro
from tyro.conf import Positional, arg

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError, one_line, unknown
from budgetlab.records import plain
from budgetlab.sweep.options import Lists, given

if TYPE_CHECKING:
    from budgetlab import sweep
    from budgetlab.training import Run

__all__ = ["main"]

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
LISTS = ("datasets", "models", "methods", "augmentations", "schedules", "presets")


@dataclass
class Train:
    """Train once within a budget and write a record."""

    config: Annotated[RunConfig, arg(name="")]
    preset: str = ""
    """Settings that belong together, by name: scale-model or paper; those given win over it."""
    json: bool = False
    """Print one JSON object on standard output."""

    def run(self) -> int:
        """Train; returns the exit code."""
        from budgetlab.training import Run

        return _train(Run(self.config), self.json)


@dataclass
class Resume:
    """Go on with a run that was stopped, from its last whole epoch."""

    record: Positional[Path]
    """Folder of the record."""
    data_root: Path | None = None
    """Folder for downloads and caches, where it is not the one the record names."""
    json: bool = False
    """Print one JSON object on standard output."""

    def run(self) -> int:
        """Go on; returns the exit code."""
        from budgetlab.training import Run

        return _train(Run.resume(self.record, data_root=self.data_root), self.json)


@dataclass
class Sweep:
    """Train every combination of settings, each given once or several times.

    What is finished is kept, what was cut off goes on, what failed is reported.
    """

    grid: Annotated[Any, arg(name="", constructor=Lists)] = field(default_factory=Lists)
    preset: str = ""
    """Settings that belong together, by name: scale-model or paper; those given win over it."""
    workers: int = 1
    """Processes of this machine to train in; they share its cores and GPUs."""
    scheduler: str = ""
    """Address of a Dask scheduler to train on, such as tcp://host:8786."""
    retry: bool = False
    """Try failed runs again."""
    plan: bool = False
    """Say what would be trained, and about how long it takes; train nothing."""
    json: bool = False
    """Print one JSON object on standard output."""

    def run(self) -> int:
        """Train what is left; returns the exit code."""
        from budgetlab.sweep import Sweep as Runs

        runs = Runs(
            workers=self.workers, scheduler=self.scheduler, retry=self.retry, **given(self.grid)
        )
        code = DONE if self.plan else _sweep(runs)
        if self.json:
            content = {"runs": len(runs), "counts": runs.counts, "cost_left": runs.cost_left,
                       "seconds_left": runs.seconds_left, "summaries": runs.rows}  # fmt: skip
            _print_json(content)
        else:
            print(_planned(runs) if self.plan else _swept(runs))
        return code


def _sweep(runs: "sweep.Sweep") -> int:
    try:
        with _terminate_as_interrupt():
            for _ in runs:
                pass
    except KeyboardInterrupt:
        _say("stopped; the same command goes on")
        return INTERRUPTED
    except RunError as error:
        _say(str(error))
        return FAILED
    return FAILED if runs.failed else DONE


def _swept(runs: "sweep.Sweep") -> str:
    counts = ", ".join(f"{count} {status}" for status, count in runs.counts.items())
    kept = sum(row["how"] == "kept" and row["status"] == "finished" for row in runs.rows)
    lines = [f"{len(runs)} runs: {counts}" + (f" ({kept} from before)" if kept else "")]
    lines += [f"failed: {name}: {reason}" for name, reason in runs.failed.items()]
    if runs.failed:
        lines.append("to try these again: the same command with --retry")
    elif runs.records:
        lines.append(f"to compare: budgetlab compare {runs.runs[0].out}")
    return "\n".join(lines)


def _planned(runs: "sweep.Sweep") -> str:
    lines = [
        f"{row['status']:9} {name}" + (f": {row['message']}" if row["status"] == "failed" else "")
        for name, row in zip(runs.names, runs.rows, strict=True)
    ]
    left, seconds = runs.cost_left, runs.seconds_left
    about = "" if seconds is None else f", about {seconds / 60:,.1f} minutes of training"
    return "\n".join([*lines, f"left: {left:,.0f} samples to train on{about}"])


@dataclass
class Compare:
    """Compare methods over seeds: n, mean, spread, paired difference, interval, p."""

    records: Positional[tuple[Path, ...]]
    """Records, or folders that hold some."""
    baseline: tuple[str, ...] = ("unif-SGD",)
    """Methods that the others are compared with."""
    out: Path | None = None
    """Also write the table to a file: .csv, .md or .tex."""
    json: bool = False
    """Print one JSON object on standard output."""

    def run(self) -> int:
        """Compare; returns the exit code."""
        from budgetlab import analysis

        _need_records(self.records)
        frame = analysis.compare(self.records, baseline=self.baseline)
        if self.out is not None:
            analysis.export(frame, self.out)
        if self.json:
            _print_json({"baseline": self.baseline, "rows": frame.to_dict("records")})
        else:
            print(analysis.table(frame))
        return DONE


@dataclass
class Report:
    """Write one self-contained page with tables and figures."""

    records: Positional[tuple[Path, ...]]
    """Records, or folders that hold some."""
    out: Path = Path("report.html")
    """File to write."""

    def run(self) -> int:
        """Write the page; returns the exit code."""
        from budgetlab import report

        _need_records(self.records)
        print(report.write(self.records, self.out))
        return DONE


@dataclass
class List:
    """List the names that an option takes."""

    what: Positional[str]
    """datasets, models, methods, augmentations, schedules or presets."""
    json: bool = False
    """Print one JSON object on standard output."""

    def run(self) -> int:
        """List; returns the exit code."""
        described = _described(self.what)
        if self.json:
            _print_json(described)
            return DONE
        width = max(map(len, described))
        for name, text in described.items():
            print(f"{name:{width}}  {text}")
        return DONE


@dataclass
class Demo:
    """Train a dozen small networks on drawn images, print a table, write a page with figures."""

    out: Path = Path("demo")
    """Folder for records and page."""

    def run(self) -> int:
        """Show what the kit is for; returns the exit code."""
        from budgetlab import demo

        return demo.main(self.out)


def _described(what: str) -> dict[str, str]:
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    from budgetlab import augment, budget, data, methods, models, presets

    if what == "schedules":
        return {name: text for name, (text, _) in budget.SCHEDULES.items()}
    modules = {"datasets": data, "models": models, "methods": methods, "augmentations": augment,
               "presets": presets}  # fmt: skip
    return modules[what].describe()


def _need_records(records: tuple[Path, ...]) -> None:
    if not records:
        raise InputError("no record was given: name the folder of a record, such as runs")


def _train(run: "Run", as_json: bool) -> int:
    """Run to the end; whatever happens, say how the record stands."""
    from budgetlab.training import finish

    code = DONE
    told_to_end = threading.Event()

    def end_if_told(run: "Run") -> None:
        if told_to_end.is_set():
            raise KeyboardInterrupt

    run.on_step = end_if_told
    try:
        with _terminate_as_interrupt(told_to_end):
            finish(run)
    except KeyboardInterrupt:
        _say(f"stopped; to go on: budgetlab resume {run.writer.path}")
        code = INTERRUPTED
    except RunError as error:
        _say(str(error))
        code = FAILED
    summary = run.summary()
    if as_json:
        _print_json(summary)
    elif code == DONE:
        print(_in_words(summary))
    return code


def _in_words(summary: dict[str, Any]) -> str:
    looked = summary["looked_samples"]
    looking = f" and looked at {looked:,}" if looked else ""
    return (
        f"{summary['method']} at budget {summary['budget']:g}: test accuracy "
        f"{summary['test_accuracy']:.4f} after {summary['steps']:,} steps, trained on "
        f"{summary['trained_samples']:,} samples{looking}, {summary['flops']:.3g} flops, "
        f"{summary['seconds']:.1f} s\nrecord: {summary['record']}"
    )


@contextlib.contextmanager
def _terminate_as_interrupt(told: threading.Event | None = None) -> Iterator[None]:
    """Let a polite request to end stop a run as Ctrl-C does.

    An exception from a signal can fall into a place that swallows it. With ``told``, the
    request is only noted there, and the run asks for it between two steps.
    """

    def interrupt(number: int, frame: object) -> None:
        if told is None:
            raise KeyboardInterrupt
        told.set()

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(plain(content), allow_nan=False))


def _say(message: str) -> None:
    """Say one line; what a name brings along of line breaks and terminal codes is shown as such."""
    print(f"budgetlab: {one_line(message)}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _say(str(message))
            command = _parse(arguments)
            return command.run() if command is not None else DONE
    except InputError as error:
        _say(str(error))
        return BAD_INPUT
    except RunError as error:
        _say(str(error))
        return FAILED
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        _say(f"{where}{error.strerror or error}")
        return FAILED if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else BAD_INPUT
    except MemoryError:
        _say("out of memory: use fewer samples, such as with --limit, or close other programs")
        return FAILED
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED


Command = Train | Resume | Sweep | Compare | Report | List | Demo


def _with_preset(arguments: list[str]) -> list[str]:
    """Add what a preset sets and the command line does not."""
    from budgetlab import presets

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    try:
        name = parser.parse_known_args(arguments)[0].preset
    except argparse.ArgumentError:
        name = None
    if not name:
        return arguments
    there = {word.partition("=")[0].replace("_", "-") for word in arguments}
    added = {f"--{k.replace('_', '-')}": str(v) for k, v in presets.settings(name).items()}
    return [*arguments, *(w for flag, v in added.items() if flag not in there for w in (flag, v))]


def _parse(arguments: list[str]) -> Command | None:
    """Read the command; None where only help was asked for."""
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
    """Turn the parser's framed message into one sentence, with the nearest match."""
    lines = [line.strip("│ \t") for line in box.splitlines()[1:]]
    # A title, the message, and advice, with rules in between; only ASCII where need be.
    lines = list(itertools.dropwhile(_is_rule, lines))
    text = " ".join(itertools.takewhile(lambda line: not _is_rule(line), lines))
    text = text or "the command cannot be read"
    flags = [f"--{name.replace('_', '-')}" for name in RunConfig.__dataclass_fields__]
    own = ("preset", "json", "baseline", "workers", "scheduler", "retry", "plan", "help")
    known = [*flags, *(f"--{name}" for name in own)]
    commands = [command.__name__.lower() for command in get_args(Command)]
    given = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    hints = [get_close_matches(word, known, n=1) for word in given if word not in known]
    if arguments and arguments[0] not in commands:
        hints.append(get_close_matches(arguments[0], commands, n=1))
        text = f"unknown command '{arguments[0]}', choose one of {', '.join(commands)}"
    near = [f"; did you mean {hint[0]}?" for hint in hints if hint]
    return f"{text.split(' Perhaps')[0].rstrip('.')}{''.join(near)} (see budgetlab --help)"


def _is_rule(line: str) -> bool:
    return not line.strip("─-╰╯ ")


if __name__ == "__main__":
    sys.exit(main())
