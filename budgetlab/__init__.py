"""budgetlab: does it matter which samples you train on, when you can afford only a few?

``import budgetlab as bl`` is instant; each name below is loaded when first used, and
reading records never loads torch::

    record = bl.train(method="p-SGD", budget=0.2)     # trains and leaves a record
    record = bl.open_record("runs/...")               # reads one
    frame = bl.compare(["runs"])                      # many, over seeds
    bl.plots.learning_curves(frame)                   # see
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "analysis",
        "augment",
        "budget",
        "course",
        "data",
        "estimators",
        "methods",
        "models",
        "own_loop",
        "plots",
        "presets",
        "records",
        "report",
        "samplers",
        "widgets",
    ],
    submod_attrs={
        "analysis": ["compare", "summaries"],
        "config": ["RunConfig"],
        "data": ["Dataset", "Splits"],
        "errors": ["InputError", "RunError"],
        "history": ["History"],
        "own_loop": ["BudgetSampler"],
        "methods": ["Method"],
        "records": ["Record", "open_record"],
        "samplers": ["Batch", "Sampler", "sampler"],
        "sweep": ["Sweep", "sweep"],
        "training": ["Run", "train"],
    },
)
