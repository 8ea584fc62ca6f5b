"""What a setting will do to a run, in a line."""

from budgetlab import augment, data, models, samplers
from budgetlab.budget import samples_per_epoch, steps_per_epoch
from budgetlab.config import RunConfig

__all__ = ["explain"]

UNITS = {
    "iterations": "optimiser steps count: looking at samples is free",
    "samples": "every sample run through the network counts, trained on or only looked at",
    "flops": "computation counts: a look costs about a third of training on a sample",
    "seconds": "training time on this machine counts: the result depends on its speed",
}


def explain(name: str, config: RunConfig, size: int | None = None) -> str:
    """Say what a setting will do.

    Parameters
    ----------
    name
        Field of :class:`budgetlab.RunConfig`.
    config
        The run as it is set.
    size
        Number of training samples, where it is known.

    Returns
    -------
    str
        One sentence.

    Raises
    ------
    InputError
        If the budget is too small for one batch.
    """
    value = getattr(config, name)
    described = {
        "dataset": data.describe,
        "method": samplers.describe,
        "augmentation": augment.describe,
        "model": models.describe,
    }
    if name in described:
        known = described[name]()
        text = known.get(value) or known.get(f"{str(value).partition(':')[0]}:PATH", "")
        return (
            f"{value}: {text}." if text else f"{value}: not known yet; it is checked at the start."
        )
    if name == "budget_unit":
        return f"Budget in {value}: {UNITS[value]}."
    if name in ("budget", "epochs"):
        return _length(config, size)
    if name == "label_noise":
        count = f"{round(value * size):,} of the {size:,}" if size else f"{100 * value:g}% of the"
        return (
            f"Label noise {value:g}: {count} training labels become wrong; test labels stay true."
        )
    if name == "seed":
        return (
            f"Seed {value}: another seed gives other first weights and another order; the same one "
            "gives the same run."
        )
    return f"{name.replace('_', ' ')}: {value}."


def _length(config: RunConfig, size: int | None) -> str:
    share, epochs = config.budget, config.epochs
    if size is None:
        return f"Budget {share:g} of {epochs} epochs: {100 * share:g}% of the work of a full run."
    steps = steps_per_epoch(size, share, config.batch_size)
    full = steps_per_epoch(size, 1.0, config.batch_size)
    return (
        f"Budget {share:g} of {epochs} epochs: {samples_per_epoch(size, share):,} of {size:,} "
        f"samples an epoch, {epochs * steps:,} steps instead of {epochs * full:,}."
    )
