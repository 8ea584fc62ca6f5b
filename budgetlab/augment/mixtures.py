"""What an augmentation makes of some samples, and who would get the credit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from budgetlab import augment
from budgetlab.config import CREDITS
from budgetlab.data import Dataset
from budgetlab.errors import InputError
from budgetlab.history import assign_credit

__all__ = ["Mixture", "augmented"]


@dataclass(frozen=True)
class Mixture:
    """One augmented image.

    Attributes
    ----------
    image
        uint8 ``[H, W, C]``.
    parts
        Share of each sample in the label, by its number, largest first; samples that
        come twice are added up, those with no share are left out.
    credit
        For each rule, the shares of a visit by sample number.
    """

    image: np.ndarray
    parts: dict[int, float]
    credit: dict[str, dict[int, float]]


def augmented(
    samples: Dataset, indices: list[int], name: str, *, seed: int = 0, **options: Any
) -> list[Mixture]:
    """Augment some samples as one batch.

    Parameters
    ----------
    samples
        Images.
    indices
        Which of them; they are mixed with each other only.
    name, **options
        As for :func:`budgetlab.augment.build`, without ``flip``, which the data knows.
    seed
        Of the draws.

    Returns
    -------
    list of Mixture
        One a sample, in the order of ``indices``.

    Raises
    ------
    InputError
        If the samples are no images, or an option is not allowed.
    """
    if len(samples.sample_shape) != 3:
        raise InputError("points cannot be augmented: give a data set of images, such as shapes")
    drawn = torch.tensor(indices)
    batch = samples.x[drawn.to(samples.x.device)].cpu()
    build = augment.build(name, flip=samples.flip, **options)
    made = build(batch, torch.Generator().manual_seed(seed))
    images = made.images.float().round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    sources = drawn[made.sources]
    credits = {rule: assign_credit(rule, drawn, sources, made.weights) for rule in CREDITS}
    return [
        Mixture(
            images[row],
            _added_up(sources[row], made.weights[row]),
            {
                rule: _added_up(c.samples[c.rows == row], c.weights[c.rows == row])
                for rule, c in credits.items()
            },
        )
        for row in range(len(drawn))
    ]


def _added_up(samples: torch.Tensor, shares: torch.Tensor) -> dict[int, float]:
    total: dict[int, float] = {}
    for sample, share in zip(samples.tolist(), shares.tolist(), strict=True):
        total[sample] = total.get(sample, 0.0) + share
    found = {sample: share for sample, share in total.items() if share > 1e-6}
    return dict(sorted(found.items(), key=lambda item: -item[1]))
