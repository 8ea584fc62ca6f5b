"""Interactive charts that need no kernel: sliders, brushes and tooltips run in the browser.

Each function takes records or frames and returns an :class:`Explorable`. JupyterLab draws it
when a notebook is opened, before any cell has run, and a saved page needs no network. A chart's
``twin`` computes the numbers it shows in Python. Tab moves between controls; left, right, Home and
End set them (in JupyterLab, up and down move between cells). In VS Code all four arrows set them;
End does too, but also takes the notebook to its last cell.

Stored charts are drawn in JupyterLab, Notebook 7, Voila and saved pages, without a kernel, and in
VS Code with the renderers of its Jupyter extension (versions tried: README); elsewhere, as on
GitHub, the image is shown. Colab is untested: a chart made there includes its own script (0.9 MB),
as Colab isolates outputs in frames. In a narrow window, or at 200% zoom, views are stacked.

>>> chart = bl.explore.probabilities(record)  # doctest: +SKIP
>>> chart.save("probabilities.html")  # doctest: +SKIP
>>> chart.twin(smoothing=0.1)["effective_samples"]  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "chart": ["Explorable"],
        "draws": ["probabilities"],
        "points": ["Frame", "PointRun", "frame_of", "grid_of", "playground", "watch"],
        "learning": ["crossing", "learning"],
        "maps": ["importance_map"],
        "packing": ["images_of"],
        "samples": ["atlas"],
    },
)
