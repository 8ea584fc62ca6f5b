"""Training: one loop for every method, as an iterator over epochs that leaves a record."""

from budgetlab.training.run import Run, finish, train
from budgetlab.training.setup import load_data

__all__ = ["Run", "finish", "load_data", "train"]
