"""Benchmark single operations against libraries: draws (numpy), augmentations (torchvision)."""

import resource
import sys
from collections.abc import Callable

import numpy as np
import torch
from torchvision.transforms import v2

from benchmarks.speed.measure import (
    BATCH,
    Row,
    alternate,
    bare_steps,
    compared,
    make_loop,
    random_images,
    row,
)
from budgetlab import augment
from budgetlab.devices import choose_device, keep_freed_memory
from budgetlab.samplers import draw_without_replacement

__all__ = ["augmenting", "drawing"]

SIZES = {10**4: 60, 10**5: 20, 10**6: 8, 10**7: 3}
SHARE = 0.3


def drawing(sizes: dict[int, int] = SIZES) -> list[Row]:
    """Time weighted draws of 30% of N, as in p-SGD; ``sizes`` maps N to the number of rounds."""
    device = choose_device("auto")
    if device.type == "cpu":
        keep_freed_memory()  # as every run does; numpy gains by it too
    generator = torch.Generator(device).manual_seed(0)
    rng = np.random.default_rng(0)
    rows, ours, grown = [], {}, {}
    for size, rounds in sizes.items():
        scores = rng.beta(0.5, 1.0, size)
        q = (scores + scores.mean()) / (2 * scores.sum())
        q /= q.sum()
        weights, count = torch.from_numpy(q).to(device), int(SHARE * size)
        before = _peak_bytes()
        draw_without_replacement(weights, count, generator)
        grown[size] = max(_peak_bytes() - before, 1)

        def draw(weights=weights, count=count) -> object:
            return draw_without_replacement(weights, count, generator)

        def choose(size=size, count=count, q=q) -> object:
            return rng.choice(size, count, replace=False, p=q)

        # numpy takes seconds at ten million: few rounds are enough.
        seconds = alternate({"ours": draw, "numpy": choose}, rounds, device)
        ours[size] = min(seconds["ours"])
        target = ">= 3" if size == 10**6 else ""
        ratio = compared(seconds["numpy"], seconds["ours"])
        rows += [
            row("drawing", f"N = {size:,}: ours", [1000 * s for s in seconds["ours"]], "ms"),
            row("drawing", f"N = {size:,}: numpy", [1000 * s for s in seconds["numpy"]], "ms"),
            row("drawing", f"N = {size:,}: times as fast as numpy", ratio, "ratio", target),
        ]
    rows.append(row("drawing", "time: slope of log time over log N", [_slope(ours)], "slope"))
    largest = max(sizes)
    rows.append(row("drawing", f"N = {largest:,}: memory of a draw",
                    [grown[largest] / largest], "bytes an index", "<= 64"))  # fmt: skip
    return rows


def _slope(by_size: dict[int, float]) -> float:
    """Return the exponent of growth with N (1: linear, 2: quadratic), without the smallest N."""
    sizes = sorted(by_size)[1:]
    return float(np.polyfit(np.log(sizes), np.log([by_size[size] for size in sizes]), 1)[0])


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


SIDE, CLASSES = 32, 10

# Network whose step is the reference, and target for the share of it spent on augmentation.
STEPS = {"cpu": ("small", "<= 0.2"), "cuda": ("resnet18", "<= 0.03")}
STEPS_AT_A_TIME = {"cpu": 3, "cuda": 20}


def augmenting(rounds: int = 8) -> list[Row]:
    """Time augmenting a batch of 128 images of 32x32, on the CPU and, if present, a GPU."""
    devices = [torch.device("cpu")]
    if choose_device("auto").type == "cuda":
        devices.append(choose_device("auto"))
    return [each for device in devices for each in _on(device, rounds)]


def _on(device: torch.device, rounds: int) -> list[Row]:
    generator = torch.Generator(device).manual_seed(0)
    shape = (BATCH, 3, SIDE, SIDE)
    images = torch.randint(256, shape, generator=generator, device=device, dtype=torch.uint8)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator, device=device)
    model, most = STEPS[device.type]
    indices = torch.arange(BATCH, device=device)

    def steps_under(name: str) -> Callable[[], object]:
        loop = make_loop(random_images(BATCH, SIDE), model, device.type, augmentation=name)
        bare = bare_steps(loop)
        return lambda: [bare(indices) for _ in range(STEPS_AT_A_TIME[device.type])]

    step = steps_under("none")
    others, rows = _torchvision(), []
    for name in augment.names():
        ours = augment.build(name)
        # Ten batches at a time: a single one is too short to time well.
        work = {"ours": lambda ours=ours: [ours(images, generator) for _ in range(10)]}
        if name in others:
            work["torchvision"] = _one_by_one(*others[name], images, labels)
        seconds = alternate(work, rounds, device)
        rate = [10 * BATCH / s for s in seconds["ours"]]
        rows.append(row("augmenting", f"{name} on {device.type}", rate, "images/s"))
        # Timed separately from the above: a step fills the caches with other data.
        if device.type == "cuda":  # augmentation is part of a captured step
            taken = alternate({"ours": steps_under(name), "step": step}, rounds, device)
            share = [ratio - 1 for ratio in compared(taken["ours"], taken["step"])]
        else:
            taken = alternate({"ours": work["ours"], "step": step}, rounds, device)
            share = compared([s / 10 for s in taken["ours"]], [s / 3 for s in taken["step"]])
        what = f"{name} on {device.type}: share of a step of {model}"
        rows.append(row("augmenting", what, share, "of a step", most))
        if name in others:
            ratio = compared([10 * s for s in seconds["torchvision"]], seconds["ours"])
            what = f"{name} on {device.type}: times as fast as torchvision"
            rows.append(row("augmenting", what, ratio, "ratio"))
    return rows


def _torchvision() -> dict[str, tuple[v2.Transform, v2.Transform | None]]:
    """Return by name the transform of an image, and that of the batch, if any."""
    crop, flip = v2.RandomCrop(SIDE, padding=4), v2.RandomHorizontalFlip()
    standard = v2.Compose([crop, flip])
    # 31 bins from 0 to 30, so that 4 stands for M = 4.
    operations = v2.RandAugment(num_ops=2, magnitude=4, num_magnitude_bins=31)
    hide = v2.RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1), value=114)
    return {
        "standard": (standard, None),
        "mixup": (
            v2.Compose([standard, v2.ToDtype(torch.float32)]),
            v2.MixUp(alpha=0.3, num_classes=CLASSES),
        ),
        "cutmix": (standard, v2.CutMix(alpha=0.3, num_classes=CLASSES)),
        "randaugment": (v2.Compose([operations, crop, flip]), None),
        "cutout": (v2.Compose([crop, flip, hide]), None),
    }


def _one_by_one(
    each: v2.Transform, whole: v2.Transform | None, images: torch.Tensor, labels: torch.Tensor
) -> Callable[[], object]:
    """Apply torchvision image by image, so that each gets its own random draw."""

    def work() -> None:
        batch = torch.stack([each(image) for image in images])
        if whole is not None:
            whole(batch, labels)

    return work
