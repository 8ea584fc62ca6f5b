"""A JupyterLab server and the notebook that is opened in it, for tests in a browser."""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]

# Data sets so small that a run takes a second or two. One that a test wants to stop does not
# hurry while there is a file "hold", so that it lasts some minutes on any machine.
CELLS = {
    "imports": """
import budgetlab as bl

QUICK = dict(limit=400, batch_size=16, budget=0.5, device="cpu", precision="float32",
             out="runs", data_root="data")
""",
    "predict": """
guess = bl.course.predict("Which loses more?", ["the subset", "the redrawn part"])
guess
""",
    "reveal": """
guess.reveal("It loses eleven points.", "the subset")
""",
    "broken": """
@bl.sampler("broken")
def score(history):
    raise ValueError("no scores today")
""",
    "bench": """
bench = bl.widgets.TrainingBench(
    dataset="points", method="p-SGD", epochs=3, **QUICK
)
bench
""",
    "twin": """
record = bench.fit()
print("twin:", record.path.name)
""",
    "held": """
import time
from pathlib import Path


@bl.sampler("held")
class Held(bl.Sampler):
    def batches(self, epoch, history, look):
        for indices in self.full_batches(self.shuffled()):
            if epoch > 1 and Path("hold").exists():
                time.sleep(1)
            yield bl.Batch(indices)
""",
    "held bench": """
bench = bl.widgets.TrainingBench(
    dataset="points", method="held", epochs=30, **QUICK
)
bench
""",
    "follow": """
followed = bl.widgets.ProbabilityMicroscope(bench.records[-1])
followed
""",
    "images": """
pair = [
    bl.train(dataset="digits", method=m, epochs=2, label_noise=0.1, progress=False, **QUICK)
    for m in ("p-SGD", "selective-backprop")
]
digits = bl.data.load("digits", limit=400, label_noise=0.1, root="data", progress=False)
""",
    "microscope": """
microscope = bl.widgets.ProbabilityMicroscope(record)
microscope
""",
    "playground": """
playground = bl.widgets.SamplerPlayground(
    limit=300, epochs=4, device="cpu", precision="float32", out="runs", data_root="data"
)
playground
""",
    "explorer": """
explorer = bl.widgets.AugmentationExplorer(digits)
explorer
""",
}
"""Source of each cell of the notebook, by what it is for."""


def write_notebook(path: Path, names: Sequence[str]) -> Path:
    """Write a notebook of some of :data:`CELLS`, in order."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(CELLS[name].strip()) for name in names]
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    nbformat.write(notebook, path)
    return path


def command_of_make(target: str, port: int = 0) -> list[str]:
    """What ``make app`` or ``make lab`` would run."""
    command = ["make", "-n", "-o", ".venv/.installed", target, f"PORT={port}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = made.stdout.replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if "voila" in line or "jupyterlab" in line]
    return shlex.split(line)


def free_port() -> int:
    """Return a port of this machine that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def own_folders(folder: Path) -> dict[str, str]:
    """Environment in which Jupyter reads and writes nothing of the user's."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR",
             "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")  # fmt: skip
    folders = {name: str(folder / name.lower()) for name in names}
    return os.environ | folders | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


@contextlib.contextmanager
def serving(
    command: list[str], folder: Path, address: str, seconds: float = 240, **environment: str
) -> Iterator[None]:
    """Run a server until the block ends; its messages stay in ``folder/server.log``.

    Parameters
    ----------
    command
        Arguments after ``python -m``.
    folder
        For what it writes about itself.
    address
        Answers once the server is there.
    seconds
        How long it may take to start.
    **environment
        Variables that it gets besides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with log.open("w") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=own_folders(folder) | environment,
            stdout=messages,
            stderr=subprocess.STDOUT,
            cwd=folder,
            # A group of its own, so that no kernel outlives the tests.
            start_new_session=True,
        )
        try:
            end = time.monotonic() + seconds
            while not answers(address):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the server did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.1)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def answers(address: str) -> bool:
    """Whether something at this address says yes."""
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


class Lab:
    """A running JupyterLab.

    Attributes
    ----------
    url, token
        Where it is, and how to get in.
    root
        The folder that it shows.
    """

    def __init__(self, url: str, token: str, root: Path):
        self.url, self.token, self.root = url, token, root

    def api(self, path: str, method: str = "GET") -> list | dict | None:
        """Ask the server something."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            method=method,
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            body = reply.read()
        return json.loads(body) if body else None

    def end_sessions(self) -> None:
        """End all kernels."""
        for session in self.api("sessions") or []:
            self.api(f"sessions/{session['id']}", "DELETE")


@contextlib.contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """Start JupyterLab as ``make lab`` does, with nothing of the user's, in another folder."""
    root, token, port = folder / "root", secrets.token_hex(16), free_port()
    setting, _, _, _, _, *options = command_of_make("lab")
    name, _, place = setting.partition("=")
    root.mkdir(parents=True)
    url = f"http://127.0.0.1:{port}"
    command = [
        "jupyterlab", *options, "--no-browser", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={root}", "--allow-root", "--expose-app-in-browser",
    ]  # fmt: skip
    with serving(command, folder / "server", f"{url}/api", **{name: str(ROOT / place)}):
        yield Lab(url, token, root)


def browser_path() -> str | None:
    """Where Chromium is, if it is installed."""
    named = os.environ.get("BUDGETLAB_BROWSER")
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return named or next(filter(None, found), None)
