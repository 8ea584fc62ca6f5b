"""One seed becomes one random stream a purpose.

Each purpose draws from a stream of its own, so that drawing once more for one
(an augmentation, say) leaves every other one as it was: two methods at the same
seed start from the same weights and see the same validation split.
"""

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["STREAMS", "numpy_generator", "stream_seed", "torch_generator"]

STREAMS = ("data", "imbalance", "split", "noise", "init", "order", "augmentation", "proxy",
           "test", "redundancy")  # fmt: skip


def stream_seed(seed: int, stream: str) -> int:
    """Derive the seed of one of :data:`STREAMS` from that of the run, an integer >= 0.

    In [0, 2**63), the same on every machine and in every process.
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown stream '{stream}': choose one of {', '.join(STREAMS)}")
    entropy = np.random.SeedSequence([seed, zlib.crc32(stream.encode())])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))


def numpy_generator(seed: int, stream: str) -> np.random.Generator:
    """Return the numpy generator of one stream of a seed."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, stream)))


def torch_generator(
    seed: int, stream: str, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """Return the torch generator of one stream of a seed, on a device.

    The numbers drawn on a GPU differ from those drawn on the CPU.
    """
    import torch

    return torch.Generator(device=device).manual_seed(stream_seed(seed, stream))
