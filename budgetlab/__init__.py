"""budgetlab: does it matter which samples you train on, when you can afford only a few?

``import budgetlab as bl`` is instant; each name below is loaded when first used, and
reading records never loads torch::

    record = bl.train("p-SGD", budget=0.2)            # trains and leaves a record
    record = bl.open_record("runs/...")               # reads one
    frame = bl.compare(["runs"])                      # compares methods over seeds
    bl.plots.learning_curves(frame)                   # plots the comparison

``__init__.pyi`` lists these names, for editors too.
"""

import os

import lazy_loader

# Waiting OpenMP threads must not spin: with one other busy process, spinning makes training several
# times slower. Torch reads these when it loads; a user's own setting wins.
if not {"OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
