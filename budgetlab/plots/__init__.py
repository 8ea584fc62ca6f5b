"""One function a question: a frame or a record in, matplotlib Axes out, no torch."""

from budgetlab.plots.learning import cost_ledger, differences, frontier, learning_curves
from budgetlab.plots.style import alt_text

__all__ = [
    "alt_text",
    "cost_ledger",
    "differences",
    "frontier",
    "learning_curves",
]
