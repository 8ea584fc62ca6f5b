"""Online batch selection: of many candidates, train on those that stand out.

Loshchilov & Hutter, *Online Batch Selection for Faster Training of Neural Networks*, 2015;
Mindermann et al., *Prioritized Training on Points that are Learnable, Worth Learning, and
Not Yet Learnt*, ICML 2022 (RHO-LOSS).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from budgetlab.budget import steps_per_epoch
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers.base import Batch, ForwardResult, Looker, Sampler, SamplerContext
from budgetlab.samplers.proxy import ProxyPlan
from budgetlab.samplers.registry import sampler

__all__ = ["RhoLoss", "TopK"]


@sampler("top-k")
class TopK(Sampler):
    """Looks at ten candidates for each sample and trains on those with the highest loss.

    Candidates come from a shuffled pass, ``batch_size / keep_fraction`` at a time (or all
    there are, if that is more). They are looked at, which is charged, and the full batch of
    the highest :meth:`value` is trained on, exactly as it was looked at. An incomplete rest
    of a pass is dropped. ``keep_fraction=1`` is a uniform pass, and does not look.
    """

    STATE: tuple[str, ...] = ("probability",)
    probability: Tensor
    probability_kind = "keep"

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
                f"less than one batch of {self.batch_size}: lower --batch-size"
            )
        self.looks_before_step = self.candidates if self.candidates > self.batch_size else 0

    def value(self, seen: ForwardResult) -> Tensor:
        """Return how much each candidate is worth training on, ``[M]``: its loss."""
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


@sampler("rho-loss")
class RhoLoss(TopK):
    """As top-k, by the loss beyond that of a small network trained on held-out data.

    What that network gets wrong too, such as a wrong label, is not worth learning
    (Mindermann et al. 2022, equation 3): the value is ``L - L_IL``, the loss less the
    *irreducible* loss. Under mixing ``L_IL`` is that of the parts, by their shares.

    The small network is trained first, on the validation split; where there is none, on
    ``holdout_fraction`` of the training set, which the run then does not train on. Training
    it, and running all training samples through it once, costs at most ``proxy_share`` of
    the budget. The test set is never used.
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
        """Return the loss less the irreducible loss, ``[M]``."""
        assert self.irreducible is not None
        parts = self.irreducible[seen.augmented.sources]
        return seen.losses - (seen.augmented.weights * parts).sum(1)

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Train the small network if that was not done yet, then choose as top-k does."""
        if self.irreducible is None:
            self.irreducible = self.run_proxy().losses
        yield from super().batches(epoch, history, look)
