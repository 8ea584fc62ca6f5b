"""Find suspected wrong labels and estimate how many of them are wrong.

A network may memorise the wrong label of a sample it was trained on. Labels are therefore judged
by a network that has not seen the sample (held-out folds), or in comparison with samples whose
label is known to be wrong (threshold samples).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from statsmodels.stats.proportion import proportion_confint

from budgetlab.analysis.per_sample import measures
from budgetlab.analysis.statistics import require_in_open_unit_interval
from budgetlab.errors import InputError, whole

if TYPE_CHECKING:
    from budgetlab.data import Dataset, Splits
    from budgetlab.training import Run

# A network is too weak to judge labels, taking hard samples for wrong ones, if its accuracy above
# guessing is below this share of the accuracy above guessing that wrong labels allow.
MIN_RELATIVE_ACCURACY = 0.65
# Share, and least number, of the surest samples of a class, which show how it is labelled.
ANCHOR_SHARE, MIN_ANCHORS = 0.05, 20
STEPS = 50
# Percentiles of fewer threshold samples would be too coarse.
FEWEST = 20


def held_out_probabilities(
    splits: "Splits | Dataset", *, folds: int = 5, seed: int = 0, **settings: Any
) -> np.ndarray:
    """Predict each fold of the training samples with a network trained on the other folds.

    Returns float64 ``[N, C]``: ``pred_probs`` for :func:`label_quality` and for cleanlab's
    ``find_label_issues(labels, pred_probs)``. ``splits.train.y`` are the labels.

    - ``splits``: the data; its training samples are judged.
    - ``folds``, ``seed``: number of folds, 2 or more, stratified by class; and the seed.
    - ``**settings``: fields of :class:`budgetlab.RunConfig`, such as ``epochs``; the budget is 1 by
      default.
    """
    from budgetlab.data import Splits

    train = training_samples(splits)
    y = train.y.cpu().numpy()
    folds = whole("folds", folds, 2, len(y))
    fold = _folds(y, folds, seed)
    found = np.empty((len(y), len(train.classes)))
    for number in range(folds):
        held = np.flatnonzero(fold == number)
        test = train.select(held)
        own = Splits.of(train.select(np.flatnonzero(fold != number)), test, name="folds")
        with temporary_run(
            own, **{"budget": 1.0, "seed": seed, "evaluate_every": 0} | settings
        ) as run:
            found[held] = softmax(_logits(run, test), axis=1)
    return found


def training_samples(splits: "Splits | Dataset") -> "Dataset":
    """Return the training samples, whose labels are judged."""
    from budgetlab.data import Dataset, Splits
    from budgetlab.data.dataset import require

    require(splits, Splits, Dataset)
    return splits.train if isinstance(splits, Splits) else splits


def _logits(run: "Run", samples: "Dataset") -> np.ndarray:
    """Compute logits of the trained network without augmentation, float64 ``[N, C]``."""
    import torch

    run.loop.engine.network.eval()
    with torch.no_grad():
        parts = [run.loop.engine.logits(x.to(run.device)) for x in samples.x.split(512)]
    return torch.cat(parts).double().cpu().numpy()


@contextlib.contextmanager
def temporary_run(splits: "Splits", **settings: Any) -> "Iterator[Run]":
    """Train on the given data, and delete the record afterwards."""
    import tempfile

    from budgetlab.config import RunConfig
    from budgetlab.training import Run

    with tempfile.TemporaryDirectory() as out:
        config = RunConfig.from_dict({"dataset": splits.name, "out": out} | settings)
        run = Run(config, splits=splits)
        for _ in run:
            pass
        yield run


def _folds(y: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Assign each sample to a fold, stratified by class."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), np.int64)
    fold[order] = np.arange(len(y)) % folds
    return fold


def label_quality(labels: np.ndarray, pred_probs: np.ndarray) -> pd.DataFrame:
    """Judge each label by probabilities from a network that was not trained on it.

    The probabilities are first calibrated by maximum-likelihood temperature scaling (Guo et al.
    2017). The label noise ``P(label | true)`` is counted among the samples most surely of each
    class (after Patrini et al. 2017). Bayes' rule then gives ``P(true | x, label)``; a label is
    a suspect if another class is more likely. The only sample of a class is none, as a network that
    was not trained on it knows nothing of the class. ``labels`` are ``[N]``, in [0, C), and
    ``pred_probs`` ``[N, C]``.

    Returns
    -------
    DataFrame
        One row per sample: ``suspect``; ``p_wrong``, the estimated probability that the label is
        wrong, NaN for the only sample of a class; ``p_label`` (calibrated); ``suggested`` (number
        of the likeliest true class) and ``p_suggested``. ``attrs`` has ``accuracy`` (held-out,
        against the given labels), ``temperature``, and ``weak``: empty, or a sentence if the
        network is too weak to tell hard samples from wrong labels, so that ``p_wrong`` may be far
        off.
    """
    labels, chance = np.asarray(labels), np.asarray(pred_probs, float)
    if chance.ndim != 2 or labels.shape != chance.shape[:1] or not len(labels):
        raise InputError(
            f"labels {labels.shape} and pred_probs {chance.shape} do not fit: give [N] and [N, C]"
        )
    if len(bad := np.argwhere(~np.isfinite(chance))):
        row, column = bad[0]
        raise InputError(
            f"pred_probs[{row}, {column}] is {chance[row, column]}: give probabilities in [0, 1]"
        )
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"labels are {labels.dtype}: give whole numbers from 0 to {chance.shape[1] - 1}"
        )
    if labels.min() < 0 or labels.max() >= chance.shape[1]:
        raise InputError(
            f"labels from {labels.min()} to {labels.max()}: give 0 to {chance.shape[1] - 1}"
        )
    odd = np.flatnonzero((chance < 0).any(1) | (np.abs(chance.sum(1) - 1) > 0.01))
    if len(odd):
        raise InputError(
            f"row {odd[0]} of pred_probs is not a distribution: give rows in [0, 1] that sum to 1"
        )
    logs = np.log(np.maximum(chance, 1e-12))
    temperature = _temperature(labels, logs)
    chance = softmax(logs / temperature, axis=1)
    anchors = np.argsort(-chance, axis=0, kind="stable")[
        : max(MIN_ANCHORS, round(ANCHOR_SHARE * len(labels)))
    ]
    noise = _noise_matrix(labels, chance, anchors)
    true = _true_classes(labels, chance, noise)
    rows = np.arange(len(labels))
    best = true.argmax(axis=1)
    judged = np.bincount(labels)[labels] > 1
    p_wrong = np.where(judged, 1 - true[rows, labels], np.nan)
    frame = pd.DataFrame(
        {"suspect": judged & (best != labels), "p_wrong": p_wrong, "p_label": chance[rows, labels],
         "suggested": best, "p_suggested": true[rows, best]},
        index=pd.RangeIndex(len(labels), name="sample"),
    )  # fmt: skip
    accuracy, weak = float((chance.argmax(axis=1) == labels).mean()), ""
    guess = np.bincount(labels).max() / len(labels)
    # Confidence in the surest samples: about the accuracy that wrong labels allow.
    tops = anchors[: len(anchors) // 5 + 1].T
    peak = np.mean([chance[top, c].mean() for c, top in enumerate(tops)])
    if accuracy - guess < MIN_RELATIVE_ACCURACY * (peak - guess):
        weak = (
            f"the network agrees with {100 * accuracy:.0f}% of held-out labels, too few to judge "
            "them: train for longer, or with a larger network"
        )
    frame.attrs = {"accuracy": accuracy, "temperature": temperature, "weak": weak}
    return frame


def _noise_matrix(labels: np.ndarray, chance: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Estimate ``P(label | true)``, float64 ``[C, C]``, from the surest samples of each class.

    Among the ``surest [K, C]`` only those predicted as the class count; a rare class, which has
    few, is filled up with the average noise of all classes.
    """
    size = chance.shape[1]
    own = chance.argmax(axis=1)[anchors] == np.arange(size)
    counts = np.stack([np.bincount(labels[rows[kept]], minlength=size)
                       for rows, kept in zip(anchors.T, own.T, strict=True)])  # fmt: skip
    right = counts.trace() / max(counts.sum(), 1)
    average = np.full((size, size), (1 - right) / max(size - 1, 1))
    np.fill_diagonal(average, right)
    lacking = np.maximum(min(MIN_ANCHORS, len(anchors)) - own.sum(axis=0), 0)[:, None]
    counts = counts + lacking * average + 0.5 / size
    return counts / counts.sum(axis=1, keepdims=True)


def _true_classes(labels: np.ndarray, chance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Compute the probability ``[N, C]`` that each class is the true one of each sample.

    The network was trained on the given labels and predicts ``P(label | x) = sum_c P(label | c)
    P(c | x)``, solved for ``P(c | x)`` by expectation maximisation. Then ``P(c | x, label) ~
    P(c | x) P(label | c)``.
    """
    true = chance.copy()
    for _ in range(STEPS):
        true *= (chance / np.maximum(true @ noise, 1e-12)) @ noise.T
    joint = true * noise[:, labels].T
    return joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)


def threshold_quality(
    splits: "Splits | Dataset", *, percentile: float = 99.0, seed: int = 0, **settings: Any
) -> pd.DataFrame:
    """Judge labels by comparing their margins with those of deliberately mislabelled samples.

    One sample in C + 1, drawn at random, is moved to an additional class: these *threshold
    samples* are learned as wrong labels are. A label is a suspect if its area under the margin
    is at most the given percentile of theirs (Pleiss et al. 2020), whatever the sampling method
    does to margins. Two runs with different threshold samples judge every sample.

    The expected precision is not in the paper: wrong labels are assumed to have the margins of
    threshold samples, and their share is estimated by :func:`label_quality` of the threshold
    samples, on whose original labels the network was not trained.

    - ``splits``, ``seed``, ``**settings``: as for :func:`held_out_probabilities`.
    - ``percentile``: percentile of the threshold samples' margins, in (0, 100]. At 99 nearly all
      wrong labels are listed, with many others; at 50 about half of them, with fewer others.

    Returns
    -------
    DataFrame
        One row per sample: ``margin``, the area under the margin less the cutoff, averaged over
        the runs that judge it; ``suspect``; and ``p_wrong``. ``attrs`` are those of
        :func:`label_quality` for the threshold samples, and ``share_wrong``, the estimated share.
    """
    train = training_samples(splits)
    classes = len(train.classes)
    count = len(train) // (classes + 1)
    if not 0 < percentile <= 100:
        raise InputError(f"percentile {percentile} is not allowed: give one in (0, 100]")
    if count < FEWEST:
        raise InputError(
            f"{len(train)} samples of {classes} classes give {count} threshold samples, and "
            f"{FEWEST} are needed: judge the labels by held_out_probabilities"
        )
    order = np.random.default_rng(seed).permutation(len(train))
    drawn = [order[:count], order[count : 2 * count]]
    runs = [_train_with_threshold_samples(train, threshold_rows, {"seed": seed + n} | settings)
            for n, threshold_rows in enumerate(drawn)]  # fmt: skip
    y = train.y.cpu().numpy()[np.concatenate(drawn)]
    about = label_quality(y, np.concatenate([chances for _, chances in runs]))
    share = float(about["p_wrong"].mean())
    parts = []
    for (aum, _), threshold_rows in zip(runs, drawn, strict=True):
        judged = np.isfinite(aum)  # a sample never trained on has none
        judged[threshold_rows] = False
        known = aum[threshold_rows][np.isfinite(aum[threshold_rows])]
        p_wrong = share * _density_ratio(aum[judged], known)
        part = {"margin": aum[judged] - np.percentile(known, percentile),
                "p_wrong": p_wrong.clip(max=1)}  # fmt: skip
        parts.append(pd.DataFrame(part, index=np.flatnonzero(judged)))
    frame = pd.concat(parts).groupby(level=0).mean().reindex(range(len(train)))
    frame.insert(1, "suspect", frame["margin"] <= 0)
    frame.attrs = about.attrs | {"share_wrong": share}
    return frame.rename_axis("sample")


def _train_with_threshold_samples(
    train: "Dataset", threshold_rows: np.ndarray, settings: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Train with threshold samples; return AUM ``[N]`` and their probabilities ``[T, C]``."""
    from budgetlab.data import Splits

    y, classes = train.y.clone(), len(train.classes)
    y[threshold_rows] = classes
    made = replace(train, y=y, classes=(*train.classes, "threshold samples"))
    own = Splits.of(made, made.select(threshold_rows), name="threshold")
    with temporary_run(own, **{"budget": 1.0, "evaluate_every": 0} | settings) as run:
        aum = measures(run.record)["aum"].to_numpy()
        return aum, softmax(_logits(run, made.select(threshold_rows))[:, :classes], axis=1)


def _density_ratio(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Estimate the density of ``known`` over that of ``values``, at each value; non-increasing."""
    from sklearn.isotonic import IsotonicRegression

    both = np.concatenate([values, known])
    is_known = np.repeat([0.0, 1.0], [len(values), len(known)])
    share = IsotonicRegression(increasing=False).fit(both, is_known).predict(values)
    return share / np.maximum(1 - share, 1e-9) * len(values) / max(len(known), 1)


def _temperature(labels: np.ndarray, logs: np.ndarray) -> float:
    """Find the temperature that maximises the likelihood of the labels."""
    rows = np.arange(len(labels))

    def cost(log_temperature: float) -> float:
        return -float(log_softmax(logs / np.exp(log_temperature), axis=1)[rows, labels].mean())

    return float(np.exp(minimize_scalar(cost, bounds=(-3, 3), method="bounded").x))


def precision_and_recall(
    listed: np.ndarray, wrong: np.ndarray, confidence: float = 0.95
) -> pd.Series:
    """Score a list of suspects ``[N]`` against labels known to be wrong ``[N]``.

    Samples where ``wrong`` is missing do not count. The result has the counts ``listed``,
    ``wrong`` and ``found``, and ``precision`` and ``recall`` with Wilson intervals (``_low``,
    ``_high``); NaN if nothing is listed or wrong.
    """
    require_in_open_unit_interval(confidence=confidence)
    truth = pd.Series(wrong).reset_index(drop=True)
    known = truth.notna().to_numpy()
    if np.shape(listed) != known.shape:
        raise InputError(
            f"listed {np.shape(listed)} and wrong {known.shape} do not fit: give [N] each"
        )
    listed, truth = np.asarray(listed, bool)[known], truth[known].to_numpy(bool)
    counts: dict[str, float] = {"listed": int(listed.sum()), "wrong": int(truth.sum())}
    found = int((listed & truth).sum())
    values = counts | {"found": found}
    for name, total in zip(("precision", "recall"), counts.values(), strict=True):
        low = high = share = float("nan")
        if total:
            share = found / total
            low, high = proportion_confint(found, total, 1 - confidence, method="wilson")
        values |= {name: share, f"{name}_low": low, f"{name}_high": high}
    return pd.Series(values)
