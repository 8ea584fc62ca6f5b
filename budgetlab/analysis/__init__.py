"""From records to answers: frames in and out, no torch."""

from budgetlab.analysis.compare import BASELINES, compare, mean_interval, paired_difference
from budgetlab.analysis.frames import COSTS, RecordWarning, epochs, load, summaries
from budgetlab.analysis.tables import export, latex, markdown, readable, table

__all__ = [
    "BASELINES",
    "COSTS",
    "RecordWarning",
    "compare",
    "epochs",
    "export",
    "latex",
    "load",
    "markdown",
    "mean_interval",
    "paired_difference",
    "readable",
    "summaries",
    "table",
]
