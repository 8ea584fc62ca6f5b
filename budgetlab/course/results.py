"""Tables and records that come with the kit, for notebooks that read and do not train."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from budgetlab.analysis.comparison import compare
from budgetlab.analysis.statistics import mean_interval
from budgetlab.analysis.tables import ConditionTable
from budgetlab.errors import InputError, unknown
from budgetlab.records import Record, open_record

PLACES = (Path("records"), Path(__file__).parents[2] / "notebooks" / "records")

USUAL = {"method": "unif-SGD", "augmentation": "standard", "budget": 0.3,
         "budget_unit": "iterations", "credit": "dominant", "smoothing": 1.0,
         "averaging": "lifetime", "weights": "none", "class_shares": "free", "schedule": "linear",
         "schedule_horizon": "budget", "redundancy": 0.0, "imbalance": 1.0,
         "label_noise": 0.0, "optimiser": "sgd", "warmup": 0.0}  # fmt: skip
"""What a run of the scale model has where nothing else is said; and 100 epochs."""

DIALS = ("redundancy", "imbalance", "label_noise")
ENTRIES = ("unif-SGD", "p-SGD", "p-SGD, sharp", "c-SGD", "loss", "loss, unbiased",
           "selective-backprop, equal flops")  # fmt: skip


def results(name: str = "scale_model", folders: tuple[Path, ...] = PLACES) -> pd.DataFrame:
    """Read a table of results, such as ``scale_model`` or ``other_methods``.

    Parameters
    ----------
    name
        File name without ``.csv``.
    folders
        Where to look, first to last: by default ``records`` beside the notebook, then
        ``notebooks/records`` of the checkout that the kit lies in.

    Returns
    -------
    DataFrame
        The rows as they were written, one per run; empty cells are NaN.

    Raises
    ------
    InputError
        If none of the folders holds it.
    """
    return pd.read_csv(_find(name, ".csv", folders))


def record(name: str, folders: tuple[Path, ...] = PLACES) -> Record:
    """Open a record that comes with the course, such as ``cifar10-jpeg-p-SGD``.

    Parameters
    ----------
    name
        Name of its folder.
    folders
        Where to look, as for :func:`results`.

    Raises
    ------
    InputError
        If none of the folders holds it.
    """
    return open_record(_find(name, "", folders))


def _find(name: str, ending: str, folders: tuple[Path, ...]) -> Path:
    """The first folder's file or folder of this name; one sentence where there is none."""
    for folder in folders:
        path = folder / f"{name}{ending}"
        if path.exists():
            return path
    known = sorted({path.name.removesuffix(ending) for folder in folders
                    for path in folder.glob(f"*{ending}" if ending else "*-*")})  # fmt: skip
    if not known:
        raise InputError(
            f"'{name}' is not here, nor any other table or record: the folder records belongs "
            "beside this notebook; copy it from notebooks/ of the project"
        )
    raise unknown("table of results" if ending else "record of the course", name, known)


def select(rows: pd.DataFrame, *free: str, **values: object) -> pd.DataFrame:
    """Take the rows of an experiment: what varies, what is asked for, and the rest as usual.

    Parameters
    ----------
    rows
        One row per run, as from :func:`results`.
    *free
        Settings that may have any value.
    **values
        Settings with the value wanted, or a list of values. Every other setting has the
        one of :data:`USUAL`, and ``epochs`` is 100 where any run has so many.
    """
    lengths = {"epochs": 100} if (rows.get("epochs", pd.Series()) == 100).any() else {}
    for name, value in {**USUAL, **lengths, **values}.items():
        # Tables of before class shares or optimisers were settings do not have the column.
        if name not in free and (name in rows or name in values):
            rows = rows[rows[name].isin(value if isinstance(value, list) else [value])]
    return rows


def averages(rows: pd.DataFrame, by: Sequence[str], metric: str = "test_accuracy") -> pd.DataFrame:
    """One row per condition: n, mean, spread (ddof 1) and the 95% interval of the mean."""
    found = []
    for key, group in rows.groupby(list(by), sort=False):
        values = group[metric].to_numpy(float)
        low, high = mean_interval(values)
        found.append(dict(zip(by, key, strict=True)) | {
            "n": len(values), "mean": values.mean(), "spread": group[metric].std(ddof=1),
            "ci_low": low, "ci_high": high,
        })  # fmt: skip
    return pd.DataFrame(found)


def against(rows: pd.DataFrame, name: str, baseline: object) -> ConditionTable:
    """Compare the values of any setting with one of them, as ``bl.compare`` does methods.

    Parameters
    ----------
    rows
        One row per run, as from :func:`select`.
    name
        The setting that is compared, such as ``augmentation`` or ``credit``.
    baseline
        Its value that the others are compared with.

    Returns
    -------
    ConditionTable
        As from :func:`budgetlab.compare`, with the values of the setting in ``method``.
    """
    values = rows[name].astype(str)
    # Every table shows the augmentation: where it is what is compared, it stands in ``method``.
    other = {"augmentation": "as named"} if name == "augmentation" else {}
    left = rows.drop(columns=list({name, "entry"} - {"method"}), errors="ignore")
    return compare(left.assign(method=values, **other), baseline=str(baseline))


def importance(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method of the importance map against uniform draws, in every condition that was run.

    Parameters
    ----------
    rows
        One row per run, as from :func:`results`.

    Returns
    -------
    DataFrame
        As from :func:`budgetlab.compare`, without the baseline: one row per data set, condition
        (``redundancy``, ``imbalance``, ``label_noise``) and method, named as in ``entry``.
        Holm's correction is over all of them.
    """
    free = ("entry", "method", "smoothing", "averaging", "weights", "budget_unit", *DIALS)
    own = select(rows, *free)
    # Other rules of smoothing and averaging are entries of p-SGD, too, but no part of the map.
    usual = own["smoothing"].eq(USUAL["smoothing"]) & own["averaging"].eq(USUAL["averaging"])
    own = own[own["entry"].isin(ENTRIES) & (usual | own["entry"].eq("p-SGD, sharp"))]
    kept = ["dataset", "augmentation", "budget", *DIALS, "seed", "test_accuracy", "flops"]
    table = compare(own[kept].assign(method=own["entry"]), baseline=ENTRIES[0])
    for dial in DIALS:  # a dial that was never turned is no condition, and has no column
        if dial not in table:
            table[dial] = own[dial].iloc[0]
    return pd.DataFrame(table[(table["method"] != ENTRIES[0]) & (table["pairs"] > 0)])
