"""A run, as one call that trains or as an iterator over epochs; both write a record."""

import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Generator, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, Unpack

import pandas as pd
from torch import Tensor, nn
from tqdm.auto import tqdm

from budgetlab import methods, models
from budgetlab.budget import steps_per_epoch
from budgetlab.config import DATA_FIELDS, RunConfig, Settings, preset_settings, takes_settings
from budgetlab.data import Splits
from budgetlab.devices import choose_device, choose_precision, describe_hardware, using_threads
from budgetlab.errors import InputError, RunError, counted
from budgetlab.records import Record, RecordWriter, open_record
from budgetlab.records.writer import ExclusiveUse, only_iterator
from budgetlab.training import failures, resume, setup
from budgetlab.training.loop import Loop

OnEpoch = Callable[[dict[str, Any]], None]
Model = nn.Module | Callable[[], nn.Module]
BAR = "{percentage:3.0f}% of the budget |{bar}| {elapsed} < {remaining}{postfix}"


@takes_settings
def train(
    method: str | RunConfig | None = None,
    *,
    splits: Splits | None = None,
    model: str | Model | None = None,
    preset: str | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **settings: Unpack[Settings],
) -> Record:
    """Train until the budget is spent, and return the record.

    Raises InputError if a name or value is invalid, data is missing, or the parts do not fit, and
    RunError if training fails after it has started; the record says why.

    Parameters
    ----------
    method
        Name of a sampling method, as ``budgetlab list methods`` shows them; or a whole run, a
        :class:`budgetlab.RunConfig`, whose fields other settings override.
    splits
        Data already loaded, or your own by :meth:`budgetlab.Splits.of`; it must match the settings.
    model
        Name of a network, or a custom one as for :class:`Run`.
    preset
        Name of a preset, such as ``scale-model``; explicit settings override it.
    progress, on_epoch
        Show a progress bar and notes; a function to call with the record's row of every epoch.
    **settings
        Fields of :class:`budgetlab.RunConfig`, which documents them.

    >>> record = bl.train("p-SGD", budget=0.2, epochs=10)  # doctest: +SKIP
    >>> record.summary["test_accuracy"]  # doctest: +SKIP
    """
    given: dict[str, Any] = dict(settings)
    if isinstance(method, str):
        given["method"] = method
    elif not isinstance(method, RunConfig | None):
        raise InputError(
            f"{method!r} is not a method: give the name of one, such as 'p-SGD', or a RunConfig; "
            "data goes into splits=, a network into model=, your own score under "
            '@bl.sampler("name")'
        )
    if isinstance(model, str):
        given["model"], model = model, None
    base = {} if method is None or isinstance(method, str) else method.to_dict()
    chosen = preset_settings(preset) if preset else {}
    if splits is not None:
        chosen = {name: value for name, value in chosen.items() if name not in DATA_FIELDS}
    config = RunConfig.from_dict(base | chosen | given)
    run = Run(config, splits=splits, model=model, asked=given)
    return finish(run, progress=progress, on_epoch=on_epoch)


def finish(run: "Run", *, progress: bool = True, on_epoch: OnEpoch | None = None) -> Record:
    """Train what is left of a run, with an optional progress bar."""
    for note in run.notes if progress else ():
        tqdm.write(note, file=sys.stderr)
    with tqdm(total=100, bar_format=BAR, smoothing=0, disable=not progress) as bar:
        asked_for = run.on_step

        def show(run: Run) -> None:
            bar.update(100 * run.budget.share_spent(run.ledger) - bar.n)
            if asked_for is not None:
                asked_for(run)

        bar.update(100 * run.budget.share_spent(run.ledger))
        run.on_step = show
        for row in run:
            if on_epoch is not None:
                on_epoch(row)
            accuracy = row["test_accuracy"]
            known = f", accuracy {accuracy:.3f}" if accuracy == accuracy else ""
            bar.set_postfix_str(f"epoch {row['epoch']}{known}")
    return run.record


class Run:
    """One budgeted training run.

    Iterating trains: each turn is one epoch and yields its row of the record. You may break at any
    time: iterating again, or :meth:`resume`, continues from the last whole epoch.

    Parameters
    ----------
    config, splits
        Configuration of the run, and its data if already loaded.
    model
        A custom network from normalised float samples to logits: a module, which is copied and not
        changed, or a function without arguments that makes one. Records name it ``own:CLASS-HEX``.
    on_step
        Called with the run after every step, to show progress; it must not affect training.
    asked
        Names of the settings given explicitly: data that was loaded with another value is refused
        for these even if they are at their default.

    Attributes
    ----------
    state_seconds
        Seconds between two saved states; 0 saves one after every epoch. A killed run loses at most
        that much; one stopped between two epochs saves its last state.
    """

    state_seconds: float = 0.0

    def __init__(
        self,
        config: RunConfig,
        *,
        splits: Splits | None = None,
        model: Model | None = None,
        on_step: Callable[["Run"], None] | None = None,
        asked: Collection[str] = (),
    ):
        setup.require_new(config)
        # Check what is possible before loading the data.
        named = config if model is None else config.replace(model="auto")
        config = setup.canonical_names(named, own_data=splits is not None)
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        config, self.splits = setup.resolve(config, splits, asked)
        if model is not None:
            config = config.replace(model=setup.named(model, self.splits))
        self.config = config
        self.on_step = on_step
        self._build()
        setup.require_disk(config, len(self.splits.train))
        self.writer = self._create_record()
        self._exclusive = ExclusiveUse(self.writer.path)
        self.epoch = 0

    def _build(self, threads: int | None = None) -> None:
        config, train = self.config, self.splits.train
        held_out = {"test": self.splits.test, "val": self.splits.val}
        try:
            name = models.choose(config.model, train.sample_shape, self.device)
            setup.require_fit(config, name, self.splits, self.device, self.precision)
            self.loop = Loop(
                config, train, self.device, self.precision, val=self.splits.val, threads=threads
            )
            self.held_out = {
                name: part.to(self.device) for name, part in held_out.items() if part is not None
            }
        except (MemoryError, RuntimeError) as error:
            said = failures.describe_setup_failure(error, config, train, self.device)
            if said is None:
                raise
            raise RunError(said) from error
        self._consistent = True
        self._predicted: Tensor | None = None
        self._state_saved, self._state_epoch = -math.inf, 0

    @property
    def notes(self) -> list[str]:
        """Sentences on what was chosen and which files were skipped."""
        config, unit, skipped = self.config, self.config.budget_unit, self.splits.skipped
        size, batch = len(self.splits.train), config.batch_size
        words = {"iterations": "steps", "samples": "samples", "flops": "flops", "seconds": "s"}
        form = ".3g" if unit in ("flops", "seconds") else ",.0f"
        notes = [
            f"{config.method} on {config.dataset_name}: {size:,} samples, model "
            f"{self.loop.model_name}, {str(self.precision).removeprefix('torch.')} on "
            f"{self.device}, budget {config.budget:g} of {config.epochs} epochs in {unit} "
            f"(at most {self.budget.limit:{form}} {words[unit]})"
        ]
        share = steps_per_epoch(size, config.budget, batch) / steps_per_epoch(size, 1, batch)
        if not math.isclose(share, config.budget, rel_tol=0.05):
            steps = f"{share:.1%} of the steps of the full run, not {config.budget:.1%}"
            notes.append(f"an epoch trains whole batches of {batch} only: {steps}")
        notes += setup.notes_on_test(self.splits)
        if skipped:
            notes.append(f"skipped: {counted(len(skipped), 'file')}, first {skipped[0]}")
        return notes

    def _create_record(self) -> RecordWriter:
        train, config = self.splits.train, self.config
        return RecordWriter.create(
            config,
            metadata=train.metadata.assign(label=train.y.cpu().numpy()),
            data=setup.about_data(config.dataset_name, self.splits),
            hardware=describe_hardware(self.device, self.precision, self.loop.threads)
            | models.about(self.loop.model_name) | methods.about(config.method),
        )  # fmt: skip

    @classmethod
    def resume(
        cls,
        path: Path | str,
        *,
        splits: Splits | None = None,
        model: Model | None = None,
        data_root: Path | str | None = None,
        dataset: str | None = None,
        epochs: int | None = None,
        on_step: Callable[["Run"], None] | None = None,
    ) -> "Run":
        """Resume a run from the last whole epoch of its record.

        On the CPU the result is bit for bit that of an uninterrupted run with the same number of
        threads. A custom network must be given again with ``model=``. The data is read from where
        the record says, and nothing is written there; ``data_root`` reads or downloads it
        elsewhere, and ``dataset`` is the new location of your own data.

        With ``epochs`` a finished run is extended to the budget of that many epochs, in a new
        record beside the finished one. From there on the learning rate is that of a run of this
        length at this progress, so it first rises, unlike in a run of this length from the start.
        Raises InputError if there is not a record, its network is not given again, or it cannot be
        extended, and RunError if the data has changed.
        """
        path = Path(os.path.expanduser(path))
        if epochs is not None:
            path = resume.extend(path, epochs)
            try:
                return cls.resume(path, splits=splits, model=model, data_root=data_root,
                                  dataset=dataset, on_step=on_step)  # fmt: skip
            except BaseException:
                shutil.rmtree(path)
                raise
        run = cls.__new__(cls)
        run._exclusive = ExclusiveUse(path)
        record = open_record(path)
        if record.status != "finished":
            # It will be written to: no part may be damaged or lie outside the record.
            record.require_readable()
        run.on_step = on_step
        run.config = resume.recorded_config(record)
        resume.require_model(path, run.config.model, model)
        methods.require_same_code(path, run.config.method, record.method_code)
        run.device = choose_device(run.config.device)
        run.precision, threads = resume.recorded_precision(record, run.config, run.device)
        run.splits = resume.load_recorded(record, run.config, splits, data_root, dataset)
        resume.require_model(path, run.config.model, model, run.splits)
        run._build(threads)
        run.epoch = run._state_epoch = resume.load_state(run.loop, record.path / "state.pt")
        run.writer = RecordWriter.reopen(record.path, run.epoch)
        return run

    @property
    def record(self) -> Record:
        """The record in its current state."""
        return open_record(self.writer.path)

    ledger = property(attrgetter("loop.ledger"), doc="Costs of training so far.")
    budget = property(attrgetter("loop.budget"), doc="Limit on the costs.")
    history = property(attrgetter("loop.history"), doc="Statistics of every training sample.")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train, yielding one row per finished epoch; the record is held meanwhile.

        A later iterator replaces an earlier one.
        """
        return only_iterator(self.writer.path, self._epochs())

    def _epochs(self) -> Generator[dict[str, Any], None, None]:
        if not self._consistent:
            raise RunError(
                f"interrupted within an epoch: go on with Run.resume({str(self.writer.path)!r})"
            )
        if self.writer.about["status"] == "finished":
            return
        try:
            with self._exclusive.taken():
                yield from self._locked_epochs()
        except OSError as error:
            raise RunError(self._describe_failure(error)) from error

    def _locked_epochs(self) -> Iterator[dict[str, Any]]:
        try:
            self.writer.set_status("running", summary=self.summary("running"))
            while not self.loop.finished:
                with using_threads(self.loop.threads):
                    row = self._train_epoch()
                yield row
            setup.save_outputs(self.writer, self.loop, self.splits.train, self._predictions())
            self.writer.set_status("finished", "", self.summary("finished"))
        except (KeyboardInterrupt, GeneratorExit):
            self._end("stopped", "interrupted; resume to go on")
            raise
        except RunError as error:
            self._end("failed", str(error))
            raise
        except BaseException as error:
            said = self._describe_failure(error)
            self._end("failed", said or f"{type(error).__name__}: {error}")
            if said is None:
                raise
            raise RunError(said) from error

    def _describe_failure(self, error: BaseException) -> str | None:
        return failures.describe_failure(
            error, self.loop.engine, self.loop.model_name, self.writer.path, len(self.writer.epochs)
        )

    def _end(self, status: str, message: str) -> None:
        # A full disk must not hide the reason, which the caller raises.
        with contextlib.suppress(OSError):
            if self._consistent and self._state_epoch < self.epoch:
                self._save_state(self.epoch)
            self.writer.set_status(status, message, self.summary(status))

    def _train_epoch(self) -> dict[str, Any]:
        number = self.epoch + 1
        self._consistent = False
        row = self.loop.train_epoch(number, lambda: self.on_step and self.on_step(self))
        every = self.config.evaluate_every
        evaluated = self.loop.finished or (every > 0 and number % every == 0)
        for name, samples in self.held_out.items():
            row[f"{name}_loss"] = row[f"{name}_accuracy"] = math.nan
            if evaluated:
                found = self.loop.engine.evaluate(samples)
                row[f"{name}_loss"], row[f"{name}_accuracy"] = found.loss, found.accuracy
                if name == "test":
                    self._predicted = found.predicted
        self.writer.append_epoch(row, self.loop.epoch_arrays())
        if time.monotonic() - self._state_saved >= self.state_seconds or self.loop.finished:
            self._save_state(number)
        self.epoch = number
        self._consistent = True
        return row

    def _save_state(self, epoch: int) -> None:
        state = {"epoch": epoch, **self.loop.state_dict()}
        self.writer.save("state.pt", setup.packed(state))
        self._state_saved, self._state_epoch = time.monotonic(), epoch

    def _predictions(self) -> pd.DataFrame:
        """Return the test samples with the predictions of the evaluation after the last epoch."""
        test = self.held_out["test"]
        if self._predicted is None:  # resumed after that evaluation
            self._predicted = self.loop.engine.evaluate(test).predicted
        label, predicted = test.y.cpu().numpy(), self._predicted.cpu().numpy()
        return self.splits.test.metadata.assign(label=label, predicted=predicted)

    def summary(self, status: str | None = None) -> dict[str, Any]:
        """Return what ``budgetlab train --json`` prints.

        ``test_accuracy`` is that of the last epoch, never the best one; None if that epoch was not
        evaluated (``evaluate_every``). ``test_class_accuracy`` is the mean over the classes, in
        which rare and frequent ones count the same; None before the end.
        """
        status, by_class = status or self.writer.about["status"], None
        if status == "finished" and self._predicted is None:
            by_class = self.writer.about["summary"].get("test_class_accuracy")
        elif status == "finished":
            table = self._predictions()
            right = table["label"] == table["predicted"]
            by_class = float(right.groupby(table["label"]).mean().mean())
        return {
            "record": str(self.writer.path),
            "model": self.loop.model_name,
            **self.loop.summary(self.writer.epochs),
            "test_class_accuracy": by_class,
            "status": status,
        }
