"""From settings, some of them lists, to the runs of a grid; and what each will cost."""

import ast
import dataclasses
import inspect
import itertools
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from budgetlab import methods
from budgetlab.config import DATA_FIELDS, PLACES, RunConfig
from budgetlab.errors import InputError, unknown

__all__ = ["Grid", "Lists", "data_key", "names", "planned_cost", "product", "train_size",
           "values_of", "varied", "with_known_names"]  # fmt: skip

Grid = Mapping[str, Any] | RunConfig | Iterable[Mapping[str, Any] | RunConfig]

MOST_RUNS = 100_000
# A sweep has one of each; milestones are a row of numbers already.
SINGLE = (*PLACES, "milestones")
FIELDS = tuple(RunConfig.__dataclass_fields__)

# Training samples of the built-in data sets, for the estimate alone.
SIZES = {"shapes": 10_000, "points": 1_000, "digits": 1_438, "cifar10": 50_000, "cifar100": 50_000,
         "svhn": 73_257, "mini-imagenet": 50_000}  # fmt: skip
UNKNOWN_SIZE = 10_000
# A look is the forward third of a step.
LOOK = 1 / 3


def product(
    grid: Grid | None = None, base: Mapping[str, Any] | None = None, **settings: Any
) -> list[RunConfig]:
    """List every combination of settings, each run once.

    Parameters
    ----------
    grid
        Settings by name, each one value or several; a :class:`budgetlab.RunConfig`; or a
        list of these, whose runs come one after the other.
    base
        Settings that hold where neither ``grid`` nor ``settings`` gives them.
    **settings
        Fields of :class:`budgetlab.RunConfig`, each one value or several, that hold for
        all of ``grid``.

    Returns
    -------
    list of RunConfig
        Seeds are the outermost, so that comparisons fill in evenly while the runs go, and
        runs on the same data are together, so that it is loaded once. Otherwise the order
        in which the settings were given, the last one changing fastest.

    Raises
    ------
    InputError
        If a name or value is not allowed; the message names it.

    Examples
    --------
    >>> [run.method for run in product(method=["SGD", "p-SGD"], seed=[0, 1])]
    ['SGD', 'p-SGD', 'SGD', 'p-SGD']
    """
    parts = [grid] if grid is None or isinstance(grid, Mapping | RunConfig) else list(grid)
    if not parts:
        raise InputError("the list of runs is empty: give at least one")
    base = dict(base or {})
    runs = [run for part in parts for run in _combinations(base | _settings(part) | settings)]
    # The same run asked for twice is one run.
    unique = {(run.out, run.id): run for run in runs}
    first_seen: dict[tuple, int] = {}
    for run in unique.values():
        first_seen.setdefault(data_key(run), len(first_seen))
    seeds = list(dict.fromkeys(run.seed for run in unique.values()))
    rounds = {seed: number for number, seed in enumerate(seeds)}
    return sorted(unique.values(), key=lambda run: (first_seen[data_key(run)], rounds[run.seed]))


def _settings(part: Mapping[str, Any] | RunConfig | None) -> dict[str, Any]:
    if isinstance(part, RunConfig):
        return {name: getattr(part, name) for name in FIELDS}
    if part is not None and not isinstance(part, Mapping):
        raise InputError(
            f"{part!r} is no run: give settings by name, such as {{'method': ['SGD', 'p-SGD']}}"
        )
    return dict(part or {})


def _combinations(settings: dict[str, Any]) -> list[RunConfig]:
    for name in settings:
        if name not in FIELDS:
            raise unknown("setting", name, FIELDS)
    values = {name: _values(name, value) for name, value in settings.items()}
    count = math.prod(len(several) for several in values.values())
    if count > MOST_RUNS:
        raise InputError(f"the grid has {count:,} runs: give at most {MOST_RUNS:,}")
    return [
        RunConfig(**dict(zip(values, combination, strict=True)))
        for combination in itertools.product(*values.values())
    ]


def _values(name: str, value: Any) -> list[Any]:
    """The values of one setting: those of a list, or the one that was given."""
    several = _is_several(value)
    if name == "milestones" and several:
        # Itself a row of numbers, so that several are a list of rows.
        value = list(value)
        several = bool(value) and all(map(_is_several, value))
    if several and name in PLACES:
        raise InputError(f"{name} {value!r} is not allowed: a sweep has one, give a text")
    values = list(value) if several else [value]
    if not values:
        raise InputError(f"{name} has no value: give at least one")
    return values


def _is_several(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def with_known_names(runs: Iterable[RunConfig]) -> list[RunConfig]:
    """Return the runs with all names as they are registered, each run once.

    Names that do not exist are refused here, before anything is trained.

    Raises
    ------
    InputError
        Names the value, the allowed ones and the nearest match.
    """
    from budgetlab.training.inputs import with_known_names as known

    # A name in another case is the same run, and must not have another id.
    return list(dict.fromkeys(known(run) for run in runs))


def data_key(run: RunConfig) -> tuple:
    """Everything that decides the data of a run; runs that share it share the data."""
    return tuple(getattr(run, name) for name in ("data_root", *DATA_FIELDS))


def train_size(run: RunConfig) -> int:
    """About how many samples a run trains on; a guess for data of your own."""
    known = SIZES.get(run.dataset.partition(":")[0], UNKNOWN_SIZE)
    size = min(run.limit, known) if run.limit and known != UNKNOWN_SIZE else run.limit or known
    return max(1, round(size * (1 - run.val_fraction)))


def planned_cost(run: RunConfig) -> float:
    """About how long a run takes, in samples trained on.

    ``share * epochs * samples * (1 + looking)``, with the share of the full run that the
    method spends. Looking counts where it comes on top of
    the budget, which is so when it is counted in iterations.
    """
    method = methods.find(run.method)
    looking = LOOK * method.candidates(run) if run.budget_unit == "iterations" else 0.0
    return method.share(run) * run.epochs * train_size(run) * (1 + looking)


def names(runs: list[RunConfig]) -> list[str]:
    """Name each run for people: method, budget, seed, and what else differs between them."""
    more = [name for name in varied(runs) if name not in ("method", "budget", "seed")]
    return [
        f"{run.method}, budget {run.budget:g}, seed {run.seed}"
        + "".join(f", {name.replace('_', ' ')} {getattr(run, name)}" for name in more)
        for run in runs
    ]


def varied(runs: Iterable[RunConfig]) -> list[str]:
    """Names of the settings in which runs differ."""
    runs = list(runs)
    return [name for name in FIELDS if len({getattr(run, name) for run in runs}) > 1]


def _explained() -> dict[str, str]:
    """What is written below each field of the config."""
    tree = ast.parse(inspect.getsource(RunConfig)).body[0]
    assert isinstance(tree, ast.ClassDef)
    explained = {}
    for node, below in itertools.pairwise(tree.body):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            explained[node.target.id] = str(below.value.value)
    return explained


def _lists() -> type:
    """Make the dataclass from the fields of the config, with their types and words."""
    types, explained = typing.get_type_hints(RunConfig), _explained()
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(RunConfig):
        kind, default = types[field.name], field.default
        if field.name not in SINGLE:
            kind, default = tuple[kind, ...], (default,)  # type: ignore[valid-type]
        fields.append((field.name, kind, dataclasses.field(default=default)))
    made = dataclasses.make_dataclass("Lists", fields, kw_only=True, frozen=True)
    words = "\n".join(f"    {name}: {text}" for name, text in explained.items())
    made.__doc__ = f"Settings of the runs, each one value or several.\n\nAttributes:\n{words}\n"
    return made


Lists = _lists()


def values_of(lists: Any) -> dict[str, Any]:
    """Settings for :func:`product`: of several values a list."""
    chosen = {field.name: getattr(lists, field.name) for field in dataclasses.fields(lists)}
    return {name: value if name in SINGLE else list(value) for name, value in chosen.items()}
