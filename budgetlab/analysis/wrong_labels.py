"""Wrong labels from held-out folds: probabilities, suspects, and how often such lists are right.

A network that has seen a sample may know its wrong label by heart. Judged by one that has
not, the label has to be plausible by the others of its class.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.errors import InputError

if TYPE_CHECKING:
    from budgetlab.data import Dataset, Splits
    from budgetlab.training import Run

__all__ = ["held_out_probabilities", "label_quality", "precision_and_recall", "suspects"]

# Below this share of right answers on held-out samples, beyond what guessing gives, a network
# is too weak to judge labels.
WEAK = 0.5
ROUNDS, STEPS = 4, 50


def held_out_probabilities(
    splits: "Splits | Dataset", *, folds: int = 5, seed: int = 0, **settings: Any
) -> np.ndarray:
    """Train on all folds but one, and say what the network gives the samples of that one.

    Parameters
    ----------
    splits
        The data; its training samples are judged.
    folds
        How many runs, from 2; every class is spread evenly over them.
    seed
        Of the folds and the runs.
    **settings
        Fields of :class:`budgetlab.RunConfig`, such as ``epochs`` and ``lr``; a short run will
        do. The budget is the full run unless another is given.

    Returns
    -------
    numpy.ndarray
        float64 ``[N, C]``: ``pred_probs`` for :func:`suspects` and for cleanlab's
        ``find_label_issues(labels, pred_probs)``. ``splits.train.y`` are the labels.

    Raises
    ------
    InputError
        If there are fewer samples of a class than are needed, or a setting does not fit.
    """
    import torch

    from budgetlab.data import Dataset, Splits
    from budgetlab.data.samples import fingerprint

    train = splits if isinstance(splits, Dataset) else splits.train
    y = train.y.cpu().numpy()
    if not 2 <= folds <= len(y):
        raise InputError(f"folds {folds} is not allowed: give 2 to {len(y)}")
    fold = _folds(y, folds, seed)
    found = np.empty((len(y), len(train.classes)))
    for number in range(folds):
        part = train.select(np.flatnonzero(fold != number))
        held = np.flatnonzero(fold == number)
        test = train.select(held)
        own = Splits("folds", part, None, test, fingerprint(part, test))
        with trained(own, **{"budget": 1.0, "seed": seed, "evaluate_every": 0} | settings) as run:
            run.loop.engine.network.eval()
            with torch.no_grad():
                parts = [run.loop.engine.logits(x.to(run.device)) for x in test.x.split(512)]
            found[held] = torch.cat(parts).double().softmax(dim=1).cpu().numpy()
    return found


@contextlib.contextmanager
def trained(splits: "Splits", **settings: Any) -> "Iterator[Run]":
    """Train on data that is given, and forget the record afterwards."""
    import tempfile

    from budgetlab.config import RunConfig
    from budgetlab.training import Run

    with tempfile.TemporaryDirectory() as out:
        run = Run(RunConfig(**{"dataset": splits.name, "out": out} | settings), splits=splits)
        for _ in run:
            pass
        yield run


def _folds(y: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Number of the fold of each sample, every class spread evenly."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), np.int64)
    fold[order] = np.arange(len(y)) % folds
    return fold


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def label_quality(labels: np.ndarray, pred_probs: np.ndarray) -> pd.DataFrame:
    """Judge each label by probabilities of a network that has not seen it.

    The probabilities are calibrated first: one temperature, by which the labels are most
    likely (Guo et al. 2017). A label is a suspect where another class is at least as likely
    as it usually is among the samples of that class, and is the likeliest such one (confident
    learning, Northcutt et al. 2021).

    Parameters
    ----------
    labels
        ``[N]``, in [0, C).
    pred_probs
        ``[N, C]``, as from :func:`held_out_probabilities`.

    Returns
    -------
    DataFrame
        One row a sample: ``p_label`` (calibrated), ``suggested`` (number of the likeliest
        class), ``p_suggested``, ``suspect``, and ``p_wrong``, the estimated probability that
        the label is wrong: within 0.1 where probabilities are those of a calibrated network,
        too low by up to 0.25 in short trainings with a third of the labels wrong. ``attrs``
        has ``accuracy`` (held-out, against the labels as they are), ``temperature``, and
        ``weak``, a sentence where the network cannot judge, else empty.
    """
    labels, chance = np.asarray(labels), np.asarray(pred_probs, float)
    if chance.ndim != 2 or labels.shape != chance.shape[:1] or not len(labels):
        raise InputError(
            f"labels {labels.shape} and pred_probs {chance.shape} do not fit: give [N] and [N, C]"
        )
    if labels.min() < 0 or labels.max() >= chance.shape[1] or not np.isfinite(chance).all():
        raise InputError(
            f"labels up to {labels.max()} need {labels.max() + 1} columns of finite probabilities: "
            f"there are {chance.shape[1]}"
        )
    temperature = _temperature(labels, chance)
    chance = _softmax(np.log(np.maximum(chance, 1e-12)) / temperature)
    rows = np.arange(len(labels))
    own = chance[rows, labels]
    usual = np.array([
        chance[labels == c, c].mean() if (labels == c).any() else 1.0
        for c in range(chance.shape[1])
    ])  # fmt: skip
    likely = np.where(chance >= usual, chance, 0.0)
    best = np.where(likely.any(axis=1), likely.argmax(axis=1), labels)
    suspect = (best != labels) & (chance.argmax(axis=1) != labels)
    wrong = _wrong(labels, chance, best, suspect)
    guess = np.bincount(labels).max() / len(labels)
    accuracy = float((chance.argmax(axis=1) == labels).mean())
    frame = pd.DataFrame(
        {"p_label": own, "suggested": chance.argmax(axis=1), "p_suggested": chance.max(axis=1),
         "suspect": suspect, "p_wrong": wrong}, index=pd.RangeIndex(len(labels), name="sample"),
    )  # fmt: skip
    weak = ""
    if (accuracy - guess) / max(1 - guess, 1e-9) < WEAK:
        weak = (
            f"the network agrees with {100 * accuracy:.0f}% of held-out labels, too few to judge "
            "them: train for longer, or with a larger network"
        )
    frame.attrs = {"accuracy": accuracy, "temperature": temperature, "weak": weak}
    return frame


def _temperature(labels: np.ndarray, chance: np.ndarray) -> float:
    """The temperature at which the labels are most likely."""
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(chance, 1e-12))
    rows = np.arange(len(labels))

    def cost(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        peak = scaled.max(axis=1)
        total = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        return float((total - scaled[rows, labels]).mean())

    return float(np.exp(minimize_scalar(cost, bounds=(-3, 3), method="bounded").x))


def _wrong(
    labels: np.ndarray, chance: np.ndarray, best: np.ndarray, suspect: np.ndarray
) -> np.ndarray:
    """Probability that each label is wrong, by Bayes' rule.

    How often a class is labelled as another, ``P(label | true)``, comes from the confident
    counts first. The network, trained on the labels as they are, says ``P(label | x)``, which
    is ``sum_c P(label | c) P(c | x)``: solved for ``P(c | x)`` by expectation maximisation. Then
    ``P(true = c | x, label) ~ P(c | x) P(label | c)``, by which the counts are made again. Few
    rounds, because in the end labels alone do not tell a wrong one from a hard sample.
    """
    rows, classes = np.arange(len(labels)), chance.shape[1]
    counted = np.zeros((classes, classes))
    np.add.at(counted, (np.where(suspect, best, labels), labels), 1)
    for _ in range(ROUNDS):
        # One sample more that is labelled right, and one spread over the others.
        counted += np.eye(classes) + 1 / classes
        noise = counted / counted.sum(axis=1, keepdims=True)
        true = chance.copy()
        for _ in range(STEPS):
            true *= (chance / np.maximum(true @ noise, 1e-12)) @ noise.T
        joint = true * noise[:, labels].T
        joint /= joint.sum(axis=1, keepdims=True)
        counted = np.zeros((classes, classes))
        np.add.at(counted.T, labels, joint)
    return 1 - joint[rows, labels]


def suspects(
    labels: np.ndarray, pred_probs: np.ndarray, *, ranked: pd.DataFrame | None = None
) -> pd.DataFrame:
    """List the suspected labels, the surest first, with the expected precision of the list.

    Parameters
    ----------
    labels, pred_probs
        As for :func:`label_quality`.
    ranked
        As from :func:`budgetlab.analysis.triage`, to have its columns beside.

    Returns
    -------
    DataFrame
        Rows of :func:`label_quality` that are suspects, by ``p_wrong``; column
        ``expected_precision`` is the estimated share of wrong labels in the list down to that
        row. ``attrs`` as there, and ``expected_precision`` of the whole list.
    """
    quality = label_quality(labels, pred_probs)
    found = quality[quality["suspect"]].sort_values("p_wrong", ascending=False, kind="stable")
    found = found.drop(columns="suspect")
    found["expected_precision"] = found["p_wrong"].expanding().mean()
    if ranked is not None:
        found = found.join(ranked[[n for n in ranked if n not in found]])
    whole = float(found["p_wrong"].mean()) if len(found) else float("nan")
    found.attrs = quality.attrs | {"expected_precision": whole}
    return found


def precision_and_recall(
    listed: np.ndarray, wrong: np.ndarray, confidence: float = 0.95
) -> pd.Series:
    """Score a list of suspects against labels that are known to be wrong.

    Parameters
    ----------
    listed, wrong
        Truth values ``[N]``; where ``wrong`` is missing, a sample does not count.
    confidence
        Of the intervals (Wilson 1927).

    Returns
    -------
    Series
        ``listed``, ``wrong``, ``found`` (numbers), ``precision`` and ``recall``, each with
        ``_low`` and ``_high``; NaN where nothing is listed or wrong.
    """
    from scipy.stats import binomtest

    truth = pd.Series(wrong).reset_index(drop=True)
    known = truth.notna().to_numpy()
    listed, truth = np.asarray(listed, bool)[known], truth[known].to_numpy(bool)
    found = int((listed & truth).sum())
    values: dict[str, float] = {
        "listed": int(listed.sum()),
        "wrong": int(truth.sum()),
        "found": found,
    }
    for name, total in (("precision", values["listed"]), ("recall", values["wrong"])):
        low = high = share = float("nan")
        if total:
            share = found / total
            interval = binomtest(found, int(total)).proportion_ci(confidence, method="wilson")
            low, high = interval.low, interval.high
        values |= {name: share, f"{name}_low": low, f"{name}_high": high}
    return pd.Series(values)
