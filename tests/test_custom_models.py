"""A researcher's own network in a run: what it is called, what is recorded, resuming."""

import pytest
import torch
from torch import nn

import budgetlab as bl
from budgetlab.budget import model_costs
from budgetlab.errors import InputError
from budgetlab.report.page import command
from budgetlab.training import Run


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
    assert record.about["hardware"]["model_class"].endswith("test_custom_models.TwoLayers")
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
        (lambda: 3, "made a int"),
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
