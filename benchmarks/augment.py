"""How long augmenting a batch takes: ours, torchvision image by image, a training step.

    python benchmarks/augment.py [--device cpu] [--repeats 100] [--threads 2]

Of n repeats each row shows the fastest, the median and the middle half (first to third
quartile). Speeds, shares and ratios are of the fastest, which other work on the machine
disturbs least; a median far above it says that the machine was busy.

torchvision's transforms draw once for a whole batch, so to give each image its own draw
they are called image by image, as a data loader does; MixUp and CutMix are applied to the
batch that comes out. torchvision has no RICAP, and 14 operations in its RandAugment where
ours has 16. A training step is a forward, a backward and an update of the small network,
without augmentation.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from budgetlab import augment, devices, models

CLASSES = 10


def milliseconds(function: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Time ``repeats`` calls, each to its end on the device, after some to warm up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(min(10, repeats)):
        function()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        function()
        wait()
        times.append(1000 * (time.perf_counter() - start))
    return times


def torchvision_transforms(side: int) -> dict[str, tuple[v2.Transform, v2.Transform | None]]:
    """For each name: what is done to an image, and then to the batch."""
    crop, flip = v2.RandomCrop(side, padding=4), v2.RandomHorizontalFlip()
    standard = v2.Compose([crop, flip])
    # 31 bins from 0 to 30, so that 4 stands for M = 4.
    random_operations = v2.RandAugment(num_ops=2, magnitude=4, num_magnitude_bins=31)
    hide = v2.RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1), value=114)
    return {
        "standard": (standard, None),
        "mixup": (
            v2.Compose([standard, v2.ToDtype(torch.float32)]),
            v2.MixUp(alpha=0.3, num_classes=CLASSES),
        ),
        "cutmix": (standard, v2.CutMix(alpha=0.3, num_classes=CLASSES)),
        "randaugment": (v2.Compose([random_operations, crop, flip]), None),
        "cutout": (v2.Compose([crop, flip, hide]), None),
    }


def training_step(images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """Make a step of the small network in the precision that suits the device."""
    device = images.device
    precision = devices.choose_precision("auto", device)
    network = models.build("small", tuple(images.shape[1:]), CLASSES)
    network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=1e-4, fused=True)

    def step() -> None:
        inputs = (images / 255 - 0.5).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            logits = network(inputs)
        F.cross_entropy(logits.float(), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def summary(times: list[float]) -> str:
    """Return fastest, median, and first to third quartile, in three columns."""
    low, middle, high = statistics.quantiles(times, n=4)
    return f"{min(times):>9.3f} {middle:>9.3f} {f'{low:.2f} to {high:.2f}':>17}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--repeats", type=int, default=100, help="timed calls of ours")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, help="of the CPU; torch's choice if not given")
    parser.add_argument("--side", type=int, default=32, help="pixels")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error(f"--repeats {options.repeats} gives no spread: at least 2 are needed")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = devices.choose_device(options.device)
    count, side = options.batch_size, options.side

    generator = torch.Generator(device).manual_seed(0)
    shape = (count, 3, side, side)
    images = torch.randint(
        0, 256, shape, generator=generator, device=device, dtype=torch.uint8
    ).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (count,), generator=generator, device=device)
    step = milliseconds(training_step(images, labels), options.repeats, device)
    hardware = devices.describe_hardware(device, devices.choose_precision("auto", device))
    print(f"{hardware['name']}, {hardware['threads']} threads, torch {torch.__version__}")
    print(f"batch of {count} images of {side}x{side}, n = {options.repeats}\n")
    print(
        f"{'':<13}{'fastest':>9} {'median':>9} {'middle half':>17} {'images/s':>12} "
        f"{'of a step':>9} {'torchvision':>12} {'n':>4} {'ratio':>6}"
    )
    print(f"{'step, ms':<13}{summary(step)}   (small network, {hardware['precision']})")

    others = torchvision_transforms(side)
    few = max(2, options.repeats // 10)
    for name in augment.names():
        built = augment.build(name)
        ours = milliseconds(lambda built=built: built(images, generator), options.repeats, device)
        fastest = min(ours)
        row = (
            f"{name:<13}{summary(ours)} {1000 * count / fastest:>12,.0f} "
            f"{fastest / min(step):>9.1%}"
        )
        if name in others:
            each, whole = others[name]

            def one_by_one(each=each, whole=whole) -> None:
                batch = torch.stack([each(image) for image in images])
                if whole is not None:
                    whole(batch, labels)

            theirs = min(milliseconds(one_by_one, few, device))
            row += f" {theirs:>9.1f} ms {few:>4} {theirs / fastest:>5.0f}x"
        print(row)


if __name__ == "__main__":
    main()
