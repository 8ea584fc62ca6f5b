"""Run notebooks from top to bottom and keep their outputs, cleaned.

``make notebooks`` runs all of them; ``python notebooks/build.py NAME ...`` some. A
notebook that fails is left as it was. Kept are texts, tables and figures; removed are
widgets (dead without a kernel), messages of progress, times and execution metadata, so
that running again changes a file only where a result changed.

Every notebook begins with the same cell, which installs the kit where it is missing;
it is written here, once, and put into each notebook that is run.
"""

import argparse
import queue
import resource
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.channels import AsyncZMQSocketChannel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"
LONGEST_CELL_SECONDS = 900

# Scaffolding, long, or an answer: folded away, and opened by a click. Exercises are folded
# because the notebook that is kept holds their solutions.
FOLDED = {"setup", "parameters", "exercise", "hide-input"}

SETUP = """\
# Where the kit is missing, as on Colab: install it from a copy of the project beside this notebook.
import importlib.util
import os
from pathlib import Path

if importlib.util.find_spec("budgetlab") is None:
    places = [Path.cwd(), *Path.cwd().iterdir(), *Path.cwd().parents]
    copies = [place for place in places if (place / "notebooks/build.py").is_file()]
    remedy = "clone the project, or upload and unpack a copy of it, beside this notebook"
    assert copies, f"budgetlab is missing here: {remedy} (on Colab under /content), and run again"
    %pip install -q "{copies[0]}"
    os.chdir(copies[0] / "notebooks")"""


def put_setup_first(notebook: nbformat.NotebookNode) -> None:
    """Make :data:`SETUP` the first code cell, in place of one that is there already."""
    cells = [cell for cell in notebook.cells if "setup" not in cell.metadata.get("tags", [])]
    first = next(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    setup = nbformat.v4.new_code_cell(SETUP, metadata={"tags": ["setup"]})
    notebook.cells = [*cells[:first], setup, *cells[first:]]


def put_setup_in(path: Path) -> None:
    """Give a notebook that was run without the first cell this cell, and run nothing.

    It does nothing where the kit is installed, so that no output would change.
    """
    notebook = nbformat.read(path, as_version=4)
    put_setup_first(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.execution_count = number
    nbformat.write(clean(notebook), path)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what only a running kernel needs, in place; tags stay."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        tags = cell.metadata.get("tags")
        kept: dict = {"tags": tags} if tags else {}
        if FOLDED & set(tags or []):
            kept["jupyter"] = {"source_hidden": True}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_kept(output)]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
                if "data" in output:
                    output.data = as_a_browser_writes(output.data)
    return notebook


def as_a_browser_writes(value: object) -> object:
    """Write whole numbers without a fraction, as JupyterLab will when it saves the notebook."""
    if isinstance(value, dict):
        return nbformat.from_dict({key: as_a_browser_writes(one) for key, one in value.items()})
    if isinstance(value, list):
        return [as_a_browser_writes(one) for one in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return int(value) if whole else value


def is_kept(output: nbformat.NotebookNode) -> bool:
    """Tell whether a reader without a kernel can use an output.

    A widget that brings something else to show, beside the name of its type, leaves this.
    """
    on_error_stream = output.output_type == "stream" and output.name == "stderr"
    kinds = set(output.get("data", {}))
    return not on_error_stream and (WIDGET not in kinds or bool(kinds - {WIDGET, "text/plain"}))


class Replies(AsyncZMQSocketChannel):
    """The channel of a kernel's replies, looked at every second.

    ZeroMQ signals once that a message has come. Where a cell prints into an output widget,
    nbclient sends the widget's state over this very socket while it waits for the reply,
    and a send that comes just after the reply takes the signal away: the reply then lies
    there unseen until the time for the cell is over.
    """

    EVERY_SECONDS = 1.0

    async def get_msg(self, timeout: float | None = None) -> dict:
        """Return the next message.

        Parameters
        ----------
        timeout
            Seconds to wait for it; None: for ever.

        Raises
        ------
        queue.Empty
            If none came in time.
        """
        left = float("inf") if timeout is None else timeout
        while left > self.EVERY_SECONDS:
            began = time.monotonic()
            try:
                return await super().get_msg(self.EVERY_SECONDS)
            except queue.Empty:
                left -= time.monotonic() - began
        return await super().get_msg(max(left, 0))


class Client(AsyncKernelClient):
    """A client of a kernel that misses no reply."""

    shell_channel_class = Replies


class Manager(AsyncKernelManager):
    """A manager of a kernel whose client is :class:`Client`."""

    client_factory = Client


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run every cell in a folder, in place; a cell that raises ends it."""
    NotebookClient(
        notebook,
        kernel_manager_class=Manager,
        timeout=LONGEST_CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        # In how many pieces a text comes depends on when it was sent.
        coalesce_streams=True,
    ).execute()


def run(path: Path) -> tuple[float, float]:
    """Run one notebook in its folder and write it back.

    Returns the seconds it took, and those of them that a processor worked: on a busy
    machine only these say what it costs.
    """
    notebook = nbformat.read(path, as_version=4)
    put_setup_first(notebook)
    began, worked = time.perf_counter(), children_seconds()
    execute(notebook, path.parent)
    nbformat.write(clean(notebook), path)
    return time.perf_counter() - began, children_seconds() - worked


def children_seconds() -> float:
    """Processor time of the kernels that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Run the notebooks named, or all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 00_what_a_budget_buys; all by default")
    parser.add_argument(
        "--setup", action="store_true", help="only put the first cell in, and run nothing"
    )
    asked = parser.parse_args()
    names = asked.names
    paths = [HERE / f"{Path(name).stem}.ipynb" for name in names] or sorted(HERE.glob("*.ipynb"))
    total = 0.0
    for path in paths:
        if not path.is_file():
            print(f"notebook '{path}' does not exist", file=sys.stderr)
            return 2
        if asked.setup:
            put_setup_in(path)
            continue
        print(f"{path.name} ...", end=" ", flush=True)
        try:
            seconds, worked = run(path)
        except CellExecutionError as error:
            print(f"failed\n{error}", file=sys.stderr)
            return 1
        total += seconds
        size = path.stat().st_size / 1e6
        print(f"{seconds:.0f} s, {worked:.0f} s of processor, {size:.2f} MB", flush=True)
    if not asked.setup:
        print(f"{len(paths)} notebooks in {total / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
