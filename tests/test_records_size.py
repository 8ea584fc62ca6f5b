"""How much room a record takes, and that nothing is lost where it takes less."""

import numpy as np
import pandas as pd
import pytest

from budgetlab.config import RunConfig
from budgetlab.records import SAMPLE_ARRAYS, RecordWriter, open_record
from budgetlab.records.format import round_loss, without_implied

CLASSES = 10


def new_writer(out, size: int, epochs: int) -> RecordWriter:
    metadata = pd.DataFrame({"label": np.arange(size) % CLASSES})
    data = {"name": "shapes", "fingerprint": "f00d", "classes": list("abcdefghij")}
    config = RunConfig(out=str(out), epochs=epochs, budget=1.0)
    return RecordWriter.create(config, metadata=metadata, data=data, hardware={})


def visit(size: int, seed: int, learned: float) -> dict[str, np.ndarray]:
    """What an epoch that trains on everybody leaves, from random logits ``[size, 10]``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (size, CLASSES))
    logits[:, 0] += learned + rng.normal(0, 2, size)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    p = np.exp(log_p)
    margin = logits[:, 0] - logits[:, 1:].max(1)
    onehot = np.eye(CLASSES)[0]
    scores = 1 - p[:, 0]
    arrays = {
        "loss": -log_p[:, 0],
        "p_y": p[:, 0],
        "margin": margin,
        "el2n": np.linalg.norm(p - onehot, axis=1),
        "correct": margin > 0,
        "probability": (scores + scores.mean()) / (2 * scores.sum()),
        "times_trained": np.ones(size),
    }
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def bytes_in(path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_a_long_record_of_many_samples_takes_at_most_60_megabytes(tmp_path):
    """200 epochs x 50,000 samples, each trained on in every epoch, is the worst case."""
    size, epochs = 50_000, 3
    writer = new_writer(tmp_path, size, epochs)
    before = bytes_in(writer.path)
    for epoch in range(epochs):
        writer.append_epoch({"epoch": epoch + 1}, visit(size, epoch, learned=epoch))
    an_epoch = (bytes_in(writer.path) - before) / epochs
    assert before + 200 * an_epoch < 60e6


def test_the_probability_of_the_label_is_not_stored_and_comes_back(tmp_path):
    writer = new_writer(tmp_path, 400, 2)
    given = [visit(400, seed, learned=2.0) for seed in (0, 1)]
    given[0]["loss"][:50] = given[0]["p_y"][:50] = np.nan
    for epoch, arrays in enumerate(given, start=1):
        writer.append_epoch({"epoch": epoch}, arrays)
    assert not list((writer.path / "samples.zarr" / "p_y").glob("c/**/[0-9]"))
    samples = open_record(writer.path).samples
    expected = np.stack([arrays["p_y"] for arrays in given])
    # Relative error: half of 1/256 in the loss.
    assert samples["p_y"].to_numpy() == pytest.approx(expected, rel=2.1e-3, nan_ok=True)
    assert samples["p_y"].dtype == np.float32
    assert samples["p_y"].attrs == {"description": SAMPLE_ARRAYS["p_y"][2]}


@pytest.mark.parametrize(
    "key", [{"epoch": 1}, {"epoch": slice(0, 1)}, {"sample": [3, 1]},
            {"epoch": -1, "sample": slice(None, None, 7)}, {"epoch": [1, 0], "sample": 2}]
)  # fmt: skip
def test_any_part_of_it_can_be_read(tmp_path, key):
    writer = new_writer(tmp_path, 60, 2)
    for epoch in (1, 2):
        writer.append_epoch({"epoch": epoch}, visit(60, epoch, 1.0))
    lazy, loaded = open_record(writer.path).samples, open_record(writer.path).samples.load()
    assert np.array_equal(lazy["p_y"].isel(key), loaded["p_y"].isel(key))
    assert np.array_equal(lazy["p_y"].isel(key), np.exp(-lazy["loss"].isel(key)))


def test_another_probability_than_that_of_the_loss_is_kept(tmp_path):
    """In one epoch and not in the next, or without a loss, or in a record of before."""
    writer = new_writer(tmp_path, 40, 3)
    odd = np.linspace(0, 1, 40).astype(np.float32)
    writer.append_epoch({"epoch": 1}, visit(40, 0, 1.0) | {"p_y": odd})
    writer.append_epoch({"epoch": 2}, visit(40, 1, 1.0))
    writer.append_epoch({"epoch": 3}, {"p_y": odd})
    p_y = open_record(writer.path).samples["p_y"].to_numpy()
    assert p_y[[0, 2]] == pytest.approx(np.stack([odd, odd]), rel=2e-3)
    assert p_y[1] == pytest.approx(visit(40, 1, 1.0)["p_y"], rel=3e-3)


def test_an_epoch_written_again_forgets_the_probability_stored_before(tmp_path):
    writer = new_writer(tmp_path, 40, 1)
    writer.append_epoch({"epoch": 1}, visit(40, 0, 1.0) | {"p_y": np.full(40, 0.5)})
    again = RecordWriter.reopen(writer.path, 0)
    again.append_epoch({"epoch": 1}, visit(40, 0, 1.0))
    p_y = open_record(writer.path).samples["p_y"].to_numpy()
    assert p_y[0] == pytest.approx(visit(40, 0, 1.0)["p_y"], rel=3e-3)


def test_a_record_with_every_probability_stored_is_read_as_it_is(tmp_path):
    """As records were written before."""
    import zarr

    writer = new_writer(tmp_path, 40, 1)
    writer.append_epoch({"epoch": 1}, visit(40, 0, 1.0))
    stored = zarr.open_array(writer.path / "samples.zarr" / "p_y", mode="r+")
    stored[0] = np.linspace(0, 1, 40)
    assert np.array_equal(
        open_record(writer.path).samples["p_y"][0], np.linspace(0, 1, 40, dtype=np.float32)
    )


def test_losses_are_rounded_within_their_bound():
    losses = np.geomspace(1e-6, 80, 5000).astype(np.float32)
    rounded = round_loss(losses)
    assert (np.abs(rounded - losses) <= np.minimum(losses, 1) * 2.0**-9 + 1e-12).all()
    special = np.array([np.nan, np.inf, 0, 1e30], np.float32)
    assert np.array_equal(round_loss(special), special, equal_nan=True)


def test_what_is_implied_is_said_of_the_whole_array():
    loss = np.array([0.5, np.nan, 200.0, np.inf], np.float32)
    implied = np.exp(-loss)
    assert np.isnan(without_implied(implied, loss)).all()
    odd = implied.copy()
    odd[0] = 0.5
    assert np.array_equal(without_implied(odd, loss), odd, equal_nan=True)
