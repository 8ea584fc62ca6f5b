"""The settings of a run as controls, and back."""

from collections.abc import Callable
from typing import Any

import ipywidgets as W

from budgetlab import augment, data, models, samplers
from budgetlab.config import BUDGET_UNITS, RunConfig
from budgetlab.widgets.controls import LABEL, Number, choice, row

__all__ = ["RunControls"]

MOST_EPOCHS = 500


class RunControls(W.VBox):
    """Data, method, augmentation, budget, length, model, seed and label noise of a run.

    Parameters
    ----------
    base
        The first values; settings without a control stay as they are here.
    on_change
        Called with the name of a setting after it was changed.

    Attributes
    ----------
    by_name
        Each control, by the name of its setting; set its ``value``.
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
            "budget_unit": choice("counted in", list(BUDGET_UNITS), base.budget_unit),
            "epochs": Number("Epochs", base.epochs, 1, max(MOST_EPOCHS, base.epochs), 1),
            "label_noise": Number("Label noise", base.label_noise, 0.0, 0.99, 0.01),
            "seed": W.BoundedIntText(
                value=base.seed, min=0, max=2**31 - 1, description="Seed", style=LABEL,
                layout=W.Layout(width="9em"),
            ),
        }  # fmt: skip
        for name, control in self.by_name.items():
            control.add_class(f"bl-{name.replace('_', '-')}")
            if isinstance(control, Number):
                control.on_change(lambda name=name: on_change(name))  # type: ignore[misc]
            else:
                control.observe(lambda _, name=name: on_change(name), "value")
        c = self.by_name
        super().__init__(
            [
                row(c["dataset"], c["method"], c["augmentation"]),
                row(c["budget"], c["budget_unit"], c["epochs"]),
                row(c["model"], c["seed"], c["label_noise"]),
            ]
        )

    @property
    def config(self) -> RunConfig:
        """The run as it is set.

        Raises
        ------
        InputError
            If the values do not fit together.
        """
        values = {name: control.value for name, control in self.by_name.items()}
        return self.base.replace(**values | {"dataset": values["dataset"].strip()})
