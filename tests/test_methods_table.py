"""A method is a class and an entry: whatever knows methods finds a new one by itself."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import budgetlab as bl
from budgetlab import methods, samplers
from budgetlab.analysis.conditions import method_order
from budgetlab.cli import main
from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.forecast import forecast, supported
from budgetlab.history import History
from budgetlab.methods import LineStyle, Method
from budgetlab.plots import style
from budgetlab.records import RecordWarning
from budgetlab.samplers import SamplerContext
from budgetlab.sweeps.grid import planned_cost
from budgetlab.training import Run
from budgetlab.widgets.bench_controls import RunControls, explain

CODE = '''
import torch
from budgetlab.samplers import Batch, Forecast, Sampler

class Halves(Sampler):
    """The first half of the samples, every epoch."""

    def __init__(self, context):
        super().__init__(context)
        if context.size < 10:
            raise ValueError("this method cannot be built for so few samples")

    def batches(self, epoch, history, look):
        for indices in self.full_batches(torch.arange(self.size // 2)):
            yield Batch(indices, augmented=look(indices).augmented)

    def forecast(self, history):
        chosen = (torch.arange(self.size) < self.size // 2).double()
        return Forecast(chosen / chosen.sum(), "the first half; analytic", chosen)
'''
LOOK = LineStyle("#123456", "--", "*")
ENTRY = Method(
    "halves", "the first *half*", fields=("presample",), style=LOOK, probability="keep",
    candidates=lambda run: float(run.presample), share=lambda run: run.budget / 2,
    cost="a forward pass", source="nobody, 2026",
)  # fmt: skip


@pytest.fixture(params=["entry", "decorator"])
def halves(request, tmp_path, monkeypatch):
    """One file and one entry, as the kit adds a method; or as a user does, in a cell."""
    if request.param == "entry":
        (tmp_path / "halves_file.py").write_text(CODE)
        monkeypatch.syspath_prepend(str(tmp_path))
        methods.add(dataclasses.replace(ENTRY, where="halves_file:Halves"))
    else:
        names: dict = {}
        exec(CODE, names)
        bl.sampler(ENTRY)(names["Halves"])
    yield "halves"
    sys.modules.pop("halves_file", None)


def test_a_new_method_is_in_every_list_and_figure(halves, capsys):
    assert methods.names()[-1] == halves
    main(["list", "methods"])
    assert capsys.readouterr().out.splitlines()[-1].split(maxsplit=1) == [halves, "the first half"]
    assert methods.markdown().splitlines()[-1] == (
        "| `halves` | the first *half* | a forward pass | 1 | presample | nobody, 2026 |"
    )
    assert "the first half" in explain("method", RunConfig(method=halves))
    assert halves in RunControls(RunConfig(), lambda name: None).by_name["method"].options
    assert style.looks(["p-SGD", halves])[halves] == LOOK
    assert method_order([halves, "unknown", "p-SGD"]) == ["p-SGD", halves, "unknown"]


def test_a_new_method_says_what_it_costs_and_what_it_will_draw(halves):
    run = RunConfig(method=halves, dataset="points", budget=0.4, epochs=10, presample=6)
    # Half of its budget, 1,000 points, and six forward passes, each a third of a step.
    assert planned_cost(run) == pytest.approx(0.2 * 10 * 1000 * (1 + 6 / 3))
    # Though it cannot be built for one sample.
    assert halves in supported()
    found = forecast(History(40), RunConfig(method=halves, batch_size=4))
    assert found.inclusion.tolist() == [1.0] * 20 + [0.0] * 20
    assert (found.q.sum(), found.how) == (1.0, "the first half; analytic")


def test_a_new_method_trains_and_its_record_knows_what_it_recorded(halves, train):
    run = train(method=halves)
    assert run.ledger.looked_samples >= run.ledger.trained_samples > 0
    assert run.record.probability_kind == "keep"
    # It spends the share of the full run that its entry says.
    assert run.ledger.steps == train(method="unif-SGD", budget=0.25).ledger.steps


def test_a_method_without_a_style_takes_one_that_is_free():
    bl.sampler("mine")(lambda history: history.error)
    looks = style.looks(["mine", "unif-SGD", "p-SGD", "SGD"])
    assert len({look.colour for look in looks.values()}) == 4
    assert looks["unif-SGD"] == methods.find("unif-SGD").style


# The entries of the kit against its code


@pytest.mark.parametrize("name", methods.names())
def test_an_entry_agrees_with_its_class(name):
    made = samplers.lookup(name)
    for fidelity in ("default", "published"):
        config = RunConfig(method=name, budget=0.25, batch_size=4, fidelity=fidelity)
        context = SamplerContext(200, config, torch.Generator(), torch.device("cpu"))
        sampler = made(context)
        assert sampler.budget == methods.find(name).share(config)
        assert (sampler.looks_before_step > 0) <= (methods.find(name).candidates(config) > 0)
    assert set(methods.find(name).fields) <= set(RunConfig.__dataclass_fields__)


def test_the_entries_of_the_kit():
    styles = [entry.style for entry in methods.BUILT_IN]
    assert None not in styles
    assert len({str(look) for look in styles}) == len(styles)
    assert len({methods.find(name).style.colour for name in ("unif-SGD", "p-SGD", "SGD")}) == 3
    paper = [entry.name for entry in methods.BUILT_IN if entry.paper]
    assert paper == methods.names()[:5]
    # What one method reads and another ignores.
    assert {"sb_beta", "power", "proxy_share", "credit"} <= set(methods.OPTIONS)
    assert not {"budget", "epochs", "seed", "lr"} & set(methods.OPTIONS)


def test_the_page_of_the_methods_has_the_table_of_today():
    page = Path(__file__).parents[1] / "docs" / "methods.md"
    assert methods.markdown() in page.read_text(encoding="utf-8"), "run docs/methods_table.py"


def confidence(history):
    return history.confidence


def squared(history):
    return history.confidence**2


def test_a_method_that_was_changed_is_not_taken_for_the_one_before(train, config):
    bl.sampler("mine")(confidence)
    first = train(method="mine").record
    bl.sampler("mine")(confidence)  # a cell that is run again
    grid = [config.replace(method="mine", seed=seed) for seed in (0, 1)]
    assert [row["how"] for row in bl.sweep(grid, progress=False)] == ["kept", "trained"]
    bl.sampler("mine")(squared)
    other = "trained with other code of method 'mine'"
    with pytest.raises(InputError, match=other):
        bl.sweep(grid, progress=False)
    second = train(method="mine", seed=2).record
    with pytest.warns(RecordWarning, match="of other code, as method 'mine' was changed"):
        bl.compare([first, second])
    with pytest.raises(InputError, match=other):
        Run.resume(first.path)
    methods.add(dataclasses.replace(methods.find("mine"), code=""))  # typed where nothing is kept
    assert bl.compare([first, train(method="mine", seed=3).record])["n"].item() == 2
