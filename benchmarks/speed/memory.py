"""Peak memory of a run with full recording, in a process of its own."""

import json
import subprocess
import sys

from benchmarks.speed.measure import Row, row
from benchmarks.speed.work import scratch

__all__ = ["measure"]

# Memory after every epoch, and the highest at the end.
TRAIN = """
import json, resource, sys
import torch
import budgetlab as bl
from budgetlab.training import Run
unit = 1 if sys.platform == "darwin" else 1024
on_gpu = torch.cuda.is_available()
settings = json.loads(sys.argv[1])
run = Run(bl.RunConfig(**settings))
after = []
for row in run:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    after.append(torch.cuda.max_memory_allocated() if on_gpu else peak)
print(json.dumps({"after": after, "on_gpu": on_gpu}))
"""


def measure() -> list[Row]:
    """Train the default network of the device on ``shapes``, and watch the peak by epoch."""
    with scratch() as folder:
        settings = {"dataset": "shapes", "method": "p-SGD", "budget": 0.2, "epochs": 12,
                    "data_root": f"{folder}/data", "out": f"{folder}/runs"}  # fmt: skip
        command = [sys.executable, "-c", TRAIN, json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    told = json.loads(done.stdout.strip().splitlines()[-1])
    after = told["after"]
    where = "GPU memory" if told["on_gpu"] else "memory"
    growth = (after[-1] - after[len(after) // 3]) / 1e6 / (len(after) - len(after) // 3 - 1)
    return [
        row("memory", f"peak {where} of a run with recording", [after[-1] / 1e6], "MB"),
        row("memory", "growth of the peak an epoch, after the first third", [growth], "MB",
            "<= 1"),
    ]  # fmt: skip
