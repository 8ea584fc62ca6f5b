"""Nothing grows from epoch to epoch, and what a run needs is known before it begins."""

import gc
import os
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
import torch

from budgetlab import models
from budgetlab.errors import InputError
from budgetlab.samplers import Batch
from budgetlab.training import Run, failures, setup
from budgetlab.training.engine import Engine

SETTLED, EPOCHS = 6, 30
# A row of the table of epochs is kept for each epoch: 14 numbers and a dictionary.
ROW = 2_500
# What libraries keep now and then.
CACHES = 50_000


def tensors() -> Counter:
    """How many tensors live, by shape and type; what a compiler traces with has no memory."""
    gc.collect()
    plain = (torch.Tensor, torch.nn.Parameter)
    alive = [each for each in gc.get_objects() if type(each) in plain and not each.is_meta]
    return Counter((tuple(each.shape), each.dtype) for each in alive)


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.is_dir() else 0


def test_thirty_epochs_hold_no_more_than_six(config, tmp_path):
    """By the method that keeps most: what it looked at, and what was lost before."""
    config = config.replace(method="selective-backprop", epochs=EPOCHS)
    # What libraries keep from the first use on is kept before anything is counted.
    list(Run(config.replace(epochs=3, out=str(tmp_path / "first"))))
    run = Run(config)
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


def measured_peak(work) -> int:
    """The most bytes held at once, by torch's own profiler of the processor's memory."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize(
    ("model", "precision", "optimiser", "augmentation"),
    [
        ("small", "float32", "sgd", "standard"),
        ("compact", "float32", "adamw", "ricap"),
        ("small", "bfloat16", "adamw", "mixup"),
        ("resnet18", "bfloat16", "adamw", "standard"),
    ],
)
def test_the_memory_of_a_step_is_predicted(
    config, load_once, model, precision, optimiser, augmentation
):
    samples = load_once("shapes", limit=64).train
    config = config.replace(
        batch_size=32, augmentation=augmentation, optimiser=optimiser, lr=0.001
    )  # fmt: skip
    dtype = getattr(torch, precision)
    engine = Engine(config, model, samples, torch.device("cpu"), dtype)
    held = sum(p.numel() * 4 for p in engine.network.parameters())

    def two_steps():
        for _ in range(2):
            engine.step(Batch(torch.arange(32)), lr=0.001)

    measured = held + measured_peak(two_steps)
    assert failures.step_bytes(config, model, samples, dtype) == pytest.approx(measured, rel=0.2)


def test_what_a_gpu_would_hold_is_data_history_and_a_step(config, load_once, monkeypatch):
    splits, config = load_once("digits", limit=500), config.replace(dataset="digits")

    def asked(work, **settings):
        gpu = torch.device("cuda")
        return work(config.replace(**settings), "small", splits, gpu, torch.float32)

    needs, larger = asked(setup.predict), asked(setup.predict, batch_size=128)
    assert needs.data == sum(part.x.nbytes + part.y.nbytes for part in (splits.train, splits.test))
    assert needs.history >= 500 * (8 + 6) * 4
    assert asked(setup.predict, method="tdds").history > needs.history
    assert larger.step > 3 * needs.step
    # A device of that size takes the batches that fit.
    monkeypatch.setattr(setup, "free_bytes", lambda device: larger.total)
    asked(setup.require_fit, batch_size=128)
    with pytest.raises(InputError):
        asked(setup.require_fit, batch_size=129)


def test_a_run_that_does_not_fit_is_refused_before_anything_is_written(config, monkeypatch):
    monkeypatch.setattr(setup, "free_bytes", lambda device: 10_000)
    with pytest.raises(InputError, match=r"needs about .* of memory on cpu .*lower the batch size"):
        Run(config)
    assert not Path(config.out).exists()
    # Nor may the disk be full.
    monkeypatch.setattr(setup, "free_bytes", lambda device: 10**12)
    free = 3 * setup.FEWEST_RECORDED * 128
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: (10**12, 10**12, free))
    with pytest.raises(InputError, match=r"record of 30 epochs of 128 samples .*lower --epochs"):
        Run(config.replace(epochs=30))


def test_a_network_that_needs_values_is_tried_without_a_prediction(config, load_once):
    class Reads(torch.nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs) * (2.0 if inputs.sum().item() > 0 else 1.0)

    samples = load_once("points", limit=64).train
    name = models.register(Reads(2, 2), samples.sample_shape, 2)
    assert failures.step_bytes(config, name, samples, torch.float32) is None
    assert failures.step_bytes(config, "mlp", samples, torch.float32)
