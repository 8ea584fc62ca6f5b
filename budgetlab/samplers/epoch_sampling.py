"""Methods that train on the samples in passes, or leave some out of each.

InfoBatch: Qin et al., *InfoBatch: Lossless Training Speed Up by Unbiased Dynamic
Data Pruning*, ICLR 2024. SeTa: Zhou et al., *Scale Efficient Training for Large Datasets*, CVPR
2025 (arXiv 2503.13385), and the authors' code.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Forecast, Looker, Sampler, SamplerContext
from budgetlab.samplers.scores import draw_without_replacement, replace_unseen

FULL_FROM_PROGRESS = 0.875
LARGEST_FRACTION = 0.75
GROUPS, WINDOW = 10, 0.5
SMALLEST_KEPT = 0.1


class SGD(Sampler):
    """Short schedule: full passes over the shuffled set until the budget is spent.

    The published code spends the full run whatever the budget, while its learning rate counts
    ``int(N b / B)`` iterations per epoch: within an epoch the rate runs ahead, and it jumps back at
    the start of the next. ``fidelity="published"`` reproduces this.
    """

    weighting = "own"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        self.steps_of_pass = steps_per_epoch(self.size, 1.0, self.batch_size)
        self.epoch_steps = self.steps_of_pass
        self.published = context.config.fidelity == "published"
        self._epoch, self._step = 1, 0

    def progress(self, spent: float) -> float:
        """Return the progress of the schedule, a sawtooth in the published code."""
        if not self.published:
            return spent
        config = self.context.config
        counted = int(self.size * config.budget / self.batch_size)
        ahead = (self._epoch - 1) * counted + self._step
        if self._step == 0 and self._epoch > 1:
            # The first step of an epoch has the rate set after the last step of the previous one.
            ahead = (self._epoch - 2) * counted + self.steps_of_pass
        return min(ahead / max(config.epochs * counted - 1, 1), 1.0)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield one full pass."""
        self.probability = torch.full((self.size,), 1 / self.size, device=self.device)
        self._epoch = epoch
        for step, indices in enumerate(self.full_batches(self.shuffled())):
            self._step = step
            yield Batch(indices)

    def forecast(self, history: History) -> Forecast:
        """Forecast every sample once, except those that fill no batch."""
        every = torch.ones(self.size, dtype=torch.float64, device=self.device)
        trained = self.steps_of_pass * self.batch_size
        how = "every sample comes once in a pass"
        if trained < self.size:
            how = f"{how}, but for {self.size - trained:,} that fill no batch"
        return Forecast(every / self.size, f"{how}; analytic", every * (trained / self.size))


class RS2(Sampler):
    """Consecutive parts of one permutation, so that all samples are drawn equally often.

    Repeated sampling of random subsets without replacement (Okanovic et al., ICLR 2024): a new
    permutation is drawn when the last one is used up.
    """

    STATE = ("left",)
    weighting = "own"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        budget = context.config.budget
        self.epoch_steps = steps_per_epoch(self.size, budget, self.batch_size)
        self.draws = self.epoch_steps * self.batch_size
        self.left = torch.empty(0, dtype=torch.int64, device=self.device)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the next part of the permutation."""
        self.probability = torch.full((self.size,), 1 / self.size, device=self.device)
        while len(self.left) < self.draws:
            self.left = torch.cat([self.left, self.shuffled()])
        drawn, self.left = self.left[: self.draws], self.left[self.draws :]
        for indices in self.full_batches(drawn):
            yield Batch(indices)

    def forecast(self, history: History) -> Forecast:
        """Forecast the same probability for all."""
        every = torch.ones(self.size, dtype=torch.float64, device=self.device)
        how = f"parts of one permutation: {self.draws:,} of {self.size:,}; analytic"
        return Forecast(every / self.size, how, every * self.draws / self.size)


class Curriculum(Sampler):
    """Easy to hard: uniform draws from the easiest part of the data, which grows.

    Samples with a low mean of ``1 - p_y`` in the run itself are easy: a self-paced curriculum
    (Bengio et al., *Curriculum Learning*, ICML 2009; Kumar et al., *Self-Paced Learning*, NeurIPS
    2010) with a linear pacing function (Hacohen & Weinshall, ICML 2019). At progress ``p`` the part
    is ``b + (1 - b) p`` of the samples, so that it begins with as many as one epoch draws and ends
    with all. The first epoch is uniform; later, samples never seen rank in the middle, and ties are
    broken at random.
    """

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        budget = context.config.budget
        self.draws = samples_per_epoch(self.size, budget)
        self.epoch_steps = steps_per_epoch(self.size, budget, self.batch_size)

    def easiest(self, history: History) -> Tensor:
        """Return the samples to draw from, int64 ``[M]``."""
        budget, error = self.context.config.budget, history.error
        if not bool(history.seen.any()):
            return torch.arange(self.size, device=self.device)
        share = budget + (1 - budget) * self.context.spent()
        count = max(samples_per_epoch(self.size, share), self.draws)
        error = torch.where(history.seen, error, error.nanmedian())
        shuffled = self.shuffled()
        return shuffled[error[shuffled].argsort(stable=True)[:count]]

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Draw from the easiest samples, then yield the draw batch by batch."""
        easiest = self.easiest(history)
        self.probability = torch.zeros(self.size, device=self.device)
        self.probability[easiest] = 1 / len(easiest)
        drawn = draw_without_replacement(self.probability, self.draws, self.generator)
        for indices in self.full_batches(drawn):
            yield Batch(indices)


def solve_prune_fraction(budget: float, epochs: int, well_learned: float) -> float:
    """Return the share ``r`` of the well-learned to leave out so that a budget lasts all epochs.

    In units of full passes, a budget ``b`` of ``E`` epochs is ``b E``. The first epoch is a full
    pass, and the last eighth of the budget, ``b E / 8``, is spent on full passes. The rest,
    ``7 b E / 8 - 1``, is spread over the ``E - 1 - b E / 8`` epochs between, each of which trains
    on ``1 - r h``, where ``h`` is the share of samples below the mean (``well_learned``). ``r`` is
    capped at 0.75 (weights of 4); the budget is then spent in fewer epochs.
    """
    passes = budget * epochs
    between = epochs - 1 - passes / 8
    if between <= 0 or well_learned <= 0:
        return 0.0
    kept = (FULL_FROM_PROGRESS * passes - 1) / between
    return min(max((1 - kept) / well_learned, 0.0), LARGEST_FRACTION)


class InfoBatch(Sampler):
    """Leaves out part of the samples with a loss below the mean, and upweights the others of them.

    The score is the last loss, infinite before the first visit. In each epoch, a random share ``r``
    of the samples with a score below the mean is left out, and those kept are weighted by
    ``1 / (1 - r)``; all others have weight 1. The gradients of an epoch thus sum, in expectation,
    to those of a full pass. From progress 0.875 on, everything is trained on with weight 1.

    ``prune_fraction="auto"`` solves ``r`` from the budget, see :func:`solve_prune_fraction`.
    """

    STATE = ("prune_fraction",)
    weighting = "own"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        steps_per_epoch(self.size, context.config.budget, self.batch_size)
        self.prune_fraction = 0.0

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the kept samples of one pass, in random order."""
        losses = history.last_loss
        # Samples not seen yet are not below: comparisons with NaN are false.
        below = losses < losses.nanmean()
        self.prune_fraction = self._fraction(below.float().mean().item())
        chance = torch.rand(self.size, generator=self.generator, device=self.device)
        self.probability = torch.where(below, 1 - self.prune_fraction, 1.0)
        kept = self.shuffled()
        kept = kept[(chance < self.probability)[kept]]
        if len(kept) < self.batch_size:
            # Too few are kept of a small set to fill a batch: leave nothing out.
            self.probability, kept = torch.ones_like(chance), self.shuffled()
        weights = 1 / self.probability
        for indices in self.full_batches(kept):
            yield Batch(indices, weights[indices])

    def _fraction(self, well_learned: float) -> float:
        config = self.context.config
        if self.context.spent() >= FULL_FROM_PROGRESS:
            return 0.0
        if config.prune_fraction == "auto":
            return solve_prune_fraction(config.budget, config.epochs, well_learned)
        return float(config.prune_fraction)


def group_centres(values: Tensor, groups: int = GROUPS, rounds: int = 50) -> Tensor:
    """Return k-means centres of numbers ``[M]``, from even quantiles, as ascending ``[groups]``."""
    places = (torch.arange(groups, device=values.device) + 0.5) / groups * (len(values) - 1)
    centres = values.sort().values[places.round().long()]
    for _ in range(rounds):
        nearest = nearest_centre(values, centres)
        counts = torch.bincount(nearest, minlength=groups)
        sums = torch.zeros_like(centres).index_add_(0, nearest, values)
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres.sort().values


def nearest_centre(values: Tensor, centres: Tensor) -> Tensor:
    """Return the index of the nearest of ascending centres ``[groups]``, int64 ``[M]``."""
    return torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)


class SeTa(Sampler):
    """A random part, and of that a window of difficulty that slides from easy to hard.

    In each epoch a random share ``r`` is left out. The rest is divided into ten groups by k-means
    of the last losses; a window of five groups is trained on, the easiest five in one epoch, one
    group harder in each next, starting again after the hardest. The first epoch trains on all
    groups, and so does every epoch from progress 0.875 on. Losses are not weighted. Samples never
    seen count as the hardest seen.

    ``prune_fraction="auto"`` is ``r = 1 - 2 b``, at least 0, so that an epoch takes about ``b`` of
    the samples if the groups are of equal size; at most 0.9, as in the authors' code.
    """

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        config = context.config
        steps_per_epoch(self.size, config.budget, self.batch_size)
        given = config.prune_fraction
        kept = config.budget / WINDOW if given == "auto" else 1 - float(given)
        self.kept = min(max(kept, SMALLEST_KEPT), 1.0)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the kept samples of one pass, in random order."""
        part = self.shuffled()[: max(samples_per_epoch(self.size, self.kept), 1)]
        inside = torch.ones(self.size, dtype=torch.bool, device=self.device)
        if epoch > 1 and self.context.spent() < FULL_FROM_PROGRESS and bool(history.seen.any()):
            losses = replace_unseen(history.last_loss, history.seen)
            group = nearest_centre(losses, group_centres(losses[part]))
            size = round(GROUPS * WINDOW)
            first = (epoch - 1) % (GROUPS - size + 1)
            inside = (group >= first) & (group < first + size)
        chosen = part[inside[part]]
        if len(chosen) < self.batch_size:
            # The window of a small set has too few to fill a batch: leave nothing out.
            inside, chosen = torch.ones_like(inside), self.shuffled()
        self.probability = inside * (self.kept if len(chosen) < self.size else 1.0)
        for indices in self.full_batches(chosen):
            yield Batch(indices)
