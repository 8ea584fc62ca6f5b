"""A small slice of real photographs through the command line, where a folder of them is given.

``BUDGETLAB_IMAGES`` names a folder of class folders, optionally under ``train/`` and ``test/``.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from budgetlab import cli
from budgetlab.records import open_record

IMAGES = os.environ.get("BUDGETLAB_IMAGES", "")

pytestmark = [
    pytest.mark.skipif(
        not IMAGES, reason="BUDGETLAB_IMAGES is not set: it names a folder of images by class"
    ),
    # A few unreadable files are no reason to fail; what is said of them is tested elsewhere.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("real")


def train(capsys, out: Path, data_root: Path, **changes: object) -> dict:
    flags = {"dataset": f"folder:{IMAGES}", "limit": 500, "epochs": 8, "budget": 0.5, "lr": 0.05,
             "batch_size": 20, "model": "small", "device": "cpu"} | changes  # fmt: skip
    arguments = [one for name, value in flags.items()
                 for one in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
    code = cli.main(
        ["train", *arguments, "--data-root", str(data_root), "--out", str(out), "--json"]
    )
    said = capsys.readouterr()
    assert code == 0, said.err
    return json.loads(said.out)


def chance_and_spread(record_path: str) -> tuple[float, float]:
    """Accuracy of guessing, and its standard error on this test set."""
    about = open_record(record_path).about["data"]
    chance = 1 / len(about["classes"])
    return chance, np.sqrt(chance * (1 - chance) / about["test"])


def test_the_folder_is_there():
    assert Path(IMAGES).is_dir(), f"BUDGETLAB_IMAGES names '{IMAGES}', which is no folder"


def test_it_learns_from_labels_and_not_without(capsys, out, data_root):
    """The same run on labels that say nothing must stay where guessing is."""
    learned = train(capsys, out, data_root, method="SGD")
    chance, error = chance_and_spread(learned["record"])
    # A label changed to any other class with probability 1 - 1/C is independent of the image.
    control = train(capsys, out, data_root, method="SGD", label_noise=1 - chance)
    assert learned["steps"] == control["steps"] == 96
    assert learned["test_accuracy"] > 2 * chance
    assert learned["test_accuracy"] > control["test_accuracy"] + 5 * error
    assert control["test_accuracy"] < 1.7 * chance


def test_a_method_spends_its_budget_on_the_hard_ones(capsys, out, data_root):
    summary = train(capsys, out, data_root, method="p-SGD", epochs=3)
    assert (summary["steps"], summary["trained_samples"]) == (36, 720)
    samples = open_record(summary["record"]).samples
    assert samples["times_trained"].values.sum(1).tolist() == [240] * 3
    # Probabilities of the last draw follow the errors of the epochs before.
    error = 1 - np.nanmean(
        samples["p_y"].values[:-1].clip(0, 1)[:, trained_before(samples)], axis=0
    )
    probability = samples["probability"].values[-1][trained_before(samples)]
    assert np.corrcoef(error, probability)[0, 1] > 0.98


def trained_before(samples) -> np.ndarray:
    """Those trained on before the last epoch."""
    return samples["times_trained"].values[:-1].sum(0) > 0
