"""What can be done to a training set: imbalance, planted copies, label noise.

Positions and labels are picked from plain arrays, with draws from a generator that is given.
:func:`budgetlab.data.load` applies them in a fixed order.
"""

from dataclasses import replace

import numpy as np
import torch

from budgetlab.data.dataset import Dataset, of_each_class, stratified
from budgetlab.errors import InputError, unknown
from budgetlab.seeds import numpy_generator

__all__ = ["NOISE_KINDS", "annotator", "imbalanced", "mislabel", "noisy_labels", "redundant",
           "repeat", "varied"]  # fmt: skip

NOISE_KINDS = ("symmetric", "pair", "instance")

# The annotator of instance-dependent noise sees images no larger than this, and trusts
# the correlations between their pixels up to this share.
ANNOTATOR_SIDE = 8
ANNOTATOR_SHRINKAGE = 0.1


def imbalanced(y: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """Pick positions of labels ``[N]`` so that class sizes fall exponentially over the classes.

    Class k of K keeps ``n_0 * ratio ** (-k / (K - 1))`` samples, at least one
    (Cui et al., CVPR 2019, section 5), where ``n_0`` is the size of the smallest
    class or more, if all classes can still be filled. Positions are int64, ascending.
    """
    if not (np.isfinite(ratio) and ratio >= 1):
        raise InputError(
            f"imbalance {ratio} is not allowed: give the size of the most frequent class "
            "over the least frequent, at least 1"
        )
    if ratio == 1:
        return np.arange(len(y), dtype=np.int64)
    labels, sizes = np.unique(y, return_counts=True)
    profile = ratio ** (-np.arange(len(labels)) / max(1, len(labels) - 1))
    largest = (sizes / profile).min()
    keep = np.maximum(1, np.rint(largest * profile)).astype(np.int64)
    return of_each_class(y, keep, generator)


def redundant(
    y: np.ndarray, share: float, copies: int, generator: np.random.Generator
) -> np.ndarray:
    """Choose which samples become copies of few others, every class at its share.

    ``round(share * N)`` samples are replaced. Each takes the place of a copy of a sample of its
    own class, so that the number of samples and of each class stays. A class of which ``m``
    samples are replaced has ``round(m / copies)`` of its other samples copied, at least one,
    each as often as the others or once more.

    Returned is for labels ``[N]`` the position of the sample whose values each one takes, int64
    ``[N]``; its own, if it is not replaced.
    """
    if not 0 <= share < 1:
        raise InputError(f"redundancy {share} is not allowed: give a share in [0, 1)")
    if copies < 1 or copies != int(copies):
        raise InputError(f"copies {copies} is not allowed: give a whole number of 1 or more")
    source = np.arange(len(y), dtype=np.int64)
    replaced = stratified(y, round(share * len(y)), generator)
    for label in np.unique(y[replaced]):
        gone = replaced[y[replaced] == label]
        kept = np.setdiff1d(np.flatnonzero(y == label), gone)
        if not len(kept):
            raise InputError(
                f"redundancy {share:g} leaves class {label} without a sample to copy: give a "
                "smaller share, or more samples"
            )
        count = min(len(kept), max(1, round(len(gone) / copies)))
        originals = generator.permutation(kept)[:count]
        source[gone] = originals[np.arange(len(gone)) % count]
    return source


def varied(x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Change images slightly: moved by up to a pixel each way, up to a tenth brighter or darker.

    Images are uint8 ``[N, C, H, W]``; of float ``[N, features]`` each value moves by up to
    a hundredth of the spread of its feature.
    """
    if x.ndim != 4:
        moved = generator.uniform(-0.01, 0.01, x.shape) * x.std(axis=0)
        return (x + moved).astype(x.dtype)
    right, down = generator.integers(-1, 2, (2, len(x)))
    brightness = generator.uniform(0.9, 1.1, len(x))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = x.shape[2:]
    changed = np.empty_like(x)
    for number, image in enumerate(padded):
        top, left = 1 + down[number], 1 + right[number]
        part = image[:, top : top + height, left : left + width] * brightness[number]
        changed[number] = np.clip(np.rint(part), 0, 255)
    return changed


def noisy_labels(
    y: np.ndarray,
    classes: int,
    rate: float,
    kind: str,
    generator: np.random.Generator,
    x: np.ndarray | None = None,
) -> np.ndarray:
    """Give exactly ``round(rate * N)`` of true labels ``[N]``, each in [0, classes), a wrong one.

    ``symmetric``: any of the other classes, equally likely; ``pair``: the next class, the last one
    becoming the first; ``instance``: what a hurried annotator would mix up of the samples ``x``
    ``[N, ...]``, see :func:`annotator`. There the chance of a wrong label is in proportion to
    ``1 - P(true class | x)``, and the wrong label is drawn by ``P`` among the other classes: hard
    samples are wrong more often, and wrong in the direction of what they look like.
    """
    if not 0 <= rate < 1:
        raise InputError(f"label noise {rate} is not allowed: give a share in [0, 1)")
    if kind not in NOISE_KINDS:
        raise unknown("kind of label noise", kind, NOISE_KINDS)
    if rate and classes < 2:
        raise InputError("label noise needs at least 2 classes: this data has 1")
    changed = y.copy()
    count = round(rate * len(y))
    if kind == "instance":
        if x is None or len(x) != len(y):
            raise InputError(
                "label noise of kind 'instance' needs the samples: give x, one a label"
            )
        return _mixed_up(y, annotator(x, y, classes, generator), count, generator)
    chosen = generator.permutation(len(y))[:count]
    if kind == "symmetric":
        # A step of 1 to C - 1 reaches each other class once and never the true one.
        step = generator.integers(1, classes, len(chosen)) if classes > 1 else 0
    else:
        step = 1
    changed[chosen] = (y[chosen] + step) % classes
    return changed


def _mixed_up(
    y: np.ndarray, chance: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Change ``count`` labels as an annotator who believes ``chance [N, C]`` would."""
    rows = np.arange(len(y))
    # A floor, so that any number of labels can be changed.
    doubt = np.maximum(1 - chance[rows, y], 1e-12)
    # The first to arrive in an exponential race: drawn one by one in proportion to doubt.
    chosen = np.argsort(generator.exponential(size=len(y)) / doubt, kind="stable")[:count]
    others = chance[chosen] + 1e-12
    others[np.arange(count), y[chosen]] = 0
    ends = np.cumsum(others, axis=1)
    place = generator.random(count) * ends[:, -1]
    changed = y.copy()
    # The first end above the place; the true class has no width and is never met.
    changed[chosen] = (ends > place[:, None]).argmax(axis=1)
    return changed


def annotator(
    x: np.ndarray, y: np.ndarray, classes: int, generator: np.random.Generator
) -> np.ndarray:
    """What a simple model believes of each sample: ``P(class | x)``, float64 ``[N, C]``.

    Linear discriminant analysis on small copies of the images (at most 8 pixels a side)
    with a tenth of shrinkage. Each half is judged by the model of the other half, so
    that no sample is judged by a model that has seen its label. Instance-dependent
    noise from the doubt of a model is due to Chen et al. (*Beyond class-conditional
    assumption*, AAAI 2021), who train a network for it.
    """
    features = _small(x)
    chance = np.empty((len(y), classes))
    order = generator.permutation(len(y))
    halves = order[: len(y) // 2], order[len(y) // 2 :]
    for judged, learned in (halves, halves[::-1]):
        if len(judged):
            chance[judged] = _discriminant(features[learned], y[learned], features[judged], classes)
    return chance


def _small(x: np.ndarray) -> np.ndarray:
    """Features ``[N, D]``: the points, or the means of blocks of pixels."""
    if x.ndim != 4:
        return x.reshape(len(x), -1).astype(np.float64)
    rows, columns = (max(1, -(-side // ANNOTATOR_SIDE)) for side in x.shape[2:])
    tops, lefts = np.arange(0, x.shape[2], rows), np.arange(0, x.shape[3], columns)
    parts = []
    for part in np.array_split(x, max(1, len(x) // 1024)):
        sums = np.add.reduceat(part.astype(np.float32), tops, axis=2)
        parts.append(np.add.reduceat(sums, lefts, axis=3).reshape(len(part), -1))
    return np.concatenate(parts).astype(np.float64)


def _discriminant(x: np.ndarray, y: np.ndarray, asked: np.ndarray, classes: int) -> np.ndarray:
    """Posterior ``[M, C]`` of ``asked [M, D]`` from Gaussian classes of one covariance."""
    if not len(y):
        return np.full((len(asked), classes), 1 / classes)
    member = np.eye(classes)[y]
    counts = member.sum(axis=0)
    centre = x.mean(axis=0)
    # A class without a sample here lies in the middle, and is counted as half a sample.
    means = np.where(counts[:, None] > 0, member.T @ x / np.maximum(counts, 1)[:, None], centre)
    around = x - means[y]
    covariance = around.T @ around / len(y)
    size = np.trace(covariance) / len(covariance) or 1.0
    shrunk = (1 - ANNOTATOR_SHRINKAGE) * covariance + np.eye(len(covariance)) * (
        ANNOTATOR_SHRINKAGE * size
    )
    weights = np.linalg.solve(shrunk, (means - centre).T)
    prior = np.log((counts + 0.5) / (counts + 0.5).sum())
    logits = (asked - centre) @ weights - ((means - centre).T * weights).sum(axis=0) / 2 + prior
    chance = np.exp(logits - logits.max(axis=1, keepdims=True))
    return chance / chance.sum(axis=1, keepdims=True)


def repeat(train: Dataset, share: float, copies: int, kind: str, seed: int) -> Dataset:
    """Put copies of few samples in the place of others, and say in the metadata of which."""
    generator = numpy_generator(seed, "redundancy")
    source = redundant(train.y.numpy(), share, copies, generator)
    repeated = train.select(source)
    if kind == "varied":
        is_copy = source != np.arange(len(source))
        x = repeated.x.numpy().copy()
        x[is_copy] = varied(x[is_copy], generator)
        repeated = replace(repeated, x=torch.from_numpy(x))
    return replace(repeated, metadata=repeated.metadata.assign(copy_of=source))


def mislabel(train: Dataset, rate: float, kind: str, seed: int) -> Dataset:
    """Change labels, and say in the metadata which."""
    y = train.y.numpy()
    generator = numpy_generator(seed, "noise")
    given = noisy_labels(y, len(train.classes), rate, kind, generator, train.x.numpy())
    metadata = train.metadata.assign(true_label=y, is_noisy=given != y)
    return replace(train, y=torch.from_numpy(given), metadata=metadata)
