"""Data sets as tensors: built-in ones, the paper's, and the user's own."""

from budgetlab.data.load import canonical, describe, load
from budgetlab.data.own import duplicates
from budgetlab.data.samples import Dataset, Splits

__all__ = ["Dataset", "Splits", "canonical", "describe", "duplicates", "load"]
