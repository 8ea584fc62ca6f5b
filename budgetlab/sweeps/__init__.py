"""Sweeps: many runs, on one machine or many, without training anything twice.

``bl.sweep(...)`` plans the product of any settings; iterating trains what is missing and yields
one row per run::

    sweep = bl.sweep(method=["unif-SGD", "p-SGD"], seed=range(3), budget=0.2, out="runs",
                     workers="auto")
    for row in sweep:                  # finished runs first, at once
        print(row["method"], row["seed"], row["test_accuracy"])
    sweep.frame                        # one row per run, at any time

Runs are identified by :attr:`budgetlab.RunConfig.id`. Finished ones are kept, interrupted ones
resume from their last whole epoch, failed ones are reported and retried only on request.
"""

import lazy_loader

# Loaded on first use: the command line needs the grid only.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"grid": ["product"], "runner": ["Sweep", "sweep"]}
)
