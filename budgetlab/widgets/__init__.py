"""Controls over plots and runs, for a notebook; each has a twin without controls.

A widget holds no mathematics: what it shows comes from a plain function over records
or arrays, and the same function can be called in a script. Only core ipywidgets are
used, so that they work wherever notebooks do.
"""

import lazy_loader

# Each widget is loaded when first used: an atlas of a record needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "atlas": ["SampleAtlas"],
        "bench": ["TrainingBench"],
        "explorer": ["AugmentationExplorer"],
        "microscope": ["ProbabilityMicroscope"],
        "playground": ["SamplerPlayground"],
    },
)
