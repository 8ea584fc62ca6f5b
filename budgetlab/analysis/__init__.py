"""From records to answers: frames in and out, no torch.

>>> import budgetlab as bl
>>> print(bl.analysis.table(bl.analysis.compare("runs")))  # doctest: +SKIP
"""

from budgetlab.analysis.classes import (
    confusion,
    group_accuracy,
    groups_of_record,
    mean_accuracies,
)
from budgetlab.analysis.comparison import BASELINE, compare, results
from budgetlab.analysis.conditions import (
    COSTS,
    condition_columns,
    epochs,
    label,
    summaries,
    varying,
)
from budgetlab.analysis.gradients import embedding, grand
from budgetlab.analysis.learning import AXES, cost_to_reach, curves, frontier
from budgetlab.analysis.own_data import (
    VERDICTS,
    compare_augmentations,
    find_suspects,
    indices,
    suspects,
    triage,
)
from budgetlab.analysis.per_sample import (
    HARD,
    LEARNING,
    MEANINGS,
    PRUNING,
    aum_strata,
    described,
    hardness,
    measures,
)
from budgetlab.analysis.ranks import (
    agreement,
    detection,
    detection_curve,
    detection_over_time,
    measure_agreement,
    noise_cost,
    noisy_picks,
    run_agreement,
)
from budgetlab.analysis.samples import (
    calibration,
    class_share,
    coverage,
    credit_by_reference,
    effective_sample_size,
    entropy,
    gini,
    one_epoch,
    picks_by,
    quantiles,
    ranked_counts,
    sample_life,
    selection,
)
from budgetlab.analysis.statistics import (
    COMPARISON_VERDICTS,
    mean_interval,
    paired_difference,
    seeds_needed,
)
from budgetlab.analysis.tables import (
    ConditionTable,
    export,
    html,
    latex,
    markdown,
    readable,
    table,
)
from budgetlab.analysis.will_it_pay import Forecast, importance_map, pay_features, will_it_pay
from budgetlab.analysis.wrong_labels import (
    held_out_probabilities,
    label_quality,
    precision_and_recall,
    threshold_quality,
)
from budgetlab.records import RecordWarning as RecordWarning
from budgetlab.records import open_records as load

__all__ = [
    "AXES", "BASELINE", "COMPARISON_VERDICTS", "COSTS", "HARD", "LEARNING", "MEANINGS", "PRUNING",
    "VERDICTS", "ConditionTable", "Forecast", "agreement", "aum_strata", "calibration",
    "class_share", "compare", "compare_augmentations", "condition_columns", "confusion",
    "cost_to_reach", "coverage", "credit_by_reference", "curves", "described", "detection",
    "detection_curve", "detection_over_time", "effective_sample_size", "embedding", "entropy",
    "epochs", "export", "find_suspects", "frontier", "gini", "grand", "group_accuracy",
    "groups_of_record", "hardness", "held_out_probabilities", "html", "importance_map", "indices",
    "label", "label_quality", "latex", "load", "markdown", "mean_accuracies", "mean_interval",
    "measure_agreement", "measures", "noise_cost", "noisy_picks", "one_epoch", "paired_difference",
    "pay_features", "picks_by", "precision_and_recall", "quantiles", "ranked_counts", "readable",
    "results", "run_agreement", "sample_life", "seeds_needed", "selection", "summaries", "suspects",
    "table", "threshold_quality", "triage", "varying", "will_it_pay",
]  # fmt: skip
