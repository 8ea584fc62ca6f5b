"""Networks: small ones for lessons on a CPU, the paper's for a GPU, and custom ones.

Every network is a plain ``torch.nn.Module`` from normalised float images ``[B, C, H, W]`` (or
``[B, 2]`` for points) to logits ``[B, classes]``, without a final softmax.

A custom network, any ``nn.Module`` or a function that makes one, is identified by the name
``own:CLASS-HEX``, a hash of its layers and of the shapes and frozen state of its weights: another
width or dropout rate is another model in every table, another ``forward`` or initialisation is not.
A record stores the name, and a digest of the initial weights of a given module; not the network.
"""

import contextlib
import copy
import hashlib
import inspect
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from budgetlab.errors import InputError, a_kind, known, reason
from budgetlab.history import require_logits

__all__ = ["about", "build", "choose", "describe", "is_custom", "names", "register"]

# Layers initialise from torch's global generator: build one network at a time.
_init_lock = threading.Lock()


class ConvNet(nn.Module):
    """Convolutions, global average pooling over any size of image, and one linear layer."""

    def __init__(self, layers: list[nn.Module], width: int, classes: int):
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` of normalised images ``[B, C, H, W]``."""
        return self.classifier(self.features(x).mean(dim=(2, 3)))


class SmallConvNet(ConvNet):
    """Three 3x3 convolutions of widths 32, 64, 128, each with batch norm, max-pool and ReLU.

    Images must be at least 8x8. About 95,000 parameters at 3 channels and 10 classes.
    """

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...] = (32, 64, 128)):
        layers: list[nn.Module] = []
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                # Max-pooling commutes with the ReLU and leaves it a quarter of the values.
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
            channels = width
        super().__init__(layers, channels, classes)


class CompactConvNet(ConvNet):
    """Space-to-depth by 2, then 3x3 convolutions of widths 32, 64, 128, the first two pooled.

    Each 2x2 block of pixels becomes one pixel of four times the channels, so that no convolution
    runs at full resolution; batch norm and ReLU follow each. About 97,000 weights and 3.2 million
    multiply-adds at 32x32x3 and 10 classes: half those of an equally accurate network without
    space-to-depth, and enough to memorise 1,000 images.
    """

    def __init__(self, channels: int, classes: int):
        layers: list[nn.Module] = []
        before = 4 * channels
        for width in (32, 64, 128):
            layers.append(nn.Conv2d(before, width, 3, padding=1, bias=False))
            if width < 128:
                # Pool before the norm, which then processes a quarter of the values.
                layers.append(nn.MaxPool2d(2))
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            before = width
        super().__init__(layers, before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` of normalised images ``[B, C, H, W]``."""
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        x = F.pixel_unshuffle(x, 2)
        # The fastest layout for convolutions; ``vmap`` (per-sample gradients) rejects it.
        with contextlib.suppress(RuntimeError):
            x = x.contiguous(memory_format=torch.channels_last)
        return super().forward(x)


def mlp(features: int, classes: int, width: int = 64) -> nn.Module:
    """Build an MLP for 2-D points: two hidden layers of ``width`` units with ReLU."""
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                         nn.Linear(width, classes))  # fmt: skip


def resnet(layers: list[int], channels: int, classes: int) -> nn.Module:
    """Build torchvision's ResNet with a 3x3 stem, stride 1 and no max-pool (Arazo et al. 2021)."""
    # Imported on demand: torchvision takes as long to import as torch.
    from torchvision.models.resnet import BasicBlock, ResNet

    network = ResNet(BasicBlock, layers, num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


class NarrowResNet(nn.Module):
    """ResNet-8 after He et al. (2016), section 4.2, with one block at each of 16, 32, 64."""

    def __init__(self, channels: int, classes: int):
        from torchvision.models.resnet import BasicBlock

        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)
        )
        blocks: list[nn.Module] = [BasicBlock(16, 16)]
        for width in (16, 32):
            shortcut = nn.Sequential(
                nn.Conv2d(width, 2 * width, 1, 2, bias=False), nn.BatchNorm2d(2 * width)
            )
            blocks.append(BasicBlock(width, 2 * width, 2, shortcut))
        self.stages = nn.Sequential(*blocks)
        self.classifier = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` of normalised images ``[B, C, H, W]``."""
        return self.classifier(self.stages(self.stem(x)).mean(dim=(2, 3)))


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU and 3x3 convolution, twice, with a shortcut."""

    def __init__(self, width_in: int, width_out: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Conv2d(width_in, width_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the shortcut plus the residual of images ``[B, C, H, W]``."""
        out = F.relu(self.norm1(x))
        passed = x if self.shortcut is None else self.shortcut(out)
        return passed + self.conv2(F.relu(self.norm2(self.conv1(out))))


class WideResNet(ConvNet):
    """WideResNet-16-4 of Zagoruyko & Komodakis (2016), no dropout: two blocks per stage."""

    def __init__(self, channels: int, classes: int):
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
        for before, width, stride in ((16, 64, 1), (64, 128, 2), (128, 256, 2)):
            layers += [PreActivationBlock(before, width, stride),
                       PreActivationBlock(width, width, 1)]  # fmt: skip
        super().__init__([*layers, nn.BatchNorm2d(256), nn.ReLU(inplace=True)], 256, classes)


IMAGE_MODELS: dict[str, tuple[str, Callable[[int, int], nn.Module]]] = {
    "small": ("three convolutions, widths 32-64-128: lessons on a CPU", SmallConvNet),
    "tiny": ("three convolutions, widths 16-32-64: a proxy for rho-loss",
             lambda channels, classes: SmallConvNet(channels, classes, (16, 32, 64))),
    "compact": ("space-to-depth, then convolutions of widths 32-64-128: the scale model's",
                CompactConvNet),
    "resnet8": ("He et al. 2016, widths 16-32-64, one block a stage", NarrowResNet),
    "resnet18": ("ResNet-18 with a 3x3 stem and no max-pool: the paper's",
                 lambda channels, classes: resnet([2, 2, 2, 2], channels, classes)),
    "wrn16-4": ("WideResNet-16-4 (Zagoruyko & Komodakis 2016)", WideResNet),
}  # fmt: skip
POINT_MODELS: dict[str, tuple[str, Callable[[int, int], nn.Module]]] = {
    "mlp": ("two hidden layers of 64: 2-D points", mlp),
}


def names() -> list[str]:
    """List the names that ``--model`` takes, ``auto`` first."""
    return ["auto", *IMAGE_MODELS, *POINT_MODELS]


def describe() -> dict[str, str]:
    """Describe each model in one line, by name."""
    auto = {"auto": "mlp for points; small on a CPU, resnet18 on a GPU for images"}
    return auto | {name: text for name, (text, _) in (IMAGE_MODELS | POINT_MODELS).items()}


def packed(network: nn.Module) -> bytes:
    """Return weights and buffers as a safetensors file, which holds no views and shares nothing."""
    held = {name: value.cpu().clone(memory_format=torch.contiguous_format)
            for name, value in network.state_dict().items()}  # fmt: skip
    return safetensors.torch.save(held)


def is_custom(name: str) -> bool:
    """Tell whether a name is that of a custom network."""
    return name.startswith("own:")


def about(name: str) -> dict[str, str | int]:
    """Return what a record stores about a model: its name; for a custom one also class and size."""
    if not is_custom(name):
        return {"model": name}
    own = _custom(name)
    kept: dict[str, str | int] = {"model": name, "model_class": own.class_name}
    start = {"model_start": own.start} if own.start else {}
    return {**kept, "model_parameters": own.parameters, **start}


def is_same_network(name: str, other: str) -> bool:
    """Tell whether two names refer to the same custom network."""
    return {name, other} <= _registered.keys() and _registered[name].name == _registered[other].name


def choose(name: str, sample_shape: tuple[int, ...], device: torch.device | str) -> str:
    """Resolve ``auto``, and check that a model fits the data.

    Raises InputError if the name is unknown or the model cannot take the data.

    - ``name``: one of :func:`names`, or that of a custom network.
    - ``sample_shape``: shape of one sample: ``(C, H, W)`` for an image, ``(2,)`` for a point.
    - ``device``: training device; ``auto`` picks a larger network on a GPU.
    """
    if is_custom(name):
        _custom(name)
        return name
    name = known("model", name, names())
    is_image = len(sample_shape) == 3
    if name == "auto":
        on_gpu = torch.device(device).type == "cuda"
        return "mlp" if not is_image else "resnet18" if on_gpu else "small"
    if is_image != (name in IMAGE_MODELS):
        kind, fitting = ("images", IMAGE_MODELS) if is_image else ("points", POINT_MODELS)
        raise InputError(f"model '{name}' cannot take {kind}: choose one of {', '.join(fitting)}")
    return name


def build(name: str, sample_shape: tuple[int, ...], classes: int, seed: int = 0) -> nn.Module:
    """Build a network in float32 on the CPU; its initial weights depend on ``seed`` alone.

    ``name`` comes from :func:`choose`; ``sample_shape`` is ``(C, H, W)`` or ``(features,)``. The
    global random state is left unchanged.
    """
    if is_custom(name):
        return _custom(name).make(seed)
    _, make = (IMAGE_MODELS | POINT_MODELS)[choose(name, sample_shape, "cpu")]
    if len(sample_shape) == 3 and min(sample_shape[1:]) < 8:
        height, width = sample_shape[1:]
        raise InputError(f"images of {height}x{width} are too small: at least 8x8 is needed")
    with _init_lock, torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU, and nothing would restore those.
        torch.default_generator.manual_seed(seed)
        return make(sample_shape[0], classes)


# Custom networks


@dataclass(frozen=True)
class CustomModel:
    """A registered custom network: its name, class and number of trainable weights."""

    name: str
    class_name: str
    parameters: int
    make: Callable[[int], nn.Module]
    """Make the network for a seed: a copy of the given module, or the result of the given function
    with torch's random state set to the seed."""
    start: str
    """Digest of a given module's initial weights; empty for a function, where the seed decides."""


_registered: dict[str, CustomModel] = {}


def _custom(name: str) -> CustomModel:
    if name not in _registered:
        raise InputError(
            f"model '{name}' is your own and not part of the record: give it again with model="
        )
    return _registered[name]


def register(
    model: nn.Module | Callable[[], nn.Module], sample_shape: tuple[int, ...], classes: int
) -> str:
    """Register a custom network, check that it fits the data, and return its name.

    ``model``: a module from normalised float samples ``[B, ...]`` to logits ``[B, classes]``, which
    is copied and never changed; or a function (or class) without arguments that makes one, so that
    each seed starts from other weights.
    """
    make = _maker(model)
    network = make(0)
    kind = type(network)
    called = f"model '{kind.__name__}'"
    if any(map(nn.parameter.is_lazy, network.parameters())):
        raise InputError(f"{called} has lazy layers: run one batch through it before you give it")
    logits = _try(network, called, sample_shape)
    if logits.shape != (2, classes) or not logits.is_floating_point():
        raise InputError(
            f"{called} returns {logits.dtype} of shape {tuple(logits.shape)} for 2 samples of "
            f"{sample_shape}: give logits of shape (2, {classes}), one column per class"
        )
    require_logits(logits, f"the outputs of {called}")
    weights = {name: value for name, value in network.named_parameters() if value.requires_grad}
    if not weights:
        raise InputError(f"{called} has no weights to train")
    shapes = repr([(name, tuple(value.shape)) for name, value in network.state_dict().items()])
    # A dropout rate, say, shows in the repr of the layers only. Older records hash the shapes.
    layers = re.sub(r" at 0x[0-9a-f]+", "", repr(network))
    frozen = [name for name, _ in network.named_parameters() if name not in weights]
    name, earlier, first = (
        f"own:{kind.__name__}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
        for text in (shapes + layers + (repr(frozen) if frozen else ""), shapes + layers, shapes)
    )
    known = CustomModel(
        name=name,
        class_name=f"{kind.__module__}.{kind.__qualname__}",
        parameters=sum(value.numel() for value in weights.values()),
        make=make,
        start=hashlib.sha256(packed(network)).hexdigest()[:12] * isinstance(model, nn.Module),
    )
    _registered[first] = _registered[name] = known
    _registered.setdefault(earlier, known)  # may be the name of a network with nothing frozen
    return known.name


def _maker(model: nn.Module | Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    if isinstance(model, nn.Module):
        # Copied now, so that training the original later does not change the named network.
        kept = copy.deepcopy(model).cpu().train()
        return lambda seed: copy.deepcopy(kept)
    try:
        inspect.signature(model).bind()
    except TypeError:  # no function, or one with arguments
        raise InputError(
            f"model {model!r} is neither a name, a torch.nn.Module, nor a function without "
            "arguments that makes one: give one of these"
        ) from None
    except ValueError:  # no signature available: the call will tell
        pass

    def make(seed: int) -> nn.Module:
        with _init_lock, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = model()
        if not isinstance(network, nn.Module):
            raise InputError(f"model {model!r} made {a_kind(network)}: it must make an nn.Module")
        return network.cpu().train()

    return make


def _try(network: nn.Module, called: str, sample_shape: tuple[int, ...]) -> torch.Tensor:
    """Run two all-zero samples in evaluation mode."""
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(2, *sample_shape))
    except Exception as error:
        # A custom forward may raise anything; here it all means the same.
        shape = ", ".join(map(str, sample_shape))
        raise InputError(
            f"{called} cannot take samples of shape {sample_shape} ({type(error).__name__}: "
            f"{reason(error)}): give a network for [B, {shape}] in float32"
        ) from error
    finally:
        network.train()
    if not isinstance(logits, torch.Tensor):
        raise InputError(f"{called} returns {a_kind(logits)}: give logits as one tensor")
    return logits
