"""Arrays in an npz file: layouts, splits, and what is refused before it is read."""

import io
import zipfile

import numpy as np
import pytest
import torch

from budgetlab.data import load
from budgetlab.errors import InputError
from budgetlab.records import safety


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def write(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


Y = np.arange(20) % 2


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((20, 8, 9), None, (1, 8, 9)),
        ((20, 8, 9, 3), (0, 3, 1, 2), (3, 8, 9)),
        ((20, 8, 9, 1), (0, 3, 1, 2), (1, 8, 9)),
        ((20, 3, 8, 9), (0, 1, 2, 3), (3, 8, 9)),
        ((20, 1, 8, 9), (0, 1, 2, 3), (1, 8, 9)),
    ],
)
def test_layouts(shape, axes, expected, tmp_path):
    x = images(*shape)
    data = load(write(tmp_path / "own.npz", x=x, y=Y, x_test=x[:4], y_test=Y[:4]))
    assert data.train.sample_shape == expected
    front = x[:, None] if axes is None else x.transpose(axes)
    assert torch.equal(data.train.x, torch.from_numpy(front.copy()))
    assert torch.equal(data.test.x, data.train.x[:4])
    assert data.train.classes == ("0", "1")
    scaled = front / 255
    assert data.train.mean == pytest.approx(scaled.mean(axis=(0, 2, 3)))
    assert data.train.std == pytest.approx(scaled.std(axis=(0, 2, 3)))


def test_without_a_test_set_a_fifth_is_held_out(tmp_path):
    x = images(20, 8, 8)
    data = load(write(tmp_path / "own.npz", x=x, y=Y, classes=np.array(["even", "odd"])))
    assert torch.bincount(data.train.y).tolist() == [8, 8]
    assert torch.bincount(data.test.y).tolist() == [2, 2]
    assert data.train.classes == ("even", "odd")
    index = data.test.metadata["index"].to_numpy()
    assert (data.test.x[:, 0].numpy() == x[index]).all()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": Y}, "no array x"),
        ({"x": images(20, 8, 8)}, "no array y"),
        ({"x": images(20, 8, 8) / 1.0, "y": Y}, "give uint8"),
        ({"x": images(20, 8, 8).astype(np.uint16), "y": Y}, "x[0]"),
        ({"x": images(20, 8, 8), "y": Y[:9]}, "20 images and 9 labels"),
        ({"x": images(20, 8, 8, 4), "y": Y}, "x[0]"),
        ({"x": images(20, 8), "y": Y}, "features [D] as floats"),
        ({"x": images(20, 8, 8), "y": Y * 0.5}, "whole numbers"),
        ({"x": images(20, 8, 8), "y": Y - 1}, "whole numbers"),
        ({"x": images(20, 8, 8), "y": images(20, 4) / 255}, "not one-hot"),
        ({"x": images(20, 8, 8), "y": np.where(Y == 1, np.nan, 0)}, "y[1] is nan"),
        ({"x": images(20, 8, 8), "y": Y * 0}, "at least two"),
        ({"x": images(20, 8, 8), "y": Y, "classes": np.array(["one"])}, "a name for each"),
        ({"x": images(20, 8, 8), "y": Y + 1, "classes": np.array(["a", "b"])}, "begin at 1"),
        ({"x": images(20, 8, 8), "y": Y, "x_train": images(20, 8, 8)}, "both x and x_train"),
        ({"x": np.where(Y == 1, np.inf, 0)[:, None] + np.zeros(3), "y": Y}, "x[1]"),
        (
            {"x": images(20, 8, 8), "y": Y, "x_test": images(2, 8, 8), "y_test": Y[:2] + 1},
            "label '2', which is no class of y",
        ),
        ({"x": images(0, 8, 8), "y": Y[:0]}, "too few"),
        ({"x": images(20, 8, 8), "y": Y, "x_test": images(2, 8, 8)}, "no array y_test"),
        (
            {"x": images(20, 8, 8), "y": Y, "x_test": images(2, 9, 8), "y_test": Y[:2]},
            "another shape",
        ),
        ({"x": images(20, 8, 8), "y": np.array([None] * 20)}, "Python objects"),
        ({"x": images(20, 0, 8), "y": Y}, "1 pixel or more"),
        ({"x": images(20, 8, 8), "y": Y, "classes": ["a", "a"]}, "two classes are called 'a'"),
    ],
)
def test_refused_in_one_sentence(arrays, says, tmp_path):
    with pytest.raises(InputError) as caught:
        load(write(tmp_path / "own.npz", **arrays))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_npz(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        load(f"npz:{tmp_path / 'none.npz'}")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(InputError, match=r"cannot be read.*numpy\.savez"):
        load(f"npz:{tmp_path / 'text.npz'}")
    name = write(tmp_path / "cut.npz", x=images(20, 8, 8), y=Y)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        load(name)


def test_a_header_that_promises_too_much_is_refused_before_reading(tmp_path):
    header = io.BytesIO()
    promise = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8)}
    np.lib.format.write_array_header_1_0(header, promise)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"123")
    with pytest.raises(InputError, match="not as long as its header says"):
        load(f"npz:{tmp_path / 'bomb.npz'}")


def test_memory_is_checked_before_reading(tmp_path, monkeypatch):
    name = write(tmp_path / "own.npz", x=images(20, 8, 8), y=Y)
    monkeypatch.setattr(safety, "available_memory", lambda: 1000)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(InputError, match="GiB of memory"):
        load(name)
