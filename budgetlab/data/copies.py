"""Copies of samples, within and across splits: the same values, or images that look the same."""

import hashlib
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from budgetlab.data.samples import Dataset
from budgetlab.errors import InputError

if TYPE_CHECKING:
    from budgetlab.data.samples import Splits

__all__ = ["counted", "duplicates", "find_copies", "perceptual_hash", "without_copies"]

HASH_SIDE, HASH_KEPT = 32, 8
BANDS = 4
# Near copies differ in at most so many bits of 64, and their small versions correlate.
MOST_BITS = 10
SMALL_SIDE = 16
LIKENESS = 0.97
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
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
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
        low = (waves @ grey @ waves.T).reshape(len(part), HASH_KEPT**2)
        # The mean brightness says nothing of what is seen.
        bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
        bits[:, 0] = False
        hashes.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
    return np.concatenate(hashes)


def find_copies(
    splits: "Splits",
    *,
    near: bool = True,
    likeness: float = LIKENESS,
    embedding: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Find exact and near copies, within and across the splits.

    Images are near copies if their :func:`perceptual_hash` differs in few bits and small
    versions of them correlate: another compression, size or
    brightness, not another crop or a mirrored image.

    Parameters
    ----------
    splits
        The data, as from :func:`budgetlab.data.load`.
    near
        Also look for near copies; of points and vectors there are only exact ones, unless an
        embedding is given.
    likeness
        Least correlation of near copies, or least cosine of their embeddings, up to 1. Small
        drawings and digits that are no copies reach 0.97 at times.
    embedding
        Vectors ``[N, D]`` by split (train, val, test), such as features of a trained network:
        samples are near copies by the angle between them.

    Returns
    -------
    DataFrame
        One row a sample that has a copy: ``group`` (from 0; all copies of one image),
        ``split``, ``sample`` (its number there), ``origin``, ``label`` and ``kind``: ``first``
        of its group in the order test, val, train, else ``exact`` or ``near`` copy of another.
    """
    given = {"test": splits.test, "val": splits.val, "train": splits.train}
    parts = {name: part for name, part in given.items() if part is not None}
    xs = [part.x.cpu() for part in parts.values()]
    first = _first_of(xs)
    own = np.arange(len(first))
    group = first.copy()
    distinct = np.flatnonzero(first == own)
    pairs = None
    if near and embedding is not None:
        vectors = [np.asarray(embedding[name], np.float32) for name in parts]
        if [len(one) for one in vectors] != [len(part) for part in parts.values()]:
            raise InputError("embedding does not have one vector for each sample of each split")
        pairs = _close_pairs(np.concatenate(vectors)[distinct], likeness)
    elif near and xs[0].ndim == 4:
        pairs = _alike_pairs(xs, distinct, likeness)
    if pairs is not None:
        group = distinct[_first_linked(pairs, len(distinct))][np.searchsorted(distinct, first)]
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


def _alike_pairs(xs: list[Tensor], distinct: np.ndarray, likeness: float) -> np.ndarray:
    """Pairs ``[M, 2]`` of places in ``distinct`` whose images look the same."""
    hashes = np.concatenate([perceptual_hash(x) for x in xs])[distinct]
    seen = np.concatenate([_small(part) for x in xs for part in x.split(4096)])[distinct]
    seen -= seen.mean(axis=1, keepdims=True)
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-6)
    pairs = _candidates(hashes)
    near = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]) <= MOST_BITS
    pairs = pairs[near]
    return pairs[np.einsum("ij,ij->i", seen[pairs[:, 0]], seen[pairs[:, 1]]) >= likeness]


def _close_pairs(vectors: np.ndarray, likeness: float) -> np.ndarray:
    """Pairs ``[M, 2]`` of vectors whose cosine is at least so large, a block at a time."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(unit), 1024):
        a, b = np.nonzero(unit[start : start + 1024] @ unit.T >= likeness)
        found.append(np.stack([a + start, b], axis=1)[a + start < b])
    return np.concatenate(found)


def _first_linked(pairs: np.ndarray, size: int) -> np.ndarray:
    """The first of those that each of ``size`` is linked with, by any number of steps."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, component = connected_components(links, directed=False)
    _, first = np.unique(component, return_index=True)
    return first[component]


def _small(x: Tensor) -> np.ndarray:
    """Small versions, in colour: drawings of one shape in two colours are no copies."""
    return F.adaptive_avg_pool2d(x.float(), SMALL_SIDE).flatten(1).numpy()


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
