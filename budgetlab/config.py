"""Run configuration: a frozen, validated dataclass, its fields as keywords, and presets."""

import dataclasses
import hashlib
import inspect
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypedDict, TypeVar, get_type_hints

from budgetlab.errors import InputError, known, unknown

__all__ = ["DATA_FIELDS", "PRESETS", "RunConfig", "Settings", "describe", "preset_settings",
           "takes_settings"]  # fmt: skip

# Allowed values that other modules use too.
BUDGET_UNITS = ("iterations", "samples", "flops", "seconds")
CREDITS = ("row", "dominant", "weighted")
FIDELITIES = ("default", "published")
PRECISIONS = ("auto", "float32", "bfloat16")
REDUNDANCY_KINDS = ("exact", "varied")
FLIPS = ("auto", "yes", "no")
DROP_COPIES_RULES = ("none", "exact", "near")
# Generic folder names, which tables prefix with the parent folder's.
GENERIC_FOLDER_NAMES = {"all", "data", "dataset", "datasets", "images", "imgs", "own", "photos",
                        "pictures", "raw", "train", "training", "x"}  # fmt: skip

# Names and paths, which cannot change the result.
PLACES = ("data_name", "data_root", "out")

# Fields that determine the data. ``Splits.settings`` holds their values for loaded data, and a run
# on that data records those values.
DATA_FIELDS = ("dataset", "data_seed", "limit", "val_fraction", "label_noise", "noise_kind",
               "imbalance", "redundancy", "copies", "redundancy_kind", "image_size", "flip",
               "drop_copies", "edits")  # fmt: skip

# Fields added later, with defaults that change nothing: a run that does not use them keeps its id.
# Such a default must never change.
ADDED = ("averaging", "class_shares", "copies", "data_name", "drop_copies", "edits",
         "evaluate_every", "extended", "flip", "grad_norm_threshold", "hard_cutoff",
         "holdout_fraction", "image_size", "keep_fraction", "optimiser", "power", "presample",
         "proxy_model", "proxy_share", "prune_fraction", "redundancy", "redundancy_kind",
         "schedule_horizon", "smoothing", "subset_fraction", "warmup", "weights")  # fmt: skip

# Field names in records older than version 0.2. Ids still use the old names, so runs keep theirs.
RENAMED = {"temperature": "power"}

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines the result of a run, and where it is written.

    The defaults follow the recipe of Arazo et al. (BMVC 2021) with fewer epochs. Names of methods,
    models, augmentations, schedules and data sets are validated when the run is built, all other
    values here: the annotation of a field lists its names or its interval, where a round bracket
    excludes the end. Raises InputError if a value is out of range; the message names the value and
    the range.
    """

    dataset: str = "shapes"
    """Data set: a built-in name, folder:PATH or npz:PATH."""
    model: str = "auto"
    """Network; auto picks by data and device and says which."""
    method: str = "unif-SGD"
    """Sampling method; on the command line also MODULE:METHOD, one of your own."""
    augmentation: str = "standard"
    """Augmentation of each image of a batch before training on it."""
    budget: Annotated[float, "(0, 1]"] = 0.3
    """Fraction of the full run that may be spent, in (0, 1], in whole batches of an epoch."""
    budget_unit: Annotated[str, BUDGET_UNITS] = "iterations"
    """What the budget counts: iterations, samples, flops or seconds."""
    epochs: Annotated[int, "[1, 100000]"] = 30
    """Epochs of the full run, of which the budget is a fraction."""
    batch_size: Annotated[int, "[1, 1000000]"] = 128
    """Samples in one optimiser step."""
    lr: Annotated[float, "(0, 1000000]"] = 0.1
    """Learning rate at the start."""
    optimiser: Annotated[str, ("sgd", "adamw")] = "sgd"
    """sgd, or adamw, which needs a learning rate about a hundred times lower."""
    momentum: Annotated[float, "[0, 1)"] = 0.9
    """Momentum of SGD, first beta of AdamW, in [0, 1)."""
    weight_decay: Annotated[float, "[0, 1000000]"] = 1e-4
    """L2 penalty on all weights; for AdamW decoupled from the gradient."""
    schedule: str = "linear"
    """Learning rate over the progress of the budget."""
    schedule_horizon: Annotated[str, ("budget", "full")] = "budget"
    """What the schedule runs over: the budget, or the full run, which a budget cuts short."""
    warmup: Annotated[float, "[0, 1)"] = 0.0
    """Share of what the schedule runs over in which the rate first rises from 0, in [0, 1)."""
    milestones: tuple[float, ...] = (0.5, 0.75)
    """Progress at which the step schedule divides the rate by ten."""
    alpha: Annotated[float, "(0, 1000000]"] = 0.3
    """Parameter of the Beta(alpha, alpha) of mixup, CutMix and RICAP."""
    randaugment_n: Annotated[int, "[0, 16]"] = 2
    """RandAugment: operations per image."""
    randaugment_m: Annotated[int, "[0, 30]"] = 4
    """RandAugment: magnitude, 0 to 30."""
    sb_beta: Annotated[float | Literal["auto"], "[0, 1000000]"] = "auto"
    """Selective backprop: power of the percentile; auto is 1/budget - 1."""
    sb_staleness: Annotated[int, "[1, 100000]"] = 1
    """Selective backprop: score again every n-th epoch."""
    smoothing: Annotated[float, "[0, 1000000]"] = 1.0
    """Methods that draw by a score: multiple of the mean score added to each; large is uniform."""
    power: Annotated[float, "[0, 100]"] = 1.0
    """Methods that draw by a score, grad-norm: exponent of it; 0 is uniform, large is greedy."""
    weights: Annotated[str, ("none", "unbiased")] = "none"
    """Methods that draw by a score: unbiased divides each loss by its chance of being drawn."""
    class_shares: Annotated[str, ("free", "kept", "balanced")] = "free"
    """Methods that draw by a score, core sets: free; kept as in the training set; or balanced."""
    keep_fraction: Annotated[float, "(0, 1]"] = 0.1
    """top-k and rho-loss: share of the candidates trained on; 1 is uniform."""
    presample: Annotated[int, "[1, 1000]"] = 3
    """grad-norm: candidates scored per sample trained on."""
    grad_norm_threshold: Annotated[float, "[0, 1000000]"] = 4 / 3
    """grad-norm: switched on while the estimated gain of choosing is above this."""
    prune_fraction: Annotated[float | Literal["auto"], "[0, 1)"] = "auto"
    """infobatch, seta: share of the well-learned, or of all, left out; auto follows the budget."""
    subset_fraction: Annotated[float | Literal["auto"], "(0, 1]"] = "auto"
    """random-subset and the pruned ones: share of the training set kept; auto is the budget."""
    hard_cutoff: Annotated[float, "[0, 1)"] = 0.1
    """ccs: share of the training set, its hardest samples, left out before selection, in [0, 1)."""
    proxy_share: Annotated[float, "(0, 1)"] = 0.2
    """rho-loss and the pruned ones: share of the budget for the network that scores."""
    proxy_model: str = "auto"
    """That network; auto is a small one for rho-loss, one like the run's own for the others."""
    holdout_fraction: Annotated[float, "(0, 1)"] = 0.1
    """rho-loss without a validation split: share of the training set held out for its proxy."""
    averaging: Annotated[str, ("lifetime", "last")] = "lifetime"
    """p-SGD and c-SGD: the mean of 1 - p_y over all visits (lifetime), or its last value (last)."""
    credit: Annotated[str, CREDITS] = "dominant"
    """Which sample a mixed image counts for: row, dominant or weighted."""
    fidelity: Annotated[str, FIDELITIES] = "default"
    """default, or published: what the paper's code does where it departs from its text."""
    label_noise: Annotated[float, "[0, 1)"] = 0.0
    """Share of the training labels made wrong, in [0, 1)."""
    noise_kind: Annotated[str, ("symmetric", "pair", "instance")] = "symmetric"
    """symmetric: any other class; pair: the next class; instance: a class that looks alike."""
    imbalance: Annotated[float, "[1, 1000000]"] = 1.0
    """Size of the most frequent training class over the least frequent, at least 1."""
    redundancy: Annotated[float, "[0, 1)"] = 0.0
    """Share of the training set made up of copies of a few of its images, in [0, 1)."""
    copies: Annotated[int, "[1, 1000000000]"] = 15
    """Number of copies of each image that is copied."""
    redundancy_kind: Annotated[str, REDUNDANCY_KINDS] = "exact"
    """exact: the same values; varied: moved by a pixel or so, brighter or darker."""
    val_fraction: Annotated[float, "[0, 1)"] = 0.0
    """Share of the training set held out for validation, in [0, 1)."""
    evaluate_every: Annotated[int, "[0, 100000]"] = 1
    """Evaluate on held-out data after every n-th epoch and the last one; 0 is only the last."""
    limit: Annotated[int, "[0, 1000000000000]"] = 0
    """Use only this many training samples; 0 is all."""
    image_size: int = 0
    """Side of the images of folder:, in pixels; 0 keeps small ones as they are, others get 32."""
    flip: Annotated[str, FLIPS] = "auto"
    """Whether images may be mirrored: yes, no, or auto, by the data set and its classes."""
    drop_copies: Annotated[str, DROP_COPIES_RULES] = "none"
    """Training images left out as copies of others: none, exact, or near (which look the same)."""
    edits: str = ""
    """Table of samples to drop, relabel or mark, a CSV file; see budgetlab.data.Edits."""
    data_name: str = ""
    """What tables and records call the data; by default its folder or file."""
    data_seed: Annotated[int, "[0, 9223372036854775807]"] = 0
    """Seed of the data: generation, limit, split, label noise."""
    seed: Annotated[int, "[0, 9223372036854775807]"] = 0
    """Seed of the run: initial weights, order, augmentation."""
    extended: str = ""
    """Set by resume --epochs, never by hand: lengths the run had before, such as 10+20."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps, the GPU of a Mac."""
    precision: Annotated[str, PRECISIONS] = "auto"
    """auto, float32 or bfloat16; auto is bfloat16 where the hardware has it."""
    data_root: str = "data"
    """Folder for downloads and caches."""
    out: str = "runs"
    """Folder in which the record is written."""

    def __post_init__(self) -> None:
        for name, allowed in ALLOWED.items():
            object.__setattr__(self, name, _validated(name, allowed, getattr(self, name)))
        for name in ("data_root", "out"):
            object.__setattr__(self, name, os.path.expanduser(getattr(self, name)))
        if self.image_size and not 8 <= self.image_size <= 1024:
            raise InputError(
                f"image-size {self.image_size} is not allowed: give 8 to 1024 pixels, or 0"
            )
        for milestone in self.milestones:
            if not 0 < milestone < 1:
                raise InputError(f"milestone {milestone} is not allowed: give shares in (0, 1)")

    @property
    def id(self) -> str:
        """Ten hex digits, a hash of every field that determines the result.

        It is the same on every machine, and independent of :data:`PLACES` and of any field of
        :data:`ADDED` at its default.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        before = {new: old for old, new in RENAMED.items()}
        fields = {
            before.get(key, key): value
            for key, value in self.to_dict().items()
            if key not in PLACES and not (key in ADDED and value == defaults[key])
        }
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def dataset_name(self) -> str:
        """Short name for tables: the given one, or the last part of a path.

        A generic name, such as ``images``, is prefixed with its parent folder's.
        """
        kind, _, path = self.dataset.partition(":")
        if self.data_name or kind not in ("folder", "npz") or not path:
            return self.data_name or self.dataset
        place = PurePath(path)
        name = place.stem if kind == "npz" else place.name
        around = place.parent.name if name.lower() in GENERIC_FOLDER_NAMES else ""
        return f"{around}/{name}" if around else name

    @property
    def folder_name(self) -> str:
        """Name of the record's folder: readable, and made unique by the id."""
        kind, _, path = self.dataset.partition(":")
        own = PurePath(path).stem if kind in ("folder", "npz") and path else self.dataset
        readable = f"{self.data_name or own}-{self.method}-{self.augmentation}-b{self.budget:g}"
        safe = "".join(c if c.isalnum() or c in "-._" else "_" for c in readable)
        # File systems count bytes, and a letter may take four.
        short = safe.encode()[:120].decode(errors="ignore")
        return f"{short}-s{self.seed}-{self.id}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        values = dataclasses.asdict(self)
        return values | {"milestones": list(self.milestones)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """Build from plain values; an unknown field is an InputError."""
        known = [field.name for field in dataclasses.fields(cls)]
        values = {RENAMED.get(name, name): value for name, value in values.items()}
        for name in values:
            if name not in known:
                raise unknown("setting", name, known)
        return cls(**values)

    def replace(self, **changes: Any) -> "RunConfig":
        """Return a copy with some fields changed, validated again."""
        return self.from_dict({**dataclasses.asdict(self), **changes})


# Allowed values of each field: names, an interval, or None for any.
ALLOWED = {
    name: next(iter(getattr(hint, "__metadata__", ())), None)
    for name, hint in get_type_hints(RunConfig, include_extras=True).items()
}


def _validated(name: str, allowed: tuple[str, ...] | str | None, value: Any) -> Any:
    """Convert a value to the plain type of its field, or raise an InputError."""
    default = RunConfig.__dataclass_fields__[name].default
    automatic = default == "auto" and isinstance(allowed, str)
    if automatic and str(value).lower() == "auto":
        return "auto"
    if automatic and isinstance(value, str):
        shown = f"{name.replace('_', '-')} {value!r}"
        raise InputError(f"{shown} is not allowed: give a number in {allowed}, or auto")
    value = _coerced(name.replace("_", "-"), float if automatic else type(default), value)
    if isinstance(allowed, tuple):
        return known(name.replace("_", " "), value, allowed)
    if allowed is not None and not _is_within(value, allowed):
        raise InputError(
            f"{name.replace('_', '-')} {value} is not allowed: give a number in {allowed}"
        )
    return value


def _is_within(value: float, allowed: str) -> bool:
    low, high = (int(end) for end in allowed[1:-1].split(", "))
    above = value > low if allowed[0] == "(" else value >= low
    below = value < high if allowed[-1] == ")" else value <= high
    return math.isfinite(value) and above and below


def _coerced(flag: str, kind: type, value: Any) -> Any:
    try:
        if kind is tuple:
            return tuple(float(part) for part in value)
        if kind is str:
            if not isinstance(value, str) and not hasattr(value, "__fspath__"):
                raise TypeError
            if "\0" in str(value) and flag in ("out", "data-root"):
                raise TypeError
            return str(value)
        if isinstance(value, bool | str) or (kind is int and value != int(value)):
            raise TypeError
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        wanted = {int: "a whole number", float: "a number", str: "a text", tuple: "numbers"}[kind]
        wanted += " without null characters" * ("\0" in str(value))
        raise InputError(f"{flag} {value!r} is not allowed: give {wanted}") from None


# Keywords of ``**settings``, for editors and type checkers; a test compares them with RunConfig,
# which documents each field. Method and model are separate arguments.
Settings = TypedDict("Settings", {  # noqa: UP013
    "dataset": str, "augmentation": str, "budget": float, "budget_unit": str, "epochs": int,
    "batch_size": int, "lr": float, "optimiser": str, "momentum": float, "weight_decay": float,
    "schedule": str, "schedule_horizon": str, "warmup": float, "milestones": tuple[float, ...],
    "alpha": float, "randaugment_n": int, "randaugment_m": int, "sb_beta": float | Literal["auto"],
    "sb_staleness": int, "smoothing": float, "power": float, "weights": str, "class_shares": str,
    "keep_fraction": float, "presample": int, "grad_norm_threshold": float,
    "prune_fraction": float | Literal["auto"], "subset_fraction": float | Literal["auto"],
    "hard_cutoff": float, "proxy_share": float, "proxy_model": str, "holdout_fraction": float,
    "averaging": str, "credit": str, "fidelity": str, "label_noise": float, "noise_kind": str,
    "imbalance": float, "redundancy": float, "copies": int, "redundancy_kind": str,
    "image_size": int, "flip": str, "drop_copies": str, "edits": str, "extended": str,
    "data_name": str, "val_fraction": float, "evaluate_every": int, "limit": int,
    "data_seed": int, "seed": int, "device": str, "precision": str, "data_root": str, "out": str,
}, total=False)  # fmt: skip


def takes_settings(function: Function) -> Function:
    """Show the fields of :class:`RunConfig` in a function's signature, to complete in notebooks."""
    own, types = inspect.signature(function), get_type_hints(RunConfig)
    named = [part for part in own.parameters.values() if part.kind is not part.VAR_KEYWORD]
    fields = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default,
                          annotation=types[name])
        for name, field in RunConfig.__dataclass_fields__.items()
        if name not in own.parameters
    ]  # fmt: skip
    function.__signature__ = own.replace(parameters=[*named, *fields])  # type: ignore[attr-defined]
    return function


# Presets: the purpose of each, and the fields it sets.
PRESETS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "scale-model": (
        "few images, many visits, a network that learns them by heart: seconds a run on one core",
        {"model": "compact", "limit": 1000, "epochs": 100, "batch_size": 32, "lr": 0.05,
         "weight_decay": 5e-4, "evaluate_every": 0},
    ),
    "paper": (
        "the recipe of Arazo et al. (BMVC 2021): all images, ResNet-18, 200 epochs; for a GPU",
        {"model": "resnet18", "limit": 0, "epochs": 200, "batch_size": 128, "lr": 0.1,
         "momentum": 0.9, "weight_decay": 1e-4, "schedule": "linear", "alpha": 0.3,
         "randaugment_n": 2, "randaugment_m": 4, "evaluate_every": 10},
    ),
}  # fmt: skip


def preset_settings(name: str) -> dict[str, Any]:
    """Return the :class:`RunConfig` fields that a preset sets; explicit settings override them.

    Raises InputError if the preset does not exist.
    """
    return dict(PRESETS[known("preset", name, PRESETS)][1])


def describe() -> dict[str, str]:
    """Describe each preset in one line: its purpose and all fields it sets."""
    described = {}
    for name, (text, values) in PRESETS.items():
        sets = ", ".join(f"{field.replace('_', ' ')} {value}" for field, value in values.items())
        described[name] = f"{text}; sets {sets}"
    return described
