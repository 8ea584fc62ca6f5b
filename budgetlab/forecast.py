"""Forecast what a method would train on next, from a history replayed from a record.

:class:`Replay` rebuilds the history of a run at the start of any of its epochs; :func:`forecast`
predicts from a history what a method would do in the next epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from budgetlab import methods, samplers
from budgetlab.analysis import coverage, effective_sample_size, entropy
from budgetlab.analysis.per_sample import (
    ARRAYS,
    read_epochs,
    require_epochs,
    require_every_epoch,
)
from budgetlab.budget import samples_per_epoch
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, whole
from budgetlab.history import Credit, History, Measures
from budgetlab.records import OneRecord, open_record
from budgetlab.samplers import Forecast, ScoreSampler, simulated_inclusion
from budgetlab.samplers.candidates import KEPT
from budgetlab.samplers.scores import class_pools, forecast_draw, replace_unseen


class Replay:
    """The :class:`~budgetlab.history.History` of a run at the start of any of its epochs.

    A record keeps one visit per sample and epoch, with values rounded to 0.2%, so the history
    matches the run's up to that rounding. Under the credit rule ``weighted``, partial visits count
    as whole ones. If the histories of all epochs do not fit into ``memory`` bytes, some are kept
    and the others are recomputed from the nearest earlier one on demand.
    """

    def __init__(self, record: OneRecord, memory: int = 256_000_000):
        record = open_record(record)
        data = record.samples
        self.record = record
        self.epochs, self.size = data.sizes["epoch"], data.sizes["sample"]
        require_epochs(record)
        require_every_epoch(record, "what was known of the samples between them")
        label = data["label"].to_numpy() if "label" in data else None
        self.labels = None if label is None else torch.from_numpy(label.astype(np.int64))
        history = History(self.size)
        state = _copy(history)
        held = sum(v.nbytes for v in state.values() if isinstance(v, torch.Tensor))
        self._stride = max(1, -(-self.epochs * held // memory))
        self._states = {0: state}
        for epoch, row in read_epochs(record, ARRAYS):
            _visit(history, epoch, row)
            if epoch % self._stride == 0:
                self._states[epoch] = _copy(history)

    def before(self, epoch: int) -> History:
        """Return the history at the start of epoch ``epoch``, from 1 to one past the last."""
        epoch = whole("epoch", epoch, 1, self.epochs + 1)
        done = (epoch - 1) // self._stride * self._stride
        history = History(self.size)
        history.load_state_dict(self._states[done])
        data = self.record.samples
        for missing in range(done + 1, epoch):
            _visit(history, missing, {n: data[n][missing - 1].to_numpy() for n in ARRAYS})
        return history


def _copy(history: History) -> dict:
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in history.state_dict().items()
    }


def _visit(history: History, epoch: int, arrays: dict) -> None:
    """Add one recorded epoch to a history."""
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    samples = (tensors["correct"] >= 0).nonzero()[:, 0]
    seen = {name: tensors[name][samples].float() for name in ARRAYS[:-1]}
    history.start_epoch(epoch)
    everything = torch.arange(history.size)
    history.count(everything.repeat_interleave(tensors["times_trained"].long()))
    credit = Credit(torch.arange(len(samples)), samples, torch.ones(len(samples)))
    history.update(credit, Measures(**seen))


# Number of simulated draws: at least RACES, and more for small data, where they are cheap and the
# sum of the inclusion probabilities varies by 1 / sqrt(drawn) between races.
RACES, MIN_ARRIVALS, WORK = 16, 25_000, 500_000


@dataclass(frozen=True)
class ExpectedDraw:
    """What a method is expected to do in one epoch.

    ``q``, float64 ``[N]``, sums to one: shares of the draw, or of what a filter method is expected
    to keep. ``inclusion``, in [0, 1], is the probability of being trained on in this epoch; ``how``
    says in a sentence how it was found, and ``analytic`` is False if it was simulated.
    """

    q: np.ndarray
    inclusion: np.ndarray
    how: str
    analytic: bool


def supported() -> list[str]:
    """List the methods whose next epoch can be forecast from a history, without observing it."""
    return [name for name in methods.names() if _has_forecast(name)]


def _has_forecast(name: str) -> bool:
    return samplers.lookup(name).forecast is not samplers.Sampler.forecast


def has_scores(name: str) -> bool:
    """Tell whether a method draws ahead by scores, so that smoothing and power apply to it."""
    return issubclass(samplers.lookup(name), ScoreSampler)


def scores_of(
    config: RunConfig, size: int, method: str | None = None
) -> tuple[str, Callable[[History], Tensor]]:
    """Return the name of a method and its scores before smoothing, with the options of ``config``.

    The method defaults to that of ``config``, or to p-SGD if that one has no scores. The scores are
    a function from a history of ``size`` samples to float64 ``[N]``, at least 0; unless the method
    sets ``unseen`` to "score", samples never seen get the highest score.
    """
    name = methods.canonical(method or config.method)
    if not has_scores(name):
        if method is not None:
            known = ", ".join(n for n in methods.names() if has_scores(n))
            raise InputError(f"method '{method}' draws by no scores: choose one of {known}")
        name = "p-SGD"
    generator = torch.Generator().manual_seed(0)
    # Scores do not depend on which samples are drawn together.
    config = config.replace(method=name, weights="none", class_shares="free")
    context = samplers.SamplerContext(size, config, generator, torch.device("cpu"))
    sampler = samplers.build(name, context)
    assert isinstance(sampler, ScoreSampler)

    def score(history: History) -> Tensor:
        found = sampler.score(history).double()
        return replace_unseen(found, history.seen) if sampler.unseen == "highest" else found

    return name, score


def forecast(history: History, config: RunConfig, *, labels: Tensor | None = None) -> ExpectedDraw:
    """Forecast the next epoch of a method.

    ``history`` is the state at the start of the epoch; ``config`` gives ``method``, ``budget``,
    ``batch_size`` and the method's options; ``labels``, int64 ``[N]``, are for methods that need
    them.
    """
    if not _has_forecast(config.method):
        raise InputError(
            f"method '{config.method}' decides by what it sees within the epoch, so that it cannot "
            f"be foreseen: choose one of {', '.join(supported())}, or what was recorded"
        )
    generator = torch.Generator().manual_seed(0)
    context = samplers.SamplerContext(
        history.size, config, generator, torch.device("cpu"), labels=labels
    )
    found = samplers.build(config.method, context).forecast(history)
    return _expected(found, config.batch_size)


def _expected(found: Forecast, batch_size: int) -> ExpectedDraw:
    if found.inclusion is None:
        return _drawn(found.q, found.draws, batch_size)
    return ExpectedDraw(found.q.numpy(), found.inclusion.numpy(), found.how, True)


def recorded_forecast(
    probability: np.ndarray, kind: str, config: RunConfig, *, labels: Tensor | None = None
) -> ExpectedDraw:
    """Derive the expected draw from the probabilities that a run recorded.

    ``probability`` is ``[N]``, NaN where none was recorded; ``kind`` is the record's
    :attr:`budgetlab.records.Record.probability_kind`; the config of the run gives the number of
    draws and the batch size, as only whole batches are trained on. ``labels``, int64 ``[N]``, of
    the whole training set, are for runs that draw each class by itself; without them, and for
    methods that are not known here, ``how`` says what is supposed instead.
    """
    known = ~np.isnan(probability)
    if not known.any():
        raise InputError(
            "no probabilities were recorded in this epoch: choose another epoch, or a method"
        )
    values = np.where(known, probability, 0).astype(np.float64)
    if kind == "keep":
        return ExpectedDraw(values / max(values.sum(), 1e-300), values, KEPT, True)
    method = methods.known(config.method)
    if method is not None and method.family == "passes":
        return forecast(History(len(values)), config)
    if method is not None and method.family == "core set":
        kept = int((values > 0).sum())
        inclusion = (values > 0) * (kept // config.batch_size * config.batch_size / kept)
        how = f"passes over the same {kept:,} samples; analytic"
        return ExpectedDraw(values / values.sum(), inclusion, how, True)
    count = samples_per_epoch(len(values), config.budget)
    q = torch.from_numpy(values / values.sum())
    apart = config.class_shares != "free" and (method is None or "class_shares" in method.fields)
    if apart and method is not None and labels is not None:
        context = samplers.SamplerContext(
            len(q), config, torch.Generator(), torch.device("cpu"), labels=labels
        )
        found = forecast_draw(q, class_pools(context, count), config.batch_size)
        return _expected(found, config.batch_size)
    read = _drawn(q, count, config.batch_size)
    if config.method in supported() and not apart:
        return read
    together = ", from all classes together" * apart
    how = f"as if {count:,} were drawn ahead{together}, which this run may not do; {read.how}"
    return replace(read, how=how, analytic=False)


def _drawn(q: Tensor, count: int, batch_size: int) -> ExpectedDraw:
    """Compute the inclusion probabilities of a draw without replacement, cut into whole batches."""
    size, trained = len(q), count // batch_size * batch_size
    if float(q.max() - q.min()) <= 1e-12:
        how = f"uniform: k / N = {trained:,} / {size:,}; analytic"
        return ExpectedDraw(q.numpy(), np.full(size, trained / size), how, True)
    generator = torch.Generator().manual_seed(0)
    races = max(RACES, min(MIN_ARRIVALS // max(count, 1), WORK // size))
    inclusion = simulated_inclusion(q, count, generator, races).numpy()
    whole = f", {trained:,} of them in whole batches" * (trained < count)
    how = f"{count:,} of {size:,} without replacement{whole}: no closed form"
    how = f"{how}, {races} simulated draws"
    return ExpectedDraw(q.numpy(), inclusion * (trained / count), how, False)


def in_numbers(draw: ExpectedDraw, visited: np.ndarray) -> dict[str, float]:
    """Summarise a draw; ``visited`` bool ``[N]`` marks the samples trained on before.

    Returns ``entropy`` (nats, at most ``ln N``) and ``effective_samples`` (1 to N) of ``q``; the
    ``lowest`` and ``highest`` inclusion; the ``expected`` number of samples; ``coverage``, the
    share of samples trained on before, and ``coverage_after``, its expectation after this epoch.
    """
    q, inclusion = draw.q, draw.inclusion
    return {
        "entropy": entropy(q),
        "effective_samples": effective_sample_size(q),
        "lowest": float(inclusion.min()),
        "highest": float(inclusion.max()),
        "expected": float(inclusion.sum()),
        "coverage": coverage(visited),
        "coverage_after": float(np.where(visited, 1.0, inclusion).mean()),
    }
