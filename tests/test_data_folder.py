"""Images as people have them, in class folders: what is found, said, left out, and refused."""

import io
import json
import os
import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_images import write_classes, write_images
from PIL import Image, UnidentifiedImageError
from torchvision.datasets import ImageFolder

import budgetlab as bl
from budgetlab import analysis, cli
from budgetlab.data import images, load
from budgetlab.data.dataset import flip_keeps_class
from budgetlab.data.folder import split_of
from budgetlab.errors import InputError


def read(top, tmp_path, **options):
    return load(f"folder:{top}", **({"root": tmp_path / "root", "progress": False} | options))


def refused(top, tmp_path, **options):
    with pytest.raises(InputError) as caught:
        read(top, tmp_path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def many(tmp_path):
    return write_classes(tmp_path / "many", *(f"c{k}" for k in range(4)), count=50)


# Which file is which


def test_origin_index_label_and_pixels_belong_together_as_in_image_folder(tmp_path):
    top = tmp_path / "nested"
    for seed, name in enumerate("ab"):
        # Spaces, upper case and numbers: where sorting by part and by whole path differ.
        for n, inner in enumerate(("", "2024-01", "2024-01/x", "2024-01 b", "Z", "_z")):
            write_images(top / name / inner, 3, seed=10 * seed + n)
    (top / "empty").mkdir()
    files = ImageFolder(top, allow_empty=True).samples
    data = read(top, tmp_path)
    # A fifth of each class is held out.
    assert sorted(torch.bincount(data.test.y).tolist()) == [3, 4]
    assert len(data.train) + len(data.test) == len(files) == 36
    for part in (data.train, data.test):
        for n, (index, origin) in enumerate(part.metadata[["index", "origin"]].to_numpy()):
            assert files[index] == (str(top / origin), int(part.y[n]))
            pixels = np.asarray(Image.open(top / origin)).transpose(2, 0, 1)
            assert (part.x[n].numpy() == pixels).all()
    assert data.skipped == ()
    assert read(top, tmp_path, seed=1).fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", None, "Testing"), ("TRAIN", "VALID", "TEST"),
     ("train2017", "validation_set", "test-images"), ("seg_train", None, "seg_test"),
     ("TrainSet", "dev", "eval"), ("trn", None, None)],
)  # fmt: skip
def test_splits_are_known_by_their_usual_names(train, val, test, tmp_path):
    top = tmp_path / "top"
    for seed, (name, count) in enumerate(((train, 5), (val, 2), (test, 3))):
        for number in range(2) if name else ():
            write_images(top / name / f"class{number}", count, seed=10 * seed + number)
    data = read(top, tmp_path)
    assert data.train.classes == ("class0", "class1")
    assert (len(data.train), len(data.test)) == ((10, 6) if test else (8, 2))
    assert (data.val is not None) == (val is not None)
    files = ImageFolder(top / train).samples
    found = [files[i][0] for i in data.train.metadata["index"]]
    assert found == [str(top / origin) for origin in data.train.metadata["origin"]]
    assert data.intake.where["train"] == f"{train}/"
    if val:
        assert "val_fraction 0.5 is not needed" in refused(top, tmp_path, val_fraction=0.5)


def test_what_cannot_be_a_data_set_is_refused(tmp_path):
    for name in ("train station", "test tube", "retrain", "training shoes", "7"):
        assert split_of(name) is None
    pets = write_classes(tmp_path / "pets", "cat", "dog/young")
    (tmp_path / "top" / "__MACOSX" / "top").mkdir(parents=True)
    for place in ("a/Testing", "a/valid", "c/train", "c/Training", "e/train", "top/top",
                  "kaggle/train/train", "split/train"):  # fmt: skip
        write_classes(tmp_path / place, "c0", "c1")
    write_classes(tmp_path / "split" / "test", "c0", "c1", "c2")
    write_classes(tmp_path / "e", "cow")
    write_classes(tmp_path / "b", "train", "test")
    for number in range(10):
        (tmp_path / "bad" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad" / "ab"[number % 2] / f"{number}.png").write_text("no image")
    cases = {
        "a": "none for training", "c": "for the train split: leave one", "pets/dog": "'young'",
        "b": "looks like a split and has no class folders",
        "e": "lies beside cow, which look like classes", "pest": f"did you mean '{pets}'",
        "no/such": "check the path", "pets/cat/img01.png": "is a file",
        "pets/cat": "no images in class folders", "top": f"give folder:{tmp_path}/top/top",
        "kaggle": "move them up into", "split": "class 'c2'", "bad": "none of 10 images",
    }  # fmt: skip
    for path, says in cases.items():
        assert says in refused(tmp_path / path, tmp_path)
    # A vehicle among others is one.
    data = read(write_classes(tmp_path / "d", "bus", "car", "train"), tmp_path)
    assert data.train.classes == ("bus", "car", "train")
    assert any("taken for a class" in one for one in data.intake.odd)


def test_positions_that_image_folder_counts_otherwise_are_said(tmp_path):
    """Archives made on a Mac hold a hidden file beside each image."""
    pets = write_classes(tmp_path / "pets", "cat", "dog", count=10)
    assert read(pets, tmp_path).intake.odd == ()
    (pets / "cat" / "._img00.png").write_text("no image")
    (pets / "cat" / ".DS_Store").write_text("no image")
    data = read(pets, tmp_path)
    differ = [ImageFolder(pets).samples[index][0] != str(pets / origin)
              for index, origin in data.train.metadata[["index", "origin"]].to_numpy()]  # fmt: skip
    assert any(differ)
    (said,) = data.intake.odd
    assert said.startswith("left out: 1 hidden or unusable file, which ImageFolder may count")


def test_a_folder_that_may_not_be_opened_is_not_said_to_be_empty(tmp_path, monkeypatch):
    pets = write_classes(tmp_path / "pets", "cat", "dog")
    for place, said in ((pets / "dog", "one class only, 'cat' (skipped: dog: permission denied)"),
                        (pets, "cannot be opened (permission denied)")):  # fmt: skip

        def denied(folder, walk=os.walk, place=place, **options):
            if folder == place:
                options["onerror"](PermissionError(13, "Permission denied"))
                return iter(())
            return walk(folder, **options)

        monkeypatch.setattr(os, "walk", denied)
        monkeypatch.setattr(os, "access", lambda path, mode, place=place: path != place)
        assert said in refused(pets, tmp_path)


def test_links_are_followed_and_said_and_no_circle_is(tmp_path):
    """A subset is often made of links; a link back would be read for ever."""
    pets = write_classes(tmp_path / "pets", "cat", "dog")
    write_images(tmp_path / "outside", 1, seed=9)
    (pets / "cat" / "out.png").symlink_to(tmp_path / "outside" / "img00.png")
    (pets / "owl").symlink_to(tmp_path / "outside")
    (pets / "dog" / "back").symlink_to(pets / "dog")
    (pets / "dog" / "gone.png").symlink_to(pets / "nothing.png")
    with pytest.warns(UserWarning, match="skipped in"):
        data = read(pets, tmp_path)
    assert data.train.classes == ("cat", "dog", "owl")
    assert len(data.train) + len(data.test) == 12
    assert data.skipped == (
        "dog/back: a link to a folder that is read already",
        "dog/gone.png: a link to nothing",
    )
    assert "links, which were followed: 2 files" in data.intake.odd


# What is in the files


@pytest.mark.parametrize(("highest", "bits"), [(250, 8), (900, 10), (65535, 16)])
def test_deep_grey_levels_have_one_scale_however_few_are_decoded(highest, bits, tmp_path):
    rng = np.random.default_rng(0)
    for k, name in enumerate("ab"):
        (tmp_path / "deep" / name).mkdir(parents=True)
        for number in range(10):
            # Those of one class are all dark: file by file they would become bright.
            levels = rng.integers(0, 251, (8, 8), np.uint16)
            levels[0, 0] = highest if (k, number) == (1, 9) else 250
            Image.fromarray(levels).save(tmp_path / "deep" / name / f"{number}.png")
    for options in ({}, {"limit": 4, "root": tmp_path / "few"}):
        data = read(tmp_path / "deep", tmp_path, **options)
        assert (f"{bits} bits" in data.intake.scale) == (bits > 8)
        for part in (data.train, data.test):
            for x, origin in zip(part.x.numpy(), part.metadata["origin"], strict=True):
                levels = np.asarray(Image.open(tmp_path / "deep" / origin)).astype(int)
                assert (x == levels >> (bits - 8)).all()


@pytest.mark.parametrize("highest", [4095, 65535])
def test_deep_colours_are_read_on_their_scale_or_refused(highest, tmp_path):
    """Of 16 bits the upper 8 are read, which leaves nothing of colours that use 12."""
    levels = np.random.default_rng(0).integers(0, highest + 1, (8, 8, 3))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
             (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]  # fmt: skip
    chunks = [struct.pack(">I", len(data)) + name + data
              + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts]  # fmt: skip
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    if highest < 65535:
        with pytest.raises(ValueError, match="16 bits and use 12"):
            images.decode(tmp_path / "deep.png", None)
    else:
        found = images.decode(tmp_path / "deep.png", None)
        assert (found == (levels >> 8).transpose(2, 0, 1)).all()


MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "I;16"]


def test_every_mode_is_read_right_or_refused(tmp_path):
    """Two halves of 64 and of 192 of 255 keep their order and about their place."""
    step = np.repeat(np.array([64, 192], np.uint8), 8)[None].repeat(16, 0)
    names = []
    for mode in MODES:
        for ending in ("png", "tif", "jpg"):
            name = f"{mode.replace(';', '-')}.{ending}"
            try:
                if kind := {"I": np.int32, "I;16": np.uint16, "F": np.float32}.get(mode):
                    image = Image.fromarray(step.astype(kind) * (256 if mode != "F" else 1))
                else:
                    grey = Image.fromarray(step)
                    via = grey if mode in ("1", "L", "LA") else grey.convert("RGB")
                    image = via.convert(mode, palette=Image.Palette.ADAPTIVE)
                image.save(tmp_path / name)
            except (OSError, ValueError, KeyError):
                # Pillow does not write that; some leave a torn file behind.
                (tmp_path / name).unlink(missing_ok=True)
                continue
            names.append(name)
    assert len(names) > 20
    decoded = images.read_images(tmp_path, names, np.arange(len(names)), stamp="", size=None,
                                 root=tmp_path, keep=False, progress=False)  # fmt: skip
    assert {name.split(".")[0] for name in map(str, decoded.skipped)} <= {"F", "YCbCr"}
    for x, row in zip(decoded.x.astype(int), decoded.kept, strict=True):
        left, right = x[:, 8, 2], x[:, 8, 13]
        mode = names[row].split(".")[0]
        assert right.min() >= left.max(), names[row]
        if mode != "1":
            # A palette of Pillow's own choice is a coarse one.
            off = max(abs(left - 64).max(), abs(right - 192).max())
            assert off <= (16 if mode == "PA" else 8), names[row]


def _opens(path) -> bool:
    try:
        Image.open(path).close()
    except UnidentifiedImageError:
        return False
    return True


def test_tiffs_that_count_from_white_or_hold_colours_times_their_opacity(tmp_path):
    """Pillow writes neither: one tag is changed, the photometric and that of the extra sample."""
    for name, image, tag, value, expected in (
        ("white", Image.new("I;16", (8, 8), 10_000), (262, 1), 0, (65_535 - 10_000) >> 8),
        ("times", Image.new("LA", (8, 8), (51, 51)), (338, 2), 1, 51 + 204),
    ):
        image.save(tmp_path / "a.tif")
        before, after = (struct.pack("<HHIH", tag[0], 3, 1, one) for one in (tag[1], value))
        content = (tmp_path / "a.tif").read_bytes()
        assert content.count(before) == 1
        (tmp_path / "a.tif").write_bytes(content.replace(before, after))
        if name == "times" and not _opens(tmp_path / "a.tif"):  # before Pillow 13
            continue
        assert set(images.decode(tmp_path / "a.tif", None).flat) == {expected}, name


def test_what_is_transparent_turned_or_wide(tmp_path):
    for mode, colour, expected in (("RGBA", (255, 0, 0, 255), 0), ("RGBA", (255, 0, 0, 0), 255),
                                   ("LA", (0, 51), 204)):  # fmt: skip
        Image.new(mode, (32, 32), colour).save(tmp_path / "a.png")
        assert images.decode(tmp_path / "a.png", None)[1, 3, 4] == expected
    # To be turned by 90 degrees clockwise: left goes to the top.
    image = Image.new("RGB", (20, 10), "black")
    image.paste(Image.new("RGB", (10, 10), "white"), (0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    upright = images.decode(tmp_path / "turned.png", None)
    assert upright.shape == (3, 20, 10)
    assert (upright[:, :10].min(), upright[:, 10:].max()) == (255, 0)
    # Only the blue middle is left, but for the edge that the filter smooths.
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste(Image.new("RGB", (32, 32), "blue"), (32, 0))
    wide.save(tmp_path / "wide.png")
    cut = images.decode(tmp_path / "wide.png", 16)
    assert cut.shape == (3, 16, 16)
    assert (cut[2, :, 2:-2] > 250).all()
    assert (cut[0, :, 2:-2] < 5).all()


def test_size_and_flip_are_settings_and_are_said(tmp_path):
    """What a mirror changes, as letters, digits and sides, is not mirrored."""
    for names, keeps in (("cat dog", True), ("0 1 2", False), ("A B nothing", False),
                         ("zero one two", False), ("left_hand right_hand", False),
                         ("class1 class2", True), ("鳥 犬", False)):  # fmt: skip
        assert flip_keeps_class(names.split()) is keeps
    top = write_classes(tmp_path / "photos", "cat", "dog", size=(20, 12))
    assert read(top, tmp_path).train.sample_shape == (3, 12, 20)
    write_images(top / "dog", 1, seed=7, size=(224, 160))
    data = read(top, tmp_path)
    assert data.train.sample_shape == (3, 32, 32)
    assert "resized to 32 and cut" in data.intake.scale
    assert data.train.flip
    larger = read(top, tmp_path, size=64, flip="no")
    assert larger.train.sample_shape == (3, 64, 64)
    assert {larger.train.flip, larger.test.flip} == {False}
    assert "never mirrored" in str(larger.intake)


# What cannot be read


def test_an_unreadable_image_is_skipped_counted_and_reported(tmp_path, monkeypatch):
    pets = write_classes(tmp_path / "pets", "cat", "dog")
    torn = pets / "cat" / "img04.png"
    torn.write_bytes(torn.read_bytes()[:40])
    (pets / "dog" / "fake.jpg").write_text("no image")
    Image.new("RGB", (400, 400)).save(pets / "cat" / "bomb.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"skipped in .*: cat/bomb\.png.* \(3 files\)"):
            data = read(pets, tmp_path)
        assert len(data.train) + len(data.test) == 9
        names = ["cat/bomb.png", "cat/img04.png", "dog/fake.jpg"]
        assert [entry.split(":")[0] for entry in data.skipped] == names
        assert "400x400 pixels are too many" in data.skipped[0]
        assert "not an image" in data.skipped[2]
    monkeypatch.undo()
    # Pillow's own limit: a warning above it, an error above twice of it.
    for limit in (100_000, 50_000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.warns(UserWarning, match=r"bomb\.png: too many pixels"):
            read(pets, tmp_path, root=tmp_path / str(limit))


def test_files_that_are_not_read_are_counted_by_ending(tmp_path):
    top = write_classes(tmp_path / "top", "c0", "c1", count=6)
    for folder in (top / "c0", top / "c1"):
        for number in range(3):
            (folder / f"{number}.HEIC").write_bytes(b"?")
        (folder / "none").write_bytes(b"?")
        (folder / ".hidden.png").write_text("no image")
        # Labels of other programs are no images that are missing.
        for number in range(9):
            (folder / f"img{number}.xml").write_text("<x/>")
    assert read(top, tmp_path).intake.not_read == {".heic": 6, "no ending": 2, ".xml": 18}
    for number in range(9):
        (top / "c1" / f"more{number}.HEIC").write_bytes(b"?")
    said = refused(top, tmp_path)
    assert "most of 'c1'" in said
    assert "13 of 19 files (12 with .heic, 1 with no ending)" in said


# Few of many, and the cache


def test_a_limit_decodes_what_is_needed_and_chooses_the_same(many, tmp_path, monkeypatch):
    whole = read(many, tmp_path, root=tmp_path / "a", limit=20, whole=True)
    seen, decode = [], images.decode
    monkeypatch.setattr(
        images, "decode", lambda path, *rest: seen.append(path.name) or decode(path, *rest)
    )
    few = read(many, tmp_path, limit=20)
    assert len(seen) == 20 + 40
    assert few.fingerprint == whole.fingerprint
    assert few.train.metadata.equals(whole.train.metadata)
    # More is added to what is there, and nothing is decoded twice.
    seen.clear()
    more = read(many, tmp_path, limit=30)
    again = read(many, tmp_path, limit=20)
    assert len(seen) == len(set(more.train.metadata.origin) - set(few.train.metadata.origin))
    assert (again.fingerprint, again.train.mean) == (few.fingerprint, few.train.mean)
    # A changed folder replaces its cache.
    write_images(many / "c0", 1, seed=77)
    seen.clear()
    read(many, tmp_path, limit=20)
    assert len(seen) == 60
    assert len(list((tmp_path / "root" / "folders").iterdir())) == 1
    # A damaged file leaves the choice as it is.
    (many / few.train.metadata.origin[3]).write_bytes(b"no image")
    found = []
    for root, all_of_it in (("b", False), ("c", True)):
        with pytest.warns(UserWarning, match=r"skipped in .*1 file\)"):
            found.append(read(many, tmp_path, root=tmp_path / root, limit=20, whole=all_of_it))
    assert len(found[0].train) == 20
    assert found[0].fingerprint == found[1].fingerprint
    # Memory is asked for before it is taken.
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100_000))
    assert "200 images needs" in refused(many, tmp_path)


# Said


def test_what_was_found_is_said_once_and_by_inspect(many, tmp_path, capsys, monkeypatch):
    for name, count in (("common", 60), ("one", 1), ("two", 2), ("Two ", 5)):
        write_images(many.with_name("rare") / name, count, seed=count)
    odd = read(many.with_name("rare"), tmp_path).intake.odd
    assert "no test samples of one: the accuracy says nothing of them" in odd
    assert any(one.startswith("fewer than five training samples of") for one in odd)
    assert "classes Two  and two differ in case or spaces only" in odd
    for _ in range(2):
        read(many, tmp_path, progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count(f"folder:{many}") == 1
    assert "c0 40, c1 40, c2 40, c3 40" in said.err
    assert "160 samples" in bl.data.inspect(f"folder:{many}", root=tmp_path / "root")._repr_html_()
    given = ["inspect", f"folder:{many}", "--data-root", str(tmp_path / "root")]
    assert cli.main(given) == 0
    assert "train:      160 samples" in capsys.readouterr().out
    assert cli.main([*given, "--json", "--limit", "40", "--image-size", "16", "--flip", "no"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["shape"], found["flip"]) == ([3, 16, 16], False)
    assert sum(found["splits"]["train"].values()) == 40
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load("folder:~/many", root="~/other", progress=False).train) == 160
    assert (tmp_path / "other" / "folders").is_dir()


def test_a_terminal_without_the_letters_gets_plain_ones(tmp_path, monkeypatch):
    write_classes(tmp_path / "images", "caf\u00e9", "鳥", "a\u00b1b")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    given = ["inspect", f"folder:{tmp_path}/images", "--data-root", str(tmp_path / "root")]
    assert cli.main(given) == 0
    out.flush()
    assert b"a+/-b 4, cafe 4, \\u9ce5 4" in out.buffer.getvalue()


def test_what_nobody_knows_is_missing_and_origins_reach_lists(many, tmp_path, config):
    data = read(many, tmp_path)
    assert not {"is_noisy", "true_label"} & {*data.train.metadata}
    assert read(many, tmp_path, label_noise=0.2).train.metadata.is_noisy.sum() == 32
    run = bl.Run(config.replace(dataset=f"folder:{many}", limit=0, epochs=2, batch_size=16))
    list(run)
    ranked = analysis.triage(run.record)
    assert "is_noisy" not in ranked
    assert ranked.origin.tolist() == [data.train.metadata.origin[n] for n in ranked.index]
    splits = run.record.about["data"]["intake"]["splits"]
    assert splits["train"] == {f"c{k}": 40 for k in range(4)}
    small = bl.records.thin(run.record, tmp_path / "small", samples=20)
    assert set(small.samples["origin"].values) < set(data.train.metadata.origin)
