"""Sampling methods as generators of batches, their registry, and how to add your own.

A sampler yields the batches of an epoch one by one. It sees the
:class:`~budgetlab.history.History` of every sample, and may ``look`` at samples (run them forward,
which is charged) before it decides. The training loop knows nothing else of it.

A score makes a method of your own::

    @bl.sampler("mine")
    def score(history):
        return 1 - history.confidence

Everything else about a method is its entry in :mod:`budgetlab.methods`; ``lookup("p-SGD")``
returns its class.
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
