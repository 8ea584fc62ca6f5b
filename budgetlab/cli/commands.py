"""The commands: dataclasses whose fields are the options and whose ``run`` does the work."""

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError, counted, known, one_line
from budgetlab.records import plain
from budgetlab.sweeps.grid import GridSettings

if TYPE_CHECKING:
    from budgetlab import sweeps
    from budgetlab.training import Run

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
Json = Annotated[bool, arg(help="Print one JSON object on standard output.")]


@dataclass
class Train:
    """Train once within a budget and write a record."""

    config: Annotated[RunConfig, arg(name="")]
    preset: str = ""
    """Named set of defaults, scale-model or paper; options that you give override it."""
    json: Json = False

    def run(self) -> int:
        """Train and return the exit code."""
        from budgetlab.training import Run

        return _train(
            Run(self.config.replace(method=_canonical_method(self.config.method))), self.json
        )


@dataclass
class Resume:
    """Resume a stopped run from its last complete epoch, or extend a finished one."""

    record: Positional[Path]
    """Folder of the record."""
    data_root: Path | None = None
    """Folder for downloads and caches, if not the one named in the record."""
    dataset: str = ""
    """New location of the same data, if it was moved: folder:PATH or npz:PATH."""
    epochs: int = 0
    """Extend a finished run to the budget of this many epochs, in a new record beside it."""
    method: str = ""
    """Your own method, MODULE:METHOD, as it was given to train."""
    json: Json = False

    def run(self) -> int:
        """Resume and return the exit code."""
        from budgetlab.training import Run

        _canonical_method(self.method)
        run = Run.resume(
            self.record, data_root=self.data_root, dataset=self.dataset or None,
            epochs=self.epochs or None,
        )  # fmt: skip
        return _train(run, self.json)


@dataclass
class Sweep:
    """Train every combination of settings, each with one value or several.

    Finished runs are kept, interrupted ones are resumed, and failures are reported.
    """

    grid: Annotated[Any, arg(name="", constructor=GridSettings)] = field(
        default_factory=GridSettings
    )
    preset: str = ""
    """Named set of defaults, scale-model or paper; options that you give override it."""
    workers: int | Literal["auto"] = 1
    """Worker processes on this machine, one thread each; auto: one per GPU, or one per core."""
    scheduler: str = ""
    """Address of a Dask scheduler to train on, such as tcp://host:8786."""
    retry: bool = False
    """Try failed runs again."""
    plan: bool = False
    """Show what would be trained and about how long it would take, without training."""
    json: Json = False

    def run(self) -> int:
        """Train the remaining runs and return the exit code."""
        from budgetlab.sweeps import sweep

        settings = vars(self.grid) | {
            "method": [_canonical_method(one) for one in self.grid.method]
        }
        runs = sweep(workers=self.workers, scheduler=self.scheduler, retry=self.retry, **settings)
        code = DONE if self.plan else _sweep(runs)
        if self.json:
            content = {"runs": len(runs), "counts": runs.counts, "cost_left": runs.cost_left,
                       "seconds_left": runs.seconds_left, "summaries": runs.rows}  # fmt: skip
            _print_json(content)
        else:
            print(_plan_text(runs) if self.plan else _sweep_text(runs))
        return code


def _sweep(runs: "sweeps.Sweep") -> int:
    try:
        with _terminate_as_interrupt():
            for _ in runs:
                pass
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return INTERRUPTED
    except RunError as error:
        say(str(error))
        return FAILED
    return FAILED if runs.failed else DONE


def _sweep_text(runs: "sweeps.Sweep") -> str:
    counts = ", ".join(f"{count} {status}" for status, count in runs.counts.items())
    kept = sum(row["how"] == "kept" and row["status"] == "finished" for row in runs.rows)
    lines = [f"{counted(len(runs), 'run')}: {counts}" + (f" ({kept} from before)" if kept else "")]
    lines += [f"failed: {name}: {reason}" for name, reason in runs.failed.items()]
    if runs.failed:
        lines.append("to try these again: the same command with --retry")
    elif runs.records:
        lines.append(f"to compare: budgetlab compare {runs.runs[0].out}")
    return "\n".join(lines)


def _plan_text(runs: "sweeps.Sweep") -> str:
    lines = [
        f"{row['status']:9} {name}" + (f": {row['message']}" if row["status"] == "failed" else "")
        for name, row in zip(runs.names, runs.rows, strict=True)
    ]
    seconds = runs.seconds_left
    about = "" if seconds is None else f", about {seconds / 60:,.1f} minutes of training"
    return "\n".join([*lines, f"left: {runs.cost_left:,.0f} samples to train on{about}"])


@dataclass
class Compare:
    """Compare methods over seeds: n, mean, spread, paired difference, interval, p."""

    records: Positional[tuple[Path, ...]]
    """Records, or folders that contain records."""
    baseline: tuple[str, ...] = ("unif-SGD",)
    """Methods to compare the others with."""
    out: Path | None = None
    """Also write the table to a file: .csv, .md or .tex."""
    json: Json = False

    def run(self) -> int:
        """Compare and return the exit code."""
        from budgetlab import analysis

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
    """Write a self-contained HTML page with tables and figures."""

    records: Positional[tuple[Path, ...]]
    """Records, or folders that contain records."""
    out: Path = Path("report.html")
    """File to write."""

    def run(self) -> int:
        """Write the page and return the exit code."""
        from budgetlab import report

        print(report.write(self.records, self.out))
        return DONE


@dataclass
class Inspect:
    """Load data and report splits, classes, copies and oddities; optionally, by short training
    runs, also probably wrong labels and the augmentation that suits best."""

    dataset: Positional[str]
    """folder:PATH, npz:PATH, or a built-in name."""
    limit: int = 0
    """Use only this many training samples; 0 uses all."""
    image_size: int = 0
    """Side length of the images of folder:, in pixels; 0 keeps small ones and makes others 32."""
    flip: str = "auto"
    """Whether images may be mirrored: yes, no, or auto."""
    drop_copies: str = "none"
    """Copies of other images to leave out of the training set: none, exact or near."""
    edits: str = ""
    """CSV file with samples to drop, relabel or mark."""
    data_root: Path = Path("data")
    """Folder for downloads and caches."""
    augmentations: bool = False
    """Also compare no augmentation, crops, flips, and crops with flips, in short training runs."""
    suspects: Literal["none", "folds", "threshold"] = "none"
    """Also list labels that are probably wrong, by held-out folds or by threshold samples."""
    out: Path | None = None
    """Also write the suspects to a file: .csv, .md or .tex."""
    epochs: int = 30
    """Epochs of these runs; for this and the next three, use the values you will train with."""
    batch_size: int = 128
    lr: float = 0.1
    model: str = "auto"
    json: Json = False

    def run(self) -> int:
        """Inspect and return the exit code."""
        from budgetlab import analysis, data
        from budgetlab.analysis.tables import table_file

        # Before the training, whose result would be lost.
        if self.out is not None and table_file(self.out) and self.suspects == "none":
            raise InputError(f"'{self.out}' is for suspects: give --suspects folds or threshold")
        splits = data.load(
            self.dataset, limit=self.limit, size=self.image_size or None, flip=self.flip,
            drop_copies=self.drop_copies, edits=self.edits, root=self.data_root, progress=False,
        )  # fmt: skip
        assert splits.intake is not None
        said, show = splits.intake.to_dict(), (lambda *_: None) if self.json else print
        show(splits.intake)
        settings: dict[str, Any] = {"epochs": self.epochs, "batch_size": self.batch_size,
                                    "lr": self.lr, "model": self.model, "budget": 1.0}  # fmt: skip
        if self.augmentations:
            arms = analysis.compare_augmentations(splits, **settings).reset_index()
            said |= {"augmentations": arms.to_dict("records"), "advice": arms.attrs["advice"]}
            show(f"{analysis.table(arms)}\n{arms.attrs['advice']}")
        if self.suspects != "none":
            found = analysis.find_suspects(splits, by=self.suspects, **settings)
            said |= {"suspects": found.to_dict("records")} | found.attrs
            if self.out is not None:
                analysis.export(found, self.out)
            show(f"{analysis.table(found.head(20))}\n{found.attrs['note']}")
        if self.json:
            _print_json(said)
        return DONE


@dataclass
class List:
    """List the values that an option accepts."""

    what: Positional[str]
    """datasets, models, methods, augmentations, schedules, presets or measures."""
    method: tuple[str, ...] = ()
    """Your own methods to include, each MODULE:METHOD."""
    json: Json = False

    def run(self) -> int:
        """Print the list and return the exit code."""
        for method in self.method:
            _canonical_method(method)
        described = _described(self.what)
        width = max(map(len, described))
        if self.json:
            _print_json(described)
        else:
            print("\n".join(f"{name:{width}}  {text}" for name, text in described.items()))
        return DONE


@dataclass
class Demo:
    """Train a dozen small networks on rendered images, print a table, write a page of figures."""

    out: Path = Path("demo")
    """Folder for records and page."""

    def run(self) -> int:
        """Run the demo and return the exit code."""
        from budgetlab import demo

        return demo.main(self.out)


def _described(what: str) -> dict[str, str]:
    from budgetlab import analysis, augment, budget, config, data, methods, models

    measures = {row.measure: row.meaning + f" ({row.hard} is hard)" * bool(row.hard)
                for row in analysis.described().itertuples()}  # fmt: skip
    lists = {
        "datasets": data.describe(),
        "models": models.describe(),
        "methods": methods.describe(),
        "augmentations": augment.describe(),
        "schedules": {name: text for name, (text, _) in budget.SCHEDULES.items()},
        "presets": config.describe(),
        "measures": measures,
    }
    return lists[known("list", what, lists)]


def _canonical_method(method: str) -> str:
    """Return the canonical name of a method, importing one written ``module:method`` first."""
    from budgetlab import methods, samplers

    if ":" not in method:
        try:
            return methods.canonical(method) if method else method
        except InputError as error:
            own = "one of your own is written MODULE:METHOD, or FILE.py:METHOD"
            raise InputError(f"{error}; {own}") from None

    return samplers.from_module(method)


def _train(run: "Run", as_json: bool) -> int:
    """Train to the end and report the result, or how to resume after an interruption."""
    from budgetlab.training import finish

    code = DONE
    stop_requested = threading.Event()

    def end_if_told(run: "Run") -> None:
        if stop_requested.is_set():
            raise KeyboardInterrupt

    run.on_step = end_if_told
    try:
        with _terminate_as_interrupt(stop_requested):
            finish(run)
    except KeyboardInterrupt:
        say(f"stopped; to go on: budgetlab resume {run.writer.path}")
        code = INTERRUPTED
    except RunError as error:
        say(str(error))
        code = FAILED
    summary = run.summary()
    if as_json:
        _print_json(summary)
    elif code == DONE:
        print(_summary_text(summary))
    return code


def _summary_text(summary: dict[str, Any]) -> str:
    looked = summary["looked_samples"]
    looking = f" and looked at {looked:,}" if looked else ""
    accuracy, by_class = summary["test_accuracy"], summary["test_class_accuracy"]
    # With unbalanced classes, the mean over samples alone would mislead.
    uneven = by_class is not None and abs(by_class - accuracy) > 0.001
    mean = f" ({by_class:.4f} as a mean over the classes)" if uneven else ""
    return (
        f"{summary['method']} at budget {summary['budget']:g}: test accuracy "
        f"{accuracy:.4f}{mean} after {summary['steps']:,} steps, trained on "
        f"{summary['trained_samples']:,} samples{looking}, {summary['flops']:.3g} flops, "
        f"{summary['seconds']:.1f} s\nrecord: {summary['record']}"
    )


@contextlib.contextmanager
def _terminate_as_interrupt(told: threading.Event | None = None) -> Iterator[None]:
    """Let SIGTERM stop a run as Ctrl-C does.

    An exception raised by a signal handler may land in code that swallows it. With ``told``,
    the handler only sets the event, which the run checks between steps.
    """

    def interrupt(number: int, frame: object) -> None:
        if told is None:
            raise KeyboardInterrupt
        told.set()

    here = threading.current_thread() is threading.main_thread()  # only it may set handlers
    before = signal.signal(signal.SIGTERM, interrupt) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(plain(content), allow_nan=False))


def say(message: str) -> None:
    """Print one line to standard error, with line breaks and terminal codes escaped."""
    print(f"budgetlab: {one_line(message)}", file=sys.stderr)


Command = Train | Resume | Sweep | Compare | Report | Inspect | List | Demo
