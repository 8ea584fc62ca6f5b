"""What has been spent, what may be spent, and the learning rate in between."""

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
    """Samples that a draw-ahead method draws in one epoch, ``floor(N b)``.

    The product is rounded first: ``int(50000 * 0.29)`` is 14499.
    """
    return math.floor(round(size * budget, 6))


def steps_per_epoch(size: int, budget: float, batch_size: int) -> int:
    """Iterations of one epoch, the last partial batch dropped.

    Raises
    ------
    InputError
        If not even one batch can be afforded.
    """
    drawn = samples_per_epoch(size, budget)
    if drawn < batch_size:
        # A quarter of an epoch, and a power of two, as people choose them.
        fitting = 2 ** max(1, int(math.log2(max(drawn, 8) / 4)))
        option = f" to {fitting} (batch_size={fitting}, --batch-size {fitting})"
        smaller = f"lower the batch size{option * (fitting <= drawn)}, or " * (drawn > 0)
        raise InputError(
            f"budget {budget:g} of {size:,} samples is {drawn:,}, less than one batch "
            f"of {batch_size}: {smaller}raise the budget"
        )
    return drawn // batch_size


@dataclass(frozen=True)
class Costs:
    """Floating point operations of one sample; a multiply-add counts as two."""

    forward: int
    forward_backward: int


def model_costs(model: nn.Module, sample_shape: tuple[int, ...]) -> Costs:
    """Count the operations of a model with torch's FlopCounterMode.

    Matrix products and convolutions are counted, those of attention, of recurrent and of bilinear
    layers too; element-wise work is not. One sample of zeros is run through a copy.
    """
    # On torch's meta device nothing would be computed, and its first use imports the compiler.
    return _count(copy.deepcopy(model).cpu().eval(), torch.zeros(1, *sample_shape))


# The counter is kept out of what torch.compile makes, by an import that takes longer than
# an epoch of the small network; nothing is compiled here.
flop_counter._FlopCounterMode.__torch_dispatch__ = inspect.unwrap(  # type: ignore[method-assign]
    flop_counter._FlopCounterMode.__torch_dispatch__
)


def _convolution_backward(grad_out, x, w, *rest, out_shape=None, **_) -> int:
    """As much as forward for each of the two gradients: torch's own rule forgets the groups."""
    transposed, mask = rest[4], rest[7]
    once = flop_counter.conv_flop_count(x, w, grad_out, transposed=transposed)
    return once * (mask[0] + mask[1])


def _trilinear(i1, i2, i3, expand1, expand2, expand3, *_, out_shape=None, **__) -> int:
    """A multiply-add for each product of three, in ``nn.Bilinear`` and its gradients."""
    shapes = [list(shape) for shape in (i1, i2, i3)]
    for shape, places in zip(shapes, (expand1, expand2, expand3), strict=True):
        for place in places:
            shape.insert(place, 1)
    return 2 * math.prod(torch.broadcast_shapes(*shapes))


@contextlib.contextmanager
def _whole_layers_in_parts() -> Iterator[None]:
    """Compute attention and recurrent layers by products: what is one kernel is not counted."""
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
    with _whole_layers_in_parts(), counter:
        logits = model(sample)
        forward = counter.get_total_flops()
        logits.sum().backward()
    return Costs(forward, counter.get_total_flops())


@dataclass
class Ledger:
    """Everything that training has cost so far."""

    costs: Costs
    steps: int = 0
    """Optimiser steps."""
    trained_samples: int = 0
    """Samples run forward and backward."""
    looked_samples: int = 0
    """Samples run forward only, to choose among them."""
    proxy_flops: int = 0
    """Operations spent on other networks that the method needs."""
    seconds: float = 0.0
    """Seconds of training: drawing, looking, augmenting and stepping. Evaluation and
    recording are not counted."""
    proxy_steps: int = 0
    """Optimiser steps of other networks."""
    proxy_samples: int = 0
    """Samples run through other networks, trained on or not."""

    @property
    def flops(self) -> int:
        """Floating point operations of everything above."""
        trained = self.trained_samples * self.costs.forward_backward
        return trained + self.looked_samples * self.costs.forward + self.proxy_flops

    def charge_step(self, samples: int) -> None:
        """One optimiser step on a batch."""
        self.steps += 1
        self.trained_samples += samples

    def charge_look(self, samples: int) -> None:
        """One forward without a gradient."""
        self.looked_samples += samples

    def charge_proxy(self, costs: Costs, *, trained: int = 0, looked: int = 0) -> None:
        """One optimiser step of another network, or a forward through it.

        An iteration is an optimiser step and a sample is a sample, whichever network takes
        it; only flops and seconds say how large that network is.
        """
        self.proxy_steps += trained > 0
        self.proxy_samples += trained + looked
        self.proxy_flops += trained * costs.forward_backward + looked * costs.forward

    def spent(self, unit: str) -> float:
        """Amount spent in one of the four units, on all networks together."""
        amounts = {
            "iterations": self.steps + self.proxy_steps,
            "samples": self.trained_samples + self.looked_samples + self.proxy_samples,
            "flops": self.flops,
            "seconds": self.seconds,
        }
        return amounts[unit]

    def totals(self) -> dict[str, int | float]:
        """The five numbers that reports show."""
        return {
            "steps": self.steps,
            "trained_samples": self.trained_samples,
            "looked_samples": self.looked_samples,
            "flops": self.flops,
            "seconds": round(self.seconds, 4),
        }

    def state_dict(self) -> dict[str, int | float]:
        """Return what :meth:`load_state_dict` takes."""
        fields = ("steps", "trained_samples", "looked_samples", "proxy_steps", "proxy_samples",
                  "proxy_flops", "seconds")  # fmt: skip
        return {name: getattr(self, name) for name in fields}

    def load_state_dict(self, state: dict[str, int | float]) -> None:
        """Go back to a saved state."""
        for name, value in state.items():
            setattr(self, name, value)


@dataclass
class Budget:
    """A limit in one unit, and how far along a ledger is.

    A budget ``b`` allows what ``unif-SGD`` spends in ``E`` epochs of
    ``floor(N b / B)`` steps, counted in the chosen unit. So a method that
    only trains gets the same steps in every unit, and one that also looks gets
    the same steps in ``iterations`` and fewer in the others. ``samples`` counts
    every sample run through a network, trained on or only looked at. Other networks
    count in every unit: their optimiser steps are iterations too.

    Parameters
    ----------
    unit
        ``iterations``, ``samples``, ``flops`` or ``seconds``.
    limit
        What may be spent; it is never overstepped. Seconds can be predicted only
        from the steps before: the run ends when the slowest step of the last
        epoch would no longer fit.
    """

    unit: str
    limit: float
    head_start: float = 0.0
    """Spent on other networks before the first step: progress counts from there."""
    slowest_step: float = 0.0
    exhausted: bool = False
    """Something did not fit any more: the run is over, even if a smaller thing would fit."""

    @classmethod
    def of_steps(
        cls, unit: str, steps: int, batch_size: int, costs: Costs, step_seconds: float = 0.0
    ) -> "Budget":
        """Allow what ``steps`` plain steps cost; ``step_seconds`` is used for seconds."""
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
        after = dataclasses.replace(ledger)
        if trained:
            after.charge_step(trained)
        after.charge_look(looked)
        cost = after.spent(self.unit) - ledger.spent(self.unit)
        return self.slowest_step if self.unit == "seconds" and trained else cost

    def allows(self, ledger: Ledger, *, trained: int = 0, looked: int = 0) -> bool:
        """Whether a step on ``trained`` samples, or a look at ``looked``, still fits."""
        return ledger.spent(self.unit) + self._cost(ledger, trained, looked) <= self.limit

    def progress(self, ledger: Ledger, trained: int) -> float:
        """Share spent, in [0, 1], that is 0 at the first step and 1 at the last one.

        At ``iterations`` this is ``i / (I - 1)``, the paper's.
        """
        last_start = self.limit - self._cost(ledger, trained, 0)
        if last_start <= self.head_start:
            return 0.0
        return min((ledger.spent(self.unit) - self.head_start) / (last_start - self.head_start), 1)

    def share_spent(self, ledger: Ledger) -> float:
        """Share of the limit spent, in [0, 1]."""
        return min(ledger.spent(self.unit) / self.limit, 1.0)


# What each is, and the share of the rate at a progress, with the milestones of ``step``.
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
    """Learning rate at a progress in [0, 1].

    With ``warmup`` the rate first rises linearly to ``lr``, and the schedule runs over the rest.
    ``linear``, ``cosine`` and ``rex`` end at 1e-6: with ``i / (I - 1)`` as progress, linear
    is ``lr + (1e-6 - lr) i / (I - 1)`` (Li et al., *Budgeted Training*, ICLR 2020).

    Raises
    ------
    InputError
        If the name is unknown.
    """
    name = known("schedule", name, SCHEDULES)
    if progress < warmup:
        return FINAL_LR + (lr - FINAL_LR) * progress / warmup
    if warmup:
        progress = (progress - warmup) / (1 - warmup)
    share = SCHEDULES[name][1](progress, milestones)
    floor = FINAL_LR if name in ("linear", "cosine", "rex") else 0.0
    return floor + (lr - floor) * share
