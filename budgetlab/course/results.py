"""Tables and records that come with the course, for notebooks that read without training."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from budgetlab.analysis.comparison import compare
from budgetlab.analysis.statistics import mean_interval
from budgetlab.analysis.tables import ConditionTable
from budgetlab.errors import InputError, unknown
from budgetlab.records import Record, open_record

RECORD_FOLDERS = (Path("records"), Path(__file__).parents[2] / "notebooks" / "records")

DEFAULTS = {"method": "unif-SGD", "augmentation": "standard", "budget": 0.3,
         "budget_unit": "iterations", "credit": "dominant", "smoothing": 1.0,
         "averaging": "lifetime", "weights": "none", "class_shares": "free", "schedule": "linear",
         "schedule_horizon": "budget", "redundancy": 0.0, "imbalance": 1.0,
         "label_noise": 0.0, "optimiser": "sgd", "warmup": 0.0}  # fmt: skip
"""Default settings of the scale model's runs, which also have 100 epochs."""

MAP_AXES = ("redundancy", "imbalance", "label_noise")
ENTRIES = ("unif-SGD", "p-SGD", "p-SGD, sharp", "c-SGD", "loss", "loss, unbiased",
           "selective-backprop, equal flops")  # fmt: skip


def results(name: str = "scale_model", folders: tuple[Path, ...] = RECORD_FOLDERS) -> pd.DataFrame:
    """Read a table of results, such as ``scale_model`` or ``other_methods``.

    Raises InputError if it is in none of the folders.

    - ``name``: file name without ``.csv``.
    - ``folders``: folders to search, in order: by default ``records`` beside the notebook, then
      ``notebooks/records`` in the checkout of the kit.

    Returns one row per run, as stored; empty cells are NaN.
    """
    return pd.read_csv(_find(name, ".csv", folders))


def record(name: str, folders: tuple[Path, ...] = RECORD_FOLDERS) -> Record:
    """Open a record that comes with the course, such as ``cifar10-jpeg-p-SGD``.

    ``name`` is that of its folder; ``folders`` and errors are as for :func:`results`.
    """
    return open_record(_find(name, "", folders))


def _find(name: str, ending: str, folders: tuple[Path, ...]) -> Path:
    """Return the path of this name in the first folder that has it."""
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
    """Select the rows of an experiment: some settings free, some fixed, the rest as usual.

    - ``rows``: one row per run, as from :func:`results`.
    - ``*free``: settings that may have any value.
    - ``**values``: settings with a value, or a list of values. Every other setting has its value in
      :data:`DEFAULTS`, and ``epochs`` is 100 if any run has that many.
    """
    lengths = {"epochs": 100} if (rows.get("epochs", pd.Series()) == 100).any() else {}
    for name, value in {**DEFAULTS, **lengths, **values}.items():
        # Older tables lack the columns of later settings, such as class_shares.
        if name not in free and (name in rows or name in values):
            rows = rows[rows[name].isin(value if isinstance(value, list) else [value])]
    return rows


def averages(rows: pd.DataFrame, by: Sequence[str], metric: str = "test_accuracy") -> pd.DataFrame:
    """Average each condition: n, mean, spread (ddof 1) and the 95% interval of the mean."""
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
    """Compare values of any setting with a baseline value, as ``bl.compare`` does methods.

    Returns a table as from :func:`budgetlab.compare`, with the values of the setting in ``method``.

    - ``rows``: one row per run, as from :func:`select`.
    - ``name``: the setting to compare, such as ``augmentation`` or ``credit``.
    - ``baseline``: the value to compare the others with.
    """
    values = rows[name].astype(str)
    # Every table needs an augmentation; if that is what is compared, it moves to ``method``.
    other = {"augmentation": "as named"} if name == "augmentation" else {}
    left = rows.drop(columns=list({name, "entry"} - {"method"}), errors="ignore")
    return compare(left.assign(method=values, **other), baseline=str(baseline))


def importance(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare every method of the importance map with uniform sampling, in every condition run.

    ``rows``: one row per run, as from :func:`results`.

    Returns a table as from :func:`budgetlab.compare`, without the baseline: one row per data set,
    condition (``redundancy``, ``imbalance``, ``label_noise``) and method, named as in ``entry``.
    Holm's correction is over all of them.
    """
    free = ("entry", "method", "smoothing", "averaging", "weights", "budget_unit", *MAP_AXES)
    own = select(rows, *free)
    # The entry p-SGD also has runs with other smoothing and averaging, not part of the map.
    usual = own["smoothing"].eq(DEFAULTS["smoothing"]) & own["averaging"].eq(DEFAULTS["averaging"])
    own = own[own["entry"].isin(ENTRIES) & (usual | own["entry"].eq("p-SGD, sharp"))]
    kept = ["dataset", "augmentation", "budget", *MAP_AXES, "seed", "test_accuracy", "flops"]
    table = compare(own[kept].assign(method=own["entry"]), baseline=ENTRIES[0])
    for dial in MAP_AXES:  # a setting that never varies has no column in the comparison
        if dial not in table:
            table[dial] = own[dial].iloc[0]
    return pd.DataFrame(table[(table["method"] != ENTRIES[0]) & (table["pairs"] > 0)])
