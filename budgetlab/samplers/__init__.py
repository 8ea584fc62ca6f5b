"""Every method: a generator of batches.

A sampler is asked for the batches of an epoch and yields them one by one. It sees
the :class:`~budgetlab.history.History` of every sample, and may ``look`` at samples
before it decides, which is charged. The training loop knows nothing else of it.

Write your own from a score in two lines::

    @bl.sampler("mine")
    def score(history):
        return 1 - history.confidence

What the kit knows of each method beside its code is its entry in
:mod:`budgetlab.methods`; ``lookup("p-SGD")`` gives the class.
"""

from budgetlab.methods import canonical, describe, names
from budgetlab.samplers.base import (
    Batch,
    Forecast,
    ForwardResult,
    Looker,
    ProxyPlan,
    ProxyRun,
    Sampler,
    SamplerContext,
)
from budgetlab.samplers.candidates import keep_probability
from budgetlab.samplers.registry import build, from_module, lookup, sampler
from budgetlab.samplers.scores import ScoreSampler, replace_unseen, smooth
from budgetlab.samplers.weighted_sampling import (
    draw_without_replacement,
    inclusion_probability,
    simulated_inclusion,
    unbiased_weights,
)

__all__ = [
    "Batch",
    "Forecast",
    "ForwardResult",
    "Looker",
    "ProxyPlan",
    "ProxyRun",
    "Sampler",
    "SamplerContext",
    "ScoreSampler",
    "build",
    "canonical",
    "describe",
    "draw_without_replacement",
    "from_module",
    "inclusion_probability",
    "keep_probability",
    "lookup",
    "names",
    "replace_unseen",
    "sampler",
    "simulated_inclusion",
    "smooth",
    "unbiased_weights",
]
