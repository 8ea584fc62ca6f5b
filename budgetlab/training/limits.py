"""What a run needs of memory and disk, known before it begins; and what is said where it fails.

A step on torch's ``meta`` device allocates nothing, and says how much it would have. What does
go wrong on the way is said in a sentence.
"""

import contextlib
import errno
import gc
import shutil
import traceback
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from budgetlab import samplers
from budgetlab.config import RunConfig
from budgetlab.data import Dataset, Splits
from budgetlab.errors import InputError, RunError
from budgetlab.history import History
from budgetlab.records.safety import available_memory
from budgetlab.samplers import Batch
from budgetlab.training.engine import Engine

__all__ = ["Needs", "PeakBytes", "at_the_start", "device_failed", "device_lost", "free_bytes",
           "no_memory", "not_written", "out_of_memory", "predict", "require_disk", "require_room",
           "step_bytes"]  # fmt: skip

META = torch.device("meta")
# On a processor, the step of a batch of fewer values is too small to be worth asking.
SMALL_BATCH = 2**19
# A weighted draw computes in float64: scores, shares, arrival times, and copies of them.
DRAW = 48
# A sample and epoch in a record: all seen, or 3 of 10 (benchmarks/results/speed/recording.csv).
RECORDED, FEWEST_RECORDED = 5.9, 3.5
# What torch says on the processor, and what the libraries of a GPU say, in plain RuntimeErrors.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
DEVICE = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS",
          "NCCL error", "HIP error", "NVML")  # fmt: skip
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made within the block, and the most held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if _is_tensor(t)}
        for tensor in filter(_is_tensor, tree_leaves(made)):
            storage = tensor.untyped_storage()
            # A view, or a tensor changed in place, holds nothing of its own.
            if id(storage) not in self._known | given:
                self._known.add(id(storage))
                self.held += storage.nbytes()
                weakref.finalize(storage, self._freed, id(storage), storage.nbytes())
        self.peak = max(self.peak, self.held)
        return made

    def _freed(self, known: int, count: int) -> None:
        self._known.discard(known)
        self.held -= count


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def step_bytes(
    config: RunConfig, model_name: str, samples: Dataset, precision: torch.dtype
) -> int | None:
    """Predict what network, optimiser and one step take, without taking any of it.

    What a library needs beside (workspaces, kernels, memory of graphs) is not in it, so that
    a run may need more, and hardly less.

    Returns
    -------
    int or None
        None for a network that cannot run without values.
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
            for _ in range(2):  # the first makes what the optimiser keeps
                batch = Batch(torch.zeros(config.batch_size, dtype=torch.int64, device=META))
                engine.step(batch, lr=0.0)
    except (RuntimeError, NotImplementedError, TypeError):
        return None
    states = 2 if config.optimiser == "adamw" else 1
    # Weights, gradients and states are float32; autocast keeps a copy of the weights beside.
    wider = 2 * weights * (1 + states + 1) if narrow else 0
    return counted.peak + 4 * weights + buffers + wider


def predict(
    config: RunConfig, model_name: str, splits: Splits, device: torch.device, precision: torch.dtype
) -> Needs:
    """Predict what a run needs on its device.

    On the processor the data is there already, and is not counted.
    """
    train = splits.train
    data = 0
    if device.type != "cpu":
        held = [s for s in (train, splits.test, splits.val) if s is not None]
        data = sum(t.numel() * t.element_size() for s in held for t in (s.x, s.y))
    history = vars(History(len(train), META)).values()
    kept = sum(t.numel() * t.element_size() for t in history if isinstance(t, Tensor))
    kept += DRAW * len(train)
    if getattr(samplers.lookup(config.method), "trajectory", False):
        # A second history, p_y and shift of each of its epochs, and the softmax before.
        epochs = config.proxy_share * config.budget * config.epochs
        kept += kept + int(len(train) * (8 * epochs + 4 * len(train.classes)))
    values = config.batch_size * train.x[:1].numel()
    asked = device.type != "cpu" or values > SMALL_BATCH
    step = step_bytes(config, model_name, train, precision) if asked else 0
    return Needs(data, kept, step or 0)


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be had on a device now; None where nothing says so."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory()


def require_room(
    config: RunConfig, model_name: str, splits: Splits, device: torch.device, precision: torch.dtype
) -> None:
    """Refuse a run that does not fit into memory, before anything is moved or written.

    Raises
    ------
    InputError
        If it needs more memory than is free on the device.
    """
    needs, free = predict(config, model_name, splits, device, precision), free_bytes(device)
    if free is not None and needs.total > free:
        data = f"{_size(needs.data)} for the data, " if needs.data else ""
        raise InputError(
            f"this run needs about {_size(needs.total)} of memory on {device} ({data}"
            f"{_size(needs.history)} for what is kept of {len(splits.train):,} samples, "
            f"{_size(needs.step)} for a step of model {model_name} on {config.batch_size:,}), and "
            f"{_size(free)} is free: lower --batch-size or --limit, or choose a smaller --model or "
            "another --device"
        )


def require_disk(config: RunConfig, size: int) -> None:
    """Refuse a run of ``size`` samples whose record the disk has no room for.

    Raises
    ------
    InputError
        If what is recorded of each sample takes more than is free where ``out`` lies.
    """
    total, _, room = shutil.disk_usage(_existing(Path(config.out)))
    share = min(config.budget + 0.2, 1.0) * RECORDED
    record = int(size * config.epochs * max(share, FEWEST_RECORDED))
    if record > room and total:  # /proc and the like have no size, and say why themselves
        raise InputError(
            f"the record of {config.epochs:,} epochs of {size:,} samples takes about "
            f"{_size(record)}, and '{config.out}' has room for {_size(room)}: lower --epochs or "
            "--limit, or give another --out"
        )


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest above that is there."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**27 else f"{count / 2**20:.3g} MiB"


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

    The engine trains on smaller batches now: its weights are not to be used afterwards.
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
