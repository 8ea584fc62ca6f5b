"""Built-in data: the drawings are the same bytes everywhere, and CIFAR, SVHN and mini-ImageNet
are read from tiny files in the true formats; nothing is fetched."""

import ast
import hashlib
import inspect
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from budgetlab.data import load, shapes
from budgetlab.data.shapes import OUTLINES
from budgetlab.errors import InputError

# Exact, or rounded in one way by IEEE 754; the rest makes, moves or compares.
ALLOWED_FROM_NUMPY = {
    "sqrt", "floor", "clip", "maximum", "minimum", "where", "arange", "ascontiguousarray", "empty",
    "full_like", "ones", "empty_like", "flatnonzero", "pad", "stack", "take", "float32", "int16",
    "uint8", "ndarray", "random",
}  # fmt: skip


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def draw(count: int, generator: np.random.Generator) -> SimpleNamespace:
    return SimpleNamespace(**shapes.draw(count, generator))


@pytest.fixture(scope="module")
def drawn() -> SimpleNamespace:
    return draw(1500, generator(5))


def test_the_bytes_are_the_same_on_every_machine():
    small = draw(300, generator(0))
    digest = hashlib.sha256(small.x.tobytes() + small.y.astype("<i8").tobytes()).hexdigest()
    assert digest == "42dae407a4bc26aeca4763d4cc66acaa9e8fd490faa1fbe829bdea8ad3c9f853"
    digest = hashlib.sha256(small.difficulty.astype("<f8").tobytes()).hexdigest()
    assert digest.startswith("afa0612fdd89ee64")


def test_only_operations_that_round_in_one_way_are_used():
    tree = ast.parse(inspect.getsource(shapes))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "np"
    }
    assert used <= ALLOWED_FROM_NUMPY
    operators = {type(node.op) for node in ast.walk(tree) if isinstance(node, ast.BinOp)}
    assert ast.Pow not in operators
    assert ast.MatMult not in operators


def test_classes_and_difficulty(drawn):
    assert np.bincount(drawn.y).tolist() == [150] * 10
    assert np.quantile(drawn.difficulty, [0, 0.5]).tolist() == pytest.approx([0, 0.07], abs=0.03)
    ambiguous = drawn.other_label >= 0
    assert drawn.difficulty[ambiguous].min() >= 0.8
    assert (drawn.other_label != drawn.y).all()
    hard = (drawn.difficulty > 0.5) & ~ambiguous
    assert 0.1 < hard.mean() < 0.25


def test_difficulty_adds_noise_and_takes_contrast(drawn):
    clear = drawn.other_label < 0
    x = drawn.x.astype(np.float64)
    # The smallest step between neighbours in the top row: noise, where nothing is drawn.
    grain = np.median(abs(np.diff(x[:, :, 0, :], axis=2)), axis=(1, 2))
    spread = np.median(x.std(axis=(2, 3)), axis=1)
    easy, hard = clear & (drawn.difficulty < 0.05), clear & (drawn.difficulty > 0.6)
    assert np.median(grain[hard]) > 3 * np.median(grain[easy])
    assert np.median(spread[hard]) < 0.8 * np.median(spread[easy])


def test_outlines_are_their_own_mirror_image_and_have_their_areas():
    x, y = np.meshgrid(*[np.linspace(-1.3, 1.3, 601, dtype=np.float32)] * 2)
    for name in set(OUTLINES) - {"crescent"}:
        assert OUTLINES[name](-x, y) == pytest.approx(OUTLINES[name](x, y), abs=1e-6), name
    areas = {"circle": np.pi * 0.85**2, "ring": np.pi * (0.9**2 - 0.5**2), "square": 1.44**2,
             "triangle": 3 * np.sqrt(3) / 4, "cross": 2 * 1.8 * 0.56 - 0.56**2,
             # A corner of side 0.75 * sqrt(2) and the two halves of a disc that reach over it.
             "heart": 2 * 0.75**2 + np.pi * 0.53**2}  # fmt: skip
    for name, area in areas.items():
        assert (OUTLINES[name](x, y) < 0).mean() * 2.6**2 == pytest.approx(area, rel=0.02), name


# Files in the formats of torchvision


def md5(path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_pickle(path, content) -> str:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return md5(path)


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def write_cifar(root, monkeypatch, kind: str, batches: list[list[int]], names: list[str]):
    """Batches of these labels, the last for testing, in the format of the set."""
    own, fine = getattr(datasets, kind), "fine_" * (kind == "CIFAR100")
    (root / own.base_folder).mkdir()
    files = []
    for number, labels in enumerate(batches):
        content = {"data": pixels(len(labels), number), f"{fine}labels": labels}
        file = root / own.base_folder / f"batch_{number}"
        files.append([file.name, write_pickle(file, content)])
    key = f"{fine}label_names"
    meta = write_pickle(root / own.base_folder / "meta", {key: names})
    monkeypatch.setattr(own, "train_list", files[:-1])
    monkeypatch.setattr(own, "test_list", files[-1:])
    monkeypatch.setattr(own, "meta", {"filename": "meta", "key": key, "md5": meta})
    return root


@pytest.mark.parametrize(
    ("kind", "classes", "mean", "std"),
    [("CIFAR10", 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
     ("CIFAR100", 100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))],
)  # fmt: skip
def test_cifar(kind, classes, mean, std, tmp_path, monkeypatch):
    labels, names = list(range(classes)), [f"thing {k}" for k in range(classes)]
    root = write_cifar(tmp_path, monkeypatch, kind, [labels * 2, labels], names)
    data = load(kind.lower(), root=root, download=False)
    assert (len(data.train), len(data.test), data.train.flip) == (2 * classes, classes, True)
    assert torch.equal(data.test.x[1], torch.from_numpy(pixels(2, 1)[1].reshape(3, 32, 32)))
    assert data.train.y.tolist() == labels * 2
    assert data.train.classes[3] == "thing 3"
    assert (data.train.mean, data.train.std) == (mean, std)
    limited = load(kind.lower(), root=root, limit=classes)
    assert (torch.bincount(limited.train.y) == 1).all()
    damaged = next((root / getattr(datasets, kind).base_folder).glob("batch_1"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{kind.lower()} is not in"):
        load(kind.lower(), root=root, download=False)


def test_svhn_takes_label_10_for_the_digit_0(tmp_path, monkeypatch):
    lists = {}
    images = pixels(10, 0).reshape(10, 32, 32, 3)
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": np.arange(1, 11)[:, None]})
        lists[split] = ["http://nowhere.invalid/", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    data = load("svhn", root=tmp_path, download=False)
    assert data.train.y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert torch.equal(data.train.x, torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    assert data.train.mean == data.train.std == (0.5, 0.5, 0.5)
    assert not data.train.flip


def test_a_failed_download_names_the_folder_and_the_remedy(tmp_path, monkeypatch, capsys):
    def refuse(self):
        print("chatter of the library")
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.CIFAR10, "download", refuse)
    with pytest.raises(InputError, match=r"no route to host.*check the connection"):
        load("cifar10", root=tmp_path)
    shown = capsys.readouterr()
    # Standard output belongs to results.
    assert shown.out == ""
    assert "downloading cifar10" in shown.err
    with pytest.raises(InputError):
        load("cifar10", root=tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")
    for name in ("cifar10", "cifar100", "svhn"):
        with pytest.raises(InputError, match=f"{name} is not in '.*nowhere'.*allow the download"):
            load(name, root=tmp_path / "nowhere", download=False)


# mini-ImageNet


def mini_imagenet(root, count=12):
    top = root / "mini-imagenet"
    (top / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        name = f"n{number:02d}.jpg"
        image = Image.new("RGB", (100, 120), (20 * number, 0, 0))
        image.save(top / "images" / name, quality=95)
        rows.append((name, f"class{number % 3}"))
    table = pd.DataFrame(rows, columns=["filename", "label"])
    for part, chosen in zip(("train", "val", "test"), np.array_split(table.index, 3), strict=True):
        table.loc[chosen].to_csv(top / f"{part}.csv", index=False)
    return top


def test_mini_imagenet_pools_shuffles_and_cuts_the_same_whatever_the_seed(tmp_path):
    mini_imagenet(tmp_path)
    data = load("mini-imagenet", root=tmp_path, progress=False)
    assert (len(data.train), len(data.test)) == (10, 2)
    assert data.train.sample_shape == (3, 84, 84)
    assert data.train.mean == (0.4728, 0.4487, 0.4031)
    index = np.concatenate([data.train.metadata["index"], data.test.metadata["index"]])
    assert sorted(index) == list(range(12)) != index.tolist()
    for split in (data.train, data.test):
        index = split.metadata["index"].to_numpy()
        assert (split.y.numpy() == index % 3).all()
        assert (abs(split.x[:, 0, 40, 40].numpy() - 20.0 * index) < 4).all()
    assert load("mini-imagenet", root=tmp_path, seed=5).fingerprint == data.fingerprint


def test_mini_imagenet_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"train\.csv' is missing"):
        load("mini-imagenet", root=tmp_path)
    top = mini_imagenet(tmp_path)
    (top / "images" / "n03.jpg").unlink()
    with pytest.warns(UserWarning, match=r"n03\.jpg: no such file"):
        data = load("mini-imagenet", root=tmp_path, progress=False)
    assert len(data.train) + len(data.test) == 11
    for content, says in (
        (b"a,b\n1,2\n", "columns filename and label"),
        (b"", "is not a table"),
        (b"filename,label\nn\0.jpg,a\n", r"null character in 'n\\x00.jpg,a'"),
    ):
        (top / "val.csv").write_bytes(content)
        with pytest.raises(InputError, match=says):
            load("mini-imagenet", root=tmp_path)
