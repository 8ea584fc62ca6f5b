"""Every method in every unit of budget, with all augmentations and kinds of data: few steps each.

That every method goes with every augmentation is shown by steps alone, in test_readbacks.
"""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from budgetlab import augment, methods, samplers
from budgetlab.config import BUDGET_UNITS, CREDITS, RunConfig
from budgetlab.data import load
from budgetlab.data.dataset import fingerprint
from budgetlab.errors import RunError
from budgetlab.training import Run

METHODS = samplers.names()
IMAGES = ("shapes", "digits")
# What a method needs to make a step within the smallest budget here.
OPTIONS = {
    "top-k": {"keep_fraction": 0.5},
    "rho-loss": {"keep_fraction": 0.5, "epochs": 8, "proxy_share": 0.4},
    "el2n-pruned": {"epochs": 4},
    "forgetting-pruned": {"epochs": 4},
    "ccs": {"epochs": 4},
    # Several visits of each sample in the scoring run.
    **{name: {"epochs": 16, "proxy_share": 0.5} for name in ("dyn-unc", "dual", "tdds")},
}


@pytest.fixture(scope="module")
def splits(data_root):
    loaded = {}
    for name in (*IMAGES, "points"):
        splits = load(name, root=data_root, limit=96, progress=False)
        test = splits.test.select(np.arange(40))
        known = fingerprint(splits.train, test)
        loaded[name] = dataclasses.replace(splits, test=test, fingerprint=known)
    return loaded


def run(config: RunConfig, splits) -> Run:
    made = Run(config, splits=splits)
    list(made)
    return made


def combinations() -> list[tuple[str, str, str, str]]:
    """Methods with all units, one of them on points and the others on images augmented in turn."""
    found, several = [], augment.names()
    for i, method in enumerate(METHODS):
        for j, unit in enumerate(BUDGET_UNITS):
            image = several[(i + i // 8 + 2 * j) % len(several)], IMAGES[(i // 4 + j) % 2]
            augmentation, dataset = ("standard", "points") if (i + j) % 4 == 0 else image
            found.append((method, augmentation, unit, dataset))
    return found


@pytest.mark.parametrize(("method", "augmentation", "unit", "dataset"), combinations())
def test_they_go_together(method, augmentation, unit, dataset, splits, tmp_path):
    settings = dict(
        dataset=dataset, method=method, augmentation=augmentation, budget_unit=unit, budget=0.5,
        epochs=2, batch_size=16, limit=96, precision="float32", out=str(tmp_path),
    ) | OPTIONS.get(method, {})  # fmt: skip
    config = RunConfig(**settings)
    try:
        summary = run(config, splits[dataset]).summary()
    except RunError as error:
        # How long a first step takes is not known beforehand; on a busy machine it can be longer
        # than a budget of milliseconds, and then the run must say so.
        proxied = "proxy_share" in methods.find(method).fields
        said = re.search("was spent before the first step|too rarely to score", str(error))
        if not (unit == "seconds" and proxied and said):
            raise
        return
    assert summary["status"] == "finished"
    assert 0 < summary["steps"] <= 3 * config.epochs or unit == "seconds"
    assert np.isfinite(summary["test_loss"])


@pytest.mark.parametrize("places", [(0, 2), (1, 2), (2, 3)])
def test_every_two_of_them_meet(places):
    counts = [len(METHODS), len(augment.names()), len(BUDGET_UNITS), len(IMAGES) + 1]
    met = {tuple(one[place] for place in places) for one in combinations()}
    assert len(met) == counts[places[0]] * counts[places[1]]


@pytest.mark.parametrize(
    ("augmentation", "credit", "fidelity"),
    [*itertools.product(("mixup", "ricap", "cutmix"), CREDITS, ["default"]),
     ("ricap", "dominant", "published")],
)  # fmt: skip
def test_credit_of_a_whole_run_adds_up(augmentation, credit, fidelity, splits, tmp_path):
    config = RunConfig(
        method="p-SGD", augmentation=augmentation, credit=credit, fidelity=fidelity, budget=0.5,
        epochs=2, batch_size=16, limit=96, precision="float32", out=str(tmp_path),
    )  # fmt: skip
    made = run(config, splits["shapes"])
    # One visit a row, whichever sample gets it.
    assert made.history.visits.sum().item() == pytest.approx(made.ledger.trained_samples)
    rows = made.history.times_trained.float()
    if credit == "row" or fidelity == "published":
        assert made.history.visits.tolist() == rows.tolist()
