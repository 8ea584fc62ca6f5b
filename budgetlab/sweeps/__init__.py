"""Sweeps: many runs, on one machine or many, and nothing trained twice.

``bl.sweep(...)`` plans the product of any settings; iterating trains what is not there
yet and yields one row per run::

    sweep = bl.sweep(method=["unif-SGD", "p-SGD"], seed=range(3), budget=0.2, out="runs",
                     workers="auto")
    for row in sweep:                  # finished runs first, at once
        print(row["method"], row["seed"], row["test_accuracy"])
    sweep.frame                        # one row per run, at any time

A run is known by :attr:`budgetlab.RunConfig.id`. A finished one is kept, one that was
cut off goes on from its last whole epoch, a failed one is reported and tried again
only on request.
"""

import lazy_loader

# Loaded when first used: the command line needs the grid alone.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"grid": ["product"], "runner": ["Sweep", "sweep"]}
)
