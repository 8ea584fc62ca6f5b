"""One function a question: a frame or a record in, matplotlib Axes out, no torch.

Every function takes ``ax=`` and returns the Axes; :func:`alt_text` says in words what
was drawn.
"""

from budgetlab.plots.groups import (
    class_share,
    credit_calibration,
    flagged_share,
    measure_vs_measure,
)
from budgetlab.plots.images import image_grid
from budgetlab.plots.learning import cost_ledger, differences, frontier, learning_curves
from budgetlab.plots.samples import (
    loss_distribution,
    probability_vs_loss,
    sample_life,
    sampling_probability,
    who_was_picked,
)
from budgetlab.plots.style import alt_text

__all__ = [
    "alt_text",
    "class_share",
    "cost_ledger",
    "credit_calibration",
    "differences",
    "flagged_share",
    "frontier",
    "image_grid",
    "learning_curves",
    "loss_distribution",
    "measure_vs_measure",
    "probability_vs_loss",
    "sample_life",
    "sampling_probability",
    "who_was_picked",
]
