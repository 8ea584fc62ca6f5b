"""Comparisons fixed before they are run: findings (a) to (g), the map, the league.

Every run is a preset (``scale-model``, or ``paper`` on a GPU) with the changes given here. In the
scale model, seed ``s`` also draws the training images (``data_seed = s``), so that intervals
over seeds include the choice of images.
"""

from collections.abc import Iterator
from typing import Any

from budgetlab.config import RunConfig, preset_settings

BUDGETS = (0.2, 0.3)
LENGTHS = (10, 30, 100, 300, 1000)
AUGMENTATIONS = ("none", "standard", "mixup", "cutmix", "ricap", "randaugment")
FLOPS = {"budget_unit": "flops"}
Setting = dict[str, Any]

FINDINGS: dict[str, list[Setting]] = {
    # (a) A fixed random subset against redrawing: random-subset against unif-SGD.
    "a": [{"method": "random-subset", "budget": b} for b in BUDGETS],
    # (b) The paper's methods at equal iterations, and selective backprop at equal flops too
    # (the others make no extra forward passes: both units give the same budget).
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
        *({"method": "p-SGD", "augmentation": a, "budget": 0.3} for a in AUGMENTATIONS),
        *({"augmentation": a, "budget": 1.0} for a in ("none", "standard", "ricap")),
    ],
    # (d) Credit under RICAP: p-SGD with the three rules.
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
          for s in ("linear", "cosine", "step", "rex")
          for h in ("budget", "full")),
        {"budget": 0.3, "schedule": "constant"},
        {"budget": 0.3, "warmup": 0.1},
    ],
    # (g) The same question with another optimiser.
    "g": [
        {"method": m, "budget": 0.3, "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.05}
        for m in ("unif-SGD", "p-SGD", "c-SGD")
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

NEWER: dict[str, Setting] = {
    "loss, balanced": {"method": "loss", "class_shares": "balanced"},
    "infobatch": {"method": "infobatch"},
    "seta": {"method": "seta"},
    "rho-loss, equal flops": {"method": "rho-loss", **FLOPS},
    **{f"{m}, equal flops": {"method": m, **FLOPS} for m in ("ccs", "dyn-unc", "dual", "tdds")},
}
"""Newer methods, in the four corners of the map only."""

CORNERS: list[Setting] = [
    {"redundancy": 0.0, "label_noise": 0.0},
    {"redundancy": 0.9, "label_noise": 0.0},
    {"redundancy": 0.0, "label_noise": 0.4},
    {"imbalance": 100.0, "label_noise": 0.0},
]
NEWER_MAP: list[Setting] = [
    corner | settings | {"budget": 0.3} for corner in CORNERS for settings in NEWER.values()
]

# The map comes from one network; the prediction is tested on two others: a plain one with a
# quarter of the weights, and a residual one.
NETWORKS = ("tiny", "resnet8")
NETWORK_SEEDS = 3
NETWORK_CELLS: list[Setting] = [
    *CORNERS,
    {"redundancy": 0.0, "label_noise": 0.1},
    {"imbalance": 100.0, "label_noise": 0.4},
]
OTHER_NETWORKS: list[Setting] = [
    {"model": network} | cell | settings | {"budget": 0.3}
    for network in NETWORKS
    for cell in NETWORK_CELLS
    for settings in ENTRIES.values()
]

# All other methods of the kit, at equal iterations and, if they score samples, at equal flops.
ONLY_TRAIN = ("loss", "infobatch", "seta", "rs2", "curriculum")
PRUNED = ("ccs", "dyn-unc", "dual", "tdds")
LOOK_OR_SCORE = ("top-k", "rho-loss", "grad-norm", "el2n-pruned", "forgetting-pruned", *PRUNED)
LEAGUE: list[Setting] = [
    *({"method": m, "budget": b} for b in BUDGETS for m in (*ONLY_TRAIN, *LOOK_OR_SCORE)),
    *({"method": m, "budget": b, **FLOPS} for b in BUDGETS for m in LOOK_OR_SCORE),
]
# The paper's methods under each augmentation; unif-SGD and p-SGD are in (c).
GRID: list[Setting] = [
    {"method": m, "augmentation": a, "budget": 0.3}
    for m in ("SGD", "c-SGD", "selective-backprop")
    for a in AUGMENTATIONS
    if a != "standard"
]
PARTS = FINDINGS | {
    "map": MAP, "league": LEAGUE, "grid": GRID, "newer": NEWER_MAP, "networks": OTHER_NETWORKS
}  # fmt: skip
"""Settings of every part, by its name."""


def entry(config: RunConfig) -> str:
    """Return the name of a run in :data:`ENTRIES` or :data:`NEWER`, else its method."""
    for name, settings in reversed((ENTRIES | NEWER).items()):
        if all(getattr(config, field) == value for field, value in settings.items()):
            return name
    return config.method


def runs(
    part: str, dataset: str, seed: int, preset: str = "scale-model", **common: Any
) -> Iterator[RunConfig]:
    """Return the configs of a part for one seed; ``paper`` has all images and one network only."""
    if part == "networks" and (preset != "scale-model" or seed >= NETWORK_SEEDS):
        return
    base = {"method": "unif-SGD", "augmentation": "standard"} | preset_settings(preset)
    base |= {"dataset": dataset, "seed": seed} | common
    at_scale = preset == "scale-model"
    if at_scale:
        base["data_seed"] = seed
    for settings in PARTS[part]:
        if at_scale or settings.get("epochs", 100) == 100:
            kept = {name: value for name, value in settings.items() if at_scale or name != "epochs"}
            yield RunConfig(**(base | kept))
