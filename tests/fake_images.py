"""Images of noise in files, for class folders of one's own."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    size: tuple[int, int] = (12, 12),
    levels: tuple[int, int] = (0, 256),
    name: str = "img",
) -> Path:
    """Write ``count`` images, each another one; ``size`` is width by height."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(1000 * seed + number)
        pixels = rng.integers(*levels, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}{number:02}.png")
    return folder


def write_classes(top: Path, *names: str, count: int = 5, **options: object) -> Path:
    """Write a folder of images for each class."""
    for seed, name in enumerate(names):
        write_images(top / name, count, seed=seed, **options)
    return top
