"""Drawing without replacement against ``numpy.random.choice``, and how it grows with N."""

import resource
import sys

import numpy as np
import torch

from benchmarks.speed.measure import Row, alternate, compared, row
from budgetlab.devices import choose_device
from budgetlab.samplers import draw_without_replacement
from budgetlab.training.allocation import keep_freed_memory

__all__ = ["measure"]

SIZES = {10**4: 60, 10**5: 20, 10**6: 8, 10**7: 3}
SHARE = 0.3


def measure() -> list[Row]:
    """Draw 30% of N by weights like those of p-SGD."""
    device = choose_device("auto")
    if device.type == "cpu":
        keep_freed_memory()  # as every run does; numpy gains by it too
    generator = torch.Generator(device).manual_seed(0)
    rng = np.random.default_rng(0)
    rows, ours, grown = [], {}, {}
    for size, rounds in SIZES.items():
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

        # numpy takes seconds at ten million: once is enough to see it.
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
    largest = max(SIZES)
    rows.append(row("drawing", f"N = {largest:,}: memory of a draw",
                    [grown[largest] / largest], "bytes an index", "<= 64"))  # fmt: skip
    return rows


def _slope(by_size: dict[int, float]) -> float:
    """1 where a thing grows as N, 2 where it grows as its square; above 10^4."""
    sizes = [size for size in by_size if size > 10**4]
    return float(np.polyfit(np.log(sizes), np.log([by_size[size] for size in sizes]), 1)[0])


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
