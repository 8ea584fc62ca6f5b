"""Killed with ``kill -9`` at any moment, in the write of a record too: nothing is lost.

``make soak`` kills every method with every augmentation, and one run at every moment.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from budgetlab import augment

SCRIPT = Path(__file__).with_name("kill_and_resume.py")
SOAK = os.environ.get("BUDGETLAB_SOAK", "") not in ("", "0")


@pytest.mark.timeout(7200 if SOAK else 300)
def test_killed_runs_go_on_bit_for_bit():
    more = (
        ["--every-pair", "--times", "3", "--every-moment", "1"]
        if SOAK
        else ["--every-moment", "25"]
    )
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *more], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    # Other tests may have added methods of their own in this process.
    methods, augmentations = counts["methods"], len(augment.names())
    assert counts["pairs"] == (methods * augmentations if SOAK else max(methods, augmentations))
    assert counts["kills"] > counts["pairs"]
    assert counts["lost"] == 0
    # Steps, and a good many files for each: the kills do fall into the writing of records.
    assert counts["moments"] > 100 * counts["pairs"]
