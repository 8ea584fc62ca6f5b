"""Large draws sort out early who cannot win; whom they draw stays exactly the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from budgetlab.samplers import draw_without_replacement, races
from budgetlab.samplers.races import first_to_arrive


def weights_like(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    weights = {
        "uniform": np.ones(size),
        "mild": 0.5 + rng.random(size),
        "sorted": np.sort(rng.random(size)) + 1e-3,
        "wild": np.exp(4 * rng.normal(size, size=size) / size + 4 * rng.normal(size=size)),
        "few": np.where(rng.random(size) < 0.02, 1.0, races.SMALLEST_WEIGHT),
        "one": np.where(np.arange(size) == size // 2, 1.0, 1e-12),
        "two kinds": np.where(np.arange(size) % 2 == 0, 1.0, 1e-9),
    }[kind]
    return weights / weights.sum()


KINDS = ("uniform", "mild", "sorted", "wild", "few", "one", "two kinds")


@pytest.mark.parametrize("kind", KINDS)
@given(size=st.integers(1, 3000), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_whoever_has_the_smallest_times_is_drawn(kind, size, share, seed):
    """For the same random numbers the answer is that of computing every time and sorting."""
    rng = np.random.default_rng(seed)
    weights, uniform = weights_like(kind, size, rng), rng.random(size)
    count = round(share * size)
    times = -np.log1p(-uniform) / weights
    expected = np.sort(np.argsort(times, kind="stable")[:count])
    assert first_to_arrive(weights, count, uniform).tolist() == expected.tolist()


def test_parts_are_put_together_in_their_order():
    rng = np.random.default_rng(2)
    size, count = 2 * races.PART + 5, 20_000
    weights, uniform = weights_like("mild", size, rng), rng.random(size)
    expected = np.sort(np.argsort(-np.log1p(-uniform) / weights, kind="stable")[:count])
    assert first_to_arrive(weights, count, uniform).tolist() == expected.tolist()


@pytest.mark.parametrize("guess", [0.0, 1e-3, 1.0, 1e3, 1e300])
def test_the_guess_decides_how_long_it_takes_and_not_what_comes_out(guess, monkeypatch):
    rng = np.random.default_rng(0)
    weights, uniform = rng.random(5000) + 0.1, rng.random(5000)
    expected = np.sort(np.argsort(-np.log1p(-uniform) / weights)[:1500])
    monkeypatch.setattr(races, "_guess_deadline", lambda *_: guess)
    assert first_to_arrive(weights, 1500, uniform).tolist() == expected.tolist()


def test_the_guess_is_good_for_ordinary_weights():
    """Otherwise a draw would compute everything twice, and be slow instead of wrong."""
    rng = np.random.default_rng(1)
    for kind in ("uniform", "mild", "sorted", "wild"):
        weights = weights_like(kind, 200_000, rng)
        for share in (0.05, 0.3, 0.7):
            count = round(share * len(weights))
            deadline = races._guess_deadline(weights, count)
            in_time = len(races._in_time(weights, deadline, rng.random(len(weights)))[0])
            assert count <= in_time < 1.35 * count, (kind, share)


def test_of_equal_times_the_first_are_taken():
    times = np.array([3.0, 1, 1, 1, 2])
    for count, expected, latest in [(2, [1, 2], 1), (4, [1, 2, 3, 4], 2), (0, [], 0)]:
        places, last = races._smallest(times, count)
        assert (places.tolist(), last) == (expected, latest)
    places, last = races._smallest(times, 5)
    assert (places.tolist(), last) == ([0, 1, 2, 3, 4], 3)


# The whole draw, with its random numbers, against what drawing one by one must give.


@pytest.fixture
def all_are_large(monkeypatch):
    monkeypatch.setattr(races, "LARGE", 1)


def test_sets_have_the_chances_of_drawing_one_by_one(all_are_large):
    """Chi-square over all sets of two of five."""
    q, draws = np.array([0.4, 0.25, 0.2, 0.1, 0.05]), 4000
    generator = torch.Generator().manual_seed(2)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        drawn = draw_without_replacement(torch.from_numpy(q), 2, generator)
        key = tuple(sorted(drawn.tolist()))
        counts[key] = counts.get(key, 0) + 1
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    chance = np.array([q[i] * q[j] * (1 / (1 - q[i]) + 1 / (1 - q[j])) for i, j in pairs])
    assert chance.sum() == pytest.approx(1)
    seen = [counts.get(pair, 0) for pair in pairs]
    assert stats.chisquare(seen, draws * chance).pvalue > 1e-4
    wrong = [q[i] * q[j] for i, j in pairs]
    assert stats.chisquare(seen, draws * np.array(wrong) / sum(wrong)).pvalue < 1e-4


def test_the_order_says_nothing(all_are_large):
    generator, first = torch.Generator().manual_seed(3), torch.zeros(8)
    weights = torch.tensor([8.0, 7, 6, 5, 4, 3, 2, 1])
    weights[0] = 80.0
    members = np.zeros(8)
    for _ in range(1000):
        drawn = draw_without_replacement(weights, 7, generator)
        first[drawn[0]] += 1
        members[drawn] += 1
    # Whoever is in the draw comes first as often as all others in it.
    assert stats.chisquare(first.numpy(), members / 7).pvalue > 1e-4


@pytest.mark.parametrize(
    ("size", "count", "quick"),
    [(20_000, 18_000, True), (20_000, 18_001, False), (19_999, 100, False)],
)
def test_large_draws_go_the_quick_way_unless_nearly_all_are_drawn(size, count, quick, monkeypatch):
    asked = []
    monkeypatch.setattr(
        races, "first_to_arrive", lambda *given: asked.append(1) or first_to_arrive(*given)
    )
    draw_without_replacement(torch.ones(size), count, torch.Generator().manual_seed(0))
    assert bool(asked) == quick


def test_both_ways_of_drawing_agree_on_whom_a_large_draw_takes(monkeypatch):
    """Inclusion by weight, in a draw of 6,000 of 20,000: the quick way and the plain one."""
    weights = torch.linspace(0.2, 2, 20_000, dtype=torch.float64)
    shares = []
    for large in (1, 10**9):
        monkeypatch.setattr(races, "LARGE", large)
        generator = torch.Generator().manual_seed(4)
        taken = torch.zeros(10)
        for _ in range(20):
            drawn = draw_without_replacement(weights, 6000, generator)
            assert len(drawn.unique()) == 6000
            taken += torch.bincount(drawn // 2000, minlength=10)
        shares.append((taken / 20).numpy())
    # The standard deviation of such a mean is at most sqrt(2000 / 4 / 20) = 5.
    assert shares[0] == pytest.approx(shares[1], abs=30)
    assert shares[0][0] < shares[0][-1] / 4


def test_the_same_seed_gives_the_same_draw_with_any_number_of_threads():
    weights = torch.rand(50_000, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    draws = []
    try:
        for number in (1, 2, 2):
            torch.set_num_threads(number)
            generator = torch.Generator().manual_seed(5)
            draws.append(draw_without_replacement(weights, 9000, generator))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[1], draws[2])


@pytest.mark.parametrize("count", [0, 1, 18_000, 19_999, 20_000])
def test_weight_zero_comes_last_in_a_large_draw(count):
    weights = torch.ones(20_000)
    weights[:5000] = 0
    drawn = draw_without_replacement(weights, count, torch.Generator().manual_seed(0))
    assert len(drawn.unique()) == count
    assert (drawn < 5000).sum().item() == max(0, count - 15_000)
