"""The contract of all augmentations; the crop, the flip and the hidden square."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_samplers import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from budgetlab import augment
from budgetlab.errors import InputError

FORMATS = (torch.contiguous_format, torch.channels_last)


def noise(*shape: int, seed: int = 0, memory_format=torch.contiguous_format) -> Tensor:
    images = torch.randint(0, 256, shape, generator=generator(seed), dtype=torch.uint8)
    return images.contiguous(memory_format=memory_format)


def one_of_each() -> list:
    return [
        augment.build(name, fidelity=fidelity, per_image=per_image)
        for name in augment.names()
        for fidelity in ("default", "published")
        for per_image in (False, True)
    ]


def test_names_what_was_asked_for_and_what_is_refused():
    assert augment.names() == list(augment.describe())
    assert [augment.build(name).name for name in augment.names()] == augment.names()
    built = augment.build("mixup", alpha=0.7, flip=False, per_image=True, fidelity="published")
    assert repr(built) == "Mixup(alpha=0.7, flip=False, per_image=True, fidelity='published')"
    for name, settled, says in (
        ("mixupp", {}, "did you mean 'mixup'"),
        ("mixup", {"alpha": 0}, "alpha 0 is not allowed"),
        ("mixup", {"alpha": float("nan")}, "alpha nan"),
        ("mixup", {"fidelity": "publishd"}, "did you mean 'published'"),
        ("randaugment", {"randaugment_n": -1}, "-1 operations"),
        ("randaugment", {"randaugment_m": 31}, "magnitude 31"),
    ):
        with pytest.raises(InputError, match=says):
            augment.build(name, **settled)


def test_the_flip_is_a_fair_coin_that_moves_no_crop():
    images = noise(4000, 1, 3, 4)
    given = augment.build("flip")(images, generator()).images
    mirrored = (given == images.flip(3)).flatten(1).all(1)
    assert torch.equal(mirrored, ~(given == images).flatten(1).all(1))
    assert stats.binomtest(int(mirrored.sum()), 4000).pvalue > 1e-3
    images = noise(64, 3, 16, 16)
    plain = augment.build("standard", flip=False)(images, generator(3)).images
    mirrored = augment.build("standard")(images, generator(3)).images
    same, turned = ((plain == each).flatten(1).all(1) for each in (mirrored, mirrored.flip(3)))
    assert (same | turned).all()
    assert 0 < same.sum() < 64


@settings(max_examples=40)
@given(
    built=st.sampled_from(one_of_each()),
    count=st.integers(1, 6),
    channels=st.sampled_from([1, 2, 3, 4]),
    height=st.integers(5, 24),
    width=st.integers(5, 24),
    memory_format=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**32),
)
def test_contract(built, count, channels, height, width, memory_format, seed):
    images = noise(count, channels, height, width, seed=seed, memory_format=memory_format)
    before = images.clone()
    out = built(images, generator(seed))
    assert torch.equal(images, before), "the batch given must not change"
    assert out.images.shape == images.shape
    assert out.images.is_contiguous(memory_format=memory_format)
    assert out.images.dtype == (torch.float32 if built.name == "mixup" else torch.uint8)
    assert 0 <= out.images.min() <= out.images.max() <= 255
    parts = {"mixup": 2, "cutmix": 2, "ricap": 4}.get(built.name, 1)
    assert out.mixed == (parts > 1)
    assert out.sources.dtype == torch.int64
    assert out.weights.dtype == torch.float32
    assert out.sources.shape == out.weights.shape == (count, parts)
    assert ((out.sources >= 0) & (out.sources < count)).all()
    assert ((out.weights >= 0) & (out.weights <= 1)).all()
    torch.testing.assert_close(out.weights.sum(1), torch.ones(count))
    if built.name != "ricap":
        assert torch.equal(out.sources[:, 0], torch.arange(count))
    again = built(images, generator(seed))
    for part in ("images", "sources", "weights"):
        assert torch.equal(getattr(out, part), getattr(again, part)), "the same seed, another batch"


@pytest.mark.parametrize("name", augment.names())
def test_another_seed_is_another_batch_and_nothing_else_matters(name):
    images, stream = noise(16, 3, 12, 17), generator(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    built = augment.build(name)
    first, second = built(images, stream), built(images, generator(2))
    assert torch.equal(first.images, second.images) == (name == "none")
    assert torch.equal(stream.get_state(), generator(1).get_state()) == (name == "none")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    interleaved = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(built(interleaved, generator(1)).images, first.images)
    for bad in (torch.zeros(8, 2), torch.zeros(2, 3, 8, 8), torch.zeros(0, 3, 8, 8).byte()):
        with pytest.raises(InputError, match=rf"augmentation '{name}' takes uint8 .*not \w+"):
            built(bad, generator())


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("shape", "padding"), [((20, 3, 8, 8), 4), ((7, 1, 17, 23), 4), ((3, 4, 5, 9), 0)]
)
def test_crop_and_flip_is_padding_slicing_and_mirroring(shape, padding, memory_format):
    images = noise(*shape, memory_format=memory_format)
    top, left = torch.randint(0, 2 * padding + 1, (2, shape[0]), generator=generator(1))
    flip = torch.rand(shape[0], generator=generator(2)) < 0.5
    result = augment.crop_and_flip(images, top, left, flip, padding)
    padded = F.pad(images, (padding,) * 4)
    for row, (t, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        cut = padded[row, :, t : t + shape[2], x : x + shape[3]]
        assert torch.equal(result[row], cut.flip(2) if flip[row] else cut)


@pytest.mark.parametrize(("side", "padding"), [(32, 4), (84, 4), (16, 2), (8, 1), (7, 0)])
def test_standard_draws_every_place_and_either_side_alike(side, padding):
    middle, count = side // 2, 8_100
    image = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    image[0, 0, middle, middle], image[0, 0, middle, middle + 1] = 1, 2  # tells the side
    images = image.expand(count, -1, -1, -1)
    out = augment.build("standard")(images, generator(7)).images.flatten(1).int()
    first, second = (out == 1).int().argmax(1), (out == 2).int().argmax(1)
    flipped = second < first
    assert 0.47 < flipped.float().mean() < 0.53
    row, column = first // side, first % side
    column = torch.where(flipped, side - 1 - column, column)
    places = 2 * padding + 1
    place = (row - middle + padding) * places + column - middle + padding
    counts = np.bincount(place.numpy(), minlength=places**2)
    assert len(counts) == places**2
    if padding:
        assert stats.chisquare(counts).pvalue > 1e-3
    never = augment.build("standard", flip=False)(images, generator(7)).images.flatten(1).int()
    assert ((never == 2).int().argmax(1) > (never == 1).int().argmax(1)).all()


def test_cutout_hides_half_the_side_in_the_mean_colour():
    images = torch.full((200, 3, 32, 32), 100, dtype=torch.uint8)
    images[::2] = 140
    images[:, 2] = 7
    result = augment.build("cutout", flip=False)(images, generator(2)).images
    assert result[:, 2].unique().tolist() == [0, 7], "black where the crop went over the edge"
    hidden = (result[:, 0] == 120).flatten(1).sum(1)
    assert hidden.max() == 16 * 16
    assert hidden.min() < 16 * 16, "centres near an edge lose a part of the square"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("built", one_of_each(), ids=repr)
def test_on_a_gpu_without_synchronising(built):
    images = noise(32, 3, 32, 32, memory_format=torch.channels_last).cuda()
    stream = torch.Generator("cuda").manual_seed(0)
    built(images, stream)
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = built(images, stream)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert out.images.device == out.sources.device == out.weights.device == images.device
