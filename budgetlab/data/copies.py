"""Find copies of samples within and across splits: equal values, or images that look the same."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from budgetlab.data.dataset import Splits, require
from budgetlab.errors import InputError

HASH_SIDE, HASH_KEPT = 32, 8
BANDS = 4
# Share of one side that remains if an image was stretched to another aspect ratio and then cropped
# to a square: from 15:16 to 1:2, in steps of 8%. So many trials need a stricter threshold (LIKER).
REMAINING_SHARES = np.geomspace(0.9375, 0.5, 9)
CENTRE_CROPS = [
    (1.0, 1.0),
    *((share, 1.0) for share in REMAINING_SHARES),
    *((1.0, share) for share in REMAINING_SHARES),
]
STRETCHED_STRICTNESS = 0.5
# Near copies differ in at most this many of 64 bits, and their thumbnails correlate.
MAX_HAMMING_DISTANCE = 10
SMALL_SIDE = 16
LIKENESS = 0.97
# Largest bucket that is compared pair by pair; a hash shared by more images means little.
MAX_BUCKET = 500


def duplicates(x: Tensor) -> np.ndarray:
    """Find samples ``[N, ...]`` that are bitwise equal to an earlier one.

    Returns int64 ``[N]``, the number of the first sample with the same values; its own for the
    first of several copies and for a sample without copies.
    """
    return _first_of([torch.as_tensor(x).cpu()])


def _first_of(parts: list[Tensor]) -> np.ndarray:
    """Return for each sample the position of the first identical one, counted over all parts."""
    first: dict[bytes, int] = {}
    rows = (row for part in parts for row in part.numpy().reshape(len(part), -1))
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
    return np.array([first.setdefault(one, n) for n, one in enumerate(digests)], np.int64)


def perceptual_hash(
    x: Tensor, cuts: Sequence[tuple[float, float]] = CENTRE_CROPS[:1]
) -> np.ndarray:
    """Hash images ``[N, C, H, W]`` so that those that look the same have nearly the same bits.

    The bits say which of the 8x8 lowest frequencies of the grey image exceed their median (pHash,
    Zauner 2010); compression, size and brightness affect few of them. ``cuts`` are shares of width
    and height, in (0, 1], of the centre that is hashed. Returns uint64 ``[K, N]``, a row per cut.
    """
    hashes = np.empty((len(cuts), len(x)), np.uint64)
    for start in range(0, len(x), 4096):
        part = x[start : start + 4096].float().mean(1, keepdim=True)
        grey = F.adaptive_avg_pool2d(part, HASH_SIDE)[:, 0].numpy()
        for row, (width, height) in zip(hashes, cuts, strict=True):
            low = _dct_rows(height) @ grey @ _dct_rows(width).T
            low = low.reshape(len(part), HASH_KEPT**2)
            # The mean brightness says nothing about the content.
            bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
            bits[:, 0] = False
            row[start : start + 4096] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return hashes


def _dct_rows(share: float) -> np.ndarray:
    """Return the lowest cosines ``[HASH_KEPT, HASH_SIDE]`` over the central share of a side."""
    places = np.arange(HASH_SIDE) + 0.5
    # How much of each pixel lies within the share.
    edge = HASH_SIDE * (1 - share) / 2
    inside = np.clip(np.minimum(places + 0.5 - edge, HASH_SIDE - edge - places + 0.5), 0, 1)
    at = np.clip((places - edge) / share, 0, HASH_SIDE)
    waves = np.cos(np.pi * at * np.arange(HASH_KEPT)[:, None] / HASH_SIDE) * inside
    return waves.astype(np.float32)


def find_copies(
    splits: Splits,
    *,
    near: bool = True,
    likeness: float = LIKENESS,
    embedding: Mapping[str, np.ndarray] | None = None,
    stretched: bool = False,
) -> pd.DataFrame:
    """Find exact and near copies, within and across the splits.

    Images are near copies if their :func:`perceptual_hash` differs in few bits and their
    thumbnails correlate. This finds changes of compression, size or brightness, but not other
    crops or mirror images. Points and vectors have only exact copies unless an embedding is given.

    Parameters
    ----------
    likeness
        Least correlation of near copies, or least cosine of their embeddings, up to 1. Digits
        that are not copies sometimes reach 0.97.
    embedding
        Vectors ``[N, D]`` by split (train, val, test), such as features of a trained network,
        whose cosines then determine near copies.
    stretched
        Also find copies that were stretched to another aspect ratio, up to 2:1, before images
        were cropped to a square; ten times the work. Loading does so if it crops.

    Returns
    -------
    DataFrame
        One row per sample that has a copy: ``group`` (from 0; all copies of one image),
        ``split``, ``sample`` (its number there), ``origin``, ``label`` and ``kind``: ``first``
        of its group in the order test, val, train, else ``exact`` or ``near`` copy of another.
    """
    require(splits, Splits, what="splits")
    parts = {name: splits.parts[name] for name in ("test", "val", "train") if name in splits.parts}
    xs = [part.x.cpu() for part in parts.values()]
    group = first = _first_of(xs)
    own = np.arange(len(first))
    distinct = np.flatnonzero(first == own)
    pairs = None
    if near and embedding is not None:
        vectors = [np.asarray(embedding[name], np.float32) for name in parts]
        if [len(one) for one in vectors] != [len(part) for part in parts.values()]:
            raise InputError("embedding does not have one vector for each sample of each split")
        pairs = _close_pairs(np.concatenate(vectors)[distinct], likeness)
    elif near and xs[0].ndim == 4:
        pairs = _similar_image_pairs(
            xs, distinct, likeness, CENTRE_CROPS if stretched else CENTRE_CROPS[:1]
        )
    if pairs is not None:
        group = distinct[_component_roots(pairs, len(distinct))][np.searchsorted(distinct, first)]
    known = pd.concat([
        pd.DataFrame({"split": name, "sample": np.arange(len(part)),
                      "origin": part.metadata.get("origin", part.metadata["index"]),
                      "label": part.y.cpu().numpy()})
        for name, part in parts.items()
    ], ignore_index=True)  # fmt: skip
    kind = np.select([group == own, first < own], ["first", "exact"], "near")
    found = known.assign(kind=kind, group=group)[np.bincount(group)[group] > 1]
    found = found.sort_values("group", kind="stable", ignore_index=True)
    found["group"] = pd.factorize(found["group"])[0]
    return found[["group", "split", "sample", "origin", "label", "kind"]]


def _similar_image_pairs(
    xs: list[Tensor], distinct: np.ndarray, likeness: float, cuts: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Return pairs ``[M, 2]`` of positions in ``distinct`` whose images look the same."""
    hashes = np.concatenate([perceptual_hash(x, cuts) for x in xs], axis=1)[:, distinct]
    seen = np.concatenate([_small(part) for x in xs for part in x.split(4096)])[distinct]
    pairs = _candidates(hashes[0], hashes[0])
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    found = [pairs[_correlations(seen[pairs[:, 0]], seen[pairs[:, 1]]) >= likeness]]
    for cut, middles in zip(cuts[1:], hashes[1:], strict=True):
        pairs = _candidates(middles, hashes[0])
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if len(pairs):
            alike = _centre_correlation(xs, distinct[pairs[:, 0]], seen[pairs[:, 1]], *cut)
            found.append(pairs[alike >= 1 - STRETCHED_STRICTNESS * (1 - likeness)])
    return np.concatenate(found)


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the correlation ``[M]`` of corresponding rows of two arrays ``[M, D]``."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("ij,ij->i", a, b) / np.maximum(size, 1e-9)


def _centre_correlation(
    xs: list[Tensor], rows: np.ndarray, seen: np.ndarray, width: float, height: float
) -> np.ndarray:
    """Compute the correlation ``[M]`` of the centres of images with thumbnails of others.

    This is the largest over slightly smaller and larger centres, between the cuts that are tried.
    """
    starts = np.cumsum([0, *(len(x) for x in xs)])
    part = np.searchsorted(starts, rows, side="right") - 1
    x = torch.stack([xs[k][row - starts[k]] for k, row in zip(part, rows, strict=True)]).float()
    best = np.full(len(rows), -1.0)
    for change in (0.97, 1.0, 1.03):
        sides = [
            max(1, round(side * min(1.0, share * (change if share < 1 else 1))))
            for side, share in zip(x.shape[2:], (height, width), strict=True)
        ]
        top, left = ((side - kept) // 2 for side, kept in zip(x.shape[2:], sides, strict=True))
        middle = x[:, :, top : top + sides[0], left : left + sides[1]]
        best = np.maximum(best, _correlations(_small(middle), seen))
    return best


def _close_pairs(vectors: np.ndarray, likeness: float) -> np.ndarray:
    """Return pairs ``[M, 2]`` of vectors with a cosine of at least ``likeness``, block by block."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(unit), 1024):
        a, b = np.nonzero(unit[start : start + 1024] @ unit.T >= likeness)
        found.append(np.stack([a + start, b], axis=1)[a + start < b])
    return np.concatenate(found)


def _component_roots(pairs: np.ndarray, size: int) -> np.ndarray:
    """Return for each of ``size`` nodes the first node of its connected component."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, component = connected_components(links, directed=False)
    _, first = np.unique(component, return_index=True)
    return first[component]


def _small(x: Tensor) -> np.ndarray:
    """Return thumbnails in colour, since one shape in two colours is not a copy."""
    return F.adaptive_avg_pool2d(x.float(), SMALL_SIDE).flatten(1).numpy()


def _candidates(queries: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return unique pairs ``[M, 2]`` of positions in two lists of hashes that differ in few bits.

    Only hashes that agree in one of four bands of 16 bits are compared.
    """
    found = [np.empty((0, 2), np.int64)]
    for band in range(BANDS):
        ours, theirs = ((h >> np.uint64(16 * band)) & np.uint64(0xFFFF) for h in (queries, known))
        order = np.argsort(theirs, kind="stable")
        first, last = (np.searchsorted(theirs[order], ours, side) for side in ("left", "right"))
        count = np.where(last - first <= MAX_BUCKET, last - first, 0)
        a = np.repeat(np.arange(len(ours)), count)
        b = order[np.arange(len(a)) + np.repeat(first - (count.cumsum() - count), count)]
        near = np.bitwise_count(queries[a] ^ known[b]) <= MAX_HAMMING_DISTANCE
        found.append(np.stack([a[near], b[near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def count_copies(copies: pd.DataFrame) -> dict[str, int]:
    """Count the copies found by :func:`find_copies` by kind, such as ``exact within train``."""
    groups = copies.groupby("group")
    counts: Counter[str] = Counter()
    for split, first, kind in zip(copies["split"], groups["split"].transform("first"),
                                  copies["kind"], strict=True):  # fmt: skip
        if kind != "first":
            counts[f"{kind} within {split}" if split == first else
                   f"{kind} of {first} in {split}"] += 1  # fmt: skip
    if differ := int((groups["label"].nunique() > 1).sum()):
        counts["groups whose labels differ"] = differ
    return dict(counts)
