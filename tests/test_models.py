"""Networks: their shapes, sizes and first weights; those of a researcher in a run."""

import hashlib

import pytest
import torch
from torch import nn

import budgetlab as bl
from budgetlab import models
from budgetlab.devices import choose_device
from budgetlab.errors import InputError
from budgetlab.report.page import command
from budgetlab.training import Run

IMAGE_MODELS = ("small", "tiny", "resnet8", "resnet18", "wrn16-4")


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [(name, shape, classes) for name in IMAGE_MODELS
     for shape, classes in (((1, 8, 8), 3), ((3, 21, 13), 2))],
)  # fmt: skip
def test_images_become_logits(name, shape, classes):
    model = models.build(name, shape, classes).eval()
    images = torch.randn(3, *shape)
    logits = model(images)
    assert logits.shape == (3, classes)
    assert logits.isfinite().all()
    # Raw logits, and every image on its own.
    assert not torch.allclose(logits.sum(1), torch.ones(3))
    assert torch.allclose(model(images[1:2]), logits[1:2], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "count"),
    [
        # Kuangliu's and the paper's ResNet-18 for CIFAR.
        ("resnet18", (3, 32, 32), 10, 11_173_962),
        ("resnet18", (3, 84, 84), 100, 11_220_132),
        # 9 (3*32 + 32*64 + 64*128) + 2 (32 + 64 + 128) + 129 * 10.
        ("small", (3, 32, 32), 10, 94_762),
        # He et al. 2016, depth 8, with projections; Zagoruyko & Komodakis 2016, table 4: 2.7 M.
        ("resnet8", (3, 32, 32), 10, 78_042),
        ("wrn16-4", (3, 32, 32), 10, 2_748_890),
        ("mlp", (2,), 3, 2 * 64 + 64 + 64 * 64 + 64 + 64 * 3 + 3),
    ],
)
def test_numbers_of_parameters(name, shape, classes, count):
    model = models.build(name, shape, classes)
    assert sum(one.numel() for one in model.parameters()) == count


def test_the_paper_s_network_keeps_the_size_of_the_image_at_first():
    model, sizes = models.build("resnet18", (3, 32, 32), 10), []
    for layer in (model.layer1, model.layer4):
        layer.register_forward_hook(lambda _, inputs, output: sizes.append(output.shape[2:]))
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert sizes == [(32, 32), (4, 4)]


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_initial_weights_depend_on_the_seed_alone_and_are_not_already_sure(name, monkeypatch):
    """Nor is a GPU seeded, whose state ``torch.manual_seed`` would set too."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("it was seeded"))
    networks = []
    for seed in (3, 3, 4):
        torch.rand(7)
        networks.append(models.build(name, (3, 16, 16), 10, seed=seed))
    first, again, other = map(weights, networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    logits = networks[0](torch.randn(64, 3, 16, 16))
    assert 0.5 < nn.functional.cross_entropy(logits, torch.arange(64) % 10).item() < 4.0


# Devices and number formats


@pytest.mark.parametrize(
    ("name", "part"),
    [*((name, f"unknown device '{name}'") for name in
       ("gpu", "cpu:", "cuda:x", "cuda:", "cpu:3", "cuda:-1", "", "cuda:²")),
     ("cuda:99", r"is not there \(2 found\): choose auto or cpu")],
)  # fmt: skip
def test_a_device_is_taken_where_there_is_one_or_refused(monkeypatch, name, part):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for given, chosen in (("auto", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        assert choose_device(given).type == torch.device(chosen).type
    with pytest.raises(InputError, match=part) as error:
        choose_device(name)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto").type == "cpu"


def test_auto_picks_by_data_and_device_and_what_does_not_fit_is_refused():
    for shape, device, name in (((3, 32, 32), "cpu", "small"), ((3, 32, 32), "cuda", "resnet18"),
                                ((2,), "cuda:1", "mlp")):  # fmt: skip
        assert models.choose("auto", shape, device) == name
    for call, name, shape, more, says in (
        (models.choose, "resnet", (3, 32, 32), "cpu", "model 'resnet': did you mean 'resnet8'"),
        (models.choose, "mlp", (3, 32, 32), "cpu", "cannot take images: choose one of small"),
        (models.build, "small", (2,), 2, "model 'small' cannot take points: choose one of mlp"),
        (models.build, "small", (3, 7, 32), 10, "images of 7x32 are too small: at least 8x8"),
    ):
        with pytest.raises(InputError, match=says):
            call(name, shape, more)


# Networks of one's own


class TwoLayers(nn.Module):
    """For points; asks for a value on its way, so that it cannot run on shapes alone."""

    def __init__(self, width=8):
        super().__init__()
        self.first, self.second = nn.Linear(2, width), nn.Linear(width, 2)

    def forward(self, x):
        scale = 1.0 if x.abs().max().item() >= 0 else 2.0
        return self.second(torch.relu(self.first(x)) * scale)


def weights(network):
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def test_a_module_is_trained_as_a_copy_and_a_function_makes_weights_for_each_seed(config):
    torch.manual_seed(7)
    mine = TwoLayers()
    before = weights(mine)
    run = Run(config, model=mine)
    assert torch.equal(weights(run.loop.engine.network), before)
    list(run)
    assert torch.equal(weights(mine), before)
    assert not torch.equal(weights(run.loop.engine.network), before)
    first, again, other = (Run(config.replace(seed=seed), model=TwoLayers) for seed in (0, 0, 1))
    made = [weights(run.loop.engine.network) for run in (first, again, other)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    # Another width is another model, and another seed is not.
    assert first.config.model == other.config.model
    assert first.config.model != Run(config, model=lambda: TwoLayers(9)).config.model


def test_the_record_says_what_it_was_and_how_to_repeat_it_in_python(config):
    run = Run(config, model=TwoLayers())
    list(run)
    record = run.record
    name, hardware = record.config["model"], record.about["hardware"]
    assert name.startswith("own:TwoLayers-")
    assert record.summary["model"] == hardware["model"] == name
    assert hardware["model_class"].endswith("test_models.TwoLayers")
    assert hardware["model_parameters"] == 2 * 8 + 8 + 8 * 2 + 2
    text = command(record)
    assert text.startswith("bl.train(model=your_network, dataset='points'")
    compile(text, "a cell", "exec")


def test_layers_without_weights_tell_networks_apart_and_older_records_go_on(config):
    layers = (nn.ReLU, nn.Tanh, lambda: nn.Dropout(0.5), lambda: nn.Dropout(0.9))
    made = [nn.Sequential(nn.Linear(2, 2), layer()) for layer in layers]
    assert len({Run(config, model=one).config.model for one in made}) == len(made)
    run = Run(config, model=made[0])
    next(iter(run))
    path = run.writer.path
    with pytest.raises(InputError, match=r"was trained with .*, not with"):
        Run.resume(path, model=made[1])
    shapes = repr([(name, tuple(value.shape)) for name, value in made[0].state_dict().items()])
    before = f"own:Sequential-{hashlib.sha256(shapes.encode()).hexdigest()[:6]}"
    text = (path / "record.json").read_text().replace(run.config.model, before)
    (path / "record.json").write_text(text)
    del run
    resumed = Run.resume(path, model=made[0])
    assert list(resumed)
    assert resumed.record.summary["model"] == before


def test_resuming_needs_it_again_and_then_gives_the_same(config, tmp_path):
    whole = Run(config.replace(out=str(tmp_path / "whole")), model=TwoLayers)
    list(whole)
    half = Run(config.replace(out=str(tmp_path / "half")), model=TwoLayers)
    next(iter(half))
    path = half.writer.path
    for model, said in ((None, r"network of your own.*Run\.resume\(path, model="),
                        (lambda: TwoLayers(9), r"was trained with .*, not with")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            Run.resume(path, model=model)
    with pytest.raises(InputError, match="leave model= out"):
        Run.resume(bl.train(config, progress=False).path, model=TwoLayers)
    resumed = Run.resume(path, model=TwoLayers)
    list(resumed)
    assert torch.equal(weights(resumed.loop.engine.network), weights(whole.loop.engine.network))


class Tuple(TwoLayers):
    def forward(self, x):
        return (x,)


@pytest.mark.parametrize(
    ("model", "message"),
    [(nn.Linear(3, 2), r"cannot take samples of shape \(2,\)"),
     (nn.Linear(2, 5), r"logits of shape \(2, 2\)"), (nn.Linear(2, 2).double(), "float32"),
     (nn.Identity(), "no weights"), (Tuple(), "tuple"),
     (lambda width: TwoLayers(width), "without arguments"), (lambda: 3, "made an int"),
     (3, "neither a name")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_written(config, model, message, tmp_path):
    with pytest.raises(InputError, match=message):
        Run(config, model=model)
    assert not (tmp_path / "runs").exists()


def test_train_takes_a_module_and_data_of_ones_own(config, load_once):
    splits = bl.Splits.of(load_once("points", limit=200).train, name="mine")
    settings = config.to_dict() | {"limit": 0}
    del settings["dataset"], settings["model"]
    record = bl.train(splits=splits, model=TwoLayers, progress=False, **settings)
    assert record.config["dataset"] == "mine"
    with pytest.raises(InputError, match="splits="):
        Run.resume(record.path, model=TwoLayers)
    with pytest.raises(InputError, match=r"label-noise .* is not applied"):
        bl.train(splits=splits, progress=False, **settings | {"label_noise": 0.2})
