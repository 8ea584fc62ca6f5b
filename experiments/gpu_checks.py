"""Checks of a GPU session before it trains: images, determinism, idle gaps and speed bounds.

Each is a command that the session starts and may stop: python -m experiments.gpu_checks NAME.
"""

import argparse
import itertools
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.autograd import DeviceType

from benchmarks.speed.measure import (
    alternate,
    bare_steps,
    epoch_seconds,
    make_loop,
    random_images,
)
from budgetlab.data import load as load_data
from budgetlab.devices import choose_device
from budgetlab.errors import InputError
from budgetlab.records import write_atomically
from budgetlab.training.engine import Engine
from budgetlab.training.loop import Loop

__all__ = ["bounds", "dataset_of", "determinism", "images", "profile"]

NETWORKS = ("resnet18", "small", "compact")
# They cover a lifetime mean, a mixture of four images and a sampler with its own forward pass.
TRIED = {"p-SGD": "ricap", "selective-backprop": "standard"}


def dataset_of(given: Path, out: Path) -> str:
    """Return the data set name of a folder, or of an archive as unpacked by :func:`images`."""
    if given.is_dir():
        return f"folder:{given.resolve()}"
    return f"folder:{(out / 'images' / given.name.split('.')[0]).resolve()}"


def images(given: Path, out: Path) -> str:
    """Unpack the images, if archived, decode them, and report their number.

    Parameters
    ----------
    given
        Folder as read by :mod:`budgetlab.data.folder`, or a tar archive of one.
    out
        Folder of the session.
    """
    if not given.exists():
        raise InputError(f"there is no '{given}': give a folder of images or a tar archive of one")
    target = Path(dataset_of(given, out).partition(":")[2])
    if not target.is_dir():
        _unpack(given, target)
    name, root = dataset_of(given, out), out / "data"
    splits = load_data(name, root=root, progress=False)
    return f"{len(splits.train):,} training and {len(splits.test):,} test images"


def _unpack(archive: Path, target: Path) -> None:
    """Unpack an archive, or the single folder in it, to the target, atomically."""
    if not tarfile.is_tarfile(archive):
        raise InputError(f"'{archive}' is no tar archive: give one, or a folder of images")
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(".*"):
        shutil.rmtree(leftover)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix="."))
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    inside = list(folder.iterdir())
    whole = inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
    whole.rename(target)
    shutil.rmtree(folder, ignore_errors=True)


def _looped(model: str, graphs: bool, batch: int, steps: int, **settings: object) -> Loop:
    """Return a loop after two epochs, with graphs (where they pay) or without."""
    loop = make_loop(random_images(batch * steps), model, batch_size=batch, **settings)
    loop.graphs = loop.graphs if graphs else None
    for _ in range(2):
        epoch_seconds(loop)
    return loop


def _left(loop: Loop) -> dict[str, np.ndarray]:
    """Return the state after training: weights and per-sample arrays."""
    weights = {
        name: value.cpu().numpy() for name, value in loop.engine.network.state_dict().items()
    }
    return weights | loop.epoch_arrays()


def determinism(
    out: Path, models: Sequence[str] = NETWORKS, steps: int = 30, batch: int = 128
) -> str:
    """Train twice with the same seed, compare bit for bit, and write ``determinism.csv``."""
    rows: list[dict[str, object]] = []
    for model in models:
        for method, augmentation in TRIED.items():
            for graphs in (True, False):
                settings = {"method": method, "augmentation": augmentation, "budget": 0.5}
                one, two = (_looped(model, graphs, batch, steps, **settings) for _ in range(2))
                rows.append(
                    {"model": model, "method": method, "augmentation": augmentation,
                     "graphs": graphs, "graph_in_use": bool(one.graphs and one.graphs.in_use),
                     "device": str(one.device), "precision": str(one.engine.precision),
                     "steps": one.ledger.steps, **_compared(_left(one), _left(two))}
                )  # fmt: skip
                text = pd.DataFrame(rows).to_csv(index=False)
                write_atomically(out / "determinism.csv", text.encode())
    same = sum(bool(row["same"]) for row in rows)
    return f"{same} of {len(rows)} pairs of runs of the same seed are the same bit for bit"


def _compared(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> dict[str, object]:
    """Return whether all arrays are equal, how many differ, and the largest difference."""
    differ = [name for name in one if not np.array_equal(one[name], two[name], equal_nan=True)]
    apart = [np.abs(one[name].astype(float) - two[name].astype(float)) for name in differ]
    largest = max((float(np.nanmax(values)) for values in apart), default=0.0)
    return {"same": not differ, "arrays": len(one), "differ": len(differ), "largest": largest}


def profile(out: Path, models: Sequence[str] = NETWORKS, steps: int = 20, batch: int = 128) -> str:
    """Profile steps of p-SGD by operation, with the GPU's busy time, into ``profile.txt``."""
    texts, busy = [], []
    on_gpu = choose_device("auto").type == "cuda"
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    for model in models:
        for graphs in (True, False):
            loop = _looped(model, graphs, batch, steps, method="p-SGD")
            with torch.profiler.profile() as profiler:
                begun = time.perf_counter()
                epoch_seconds(loop)
                wall = time.perf_counter() - begun
            averages = profiler.key_averages()
            # Kernel time is listed twice, under operations and kernels: count kernels only.
            kernels = sum(event.self_device_time_total for event in averages
                          if event.device_type != DeviceType.CPU)  # fmt: skip
            share = kernels / 1e6 / wall
            head = f"{model}, batch {batch}, {'with' if graphs else 'without'} graphs: "
            head += f"{steps} steps in {1000 * wall:.1f} ms"
            head += f", kernels ran for {share:.0%} of it" if on_gpu else ""
            texts.append(f"{head}\n{averages.table(sort_by=order, row_limit=25)}\n")
            busy.append(f"{model} {share:.0%}" if graphs else f"{share:.0%} without")
            write_atomically(out / "profile.txt", "\n".join(texts).encode())
    return f"the GPU had work, under the profiler: {', '.join(busy)}" if on_gpu else "no GPU"


def _as_it_is(engine: Engine) -> None:
    pass


def _compiled(engine: Engine) -> None:
    engine.network.compile()


def _without_norm(engine: Engine) -> None:
    for module in list(engine.network.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.Identity())


VARIANTS = {"as it is": _as_it_is, "torch.compile": _compiled, "without batch norm": _without_norm}


def bounds(
    out: Path, models: Sequence[str] = NETWORKS[:1], batches: Sequence[int] = (128, 512),
    steps: int = 30, variants: Sequence[str] = tuple(VARIANTS),
) -> str:  # fmt: skip
    """Time bare steps as lower bounds for any loop (median of 5 rounds), into ``bounds.csv``."""
    rows: list[dict[str, object]] = []
    for model, batch, what in itertools.product(models, batches, variants):
        loop = make_loop(random_images(batch), model, batch_size=batch)
        VARIANTS[what](loop.engine)
        step, indices = bare_steps(loop), torch.arange(batch, device=loop.device)
        work = {what: lambda step=step, own=indices: [step(own) for _ in range(steps)]}
        taken = statistics.median(alternate(work, 5, loop.device)[what]) / steps
        rows.append({"model": model, "batch": batch, "what": what, "bare_step_ms": 1000 * taken})
        write_atomically(out / "bounds.csv", pd.DataFrame(rows).to_csv(index=False).encode())
    return ", ".join(f"{row['what']} {row['bare_step_ms']:.3g} ms" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("images", "determinism", "profile", "bounds"))
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    toy = {"models": ["tiny"], "steps": 16, "batch": 8} if given.toy else {}
    if given.toy and given.name == "bounds":  # compiling takes half a minute
        toy = {"models": ["tiny"], "steps": 2, "batches": [8],
               "variants": ["as it is", "without batch norm"]}  # fmt: skip
    if given.name == "images":
        print(images(given.images, given.out))
    else:
        print(
            {"determinism": determinism, "profile": profile, "bounds": bounds}[given.name](
                given.out, **toy
            )
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"gpu_checks: {error}")
