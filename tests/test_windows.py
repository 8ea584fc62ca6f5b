"""Windows: nothing that it lacks is used, its paths are understood, every encoding is named."""

import json
import os
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from PIL import Image

from budgetlab import config as config_module
from budgetlab.config import RunConfig

SCRIPT = Path(__file__).with_name("like_windows.py")
# The only thing of POSIX that is asked for, and done without.
FALLBACKS = {"os.sched_getaffinity", "os.sysconf"}


@pytest.fixture
def photos(tmp_path):
    """A folder as a path of Windows names it, which here is one odd name."""
    place = tmp_path / "C:\\Benutzer\\Zoë" / "Bäume"
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 8)):
        for kind, mean in (("Ahorn ä", 60), ("żółty", 180)):
            folder = place / split / kind
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(mean - 50, mean + 50, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"Blatt {number}.png")
    return place.relative_to(tmp_path)


def test_a_course_of_work_needs_nothing_that_windows_lacks(tmp_path, photos):
    # Names of files are UTF-8 there too; what is printed is not.
    environment = os.environ | {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", str(SCRIPT), "D:\\läufe\\1", str(photos)],
        env=environment | {"PYTHONPATH": str(SCRIPT.parents[1])}, cwd=tmp_path, timeout=300,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("cp1252")[-3000:]
    said = done.stdout.decode("cp1252").splitlines()[-1].removeprefix("TOLD ")
    told = json.loads(said)
    assert told.pop("page") > 10_000
    assert set(told.pop("asked")) <= FALLBACKS
    assert told == {"status": "finished", "dataset": "Bäume", "codes": [0, 0, 0, 0], "rows": 2,
                    "how": {"p-SGD": "kept", "unif-SGD": "trained"}}  # fmt: skip


def test_the_stand_in_hides_what_it_says():
    code = """
import like_windows
for text in ("import fcntl", "import os; os.fork()", "import signal; signal.SIGKILL",
             "open('/proc/cpuinfo')", "open('x', 'w')"):
    try:
        exec(text, {"__name__": "budgetlab.any"})
    except (ImportError, AttributeError, OSError, EncodingWarning):
        print(1)
"""
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", code], capture_output=True,
        text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": f"{SCRIPT.parents[1]}{os.pathsep}{SCRIPT.parent}"},
    )  # fmt: skip
    assert done.stdout.split() == ["1"] * 5, done.stderr


def test_paths_of_windows_give_short_names(monkeypatch):
    monkeypatch.setattr(config_module, "PurePath", PureWindowsPath)
    place = "folder:C:\\Users\\Zoë\\flowers"
    assert RunConfig(dataset=place).dataset_name == "flowers"
    assert RunConfig(dataset=f"{place}\\images").dataset_name == "flowers/images"
    assert RunConfig(dataset="npz:D:\\a\\b.npz").dataset_name == "b"
    name = RunConfig(dataset=place, method="p-SGD").folder_name
    assert name.startswith("flowers-p-SGD-")
    assert not set(name) & set('<>:"/\\|?*')


def test_the_package_can_be_run_by_its_name(tmp_path):
    done = subprocess.run([sys.executable, "-m", "budgetlab", "list", "schedules"], text=True,
                          capture_output=True, check=False, timeout=120)  # fmt: skip
    assert (done.returncode, "cosine" in done.stdout) == (0, True), done.stderr
