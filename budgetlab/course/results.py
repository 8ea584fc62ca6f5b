"""Tables of results that come with the kit, for notebooks that read and do not train."""

from pathlib import Path

import pandas as pd

from budgetlab.errors import InputError, unknown

__all__ = ["results"]

CHECKOUT = Path(__file__).parents[2]
PLACES = (Path("records"), CHECKOUT / "notebooks" / "records", CHECKOUT / "benchmarks" / "results")


def results(name: str, folders: tuple[Path, ...] = PLACES) -> pd.DataFrame:
    """Read a table of results, such as ``departures``.

    Parameters
    ----------
    name
        File name without ``.csv``.
    folders
        Where to look, first to last: by default ``records`` beside the notebook, then
        ``notebooks/records`` and ``benchmarks/results`` of the checkout that the kit
        lies in.

    Returns
    -------
    DataFrame
        The rows as they were written; empty cells are NaN.

    Raises
    ------
    InputError
        If none of the folders holds it.
    """
    for folder in folders:
        path = folder / f"{name}.csv"
        if path.is_file():
            return pd.read_csv(path)
    known = sorted({path.stem for folder in folders for path in folder.glob("*.csv")})
    if not known:
        raise InputError(
            f"table '{name}' is not here, nor any other: open this notebook in a copy of the "
            "project, with its folder benchmarks/results"
        )
    raise unknown("table of results", name, known)
