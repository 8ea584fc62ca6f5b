"""Helpers for the course notebooks: predictions, checks of exercises, and stored results.

:func:`predict` asks for a prediction before a result is shown; :func:`check` tests the answer to
an exercise and explains what is wrong; :func:`results` reads the tables that come with the course,
:func:`select` and others evaluate them, and :func:`record` opens a record.
"""

from budgetlab.course.checking import check, passed
from budgetlab.course.predicting import Prediction, predict
from budgetlab.course.results import against, averages, importance, record, results, select

__all__ = ["Prediction", "against", "averages", "check", "importance", "passed", "predict",
           "record", "results", "select"]  # fmt: skip
