"""Failures of memory, GPU and disk: predicted where possible, else described in a sentence.

A step on torch's ``meta`` device allocates nothing, but shows how much it would allocate.
"""

import errno
import gc
import traceback
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from budgetlab.config import RunConfig
from budgetlab.data import Dataset
from budgetlab.errors import reason
from budgetlab.samplers import Batch
from budgetlab.training.engine import Engine

META = torch.device("meta")
# Messages of plain RuntimeErrors, from torch on the CPU and from GPU libraries.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
DEVICE = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS",
          "NCCL error", "HIP error", "NVML")  # fmt: skip
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all tensors created in the block, and the most held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            # Views and tensors changed in place own no new memory.
            if id(storage) not in self._known | given:
                self._known.add(id(storage))
                self.held += storage.nbytes()
                weakref.finalize(storage, self._freed, id(storage), storage.nbytes())
        self.peak = max(self.peak, self.held)
        return made

    def _freed(self, known: int, count: int) -> None:
        self._known.discard(known)
        self.held -= count


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def step_bytes(
    config: RunConfig, model_name: str, samples: Dataset, precision: torch.dtype
) -> int | None:
    """Predict the bytes of network, optimiser and one step, without allocating them.

    The overhead of libraries (workspaces, kernels, memory of graphs) is not included, so a run may
    need more, but hardly less. None for a network that cannot run without actual values.
    """
    try:
        one = samples.select(torch.arange(1))
        engine = Engine(config, model_name, one, META, torch.float32)
        weights = sum(p.numel() for p in engine.network.parameters())
        buffers = sum(b.numel() * b.element_size() for b in engine.network.buffers())
        narrow = precision != torch.float32
        if narrow:  # there is no autocast on meta
            engine.network.to(precision)
            engine.network.register_forward_pre_hook(lambda _, given: (given[0].to(precision),))
        with PeakBytes() as counted:
            for _ in range(2):  # the first creates the optimiser's state
                batch = Batch(torch.zeros(config.batch_size, dtype=torch.int64, device=META))
                engine.step(batch, lr=0.0)
    except (RuntimeError, NotImplementedError, TypeError):
        return None
    states = 2 if config.optimiser == "adamw" else 1
    # Weights, gradients and states are float32; autocast also keeps a cast copy of the weights.
    wider = 2 * weights * (1 + states + 1) if narrow else 0
    return counted.peak + 4 * weights + buffers + wider


def size_of(count: int) -> str:
    """Format a number of bytes."""
    return f"{count / 2**30:.3g} GiB" if count >= 2**27 else f"{count / 2**20:.3g} MiB"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Tell whether an error means that a GPU no longer works."""
    return isinstance(error, RuntimeError) and any(said in str(error) for said in DEVICE)


def describe_failure(
    error: BaseException, engine: Engine, model_name: str, record: Path, epochs: int
) -> str | None:
    """Describe a failed run in one sentence, or return None if the error is a bug in the code.

    ``epochs`` counts the whole epochs of the record. If memory ran out, smaller batches are tried:
    do not use the engine's weights afterwards.
    """
    if is_out_of_memory(error):
        traceback.clear_frames(error.__traceback__)
        size, fitting = engine.config.batch_size, _largest_fitting(engine)
        remedy = (
            f"a batch of {fitting} fits, so start again with batch size {fitting}, or choose a "
            "smaller model"
            if fitting
            else "not even a batch of 2 fits, so choose a smaller model"
        )
        return f"out of memory with batch size {size} and model {model_name}: {remedy}"
    if is_device_lost(error):
        return (
            f"the GPU '{engine.config.device}' does not answer any more ({reason(error)}): "
            f"the record '{record}' holds {epochs} epochs, resume it where the GPU works"
        )
    if not isinstance(error, OSError):
        return None
    missing = error.filename if isinstance(error, FileNotFoundError) else None
    if missing is not None and Path(missing).is_relative_to(record):
        return (
            f"the record '{record}', or a part of it, was removed while it was being trained: "
            "start the run again, and leave its folder in place"
        )
    when = "there is room" if error.errno in DISK_FULL else "it can be written again"
    return (
        f"the record '{record}' cannot be written ({error.strerror or type(error).__name__}): it "
        f"holds {epochs} epochs; resume it when {when}"
    )


def _largest_fitting(engine: Engine) -> int:
    """Halve the batch size until it fits with a quarter to spare for the rest of a run; else 0."""
    size = min(engine.config.batch_size, len(engine.samples)) // 2
    while size > 1:
        gc.collect()
        if engine.device.type != "cpu":
            getattr(torch, engine.device.type).empty_cache()
        try:
            batch = Batch(torch.arange(size + size // 4, device=engine.device))
            for _ in range(2):  # the first creates the optimiser's state
                # On a GPU the step runs asynchronously until its result is read.
                engine.step(batch, lr=0.0).loss.item()
            return size
        except Exception as error:
            # Libraries that run short of memory also raise errors of their own.
            traceback.clear_frames(error.__traceback__)
        size //= 2
    return 0


def describe_setup_failure(
    error: BaseException, config: RunConfig, train: Dataset, device: torch.device
) -> str | None:
    """Describe a failure to put data and network on the device, or return None for other errors."""
    if is_out_of_memory(error):
        size = train.x.numel() * train.x.element_size() / 2**30
        return (
            f"out of memory while {len(train):,} samples of '{config.dataset_name}' "
            f"({size:.2g} GiB) and the model were put on {device}: lower the limit, or choose "
            "a smaller model or another device"
        )
    if is_device_lost(error):
        return (
            f"the GPU '{device}' does not answer ({reason(error)}): choose another device, or cpu"
        )
    return None
