"""Set-up of a run: its data and network, checks of memory and disk, and its final output."""

import io
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from budgetlab import augment, data, models, samplers
from budgetlab.budget import SCHEDULES
from budgetlab.config import DATA_FIELDS, RunConfig
from budgetlab.data import Dataset, Splits
from budgetlab.data.dataset import fingerprint, require
from budgetlab.errors import InputError, few, known
from budgetlab.history import History
from budgetlab.records import RecordWriter
from budgetlab.training.failures import META, size_of, step_bytes

if TYPE_CHECKING:
    from budgetlab.training.loop import Loop

# On a CPU, the memory of a step on a batch of fewer values is not worth predicting.
SMALL_BATCH = 2**19
# Bytes per sample of a weighted draw: float64 scores, shares, arrival times, and their copies.
DRAW = 48
# Recorded bytes per sample-epoch: all seen, or 3 of 10 (benchmarks/results/speed/recording.csv).
RECORDED, FEWEST_RECORDED = 5.9, 3.5
# Images kept from each end of a ranking, and their largest side in pixels.
PER_END, LARGEST_SIDE = 32, 64


def canonical_names(config: RunConfig, own_data: bool = False) -> RunConfig:
    """Return a config with its names spelled as registered, regardless of case.

    ``own_data`` allows an unknown name of the data set. For other unknown names an InputError
    suggests the nearest one.
    """
    names = {
        "method": samplers.canonical(config.method),
        "augmentation": known("augmentation", config.augmentation, augment.names()),
        "schedule": known("schedule", config.schedule, SCHEDULES),
    }
    if not models.is_custom(config.model):
        names["model"] = known("model", config.model, models.names())
    if is_named_dataset(config.dataset) or not own_data:
        names["dataset"] = data.canonical(config.dataset)
    changed = {name: value for name, value in names.items() if value != getattr(config, name)}
    return config.replace(**changed) if changed else config


def is_named_dataset(dataset: str) -> bool:
    """Tell whether a data set can be loaded by its name."""
    try:
        return bool(data.canonical(dataset))
    except InputError:
        return False


# Data


def load_data(
    config: RunConfig, progress: bool = True, keep: bool = True, whole: bool = False
) -> Splits:
    """Load the data set that a config describes.

    ``keep=False`` neither downloads nor caches; ``whole`` is as for :func:`budgetlab.data.load`.
    """
    # Fields that have the same name as an argument of ``data.load``.
    same = {name: getattr(config, name) for name in DATA_FIELDS
            if name not in ("dataset", "data_seed", "image_size")}  # fmt: skip
    return data.load(
        config.dataset, root=config.data_root, seed=config.data_seed,
        size=config.image_size or None, whole=whole, progress=progress, download=keep, keep=keep,
        **same,
    )  # fmt: skip


def about_data(name: str, splits: Splits) -> dict[str, Any]:
    """Describe the data, as stored in a record."""
    train, val = splits.train, splits.val
    return {
        "name": name,
        "fingerprint": splits.fingerprint,
        "val_fingerprint": splits.val_fingerprint,
        "classes": list(train.classes),
        "shape": list(train.sample_shape),
        "train": len(train),
        "test": len(splits.test),
        "val": 0 if val is None else len(val),
        "skipped": list(splits.skipped),
        "intake": splits.intake.to_dict() if splits.intake else {},
    }


def require_new(config: RunConfig) -> None:
    """Refuse settings that a new run would record and not apply."""
    if config.extended:
        raise InputError(
            f"extended {config.extended} is not a setting of a new run: resume it with --epochs"
        )
    if config.fidelity == "published" and config.credit == "weighted":
        raise InputError(
            "credit weighted does not go with fidelity published, which credits the row: drop one"
        )


def notes_on_test(splits: Splits) -> list[str]:
    """Return notes on custom test samples that miss some classes; loading reports it for others."""
    there = splits.test.y.unique().tolist()
    untested = [name for number, name in enumerate(splits.train.classes) if number not in there]
    if splits.intake or not untested:
        return []
    return [f"no test samples of {few(untested, 5)}: the accuracy says nothing of them"]


def resolve(
    config: RunConfig, splits: Splits | None, asked: Collection[str] = ()
) -> tuple[RunConfig, Splits]:
    """Return the data, and a config that agrees with it.

    Loaded data knows its settings, unless it is the user's own; the config adopts them, and
    contradicting them is an InputError. Settings at their default cannot contradict, except those
    in ``asked``. Without ``splits`` the data is loaded.
    """
    if splits is None:
        return config, load_data(config)
    require(splits, Splits, what="splits")
    require_unchanged(splits)
    default = RunConfig()
    changed = [name for name in DATA_FIELDS if getattr(config, name) != getattr(default, name)]
    said = [name for name in DATA_FIELDS if name in asked or name in changed]
    if splits.settings:
        # Converted by a config, so that both sides hold plain values.
        held = default.replace(**splits.settings)
        for name in said:
            _require_equal(name, getattr(config, name), getattr(held, name))
        root = held.data_root if config.data_root == default.data_root else config.data_root
        return config.replace(**{**splits.settings, "data_root": root}), splits
    require_no_changes(config, splits.name)
    if "dataset" not in said:
        return config.replace(dataset=splits.name), splits
    # Custom data may have any name except that of another data set.
    if is_named_dataset(config.dataset):
        _require_equal("dataset", config.dataset, splits.name)
    return config, splits


def require_no_changes(config: RunConfig, data: str) -> None:
    """Refuse settings that change data on loading, for data that somebody else has loaded."""
    default = RunConfig()
    for name in DATA_FIELDS:
        if name != "dataset" and getattr(config, name) != getattr(default, name):
            raise InputError(
                f"{name.replace('_', '-')} {getattr(config, name)} is not applied to data that is "
                f"given loaded, such as '{data}': change the data before, or leave it out"
            )


def require_unchanged(splits: Splits) -> None:
    """Refuse samples that no longer match their fingerprint, by which records identify them."""
    if fingerprint(splits.train, splits.test) != splits.fingerprint:
        raise InputError(
            f"the samples of '{splits.name}' were changed after the splits were made, and records "
            "would call them by the same fingerprint: put them together with bl.Splits.of"
        )


def _require_equal(name: str, said: object, known: object) -> None:
    if said != known:
        raise InputError(
            f"{name.replace('_', '-')} {said} is not that of the data that is given, which is "
            f"{known}: leave it out, or load the data with it"
        )


# The network


def named(model: nn.Module | Callable[[], nn.Module], splits: Splits) -> str:
    """Register a custom network for this data, and return its name."""
    return models.register(model, splits.train.sample_shape, len(splits.train.classes))


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes on the training device: the data, the per-sample statistics, and a step."""

    data: int
    history: int
    step: int

    @property
    def total(self) -> int:
        """Sum of the three."""
        return self.data + self.history + self.step


def predict(
    config: RunConfig, model_name: str, splits: Splits, device: torch.device, precision: torch.dtype
) -> MemoryNeeds:
    """Predict a run's memory on its device; on a CPU the data is already loaded and not counted."""
    train = splits.train
    held = [s for s in (train, splits.test, splits.val) if s is not None and device.type != "cpu"]
    history = vars(History(len(train), META)).values()
    kept = _bytes(t for t in history if isinstance(t, Tensor)) + DRAW * len(train)
    if getattr(samplers.lookup(config.method), "trajectory", False):
        # A second history, with p_y and shift of each epoch, and the previous softmax.
        epochs = config.proxy_share * config.budget * config.epochs
        kept += kept + int(len(train) * (8 * epochs + 4 * len(train.classes)))
    values = config.batch_size * train.x[:1].numel()
    asked = device.type != "cpu" or values > SMALL_BATCH
    step = step_bytes(config, model_name, train, precision) if asked else 0
    return MemoryNeeds(_bytes(t for s in held for t in (s.x, s.y)), kept, step or 0)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def free_bytes(device: torch.device) -> int:
    """Return the memory available on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def require_fit(
    config: RunConfig, model_name: str, splits: Splits, device: torch.device, precision: torch.dtype
) -> None:
    """Refuse a run whose parts do not fit each other or the memory, before anything is written."""
    if len(splits.train.sample_shape) != 3 and config.augmentation not in ("none", "standard"):
        raise InputError(
            f"augmentation '{config.augmentation}' needs images: choose standard or none"
        )
    needs, free = predict(config, model_name, splits, device, precision), free_bytes(device)
    if needs.total > free:
        data = f"{size_of(needs.data)} for the data, " if needs.data else ""
        raise InputError(
            f"this run needs about {size_of(needs.total)} of memory on {device} ({data}"
            f"{size_of(needs.history)} for what is kept of {len(splits.train):,} samples, "
            f"{size_of(needs.step)} for a step of model {model_name} on {config.batch_size:,}), "
            f"and {size_of(free)} is free: lower the batch size or the limit, or choose a "
            "smaller model or another device"
        )


def require_disk(config: RunConfig, size: int) -> None:
    """Refuse a run of ``size`` samples whose record would not fit on the disk of ``out``."""
    place = Path(config.out).absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    total, _, room = shutil.disk_usage(place)
    share = min(config.budget + 0.2, 1.0) * RECORDED
    record = int(size * config.epochs * max(share, FEWEST_RECORDED))
    if record > room and total:  # /proc and the like report no size, and fail by themselves
        raise InputError(
            f"the record of {config.epochs:,} epochs of {size:,} samples takes about "
            f"{size_of(record)}, and '{config.out}' has room for {size_of(room)}: lower --epochs "
            "or --limit, or give another --out"
        )


# Output


def packed(content: dict[str, Any]) -> bytes:
    """Serialise tensors and plain values with ``torch.save``."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def save_outputs(
    writer: RecordWriter, loop: "Loop", train: Dataset, predictions: pd.DataFrame
) -> None:
    """Store the weights, some images and the predictions of a finished run."""
    writer.save("model.safetensors", models.packed(loop.engine.network))
    if len(train.sample_shape) == 3:
        writer.save_thumbnails(*_thumbnails(train, loop.history))
    writer.save_predictions(predictions)


def _thumbnails(samples: Dataset, history: History) -> tuple[np.ndarray, np.ndarray]:
    """Return indices ``[K]`` and images ``[K, H, W, C]`` of extreme times trained and mean loss."""
    loss = torch.nan_to_num(history.mean_loss, nan=0.0)
    # Ties in the counts are broken by the loss, so that the selection is reproducible.
    trained = history.times_trained.double() + loss.double() / (1 + loss.max().double())
    picked: set[int] = set()
    for ranking in (trained, loss):
        order = ranking.argsort(stable=True)
        picked.update(order[:PER_END].tolist(), order[-PER_END:].tolist())
    indices = torch.tensor(sorted(picked), device=samples.x.device)
    images = samples.x[indices].cpu()
    if max(images.shape[2:]) > LARGEST_SIDE:
        scale = LARGEST_SIDE / max(images.shape[2:])
        small = F.interpolate(images.float(), scale_factor=scale, mode="area")
        images = small.round().clamp(0, 255).byte()
    return indices.cpu().numpy(), images.permute(0, 2, 3, 1).cpu().numpy()
