"""The explorer: what mixtures are made of, and who gets the credit."""

import numpy as np
import pytest
import torch

from budgetlab import augment
from budgetlab.augment import augmented
from budgetlab.errors import InputError
from budgetlab.widgets import AugmentationExplorer
from budgetlab.widgets.explorer import MIXING


@pytest.fixture
def digits(load_once):
    return load_once("digits", limit=64)


def test_without_augmentation_nothing_changes(digits):
    for index, one in zip([3, 7], augmented(digits.train, [3, 7], "none"), strict=True):
        assert np.array_equal(one.image, digits.train.x[index].permute(1, 2, 0).numpy())
        assert one.parts == {index: 1.0}
        assert one.credit == {rule: {index: 1.0} for rule in ("row", "dominant", "weighted")}


@pytest.mark.parametrize("name", augment.names())
def test_parts_and_credit_of_every_augmentation(digits, name):
    indices = [10, 11, 12, 13]
    for index, one in zip(indices, augmented(digits.train, indices, name, seed=5), strict=True):
        assert sum(one.parts.values()) == pytest.approx(1)
        assert set(one.parts) <= set(indices)
        assert list(one.parts.values()) == sorted(one.parts.values(), reverse=True)
        assert one.credit["row"] == {index: 1.0}
        assert one.credit["weighted"] == pytest.approx(one.parts)
        (best,) = one.credit["dominant"]
        assert best in one.parts


def test_a_mixture_is_what_its_shares_say(digits):
    """Mixup without the crop before it: the image is the blend of its parts."""
    x = digits.train.x[:2].float()
    seen = []
    for seed in range(20):
        made = augmented(digits.train, [0, 1], "mixup", seed=seed, alpha=1.0)
        seen += [one.parts for one in made]
    assert any(0.2 < parts.get(0, 0) < 0.8 for parts in seen)
    blend = augment.mixup(digits.train.x[:2], torch.tensor(0.25), torch.tensor([1, 0]))
    assert torch.allclose(blend.images[0], 0.25 * x[0] + 0.75 * x[1])


def test_the_published_rule_can_credit_what_is_not_there(digits):
    absent = 0
    for seed in range(30):
        for one in augmented(digits.train, list(range(6)), "ricap", seed=seed):
            absent += not set(one.credit["row"]) <= set(one.parts)
            assert set(one.credit["dominant"]) <= set(one.parts)
    # Each of at most four patches is the row's own with chance 1/6.
    assert absent > 180 * (5 / 6) ** 4 * 0.8


def test_the_same_draw_again_is_the_same(digits):
    first, again, other = (
        augmented(digits.train, [0, 1, 2], "cutmix", seed=seed) for seed in (1, 1, 2)
    )
    assert [one.parts for one in first] == [one.parts for one in again]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True))


def test_points_are_refused(load_once):
    with pytest.raises(InputError, match="points cannot be augmented"):
        AugmentationExplorer(load_once("points", limit=128))


def test_every_control_at_its_ends(digits):
    explorer = AugmentationExplorer(digits)
    before = explorer.sheet.value
    for name in ("first", "seed", "alpha", "operations", "magnitude"):
        control = getattr(explorer, name)
        for end in (control.box.max, control.box.min):
            control.value = end
            assert not explorer.status.is_problem, explorer.status.text
            assert explorer.sheet.value.count("<img alt=") == 6 * len(augment.names())
    assert explorer.sheet.value != before
    for name in explorer.detail.options:
        explorer.detail.value = name
        assert explorer.credit.value.count("<tr") == 7


def test_the_credit_is_that_of_the_augmentation_that_is_chosen(digits):
    explorer = AugmentationExplorer(digits)
    said = {}
    for name in explorer.detail.options:
        explorer.detail.value = name
        said[name] = explorer.credit.value
    assert len({said[name] for name in MIXING}) == len(MIXING)
    # The others leave each image its own credit.
    assert {said[name] for name in set(said) - set(MIXING)} == {said["none"]}
    assert said["none"] not in {said[name] for name in MIXING}


def test_the_widget_shows_what_the_function_gives(digits):
    explorer = AugmentationExplorer(digits.train)
    explorer.first.value, explorer.seed.value, explorer.alpha.value = 4, 9, 1.0
    by_hand = augmented(digits.train, list(range(4, 10)), "ricap", seed=9, alpha=1.0)
    assert [one.parts for one in explorer.mixtures["ricap"]] == [one.parts for one in by_hand]
    assert explorer.status.text.startswith("Samples 4 to 9 as one batch, draw 9: ")
    sample, share = next(iter(by_hand[0].parts.items()))
    assert f"{100 * share:.0f}% #{sample} " in explorer.credit.value
    explorer.again.click()
    assert explorer.seed.value == 10
    assert [one.parts for one in explorer.mixtures["ricap"]] != [one.parts for one in by_hand]


def test_a_sample_that_is_not_there_is_named(digits):
    explorer = AugmentationExplorer(digits)
    rows = explorer.mixtures["ricap"]
    absent = [not set(one.credit["row"]) <= set(one.parts) for one in rows]
    assert explorer.credit.value.count("which is not in the image") == sum(absent)
    assert any(absent)
