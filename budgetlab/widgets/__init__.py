"""Notebook widgets over plots and runs; each has an equivalent without controls.

Widgets do no mathematics: what they show comes from plain functions over records or arrays,
which scripts can call too. They use core ipywidgets only, and so work wherever notebooks do.
For charts of records that need no kernel, see :mod:`budgetlab.explore`.
"""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bench": ["TrainingBench"],
        "explorer": ["AugmentationExplorer"],
        "microscope": ["ProbabilityMicroscope"],
        "playground": ["SamplerPlayground"],
    },
)


def __getattr__(name: str) -> Any:
    if name == "SampleAtlas":
        raise AttributeError(
            "bl.widgets.SampleAtlas is a chart now: call bl.explore.atlas(record, splits=splits)"
        )
    return _load(name)
