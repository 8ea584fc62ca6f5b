"""What a GPU would wait for: no step reads anything back, and nothing is made elsewhere.

On torch's ``meta`` device there are no values: a tensor of the processor by mistake, and every
read-back, raise at once. What may be read back is listed here and counted on the processor.
"""

import functools
import itertools
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode

import budgetlab as bl
from budgetlab import augment, samplers
from budgetlab.augment import AugmentedBatch
from budgetlab.config import CREDITS, FIDELITIES, RunConfig
from budgetlab.errors import InputError
from budgetlab.history import History
from budgetlab.samplers import Batch
from budgetlab.samplers.checking import CheckedBatches
from budgetlab.training.engine import Engine
from budgetlab.training.loop import Loop

META = torch.device("meta")
# Function that reads back: how often an epoch, and how often for each batch of candidates.
ALLOWED = {
    "_check_finite": (1, 0),  # that no loss of the epoch is infinite
    "_mean": (2, 0),  # mean loss and accuracy for the record
    "easiest": (1, 0),  # curriculum: whether anything was seen
    "probabilities": (1, 0),  # that the scores are finite
    "group_centres": (100, 0),  # SeTa: two a round of k-means, of which there are 50 at most
    "InfoBatch.batches": (2, 0),  # the share of samples below the mean, and which are kept
    "SeTa.batches": (2, 0),  # whether anything was seen, and what is in its window
    "SelectiveBackprop.batches": (0, 1),  # which candidates are kept
    "GradientNorm.batches": (0, 1),  # which of its candidates were seen, while it is off
    "GradientNorm._update": (0, 1),  # whether choosing pays
}
READS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "cpu",
         "numpy", "unique", "masked_select", "equal", "bincount", "argwhere"}  # fmt: skip


def start(method: str, load_once, **settings) -> Loop:
    """A loop of a method after its first epoch, trained on the processor."""
    splits = load_once("digits", limit=200, val_fraction=0.2)
    config = RunConfig(method=method, budget=0.5, epochs=24, batch_size=8, proxy_share=0.5,
                       model="compact", keep_fraction=0.5, **settings)  # fmt: skip
    loop = Loop(config, splits.train, torch.device("cpu"), torch.float32, val=splits.val)
    loop.train_epoch(1)
    return loop


@pytest.fixture(scope="module")
def second_epochs(load_once):
    """Loops of every method, each made once."""
    return functools.cache(lambda method: start(method, load_once))


@pytest.fixture(scope="module")
def engine(second_epochs):
    """Engines on the samples of the loops, each made once."""
    samples = second_epochs("unif-SGD").engine.samples

    @functools.cache
    def made(device, augmentation, credit="dominant", fidelity="default") -> Engine:
        config = RunConfig(augmentation=augmentation, credit=credit, fidelity=fidelity)
        return Engine(config, "compact", samples, torch.device(device), torch.float32)

    return made


def on_meta(batch: Batch) -> Batch:
    """A batch as it would be if it had been made on a GPU."""
    weights = None if batch.weights is None else batch.weights.to(META)
    augmented = batch.augmented and AugmentedBatch(
        **{name: value.to(META) for name, value in vars(batch.augmented).items()}
    )
    return Batch(batch.indices.to(META), weights, augmented)


def step(engine, batch, history):
    """What a step on meta makes and leaves, all of it on meta."""
    made = Loop._step(SimpleNamespace(engine=engine, history=history, chooser=META), batch, 0.1)
    made += (*history.state_dict().values(), *history.epoch_arrays().values())
    return {one.device for one in made if isinstance(one, torch.Tensor)}


@pytest.mark.parametrize("method", samplers.names())
def test_a_step_of_every_method_reads_nothing_back(method, second_epochs, engine):
    """What a method drew on the processor is trained on, and learned from, on meta."""
    loop = second_epochs(method)
    history = History(loop.history.size, META)
    for augmentation in augment.names():
        look = engine("cpu", augmentation).look
        batch = on_meta(next(iter(loop.sampler.batches(2, loop.history, look))))
        assert step(engine("meta", augmentation), batch, history) == {META}, augmentation


@pytest.mark.parametrize("augmentation", augment.names())
def test_no_credit_and_no_look_reads_anything_back(augmentation, engine):
    batch, history = Batch(torch.zeros(8, dtype=torch.int64, device=META)), History(200, META)
    for credit, fidelity in itertools.product(CREDITS, FIDELITIES):
        own = engine("meta", augmentation, credit, fidelity)
        assert step(own, batch, history) == {META}, (credit, fidelity)
    seen = own.look(batch.indices)
    assert {one.device for one in vars(seen).values() if isinstance(one, torch.Tensor)} == {META}


def test_meta_does_notice():
    for read in (torch.Tensor.item, torch.Tensor.tolist, bool, torch.Tensor.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(torch.zeros(1, device=META))


class ReadBacks(TorchFunctionMode):
    """Counts what is read back, by the function of the package that does it."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        masked = name == "__getitem__" and any(
            isinstance(part, torch.Tensor) and part.dtype == torch.bool
            for part in (args[1] if isinstance(args[1], tuple) else (args[1],))
        )
        if name in READS or masked:
            self.counts[caller()] += 1
        return func(*args, **(kwargs or {}))


PACKAGE = str(Path(bl.__file__).parent)


def caller():
    frame = sys._getframe(2)
    while not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    name = frame.f_code.co_name
    return name if name in ALLOWED else getattr(frame.f_code, "co_qualname", name)


class LikeAGpu:
    """Keeps the loop from what is free on the processor alone."""

    type = "gpu"


@pytest.mark.parametrize(
    ("method", "augmentation"),
    [*((method, "cutmix") for method in samplers.names()), ("p-SGD", "standard")],
)
def test_only_what_is_listed_is_read_back(method, augmentation, load_once):
    # The first epoch trains the networks that some methods need, which are no step of it.
    loop = start(method, load_once, augmentation=augmentation)
    looks, look = [], loop.engine.look
    loop.engine.look = lambda indices: looks.append(1) or look(indices)
    loop.device = LikeAGpu()
    steps = loop.ledger.steps
    with ReadBacks() as seen:
        loop.train_epoch(2)
    # grad-norm, while it is off, takes each batch for one of candidates.
    candidates = max(len(looks), loop.ledger.steps - steps if method == "grad-norm" else 0)
    for name, count in seen.counts.items():
        assert name in ALLOWED, f"{name} reads back {count} times"
        an_epoch, a_batch = ALLOWED[name]
        assert count <= an_epoch + a_batch * candidates, name
    assert seen.counts["_mean"] == 2


def test_numbers_of_no_sample_are_read_back_once_an_epoch():
    """On a GPU the steps go on, with samples that there are, until the end of the epoch."""

    @bl.sampler("astray")
    class Astray(bl.Sampler):
        def batches(self, epoch, history, look):
            for start in (0, 8, 195):
                look(torch.arange(start, start + 8))
                yield Batch(torch.arange(start, start + 8))

    config, looked = RunConfig(method="astray", batch_size=8), []
    known = samplers.SamplerContext(200, config, torch.Generator(), LikeAGpu())
    batches = CheckedBatches(samplers.build("astray", known))
    with ReadBacks() as seen:
        yielded = [batch.indices for batch in batches.batches(1, None, looked.append)]
    assert not seen.counts
    for last in (yielded[2], looked[2]):
        assert last.tolist() == [195, 196, 197, 198, 199, 199, 199, 199]
    with pytest.raises(InputError, match=r"'astray' asks for sample 200: give 0 to 199"):
        batches.finish()


def test_the_loop_asks_for_it_at_the_end_of_an_epoch_that_the_budget_ends_too(load_once):
    @bl.sampler("astray")
    class Astray(bl.Sampler):
        def batches(self, epoch, history, look):
            for _ in range(30):
                yield Batch(torch.arange(195, 203))

    config = RunConfig(method="astray", batch_size=8, epochs=1, model="compact")
    samples = load_once("digits", limit=200, val_fraction=0.2).train
    loop = Loop(config, samples, torch.device("cpu"), torch.float32)
    loop.sampler.device = LikeAGpu()
    with pytest.raises(InputError, match="'astray' asks for sample"):
        loop.train_epoch(1)
    assert loop.budget.exhausted
