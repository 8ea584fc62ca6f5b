"""Apple's GPUs, by a stand-in: what lies on ``mps`` has no float64 and mixes with nothing else.

None of it was run on the real thing. Tensors of the stand-in are the processor's, marked by their
memory; a dispatch mode sees every operation, backward too, and refuses what Metal has not: float64,
operands on both devices, and operations for which torch itself lists no kernel there.
"""

import copy
import functools
import importlib.util
from pathlib import Path

import pytest
import torch
import yaml
from test_combinations import OPTIONS
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from budgetlab import analysis, augment, devices, estimators, samplers
from budgetlab.config import CREDITS, FIDELITIES
from budgetlab.devices import choose_device, sampling_device
from budgetlab.errors import InputError
from budgetlab.records import open_record
from budgetlab.samplers import ScoreSampler
from budgetlab.sweeps.dispatch import slots_for
from budgetlab.training import Run

MPS = torch.device("mps")
# The compiler of torch, which a dispatch mode loads, looks behind what is cached.
YES = functools.cache(lambda: True)
# They copy between devices, and index with what lies on the processor.
BETWEEN = {"aten::copy_", "aten::_to_copy", "aten::index.Tensor", "aten::index_put_",
           "aten::_index_put_impl_"}  # fmt: skip


def without_kernel() -> set[str]:
    """Operations that torch has for the processor and, by its own list, not for Metal."""
    place = Path(importlib.util.find_spec("torchgen").origin).parent
    listed = yaml.safe_load((place / "packaged/ATen/native/native_functions.yaml").read_text())
    entries = {one["func"].partition("(")[0]: one for one in listed}
    missing = set()
    for name, entry in entries.items():
        kernels = entries.get(entry.get("structured_delegate"), entry).get("dispatch") or {}
        keys = {key.strip() for several in kernels for key in several.split(",")}
        if "CPU" in keys and not keys & {"MPS", "CompositeExplicitAutograd"}:
            missing.add(f"aten::{name}")
    return missing


class AppleGpu(TorchFunctionMode):
    """Answers for ``mps`` while the block runs."""

    def __init__(self):
        super().__init__()
        self.memory: dict[int, StorageWeakRef] = {}
        self.generators: set[torch.Generator] = set()
        self.operations: set[str] = set()
        self.rules = Rules(self)

    def __enter__(self):
        self.rules.__enter__()
        return super().__enter__()

    def __exit__(self, *about):
        super().__exit__(*about)
        self.rules.__exit__(*about)

    def holds(self, value: object) -> bool:
        if not isinstance(value, torch.Tensor):
            return False
        kept = self.memory.get(value.untyped_storage()._cdata)
        return kept is not None and not kept.expired()

    def place(self, value: torch.Tensor, here: bool = True) -> torch.Tensor:
        storage = value.untyped_storage()
        self.memory.pop(storage._cdata, None)
        if here:
            assert value.dtype != torch.float64, "mps has no float64"
            self.memory[storage._cdata] = StorageWeakRef(storage)
        return value

    def generator(self, real):
        def make(seed: int, stream: str, device: object = "cpu") -> torch.Generator:
            made = real(seed, stream)
            if torch.device(device) == MPS:
                self.generators.add(made)
            return made

        return make

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func == torch.Tensor.device.__get__:
            return MPS if self.holds(args[0]) else func(*args)
        if func in (torch.Tensor.to, torch.Tensor.cpu):
            return self.to(func, args, kwargs)
        if name in ("numpy", "__array__"):
            assert not self.holds(args[0]), "numpy cannot read what lies on mps"
        target = kwargs.get("device")
        on_gpu = target is not None and torch.device(target) == MPS
        if on_gpu:
            kwargs["device"] = "cpu"
        if isinstance(drawn_by := kwargs.get("generator"), torch.Generator):
            wanted = on_gpu or any(map(self.holds, args))
            assert (drawn_by in self.generators) == wanted, f"{name}: a generator of elsewhere"
        made = func(*args, **kwargs)
        return self.place(made) if on_gpu else made

    def to(self, func, args, kwargs):
        value, *rest = args
        wanted = [one for one in (*rest, kwargs.get("device"), func is torch.Tensor.cpu and "cpu")
                  if isinstance(one, str | torch.device)]  # fmt: skip
        rest = [one for one in rest if isinstance(one, torch.dtype)]
        kwargs.pop("device", None)
        # From here to there; then, as one conversion, to another type.
        if wanted and (there := torch.device(wanted[0]) == MPS) != self.holds(value):
            kind = rest[0] if rest and isinstance(rest[0], torch.dtype) else kwargs.get("dtype")
            if there and kind is not None:
                value = value.to(kind)
            value = self.place(value.clone(), there)
        return torch.Tensor.to(value, *rest, **kwargs) if rest or kwargs else value


class Rules(TorchDispatchMode):
    missing = without_kernel()

    def __init__(self, gpu: AppleGpu):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        here = [one for one in given if self.gpu.holds(one)]
        if here:
            self.gpu.operations.add(name)
            apart = [one for one in given if one.ndim and not self.gpu.holds(one)]
            assert not apart or name in BETWEEN, f"{name}: operands on both devices"
            assert name not in self.missing, f"{name}: no kernel on mps"
        made = func(*args, **(kwargs or {}))
        if self.gpu.holds(args[0]) if name == "aten::copy_" else here:
            for one in tree_leaves(made):
                if isinstance(one, torch.Tensor):
                    self.gpu.place(one)
        return made


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", YES)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: None)
    gpu = AppleGpu()
    monkeypatch.setattr(devices, "torch_generator", gpu.generator(devices.torch_generator))
    with gpu:
        yield gpu


@pytest.fixture
def images(config, load_once):
    """A run of few steps on images, and its data."""
    splits = load_once("digits", limit=96, val_fraction=0.2)
    return config.replace(
        dataset="digits", limit=96, val_fraction=0.2, device="auto", model="compact", epochs=2,
        batch_size=8, data_root=splits.settings["data_root"],
    ), splits  # fmt: skip


def trained(config, splits) -> Run:
    run = Run(config, splits=splits)
    assert (run.device, run.loop.history.visits.device.type) == (MPS, "cpu")
    list(run)
    return run


@pytest.mark.parametrize("method", samplers.names())
def test_every_method_trains(method, gpu, images):
    config, splits = images
    options = {"proxy_share": 0.5, "keep_fraction": 0.5} | OPTIONS.get(method, {})
    if issubclass(samplers.lookup(method), ScoreSampler):
        options |= {"weights": "unbiased"} if samplers.lookup(method).weighting == "offered" else {}
    run = trained(config.replace(method=method, **options), splits)
    assert run.record.status == "finished"
    assert run.record.about["hardware"]["device"] == "mps"
    assert {"aten::convolution", "aten::convolution_backward"} <= gpu.operations


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("augmentation", augment.names())
def test_every_augmentation_trains(augmentation, fidelity, gpu, images):
    config, splits = images
    one = config.replace(augmentation=augmentation, fidelity=fidelity, method="selective-backprop")
    mixes = augmentation in ("mixup", "ricap", "cutmix")
    # The published code credits the row; weighted credit, which it lacks, is refused.
    rules = [rule for rule in CREDITS if fidelity != "published" or rule != "weighted"]
    for credit in rules if mixes else CREDITS[:1]:
        assert trained(one.replace(credit=credit), splits).epoch > 0


def test_gradients_of_every_sample_and_their_norms_are_those_of_the_processor(gpu):
    # Without batch norm, whose weights ``vmap`` repeats where the stand-in sees nothing of it.
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    there = copy.deepcopy(network)
    for weights in (*there.parameters(), *there.buffers()):
        gpu.place(weights)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6) % 3
    x_there, y_there = x.to("mps"), y.to("mps")
    for sketch in (None, 64):
        found = estimators.sample_gradients(there, x_there, y_there, sketch=sketch)
        here = estimators.sample_gradients(network, x, y, sketch=sketch)
        assert (found.norms.device.type, found.norms.dtype) == ("cpu", torch.float64)
        assert torch.equal(found.vectors, here.vectors)
        assert torch.equal(estimators.best_distribution(found), estimators.best_distribution(here))
    assert (analysis.grand(there, x_there, y_there) == analysis.grand(network, x, y)).all()
    own, wanted = (
        estimators.self_influence(*given, sketch=64)
        for given in ((there, x_there, y_there), (network, x, y))
    )
    assert (own == wanted).all()
    assert {"aten::convolution", "aten::convolution_backward"} <= gpu.operations


def test_it_goes_on_where_it_was_stopped_and_learns_what_the_processor_learns(gpu, images):
    config, splits = images
    config = config.replace(method="p-SGD", epochs=4)
    whole = trained(config, splits).record.epochs
    run = Run(config, splits=splits)
    next(iter(run))
    rest = Run.resume(run.writer.path, splits=splits)
    list(rest)
    columns = ["train_loss", "test_loss"]
    assert open_record(run.writer.path).epochs[columns].equals(whole[columns])
    here = Run(config.replace(device="cpu"), splits=splits)
    losses = [row["train_loss"] for row in here]
    assert losses == pytest.approx(whole["train_loss"].tolist(), rel=1e-3)


def test_the_stand_in_notices(gpu):
    there = torch.ones(4, device="mps")
    assert there.device == MPS
    assert (there + 1).to("cpu").device.type == "cpu"
    for wrong, said in [
        (lambda: there.double(), "float64"),
        (lambda: torch.ones(4, device="mps", dtype=torch.float64), "float64"),
        (lambda: torch.tensor([0.5], dtype=torch.float64).to("mps"), "float64"),
        (lambda: there + torch.ones(4), "both devices"),
        (lambda: there.numpy(), "numpy"),
        (lambda: torch.rand(3, device="mps", generator=torch.Generator()), "generator"),
        (lambda: torch.linalg.eig(there.reshape(2, 2)), "no kernel"),
    ]:
        with pytest.raises(AssertionError, match=said):
            wrong()


def test_it_is_chosen_where_it_is_there(monkeypatch, config):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(InputError, match=r"device 'mps' is not there \(0 found\): choose auto"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", YES)
    assert choose_device("auto") == choose_device("mps") == MPS
    assert (sampling_device(MPS).type, sampling_device(torch.device("cuda", 1)).index) == ("cpu", 1)
    assert slots_for("auto", [config.replace(device="auto")] * 4)[0] == 1
