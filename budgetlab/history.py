"""Per-sample training statistics, updated on the training device at every step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from budgetlab.config import CREDITS
from budgetlab.errors import InputError, unknown

__all__ = ["Credit", "History", "Measures", "Trajectory", "assign_credit", "measure",
           "require_logits"]  # fmt: skip

# Added inside logarithms, as in Zhang et al. (CVPR 2024).
TINY = 1e-8


@dataclass(frozen=True)
class Measures:
    """Measures from one forward pass; every tensor but the last is float32 ``[M]``.

    - ``loss``: cross-entropy ``-ln p_y``, nats.
    - ``p_y``: softmax probability of the label.
    - ``correct``: 1 where the label has the highest logit, else 0.
    - ``margin``: logit of the label less the highest other logit (Pleiss et al. 2020).
    - ``el2n``: ``||softmax - onehot||_2`` (Paul et al. 2021).
    - ``probabilities``: softmax, ``[M, C]``; only :class:`Trajectory` uses it.
    """

    loss: Tensor
    p_y: Tensor
    correct: Tensor
    margin: Tensor
    el2n: Tensor
    probabilities: Tensor | None = None


def require_logits(logits: Tensor, called: str) -> None:
    """Raise an error if rows ``[B, C]`` are probabilities, as after a softmax, and not logits."""
    if logits.ndim != 2 or min(logits.shape) < 2 or not bool((logits > 0).all()):
        return
    if bool(((logits.sum(1) - 1).abs() < 1e-5).all()):
        raise InputError(f"{called} are probabilities: give the logits, from before the softmax")


def measure(logits: Tensor, labels: Tensor) -> Measures:
    """Compute the measures of samples from their logits.

    - ``logits``: ``[M, C]``, any float type.
    - ``labels``: int64 ``[M]``.
    """
    logits = logits.detach().float()
    column = labels[:, None]
    log_p = logits.log_softmax(1)
    loss = -log_p.gather(1, column)[:, 0]
    p = log_p.exp()
    p_y = p.gather(1, column)[:, 0]
    own = logits.gather(1, column)[:, 0]
    best_other = logits.scatter(1, column, -torch.inf).amax(1)
    # sum over k != y of p_k^2, plus (1 - p_y)^2.
    el2n = ((p * p).sum(1) - p_y * p_y + (1 - p_y) ** 2).clamp(min=0).sqrt()
    margin = own - best_other
    return Measures(loss, p_y, (margin > 0).float(), margin, el2n, p)


@dataclass(frozen=True)
class Credit:
    """The sample that each row of a batch counts for; every tensor is ``[M]``.

    - ``rows``: row of the batch, int64 in [0, B).
    - ``samples``: index of the sample in the training set, int64.
    - ``weights``: fraction of a visit, float32 in [0, 1].
    """

    rows: Tensor
    samples: Tensor
    weights: Tensor


def assign_credit(rule: str, drawn: Tensor, sources: Tensor, weights: Tensor) -> Credit:
    """Assign the rows of a (possibly mixed) batch to samples.

    Returns ``M = B`` entries, ``B * K`` under ``weighted``.

    Parameters
    ----------
    rule
        ``row``: the sample drawn for the row, as in the published code, even if the image shows
        none of it. ``dominant``: the source with the largest weight. ``weighted``: every source,
        with its weight as the fraction of a visit.
    drawn
        int64 ``[B]``: the sample drawn for each row.
    sources
        int64 ``[B, K]``: the samples mixed into each image.
    weights
        float32 ``[B, K]``: their shares; each row sums to 1.
    """
    count, parts = sources.shape
    rows = torch.arange(count, device=drawn.device)
    whole = torch.ones(count, device=drawn.device)
    if rule == "row":
        return Credit(rows, drawn, whole)
    if parts == 1:
        return Credit(rows, sources[:, 0], whole)
    if rule == "dominant":
        largest = weights.argmax(1, keepdim=True)
        return Credit(rows, sources.gather(1, largest)[:, 0], whole)
    if rule == "weighted":
        return Credit(rows.repeat_interleave(parts), sources.reshape(-1), weights.reshape(-1))
    raise unknown("credit rule", rule, CREDITS)


def _mean_of(name: str, doc: str) -> Any:
    return property(lambda self: self._sum(name) / self.visits, doc=doc)


def _last_value(name: str, doc: str) -> Any:
    return property(lambda self: self._last_column(name), doc=doc)


class History:
    """Statistics of every training sample, from training forward passes only.

    All tensors have one entry per sample, ``[N]``. Means run over all visits, each weighted by its
    fraction of a visit; they are NaN for samples never visited.

    - ``size``: number of training samples ``N``.
    - ``device``: device of all tensors.
    """

    SUMS = ("visits", "error", "p_y", "p_y_squared", "loss", "margin", "el2n", "forgotten")
    LAST = ("loss", "p_y", "margin", "el2n", "correct", "epoch")

    def __init__(self, size: int, device: torch.device | str = "cpu"):
        self.size = size
        # One row per sample, so that a step updates everything in one scatter.
        self._sums = torch.zeros(size, len(self.SUMS), device=device)
        self._last = torch.full((size, len(self.LAST)), torch.nan, device=device)
        self._last[:, self.LAST.index("epoch")] = 0
        self._winner = torch.zeros(size, dtype=torch.int64, device=device)
        self.times_trained = torch.zeros(size, dtype=torch.int32, device=device)
        self.times_trained_this_epoch = torch.zeros_like(self.times_trained)
        self.epoch = 0
        # Also on the device, where a captured CUDA graph reads it.
        self._epoch = torch.zeros((), device=device)

    def start_epoch(self, epoch: int) -> None:
        """Begin epoch number ``epoch``, counted from 1."""
        self.epoch = epoch
        self._epoch.fill_(epoch)
        self.times_trained_this_epoch.zero_()

    def count(self, drawn: Tensor) -> None:
        """Count the samples of a training batch, int64 ``[B]``."""
        ones = torch.ones_like(drawn, dtype=torch.int32)
        self.times_trained.index_add_(0, drawn, ones)
        self.times_trained_this_epoch.index_add_(0, drawn, ones)

    def update(self, credit: Credit, seen: Measures) -> None:
        """Add the measures of one step.

        - ``credit``: samples and fractions of a visit, ``[M]``.
        - ``seen``: measures of the same ``M`` entries, against each sample's own label.
        """
        samples, share = credit.samples, credit.weights
        before = self._last[samples]
        # A sample can occur in several rows. All of them write the values of its last row with a
        # share above 0, so that the result does not depend on the order of the writes.
        entry = torch.arange(len(samples), device=samples.device)
        shown = torch.where(share > 0, entry, -1)
        self._winner.scatter_reduce_(0, samples, shown, "amax", include_self=False)
        winner = self._winner[samples]

        was_correct = before[:, self.LAST.index("correct")] == 1
        # Count forgetting once per sample and step, in the winning row.
        forgotten = (was_correct & (seen.correct == 0) & (entry == winner)).float()
        error = 1 - seen.p_y
        sums = (seen.p_y, seen.p_y**2, seen.loss, seen.margin, seen.el2n)
        rows = torch.stack([torch.ones_like(error), error, *sums], 1) * share[:, None]
        self._sums.index_add_(0, samples, torch.cat([rows, forgotten[:, None]], 1))

        epoch = self._epoch.expand_as(error)
        now = torch.stack([seen.loss, seen.p_y, seen.margin, seen.el2n, seen.correct, epoch], 1)
        self._last[samples] = torch.where(winner[:, None] >= 0, now[winner.clamp(min=0)], before)

    def _sum(self, name: str) -> Tensor:
        return self._sums[:, self.SUMS.index(name)]

    def _last_column(self, name: str) -> Tensor:
        return self._last[:, self.LAST.index(name)]

    visits = property(lambda self: self._sum("visits"), doc="Visits so far; fractions add up.")
    error = _mean_of(
        "error", "Mean of ``1 - p_y`` over all visits, in [0, 1]: the statistic ``m`` of p-SGD."
    )
    confidence = _mean_of("p_y", "Mean ``p_y``, in [0, 1] (Swayamdipta et al. 2020).")
    mean_loss = _mean_of("loss", "Mean cross-entropy, nats.")
    mean_margin = _mean_of("margin", "Area under the margin (Pleiss et al. 2020).")
    el2n = _mean_of(
        "el2n",
        """Mean of ``||softmax - onehot||_2`` over all visits, as in ``analysis.measures``.

        Paul et al. (2021) use early epochs only, as do ``el2n_early`` there and the short scoring
        run of ``el2n-pruned``.""",
    )
    forgotten = property(
        lambda self: self._sum("forgotten"),
        doc="Forgetting events: right at one visit, wrong at the next (Toneva et al. 2019).",
    )
    last_loss = _last_value("loss", "Cross-entropy at the last visit, nats; NaN before the first.")
    last_p_y = _last_value(
        "p_y", "Probability of the label at the last visit; NaN before the first."
    )
    last_correct = _last_value("correct", "1 or 0 at the last visit; NaN before the first.")
    last_el2n = _last_value("el2n", "``||softmax - onehot||_2`` at the last visit; else NaN.")
    last_epoch = _last_value("epoch", "Epoch of the last visit, from 1; 0 for never.")

    @property
    def seen(self) -> Tensor:
        """bool: visited at least partly."""
        return self.visits > 0

    @property
    def variability(self) -> Tensor:
        """Population standard deviation of ``p_y`` (Swayamdipta et al. 2020)."""
        mean_square = self._sum("p_y_squared") / self.visits
        return (mean_square - self.confidence**2).clamp(min=0).sqrt()

    @property
    def never_learned(self) -> Tensor:
        """bool: visited, and misclassified at every visit."""
        # A sample that was once right and is now wrong has a forgetting event.
        return (self.last_correct == 0) & (self.forgotten == 0)

    def epoch_arrays(self) -> dict[str, Tensor]:
        """Return this epoch's arrays for the record; NaN (``correct``: -1) where not visited."""
        visited = self.last_epoch == self.epoch
        arrays = {
            name: torch.where(visited, self._last_column(name), torch.nan)
            for name in ("loss", "p_y", "margin", "el2n")
        }
        arrays["correct"] = torch.where(visited, self.last_correct, -1.0)
        arrays["times_trained"] = self.times_trained_this_epoch
        return arrays

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`."""
        return {
            "sums": self._sums,
            "last": self._last,
            "times_trained": self.times_trained,
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self._sums.copy_(state["sums"])
        self._last.copy_(state["last"])
        self.times_trained.copy_(state["times_trained"])
        self.epoch = state["epoch"]
        self._epoch.fill_(self.epoch)


class Trajectory(History):
    """A history that also keeps the values of each visit, for scores over windows of epochs.

    It takes ``8 T N`` bytes for ``T`` epochs, plus the last softmax of every sample. Each sample is
    visited at most once per epoch.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu"):
        super().__init__(size, device)
        self._p_y: list[Tensor] = []
        self._shift: list[Tensor] = []
        self._before: Tensor | None = None

    def start_epoch(self, epoch: int) -> None:
        """Begin epoch number ``epoch``, counted from 1."""
        super().start_epoch(epoch)
        for rows in (self._p_y, self._shift):
            rows.append(torch.full((self.size,), torch.nan, device=self.times_trained.device))

    def update(self, credit: Credit, seen: Measures) -> None:
        """Add the measures of one step; ``seen`` must include the softmax."""
        super().update(credit, seen)
        now, samples = seen.probabilities, credit.samples
        assert now is not None, "a trajectory is made of whole predictions"
        if self._before is None:
            self._before = torch.full((self.size, now.shape[1]), torch.nan, device=now.device)
        before = self._before[samples]
        self._p_y[-1][samples] = seen.p_y
        change = now * ((now + TINY).log() - (before + TINY).log())
        self._shift[-1][samples] = change.abs().sum(1)
        self._before[samples] = now

    @property
    def p_y(self) -> Tensor:
        """``[T, N]``: probability of the label at each epoch's visit; NaN if not visited."""
        return torch.stack(self._p_y)

    @property
    def shift(self) -> Tensor:
        """``[T, N]``: ``sum_c |p_c ln(p_c / p'_c)|`` since the previous visit; NaN without one."""
        return torch.stack(self._shift)
