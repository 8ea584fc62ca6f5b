"""A network that is not the kit's: any ``nn.Module``, or a function that makes one.

A network of your own is known by a name, ``own:CLASS-HEX``, whose digits depend on the
names and shapes of its weights: another width is another model in every table. The
name is what a record says; the network itself stays in the process that was given it.
"""

import copy
import hashlib
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from budgetlab.errors import InputError

__all__ = ["OwnModel", "lookup", "register"]

# Layers draw their first weights from torch's global generator: one network at a time.
BORROWED = threading.Lock()


@dataclass(frozen=True)
class OwnModel:
    """A network that was given: its names, and how many weights it has."""

    name: str
    class_name: str
    parameters: int
    make: Callable[[int], nn.Module]
    """From a seed to a new network: a copy of a given module, or what a function makes with torch's
    random state set to the seed."""


_GIVEN: dict[str, OwnModel] = {}


def lookup(name: str) -> OwnModel:
    """Return the network that was given under a name.

    Raises
    ------
    InputError
        If none was given in this process.
    """
    if name not in _GIVEN:
        raise InputError(
            f"model '{name}' is a network of your own: give it again with model=, it is not part "
            "of the record"
        )
    return _GIVEN[name]


def register(
    model: nn.Module | Callable[[], nn.Module], sample_shape: tuple[int, ...], classes: int
) -> str:
    """Take a network, check that it fits the data, and return its name.

    Parameters
    ----------
    model
        A module from normalised float samples ``[B, ...]`` to logits ``[B, classes]``,
        which is copied and never changed; or a function (or class) without arguments
        that makes one, so that other seeds start from other weights.

    Raises
    ------
    InputError
        If it is no network, or cannot take the data.
    """
    make = _maker(model)
    network = make(0)
    logits = _try(network, sample_shape)
    if logits.shape != (2, classes) or not logits.is_floating_point():
        raise InputError(
            f"model '{type(network).__name__}' gives {logits.dtype} of shape "
            f"{tuple(logits.shape)} for 2 samples of {sample_shape}: give logits of shape "
            f"(2, {classes}), one column a class"
        )
    weights = {name: value for name, value in network.named_parameters() if value.requires_grad}
    if not weights:
        raise InputError(f"model '{type(network).__name__}' has no weights to train")
    shapes = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    digits = hashlib.sha256(repr(shapes).encode()).hexdigest()[:6]
    kind = type(network)
    known = OwnModel(
        name=f"own:{kind.__name__}-{digits}",
        class_name=f"{kind.__module__}.{kind.__qualname__}",
        parameters=sum(value.numel() for value in weights.values()),
        make=make,
    )
    _GIVEN[known.name] = known
    return known.name


def _maker(model: nn.Module | Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    if isinstance(model, nn.Module):
        # Copied now: training the given one later must not change what a name means.
        kept = copy.deepcopy(model).cpu().train()
        return lambda seed: copy.deepcopy(kept)
    if not callable(model) or _needs_arguments(model):
        raise InputError(
            f"model {model!r} is neither a name, a torch.nn.Module, nor a function without "
            "arguments that makes one: give one of these"
        )

    def make(seed: int) -> nn.Module:
        with BORROWED, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = model()
        if not isinstance(network, nn.Module):
            raise InputError(
                f"model {model!r} made a {type(network).__name__}: it must make a torch.nn.Module"
            )
        return network.cpu().train()

    return make


def _needs_arguments(function: Callable) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # no signature to be had: let it try
        return False
    return False


def _try(network: nn.Module, sample_shape: tuple[int, ...]) -> torch.Tensor:
    """Run two empty samples, in evaluation mode."""
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(2, *sample_shape))
    except Exception as error:
        # Any mistake in somebody else's forward ends here, and means the same.
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"model '{type(network).__name__}' cannot take samples of shape {sample_shape} "
            f"({type(error).__name__}: {reason}): give a network for [B, "
            f"{', '.join(map(str, sample_shape))}] in float32"
        ) from error
    finally:
        network.train()
    if not isinstance(logits, torch.Tensor):
        raise InputError(
            f"model '{type(network).__name__}' gives a {type(logits).__name__}: give logits as one "
            "tensor"
        )
    return logits
