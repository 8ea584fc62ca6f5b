"""Windows: nothing that it lacks is used, its paths are understood, every encoding is named."""

import json
import os
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest
from fake_images import write_images

from budgetlab import config as config_module
from budgetlab.config import RunConfig

SCRIPT = Path(__file__).with_name("like_windows.py")
# The only thing of POSIX that is asked for, and done without.
FALLBACKS = {"os.sched_getaffinity", "os.sysconf"}


@pytest.fixture
def photos(tmp_path):
    """A folder as a path of Windows names it, which here is one odd name."""
    place = tmp_path / "C:\\Benutzer\\Zoë" / "Bäume"
    for seed, (split, count) in enumerate((("train", 20), ("test", 8))):
        for kind, low in (("Ahorn ä", 10), ("żółty", 130)):
            levels = (low, low + 100)
            write_images(
                place / split / kind, count, seed=seed, size=(8, 8), levels=levels, name="Blatt "
            )
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
    assert told.pop("hidden") == 5
    assert set(told.pop("asked")) <= FALLBACKS
    assert told == {"status": "finished", "dataset": "Bäume", "codes": [0, 0, 0, 0], "rows": 2,
                    "how": {"p-SGD": "kept", "unif-SGD": "trained"}}  # fmt: skip


def test_paths_of_windows_give_short_names(monkeypatch):
    monkeypatch.setattr(config_module, "PurePath", PureWindowsPath)
    place = "folder:C:\\Users\\Zoë\\flowers"
    assert RunConfig(dataset=place).dataset_name == "flowers"
    assert RunConfig(dataset=f"{place}\\images").dataset_name == "flowers/images"
    assert RunConfig(dataset="npz:D:\\a\\b.npz").dataset_name == "b"
    name = RunConfig(dataset=place, method="p-SGD").folder_name
    assert name.startswith("flowers-p-SGD-")
    assert not set(name) & set('<>:"/\\|?*')
