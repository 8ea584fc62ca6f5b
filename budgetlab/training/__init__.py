"""Training as an iterator, and the one call that runs it to the end."""

import sys
from collections.abc import Callable
from typing import Any, Unpack

from torch import nn
from tqdm.auto import tqdm

from budgetlab import presets
from budgetlab.config import DATA_FIELDS, RunConfig
from budgetlab.data import Splits
from budgetlab.errors import InputError
from budgetlab.presets import Settings, takes_settings
from budgetlab.records import Record
from budgetlab.training.run import Run, load_data

__all__ = ["Run", "load_data", "train"]


@takes_settings
def train(
    method: str | RunConfig | None = None,
    *,
    splits: Splits | None = None,
    model: str | nn.Module | Callable[[], nn.Module] | None = None,
    preset: str | None = None,
    progress: bool = True,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    **settings: Unpack[Settings],
) -> Record:
    """Train to the end of the budget and return the record.

    Parameters
    ----------
    method
        Sampling method by name, as ``budgetlab list methods`` shows them; or a whole run, a
        :class:`budgetlab.RunConfig`, of which other settings change what they name.
    splits
        Data already loaded, or your own by :meth:`budgetlab.Splits.of`. The run records how
        it was loaded; settings that say otherwise are refused.
    model
        Name of a network, or one of your own, as :class:`Run` takes it.
    preset
        Name of settings that belong together, such as ``scale-model``; those that are
        given win over it, and so does data that is given.
    progress
        Show a bar and what was chosen.
    on_epoch
        Called after every epoch with its row of the record, for loggers. A :class:`Run` needs
        none: iterating over it gives the rows.
    **settings
        Fields of :class:`budgetlab.RunConfig`, which says what each of them is.

    Raises
    ------
    InputError
        If a name or value is not allowed, data is missing, or the parts do not fit.
    RunError
        If training had started and could not go on; the record says why.

    Examples
    --------
    >>> record = bl.train("p-SGD", budget=0.2, epochs=10)  # doctest: +SKIP
    >>> record.summary["test_accuracy"]  # doctest: +SKIP
    """
    given: dict[str, Any] = dict(settings)
    if isinstance(method, str):
        given["method"] = method
    elif not isinstance(method, RunConfig | None):
        raise InputError(
            f"'{type(method).__name__}' is no method: give the name of one, such as 'p-SGD', or "
            "a RunConfig; data goes into splits= and a network into model="
        )
    if isinstance(model, str):
        given["model"], model = model, None
    base = method.to_dict() if isinstance(method, RunConfig) else {}
    chosen = presets.settings(preset) if preset else {}
    if splits is not None:
        chosen = {name: value for name, value in chosen.items() if name not in DATA_FIELDS}
    config = RunConfig.from_dict(base | chosen | given)
    run = Run(config, splits=splits, model=model, asked=given)
    return finish(run, progress=progress, on_epoch=on_epoch)


def finish(
    run: Run,
    *,
    progress: bool = True,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Record:
    """Run what is left of a run, with a bar if asked for."""
    tell = on_epoch or (lambda row: None)
    if not progress:
        for row in run:
            tell(row)
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
            tell(row)
            accuracy = row["test_accuracy"]
            known = f", accuracy {accuracy:.3f}" if accuracy == accuracy else ""
            bar.set_postfix_str(f"epoch {row['epoch']}{known}")
    return run.record


BAR = "{percentage:3.0f}% of the budget |{bar}| {elapsed} < {remaining}{postfix}"
