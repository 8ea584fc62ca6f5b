"""Run a session on a GPU: tests, determinism, step times, then the paper's claims run by run.

    python -m experiments.gpu --minutes M --out DIR [--images FOLDER_OR_ARCHIVE] [--plan]

Parts run in a fixed order, each with a time limit; everything done by the end is kept in DIR:
``log.txt`` lists what was completed and what was not, each part has a folder, and the tables grow
with every finished run. The same command continues where the last session stopped. ``--plan``
shows what would be done; ``--toy`` rehearses on a CPU. Nothing is downloaded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.records import write_atomically
from experiments import gpu_runs, tables
from experiments.gpu_checks import dataset_of

__all__ = ["COMMANDS", "Command", "Log", "main"]

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
TABLES = {"paper": "paper.csv", "scale": "scale_model_gpu.csv"}
STATUSES = {"done": "done", "cut": "cut off by the clock", "failed": "FAILED", "out": "left out"}

now = time.time


@dataclass(frozen=True)
class Command:
    """A part that runs a command, limited to a share of the session and a number of minutes."""

    about: str
    arguments: tuple[str, ...]
    share: float
    minutes: float
    expected: float
    """Expected seconds on an H100: an estimate."""
    toy: tuple[str, ...] = ("--toy",)
    """Arguments added for a rehearsal."""


CHECK, SPEED = ("-m", "experiments.gpu_checks"), ("-m", "benchmarks.speed")
COMMANDS = {
    "images": Command("unpack and decode the images", (*CHECK, "images"), 0.2, 3, 90),
    "tests": Command(
        "the tests marked gpu",
        ("-m", "pytest", "-m", "gpu", "-rA", "-W", "default", "-p", "no:cacheprovider"),
        0.15, 4, 40, (),
    ),
    "determinism": Command(
        "the same seed twice, bit for bit or not", (*CHECK, "determinism"), 0.05, 1, 35
    ),
    "steps": Command(
        "step times of ResNet-18, small and compact at batch 128 and 512, with graphs and "
        "without, beside a matrix product and, at 128, the usual loop",
        (*SPEED, "step"), 0.25, 4, 170,
    ),
    "importance": Command(
        "what importance and augmentation add to a step", (*SPEED, "importance", "augmenting"),
        0.1, 2, 60,
    ),
    "profile": Command("where the gaps are", (*CHECK, "profile"), 0.05, 1, 30),
    "bounds": Command(
        "a bare step as it is, compiled, and without batch norm", (*CHECK, "bounds"), 0.1, 2, 100
    ),
}  # fmt: skip


class Log:
    """Status and log of all parts: ``progress.json`` for the next session, ``log.txt`` to read."""

    def __init__(self, out: Path, toy: bool):
        self.out = out
        self.file = out / "progress.json"
        self.parts: dict[str, dict[str, str | int]] = {}
        self.lines: list[str] = []
        if self.file.is_file():
            told = json.loads(self.file.read_text())
            if told["toy"] != toy:
                raise InputError(
                    f"out '{out}' holds a {'rehearsal' if told['toy'] else 'session'}, which "
                    "cannot be mixed with the other: give another folder"
                )
            self.parts, self.lines = told["parts"], told["lines"]
        self.toy = toy

    def say(self, text: str) -> None:
        """Log a line with a time stamp."""
        self.lines.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}")
        print(self.lines[-1], file=sys.stderr, flush=True)
        self.write()

    def mark(self, part: str, status: str, said: str) -> None:
        """Record the outcome of a part."""
        self.parts.setdefault(part, {"attempts": 0}).update(status=status, said=said)
        self.say(f"{part}: {STATUSES[status]}. {said}")

    def write(self) -> None:
        """Write both files."""
        told = {"toy": self.toy, "parts": self.parts, "lines": self.lines}
        write_atomically(self.file, json.dumps(told, indent=1).encode())
        parts = [*COMMANDS, *TABLES]
        came = [f"{name:12} {self._became(name)}" for name in parts]
        text = "\n".join(["What came, and what did not", "", *came, "", *self.lines, ""])
        write_atomically(self.out / "log.txt", text.encode())

    def _became(self, part: str) -> str:
        became = self.parts.get(part, {})
        if "status" not in became:
            return "begun, and killed" if became else "not reached yet"
        return f"{STATUSES[str(became['status'])]}. {became['said']}"


def arguments_of(name: str, given: argparse.Namespace, folder: Path) -> list[str]:
    """Return the command line of a part."""
    command = COMMANDS[name]
    added = command.toy if given.toy else ()
    if name == "tests":
        files = [path for path in sorted((ROOT / "tests").glob("test_*.py"))
                 if "mark.gpu" in path.read_text(encoding="utf-8")]  # fmt: skip
        # In a rehearsal they are skipped anyway: one file is enough.
        return [PYTHON, *command.arguments, *map(str, files[-1:] if given.toy else files)]
    out = given.out if name == "images" else folder
    images = ["--images", str(given.images)] if name == "images" else []
    return [PYTHON, *command.arguments, *images, "--out", str(out), *added]


def run_command(name: str, given: argparse.Namespace, log: Log, end: float) -> None:
    """Run a part in a process that is stopped at its time limit; keep its output."""
    command = COMMANDS[name]
    attempt = int(log.parts.get(name, {}).get("attempts", 0)) + 1
    log.parts[name] = {"attempts": attempt}
    folder = given.out / (name if attempt == 1 else f"{name}-{attempt}")
    folder.mkdir(exist_ok=True)
    limit = min(60 * given.minutes * command.share, 60 * command.minutes, end - now())
    log.say(f"{name}: {command.about}; at most {limit:.0f} s")
    began = now()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Into a file: a pipe would stay open as long as any process that the part has started.
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            arguments_of(name, given, folder), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            status = "failed" if child.wait(max(0, limit)) else "done"
        except subprocess.TimeoutExpired:
            status = "cut"
        finally:
            child.kill()
            child.wait()
        output.seek(0)
        printed = output.read().decode(errors="replace")
    write_atomically(folder / "output.txt", printed.encode())
    last = next(iter(reversed(printed.strip().splitlines())), "it said nothing")
    log.mark(name, status, f"{last.strip(' =')} ({now() - began:.0f} s)")


def table_files(name: str, given: argparse.Namespace) -> list[Path]:
    """Return the files that hold the table of a plan."""
    return [folder / TABLES[name] for folder in (given.out, given.results) if folder is not None]


def run_plan(
    name: str, plan: list[RunConfig], given: argparse.Namespace, log: Log, workers: int,
    last: float, end: float,
) -> None:  # fmt: skip
    """Train the runs of a plan until the time is up."""
    log.parts.setdefault(name, {"attempts": 0})
    table = gpu_runs.Table(*table_files(name, given))
    log.say(f"{name}: {len(plan)} runs, {workers} side by side")
    gpu_runs.run_session(plan, table, given.out, workers=workers, last=last, end=end, say=log.say)
    there = sum(key in table.rows for key in map(tables.key, plan))
    status = "done" if there == len(plan) else "failed" if now() < last else "cut"
    log.mark(name, status, f"{there} of {len(plan)} runs are in {TABLES[name]}")


def run_session(given: argparse.Namespace) -> None:
    """Run the parts in turn until the time is up."""
    end = now() + 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    for leftover in given.out.glob(".*.*"):  # of a file that was being written
        leftover.unlink()
    log = Log(given.out, given.toy)
    where = "a CPU, a rehearsal" if given.toy else torch.cuda.get_device_name()
    log.say(f"a session of {given.minutes:g} minutes on {where}, torch {torch.__version__}")
    for name in filter(given.parts.__contains__, COMMANDS):
        if log.parts.get(name, {}).get("status") == "done" or now() >= end:
            continue
        if name == "images" and given.images is None:
            log.mark(name, "out", "no --images were given")
            continue
        run_command(name, given, log, end)
    # Leaves time to finish epochs and save states, so that the session ends on time.
    last = end - min(15.0, 6 * given.minutes)
    for name, (make, workers) in plans(given).items():
        if name not in given.parts:
            continue
        if now() >= last:
            break
        if log.parts.get("images", {}).get("status") != "done" and name == "paper":
            log.mark(name, "out", "there are no images to train on")
            continue
        run_plan(name, make(), given, log, workers, last, end)
    log.say("the time is up" if now() >= last else "all is done")


def plans(given: argparse.Namespace) -> dict[str, tuple[Callable[[], list[RunConfig]], int]]:
    """Return, for both plans, a function that lists the runs, and the number of workers."""
    dataset = dataset_of(given.images, given.out) if given.images else "shapes"
    root = str(given.out / "data")
    return {
        "paper": (
            lambda: [run for _, runs in gpu_runs.paper(dataset, toy=given.toy, data_root=root)
                     for run in runs], given.workers,
        ),
        "scale": (
            lambda: gpu_runs.scale(dataset, toy=given.toy, data_root=root),
            # The network is too small to keep a GPU busy: the CPU count sets the workers.
            given.workers if given.toy else max(given.workers, os.cpu_count() or 1),
        ),
    }  # fmt: skip


def show_plan(given: argparse.Namespace) -> None:
    """Print the plan with its expected duration."""
    dataset = dataset_of(given.images, given.out) if given.images else "folder:images"
    print(f"A session of {given.minutes:g} minutes. Seconds are estimates for an H100:")
    print(f"{gpu_runs.ASSUMED}\n")
    total = 0.0
    for name in filter(given.parts.__contains__, COMMANDS):
        command = COMMANDS[name]
        limit = min(given.minutes * command.share, command.minutes)
        total += min(command.expected, 60 * limit)
        print(f"{name:12} about {command.expected:4.0f} s, at most {60 * limit:4.0f} s: "
              f"{command.about}")  # fmt: skip
    known = {name: {key for file in table_files(name, given) for key in tables.read(file)["key"]}
             for name in TABLES}  # fmt: skip
    if "paper" in given.parts:
        there = "" if given.images else "; LEFT OUT without --images"
        print(f"\npaper: {given.workers} runs side by side, "
              f"without the {len(known['paper'])} that are in the table{there}")  # fmt: skip
        for stage, runs in gpu_runs.paper(dataset, toy=given.toy, data_root="data"):
            runs = [run for run in runs if tables.key(run) not in known["paper"]]
            seconds = sum(map(gpu_runs.expected_seconds, runs))
            total += seconds
            print(f"  {stage:45} {len(runs):3} runs, about {seconds:6,.0f} s, "
                  f"{total / 60:6.1f} minutes so far")  # fmt: skip
    if "scale" in given.parts:
        runs = [run for run in gpu_runs.scale(dataset, toy=given.toy, data_root="data")
                if tables.key(run) not in known["scale"]]  # fmt: skip
        hours = sum(map(gpu_runs.expected_seconds, runs)) / 3600
        print(
            f"\nscale: {len(runs):,} runs of the scale model and the map, about {hours:,.1f} hours"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a session, or print its plan; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder that holds all of it")
    parser.add_argument("--images", type=Path, help="folder of class folders, or a tar of one")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side")
    parts = [*COMMANDS, *TABLES]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts,
                        help="only these; paper and scale include images")  # fmt: skip
    parser.add_argument(
        "--results", type=Path, default=tables.RESULTS, help="where tables are kept too"
    )
    parser.add_argument("--plan", action="store_true", help="say what would be done; do nothing")
    parser.add_argument("--toy", action="store_true", help="a rehearsal on a CPU, at toy size")
    given = parser.parse_args(arguments)
    given.out = given.out.resolve()
    if given.images is not None and set(given.parts) & set(TABLES):
        given.parts = ["images", *given.parts]
    if given.toy:
        given.results = None
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if given.plan:
        show_plan(given)
        return 0
    if not given.toy and not torch.cuda.is_available():
        raise InputError(
            "no CUDA device is here: --toy rehearses on a CPU, --plan says what would be done"
        )
    run_session(given)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"gpu: {error}")
    except KeyboardInterrupt:
        sys.exit("gpu: stopped; the same command goes on from here")
