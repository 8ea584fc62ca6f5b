"""What a method of one's own yields, checked before a step fails on it elsewhere."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from budgetlab.errors import InputError, a_kind
from budgetlab.history import History
from budgetlab.samplers.base import Batch, BatchError, ForwardResult, Looker, Sampler


class CheckedBatches:
    """A custom method's batches; an InputError names the method and what it yields instead.

    On a GPU, reading every batch would stall the step: there, numbers of no sample are replaced for
    the time being, and :meth:`finish` raises the error at the end of the epoch.
    """

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self.method = sampler.context.config.method
        self._unread: list[Tensor] = []

    def batches(self, epoch: int, history: History, look: Looker) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 1."""

        def look_at_known(indices: Tensor) -> ForwardResult:
            return look(self._known(indices))

        try:
            for batch in self.sampler.batches(epoch, history, look_at_known):
                if not isinstance(batch, Batch):
                    raise InputError(f"method '{self.method}' yields {a_kind(batch)}: yield "
                                     "bl.samplers.Batch(indices)")  # fmt: skip
                yield replace(batch, indices=self._known(batch.indices))
        except BatchError as error:
            raise InputError(f"in method '{self.method}' {error}") from error

    def finish(self) -> None:
        """Check what was not read within the epoch."""
        if self._unread:
            self._require_known(torch.cat(self._unread).cpu())

    def _known(self, indices: Tensor) -> Tensor:
        """Return the indices of samples, checked now or later."""
        if self.sampler.device.type == "cpu":
            self._require_known(indices)
            return indices
        self._unread.append(indices)
        return indices.clamp(0, self.sampler.size - 1)

    def _require_known(self, indices: Tensor) -> None:
        last = self.sampler.size - 1
        unknown = (indices < 0) | (indices > last)
        if bool(unknown.any()):
            raise InputError(
                f"method '{self.method}' asks for sample {indices[unknown][0]:g}: give 0 to {last}"
            )
