"""Which device and number format to train with."""

import os
import platform
import re
from pathlib import Path

import torch

from budgetlab.errors import InputError

__all__ = ["choose_device", "choose_precision", "describe_hardware"]


def choose_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` to a device that is there.

    Raises
    ------
    InputError
        If the device is unknown or missing.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    if not re.fullmatch("cpu|cuda|cuda:(0|[1-9][0-9]{0,3})", name):
        raise InputError(f"unknown device '{name}': choose one of auto, cpu, cuda, cuda:N")
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= count:
        raise InputError(f"device '{name}' is not there ({count} found): choose auto or cpu")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``auto`` to bfloat16 where the hardware computes in it, else float32."""
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = _processor("flags", "Features").split()
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def _processor(*fields: str) -> str:
    """What Linux says of the processor under one of these names; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    said = (line.partition(":") for line in lines)
    return next((text.strip() for name, _, text in said if name.strip() in fields), "")


def describe_hardware(device: torch.device, precision: torch.dtype) -> dict[str, str | int]:
    """Return what a record says about the machine."""
    on_gpu = device.type == "cuda"
    return {
        "device": str(device),
        "name": torch.cuda.get_device_name(device)
        if on_gpu
        else (_processor("model name") or platform.processor()),
        "precision": str(precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count() or 0,
    }
