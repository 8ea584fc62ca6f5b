"""How good is a method's gradient? Its bias and variance against the full-batch gradient.

>>> moment = bl.estimators.Moment.of_run(run)  # doctest: +SKIP
>>> moment.distributions()  # exact formulas, draws with replacement  # doctest: +SKIP
>>> moment.methods(["unif-SGD", "p-SGD"])  # the methods as they are, simulated  # doctest: +SKIP
"""

from budgetlab.estimators.gradients import (
    Quality,
    SampleGradients,
    best_distribution,
    of_estimates,
    possible_gain,
    sample_gradients,
    with_replacement,
)
from budgetlab.estimators.moment import Moment

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
