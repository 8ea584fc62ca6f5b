"""The runs of a sweep: the product of settings, with the cost and the state of each run."""

import ast
import contextlib
import dataclasses
import inspect
import itertools
import math
import os
import re
import typing
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from budgetlab import methods
from budgetlab.config import DATA_FIELDS, PLACES, RunConfig
from budgetlab.errors import InputError, unknown
from budgetlab.records import Record
from budgetlab.records.writer import is_held, lock_of

Grid = Mapping[str, Any] | RunConfig | Iterable[Mapping[str, Any] | RunConfig]

MOST_RUNS = 100_000
# Fields with one value per sweep; milestones are already a sequence.
SINGLE = (*PLACES, "milestones")
FIELDS = tuple(RunConfig.__dataclass_fields__)

# Training samples of the built-in data sets, for estimates only.
SIZES = {"shapes": 10_000, "points": 1_000, "digits": 1_438, "cifar10": 50_000, "cifar100": 50_000,
         "svhn": 73_257, "mini-imagenet": 50_000}  # fmt: skip
UNKNOWN_SIZE = 10_000
# Cost of a forward pass, in steps.
LOOK = 1 / 3

RESULTS = ("record", "test_accuracy", "test_loss", "epochs", "steps", "trained_samples",
           "looked_samples", "flops", "seconds")  # fmt: skip
# Order of preference among several records of a run.
STATUS_ORDER = ("finished", "running", "stopped", "failed")
NUMBERED = re.compile(r"(.+-s\d+-[0-9a-f]{10})(-\d+)?")


def product(
    grid: Grid | None = None, base: Mapping[str, Any] | None = None, **settings: Any
) -> list[RunConfig]:
    """List every combination of settings, each run once.

    Raises InputError if a name or value is invalid; the message names it. Runs on the same data are
    adjacent, so that it is loaded once; among them seeds vary slowest, so that comparisons fill in
    evenly. Otherwise in the order of the settings, the last one changing fastest.

    - ``grid``: settings by name, each one value or several; a :class:`budgetlab.RunConfig`; or a
      list of these, whose runs follow one another.
    - ``base``: defaults for settings that neither ``grid`` nor ``settings`` gives.
    - ``**settings``: fields of :class:`budgetlab.RunConfig`, each one value or several, for all of
      ``grid``.

    Examples
    --------
    >>> [run.method for run in product(method=["SGD", "p-SGD"], seed=[0, 1])]
    ['SGD', 'p-SGD', 'SGD', 'p-SGD']
    """
    parts = [grid] if grid is None or isinstance(grid, Mapping | RunConfig) else list(grid)
    if not parts:
        raise InputError("the list of runs is empty: give at least one")
    if base and any(isinstance(part, RunConfig) for part in parts):
        raise InputError(
            "a RunConfig says every setting, so that a preset beside it would change none: give "
            "settings by name, or no preset"
        )
    base = dict(base or {})
    runs = [run for part in parts for run in _combinations(base | _settings(part) | settings)]
    # A run given twice is one run.
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
            f"{part!r} is not a run: give settings by name, such as {{'method': ['SGD', 'p-SGD']}}"
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
    several = _is_several(value)
    if name == "milestones" and several:
        # Itself a sequence of numbers, so that several are a list of sequences.
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


def data_key(run: RunConfig) -> tuple:
    """Return everything that determines a run's data; runs with the same key share it."""
    return tuple(getattr(run, name) for name in ("data_root", *DATA_FIELDS))


def planned_cost(run: RunConfig) -> float:
    """Estimate the cost of a run, in samples trained on; a guess for custom data.

    ``share * epochs * samples * (1 + looking)``, with the share of the full run that the method
    spends. Scoring (``looking``) is added only to a budget in iterations, which excludes it.
    """
    known = SIZES.get(run.dataset.partition(":")[0], UNKNOWN_SIZE)
    size = min(run.limit, known) if run.limit and known != UNKNOWN_SIZE else run.limit or known
    samples = max(1, round(size * (1 - run.val_fraction)))
    method = methods.find(run.method)
    looking = LOOK * method.candidates(run) if run.budget_unit == "iterations" else 0.0
    return method.share(run) * run.epochs * samples * (1 + looking)


def names(runs: list[RunConfig]) -> list[str]:
    """Name each run for display: method, budget, seed, and what else differs between runs."""
    more = [name for name in varied(runs) if name not in ("method", "budget", "seed")]
    return [
        f"{run.method}, budget {run.budget:g}, seed {run.seed}"
        + "".join(f", {name.replace('_', ' ')} {getattr(run, name)}" for name in more)
        for run in runs
    ]


def varied(runs: Iterable[RunConfig]) -> list[str]:
    """List the settings in which runs differ."""
    runs = list(runs)
    return [name for name in FIELDS if len({getattr(run, name) for run in runs}) > 1]


@dataclasses.dataclass(eq=False)
class Trial:
    """One run of a sweep; names are unique within a grid.

    ``status`` is ``planned``, or that of its record: ``running``, ``finished``, ``stopped``,
    ``failed``; ``how``, ``message`` and ``summary`` come from the worker; ``share`` is the share of
    its budget spent, 0 to 1; ``lost`` counts how often its worker was lost.
    """

    run: RunConfig
    name: str
    status: str = "planned"
    how: str = ""
    message: str = ""
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    share: float = 0.0
    lost: int = 0

    @cached_property
    def cost(self) -> float:
        """Estimated cost, in samples trained on."""
        return planned_cost(self.run)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do, unless a failure is retried."""
        return self.status in ("finished", "failed")

    @property
    def done(self) -> float:
        """Cost of the work that is done."""
        return self.cost * (1.0 if self.ended else self.share)

    @property
    def record(self) -> Path | None:
        """Path of its record, if there is one."""
        path = self.summary.get("record")
        return Path(path) if path else None

    def look(self, folders: list[Path]) -> None:
        """Update the state from the best record in these folders; planned if there is none."""
        self.status, self.message, self.summary, self.share = "planned", "", {}, 0.0
        record = self.follow(folders)
        if record is not None:
            methods.require_same_code(record.path, self.run.method, record.method_code)
            self.status, self.message = record.status, str(record.about.get("message", ""))
        if not self.ended and self.is_running(folders):
            self.status = "running"
        elif self.status == "running":
            self.status = "stopped"

    def follow(self, folders: list[Path]) -> Record | None:
        """Update summary and share from the best record in these folders, and return it."""
        record = best_record(self.run, folders)
        if record is not None:
            self.summary, self.share = summary_of(record), _fraction_spent(record)
        return record

    def is_running(self, folders: Iterable[Path] = ()) -> bool:
        """Whether it is being trained now, by a sweep or by ``train`` and ``resume``."""
        records = [*folders, *([self.record] if self.record else [])]
        return any(map(is_held, (lock_path(self.run), *map(lock_of, records))))

    def row(self, settings: Iterable[str]) -> dict[str, Any]:
        """Return its id, the named settings, results and state as one row."""
        names = ("method", "augmentation", "budget", "budget_unit", "seed", *settings)
        about = {name: getattr(self.run, name) for name in names}
        results = dict.fromkeys(RESULTS) | self.summary
        state = {"status": self.status, "how": self.how, "message": self.message}
        return {"id": self.run.id} | about | {"dataset": self.run.dataset_name} | results | state


def folders_of(runs: Iterable[RunConfig]) -> dict[RunConfig, list[Path]]:
    """List the folders that may be records of each run; each ``out`` is read once."""
    runs = list(runs)
    named: dict[tuple[str, str], list[Path]] = {}
    for out in {run.out for run in runs}:
        # ``out`` may not exist yet; a file in its place is refused when the first record is made.
        for name in sorted(os.listdir(out)) if os.path.isdir(out) else ():
            if match := NUMBERED.fullmatch(name):
                named.setdefault((out, match[1]), []).append(Path(out, name))
    return {run: named.get((run.out, run.folder_name), []) for run in runs}


def best_record(run: RunConfig, folders: list[Path]) -> Record | None:
    """Return the best record of a run among some folders, if there is one."""
    records = []
    for folder in folders:
        # Unreadable records are ignored.
        with contextlib.suppress(InputError):
            records.append(Record(folder))
    known = [one for one in records
             if one.about.get("id") == run.id and one.status in STATUS_ORDER]  # fmt: skip
    return min(known, key=lambda one: STATUS_ORDER.index(one.status), default=None)


def find_record(run: RunConfig) -> Record | None:
    """Return the record of a run as it is on disk now, if there is one."""
    return best_record(run, folders_of([run])[run])


def require_same_data(trials: Iterable[Trial]) -> None:
    """Refuse finished runs on custom data whose samples have changed since.

    The data is loaded only if one of its files, or its edits, changed after a run ended.
    """
    from budgetlab.training import load_data

    changed: dict[tuple, float] = {}
    now: dict[tuple, str] = {}
    for one in trials:
        key = data_key(one.run)
        if one.status != "finished" or one.record is None:
            continue
        if key not in changed:
            changed[key] = _last_change(one.run)
        if not changed[key]:
            continue
        record = Record(one.record)
        if changed[key] < datetime.fromisoformat(record.about["updated"]).timestamp():
            continue
        if key not in now:
            now[key] = load_data(one.run, progress=False).fingerprint
        if now[key] != record.fingerprint:
            raise InputError(
                f"record '{record.path}' was trained on other samples than '{one.run.dataset_name}'"
                " has now: train into another folder with out, or take the changes back"
            )


def _last_change(run: RunConfig) -> float:
    """Return when a file of custom data, or of its edits, last changed; 0 if there is none."""
    kind, _, path = run.dataset.partition(":")
    tops = [os.path.expanduser(one) for one in (path * (kind in ("folder", "npz")), run.edits)]
    places = [*filter(None, tops)]
    for top in filter(None, tops):
        places += [os.path.join(at, name) for at, *inside in os.walk(top)
                   for names in inside for name in names]  # fmt: skip
    # A file that was moved here keeps its mtime, and one behind a link has its own.
    about = [look(one) for one in places if os.path.exists(one) for look in (os.lstat, os.stat)]
    return max((max(one.st_mtime, one.st_ctime) for one in about), default=0.0)


def lock_path(run: RunConfig) -> Path:
    """Return the path of a run's lock: beside the records, one file per run."""
    return Path(run.out) / ".sweep" / f"{run.folder_name}.lock"


def summary_of(record: Record) -> dict[str, Any]:
    """Return the summary of a record, with its current path."""
    return record.summary | {"record": str(record.path), "status": record.status}


def _fraction_spent(record: Record) -> float:
    """Return the share of the budget spent by the whole epochs of a record, 0 to 1."""
    if record.status == "finished":
        return 1.0
    try:
        progress = record.epochs["progress"]
    except InputError:
        return 0.0
    last = float(progress.iloc[-1]) if len(progress) else 0.0
    return 0.0 if pd.isna(last) else min(max(last, 0.0), 1.0)


def _field_docs() -> dict[str, str]:
    """Return the docstring of each field of the config."""
    tree = ast.parse(inspect.getsource(RunConfig)).body[0]
    assert isinstance(tree, ast.ClassDef)
    explained = {}
    for node, below in itertools.pairwise(tree.body):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            explained[node.target.id] = str(below.value.value)
    return explained


def _make_grid_class() -> type:
    """Make a dataclass of the config's fields, with their types and docstrings."""
    types, explained = typing.get_type_hints(RunConfig), _field_docs()
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(RunConfig):
        kind, default = types[field.name], field.default
        if field.name not in SINGLE:
            kind, default = tuple[kind, ...], (default,)  # type: ignore[valid-type]
        fields.append((field.name, kind, dataclasses.field(default=default)))
    made = dataclasses.make_dataclass("GridSettings", fields, kw_only=True, frozen=True)
    words = "\n".join(f"    {name}: {text}" for name, text in explained.items())
    made.__doc__ = f"Settings of the runs, each one value or several.\n\nAttributes:\n{words}\n"
    return made


GridSettings = _make_grid_class()
