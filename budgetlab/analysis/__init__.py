"""Analyse records: DataFrames in and out, without importing torch.

>>> import budgetlab as bl
>>> print(bl.analysis.table(bl.analysis.compare("runs")))  # doctest: +SKIP
"""

# ruff: noqa: F403
from typing import TYPE_CHECKING

import lazy_loader

from budgetlab.records import RecordWarning as RecordWarning
from budgetlab.records import open_records as load

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["AXES", "BASELINE", "compare", "cost_to_reach", "curves", "frontier",
                       "results"],
        "conditions": ["COSTS", "condition_columns", "epochs", "label", "summaries", "varying"],
        "gradients": ["embedding", "grand"],
        "groups": ["confusion", "group_accuracy", "groups_of_record", "mean_accuracies"],
        "own_data": ["VERDICTS", "compare_augmentations", "find_suspects", "indices", "suspects",
                     "triage"],
        "pay": ["Forecast", "importance_map", "pay_features", "will_it_pay"],
        "per_sample": ["HARD", "LEARNING", "MEANINGS", "PRUNING", "aum_strata", "described",
                       "hardness", "measures"],
        "ranks": ["agreement", "detection", "detection_curve",
                  "measure_agreement", "noise_cost", "noisy_picks", "run_agreement"],
        "samples": ["calibration", "class_share", "coverage", "credit_by_reference",
                    "effective_sample_size", "entropy", "gini", "one_epoch", "picks_by",
                    "quantiles", "ranked_counts", "sample_life", "selection"],
        "statistics": ["COMPARISON_VERDICTS", "mean_interval", "paired_difference",
                       "seeds_needed"],
        "tables": ["ConditionTable", "export", "html", "latex", "markdown", "readable", "table"],
        "wrong_labels": ["held_out_probabilities", "label_quality", "precision_and_recall",
                         "threshold_quality"],
    },
)  # fmt: skip
__all__ += ["load"]

if TYPE_CHECKING:  # lets editors and type checkers see the names
    from budgetlab.analysis.comparison import *
    from budgetlab.analysis.conditions import *
    from budgetlab.analysis.gradients import *
    from budgetlab.analysis.groups import *
    from budgetlab.analysis.own_data import *
    from budgetlab.analysis.pay import *
    from budgetlab.analysis.per_sample import *
    from budgetlab.analysis.ranks import *
    from budgetlab.analysis.samples import *
    from budgetlab.analysis.statistics import *
    from budgetlab.analysis.tables import *
    from budgetlab.analysis.wrong_labels import *
