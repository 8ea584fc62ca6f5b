"""Thinned records: small, few files, and open like any other; what is kept is what was."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
from fake_records import write_run

from budgetlab import analysis, report
from budgetlab.errors import InputError
from budgetlab.records import SAMPLE_ARRAYS, Record, thin
from budgetlab.records.thin import subsample, subsample_note

SIZE, EPOCHS = 200, 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Record:
    out = tmp_path_factory.mktemp("runs")
    return write_run(out, size=SIZE, epochs=EPOCHS, method="p-SGD", budget=0.3)


def test_without_fewer_samples_or_epochs_nothing_is_lost(whole, tmp_path):
    copy = thin(whole, tmp_path / "copy", samples=None, images=True)
    assert copy.fingerprint == whole.fingerprint
    assert copy.epochs.equals(whole.epochs)
    # Types too; it says of itself where it comes from.
    xarray.testing.assert_equal(copy.samples[list(whole.samples)].load(), whole.samples.load())
    assert list(copy.thumbnails) == list(whole.thumbnails)
    assert thin(whole, tmp_path / "bare", samples=None).thumbnails == {}


def test_fewer_samples_are_those_they_were_drawn_by_the_seed(whole, tmp_path):
    copies = [thin(whole, tmp_path / str(number), samples=50, seed=seed, images=True)
              for number, seed in enumerate((3, 3, 4))]  # fmt: skip
    kept, same, others = (copy.samples["recorded_as"].to_numpy() for copy in copies)
    assert np.array_equal(kept, same)
    assert not np.array_equal(kept, others)
    assert (np.diff(kept) > 0).all()
    copy = copies[0]
    assert copy.samples.sizes == {"epoch": EPOCHS, "sample": 50}
    for name in SAMPLE_ARRAYS:
        # Probabilities are as many times the uniform one as they were.
        factor = SIZE / 50 if name == "probability" else 1
        expected = whole.samples[name].to_numpy()[:, kept] * factor
        assert copy.samples[name].to_numpy() == pytest.approx(expected, rel=1e-6, nan_ok=True), name
    assert np.array_equal(copy.samples["difficulty"], whole.samples["difficulty"][kept])
    assert 0 < len(copy.thumbnails) < len(whole.thumbnails)
    for number, image in copy.thumbnails.items():
        assert np.array_equal(image, whole.thumbnails[int(kept[number])])
    # A part of the data is not taken for the whole.
    with pytest.raises(InputError, match="other data"):
        analysis.credit_by_reference(copy, whole)
    assert len(analysis.credit_by_reference(copy, copies[1], bins=4)) == 4
    twice = thin(copy.path, str(tmp_path / "twice"), samples=10)
    numbers = twice.samples["recorded_as"].to_numpy()
    assert np.array_equal(twice.samples["difficulty"], whole.samples["difficulty"][numbers])
    assert twice.thumbnails == {}
    # It has few files: two for each array and column, and those of the record.
    files = [file for file in copy.path.rglob("*") if file.is_file()]
    assert len(files) <= 2 * len(copy.samples) + 6
    assert not (copy.path / "state.pt").exists()


def test_epochs_left_out_keep_their_place_and_their_counts(whole, tmp_path):
    copy = thin(whole, tmp_path / "copy", samples=None, epochs=(2, 6))
    ours, theirs = copy.samples, whole.samples
    assert ours["epoch"].to_numpy().tolist() == [1, 2, 3, 4, 5, 6]
    assert np.array_equal(ours["times_trained"], theirs["times_trained"])
    assert np.array_equal(ours["loss"][1], theirs["loss"][1], equal_nan=True)
    assert np.isnan(ours["loss"].to_numpy()[[0, 2, 3, 4]]).all()
    assert (ours["correct"].to_numpy()[[0, 2, 3, 4]] == -1).all()
    assert analysis.quantiles(copy, "loss").index.tolist() == [2, 6]
    assert analysis.selection(copy)["coverage"].equals(analysis.selection(whole)["coverage"])
    assert copy.epochs.equals(whole.epochs)
    for count, expected in ((1, [1]), (2, [1, 6]), (3, [1, 4, 6]), (99, [1, 2, 3, 4, 5, 6])):
        copy = thin(whole, tmp_path / str(count), samples=50, epochs=count, seed=7)
        about = json.loads((copy.path / "record.json").read_text())
        assert about["thinned"] == {"samples": 50, "of": SIZE, "seed": 7, "epochs": expected}
        assert (about["config"], about["summary"]) == (whole.config, whole.summary)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples 0 is not allowed: give a whole number from 1, or None"),
        ({"epochs": 0}, "epochs 0 is not allowed: give a whole number from 1, or None"),
        ({"epochs": [1, 7]}, "epoch 7 does not exist in .*: give numbers from 1 to 6"),
        ({"epochs": []}, "epoch none does not exist in .*: give numbers from 1 to 6"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_left(whole, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        thin(whole, tmp_path / "copy", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_there_stays_and_a_copy_that_fails_leaves_nothing(
    whole, tmp_path, monkeypatch
):
    with pytest.raises(InputError, match="is there already"):
        thin(whole, tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot be written"):
        thin(whole, tmp_path / "file" / "copy")

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules[thin.__module__], "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        thin(whole, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_large_record_is_looked_at_through_some_of_its_samples(tmp_path):
    whole = write_run(tmp_path / "a", size=120, epochs=5, method="p-SGD", budget=0.5)
    assert subsample(whole, 120) is whole
    assert subsample_note(whole) == ""
    some = subsample(whole, 30, also=(7, 119))
    kept = some.samples["recorded_as"].to_numpy()
    assert {7, 119} <= set(kept)
    assert 30 <= len(kept) <= 32
    table, full = analysis.measures(some), analysis.measures(whole)
    for name in ("mean_loss", "forgetting", "label", "dyn_unc"):
        np.testing.assert_array_equal(table[name], full[name].to_numpy()[kept])
    before = whole.samples["probability"].to_numpy()[:, kept] * 120 / len(kept)
    np.testing.assert_allclose(some.samples["probability"], before, rtol=1e-6)
    assert some.fingerprint != whole.fingerprint
    assert whole.samples.sizes["sample"] == 120
    assert subsample_note(some) == f" Shown are {len(kept)} of 120 samples, drawn at random."
    # Records of the same data are seen through the same samples.
    other = subsample(write_run(tmp_path / "b", size=120, seed=2), 30, also=(7, 119))
    np.testing.assert_array_equal(kept, other.samples["recorded_as"])
    assert some.fingerprint == other.fingerprint


def test_a_page_says_that_it_shows_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr(subsample, "__defaults__", (40, (), 0))
    record = write_run(tmp_path / "a", size=60, epochs=2)
    page = report.write(record, tmp_path / "report.html").read_text()
    assert "Shown are 40 of 60 samples, drawn at random." in page
