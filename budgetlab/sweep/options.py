"""The settings of a run, each allowed several values: what the command line takes."""

import ast
import dataclasses
import inspect
import itertools
import typing
from typing import Any

from budgetlab.config import PLACES, RunConfig

__all__ = ["Lists", "given"]

# A sweep has one of each; milestones are a row of numbers already.
SINGLE = (*PLACES, "milestones")


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


def given(lists: Any) -> dict[str, Any]:
    """Settings for :func:`budgetlab.sweep.product`: of several values a list."""
    values = {field.name: getattr(lists, field.name) for field in dataclasses.fields(lists)}
    return {name: value if name in SINGLE else list(value) for name, value in values.items()}
