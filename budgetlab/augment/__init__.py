"""Augmentations of whole batches, on the device of the images.

``build(name)`` returns a function from a uint8 batch and a generator to :class:`AugmentedBatch`:
the images, and the batch rows that each is made of. Every object wraps a pure function that takes
its random numbers as arguments.
"""

from budgetlab.augment.crop import (
    Augmentation,
    AugmentedBatch,
    Cutout,
    Identity,
    Standard,
    build,
    crop_and_flip,
    cutout,
    describe,
    names,
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

__all__ = [
    "OPERATIONS", "Augmentation", "AugmentedBatch", "CutMix", "Cutout", "Identity", "Mixture",
    "Mixup", "RandAugment", "Ricap", "Standard", "augmented", "build", "crop_and_flip", "cutmix",
    "cutout", "describe", "level", "mixup", "names", "randaugment", "ricap", "unmixed",
]  # fmt: skip
