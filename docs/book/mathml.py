"""Render formulas as MathML, which browsers support natively: no script, server or font.

The converter is that of docutils.
"""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml


def convert(formula: str, as_block: bool) -> str:
    r"""Convert a formula to MathML, with support for ``\frac12`` and ``\dots``, absent in docutils.

    Raises
    ------
    ValueError
        If the formula cannot be parsed.
    """
    known = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", formula)
    known = re.sub(r"\\dots(?![a-z])", r"\\ldots", known)
    try:
        return tex2mathml(known, as_block=as_block)
    except MathError as error:
        raise ValueError(f"the formula '{formula}' cannot be read: {error}") from None


def visit_inline(writer, node: nodes.math) -> None:
    """Write an inline formula."""
    writer.body.append(convert(node.astext(), as_block=False))
    raise nodes.SkipNode


def visit_block(writer, node: nodes.math_block) -> None:
    """Write a displayed formula."""
    writer.body.append(f'<div class="math">{convert(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app) -> dict:
    """Register the renderer with Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
