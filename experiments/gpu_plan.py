"""Which runs a sitting on a GPU trains, the most wanted first, and what each may take."""

from collections.abc import Callable, Iterator
from functools import lru_cache

from budgetlab import models
from budgetlab.budget import Costs, model_costs
from budgetlab.config import RunConfig
from experiments import plans
from experiments.__main__ import ordered
from experiments.tables import key

__all__ = ["ASSUMED", "expected_seconds", "paper", "scale"]

SEEDS = range(6)
# The first ten are those of the scale model's table.
MORE_SEEDS = range(10, 30)
ROUND = 3

PEAK = 989e12
UTILISATION = {"resnet18": 0.3}
OTHERS = 0.001
ASSUMED = (
    f"floating point operations, {PEAK / 1e12:.0f} TFLOP/s at the peak, of which ResNet-18 is "
    f"assumed to reach {UTILISATION['resnet18']:.0%} and a small network at batch 32 "
    f"{OTHERS:.1%}, all processes together."
)

Wanted = Callable[[RunConfig], bool]
# In the order of what each part of the plan brings; what an earlier stage holds is left out.
STAGES: list[tuple[str, list[tuple[str, Wanted]]]] = [
    ("(d) credit under RICAP", [("d", lambda run: True)]),
    ("(b) methods at 0.2", [("b", lambda run: run.budget == 0.2)]),
    ("(c) augmentations at 0.3", [("c", lambda run: run.budget == 0.3)]),
    ("(a) budgets", [("a", lambda run: True), ("b", lambda run: run.method == "unif-SGD")]),
    ("(e) entropy", [("e", lambda run: True)]),
    ("the rest of (b), (c), and (f)", [(part, lambda run: True) for part in "bcf"]),
]
TOY = {"model": "tiny", "batch_size": 16, "limit": 200, "epochs": 3, "device": "cpu"}


def paper(
    dataset: str, *, toy: bool = False, **common: object
) -> Iterator[tuple[str, list[RunConfig]]]:
    """List the runs of the paper's claims, by stage, three seeds at a time.

    Parameters
    ----------
    dataset
        Data set to train on.
    toy
        Two stages of one seed, of runs that take a second.
    **common
        Settings of every run.
    """
    known: set[str] = set()
    rounds = [SEEDS[:1]] if toy else [SEEDS[n : n + ROUND] for n in range(0, len(SEEDS), ROUND)]
    settings = common | (TOY if toy else {})
    for seeds in rounds:
        for name, parts in STAGES[:2] if toy else STAGES:
            found = [
                run
                for seed in seeds
                for part, wanted in parts
                for run in plans.runs(part, dataset, seed, preset="paper", **settings)
                if wanted(run)
            ]
            new = {key(run): run for run in found if key(run) not in known}
            known |= new.keys()
            yield f"{name}, seeds {seeds[0]} to {seeds[-1]}", list(new.values())


def scale(dataset: str, *, toy: bool = False, **common: object) -> list[RunConfig]:
    """List the findings and the map of the scale model, with seeds that have not been run."""
    if toy:
        return ordered(["d"], [dataset], MORE_SEEDS[:1], **common, **TOY)
    return ordered([*plans.FINDINGS, "map"], [dataset], MORE_SEEDS, **common)


@lru_cache
def _costs(model: str) -> Costs:
    return model_costs(models.build(model, (3, 32, 32), 10), (3, 32, 32))


def expected_seconds(run: RunConfig) -> float:
    """Seconds a run is expected to add to the others on an H100: an estimate, not a measurement."""
    costs = _costs(run.model)
    visits = run.epochs * (run.limit or 50_000)
    trained = visits * run.budget * costs.forward_backward
    if run.method == "selective-backprop" and run.budget_unit == "iterations":
        # About one in 1 / budget of those it looks at is trained on.
        trained += visits * costs.forward
    evaluations = run.epochs // run.evaluate_every if run.evaluate_every else 1
    evaluated = evaluations * 10_000 * costs.forward
    return (trained + evaluated) / (PEAK * UTILISATION.get(run.model, OTHERS))
