"""Records: written whole or not at all, read without surprises, damage said in a sentence."""

import builtins
import errno
import io
import json
import os
import shutil
import stat
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
from budgetlab.records.format import FORMAT, round_mantissa, write_atomically

SIZE = 5


def new_writer(out: Path, **settings: object) -> RecordWriter:
    metadata = pd.DataFrame(
        {"label": np.arange(SIZE), "difficulty": np.linspace(0, 1, SIZE),
         "is_noisy": np.zeros(SIZE, bool), "note": list("abcde")}
    )  # fmt: skip
    return RecordWriter.create(
        RunConfig(out=str(out), **{"epochs": 2} | settings),
        metadata=metadata,
        data={"name": "shapes", "fingerprint": "f00d", "classes": ["a", "b"]},
        hardware={"device": "cpu"},
    )


def arrays(value: float) -> dict[str, np.ndarray]:
    filled = {name: np.full(SIZE, value) for name in SAMPLE_ARRAYS}
    return filled | {"correct": np.array([1, 0, -1, 1, 0]), "times_trained": np.arange(SIZE) * 100}


def append(writer: RecordWriter, epoch: int, **row: float) -> None:
    writer.append_epoch({"epoch": epoch, "steps": 3 * epoch, **row}, arrays(epoch / 3))


@pytest.fixture
def written(tmp_path) -> Path:
    """A record of two epochs."""
    writer = new_writer(tmp_path / "runs")
    append(writer, 1, test_accuracy=0.1)
    append(writer, 2, test_accuracy=1 / 3)
    writer.set_status("finished", "", {"steps": 6})
    return writer.path


# Writing


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomically(file, b"old")

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for broken in ("replace", "fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(os, broken, no_room)
            with pytest.raises(OSError, match="No space left"):
                write_atomically(file, b"new")
        assert file.read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomically(file, b"old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_others_can_read_what_was_written(written):
    assert stat.S_IMODE((written / "record.json").stat().st_mode) == 0o644


def test_a_second_record_of_the_same_run_gets_a_number(tmp_path):
    paths = [new_writer(tmp_path).path for _ in range(3)]
    first = paths[0].name
    assert [path.name for path in paths] == [first, f"{first}-2", f"{first}-3"]


def test_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match=r"out '.*runs' is a file: give a folder"):
        new_writer(tmp_path / "runs")


def test_out_below_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\).*--out"):
        new_writer(tmp_path / "runs" / "deeper")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\).*--out"):
        new_writer(tmp_path)


@pytest.mark.parametrize("broken", ["mkdir", "replace"])
def test_a_full_disk_at_the_start_leaves_no_half_record(tmp_path, monkeypatch, broken):
    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path if broken == "mkdir" else os, broken, no_room)
    with pytest.raises(RunError, match="No space left on device") as error:
        new_writer(tmp_path / "runs")
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert list(tmp_path.glob("runs/*")) == []


# Reading back


def test_everything_comes_back(written):
    record = open_record(written)
    assert (record.status, record.summary, record.fingerprint) == ("finished", {"steps": 6}, "f00d")
    assert record.classes == ["a", "b"]
    assert RunConfig.from_dict(record.config) == RunConfig(out=record.config["out"], epochs=2)
    assert list(record.epochs) == list(EPOCH_COLUMNS)
    assert record.epochs["steps"].tolist() == [3, 6]
    assert record.samples.sizes == {"epoch": 2, "sample": SIZE}
    assert record.samples["epoch"].values.tolist() == [1, 2]
    assert record.samples["loss"].values[1] == pytest.approx([2 / 3] * SIZE, rel=2e-3)
    assert record.samples["correct"].values[0].tolist() == [1, 0, -1, 1, 0]
    # Counts are kept in a byte: 300 and 400 become 255, not 44 and 144.
    assert record.samples["times_trained"].values[0].tolist() == [0, 100, 200, 255, 255]


def test_tags_come_back_with_their_types(written):
    samples = open_record(written).samples
    assert samples["difficulty"].values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert samples["is_noisy"].dtype == bool
    assert samples["note"].values.tolist() == list("abcde")


def test_numbers_in_the_table_stay_exactly_what_they_are(tmp_path):
    values = np.random.default_rng(0).random(200) * 10.0 ** np.arange(-100, 100)
    writer = new_writer(tmp_path, epochs=200)
    writer.epochs = [{name: np.nan for name in EPOCH_COLUMNS} | {"epoch": i, "train_loss": v}
                     for i, v in enumerate(values[:-1], start=1)]  # fmt: skip
    append(writer, 200, train_loss=values[-1])
    table = (writer.path / "epochs.csv").read_bytes()
    again = RecordWriter.reopen(writer.path, 199)
    append(again, 200, train_loss=values[-1])
    assert (writer.path / "epochs.csv").read_bytes() == table
    assert [row["train_loss"] for row in again.epochs] == values.tolist()


def test_an_array_that_was_not_given_stays_empty(tmp_path):
    writer = new_writer(tmp_path)
    writer.append_epoch({"epoch": 1}, {"times_trained": np.ones(SIZE)})
    samples = open_record(writer.path).samples
    assert np.isnan(samples["probability"].values).all()
    assert (samples["correct"].values == -1).all()


def test_more_epochs_than_planned_fit(tmp_path):
    writer = new_writer(tmp_path, epochs=1)
    for epoch in (1, 2, 3):
        append(writer, epoch)
    assert open_record(writer.path).samples["loss"].values[:, 0] == pytest.approx(
        [1 / 3, 2 / 3, 1], rel=2e-3
    )


def test_reopening_forgets_the_epochs_after(written):
    writer = RecordWriter.reopen(written, 1)
    append(writer, 2, test_accuracy=0.9)
    assert open_record(written).epochs["test_accuracy"].tolist() == [0.1, 0.9]


def test_an_epoch_without_its_row_is_not_read(tmp_path, monkeypatch):
    """A kill between the arrays and the table loses that epoch, and only that."""
    writer = new_writer(tmp_path)
    append(writer, 1)
    monkeypatch.setattr("budgetlab.records.writer.write_atomically", interrupt)
    with pytest.raises(KeyboardInterrupt):
        append(writer, 2)
    record = open_record(writer.path)
    assert len(record.epochs) == 1
    assert record.samples.sizes["epoch"] == 1


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_arrays_of_different_lengths_are_cut_to_the_table(tmp_path):
    """A kill while the arrays grow beyond the plan leaves some of them longer."""
    import zarr

    writer = new_writer(tmp_path, epochs=1)
    append(writer, 1)
    zarr.open_group(writer.path / "samples.zarr", mode="r+")["loss"].resize((2, SIZE))
    samples = open_record(writer.path).samples
    assert samples.sizes == {"epoch": 1, "sample": SIZE}
    assert samples["loss"].values[0] == pytest.approx([1 / 3] * SIZE, rel=2e-3)


def test_opening_reads_one_small_file(written, monkeypatch):
    for name in ("epochs.csv", "samples.zarr", "thumbnails.npz"):
        path = written / name
        if path.exists():
            path.rename(written / f"{name}.gone")
    opened = []
    real = io.open
    monkeypatch.setattr(
        io, "open", lambda file, *a, **k: (opened.append(file), real(file, *a, **k))[1]
    )
    assert open_record(written).status == "finished"
    assert len(opened) <= 1


# Thumbnails


def test_thumbnails_come_back_by_sample_number(written):
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    RecordWriter.reopen(written, 2).save_thumbnails(np.array([4, 1]), images)
    thumbnails = open_record(written).thumbnails
    assert list(thumbnails) == [4, 1]
    assert np.array_equal(thumbnails[1], images[1])


def test_a_record_without_thumbnails_has_none(written):
    assert open_record(written).thumbnails == {}


def test_a_pickle_in_place_of_thumbnails_is_never_loaded(written):
    class Bomb:
        def __reduce__(self):
            return builtins.exec, ("raise SystemExit('unpickled')",)

    array = np.empty(1, object)
    array[0] = Bomb()
    np.savez(written / "thumbnails.npz", indices=np.array([0]), images=array)
    with pytest.raises(InputError, match=r"thumbnails\.npz' cannot be read"):
        _ = open_record(written).thumbnails


# Damage


def damage(path: Path, name: str, content: bytes | str) -> Path:
    (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def said(path: Path, part: str = "about") -> str:
    """The one sentence said of a damaged part of a record."""
    with pytest.raises(InputError) as error:
        getattr(open_record(path), part)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", b"\xff\xfe", "[" * 100_000])
def test_a_damaged_description_is_said(written, content):
    message = said(damage(written, "record.json", content))
    assert "cannot be read" in message or "not the description of a run" in message


@pytest.mark.parametrize("key", ["config", "data", "summary", "status", "format"])
def test_a_description_that_lacks_something_is_said(written, key):
    about = json.loads((written / "record.json").read_text())
    for wrong in (None, "x" if key != "status" else 3):
        damage(written, "record.json", json.dumps(about | {key: wrong}))
        assert "not the description of a run" in said(written)


def test_a_newer_format_asks_for_a_newer_kit(written):
    about = json.loads((written / "record.json").read_text())
    damage(written, "record.json", json.dumps(about | {"format": FORMAT + 1}))
    assert f"has format {FORMAT + 1}, newer than {FORMAT}: upgrade budgetlab" in said(written)


def test_what_is_no_record_is_said(tmp_path):
    assert "is no record: give a folder with a record.json" in said(tmp_path)
    assert "is no record" in said(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", 'a,"b\n1', "a,b\n1,2\n1,2,3\n", b"\xff\xfe\x00", "\n\n"])
def test_a_damaged_table_is_said(written, content):
    message = said(damage(written, "epochs.csv", content), "epochs")
    assert "epochs.csv" in message


def test_a_table_that_lacks_columns_names_them(written):
    table = pd.read_csv(written / "epochs.csv").drop(columns=["lr", "flops"])
    damage(written, "epochs.csv", table.to_csv(index=False))
    assert said(written, "epochs").endswith("lacks the columns flops, lr")


def test_text_among_the_numbers_of_the_table_is_said(written):
    table = pd.read_csv(written / "epochs.csv", dtype=str)
    table.loc[1, "test_accuracy"] = "o.93"
    damage(written, "epochs.csv", table.to_csv(index=False))
    assert "test_accuracy" in said(written, "epochs")


def test_missing_arrays_are_said(written):
    shutil.rmtree(written / "samples.zarr")
    assert "samples.zarr' is missing" in said(written, "samples")


def test_a_missing_array_is_named(written):
    shutil.rmtree(written / "samples.zarr" / "margin")
    assert said(written, "samples").endswith("lacks the arrays margin")


@pytest.mark.parametrize("name", ["zarr.json", "loss/zarr.json"])
@pytest.mark.parametrize("content", ["", "{", '{"zarr_format": 9}'])
def test_damaged_arrays_are_said(written, name, content):
    message = said(damage(written, f"samples.zarr/{name}", content), "samples")
    assert "samples.zarr" in message


def test_damage_in_one_part_leaves_the_others_readable(written):
    shutil.rmtree(written / "samples.zarr")
    damage(written, "thumbnails.npz", b"PK nonsense")
    record = open_record(written)
    assert record.epochs["test_accuracy"].iloc[-1] == 1 / 3
    assert "thumbnails.npz" in said(written, "thumbnails")


DAMAGE = [("epochs.csv", "a\n1"), ("epochs.csv", b"\xff\xfe\x00"), ("samples.zarr/zarr.json", "{"),
          ("thumbnails.npz", b"PK"), ("record.json", None)]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), DAMAGE)
@pytest.mark.parametrize("status", ["running", "finished"])
def test_a_record_shows_itself_whatever_is_damaged(written, name, content, status):
    about = json.loads((written / "record.json").read_text())
    about |= {"status": status, "data": {"name": "<script>&"}}
    damage(written, "record.json", json.dumps(about))
    if content is not None:
        damage(written, name, content)
    shown = repr(open_record(written)), open_record(written)._repr_html_()
    for text in shown:
        assert written.name in text
        assert status in text
        assert ("damaged" in text) == (name == "epochs.csv")
    for part in ("unif-SGD", "&lt;script&gt;&amp;", "full run", "accuracy", "flops"):
        assert part in shown[1]
    assert "<script>" not in shown[1]


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


# Finding


def test_records_are_found_at_any_depth_each_once(tmp_path):
    deep, flat = new_writer(tmp_path / "a" / "b").path, new_writer(tmp_path).path
    assert records.find_records(tmp_path) == sorted([deep, flat])
    assert records.find_records([tmp_path, flat, str(deep), tmp_path / "a"]) == sorted([deep, flat])


def test_a_path_written_in_two_ways_is_one_record(tmp_path, monkeypatch):
    path = new_writer(tmp_path).path
    monkeypatch.chdir(tmp_path)
    found = records.find_records([path, path.name, f"./{path.name}", f"{path.name}/../{path.name}"])
    assert len(found) == 1


def test_several_records_are_opened_each_once_and_the_damaged_are_left_out(tmp_path):
    paths = sorted(new_writer(tmp_path, seed=seed).path for seed in range(3))
    (paths[1] / "record.json").write_text("{")
    with pytest.warns(records.RecordWarning, match="cannot be read.*is left out"):
        opened = bl.open_records([tmp_path, paths[0], open_record(paths[2])])
    assert [record.path for record in opened] == [paths[0], paths[2]]
    for nothing in (paths[1], []):
        with pytest.raises(InputError, match=r"cannot be read|no record was given"):
            bl.open_records(nothing)


def test_nothing_to_find_is_said(tmp_path):
    with pytest.raises(InputError, match=r"holds no record: give a folder with a record\.json"):
        records.find_records(tmp_path)
    with pytest.raises(InputError, match="does not exist: give the folder of a record"):
        records.find_records([tmp_path / "x"])


# Rounding


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)))
def test_rounding_is_within_its_bound(values):
    given_values = np.array(values, np.float32)
    largest = np.finfo(np.float32).max
    given_values = given_values[np.abs(given_values) < largest * (1 - 2**-8)]
    rounded = round_mantissa(given_values)
    assert (np.abs(rounded - given_values) <= np.abs(given_values) * 2.0**-9).all()
    assert np.array_equal(round_mantissa(rounded), rounded)


def test_rounding_keeps_what_is_not_finite():
    special = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0, 0.5], np.float32)
    assert np.array_equal(round_mantissa(special), special, equal_nan=True)


def test_rounding_the_largest_number_does_not_make_it_infinite():
    largest = np.array([np.finfo(np.float32).max], np.float32)
    assert np.isfinite(round_mantissa(largest)).all()
