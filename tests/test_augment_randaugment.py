"""RandAugment, operation by operation against Pillow, and the policy around them."""

import numpy as np
import pytest
import torch
from fake_samplers import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from scipy import stats

from budgetlab import augment
from budgetlab.augment import policy
from budgetlab.augment.policy import OPERATIONS, level

MAGNITUDES = (0, 4, 9.5, 15, 22.3, 30)
WARPS = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def pictures(channels: int = 3, height: int = 17, width: int = 23, seed: int = 0) -> torch.Tensor:
    """Noise, smooth ramps, narrow ranges and plain images: 12 of them."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (4, channels, height, width))
    ramp = np.linspace(0, 255, height * width).reshape(height, width)
    ramps = np.stack([np.stack([ramp * rng.random() for _ in range(channels)]) for _ in range(3)])
    narrow = rng.integers(90, 121, (3, channels, height, width))
    plain = np.stack([np.full((channels, height, width), v) for v in (0, 200)])
    images = np.concatenate([noise, ramps, narrow, plain]).astype(np.uint8)
    return torch.from_numpy(images)


def apply(images, name, magnitude, mirror=0, centre=(0.5, 0.5), fidelity="default"):
    """One operation on every image."""
    count = len(images)
    return policy.randaugment(
        images,
        torch.full((1, count), OPERATIONS.index(name)),
        torch.full((1, count), mirror),
        torch.tensor(centre).expand(1, count, 2),
        magnitude,
        fidelity,
    )


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def solarize_add(image, amount, published):
    values = np.array(image).astype(int)
    added = np.clip(values + int(amount), 0, 255).astype(np.uint8)
    if published:
        return ImageOps.solarize(Image.fromarray(added), 128)
    return Image.fromarray(np.where(values < 128, added, values).astype(np.uint8))


def enhanced(kind):
    return lambda image, amount, _: kind(image).enhance(amount)


# The same operations, in Pillow's own words.
PILLOW = {
    "Color": enhanced(ImageEnhance.Color),
    "Contrast": enhanced(ImageEnhance.Contrast),
    "Brightness": enhanced(ImageEnhance.Brightness),
    "Sharpness": enhanced(ImageEnhance.Sharpness),
    "SolarizeAdd": solarize_add,
    "AutoContrast": lambda image, *_: ImageOps.autocontrast(image),
    "Equalize": lambda image, *_: ImageOps.equalize(image),
    "Invert": lambda image, *_: ImageOps.invert(image),
    "Posterize": lambda image, amount, _: ImageOps.posterize(image, int(amount)),
    "Solarize": lambda image, amount, _: ImageOps.solarize(image, amount),
    "Rotate": lambda image, amount, _: image.rotate(amount),
    "ShearX": lambda image, amount, _: affine(image, 1, amount, 0, 0, 1, 0),
    "ShearY": lambda image, amount, _: affine(image, 1, 0, 0, amount, 1, 0),
    "TranslateX": lambda image, amount, _: affine(image, 1, 0, amount, 0, 1, 0),
    "TranslateY": lambda image, amount, _: affine(image, 1, 0, 0, 0, 1, amount),
}


def pillow_batch(images, name, amount, fidelity="default") -> torch.Tensor:
    done = []
    for image in images:
        array = image.permute(1, 2, 0).numpy()
        array = array[:, :, 0] if array.shape[2] == 1 else array
        result = np.array(PILLOW[name](Image.fromarray(array), amount, fidelity == "published"))
        done.append(torch.from_numpy(result.reshape(*result.shape[:2], -1)).permute(2, 0, 1))
    return torch.stack(done)


@pytest.mark.parametrize("fidelity", ["default", "published"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "Cutout"])
def test_operation_agrees_with_pillow_within_one_grey_level(name, channels, fidelity):
    for seed, magnitude in enumerate(MAGNITUDES):
        for height, width in ((17, 23), (32, 32), (3, 40)):
            images = pictures(channels, height, width, seed)
            side = height if name == "TranslateY" else width
            amount = level(name, magnitude, side, fidelity)
            for mirror in (0, 1) if name in WARPS else (0,):
                ours = apply(images, name, magnitude, mirror, fidelity=fidelity)
                theirs = pillow_batch(images, name, -amount if mirror else amount, fidelity)
                off = (ours.int() - theirs.int()).abs().max().item()
                exact = name in WARPS or name in ("Invert", "Posterize", "Solarize", "Equalize")
                assert off <= (0 if exact else 1), (magnitude, mirror, height, off)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_published_cutout_draws_pillows_rectangle(magnitude):
    images = pictures(3, 32, 40)
    for row, column in ((0.5, 0.5), (0.01, 0.02), (0.97, 0.99), (0.31, 0.77)):
        ours = apply(images, "Cutout", magnitude, centre=(row, column), fidelity="published")
        side = 40 * magnitude / 30
        x, y = (int(max(0, at - side / 2)) for at in (column * 40, row * 32))
        for image, result in zip(images, ours, strict=True):
            drawn = Image.fromarray(image.permute(1, 2, 0).numpy())
            corners = (x, y, min(40, x + side), min(32, y + side))
            ImageDraw.Draw(drawn).rectangle(corners, (125, 123, 114))
            assert torch.equal(result, torch.from_numpy(np.array(drawn)).permute(2, 0, 1))


@pytest.mark.parametrize(("channels", "grey"), [(3, [125, 123, 114]), (1, [121])])
def test_default_cutout_is_a_square_of_a_fifth_of_the_side_at_most(channels, grey):
    images = torch.zeros(1, channels, 30, 30, dtype=torch.uint8)
    assert torch.equal(apply(images, "Cutout", 0), images)
    out = apply(images, "Cutout", 30)[0]
    filled = (out != 0).all(0).nonzero()
    assert filled.min(0).values.tolist() == [12, 12]
    assert filled.max(0).values.tolist() == [17, 17]
    assert out[:, 15, 15].tolist() == grey


@pytest.mark.parametrize(
    ("name", "magnitude", "default", "published"),
    [
        ("Posterize", 0, 8, 1), ("Posterize", 4, 7, 1), ("Posterize", 30, 4, 4),
        ("Solarize", 0, 256, 0), ("Solarize", 4, 221.87, 34.13), ("TranslateX", 0, 0, 0),
        ("TranslateX", 4, 1.408, 13.33), ("Rotate", 0, 0, 0), ("ShearX", 0, 0, 0),
        ("Color", 15, 1, 1), ("Cutout", 0, 0, 0), ("Cutout", 30, 6.4, 40),
    ],
)  # fmt: skip
def test_what_grows_with_the_magnitude_and_what_runs_backwards(name, magnitude, default, published):
    assert level(name, magnitude, 32) == pytest.approx(default, abs=0.01)
    assert level(name, magnitude, 32, "published") == pytest.approx(published, abs=0.01)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 3]), st.integers(2, 20)),
    n=st.integers(0, 3),
    magnitude=st.floats(0, 30),
    fidelity=st.sampled_from(["default", "published"]),
)
def test_sorted_and_masked_steps_give_the_same(seed, shape, n, magnitude, fidelity):
    count, channels, height = shape
    draw = generator(seed)
    images = torch.randint(0, 256, (count, channels, height, 11), generator=draw, dtype=torch.uint8)
    operations = torch.randint(16, (n, count), generator=draw)
    mirror = torch.randint(2, (n, count), generator=draw)
    centres = torch.rand(n, count, 2, generator=draw)
    made = policy.tables(magnitude, fidelity, (channels, height, 11), images.device)
    by_sorting = by_masking = images
    for drawn in zip(operations, mirror, centres, strict=True):
        by_sorting = policy.apply_sorted(by_sorting, *drawn, made)
        by_masking = policy.apply_masked(by_masking, *drawn, made)
    assert torch.equal(by_sorting, by_masking)
    whole = policy.randaugment(images, operations, mirror, centres, magnitude, fidelity)
    assert torch.equal(whole, by_sorting), "operations follow one another as drawn"


def test_draws_are_uniform_with_replacement(monkeypatch):
    seen = {}

    def spy(images, operations, mirror, centres, magnitude, fidelity):
        seen.update(operations=operations, mirror=mirror, centres=centres)
        return images

    monkeypatch.setattr(policy, "randaugment", spy)
    built = augment.build("randaugment", randaugment_n=2, randaugment_m=7)
    built(torch.zeros(8000, 1, 4, 4, dtype=torch.uint8), generator(1))
    first, second = seen["operations"].numpy()
    pairs = np.bincount(first * 16 + second, minlength=256)
    assert stats.chisquare(pairs).pvalue > 1e-3, "all 256 pairs alike, the same twice too"
    assert stats.binomtest(int(seen["mirror"].sum()), seen["mirror"].numel()).pvalue > 1e-3
    assert stats.kstest(seen["centres"].flatten().numpy(), "uniform").pvalue > 1e-3


def test_operations_come_before_the_crop():
    """Invert makes black white; the padding of a crop that follows stays black."""
    images = torch.zeros(400, 1, 12, 12, dtype=torch.uint8)
    out = augment.build("randaugment", randaugment_n=1)(images, generator(3)).images
    inverted = out[(out == 255).flatten(1).any(1)]
    assert len(inverted) > 5
    assert (inverted == 0).any()
    nothing = augment.build("randaugment", randaugment_n=0)(pictures(), generator(2)).images
    assert torch.equal(nothing, augment.build("standard")(pictures(), generator(2)).images)
