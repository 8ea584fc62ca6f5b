"""What can go wrong on the way, said in a sentence each."""

import contextlib
import errno
import gc
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from budgetlab.config import RunConfig
from budgetlab.data import Dataset
from budgetlab.errors import RunError
from budgetlab.samplers import Batch
from budgetlab.training.engine import Engine

__all__ = ["at_the_start", "device_failed", "device_lost", "no_memory", "not_written",
           "out_of_memory"]  # fmt: skip

# What torch says on the processor, and what the libraries of a GPU say, in plain RuntimeErrors.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
DEVICE = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS",
          "NCCL error", "HIP error", "NVML")  # fmt: skip
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the processor or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in NO_MEMORY)


def device_lost(error: BaseException) -> bool:
    """Whether an error says that a GPU does not work any more."""
    return isinstance(error, RuntimeError) and any(said in str(error) for said in DEVICE)


def out_of_memory(error: BaseException, engine: Engine, model_name: str) -> str:
    """Say what did not fit, and find out by trying what would.

    Parameters
    ----------
    error
        What was raised. The tensors that its frames hold are let go.
    engine
        Trains on smaller batches now: its weights are not to be used afterwards.
    model_name
        Its network, to be named.
    """
    traceback.clear_frames(error.__traceback__)
    size = engine.config.batch_size
    fitting = _largest_fitting(engine)
    remedy = (
        f"a batch of {fitting} fits, so start again with --batch-size {fitting}, or choose a "
        "smaller --model"
        if fitting
        else "not even a batch of 2 fits, so choose a smaller --model"
    )
    return f"out of memory with batch size {size} and model {model_name}: {remedy}"


def _largest_fitting(engine: Engine) -> int:
    """Half the batch size, or a quarter, and so on: the first that a step fits in; else 0."""
    size = min(engine.config.batch_size, len(engine.samples)) // 2
    while size > 1:
        gc.collect()
        if engine.device.type != "cpu":
            getattr(torch, engine.device.type).empty_cache()
        try:
            loss = engine.step(Batch(torch.arange(size, device=engine.device)), lr=0.0).loss
            # On a GPU the step has only been asked for until something of it is read.
            loss.item()
            return size
        except Exception as error:
            if not no_memory(error):
                return 0
            traceback.clear_frames(error.__traceback__)
        size //= 2
    return 0


def device_failed(error: BaseException, config: RunConfig, path: Path, epochs: int) -> str:
    """Say that the GPU is gone, and how to go on."""
    return (
        f"the GPU '{config.device}' does not answer any more ({_first_line(error)}): the record "
        f"'{path}' holds {epochs} epochs, resume it where the GPU works"
    )


def not_written(error: OSError, path: Path, epochs: int) -> str:
    """Say why a record cannot be written, and when to go on."""
    missing = error.filename if isinstance(error, FileNotFoundError) else None
    if missing is not None and Path(missing).is_relative_to(path):
        return (
            f"the record '{path}', or a part of it, was removed while it was being trained: "
            "start the run again, and leave its folder in place"
        )
    when = "there is room" if error.errno in NO_ROOM else "it can be written again"
    reason = error.strerror or type(error).__name__
    return (
        f"the record '{path}' cannot be written ({reason}): it holds {epochs} epochs; resume it "
        f"when {when}"
    )


@contextlib.contextmanager
def at_the_start(config: RunConfig, train: Dataset, device: torch.device) -> Iterator[None]:
    """Say in a sentence that data and network do not fit, or that there is no working GPU."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if no_memory(error):
            size = train.x.numel() * train.x.element_size() / 2**30
            raise RunError(
                f"out of memory while {len(train):,} samples of '{config.dataset_name}' "
                f"({size:.2g} GiB) and the model were put on {device}: lower --limit, or choose a "
                "smaller --model or another --device"
            ) from error
        if device_lost(error):
            raise RunError(
                f"the GPU '{device}' does not answer ({_first_line(error)}): choose another "
                "--device, or cpu"
            ) from error
        raise


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
