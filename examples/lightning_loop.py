"""The plain loop with Lightning: the sampler goes into the loader, one line into training_step.

pip install lightning
python examples/lightning_loop.py [METHOD] [BUDGET]
"""

import sys

import lightning
import torch
import torch.nn.functional as F
from plain_loop import accuracy, digits
from torch import Tensor, nn
from torch.utils.data import DataLoader

import budgetlab as bl


class Classifier(lightning.LightningModule):
    """An ordinary module; the lines for the kit are marked."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        self.history: bl.custom_loop.LoopHistory  # set from the sampler

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.network(x)

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        """Return the loss of a batch."""
        x, y = batch
        logits = self(x)
        weights = self.history.update(logits, y)  # reports the batch to the kit
        return (weights * F.cross_entropy(logits, y, reduction="none")).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Budgeted(lightning.Callback):
    """Makes the learning rate follow the budget, and stops when it is spent."""

    def __init__(self, sampler: bl.BudgetSampler):
        self.sampler = sampler

    def on_train_batch_start(self, trainer, module, batch, number) -> None:
        """Set the learning rate of this step."""
        trainer.optimizers[0].param_groups[0]["lr"] = self.sampler.lr

    def on_train_epoch_end(self, trainer, module) -> None:
        """Stop once the budget is spent."""
        trainer.should_stop = self.sampler.finished


def main(method: str = "p-SGD", budget: float = 0.3, epochs: int = 12) -> float:
    """Train, and return the accuracy on held-out digits."""
    lightning.seed_everything(0, verbose=False)
    train, test = digits()
    model = Classifier()
    sampler = bl.BudgetSampler(  # the kit chooses the batches
        train, model=model, method=method, budget=budget, epochs=epochs, batch_size=64
    )
    model.history = sampler.history
    trainer = lightning.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        callbacks=[Budgeted(sampler)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(train, batch_sampler=sampler))
    right = accuracy(model, test)
    print(f"{method} at budget {budget:g}: accuracy {right:.3f} after {sampler.ledger.steps} steps")
    return right


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
