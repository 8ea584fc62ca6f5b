"""Networks: their shapes, sizes and first weights; those of a researcher in a run."""

import hashlib

import pytest
import torch
from torch import nn

import budgetlab as bl
from budgetlab import models
from budgetlab.budget import model_costs
from budgetlab.devices import choose_device, choose_precision
from budgetlab.errors import InputError
from budgetlab.report.page import command
from budgetlab.training import Run

IMAGE_MODELS = ("small", "tiny", "resnet8", "resnet18", "wrn16-4")


def parameters(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize(
    ("shape", "classes"), [((3, 32, 32), 10), ((1, 8, 8), 3), ((3, 21, 13), 2)]
)
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
        # Kuangliu's and the paper's ResNet-18 for CIFAR: 11,173,962.
        ("resnet18", (3, 32, 32), 10, 11_173_962),
        ("resnet18", (3, 84, 84), 100, 11_220_132),
        # 9 (3*32 + 32*64 + 64*128) + 2 (32 + 64 + 128) + 129 * 10.
        ("small", (3, 32, 32), 10, 9 * (96 + 2048 + 8192) + 448 + 1290),
        # He et al. 2016, depth 8, with projections: stem, three stages, 65 * 10.
        ("resnet8", (3, 32, 32), 10,
         (9 * 48 + 32) + (2 * 2304 + 64) + (9 * 512 + 9 * 1024 + 128 + 512 + 64)
         + (9 * 2048 + 9 * 4096 + 256 + 2048 + 128) + 650),
        # Zagoruyko & Komodakis 2016, table 4: 2.7 M.
        ("wrn16-4", (3, 32, 32), 10, 2_748_890),
        ("mlp", (2,), 3, 2 * 64 + 64 + 64 * 64 + 64 + 64 * 3 + 3),
    ],
)  # fmt: skip
def test_numbers_of_parameters(name, shape, classes, count):
    assert parameters(models.build(name, shape, classes)) == count


def test_the_paper_s_network_keeps_the_size_of_the_image_at_first():
    model = models.build("resnet18", (3, 32, 32), 10)
    sizes = []
    model.layer1.register_forward_hook(lambda _, inputs, output: sizes.append(output.shape[2:]))
    model.layer4.register_forward_hook(lambda _, inputs, output: sizes.append(output.shape[2:]))
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert sizes == [(32, 32), (4, 4)]


@pytest.mark.parametrize("name", ["small", "resnet8", "wrn16-4"])
def test_initial_weights_depend_on_the_seed_alone(name):
    torch.rand(7)
    first = models.build(name, (3, 32, 32), 10, seed=3).state_dict()
    torch.rand(11)
    again = models.build(name, (3, 32, 32), 10, seed=3).state_dict()
    other = models.build(name, (3, 32, 32), 10, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_no_gpu_is_seeded_either(monkeypatch):
    """On a machine with one, ``torch.manual_seed`` would set its state too."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    models.build("small", (3, 32, 32), 10, seed=3)
    assert seeded == []


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_initial_logits_are_not_already_sure(name):
    logits = models.build(name, (3, 32, 32), 10, seed=1)(torch.randn(64, 3, 32, 32))
    assert 0.5 < nn.functional.cross_entropy(logits, torch.arange(64) % 10).item() < 4.0


# Which one


@pytest.mark.parametrize(
    ("shape", "device", "name"),
    [((3, 32, 32), "cpu", "small"), ((3, 32, 32), "cuda", "resnet18"), ((2,), "cuda:1", "mlp")],
)
def test_auto_picks_by_data_and_device(shape, device, name):
    assert models.choose("auto", shape, device) == name


def test_models_are_refused_where_they_do_not_fit():
    with pytest.raises(InputError, match="unknown model 'resnet': did you mean 'resnet8'"):
        models.choose("resnet", (3, 32, 32), "cpu")
    with pytest.raises(InputError, match="model 'mlp' cannot take images: choose one of small"):
        models.choose("mlp", (3, 32, 32), "cpu")
    with pytest.raises(InputError, match="model 'small' cannot take points: choose one of mlp"):
        models.build("small", (2,), 2)
    with pytest.raises(InputError, match="images of 7x32 are too small: at least 8x8"):
        models.build("small", (3, 7, 32), 10)


# Devices and number formats


@pytest.mark.parametrize(
    ("name", "part"),
    [("gpu", "unknown device 'gpu'"), ("cpu:", "unknown device 'cpu:'"),
     ("cuda:x", "unknown device 'cuda:x'"), ("cuda:", "unknown device 'cuda:'"),
     ("cpu:3", "unknown device 'cpu:3'"), ("cuda:-1", "unknown device"), ("", "unknown device ''"),
     ("cuda:²", "unknown device"), ("cuda:99", r"is not there \(\d+ found\): choose auto or cpu")],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused(name, part):
    with pytest.raises(InputError, match=part) as error:
        choose_device(name)
    assert "\n" not in str(error.value)


def test_the_first_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto").type == "cpu"


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("fpu avx2 avx512_bf16", torch.bfloat16), ("fpu amx_bf16", torch.bfloat16),
     ("fpu avx2 avx512f", torch.float32), ("", torch.float32)],
)  # fmt: skip
def test_bfloat16_is_chosen_where_the_processor_has_it(monkeypatch, flags, precision):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr("budgetlab.devices._processor", lambda *fields: flags)
    assert choose_precision("auto", torch.device("cpu")) == precision
    assert choose_precision("float32", torch.device("cpu")) == torch.float32
    assert choose_precision("bfloat16", torch.device("cpu")) == torch.bfloat16


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


def test_a_module_is_trained_as_a_copy_from_its_own_weights(config):
    torch.manual_seed(7)
    mine = TwoLayers()
    before = weights(mine)
    run = Run(config, model=mine)
    assert torch.equal(weights(run.loop.engine.network), before)
    list(run)
    assert torch.equal(weights(mine), before)
    assert not torch.equal(weights(run.loop.engine.network), before)


def test_a_function_makes_other_weights_for_another_seed(config):
    first, again, other = (
        weights(Run(config.replace(seed=seed), model=TwoLayers).loop.engine.network)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_record_says_what_it_was(config):
    run = Run(config, model=TwoLayers())
    list(run)
    record = run.record
    name = record.config["model"]
    assert name.startswith("own:TwoLayers-")
    assert record.summary["model"] == record.about["hardware"]["model"] == name
    assert record.about["hardware"]["model_class"].endswith("test_models.TwoLayers")
    assert record.about["hardware"]["model_parameters"] == 2 * 8 + 8 + 8 * 2 + 2
    assert bl.analysis.summaries(record)["model"].item() == name


def test_a_report_says_how_to_repeat_it_in_python(config):
    record = Run(config, model=TwoLayers()).record
    text = command(record)
    assert text.startswith("bl.train(model=your_network, dataset='points'")
    assert text.endswith(f"# it was {record.config['model']}")
    compile(text, "a cell", "exec")


def test_another_width_is_another_model_and_another_seed_is_not(config):
    names = [Run(config, model=lambda w=w: TwoLayers(w)).config.model for w in (8, 8, 9)]
    assert names[0] == names[1] != names[2]


def test_layers_without_weights_tell_networks_apart_and_older_records_go_on(config):
    layers = (nn.ReLU, nn.Tanh, lambda: nn.Dropout(0.5), lambda: nn.Dropout(0.9))
    made = [nn.Sequential(nn.Linear(2, 2), layer()) for layer in layers]
    assert len({Run(config, model=one).config.model for one in made}) == len(made)
    run = Run(config, model=made[0])
    next(iter(run))
    path = run.writer.path
    with pytest.raises(InputError, match="another network"):
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
    for row in half:
        if row["epoch"] == 1:
            break
    path = half.writer.path
    with pytest.raises(InputError, match=r"network of your own.*Run\.resume\(path, model="):
        Run.resume(path)
    with pytest.raises(InputError, match="another network"):
        Run.resume(path, model=lambda: TwoLayers(9))
    resumed = Run.resume(path, model=TwoLayers)
    list(resumed)
    assert torch.equal(weights(resumed.loop.engine.network), weights(whole.loop.engine.network))


def test_a_network_of_the_kit_takes_no_other_on_resuming(train):
    with pytest.raises(InputError, match="leave model= out"):
        Run.resume(train().writer.path, model=TwoLayers)


class Tuple(TwoLayers):
    def forward(self, x):
        return (x,)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(3, 2), r"cannot take samples of shape \(2,\)"),
        (nn.Linear(2, 5), r"logits of shape \(2, 2\)"),
        (nn.Linear(2, 2).double(), "float32"),
        (nn.Identity(), "no weights"),
        (Tuple(), "tuple"),
        (lambda width: TwoLayers(width), "without arguments"),
        (lambda: 3, "made an int"),
        (3, "neither a name"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(config, model, message, tmp_path):
    with pytest.raises(InputError, match=message):
        Run(config, model=model)
    assert not (tmp_path / "runs").exists()


def test_costs_are_counted_where_a_network_cannot_run_on_shapes():
    costs = model_costs(TwoLayers(8), (2,))
    assert costs.forward == 2 * (2 * 8 + 8 * 2)


def test_train_takes_a_name_a_module_and_data_of_ones_own(config):
    splits = bl.Splits.of(bl.data.load("points", limit=200, progress=False).train, name="mine")
    settings = {**config.to_dict(), "limit": 0}
    del settings["dataset"], settings["model"]
    record = bl.train(splits=splits, model=TwoLayers, progress=False, **settings)
    assert record.config["dataset"] == "mine"
    assert bl.train(splits=splits, model="mlp", progress=False, **settings).config["model"] == "mlp"
    with pytest.raises(InputError, match="splits="):
        Run.resume(record.path, model=TwoLayers)
    with pytest.raises(InputError, match=r"label-noise .* is not applied"):
        bl.train(splits=splits, progress=False, **settings | {"label_noise": 0.2})
