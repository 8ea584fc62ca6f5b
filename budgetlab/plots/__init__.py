"""Plot functions, one per question: a frame or a record in, matplotlib Axes out, no torch.

Every function draws on ``ax`` (a new figure by default) and returns the Axes; :func:`alt_text`
describes them in words. In functions that compare conditions, ``value`` is the metric, such as
``test_accuracy`` or ``test_loss``, and ``keys`` names the columns that define a condition (by
default, the run settings in the frame). A missing column raises :class:`~budgetlab.InputError`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "choices": ["coverage", "credit_calibration", "detection_curve", "flagged_share",
                    "noisy_picks", "picks_by", "ranked_picks"],
        "images": ["image_grid", "image_rows", "points_map"],
        "learning": ["budget_curves", "crossing", "frontier", "gradient_quality",
                     "learning_curves"],
        "maps": ["agreement_matrix", "class_share", "confusion", "importance_map"],
        "rows": ["class_accuracy", "cost_ledger", "differences", "gradient_errors"],
        "samples": ["loss_distribution", "measure_vs_measure", "probability_vs_loss",
                    "sample_life", "sampling_probability"],
        "style": ["alt_text"],
    },
)  # fmt: skip
