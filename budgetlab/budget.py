"""Training costs, the budget that limits them, and learning-rate schedules over the budget."""

import contextlib
import copy
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import flop_counter

from budgetlab.config import BUDGET_UNITS
from budgetlab.errors import InputError, known

__all__ = ["SCHEDULES", "Budget", "Costs", "Ledger", "model_costs", "samples_per_epoch", "schedule",
           "steps_per_epoch"]  # fmt: skip

FINAL_LR = 1e-6


def samples_per_epoch(size: int, budget: float) -> int:
    """Return the draws per epoch, ``floor(N b)``; ``int(50000 * 0.29)`` would give 14499."""
    return math.floor(round(size * budget, 6))


def steps_per_epoch(size: int, budget: float, batch_size: int) -> int:
    """Return the full batches per epoch; InputError if the budget does not cover one."""
    drawn = samples_per_epoch(size, budget)
    if drawn < batch_size:
        least = f"raise the budget to {math.ceil(100 * batch_size / size) / 100:g} or more"
        # Suggest a power of two, about a quarter of an epoch.
        fitting = 2 ** max(1, int(math.log2(max(drawn, 8) / 4)))
        option = f" to {fitting} (batch_size={fitting}, --batch-size {fitting})"
        smaller = f"lower the batch size{option * (fitting <= drawn)}"
        whole = batch_size <= size
        remedies = [least] * whole + [smaller] * (drawn > 0 or not whole)
        raise InputError(
            f"budget {budget:g} of {size:,} samples is {drawn:,}, less than one batch "
            f"of {batch_size}: {', or '.join(remedies)}"
        )
    return drawn // batch_size


@dataclass(frozen=True)
class Costs:
    """Floating-point operations per sample; a multiply-add counts as two."""

    forward: int
    forward_backward: int


def model_costs(model: nn.Module, sample_shape: tuple[int, ...]) -> Costs:
    """Count the operations per sample of a model with torch's FlopCounterMode.

    Matrix products and convolutions are counted, including those of attention, recurrent and
    bilinear layers; element-wise operations are not. A copy of the model runs one sample of zeros.
    """
    # Not on torch's meta device, which would compute nothing: its first use imports the compiler.
    return _count(copy.deepcopy(model).cpu().eval(), torch.zeros(1, *sample_shape))


# torch excludes the counter from torch.compile, which imports the compiler and takes longer than an
# epoch of the small network. Nothing is compiled here, so the wrapper is removed.
flop_counter._FlopCounterMode.__torch_dispatch__ = inspect.unwrap(  # type: ignore[method-assign]
    flop_counter._FlopCounterMode.__torch_dispatch__
)


def _convolution_backward(grad_out, x, w, *rest, out_shape=None, **_) -> int:
    """Count one forward's operations per gradient; torch's own rule ignores the groups."""
    transposed, mask = rest[4], rest[7]
    once = flop_counter.conv_flop_count(x, w, grad_out, transposed=transposed)
    return once * (mask[0] + mask[1])


def _trilinear(i1, i2, i3, expand1, expand2, expand3, *_, out_shape=None, **__) -> int:
    """Count a multiply-add per product of three, in ``nn.Bilinear`` and its gradients."""
    shapes = [list(shape) for shape in (i1, i2, i3)]
    for shape, places in zip(shapes, (expand1, expand2, expand3), strict=True):
        for place in places:
            shape.insert(place, 1)
    return 2 * math.prod(torch.broadcast_shapes(*shapes))


@contextlib.contextmanager
def _unfused_layers() -> Iterator[None]:
    """Run attention and recurrent layers as separate products: fused kernels are not counted."""
    mha, mkldnn = torch.backends.mha, torch.backends.mkldnn
    before = mha.get_fastpath_enabled(), mkldnn.enabled
    mha.set_fastpath_enabled(False)
    mkldnn.enabled = False  # type: ignore[assignment]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(before[0])
        mkldnn.enabled = before[1]


def _count(model: nn.Module, sample: torch.Tensor) -> Costs:
    aten = torch.ops.aten
    rules = {aten.convolution_backward: _convolution_backward, aten._trilinear: _trilinear}
    counter = flop_counter.FlopCounterMode(display=False, custom_mapping=rules)
    model = getattr(model, "_orig_mod", model)  # not compiled, which would warn of the counter
    with _unfused_layers(), counter:
        logits = model(sample)
        forward = counter.get_total_flops()
        logits.sum().backward()
    return Costs(forward, counter.get_total_flops())


@dataclass
class Ledger:
    """The costs of training so far."""

    costs: Costs
    steps: int = 0
    """Optimiser steps."""
    trained_samples: int = 0
    """Samples run forward and backward."""
    looked_samples: int = 0
    """Samples run forward only, as candidates for training."""
    proxy_flops: int = 0
    """Operations of auxiliary networks, such as a proxy."""
    seconds: float = 0.0
    """Seconds of drawing, scoring, augmenting and stepping, without evaluation or recording."""
    proxy_steps: int = 0
    """Optimiser steps of auxiliary networks."""
    proxy_samples: int = 0
    """Samples run through auxiliary networks, trained on or not."""

    @property
    def flops(self) -> int:
        """Total floating-point operations."""
        trained = self.trained_samples * self.costs.forward_backward
        return trained + self.looked_samples * self.costs.forward + self.proxy_flops

    def charge_step(self, samples: int) -> None:
        """Charge one optimiser step on a batch."""
        self.steps += 1
        self.trained_samples += samples

    def charge_look(self, samples: int) -> None:
        """Charge a forward pass without gradients."""
        self.looked_samples += samples

    def charge_proxy(self, costs: Costs, *, trained: int = 0, looked: int = 0) -> None:
        """Charge one optimiser step of an auxiliary network, or a forward pass through it.

        Its steps and samples count like any others; its size affects only flops and seconds.
        """
        self.proxy_steps += trained > 0
        self.proxy_samples += trained + looked
        self.proxy_flops += trained * costs.forward_backward + looked * costs.forward

    def spent(self, unit: str) -> float:
        """Return the amount spent in one of the four units, over all networks."""
        amounts = {
            "iterations": self.steps + self.proxy_steps,
            "samples": self.trained_samples + self.looked_samples + self.proxy_samples,
            "flops": self.flops,
            "seconds": self.seconds,
        }
        return amounts[unit]

    def totals(self) -> dict[str, int | float]:
        """Return the five totals that reports show."""
        return {
            "steps": self.steps,
            "trained_samples": self.trained_samples,
            "looked_samples": self.looked_samples,
            "flops": self.flops,
            "seconds": round(self.seconds, 4),
        }

    def state_dict(self) -> dict[str, int | float]:
        """Return the state for :meth:`load_state_dict`."""
        return {name: value for name, value in vars(self).items() if name != "costs"}

    def load_state_dict(self, state: dict[str, int | float]) -> None:
        """Restore a saved state."""
        for name, value in state.items():
            setattr(self, name, value)


@dataclass
class Budget:
    """A limit in one unit, and the progress of a ledger towards it.

    A budget ``b`` allows what ``unif-SGD`` spends in ``E`` epochs of ``floor(N b / B)`` steps, in
    the chosen unit. A method that only trains therefore takes the same number of steps in every
    unit; one that also scores candidates takes that number in ``iterations`` and fewer in the other
    units. ``samples`` counts every sample run through a network, trained on or only scored.
    Auxiliary networks count in every unit: their optimiser steps are iterations too.

    Parameters
    ----------
    unit
        ``iterations``, ``samples``, ``flops`` or ``seconds``.
    limit
        Amount that may be spent, never exceeded. Seconds are predicted from earlier ones: the run
        ends when the slowest step of the previous epoch, or the slowest forward pass for the method
        of the last two, would no longer fit.
    """

    unit: str
    limit: float
    head_start: float = 0.0
    """Amount spent on auxiliary networks before the first step; progress counts from there."""
    slowest_step: float = 0.0
    slowest_look: float = 0.0
    exhausted: bool = False
    """True once something did not fit: the run is over, even if a smaller batch would fit."""

    @classmethod
    def of_steps(
        cls, unit: str, steps: int, batch_size: int, costs: Costs, step_seconds: float = 0.0
    ) -> "Budget":
        """Allow the cost of ``steps`` plain steps; ``step_seconds`` is used for seconds only."""
        unit = known("budget unit", unit, BUDGET_UNITS)
        limits = {
            "iterations": steps,
            "samples": steps * batch_size,
            "flops": steps * batch_size * costs.forward_backward,
            "seconds": steps * step_seconds,
        }
        if unit == "flops" and not limits[unit]:
            raise InputError(
                "a budget in flops has no limit, as no product or convolution is counted in this "
                "network: choose iterations, samples or seconds"
            )
        return cls(unit, limits[unit])

    def _cost(self, ledger: Ledger, trained: int, looked: int) -> float:
        if self.unit == "seconds":
            return self.slowest_step * (trained > 0) + self.slowest_look * (looked > 0)
        after = dataclasses.replace(ledger)
        if trained:
            after.charge_step(trained)
        after.charge_look(looked)
        return after.spent(self.unit) - ledger.spent(self.unit)

    def allows(self, ledger: Ledger, *, trained: int = 0, looked: int = 0) -> bool:
        """Tell whether a step on ``trained`` samples, or scoring ``looked``, still fits."""
        return ledger.spent(self.unit) + self._cost(ledger, trained, looked) <= self.limit

    def progress(self, ledger: Ledger, trained: int) -> float:
        """Return the progress in [0, 1]: 0 at the first step and 1 at the last.

        For ``iterations`` this is the paper's ``i / (I - 1)``.
        """
        last_start = self.limit - self._cost(ledger, trained, 0)
        if last_start <= self.head_start:
            return 0.0
        return min((ledger.spent(self.unit) - self.head_start) / (last_start - self.head_start), 1)

    def share_spent(self, ledger: Ledger) -> float:
        """Return the share of the limit spent, in [0, 1]."""
        return min(ledger.spent(self.unit) / self.limit, 1.0)


# Description of each schedule, and its share of the rate at a progress, given the milestones.
SCHEDULES: dict[str, tuple[str, Callable[[float, Sequence[float]], float]]] = {
    "linear": ("falls linearly to 1e-6 (Li et al., ICLR 2020): the paper's", lambda p, _: 1 - p),
    "cosine": ("falls along half a cosine to 1e-6", lambda p, _: (1 + math.cos(math.pi * p)) / 2),
    "step": ("divided by ten at each milestone", lambda p, at: 0.1 ** sum(p >= one for one in at)),
    "constant": ("stays as it is", lambda p, _: 1.0),
    "rex": ("stays high longer than linear, then falls faster (Chen et al., MLSys 2022)",
            lambda p, _: (1 - p) / (0.5 + 0.5 * (1 - p))),
}  # fmt: skip


def schedule(
    name: str,
    progress: float,
    lr: float,
    milestones: Sequence[float] = (),
    warmup: float = 0.0,
) -> float:
    """Return the learning rate at a progress in [0, 1].

    With ``warmup``, the rate first rises linearly to ``lr`` and the schedule covers the rest.
    ``linear``, ``cosine`` and ``rex`` end at 1e-6: with ``i / (I - 1)`` as progress, linear is
    ``lr + (1e-6 - lr) i / (I - 1)`` (Li et al., *Budgeted Training*, ICLR 2020). Raises InputError
    if the name is unknown.
    """
    name = known("schedule", name, SCHEDULES)
    if progress < warmup:
        return FINAL_LR + (lr - FINAL_LR) * progress / warmup
    if warmup:
        progress = (progress - warmup) / (1 - warmup)
    share = SCHEDULES[name][1](progress, milestones)
    floor = FINAL_LR if name in ("linear", "cosine", "rex") else 0.0
    return floor + (lr - floor) * share
