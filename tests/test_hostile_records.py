"""Records and checkpoints from a stranger: nothing is run, nothing lies elsewhere, all fits."""

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import budgetlab as bl
from budgetlab import cli
from budgetlab.errors import InputError
from budgetlab.records import open_record, safety
from budgetlab.training import Run

PARTS = ("epochs", "samples", "thumbnails", "predictions")


@pytest.fixture
def record(config) -> Path:
    """A stopped run of two epochs, with thumbnails."""
    run = Run(config.replace(dataset="digits"))
    for row in run:
        if row["epoch"] == 2:
            break
    images = np.zeros((2, 8, 8, 1), np.uint8)
    run.writer.save_thumbnails(np.array([1, 2]), images)
    run.writer.save_predictions(pd.DataFrame({"label": [0, 300], "predicted": [1, 2]}))
    return run.writer.path


def said(what: Callable[[], object]) -> str:
    """The one sentence with which something is refused."""
    with pytest.raises(InputError) as error:
        what()
    message = str(error.value)
    assert "\n" not in message
    return message


# Links and odd files


@pytest.mark.parametrize("name", ["record.json", "epochs.csv", "thumbnails.npz", "predictions.npz",
                                  "state.pt"])  # fmt: skip
def test_a_file_that_is_a_link_out_of_the_record_is_not_read(record, tmp_path, name):
    elsewhere = tmp_path / name
    (record / name).rename(elsewhere)
    (record / name).symlink_to(elsewhere)
    part = name.partition(".")[0]
    read = {"record.json": open_record, "state.pt": Run.resume}.get(
        name, lambda path: getattr(open_record(path), part)
    )
    assert "a link that leaves the record" in said(lambda: read(record))


@pytest.mark.parametrize("where", ["samples.zarr", "samples.zarr/loss", "samples.zarr/loss/c"])
def test_arrays_that_are_links_are_neither_read_nor_written(record, tmp_path, where):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(record / where, elsewhere)
    shutil.rmtree(record / where)
    (record / where).symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    assert "link" in said(lambda: open_record(record).samples)
    assert "link" in said(lambda: Run.resume(record))
    assert before == {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}


def replace_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_a_pipe_is_not_waited_for(record):
    """Whoever opens one to read waits until somebody writes into it."""
    replace_by_a_pipe(record / "thumbnails.npz")
    assert open_record(record).thumbnails == {}
    replace_by_a_pipe(record / "state.pt")
    assert "it is no file" in said(lambda: Run.resume(record))
    replace_by_a_pipe(record / "epochs.csv")
    assert len(open_record(record).epochs) == 0
    replace_by_a_pipe(record / "record.json")
    assert "is no record" in said(lambda: open_record(record))


# Where a record says that things lie


def test_resuming_writes_nothing_where_only_the_record_says_so(record, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    about = json.loads((record / "record.json").read_text())
    about["config"] |= {"dataset": "shapes", "data_root": str(target), "out": str(target),
                        "limit": 0}  # fmt: skip
    (record / "record.json").write_text(json.dumps(about))
    with pytest.raises(bl.errors.RunError, match="is not what record"):
        Run.resume(record)
    assert list(target.iterdir()) == []
    # Whoever names the folder may have it filled.
    with pytest.raises(bl.errors.RunError, match="is not what record"):
        Run.resume(record, data_root=target)
    assert [path.name for path in target.iterdir()] == ["shapes"]


def test_resuming_downloads_nothing_on_its_own(record, monkeypatch):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    about = json.loads((record / "record.json").read_text())
    about["config"] |= {"dataset": "cifar10", "limit": 0}
    (record / "record.json").write_text(json.dumps(about))
    assert "cifar10 is not in" in said(lambda: Run.resume(record))


# Sizes


@pytest.mark.parametrize("name", ["record.json", "epochs.csv", "thumbnails.npz", "predictions.npz",
                                  "state.pt"])  # fmt: skip
def test_a_file_larger_than_any_of_ours_is_not_read(record, monkeypatch, name):
    monkeypatch.setitem(safety.MOST, name, 10)

    def read() -> None:
        opened = open_record(record)
        _ = opened.epochs, opened.thumbnails, opened.predictions
        Run.resume(record)

    assert name in said(read)
    assert "are allowed" in said(read)


def change_array(record: Path, name: str, **values: object) -> None:
    file = record / "samples.zarr" / name / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_arrays_too_large_for_any_memory_are_refused_before_any_is_made(record):
    for name in open_record(record).samples.data_vars:
        shape = [3, 10**13] if name in bl.records.SAMPLE_ARRAYS else [10**13]
        grid = {"name": "regular", "configuration": {"chunk_shape": [1] * len(shape)}}
        change_array(record, name, shape=shape, chunk_grid=grid)
        shutil.rmtree(record / "samples.zarr" / name / "c", ignore_errors=True)
    assert "GiB of memory" in said(lambda: open_record(record).samples)


def test_a_chunk_too_large_for_any_memory_is_refused(record):
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, 10**13]}}
    change_array(record, "loss", chunk_grid=grid)
    assert "GiB of memory" in said(lambda: open_record(record).samples)


def test_a_chunk_that_unpacks_to_more_than_it_should_is_refused(record):
    chunk = next(path for path in (record / "samples.zarr/loss/c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[4:8] = struct.pack("<I", 2**31 - 1)
    chunk.write_bytes(content)
    assert "is not as long as its array says" in said(lambda: open_record(record).samples)


def test_only_the_compressors_of_our_arrays_are_asked(record):
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}},
              {"name": "gzip", "configuration": {"level": 9}}]  # fmt: skip
    change_array(record, "loss", codecs=codecs)
    assert "'loss' is packed with gzip" in said(lambda: open_record(record).samples)


def test_a_chunk_that_is_damaged_is_said_when_it_is_read(record):
    for chunk in (record / "samples.zarr/loss/c").rglob("*"):
        if chunk.is_file():
            content = bytearray(chunk.read_bytes())
            chunk.write_bytes(content[:16] + b"\xff" * (len(content) - 16))
    samples = open_record(record).samples
    assert "samples.zarr/loss' cannot be read" in said(lambda: samples["loss"].values)
    assert samples["margin"].values.shape == samples["loss"].shape


def bomb(path: Path, inside: str, size: int) -> None:
    """An archive of a few kilobytes that unpacks to ``size`` bytes of zeros."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size}, 1, 1, 1), }}"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.ljust(117).encode() + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inside, start + bytes(size))


def test_thumbnails_that_unpack_to_more_than_memory_are_refused(record, monkeypatch):
    from budgetlab.records import safety

    monkeypatch.setattr(safety, "available_memory", lambda: 2**20)
    bomb(record / "thumbnails.npz", "images.npy", 2**24)
    assert (record / "thumbnails.npz").stat().st_size < 2**17
    assert "GiB of memory" in said(lambda: open_record(record).thumbnails)


def test_thumbnails_whose_header_lies_are_refused(record):
    with zipfile.ZipFile(record / "thumbnails.npz", "w") as archive:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (9000000000000,), }"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
        archive.writestr("images.npy", start + header.ljust(117) + b"\n")
        archive.writestr("indices.npy", start + header.ljust(117) + b"\n")
    assert "not as long as its header says" in said(lambda: open_record(record).thumbnails)


# Checkpoints


def test_a_checkpoint_that_is_packed_is_refused(record):
    with zipfile.ZipFile(record / "state.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(record / "state.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert "it is not as torch writes it" in said(lambda: Run.resume(record))


def test_a_checkpoint_whose_storage_is_shorter_than_it_says_is_refused(record):
    with zipfile.ZipFile(record / "state.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(record / "state.pt", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content[:4] if "/data/" in name else content)
    assert "cannot be resumed from" in said(lambda: Run.resume(record))


def test_a_checkpoint_with_tensors_larger_than_what_is_stored_is_refused(record):
    state = torch.load(record / "state.pt", weights_only=True)
    state["optimiser"]["state"] = {0: {"momentum_buffer": torch.zeros(1).double().expand(10**12)}}
    torch.save(state, record / "state.pt")
    assert "larger than what is stored of it" in said(lambda: Run.resume(record))


def test_an_old_checkpoint_without_an_archive_is_refused(record):
    torch.save({"epoch": 1}, record / "state.pt", _use_new_zipfile_serialization=False)
    assert "cannot be resumed from" in said(lambda: Run.resume(record))


@pytest.mark.parametrize("change", [{"epoch": "x"}, {"network": {}}, {"ledger": []}, {"budget": {}},
                                    {"sampler": 3}, {"order": 1}, {"optimiser": None}])  # fmt: skip
def test_a_checkpoint_of_something_else_is_refused(record, change):
    state = torch.load(record / "state.pt", weights_only=True)
    torch.save(state | change, record / "state.pt")
    assert "cannot be resumed from" in said(lambda: Run.resume(record))


# Names


NASTY = '<script>alert(1)</script>&"\x1b]0;pwned\x07\n$\\frac{$'


def test_a_name_is_only_ever_a_name_on_the_terminal(record, capsys):
    about = json.loads((record / "record.json").read_text())
    about["config"]["dataset"] = NASTY
    (record / "record.json").write_text(json.dumps(about))
    assert cli.main(["resume", str(record)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "\x1b" not in message
    assert "<script>" in message


# What record.json says


@pytest.mark.parametrize(
    ("part", "name", "value", "says"),
    [
        ("summary", "proxy_samples", "", "summary.proxy_samples is '' and not a number"),
        ("summary", "steps", [], "summary.steps is [] and not a number"),
        ("summary", "epochs", 2.5, "summary.epochs is 2.5 and not a whole number"),
        ("summary", "flops", 10**400, "and not a number"),
        ("data", "classes", 1, "data.classes is 1 and not a list of values"),
        ("config", "seed", True, "config.seed is True and not a whole number"),
        ("config", "lr", {"a": 1}, "config.lr is {'a': 1} and not a value or a list of values"),
        ("config", "milestones", [[]], "config.milestones is [[]] and not a value or a list"),
        ("hardware", "name", ["a", {}], "hardware.name is ['a', {}] and not a value or a list"),
        ("data", "fingerprint", "x\n" * 90, ""),
    ],
)
def test_a_description_of_which_no_table_can_be_made_is_refused(record, part, name, value, says):
    about = json.loads((record / "record.json").read_text())
    about[part][name] = value
    (record / "record.json").write_text(json.dumps(about))
    if says:
        message = said(lambda: bl.analysis.summaries(record))
        assert "is not the description of a run: " in message
        assert says in message
        assert len(message) < 500
    else:
        assert len(bl.analysis.summaries(record)) == 1


@pytest.mark.parametrize("name", ["dataset", "method", "augmentation", "budget", "seed"])
def test_a_description_without_what_tells_runs_apart_is_refused(record, name):
    about = json.loads((record / "record.json").read_text())
    del about["config"][name]
    (record / "record.json").write_text(json.dumps(about))
    assert f"it lacks config.{name}" in said(lambda: open_record(record))


def test_numbers_that_no_integer_of_a_table_holds_become_floats(record):
    about = json.loads((record / "record.json").read_text())
    about["summary"] |= {"flops": 2**70, "test_accuracy": None, "later": "what comes"}
    (record / "record.json").write_text(json.dumps(about))
    frame = bl.analysis.results(bl.analysis.summaries(record).assign(test_accuracy=0.5))
    assert frame["flops"].item() == float(2**70)


def test_an_array_whose_header_never_ends_is_refused(record, tmp_path):
    """Numpy takes a header of its second way of writing apart token by token."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2L, ".ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    for file, name in ((tmp_path / "mine.npz", "x"), (record / "thumbnails.npz", "images")):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(f"{name}.npy", content)
    assert "cannot be read" in said(lambda: bl.data.load(f"npz:{tmp_path / 'mine.npz'}"))
    assert "cannot be read" in said(lambda: open_record(record).thumbnails)
