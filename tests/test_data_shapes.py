"""The drawings: the same bytes everywhere, what difficulty does, classes in a mirror."""

import ast
import hashlib
import inspect
from types import SimpleNamespace

import numpy as np
import pytest

from budgetlab.data import shapes
from budgetlab.data.shapes import OUTLINES

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
