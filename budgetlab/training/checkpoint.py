"""What a run keeps on disk: the state it goes on from, weights, a few images.

State is saved and loaded without pickled objects.
"""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F

from budgetlab.budget import Budget
from budgetlab.config import RunConfig
from budgetlab.data import Dataset
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.records import RecordWriter, open_record
from budgetlab.records.safety import check_stored, own_file
from budgetlab.records.writer import copy_unfinished

if TYPE_CHECKING:
    from budgetlab.training.loop import Loop

__all__ = ["extend", "load_state", "pick_thumbnails", "save_end", "save_state"]

PER_END = 32
LARGEST_SIDE = 64


def save_state(loop: "Loop", epoch: int) -> bytes:
    """Return the state of a loop at the end of an epoch, as bytes for ``state.pt``."""
    engine = loop.engine
    return _packed({
        "epoch": epoch,
        "network": engine.network.state_dict(),
        "optimiser": engine.optimiser.state_dict(),
        "augmentation": engine.generator.get_state(),
        **loop.state_dict(),
    })  # fmt: skip


def _packed(content: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _read_state(path: Path) -> dict[str, Any]:
    check_stored(own_file(path.parent, path.name))
    content = torch.load(path, map_location="cpu", weights_only=True)
    _require_real(content)
    return content


def _unreadable(path: Path, error: Exception) -> InputError:
    """Whatever stands in a file instead of a state, there is one thing to say."""
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return InputError(f"'{path}' cannot be resumed from: {reason}")


def extend(path: Path, epochs: int) -> Path:
    """Copy the record of a finished run so that resuming goes on to a larger budget.

    The budget becomes that of ``epochs`` epochs; everything else stands as it did at the end.
    The finished record stays as it is: the copy is another run, whose config says so in
    ``extended``, with an id of its own.

    Returns
    -------
    Path
        The copy, beside the record.

    Raises
    ------
    InputError
        If the run is not finished, is as long already, or kept no state.
    """
    record = open_record(path)
    config = RunConfig.from_dict(record.config)
    if record.status != "finished":
        raise InputError(
            f"'{path}' is {record.status}, and only a finished run is extended: resume it without "
            "epochs first"
        )
    if epochs <= config.epochs:
        raise InputError(f"epochs {epochs} is not more than the {config.epochs} that '{path}' had")
    record.require_whole()
    try:
        content = _read_state(record.path / "state.pt")
        limit = content["budget"]["limit"] * epochs / config.epochs
        whole = isinstance(content["budget"]["limit"], int)
        content["budget"] |= {"exhausted": False, "limit": round(limit) if whole else limit}
    except Exception as error:
        raise _unreadable(record.path / "state.pt", error) from None
    before = "+".join(filter(None, (config.extended, str(config.epochs))))
    longer = config.replace(epochs=epochs, extended=before, out=str(record.path.parent))
    return copy_unfinished(record, longer, _packed(content))


def load_state(loop: "Loop", path: Path) -> int:
    """Put a loop back to a saved state.

    Returns
    -------
    int
        Number of the last whole epoch; 0, and nothing changed, where none was saved.

    Raises
    ------
    InputError
        If the file is damaged or holds anything but tensors and plain values.
    """
    if not os.path.lexists(path):
        return 0
    try:
        content = _read_state(path)
        loop.engine.network.load_state_dict(content["network"])
        loop.engine.optimiser.load_state_dict(content["optimiser"])
        loop.engine.generator.set_state(content["augmentation"])
        Budget(**content["budget"])  # whole, or it is refused
        loop.load_state_dict(content)
        return int(content["epoch"])
    except Exception as error:
        raise _unreadable(path, error) from None


def _require_real(content: Any) -> None:
    """Refuse tensors that say they are larger than what is stored of them."""
    if isinstance(content, torch.Tensor):
        if content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise ValueError("a tensor is larger than what is stored of it")
    elif isinstance(content, dict):
        _require_real(list(content.values()))
    elif isinstance(content, list | tuple):
        for part in content:
            _require_real(part)


def save_end(writer: RecordWriter, loop: "Loop", train: Dataset, predictions: pd.DataFrame) -> None:
    """Keep what a finished run is looked at by: weights, a few images and predictions."""
    weights = loop.engine.network.state_dict()
    writer.save_model(safetensors.torch.save(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    ))  # fmt: skip
    picked = pick_thumbnails(train, loop.history)
    if picked is not None:
        writer.save_thumbnails(*picked)
    writer.save_predictions(predictions)


def pick_thumbnails(
    samples: Dataset, history: History, per_end: int = PER_END
) -> tuple[np.ndarray, np.ndarray] | None:
    """Pick the samples at both ends of two rankings: times trained, and mean loss.

    Returns
    -------
    tuple or None
        Sample numbers int64 ``[K]``, ascending, and images uint8 ``[K, H, W, C]``, at
        most 64 pixels a side. None for data that are no images.
    """
    if len(samples.sample_shape) != 3:
        return None
    loss = torch.nan_to_num(history.mean_loss, nan=0.0)
    # Ties in the counts are ordered by the loss, so that the ends are the same each time.
    trained = history.times_trained.double() + loss.double() / (1 + loss.max().double())
    picked: set[int] = set()
    for ranking in (trained, loss):
        order = ranking.argsort(stable=True)
        picked.update(order[:per_end].tolist(), order[-per_end:].tolist())
    indices = torch.tensor(sorted(picked), device=samples.x.device)
    images = samples.x[indices].cpu()
    if max(images.shape[2:]) > LARGEST_SIDE:
        scale = LARGEST_SIDE / max(images.shape[2:])
        small = F.interpolate(images.float(), scale_factor=scale, mode="area")
        images = small.round().clamp(0, 255).byte()
    return indices.cpu().numpy(), images.permute(0, 2, 3, 1).cpu().numpy()
