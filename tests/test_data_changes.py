"""Label noise, imbalance and stratified picks: exact counts, checked by hand and by property."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetlab.data.changes import annotator, imbalanced, noisy_labels, stratified
from budgetlab.errors import InputError


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_pair_noise_moves_to_the_next_class_and_wraps():
    y = np.array([0, 1, 2, 2, 1, 0, 2, 1, 0, 2])
    noisy = noisy_labels(y, 3, 0.5, "pair", generator())
    changed = noisy != y
    assert changed.sum() == 5
    assert (noisy[changed] == (y[changed] + 1) % 3).all()


def test_symmetric_noise_reaches_every_other_class_equally():
    y = np.zeros(40_000, dtype=np.int64) + 2
    noisy = noisy_labels(y, 5, 0.5, "symmetric", generator())
    counts = np.bincount(noisy, minlength=5)
    assert counts[2] == 20_000
    # 5,000 expected in each, standard deviation about 61.
    assert (abs(counts[[0, 1, 3, 4]] - 5000) < 5 * 62).all()


@settings(max_examples=50, deadline=None)
@given(
    y=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    rate=st.floats(0, 0.999),
    kind=st.sampled_from(["symmetric", "pair"]),
    seed=st.integers(0, 100),
)
def test_noise_changes_exactly_the_share_asked_for(y, rate, kind, seed):
    y = np.array(y)
    noisy = noisy_labels(y, 5, rate, kind, generator(seed))
    assert (noisy != y).sum() == round(rate * len(y))
    assert ((noisy >= 0) & (noisy < 5)).all()


@settings(max_examples=50, deadline=None)
@given(
    y=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    share=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_stratified_keeps_the_share_of_every_class(y, share, seed):
    y = np.array(y)
    count = int(share * len(y))
    chosen = stratified(y, count, generator(seed))
    assert len(chosen) == count == len(set(chosen.tolist()))
    assert (np.diff(chosen) > 0).all()
    for label in set(y.tolist()):
        exact = (y == label).sum() * count / len(y)
        assert abs((y[chosen] == label).sum() - exact) < 1


def test_imbalance_profile_by_hand():
    y = np.repeat(np.arange(3), 100)
    # 100 * 100 ** (-k / 2) for k = 0, 1, 2.
    assert np.bincount(y[imbalanced(y, 100, generator())]).tolist() == [100, 10, 1]
    assert np.bincount(y[imbalanced(y, 4, generator())]).tolist() == [100, 50, 25]
    assert len(imbalanced(y, 1, generator())) == 300


def test_imbalance_is_exact_where_the_source_is_unbalanced():
    y = np.repeat([0, 1], [10, 100])
    assert np.bincount(y[imbalanced(y, 5, generator())]).tolist() == [10, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda y: noisy_labels(y, 2, 1.0, "pair", generator()),
        lambda y: noisy_labels(y, 2, float("nan"), "pair", generator()),
        lambda y: noisy_labels(y, 2, 0.1, "pairs", generator()),
        lambda y: noisy_labels(y, 1, 0.5, "pair", generator()),
        lambda y: imbalanced(y, 0.5, generator()),
        lambda y: imbalanced(y, float("inf"), generator()),
        lambda y: stratified(y, 5, generator()),
    ],
)
def test_values_out_of_range_are_refused(call):
    with pytest.raises(InputError):
        call(np.array([0, 1, 1, 0]))


def shades(count: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    """Images of classes 0, 1, 2 that grow brighter; 0 and 1 overlap, 2 stands apart."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 3
    brightness = np.array([100, 120, 220])[y] + rng.normal(0, 12, count)
    x = brightness[:, None, None, None] + rng.normal(0, 3, (count, 1, 16, 16))
    return x.clip(0, 255).astype(np.uint8), y


def test_instance_noise_mixes_up_what_looks_alike():
    x, y = shades()
    noisy = noisy_labels(y, 3, 0.1, "instance", generator(), x)
    changed = noisy != y
    assert changed.sum() == 200
    # Class 2 looks like nobody: hardly ever wrong, and hardly ever the wrong label.
    assert changed[y == 2].mean() < 0.02
    assert (noisy[changed] != 2).mean() > 0.98
    # Within class 0, the brighter ones look like class 1 and are wrong more often.
    bright = x.mean(axis=(1, 2, 3)) > 110
    zero = y == 0
    assert changed[zero & bright].mean() > 3 * changed[zero & ~bright].mean()


@settings(max_examples=25, deadline=None)
@given(
    y=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    rate=st.floats(0, 0.999),
    seed=st.integers(0, 100),
)
def test_instance_noise_changes_exactly_the_share_whatever_the_data(y, rate, seed):
    y = np.array(y)
    x = np.random.default_rng(seed).normal(size=(len(y), 2)) * (seed % 3)
    noisy = noisy_labels(y, 5, rate, "instance", generator(seed), x)
    assert (noisy != y).sum() == round(rate * len(y))
    assert ((noisy >= 0) & (noisy < 5)).all()


def test_a_sample_is_judged_by_a_model_that_has_not_seen_its_label():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 30)), rng.integers(0, 2, 400)
    judged = annotator(x, y, 2, generator())
    # Nothing can be learned here; a model that knew the labels would be right more often.
    assert abs((judged.argmax(axis=1) == y).mean() - 0.5) < 0.1
