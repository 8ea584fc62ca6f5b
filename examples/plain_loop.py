"""A plain PyTorch loop that trains on what the network gets wrong, within a budget.

    python examples/plain_loop.py [METHOD] [BUDGET]

The lines for the kit are marked; the rest is an ordinary loop.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import budgetlab as bl


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Return handwritten digits as an ordinary data set: put your own here."""
    splits = bl.data.load("digits", progress=False)
    return tuple(
        TensorDataset(part.x.float() / 255, part.y) for part in (splits.train, splits.test)
    )


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """Return the share of samples classified correctly."""
    model.eval()
    with torch.no_grad():
        x, y = data.tensors
        right = (model(x).argmax(1) == y).float().mean().item()
    model.train()
    return right


def main(method: str = "p-SGD", budget: float = 0.3, epochs: int = 12) -> float:
    """Train, and return the accuracy on held-out digits."""
    torch.manual_seed(0)
    train, test = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    sampler = bl.BudgetSampler(  # the kit chooses the batches ...
        train, model=model, method=method, budget=budget, epochs=epochs, batch_size=64
    )
    history = sampler.history
    loader = DataLoader(train, batch_sampler=sampler)

    while not sampler.finished:
        for x, y in loader:
            logits = model(x)
            weights = history.update(logits, y)  # ... and receives their results
            loss = (weights * F.cross_entropy(logits, y, reduction="none")).mean()
            optimiser.param_groups[0]["lr"] = sampler.lr
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    right = accuracy(model, test)
    spent = sampler.ledger
    print(f"{method} at budget {budget:g}: accuracy {right:.3f} after {spent.steps} steps, "
          f"{spent.looked_samples:,} samples looked at")  # fmt: skip
    return right


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
