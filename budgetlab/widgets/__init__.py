"""Controls over plots and runs, for a notebook; each has a twin without controls.

A widget holds no mathematics: what it shows comes from a plain function over records
or arrays, and the same function can be called in a script. Only core ipywidgets are
used, so that they work wherever notebooks do. What only shows records and needs no kernel is
a chart of :mod:`budgetlab.explore`.
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
