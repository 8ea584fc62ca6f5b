"""Settings that belong together, by one name: ``--preset scale-model``, ``--preset paper``."""

from collections.abc import Mapping
from typing import Any

from budgetlab.errors import known

__all__ = ["PRESETS", "describe", "settings"]

PRESETS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "scale-model": (
        "few images, many visits, a network that learns them by heart: seconds a run on one core",
        {
            "model": "compact",
            "limit": 1000,
            "epochs": 100,
            "batch_size": 32,
            "lr": 0.05,
            "weight_decay": 5e-4,
            "evaluate_every": 0,
        },
    ),
    "paper": (
        "the recipe of Arazo et al. (BMVC 2021): all images, ResNet-18, 200 epochs; for a GPU",
        {
            "model": "resnet18",
            "limit": 0,
            "epochs": 200,
            "batch_size": 128,
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "schedule": "linear",
            "alpha": 0.3,
            "randaugment_n": 2,
            "randaugment_m": 4,
            "evaluate_every": 10,
        },
    ),
}


def settings(name: str) -> dict[str, Any]:
    """Fields of :class:`budgetlab.RunConfig` that a preset sets; whoever gives one keeps it.

    Raises
    ------
    InputError
        If there is no such preset.
    """
    return dict(PRESETS[known("preset", name, PRESETS)][1])


def describe() -> dict[str, str]:
    """One line on each preset: what it is for, and all that it sets."""
    described = {}
    for name, (text, values) in PRESETS.items():
        sets = ", ".join(f"{field.replace('_', ' ')} {value}" for field, value in values.items())
        described[name] = f"{text}; sets {sets}"
    return described
