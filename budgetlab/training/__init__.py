"""Training as an iterator, and the one call that runs it to the end."""

import sys
from collections.abc import Callable
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from budgetlab import presets
from budgetlab.config import RunConfig
from budgetlab.data import Splits
from budgetlab.records import Record
from budgetlab.training.run import Run, load_data

__all__ = ["Run", "load_data", "train"]


def train(
    config: RunConfig | None = None,
    *,
    splits: Splits | None = None,
    model: str | nn.Module | Callable[[], nn.Module] | None = None,
    preset: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Record:
    """Train to the end of the budget and return the record.

    Parameters
    ----------
    config
        The run; alternatively give its fields by name.
    splits
        Data already loaded, such as your own by :meth:`budgetlab.Splits.of`; its name is
        taken for ``dataset`` where none is given.
    model
        Name of a network, or one of your own, as :class:`Run` takes it.
    preset
        Name of settings that belong together, such as ``scale-model``; those that are
        given win over it.
    progress
        Show a bar and what was chosen.
    **settings
        Fields of :class:`budgetlab.RunConfig`; they change ``config`` where both are given.

    Examples
    --------
    >>> record = bl.train(method="p-SGD", budget=0.2, epochs=10)  # doctest: +SKIP
    >>> record.summary["test_accuracy"]  # doctest: +SKIP
    """
    if isinstance(model, str):
        settings["model"], model = model, None
    if splits is not None and config is None:
        settings.setdefault("dataset", splits.name)
    chosen = presets.settings(preset) if preset else {}
    settings = (config.to_dict() if config else {}) | chosen | settings
    run = Run(RunConfig.from_dict(settings), splits=splits, model=model)
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
