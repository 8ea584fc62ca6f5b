"""Run notebooks from top to bottom and keep their outputs, cleaned.

``make notebooks`` runs all of them; ``python notebooks/build.py NAME ...`` some. A
notebook that fails is left as it was. Kept are texts, tables and figures; removed are
widgets (dead without a kernel), messages of progress, times and execution metadata, so
that running again changes a file only where a result changed.
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"
LONGEST_CELL_SECONDS = 900


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what only a running kernel needs, in place."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_kept(output)]
    return notebook


def is_kept(output: nbformat.NotebookNode) -> bool:
    """Tell whether a reader without a kernel can use an output."""
    on_error_stream = output.output_type == "stream" and output.name == "stderr"
    return not on_error_stream and WIDGET not in output.get("data", {})


def run(path: Path) -> float:
    """Run one notebook in its folder and write it back; returns the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=LONGEST_CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
    ).execute()
    nbformat.write(clean(notebook), path)
    return time.perf_counter() - began


def main() -> int:
    """Run the notebooks named, or all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 00_start_here; all by default")
    names = parser.parse_args().names
    paths = [HERE / f"{Path(name).stem}.ipynb" for name in names] or sorted(HERE.glob("*.ipynb"))
    for path in paths:
        if not path.is_file():
            print(f"notebook '{path}' does not exist", file=sys.stderr)
            return 2
        print(f"{path.name} ...", end=" ", flush=True)
        try:
            print(f"{run(path):.0f} s, {path.stat().st_size / 1e6:.2f} MB")
        except CellExecutionError as error:
            print(f"failed\n{error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
