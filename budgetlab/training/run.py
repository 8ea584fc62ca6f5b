"""A run: an iterator over epochs that leaves a record behind."""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Generator, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from budgetlab import models
from budgetlab.budget import Budget, Ledger
from budgetlab.config import PRECISIONS, RunConfig
from budgetlab.data import Splits
from budgetlab.devices import (
    choose_device,
    choose_precision,
    describe_hardware,
    using_threads,
)
from budgetlab.errors import InputError, RunError, counted
from budgetlab.history import History
from budgetlab.records import Record, RecordWriter, open_record
from budgetlab.training import checkpoint, inputs, limits
from budgetlab.training.inputs import load_data
from budgetlab.training.loop import Loop

__all__ = ["Run", "load_data"]


class Run:
    """One budgeted training.

    Iterating trains: every turn is one epoch and yields its row of the record. Break
    whenever you like: the record stays valid, and iterating again, or
    :meth:`resume`, goes on from the last whole epoch.

    Parameters
    ----------
    config
        What to run.
    splits
        Data already loaded for this config; loaded if not inputs.
    model
        A network of your own: a module, which is copied and stays as it is, or a
        function without arguments that makes one. It takes normalised float samples
        and gives logits. The record knows it by a name, ``own:CLASS-HEX``.
    on_step
        Called after every step with the run, to show progress. It must not touch
        the training.
    asked
        Names of the settings that were asked for, where some are at their default: given
        data that was loaded with another value is refused then, too.

    Attributes
    ----------
    state_seconds
        Seconds between two states that resuming goes on from; 0 keeps one after every epoch.
        Where an epoch takes less time than writing all weights, a run that is killed may
        rather lose so much; one that is stopped between two epochs keeps its last.

    Raises
    ------
    InputError
        If a name is unknown, the data cannot be read, or the parts do not fit.
    """

    state_seconds: float = 0.0

    def __init__(
        self,
        config: RunConfig,
        *,
        splits: Splits | None = None,
        model: nn.Module | Callable[[], nn.Module] | None = None,
        on_step: Callable[["Run"], None] | None = None,
        asked: Collection[str] = (),
    ):
        if config.extended:
            raise InputError(
                f"extended {config.extended} is not a setting of a new run: train, and then go on "
                "with resume --epochs"
            )
        # What can be refused without the data is refused before it is loaded.
        named = config if model is None else config.replace(model="auto")
        config = inputs.with_known_names(named, own_data=splits is not None)
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        config, self.splits = inputs.resolve(config, splits, asked)
        if model is not None:
            config = config.replace(model=inputs.named(model, self.splits))
        self.config = config
        self.on_step = on_step
        self._build()
        limits.require_disk(config, len(self.splits.train))
        self.writer = self._create_record()
        self._exclusive = checkpoint.ExclusiveUse(self.writer.path)
        self.epoch = 0

    def _build(self, threads: int | None = None) -> None:
        config, train = self.config, self.splits.train
        if len(train.sample_shape) != 3 and config.augmentation not in ("none", "standard"):
            raise InputError(
                f"augmentation '{config.augmentation}' needs images, and '{config.dataset}' "
                "holds points: choose standard or none"
            )
        held_out = {"test": self.splits.test, "val": self.splits.val}
        with limits.at_the_start(config, train, self.device):
            name = models.choose(config.model, train.sample_shape, self.device)
            limits.require_room(config, name, self.splits, self.device, self.precision)
            self.loop = Loop(
                config, train, self.device, self.precision, val=self.splits.val, threads=threads
            )
            self.held_out = {
                name: part.to(self.device) for name, part in held_out.items() if part is not None
            }
        self._consistent = True
        self._predicted: Tensor | None = None
        self._state_saved, self._state_epoch = -math.inf, 0

    @property
    def notes(self) -> list[str]:
        """Sentences on what was chosen and what was passed over."""
        config = self.config
        hardware = describe_hardware(self.device, self.precision, self.loop.threads)
        notes = [
            f"{config.method} on {config.dataset_name}: {len(self.splits.train):,} samples, "
            f"model {self.loop.model_name}, {hardware['precision']} on {self.device}, "
            f"budget {config.budget:g} of {config.epochs} epochs in {config.budget_unit} "
            f"({self._limit_in_words()})"
        ]
        if self.splits.skipped:
            first = self.splits.skipped[0]
            notes.append(f"skipped: {counted(len(self.splits.skipped), 'file')}, first {first}")
        return notes

    def _limit_in_words(self) -> str:
        words = {"iterations": "steps", "samples": "samples", "flops": "flops", "seconds": "s"}
        limit, unit = self.budget.limit, self.config.budget_unit
        number = f"{limit:.3g}" if unit in ("flops", "seconds") else f"{limit:,.0f}"
        return f"at most {number} {words[unit]}"

    def _create_record(self) -> RecordWriter:
        train, test, val = self.splits.train, self.splits.test, self.splits.val
        return RecordWriter.create(
            self.config,
            metadata=train.metadata.assign(label=train.y.cpu().numpy()),
            data={
                "name": self.config.dataset_name,
                "fingerprint": self.splits.fingerprint,
                "val_fingerprint": self.splits.val_fingerprint,
                "classes": list(train.classes),
                "shape": list(train.sample_shape),
                "train": len(train),
                "test": len(test),
                "val": len(val) if val is not None else 0,
                "skipped": list(self.splits.skipped),
                "intake": self.splits.intake.to_dict() if self.splits.intake else {},
            },
            hardware=describe_hardware(self.device, self.precision, self.loop.threads)
            | models.about(self.loop.model_name),
        )

    @classmethod
    def resume(
        cls,
        path: Path | str,
        *,
        splits: Splits | None = None,
        model: nn.Module | Callable[[], nn.Module] | None = None,
        data_root: Path | str | None = None,
        dataset: str | None = None,
        epochs: int | None = None,
        on_step: Callable[["Run"], None] | None = None,
    ) -> "Run":
        """Go on with a run from the last whole epoch of its record.

        On the CPU the result is bit for bit that of a run never interrupted: it goes on
        with as many threads as it began with. A finished run has no epochs left. A network of
        your own has to be given again with ``model=``. The data is read where the record
        says, and nothing is written there; give ``data_root`` to have it elsewhere, or
        downloaded. Data of your own that was moved is found by ``dataset``; its fingerprint
        has to be the same.

        With ``epochs`` a finished run is extended, in a record of its own beside the finished
        one, to the budget of so many epochs. From there on the learning rate is that of a run
        of this length at this progress: it rises first, unlike in a run as long from the start.

        Raises
        ------
        InputError
            If there is no record, it was trained with a network of your own and that is
            not given again, or it cannot be extended.
        RunError
            If the data is not the same any more.
        """
        if epochs is not None:
            path = checkpoint.extend(Path(path), epochs)
            try:
                return cls.resume(path, splits=splits, model=model, data_root=data_root,
                                  dataset=dataset, on_step=on_step)  # fmt: skip
            except BaseException:
                shutil.rmtree(path)
                raise
        run = cls.__new__(cls)
        run._exclusive = checkpoint.ExclusiveUse(Path(path))
        record = open_record(path)
        if record.status != "finished":
            # Written to from now on: no part of it may be damaged, or lie anywhere else.
            record.require_whole()
        run.config = inputs.with_known_names(RunConfig.from_dict(record.config), own_data=True)
        inputs.require_model(path, run.config.model, model)
        run.device = choose_device(run.config.device)
        # What the hardware here would choose could be another format than the record's.
        recorded = record.about.get("hardware", {}).get("precision", run.config.precision)
        if recorded not in PRECISIONS:
            recorded = run.config.precision
        run.precision = choose_precision(recorded, run.device)
        run.on_step = on_step
        if splits is None:
            splits = inputs.load_again(
                path, run.config, data_root, "intake" in record.about["data"], dataset
            )
        data, val = record.about["data"], splits.val_fingerprint
        run.splits = inputs.as_recorded(splits, run.config.dataset, data.get("test", 0))
        # Older records do not say which samples they were validated on.
        recorded_val = data.get("val_fingerprint", val)
        if (run.splits.fingerprint, val) != (data.get("fingerprint"), recorded_val):
            raise RunError(
                f"the data '{run.config.dataset}' is not what record '{path}' was trained on: "
                "restore the data, or start a new run"
            )
        if model is not None:
            inputs.require_same(path, run.config.model, inputs.named(model, run.splits))
        run._build(_recorded_threads(record))
        run.epoch = run._state_epoch = checkpoint.load_state(run.loop, record.path / "state.pt")
        run.writer = RecordWriter.reopen(record.path, run.epoch)
        return run

    @property
    def record(self) -> Record:
        """The record as it stands."""
        return open_record(self.writer.path)

    @property
    def ledger(self) -> Ledger:
        """What has been spent."""
        return self.loop.ledger

    @property
    def budget(self) -> Budget:
        """What may be spent."""
        return self.loop.budget

    @property
    def history(self) -> History:
        """What has been learned of each sample."""
        return self.loop.history

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train; yields one row a finished epoch.

        The record is held meanwhile, so that nobody else trains it too. A later
        iterator takes the place of an earlier one.
        """
        return checkpoint.only_iterator(self.writer.path, self._epochs())

    def _epochs(self) -> Generator[dict[str, Any], None, None]:
        if not self._consistent:
            raise RunError(
                "this run was interrupted within an epoch: go on with "
                f"Run.resume({str(self.writer.path)!r})"
            )
        if self.writer.about["status"] == "finished":
            return
        try:
            with self._exclusive.taken():
                yield from self._held_epochs()
        except OSError as error:
            raise RunError(self._not_written(error)) from error

    def _held_epochs(self) -> Iterator[dict[str, Any]]:
        try:
            self.writer.set_status("running", summary=self.summary("running"))
            while not self.loop.finished:
                with using_threads(self.loop.threads):
                    row = self._train_epoch()
                yield row
            self._finish()
        except (KeyboardInterrupt, GeneratorExit):
            self._end("stopped", "interrupted; resume to go on")
            raise
        except RunError as error:
            self._end("failed", str(error))
            raise
        except BaseException as error:
            said = self._in_a_sentence(error)
            self._end("failed", said or f"{type(error).__name__}: {error}")
            if said is None:
                raise
            raise RunError(said) from error

    def _in_a_sentence(self, error: BaseException) -> str | None:
        """What went wrong, if it is one of the things that do."""
        if limits.no_memory(error):
            return limits.out_of_memory(error, self.loop.engine, self.loop.model_name)
        if limits.device_lost(error):
            return limits.device_failed(
                error, self.config, self.writer.path, len(self.writer.epochs)
            )
        return self._not_written(error) if isinstance(error, OSError) else None

    def _not_written(self, error: OSError) -> str:
        return limits.not_written(error, self.writer.path, len(self.writer.epochs))

    def _end(self, status: str, message: str) -> None:
        # A full disk must not hide the reason, which the caller raises.
        with contextlib.suppress(OSError):
            if self._consistent and self._state_epoch < self.epoch:
                self._save_state(self.epoch)
            self.writer.set_status(status, message, self.summary(status))

    def _show_step(self) -> None:
        if self.on_step is not None:
            self.on_step(self)

    def _train_epoch(self) -> dict[str, Any]:
        number = self.epoch + 1
        self._consistent = False
        row = self.loop.train_epoch(number, self._show_step)
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
        self.writer.save_state(checkpoint.save_state(self.loop, epoch))
        self._state_saved, self._state_epoch = time.monotonic(), epoch

    def _finish(self) -> None:
        self.writer.save_model(checkpoint.save_weights(self.loop.engine.network))
        picked = checkpoint.pick_thumbnails(self.splits.train, self.history)
        if picked is not None:
            self.writer.save_thumbnails(*picked)
        self.writer.save_predictions(self._predictions())
        self.writer.set_status("finished", "", self.summary("finished"))

    def _predictions(self) -> pd.DataFrame:
        """The test samples with what the last evaluation, after the last epoch, predicted."""
        if self._predicted is None:  # resumed after it
            self._predicted = self.loop.engine.evaluate(self.held_out["test"]).predicted
        label, predicted = (t.cpu().numpy() for t in (self.held_out["test"].y, self._predicted))
        return self.splits.test.metadata.assign(label=label, predicted=predicted)

    def _class_accuracy(self, status: str) -> float | None:
        """Mean over classes of the test accuracy; None before the end."""
        if status != "finished":
            return None
        if self._predicted is None:
            return self.writer.about["summary"].get("test_class_accuracy")
        table = self._predictions()
        right = table["label"] == table["predicted"]
        return float(right.groupby(table["label"]).mean().mean())

    def summary(self, status: str | None = None) -> dict[str, Any]:
        """What ``budgetlab train --json`` prints.

        ``test_accuracy`` is that of the last epoch, never the best one seen; None where
        that epoch was not evaluated (``evaluate_every``). ``test_class_accuracy`` is the mean
        over the classes, which counts a rare one as much as a frequent one; None before the end.
        """
        status = status or self.writer.about["status"]
        return {
            "record": str(self.writer.path),
            "model": self.loop.model_name,
            **self.loop.stream.summary(self.writer.epochs),
            "test_class_accuracy": self._class_accuracy(status),
            "status": status,
        }


def _recorded_threads(record: Record) -> int | None:
    """How many threads a run began with: the last bits of its sums depend on them."""
    threads = record.about.get("hardware", {}).get("threads")
    return threads if isinstance(threads, int) and 1 <= threads <= (os.cpu_count() or 1) else None
