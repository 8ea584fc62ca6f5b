"""Methods that score candidates with a forward pass first, and train on some of them.

Selective backprop: Jiang et al., *Accelerating Deep Learning by Focusing on the Biggest
Losers*, 2019 (arXiv 1910.00762). Top-k: Loshchilov & Hutter, *Online Batch Selection for
Faster Training of Neural Networks*, 2015. RHO-LOSS: Mindermann et al., *Prioritized Training
on Points that are Learnable, Worth Learning, and Not Yet Learnt*, ICML 2022. Gradient-norm
bound: Katharopoulos & Fleuret, *Not All Samples Are Created Equal: Deep Learning with
Importance Sampling*, ICML 2018, algorithm 1.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from budgetlab.augment import AugmentedBatch
from budgetlab.budget import steps_per_epoch
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers.base import (
    Batch,
    Forecast,
    ForwardResult,
    Looker,
    ProxyPlan,
    Sampler,
    SamplerContext,
)

HISTORY = 1024
PUBLISHED_BETA = 3.0
DECAY = 0.9
KEPT = "the chance of being kept is the inclusion probability; analytic"


def keep_probability(losses: Tensor, past: Tensor, beta: float) -> Tensor:
    """Return the probability of training on samples with these losses.

    ``P = (share of past losses strictly below) ** beta`` (Jiang et al. 2019, section 3). For losses
    ``[B]`` distributed as the past ones ``[H]`` (NaN where there is none yet), ``1 / (beta + 1)``
    of them are kept on average; a ``beta`` of 0 keeps all.
    """
    below = (past[None, :] < losses[:, None]).sum(1)
    return (below / (~past.isnan()).sum().clamp(min=1)) ** beta


class SelectiveBackprop(Sampler):
    """Scores every candidate and keeps it with a probability that grows with its loss.

    Candidates come from a shuffled pass, batch by batch. Each batch is scored (in evaluation mode,
    charged), its losses join the last 1,024, and each sample is kept with :func:`keep_probability`.
    Kept samples wait until they fill a batch, which is trained on exactly as scored; an incomplete
    rest is dropped at the end of the pass. The first epoch trains on everything without scoring.

    ``sb_beta="auto"`` is ``1 / budget - 1``, which keeps the share ``budget``. ``sb_staleness=n``
    scores only every n-th epoch and reuses the old probabilities in between.

    With ``fidelity="published"`` the budget is ignored (full run, beta 3), the first epoch is
    scored too (for later ones: it trains on everything, with a recorded probability of 1), and the
    learning rate advances with the candidates.
    """

    STATE = ("past", "keep")
    probability: Tensor

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        config = context.config
        self.published = config.fidelity == "published"
        if config.sb_beta != "auto":
            self.beta = float(config.sb_beta)
        else:
            self.beta = PUBLISHED_BETA if self.published else 1 / config.budget - 1
        if self.published:
            self.last_epoch = config.epochs
        self.steps_of_pass = steps_per_epoch(self.size, 1.0, self.batch_size)
        self.past = torch.full((HISTORY,), torch.nan, device=self.device)
        self.keep = torch.full((self.size,), torch.nan, device=self.device)
        self.probability = self.keep
        self._candidate_batches = 0

    def progress(self, spent: float) -> float:
        """Return the progress of the schedule; in the published code, that of the candidates."""
        if not self.published:
            return spent
        last = self.context.config.epochs * self.steps_of_pass - 1
        return min(self._candidate_batches / max(last, 1), 1.0)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the kept samples of one pass over the candidates."""
        if epoch == 1 and not self.published:
            for indices in self.full_batches(self.shuffled()):
                yield Batch(indices)
            return
        self._candidate_batches = (epoch - 1) * self.steps_of_pass
        first_scored = 1 if self.published else 2
        looking = (epoch - first_scored) % self.context.config.sb_staleness == 0
        # The first epoch trains on everything, whatever its scores say for later ones.
        self.probability = torch.ones_like(self.keep) if epoch == 1 else self.keep
        queue = _Queue(self.batch_size)
        for candidates in self.shuffled().split(self.batch_size):
            self._candidate_batches += 1
            augmented = self._score(candidates, look) if looking else None
            keep = self.probability[candidates].nan_to_num(nan=1.0)
            chance = torch.rand(len(keep), generator=self.generator, device=self.device)
            # The only wait for the device, once per batch of candidates.
            kept = (chance < keep).nonzero()[:, 0]
            yield from queue.add(
                candidates[kept], None if augmented is None else augmented.rows(kept)
            )

    def forecast(self, history: History) -> Forecast:
        """Forecast the probabilities of being kept, from the last known losses."""
        losses = history.last_loss
        seen = losses[~losses.isnan()].sort().values
        if not len(seen):
            everything = torch.ones(self.size, dtype=torch.float64, device=self.device)
            how = "the first epoch trains on everything; analytic"
            return Forecast(everything / self.size, how, everything)
        places = torch.linspace(0, len(seen) - 1, min(HISTORY, len(seen))).round().long()
        keep = keep_probability(losses, seen[places.to(seen.device)], self.beta).double()
        keep[losses.isnan()] = 1.0
        return Forecast(keep / keep.sum().clamp(min=1e-300), KEPT, keep)

    def _score(self, candidates: Tensor, look: Looker) -> AugmentedBatch:
        seen = look(candidates)
        self.past = torch.cat([self.past, seen.losses])[-HISTORY:]
        self.keep[candidates] = keep_probability(seen.losses, self.past, self.beta)
        return seen.augmented

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state; earlier versions called ``keep`` ``probability``."""
        super().load_state_dict({"keep": state.get("probability"), **state})


class _Queue:
    """Kept samples that wait until they fill a batch."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.waiting: list[tuple[Tensor, AugmentedBatch | None]] = []

    def add(self, indices: Tensor, augmented: AugmentedBatch | None) -> Iterator[Batch]:
        """Append samples and their images, and yield the full batches."""
        self.waiting.append((indices, augmented))
        if sum(len(some) for some, _ in self.waiting) < self.batch_size:
            return
        indices = torch.cat([some for some, _ in self.waiting])
        images = [seen for _, seen in self.waiting if seen is not None]
        joined = AugmentedBatch.join(images) if images else None
        for start in range(0, len(indices), self.batch_size):
            rows = slice(start, start + self.batch_size)
            part = indices[rows], None if joined is None else joined.rows(rows)
            self.waiting = [part]
            if len(part[0]) == self.batch_size:
                yield Batch(part[0], augmented=part[1])
                self.waiting = []


class TopK(Sampler):
    """Scores several candidates for each sample and trains on those with the highest loss.

    Candidates come from a shuffled pass, ``batch_size / keep_fraction`` at a time (or all samples,
    if there are fewer). They are scored, which is charged, and the full batch of the highest
    :meth:`value` is trained on, exactly as scored. An incomplete rest of a pass is dropped.
    ``keep_fraction=1`` is a uniform pass without scoring.
    """

    STATE: tuple[str, ...] = ("probability",)
    probability: Tensor

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        config = context.config
        steps_per_epoch(self.size, config.budget, self.batch_size)
        self.pool = torch.arange(self.size, device=self.device)
        self.probability = torch.full((self.size,), torch.nan, device=self.device)
        self._set_candidates()

    def _set_candidates(self) -> None:
        wanted = round(self.batch_size / self.context.config.keep_fraction)
        self.candidates = min(wanted, len(self.pool))
        if self.candidates < self.batch_size:
            raise InputError(
                f"method '{self.context.config.method}' chooses among {self.candidates:,} samples, "
                f"less than one batch of {self.batch_size}: lower the batch size"
            )
        self.looks_before_step = self.candidates if self.candidates > self.batch_size else 0

    def value(self, seen: ForwardResult) -> Tensor:
        """Return the value of training on each candidate, ``[M]``: its loss."""
        return seen.losses

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the best of every set of candidates of one pass."""
        self.probability.fill_(torch.nan)
        order = torch.randperm(len(self.pool), generator=self.generator, device=self.device)
        shuffled = self.pool[order]
        for start in range(0, len(shuffled) - self.candidates + 1, self.candidates):
            candidates = shuffled[start : start + self.candidates]
            if not self.looks_before_step:
                self.probability[candidates] = 1.0
                yield Batch(candidates)
                continue
            seen = look(candidates)
            best = self.value(seen).topk(self.batch_size, sorted=False).indices
            self.probability[candidates] = 0.0
            self.probability[candidates[best]] = 1.0
            yield Batch(candidates[best], augmented=seen.augmented.rows(best))


class RhoLoss(TopK):
    """Top-k by the loss in excess of that of a small network trained on held-out data.

    What that network gets wrong too, such as a wrong label, is not worth learning (Mindermann et
    al. 2022, equation 3): the value is ``L - L_IL``, the loss minus the *irreducible* loss. For a
    mixed image ``L_IL`` is the mean over its parts, weighted by their shares.

    The small network is trained first, on the validation split; without one, on
    ``holdout_fraction`` of the training set, which the run then does not train on. Training it, and
    running all training samples through it once, costs at most ``proxy_share`` of the budget. The
    test set is never used.
    """

    STATE = ("probability", "pool", "irreducible")

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        self.irreducible: Tensor | None = None
        if context.validation_size:
            self.proxy = ProxyPlan("validation", small=True, losses=True)
            return
        held_out = round(context.config.holdout_fraction * self.size)
        if not 0 < held_out < self.size:
            raise InputError(
                f"holdout-fraction {context.config.holdout_fraction:g} of {self.size:,} samples "
                "leaves one part empty: give another share, or a validation split by "
                "--val-fraction"
            )
        shuffled = self.shuffled()
        self.pool = shuffled[held_out:].sort().values
        self.proxy = ProxyPlan(shuffled[:held_out].sort().values, small=True, losses=True)
        self._set_candidates()

    def value(self, seen: ForwardResult) -> Tensor:
        """Return the loss minus the irreducible loss, ``[M]``."""
        assert self.irreducible is not None
        parts = self.irreducible[seen.augmented.sources]
        return seen.losses - (seen.augmented.weights * parts).sum(1)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Train the small network if not yet done, then choose as top-k does."""
        if self.irreducible is None:
            self.irreducible = self.run_proxy().losses
        yield from super().batches(epoch, history, look)


def gain(norms: Tensor) -> Tensor:
    """Return the factor by which a uniform batch would have to grow for the same variance.

    ``tau = (1 - sum((g - 1/n)^2) / sum(g^2)) ** -0.5`` with ``g = norms / sum(norms)`` (equation 26
    of the paper), which is ``sqrt(n sum(g^2))``, from 1 to ``sqrt(n)``. Norms ``[n]`` that are all
    zero count as uniform.
    """
    g = shares(norms)
    return (len(g) * (g * g).sum()).sqrt()


def shares(norms: Tensor) -> Tensor:
    """Normalise norms ``[n]`` to a distribution; uniform if all are zero."""
    total = norms.sum()
    return torch.where(total > 0, norms / total.clamp(min=1e-30), 1 / len(norms))


class GradientNorm(Sampler):
    """Scores three candidates for each sample, draws by a gradient bound, weights by 1/p.

    The bound is ``G = ||softmax - onehot||_2``. Of ``presample * B`` candidates from a shuffled
    pass, ``B`` are drawn with replacement by ``g = G / sum(G)``, and the loss of each is weighted
    by ``1 / (presample * B * g)``: the mean gradient of the batch is, in expectation, that of the
    candidates. ``power`` is an exponent of ``G``.

    This is done while the moving average (decay 0.9, from 0) of :func:`gain` is above
    ``grad_norm_threshold``; otherwise batches are uniform, and the gain is estimated from training
    itself at no cost. Scoring three candidates costs about as much as one step on a sample, so it
    pays off in flops above a gain of 2.
    """

    STATE = ("average_gain", "probability")
    weighting = "own"
    probability: Tensor

    def __init__(self, context: SamplerContext):
        super().__init__(context)
        config = context.config
        steps_per_epoch(self.size, config.budget, self.batch_size)
        self.candidates = config.presample * self.batch_size
        if self.candidates > self.size:
            raise InputError(
                f"method 'grad-norm' looks at {config.presample} x {self.batch_size} candidates, "
                f"more than the {self.size:,} samples there are: lower the batch size or presample"
            )
        self.average_gain = 0.0
        self.probability = torch.full((self.size,), torch.nan, device=self.device)

    @property
    def is_on(self) -> bool:
        """Whether the next batch is drawn by importance."""
        return self.average_gain > self.context.config.grad_norm_threshold

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the batches of one pass, which is used up faster while switched on."""
        self.probability.fill_(torch.nan)
        left = self.shuffled()
        while len(left) >= (needed := self.candidates if self.is_on else self.batch_size):
            candidates, left = left[:needed], left[needed:]
            if self.is_on:
                yield self._choose(candidates, look)
            else:
                self.probability[candidates] = 1.0
                yield Batch(candidates)
                # The batch has been trained on by now, so the history has its norms.
                norms = history.last_el2n[candidates]
                self._update(norms[~norms.isnan()])

    def _choose(self, candidates: Tensor, look: Looker) -> Batch:
        seen = look(candidates)
        norms = seen.error_norms.double()
        self._update(norms)
        # A power must not underflow to zero, which would give an infinite weight.
        power = self.context.config.power
        g = shares((norms / norms.max().clamp(min=1e-30)).clamp(min=1e-6) ** power)
        drawn = torch.multinomial(g, self.batch_size, True, generator=self.generator)
        self.probability[candidates] = (1 - (1 - g) ** self.batch_size).float()
        weights = 1 / (len(candidates) * g[drawn])
        return Batch(candidates[drawn], weights.float(), seen.augmented.rows(drawn))

    def _update(self, norms: Tensor) -> None:
        if len(norms):
            now = gain(norms.double() ** self.context.config.power).item()
            self.average_gain = DECAY * self.average_gain + (1 - DECAY) * now
