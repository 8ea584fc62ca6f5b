"""Training as an iterator, and the one call that runs it to the end."""

import sys
from typing import Any

from tqdm.auto import tqdm

from budgetlab.config import RunConfig
from budgetlab.records import Record
from budgetlab.training.run import Run, load_data

__all__ = ["Run", "load_data", "train"]


def train(config: RunConfig | None = None, *, progress: bool = True, **settings: Any) -> Record:
    """Train to the end of the budget and return the record.

    Parameters
    ----------
    config
        The run; alternatively give its fields by name.
    progress
        Show a bar and what was chosen.
    **settings
        Fields of :class:`budgetlab.RunConfig`; they change ``config`` where both are given.

    Examples
    --------
    >>> record = bl.train(method="p-SGD", budget=0.2, epochs=10)  # doctest: +SKIP
    >>> record.summary["test_accuracy"]  # doctest: +SKIP
    """
    run = Run(RunConfig.from_dict((config.to_dict() if config else {}) | settings))
    return finish(run, progress=progress)


def finish(run: Run, *, progress: bool = True) -> Record:
    """Run what is left of a run, with a bar if asked for."""
    if not progress:
        for _ in run:
            pass
        return run.record
    for note in run.notes:
        tqdm.write(note, file=sys.stderr)
    with tqdm(total=100, bar_format=BAR, smoothing=0) as bar:
        asked_for = run.on_step

        def show(run: Run) -> None:
            bar.update(100 * run.budget.share_spent(run.ledger) - bar.n)
            if asked_for is not None:
                asked_for(run)

        bar.update(100 * run.budget.share_spent(run.ledger))
        run.on_step = show
        for row in run:
            accuracy = row["test_accuracy"]
            known = f", accuracy {accuracy:.3f}" if accuracy == accuracy else ""
            bar.set_postfix_str(f"epoch {row['epoch']}{known}")
    return run.record


BAR = "{percentage:3.0f}% of the budget |{bar}| {elapsed} < {remaining}{postfix}"
