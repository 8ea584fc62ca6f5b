"""Nothing grows from epoch to epoch, however long a run is."""

import gc
import os
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
import torch

from budgetlab.training import Run

SETTLED, EPOCHS = 6, 30
# A row of the table of epochs is kept for each epoch: 14 numbers and a dictionary.
ROW = 2_500
# What libraries keep now and then.
CACHES = 30_000


def tensors() -> Counter:
    """How many tensors live, by shape and type."""
    gc.collect()
    alive = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    return Counter((tuple(each.shape), each.dtype) for each in alive)


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.is_dir() else 0


@pytest.mark.parametrize("method", ["p-SGD", "selective-backprop"])
def test_thirty_epochs_hold_no_more_than_six(config, method, tmp_path):
    # What libraries keep from the first use on is kept before anything is counted.
    for _ in Run(config.replace(method=method, epochs=EPOCHS, out=str(tmp_path / "first"))):
        pass
    run = Run(config.replace(method=method, epochs=EPOCHS))
    # Of the last epochs only the last is held: counts held here would be counted as well.
    early = late = last = None
    tracemalloc.start()
    try:
        for row in run:
            if row["epoch"] == SETTLED or row["epoch"] >= EPOCHS - 4:
                held = tensors()
                allocated = tracemalloc.get_traced_memory()[0]
                late, last = (held, open_files(), threading.active_count(), allocated), row["epoch"]
                early = early or late
    finally:
        tracemalloc.stop()
    # Selective backprop may end a little earlier or later, as its kept samples fill batches.
    assert last >= EPOCHS - 4
    assert late[0] == early[0], "tensors were kept"
    assert late[1] <= early[1], "files stay open"
    assert late[2] <= early[2], "threads stay alive"
    assert late[3] - early[3] < ROW * (last - SETTLED) + CACHES


def test_the_check_sees_what_is_kept(config):
    run, kept, counts = Run(config.replace(epochs=4)), [], []
    for _ in run:
        kept.append(run.history.error.clone())
        counts.append(tensors()[tuple(kept[0].shape), torch.float32])
    assert counts[-1] >= counts[0] + 2
