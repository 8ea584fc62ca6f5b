"""Write a self-contained HTML report of any set of records."""

from budgetlab.report.page import write

__all__ = ["write"]
