"""What a run keeps to go on later: saved and loaded without pickled objects."""

import dataclasses
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import nn

from budgetlab.budget import Budget
from budgetlab.errors import InputError
from budgetlab.records.safety import check_stored, own_file

if TYPE_CHECKING:
    from budgetlab.training.loop import Loop

__all__ = ["load", "save", "save_weights"]


def save(loop: "Loop", epoch: int) -> bytes:
    """Return the state of a loop at the end of an epoch, as bytes for ``state.pt``."""
    content = {
        "epoch": epoch,
        "network": loop.engine.network.state_dict(),
        "optimiser": loop.engine.optimiser.state_dict(),
        "history": loop.history.state_dict(),
        "ledger": loop.ledger.state_dict(),
        "sampler": loop.sampler.state_dict(),
        "order": loop.sampler.generator.get_state(),
        "augmentation": loop.engine.generator.get_state(),
        "budget": dataclasses.asdict(loop.budget),
    }
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def load(loop: "Loop", path: Path) -> int:
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
        check_stored(own_file(path.parent, path.name))
        content = torch.load(path, map_location="cpu", weights_only=True)
        _require_real(content)
        loop.engine.network.load_state_dict(content["network"])
        loop.engine.optimiser.load_state_dict(content["optimiser"])
        loop.history.load_state_dict(content["history"])
        loop.ledger.load_state_dict(content["ledger"])
        loop.sampler.load_state_dict(_to_device(content["sampler"], loop.device))
        loop.sampler.generator.set_state(content["order"])
        loop.engine.generator.set_state(content["augmentation"])
        loop.budget = Budget(**content["budget"])
        return int(content["epoch"])
    except Exception as error:
        # Whatever stands in it instead of a state, there is one thing to say.
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InputError(f"'{path}' cannot be resumed from: {reason}") from None


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


def _to_device(state: dict, device: torch.device) -> dict:
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in state.items()
    }


def save_weights(network: nn.Module) -> bytes:
    """Return the weights as bytes for ``model.safetensors``."""
    weights = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    return safetensors.torch.save(weights)
