"""Bias and variance of gradient estimates, against sums over everything that can be drawn."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import budgetlab as bl
from budgetlab import estimators
from budgetlab.errors import InputError
from budgetlab.estimators import Moment, SampleGradients
from budgetlab.training import Run


def some_gradients(size=6, dims=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(size, dims, generator=generator) * torch.rand(
        size, 1, generator=generator
    )
    return SampleGradients(vectors, vectors.double().norm(dim=1), dims)


@pytest.fixture(scope="module")
def moment(tmp_path_factory, data_root):
    config = bl.RunConfig(
        dataset="points", limit=120, epochs=4, batch_size=8, budget=0.4, lr=0.05,
        precision="float32", device="cpu", data_root=str(data_root),
        out=str(tmp_path_factory.mktemp("runs")),
    )  # fmt: skip
    run = Run(config)
    list(run)
    made = Moment.of_run(run)
    made.run = run
    return made


@pytest.mark.parametrize("name", ["small", "compact"])
def test_gradients_are_those_of_one_backward_a_sample_with_batch_norm_frozen(name):
    model = bl.models.build(name, (1, 8, 8), 3, seed=1).train()
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 0, 1])
    found = estimators.sample_gradients(model, x, y, chunk=2)
    assert model.training
    model.eval()
    for row in range(5):
        model.zero_grad()
        F.cross_entropy(model(x[row : row + 1]), y[row : row + 1]).backward()
        one = torch.cat([p.grad.flatten() for p in model.parameters()])
        assert torch.allclose(found.vectors[row], one, atol=1e-5, rtol=1e-3)
        assert found.norms[row].item() == pytest.approx(one.norm().item(), rel=1e-4)
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    full = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.allclose(found.full.float(), full, atol=1e-5, rtol=1e-3)
    assert found.relative_error == 0


def test_a_sketch_is_as_exact_as_it_says():
    model = nn.Linear(60, 10)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 60, generator=generator), torch.arange(40) % 10
    exact = estimators.sample_gradients(model, x, y)
    length, ratios = 64, []
    for seed in range(60):
        sketched = estimators.sample_gradients(model, x, y, sketch=length, seed=seed)
        assert torch.equal(sketched.norms, exact.norms)
        ratios.append(float(sketched.full.square().sum() / exact.full.square().sum()))
    ratios = torch.tensor(ratios)
    stated = sketched.relative_error
    assert stated == pytest.approx(math.sqrt(2 / length))
    # Right on average, and no further off than stated: six standard errors of each.
    assert abs(ratios.mean() - 1) < 6 * stated / math.sqrt(60)
    assert 0.3 * stated < ratios.std() < 1.5 * stated


def test_sketching_sets_in_where_memory_would_be_used_up(monkeypatch):
    model, x, y = nn.Linear(60, 10), torch.randn(8, 60), torch.arange(8)
    monkeypatch.setattr(estimators.gradients, "EXACT_BYTES", 10_000)
    monkeypatch.setattr(estimators.gradients, "SKETCH", 32)
    assert estimators.sample_gradients(model, x, y).vectors.shape == (8, 32)
    assert estimators.sample_gradients(model, x, y, sketch=None).vectors.shape == (8, 610)


@pytest.mark.parametrize("weights", ["none", "unbiased"])
@pytest.mark.parametrize("q", [(0.1, 0.2, 0.3, 0.4), (0.0, 0.2, 0.3, 0.5)])
def test_with_replacement_against_every_batch_there_is(weights, q):
    """A sample that is never drawn biases the weighted estimate, too."""
    gradients, q = some_gradients(size=4), torch.tensor(q, dtype=torch.float64)
    found = estimators.with_replacement(gradients, q, batch_size=3, weights=weights.title())
    factor = torch.where(q > 0, 1 / (4 * q), 0.0) if weights == "unbiased" else torch.ones(4)
    vectors = gradients.vectors.double() * factor[:, None]
    full, mean, second = gradients.full, 0, 0
    for batch in itertools.product(range(4), repeat=3):
        chance = math.prod(q[i].item() for i in batch)
        estimate = vectors[list(batch)].mean(0)
        mean = mean + chance * estimate
        second += chance * float((estimate - full).square().sum())
    assert found.bias2 == pytest.approx(float((mean - full).square().sum()), abs=1e-6)
    assert found.mse == pytest.approx(second, rel=1e-5)
    assert found.variance == pytest.approx(second - found.bias2, rel=1e-5)
    if weights == "unbiased":
        missing = float(gradients.norms[0] ** 2) / 16 if q[0] == 0 else 0.0
        assert found.bias2 == pytest.approx(missing, rel=1e-4, abs=1e-12)


def test_no_distribution_beats_the_norms_of_the_gradients():
    gradients = some_gradients(size=30)
    best = estimators.best_distribution(gradients)
    lowest = estimators.with_replacement(gradients, best, batch_size=1).variance
    # The variance of the best is (mean norm)^2 less |full|^2.
    expected = gradients.norms.mean() ** 2 - gradients.full.square().sum()
    assert lowest == pytest.approx(float(expected), rel=1e-4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        other = best * torch.exp(0.3 * torch.randn(30, generator=generator, dtype=torch.float64))
        assert estimators.with_replacement(gradients, other, batch_size=1).variance > lowest


def test_of_estimates_finds_known_bias_and_variance():
    generator = torch.Generator().manual_seed(0)
    draws = 3 + 2 * torch.randn(4000, 5, generator=generator)
    found = estimators.of_estimates(draws, torch.full((5,), 2.0))
    assert abs(found.bias2 - 5) < 4 * found.bias2_error < 1
    assert abs(found.variance - 20) < 4 * found.variance_error < 4
    assert found.mse == pytest.approx(found.bias2 + found.variance)
    # Without bias the naive square of the mean would be 20 / 4000; ours is right on average.
    nothing = [
        estimators.of_estimates(torch.randn(100, 5, generator=generator), torch.zeros(5)).bias2
        for _ in range(200)
    ]
    naive = 5 / 100
    assert abs(sum(nothing) / 200) < naive / 5


def test_simulated_and_exact_agree_on_draws_with_replacement():
    gradients = some_gradients(size=20)
    q = torch.rand(20, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.2
    q /= q.sum()
    exact = estimators.with_replacement(gradients, q, batch_size=4)
    drawn = torch.multinomial(q, 4 * 3000, True, generator=torch.Generator().manual_seed(4))
    weighted = gradients.vectors[drawn] / (20 * q[drawn]).float()[:, None]
    found = estimators.of_estimates(weighted.view(3000, 4, -1).mean(1), gradients.full)
    assert abs(found.bias2) < 4 * found.bias2_error + 1e-9
    assert abs(found.variance - exact.variance) < 4 * found.variance_error


def test_methods_are_as_biased_and_noisy_as_theory_says(moment):
    frame = moment.methods(["unif-SGD", "selective-backprop", "p-SGD"], draws=400)
    table = frame.set_index("name")
    uniform, selective = table.loc["unif-SGD"], table.loc["selective-backprop"]
    mended = moment.methods(["p-SGD"], draws=400, weights="unbiased").iloc[0]
    # A batch of B different ones out of N: unbiased, with (N - B) / (N - 1) of the variance.
    assert uniform["variance_ratio"] == pytest.approx((120 - 8) / 119, rel=0.15)
    assert mended["weights"] == "unbiased"
    for unbiased in (uniform, mended):
        assert abs(unbiased["bias2"]) < 5 * unbiased["bias2_error"] + 0.002 * unbiased["variance"]
    # Choosing by the loss is biased.
    assert selective["bias2"] > 5 * selective["bias2_error"]
    assert selective["mse"] > uniform["mse"]


def test_methods_are_named_as_the_table_does_with_the_weights_they_use(moment):
    frame = pd.concat([moment.methods(name, draws=40)
                       for name in ("p-sgd", ["infobatch", "unif-sgd"])])  # fmt: skip
    assert frame["name"].tolist() == ["p-SGD", "infobatch", "unif-SGD"]
    assert frame["weights"].tolist() == ["none", "own", "none"]


def test_distributions_hold_reference_limit_and_proxies(moment):
    frame = moment.distributions()
    table = frame[frame["weights"] == "unbiased"].set_index("name")
    # The gain is 0 for uniform draws, 1 at the best, below 0 for a worse one.
    assert table.loc["uniform", "possible_gain"] == 0
    assert table.loc["uniform", "variance_ratio"] == 1
    assert table.loc["gradient norm", "possible_gain"] == pytest.approx(1)
    assert (table["possible_gain"] <= 1 + 1e-9).all()
    assert (table["bias2"] < 1e-8 * table["full2"]).all()
    assert table.loc["EL2N", "possible_gain"] > 0.5
    other = moment.distributions({"backwards": 1 / moment.gradients.norms.clamp(min=1e-3)})
    assert other["possible_gain"].iloc[1] < 0
    assert math.isnan(estimators.possible_gain(1.0, uniform=1.0, best=1.0))


def test_a_moment_leaves_the_run_as_it_was(moment):
    run = moment.run
    before = {n: v.clone() for n, v in run.loop.engine.network.state_dict().items()}
    seen = run.history.state_dict()["sums"].clone()
    Moment.of_run(run, limit=50).methods(["p-SGD"], draws=40)
    assert all(torch.equal(before[n], v) for n, v in run.loop.engine.network.state_dict().items())
    assert torch.equal(run.history.state_dict()["sums"], seen)


def test_a_record_holds_the_same_moment_as_the_run_at_its_end(moment):
    record = moment.run.record
    read = Moment.of_record(record)
    assert torch.allclose(read.gradients.norms, moment.gradients.norms)
    assert (read.epoch, read.steps) == (moment.epoch, moment.steps)
    ours, theirs = (m.scores()["p-SGD"] for m in (read, moment))
    # The record keeps values rounded to 0.2%.
    assert torch.allclose(ours, theirs, rtol=0.01)


def test_a_part_of_the_samples_keeps_what_is_known_of_them(moment):
    part = Moment.of_run(moment.run, limit=30)
    rows = part.samples.metadata["index"].tolist()
    everybody = moment.samples.metadata["index"].tolist()
    places = [everybody.index(row) for row in rows]
    ours, theirs = part.history.error, moment.history.error[places]
    assert torch.equal(ours.nan_to_num(-1), theirs.nan_to_num(-1))
    assert len(part.gradients.norms) == 30


def test_what_cannot_be_is_refused(moment, tmp_path):
    gradients, nothing = some_gradients(), (torch.zeros(0, 2), torch.zeros(0).long())
    one = torch.zeros(1, 2), torch.zeros(1).long()
    for act, said in (
        (lambda: estimators.with_replacement(gradients, torch.zeros(6), batch_size=1),
         "no distribution"),
        (lambda: estimators.with_replacement(gradients, torch.ones(5), batch_size=1),
         "no distribution"),
        (lambda: estimators.with_replacement(gradients, torch.ones(6), batch_size=1, weights="a"),
         "kind of weights"),
        (lambda: moment.methods(["unif-SGD"], draws=10), "draws 10 .* whole number from 40"),
        (lambda: moment.methods(["unif"]), "unknown method"),
        (lambda: moment.methods(["rho-loss"]), "trains another network first"),
        (lambda: Moment.of_run(moment.run, limit=121), "limit 121"),
        (lambda: estimators.sample_gradients(nn.Linear(2, 2), *nothing), "at least one"),
        (lambda: estimators.sample_gradients(nn.Linear(2, 2), torch.zeros(1, 2),
                                             torch.zeros(1).long(), sketch=0), "sketch 0"),
        *[(lambda b=b: estimators.with_replacement(gradients, np.ones(6), batch_size=b),
           f"batch_size {b} is not allowed: give a whole number from 1") for b in (-4, 0, 2.5)],
        (lambda: estimators.with_replacement(gradients, "a", batch_size=1), "q is a str"),
        (lambda: moment.distributions(batch_size=-2), "batch_size -2 is"),
        (lambda: moment.distributions(batch_size=0), "batch_size 0 is"),
        (lambda: moment.distributions({}), "scores hold no distribution"),
        (lambda: moment.methods(["p-SGD"], draws=40.5), "draws 40.5 is"),
        (lambda: moment.methods(["p-SGD"], draws="a"), "draws 'a' is"),
        (lambda: moment.methods(["p-SGD"], seed=1.5), "seed 1.5 is"),
        (lambda: moment.methods(["p-SGD"], seed=10**30), "seed 1000.* from 0 to 9223"),
        (lambda: Moment.of_record(moment.run.record, limit=2.5), "limit 2.5 is"),
        *[(lambda o=options: estimators.sample_gradients(nn.Linear(2, 2), *one, **o), said)
          for options, said in (
              ({"sketch": "x"}, "sketch 'x' is not allowed.*, 'auto' or None"),
              ({"sketch": 2.5}, "sketch 2.5 is"), ({"seed": -1}, "seed -1 is"),
              ({"chunk": 0}, "chunk 0 is"), ({"chunk": -1}, "chunk -1 is"))],
        *[(lambda y=y: estimators.sample_gradients(nn.Linear(2, 2), one[0], torch.tensor([y])),
           f"labels from {y} to {y} do not fit a model of 2 classes") for y in (2, -1)],
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            act()
    even = estimators.with_replacement(gradients, torch.ones(6), batch_size=2)
    for q in (np.ones(6), [1] * 6):
        assert estimators.with_replacement(gradients, q, batch_size=2) == even
    (moment.run.writer.path / "model.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="only a finished run"):
        Moment.of_record(moment.run.writer.path)
