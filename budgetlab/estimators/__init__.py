"""How good is a method's gradient? Its bias and variance against the full-batch gradient.

>>> moment = bl.estimators.Moment.of_run(run)  # doctest: +SKIP
>>> moment.distributions()  # exact formulas, draws with replacement  # doctest: +SKIP
>>> moment.methods(["unif-SGD", "p-SGD"])  # the methods as they are, simulated  # doctest: +SKIP
"""

from budgetlab.estimators.gradients import SampleGradients, sample_gradients
from budgetlab.estimators.moment import Moment
from budgetlab.estimators.quality import (
    Quality,
    best_distribution,
    of_estimates,
    possible_gain,
    with_replacement,
)

__all__ = [
    "Moment",
    "Quality",
    "SampleGradients",
    "best_distribution",
    "of_estimates",
    "possible_gain",
    "sample_gradients",
    "with_replacement",
]
