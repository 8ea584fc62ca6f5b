"""A conventional training loop for comparison, as in the official code of Arazo et al.

Images are loaded one by one as PIL images, transformed on the CPU in worker processes,
collated, copied, and trained on in float32; after every batch the loss is read with ``.item()``
and the label probabilities are copied to numpy, which holds the per-sample statistics.

It runs in its own process: the kit makes the C library keep freed memory, from which this loop
would benefit too, and would no longer be conventional.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import TracebackType

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from benchmarks.speed.measure import random_images, wait_for
from budgetlab import models
from budgetlab.data import Dataset

__all__ = ["ApartLoop", "ConventionalLoop"]

WORKERS = 2
PREFETCH = 2


class _Images(TorchDataset):
    """Images as torchvision's CIFAR10 returns them, with the sample's index."""

    def __init__(self, samples: Dataset):
        self.images = samples.x.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = samples.y.tolist()
        side = self.images.shape[1]
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(side, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(samples.mean, samples.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        image = Image.fromarray(self.images[index])
        return self.transform(image), self.labels[index], index


class ConventionalLoop:
    """A network trained in the conventional way.

    Parameters
    ----------
    samples
        Training samples.
    model
        Name of the network.
    device
        Where to train.
    batch_size
        Images per step.
    workers
        Number of processes that load images; with 0, this process does.
    """

    def __init__(
        self,
        samples: Dataset,
        model: str,
        device: torch.device,
        batch_size: int = 128,
        workers: int = WORKERS,
    ):
        self.device = device
        self.ahead = workers * PREFETCH
        self.network = models.build(model, samples.sample_shape, len(samples.classes)).to(device)
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
        )
        data = _Images(samples)
        forever = RandomSampler(data, replacement=True, num_samples=10**9)
        self.loader = DataLoader(
            data,
            batch_size,
            sampler=forever,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            pin_memory=device.type == "cuda",
        )
        self._batches: Iterator | None = None
        self.error = np.zeros(len(data))
        self.visits = np.zeros(len(data))
        self.losses: list[float] = []

    def step(self) -> None:
        """Train on the next batch."""
        if self._batches is None:
            self._batches = iter(self.loader)
        images, labels, indices = next(self._batches)
        images, labels = images.to(self.device), labels.to(self.device)
        self.network.train()
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.losses.append(loss.item())
        p = torch.softmax(logits.detach(), 1).cpu().numpy()
        right = (logits.argmax(1) == labels).float().mean().item()
        rows = indices.numpy()
        error = 1 - p[np.arange(len(rows)), labels.cpu().numpy()]
        self.error[rows] = (self.visits[rows] * self.error[rows] + error) / (self.visits[rows] + 1)
        self.visits[rows] += 1
        self.accuracy = right

    def timed(self, steps: int) -> float:
        """Return the seconds per step, over some steps.

        Batches that the workers queued while something else was timed are trained on first,
        untimed.
        """
        for _ in range(self.ahead):
            self.step()
        wait_for(self.device)
        begun = time.perf_counter()
        for _ in range(steps):
            self.step()
        wait_for(self.device)
        return (time.perf_counter() - begun) / steps


def _serve(
    pipe: Connection, count: int, model: str, device: torch.device, batch: int, workers: int
) -> None:
    torch.set_num_threads(pipe.recv())
    loop = ConventionalLoop(random_images(count), model, device, batch, workers)
    while steps := pipe.recv():
        pipe.send(loop.timed(steps))


class ApartLoop:
    """A context manager with a :class:`ConventionalLoop` on random images in another process."""

    def __init__(
        self, count: int, model: str, device: torch.device, batch_size: int, workers: int = WORKERS
    ):
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        arguments = (self._theirs, count, model, device, batch_size, workers)
        self._process = context.Process(target=_serve, args=arguments)

    def __enter__(self) -> "ApartLoop":
        self._process.start()
        self._theirs.close()  # so that the pipe closes when the process ends
        self._pipe.send(torch.get_num_threads())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with contextlib.suppress(OSError):  # it has ended already
            self._pipe.send(0)
        self._process.join()

    def timed(self, steps: int) -> float:
        """Return the seconds per step, over some steps."""
        try:
            self._pipe.send(steps)
            return self._pipe.recv()
        except (OSError, EOFError):
            self._process.join()
            code = self._process.exitcode
            raise RuntimeError(f"the usual loop ended with exit code {code}") from None
