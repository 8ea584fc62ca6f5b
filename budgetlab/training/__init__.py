"""Training: one loop for all methods, as an iterator over epochs that writes a record."""

from budgetlab.training.run import Run, finish, train
from budgetlab.training.setup import load_data

__all__ = ["Run", "finish", "load_data", "train"]
