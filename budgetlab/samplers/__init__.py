"""Every method: a generator of batches.

A sampler is asked for the batches of an epoch and yields them one by one. It sees
the :class:`~budgetlab.history.History` of every sample, and may ``look`` at samples
before it decides, which is charged. The training loop knows nothing else of it.

Write your own from a score in two lines::

    @bl.sampler("mine")
    def score(history):
        return 1 - history.confidence
"""

from budgetlab.samplers.base import (
    AugmentedBatch,
    Batch,
    ForwardResult,
    Looker,
    Sampler,
    SamplerContext,
)
from budgetlab.samplers.core_sets import EL2NPruned, ForgettingPruned, RandomSubset
from budgetlab.samplers.curriculum import Curriculum
from budgetlab.samplers.epoch_sampling import (
    RS2,
    SGD,
    ConfidenceSGD,
    LossSGD,
    ProbabilitySGD,
    UniformSGD,
)
from budgetlab.samplers.grad_norm import GradientNorm
from budgetlab.samplers.infobatch import InfoBatch
from budgetlab.samplers.proxy import ProxyPlan, ProxyRun
from budgetlab.samplers.registry import build, canonical, describe, lookup, names, sampler
from budgetlab.samplers.scores import ScoreSampler, replace_unseen, smooth
from budgetlab.samplers.selective import SelectiveBackprop, keep_probability
from budgetlab.samplers.top_k import RhoLoss, TopK
from budgetlab.samplers.weighted_sampling import (
    draw_without_replacement,
    inclusion_probability,
    simulated_inclusion,
    unbiased_weights,
)

__all__ = [
    "RS2",
    "SGD",
    "AugmentedBatch",
    "Batch",
    "ConfidenceSGD",
    "Curriculum",
    "EL2NPruned",
    "ForgettingPruned",
    "ForwardResult",
    "GradientNorm",
    "InfoBatch",
    "Looker",
    "LossSGD",
    "ProbabilitySGD",
    "ProxyPlan",
    "ProxyRun",
    "RandomSubset",
    "RhoLoss",
    "Sampler",
    "SamplerContext",
    "ScoreSampler",
    "SelectiveBackprop",
    "TopK",
    "UniformSGD",
    "build",
    "canonical",
    "describe",
    "draw_without_replacement",
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
