"""Networks: small ones for lessons on a CPU, the paper's for a GPU.

Every network is a plain ``torch.nn.Module`` from normalised float images
``[B, C, H, W]`` (or ``[B, 2]`` for points) to logits ``[B, classes]``, with no
final softmax.
"""

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from budgetlab import custom_models
from budgetlab.errors import InputError, known

__all__ = [
    "CompactConvNet",
    "SmallConvNet",
    "WideResNet",
    "about",
    "build",
    "choose",
    "describe",
    "is_own",
    "names",
]


class SmallConvNet(nn.Module):
    """Three 3x3 convolutions of widths 32, 64, 128; batch norm, ReLU, max-pool each.

    Global average pooling and one linear layer follow, so that any image of at
    least 8x8 works. About 95,000 parameters at 3 channels and 10 classes.
    """

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...] = (32, 64, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                # Max-pooling first leaves a quarter of the values for the ReLU;
                # the two commute, so the result is the same.
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` of normalised images ``[B, C, H, W]``."""
        return self.classifier(self.features(x).mean(dim=(2, 3)))


class CompactConvNet(nn.Module):
    """Space-to-depth by 2, then 3x3 convolutions of widths 32, 64, 128, the first two pooled.

    Each 2x2 block of pixels becomes one of four times the channels, so that no convolution
    runs at full size; every convolution is followed by batch norm and ReLU. Global average
    pooling and one linear layer close it. About 97,000 weights and 3.2 million multiply-adds
    at 32x32x3 and 10 classes: half of those of a network without space-to-depth that is as
    accurate, and enough to learn 1,000 images by heart.
    """

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...] = (32, 64, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        width_in = 4 * channels
        for number, width in enumerate(widths):
            layers.append(nn.Conv2d(width_in, width, 3, padding=1, bias=False))
            if number < 2:
                # Before the norm, which then has a quarter of the values to go through.
                layers.append(nn.MaxPool2d(2))
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            width_in = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` of normalised images ``[B, C, H, W]``."""
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        x = F.pixel_unshuffle(x, 2)
        # The fastest layout for convolutions; ``vmap``, for gradients of every sample, has no say.
        with contextlib.suppress(RuntimeError):
            x = x.contiguous(memory_format=torch.channels_last)
        return self.classifier(self.features(x).mean(dim=(2, 3)))


def mlp(features: int, classes: int, width: int = 64) -> nn.Module:
    """Two hidden layers of ``width`` with ReLU, for 2-D points."""
    return nn.Sequential(
        nn.Linear(features, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def resnet(layers: list[int], channels: int, classes: int) -> nn.Module:
    """torchvision's ResNet with a 3x3 stem of stride 1 and no max-pool.

    The form that CIFAR-sized images need, as in Arazo et al. (BMVC 2021).
    """
    # Importing torchvision takes as long as importing torch: only who needs it waits for it.
    from torchvision.models.resnet import BasicBlock, ResNet

    network = ResNet(BasicBlock, layers, num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


class NarrowResNet(nn.Module):
    """The ResNet of He et al. (2016), section 4.2: widths 16, 32, 64.

    Depth is ``6 * blocks + 2``: one block a stage is ResNet-8, three are ResNet-20.
    """

    def __init__(self, channels: int, classes: int, blocks: int = 1):
        from torchvision.models.resnet import BasicBlock

        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)
        )
        stages: list[nn.Module] = []
        width = 16
        for out in (16, 32, 64):
            for _ in range(blocks):
                stride = 1 if out == width else 2
                shortcut = None
                if stride != 1:
                    shortcut = nn.Sequential(
                        nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out)
                    )
                stages.append(BasicBlock(width, out, stride, shortcut))
                width = out
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` of normalised images ``[B, C, H, W]``."""
        return self.classifier(self.stages(self.stem(x)).mean(dim=(2, 3)))


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, with a shortcut around."""

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
        """Return logits ``[B, classes]`` of normalised images ``[B, C, H, W]``."""
        out = F.relu(self.norm1(x))
        passed = x if self.shortcut is None else self.shortcut(out)
        return passed + self.conv2(F.relu(self.norm2(self.conv1(out))))


class WideResNet(nn.Module):
    """WideResNet of Zagoruyko & Komodakis (2016), ``depth = 6 n + 4``, no dropout."""

    def __init__(self, channels: int, classes: int, depth: int = 16, widen: int = 4):
        super().__init__()
        if (depth - 4) % 6:
            raise InputError(f"depth {depth} is not 6 n + 4: choose 10, 16, 22, 28, ...")
        blocks = (depth - 4) // 6
        width = 16
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        for stage, base in enumerate((16, 32, 64)):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(PreActivationBlock(width, base * widen, stride))
                width = base * widen
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` of normalised images ``[B, C, H, W]``."""
        return self.classifier(self.features(x).mean(dim=(2, 3)))


IMAGE_MODELS: dict[str, tuple[str, Callable[[int, int], nn.Module]]] = {
    "small": ("three convolutions, widths 32-64-128: lessons on a CPU", SmallConvNet),
    "tiny": (
        "three convolutions, widths 16-32-64: a proxy for rho-loss",
        lambda channels, classes: SmallConvNet(channels, classes, (16, 32, 64)),
    ),
    "compact": (
        "space-to-depth, then convolutions of widths 32-64-128: the scale model's",
        CompactConvNet,
    ),
    "resnet8": ("He et al. 2016, widths 16-32-64, one block a stage", NarrowResNet),
    "resnet18": (
        "ResNet-18 with a 3x3 stem and no max-pool: the paper's",
        lambda channels, classes: resnet([2, 2, 2, 2], channels, classes),
    ),
    "wrn16-4": ("WideResNet-16-4 (Zagoruyko & Komodakis 2016)", WideResNet),
}
POINT_MODELS: dict[str, tuple[str, Callable[[int, int], nn.Module]]] = {
    "mlp": ("two hidden layers of 64: 2-D points", mlp),
}


def names() -> list[str]:
    """Names that ``--model`` takes, ``auto`` first."""
    return ["auto", *IMAGE_MODELS, *POINT_MODELS]


def describe() -> dict[str, str]:
    """One line on each model, by name."""
    auto = {"auto": "mlp for points; small on a CPU, resnet18 on a GPU for images"}
    return auto | {name: text for name, (text, _) in (IMAGE_MODELS | POINT_MODELS).items()}


def is_own(name: str) -> bool:
    """Tell whether a name is that of a network of your own."""
    return name.startswith("own:")


def about(name: str) -> dict[str, str | int]:
    """Return what a record says of a model: its name; of your own also class and size."""
    if not is_own(name):
        return {"model": name}
    own = custom_models.lookup(name)
    return {"model": name, "model_class": own.class_name, "model_parameters": own.parameters}


def choose(name: str, sample_shape: tuple[int, ...], device: torch.device | str) -> str:
    """Resolve ``auto``, and check that a model fits the data.

    Parameters
    ----------
    name
        One of :func:`names`, or that of a network of your own.
    sample_shape
        Shape of one sample: ``(C, H, W)`` for an image, ``(2,)`` for a point.
    device
        Where it will be trained; ``auto`` is a larger network on a GPU.

    Raises
    ------
    InputError
        If the name is unknown or the model cannot take the data.
    """
    if is_own(name):
        return custom_models.lookup(name).name
    name = known("model", name, names())
    is_image = len(sample_shape) == 3
    if name == "auto":
        if not is_image:
            return "mlp"
        return "resnet18" if torch.device(device).type == "cuda" else "small"
    if is_image != (name in IMAGE_MODELS):
        kind, fitting = ("images", IMAGE_MODELS) if is_image else ("points", POINT_MODELS)
        raise InputError(f"model '{name}' cannot take {kind}: choose one of {', '.join(fitting)}")
    return name


def build(name: str, sample_shape: tuple[int, ...], classes: int, seed: int = 0) -> nn.Module:
    """Build a network in float32 on the CPU, whose initial weights depend on ``seed`` alone.

    ``name`` is one that :func:`choose` returns, ``sample_shape`` is ``(C, H, W)`` or
    ``(features,)``. The global random state is left as it was.
    """
    if is_own(name):
        return custom_models.lookup(name).make(seed)
    _, make = (IMAGE_MODELS | POINT_MODELS)[choose(name, sample_shape, "cpu")]
    if len(sample_shape) == 3 and min(sample_shape[1:]) < 8:
        height, width = sample_shape[1:]
        raise InputError(f"images of {height}x{width} are too small: at least 8x8 is needed")
    with custom_models.BORROWED, torch.random.fork_rng(devices=[]):
        # torch.manual_seed would set the state of every GPU too, and nothing puts that back.
        torch.default_generator.manual_seed(seed)
        return make(sample_shape[0], classes)
