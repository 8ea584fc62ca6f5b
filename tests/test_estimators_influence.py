"""Influence: against logistic regressions fitted again without each sample."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from budgetlab import estimators
from budgetlab.errors import InputError

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
    with pytest.raises(InputError, match="give one network or more, and a damping above 0"):
        estimators.self_influence(models, x, y, damping=damping)
