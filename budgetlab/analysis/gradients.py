"""Measures that need the network itself: GraNd, per-sample gradients and an embedding."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from budgetlab.analysis.conditions import require_data_of
from budgetlab.errors import InputError, known, whole
from budgetlab.records import OneRecord, Record, open_record

if TYPE_CHECKING:
    import torch
    from torch import nn

    from budgetlab.data import Splits


def grand(
    model: "torch.nn.Module",
    x: "torch.Tensor",
    y: "torch.Tensor",
    *,
    chunk: int = 64,
) -> np.ndarray:
    """Compute GraNd, the norm of each sample's gradient over all parameters (Paul et al. 2021).

    High values are hard. Paul et al. average over several models, early in training. Returns
    float64 ``[N]``, at least 0.

    Parameters
    ----------
    model
        Maps inputs to logits ``[B, C]``; parameters with ``requires_grad`` count. Evaluated in
        eval mode, so that batch norm does not mix samples; its mode is restored afterwards.
    x, y
        Inputs as the model takes them (normalised), float ``[N, ...]``; labels, int64 ``[N]``.
    chunk
        Samples per pass; memory holds one gradient for each of them.
    """
    import torch

    from budgetlab.devices import sampling_device

    here = sampling_device(x.device)
    if len(x) != len(y):
        raise InputError(f"x holds {len(x)} samples and y {len(y)} labels: give one label a sample")
    parts = []
    for found in gradient_blocks(model, x, y, chunk=chunk):
        squares = [g.to(here).flatten(1).double().square().sum(1) for g in found.values()]
        parts.append(torch.stack(squares).sum(0).sqrt().cpu())
    return torch.cat(parts).numpy() if parts else np.zeros(0)


def gradient_blocks(
    model: "torch.nn.Module", x: "torch.Tensor", y: "torch.Tensor", *, chunk: int = 64
) -> "Iterator[dict[str, torch.Tensor]]":
    """Yield per-sample gradients, ``[at most chunk, *shape]`` by parameter name."""
    import torch
    import torch.nn.functional as F
    from torch.func import functional_call, grad, vmap

    parameters = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    fixed = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
    fixed |= {n: b.detach() for n, b in model.named_buffers()}

    def loss(weights: dict, sample: "torch.Tensor", label: "torch.Tensor") -> "torch.Tensor":
        logits = functional_call(model, weights | fixed, (sample[None],))
        return F.cross_entropy(logits, label[None])

    chunk, gradient = whole("chunk", chunk), vmap(grad(loss), in_dims=(None, 0, 0))
    was_training = model.training
    model.eval()
    try:
        if len(x):
            with torch.no_grad():
                classes = model(x[:1]).shape[-1]
            low, high = int(y.min()), int(y.max())
            if low < 0 or high >= classes:
                raise InputError(
                    f"labels from {low} to {high} do not fit a model of {classes} classes: give "
                    f"labels from 0 to {classes - 1}"
                )
        for start in range(0, len(x), chunk):
            yield gradient(parameters, x[start : start + chunk], y[start : start + chunk])
    finally:
        model.train(was_training)


def embedding(
    record: OneRecord,
    splits: "Splits",
    *,
    method: str = "pca",
    model: "nn.Module | Callable[[], nn.Module] | None" = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Project the training samples to 2-D by their features in the trained network.

    Samples that the network finds similar lie together: a wrong label lies among another class,
    copies coincide, and a class with two kinds of samples forms two clouds.

    - ``record``, ``splits``: a finished run with saved weights, and its data.
    - ``method``: ``pca``, or ``umap`` (McInnes et al. 2018), which needs the package
      ``umap-learn``.
    - ``model``, ``seed``: the network, if it is your own; the random seed of UMAP.

    Returns
    -------
    DataFrame
        Columns ``embedding_1`` and ``embedding_2``, index ``sample``, to pass as ``more=`` to
        :func:`budgetlab.explore.atlas` and its widget. ``attrs["explained"]`` is the share of
        variance explained, NaN for UMAP.
    """
    method = known("map", method, ("pca", "umap"))
    record = open_record(record)
    require_data_of(record, splits)
    features, explained = _features(record, splits, model), float("nan")
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError:
            raise InputError(
                "UMAP is not installed: pip install umap-learn, or choose method='pca'"
            ) from None
        places = UMAP(n_components=2, random_state=seed, n_jobs=1).fit_transform(features)
    else:
        from sklearn.decomposition import PCA

        # The sign of a component is arbitrary: scikit-learn makes its largest entry positive.
        found = PCA(2, svd_solver="covariance_eigh").fit(features)
        places, explained = found.transform(features), float(found.explained_variance_ratio_.sum())
    frame = pd.DataFrame(places, columns=["embedding_1", "embedding_2"]).rename_axis("sample")
    frame.attrs["explained"] = explained
    return frame


def _features(
    record: Record, splits: "Splits", model: "nn.Module | Callable[[], nn.Module] | None"
) -> np.ndarray:
    """Return the inputs of the last linear layer, or the logits if none; float64 ``[N, D]``."""
    import torch

    from budgetlab.training.resume import trained_network

    network, train = trained_network(record, splits, model), splits.train
    seen: list[torch.Tensor] = []
    # By the order in which layers run: a network may define others after its head.
    last: dict[str, torch.Tensor] = {}
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda _, given: last.update(inputs=given[0]))
    with torch.no_grad():
        for rows in torch.arange(len(train)).split(500):
            logits = network.eval()(train.normalised(rows))
            seen.append(last.get("inputs", logits).flatten(1))
    return torch.cat(seen).double().numpy()
