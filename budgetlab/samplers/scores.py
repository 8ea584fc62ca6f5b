"""Draws by scores, and the methods defined by a score alone: p-SGD, c-SGD and custom ones.

Arazo et al., *How Important is Importance Sampling for Deep Budgeted Training?*, BMVC 2021.

A weighted draw without replacement is an exponential race: sample ``i`` arrives at ``e_i / q_i``
with ``e_i`` standard exponential, and the first ``count`` to arrive are drawn (Efraimidis &
Spirakis, *Weighted random sampling with a reservoir*, 2006). The set has the same distribution as
drawing one by one. Its inclusion probabilities have no closed form; two approximations are here.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from budgetlab import methods
from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers.base import Batch, Forecast, Looker, Sampler, SamplerContext

# Weights below this count as zero: such a sample comes last, never first.
SMALLEST_WEIGHT = 1e-290
MOST_STEPS = 200


def _check(size: int, count: int) -> None:
    if not 0 <= count <= size:
        raise InputError(f"{count:,} of {size:,} samples cannot be drawn: draw at most {size:,}")


def draw_without_replacement(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw distinct indices one by one, in proportion to the weights that are left.

    Returns int64 ``[count]``, in random order. Time and memory are linear in ``N``.

    - ``weights``: ``[N]``, finite and >= 0; they need not sum to one. Indices of weight zero are
      drawn only after all others.
    - ``count``: number to draw, at most ``N``.
    - ``generator``: on the device of ``weights``.
    """
    _check(len(weights), count)
    # float64: with float32, ties among ten million keys would favour low indices.
    arrival = torch.empty(len(weights), dtype=torch.float64, device=weights.device)
    arrival.exponential_(generator=generator).div_(weights.double().clamp(min=SMALLEST_WEIGHT))
    drawn = arrival.topk(count, largest=False, sorted=False).indices
    # topk may return likely ones first; a batch must be a random part of the draw.
    order = torch.randperm(count, generator=generator, device=weights.device)
    return drawn.index_select(0, order)


def inclusion_probability(q: Tensor, count: int) -> Tensor:
    """Approximate inclusion probabilities, as if the race were stopped at a fixed time.

    ``pi_i = 1 - exp(-q_i t)``, with ``t`` solved so that they sum to ``count`` (Rosén, *Asymptotic
    theory for successive sampling with varying probabilities without replacement*, 1972). The
    actual race stops when the last sample arrives, a time that varies by about ``1 / sqrt(count)``;
    the error this makes falls with the size. For ``q`` smoothed as in this kit, where the largest
    is some five times the smallest, the largest relative error is below 7% for 1 of 8, 1.5% for 15
    of 50 and 0.3% for 300 of 1,000 (exact sums and simulation, ``tests/test_samplers.py``).

    - ``q``: ``[N]``, finite and >= 0; it need not sum to one. Samples of weight zero share what is
      left when all others are drawn.
    - ``count``: number drawn, 0 to N, which the probabilities, float64 ``[N]``, sum to.
    """
    _check(len(q), count)
    size, q = len(q), q.double()
    others = int((positive := q > 0).sum())
    if count >= others:
        rest = (count - others) / max(size - others, 1)
        return torch.where(positive, 1.0, rest).double()
    q = q / q.sum()
    # The sum is concave in t and 0 at 0: Newton steps approach from below and never overshoot.
    t = torch.zeros((), dtype=torch.float64, device=q.device)
    for _ in range(MOST_STEPS):
        left = torch.exp(-q * t)
        missing = count - (1 - left).sum()
        if missing <= 1e-9 * count:
            break
        t = t + missing / (q * left).sum()
    return -torch.expm1(-q * t)


def simulated_inclusion(
    q: Tensor, count: int, generator: torch.Generator, races: int = 16
) -> Tensor:
    """Estimate inclusion probabilities, float64 ``[N]``, as averages over simulated races.

    Given all others, ``i`` is drawn if it arrives before the ``count``-th of them, at ``t``, which
    has probability ``1 - exp(-q_i t)``. Averaging this over races varies far less than counting
    draws. The sum can differ from ``count`` because all samples share the times ``t``;
    :func:`inclusion_probability` finds the one factor on these that corrects it.

    - ``q``: ``[N]``, >= 0, sums to one.
    - ``count``: number drawn, 0 to N.
    - ``generator``: on the device of ``q``.
    - ``races``: number of races to average.
    """
    _check(len(q), count)
    size = len(q)
    total = torch.zeros(size, dtype=torch.float64, device=q.device)
    if count in (0, size):
        return total + float(count == size)
    q = q.double().clamp(min=SMALLEST_WEIGHT)
    for _ in range(races):
        arrival = torch.empty_like(q).exponential_(generator=generator) / q
        # Without i, the count-th of the others is the next to arrive if i itself was drawn.
        last, following = arrival.kthvalue(count).values, arrival.kthvalue(count + 1).values
        total -= torch.expm1(-q * torch.where(arrival <= last, following, last))
    # All samples share the time of a race, whose error is corrected by solving for it again.
    rates = -torch.log1p(-(total / races).clamp(max=1 - 2**-53))
    return inclusion_probability(rates, count)


def smooth(scores: Tensor, strength: float = 1.0, power: float = 1.0) -> Tensor:
    """Convert scores to sampling probabilities, from uniform to greedy.

    ``q_i = (s_i + c mean(s)) / sum_j (s_j + c mean(s))`` with ``s`` the scores raised to the
    ``power``, and ``c`` the ``strength``. The paper has ``c = 1`` and power 1, so that
    ``q_i >= 1 / (2 N)``. Returns float64 ``[N]``, which sums to one.

    Parameters
    ----------
    scores
        ``[N]``, >= 0. All zero gives the uniform distribution.
    strength
        At least 0, finite: 0 adds nothing, a large value is uniform. Every sample keeps at least
        ``c / (1 + c)`` of the uniform probability.
    power
        In [0, 100]: 0 is uniform, 1 leaves the scores as they are, a large value draws only the
        highest scores, if nothing is smoothed.
    """
    if not 0 <= strength < math.inf:
        raise InputError(f"smoothing {strength} is not allowed: give a number of at least 0")
    if not 0 <= power <= 100:
        raise InputError(f"power {power} is not allowed: give a number in [0, 100]")
    scores = scores.double()
    # Sums of huge scores must not overflow; only their proportions count.
    scores = scores / scores.max().clamp(min=torch.finfo(torch.float64).tiny)
    if power != 1:
        scores = scores**power
    raised = scores + strength * scores.mean()
    total = raised.sum()
    return torch.where(total > 0, raised / total, 1 / len(scores))


def replace_unseen(scores: Tensor, seen: Tensor) -> Tensor:
    """Give samples never seen the highest score among the seen ones.

    ``scores [N]`` may hold anything, even NaN, where ``seen``, bool ``[N]``, is False. If none are
    seen, all scores become equal.
    """
    known = torch.where(seen, scores, -torch.inf)
    highest = torch.where(seen.any(), known.max(), 1.0)
    return torch.where(seen, scores, highest)


def even_counts(sizes: Tensor, count: int) -> Tensor:
    """Divide ``count`` evenly among groups, none of which gives more than its ``sizes [G]``.

    From the smallest group to the largest, each gives an even part of what is still needed, or all
    it has (Zheng et al., ICLR 2023, algorithm 1).
    """
    counts, left = torch.zeros_like(sizes), count
    for done, group in enumerate(sizes.argsort(stable=True).tolist()):
        counts[group] = min(int(sizes[group]), left // (len(sizes) - done))
        left -= int(counts[group])
    return counts


def proportional_counts(sizes: Tensor, count: int) -> Tensor:
    """Divide ``count`` in proportion to ``sizes [G]``, the rest to the largest remainders."""
    exact = sizes.double() * count / sizes.sum()
    counts = exact.floor().long()
    more = (exact - counts).argsort(descending=True, stable=True)[: count - int(counts.sum())]
    counts[more] += 1
    return counts


def class_pools(context: SamplerContext, count: int) -> list[tuple[Tensor, int]]:
    """Divide ``count`` samples among pools by ``class_shares``; returns each pool with its count.

    ``free``: a single pool. ``kept``: every class has its share of the training set. ``balanced``:
    every class gives the same number, or all it has. A pool is int64 ``[M]``, indices of samples.
    Classes need known labels, and each must give at least one sample.
    """
    rule = context.config.class_shares
    if rule == "free":
        return [(torch.arange(context.size, device=context.device), count)]
    if context.labels is None:
        raise InputError(
            f"class-shares '{rule}' needs the label of every sample, which this loop does not "
            "know: give class_shares='free', or train with bl.train"
        )
    pools = [(context.labels == c).nonzero()[:, 0] for c in context.labels.unique().tolist()]
    divide = proportional_counts if rule == "kept" else even_counts
    counts = divide(torch.tensor([len(pool) for pool in pools]), count).tolist()
    if not all(counts):
        raise InputError(
            f"class-shares '{rule}' would never train on {counts.count(0)} of {len(counts)} "
            f"classes, of {count:,} samples drawn: raise the budget, or choose "
            f"{'balanced or ' * (rule == 'kept')}free"
        )
    return list(zip(pools, counts, strict=True))


def inclusion_by_pool(q: Tensor, pools: list[tuple[Tensor, int]]) -> Tensor:
    """Return :func:`inclusion_probability`, float64 ``[N]``, of draws from several pools."""
    inclusion = torch.empty_like(q)
    for pool, count in pools:
        inclusion[pool] = inclusion_probability(q[pool], count)
    return inclusion


def forecast_draw(q: Tensor, pools: list[tuple[Tensor, int]], batch_size: int) -> Forecast:
    """Forecast a draw by ``q``, float64 ``[N]``, from the pools of :func:`class_pools`."""
    draws = sum(count for _, count in pools)
    if len(pools) == 1:
        return Forecast(q, draws=draws)
    trained = draws - draws % batch_size
    how = f"{trained:,} of {len(q):,}, each class by itself; solved numerically"
    return Forecast(q, how, inclusion_by_pool(q, pools) * (trained / draws))


class ScoreSampler(Sampler):
    """Draws samples with higher scores more often; subclasses implement :meth:`score`.

    Each epoch draws ``floor(N b)`` samples without replacement by the smoothed scores, see
    :func:`smooth`; ``smoothing`` and ``power`` of the run range from uniform to greedy. The first
    epoch is uniform. With ``weights="unbiased"`` every loss is weighted by :meth:`loss_weights`.
    With ``class_shares`` each class is drawn separately, see :func:`class_pools`.
    """

    OPTIONS = methods.DRAW
    unseen = "highest"
    weighting = "offered"

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        config = context.config
        self.draws = samples_per_epoch(self.size, config.budget)
        self.epoch_steps = steps_per_epoch(self.size, config.budget, self.batch_size)
        self.pools = class_pools(context, self.draws)
        self.unbiased = config.weights == "unbiased"
        if self.unbiased and config.smoothing == 0:
            raise InputError(
                "weights 'unbiased' need every sample to have a chance, and with smoothing 0 a "
                "score of zero has none: give a smoothing above 0"
            )

    def score(self, history: History) -> Tensor:
        """Return scores ``[N]`` >= 0; by default those of samples never seen do not matter."""
        raise NotImplementedError

    @classmethod
    def from_function(
        cls, function: Callable[[History], Tensor], unseen: str
    ) -> type["ScoreSampler"]:
        """Make a method from a function of the history."""

        def score(self: ScoreSampler, history: History) -> Tensor:
            return function(history)

        body = {"score": score, "unseen": unseen, "__doc__": function.__doc__ or "Your own"}
        body["__module__"] = function.__module__
        return type(getattr(function, "__name__", "score"), (cls,), body)

    def probabilities(self, history: History) -> Tensor:
        """Return ``q``, float64 ``[N]``, for the next draw, from finite scores ``[N]`` >= 0."""
        scores, name = self.score(history), f"method '{self.context.config.method}'"
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        if given != (self.size,):
            raise InputError(f"{name} must give scores in a tensor of ({self.size},), not {given}")
        scores = scores.detach()  # one may be what a network makes of it
        if self.unseen == "highest":
            scores = replace_unseen(scores, history.seen)
        if not bool(((scores >= 0) & torch.isfinite(scores)).all()):
            worst = scores[~((scores >= 0) & torch.isfinite(scores))][0].item()
            raise InputError(f"{name} gave the score {worst:g}: scores must be finite and >= 0")
        return self.smooth(scores)

    def smooth(self, scores: Tensor) -> Tensor:
        """Return ``q`` of scores ``[N]``, with the smoothing and power of the run."""
        config = self.context.config
        return smooth(scores, config.smoothing, config.power)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Draw, then yield the draw batch by batch."""
        q = self._by_class(self.probabilities(history))
        self.probability = q
        parts = [
            pool[draw_without_replacement(q[pool], n, self.generator)] for pool, n in self.pools
        ]
        drawn = parts[0]
        if len(parts) > 1:
            # Mix the classes, which would come one after the other.
            order = torch.randperm(self.draws, generator=self.generator, device=self.device)
            drawn = torch.cat(parts)[order]
        weights = self.loss_weights(q) if self.unbiased else None
        for indices in self.full_batches(drawn):
            yield Batch(indices, None if weights is None else weights[indices])

    def _by_class(self, q: Tensor) -> Tensor:
        """Give each class its share of the draw; unchanged for a single pool."""
        if len(self.pools) == 1:
            return q
        shared = torch.empty_like(q)
        for pool, count in self.pools:
            inside = smooth(q[pool], strength=0)  # sums to one, and is uniform where all are zero
            shared[pool] = inside * count / self.draws
        return shared

    def loss_weights(self, q: Tensor) -> Tensor:
        """Return weights, float32 ``[N]``, that make the mean loss of a draw unbiased.

        ``w_i = count / (N pi_i)`` (Horvitz & Thompson 1952). A batch is a random part of the draw,
        so the same holds for each batch.
        """
        return (self.draws / (self.size * inclusion_by_pool(q, self.pools))).float()

    def forecast(self, history: History) -> Forecast:
        """Forecast the draw: its probabilities and its size."""
        q = self._by_class(self.probabilities(history))
        return forecast_draw(q, self.pools, self.batch_size)


class UniformSGD(ScoreSampler):
    """A new uniform draw of ``floor(N b)`` samples every epoch."""

    def score(self, history: History) -> Tensor:
        """Return 1 for every sample."""
        return torch.ones(self.size, device=self.device)


class ProbabilitySGD(ScoreSampler):
    """Prefers samples that the network gets wrong: the score is the mean of ``1 - p_y``."""

    def score(self, history: History) -> Tensor:
        """Return ``m_i``, the lifetime mean of ``1 - p_y`` or its last value."""
        return label_error(self.context.config.averaging, history)


class ConfidenceSGD(ScoreSampler):
    """Prefers samples that the network is unsure of: m (1 - m), with m the mean of ``1 - p_y``.

    The published code gives samples never seen the highest ``m`` before it computes ``m (1 - m)``,
    which starves them if that ``m`` is near one. ``fidelity="published"`` reproduces this.
    """

    def score(self, history: History) -> Tensor:
        """Return ``m_i (1 - m_i)``."""
        error = label_error(self.context.config.averaging, history)
        if self.context.config.fidelity == "published":
            error = replace_unseen(error, history.seen)
        return error * (1 - error)

    def probabilities(self, history: History) -> Tensor:
        """Return ``q``; in the published code samples never seen keep their own score."""
        if self.context.config.fidelity == "published":
            return self.smooth(self.score(history))
        return super().probabilities(history)


class LossSGD(ScoreSampler):
    """Prefers samples of high loss: the score is the loss at the last visit.

    Importance sampling by the loss, as in Katharopoulos & Fleuret (2018), section 4: with
    ``weights="unbiased"`` the expected gradient is that of uniform draws; without, the objective
    itself favours high losses.
    """

    def score(self, history: History) -> Tensor:
        """Return the cross-entropy of the last visit, in nats."""
        return history.last_loss


def label_error(averaging: str, history: History) -> Tensor:
    """Return ``1 - p_y`` of each sample ``[N]``: its lifetime mean, or its last value."""
    return history.error if averaging == "lifetime" else 1 - history.last_p_y
