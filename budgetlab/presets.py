"""Settings: by keyword, typed and completed; and those that belong together, by one name."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict, TypeVar, get_type_hints

from budgetlab.config import RunConfig
from budgetlab.errors import known

__all__ = ["PRESETS", "Settings", "describe", "settings", "takes_settings"]

Function = TypeVar("Function", bound=Callable[..., Any])


class Settings(TypedDict, total=False):
    """What ``**settings`` takes, for editors and type checkers.

    A test compares it with :class:`budgetlab.RunConfig`, which says what each field is. Method
    and model are arguments of their own.
    """

    dataset: str
    augmentation: str
    budget: float
    budget_unit: str
    epochs: int
    batch_size: int
    lr: float
    optimiser: str
    momentum: float
    weight_decay: float
    schedule: str
    schedule_horizon: str
    warmup: float
    milestones: tuple[float, ...]
    alpha: float
    randaugment_n: int
    randaugment_m: int
    sb_beta: float | Literal["auto"]
    sb_staleness: int
    smoothing: float
    power: float
    weights: str
    class_shares: str
    keep_fraction: float
    presample: int
    grad_norm_threshold: float
    prune_fraction: float | Literal["auto"]
    subset_fraction: float | Literal["auto"]
    hard_cutoff: float
    proxy_share: float
    proxy_model: str
    holdout_fraction: float
    averaging: str
    credit: str
    fidelity: str
    label_noise: float
    noise_kind: str
    imbalance: float
    redundancy: float
    copies: int
    redundancy_kind: str
    image_size: int
    flip: str
    drop_copies: str
    edits: str
    extended: str
    data_name: str
    val_fraction: float
    evaluate_every: int
    limit: int
    data_seed: int
    seed: int
    device: str
    precision: str
    data_root: str
    out: str


def takes_settings(function: Function) -> Function:
    """Show the fields of :class:`RunConfig` in the signature of what takes ``**settings``.

    Notebooks complete names from it and show the defaults; nothing else changes.
    """
    own = inspect.signature(function)
    named = [part for part in own.parameters.values() if part.kind is not part.VAR_KEYWORD]
    taken, types = {part.name for part in named}, get_type_hints(RunConfig)
    fields = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=types[field.name],
        )
        for field in dataclasses.fields(RunConfig)
        if field.name not in taken
    ]
    function.__signature__ = own.replace(parameters=[*named, *fields])  # type: ignore[attr-defined]
    return function


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
