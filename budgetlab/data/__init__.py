"""Data sets as tensors: built-in ones, the paper's, and the user's own."""

from budgetlab.data.copies import duplicates, find_copies
from budgetlab.data.edits import Edits
from budgetlab.data.intake import Intake
from budgetlab.data.load import canonical, describe, inspect, load
from budgetlab.data.samples import Dataset, Splits

__all__ = [
    "Dataset",
    "Edits",
    "Intake",
    "Splits",
    "canonical",
    "describe",
    "duplicates",
    "find_copies",
    "inspect",
    "load",
]
