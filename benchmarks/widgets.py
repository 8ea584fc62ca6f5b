"""Benchmark charts and widgets: redraw latency, time to the first live figure, watching overhead.

Run it with ``python benchmarks/widgets.py [explorables] [controls] [training]``, all by default. It
prints hardware, n, median and 95th percentile, and exits with 1 if a target is missed:

- from moving a slider of an explorable to the new frame, in a browser without a kernel, 95% under
  50 ms, on a record of 2,000 samples (of which ``probabilities`` shows 1,000 by default);
- from the change of a control to the new figure, 95% under 150 ms, on a record of 10,000
  samples (the playground: on its own 1,000 points);
- from Train to the first live figure under 3 s, each time in a new kernel, with the data set
  already on disk; the default run of a bench ends within 10 s;
- that run takes at most 10% longer with the bench than without, by alternating the two.

Widgets are measured in a kernel, with every message to the front end sent; a redraw ends when the
figure has been handed over to the browser. ``ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2``
stands in for a processor without bfloat16.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jupyter_client.manager import start_new_kernel

IN_PAGE, FASTEST, FIRST, WHOLE, SLOWDOWN = 0.050, 0.150, 3.0, 10.0, 0.10
LONGEST = 1800


# ---- measured in a kernel ----


def pictures(folder: str, changes: int) -> dict[str, list[float]]:
    """Return the seconds from a change of a control to the new figure, by control."""
    import budgetlab as bl

    places = {"out": f"{folder}/runs", "data_root": f"{folder}/data"}
    dataset = f"npz:{_write_digits(Path(folder))}"
    settings = {"dataset": dataset, "limit": 10_000, "epochs": 10, "budget": 0.1, **places}
    records = [
        bl.train(method=method, progress=False, **settings)
        for method in ("p-SGD", "selective-backprop")
    ]
    microscope = bl.widgets.ProbabilityMicroscope(records[0])
    microscope.method.value = "p-SGD"
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
    }
    return {
        name: [_change(control, values) for _ in range(changes)]
        for name, (control, values) in turns.items()
    }


def _write_digits(folder: Path, copies: int = 8) -> Path:
    """Write more than 10,000 images: copies of the digits with different noise."""
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(0)
    x = np.tile(16 * digits.images, (copies, 1, 1))
    x = (x + rng.normal(0, 30, x.shape)).clip(0, 255).astype(np.uint8)
    path = folder / "digits.npz"
    np.savez(path, x=x, y=np.tile(digits.target, copies))
    return path


def first_picture(folder: str) -> float:
    """Return the seconds from Train to the first figure, in a kernel that has not trained."""
    import threading

    import budgetlab as bl

    bench = bl.widgets.TrainingBench(out=f"{folder}/runs", data_root=f"{folder}/data")
    live, follow = threading.Event(), bench.shelf.follow

    def following(*given: Any) -> None:
        follow(*given)
        live.set()

    bench.shelf.follow = following
    seconds = _timed(lambda: (bench.train(), live.wait(LONGEST)))
    bench.stop()
    bench.wait()
    return seconds


def trainings(folder: str, pairs: int) -> dict[str, Any]:
    """Time the default run without and with a bench, in turns; also return its precision."""
    import budgetlab as bl
    from budgetlab.training import load_data

    bench = bl.widgets.TrainingBench(out=f"{folder}/runs", data_root=f"{folder}/data")
    config = bench.controls.config
    splits = load_data(config, progress=False)

    def alone() -> None:
        for _ in bl.Run(config, splits=splits):
            pass

    def watched() -> None:
        bench.train()
        bench.wait()

    alone(), watched()  # warm up
    found = [(_timed(alone), _timed(watched)) for _ in range(pairs)]
    precision = bench.records[-1].about["hardware"].get("precision", config.precision)
    return {"pairs": found, "precision": precision}


def _cycle(values: Any) -> Iterator:
    while True:
        yield from (value.item() if isinstance(value, np.generic) else value for value in values)


def _change(control: Any, values: Iterator) -> float:
    """Return the seconds taken by setting the next value that differs from the current one."""
    value = next(value for value in values if value != control.value)
    return _timed(setattr, control, "value", value)


def _choices(control: Any) -> Iterator:
    """Cycle through the options of a dropdown."""
    return _cycle([one[1] if isinstance(one, tuple) else one for one in control.options])


def _timed(function: Callable, *given: Any) -> float:
    began = time.perf_counter()
    function(*given)
    return time.perf_counter() - began


# ---- measured in a browser ----

MOVE = """async count => {
  const place = document.querySelector('.bl-explorable[data-drawn=yes]'), times = [];
  const inputs = [...place.querySelectorAll('.vega-bind input[type=range]')];
  for (let i = 0; i < count; i++) {
    const input = inputs[i % inputs.length], low = +input.min, high = +input.max;
    const steps = Math.round((high - low) / +input.step);
    let next;
    do next = low + +input.step * Math.floor(Math.random() * (steps + 1));
    while (next === +input.value);
    const began = performance.now();
    input.value = next;
    input.dispatchEvent(new Event('input'));
    await place.view.runAsync();
    await new Promise(requestAnimationFrame);
    times.push((performance.now() - began) / 1000);
  }
  return times;
}"""


def explorables(folder: Path, changes: int) -> dict[str, list[float]]:
    """Return the seconds from moving a slider to the next screen frame, by chart."""
    from playwright.sync_api import sync_playwright

    import budgetlab as bl

    place = {"out": str(folder / "runs"), "data_root": str(folder / "data"), "progress": False}
    dataset = f"npz:{_write_digits(folder)}"
    record = bl.train("p-SGD", dataset=dataset, limit=2_000, epochs=10, budget=0.3, **place)
    splits = bl.data.load(dataset, limit=2_000, progress=False)
    points = {"dataset": "points", "epochs": 30, "batch_size": 32, "budget": 0.2}
    watched = [bl.explore.watch(bl.RunConfig(method=method, data_root=place["data_root"], **points))
               for method in ("unif-SGD", "p-SGD")]  # fmt: skip
    charts = {
        "probabilities, 1,000 samples": bl.explore.probabilities(record),
        "probabilities, all 2,000": bl.explore.probabilities(record, samples=2_000),
        "atlas, 2,000 samples": bl.explore.atlas(record, splits=splits),
        "playground, 1,000 points": bl.explore.playground(*watched),
    }
    browser = os.environ.get("BUDGETLAB_BROWSER") or shutil.which("chromium")
    found = {}
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for number, (name, chart) in enumerate(charts.items()):
            tab = made.new_page()
            tab.goto(chart.save(folder / f"chart{number}.html").as_uri())
            tab.wait_for_selector(".bl-explorable[data-drawn=yes]")
            found[name] = tab.evaluate(MOVE, changes)
        made.close()
    return found


# ---- driver ----


def in_kernel(call: str) -> Any:
    """Evaluate a call to a function of this file in a new kernel."""
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
    parts = ("explorables", "controls", "training")
    parser.add_argument("parts", nargs="*", default=parts, metavar="part", help=", ".join(parts))
    parser.add_argument("--changes", type=int, default=60, help="of each control")
    parser.add_argument("--starts", type=int, default=5, help="new kernels that train")
    parser.add_argument("--pairs", type=int, default=7, help="trainings without and with the bench")
    options = parser.parse_args()
    stand_in = "".join(f", {n}={os.environ[n]}" for n in STAND_IN if n in os.environ)
    print(f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}{stand_in}")
    print(f"{'':<38}{'n':>4}{'median':>12}{'95%':>12}")
    missed: list[str] = []

    def tell(name: str, seconds: list[float], most: float = 0, scale: float = 1, unit: str = "s"):
        middle, high = scale * statistics.median(seconds), scale * float(np.quantile(seconds, 0.95))
        print(f"{name:<38}{len(seconds):>4}{middle:>9.1f} {unit:<2}{high:>9.1f} {unit:<2}",
              flush=True)  # fmt: skip
        # Runs differ by chance as much as by watching, so for them the median counts.
        if most and (middle if unit == "%" else high) > scale * most:
            missed.append(f"{name} (at most {scale * most:g} {unit})")

    with tempfile.TemporaryDirectory() as folder:
        if "explorables" in options.parts:
            for name, seconds in explorables(Path(folder), options.changes).items():
                tell(name, seconds, 0 if "all" in name else IN_PAGE, 1000, "ms")
        if "controls" in options.parts:
            found = in_kernel(f"pictures({folder!r}, {options.changes})")
            for name, seconds in found.items():
                tell(name, seconds, FASTEST, 1000, "ms")
        if "training" in options.parts:
            in_kernel(f"first_picture({folder!r})")  # renders the data set and caches it on disk
            starts = [in_kernel(f"first_picture({folder!r})") for _ in range(options.starts)]
            tell("from Train to the first live picture", starts, FIRST)
            found = in_kernel(f"trainings({folder!r}, {options.pairs})")
            alone, watched = zip(*found["pairs"], strict=True)
            tell(f"training alone, {found['precision']}", alone)
            tell("training with the bench", watched, WHOLE)
            slower = [w / a - 1 for a, w in found["pairs"]]
            tell("slower by", slower, SLOWDOWN, 100, "%")
    print(f"missed: {'; '.join(missed)}" if missed else "all targets are met")
    return 1 if missed else 0


STAND_IN = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
