"""Every method: a generator of batches.

A sampler is asked for the batches of an epoch and yields them one by one. It sees
the :class:`~budgetlab.history.History` of every sample, and may ``look`` at samples
before it decides, which is charged. The training loop knows nothing else of it.

Write your own from a score in two lines::

    @bl.sampler("mine")
    def score(history):
        return 1 - history.confidence
"""

from budgetlab.samplers.base import Batch, Look, Looker, Sampler, Setup, View
from budgetlab.samplers.draw_ahead import RS2, SGD, ConfidenceSGD, ProbabilitySGD, UniformSGD
from budgetlab.samplers.races import draw_without_replacement
from budgetlab.samplers.registry import build, canonical, describe, lookup, names, sampler
from budgetlab.samplers.scores import ScoreSampler, replace_unseen, smooth
from budgetlab.samplers.selective import SelectiveBackprop, keep_probability

__all__ = [
    "RS2",
    "SGD",
    "Batch",
    "ConfidenceSGD",
    "Look",
    "Looker",
    "ProbabilitySGD",
    "Sampler",
    "ScoreSampler",
    "SelectiveBackprop",
    "Setup",
    "UniformSGD",
    "View",
    "build",
    "canonical",
    "describe",
    "draw_without_replacement",
    "keep_probability",
    "lookup",
    "names",
    "replace_unseen",
    "sampler",
    "smooth",
]
