"""Will importance sampling pay on my data? A forecast from one short uniform run.

Logistic regressions on a few features of a uniform run, fitted to the cells of the importance
map (``python -m experiments.fit_probe``), estimate how likely each method is to gain and to lose.
``will_it_pay.json`` holds the coefficients and their accuracy on held-out cells and data sets.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from budgetlab.analysis.per_sample import copy_sources, measures, require_every_epoch
from budgetlab.analysis.samples import entropy
from budgetlab.errors import InputError
from budgetlab.records import OneRecord, open_record

OUTCOMES = ("gain", "lose")
UNIFORM = ("unif-SGD", "SGD", "rs2")

FEATURES = {
    "loss_variation": "standard deviation of the last losses over their mean",
    "hardest_tenth": "share of all loss that the hardest tenth of the samples holds",
    "learned_early": "share of the samples learned in the first half of the run, for good",
    "never_learned": "share of the samples wrong at every visit",
    "forgetting": "forgetting events a visit",
    "negative_margin": "share of the samples with a negative mean margin",
    "copies": "share of the samples that are copies of another one",
    "class_evenness": "entropy of the shares of the classes, over that of equal ones",
}
"""Features computed by :func:`pay_features`, with their meaning."""

# The other half of the answer, added to every forecast.
VARIANCE_NOTE = (
    "For the noise that each method's batches add to the gradient on your data, see "
    "bl.estimators.Moment.of_record(record) and its tables distributions() and methods(...)."
)


@dataclass(frozen=True)
class Forecast:
    """The result of :func:`will_it_pay`.

    - ``chances``, ``risks``: probability of a gain, and of a loss, by method; methods without a
      predictive model are missing.
    - ``features``: features of the run, one number for each of :data:`FEATURES`.
    - ``outside``: features outside the range that the model was fitted on.
    - ``sentences``: forecasts in words, each with how often such a forecast was right.
    """

    chances: dict[str, float]
    risks: dict[str, float]
    features: dict[str, float]
    outside: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        from markupsafe import escape

        return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in self.sentences)}</ul>"


def importance_map() -> pd.DataFrame:
    """Load the importance map that ships with the kit, one row per method and cell.

    Columns are ``dataset``, ``redundancy``, ``imbalance``, ``label_noise``, ``method``, ``n``
    (paired seeds), ``baseline_mean``, ``difference``, ``ci_low``, ``ci_high`` (as fractions),
    ``p_corrected`` and ``verdict``. ``python -m experiments.pages`` writes it; docs/map.md
    describes the comparison.
    """
    stored = resources.files("budgetlab.analysis").joinpath("importance_map.csv")
    with stored.open(encoding="utf-8") as file:
        return pd.read_csv(file)


def pay_features(record: OneRecord, *, copies: np.ndarray | None = None) -> dict[str, float]:
    """Compute the features of a uniform run that may predict whether importance sampling pays.

    Ground truth that only synthetic data has, such as which labels were made wrong or how
    difficult a sample was meant to be, is not used.

    - ``record``: a run with uniform sampling (``unif-SGD``, ``SGD`` or ``rs2``), or its folder,
      with per-sample history. Half of the samples or more must have been visited, and those twice
      or more in the median.
    - ``copies``: the first sample that each training sample is a copy of, or itself, int ``[N]``,
      as from :func:`budgetlab.data.duplicates`. By default the metadata column ``copy_of``.
    """
    record = open_record(record)
    method = record.config.get("method")
    if method not in UNIFORM:
        raise InputError(
            f"'{record.path}' was trained with {method}: give a run of {', '.join(UNIFORM)}"
        )
    require_every_epoch(record, "what was learned and forgotten between them")
    frame = measures(record)
    seen = frame[frame["visits"] > 0]
    if len(seen) < len(frame) / 2 or seen["visits"].median() < 2:
        raise InputError(
            f"'{record.path}' visited too little: {len(seen)} of {len(frame)} samples, "
            f"{frame['visits'].median():g} times in the median; train for longer"
        )
    loss = seen["last_loss"].to_numpy(float)
    tenth = max(1, round(len(loss) / 10))
    total = max(float(loss.sum()), np.finfo(float).tiny)
    events, known = seen["forgetting"].replace(np.inf, 0), frame.loc[frame["label"] >= 0, "label"]
    counts = known.value_counts()
    return {
        "loss_variation": float(loss.std() / (total / len(loss))),
        "hardest_tenth": float(np.sort(loss)[-tenth:].sum() / total),
        "learned_early": float((seen["learning"] == "early").mean()),
        "never_learned": float((seen["learning"] == "never").mean()),
        "forgetting": float(events.sum() / seen["visits"].sum()),
        "negative_margin": float((seen["aum"] < 0).mean()),
        "copies": _share_of_copies(frame, copies),
        "class_evenness": entropy(counts) / float(np.log(len(counts))) if len(counts) > 1 else 1.0,
    }


def _share_of_copies(frame: pd.DataFrame, copies: np.ndarray | None) -> float:
    own, first = copy_sources(frame, copies)
    return float((first != own).mean())


def will_it_pay(
    record: OneRecord,
    *,
    copies: np.ndarray | None = None,
    model: Mapping[str, Any] | None = None,
) -> Forecast:
    """Forecast whether importance sampling pays on this data, and how reliable the forecast is.

    - ``record``, ``copies``: as for :func:`pay_features`: one short uniform run on the data.
    - ``model``: as written by ``python -m experiments.fit_probe``; by default the one in the kit.

    Returns probabilities of a gain and of a loss by method, and sentences that state how often such
    forecasts were right on cells of the importance map, data sets and networks left out of the fit,
    or that neither outcome could be predicted.

    Examples
    --------
    >>> import budgetlab as bl
    >>> record = bl.train("unif-SGD", preset="scale-model", budget=0.3)  # doctest: +SKIP
    >>> print(bl.analysis.will_it_pay(record))  # doctest: +SKIP
    """
    if model is None:
        text = resources.files("budgetlab.analysis").joinpath("will_it_pay.json").read_text("utf-8")
        model = json.loads(text)
    found = pay_features(record, copies=copies)
    names = list(model["features"])
    values = np.array([found[name] for name in names])
    ranges = zip(names, values, model["lowest"], model["highest"], strict=True)
    outside = [name for name, value, low, high in ranges if not low <= value <= high]
    scaled = (values - np.array(model["mean"])) / np.array(model["scale"])
    points = f"{100 * model['threshold']:g} percentage points"
    foreseen: dict[str, dict[str, float]] = {outcome: {} for outcome in OUTCOMES}
    sentences = []
    for entry, fits in model["entries"].items():
        for outcome, fit in fits["outcomes"].items():
            if fit["predicts"]:
                score = fit["intercept"] + float(scaled @ np.array(fit["coefficients"]))
                chance = float(1 / (1 + np.exp(-np.clip(score, -50, 50))))
                foreseen[outcome][entry] = chance
                sentences.append(_forecast_sentence(entry, outcome, fits, chance, points))
        if not any(entry in chances for chances in foreseen.values()):
            sentences.append(
                f"{entry}: nothing seen in such a run predicts whether it will gain or lose more "
                f"than {points} against unif-SGD. {_outcome_counts(fits)}"
            )
    if not model["entries"]:
        sentences = ["No forecast: the model has not been fitted on a map yet."]
    elif outside and any(foreseen.values()):
        named = " or ".join(FEATURES.get(name, name) for name in outside)
        sentences.append(f"Trust it less here: the map has no data with a similar {named}.")
    sentences.append(VARIANCE_NOTE)
    return Forecast(foreseen["gain"], foreseen["lose"], found, outside, sentences)


def _forecast_sentence(
    entry: str, outcome: str, fits: Mapping[str, Any], chance: float, points: str
) -> str:
    likely = "likely" if chance >= 0.5 else "unlikely"
    right = {name: f"{100 * share:.0f}%" for name, share in
             fits["outcomes"][outcome]["right"].items() if share is not None}  # fmt: skip
    there = ""
    if "data sets" in right:
        there += f", and on {right['data sets']} when a whole data set was left out"
    if "networks" in right:
        cells = fits["outcomes"][outcome]["right"]["networks cells"]
        there += (
            f". For networks outside the fit, it was right on {right['networks']} of {cells} cells "
            f"(the more frequent answer: {right['networks constant']})"
        )
    return (
        f"{entry} is {likely} to {outcome} more than {points} against unif-SGD (chance "
        f"{100 * chance:.0f}%). Such a forecast was right on {right['cells']} of the cells left "
        f"out of the fit (always giving the more frequent answer: {right['constant']}){there}. "
        f"{_outcome_counts(fits)}"
    )


def _outcome_counts(fits: Mapping[str, Any]) -> str:
    return (
        f"On the importance map, the method gained that much in {fits['gain']} and lost it in "
        f"{fits['lose']} of {fits['cells']} cells."
    )
