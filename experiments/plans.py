"""What is compared, written down before it is run: the findings (a) to (f), and the map.

Every run is the preset ``scale-model`` but for what is named here. Seed ``s`` also draws the
training images (``data_seed = s``), so that an interval over seeds speaks of other images too.
"""

from collections.abc import Iterator
from typing import Any

from budgetlab import presets
from budgetlab.config import RunConfig

__all__ = ["ENTRIES", "FINDINGS", "LENGTHS", "MAP", "entry", "runs"]

BUDGETS = (0.2, 0.3)
LENGTHS = (10, 30, 100, 300, 1000)
AUGMENTATIONS = ("none", "standard", "mixup", "cutmix", "ricap", "randaugment")
FLOPS = {"budget_unit": "flops"}
Setting = dict[str, Any]

FINDINGS: dict[str, list[Setting]] = {
    # (a) A fixed random subset against redrawing: random-subset against unif-SGD.
    "a": [{"method": "random-subset", "budget": b} for b in BUDGETS],
    # (b) The paper's methods at equal iterations, and selective backprop at equal flops too
    # (the others only train, so that their iterations and flops are the same budget).
    "b": [
        *({"method": m, "budget": b}
          for b in BUDGETS
          for m in ("unif-SGD", "SGD", "p-SGD", "c-SGD", "selective-backprop")),
        *({"method": "selective-backprop", "budget": b, **FLOPS} for b in BUDGETS),
        *({"method": m, "budget": 1.0} for m in ("unif-SGD", "SGD")),
    ],
    # (c) Augmentations against the length of training: the crossing curve.
    "c": [
        *({"augmentation": a, "budget": 0.3, "epochs": e} for e in LENGTHS for a in AUGMENTATIONS),
        *({"augmentation": a, "budget": 1.0} for a in ("none", "standard", "ricap")),
    ],
    # (d) Whose credit under RICAP: p-SGD with the three rules.
    "d": [
        {"method": "p-SGD", "augmentation": "ricap", "budget": 0.3, "credit": rule}
        for rule in ("row", "dominant", "weighted")
    ],
    # (e) Smoothing and averaging of p-SGD: accuracy and entropy of the counts.
    "e": [
        {"method": "p-SGD", "budget": 0.3, "smoothing": smoothing, "averaging": averaging}
        for smoothing in (0.0, 1.0)
        for averaging in ("lifetime", "last")
    ],
    # (f) Schedules that know the budget against those that run over the full length.
    "f": [
        *({"budget": 0.3, "schedule": s, "schedule_horizon": h}
          for s in ("linear", "cosine", "step")
          for h in ("budget", "full")),
        {"budget": 0.3, "schedule": "constant"},
    ],
}  # fmt: skip

ENTRIES: dict[str, Setting] = {
    "unif-SGD": {"method": "unif-SGD"},
    "p-SGD": {"method": "p-SGD"},
    "p-SGD, sharp": {"method": "p-SGD", "smoothing": 0.1, "averaging": "last"},
    "c-SGD": {"method": "c-SGD"},
    "loss": {"method": "loss"},
    "loss, unbiased": {"method": "loss", "weights": "unbiased"},
    "selective-backprop, equal flops": {"method": "selective-backprop", **FLOPS},
}
"""What the map compares with its first entry, by the name that tables and figures show."""

NOISES = (0.0, 0.1, 0.2, 0.4)
CONDITIONS: list[Setting] = [
    *({"redundancy": r, "label_noise": n} for r in (0.0, 0.5, 0.75, 0.9) for n in NOISES),
    *({"imbalance": i, "label_noise": n} for i in (10.0, 100.0) for n in NOISES),
]
MAP: list[Setting] = [
    condition | settings | {"budget": 0.3}
    for condition in CONDITIONS
    for settings in ENTRIES.values()
]


def entry(config: RunConfig) -> str:
    """Name a run of the map as :data:`ENTRIES` does; the method's name for any other."""
    for name, settings in reversed(ENTRIES.items()):
        if all(getattr(config, field) == value for field, value in settings.items()):
            return name
    return config.method


def runs(part: str, dataset: str, seed: int, **common: Any) -> Iterator[RunConfig]:
    """Configs of one part for one seed: a letter of :data:`FINDINGS`, or ``map``."""
    base = {"method": "unif-SGD", "augmentation": "standard"} | presets.settings("scale-model")
    base |= {"dataset": dataset, "seed": seed, "data_seed": seed} | common
    for settings in MAP if part == "map" else FINDINGS[part]:
        yield RunConfig(**(base | settings))
