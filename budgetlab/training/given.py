"""What is given to a run beside its config: data, and a network of one's own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from budgetlab import data, own_models
from budgetlab.config import RunConfig
from budgetlab.data import Splits
from budgetlab.data.samples import fingerprint
from budgetlab.data.sources import SHAPES_TEST_BEFORE
from budgetlab.errors import InputError

__all__ = [
    "as_recorded",
    "load_again",
    "load_data",
    "named",
    "require_model",
    "require_same",
    "require_untouched",
]


def load_data(config: RunConfig, progress: bool = True, keep: bool = True) -> Splits:
    """Load the data set of a run, as its config says.

    ``keep=False`` writes nothing: no download, no cache.
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
        progress=progress,
        download=keep,
        keep=keep,
    )


def load_again(path: Path | str, config: RunConfig, data_root: Path | str | None) -> Splits:
    """Load the data of a record, which must be of a kind that has a name.

    A record may come from a stranger, so nothing is written to a folder that only the
    record names.
    """
    if not _has_name(config.dataset):
        raise InputError(
            f"record '{path}' was trained on data of your own, '{config.dataset}': give it again "
            "with splits="
        )
    if data_root is None:
        return load_data(config, keep=False)
    return load_data(config.replace(data_root=str(data_root)))


def as_recorded(splits: Splits, dataset: str, test_size: int) -> Splits:
    """Return data with the test images that a record of an earlier version was tested on.

    ``shapes`` had 2,500 of them, which are the last of those it has now.
    """
    if dataset != "shapes" or test_size != SHAPES_TEST_BEFORE:
        return splits
    test = splits.test.select(range(len(splits.test) - test_size, len(splits.test)))
    return replace(splits, test=test, fingerprint=fingerprint(splits.train, test))


def _has_name(dataset: str) -> bool:
    """Whether a data set can be loaded by its name."""
    known = data.describe()
    return dataset in known or f"{dataset.partition(':')[0]}:PATH" in known


def require_untouched(config: RunConfig) -> None:
    """Refuse settings that change data on loading, for data that is given loaded."""
    if _has_name(config.dataset):
        return
    defaults = RunConfig()
    for name in ("limit", "label_noise", "imbalance", "redundancy", "val_fraction"):
        if getattr(config, name) != getattr(defaults, name):
            raise InputError(
                f"{name.replace('_', '-')} {getattr(config, name):g} is not applied to data that "
                f"is given loaded, such as '{config.dataset}': change the data before, or leave "
                "it out"
            )


def named(model: nn.Module | Callable[[], nn.Module], splits: Splits) -> str:
    """Take a network for this data, and return the name that the record knows it by."""
    return own_models.register(model, splits.train.sample_shape, len(splits.train.classes))


def require_model(path: Path | str, name: str, model: object) -> None:
    """Refuse to go on without the network that a record was trained with."""
    if own_models.is_own(name) and model is None:
        raise InputError(
            f"record '{path}' was trained with a network of your own, '{name}', which is not part "
            "of it: give it again with Run.resume(path, model=...)"
        )
    if model is not None and not own_models.is_own(name):
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
