"""The plane problems: densities checked against what can be worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from budgetlab.data.builtin import (
    BLOB_CENTRES,
    BLOB_SHARES,
    BLOB_SPREAD,
    PROBLEMS,
    posterior,
)
from budgetlab.data.builtin import draw_points as draw


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_posterior_of_blobs_is_bayes_rule():
    x = np.array([[0.3, 0.4], [2.0, 1.0], [-8.0, 9.0]])
    apart = ((x[:, None] - np.array(BLOB_CENTRES)) ** 2).sum(axis=2)
    weight = BLOB_SHARES * np.exp(-apart / (2 * BLOB_SPREAD**2))
    assert posterior("blobs", x) == pytest.approx(weight / weight.sum(axis=1, keepdims=True))


def test_moons_are_mirror_images():
    # Turning the plane by 180 degrees about (0.5, 0.25) swaps the two moons.
    x = generator().uniform(-2, 3, (50, 2))
    turned = np.array([1.0, 0.5]) - x
    assert posterior("moons", turned) == pytest.approx(posterior("moons", x)[:, ::-1])
    assert posterior("moons", np.array([[0.5, 0.25]])) == pytest.approx(np.array([[0.5, 0.5]]))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_difficulty_is_the_chance_of_being_wrong(problem):
    points = SimpleNamespace(**draw(problem, 20_000, generator()))
    chance = posterior(problem, points.x)
    # Among points where class k has 70% to 80%, 70% to 80% are of class k: the
    # densities are the ones that were drawn from.
    for label in range(chance.shape[1]):
        near = (chance[:, label] > 0.6) & (chance[:, label] < 0.9)
        expected = chance[near, label].mean()
        spread = 0.5 / np.sqrt(near.sum())
        assert abs((points.y[near] == label).mean() - expected) < 4 * spread
    assert points.difficulty == pytest.approx(1 - chance[np.arange(20_000), points.y], abs=1e-4)
    assert 0.02 < (chance.argmax(axis=1) != points.y).mean() < 0.2


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_ambiguous_have_another_label(problem):
    points = SimpleNamespace(**draw(problem, 2000, generator(1)))
    ambiguous = points.other_label >= 0
    assert 0 < ambiguous.mean() < 0.1
    assert (points.other_label != points.y).all()
    assert posterior(problem, points.x[~ambiguous]).max(axis=1).min() > 0.599
