"""Charts that answer without a kernel: sliders, brush and hover, computed in the page.

Each function takes records or frames and returns an :class:`Explorable`: JupyterLab draws it
on opening a notebook, before anything has run, and a saved page needs no network. ``twin`` of a
chart gives the numbers that it shows, computed in Python. Tab goes to a control; in
JupyterLab, where arrows up and down go from cell to cell, left and right, Home and End set it.

Where a stored chart is drawn: in JupyterLab, Notebook 7, Voila and saved pages, which the tests
open with no kernel. Not tried: VS Code, whose notebook renderers (part of its Jupyter extension)
list both types that are stored, Vega and Vega-Lite of version 5 (a test draws them with vega-embed
alone); and Colab, which draws neither, so that a chart made there brings the script that draws it,
0.9 MB, and one stored elsewhere shows as its image. GitHub shows the image. A chart fits the page:
in a narrow window, or at a zoom of 200%, its views stand below each other.

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
