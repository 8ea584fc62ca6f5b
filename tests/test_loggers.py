"""The row of each epoch for loggers, and the examples of two."""

from pathlib import Path

import pytest
from same_results import same_results
from scripts import load
from waiting import until

import budgetlab as bl


@pytest.mark.parametrize("progress", [True, False])
def test_every_epoch_is_told_with_its_row_of_the_record(config, progress):
    rows = []
    record = bl.train(config, on_epoch=rows.append, progress=progress)
    # Columns of the record that this run has nothing for, such as validation, are not told.
    told = record.epochs.dropna(axis="columns")[list(rows[0])]
    # pandas before 3 reads the last digit of some otherwise.
    assert [list(row.values()) for row in rows] == pytest.approx(told.to_numpy(), rel=1e-12)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    same_results(record, bl.train(config.replace(out=config.out + "-2"), progress=False))


def test_an_error_in_it_is_the_caller_s_and_the_run_can_go_on(config):
    def full_disk(row):
        raise OSError("the disk of the logger is full")

    with pytest.raises(OSError, match="the disk of the logger"):
        bl.train(config, on_epoch=full_disk, progress=False)
    (record,) = Path(config.out).iterdir()
    assert [row["epoch"] for row in bl.Run.resume(record)] == [2, 3]


def quick(config) -> dict:
    names = ("dataset", "limit", "epochs", "batch_size", "budget", "device", "out", "data_root")
    return {name: getattr(config, name) for name in names}


def test_tensorboard_gets_every_number(config, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = load("examples/tensorboard_log.py").main(str(tmp_path / "logs"), **quick(config))
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    written = events.Scalars("test_accuracy")
    assert [event.step for event in written] == record.epochs["steps"].tolist()
    assert [event.value for event in written] == pytest.approx(record.epochs["test_accuracy"])
    assert {"lr", "train_loss", "flops", "epoch"} <= set(events.Tags()["scalars"])


def test_wandb_writes_offline(config, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    record = load("examples/wandb_offline.py").main(str(tmp_path), **quick(config))
    assert len(record.epochs) == 3
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 1
    # Its own process writes it, and may still be at it.
    until(lambda: b"test_accuracy" in files[0].read_bytes())
