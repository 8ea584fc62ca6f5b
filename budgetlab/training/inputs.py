"""What is given to a run beside its config: data, and a network of one's own."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import safetensors.torch
from torch import nn

from budgetlab import augment, custom_models, data, models, samplers
from budgetlab.budget import SCHEDULES
from budgetlab.config import DATA_FIELDS, RunConfig
from budgetlab.data import Splits
from budgetlab.data.builtin import SHAPES_TEST_BEFORE
from budgetlab.data.dataset import fingerprint
from budgetlab.errors import InputError, known
from budgetlab.records import Record

__all__ = [
    "as_recorded",
    "load_again",
    "load_data",
    "named",
    "require_model",
    "require_same",
    "resolve",
    "trained_network",
    "with_known_names",
]


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


def _has_name(dataset: str) -> bool:
    """Whether a data set can be loaded by its name."""
    try:
        return bool(data.canonical(dataset))
    except InputError:
        return False


def load_data(
    config: RunConfig, progress: bool = True, keep: bool = True, whole: bool = False
) -> Splits:
    """Load the data set of a run, as its config says.

    ``keep=False`` writes nothing: no download, no cache. ``whole`` is as for
    :func:`budgetlab.data.load`.
    """
    return data.load(
        config.dataset,
        root=config.data_root,
        seed=config.data_seed,
        limit=config.limit,
        val_fraction=config.val_fraction,
        label_noise=config.label_noise,
        noise_kind=config.noise_kind,
        imbalance=config.imbalance,
        redundancy=config.redundancy,
        copies=config.copies,
        redundancy_kind=config.redundancy_kind,
        size=config.image_size or None,
        flip=config.flip,
        drop_copies=config.drop_copies,
        edits=config.edits,
        whole=whole,
        progress=progress,
        download=keep,
        keep=keep,
    )


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
    if not intake and config.dataset.startswith(("folder:", "npz:")):
        config = config.replace(flip="yes")
    if not _has_name(config.dataset):
        raise InputError(
            f"record '{path}' was trained on data of your own, '{config.dataset}': give it again "
            "with splits="
        )
    if data_root is None:
        try:
            return load_data(config, keep=False, whole=not intake)
        except InputError as error:
            if moved or not config.dataset.startswith(("folder:", "npz:")):
                raise
            raise InputError(
                f"{error}; if the data was moved, say where it is: resume --dataset, or dataset="
            ) from None
    return load_data(config.replace(data_root=str(data_root)), whole=not intake)


def as_recorded(splits: Splits, dataset: str, test_size: int) -> Splits:
    """Return data with the test images that a record of an earlier version was tested on.

    ``shapes`` had 2,500 of them, which are the last of those it has now.
    """
    if dataset != "shapes" or test_size != SHAPES_TEST_BEFORE:
        return splits
    test = splits.test.select(range(len(splits.test) - test_size, len(splits.test)))
    return replace(splits, test=test, fingerprint=fingerprint(splits.train, test))


def resolve(
    config: RunConfig, splits: Splits | None, asked: Collection[str] = ()
) -> tuple[RunConfig, Splits]:
    """Return data and a config that says of it what is true.

    Data is loaded as the config says. Data that is given loaded knows how it was loaded, or
    is of the user's own making; the config takes over what is so, and may not say otherwise.

    Parameters
    ----------
    config
        The run.
    splits
        Data already loaded; None to load it.
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
    default = RunConfig()
    said = [f for f in DATA_FIELDS if f in asked or getattr(config, f) != getattr(default, f)]
    if splits.settings:
        # Through a config, so that both sides are plain values.
        held = default.replace(**splits.settings)
        for name in said:
            _require_equal(name, getattr(config, name), getattr(held, name))
        root = held.data_root if config.data_root == default.data_root else config.data_root
        return config.replace(**{**splits.settings, "data_root": root}), splits
    for name in said:
        if name != "dataset" and getattr(config, name) != getattr(default, name):
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


def named(model: nn.Module | Callable[[], nn.Module], splits: Splits) -> str:
    """Take a network for this data, and return the name that the record knows it by."""
    return custom_models.register(model, splits.train.sample_shape, len(splits.train.classes))


def require_model(path: Path | str, name: str, model: object) -> None:
    """Refuse to go on without the network that a record was trained with."""
    if models.is_own(name) and model is None:
        raise InputError(
            f"record '{path}' was trained with a network of your own, '{name}', which is not part "
            "of it: give it again with Run.resume(path, model=...)"
        )
    if model is not None and not models.is_own(name):
        raise InputError(
            f"record '{path}' was trained with model '{name}': leave model= out to go on with it"
        )


def require_same(path: Path | str, name: str, given: str) -> None:
    """Refuse to go on with another network."""
    if name != given:
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
    require_model(record.path, name, model)
    if model is not None:
        require_same(record.path, name, named(model, splits))
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
