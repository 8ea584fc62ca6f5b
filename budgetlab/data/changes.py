"""What can be done to a training set: imbalance, subset, validation split, label noise.

The functions pick positions or labels from plain arrays and draw from the
generator they are given. `budgetlab.data.load` applies them in a fixed order.
"""

import numpy as np

from budgetlab.errors import InputError, unknown

__all__ = ["NOISE_KINDS", "imbalanced", "noisy_labels", "stratified"]

NOISE_KINDS = ("symmetric", "pair")


def stratified(y: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Pick ``count`` positions so that every class keeps its share.

    Shares are rounded by largest remainder, so that exactly ``count`` are picked;
    equal remainders go to classes drawn at random.

    Parameters
    ----------
    y
        Labels ``[N]``.
    count
        How many to pick, in [0, N].

    Returns
    -------
    numpy.ndarray
        int64 ``[count]``, ascending.
    """
    if not 0 <= count <= len(y):
        raise InputError(f"cannot pick {count} of {len(y)} samples: give 0 to {len(y)}")
    if count == 0:
        return np.empty(0, np.int64)
    labels, sizes = np.unique(y, return_counts=True)
    quota, remainder = np.divmod(sizes * count, len(y))
    order = generator.permutation(len(labels))
    first = order[np.argsort(-remainder[order], kind="stable")]
    quota[first[: count - quota.sum()]] += 1
    chosen = [
        generator.permutation(np.flatnonzero(y == label))[:size]
        for label, size in zip(labels, quota, strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def imbalanced(y: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """Pick positions so that class sizes fall exponentially over the classes.

    Class k of K keeps ``n_0 * ratio ** (-k / (K - 1))`` samples, at least one
    (Cui et al., CVPR 2019, section 5), where ``n_0`` is the size of the smallest
    class or more, if all classes can still be filled.

    Parameters
    ----------
    y
        Labels ``[N]``.
    ratio
        Size of the first class over the size of the last, at least 1.

    Returns
    -------
    numpy.ndarray
        int64, ascending. All positions when ``ratio`` is 1.
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
    chosen = [
        generator.permutation(np.flatnonzero(y == label))[:size]
        for label, size in zip(labels, keep, strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def noisy_labels(
    y: np.ndarray, classes: int, rate: float, kind: str, generator: np.random.Generator
) -> np.ndarray:
    """Give exactly ``round(rate * N)`` samples a wrong label.

    Parameters
    ----------
    y
        True labels ``[N]``, each in [0, classes).
    classes
        Number of classes, at least 2.
    rate
        Share of the labels to change, in [0, 1).
    kind
        ``symmetric``: any of the other classes, equally likely; ``pair``: the
        next class, the last one becoming the first.

    Returns
    -------
    numpy.ndarray
        A changed copy.
    """
    if not 0 <= rate < 1:
        raise InputError(f"label noise {rate} is not allowed: give a share in [0, 1)")
    if kind not in NOISE_KINDS:
        raise unknown("kind of label noise", kind, NOISE_KINDS)
    if rate and classes < 2:
        raise InputError("label noise needs at least 2 classes: this data has 1")
    changed = y.copy()
    chosen = generator.permutation(len(y))[: round(rate * len(y))]
    if kind == "symmetric":
        # A step of 1 to C - 1 reaches each other class once and never the true one.
        step = generator.integers(1, classes, len(chosen)) if classes > 1 else 0
    else:
        step = 1
    changed[chosen] = (y[chosen] + step) % classes
    return changed
