"""mixup, RICAP and CutMix: the images and the shares."""

import numpy as np
import pytest
import torch
from fake_samplers import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from budgetlab import augment
from budgetlab.augment.mixing import symmetric_beta


def numbered(*shape: int) -> torch.Tensor:
    """Images in which every value occurs once, so that its origin can be read off."""
    return torch.arange(int(np.prod(shape))).view(shape)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.5, 1.0, 2.0, 30.0])
def test_beta_has_its_distribution(alpha):
    draws = symmetric_beta(alpha, (40_000,), generator(11), torch.device("cpu")).numpy()
    assert draws.min() >= 0
    assert draws.max() <= 1
    # Near 1 the numbers lie coarser than near 0, and for a small alpha many are that
    # near: the lower half against the distribution, the upper one by symmetry.
    low = draws[draws < 0.5]
    assert stats.binomtest(len(low), len(draws)).pvalue > 1e-3
    assert stats.kstest(low, lambda x: 2 * stats.beta.cdf(x, alpha, alpha)).pvalue > 1e-3
    high = (1 - draws[draws > 0.5]) + 1e-12
    quantiles = np.quantile(high, [0.5, 0.9])
    expected = stats.beta.ppf([0.25, 0.45], alpha, alpha)
    np.testing.assert_allclose(quantiles, expected, rtol=0.1, atol=1e-3)


def test_mixup_by_hand():
    images = torch.tensor([10, 20, 40], dtype=torch.uint8).view(3, 1, 1, 1)
    each = [1.0, 0.5, 0.0]
    for own, mixed, weights in ((0.75, [12.5, 25.0, 32.5], [0.75] * 3),
                                (each, [10.0, 30.0, 10.0], each)):  # fmt: skip
        out = augment.mixup(images, torch.tensor(own), torch.tensor([1, 2, 0]))
        assert out.images.flatten().tolist() == mixed
        assert out.sources.tolist() == [[0, 1], [1, 2], [2, 0]]
        assert out.weights.tolist() == [[w, 1 - w] for w in weights]
    # Partners are a permutation, and the blend is of what was cropped.
    images = torch.randint(0, 256, (16, 3, 9, 9), generator=generator(2), dtype=torch.uint8)
    out = augment.build("mixup", flip=False)(images, generator(8))
    cropped = augment.Standard(flip=False).crop(images, generator(8))
    partner = out.sources[:, 1]
    assert partner.sort().values.tolist() == list(range(16))
    assert torch.equal(out.images, augment.mixup(cropped, out.weights[0, 0], partner).images)


@pytest.mark.parametrize(("fidelity", "smallest"), [("default", 0.5), ("published", 0.0)])
def test_default_mixup_keeps_the_row_dominant(fidelity, smallest):
    images = torch.zeros(4000, 1, 4, 4, dtype=torch.uint8)
    out = augment.build("mixup", per_image=True, fidelity=fidelity)(images, generator(1))
    own = out.weights[:, 0].double()
    assert own.min() >= smallest
    assert (own < 0.5).any() == (fidelity == "published")
    # Float32 weights near 1 lie on a grid; below 0.999 they do not matter.
    below = torch.maximum(own, 1 - own).numpy()
    below, cdf = below[below < 0.999], stats.beta(0.3, 0.3).cdf
    assert stats.kstest(below, lambda x: (cdf(x) - 0.5) / (cdf(0.999) - 0.5)).pvalue > 1e-3
    for name in ("mixup", "cutmix", "ricap"):  # one proportion a batch unless one an image
        shared = augment.build(name, alpha=2.0, fidelity=fidelity)(images[:12], generator(4))
        assert (shared.weights == shared.weights[0]).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), per_image=st.booleans(), alpha=st.sampled_from([0.3, 1.0, 5.0]),
       size=st.tuples(st.integers(1, 19), st.integers(1, 19)))  # fmt: skip
def test_cutmix_pastes_one_rectangle_and_weights_are_the_shares_of_pixels(
    seed, per_image, alpha, size
):
    images = numbered(5, 2, *size)
    out = augment.build("cutmix", alpha=alpha, per_image=per_image).mix(images, generator(seed))
    own = out.images == images
    other = out.images == images[out.sources[:, 1]]
    assert (own | other).all()
    itself = out.sources[:, 1] == torch.arange(5)
    shares = torch.stack([part.float().mean((1, 2, 3)) for part in (own, other)], 1)
    torch.testing.assert_close(shares[~itself], out.weights[~itself])
    for pasted in (~own)[~itself][:, 0]:
        rows, columns = pasted.any(1), pasted.any(0)
        assert torch.equal(pasted, rows[:, None] & columns)
        assert all((edge.diff() != 0).sum() <= 2 for edge in (rows.int(), columns.int()))


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), per_image=st.booleans(), alpha=st.sampled_from([0.3, 1.0, 5.0]),
       fidelity=st.sampled_from(["default", "published"]),
       size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
       memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]))  # fmt: skip
def test_a_ricap_image_holds_exactly_its_four_crops(
    seed, per_image, fidelity, alpha, size, memory_format
):
    height, width = size
    count = 5
    images = numbered(count, 2, height, width).contiguous(memory_format=memory_format)
    mixer = augment.build("ricap", alpha=alpha, per_image=per_image, fidelity=fidelity)
    out = mixer.mix(images, generator(seed))
    for column in out.sources.T:
        assert column.sort().values.tolist() == list(range(count)), "four permutations"
    for row in range(count):
        areas = (out.weights[row] * height * width).round().int().tolist()
        h = round((areas[0] + areas[1]) / width)
        w = round((areas[0] + areas[2]) / height)
        assert areas == [h * w, h * (width - w), (height - h) * w, (height - h) * (width - w)]
        patches = [
            (slice(0, h), slice(0, w)), (slice(0, h), slice(w, width)),
            (slice(h, height), slice(0, w)), (slice(h, height), slice(w, width)),
        ]  # fmt: skip
        for k, (rows, columns) in enumerate(patches):
            patch = out.images[row][:, rows, columns]
            if patch.numel() == 0:
                continue
            source = images[out.sources[row, k]]
            assert patch[0, 0, 0] in source[0], "cut from the source that is named"
            corner = int(patch[0, 0, 0] - source[0, 0, 0])
            top, left = divmod(corner, width)
            crop = source[:, top : top + patch.shape[1], left : left + patch.shape[2]]
            assert torch.equal(patch, crop), "one whole crop, all channels alike"


def test_ricap_draws_boundaries_from_the_beta_and_crops_from_anywhere():
    count, side = 20_000, 32
    images = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    weights = augment.build("ricap", per_image=True).mix(images, generator(5)).weights
    h = ((weights[:, 0] + weights[:, 1]) * side).round().int().numpy()
    edges = np.array([0, *(np.arange(side) + 0.5) / side, 1])
    expected = np.diff(stats.beta.cdf(edges, 0.3, 0.3)) * count
    assert stats.chisquare(np.bincount(h, minlength=side + 1), expected).pvalue > 1e-3
    # At alpha = 500 the boundary lies in the middle, and a crop has 5 places a side.
    images = numbered(1, 1, 8, 8).expand(5000, -1, -1, -1)
    first = augment.build("ricap", alpha=500.0).mix(images, generator(1)).images[:, 0, 0, 0]
    row, column = first // 8, first % 8
    assert stats.chisquare(np.bincount((row * 5 + column).numpy(), minlength=25)).pvalue > 1e-3
    published = augment.build("ricap", alpha=500.0, fidelity="published")
    assert len(published.mix(images, generator(1)).images[:, 0, 0, 0].unique()) == 1
