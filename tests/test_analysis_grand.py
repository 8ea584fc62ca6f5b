"""GraNd against gradients taken one at a time and a case worked out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from budgetlab import analysis, models
from budgetlab.analysis.gradients import gradient_blocks
from budgetlab.errors import InputError


def test_a_linear_model_by_hand():
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    # p = (1/2, 1/2): the error vector is (-1/2, 1/2), of length sqrt(1/2); the gradient is
    # its product with (x, 1), so its norm is sqrt(1/2) sqrt(|x|^2 + 1).
    expected = np.sqrt(0.5) * np.sqrt([26, 1])
    np.testing.assert_allclose(analysis.grand(model, x, torch.tensor([0, 1])), expected, rtol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_with_batch_norm_against_one_backward_a_sample(frozen):
    """Layers that are frozen are used, and do not count."""
    model = models.build("small", (3, 8, 8), 4, seed=1)
    next(model.children()).requires_grad_(not frozen)
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 3, 0])
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = analysis.grand(model, x, y, chunk=2)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    for place in range(5):
        model.zero_grad()
        F.cross_entropy(model(x[place : place + 1]), y[place : place + 1]).backward()
        left = [p.grad for p in model.parameters() if p.requires_grad]
        norm = sum(g.double().square().sum() for g in left).sqrt()
        assert found[place] == pytest.approx(float(norm), rel=1e-4)


def test_blocks_are_no_larger_than_asked_and_nothing_is_no_fault():
    model = torch.nn.Linear(2, 2)
    x, y = torch.zeros(7, 2), torch.zeros(7, dtype=torch.int64)
    sizes = [len(b["bias"]) for b in gradient_blocks(model, x, y, chunk=3)]
    assert sizes == [3, 3, 1]
    assert analysis.grand(model, x[:0], y[:0]).shape == (0,)
    with pytest.raises(InputError, match="one label a sample"):
        analysis.grand(model, x, y[:2])
