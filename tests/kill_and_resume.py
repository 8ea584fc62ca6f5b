"""Kill runs with ``kill -9`` at any of their moments, and see that nothing is lost.

Every run is trained whole, then once more and killed, then resumed, each in a process of
its own; the two records must agree bit for bit. A moment is a step, or anything that is
done to a file of the record: made, opened, renamed or removed. Run it for as long as you
like::

    python tests/kill_and_resume.py --every-pair --times 20
"""

import argparse
import dataclasses
import itertools
import json
import mmap
import os
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

# Before the first fork, so that no process imports them anew. No thread is started.
import xarray
import zarr
from same_results import same_results

from budgetlab import augment, samplers
from budgetlab.config import RunConfig
from budgetlab.data import Splits, load
from budgetlab.data.dataset import fingerprint
from budgetlab.records import find_records, open_record
from budgetlab.training import Run

assert xarray
assert zarr
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}


class Shared:
    """Two numbers that a killed process leaves to its parent: moments, and whole epochs."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)
        self.numbers = np.frombuffer(self._memory, np.int64)


def in_a_process(what: Callable[[], object]) -> int:
    """Do something in a fork of this process; its exit code, negative where it was killed."""
    child = os.fork()
    if child == 0:
        try:
            what()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(config: RunConfig, splits: Splits, shared: Shared, kill_at: int = 0) -> None:
    """Train, counting moments, until the given one."""
    numbers = shared.numbers
    numbers[:] = 0

    def moment() -> None:
        numbers[0] += 1
        if numbers[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        if event in EVENTS and str(arguments[0]).startswith(config.out):
            moment()

    sys.addaudithook(hook)
    for _ in Run(config, splits=splits, on_step=lambda run: moment()):
        numbers[1] += 1


def resume(out: str, config: RunConfig, splits: Splits, whole: Path, epochs: int) -> None:
    """Go on with what a killed run left in ``out``, and compare it with a whole one."""
    names = [path for path in Path(out).glob("*") if (path / "record.json").exists()]
    if not names:
        # Killed before there was a record: what is left is not a record, and in nobody's way.
        assert epochs == 0
        run = Run(config.replace(out=out), splits=splits)
    else:
        (path,) = find_records(out)
        record = open_record(path)
        assert record.status in ("running", "finished"), record.status
        assert len(record.epochs) >= epochs, "a whole epoch was lost"
        assert record.samples["loss"].shape == (len(record.epochs), len(splits.train))
        _ = record.thumbnails, record.samples.load()
        run = Run.resume(path, splits=splits)
        assert run.epoch >= epochs, "a whole epoch is trained again"
    for _ in run:
        pass
    same_results(run.writer.path, whole)
    assert run.record.status == "finished"
    temporary = [file.name for file in run.writer.path.glob(".*") if file.name != ".lock"]
    assert len(temporary) <= 1, temporary


def pairs(most: int, choose: random.Random) -> list[tuple[str, str]]:
    """Methods and augmentations: every pair, or so many at random."""
    every = list(itertools.product(samplers.names(), augment.names()))
    return every if most == 0 else choose.sample(every, most)


def length_of(method: str) -> dict[str, float]:
    """How long a run is: as short as can be, but for those that score windows of visits."""
    if method in ("dyn-unc", "dual", "tdds"):
        return {"budget": 1.0, "epochs": 5, "proxy_share": 0.8}
    return {"budget": 0.5, "epochs": 3}


def main() -> None:
    """Kill and resume; prints how often, and ends with 1 where something was lost."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--pairs", type=int, default=10, help="methods with augmentations")
    parser.add_argument(
        "--every-pair", action="store_const", dest="pairs", const=0, help="all that there are"
    )
    parser.add_argument("--times", type=int, default=1, help="kills of each pair")
    parser.add_argument("--every-moment", type=int, default=0, help="also each n-th of one run")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    choose = random.Random(given.seed)
    counts = {"methods": len(samplers.names()), "pairs": 0, "kills": 0, "lost": 0, "moments": 0}
    with tempfile.TemporaryDirectory() as folder:
        splits = load("digits", root=folder, limit=64, val_fraction=0.25, progress=False)
        test = splits.test.select(np.arange(20))
        known = fingerprint(splits.train, test)
        splits = dataclasses.replace(splits, test=test, fingerprint=known)
        for number, (method, augmentation) in enumerate(pairs(given.pairs, choose)):
            config = RunConfig(
                dataset="digits", limit=64, val_fraction=0.25, method=method,
                augmentation=augmentation, model="small", batch_size=8, **length_of(method),
                precision="float32", device="cpu", data_root=folder,
                out=str(Path(folder, f"{number}-whole")),
            )  # fmt: skip
            shared = Shared()
            assert in_a_process(lambda c=config, s=shared: train(c, splits, s)) == 0, config
            (whole,) = Path(config.out).iterdir()
            moments = int(shared.numbers[0])
            chosen = [choose.randint(1, moments) for _ in range(given.times)]
            if number == 0 and given.every_moment:
                chosen += range(1, moments + 1, given.every_moment)
            for kill_at in chosen:
                out = str(Path(folder, f"{number}-{kill_at}-{counts['kills']}"))
                killed = config.replace(out=out)
                code = in_a_process(lambda c=killed, s=shared, k=kill_at: train(c, splits, s, k))
                assert code == -signal.SIGKILL, (code, config)
                epochs = int(shared.numbers[1])
                code = in_a_process(
                    lambda o=out, c=config, w=whole, e=epochs: resume(o, c, splits, w, e)
                )
                counts["kills"] += 1
                if code:
                    counts["lost"] += 1
                    print(f"{method}, {augmentation}, moment {kill_at}", file=sys.stderr)
            counts["pairs"] += 1
            counts["moments"] += moments
    print(json.dumps(counts))
    sys.exit(counts["lost"] > 0)


if __name__ == "__main__":
    main()
