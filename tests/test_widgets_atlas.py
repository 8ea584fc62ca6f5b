"""The atlas: rankings, images, lives, lists."""

import numpy as np
import pandas as pd
import pytest
from fake_records import write_run

import budgetlab as bl
from budgetlab.analysis import MEANINGS, measures
from budgetlab.errors import InputError
from budgetlab.explore.ranking import (
    DIFFERENCE,
    agreement_sentence,
    beside,
    groups_of,
    images_of,
    picture_of_point,
    ranking,
)
from budgetlab.widgets import SampleAtlas
from budgetlab.widgets.atlas import EVERY_CLASS

FRAME = pd.DataFrame(
    {
        "label": [0, 1, 0, 1, 1],
        "is_noisy": [False, True, False, False, True],
        "visits": [2, 0, 1, 3, 1],
        "mean_loss": [0.5, np.nan, 2.0, 0.5, 1.0],
    }
)


@pytest.mark.parametrize(
    ("by", "options", "expected"),
    [
        ("mean_loss", {}, [2, 4, 0, 3]),
        ("mean_loss", {"highest": False}, [0, 3, 4, 2]),
        ("mean_loss", {"label": 1}, [4, 3]),
        ("mean_loss", {"group": "noisy"}, [4]),
        ("mean_loss", {"group": "not noisy", "label": 0}, [2, 0]),
        ("mean_loss", {"among": np.array([0, 3, 4])}, [4, 0, 3]),
        ("mean_loss", {"label": 0, "group": "noisy"}, []),
        ("visits", {"group": "never trained on"}, [1]),
    ],
)
def test_rankings_by_hand(by, options, expected):
    found = ranking(FRAME, by, **options)
    assert list(found.index) == expected
    assert list(found["rank"]) == list(range(1, len(expected) + 1))


def test_what_a_ranking_refuses():
    assert groups_of(FRAME) == ["all", "noisy", "not noisy", "never trained on"]
    with pytest.raises(InputError, match="is_ambiguous"):
        ranking(FRAME, "visits", group="ambiguous")
    with pytest.raises(InputError, match="unknown group 'noise': did you mean 'noisy'"):
        ranking(FRAME, "visits", group="noise")
    with pytest.raises(InputError, match="unknown measure"):
        ranking(FRAME, "loss_mean")


def test_two_runs_side_by_side(tmp_path):
    a = write_run(tmp_path, method="p-SGD")
    b = write_run(tmp_path, method="unif-SGD", seed=1)
    both = beside(measures(a), a, b)
    counts = [r.samples["times_trained"].sum("epoch").to_numpy() for r in (a, b)]
    assert np.array_equal(both[DIFFERENCE], counts[0].astype(int) - counts[1].astype(int))
    assert "n = 200" in agreement_sentence(both)
    assert ": 1.00 (95% CI 1.00 to 1.00" in agreement_sentence(beside(measures(a), a, a))
    assert "no ranks to compare" in agreement_sentence(both.assign(times_trained=3))
    with pytest.raises(InputError, match="other data"):
        beside(measures(a), a, write_run(tmp_path, fingerprint="beef"))
    atlas = SampleAtlas(a, other=b.path)
    atlas.only_images.value = False
    atlas.by.value = DIFFERENCE
    assert atlas.chosen[DIFFERENCE].is_monotonic_decreasing
    assert "Rank correlation" in atlas.status.text
    assert "p-SGD" in atlas.life.alt
    assert "unif-SGD" in atlas.life.alt
    assert "times in a batch of the other run" in atlas.facts.value


def test_images_of_all_samples_come_from_the_data_and_points_have_some_too(train, load_once):
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], np.float32)
    for sample, corner in enumerate([(-3, 2), (-3, -3), (2, 2)]):
        image = picture_of_point(x, sample)
        assert image[corner].tolist() == [213, 94, 0]
        assert (image == [213, 94, 0]).all(axis=2).sum() == 25
    record = train(dataset="digits", epochs=2, limit=256).record
    splits = load_once("digits", limit=256)
    images = images_of(record, splits)
    assert (len(images), images[5].shape) == (256, (8, 8, 1))
    assert np.array_equal(images[5][:, :, 0], splits.train.x[5, 0].numpy())
    assert images.get(256) is None
    with pytest.raises(InputError, match="not what"):
        images_of(record, load_once("digits", limit=128))
    run = train(method="p-SGD")
    atlas = SampleAtlas(run.record, load_once("points", limit=128))
    assert not atlas.only_images.value
    assert len(atlas.chosen) == 128
    assert "data:image/png" in atlas.sheet.tiles[0].picture.value
    without = SampleAtlas(run.record)
    assert "no image kept" in without.sheet.tiles[0].picture.value
    assert not without.status.is_problem


# ---- the widget ----


@pytest.fixture
def atlas(tmp_path):
    return SampleAtlas(write_run(tmp_path, method="p-SGD"))


def test_every_control_at_its_ends_leaves_a_usable_atlas(atlas):
    # The samples whose images are kept come first, and are said to be some.
    assert set(atlas.chosen.index) == set(atlas.record.thumbnails)
    assert "whose images the record keeps" in atlas.status.text
    assert f'alt="Sample {atlas.sheet.tiles[0].sample}: ' in atlas.sheet.tiles[0].picture.value
    atlas.only_images.value = False
    assert len(atlas.chosen) == 200
    assert "record keeps" not in atlas.status.text
    for control in (atlas.by, atlas.order, atlas.label, atlas.group):
        values = [one[1] if isinstance(one, tuple) else one for one in control.options]
        for control.value in values:
            for page in (atlas.page.box.max, 1):
                atlas.page.value = page
                assert not atlas.status.is_problem, atlas.status.text
                shown = [tile.sample for tile in atlas.sheet.tiles if tile.sample >= 0]
                start = (page - 1) * len(atlas.sheet.tiles)
                assert shown == list(atlas.chosen.index[start : start + len(shown)])
        control.value = values[0]
    offered = {value for _, value in atlas.by.options}
    assert offered == {name for name in MEANINGS if name in atlas.frame} | {"difficulty"}


def test_the_atlas_shows_what_the_function_gives(atlas):
    atlas.only_images.value = False
    assert atlas.label.label == "all classes"
    for label, classes in ((1, {1}), (EVERY_CLASS, {0, 1, 2, 3})):
        atlas.label.value = label
        assert set(atlas.chosen["label"]) == classes
        pages = -(-len(atlas.chosen) // len(atlas.sheet.tiles))
        assert (atlas.page.box.min, atlas.page.box.max) == (1, pages)
    atlas.page.value = 3
    atlas.by.value, atlas.order.value = "mean_loss", "least first"
    assert atlas.page.value == 1  # another order begins at its first page
    atlas.label.value, atlas.group.value = 3, "noisy"
    by_hand = ranking(measures(atlas.record), "mean_loss", highest=False, label=3, group="noisy")
    assert len(by_hand) > 5
    pd.testing.assert_frame_equal(atlas.chosen, by_hand)
    assert f"of {len(by_hand)} samples" in atlas.status.text
    assert all("(truly " in tile.picture.value for tile in atlas.sheet.tiles if tile.sample >= 0)
    # Every tenth from 3 is noisy: the numbers are odd, and class 0 is even.
    atlas.label.value = 0
    assert "No sample is like this" in atlas.status.text
    assert all(tile.layout.visibility == "hidden" for tile in atlas.sheet.tiles)
    atlas.group.value, atlas.label.value = "all", 2
    assert atlas.sheet.tiles[0].layout.visibility == "visible"
    values = "".join(tile.picture.value for tile in atlas.sheet.tiles)
    assert "&lt;b&gt;star" in values  # a class name is text
    assert "<b>star" not in values


def test_a_tile_opens_the_life_of_its_sample(atlas):
    tile = atlas.sheet.tiles[3]
    tile.button.click()
    assert atlas.sample.value == tile.sample
    assert f"Sample {tile.sample}." in atlas.life.alt
    times = int(atlas.frame.loc[tile.sample, "times_trained"])
    assert f"trained on {times} times" in atlas.life.alt
    assert f"<strong>{times}</strong> times in a training batch" in atlas.facts.value
    for typed, nearest in ((-5, 0), (10**6, 199)):
        atlas.sample.value = typed
        assert f"Sample {nearest}." in atlas.life.alt
    atlas.sample.value = 3  # labelled 3, truly 0
    assert "<strong>circle</strong> true class" in atlas.facts.value
    atlas.sample.value = 4
    assert "true class" not in atlas.facts.value


def test_the_list_is_saved_in_order(atlas, tmp_path):
    atlas.only_images.value = False
    atlas.by.value = "forgetting"
    atlas.file.value = str(tmp_path / "hard.csv")
    atlas.save_button.click()
    visited = int((atlas.frame["visits"] > 0).sum())
    assert f"{visited} samples are saved" in atlas.status.text
    table = pd.read_csv(tmp_path / "hard.csv")
    assert list(table.columns) == ["sample", "rank", "index", "label", "forgetting"]
    assert list(table["sample"]) == list(atlas.chosen.index)
    for name in ("hard.txt", "missing/hard.csv"):
        atlas.file.value = str(tmp_path / name)
        atlas.save_button.click()
        assert atlas.status.is_problem
        assert "give" in atlas.status.text
        with pytest.raises(InputError):
            atlas.export(tmp_path / name)


def test_no_epoch_is_an_error(config):
    with pytest.raises(InputError, match="no finished epoch"):
        SampleAtlas(bl.Run(config).record)
