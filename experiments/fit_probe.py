"""Fit the model behind `bl.analysis.will_it_pay`, and measure its accuracy on held-out data.

    python -m experiments.fit_probe --table TABLE.csv --records KEPT... --features FEATURES.csv

The targets come from the importance map: did a method gain, or lose, in a cell (data set,
redundancy, imbalance, label noise)? The features come from the uniform runs of the same cells. A
logistic regression is fitted per target and evaluated on held-out cells and data sets, against
the majority answer; where it is no better, the file says that nothing predicts the target. Rows
of ``networks.csv``, whose networks are never fitted, then give its accuracy on other networks
(``python -m experiments --parts networks``).
"""

import argparse
import itertools
import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from budgetlab import analysis
from budgetlab.analysis.pay import FEATURES, OUTCOMES
from budgetlab.errors import InputError
from budgetlab.records import open_records
from experiments.maps import map_rows
from experiments.tables import RESULTS, read

CELL = ["dataset", "redundancy", "imbalance", "label_noise"]
NETWORK = "compact"
BASELINE = "unif-SGD"
THRESHOLD = 0.005
FEWEST_CELLS, FEWEST_SEEDS = 8, 2
OUT = Path(analysis.__file__).parent / "will_it_pay.json"


def gains(rows: pd.DataFrame, cell: Sequence[str] = CELL) -> pd.DataFrame:
    """Return the mean paired difference of each entry (columns) from uniform draws by cell."""
    wide = rows.pivot_table(index=[*cell, "seed"], columns="entry", values="test_accuracy")
    paired = wide.drop(columns=BASELINE).sub(wide[BASELINE], axis=0)
    enough = paired.groupby(level=list(cell)).count() >= FEWEST_SEEDS
    return paired.groupby(level=list(cell)).mean().where(enough)


def features_of(records: Sequence[Path]) -> pd.DataFrame:
    """Return the mean features of the uniform runs, one row per network and cell."""
    runs = [
        record
        for record in itertools.chain.from_iterable(map(open_records, records))
        if (record.config["method"], record.config["augmentation"]) == (BASELINE, "standard")
    ]
    frame = analysis.summaries(runs)
    # The map compares a single budget and length: the regime that covers most cells.
    regime = ["budget", "budget_unit", "epochs", "schedule"]
    usual = frame.groupby(regime)[CELL].apply(lambda part: len(part.drop_duplicates())).idxmax()
    frame = frame[(frame[regime] == list(usual)).all(axis=1)]
    found = []
    for row, about in frame[["model", *CELL]].iterrows():
        try:
            found.append(about.to_dict() | analysis.pay_features(runs[row]))
        except InputError as error:
            warnings.warn(f"{error}; left out", stacklevel=2)
    return pd.DataFrame(found).groupby(["model", *CELL])[list(FEATURES)].mean().reset_index()


def fit(differences: pd.DataFrame, features: pd.DataFrame) -> dict[str, Any]:
    """Fit and cross-validate the models of each entry; return the content of ``will_it_pay.json``.

    ``differences`` is as returned by :func:`gains`; ``features`` has one row per cell, with the
    columns of :data:`CELL` and :data:`FEATURES`.
    """
    table = features.set_index(CELL).join(differences, how="inner")
    names = [name for name in FEATURES if table[name].std() > 1e-9]
    x = table[names]
    model: dict[str, Any] = {
        "threshold": THRESHOLD, "features": names, "mean": x.mean().tolist(),
        "scale": x.std(ddof=0).tolist(), "lowest": x.min().tolist(), "highest": x.max().tolist(),
        "entries": {},
    }  # fmt: skip
    for entry in differences.columns:
        known = table[table[entry].notna()]
        if len(known) < FEWEST_CELLS:
            continue
        values = known[names].to_numpy()
        datasets = known.index.get_level_values("dataset").to_numpy()
        answers = {outcome: (sign * known[entry] > THRESHOLD).to_numpy()
                   for outcome, sign in zip(OUTCOMES, (1, -1), strict=True)}  # fmt: skip
        model["entries"][entry] = {
            "cells": len(known),
            **{outcome: int(answer.sum()) for outcome, answer in answers.items()},
            "outcomes": {
                outcome: _fitted(values, answer, model) | judged(values, answer, datasets)
                for outcome, answer in answers.items()
                if answer.any() and not answer.all()
            },
        }
    return model


def elsewhere(model: dict[str, Any], differences: pd.DataFrame, features: pd.DataFrame) -> None:
    """Add to a fitted model its accuracy on networks that it was not fitted on.

    ``right`` of each outcome gets ``networks``, and ``networks constant`` for the majority answer
    of the fit. ``differences`` and ``features`` are as for :func:`fit`, with a column
    ``model`` and without the fitted network.
    """
    # Cells with too few seeds are dropped.
    table = features.set_index(["model", *CELL]).join(differences.dropna(how="all"), how="inner")
    if table.empty:
        return
    model["networks"] = sorted(table.index.unique("model"))
    for entry, fits in model["entries"].items():
        if entry not in table:
            continue
        known = table[table[entry].notna()]
        scaled = (known[model["features"]] - model["mean"]) / model["scale"]
        for outcome, sign in zip(OUTCOMES, (1, -1), strict=True):
            fitted = fits["outcomes"].get(outcome)
            if fitted is None or known.empty:
                continue
            answer = sign * known[entry] > THRESHOLD
            guess = scaled.to_numpy() @ fitted["coefficients"] + fitted["intercept"] > 0
            frequent = fits[outcome] > fits["cells"] / 2
            fitted["right"] |= {"networks": float((guess == answer).mean()),
                                "networks constant": float((answer == frequent).mean()),
                                "networks cells": len(known)}  # fmt: skip


def _fitted(values: np.ndarray, answer: np.ndarray, model: dict[str, Any]) -> dict[str, Any]:
    scaled = (values - np.array(model["mean"])) / np.array(model["scale"])
    full = LogisticRegression().fit(scaled, answer)
    return {"intercept": float(full.intercept_[0]), "coefficients": full.coef_[0].tolist()}


def judged(x: np.ndarray, answer: np.ndarray, datasets: np.ndarray) -> dict[str, Any]:
    """Return accuracy on held-out cells and data sets, and whether it beats the majority answer."""
    by_cell, constant = _left_out(x, answer, np.arange(len(answer)))
    right: dict[str, float] = {"cells": float((by_cell == answer).mean()),
                               "constant": float((constant == answer).mean())}  # fmt: skip
    if len(set(datasets)) > 1:
        by_dataset, _ = _left_out(x, answer, datasets)
        right["data sets"] = float((by_dataset == answer).mean())
    # Sign test: where the two answers differ, is the model right more often than chance?
    differ = by_cell != constant
    won = int((by_cell[differ] == answer[differ]).sum())
    n = int(differ.sum())
    p = float(binomtest(won, n, alternative="greater").pvalue) if n else 1.0
    return {"right": right, "p": p, "predicts": bool(p < 0.05)}


def _left_out(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the leave-one-group-out predictions of the model and of the majority answer."""
    guess, constant = np.zeros(len(y), bool), np.zeros(len(y), bool)
    for train, test in LeaveOneGroupOut().split(x, y, groups):
        constant[test] = y[train].mean() > 0.5
        if y[train].all() or not y[train].any():
            guess[test] = constant[test]
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[train], y[train])
        guess[test] = model.predict(x[test])
    return guess, constant


def main(arguments: Iterable[str] | None = None) -> int:
    """Fit and write the model; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True, help="rows of the map, CSV")
    parser.add_argument("--records", type=Path, nargs="+",
                        help="folders of records of its runs; writes --features")  # fmt: skip
    parser.add_argument("--features", type=Path, required=True, help="features of each cell, CSV")
    parser.add_argument("--networks", type=Path, default=RESULTS / "networks.csv",
                        help="rows of other networks, CSV")  # fmt: skip
    parser.add_argument("--out", type=Path, default=OUT, help="JSON to write")
    given = parser.parse_args(None if arguments is None else list(arguments))
    if given.records is not None:
        features_of(given.records).to_csv(given.features, index=False)
    rows = read(given.table)
    if "augmentation" in rows:  # a table of all parts: keep the map only
        rows = map_rows(rows)
    features = pd.read_csv(given.features)
    others = features[features["model"] != NETWORK]
    model = fit(gains(rows), features[features["model"] == NETWORK])
    if len(others) and given.networks.is_file():
        elsewhere(model, gains(read(given.networks), ["model", *CELL]), others)
    made = f"python -m experiments.fit_probe, {len(rows):,} rows of {given.table.name}"
    given.out.write_text(json.dumps({"made": made} | model, indent=2) + "\n", encoding="utf-8")
    for entry, fits in model["entries"].items():
        for outcome, found in fits["outcomes"].items():
            right = ", ".join(
                f"{name} {n:.0%}" for name, n in found["right"].items() if name != "networks cells"
            )
            known = "predicted" if found["predicts"] else "not predicted"
            print(f"{entry}, {outcome} ({fits[outcome]} of {fits['cells']}): {known}; {right}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
