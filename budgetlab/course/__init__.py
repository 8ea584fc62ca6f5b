"""What notebooks need beside the kit: predictions, checks of exercises, and tables that ship.

:func:`predict` asks for a prediction before a result shows; :func:`check` says in words whether
the answer to an exercise is right, and what is wrong with it; :func:`results`, and what follows
it, read the tables that come with the course, and :func:`record` opens a record.
"""

from budgetlab.course.checking import check, passed
from budgetlab.course.predicting import Prediction, predict
from budgetlab.course.results import against, averages, importance, record, results, select

__all__ = ["Prediction", "against", "averages", "check", "importance", "passed", "predict",
           "record", "results", "select"]  # fmt: skip
