"""Restore a run from its record, without unpickling: settings, data, network, precision, state."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import nn

from budgetlab import data, models, samplers
from budgetlab.budget import Budget
from budgetlab.config import PRECISIONS, RunConfig
from budgetlab.data import Splits
from budgetlab.data.builtin import SHAPES_TEST_V1
from budgetlab.data.dataset import fingerprint, require
from budgetlab.devices import choose_precision
from budgetlab.errors import InputError, RunError, reason
from budgetlab.records import Record, open_record
from budgetlab.records.format import checked_file
from budgetlab.records.safety import check_stored
from budgetlab.records.thin import copy_unfinished
from budgetlab.training.setup import (
    canonical_names,
    is_named_dataset,
    load_data,
    named,
    packed,
    require_unchanged,
)

if TYPE_CHECKING:
    from budgetlab.training.loop import Loop


def recorded_config(record: Record) -> RunConfig:
    """Return the settings of a record, whose method must be registered."""
    config = RunConfig.from_dict(record.config)
    if config.method.lower() not in map(str.lower, samplers.names()):
        raise InputError(
            f"record '{record.path}' was trained with a method of your own, '{config.method}': "
            f"register it again first; on the command line, add --method MODULE:{config.method}"
        )
    return canonical_names(config, own_data=True)


def load_again(
    path: Path | str,
    config: RunConfig,
    data_root: Path | str | None,
    intake: bool = True,
    moved: str | None = None,
) -> Splits:
    """Load the data of a record, which must be of a kind that has a name.

    ``moved`` is its new location. A record may come from a stranger, so nothing is written to a
    folder that only the record names. A record without ``intake`` is of an earlier version, which
    normalised by all images and mirrored those of a folder or file whatever they showed.
    """
    if moved:
        config = config.replace(dataset=data.canonical(moved))
    on_disk = config.dataset.startswith(("folder:", "npz:"))
    if not intake and on_disk:
        config = config.replace(flip="yes")
    if not config.dataset.startswith("folder:"):
        config = config.replace(image_size=0)  # earlier versions passed it over
    if not is_named_dataset(config.dataset):
        raise InputError(
            f"record '{path}' was trained on your own data: give it again with splits="
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
    """Return a record's data, given or loaded by :func:`load_again`; RunError if it has changed."""
    about = record.about["data"]
    if splits is None:
        splits = load_again(record.path, config, data_root, "intake" in about, moved)
    else:
        require_unchanged(require(splits, Splits, what="splits"))
    val = splits.val_fingerprint
    if config.dataset == "shapes" and about.get("test", 0) == SHAPES_TEST_V1:
        # Earlier versions had 2,500 test images, the last ones of the present test set.
        test = splits.test.select(range(len(splits.test) - SHAPES_TEST_V1, len(splits.test)))
        splits = replace(splits, test=test, fingerprint=fingerprint(splits.train, test))
    # Older records do not store the validation fingerprint.
    recorded = about.get("fingerprint"), about.get("val_fingerprint", val)
    if (splits.fingerprint, val) != recorded:
        raise RunError(
            f"the data '{config.dataset}' is not what record '{record.path}' was trained on: "
            "restore the data, or start a new run"
        )
    return splits


def require_model(path: Path | str, name: str, model: object, splits: Splits | None = None) -> None:
    """Refuse to resume without the network of a record or, once its data is there, with another."""
    if models.is_custom(name) and model is None:
        raise InputError(
            f"record '{path}' was trained with a network of your own, '{name}', which is not part "
            "of it: give it again with model=, as in Run.resume(path, model=...)"
        )
    if model is not None and not models.is_custom(name):
        raise InputError(
            f"record '{path}' was trained with model '{name}': leave model= out to go on with it"
        )
    if splits is None or model is None:
        return
    given = named(model, splits)  # type: ignore[arg-type]
    if not models.is_same_network(given, name):
        raise InputError(
            f"record '{path}' was trained with '{name}', not with '{given}': give that network"
        )


def trained_network(
    record: Record, splits: Splits, model: nn.Module | Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Build a record's network with its stored weights; InputError if these do not load."""
    name = str(record.about.get("hardware", {}).get("model") or record.config["model"])
    require_model(record.path, name, model, splits)
    train, path = splits.train, record.path / "model.safetensors"
    network = models.build(name, train.sample_shape, len(train.classes))
    if not path.is_file():
        raise InputError(
            f"'{path}' is missing: give a finished run that is not thinned, which keeps its weights"
        )
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except Exception as error:
        # A damaged file raises many kinds of error.
        said = f"'{path}' cannot be read into the network: {reason(error)}"
        raise InputError(said) from None
    return getattr(network, "_orig_mod", network)  # not compiled, so that its layers can be hooked


def recorded_precision(
    record: Record, config: RunConfig, device: torch.device
) -> tuple[torch.dtype, int | None]:
    """Return a record's precision, and its thread count if available here, for identical sums."""
    recorded = record.about.get("hardware", {})
    precision, threads = recorded.get("precision"), recorded.get("threads")
    possible = isinstance(threads, int) and 1 <= threads <= (os.cpu_count() or 1)
    name = precision if precision in PRECISIONS else config.precision
    return choose_precision(name, device), threads if possible else None


def extend(path: Path, epochs: int) -> Path:
    """Copy the record of a finished run so that resuming continues to a larger budget.

    The budget becomes that of ``epochs`` epochs; everything else stays as it was at the end. The
    finished record is unchanged: the copy beside it, whose path is returned, is another run with an
    id of its own and ``extended`` in its config. An InputError means that the run is not finished,
    is already as long, or kept no state.
    """
    record = open_record(path)
    config = RunConfig.from_dict(record.config)
    if record.status != "finished":
        raise InputError(
            f"'{path}' is {record.status}, not finished: resume it without epochs first"
        )
    if epochs <= config.epochs:
        raise InputError(f"epochs {epochs} is not more than the {config.epochs} that '{path}' had")
    record.require_readable()
    try:
        content = _read_state(record.path / "state.pt")
        limit = content["budget"]["limit"] * epochs / config.epochs
        whole = isinstance(content["budget"]["limit"], int)
        content["budget"] |= {"exhausted": False, "limit": round(limit) if whole else limit}
    except Exception as error:
        raise _unreadable(record.path / "state.pt", error) from None
    before = "+".join(filter(None, (config.extended, str(config.epochs))))
    longer = config.replace(epochs=epochs, extended=before, out=str(record.path.parent))
    return copy_unfinished(record, longer, packed(content))


def load_state(loop: "Loop", path: Path) -> int:
    """Restore a loop's saved state and return its epoch, 0 without one; InputError if damaged."""
    if not os.path.lexists(path):
        return 0
    try:
        content = _read_state(path)
        Budget(**content["budget"])  # raises if incomplete
        loop.load_state_dict(content)
        return int(content["epoch"])
    except Exception as error:
        raise _unreadable(path, error) from None


def _read_state(path: Path) -> dict[str, Any]:
    check_stored(checked_file(path.parent, path.name))
    content = torch.load(path, map_location="cpu", weights_only=True)
    _require_real(content)
    return content


def _require_real(content: Any) -> None:
    """Refuse tensors that claim to be larger than their storage."""
    if isinstance(content, torch.Tensor):
        if content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise ValueError("a tensor is larger than what is stored of it")
    elif isinstance(content, dict):
        _require_real(list(content.values()))
    elif isinstance(content, list | tuple):
        for part in content:
            _require_real(part)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"'{path}' cannot be resumed from: {reason(error)}")
