"""How fast the widgets are: a new picture, the first live one, and what watching costs.

Run it with ``python benchmarks/widgets.py``. Everything is measured in a Jupyter kernel, with
every message to the front end sent, on runs that it trains first. It prints n, median and 95th
percentile, and exits with 1 where a target is missed:

- from the change of a control to the new picture, 95% under 150 ms, on a record of 10,000
  samples (the playground: on its own 1,000 points);
- from Train to the first live picture under 3 s, each time in a new kernel, with the data set
  already on disk;
- training with the bench open takes at most 15% longer than without, by alternating the two.

The time of a picture ends when it has been handed over to the browser.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jupyter_client.manager import start_new_kernel

FASTEST, FIRST, SLOWDOWN = 0.150, 3.0, 0.15
LONGEST = 1800


# ---- measured in a kernel ----


def pictures(folder: str, changes: int) -> dict[str, list[float]]:
    """Seconds from a change of a control to the new picture, by control."""
    import budgetlab as bl

    places = {"out": f"{folder}/runs", "data_root": f"{folder}/data"}
    dataset = f"npz:{_write_digits(Path(folder))}"
    settings = {"dataset": dataset, "limit": 10_000, "epochs": 10, "budget": 0.1, **places}
    records = [
        bl.train(method=method, progress=False, **settings)
        for method in ("p-SGD", "selective-backprop")
    ]
    splits = bl.data.load(dataset, limit=10_000, progress=False)
    microscope = bl.widgets.ProbabilityMicroscope(records[0])
    microscope.method.value = "p-SGD"
    atlas = bl.widgets.SampleAtlas(records[0], splits, records[1])
    bench = bl.widgets.TrainingBench(records=records)
    playground = bl.widgets.SamplerPlayground(**places)
    playground.fit()
    turns: dict[str, tuple[Any, Iterator]] = {
        "microscope: epoch": (microscope.epoch, _cycle(range(1, 11))),
        "microscope: smoothing": (microscope.smoothing, _cycle(np.arange(0, 5, 0.05))),
        "microscope: budget": (microscope.budget, _cycle(np.arange(0.05, 0.95, 0.01))),
        "microscope: method": (microscope.method, _choices(microscope.method)),
        "playground: epoch": (playground.epoch, _cycle(range(1, 31))),
        "bench: cost axis": (bench.shelf.cost, _choices(bench.shelf.cost)),
        "atlas: page": (atlas.page, _cycle(range(1, 101))),
        "atlas: sample": (atlas.sample, _cycle(range(0, 10_000, 7))),
        "atlas: measure": (atlas.by, _choices(atlas.by)),
    }
    return {
        name: [_change(control, values) for _ in range(changes)]
        for name, (control, values) in turns.items()
    }


def _write_digits(folder: Path, copies: int = 8) -> Path:
    """Write more than 10,000 images: the digits several times, each time with other noise."""
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(0)
    x = np.tile(16 * digits.images, (copies, 1, 1))
    x = (x + rng.normal(0, 30, x.shape)).clip(0, 255).astype(np.uint8)
    path = folder / "digits.npz"
    np.savez(path, x=x, y=np.tile(digits.target, copies))
    return path


def first_picture(folder: str) -> float:
    """Seconds from Train to the first picture of the run, in a kernel that has not trained."""
    import threading

    import budgetlab as bl

    bench = bl.widgets.TrainingBench(out=f"{folder}/runs", data_root=f"{folder}/data", epochs=30)
    live, follow = threading.Event(), bench.shelf.follow

    def following(*given: Any) -> None:
        follow(*given)
        live.set()

    bench.shelf.follow = following
    seconds = _timed(lambda: (bench.train(), live.wait(LONGEST)))
    bench.stop()
    bench.wait()
    return seconds


def trainings(folder: str, pairs: int) -> list[tuple[float, float]]:
    """Seconds of the same training without and with the bench, one after the other."""
    import budgetlab as bl
    from budgetlab.training import load_data

    settings = {"method": "p-SGD", "budget": 0.3, "epochs": 8, "out": f"{folder}/runs",
                "data_root": f"{folder}/data"}  # fmt: skip
    splits = load_data(bl.RunConfig(**settings), progress=False)
    bench = bl.widgets.TrainingBench(**settings)

    def alone() -> None:
        for _ in bl.Run(bl.RunConfig(**settings), splits=splits):
            pass

    def watched() -> None:
        bench.train()
        bench.wait()

    alone(), watched()  # what is done only once is done
    return [(_timed(alone), _timed(watched)) for _ in range(pairs)]


def _cycle(values: Any) -> Iterator:
    while True:
        yield from (value.item() if isinstance(value, np.generic) else value for value in values)


def _change(control: Any, values: Iterator) -> float:
    """Seconds that the next value takes that is another than the one shown."""
    value = next(value for value in values if value != control.value)
    return _timed(setattr, control, "value", value)


def _choices(control: Any) -> Iterator:
    """All that a list offers, again and again."""
    return _cycle([one[1] if isinstance(one, tuple) else one for one in control.options])


def _timed(function: Callable, *given: Any) -> float:
    began = time.perf_counter()
    function(*given)
    return time.perf_counter() - began


# ---- around it ----


def in_kernel(call: str) -> Any:
    """Evaluate a call of a function of this file in a new kernel."""
    manager, client = start_new_kernel(kernel_name="python3")
    said: list[str] = []
    try:
        code = (
            f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import widgets; result = widgets.{call}\n"
            "print('RESULT ' + json.dumps(result))"
        )
        reply = client.execute_interactive(
            code,
            timeout=LONGEST,
            output_hook=lambda message: said.append(str(message["content"].get("text", ""))),
        )
        if reply["content"]["status"] != "ok":
            raise RuntimeError("\n".join(reply["content"]["traceback"]))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return json.loads("".join(said).split("RESULT ")[1].splitlines()[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--changes", type=int, default=60, help="of each control")
    parser.add_argument("--starts", type=int, default=5, help="new kernels that train")
    parser.add_argument("--pairs", type=int, default=7, help="trainings without and with the bench")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = in_kernel(f"pictures({folder!r}, {options.changes})")
        print(f"{'from a control to its picture':<38}{'n':>4}{'median':>12}{'95%':>12}")
        for name, seconds in found.items():
            _show(name, seconds, 1000, "ms")
        worst = max(_high(seconds) for seconds in found.values())

        in_kernel(f"first_picture({folder!r})")  # draws the data set, which is then on disk
        starts = [in_kernel(f"first_picture({folder!r})") for _ in range(options.starts)]
        _show("from Train to the first live picture", starts, 1, "s")

        pairs = in_kernel(f"trainings({folder!r}, {options.pairs})")
        _show("training alone", [alone for alone, _ in pairs], 1, "s")
        _show("training with the bench", [watched for _, watched in pairs], 1, "s")
        slower = [watched / alone - 1 for alone, watched in pairs]
        _show("slower by", slower, 100, "%")
    missed = [
        *([f"a picture takes {1000 * worst:.0f} ms"] if worst > FASTEST else []),
        *([f"the first one takes {_high(starts):.1f} s"] if _high(starts) > FIRST else []),
        *([f"watching costs {100 * statistics.median(slower):.0f}%"]
          if statistics.median(slower) > SLOWDOWN else []),
    ]  # fmt: skip
    print(f"missed: {'; '.join(missed)}" if missed else "all targets are met")
    return 1 if missed else 0


def _high(values: list[float]) -> float:
    return float(np.quantile(values, 0.95))


def _show(name: str, values: list[float], scale: float, unit: str) -> None:
    middle, high = scale * statistics.median(values), scale * _high(values)
    print(f"{name:<38}{len(values):>4}{middle:>9.1f} {unit:<2}{high:>9.1f} {unit:<2}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
