"""Charts that answer without a kernel: sliders, brush and hover, computed in the page.

Each function takes records or frames and returns an :class:`Explorable`: JupyterLab draws it
on opening a notebook, before anything has run, and a saved page needs no network. ``twin`` of a
chart gives the numbers that it shows, computed in Python. Tab goes to a control; in
JupyterLab, where arrows up and down go from cell to cell, left and right, Home and End set it.
In VS Code all four arrows set it; End does too, but takes the notebook to its last cell as well.

Where a stored chart is drawn: in JupyterLab, Notebook 7, Voila and saved pages, which the tests
open with no kernel; and in VS Code with the renderers of its Jupyter extension, seen once: in
code-server 4.96.4 (VS Code 1.96) with their version 1.0.15, built from source with the Vega 5.22.1,
Vega-Lite 5.5.0 and vega-embed 6.21.0 that it locks. Every kind of chart answered there, in a light
and a dark theme, before any kernel was chosen. VS Code prefers a type that its own list lacks to
HTML and to images, so that nothing need be chosen. Without the renderers, and on GitHub, the image
shows. Not tried: Colab. A chart made there brings the script that draws it, 0.9 MB, for the frame
in which Colab puts an output; of one stored elsewhere it can show the image. A chart fits the page:
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
