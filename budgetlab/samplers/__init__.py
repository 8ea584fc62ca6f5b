"""Every method: a generator of batches; from its name to its code, and how to add your own.

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
    build,
    from_module,
    lookup,
    sampler,
)
from budgetlab.samplers.candidates import keep_probability
from budgetlab.samplers.scores import (
    ScoreSampler,
    draw_without_replacement,
    inclusion_probability,
    replace_unseen,
    simulated_inclusion,
    smooth,
)

__all__ = [
    "Batch", "Forecast", "ForwardResult", "Looker", "ProxyPlan", "ProxyRun", "Sampler",
    "SamplerContext", "ScoreSampler", "build", "canonical", "describe",
    "draw_without_replacement", "from_module", "inclusion_probability", "keep_probability",
    "lookup", "names", "replace_unseen", "sampler", "simulated_inclusion", "smooth",
]  # fmt: skip
