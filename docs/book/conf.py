"""Sphinx configuration of the book; ``docs/book.py`` collects its sources."""

import re
import sys
from pathlib import Path

import budgetlab

# This file and its extension are copied together.
sys.path.insert(0, str(Path(__file__).parent))

project = "budgetlab"
author = "the authors of budgetlab"
version = release = budgetlab.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]

# Outputs are the committed ones: building trains nothing.
nb_execution_mode = "off"
# Widgets need a kernel, and their scripts a network.
nb_ipywidgets_js: dict = {}
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

# The default fetches its scripts from a server.
html_math_renderer = "mathml"
html_theme = "furo"
html_title = "budgetlab"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

# Several classes have a "budget": such a name in a list of attributes needs no link.
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Signatures generated from a run's fields have no source to read defaults from.
autodoc_preserve_defaults = False
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

SHARED = re.compile(r"^:ivar (\w+(?:, \w+)+):(.*\n(?: .*\n)*)", re.M)


def setup(app) -> None:
    """Describe attributes that share a description one by one: Sphinx takes a list for a type."""

    def separate(app, what, name, made, options, lines: list[str]) -> None:
        def each(shared: re.Match) -> str:
            return "".join(f":ivar {one}:{shared[2]}" for one in shared[1].split(", "))

        lines[:] = SHARED.sub(each, "\n".join([*lines, ""])).split("\n")

    app.connect("autodoc-process-docstring", separate, priority=900)  # after napoleon
