"""Feed damaged input to everything that reads files, for as long as you like.

::

    python tests/fuzz.py --seconds 600 --seed 3
    python tests/fuzz.py npz --atheris --seconds 600

The second way lets atheris choose the input by what code it reaches (``pip install atheris``;
Linux and macOS). What fails is written to ``--failures`` and ends the run with 1.
"""

import argparse
import collections
import importlib
import json
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any


def at_random(targets: Any, names: list[str], seconds: float, seed: int, place: Path) -> int:
    """Mutate good input until the time is up; how many different faults were found."""
    from fuzz_targets import mutated, mutated_json

    choose = random.Random(seed)
    counts: collections.Counter[tuple[str, bool]] = collections.Counter()
    faults: dict[tuple, int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name in names:
            good = targets.seeds[name]
            cuts = [tuple(choose.choices(range(2**16), k=3)) for _ in range(choose.randint(1, 4))]
            change = mutated_json if good[:1] == b"{" and choose.random() < 0.5 else mutated
            content = change(good, cuts)
            try:
                counts[name, targets.feed(name, content)] += 1
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                fault = (name, type(error).__name__, where.filename, where.lineno)
                if fault not in faults:
                    place.mkdir(parents=True, exist_ok=True)
                    (place / f"{len(faults)}.bin").write_bytes(content)
                    print(f"{name}: {type(error).__name__}: {error} -> {place}/{len(faults)}.bin")
                faults[fault] = faults.get(fault, 0) + 1
    for name in names:
        print(f"{name}: {counts[name, True]} opened, {counts[name, False]} refused")
    print(json.dumps({"inputs": sum(counts.values()) + sum(faults.values()),
                      "faults": len(faults)}))  # fmt: skip
    return len(faults)


def by_coverage(targets: Any, name: str, seconds: float, seed: int) -> None:
    """Let atheris find input that reaches new code; ends the process."""
    import atheris

    corpus = Path(tempfile.mkdtemp())
    (corpus / "good").write_bytes(targets.seeds[name])
    arguments = [sys.argv[0], str(corpus), f"-max_total_time={int(seconds)}", f"-seed={seed + 1}",
                 "-rss_limit_mb=8192", "-timeout=60"]  # fmt: skip
    atheris.Setup(arguments, lambda content: targets.feed(name, content))
    atheris.Fuzz()


def main() -> None:
    """Read what was asked for, and do it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="targets; all where none is given")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--atheris", action="store_true", help="by coverage; one target")
    given = parser.parse_args()
    if given.atheris:
        import atheris

        # Ours alone reports where it has been: with torch it would take minutes to begin.
        with atheris.instrument_imports(include=["budgetlab"]):
            module = importlib.import_module("fuzz_targets")
    else:
        module = importlib.import_module("fuzz_targets")
    with tempfile.TemporaryDirectory() as folder:
        targets = module.Targets(Path(folder), Path(folder))
        names = given.names or list(targets.seeds)
        unknown = [name for name in names if name not in targets.seeds]
        if unknown:
            sys.exit(f"unknown target {unknown[0]!r}: choose of {', '.join(targets.seeds)}")
        if given.atheris:
            by_coverage(targets, names[0], given.seconds, given.seed)
        faults = at_random(targets, names, given.seconds, given.seed, given.failures)
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
