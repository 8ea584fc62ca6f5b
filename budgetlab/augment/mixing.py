"""Augmentations that combine several samples in one image: mixup, RICAP, CutMix.

Each is a function of the batch and its random numbers, and an object that draws these. The objects
crop and flip first (:class:`Standard`), as the papers do.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgetlab.augment.crop import (
    AugmentedBatch,
    Standard,
    box_mask,
    build,
    check_images,
    cut_windows,
    take,
)
from budgetlab.config import CREDITS
from budgetlab.data import Dataset
from budgetlab.errors import InputError
from budgetlab.history import assign_credit


def with_partner(images: Tensor, partner: Tensor, own: Tensor) -> AugmentedBatch:
    """Weight each row by ``own`` (``[]`` or ``[B]``), and its partner by the rest."""
    rows = torch.arange(len(partner), device=partner.device)
    own = own.to(torch.float32).expand(len(partner))
    weights = torch.stack((own, 1 - own), dim=1)
    return AugmentedBatch(images, torch.stack((rows, partner), dim=1), weights)


def mixup(images: Tensor, lam: Tensor, partner: Tensor) -> AugmentedBatch:
    """Blend each image with its partner: ``lam * x[r] + (1 - lam) * x[partner[r]]``.

    Zhang et al., *mixup: Beyond Empirical Risk Minimization* (ICLR 2018), eq. 1.

    - ``images``: ``[B, C, H, W]``; the result is float32.
    - ``lam``: ``[]`` (one for the batch) or ``[B]``, in [0, 1].
    - ``partner``: int64 ``[B]``: the batch row blended into each row, with weight ``1 - lam``.
    """
    values = images.to(torch.float32)
    weight = lam.to(torch.float32).reshape(-1, 1, 1, 1)
    blended = torch.lerp(take(values, partner), values, weight)
    return with_partner(blended, partner, lam)


def cutmix(
    images: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], partner: Tensor
) -> AugmentedBatch:
    """Paste a box of the partner into each image, at the same place.

    Yun et al., *CutMix* (ICCV 2019), section 3. The row itself is weighted by the share of pixels
    it keeps, after the box has been clipped at the edges.

    - ``images``: ``[B, C, H, W]``, any dtype, which is kept.
    - ``rows``, ``columns``: first row (or column) of the box, and the one after its last, within
      the image: two int64 ``[]`` (one box for the batch) or ``[B]``.
    - ``partner``: int64 ``[B]``: the batch row that each box is taken from.
    """
    height, width = images.shape[2:]
    box = box_mask(*rows, *columns, height, width)
    pasted = torch.where(box, take(images, partner), images)
    area = (rows[1] - rows[0]) * (columns[1] - columns[0])
    return with_partner(pasted, partner, 1 - area / (height * width))


def ricap(
    images: Tensor,
    boundary_row: Tensor,
    boundary_column: Tensor,
    sources: Tensor,
    top: Tensor,
    left: Tensor,
) -> AugmentedBatch:
    """Compose each image of crops from four, around a boundary point.

    Takahashi et al., *RICAP: Random Image Cropping and Patching* (ACML 2018), section 3. The
    patches are upper left, upper right, lower left, lower right; the weights are their areas.

    - ``images``: ``[B, C, H, W]``, any dtype, which is kept.
    - ``boundary_row``, ``boundary_column``: int64 ``[]`` or ``[B]``: ``h`` in [0, H] and ``w`` in
      [0, W] of the paper. The patches measure ``(h, w), (h, W-w), (H-h, w), (H-h, W-w)``.
    - ``sources``: int64 ``[B, 4]``: the batch row that each patch is cut from.
    - ``top``, ``left``: int64 ``[B, 4]``: the corner of each crop in its source; the crop must fit.
    """
    count, _, height, width = images.shape
    h = boundary_row.reshape(-1, 1).expand(count, 1)
    w = boundary_column.reshape(-1, 1).expand(count, 1)
    rows = torch.arange(height, device=images.device)
    upper = (rows < h).unsqueeze(1)
    zero = torch.zeros_like(h)
    # From a pixel of the result to that of the source, by patch.
    down = top - torch.cat((zero, zero, h, h), 1)
    right = left - torch.cat((zero, w, zero, w), 1)

    def by_row(values: Tensor) -> Tensor:
        """Repeat values of patches ``[B, 4]`` for the rows of both sides, ``[2B, H]``."""
        return torch.where(upper, values[:, :2, None], values[:, 2:, None]).flatten(0, 1)

    sides = cut_windows(images, by_row(sources), by_row(down) + rows, by_row(right), width)
    on_left = torch.arange(width, device=images.device) < w.view(-1, 1, 1, 1)
    left_side, right_side = sides.unflatten(0, (count, 2)).unbind(1)
    patched = torch.where(on_left, left_side, right_side)
    areas = torch.cat((h * w, h * (width - w), (height - h) * w, (height - h) * (width - w)), 1)
    return AugmentedBatch(patched, sources, areas / (height * width))


def symmetric_beta(
    alpha: float, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw from Beta(alpha, alpha), exactly, using four uniforms per value.

    ``torch.distributions`` takes no generator, and rejection methods read their result on the host
    before going on, which stalls a GPU. This method avoids both:

    1. ``y ~ Beta(alpha + 1, alpha + 1)`` by the polar method (Ulrich, *Computer
       generation of distributions on the m-sphere*, Applied Statistics 1984):
       ``y = 1/2 + 1/2 sqrt(1 - u1^(2 / (2 alpha + 1))) cos(2 pi u2)``.
    2. ``G ~ Gamma(alpha + 1)`` and a uniform ``u`` give ``G u^(1/alpha) ~ Gamma(alpha)``,
       and a Beta is a ratio of Gammas. In the logit their sum cancels:
       ``logit(x) = logit(y) + (ln u3 - ln u4) / alpha``.

    Values lie in [0, 1]; float64 (float32 on a device without it).
    """
    dtype = torch.float32 if device.type == "mps" else torch.float64
    # In (0, 1], so that the logarithms are finite.
    u1, u2, u3, u4 = 1 - torch.rand(4, *shape, generator=generator, device=device, dtype=dtype)
    spread = (1 - u1.pow(2 / (2 * alpha + 1))).sqrt()
    y = 0.5 + 0.5 * spread * torch.cos(2 * math.pi * u2)
    return torch.sigmoid(torch.logit(y, eps=1e-7) + (u3.log() - u4.log()) / alpha)


@dataclass
class Mixing:
    """Base of the three: the crop before them, the Beta proportions, and the partners.

    ``alpha`` is that of Beta(alpha, alpha), above 0; ``per_image`` draws one proportion per image,
    where the code of all three papers draws one per batch. Each class documents its ``fidelity``.
    """

    alpha: float = 0.3
    flip: bool = True
    per_image: bool = False
    fidelity: str = "default"

    name = ""

    def proportions(self, images: Tensor, generator: torch.Generator, number: int = 1) -> Tensor:
        """Draw Beta values ``[number, B]`` with ``per_image``, else ``[number, 1]``."""
        count = len(images) if self.per_image else 1
        return symmetric_beta(self.alpha, (number, count), generator, images.device)

    def mix(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Mix a batch that has been cropped and flipped already."""
        raise NotImplementedError

    def __call__(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Crop, flip and mix uint8 ``[B, C, H, W]``."""
        check_images(images, self.name)
        return self.mix(Standard(self.flip).crop(images, generator), generator)


class Mixup(Mixing):
    """mixup with ``lam ~ Beta(alpha, alpha)`` and a random permutation as partners.

    By default ``lam`` is the larger of the two shares, so that each row is its own dominant source:
    the same set of images, with rows renamed. ``fidelity="published"`` uses ``lam`` as drawn.
    """

    name = "mixup"

    def mix(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Mix a batch that has been cropped and flipped already."""
        lam = self.proportions(images, generator)[0]
        if self.fidelity == "default":
            lam = torch.maximum(lam, 1 - lam)
        partner = torch.randperm(len(images), generator=generator, device=images.device)
        return mixup(images, lam, partner)


class CutMix(Mixing):
    """CutMix: a box of share ``1 - lam`` around a uniform centre, clipped at the edges.

    Both fidelities are the same; as in the authors' code, half sides are rounded down to pixels.
    """

    name = "cutmix"

    def mix(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Mix a batch that has been cropped and flipped already."""
        count, _, height, width = images.shape
        side = (1 - self.proportions(images, generator)[0]).sqrt()
        partner = torch.randperm(count, generator=generator, device=images.device)

        def edges(length: int) -> tuple[Tensor, Tensor]:
            half = (side * length).long() // 2
            pixel = torch.randint(length, side.shape, generator=generator, device=images.device)
            return (pixel - half).clamp(min=0), (pixel + half).clamp(max=length)

        return cutmix(images, edges(height), edges(width), partner)


class Ricap(Mixing):
    """RICAP: four permutations of the batch, cropped and patched around a boundary.

    ``h = round(H beta1)``, ``w = round(W beta2)``. By default each image draws the positions of its
    four crops; ``fidelity="published"`` draws four positions per batch. Crops are taken after crop
    and flip, as in the published code, so a patch may show some black padding.
    """

    name = "ricap"

    def mix(self, images: Tensor, generator: torch.Generator) -> AugmentedBatch:
        """Mix a batch that has been cropped and flipped already."""
        count, _, height, width = images.shape
        device = images.device
        boundary = self.proportions(images, generator, 2)
        h = (boundary[0] * height).round().long()
        w = (boundary[1] * width).round().long()
        # Sorting uniforms gives four random permutations, one per column.
        sources = torch.rand(count, 4, generator=generator, device=device).argsort(dim=0)
        places = 1 if self.fidelity == "published" else count
        place = torch.rand(2, places, 4, generator=generator, device=device)
        slack_rows = torch.stack((height - h, height - h, h, h), dim=1)
        slack_columns = torch.stack((width - w, w, width - w, w), dim=1)
        # A corner is uniform in 0..slack; the float product may round up to slack + 1.
        top = torch.minimum((place[0] * (slack_rows + 1)).long(), slack_rows)
        left = torch.minimum((place[1] * (slack_columns + 1)).long(), slack_columns)
        return ricap(images, h, w, sources, top.expand(count, 4), left.expand(count, 4))


@dataclass(frozen=True)
class Mixture:
    """One augmented image, the samples it is made of, and the credit each would get.

    - ``image``: uint8 ``[H, W, C]``.
    - ``parts``: share of each sample in the label, by sample index, largest first; duplicates are
      added up, samples without a share left out.
    - ``credit``: for each credit rule, the fractions of a visit by sample index.
    """

    image: np.ndarray
    parts: dict[int, float]
    credit: dict[str, dict[int, float]]


def augmented(
    samples: Dataset, indices: list[int], name: str, *, seed: int = 0, **options: Any
) -> list[Mixture]:
    """Augment some samples as one batch, mixed only with each other.

    - ``samples``: images.
    - ``indices``: samples to augment, in the order of the result.
    - ``name``, ``**options``: as for :func:`budgetlab.augment.build`, without ``flip``, which the
      data set determines.
    - ``seed``: seed of the draws.
    """
    if len(samples.sample_shape) != 3:
        raise InputError("points cannot be augmented: give a data set of images, such as shapes")
    drawn = torch.tensor(indices)
    batch = samples.x[drawn.to(samples.x.device)].cpu()
    made = build(name, flip=samples.flip, **options)(batch, torch.Generator().manual_seed(seed))
    images = made.images.float().round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    sources = drawn[made.sources]
    credits = {rule: assign_credit(rule, drawn, sources, made.weights) for rule in CREDITS}
    return [
        Mixture(
            images[row],
            _sum_shares(sources[row], made.weights[row]),
            {rule: _sum_shares(c.samples[c.rows == row], c.weights[c.rows == row])
             for rule, c in credits.items()},
        )
        for row in range(len(drawn))
    ]  # fmt: skip


def _sum_shares(samples: Tensor, shares: Tensor) -> dict[int, float]:
    total: dict[int, float] = {}
    for sample, share in zip(samples.tolist(), shares.tolist(), strict=True):
        total[sample] = total.get(sample, 0.0) + share
    found = {sample: share for sample, share in total.items() if share > 1e-6}
    return dict(sorted(found.items(), key=lambda item: -item[1]))
