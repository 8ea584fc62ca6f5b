"""Copies of samples, within and across splits: the same values, or images that look the same."""

import hashlib
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from budgetlab.data.samples import Dataset

if TYPE_CHECKING:
    from budgetlab.data.samples import Splits

__all__ = ["counted", "duplicates", "find_copies", "perceptual_hash", "without_copies"]

HASH_SIDE, HASH_KEPT = 32, 8
BANDS = 4
# Near copies differ in at most so many bits of 64, and their small grey versions correlate.
MOST_BITS = 8
SMALL_SIDE = 16
LEAST_CORRELATION = 0.985
# Candidates of one bucket that are compared, pair by pair; more share a hash of little meaning.
MOST_IN_BUCKET = 500


def duplicates(x: Tensor) -> np.ndarray:
    """Find samples whose values are the same to the last bit as those of an earlier one.

    Parameters
    ----------
    x
        ``[N, ...]``.

    Returns
    -------
    numpy.ndarray
        int64 ``[N]``: number of the first sample with the same values, which for a
        sample that has no twin, and for the first of each, is its own.
    """
    return _first_of([torch.as_tensor(x).cpu()])


def _first_of(parts: list[Tensor]) -> np.ndarray:
    """Position of the first of identical samples, counted over all parts."""
    first: dict[bytes, int] = {}
    rows = (row for part in parts for row in part.numpy().reshape(len(part), -1))
    digests = (hashlib.blake2b(np.ascontiguousarray(row), digest_size=16).digest() for row in rows)
    return np.array([first.setdefault(one, n) for n, one in enumerate(digests)], np.int64)


def perceptual_hash(x: Tensor) -> np.ndarray:
    """Hash images so that those that look the same have nearly the same bits.

    The signs of the 8x8 lowest frequencies of the grey image about their median (pHash,
    Zauner 2010): another compression, size or brightness changes few of them.

    Parameters
    ----------
    x
        uint8 ``[N, C, H, W]``.

    Returns
    -------
    numpy.ndarray
        uint64 ``[N]``.
    """
    places = np.arange(HASH_SIDE)
    waves = np.cos(np.pi * (places + 0.5) * np.arange(HASH_KEPT)[:, None] / HASH_SIDE)
    waves = waves.astype(np.float32)
    hashes = [np.empty(0, np.uint64)]
    for part in x.split(4096):
        grey = F.adaptive_avg_pool2d(part.float().mean(1, keepdim=True), HASH_SIDE)[:, 0].numpy()
        low = (waves @ grey @ waves.T).reshape(len(part), -1)
        # The mean brightness says nothing of what is seen.
        bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
        bits[:, 0] = False
        hashes.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
    return np.concatenate(hashes)


def find_copies(splits: "Splits", *, near: bool = True) -> pd.DataFrame:
    """Find exact and near copies, within and across the splits.

    Images are near copies if their :func:`perceptual_hash` differs in few bits and small
    grey versions of them correlate by 0.985 or more: another compression, size or
    brightness, not another crop or a mirrored image.

    Parameters
    ----------
    splits
        The data, as from :func:`budgetlab.data.load`.
    near
        Also look for near copies; of points and vectors there are only exact ones.

    Returns
    -------
    DataFrame
        One row a sample that has a copy: ``group`` (from 0; all copies of one image),
        ``split``, ``sample`` (its number there), ``origin``, ``label`` and ``kind``: ``first``
        of its group in the order test, val, train, else ``exact`` or ``near`` copy of another.
    """
    parts = {"test": splits.test, "val": splits.val, "train": splits.train}
    parts = {name: part for name, part in parts.items() if part is not None}
    xs = [part.x.cpu() for part in parts.values()]
    first = _first_of(xs)
    own = np.arange(len(first))
    group = first.copy()
    if near and xs[0].ndim == 4:
        distinct = np.flatnonzero(first == own)
        group = distinct[_near(xs, distinct)][np.searchsorted(distinct, first)]
    sizes = np.bincount(group, minlength=len(own))
    chosen = np.flatnonzero(sizes[group] > 1)
    chosen = chosen[np.argsort(group[chosen], kind="stable")]
    names = np.repeat([*parts], [len(part) for part in parts.values()])
    known = pd.concat(
        [
            pd.DataFrame({"sample": np.arange(len(part)),
                          "origin": part.metadata.get("origin", part.metadata["index"]),
                          "label": part.y.cpu().numpy()})
            for part in parts.values()
        ],
        ignore_index=True,
    )  # fmt: skip
    kind = np.select([group == own, first < own], ["first", "exact"], "near")
    frame = known.assign(split=names, kind=kind, group=group).iloc[chosen]
    frame["group"] = pd.factorize(frame["group"])[0]
    return frame[["group", "split", "sample", "origin", "label", "kind"]].reset_index(drop=True)


def _near(xs: list[Tensor], distinct: np.ndarray) -> np.ndarray:
    """Place in ``distinct`` of the first image that each of these looks like."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    hashes = np.concatenate([perceptual_hash(x) for x in xs])[distinct]
    small = [_small(part) for x in xs for part in x.split(4096)]
    grey = np.concatenate(small)[distinct]
    grey -= grey.mean(axis=1, keepdims=True)
    grey /= np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-6)
    pairs = _candidates(hashes)
    a, b = pairs[:, 0], pairs[:, 1]
    close = np.bitwise_count(hashes[a] ^ hashes[b]) <= MOST_BITS
    a, b = a[close], b[close]
    alike = np.einsum("ij,ij->i", grey[a], grey[b]) >= LEAST_CORRELATION
    links = coo_matrix((np.ones(alike.sum()), (a[alike], b[alike])), shape=(len(grey), len(grey)))
    _, component = connected_components(links, directed=False)
    _, first = np.unique(component, return_index=True)
    return first[component]


def _small(x: Tensor) -> np.ndarray:
    grey = x.float().mean(1, keepdim=True)
    return F.adaptive_avg_pool2d(grey, SMALL_SIDE).flatten(1).numpy()


def _candidates(hashes: np.ndarray) -> np.ndarray:
    """Pairs ``[M, 2]`` of hashes that agree in a quarter of their bits, each once."""
    found = [np.empty((0, 2), np.int64)]
    for band in range(BANDS):
        part = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(part, kind="stable")
        ends = np.flatnonzero(np.diff(part[order])) + 1
        for bucket in np.split(order, ends):
            if 1 < len(bucket) <= MOST_IN_BUCKET:
                found.append(np.array([*combinations(bucket, 2)], np.int64))
    return np.unique(np.concatenate(found), axis=0)


def counted(copies: pd.DataFrame) -> dict[str, int]:
    """Count copies by kind and split, such as ``exact within train`` or ``near test in train``.

    Parameters
    ----------
    copies
        As from :func:`find_copies`.
    """
    counts: dict[str, int] = {}
    for _, members in copies.groupby("group"):
        first = members["split"].iloc[0]
        for split, kind in zip(members["split"][1:], members["kind"][1:], strict=True):
            where = f"within {split}" if split == first else f"of {first} in {split}"
            counts[f"{kind} {where}"] = counts.get(f"{kind} {where}", 0) + 1
    labels = copies.groupby("group")["label"].nunique()
    if (labels > 1).any():
        counts["groups whose labels differ"] = int((labels > 1).sum())
    return counts


def without_copies(
    train: Dataset, val: Dataset | None, test: Dataset, *, near: bool, odd: list[str]
) -> Dataset:
    """Leave out training samples that are copies of others; says so in ``odd``."""
    from budgetlab.data.samples import Splits

    copies = find_copies(Splits("", train, val, test, ""), near=near)
    gone = copies[(copies["split"] == "train") & (copies["kind"] != "first")]["sample"]
    if not len(gone):
        return train
    odd.append(f"{len(gone):,} training samples are copies of others and were left out")
    kept = np.setdiff1d(np.arange(len(train)), gone)
    return train.select(kept)
