"""Images a second of each augmentation, against torchvision's image by image and a step."""

from collections.abc import Callable

import torch
from torchvision.transforms import v2

from benchmarks.speed.measure import Row, alternate, compared, row
from benchmarks.speed.work import BATCH, bare_step, make_loop, random_images
from budgetlab import augment
from budgetlab.devices import choose_device

__all__ = ["measure"]

SIDE, CLASSES = 32, 10

# The network whose step is compared with, and the share of it that may be spent on images.
STEPS = {"cpu": ("small", "<= 0.2"), "cuda": ("resnet18", "<= 0.03")}


def measure(rounds: int = 8) -> list[Row]:
    """Augment a batch of 128 images of 32x32, on the CPU and on a GPU if there is one."""
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
    loop = make_loop(random_images(BATCH, SIDE), model, device.type, augmentation="none")
    indices = torch.arange(BATCH, device=device)
    others, rows = _torchvision(), []
    for name in augment.names():
        ours = augment.build(name)
        # Ten batches at a time, because one takes less than the clock can tell well.
        work = {"ours": lambda ours=ours: [ours(images, generator) for _ in range(10)]}
        if name in others:
            work["torchvision"] = _one_by_one(*others[name], images, labels)
        seconds = alternate(work, rounds, device)
        rate = [10 * BATCH / s for s in seconds["ours"]]
        rows.append(row("augmenting", f"{name} on {device.type}", rate, "images/s"))
        # Apart from the above: a step leaves the caches full of other things.
        beside = {
            "ours": work["ours"],
            "step": lambda: [bare_step(loop, indices) for _ in range(3)],
        }
        taken = alternate(beside, rounds, device)
        share = compared([s / 10 for s in taken["ours"]], [s / 3 for s in taken["step"]])
        what = f"{name} on {device.type}: share of a step of {model}"
        rows.append(row("augmenting", what, share, "of a step", most))
        if name in others:
            ratio = compared([10 * s for s in seconds["torchvision"]], seconds["ours"])
            what = f"{name} on {device.type}: times as fast as torchvision"
            rows.append(row("augmenting", what, ratio, "ratio"))
    return rows


def _torchvision() -> dict[str, tuple[v2.Transform, v2.Transform | None]]:
    """For each name: what is done to an image, and then to the batch."""
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
    """Call torchvision image by image, which is how each gets a draw of its own."""

    def work() -> None:
        batch = torch.stack([each(image) for image in images])
        if whole is not None:
            whole(batch, labels)

    return work
