"""Class folders, mini-ImageNet: what is read, how, and what is left out."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from budgetlab.data import images, load
from budgetlab.errors import InputError
from budgetlab.records import safety


def picture(path, colour, size=(32, 32), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


@pytest.fixture
def pets(tmp_path):
    top = tmp_path / "pets"
    for number in range(10):
        picture(top / "cat" / f"{number}.png", (200, number, 0))
        picture(top / "dog" / "young" / f"{number}.png", (0, number, 200))
    (top / "cat" / "notes.txt").write_text("no image")
    (top / "cat" / ".hidden.png").write_text("no image")
    (top / "empty").mkdir()
    return top


def read(top, tmp_path, **options):
    return load(f"folder:{top}", root=tmp_path / "root", progress=False, **options)


def test_without_a_test_folder_a_fifth_of_each_class_is_held_out(pets, tmp_path):
    data = read(pets, tmp_path)
    assert data.name == f"folder:{pets}"
    assert data.train.classes == ("cat", "dog")
    assert torch.bincount(data.train.y).tolist() == [8, 8]
    assert torch.bincount(data.test.y).tolist() == [2, 2]
    assert data.train.sample_shape == (3, 32, 32)
    # Label, picture and position belong together: red cats first, then blue dogs.
    for split in (data.train, data.test):
        assert ((split.x[:, 0, 0, 0] == 200) == (split.y == 0)).all()
        numbers = split.metadata["index"].to_numpy() % 10
        assert (split.x[:, 1, 5, 5].numpy() == numbers).all()
    assert data.skipped == ()
    assert read(pets, tmp_path, seed=1).fingerprint != data.fingerprint


def test_a_class_of_the_test_images_alone_is_refused(tmp_path):
    for part, classes in (("train", "ab"), ("test", "abc")):
        for name in classes:
            picture(tmp_path / "split" / part / name / "0.png", (10, 0, 0))
    with pytest.raises(InputError, match="class 'c'"):
        read(tmp_path / "split", tmp_path)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("RGBA", (255, 0, 0, 255), 0), ("RGBA", (255, 0, 0, 0), 255), ("LA", (0, 51), 204)],
)
def test_what_is_transparent_shows_white(mode, colour, expected, tmp_path):
    picture(tmp_path / "one.png", colour, mode=mode)
    assert images.decode(tmp_path / "one.png", None)[1, 3, 4] == expected


def test_second_load_decodes_nothing_and_a_change_decodes_again(pets, tmp_path, monkeypatch):
    first = read(pets, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(images, "decode", None)
        again = read(pets, tmp_path)
        assert again.fingerprint == first.fingerprint
        assert again.train.metadata.equals(first.train.metadata)
    picture(pets / "cat" / "3.png", (201, 99, 0))
    assert read(pets, tmp_path).fingerprint != first.fingerprint
    # A changed folder replaces its cache.
    assert len(list((tmp_path / "root" / "folders").iterdir())) == 1


def test_an_unreadable_image_is_skipped_counted_and_reported(pets, tmp_path):
    (pets / "cat" / "4.png").write_bytes((pets / "cat" / "4.png").read_bytes()[:40])
    (pets / "dog" / "fake.jpg").write_text("no image")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"skipped in .*: cat/4\.png.* \(2 files\)"):
            data = read(pets, tmp_path)
        assert len(data.train) + len(data.test) == 19
        assert [entry.split(":")[0] for entry in data.skipped] == ["cat/4.png", "dog/fake.jpg"]
        assert "not an image" in data.skipped[1]


def test_links_are_followed_and_said_and_no_circle_is(pets, tmp_path):
    """A subset is often made of links; a link back would be read for ever."""
    picture(tmp_path / "outside" / "more.png", (1, 2, 3))
    (pets / "cat" / "out.png").symlink_to(tmp_path / "outside" / "more.png")
    (pets / "owl").symlink_to(tmp_path / "outside")
    (pets / "dog" / "back").symlink_to(pets / "dog")
    (pets / "dog" / "gone.png").symlink_to(pets / "nothing.png")
    with pytest.warns(UserWarning, match="skipped in"):
        data = read(pets, tmp_path)
    assert data.train.classes == ("cat", "dog", "owl")
    assert len(data.train) + len(data.test) == 22
    assert data.skipped == (
        "dog/back: a link to a folder that is read already",
        "dog/gone.png: a link to nothing",
    )
    assert "links, which were followed: 2 files" in data.intake.odd


def test_mixed_sizes_become_32_and_one_size_is_kept(tmp_path):
    top = tmp_path / "sizes"
    for number in range(5):
        picture(top / "a" / f"{number}.png", (1, 0, 0), size=(20, 12))
        picture(top / "b" / f"{number}.png", (2, 0, 0), size=(20, 12))
    assert read(top, tmp_path).train.sample_shape == (3, 12, 20)
    assert read(top, tmp_path, size=16).train.sample_shape == (3, 16, 16)
    picture(top / "b" / "9.png", (2, 0, 0), size=(50, 90))
    assert read(top, tmp_path).train.sample_shape == (3, 32, 32)


def test_the_shorter_side_is_resized_and_the_centre_cut(tmp_path):
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste(Image.new("RGB", (32, 32), "blue"), (32, 0))
    wide.save(tmp_path / "wide.png")
    cut = images.decode(tmp_path / "wide.png", 16)
    # Only the blue middle is left, but for the edge that the filter smooths.
    assert cut.shape == (3, 16, 16)
    assert (cut[2, :, 2:-2] > 250).all()
    assert (cut[0, :, 2:-2] < 5).all()


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (20, 10), "black")
    image.paste(Image.new("RGB", (10, 10), "white"), (0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees clockwise: left goes to the top.
    image.save(tmp_path / "turned.png", exif=exif)
    upright = images.decode(tmp_path / "turned.png", None)
    assert upright.shape == (3, 20, 10)
    assert upright[:, :10].min() == 255
    assert upright[:, 10:].max() == 0


def test_decompression_bombs_are_unreadable(pets, tmp_path, monkeypatch):
    picture(pets / "cat" / "bomb.png", (0, 0, 0), size=(400, 400))
    monkeypatch.setattr(images, "MOST_PIXELS", 100_000)
    with pytest.warns(UserWarning, match="400x400 pixels are too many"):
        data = read(pets, tmp_path)
    assert len(data.skipped) == 1
    monkeypatch.undo()
    # Pillow's own limit: a warning above it, an error above twice of it.
    for limit in (100_000, 50_000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.warns(UserWarning, match=r"bomb\.png: too many pixels"):
            load(f"folder:{pets}", root=tmp_path / str(limit), progress=False)


def test_memory_is_checked_before_it_is_taken(pets, tmp_path, monkeypatch):
    monkeypatch.setattr(safety, "available_memory", lambda: 100_000)
    with pytest.raises(InputError, match=r"20 images needs .* GiB"):
        read(pets, tmp_path)
    assert safety.require_memory("nothing", 50_000, "") is None


def test_what_cannot_be_a_data_set_is_refused(pets, tmp_path):
    cases = {
        tmp_path / "pest": f"did you mean '{pets}'",
        tmp_path / "no" / "such": "check the path",
        pets / "cat" / "1.png": "is a file",
        pets / "cat": "no images in class folders",
        pets / "dog": "one class only, 'young'",
    }
    for path, says in cases.items():
        with pytest.raises(InputError) as caught:
            read(path, tmp_path)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


def test_nothing_readable_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "bad" / name / f"{number}.png").write_text("no image")
    with pytest.raises(InputError, match="none of 10 images"):
        read(tmp_path / "bad", tmp_path)


def mini_imagenet(root, count=12):
    top = root / "mini-imagenet"
    rows = []
    for number in range(count):
        name = f"n{number:02d}.jpg"
        picture(top / "images" / name, (20 * number, 0, 0), size=(100, 120), quality=95)
        rows.append((name, f"class{number % 3}"))
    table = pd.DataFrame(rows, columns=["filename", "label"])
    for part, chosen in zip(("train", "val", "test"), np.array_split(table.index, 3), strict=True):
        table.loc[chosen].to_csv(top / f"{part}.csv", index=False)
    return top


def test_mini_imagenet_pools_shuffles_and_cuts(tmp_path):
    mini_imagenet(tmp_path)
    data = load("mini-imagenet", root=tmp_path, progress=False)
    assert (len(data.train), len(data.test)) == (10, 2)
    assert data.train.sample_shape == (3, 84, 84)
    assert data.train.mean == (0.4728, 0.4487, 0.4031)
    index = np.concatenate([data.train.metadata["index"], data.test.metadata["index"]])
    assert sorted(index) == list(range(12))
    assert index.tolist() != list(range(12))
    for split in (data.train, data.test):
        index = split.metadata["index"].to_numpy()
        assert (split.y.numpy() == index % 3).all()
        assert (abs(split.x[:, 0, 40, 40].numpy() - 20.0 * index) < 4).all()
    # The cut is the same whatever the seed.
    assert load("mini-imagenet", root=tmp_path, seed=5).fingerprint == data.fingerprint


def test_mini_imagenet_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"train\.csv' is missing"):
        load("mini-imagenet", root=tmp_path)
    top = mini_imagenet(tmp_path)
    os.remove(top / "images" / "n03.jpg")
    with pytest.warns(UserWarning, match=r"n03\.jpg: no such file"):
        data = load("mini-imagenet", root=tmp_path, progress=False)
    assert len(data.train) + len(data.test) == 11
    (top / "val.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns filename and label"):
        load("mini-imagenet", root=tmp_path)
    (top / "val.csv").write_bytes(b"filename,label\nn\0.jpg,a\n")
    with pytest.raises(InputError, match=r"null character in 'n\\x00.jpg,a'"):
        load("mini-imagenet", root=tmp_path)
