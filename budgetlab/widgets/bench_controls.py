"""Grouped controls for the settings of a run, and one-line explanations of their effect."""

import dataclasses
from collections.abc import Callable
from typing import Any

import ipywidgets as W

from budgetlab import augment, data, models, samplers
from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.config import BUDGET_UNITS, PRESETS, RunConfig, preset_settings
from budgetlab.errors import unknown
from budgetlab.training.setup import canonical_names
from budgetlab.widgets.controls import LABEL, Number, choice, group, seed_box

MOST_EPOCHS, MOST_RUNS = 500, 20
KEEP = "as set"

# Default run of a bench: a few seconds on an ordinary computer.
QUICK = preset_settings("scale-model") | {"epochs": 12, "evaluate_every": 4, "budget": 0.3}
SIZES = {"dataset", "model", "limit", "epochs", "batch_size"}


def first_settings(settings: dict[str, Any], preset: str | None, own_data: bool) -> RunConfig:
    """Return the initial settings: given values over the preset, or over the quick default."""
    fields = [field.name for field in dataclasses.fields(RunConfig)]
    for name in settings:
        if name not in fields:
            raise unknown("setting", name, [*fields, "name", "records", "splits", "preset"])
    chosen: dict[str, Any] = {}
    if preset is not None:
        chosen = preset_settings(preset)
    elif not SIZES & set(settings) and not own_data:
        chosen = QUICK
    return canonical_names(RunConfig(**chosen | settings), own_data)


class RunControls(W.VBox):
    """Groups of controls for a run's data, method and budget.

    Initial values, and settings without a control, come from ``base``. ``on_change`` is called
    with the name of a changed setting. ``by_name`` maps settings to controls; ``repeats`` is the
    number of runs, with consecutive seeds; ``preset`` sets several settings at once.
    """

    def __init__(self, base: RunConfig, on_change: Callable[[str], None]):
        self.base = base
        names = [name for name in data.describe() if not name.endswith(":PATH")]
        dataset = W.Combobox(
            value=base.dataset, options=names, description="Data", style=LABEL,
            placeholder="name, folder:PATH or npz:PATH", continuous_update=False,
            layout=W.Layout(width="19em"),
        )  # fmt: skip
        self.by_name: dict[str, Any] = {
            "dataset": dataset,
            "method": choice("Method", samplers.names(), base.method),
            "augmentation": choice("Augmentation", augment.names(), base.augmentation),
            "model": choice("Model", models.names(), base.model, width="13em"),
            "budget": Number("Budget", base.budget, 0.01, 1.0, 0.01),
            "budget_unit": choice("Counted in", list(BUDGET_UNITS), base.budget_unit),
            "epochs": Number("Epochs", base.epochs, 1, max(MOST_EPOCHS, base.epochs), 1),
            "label_noise": Number("Label noise", base.label_noise, 0.0, 0.99, 0.01),
            "seed": seed_box(base.seed),
        }
        c = self.by_name
        self.repeats = Number("Runs", 1, 1, MOST_RUNS, 1)
        self.preset = choice("Preset", [KEEP, *PRESETS], KEEP)
        for name, control in (c | {"repeats": self.repeats, "preset": self.preset}).items():
            control.add_class(f"bl-{name.replace('_', '-')}")
            if control is not self.preset:
                control.observe(lambda _, name=name: on_change(name), "value")
        dataset.observe(self._fit_model, "value")
        self.preset.observe(lambda change: self.take(change["new"]), "value")
        # The seed is with the data because it draws the samples. Four rows fit a projector.
        groups = [
            group("Data", c["dataset"], c["label_noise"], c["seed"], self.repeats),
            group("Method", self.preset, c["method"], c["augmentation"], c["model"]),
            group("Budget", c["budget"], c["budget_unit"], c["epochs"]),
        ]
        layout = W.Layout(flex_flow="row wrap", align_items="flex-start")
        super().__init__([W.HBox(groups, layout=layout)])

    def _fit_model(self, change: dict) -> None:
        """Reset the model for 2-D points: a preset's network may only take images."""
        if change["new"].strip().startswith("points"):
            self.by_name["model"].value = "auto"

    def take(self, preset: str) -> None:
        """Apply a preset, including settings without a control."""
        if preset == KEEP:
            return
        values = preset_settings(preset)
        shown = {name: values.pop(name) for name in list(values) if name in self.by_name}
        self.base = self.base.replace(**values)
        for name, value in shown.items():
            self.by_name[name].value = value

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs to train in sequence."""
        first = self.by_name["seed"].value
        return list(range(first, first + self.repeats.value))

    @property
    def config(self) -> RunConfig:
        """Return the current settings; InputError if they are inconsistent."""
        values = {name: control.value for name, control in self.by_name.items()}
        return self.base.replace(**values | {"dataset": values["dataset"].strip()})


UNITS = {
    "iterations": "optimiser steps count: looking at samples is free",
    "samples": "every sample run through the network counts, trained on or only looked at",
    "flops": "computation counts: a look costs about a third of training on a sample",
    "seconds": "training time on this machine counts: the result depends on its speed",
}
DESCRIBED = {"dataset": data.describe, "method": samplers.describe, "model": models.describe,
             "augmentation": augment.describe}  # fmt: skip


def explain(name: str, config: RunConfig, size: int | None = None) -> str:
    """Explain the effect of a setting in one sentence; ``size`` is the training set's size.

    Raises InputError if the budget is too small for one batch.
    """
    value = getattr(config, name)
    if name in DESCRIBED:
        known = DESCRIBED[name]()
        text = known.get(value) or known.get(f"{str(value).partition(':')[0]}:PATH")
        return f"{value}: {text or 'not known yet; it is checked at the start'}."
    if name == "budget_unit":
        return f"Budget in {value}: {UNITS[value]}."
    if name == "label_noise":
        count = f"{round(value * size):,} of the {size:,}" if size else f"{100 * value:g}% of the"
        return (
            f"Label noise {value:g}: {count} training labels become wrong; test labels stay true."
        )
    if name == "seed":
        return (
            f"Seed {value}: another seed gives other initial weights and another order; the same "
            "one gives the same run."
        )
    share, epochs = config.budget, config.epochs
    said = f"Budget {share:g} of {epochs} epochs: "
    if size is None:
        return f"{said}{100 * share:g}% of the work of a full run."
    steps, full = (steps_per_epoch(size, part, config.batch_size) for part in (share, 1.0))
    return (
        f"{said}{samples_per_epoch(size, share):,} of {size:,} samples an epoch, "
        f"{epochs * steps:,} steps instead of {epochs * full:,}."
    )
