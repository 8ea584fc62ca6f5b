"""One function a question: a frame or a record in, matplotlib Axes out, no torch.

Every function takes ``ax=``, where to draw (a new figure by default), and returns the Axes;
:func:`alt_text` says in words what was drawn.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "choices": [
            "agreement_matrix",
            "coverage",
            "detection_curve",
            "flagged_share",
            "noisy_picks",
            "picks_by",
        ],
        "gradients": ["gradient_errors", "gradient_quality"],
        "groups": [
            "class_accuracy",
            "class_share",
            "confusion",
            "credit_calibration",
            "measure_vs_measure",
        ],
        "images": ["image_grid", "image_rows"],
        "learning": ["cost_ledger", "differences", "frontier", "learning_curves"],
        "maps": ["budget_curves", "crossing", "importance_map"],
        "points": ["points_map"],
        "samples": [
            "loss_distribution",
            "probability_vs_loss",
            "ranked_picks",
            "sample_life",
            "sampling_probability",
        ],
        "style": ["alt_text"],
    },
)
