"""Say in words whether the answer to an exercise is right, and what is wrong with it.

In a notebook::

    bl.course.check(double, [((2,), 4), ((-1.5,), -3.0)], hint="Multiply by two.")

It prints one short text and raises nothing, so that an unsolved exercise never stops a
notebook from running to its end. For marks, ``assert bl.course.passed("double")`` can follow;
the copy that ``make course`` writes for instructors has it. :func:`predict` asks for a prediction
before a result shows; :func:`results` and what follows it read the tables that come with the kit.
"""

from budgetlab.course.checking import check, passed
from budgetlab.course.predicting import Prediction, predict
from budgetlab.course.results import against, averages, importance, results, select

__all__ = ["Prediction", "against", "averages", "check", "importance", "passed", "predict",
           "results", "select"]  # fmt: skip
