"""One seed, many streams: each its own, all the same everywhere."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from budgetlab.devices import STREAMS, numpy_generator, stream_seed, torch_generator


def test_streams_are_the_same_on_every_machine():
    # Written down once: if one of these changes, every record in the world becomes another.
    assert stream_seed(0, "init") == 7290039654019473914
    assert stream_seed(0, "order") == 6230928577095065118
    assert numpy_generator(3, "noise").integers(0, 1000, 3).tolist() == [104, 967, 942]


@given(st.integers(0, 2**63 - 1))
def test_every_stream_of_a_seed_is_another(seed):
    seeds = [stream_seed(seed, name) for name in STREAMS]
    assert len(set(seeds)) == len(STREAMS)
    assert all(0 <= one < 2**63 for one in seeds)


def test_neighbouring_seeds_have_nothing_in_common():
    draws = np.stack([numpy_generator(seed, "order").random(1000) for seed in range(8)])
    correlation = np.corrcoef(draws) - np.eye(8)
    # Independent draws: standard error 1/sqrt(1000), 28 pairs.
    assert np.abs(correlation).max() < 4.5 / np.sqrt(1000)


def test_drawing_from_one_stream_leaves_the_others_alone():
    order = torch_generator(5, "order")
    augmentation = torch_generator(5, "augmentation")
    torch.rand(100, generator=augmentation)
    again = torch_generator(5, "order")
    assert torch.equal(torch.rand(10, generator=order), torch.rand(10, generator=again))


def test_no_global_random_state_is_touched():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.rand(3, generator=torch_generator(1, "init"))
    numpy_generator(1, "data").random(3)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_a_stream_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="unknown stream 'ordre': choose one of data"):
        stream_seed(0, "ordre")
