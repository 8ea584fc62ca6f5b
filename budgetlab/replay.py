"""What a method knew of each sample when an epoch began, from a record."""

import torch

from budgetlab.analysis.per_sample import read_blocks
from budgetlab.errors import InputError
from budgetlab.history import Credit, History, Measures
from budgetlab.records import Record

__all__ = ["Replay"]

ARRAYS = ("loss", "p_y", "correct", "margin", "el2n", "times_trained")


class Replay:
    """The :class:`~budgetlab.history.History` of a run at the start of any of its epochs.

    A record keeps one visit a sample and epoch, with values rounded to 0.2%, so the
    history is that of the run up to this rounding. Under the credit rule ``weighted``,
    shares of a visit count as whole ones.

    Parameters
    ----------
    record
        With per-sample arrays and at least one epoch.
    memory
        Bytes to hold at most. Where all epochs do not fit, some are kept and the others
        are computed from the one before, when asked for.

    Raises
    ------
    InputError
        If the record holds no epoch.
    """

    def __init__(self, record: Record, memory: int = 256_000_000):
        data = record.samples
        self.record = record
        self.epochs, self.size = data.sizes["epoch"], data.sizes["sample"]
        if not self.epochs:
            raise InputError(f"'{record.path}' holds no finished epoch: train for longer")
        history = History(self.size)
        state = _copy(history)
        held = sum(v.nbytes for v in state.values() if isinstance(v, torch.Tensor))
        self._stride = max(1, -(-self.epochs * held // memory))
        self._states = {0: state}
        for first, arrays in read_blocks(record, ARRAYS):
            for offset in range(len(arrays["loss"])):
                epoch = first + offset
                _visit(history, epoch, {name: rows[offset] for name, rows in arrays.items()})
                if epoch % self._stride == 0:
                    self._states[epoch] = _copy(history)

    def before(self, epoch: int) -> History:
        """Return the history as epoch number ``epoch`` began: 1 to one after the last.

        Raises
        ------
        InputError
            If the epoch lies outside.
        """
        if not 1 <= epoch <= self.epochs + 1:
            raise InputError(
                f"epoch {epoch} does not exist in '{self.record.path}': "
                f"give one from 1 to {self.epochs + 1}"
            )
        done = (epoch - 1) // self._stride * self._stride
        history = History(self.size)
        history.load_state_dict(self._states[done])
        data = self.record.samples
        for missing in range(done + 1, epoch):
            _visit(history, missing, {n: data[n][missing - 1].to_numpy() for n in ARRAYS})
        return history


def _copy(history: History) -> dict:
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in history.state_dict().items()
    }


def _visit(history: History, epoch: int, arrays: dict) -> None:
    """Add what a record keeps of one epoch."""
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    samples = (tensors["correct"] >= 0).nonzero()[:, 0]
    seen = {name: tensors[name][samples].float() for name in ARRAYS[:-1]}
    history.start_epoch(epoch)
    everybody = torch.arange(history.size)
    history.count(everybody.repeat_interleave(tensors["times_trained"].long()))
    credit = Credit(torch.arange(len(samples)), samples, torch.ones(len(samples)))
    history.update(credit, Measures(**seen))
