"""Data sets as tensors: built-in ones, those of the paper, and your own."""

from budgetlab.data.changes import Edits
from budgetlab.data.copies import duplicates, find_copies
from budgetlab.data.dataset import Dataset, Splits
from budgetlab.data.load import Intake, canonical, describe, inspect, load

__all__ = ["Dataset", "Edits", "Intake", "Splits", "canonical", "describe", "duplicates",
           "find_copies", "inspect", "load"]  # fmt: skip
