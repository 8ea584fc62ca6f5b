"""Very many tiny runs: a thousand with ``make soak``, some dozens otherwise."""

import os
import time

import pytest

import budgetlab as bl
from budgetlab.records import find

SOAK = os.environ.get("BUDGETLAB_SOAK", "") not in ("", "0")
SEEDS = 500 if SOAK else 15


@pytest.mark.timeout(3600 if SOAK else 300)
def test_very_many_runs_are_each_trained_once(config):
    plan = dict(method=["unif-SGD", "p-SGD"], seed=range(SEEDS), progress=False)
    tiny = config.replace(epochs=1, limit=64)
    half = bl.sweep(tiny, **plan)
    for done, _ in enumerate(half, 1):
        if done == SEEDS:
            break
    assert half.counts == {"planned": SEEDS, "finished": SEEDS}
    frame = bl.sweep(tiny, **plan).run()
    assert (frame["status"] == "finished").all()
    assert frame["how"].value_counts().to_dict() == {"kept": SEEDS, "trained": SEEDS}
    assert frame["test_accuracy"].notna().all()
    assert len(find(config.out)) == len(frame) == 2 * SEEDS
    # Nothing is left to do, and that is found out without opening more than each record once.
    began = time.perf_counter()
    assert bl.sweep(tiny, **plan).counts == {"finished": 2 * SEEDS}
    assert time.perf_counter() - began < 0.02 * len(frame) + 2
