"""Data as people have it: what is found, what is said, and what is refused in a sentence."""

import io
import json
import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

import budgetlab as bl
from budgetlab import analysis, cli
from budgetlab.data import images, load
from budgetlab.data.arrays import encode_labels
from budgetlab.data.dataset import keeps_label
from budgetlab.data.folder import split_of
from budgetlab.errors import InputError


def noise(seed, size=(12, 12)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def fill(folder, count, seed=0, ending="png", size=(12, 12)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noise(1000 * seed + number, size).save(folder / f"img{number}.{ending}")


def read(top, tmp_path, **options):
    return load(f"folder:{top}", root=tmp_path / "root", progress=False, **options)


def refused(top, tmp_path, **options):
    with pytest.raises(InputError) as caught:
        read(top, tmp_path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Which file is which


def test_origin_and_index_are_those_of_image_folder(tmp_path):
    top = tmp_path / "nested"
    for seed, name in enumerate("ab"):
        # Spaces, upper case and numbers: where sorting by part and by whole path differ.
        for n, inner in enumerate(("", "2024-01", "2024-01/x", "2024-01 b", "Z", "_z")):
            fill(top / name / inner, 3, seed=10 * seed + n)
    files = ImageFolder(top).samples
    data = read(top, tmp_path)
    assert len(data.train) + len(data.test) == len(files)
    for part in (data.train, data.test):
        for n, (index, origin) in enumerate(part.metadata[["index", "origin"]].to_numpy()):
            assert files[index] == (str(top / origin), int(part.y[n]))
            pixels = np.asarray(Image.open(top / origin)).transpose(2, 0, 1)
            assert (part.x[n].numpy() == pixels).all()


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
            fill(top / name / f"class{number}", count, seed=10 * seed + number)
    data = read(top, tmp_path)
    assert data.train.classes == ("class0", "class1")
    assert len(data.train) == (10 if test else 8)
    assert (data.val is not None) == (val is not None)
    assert len(data.test) == (6 if test else 2)
    files = ImageFolder(top / train).samples
    found = [files[i][0] for i in data.train.metadata["index"]]
    assert found == [str(top / origin) for origin in data.train.metadata["origin"]]
    assert data.intake.where["train"] == f"{train}/"


@pytest.mark.parametrize("name", ["train station", "test tube", "retrain", "training shoes", "7"])
def test_other_names_are_no_splits(name):
    assert split_of(name) is None


def test_what_looks_like_a_split_is_never_a_class(tmp_path):
    for name in ("Testing", "valid"):
        for k in range(2):
            fill(tmp_path / "a" / name / f"c{k}", 4, seed=k)
    assert "none for training" in refused(tmp_path / "a", tmp_path)
    fill(tmp_path / "b" / "train", 4)
    fill(tmp_path / "b" / "test", 4, seed=1)
    assert "'test' in" in (said := refused(tmp_path / "b", tmp_path)) or "'train' in" in said
    assert "no class folders" in said
    for name in ("train", "Training"):
        for k in range(2):
            fill(tmp_path / "c" / name / f"c{k}", 4, seed=k)
    assert "both look like the train split" in refused(tmp_path / "c", tmp_path)
    # A vehicle among others is one.
    for k, name in enumerate(("bus", "car", "train")):
        fill(tmp_path / "d" / name, 5, seed=k)
    data = read(tmp_path / "d", tmp_path)
    assert data.train.classes == ("bus", "car", "train")
    assert any("taken for a class" in one for one in data.intake.odd)


def test_a_validation_folder_is_not_replaced(tmp_path):
    for seed, part in enumerate(("train", "val", "test")):
        for k in range(2):
            fill(tmp_path / "top" / part / f"c{k}", 4, seed=10 * seed + k)
    assert "val_fraction 0.5 is not needed" in refused(tmp_path / "top", tmp_path, val_fraction=0.5)


def test_a_folder_too_many_is_named(tmp_path):
    for k in range(2):
        fill(tmp_path / "top" / "top" / f"c{k}", 4, seed=k)
        fill(tmp_path / "kaggle" / "train" / "train" / f"c{k}", 4, seed=k)
    (tmp_path / "top" / "__MACOSX" / "top").mkdir(parents=True)
    assert f"give folder:{tmp_path}/top/top" in refused(tmp_path / "top", tmp_path)
    assert "move them up into" in refused(tmp_path / "kaggle", tmp_path)


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for k in range(2):
        fill(tmp_path / "images" / f"c{k}", 5, seed=k)
    data = load("folder:~/images", root="~/root", progress=False)
    assert len(data.train) == 8
    assert (tmp_path / "root" / "folders").is_dir()
    np.savez(tmp_path / "a.npz", x=data.train.x.numpy(), y=data.train.y.numpy())
    assert len(load("npz:~/a.npz", progress=False).train) == 6


# What is in the files


def grey16(path, levels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.astype(np.uint16)).save(path)


@pytest.mark.parametrize(("highest", "bits"), [(250, 8), (900, 10), (4000, 12), (65535, 16)])
def test_deep_grey_levels_have_one_scale(highest, bits, tmp_path):
    rng = np.random.default_rng(0)
    top = tmp_path / "deep"
    for k, name in enumerate("ab"):
        for number in range(5):
            # Those of one class are all dark: file by file they would become bright.
            most = 250 if k == 0 else highest
            levels = rng.integers(0, most + 1, (8, 8))
            levels[0, 0] = most
            grey16(top / name / f"{number}.png", levels)
    data = read(top, tmp_path)
    assert (f"{bits} bits" in data.intake.scale) == (bits > 8)
    for part in (data.train, data.test):
        for x, origin in zip(part.x.numpy(), part.metadata["origin"], strict=True):
            levels = np.asarray(Image.open(top / origin)).astype(int)
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
        read = images.decode(tmp_path / "deep.png", None)
        assert (read == (levels >> 8).transpose(2, 0, 1)).all()


MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "I;16"]


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_read_right_or_refused(mode, ending, tmp_path):
    """Two halves of 64 and of 192 of 255 keep their order and about their place."""
    step = np.zeros((16, 16), np.uint8) + 64
    step[:, 8:] = 192
    file = tmp_path / f"one.{ending}"
    try:
        if mode in ("I", "I;16", "F"):
            kind = {"I": np.int32, "I;16": np.uint16, "F": np.float32}[mode]
            Image.fromarray(step.astype(kind) * (256 if mode != "F" else 1)).save(file)
        else:
            grey = Image.fromarray(step)
            via = grey if mode in ("1", "L", "LA") else grey.convert("RGB")
            via.convert(mode, palette=Image.Palette.ADAPTIVE).save(file)
    except (OSError, ValueError, KeyError):
        pytest.skip("Pillow does not write that")
    decoded = images.read_images(tmp_path, [file.name], np.arange(1), stamp="", size=None,
                                root=tmp_path, keep=False, progress=False)  # fmt: skip
    if decoded.skipped:
        assert mode in ("F", "LAB")
        return
    left, right = decoded.x[0, :, 8, 2].astype(int), decoded.x[0, :, 8, 13].astype(int)
    if mode == "1":
        assert right.min() - left.max() >= 0
    else:
        # A palette of Pillow's own choice is a coarse one.
        assert abs(left - 64).max() <= (16 if mode == "PA" else 8)
        assert abs(right - 192).max() <= (16 if mode == "PA" else 8)


def test_files_that_are_not_read_are_counted_by_ending(tmp_path):
    for k in range(2):
        folder = tmp_path / "top" / f"c{k}"
        fill(folder, 6, seed=k)
        for number in range(3):
            (folder / f"{number}.HEIC").write_bytes(b"?")
        (folder / "none").write_bytes(b"?")
        # Labels of other programs are no images that are missing.
        for number in range(9):
            (folder / f"img{number}.xml").write_text("<x/>")
    data = read(tmp_path / "top", tmp_path)
    assert data.intake.not_read == {".heic": 6, "no ending": 2, ".xml": 18}
    for number in range(9):
        (tmp_path / "top" / "c1" / f"more{number}.HEIC").write_bytes(b"?")
    said = refused(tmp_path / "top", tmp_path)
    assert "most of 'c1'" in said
    assert "13 of 19 files (12 with .heic, 1 with no ending)" in said


def test_a_class_without_test_images_is_said(tmp_path):
    for name, count in (("common", 60), ("one", 1), ("two", 2), ("four", 4)):
        fill(tmp_path / "rare" / name, count, seed=count)
    odd = read(tmp_path / "rare", tmp_path).intake.odd
    assert "no test samples of one, two: the accuracy says nothing of them" in odd
    assert "fewer than five training samples of four, one, two" in odd


@pytest.mark.parametrize(
    ("classes", "keeps"),
    [("cat dog", True), ("0 1 2", False), ("A B nothing", False), ("zero one two", False),
     ("left_hand right_hand", False), ("class1 class2", True), ("鳥 犬", False)],
)  # fmt: skip
def test_letters_digits_and_sides_are_not_mirrored(classes, keeps):
    assert keeps_label(classes.split()) is keeps


def test_size_and_flip_are_settings_and_are_said(tmp_path):
    for k, name in enumerate(("cat", "dog")):
        fill(tmp_path / "photos" / name, 5, seed=k, size=(224, 160))
    data = read(tmp_path / "photos", tmp_path)
    assert data.train.sample_shape == (3, 32, 32)
    assert "resized to 32 and cut" in data.intake.scale
    assert data.train.flip
    larger = read(tmp_path / "photos", tmp_path, size=64, flip="no")
    assert larger.train.sample_shape == (3, 64, 64)
    assert {larger.train.flip, larger.test.flip} == {False}
    assert "never mirrored" in str(larger.intake)


# Few of many


def decoded_names(monkeypatch):
    seen, decode = [], images.decode
    monkeypatch.setattr(
        images, "decode", lambda path, *rest: seen.append(path.name) or decode(path, *rest)
    )
    return seen


@pytest.fixture
def many(tmp_path):
    for k in range(4):
        fill(tmp_path / "many" / f"c{k}", 50, seed=k)
    return tmp_path / "many"


def test_a_limit_decodes_what_is_needed_and_chooses_the_same(many, tmp_path, monkeypatch):
    whole = load(f"folder:{many}", root=tmp_path / "a", limit=20, whole=True, progress=False)
    seen = decoded_names(monkeypatch)
    few = load(f"folder:{many}", root=tmp_path / "b", limit=20, progress=False)
    assert len(seen) == 20 + 40
    assert few.fingerprint == whole.fingerprint
    assert few.train.metadata.equals(whole.train.metadata)
    # More is added to what is there, and nothing is decoded twice.
    seen.clear()
    more = load(f"folder:{many}", root=tmp_path / "b", limit=30, seed=0, progress=False)
    again = load(f"folder:{many}", root=tmp_path / "b", limit=20, progress=False)
    assert len(seen) == len(set(more.train.metadata.origin) - set(few.train.metadata.origin))
    assert again.fingerprint == few.fingerprint
    assert again.train.mean == few.train.mean


def test_a_damaged_file_leaves_the_choice_as_it_is(many, tmp_path):
    chosen = load(f"folder:{many}", root=tmp_path / "a", limit=20, progress=False)
    (many / chosen.train.metadata.origin[3]).write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"skipped in .*1 file\)"):
        few = load(f"folder:{many}", root=tmp_path / "b", limit=20, progress=False)
    with pytest.warns(UserWarning, match=r"skipped in .*1 file\)"):
        whole = load(f"folder:{many}", root=tmp_path / "c", limit=20, whole=True, progress=False)
    assert len(few.train) == 20
    assert few.fingerprint == whole.fingerprint


def test_the_scale_of_few_deep_images_is_that_of_all(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(2):
        for number in range(40):
            most = 60_000 if number == 39 else 1000
            grey16(tmp_path / "deep" / f"c{k}" / f"{number:02}.png", rng.integers(0, most, (8, 8)))
    whole = load(f"folder:{tmp_path}/deep", root=tmp_path / "a", progress=False)
    for seed in range(3):
        few = load(f"folder:{tmp_path}/deep", root=tmp_path / "b", limit=4, seed=seed,
                   progress=False)  # fmt: skip
        assert "16 bits" in few.intake.scale
    by_origin = dict(zip(whole.train.metadata.origin, whole.train.x, strict=True))
    by_origin |= dict(zip(whole.test.metadata.origin, whole.test.x, strict=True))
    for x, origin in zip(few.train.x, few.train.metadata.origin, strict=True):
        assert torch.equal(x, by_origin[origin])


# Labels


@pytest.mark.parametrize(
    ("labels", "classes", "encoded"),
    [
        ([1, 2, 3, 1], ["1", "2", "3"], [0, 1, 2, 0]),
        ([7, 10**9, 7, 10**9], ["7", "1000000000"], [0, 1, 0, 1]),
        ([-1, 1, 1, -1], ["-1", "1"], [0, 1, 1, 0]),
        ([True, False, True, True], ["0", "1"], [1, 0, 1, 1]),
        ([1.0, 0.0, 1.0, 2.0], ["0", "1", "2"], [1, 0, 1, 2]),
        (["dog", "cat", "dog", "ape"], ["ape", "cat", "dog"], [2, 1, 2, 0]),
        ([b"dog", b"cat", b"dog", b"cat"], ["cat", "dog"], [1, 0, 1, 0]),
        ([[1], [0], [0], [1]], ["0", "1"], [1, 0, 0, 1]),
        ([[0, 1], [1, 0], [1, 0], [0, 1]], ["0", "1"], [1, 0, 0, 1]),
        (np.array([2**63 + 1, 3, 3, 3], np.uint64), ["3", str(2**63 + 1)], [1, 0, 0, 0]),
    ],
)
def test_labels_in_every_encoding(labels, classes, encoded, tmp_path):
    found, names, _ = encode_labels({"y": labels})
    assert (names, found["y"].tolist()) == (classes, encoded)
    x = np.random.default_rng(0).integers(0, 255, (40, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.concatenate([np.asarray(labels)] * 10))
    data = load(f"npz:{tmp_path / 'a.npz'}", progress=False, label_noise=0.5)
    assert list(data.train.classes) == classes
    # Wrong labels are of classes that occur.
    assert set(data.train.y.tolist()) <= set(range(len(classes)))
    index = data.test.metadata["index"].to_numpy()
    assert data.test.y.tolist() == np.tile(encoded, 10)[index].tolist()


def test_named_classes_that_nobody_has_are_left_out_and_said(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (40, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=1 + np.arange(40) % 2, classes=["none", "cat", "dog"])
    data = load(f"npz:{tmp_path / 'a.npz'}", progress=False)
    assert data.train.classes == ("cat", "dog")
    assert any("no sample has class 'none'" in one for one in data.intake.odd)


def test_arrays_of_other_names(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (20, 6, 6), dtype=np.uint8)
    y = np.arange(20) % 2
    np.savez(tmp_path / "medmnist.npz", train_images=x, train_labels=y[:, None],
             val_images=x[:4], val_labels=y[:4, None], test_images=x[:6],
             test_labels=y[:6, None])  # fmt: skip
    data = load(f"npz:{tmp_path / 'medmnist.npz'}", progress=False)
    assert [len(part) for part in (data.train, data.val, data.test)] == [20, 4, 6]
    assert data.test.metadata.origin[3] == "test_images[3]"
    np.savez(tmp_path / "odd.npz", pictures=x, y=y)
    with pytest.raises(InputError, match="no array x: it has pictures, y, and x or X or x_train"):
        load(f"npz:{tmp_path / 'odd.npz'}", progress=False)
    np.savez(tmp_path / "vectors.npz", x=np.eye(20) + np.where(y, np.nan, 0)[:, None], y=y)
    with pytest.raises(InputError, match=r"x\[1\] of .* holds NaN, and so do 9 more"):
        load(f"npz:{tmp_path / 'vectors.npz'}", progress=False)


class Items:
    def __init__(self, items, features=None):
        self.items = items
        if features:
            self.features = features

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


def test_dicts_as_hugging_face_data_sets_give_them():
    names = SimpleNamespace(names=["cat", "dog"])
    items = [{"image": noise(n), "label": n % 2} for n in range(4)]
    samples = bl.Dataset.from_dataset(Items(items, {"image": None, "label": names}))
    assert samples.classes == ("cat", "dog")
    assert samples.y.tolist() == [0, 1, 0, 1]
    texts = bl.Dataset.from_dataset(Items([(noise(n), "ab"[n % 2]) for n in range(4)]))
    assert (texts.classes, texts.y.tolist()) == (("a", "b"), [0, 1, 0, 1])


def test_parts_whose_labels_differ_are_numbered_alike():
    train = bl.Dataset.from_dataset(Items([(noise(n), 2 * (n % 3)) for n in range(9)]))
    test = bl.Dataset.from_dataset(Items([(noise(n + 20), 4) for n in range(3)]))
    splits = bl.Splits.of(train, test)
    assert splits.test.classes == ("0", "2", "4")
    assert splits.test.y.tolist() == [2, 2, 2]
    assert repr(splits) == "Splits('own': 9 train + 3 test samples of 3x12x12, 3 classes)"


# What nobody knows


def test_the_truth_is_missing_where_nobody_knows_it(many, tmp_path, config):
    data = read(many, tmp_path)
    assert not {"is_noisy", "true_label"} & {*data.train.metadata}
    planted = read(many, tmp_path, label_noise=0.2).train.metadata
    assert planted.is_noisy.sum() == 32
    assert not {"is_noisy", "true_label"} & {*load("digits", progress=False).train.metadata}
    assert not load("points", progress=False).train.metadata.is_noisy.any()
    run = bl.Run(config.replace(dataset=f"folder:{many}", limit=0, epochs=2, batch_size=16))
    list(run)
    ranked = analysis.triage(run.record)
    assert "is_noisy" not in ranked
    assert ranked.origin.tolist() == [data.train.metadata.origin[n] for n in ranked.index]
    analysis.export(ranked, tmp_path / "list.csv")
    assert "c0/img" in (tmp_path / "list.csv").read_text()
    with pytest.raises(InputError, match="does not know which labels are wrong"):
        analysis.detection(run.record)
    about = run.record.about["data"]
    assert about["intake"]["splits"]["train"] == {f"c{k}": 40 for k in range(4)}
    small = bl.records.thin(run.record, tmp_path / "small", samples=20)
    assert set(small.samples["origin"].values) < set(data.train.metadata.origin)


def test_a_truth_that_is_known_of_some(config):
    """Named or numbered, whole or in part, it reaches tables and plots."""
    items = Items([(noise(n), n % 3) for n in range(60)])
    true = [None if n % 4 else (n + (n < 20)) % 3 for n in range(60)]
    samples = bl.Dataset.from_dataset(items, true_label=true)
    assert samples.metadata.is_noisy.isna().sum() == 45
    assert samples.metadata.is_noisy.sum() == 5
    splits = bl.Splits.of(samples, samples)
    run = bl.Run(config.replace(dataset="own", limit=0, epochs=3), splits=splits)
    list(run)
    frame = analysis.measures(run.record)
    assert frame.is_noisy.isna().sum() == 45
    assert frame.true_label.dropna().tolist() == [label for label in true if label is not None]
    assert (analysis.detection(run.record).n <= 15).all()
    assert analysis.selection(run.record).attrs["noisy_base"] == 5 / 60
    bl.plots.measure_vs_measure(frame.fillna({"aum": 0}))
    bl.plots.flagged_share(run.record)
    atlas = bl.widgets.SampleAtlas(run.record, splits=splits)
    for group, count in (("noisy", 5), ("not noisy", 10)):
        atlas.group.value = group
        assert len(atlas.chosen) <= count
    for sample in (0, 1, 24):
        atlas.show_sample(sample)
    whole = bl.Dataset.from_dataset(items, classes=list("abc"), true_label=["a"] * 60).metadata
    assert whole.is_noisy.dtype == bool
    assert whole.is_noisy.sum() == 40
    with pytest.raises(InputError, match="59 entries for 60"):
        bl.Dataset.from_dataset(items, true_label=true[1:])
    with pytest.raises(InputError, match="'z'"):
        bl.Dataset.from_dataset(items, classes=list("abc"), true_label=["z"] * 60)


# Said


def test_what_was_found_is_said_once(many, tmp_path, capsys):
    for _ in range(2):
        load(f"folder:{many}", root=tmp_path / "root")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count(f"folder:{many}") == 1
    assert "c0 40, c1 40, c2 40, c3 40" in said.err
    page = bl.data.inspect(f"folder:{many}", root=tmp_path / "root")._repr_html_()
    assert "160 samples" in page


def test_inspect_from_the_command_line(many, tmp_path, capsys):
    given = ["inspect", f"folder:{many}", "--data-root", str(tmp_path / "root")]
    assert cli.main(given) == 0
    assert "train:      160 samples" in capsys.readouterr().out
    assert cli.main([*given, "--json", "--limit", "40", "--image-size", "16", "--flip", "no"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["shape"], found["flip"]) == ([3, 16, 16], False)
    assert sum(found["splits"]["train"].values()) == 40


@pytest.mark.parametrize("by", ["folds", "threshold"])
def test_suspects_from_the_command_line(by, tmp_path, capsys):
    """A third of one class lies in the folder of another."""
    rng = np.random.default_rng(0)
    for k in range(2):
        for number in range(60):
            folder = tmp_path / "top" / f"c{1 - k if number < 10 * k else k}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 100, (12, 12), np.uint8)
            pixels[:, 6 * k : 6 * k + 6] += 120
            Image.fromarray(pixels).save(folder / f"{k}-{number:02}.png")
    given = ["inspect", f"folder:{tmp_path}/top", "--data-root", str(tmp_path / "root"),
             "--suspects", by, "--epochs", "6", "--batch-size", "16", "--lr", "0.05"]  # fmt: skip
    out = tmp_path / "list.csv"
    assert cli.main([*given, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "can be expected to be wrong" in said
    table = pd.read_csv(out)
    really = table.origin.str.startswith("c0/1-")
    assert really.sum() >= 6
    assert really.mean() > (0.8 if by == "folds" else 0.2)  # a tenth would be chance
    assert set(table.label) <= {"c0", "c1"}
    assert cli.main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["origin"] for row in found["suspects"]] == table.origin.tolist()
    assert 0 < found["expected_precision"] <= 1
    assert cli.main([*given[:4], "--out", str(out)]) == 2


def test_a_terminal_without_the_letters_gets_plain_ones(tmp_path, monkeypatch):
    for k, name in enumerate(("caf\u00e9", "鳥", "a\u00b1b")):
        fill(tmp_path / "images" / name, 5, seed=k)
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    given = ["inspect", f"folder:{tmp_path}/images", "--data-root", str(tmp_path / "root")]
    assert cli.main(given) == 0
    out.flush()
    assert b"a+/-b 4, cafe 4, \\u9ce5 4" in out.buffer.getvalue()


def test_classes_that_differ_in_case_only_are_said(tmp_path):
    for k, name in enumerate(("Cat", "cat ", "dog")):
        fill(tmp_path / "images" / name, 5, seed=k)
    odd = read(tmp_path / "images", tmp_path).intake.odd
    assert any(one.startswith("classes Cat and cat ") for one in odd)
