"""Augmentations of a whole batch at once, on its device, each image its own draw.

``build(name)`` gives a function from a uint8 batch and a generator to
:class:`AugmentedBatch`: the images, and which batch rows each is made of. Under every
object lies a pure function whose randomness is an argument.
"""

from collections.abc import Callable

from budgetlab.augment.crop import (
    Augmentation,
    AugmentedBatch,
    Cutout,
    Identity,
    Standard,
    crop_and_flip,
    cutout,
    unmixed,
)
from budgetlab.augment.mixing import (
    CutMix,
    Mixture,
    Mixup,
    Ricap,
    augmented,
    cutmix,
    mixup,
    ricap,
)
from budgetlab.augment.policy import OPERATIONS, RandAugment, level, randaugment
from budgetlab.errors import InputError, known

__all__ = [
    "OPERATIONS", "Augmentation", "AugmentedBatch", "CutMix", "Cutout", "Identity", "Mixture",
    "Mixup", "RandAugment", "Ricap", "Standard", "augmented", "build", "crop_and_flip", "cutmix",
    "cutout", "describe", "level", "mixup", "names", "randaugment", "ricap", "unmixed",
]  # fmt: skip

DESCRIPTIONS = {
    "none": "the images as they are",
    "standard": "crop with padding 4 and horizontal flip",
    "flip": "horizontal flip alone, where flips keep the label",
    "mixup": "standard, then a blend of two images (Zhang et al. 2018)",
    "ricap": "standard, then four crops patched together (Takahashi et al. 2018)",
    "cutmix": "standard, then a box of another image (Yun et al. 2019)",
    "randaugment": "N random operations of 16 at magnitude M, then standard (Cubuk et al. 2020)",
    "cutout": "standard, then a hidden square of half the side (DeVries & Taylor 2017)",
}


def names() -> list[str]:
    """Names that ``--augmentation`` takes."""
    return list(DESCRIPTIONS)


def describe() -> dict[str, str]:
    """One line on each augmentation, by name."""
    return dict(DESCRIPTIONS)


def build(
    name: str,
    *,
    flip: bool = True,
    alpha: float = 0.3,
    randaugment_n: int = 2,
    randaugment_m: float = 4,
    fidelity: str = "default",
    per_image: bool = False,
) -> Augmentation:
    """Make an augmentation by name.

    Parameters
    ----------
    name
        One of :func:`names`.
    flip
        Whether the standard part flips horizontally; False for digits.
    alpha
        Shape of the Beta(alpha, alpha) of mixup, ricap and cutmix; above 0.
    randaugment_n, randaugment_m
        Operations an image (at least 0) and magnitude (0 to 30).
    fidelity
        ``"default"``, or ``"published"`` to copy what the published code does.
    per_image
        Whether mixup, ricap and cutmix draw one proportion an image, not one a batch.

    Returns
    -------
    Augmentation
        Takes uint8 ``[B, C, H, W]`` and a generator on the same device.
    """
    name = known("augmentation", name, names())
    fidelity = known("fidelity", fidelity, ("default", "published"))
    if not 0 < alpha < float("inf"):
        raise InputError(
            f"alpha {alpha} is not above 0: give a positive number, such as 0.3, "
            "or choose augmentation 'standard' for no mixing"
        )
    if randaugment_n < 0 or not 0 <= randaugment_m <= 30:
        raise InputError(
            f"RandAugment with {randaugment_n} operations at magnitude {randaugment_m} is not "
            "possible: give a number of operations >= 0 and a magnitude between 0 and 30"
        )
    makers: dict[str, Callable[[], Augmentation]] = {
        "none": Identity,
        "standard": lambda: Standard(flip),
        "flip": lambda: Standard(flip, padding=0),
        "mixup": lambda: Mixup(alpha, flip, per_image, fidelity),
        "ricap": lambda: Ricap(alpha, flip, per_image, fidelity),
        "cutmix": lambda: CutMix(alpha, flip, per_image, fidelity),
        "randaugment": lambda: RandAugment(randaugment_n, randaugment_m, flip, fidelity),
        "cutout": lambda: Cutout(flip),
    }
    return makers[name]()
