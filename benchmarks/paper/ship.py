"""Thin a few records of the paper's claims, so that the notebooks can show them.

    python -m benchmarks.paper.ship runs/paper-cpu

Copies seed 0 of every method at budget 0.3 and of p-SGD with RICAP under each rule of credit
into notebooks/records/: half of the samples, ten epochs, no images.
"""

import argparse
import shutil
import sys
from pathlib import Path

from budgetlab import analysis
from budgetlab.records import thin

TARGET = Path(__file__).parents[2] / "notebooks" / "records"
SAMPLES = 5000
EPOCHS = 10


def wanted(row: dict) -> bool:
    """Tell whether the notebooks show a run."""
    if row["budget"] != 0.3 or row["seed"] != 0 or row["status"] != "finished":
        return False
    if row["augmentation"] == "standard":
        return True
    return row["augmentation"] == "ricap" and row["method"] == "p-SGD"


def name(row: dict) -> str:
    """Return the folder of a thinned record."""
    credit = f"-ricap-{row['credit']}" if row["augmentation"] == "ricap" else ""
    return f"{row['dataset']}-{row['method']}{credit}"


def main() -> int:
    """Write the copies; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", help="folder of the records, such as runs/paper-cpu")
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args()
    for row in analysis.summaries(given.records).to_dict("records"):
        if wanted(row):
            target = given.out / name(row)
            shutil.rmtree(target, ignore_errors=True)
            record = thin(row["path"], target, samples=SAMPLES, epochs=EPOCHS, images=False)
            size = sum(file.stat().st_size for file in record.path.rglob("*") if file.is_file())
            print(f"{target.name}: {size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
