"""The few images of a run that say most about what it chose."""

import numpy as np
import torch
import torch.nn.functional as F

from budgetlab.data import Dataset
from budgetlab.history import History

__all__ = ["pick_thumbnails"]

PER_END = 32
LARGEST_SIDE = 64


def pick_thumbnails(
    samples: Dataset, history: History, per_end: int = PER_END
) -> tuple[np.ndarray, np.ndarray] | None:
    """Pick the samples at both ends of two rankings: times trained, and mean loss.

    Returns
    -------
    tuple or None
        Sample numbers int64 ``[K]``, ascending, and images uint8 ``[K, H, W, C]``, at
        most 64 pixels a side. None for data that are no images.
    """
    if len(samples.sample_shape) != 3:
        return None
    loss = torch.nan_to_num(history.mean_loss, nan=0.0)
    # Ties in the counts are ordered by the loss, so that the ends are the same each time.
    trained = history.times_trained.double() + loss.double() / (1 + loss.max().double())
    picked: set[int] = set()
    for ranking in (trained, loss):
        order = ranking.argsort(stable=True)
        picked.update(order[:per_end].tolist(), order[-per_end:].tolist())
    indices = torch.tensor(sorted(picked), device=samples.x.device)
    images = samples.x[indices]
    if max(images.shape[2:]) > LARGEST_SIDE:
        scale = LARGEST_SIDE / max(images.shape[2:])
        small = F.interpolate(images.float(), scale_factor=scale, mode="area")
        images = small.round().clamp(0, 255).byte()
    return indices.cpu().numpy(), images.permute(0, 2, 3, 1).cpu().numpy()
