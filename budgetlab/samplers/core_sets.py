"""Core sets: a small subset of the training set, selected once and trained on repeatedly."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.errors import InputError, RunError
from budgetlab.history import History, Trajectory
from budgetlab.samplers.base import Batch, Looker, ProxyPlan, Sampler, SamplerContext
from budgetlab.samplers.scores import (
    class_pools,
    draw_without_replacement,
    even_counts,
    replace_unseen,
)

WINDOW = 10


class RandomSubset(Sampler):
    """A random subset of the training set, drawn once: the baseline of every core set.

    ``subset_fraction`` of the samples (``auto``: the budget, so that every epoch of the full run is
    one pass over the subset) are trained on in shuffled passes. The share of each class in it is
    random unless ``class_shares`` sets it.
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
        self.epoch_steps = self.count // self.batch_size
        self.pools = class_pools(context, self.count)
        self.subset: Tensor | None = None

    def choose(self) -> Tensor:
        """Return the samples to train on, int64 ``[count]``."""
        return torch.cat([self.select(*one) for one in self.pools])

    def select(self, pool: Tensor, count: int) -> Tensor:
        """Select ``count`` of the samples int64 ``[M]``."""
        return pool[self._shuffle(len(pool))[:count]]

    def _shuffle(self, size: int) -> Tensor:
        return torch.randperm(size, generator=self.generator, device=self.device)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield one pass over the subset."""
        if self.subset is None:
            self.subset = self.choose().sort().values
        self.probability = torch.zeros(self.size, device=self.device)
        self.probability[self.subset] = 1 / self.count
        for indices in self.full_batches(self.subset[self._shuffle(self.count)]):
            yield Batch(indices)


class Pruned(RandomSubset):
    """Keep the samples that a scoring run finds hardest; subclasses implement :meth:`score`.

    The scoring run trains a network like that of the run (``proxy_model``) on the whole training
    set, within ``proxy_share`` of the budget, and is then discarded. Samples it never saw rank with
    the hardest it saw; ties are broken at random.
    """

    trajectory = False
    """Whether scores use windows of visits, which a plain History does not keep."""

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        self.proxy = ProxyPlan("training", small=False, losses=False, trajectory=self.trajectory)
        self.scores: Tensor | None = None

    def score(self, history: Any) -> Tensor:
        """Return the difficulty of each sample, ``[N]``, from the history of the scoring run."""
        raise NotImplementedError

    def choose(self) -> Tensor:
        """Train the scoring run and select by its scores."""
        history = self.run_proxy().history
        if self.trajectory and not isinstance(history, Trajectory):
            raise InputError(
                f"method '{self.context.config.method}' scores windows of visits: give a proxy "
                "whose history is a bl.history.Trajectory"
            )
        scores = self.score(history).double()
        known = history.seen & ~scores.isnan()
        if not bool(known.any()):
            raise RunError(
                f"the scoring run of method '{self.context.config.method}' saw each sample too "
                "rarely to score it: raise --proxy-share, --budget or --epochs"
            )
        self.scores = replace_unseen(scores, known)
        return super().choose()

    def select(self, pool: Tensor, count: int) -> Tensor:
        """Select the hardest samples of a pool; ties are broken at random."""
        assert self.scores is not None
        shuffled = pool[self._shuffle(len(pool))]
        ranked = self.scores[shuffled].argsort(descending=True, stable=True)
        return shuffled[ranked[:count]]


class EL2NPruned(Pruned):
    """The samples that a short scoring run gets most wrong: EL2N.

    The score is the mean of ``||softmax - onehot||_2`` over the visits of the scoring run (Paul et
    al., *Deep Learning on a Data Diet*, NeurIPS 2021; there at one early epoch, over ten runs).
    """

    def score(self, history: History) -> Tensor:
        """Return the mean EL2N."""
        return history.el2n


class ForgettingPruned(Pruned):
    """The samples that a short scoring run forgets most often or never learns.

    The score is the number of times a sample was right at one visit and wrong at the next (Toneva
    et al., *An Empirical Study of Example Forgetting during Deep Neural Network Learning*, ICLR
    2019), infinite if never learned. Telling samples apart takes three passes or more: raise
    ``proxy_share`` if the budget is small.
    """

    def score(self, history: History) -> Tensor:
        """Return the forgetting events; infinity for samples that were never right."""
        return torch.where(history.never_learned, torch.inf, history.forgotten)


class CoverageCentric(Pruned):
    """A subset that covers easy and hard samples, without the very hardest: CCS.

    Zheng et al., *Coverage-centric Coreset Selection for High Pruning Rates*, ICLR 2023, algorithm
    1, with the area under the margin (AUM) as the authors recommend. The share ``hard_cutoff`` of
    lowest AUM is left out, because many of its labels are wrong (the authors use 0 to 0.3, more for
    smaller subsets). The rest is divided into 50 ranges of AUM of equal width, from which equally
    many samples are drawn at random.
    """

    STRATA = 50

    def score(self, history: History) -> Tensor:
        """Return the negative AUM."""
        return -history.mean_margin

    def select(self, pool: Tensor, count: int) -> Tensor:
        """Leave out the hardest samples of a pool, and draw evenly from all ranges of the rest."""
        assert self.scores is not None
        easiest_first = self.scores[pool].argsort(stable=True)
        hardest = samples_per_epoch(len(pool), self.context.config.hard_cutoff)
        left_out = min(hardest, len(pool) - count)
        pool = pool[easiest_first[: len(pool) - left_out]]
        scores = self.scores[pool]
        low, width = scores.min(), (scores.max() - scores.min()).clamp(min=1e-300)
        strata = ((scores - low) / width * self.STRATA).long().clamp(max=self.STRATA - 1)
        counts = even_counts(torch.bincount(strata, minlength=self.STRATA).cpu(), count)
        parts = [(pool[strata == number], int(n)) for number, n in enumerate(counts)]
        return torch.cat([super(Pruned, self).select(*part) for part in parts])


class DynamicUncertainty(Pruned):
    """The samples whose predictions vary most in a scoring run: Dyn-Unc.

    The score is the standard deviation of ``p_y`` within windows of ten epochs, averaged over all
    windows (He et al., *Large-scale Dataset Pruning with Dynamic Uncertainty*, CVPR 2024). A
    scoring run of fewer epochs has one window; scoring a sample takes two visits or more.
    """

    trajectory = True

    def score(self, history: Trajectory) -> Tensor:
        """Return the mean deviation within a window."""
        return torch.stack([_deviation(w) for w in _windows(history.p_y)]).nanmean(0)


class DifficultyAndUncertainty(Pruned):
    """Samples both uncertain and hard early on, with easier ones as the subset shrinks: DUAL.

    The score is the standard deviation of ``p_y`` times one minus its mean, averaged over windows
    of ten of the first 30 epochs (Cho et al., *Lightweight Dataset Pruning without Full Training
    via Example Difficulty and Prediction Uncertainty*, 2025, arXiv 2502.06905). The subset is drawn
    without replacement by this score times the density of a Beta(a, b) at the mean ``p_y`` of the
    sample: with ``m`` the mean ``p_y`` of the ten highest scores and ``r`` the share left out,
    ``b = 15 (1 - m) (1 - r^4)`` and ``a = 16 - b``.
    """

    trajectory = True
    EPOCHS, ANCHORS, POWER, CONCENTRATION = 30, 10, 4, 16

    def score(self, history: Trajectory) -> Tensor:
        """Return uncertainty times difficulty."""
        p_y = history.p_y[: self.EPOCHS]
        windows = [_deviation(w) * (1 - w.nanmean(0)) for w in _windows(p_y)]
        self.mean_p_y = p_y.nanmean(0).nan_to_num(0.5).double()
        return torch.stack(windows).nanmean(0)

    def select(self, pool: Tensor, count: int) -> Tensor:
        """Draw from a pool by score times the Beta density at the mean ``p_y``."""
        assert self.scores is not None
        scores, mean = self.scores[pool], self.mean_p_y[pool]
        anchor = mean[scores.topk(min(self.ANCHORS, len(pool))).indices].mean()
        left_out = 1 - count / len(pool)
        b = (self.CONCENTRATION - 1) * (1 - anchor) * (1 - left_out**self.POWER)
        b = b.clamp(1e-3, self.CONCENTRATION - 1e-3)
        beta = torch.distributions.Beta(self.CONCENTRATION - b, b)
        density = beta.log_prob(mean.clamp(1e-6, 1 - 1e-6)).exp()
        return pool[draw_without_replacement(scores * density, count, self.generator)]


class TemporalDualDepth(Pruned):
    """The samples whose contribution to training varies most, late epochs first: TDDS.

    From visit to visit a sample contributes ``d_t = sum_c |p_c ln(p_c / p'_c)|``, with ``p'`` the
    previous softmax. Within windows of ten epochs the norm of ``d_t`` minus its mean measures how
    much it varies; the windows are averaged with weights ``0.9 (0.1)^k``, ``k`` counted back from
    the last (Zhang et al., *Spanning Training Progress: Temporal Dual-Depth Scoring for Enhanced
    Dataset Pruning*, CVPR 2024). Scoring a sample takes three visits or more.
    """

    trajectory = True
    DECAY = 0.9

    def score(self, history: Trajectory) -> Tensor:
        """Return the weighted deviation of the contributions."""
        # A window of J visits has J - 1 steps between them; before the first there is none.
        windows = _windows(history.shift[1:], WINDOW - 1) if len(history.shift) > 1 else []
        total = torch.full_like(history.visits, torch.nan)
        for back, window in enumerate(reversed(windows)):
            known = (~window.isnan()).sum(0)
            lengths = _deviation(window) * (known - 1).clamp(min=0).sqrt()
            weighted = self.DECAY * (1 - self.DECAY) ** back * lengths
            total = torch.where(weighted.isnan(), total, total.nan_to_num() + weighted)
        return total


def _windows(values: Tensor, length: int = WINDOW) -> list[Tensor]:
    """Return every window of ``length`` rows of ``[T, N]``; all rows if there are fewer."""
    count = max(len(values) - length + 1, 1)
    return [values[start : start + length] for start in range(count)]


def _deviation(window: Tensor) -> Tensor:
    """Return each column's sample standard deviation without NaN; NaN for fewer than two values."""
    count = (~window.isnan()).sum(0)
    squares = (window - window.nanmean(0)).square().nansum(0)
    return torch.where(count > 1, (squares / (count - 1).clamp(min=1)).sqrt(), torch.nan)
