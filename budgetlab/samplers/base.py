"""The interface of samplers, and the registry from names to classes."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from budgetlab import methods
from budgetlab.augment import AugmentedBatch
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, a_kind, known, unknown
from budgetlab.history import History
from budgetlab.methods import Method

if TYPE_CHECKING:
    import pandas as pd


class BatchError(InputError):
    """A batch that no step can take."""


@dataclass(frozen=True)
class Batch:
    """The samples to train on next."""

    indices: Tensor
    """int64 ``[B]``: the sample drawn for each row."""
    weights: Tensor | None = None
    """float32 ``[B]``: factor on each row's loss; None for 1."""
    augmented: AugmentedBatch | None = None
    """The images as scored, to train on exactly these; None to augment afresh."""

    def __post_init__(self) -> None:
        given = self.indices
        if getattr(given, "dtype", None) != torch.int64 or given.ndim != 1 or not len(given):
            of = f" of shape {tuple(given.shape)}" if isinstance(given, Tensor) else ""
            raise BatchError(
                f"indices are int64 [B], B of 1 or more, not {given.dtype if of else a_kind(given)}"
                f"{of}: give the numbers of the samples of one batch"
            )
        # A column would broadcast against the losses to a square, unnoticed.
        if self.weights is not None and self.weights.shape != self.indices.shape:
            raise BatchError(
                f"weights {tuple(self.weights.shape)} for {len(given)} indices: give one each"
            )


@dataclass(frozen=True)
class ForwardResult:
    """Result of a forward pass without gradients, in evaluation mode."""

    losses: Tensor
    """float32 ``[B]``: cross-entropy of each row, mixed labels included."""
    probabilities: Tensor
    """float32 ``[B, C]``: softmax."""
    labels: Tensor
    """int64 ``[B]``: the label of the sample drawn for each row."""
    augmented: AugmentedBatch
    """The images run through the network."""
    error_norms: Tensor
    """float32 ``[B]``: ``||softmax - target||_2``, mixed labels included: the norm of the gradient
    by the logits, which bounds that by all weights up to a constant (Katharopoulos & Fleuret
    2018)."""


class Looker(Protocol):
    """The only way to evaluate samples before training on them; charged to the ledger."""

    def __call__(self, indices: Tensor) -> ForwardResult:
        """Run the samples int64 ``[B]`` forward."""
        ...


@dataclass(frozen=True)
class ProxyPlan:
    """Which proxy network to train, on what, and what to compute with it.

    It may spend ``config.proxy_share`` of the limit of the run, in the same unit.
    """

    samples: Tensor | Literal["training", "validation"]
    """Training data: ``training``, ``validation``, or training samples int64 ``[M]``."""
    small: bool
    """Whether ``proxy_model="auto"`` is smaller than the network of the run, or the same."""
    losses: bool
    """Whether to run all training samples through it at the end."""
    trajectory: bool = False
    """Whether its history is a :class:`~budgetlab.history.Trajectory`."""


@dataclass(frozen=True)
class ProxyRun:
    """Result of training a proxy network."""

    history: History
    """History of the samples trained on, in the order of the plan."""
    losses: Tensor | None
    """float32 ``[N]``: cross-entropy of every training sample, not augmented, in evaluation mode;
    None unless planned."""


class TrainProxy(Protocol):
    """Trains a proxy network; every step and forward pass is charged to the ledger."""

    def __call__(self, plan: ProxyPlan, generator: torch.Generator) -> ProxyRun:
        """Train, with a random order from ``generator``."""
        ...


@dataclass(frozen=True)
class Forecast:
    """Prediction of a method's next epoch from a history."""

    q: Tensor
    """float64 ``[N]``, sums to one: shares of the draw, or, for a method that keeps candidates, of
    what it is expected to keep."""
    how: str = ""
    """How the probabilities were found, as the rest of a sentence."""
    inclusion: Tensor | None = None
    """float64 ``[N]``, in [0, 1]: probability of being trained on in this epoch, in whole batches.
    None if ``draws`` samples are drawn by ``q`` without replacement, which has no closed form."""
    draws: int = 0
    """Number of samples drawn."""


@dataclass(frozen=True)
class SamplerContext:
    """What a sampler knows about the run."""

    size: int
    """Number of training samples ``N``."""
    config: RunConfig
    """Configuration; samplers read ``budget``, ``batch_size``, ``fidelity`` and their options."""
    generator: torch.Generator
    """On ``device``; the source of all random choices of a sampler."""
    device: torch.device
    """Device of ``indices``."""
    validation_size: int = 0
    """Number of samples in the validation split; 0 if there is none."""
    spent: Callable[[], float] = lambda: 0.0
    """Share of the budget spent so far, in [0, 1]."""
    train_proxy: TrainProxy | None = None
    """Trains the proxy network of methods that have a :attr:`Sampler.proxy`."""
    labels: Tensor | None = None
    """Training label of each sample, int64 ``[N]`` on ``device``; None if not known in advance, as
    in a custom loop that does not give it."""
    metadata: "pd.DataFrame | None" = None
    """Further metadata, one row per sample."""


class Sampler:
    """Base class of all methods.

    A subclass implements :meth:`batches`, sets :attr:`probability` if it has one, and names the
    tensors to save in :attr:`STATE`. Options of the run that do not fit the method raise InputError
    when it is built.

    Attributes
    ----------
    probability
        ``[N]`` for the record, or None.
    budget
        Share of the full run that the limit allows, from the entry of the method.
    last_epoch
        Epoch after which to stop even if the budget is not spent; None for no such end.
    epoch_steps
        Batches per epoch, except the last epoch of a budget; None if it depends on what is observed
        within the epoch.
    looks_before_step
        Samples scored before the first step, so that a budget that cannot afford it is refused
        before anything is written.
    proxy
        Plan of a network to train before the first step; None for none.
    """

    STATE: tuple[str, ...] = ()
    OPTIONS: tuple[str, ...] = ()
    """Settings that every method of this kind reads."""
    weighting: Literal["refused", "own", "offered"] = "refused"
    """Meaning of ``weights="unbiased"``. ``offered``: the method computes them. ``own``: its mean
    gradient is unbiased without. ``refused``: impossible."""

    def __init__(self, context: SamplerContext):
        self.context = context
        self.size = context.size
        self.batch_size = context.config.batch_size
        self.generator = context.generator
        self.device = context.device
        self.probability: Tensor | None = None
        self.budget = methods.find(context.config.method).share(context.config)
        self.last_epoch: int | None = None
        self.epoch_steps: int | None = None
        self.looks_before_step = 0
        self.proxy: ProxyPlan | None = None
        config = context.config
        if config.weights == "unbiased" and self.weighting == "refused":
            raise InputError(
                f"weights 'unbiased' do not exist for method '{config.method}', which gives "
                "some samples no chance or an unknown one: give none, or a method that draws by "
                "a score, such as p-SGD"
            )

    @property
    def probability_kind(self) -> str:
        """``draw`` or ``keep``, see :attr:`budgetlab.Method.probability`."""
        return methods.find(self.context.config.method).probability

    def progress(self, spent: float) -> float:
        """Return the progress of the learning-rate schedule, from the share of the budget spent."""
        return spent

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 1.

        The loop stops when the budget is spent; a sampler need not count.
        """
        raise NotImplementedError

    def forecast(self, history: History) -> Forecast:
        """Forecast the next epoch from the history at its start.

        Methods that decide by what they observe within the epoch leave this out.
        """
        raise NotImplementedError

    def run_proxy(self) -> ProxyRun:
        """Train the network planned by :attr:`proxy`; charged to the ledger.

        A custom training loop cannot train it, which is an InputError.
        """
        if self.proxy is None or self.context.train_proxy is None:
            raise InputError(
                f"method '{self.context.config.method}' trains another network first, which only a "
                "run of the kit can do: use bl.train, or choose another method"
            )
        return self.context.train_proxy(self.proxy, self.generator)

    def shuffled(self) -> Tensor:
        """Return all samples in random order, int64 ``[N]``."""
        return torch.randperm(self.size, generator=self.generator, device=self.device)

    def full_batches(self, indices: Tensor) -> Iterator[Tensor]:
        """Cut indices into batches, without an incomplete last one."""
        for start in range(0, len(indices) - self.batch_size + 1, self.batch_size):
            yield indices[start : start + self.batch_size]

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`; called between epochs."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        for name, value in state.items():
            setattr(self, name, value)


# Registered methods; the entry of a built-in one says where its class is.
_registered: dict[str, type[Sampler]] = {}


def sampler(name: str | Method, *, unseen: str = "highest") -> Callable[[Any], Any]:
    """Register a method, so that ``method=name`` runs it and every list and figure includes it.

    Decorates a :class:`Sampler` class, or a function from a :class:`~budgetlab.history.History` to
    scores ``[N]`` >= 0. A function becomes a method that draws once per epoch, without replacement,
    by the smoothed scores.

    Parameters
    ----------
    name
        Value of ``--method``, or a :class:`budgetlab.Method`, which also gives its style in
        figures, its cost and the settings it reads. A custom name taken again is replaced, so that
        a cell can be run twice; built-in names are refused. Records keep a digest of the code: runs
        of other code under the same name are neither resumed nor kept by a sweep, and comparisons
        report them.
    unseen
        For functions. ``highest``: samples never seen get the highest score among the seen ones,
        and the first epoch is uniform. ``score``: the function's own score is used for every sample
        from the first epoch on.
    """
    if not isinstance(name, str | Method):
        raise InputError('give the method a name: @bl.sampler("mine")')
    unseen = known("rule for the unseen", unseen, ("highest", "score"))
    entry = name if isinstance(name, Method) else None
    key = entry.name if entry else str(name)

    def register(made: Any) -> Any:
        if not key.strip():
            raise InputError('the name of a method is empty: name it, such as @bl.sampler("mine")')
        if any(
            key.lower() == name.lower() and methods.find(name).where for name in methods.names()
        ):
            raise InputError(f"method '{key}' is built in: choose another name")
        if not (issubclass(made, Sampler) if isinstance(made, type) else callable(made)):
            raise InputError(
                f"'{key}' is {made!r}: a method is a function of the history, or a Sampler"
            )
        # A class sent from another process has no source here, but carries its digest.
        code = vars(made).get("code") or methods.source_digest(made)
        if not isinstance(made, type):
            from budgetlab.samplers.scores import ScoreSampler

            methods.require_score(key, made)
            made = ScoreSampler.from_function(made, unseen)
        made.code = code
        _registered[key] = made
        methods.add(replace(entry or _entry_from_class(key, made), code=code))
        return made

    return register


def _entry_from_class(name: str, made: type[Sampler]) -> Method:
    text = ((made.__doc__ or "").strip() or "Your own").splitlines()[0].rstrip(".")
    entry = Method(name, text, fields=made.OPTIONS)
    kind = made.probability_kind
    return replace(entry, probability=kind) if isinstance(kind, str) else entry


def from_module(name: str) -> str:
    """Import a custom method, named as on the command line.

    ``name``: ``module:method`` or ``path/to/file.py:method``. The method is one that the module
    registers, or a function or :class:`Sampler` class of that name, which is then registered. Any
    other name is returned unchanged.

    Returns its name as listed, without the module.
    """
    place, colon, method = name.rpartition(":")
    if not colon:
        return name
    module = _import_module(place)
    file = Path(getattr(module, "__file__", None) or os.__file__)
    if Path(os.__file__).parent in file.parents and "site-packages" not in file.parts:
        raise InputError(
            f"'{place}' is a part of Python, and has no method: give a module of yours"
        )
    if method.lower() not in map(str.lower, _registered):
        made = getattr(module, method, None)
        if made is None:
            own = [key for key, kind in _registered.items() if kind.__module__ == module.__name__]
            if own:
                raise unknown(f"method of '{place}'", method, own)
            raise InputError(f"'{place}' has no method '{method}': put @bl.sampler on one there")
        sampler(method)(made)
    return methods.canonical(method)


def _import_module(place: str) -> ModuleType:
    """Import a module by name, from the working directory too, or by file."""
    file = Path(os.path.expanduser(place))
    try:
        if file.suffix != ".py":
            if "" not in sys.path:
                sys.path.insert(0, "")
            return importlib.import_module(place)
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except Exception as error:
        # A user's file may raise anything.
        raise InputError(
            f"'{place}' cannot be imported ({type(error).__name__}: {error}): give module:method, "
            "such as mymethods:mine for a file mymethods.py in this folder"
        ) from error


def lookup(name: str) -> type[Sampler]:
    """Return the class of a method; InputError if there is none."""
    entry = methods.find(name)
    if not entry.where:
        return _registered[entry.name]
    module, _, made = entry.where.partition(":")
    return getattr(importlib.import_module(module, "budgetlab.samplers"), made)


def build(name: str, context: SamplerContext) -> Sampler:
    """Make the sampler of a method; InputError if it does not fit the run."""
    return lookup(name)(context)
