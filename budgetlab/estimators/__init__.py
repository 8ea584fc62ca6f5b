"""Quality of gradient estimates, and the influence of single samples.

>>> moment = bl.estimators.Moment.of_run(run)  # doctest: +SKIP
>>> moment.distributions()  # exact formulas, draws with replacement  # doctest: +SKIP
>>> moment.methods(["unif-SGD", "p-SGD"])  # the methods as they are, simulated  # doctest: +SKIP
"""

from budgetlab.estimators.gradients import (
    Quality,
    SampleGradients,
    best_distribution,
    influence,
    of_estimates,
    possible_gain,
    sample_gradients,
    self_influence,
    with_replacement,
)
from budgetlab.estimators.moment import Moment

__all__ = [
    "Moment", "Quality", "SampleGradients", "best_distribution", "influence", "of_estimates",
    "possible_gain", "sample_gradients", "self_influence", "with_replacement",
]  # fmt: skip
