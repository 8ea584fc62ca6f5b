"""A record that the first version of the kit wrote opens, goes on and compares with today's."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import budgetlab as bl
from budgetlab.config import RunConfig
from budgetlab.training import Run

# p-SGD on 64 points, stopped after two of five epochs: by commit aa88c55 of 23 November 2026,
# which knew 31 of the fields of a run, kept p_y in full and less of a budget.
STORED = Path(__file__).parent / "earlier_record.zip"


@pytest.fixture
def earlier(tmp_path) -> Path:
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(tmp_path / "earlier")
    return tmp_path / "earlier"


def test_it_opens_as_the_run_that_it_was(earlier):
    record = bl.open_record(earlier)
    assert (record.status, len(record.epochs), record.classes) == (
        "stopped", 2, ["moon 0", "moon 1"])  # fmt: skip
    assert len(record.about["config"]) < len(RunConfig.__dataclass_fields__)
    # The fields that came later change no id.
    assert RunConfig.from_dict(record.config).id == record.about["id"] == "bc37439d45"
    samples = record.samples
    assert samples["times_trained"].values.sum(1).tolist() == [32, 32]
    loss, p_y = (samples[name].values for name in ("loss", "p_y"))
    assert p_y == pytest.approx(np.exp(-loss), abs=5e-3, nan_ok=True)
    assert bl.analysis.summaries(record)["trained_samples"].item() == 64


# One pair has no interval, which is said.
@pytest.mark.filterwarnings("ignore")
def test_it_goes_on_and_compares_with_a_run_of_today(earlier, tmp_path, data_root):
    before = bl.open_record(earlier).epochs
    run = Run.resume(earlier, data_root=data_root)
    assert run.epoch == 2
    # What it had learned of each sample is what its methods go on from.
    assert run.history.times_trained.sum() == 64
    list(run)
    record = run.record
    assert (record.status, len(record.epochs)) == ("finished", 5)
    pd.testing.assert_frame_equal(record.epochs.iloc[:2], before)
    config = RunConfig.from_dict(record.config).replace(out=str(tmp_path), data_root=str(data_root))
    today = Run(config.replace(method="unif-SGD"))
    list(today)
    assert today.record.fingerprint == record.fingerprint
    assert today.ledger.steps == run.ledger.steps == 10
    assert torch.isfinite(run.history.mean_loss[run.history.seen]).all()
    found = bl.compare([record, today.record], baseline="unif-SGD")
    assert set(found["method"]) == {"p-SGD", "unif-SGD"}
    assert found.loc[found["method"] == "p-SGD", "pairs"].item() == 1
