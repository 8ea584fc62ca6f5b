"""The list of methods, and how to add one."""

from collections.abc import Callable
from typing import Any

from budgetlab.errors import InputError, unknown
from budgetlab.samplers.base import Sampler, SamplerContext
from budgetlab.samplers.scores import ScoreSampler

__all__ = ["build", "canonical", "describe", "lookup", "names", "sampler"]

_REGISTRY: dict[str, tuple[str, type[Sampler]]] = {}

# As the course meets them; your own come after.
ORDER = ("SGD", "unif-SGD", "rs2", "p-SGD", "c-SGD", "loss", "selective-backprop", "top-k",
         "rho-loss", "grad-norm", "infobatch", "random-subset", "el2n-pruned",
         "forgetting-pruned", "curriculum")  # fmt: skip


def sampler(name: str, *, unseen: str = "highest") -> Callable[[Any], Any]:
    """Register a method under a name, so that ``method=name`` runs it.

    Decorates a :class:`Sampler` class, or a function from a
    :class:`~budgetlab.history.History` to scores ``[N]`` >= 0. From scores a draw-ahead
    method is made: smoothed, drawn without replacement once an epoch.

    Parameters
    ----------
    name
        What ``--method`` takes. A name taken again is replaced, so that a cell can
        be run twice; the built-in names are kept.
    unseen
        For functions. ``highest``: a sample never seen takes the highest score among
        the seen ones, and the first epoch is uniform. ``score``: the function's own
        score counts for every sample from the first epoch on.

    Raises
    ------
    InputError
        If the name is missing or one of the kit's own, ``unseen`` is neither of the
        two, or what is decorated is neither a function nor a :class:`Sampler`.
    """
    if not isinstance(name, str):
        raise InputError('give the method a name: @bl.sampler("mine")')
    if unseen not in ("highest", "score"):
        raise unknown("rule for the unseen", unseen, ("highest", "score"))

    def register(made: Any) -> Any:
        taken = _REGISTRY.get(name)
        if taken and taken[1].__module__.startswith("budgetlab.") and not _is_ours(made):
            raise InputError(f"method '{name}' is built in: choose another name")
        if not (issubclass(made, Sampler) if isinstance(made, type) else callable(made)):
            raise InputError(
                f"'{name}' cannot be {made!r}: a method is a function of the history, or a "
                "Sampler class"
            )
        if not isinstance(made, type):
            made = ScoreSampler.from_function(made, unseen)
        text = ((made.__doc__ or "").strip() or "your own").splitlines()[0].rstrip(".")
        _REGISTRY[name] = (text, made)
        return made

    return register


def _is_ours(made: Any) -> bool:
    return getattr(made, "__module__", "").startswith("budgetlab.")


def names() -> list[str]:
    """Names that ``--method`` takes."""
    place = {name: number for number, name in enumerate(ORDER)}
    return sorted(_REGISTRY, key=lambda name: place.get(name, len(ORDER)))


def describe() -> dict[str, str]:
    """One line on each method, by name."""
    return {name: _REGISTRY[name][0] for name in names()}


def canonical(name: str) -> str:
    """Return the name of a method as it is registered, whatever the case it is given in.

    Raises
    ------
    InputError
        If there is none.
    """
    by_lower = {known.lower(): known for known in _REGISTRY}
    if name in _REGISTRY:
        return name
    if name.lower() not in by_lower:
        raise unknown("method", name, names())
    return by_lower[name.lower()]


def lookup(name: str) -> type[Sampler]:
    """Return the class of a method.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    return _REGISTRY[canonical(name)][1]


def build(name: str, context: SamplerContext) -> Sampler:
    """Make the sampler of a method.

    Raises
    ------
    InputError
        If the name is unknown, or the budget does not fit the method.
    """
    return lookup(name)(context)
