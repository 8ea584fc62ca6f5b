"""Gradients of every sample: against one backward each, every batch there is, leaving one out."""

import itertools
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

import budgetlab as bl
from budgetlab import analysis, estimators
from budgetlab.analysis.gradients import gradient_blocks
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


# Gradients


@pytest.mark.parametrize(
    ("name", "frozen"), [("small", False), ("small", True), ("compact", False)]
)
def test_gradients_are_those_of_one_backward_a_sample_with_batch_norm_frozen(name, frozen):
    """Layers that are frozen are used, and do not count; the network is left as it was."""
    model = bl.models.build(name, (1, 8, 8), 3, seed=1).train()
    next(model.children()).requires_grad_(not frozen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 0, 1])
    found = estimators.sample_gradients(model, x, y, chunk=2)
    np.testing.assert_allclose(analysis.grand(model, x, y, chunk=2), found.norms)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    def backward(rows):
        model.eval().zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    for row in range(5):
        one = backward([row])
        assert torch.allclose(found.vectors[row], one, atol=1e-5, rtol=1e-3)
        assert found.norms[row].item() == pytest.approx(one.norm().item(), rel=1e-4)
    assert torch.allclose(found.full.float(), backward(range(5)), atol=1e-5, rtol=1e-3)


def test_blocks_are_no_larger_than_asked_and_no_sample_has_no_norm():
    model = nn.Linear(2, 2)
    x, y = torch.zeros(7, 2), torch.zeros(7, dtype=torch.int64)
    sizes = [len(b["bias"]) for b in gradient_blocks(model, x, y, chunk=3)]
    assert sizes == [3, 3, 1]
    assert analysis.grand(model, x[:0], y[:0]).shape == (0,)
    with pytest.raises(InputError, match="one label a sample"):
        analysis.grand(model, x, y[:2])


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
    stated = math.sqrt(2 / length)
    # Right on average, and no further off than stated: six standard errors of each.
    assert abs(ratios.mean() - 1) < 6 * stated / math.sqrt(60)
    assert 0.3 * stated < ratios.std() < 1.5 * stated


def test_sketching_sets_in_where_memory_would_be_used_up(monkeypatch):
    model, x, y = nn.Linear(60, 10), torch.randn(8, 60), torch.arange(8)
    monkeypatch.setattr(estimators.gradients, "EXACT_BYTES", 10_000)
    monkeypatch.setattr(estimators.gradients, "SKETCH", 32)
    assert estimators.sample_gradients(model, x, y).vectors.shape == (8, 32)
    assert estimators.sample_gradients(model, x, y, sketch=None).vectors.shape == (8, 610)


# Estimates of their mean


@pytest.mark.parametrize("weights", ["none", "unbiased"])
@pytest.mark.parametrize("q", [(0.1, 0.2, 0.3, 0.4), (0.0, 0.2, 0.3, 0.5)])
def test_with_replacement_against_every_batch_and_against_many_draws(weights, q):
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
    drawn = torch.multinomial(q, 3 * 4000, True, generator=torch.Generator().manual_seed(4))
    simulated = estimators.of_estimates(vectors[drawn].view(4000, 3, -1).mean(1), full)
    for name in ("bias2", "variance", "mse"):
        error = getattr(simulated, f"{name}_error")
        assert abs(getattr(simulated, name) - getattr(found, name)) < 4 * error + 1e-9, name
        assert error < 0.1 * found.mse


def test_the_bias_of_a_few_draws_is_right_on_average():
    """The square of the mean of 100 draws without bias would be 5 / 100."""
    generator = torch.Generator().manual_seed(0)
    found = [
        estimators.of_estimates(torch.randn(100, 5, generator=generator), torch.zeros(5)).bias2
        for _ in range(200)
    ]
    assert abs(np.mean(found)) < 0.01
    with pytest.raises(InputError, match="39 draws are too few: give at least 40"):
        estimators.of_estimates(torch.zeros(39, 5), torch.zeros(5))


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


# Methods at a moment of a run


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


def test_a_moment_leaves_the_run_as_it_was_and_a_part_keeps_what_is_known(moment):
    run = moment.run
    before = {n: v.clone() for n, v in run.loop.engine.network.state_dict().items()}
    seen = run.history.state_dict()["sums"].clone()
    part = Moment.of_run(run, limit=30)
    assert len(part.gradients.norms) == 30
    part.methods(["p-SGD"], draws=40)
    assert all(torch.equal(before[n], v) for n, v in run.loop.engine.network.state_dict().items())
    assert torch.equal(run.history.state_dict()["sums"], seen)
    all_of_them = moment.samples.metadata["index"].tolist()
    places = [all_of_them.index(row) for row in part.samples.metadata["index"]]
    ours, theirs = part.history.error, moment.history.error[places]
    assert torch.equal(ours.nan_to_num(-1), theirs.nan_to_num(-1))


def test_a_record_holds_the_same_moment_as_the_run_at_its_end(moment, tmp_path):
    read = Moment.of_record(moment.run.record)
    assert torch.allclose(read.gradients.norms, moment.gradients.norms)
    assert (read.epoch, read.steps) == (moment.epoch, moment.steps)
    ours, theirs = (m.scores()["p-SGD"] for m in (read, moment))
    # The record keeps values rounded to 0.2%.
    assert torch.allclose(ours, theirs, rtol=0.01)
    without = shutil.copytree(moment.run.writer.path, tmp_path / "record")
    (without / "model.safetensors").unlink()
    with pytest.raises(InputError, match="give a finished run"):
        Moment.of_record(without)


GRADIENTS = some_gradients()


def replaced(q, batch_size=1, **more):
    return estimators.with_replacement(GRADIENTS, q, batch_size=batch_size, **more)


def of_one(label=0, samples=1, **options):
    """Gradients of one sample of zeros, or of none."""
    x, y = torch.zeros(samples, 2), torch.full((samples,), label)
    return estimators.sample_gradients(nn.Linear(2, 2), x, y, **options)


REFUSED = {
    "is not a distribution": lambda m: replaced(torch.zeros(6)),
    "q of shape .5,. is not a distribution": lambda m: replaced([1.0] * 5),
    "q is a str": lambda m: replaced("a"),
    "kind of weights": lambda m: replaced([1] * 6, weights="a"),
    "batch_size -4 is not allowed: give a whole number from 1": lambda m: replaced([1] * 6, -4),
    "batch_size 2.5 is": lambda m: replaced([1] * 6, 2.5),
    "batch_size 0 is": lambda m: m.distributions(batch_size=0),
    "scores hold no distribution": lambda m: m.distributions({}),
    "draws 10 .* whole number from 40": lambda m: m.methods(["unif-SGD"], draws=10),
    "draws 'a' is": lambda m: m.methods(["p-SGD"], draws="a"),
    "seed 1.5 is": lambda m: m.methods(["p-SGD"], seed=1.5),
    "seed 1000.* from 0 to 9223": lambda m: m.methods(["p-SGD"], seed=10**30),
    "unknown method": lambda m: m.methods(["unif"]),
    "trains another network first": lambda m: m.methods(["rho-loss"]),
    "limit 121": lambda m: Moment.of_run(m.run, limit=121),
    "limit 2.5 is": lambda m: Moment.of_record(m.run.record, limit=2.5),
    "at least one": lambda m: of_one(samples=0),
    "sketch 0": lambda m: of_one(sketch=0),
    "sketch 'x' is not allowed.*, 'auto' or None": lambda m: of_one(sketch="x"),
    "seed -1 is": lambda m: of_one(seed=-1),
    "chunk 0 is": lambda m: of_one(chunk=0),
    "labels from 2 to 2 do not fit a model of 2 classes": lambda m: of_one(2),
    "labels from -1 to -1 do not": lambda m: of_one(-1),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_is_refused(moment, said):
    with pytest.raises(InputError, match=said):
        REFUSED[said](moment)


def test_a_distribution_may_be_a_list_or_an_array():
    even = replaced(torch.ones(6))
    assert replaced(np.ones(6)) == replaced([1] * 6) == even


# Influence

N, FEATURES, DECAY = 40, 6, 0.05


def clusters(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(N) % 2
    x = torch.randn(N, FEATURES, generator=generator) + 0.8 * y[:, None]
    return x, torch.where(torch.rand(N, generator=generator) < 0.1, 1 - y, y)


def fitted(x, y):
    """Logistic regression of two classes, to its minimum."""
    model = torch.nn.Linear(FEATURES, 2)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        decay = sum(p.square().sum() for p in model.parameters()) * DECAY / 2
        value = F.cross_entropy(model(x), y, reduction="sum") + decay * N
        value.backward()
        return value

    optimiser.step(loss)
    return model


def margins(model, x, y):
    with torch.no_grad():
        p_y = model(x).double().softmax(1).gather(1, y[:, None])[:, 0]
    return (p_y / (1 - p_y)).log().numpy()


def test_influence_ranks_samples_as_leaving_them_out_does():
    x, y = clusters()
    target_x, target_y = clusters(1)
    whole = fitted(x, y)
    before = margins(whole, target_x, target_y)
    real = np.array([
        before - margins(fitted(x[kept], y[kept]), target_x, target_y)
        for kept in (torch.arange(N) != i for i in range(N))
    ])  # fmt: skip
    found = estimators.influence(whole, x, y, target_x, target_y, damping=0.5)
    assert found.shape == (N, N)
    by_target = [stats.spearmanr(found[:, t], real[:, t]).statistic for t in range(N)]
    assert np.mean(by_target) > 0.9


def test_a_wrong_label_counts_most_for_itself():
    x, y = clusters()
    x[0], y[0] = x[y == 1].mean(0) * 4, 0
    found = estimators.self_influence(fitted(x, y), x, y)
    assert found.argmax() == 0
    assert (found > 0).all()


def test_the_mean_over_networks_is_that_of_both_factors():
    x, y = clusters()
    one, other = fitted(x, y), fitted(x[::2], y[::2])
    twice = estimators.self_influence([one, one], x, y)
    np.testing.assert_allclose(twice, estimators.self_influence(one, x, y))
    both = estimators.self_influence([one, other], x, y)
    assert not np.allclose(both, twice)
    assert one.training


def test_a_certain_sample_gives_a_number():
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-200.0, 0], [200, 0]]))
    x = torch.tensor([[5.0, 0], [-5, 0], [0.0, 1]])
    found = estimators.self_influence(model, x, torch.tensor([1, 0, 1]))
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("networks", "damping"), [([], 0.1), (None, 0.0), (None, float("nan"))])
def test_nothing_to_go_by_is_an_error(networks, damping):
    x, y = clusters()
    models = [torch.nn.Linear(FEATURES, 2)] if networks is None else networks
    with pytest.raises(InputError, match="give at least one network and a damping above 0"):
        estimators.self_influence(models, x, y, damping=damping)
