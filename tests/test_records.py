"""Records: written whole or not at all, small, read without surprises, damage said."""

import errno
import io
import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import budgetlab as bl
from budgetlab import records
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, RunError
from budgetlab.records import EPOCH_COLUMNS, SAMPLE_ARRAYS, RecordWriter, open_record
from budgetlab.records.format import (
    FORMAT,
    drop_implied_p_y,
    round_loss,
    round_mantissa,
    write_atomically,
)
from budgetlab.training import Run

SIZE = 5


def new_writer(out: Path, size: int = SIZE, **settings: object) -> RecordWriter:
    notes = [chr(97 + n % 26) * (n % 3) for n in range(size)]
    metadata = pd.DataFrame(
        {"label": np.arange(size) % 10, "difficulty": np.linspace(0, 1, size),
         "is_noisy": np.zeros(size, bool), "note": notes, "mixed": [1, "a"] + [None] * (size - 2)}
    )  # fmt: skip
    return RecordWriter.create(
        RunConfig(out=str(out), **{"epochs": 2} | settings),
        metadata=metadata,
        data={"name": "shapes", "fingerprint": "f00d", "classes": ["a", "b"]},
        hardware={"device": "cpu"},
    )


def append(writer: RecordWriter, epoch: int, **row: float) -> None:
    arrays = {name: np.full(SIZE, epoch / 3) for name in SAMPLE_ARRAYS}
    arrays |= {"correct": np.array([1, 0, -1, 1, 0]), "times_trained": np.arange(SIZE) * 100}
    writer.append_epoch({"epoch": epoch, "steps": 3 * epoch, **row}, arrays)


def visit(size: int, seed: int, learned: float = 1.0) -> dict[str, np.ndarray]:
    """What an epoch that trains on all samples leaves, from random logits ``[size, 10]``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (size, 10))
    logits[:, 0] += learned + rng.normal(0, 2, size)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    p, margin = np.exp(log_p), logits[:, 0] - logits[:, 1:].max(1)
    scores = 1 - p[:, 0]
    arrays = {
        "loss": -log_p[:, 0],
        "p_y": p[:, 0],
        "margin": margin,
        "el2n": np.linalg.norm(p - np.eye(10)[0], axis=1),
        "correct": margin > 0,
        "probability": (scores + scores.mean()) / (2 * scores.sum()),
        "times_trained": np.ones(size),
    }
    return {name: values.astype(np.float32) for name, values in arrays.items()}


@pytest.fixture
def written(tmp_path) -> Path:
    """A record of two epochs."""
    writer = new_writer(tmp_path / "runs")
    append(writer, 1, test_accuracy=0.1)
    append(writer, 2, test_accuracy=1 / 3)
    writer.set_status("finished", "", {"steps": 6})
    return writer.path


# Writing


def failing(error: BaseException):
    def fail(*_, **__):
        raise error

    return fail


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("broken", "error"), [("replace", FULL), ("fsync", FULL),
                                               ("replace", KeyboardInterrupt())])  # fmt: skip
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, broken, error):
    file = tmp_path / "a.json"
    write_atomically(file, b"old")
    with monkeypatch.context() as patched:
        patched.setattr(os, broken, failing(error))
        with pytest.raises(type(error)):
            write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    write_atomically(file, lambda opened: opened.write(b"new"))
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_a_folder_that_cannot_be_written_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    kept = new_writer(tmp_path / "runs")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"out '.*file' is a file: give a folder"):
        new_writer(tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\).*--out"):
        new_writer(tmp_path / "file" / "deeper")
    denied = PermissionError(errno.EACCES, "Permission denied")
    for owner, name, error, kind in ((Path, "mkdir", denied, InputError), (os, "replace", FULL,
                                      RunError), (Path, "mkdir", FULL, RunError)):  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, failing(error))
            with pytest.raises(kind, match=error.strerror):
                new_writer(tmp_path / "runs")
        assert list(tmp_path.glob("runs/*")) == [kept.path]


# Reading back


def test_everything_comes_back(written, monkeypatch):
    opened, real = [], io.open
    with monkeypatch.context() as patched:
        patched.setattr(
            io, "open", lambda file, *a, **k: opened.append(file) or real(file, *a, **k)
        )
        record = open_record(written)
    assert len(opened) <= 1, "opening reads one small file"
    assert (record.status, record.summary, record.fingerprint) == ("finished", {"steps": 6}, "f00d")
    assert record.classes == ["a", "b"]
    assert RunConfig.from_dict(record.config) == RunConfig(out=record.config["out"], epochs=2)
    assert list(record.epochs) == list(EPOCH_COLUMNS)
    assert record.epochs["steps"].tolist() == [3, 6]
    samples = record.samples
    assert samples.sizes == {"epoch": 2, "sample": SIZE}
    assert samples["epoch"].values.tolist() == [1, 2]
    assert samples["loss"].values[1] == pytest.approx([2 / 3] * SIZE, rel=2e-3)
    assert samples["correct"].values[0].tolist() == [1, 0, -1, 1, 0]
    # Counts are kept in a byte: 300 and 400 become 255, not 44 and 144.
    assert samples["times_trained"].values[0].tolist() == [0, 100, 200, 255, 255]
    # Metadata with their types; what is neither numbers nor texts is left out.
    assert samples["difficulty"].values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert samples["is_noisy"].dtype == bool
    assert samples["note"].values.tolist() == ["", "b", "cc", "", "e"]
    assert "mixed" not in samples
    assert (record.thumbnails, len(record.predictions)) == ({}, 0)
    # A byte for each pixel of a thumbnail, by its sample; predictions with what is known.
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    RecordWriter.reopen(written, 2).save_thumbnails(np.array([4, 1]), images)
    thumbnails = open_record(written).thumbnails
    assert list(thumbnails) == [4, 1]
    assert np.array_equal(thumbnails[1], images[1])
    table = pd.DataFrame({"label": [0, 300], "predicted": [1, 2], "chance": [0.25, 0.5],
                          "seen": [True, False], "origin": ["ä/1.png", "b"],
                          "true_label": pd.array([1, None], "Int64"),
                          "mixed": [1, "a"]})  # fmt: skip
    RecordWriter.reopen(written, 2).save_predictions(table)
    found = open_record(written).predictions
    known = ["label", "predicted", "chance", "seen", "origin"]
    assert found.drop(columns="true_label").to_dict("list") == table[known].to_dict("list")
    assert found["true_label"].isna().tolist() == [False, True]


def test_epochs_that_were_not_planned_not_given_or_come_again(tmp_path):
    writer = new_writer(tmp_path, epochs=1)
    writer.append_epoch({"epoch": 1}, {"times_trained": np.ones(SIZE)})
    empty = open_record(writer.path).samples
    assert np.isnan(empty["probability"].values).all()
    assert (empty["correct"].values == -1).all()
    append(writer, 2, test_accuracy=0.5)
    append(writer, 3)
    assert open_record(writer.path).samples["loss"].values[1:, 0] == pytest.approx(
        [2 / 3, 1], rel=2e-3
    )
    append(RecordWriter.reopen(writer.path, 1), 2, test_accuracy=0.9)
    assert open_record(writer.path).epochs["test_accuracy"].tolist()[1:] == [0.9]


def test_what_a_killed_run_did_not_sum_up_is_read_from_its_epochs(tmp_path):
    """``record.json`` is written when training begins and ends; the table after each epoch."""
    writer = new_writer(tmp_path)
    summary = {"steps": 0, "flops": 0, "test_accuracy": None, "epochs": 0, "method": "unif-SGD"}
    writer.set_status("running", summary=summary)
    assert open_record(writer.path).summary == summary
    append(writer, 1, test_accuracy=0.25, flops=10)
    found = open_record(writer.path).summary
    assert found == summary | {"steps": 3, "flops": 10, "test_accuracy": 0.25, "epochs": 1}
    assert [type(found[name]) for name in ("steps", "epochs")] == [int, int]
    append(writer, 2, flops=20)
    assert open_record(writer.path).summary["test_accuracy"] is None


# The room that it takes


def test_a_long_record_of_many_samples_takes_at_most_60_megabytes(tmp_path):
    """200 epochs x 50,000 samples, each trained on in every epoch, is the worst case."""
    size, epochs = 50_000, 3

    def taken() -> int:
        return sum(file.stat().st_size for file in writer.path.rglob("*") if file.is_file())

    writer = new_writer(tmp_path, size, epochs=epochs, budget=1.0)
    before = taken()
    for epoch in range(epochs):
        writer.append_epoch({"epoch": epoch + 1}, visit(size, epoch, learned=epoch))
    assert before + 200 * (taken() - before) / epochs < 60e6


def test_the_probability_of_the_label_is_stored_only_where_the_loss_does_not_imply_it(tmp_path):
    writer = new_writer(tmp_path, 40, epochs=4)
    implied, odd = [visit(40, seed) for seed in (0, 1)], np.linspace(0, 1, 40, dtype=np.float32)
    implied[0]["loss"][:5] = implied[0]["p_y"][:5] = np.nan
    for epoch, arrays in enumerate(implied, start=1):
        writer.append_epoch({"epoch": epoch}, arrays)
    assert not list((writer.path / "samples.zarr" / "p_y").glob("c/**/[0-9]"))
    writer.append_epoch({"epoch": 3}, visit(40, 2) | {"p_y": odd})
    writer.append_epoch({"epoch": 4}, {"p_y": odd})
    expected = np.stack([arrays["p_y"] for arrays in implied] + [odd, odd])
    lazy, loaded = open_record(writer.path).samples, open_record(writer.path).samples.load()
    # Relative error: half of 1/256 in the loss.
    assert loaded["p_y"].to_numpy() == pytest.approx(expected, rel=2.1e-3, nan_ok=True)
    assert loaded["p_y"].dtype == np.float32
    assert loaded["p_y"].attrs == {"description": SAMPLE_ARRAYS["p_y"][2]}
    for key in ({"epoch": 1}, {"epoch": slice(0, 1)}, {"sample": [3, 1]},
                {"epoch": -1, "sample": slice(None, None, 7)}, {"epoch": [1, 0], "sample": 2},
                {"epoch": slice(None, None, -1)}):  # fmt: skip
        part = lazy["p_y"].isel(key)
        assert np.array_equal(part, loaded["p_y"].isel(key), equal_nan=True)
    # Written again, an epoch forgets what was stored before.
    RecordWriter.reopen(writer.path, 2).append_epoch({"epoch": 3}, implied[1])
    again = open_record(writer.path).samples["p_y"].to_numpy()
    assert again[2] == pytest.approx(implied[1]["p_y"], rel=3e-3)
    # Whether it is implied is said of the whole array.
    loss = np.array([0.5, np.nan, 200.0, np.inf], np.float32)
    odd = np.exp(-loss)
    assert np.isnan(drop_implied_p_y(odd, loss)).all()
    odd[0] = 0.5
    assert np.array_equal(drop_implied_p_y(odd, loss), odd, equal_nan=True)


@given(st.lists(st.floats(width=32, allow_subnormal=False)))
def test_rounding_is_within_its_bound_and_leaves_what_is_not_finite(values):
    exact = np.array([*values, np.finfo(np.float32).max, np.inf, np.nan, 0.5], np.float32)
    finite = np.isfinite(exact)
    # No loss comes near the largest number there is.
    rounded, losses = round_mantissa(exact), round_loss(np.where(finite, exact / 2**9, exact) * 2)
    assert np.array_equal(round_mantissa(rounded), rounded, equal_nan=True)
    for found in (rounded, losses):
        assert np.array_equal(found[~finite], exact[~finite], equal_nan=True)
        assert np.isfinite(found[finite]).all()
    size = np.abs(exact[finite].astype(float))
    assert (np.abs(rounded[finite].astype(float) - exact[finite]) <= size * 2.0**-9).all()
    loss = np.geomspace(1e-6, 80, 5000).astype(np.float32)
    assert (np.abs(round_loss(loss) - loss) <= np.minimum(loss, 1) * 2.0**-9 + 1e-12).all()


# Damage


def damage(path: Path, name: str, content: bytes | str | None) -> None:
    """Write something else into a file, or remove it."""
    if content is None:
        shutil.rmtree(path / name)
    else:
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def said(path: Path, part: str = "about") -> str:
    """The one sentence said of a damaged part of a record."""
    with pytest.raises(InputError) as error:
        getattr(open_record(path), part)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


TABLE = ",".join(EPOCH_COLUMNS)
ROW = "o.93," * (len(EPOCH_COLUMNS) - 1) + "1"


@pytest.mark.parametrize(
    ("name", "content", "part", "says"),
    [
        ("record.json", "[" * 100_000, "about", "be read"),
        ("record.json", "{}", "about", "is not the description of a run"),
        ("epochs.csv", b"\xff\xfe\x00", "epochs", "epochs.csv"),
        ("epochs.csv", f"{TABLE}\n{ROW}\n", "epochs", "in "),
        ("epochs.csv", f"{TABLE.replace(',lr', '')}\n1\n", "epochs", "lacks the columns lr"),
        ("samples.zarr/zarr.json", "{", "samples", "samples.zarr"),
        ("samples.zarr/loss/zarr.json", '{"zarr_format": 9}', "samples", "samples.zarr"),
        ("samples.zarr/margin", None, "samples", "lacks the arrays margin"),
        ("samples.zarr", None, "samples", "samples.zarr' is missing"),
        ("thumbnails.npz", b"PK nonsense", "thumbnails", "thumbnails.npz"),
    ],
)
@pytest.mark.parametrize("status", ["running", "finished"])
def test_damage_is_said_in_one_sentence_and_leaves_the_rest_readable(
    written, name, content, part, says, status
):
    about = json.loads((written / "record.json").read_text())
    about |= {"status": status, "data": {"name": "<script>&"}}
    (written / "record.json").write_text(json.dumps(about))
    whole = open_record(written)
    damage(written, name, content)
    assert says in said(written, part)
    if part == "about":
        return
    if part != "epochs":
        assert open_record(written).epochs["test_accuracy"].iloc[-1] == 1 / 3
    # It shows itself whatever is damaged.
    for text in (repr(whole), page := whole._repr_html_()):
        assert written.name in text
        assert status in text
        assert ("damaged" in text) == (name == "epochs.csv")
    for known in ("unif-SGD", "&lt;script&gt;&amp;", "full run", "accuracy", "flops"):
        assert known in page
    assert "<script>" not in page


def test_a_newer_format_and_what_is_no_record_are_said(written, tmp_path):
    about = json.loads((written / "record.json").read_text())
    damage(written, "record.json", json.dumps(about | {"format": FORMAT + 1}))
    assert f"has format {FORMAT + 1}, newer than {FORMAT}: upgrade budgetlab" in said(written)
    for nothing in (tmp_path, tmp_path / "nowhere"):
        assert "is not a record: give a folder with a record.json" in said(nothing)


# Finding


def test_records_are_found_at_any_depth_each_once_and_the_damaged_are_left_out(
    tmp_path, monkeypatch
):
    deep, *flat = (new_writer(tmp_path / folder).path for folder in ("a/b", "", "", ""))
    # Further records of the same run have a number.
    assert [path.name for path in flat] == [deep.name, f"{deep.name}-2", f"{deep.name}-3"]
    assert records.find_records(tmp_path) == sorted([deep, *flat])
    monkeypatch.chdir(tmp_path)
    ways = [tmp_path, flat[0], str(deep), tmp_path / "a", deep.name, f"{deep.name}/../{deep.name}"]
    assert len(records.find_records(ways)) == 4
    (tmp_path / "empty").mkdir()
    for nothing, says in (("empty", r"holds no record: give a folder with a record\.json"),
                          (["x"], "does not exist: give the folder of a record")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            records.find_records(nothing)
    (flat[1] / "record.json").write_text("{")
    with pytest.warns(records.RecordWarning, match="cannot be read.*is left out"):
        opened = bl.open_records([tmp_path, flat[0], open_record(flat[2])])
    assert {record.path for record in opened} == {deep, flat[0], flat[2]}
    for nothing in (flat[1], []):
        with pytest.raises(InputError, match=r"cannot be read|no record was given"):
            bl.open_records(nothing)


# Of the first version of the kit: p-SGD on 64 points, stopped after two of five epochs, by commit
# aa88c55 of 23 November 2026, which knew 31 of the fields of a run, kept p_y in full and less of
# a budget.

STORED = Path(__file__).parent / "earlier_record.zip"


# One pair has no interval, which is said.
@pytest.mark.filterwarnings("ignore")
def test_an_earlier_record_opens_as_it_was_goes_on_and_compares_with_today(tmp_path, data_root):
    earlier = tmp_path / "earlier"
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(earlier)
    record = open_record(earlier)
    assert (record.status, record.classes) == ("stopped", ["moon 0", "moon 1"])
    assert len(record.about["config"]) < len(RunConfig.__dataclass_fields__)
    # The fields that came later change no id.
    assert RunConfig.from_dict(record.config).id == record.about["id"] == "bc37439d45"
    before, samples = record.epochs, record.samples
    assert samples["times_trained"].values.sum(1).tolist() == [32, 32]
    loss, p_y = (samples[name].values for name in ("loss", "p_y"))
    assert p_y == pytest.approx(np.exp(-loss), abs=5e-3, nan_ok=True)
    assert bl.summaries(record)["trained_samples"].item() == 64

    run = Run.resume(earlier, data_root=data_root)
    # What it had learned of each sample is what its methods go on from.
    assert (run.epoch, run.history.times_trained.sum()) == (2, 64)
    list(run)
    record = run.record
    assert (record.status, len(record.epochs)) == ("finished", 5)
    pd.testing.assert_frame_equal(record.epochs.iloc[:2], before)
    config = RunConfig.from_dict(record.config).replace(out=str(tmp_path), data_root=str(data_root))
    today = bl.train(config.replace(method="unif-SGD"), progress=False)
    assert today.fingerprint == record.fingerprint
    found = bl.compare([record, today], baseline="unif-SGD").set_index("method")
    assert set(found.index) == {"p-SGD", "unif-SGD"}
    assert found.loc["p-SGD", "pairs"] == 1
