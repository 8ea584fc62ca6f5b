"""Core sets: one small part of the training set, chosen once and trained on again and again."""

from collections.abc import Iterator

import torch
from torch import Tensor

from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Looker, ProxyPlan, Sampler, SamplerContext
from budgetlab.samplers.scores import replace_unseen

__all__ = ["EL2NPruned", "ForgettingPruned", "RandomSubset"]


class RandomSubset(Sampler):
    """A random part of the training set, drawn once: the baseline of every core set.

    ``subset_fraction`` of the samples (``auto``: the budget, so that every epoch of the
    full run is one pass over the subset) are trained on in shuffled passes. Classes are
    not balanced.
    """

    STATE = ("subset",)

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        config = context.config
        steps_per_epoch(self.size, config.budget, self.batch_size)
        given = config.subset_fraction
        share = config.budget if given == "auto" else float(given)
        self.count = samples_per_epoch(self.size, share)
        if self.count < self.batch_size:
            raise InputError(
                f"subset-fraction {share:g} of {self.size:,} samples is {self.count:,}, less than "
                f"one batch of {self.batch_size}: raise it or lower the batch size"
            )
        self.subset: Tensor | None = None

    def choose(self) -> Tensor:
        """Return the samples to train on, int64 ``[count]``."""
        return self.shuffled()[: self.count]

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield one pass over the subset."""
        if self.subset is None:
            self.subset = self.choose().sort().values
        self.probability = torch.zeros(self.size, device=self.device)
        self.probability[self.subset] = 1 / self.count
        order = torch.randperm(self.count, generator=self.generator, device=self.device)
        for indices in self.full_batches(self.subset[order]):
            yield Batch(indices)


class Pruned(RandomSubset):
    """Keep the hardest, by what a scoring run learns; subclasses implement :meth:`score`.

    The scoring run trains a network like that of the run (``proxy_model``) on the whole
    training set, in ``proxy_share`` of the budget, and is then thrown away. Samples that
    it never saw count as the hardest it saw; among equals the choice is random.
    """

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        self.proxy = ProxyPlan("training", small=False, losses=False)

    def score(self, history: History) -> Tensor:
        """Return the difficulty of each sample, ``[N]``, from the history of the scoring run."""
        raise NotImplementedError

    def choose(self) -> Tensor:
        """Run the scoring run and return the hardest samples."""
        history = self.run_proxy().history
        scores = replace_unseen(self.score(history).double(), history.seen)
        shuffled = self.shuffled()
        ranked = scores[shuffled].argsort(descending=True, stable=True)
        return shuffled[ranked[: self.count]]


class EL2NPruned(Pruned):
    """The part that a short scoring run gets most wrong, kept for good: EL2N.

    The mean of ``||softmax - onehot||_2`` over the visits of the scoring run (Paul et al.,
    *Deep Learning on a Data Diet*, NeurIPS 2021; there at one early epoch, over ten runs).
    """

    def score(self, history: History) -> Tensor:
        """Score the mean EL2N."""
        return history.el2n


class ForgettingPruned(Pruned):
    """The part that a short scoring run forgets most often or never learns, kept for good.

    The number of times a sample was right at one visit and wrong at the next (Toneva et
    al., *An Empirical Study of Example Forgetting during Deep Neural Network Learning*,
    ICLR 2019). Never learned is infinitely hard. It takes three passes or more to tell
    samples apart: raise ``proxy_share`` where the budget is small.
    """

    def score(self, history: History) -> Tensor:
        """Score forgetting events; infinity for what was never right."""
        return torch.where(history.never_learned, torch.inf, history.forgotten)
