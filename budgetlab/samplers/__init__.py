"""Every method: a generator of batches; from its name to its code, and how to add your own.

A sampler is asked for the batches of an epoch and yields them one by one. It sees
the :class:`~budgetlab.history.History` of every sample, and may ``look`` at samples
before it decides, which is charged. The training loop knows nothing else of it.

Write your own from a score in two lines::

    @bl.sampler("mine")
    def score(history):
        return 1 - history.confidence

What the kit knows of each method beside its code is its entry in
:mod:`budgetlab.methods`; ``lookup("p-SGD")`` gives the class.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from budgetlab import methods
from budgetlab.errors import InputError, unknown
from budgetlab.methods import Method, canonical, describe, names
from budgetlab.samplers.base import (
    Batch,
    Forecast,
    ForwardResult,
    Looker,
    ProxyPlan,
    ProxyRun,
    Sampler,
    SamplerContext,
)
from budgetlab.samplers.candidates import keep_probability
from budgetlab.samplers.scores import (
    ScoreSampler,
    draw_without_replacement,
    inclusion_probability,
    replace_unseen,
    simulated_inclusion,
    smooth,
    unbiased_weights,
)

__all__ = [
    "Batch", "Forecast", "ForwardResult", "Looker", "ProxyPlan", "ProxyRun", "Sampler",
    "SamplerContext", "ScoreSampler", "build", "canonical", "describe",
    "draw_without_replacement", "from_module", "inclusion_probability", "keep_probability",
    "lookup", "names", "replace_unseen", "sampler", "simulated_inclusion", "smooth",
    "unbiased_weights",
]  # fmt: skip

# Methods that were registered; the code of those that come with the kit is where they say.
_registered: dict[str, type[Sampler]] = {}


def sampler(name: str | Method, *, unseen: str = "highest") -> Callable[[Any], Any]:
    """Register a method, so that ``method=name`` runs it and every list and figure knows it.

    Decorates a :class:`Sampler` class, or a function from a
    :class:`~budgetlab.history.History` to scores ``[N]`` >= 0. From scores a method is made
    that draws once an epoch, without replacement, by the smoothed scores.

    Parameters
    ----------
    name
        What ``--method`` takes, or a :class:`budgetlab.Method`, which also says how figures
        draw it, what it costs and which settings it reads. A name taken again is replaced,
        so that a cell can be run twice; the built-in names are kept.
    unseen
        For functions. ``highest``: a sample never seen takes the highest score among
        the seen ones, and the first epoch is uniform. ``score``: the function's own
        score counts for every sample from the first epoch on.
    """
    if not isinstance(name, str | Method):
        raise InputError('give the method a name: @bl.sampler("mine")')
    if unseen not in ("highest", "score"):
        raise unknown("rule for the unseen", unseen, ("highest", "score"))
    entry = name if isinstance(name, Method) else None
    key = entry.name if entry else str(name)

    def register(made: Any) -> Any:
        listed = methods.known(key)
        if listed is not None and listed.where:
            raise InputError(f"method '{key}' is built in: choose another name")
        if not (issubclass(made, Sampler) if isinstance(made, type) else callable(made)):
            raise InputError(
                f"'{key}' cannot be {made!r}: a method is a function of the history, or a "
                "Sampler class"
            )
        if not isinstance(made, type):
            made = ScoreSampler.from_function(made, unseen)
        _registered[key] = made
        methods.add(entry or _entry_of(key, made))
        return made

    return register


def _entry_of(name: str, made: type[Sampler]) -> Method:
    """What a class by itself says of a method."""
    text = ((made.__doc__ or "").strip() or "Your own").splitlines()[0].rstrip(".")
    entry = Method(name, text, fields=methods.DRAW if issubclass(made, ScoreSampler) else ())
    kind = made.probability_kind
    return replace(entry, probability=kind) if isinstance(kind, str) else entry


def from_module(name: str) -> str:
    """Import the code of a method of your own, as the command line names it.

    Parameters
    ----------
    name
        ``module:method`` or ``path/to/file.py:method``. The method is one that the module
        registers, or a function or :class:`Sampler` class of that name, which is registered
        then. Any other name is returned as it is.

    Returns
    -------
    str
        The name by which it is listed, without the module.
    """
    place, colon, method = name.rpartition(":")
    if not colon:
        return name
    module = _imported(place)
    if method.lower() not in map(str.lower, _registered):
        made = getattr(module, method, None)
        if made is None:
            own = [key for key, kind in _registered.items() if kind.__module__ == module.__name__]
            if own:
                raise unknown(f"method of '{place}'", method, own)
            raise InputError(f"'{place}' has no method '{method}': put @bl.sampler on one there")
        sampler(method)(made)
    return methods.canonical(method)


def _imported(place: str) -> ModuleType:
    """Import a module, by its name from the working directory on, or by its file."""
    file = Path(place).expanduser()
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
        # Whatever a file of somebody else does wrong ends here.
        raise InputError(
            f"'{place}' cannot be imported ({type(error).__name__}: {error}): give module:method, "
            "such as mymethods:mine for a file mymethods.py in this folder"
        ) from error


def lookup(name: str) -> type[Sampler]:
    """Return the class of a method; InputError if there is none of that name."""
    entry = methods.find(name)
    if not entry.where:
        return _registered[entry.name]
    module, _, made = entry.where.partition(":")
    return getattr(importlib.import_module(module, "budgetlab.samplers"), made)


def build(name: str, context: SamplerContext) -> Sampler:
    """Make the sampler of a method; InputError if the run does not fit it."""
    return lookup(name)(context)
