"""A training step against the usual loop's, and against what the processor can do."""

import torch

from benchmarks.speed.apart import ApartLoop
from benchmarks.speed.measure import Row, alternate, compared, row
from benchmarks.speed.work import BATCH, epoch_seconds, make_loop, matrix_product, random_images
from budgetlab.devices import choose_device

__all__ = ["measure"]

# Steps timed at a time, and rounds: about a minute for each network on two cores.
CPU = {"small": (16, 8, "5"), "resnet18": (2, 4, "3")}
GPU = {"small": (200, 8, "10"), "resnet18": (60, 8, "10")}


def measure() -> list[Row]:
    """Time the small network and ResNet-18 on CIFAR-sized images, whole loops at batch 128."""
    device = choose_device("auto")
    rows = []
    for model, (steps, rounds, target) in (GPU if device.type == "cuda" else CPU).items():
        rows += _of_network(model, steps, rounds, target, device)
    if device.type == "cuda":
        rows += _large_batch(device)
    return rows


def _of_network(
    model: str, steps: int, rounds: int, target: str, device: torch.device
) -> list[Row]:
    loop = make_loop(random_images(BATCH * steps), model)
    product, operations = matrix_product(device, loop.engine.precision)
    with ApartLoop(BATCH * steps, model, device, BATCH) as usual:
        seconds = alternate(
            {
                "usual": lambda: usual.timed(steps),
                "ours": lambda: epoch_seconds(loop),
                "product": product,
            },
            rounds,
            device,
        )
    ratio = compared(seconds["usual"], seconds["ours"])
    flops = BATCH * loop.engine.costs.forward_backward
    reached = [flops / s for s in seconds["ours"]]
    possible = [operations / s for s in seconds["product"]]
    share = compared(reached, possible)
    wanted = "0.3" if device.type == "cuda" else "0.7"
    rate = [BATCH / s for s in seconds["ours"]]
    return [
        row("step", f"{model}: ours", [1000 * s for s in seconds["ours"]], "ms"),
        row("step", f"{model}: usual loop", [1000 * s for s in seconds["usual"]], "ms"),
        row("step", f"{model}: times as fast as the usual loop", ratio, "ratio", f">= {target}"),
        row("step", f"{model}: images", rate, "1/s"),
        row("step", f"{model}: rate", [f / 1e9 for f in reached], "GFLOP/s"),
        row("step", f"{model}: matrix product", [f / 1e9 for f in possible], "GFLOP/s"),
        row("step", f"{model}: share of a matrix product", share, "share", f">= {wanted}"),
    ]


def _large_batch(device: torch.device) -> list[Row]:
    """ResNet-18 at batch 512, on a GPU."""
    samples = random_images(512 * 20)
    loop = make_loop(samples, "resnet18", batch_size=512)
    product, operations = matrix_product(device, loop.engine.precision, side=4096)
    work = {"ours": lambda: epoch_seconds(loop), "product": product}
    seconds = alternate(work, 8, device)
    flops = 512 * loop.engine.costs.forward_backward
    reached = [flops / s for s in seconds["ours"]]
    share = compared(reached, [operations / s for s in seconds["product"]])
    return [
        row("step", "resnet18, batch 512: images", [512 / s for s in seconds["ours"]], "1/s"),
        row("step", "resnet18, batch 512: share of a matrix product", share, "share", ">= 0.45"),
    ]
