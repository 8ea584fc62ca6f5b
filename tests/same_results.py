"""What it means that a run that was cut off ends as if it had not been."""

from pathlib import Path

import numpy as np
import pandas as pd

from budgetlab.records import Record, open_record


def same_results(one: Path | Record, other: Path | Record) -> None:
    """Two records hold the same, bit for bit, but for the time they took."""
    one, other = (open_record(getattr(each, "path", each)) for each in (one, other))
    weights = [(each.path / "model.safetensors").read_bytes() for each in (one, other)]
    assert weights[0] == weights[1]
    pd.testing.assert_frame_equal(
        one.epochs.drop(columns="seconds"), other.epochs.drop(columns="seconds"), check_exact=True
    )
    assert set(one.samples) == set(other.samples)
    for name, values in one.samples.items():
        np.testing.assert_array_equal(values, other.samples[name], err_msg=name)
