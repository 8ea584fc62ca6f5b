"""Around a run: what it is given beside its config, whether that fits, and what it keeps."""

import io
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import safetensors.torch
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

# On a processor, the step of a batch of fewer values is too small to be worth asking.
SMALL_BATCH = 2**19
# A weighted draw computes in float64: scores, shares, arrival times, and copies of them.
DRAW = 48
# A sample and epoch in a record: all seen, or 3 of 10 (benchmarks/results/speed/recording.csv).
RECORDED, FEWEST_RECORDED = 5.9, 3.5
# Images kept of each end of a ranking, and pixels a side.
PER_END, LARGEST_SIDE = 32, 64


def with_known_names(config: RunConfig, own_data: bool = False) -> RunConfig:
    """Return a config whose names are written as they are registered, whatever their case.

    ``own_data`` leaves the name of the data set as it is. An InputError names the nearest one to a
    name that does not exist.
    """
    names = {
        "method": samplers.canonical(config.method),
        "augmentation": known("augmentation", config.augmentation, augment.names()),
        "schedule": known("schedule", config.schedule, SCHEDULES),
    }
    if not models.is_own(config.model):
        names["model"] = known("model", config.model, models.names())
    if has_name(config.dataset) or not own_data:
        names["dataset"] = data.canonical(config.dataset)
    changed = {name: value for name, value in names.items() if value != getattr(config, name)}
    return config.replace(**changed) if changed else config


def has_name(dataset: str) -> bool:
    """Whether a data set can be loaded by its name."""
    try:
        return bool(data.canonical(dataset))
    except InputError:
        return False


# Data


def load_data(
    config: RunConfig, progress: bool = True, keep: bool = True, whole: bool = False
) -> Splits:
    """Load the data set of a run, as its config says.

    ``keep=False`` writes nothing: no download, no cache. ``whole`` is as for
    :func:`budgetlab.data.load`.
    """
    # What the config and the function call by the same name, and the rest.
    same = {name: getattr(config, name) for name in DATA_FIELDS
            if name not in ("dataset", "data_seed", "image_size")}  # fmt: skip
    return data.load(
        config.dataset, root=config.data_root, seed=config.data_seed,
        size=config.image_size or None, whole=whole, progress=progress, download=keep, keep=keep,
        **same,
    )  # fmt: skip


def about_data(name: str, splits: Splits) -> dict[str, Any]:
    """What a record says of its data."""
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


def notes_on_test(splits: Splits) -> list[str]:
    """What is odd about test samples that were put together by hand; of others loading says it."""
    there = splits.test.y.unique().tolist()
    untested = [name for number, name in enumerate(splits.train.classes) if number not in there]
    if splits.intake or not untested:
        return []
    return [f"no test samples of {few(untested, 5)}: the accuracy says nothing of them"]


def resolve(
    config: RunConfig, splits: Splits | None, asked: Collection[str] = ()
) -> tuple[RunConfig, Splits]:
    """Return data and a config that says of it what is true.

    Data that is given loaded knows how it was loaded, or is of the user's own making; the config
    takes over what is so, and may not say otherwise, which is an InputError. Settings that are at
    their default say nothing of such data, but for those ``asked`` for. Without any it is loaded.
    """
    if splits is None:
        return config, load_data(config)
    require(splits, Splits, what="splits")
    require_unchanged(splits)
    default = RunConfig()
    changed = [name for name in DATA_FIELDS if getattr(config, name) != getattr(default, name)]
    said = [name for name in DATA_FIELDS if name in asked or name in changed]
    if splits.settings:
        # Through a config, so that both sides are plain values.
        held = default.replace(**splits.settings)
        for name in said:
            _require_equal(name, getattr(config, name), getattr(held, name))
        root = held.data_root if config.data_root == default.data_root else config.data_root
        return config.replace(**{**splits.settings, "data_root": root}), splits
    for name in changed:
        if name != "dataset":
            raise InputError(
                f"{name.replace('_', '-')} {getattr(config, name)} is not applied to data that is "
                f"given loaded, such as '{splits.name}': change the data before, or leave it out"
            )
    if "dataset" not in said:
        return config.replace(dataset=splits.name), splits
    # Data of one's own may be called anything but what is something else.
    if has_name(config.dataset):
        _require_equal("dataset", config.dataset, splits.name)
    return config, splits


def require_unchanged(splits: Splits) -> None:
    """Refuse samples that are not those of the fingerprint, by which records know them."""
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
    """Take a network for this data, and return the name that the record knows it by."""
    return models.register(model, splits.train.sample_shape, len(splits.train.classes))


@dataclass(frozen=True)
class Needs:
    """Bytes on the training device: the images, what is kept of each sample, and a step."""

    data: int
    history: int
    step: int

    @property
    def total(self) -> int:
        """Of all of them together."""
        return self.data + self.history + self.step


def predict(
    config: RunConfig, model_name: str, splits: Splits, device: torch.device, precision: torch.dtype
) -> Needs:
    """Predict what a run needs on its device.

    On the processor the data is there already, and is not counted.
    """
    train = splits.train
    held = [s for s in (train, splits.test, splits.val) if s is not None and device.type != "cpu"]
    history = vars(History(len(train), META)).values()
    kept = _bytes(t for t in history if isinstance(t, Tensor)) + DRAW * len(train)
    if getattr(samplers.lookup(config.method), "trajectory", False):
        # A second history, p_y and shift of each of its epochs, and the softmax before.
        epochs = config.proxy_share * config.budget * config.epochs
        kept += kept + int(len(train) * (8 * epochs + 4 * len(train.classes)))
    values = config.batch_size * train.x[:1].numel()
    asked = device.type != "cpu" or values > SMALL_BATCH
    step = step_bytes(config, model_name, train, precision) if asked else 0
    return Needs(_bytes(t for s in held for t in (s.x, s.y)), kept, step or 0)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def require_fit(
    config: RunConfig, model_name: str, splits: Splits, device: torch.device, precision: torch.dtype
) -> None:
    """Refuse a run whose parts do not fit each other, or memory, before anything is written."""
    if len(splits.train.sample_shape) != 3 and config.augmentation not in ("none", "standard"):
        raise InputError(
            f"augmentation '{config.augmentation}' needs images, and '{config.dataset}' "
            "holds points: choose standard or none"
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
    """Refuse a run of ``size`` samples whose record has no room where ``out`` lies."""
    place = Path(config.out).absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    total, _, room = shutil.disk_usage(place)
    share = min(config.budget + 0.2, 1.0) * RECORDED
    record = int(size * config.epochs * max(share, FEWEST_RECORDED))
    if record > room and total:  # /proc and the like have no size, and say why themselves
        raise InputError(
            f"the record of {config.epochs:,} epochs of {size:,} samples takes about "
            f"{size_of(record)}, and '{config.out}' has room for {size_of(room)}: lower --epochs "
            "or --limit, or give another --out"
        )


# What it keeps


def packed(content: dict[str, Any]) -> bytes:
    """Return tensors and plain values as bytes of ``torch.save``."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def save_end(writer: RecordWriter, loop: "Loop", train: Dataset, predictions: pd.DataFrame) -> None:
    """Keep what a finished run is looked at by: weights, a few images and predictions."""
    weights = loop.engine.network.state_dict()
    writer.save_model(safetensors.torch.save(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    ))  # fmt: skip
    if len(train.sample_shape) == 3:
        writer.save_thumbnails(*_thumbnails(train, loop.history))
    writer.save_predictions(predictions)


def _thumbnails(samples: Dataset, history: History) -> tuple[np.ndarray, np.ndarray]:
    """Numbers ``[K]`` and images ``[K, H, W, C]`` of the ends of times trained and mean loss."""
    loss = torch.nan_to_num(history.mean_loss, nan=0.0)
    # Ties in the counts are ordered by the loss, so that the ends are the same each time.
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
