"""What it means that a run that was cut off ends as if it had not been."""

from pathlib import Path

import numpy as np
import pandas as pd

from budgetlab.records import open_record


def same_results(one: Path, other: Path) -> None:
    """Two records hold the same, bit for bit, but for the time they took."""
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    left, right = open_record(one), open_record(other)
    pd.testing.assert_frame_equal(
        left.epochs.drop(columns="seconds"), right.epochs.drop(columns="seconds"), check_exact=True
    )
    for name, values in left.samples.items():
        np.testing.assert_array_equal(values, right.samples[name], err_msg=name)
