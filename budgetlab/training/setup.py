"""What a run is given beside its config, and whether it fits: data, network, memory and disk."""

import os
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from budgetlab import augment, data, models, samplers
from budgetlab.budget import SCHEDULES
from budgetlab.config import DATA_FIELDS, PRECISIONS, RunConfig
from budgetlab.data import Splits
from budgetlab.data.builtin import SHAPES_TEST_BEFORE
from budgetlab.data.dataset import fingerprint, require
from budgetlab.devices import choose_precision
from budgetlab.errors import InputError, RunError, known
from budgetlab.history import History
from budgetlab.records import Record
from budgetlab.records.safety import available_memory
from budgetlab.training.failures import META, size_of, step_bytes

__all__ = ["Needs", "about_data", "load_again", "load_data", "load_recorded", "named", "predict",
           "recorded_arithmetic", "recorded_config", "require_disk", "require_fit",
           "require_model", "resolve", "trained_network", "with_known_names"]  # fmt: skip

# On a processor, the step of a batch of fewer values is too small to be worth asking.
SMALL_BATCH = 2**19
# A weighted draw computes in float64: scores, shares, arrival times, and copies of them.
DRAW = 48
# A sample and epoch in a record: all seen, or 3 of 10 (benchmarks/results/speed/recording.csv).
RECORDED, FEWEST_RECORDED = 5.9, 3.5


def with_known_names(config: RunConfig, own_data: bool = False) -> RunConfig:
    """Return a config whose names are written as they are registered, whatever their case.

    ``own_data`` leaves the name of the data set as it is.

    Raises
    ------
    InputError
        If a name does not exist; names the nearest one.
    """
    names = {
        "method": samplers.canonical(config.method),
        "augmentation": known("augmentation", config.augmentation, augment.names()),
        "schedule": known("schedule", config.schedule, SCHEDULES),
    }
    if not models.is_own(config.model):
        names["model"] = known("model", config.model, models.names())
    if _has_name(config.dataset) or not own_data:
        names["dataset"] = data.canonical(config.dataset)
    changed = {name: value for name, value in names.items() if value != getattr(config, name)}
    return config.replace(**changed) if changed else config


def recorded_config(record: Record) -> RunConfig:
    """The settings of a record, whose method must be known here."""
    config = RunConfig.from_dict(record.config)
    if config.method.lower() not in map(str.lower, samplers.names()):
        raise InputError(
            f"record '{record.path}' was trained with a method of your own, '{config.method}': "
            f"register it again first; on the command line, add --method MODULE:{config.method}"
        )
    return with_known_names(config, own_data=True)


def _has_name(dataset: str) -> bool:
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


def load_again(
    path: Path | str,
    config: RunConfig,
    data_root: Path | str | None,
    intake: bool = True,
    moved: str | None = None,
) -> Splits:
    """Load the data of a record, which must be of a kind that has a name.

    ``moved`` is where it is now. A record may come from a stranger, so nothing is written to a
    folder that only the record names. Without an ``intake`` it is of an earlier version, which took
    the mean of all images and mirrored those of a folder or file whatever they showed.
    """
    if moved:
        config = config.replace(dataset=data.canonical(moved))
    on_disk = config.dataset.startswith(("folder:", "npz:"))
    if not intake and on_disk:
        config = config.replace(flip="yes")
    if not _has_name(config.dataset):
        raise InputError(
            f"record '{path}' was trained on data of your own, '{config.dataset}': give it again "
            "with splits="
        )
    if data_root is not None:
        return load_data(config.replace(data_root=str(data_root)), whole=not intake)
    try:
        return load_data(config, keep=False, whole=not intake)
    except InputError as error:
        if moved or not on_disk:
            raise
        raise InputError(
            f"{error}; if the data was moved, say where it is: resume --dataset, or dataset="
        ) from None


def load_recorded(
    record: Record, config: RunConfig, splits: Splits | None, data_root: Path | str | None,
    moved: str | None,
) -> Splits:  # fmt: skip
    """Return the data that a record was trained on: given, or loaded by :func:`load_again`.

    Raises
    ------
    RunError
        If it is not the same any more.
    """
    about = record.about["data"]
    if splits is None:
        splits = load_again(record.path, config, data_root, "intake" in about, moved)
    require(splits, Splits, what="splits")
    val = splits.val_fingerprint
    if config.dataset == "shapes" and about.get("test", 0) == SHAPES_TEST_BEFORE:
        # Earlier versions had 2,500 test images, which are the last of those it has now.
        test = splits.test.select(range(len(splits.test) - SHAPES_TEST_BEFORE, len(splits.test)))
        splits = replace(splits, test=test, fingerprint=fingerprint(splits.train, test))
    # Older records do not say which samples they were validated on.
    recorded = about.get("fingerprint"), about.get("val_fingerprint", val)
    if (splits.fingerprint, val) != recorded:
        raise RunError(
            f"the data '{config.dataset}' is not what record '{record.path}' was trained on: "
            "restore the data, or start a new run"
        )
    return splits


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


def resolve(
    config: RunConfig, splits: Splits | None, asked: Collection[str] = ()
) -> tuple[RunConfig, Splits]:
    """Return data and a config that says of it what is true.

    Data that is given loaded knows how it was loaded, or is of the user's own making; the config
    takes over what is so, and may not say otherwise. Without any it is loaded as the config says.

    Parameters
    ----------
    config, splits
        The run, and its data where that is loaded already.
    asked
        Names of the settings that were asked for. Any other one that is at its default
        says nothing of data that is given loaded.

    Raises
    ------
    InputError
        If the config asks for other data than that which is given.
    """
    if splits is None:
        return config, load_data(config)
    require(splits, Splits, what="splits")
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
    if _has_name(config.dataset):
        _require_equal("dataset", config.dataset, splits.name)
    return config, splits


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


def require_model(path: Path | str, name: str, model: object, splits: Splits | None = None) -> None:
    """Refuse to go on without the network of a record or, once its data is there, with another."""
    if models.is_own(name) and model is None:
        raise InputError(
            f"record '{path}' was trained with a network of your own, '{name}', which is not part "
            "of it: give it again with Run.resume(path, model=...)"
        )
    if model is not None and not models.is_own(name):
        raise InputError(
            f"record '{path}' was trained with model '{name}': leave model= out to go on with it"
        )
    if splits is None or model is None:
        return
    given = named(model, splits)  # type: ignore[arg-type]
    if not models.are_one(given, name):
        raise InputError(
            f"record '{path}' was trained with '{name}', and '{given}' is another network: give "
            "the one it was trained with"
        )


def trained_network(
    record: Record, splits: Splits, model: nn.Module | Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Build the network of a record, with the weights that it keeps.

    Raises
    ------
    InputError
        If it keeps none, they are damaged, or the network is another one.
    """
    name = str(record.about.get("hardware", {}).get("model") or record.config["model"])
    require_model(record.path, name, model, splits)
    train, path = splits.train, record.path / "model.safetensors"
    network = models.build(name, train.sample_shape, len(train.classes))
    if not path.is_file():
        raise InputError(
            f"'{path}' is missing: only a finished run keeps its weights, no thinned one does"
        )
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except Exception as error:
        # A damaged file raises many kinds of error.
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"'{path}' cannot be read into the network: {reason}") from None
    return network


def recorded_arithmetic(
    record: Record, config: RunConfig, device: torch.device
) -> tuple[torch.dtype, int | None]:
    """Number format of a record, and its threads where there are as many here.

    What the hardware here would choose could be another format, and the last bits of sums depend
    on how many threads there are.
    """
    recorded = record.about.get("hardware", {})
    precision, threads = recorded.get("precision"), recorded.get("threads")
    possible = isinstance(threads, int) and 1 <= threads <= (os.cpu_count() or 1)
    name = precision if precision in PRECISIONS else config.precision
    return choose_precision(name, device), threads if possible else None


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


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be had on a device now; None where nothing says so."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory()


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
    if free is not None and needs.total > free:
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
