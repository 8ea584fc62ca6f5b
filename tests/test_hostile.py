"""From a stranger: nothing is run, nothing lies elsewhere, all fits, names are only ever names."""

import builtins
import html
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import ipywidgets as W
import numpy as np
import pandas as pd
import pytest
import torch
from fake_images import write_images
from fake_records import QUICK

import budgetlab as bl
from budgetlab import data, widgets
from budgetlab.errors import InputError, one_line
from budgetlab.records import open_record
from budgetlab.records.format import MAX_BYTES
from budgetlab.training import Run

pytestmark = pytest.mark.filterwarnings("ignore:skipped in")

FILES = ["record.json", "epochs.csv", "thumbnails.npz", "predictions.npz", "state.pt"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, data_root) -> Path:
    """A stopped run of two epochs, with thumbnails."""
    places = {"out": str(tmp_path_factory.mktemp("runs")), "data_root": str(data_root)}
    run = Run(bl.RunConfig(**QUICK | places | {"dataset": "digits"}))
    for row in run:
        if row["epoch"] == 2:
            break
    run.writer.save_thumbnails(np.array([1, 2]), np.zeros((2, 8, 8, 1), np.uint8))
    run.writer.save_predictions(pd.DataFrame({"label": [0, 300], "predicted": [1, 2]}))
    return run.writer.path


@pytest.fixture
def record(stopped, tmp_path) -> Path:
    """A copy of it to do harm to."""
    return shutil.copytree(stopped, tmp_path / "runs" / stopped.name)


def said(what: Callable[[], object]) -> str:
    """The one sentence with which something is refused."""
    with pytest.raises(InputError) as error:
        what()
    message = str(error.value)
    assert "\n" not in message
    return message


class Bomb:
    """Ends the process where it is unpickled."""

    def __reduce__(self):
        return builtins.exec, ("raise SystemExit('unpickled')",)


def change_about(record: Path, change: Callable[[dict], object]) -> None:
    about = json.loads((record / "record.json").read_text())
    change(about)
    (record / "record.json").write_text(json.dumps(about))


# Links and odd files


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_leads_elsewhere_or_is_too_large_is_not_read(
    record, tmp_path, name, monkeypatch
):
    part = name.partition(".")[0]
    read = {"record.json": open_record, "state.pt": Run.resume}.get(
        name, lambda path: getattr(open_record(path), part)
    )
    with monkeypatch.context() as patched:
        patched.setitem(MAX_BYTES, name, 10)
        message = said(lambda: read(record))
        assert name in message
        assert "are allowed" in message
    elsewhere = tmp_path / name
    (record / name).rename(elsewhere)
    (record / name).symlink_to(elsewhere)
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
    assert "it is not a file" in said(lambda: Run.resume(record))
    replace_by_a_pipe(record / "epochs.csv")
    assert len(open_record(record).epochs) == 0
    replace_by_a_pipe(record / "record.json")
    assert "is not a record" in said(lambda: open_record(record))


# Where a record says that things lie


def test_resuming_writes_nothing_where_only_the_record_says_so(record, tmp_path, monkeypatch):
    import socket

    for name in ("TRAIN", "TEST", "TEST_V1"):
        monkeypatch.setattr(f"budgetlab.data.builtin.SHAPES_{name}", 100)
    target = tmp_path / "target"
    target.mkdir()
    places = {"data_root": str(target), "out": str(target), "limit": 0}
    change_about(record, lambda about: about["config"].update(dataset="shapes", **places))
    with pytest.raises(bl.errors.RunError, match="is not what record"):
        Run.resume(record)
    assert list(target.iterdir()) == []
    # Whoever names the folder may have it filled.
    with pytest.raises(bl.errors.RunError, match="is not what record"):
        Run.resume(record, data_root=target)
    assert [path.name for path in target.iterdir()] == ["shapes"]
    # Nor is anything downloaded.
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    change_about(record, lambda about: about["config"].update(dataset="cifar10"))
    assert "cifar10 is not in" in said(lambda: Run.resume(record))


# Sizes


def change_array(record: Path, name: str, **values: object) -> None:
    file = record / "samples.zarr" / name / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_chunk_that_does_not_fit_or_is_packed_in_another_way_is_refused(record):
    # One that is damaged is said when it is read.
    damaged = shutil.copytree(record, record.with_name("damaged"))
    for chunk in (damaged / "samples.zarr/loss/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:16] + b"\xff" * (chunk.stat().st_size - 16))
    samples = open_record(damaged).samples
    assert "samples.zarr/loss' cannot be read" in said(lambda: samples["loss"].values)
    assert samples["margin"].values.shape == samples["loss"].shape
    # The metadata is packed with zstd, by which frames say their size in several ways.
    sizes = [("loss", struct.pack("<I", 2**31 - 1)), ("label", b"\xa0\xff\xff\xff\x7f"),
             ("label", b"\x00")]  # fmt: skip
    for name, size in sizes:
        chunks = (record / "samples.zarr" / name / "c").rglob("*")
        chunk = next(path for path in chunks if path.is_file())
        before = chunk.read_bytes()
        content = bytearray(before)
        content[4 : 4 + len(size)] = size
        chunk.write_bytes(content)
        assert "is not as long as its array says" in said(lambda: open_record(record).samples)
        chunk.write_bytes(before)
    assert open_record(record).samples["label"].shape == (128,)
    kept = json.loads((record / "samples.zarr/loss/zarr.json").read_text())
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, 10**13]}}
    change_array(record, "loss", chunk_grid=grid)
    assert "GiB of memory" in said(lambda: open_record(record).samples)
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}},
              {"name": "gzip", "configuration": {"level": 9}}]  # fmt: skip
    change_array(record, "loss", chunk_grid=kept["chunk_grid"], codecs=codecs)
    assert "'loss' is packed with gzip" in said(lambda: open_record(record).samples)
    change_array(record, "loss", codecs=kept["codecs"])
    # Larger than any memory, without a chunk.
    for name in (*bl.records.SAMPLE_ARRAYS, "label"):
        shape = [3, 10**13] if name in bl.records.SAMPLE_ARRAYS else [10**13]
        grid = {"name": "regular", "configuration": {"chunk_shape": [1] * len(shape)}}
        change_array(record, name, shape=shape, chunk_grid=grid)
        shutil.rmtree(record / "samples.zarr" / name / "c", ignore_errors=True)
    assert "GiB of memory" in said(lambda: open_record(record).samples)


def test_thumbnails_that_lie_unpack_or_run(record, monkeypatch):
    def read() -> object:
        return open_record(record).thumbnails

    def header(shape: str) -> bytes:
        text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"

    file, pickled = record / "thumbnails.npz", np.empty(1, object)
    pickled[0] = Bomb()
    np.savez(file, indices=np.array([0]), images=pickled)
    assert "images holds Python objects" in said(read)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", header("(9000000000000,)"))
    assert "not as long as its header says" in said(read)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", header("(2L, ")[:-1])
    assert "cannot be read" in said(read)
    np.savez(file, indices=np.arange(3), images=np.zeros((2, 4, 4, 1), np.uint8))
    assert "cannot be read" in said(read)
    # A few kilobytes that unpack to many.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header(f"({2**24}, 1, 1, 1)") + bytes(2**24))
    assert file.stat().st_size < 2**17
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**20))
    assert "GiB of memory" in said(read)


# Checkpoints


def test_a_checkpoint_that_is_not_as_torch_writes_it_is_refused(record):
    file = record / "state.pt"
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    state = torch.load(file, weights_only=True)

    def repacked(method: int, cut: int | None) -> None:
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, content in parts.items():
                archive.writestr(name, content[:cut] if "/data/" in name else content)

    repacked(zipfile.ZIP_DEFLATED, None)
    assert "it is not as torch writes it" in said(lambda: Run.resume(record))
    # A storage that is shorter than it says.
    repacked(zipfile.ZIP_STORED, 4)
    assert "cannot be resumed from" in said(lambda: Run.resume(record))
    torch.save({"epoch": 1}, file, _use_new_zipfile_serialization=False)
    assert "cannot be resumed from" in said(lambda: Run.resume(record))
    torch.save({"epoch": Bomb()}, file)
    assert "cannot be resumed from" in said(lambda: Run.resume(record))
    assert open_record(record).status == "stopped"
    for change in ({"epoch": "x"}, {"network": {}}, {"ledger": []}, {"budget": {}},
                   {"sampler": 3}, {"order": 1}, {"optimiser": None}):  # fmt: skip
        torch.save(state | change, file)
        assert "cannot be resumed from" in said(lambda: Run.resume(record))
    state["optimiser"]["state"] = {0: {"momentum_buffer": torch.zeros(1).double().expand(10**12)}}
    torch.save(state, file)
    assert "larger than what is stored of it" in said(lambda: Run.resume(record))


# What record.json says


@pytest.mark.parametrize(
    ("part", "name", "value", "says"),
    [
        ("summary", "steps", [], "summary.steps is [] and not a number"),
        ("summary", "epochs", 2.5, "summary.epochs is 2.5 and not a whole number"),
        ("summary", "flops", 10**400, "and not a number"),
        ("data", "classes", 1, "data.classes is 1 and not a list of values"),
        ("config", "seed", True, "config.seed is True and not a whole number"),
        ("config", "lr", {"a": 1}, "config.lr is {'a': 1} and not a value or a list of values"),
        ("hardware", "name", ["a", {}], "hardware.name is ['a', {}] and not a value or a list"),
    ],
)
def test_a_description_of_which_no_table_can_be_made_is_refused(record, part, name, value, says):
    change_about(record, lambda about: about[part].update({name: value}))
    message = said(lambda: bl.summaries(record))
    assert "is not the description of a run: " in message
    assert says in message
    assert len(message) < 500


def test_a_description_needs_what_tells_runs_apart_and_may_say_more(record):
    text = (record / "record.json").read_text()
    for name in ("dataset", "method", "augmentation", "budget", "seed"):
        change_about(record, lambda about, name=name: about["config"].pop(name))
        assert f"it lacks config.{name}" in said(lambda: open_record(record))
        (record / "record.json").write_text(text)
    # What no integer of a table holds becomes a float.
    later = {"flops": 2**70, "test_accuracy": None, "later": "what comes"}
    change_about(
        record, lambda about: (about.update(later={"a": {}}), about["summary"].update(later))
    )
    known = bl.analysis.summaries(record).assign(test_accuracy=0.5, status="finished")
    frame = bl.analysis.results(known)
    assert frame["flops"].item() == float(2**70)


# Names of classes, files and folders

TAG = "<img src=x onerror=alert(1)>"
DOLLARS = "\\frac{$ & $x^"
NASTY = (TAG, DOLLARS, '"><script>alert(1)<', "a\x1b[31m\nb")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Class folders with such names, and a file that cannot be read with another."""
    top = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(NASTY):
        write_images(top / name, 8, seed=seed)
    (top / TAG / f"{TAG}.png").write_bytes(b"nothing")
    return top


def harmless(page: str) -> None:
    """No name has become a part of the page."""
    assert TAG not in page
    assert "<script>alert" not in page
    # In words it is escaped; in the data of a chart it is a string of JSON.
    for known in (html.escape(TAG), TAG.replace("<", "\\u003c")):
        page = page.replace(known, "")
    assert "onerror=alert" not in page


def all_inside(widget: W.Widget) -> Iterator[W.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from all_inside(child)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_come_through_and_are_only_ever_names(config, images, tmp_path):
    own = {"dataset": f"folder:{images}", "limit": 0, "augmentation": "mixup", "batch_size": 4}
    opened = bl.train(config.replace(method="p-SGD", **own), progress=False)
    assert {*opened.classes} == {*NASTY}
    assert any(TAG in one for one in opened.about["data"]["skipped"])
    harmless(Path(bl.report.write([opened], tmp_path / "page.html")).read_text())
    splits = data.load(f"folder:{images}", root=tmp_path, progress=False)
    for made in (
        widgets.AugmentationExplorer(splits),
        widgets.TrainingBench(records=[opened], name="hostile"),
        widgets.ProbabilityMicroscope(opened),
    ):
        pages = [one.value for one in all_inside(made) if isinstance(one, W.HTML)]
        assert pages
        for page in pages:
            harmless(page)
    # A dollar sign begins a formula in matplotlib; half of one is an error when drawn.
    for draw, given in (
        (bl.plots.class_share, bl.analysis.class_share(opened)),
        (bl.plots.learning_curves, opened),
        (bl.plots.image_grid, opened),
    ):
        ax = draw(given)
        ax.figure.canvas.draw()
        assert bl.plots.alt_text(ax)


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are a matter of POSIX")
def test_names_that_are_no_text_are_shown_as_well_as_can_be(tmp_path):
    top = tmp_path / "images"
    for seed, name in enumerate((b"caf\xe9", b"dog")):
        write_images(top / os.fsdecode(name), 6, seed=seed, name=os.fsdecode(b"\xff"))
    splits = data.load(f"folder:{top}", root=tmp_path / "data", progress=False)
    assert splits.train.classes == ("caf\ufffd", "dog")
    for name in splits.train.classes:
        name.encode()


def test_folders_deeper_than_python_can_follow_and_pipes_are_passed_over(tmp_path):
    top = tmp_path / "images"
    for seed, name in enumerate("ab"):
        write_images(top / name, 6, seed=seed)
    os.mkfifo(top / "a" / "pipe.png")
    here = os.open(top / "a", os.O_RDONLY)
    try:
        for _ in range(1200):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    try:
        with pytest.warns(UserWarning, match=r"a/pipe.png: no file, or too large a one"):
            splits = data.load(f"folder:{top}", root=tmp_path / "data", progress=False)
    finally:
        # Nor can pytest follow them when it clears up after a later run.
        outer = top / "a/d"
        while (outer / "d").is_dir():
            inner = (outer / "d").rename(top / "a/inner")
            outer.rmdir()
            outer = inner.rename(outer)
        outer.rmdir()
    assert len(splits.train) + len(splits.test) == 12


@pytest.mark.parametrize("name", ["a\nb", "a\r\x1b[2Jb", "a\u2028b", "\ud800"])
def test_a_name_does_not_break_the_line(name):
    message = said(lambda: bl.RunConfig.from_dict({name: 1}))
    assert message.isprintable()
    assert f"unknown setting '{one_line(name)}'" in message
    assert one_line(message) == message


def test_a_sentence_does_not_grow_with_what_a_file_says(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, x=np.zeros((20, 8, 8, 3), np.uint8), y=np.arange(20) % 2)
    # The directory of the archive says another name than the entry, which is kilobytes long.
    content = bytearray(file.read_bytes())
    content[26:28] = (3000).to_bytes(2, "little")
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as error:
        data.load(f"npz:{file}", root=tmp_path)
    assert len(str(error.value)) < 500
    assert one_line("größer als \\n", 12) == "größer als \\..."
    assert one_line("größer als \\n") == "größer als \\n"
