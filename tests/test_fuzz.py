"""Thousands of damaged inputs: each either opens or is refused in one sentence.

``make fuzz`` tries as many as you like.
"""

import os
from pathlib import Path

import pytest
from fuzz_targets import Targets, mutated, mutated_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NUMBERS = st.integers(0, 2**16 - 1)
CUTS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=4)
EXAMPLES = int(os.environ.get("BUDGETLAB_FUZZ", "60"))
NAMES = ("record.json", "epochs.csv", "thumbnails.npz", "predictions.npz", "state.pt",
         "samples.zarr/zarr.json",
         "samples.zarr/loss/zarr.json", "chunk", "npz", "config", "command", "table", "lock",
         *(f"image {kind}" for kind in ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm", "tga")),
         )  # fmt: skip


@pytest.fixture(scope="module")
def targets(tmp_path_factory, data_root: Path) -> Targets:
    return Targets(tmp_path_factory.mktemp("fuzz"), data_root)


def test_all_targets_are_known(targets):
    assert {*NAMES} == {*targets.seeds} - {str(targets.chunk)} | {"chunk"}


@pytest.mark.parametrize("name", NAMES)
def test_damaged_input_opens_or_is_refused_in_one_sentence(targets, name):
    name = str(targets.chunk) if name == "chunk" else name
    good = targets.seeds[name]
    assert targets.feed(name, good), "the undamaged one must open"
    counts = {True: 0, False: 0}

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES < 100,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(CUTS, st.booleans())
    def feed(cuts, as_json):
        change = mutated_json if as_json and good.startswith(b"{") else mutated
        counts[targets.feed(name, change(good, cuts))] += 1

    feed()
    assert sum(counts.values()) >= EXAMPLES
    if name != "lock" and not name.startswith("image"):
        assert counts[False], "nothing that it was fed with was damaged"
