"""One function a question: a frame or a record in, matplotlib Axes out, no torch.

Every function takes ``ax=`` and returns the Axes; :func:`alt_text` says in words what
was drawn.
"""

from budgetlab.plots.choices import (
    agreement_matrix,
    coverage,
    detection_curve,
    flagged_share,
    noisy_picks,
    picks_by,
)
from budgetlab.plots.gradients import gradient_errors, gradient_quality
from budgetlab.plots.groups import (
    class_accuracy,
    class_share,
    confusion,
    credit_calibration,
    measure_vs_measure,
)
from budgetlab.plots.images import image_grid, image_rows
from budgetlab.plots.learning import cost_ledger, differences, frontier, learning_curves
from budgetlab.plots.maps import budget_curves, crossing, importance_map
from budgetlab.plots.points import points_map
from budgetlab.plots.samples import (
    loss_distribution,
    probability_vs_loss,
    ranked_picks,
    sample_life,
    sampling_probability,
)
from budgetlab.plots.style import alt_text

__all__ = [
    "agreement_matrix",
    "alt_text",
    "budget_curves",
    "class_accuracy",
    "class_share",
    "confusion",
    "cost_ledger",
    "coverage",
    "credit_calibration",
    "crossing",
    "detection_curve",
    "differences",
    "flagged_share",
    "frontier",
    "gradient_errors",
    "gradient_quality",
    "image_grid",
    "image_rows",
    "importance_map",
    "learning_curves",
    "loss_distribution",
    "measure_vs_measure",
    "noisy_picks",
    "picks_by",
    "points_map",
    "probability_vs_loss",
    "ranked_picks",
    "sample_life",
    "sampling_probability",
]
