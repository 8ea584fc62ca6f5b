"""Notebook widgets over plots and runs; each has an equivalent without controls.

Widgets do no mathematics: what they show comes from plain functions over records or arrays,
which scripts can call too. They use core ipywidgets only, and so work wherever notebooks do.
For charts of records that need no kernel, see :mod:`budgetlab.explore`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bench": ["TrainingBench"],
        "explorer": ["AugmentationExplorer"],
        "microscope": ["ProbabilityMicroscope"],
        "playground": ["SamplerPlayground"],
    },
)
