"""Thinned records: small, few files, and open like any other; what is kept is what was."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_records import write_run

import budgetlab as bl
from budgetlab import analysis
from budgetlab.errors import InputError
from budgetlab.records import SAMPLE_ARRAYS, Record, open_records, thin
from budgetlab.records.thin import sampled_down, sampled_sentence

SIZE, EPOCHS = 200, 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Record:
    out = tmp_path_factory.mktemp("runs")
    return write_run(out, size=SIZE, epochs=EPOCHS, method="p-SGD", budget=0.3)


def size_of(record: Record) -> int:
    return sum(file.stat().st_size for file in record.path.rglob("*") if file.is_file())


def test_without_fewer_samples_or_epochs_nothing_is_lost(whole, tmp_path):
    copy = thin(whole, tmp_path / "copy", samples=None, images=True)
    assert copy.fingerprint == whole.fingerprint
    assert copy.epochs.equals(whole.epochs)
    assert set(copy.samples) == set(whole.samples)
    for name in whole.samples:
        assert np.array_equal(copy.samples[name], whole.samples[name],
                              equal_nan=copy.samples[name].dtype.kind == "f")  # fmt: skip
        assert copy.samples[name].dtype == whole.samples[name].dtype
    assert list(copy.thumbnails) == list(whole.thumbnails)
    measured = analysis.measures(whole)
    assert analysis.measures(copy)[list(measured)].equals(measured)


def test_fewer_samples_are_those_they_were(whole, tmp_path):
    copy = thin(whole, tmp_path / "copy", samples=50)
    kept = copy.samples["recorded_as"].to_numpy()
    assert len(set(kept.tolist())) == 50
    assert (np.diff(kept) > 0).all()
    assert copy.samples.sizes == {"epoch": EPOCHS, "sample": 50}
    for name in SAMPLE_ARRAYS:
        factor = SIZE / 50 if name == "probability" else 1
        expected = whole.samples[name].to_numpy()[:, kept] * factor
        assert copy.samples[name].to_numpy() == pytest.approx(expected, rel=1e-6, nan_ok=True), name
    assert np.array_equal(copy.samples["difficulty"], whole.samples["difficulty"][kept])


def test_probabilities_are_as_many_times_the_uniform_one_as_they_were(whole, tmp_path):
    copy = thin(whole, tmp_path / "copy", samples=150)
    kept = copy.samples["recorded_as"].to_numpy()
    ours, theirs = (run.samples["probability"].to_numpy() * run.samples.sizes["sample"]
                    for run in (copy, whole))  # fmt: skip
    assert ours == pytest.approx(theirs[:, kept], rel=1e-6)
    # The draw is uniform, so that they still sum to about one.
    assert copy.samples["probability"].to_numpy().sum(1) == pytest.approx(1, abs=0.1)


def test_a_draw_of_samples_depends_on_the_seed_alone(whole, tmp_path):
    kept = [
        thin(whole, tmp_path / f"{number}", samples=50, seed=seed).samples["recorded_as"].to_numpy()
        for number, seed in enumerate((3, 3, 4))
    ]
    assert np.array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[0], kept[2])


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


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [1]), (2, [1, 6]), (3, [1, 4, 6]), (6, None), (99, None)]
)
def test_a_number_of_epochs_is_spread_from_the_first_to_the_last(whole, tmp_path, count, expected):
    copy = thin(whole, tmp_path / "copy", epochs=count)
    assert copy.about["thinned"]["epochs"] == (expected or [1, 2, 3, 4, 5, 6])


def test_it_is_small_and_of_few_files(tmp_path):
    big = write_run(tmp_path, size=4000, epochs=20)
    copy = thin(big, tmp_path / "copy", samples=400, epochs=5)
    assert size_of(copy) < size_of(big) / 10
    files = [file for file in copy.path.rglob("*") if file.is_file()]
    # Two for each array and tag, one for the group, description and table.
    assert len(files) <= 2 * len(copy.samples) + 3
    assert not (copy.path / "state.pt").exists()


def test_images_are_left_out_unless_asked_for(whole, tmp_path):
    assert thin(whole, tmp_path / "bare", samples=150).thumbnails == {}
    copy = thin(whole, tmp_path / "shown", samples=150, images=True)
    kept = copy.samples["recorded_as"].to_numpy()
    assert 0 < len(copy.thumbnails) <= len(whole.thumbnails)
    for number, image in copy.thumbnails.items():
        assert np.array_equal(image, whole.thumbnails[int(kept[number])])


def test_a_part_of_the_data_is_not_taken_for_the_whole(whole, tmp_path):
    copy = thin(whole, tmp_path / "copy", samples=50)
    with pytest.raises(InputError, match="other data"):
        analysis.credit_by_reference(copy, whole)
    again = thin(whole, tmp_path / "again", samples=50)
    assert len(analysis.credit_by_reference(copy, again, bins=4)) == 4


def test_a_thinned_record_can_be_thinned_again(whole, tmp_path):
    once = thin(whole, tmp_path / "once", samples=100)
    twice = thin(once.path, str(tmp_path / "twice"), samples=10)
    numbers = twice.samples["recorded_as"].to_numpy()
    assert np.array_equal(twice.samples["difficulty"], whole.samples["difficulty"][numbers])


def test_it_is_found_and_compared_like_any_record(whole, tmp_path):
    other = write_run(tmp_path / "runs", size=SIZE, epochs=EPOCHS, method="unif-SGD", budget=0.3)
    for number, record in enumerate((whole, other)):
        thin(record, tmp_path / "small" / str(number), samples=50)
    frame = bl.summaries(tmp_path / "small")
    assert frame["test_accuracy"].tolist() == pytest.approx(
        bl.summaries([whole.path, other.path])["test_accuracy"].tolist()
    )


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


def test_a_target_that_is_there_stays(whole, tmp_path):
    with pytest.raises(InputError, match="is there already"):
        thin(whole, tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot be written"):
        thin(whole, tmp_path / "file" / "copy")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_copy_that_fails_leaves_nothing(whole, tmp_path, monkeypatch):
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules[thin.__module__], "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        thin(whole, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_the_description_says_what_was_kept(whole, tmp_path):
    copy = thin(whole, tmp_path / "copy", samples=50, epochs=2, seed=7)
    about = json.loads((copy.path / "record.json").read_text())
    assert about["thinned"] == {"samples": 50, "of": SIZE, "seed": 7, "epochs": [1, 6]}
    assert (about["config"], about["summary"]) == (whole.config, whole.summary)


def test_a_large_record_is_looked_at_through_some_of_its_samples(tmp_path):
    whole = write_run(tmp_path, size=120, epochs=5, method="p-SGD", budget=0.5)
    assert sampled_down(whole, 120) is whole
    assert sampled_sentence(whole) == ""
    some = sampled_down(whole, 30, also=(7, 119))
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
    assert sampled_sentence(some) == f" Shown are {len(kept)} of 120 samples, drawn at random."


def test_large_records_of_the_same_data_are_seen_through_the_same_samples(tmp_path):
    first = write_run(tmp_path / "a", size=120, seed=1)
    second = write_run(tmp_path / "b", size=120, seed=2)
    one, other = sampled_down(first, 30), sampled_down(second, 30)
    np.testing.assert_array_equal(one.samples["recorded_as"], other.samples["recorded_as"])
    assert one.fingerprint == other.fingerprint


def test_pages_and_widgets_say_that_they_show_a_part(tmp_path, monkeypatch):
    from budgetlab import report
    from budgetlab.widgets import SampleAtlas

    monkeypatch.setattr(sampled_down, "__defaults__", (40, (), 0))
    for name in "ab":
        write_run(tmp_path / name, size=120, epochs=6, seed=ord(name))
    record, other = open_records(tmp_path)
    atlas = SampleAtlas(record, other=other)
    shown = len(atlas.frame)  # those drawn, and those with an image
    assert 40 <= shown < 120
    assert f"Shown are {shown} of 120 samples, drawn at random" in atlas.status.text
    assert set(atlas.frame["recorded_as"]) >= set(record.thumbnails) | set(other.thumbnails)
    saved = pd.read_csv(atlas.export(tmp_path / "list.csv"))
    assert saved["recorded_as"].max() > 40
    page = report.write(tmp_path, tmp_path / "report.html").read_text()
    assert "Shown are 40 of 120 samples, drawn at random." in page
