"""Benchmark a training step against a conventional loop and the device's peak."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from benchmarks.speed.conventional import ApartLoop
from benchmarks.speed.measure import (
    BATCH,
    Row,
    alternate,
    bare_steps,
    compared,
    epoch_seconds,
    make_loop,
    matrix_product,
    random_images,
    row,
    scratch,
    writer_for,
)
from budgetlab.devices import choose_device

__all__ = ["step"]

# Steps per measurement, rounds, target: about a minute for each network on two cores.
CPU = {"small": (16, 8, "5"), "resnet18": (2, 4, "3")}
# On a GPU: batch size, and target for ResNet-18 as a share of a matrix product's speed.
GPU = {128: "0.3", 512: "0.45"}
GPU_NETWORKS = ("resnet18", "small", "compact")
# Dense bfloat16 operations per second by the maker's data sheet; other H100s have fewer.
PEAK = {"H100 80GB HBM3": 989e12, "H200": 989e12, "A100": 312e12}


def step(
    cpu: dict[str, tuple[int, int, str]] = CPU,
    *,
    batch: int = BATCH,
    core: tuple[int, int] = (8, 8),
) -> Iterator[Row]:
    """Time whole loops on CIFAR-sized images, including recording and importance.

    Parameters
    ----------
    cpu
        On a CPU: steps per measurement, rounds, and target, by network.
    batch
        Images per step on a CPU.
    core
        For the compact network on one core: batches of 32 per epoch, and rounds.
    """
    device = choose_device("auto")
    if device.type == "cuda":
        for model in GPU_NETWORKS:
            for batch_size, share in GPU.items():
                yield from on_gpu(model, batch_size, device, share)
        return
    for model, (steps, rounds, target) in cpu.items():
        yield from _of_network(model, steps, rounds, target, device, batch)
    yield from _on_one_core(*core)


def _of_network(
    model: str, steps: int, rounds: int, target: str, device: torch.device, batch: int
) -> list[Row]:
    loop = make_loop(random_images(batch * steps), model, batch_size=batch)
    product, operations = matrix_product(device, loop.engine.precision)
    with ApartLoop(batch * steps, model, device, batch) as usual:
        seconds = alternate(
            {
                "usual": lambda: usual.timed(steps),
                "ours": lambda: epoch_seconds(loop),
                "product": product,
            },
            rounds,
            device,
        )
    flops = batch * loop.engine.costs.forward_backward
    return _rows(model, seconds, batch, flops, operations, f">= {target}", ">= 0.7")


def _rows(
    name: str, seconds: dict[str, list[float]], batch: int, flops: float, operations: float,
    times: str = "", share: str = "",
) -> list[Row]:  # fmt: skip
    """Compare a loop with the conventional one and a matrix product timed in the same rounds."""
    ours = seconds["ours"]
    reached = [flops / s for s in ours]
    possible = [operations / s for s in seconds["product"]]
    part, beside = compared(reached, possible), []
    if usual := seconds.get("usual"):
        what = f"{name}: times as fast as the usual loop"
        beside = [
            row("step", f"{name}: usual loop", [1000 * s for s in usual], "ms"),
            row("step", what, compared(usual, ours), "ratio", times),
        ]
    return [
        row("step", f"{name}: ours", [1000 * s for s in ours], "ms"),
        *beside,
        row("step", f"{name}: images", [batch / s for s in ours], "1/s"),
        row("step", f"{name}: rate", [f / 1e9 for f in reached], "GFLOP/s"),
        row("step", f"{name}: matrix product", [f / 1e9 for f in possible], "GFLOP/s"),
        row("step", f"{name}: share of a matrix product", part, "share", share),
    ]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _on_one_core(steps: int, rounds: int, batch: int = 32) -> list[Row]:
    """Time the scale model's network as trained there against a conventional loop on one core.

    Epochs are p-SGD's, with history updates and recording. The conventional loop loads images in
    its own process, as workers would use another core.
    """
    device = torch.device("cpu")
    samples = random_images(batch * steps)
    with _threads(1), scratch() as folder, ApartLoop(
        len(samples), "compact", device, batch, workers=0
    ) as usual:  # fmt: skip
        loop = make_loop(samples, "compact", "cpu", method="p-SGD", batch_size=batch)
        writer = writer_for(loop, Path(folder), samples)

        def epoch() -> None:
            loop.train_epoch(loop.history.epoch + 1)
            writer.append_epoch({"epoch": loop.history.epoch}, loop.epoch_arrays())

        product, operations = matrix_product(device, loop.engine.precision)
        work = {"usual": lambda: usual.timed(steps), "ours": epoch, "product": product}
        seconds = alternate(work, rounds)
    seconds["ours"] = [s / steps for s in seconds["ours"]]
    flops = batch * loop.engine.costs.forward_backward
    name = "compact on one core, with importance and recording"
    return _rows(name, seconds, batch, flops, operations, ">= 4", ">= 0.75")


def on_gpu(
    model: str,
    batch: int,
    device: torch.device,
    share: str = "",
    *,
    steps: int = 40,
    usual_steps: int = 8,
    rounds: int = 5,
    side: int = 4096,
) -> list[Row]:
    """Time p-SGD with and without graphs, a conventional loop, a bare step, a matrix product.

    Parameters
    ----------
    share
        Target as a share of the matrix product's speed, for ResNet-18.
    steps, usual_steps, rounds
        Steps per measurement, of ours and of the conventional loop, and repetitions.
    side
        Side of the square matrices.
    """
    samples = random_images(batch * steps)
    # At the rate of a budget of 1 all samples are drawn, so that every epoch has all steps.
    graphed = make_loop(samples, model, device.type, batch_size=batch, method="p-SGD")
    epoch_seconds(graphed)
    plain = make_loop(samples, model, device.type, batch_size=batch, method="p-SGD")
    plain.graphs = None
    step = bare_steps(graphed)
    indices = torch.arange(batch, device=device)
    product, operations = matrix_product(device, graphed.engine.precision, side=side)

    def bare() -> None:
        for _ in range(steps):
            step(indices)

    work: dict[str, Callable[[], object]] = {
        "ours": lambda: epoch_seconds(graphed),
        "plain": lambda: epoch_seconds(plain),
        "bare": bare,
        "product": product,
    }
    with ExitStack() as stack:
        if batch == BATCH:  # its processes take half a minute to start
            loop = ApartLoop(max(usual_steps, 4) * batch, model, device, batch)
            usual = stack.enter_context(loop)
            work["usual"] = lambda: usual.timed(usual_steps)
        seconds = alternate(work, rounds, device)
    seconds["bare"] = [s / steps for s in seconds["bare"]]
    flops = batch * graphed.engine.costs.forward_backward
    name = f"{model}, batch {batch}"
    important = model == "resnet18"
    rows = _rows(name, seconds, batch, flops, operations,
                 ">= 10" if important and batch == BATCH else "",
                 f">= {share}" if important and share else "")  # fmt: skip
    added = [ours / bare - 1 for ours, bare in zip(seconds["ours"], seconds["bare"], strict=True)]
    gain = compared(seconds["plain"], seconds["ours"])
    used = bool(graphed.graphs and graphed.graphs.in_use)
    rows += [
        row("step", f"{name}: ours without graphs", [1000 * s for s in seconds["plain"]], "ms"),
        row("step", f"{name}: gain by graphs", gain, "ratio"),
        row("step", f"{name}: graph in use", [float(used)], "0 or 1"),
        row("step", f"{name}: bare step", [1000 * s for s in seconds["bare"]], "ms"),
        row("step", f"{name}: importance", added, "of a step", "<= 0.02" if important else ""),
    ]
    return rows + _of_the_peak(name, device, [flops / s for s in seconds["ours"]])


def _of_the_peak(name: str, device: torch.device, reached: list[float]) -> list[Row]:
    """Return the model FLOPs utilisation: the share of the data sheet's peak."""
    if device.type != "cuda":
        return []
    card = torch.cuda.get_device_name(device)
    peak = next((flops for known, flops in PEAK.items() if known in card), None)
    if peak is None:
        return []
    return [row("step", f"{name}: share of the peak (MFU)", [f / peak for f in reached], "share")]
