"""Data sets and networks of others: items, labels and outputs of the usual kinds."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from budgetlab.errors import InputError

__all__ = ["about_data", "collate", "labels_of", "logits_of"]

# What data sets call the label of a sample.
LABEL_KEYS = ("label", "labels", "y", "target", "targets", "fine_label")


def collate(
    data: Any, indices: list[int], collate_fn: Callable[[list], Any] | None = None
) -> tuple[Any, Tensor]:
    """Samples and labels int64 ``[B]`` as a batch; of dicts, all but the label by name.

    Raises
    ------
    InputError
        If the items cannot be put into a batch, or have no label.
    """
    items: list = [data[number] for number in indices]
    if collate_fn is None and not isinstance(items[0], Mapping):
        items = [tuple(item)[:2] for item in items]
    try:
        batch = (collate_fn or default_collate)(items)
    except TypeError as error:
        raise InputError(
            f"the items of the data set cannot be put into a batch ({error}): give "
            "collate_fn=, as to the loader"
        ) from error
    if not isinstance(batch, Mapping):
        return batch[0], batch[1].long()
    key = next((key for key in LABEL_KEYS if key in batch), None)
    if key is None:
        raise InputError(
            f"the items of the data set hold {', '.join(map(str, batch))} and no label: call "
            f"it one of {', '.join(LABEL_KEYS)}, or give collate_fn="
        )
    inputs = {name: value for name, value in batch.items() if name != key}
    return next(iter(inputs.values())) if len(inputs) == 1 else inputs, batch[key].long()


def labels_of(data: Any) -> Tensor | None:
    """Labels that a data set holds as a whole; None where only its items have them."""
    found = getattr(data, "targets", None)
    if found is None and hasattr(data, "tensors") and len(data.tensors) > 1:
        found = data.tensors[1]
    columns = getattr(data, "column_names", None)
    if found is None and isinstance(columns, list):
        found = next((data[key] for key in LABEL_KEYS if key in columns), None)
    if found is None:
        return None
    labels = torch.as_tensor(np.asarray(found))
    fits = labels.ndim == 1 and len(labels) == len(data) and not labels.is_floating_point()
    return labels.long() if fits else None


def logits_of(model: nn.Module, inputs: Any, device: torch.device) -> Tensor:
    """Run a network on a batch of whatever kind; float32 on the processor."""
    if isinstance(inputs, Mapping):
        given = model(**{name: part.to(device) for name, part in inputs.items()})
    else:
        given = model(inputs.to(device))
    if isinstance(given, Mapping):
        given = given.get("logits")
    logits = given if isinstance(given, Tensor) else getattr(given, "logits", None)
    if not isinstance(logits, Tensor):
        raise InputError(
            f"model '{type(model).__name__}' gives a {type(given).__name__} without logits: give "
            "a network that returns logits"
        )
    return logits.float().cpu()


def about_data(name: str, labels: Tensor, classes: Sequence[str] | None) -> dict[str, Any]:
    """What a record says of data of which only the labels int64 ``[N]`` are known.

    Samples themselves are not looked at: the same labels are taken for the same data.
    """
    return {
        "name": name,
        "fingerprint": hashlib.sha256(labels.numpy().tobytes()).hexdigest()[:16],
        "val_fingerprint": "",
        "classes": list(classes or map(str, range(int(labels.max()) + 1))),
        "shape": [],
        "train": len(labels),
        "test": 0,
        "val": 0,
        "skipped": [],
    }
