"""Every two of method, augmentation, kind of data and unit of budget: a few steps each."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from budgetlab import augment, methods, samplers
from budgetlab.config import BUDGET_UNITS, CREDITS, RunConfig
from budgetlab.data import load
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
        loaded[name] = dataclasses.replace(splits, test=splits.test.select(np.arange(40)))
    return loaded


def finishes(config: RunConfig, splits) -> dict | None:
    """Summary of a run; None where a few milliseconds were spent on its proxy alone.

    How long a first step takes is not known beforehand; on a busy machine it can be longer
    than such a budget, and then the run must say so.
    """
    try:
        summary = run(config, splits).summary()
    except RunError as error:
        proxied = "proxy_share" in methods.find(config.method).fields
        said = re.search("was spent before the first step|too rarely to score", str(error))
        if not (config.budget_unit == "seconds" and proxied and said):
            raise
        return None
    assert summary["status"] == "finished"
    return summary


def run(config: RunConfig, splits) -> Run:
    made = Run(config, splits=splits)
    list(made)
    return made


def pairs() -> list[tuple[str, str, str, str]]:
    """Every method with every augmentation; units and data so that each meets each of them.

    Eight augmentations in a row take each of four units with both kinds of images.
    """
    both = [(method, augmentation, i + j) for i, method in enumerate(METHODS)
            for j, augmentation in enumerate(augment.names())]  # fmt: skip
    images = [(m, a, BUDGET_UNITS[n % 4], IMAGES[n // 4 % 2]) for m, a, n in both]
    return images + [(m, "standard", BUDGET_UNITS[i % 4], "points") for i, m in enumerate(METHODS)]


@pytest.mark.parametrize(("method", "augmentation", "unit", "dataset"), pairs())
def test_they_go_together(method, augmentation, unit, dataset, splits, tmp_path):
    settings = dict(
        dataset=dataset, method=method, augmentation=augmentation, budget_unit=unit, budget=0.5,
        epochs=2, batch_size=16, limit=96, precision="float32", out=str(tmp_path),
    ) | OPTIONS.get(method, {})  # fmt: skip
    config = RunConfig(**settings)
    summary = finishes(config, splits[dataset])
    if summary is not None:
        assert 0 < summary["steps"] <= 3 * config.epochs or unit == "seconds"
        assert np.isfinite(summary["test_loss"])


@pytest.mark.parametrize("places", [(0, 1), (0, 2), (1, 2), (0, 3)])
def test_every_two_of_them_meet(places):
    counts = [len(METHODS), len(augment.names()), len(BUDGET_UNITS), len(IMAGES) + 1]
    met = {tuple(pair[place] for place in places) for pair in pairs()}
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
