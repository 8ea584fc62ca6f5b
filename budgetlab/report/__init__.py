"""One self-contained page from any set of records."""

from budgetlab.report.page import write

__all__ = ["write"]
