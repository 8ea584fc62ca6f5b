"""The plain loop with Hugging Face's Trainer, on items that are dicts as in its data sets.

pip install transformers accelerate
python examples/hugging_face_trainer.py [METHOD] [BUDGET]
"""

import sys
import tempfile
from typing import Any

import torch
import torch.nn.functional as F
from plain_loop import digits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

import budgetlab as bl


class Images(Dataset):
    """Items like those of a data set on the Hub: put your own here."""

    def __init__(self, data: TensorDataset):
        self.pixels, self.labels = data.tensors

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels[number], "labels": self.labels[number]}


class BudgetTrainer(Trainer):
    """A Trainer whose batches are chosen by the kit."""

    def __init__(self, *arguments: Any, sampler: bl.BudgetSampler, **options: Any):
        super().__init__(*arguments, **options)
        self.budget_sampler = sampler

    def get_train_dataloader(self) -> DataLoader:
        """Return a loader with the batches that the kit chooses."""
        return DataLoader(
            self.train_dataset, batch_sampler=self.budget_sampler, collate_fn=self.data_collator
        )

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        """Return the loss; in training, also report the batch to the kit."""
        labels = inputs["labels"]
        outputs = model(pixel_values=inputs["pixel_values"])
        losses = F.cross_entropy(outputs.logits, labels, reduction="none")
        if model.training:
            for group in self.optimizer.param_groups:
                group["lr"] = self.budget_sampler.lr
            losses = losses * self.budget_sampler.history.update(outputs.logits, labels)
        return (losses.mean(), outputs) if return_outputs else losses.mean()


def main(method: str = "p-SGD", budget: float = 0.3, epochs: int = 12) -> float:
    """Train, and return the accuracy on held-out digits."""
    set_seed(0)
    train, test = map(Images, digits())
    model = ResNetForImageClassification(ResNetConfig(
        num_channels=1, embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1],
        layer_type="basic", num_labels=10,
    ))  # fmt: skip
    sampler = bl.BudgetSampler(
        train, model=model, method=method, budget=budget, epochs=epochs, batch_size=64, lr=5e-3
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=int(sampler.budget.limit), report_to="none", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        trainer = BudgetTrainer(model, arguments, train_dataset=train, sampler=sampler)
        trainer.train()
        predicted = trainer.predict(test)
    right = (torch.tensor(predicted.predictions).argmax(1) == test.labels).float().mean().item()
    print(f"{method} at budget {budget:g}: accuracy {right:.3f} after {sampler.ledger.steps} steps")
    return right


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
