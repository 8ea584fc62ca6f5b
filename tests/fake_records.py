"""Records of simulated runs, with a known truth, written by the real writer.

Sample i has a difficulty d_i in [0, 1]; its probability of the label at a visit is
``sigmoid(6 (progress + 0.25 - d_i))`` plus noise, so that easy samples are learned
first. Methods differ only in whom they draw.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from budgetlab.config import RunConfig
from budgetlab.records import Record, RecordWriter

# Small enough that a run, a true one, takes a few hundredths of a second.
QUICK = {
    "dataset": "points",
    "limit": 128,
    "epochs": 3,
    "batch_size": 16,
    "precision": "float32",
    "device": "cpu",
    "budget": 0.5,
}
FORWARD, TRAINING = 1_000, 3_000


def write_run(
    out: Path,
    *,
    size: int = 200,
    epochs: int = 6,
    gain: float = 0.0,
    fingerprint: str = "f00d",
    status: str = "finished",
    **settings: object,
) -> Record:
    """Simulate one run; ``gain`` is added to its accuracy."""
    config = RunConfig(out=str(out), epochs=epochs, batch_size=10, **settings)
    rng = np.random.default_rng(config.seed)
    metadata = make_tags(size)
    writer = RecordWriter.create(
        config,
        metadata=metadata,
        data={"name": config.dataset, "fingerprint": fingerprint, "train": size, "test": 100,
              "val": 0, "classes": ["circle", "square", "<b>star</b>", "ring"],
              "shape": [3, 8, 8], "skipped": []},
        hardware={"device": "cpu", "name": "a CPU", "model": "small"},
    )  # fmt: skip
    drawn = round(size * config.budget)
    totals = dict.fromkeys(("steps", "trained_samples", "looked_samples", "flops"), 0)
    counts, error, row = np.zeros(size), np.ones(size), {}
    for epoch in range(1, epochs + 1):
        q = draw_distribution(config.method, counts, error)
        looked = size if config.method == "selective-backprop" else 0
        picked = rng.choice(size, drawn, replace=False, p=q)
        arrays = simulate_visit(metadata, picked, epoch / epochs, rng)
        error[picked] = 1 - arrays["p_y"][picked]
        counts[picked] += 1
        totals["steps"] += drawn // config.batch_size
        totals["trained_samples"] += drawn
        totals["looked_samples"] += looked
        totals["flops"] += drawn * TRAINING + looked * FORWARD
        accuracy = 0.5 + 0.3 * epoch / epochs + 0.1 * config.budget + 0.01 * np.sin(config.seed)
        row = totals | {
            "epoch": epoch,
            "progress": epoch / epochs,
            "seconds": totals["flops"] / 1e6,
            "lr": 0.1 * (1 - epoch / epochs),
            "train_loss": float(np.nanmean(arrays["loss"])),
            "train_accuracy": float((arrays["correct"] == 1).sum() / drawn),
            "test_loss": 1.5 - accuracy - gain,
            "test_accuracy": accuracy + gain,
        }
        writer.append_epoch(row, arrays | {"probability": q})
    writer.save_thumbnails(*draw_thumbnails(counts, metadata))
    if status == "finished":
        label = np.arange(100) % 4
        predicted = np.where(np.arange(100) % 5 == 0, 1, label)
        writer.save_predictions(pd.DataFrame({"label": label, "predicted": predicted}))
    summary = {"method": config.method, "augmentation": config.augmentation, "epochs": epochs,
               "dataset": config.dataset, "budget": config.budget, "seed": config.seed,
               "status": status, "probability_kind": "draw"} | row  # fmt: skip
    writer.set_status(status, summary=summary if status == "finished" else {})
    return Record(writer.path)


def make_tags(size: int) -> pd.DataFrame:
    """Difficulty rises with the number of the sample; labels take turns among four."""
    difficulty = np.linspace(0, 1, size)
    label = np.arange(size) % 4
    is_noisy = np.arange(size) % 10 == 3
    return pd.DataFrame(
        {
            "index": np.arange(size),
            "label": label,
            "true_label": np.where(is_noisy, (label + 1) % 4, label),
            "is_noisy": is_noisy,
            "difficulty": difficulty,
            "is_ambiguous": difficulty > 0.9,
        }
    )


def draw_distribution(method: str, counts: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Draw by the last error where the method asks for it, else uniformly."""
    score = np.where(counts > 0, error, error.max())
    if method in ("p-SGD", "selective-backprop"):
        score = score + score.mean()
        return score / score.sum()
    return np.full(len(counts), 1 / len(counts))


def simulate_visit(
    metadata: pd.DataFrame, picked: np.ndarray, progress: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """What the picked samples look like at this progress; NaN elsewhere."""
    size = len(metadata)
    margin = 6 * (progress + 0.25 - metadata["difficulty"].to_numpy()) + rng.normal(0, 1, size)
    margin = np.where(metadata["is_noisy"], margin - 4, margin)
    p_y = 1 / (1 + np.exp(-margin))
    seen = np.zeros(size, bool)
    seen[picked] = True
    return {
        "p_y": np.where(seen, p_y, np.nan),
        "loss": np.where(seen, -np.log(p_y), np.nan),
        "margin": np.where(seen, margin, np.nan),
        "el2n": np.where(seen, np.sqrt(2) * (1 - p_y), np.nan),
        "correct": np.where(seen, margin > 0, -1),
        "times_trained": seen.astype(int),
    }


def draw_thumbnails(counts: np.ndarray, metadata: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Images of the eight least and eight most trained, grey by difficulty."""
    order = np.argsort(counts, kind="stable")
    indices = np.concatenate([order[:8], order[-8:]])
    shade = (255 * metadata["difficulty"].to_numpy()[indices]).astype(np.uint8)
    return indices, np.broadcast_to(shade[:, None, None, None], (16, 8, 8, 3)).copy()


def write_arrays(out: Path, arrays: dict[str, np.ndarray], labels: list[int]) -> Record:
    """Write a record whose arrays ``[epochs, N]`` are given, for hand-made cases."""
    epochs = len(next(iter(arrays.values())))
    config = RunConfig(out=str(out), epochs=epochs)
    writer = RecordWriter.create(
        config,
        metadata=pd.DataFrame({"label": labels}),
        data={"name": "shapes", "fingerprint": "tiny", "classes": ["a", "b"]},
        hardware={},
    )
    for number in range(epochs):
        writer.append_epoch({"epoch": number + 1}, {k: v[number] for k, v in arrays.items()})
    writer.set_status("finished")
    return Record(writer.path)
