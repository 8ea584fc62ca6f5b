"""Vega-Lite charts as plain data: building, displaying, saving and embedding them."""

import base64
import copy
import html
import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from budgetlab.errors import InputError, unknown
from budgetlab.plots import style
from budgetlab.records import write_file

# JupyterLab renders versions 3 to 5 and shows nothing for newer ones.
VEGA_LITE = "5.20"
SCHEMAS = {
    "vega-lite": "https://vega.github.io/schema/vega-lite/v5.json",
    "vega": "https://vega.github.io/schema/vega/v5.json",
}
MIMES = {
    "vega-lite": "application/vnd.vegalite.v5+json",
    "vega": "application/vnd.vega.v5+json",
}
SHARPNESS = 1.5
SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond",
           "v": "triangle-down", "P": "cross", "X": "triangle-left"}  # fmt: skip
DASHES = {"-": [1, 0], "--": [6, 3], "-.": [6, 2, 2, 2], ":": [2, 2]}
LOOK = {
    "font": "DejaVu Sans, Helvetica, Arial, sans-serif",
    "axis": {"labelColor": style.INK, "titleColor": style.INK, "gridColor": "#e5e5e5",
             "domainColor": "#888888", "tickColor": "#888888", "titleFontWeight": "normal",
             "labelFlush": False},
    "title": {"anchor": "start", "color": style.INK, "fontSize": 13, "fontWeight": 600,
              "subtitleColor": style.INK, "subtitleFontSize": 11, "subtitlePadding": 4,
              "offset": 10},
    "legend": {"labelColor": style.INK, "titleColor": style.INK, "labelLimit": 260,
               "titleFontWeight": "normal"},
    "lineBreak": "\n",
    "view": {"stroke": "transparent"},
}  # fmt: skip
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<style>
body {{ margin: 1.5rem; font-family: "DejaVu Sans", Helvetica, Arial, sans-serif; color: #222 }}
{style}</style></head>
<body><main><h1 style="font-size:1.2rem">{title}</h1>
{fragment}
</main><script>{script}</script></body></html>
"""
# Layout of the controls below a chart, on any page that draws it; checkboxes stand side by side.
CONTROLS = """.vega-embed { display: block; width: 100%; box-sizing: border-box }
.vega-embed .vega-bindings { display: flex; flex-wrap: wrap; gap: 0.3rem 1.5rem; margin-top: 0.6rem;
  max-width: 46rem }
.vega-embed .vega-bind { flex: 0 1 21rem }
.vega-embed .vega-bind:has(input[type=checkbox]) { flex: none }
.vega-embed .vega-bind label { display: flex; gap: 0.5rem; align-items: center }
.vega-embed .vega-bind:has(input[type=checkbox]) label { flex-direction: row-reverse; gap: 0.25rem }
.vega-embed .vega-bind-name { min-width: 8.5rem }
.vega-embed .vega-bind:has(input[type=checkbox]) .vega-bind-name { min-width: 0 }
.vega-embed .vega-bind select { max-width: 12rem }
"""
STYLE = f""".bl-explorable {{ overflow-x: auto; background: white; color: #222; max-width: 100% }}
.bl-explorable img {{ max-width: 100%; height: auto }}
{CONTROLS}"""
# Width available to a chart: Vega-Lite cannot wrap a row of views by itself. Polled by a timer:
# JupyterLab draws before a chart is attached, and fires no event when a sidebar opens.
WIDTH = "containerSize()[0] || windowSize()[0] - 190 || 1000"
ROOM = {"name": "room", "init": WIDTH,
        "on": [{"events": {"type": "timer", "throttle": 400}, "update": WIDTH}]}  # fmt: skip
TITLE_LETTERS, SUBTITLE_LETTERS = 44, 62  # per line, so that it fits a window of 420 pixels
# The image stays where scripts are off, or fail; scripts can reach the view through its element.
SCRIPT = """
(async () => {
  for (const place of document.querySelectorAll('.bl-explorable')) {
    const spec = JSON.parse(place.dataset.spec);
    const stage = place.querySelector('.bl-stage');
    const made = await vegaEmbed(stage, spec, {
      actions: false, defaultStyle: false, renderer: 'canvas'});
    place.view = made.view;
    place.dataset.drawn = 'yes';
  }
})();
"""


# Characters that XML cannot hold: the library that renders the SVG would crash the process.
NOT_IN_XML = dict.fromkeys(
    [*(code for code in range(0x20) if chr(code) not in "\t\n\r"), *range(0xD800, 0xE000),
     0xFFFE, 0xFFFF], "\ufffd"
)  # fmt: skip


def _drawable(value: Any) -> Any:
    """Replace characters that cannot be drawn by U+FFFD throughout a JSON value."""
    if isinstance(value, str):
        return value.translate(NOT_IN_XML)
    if isinstance(value, dict):
        return {_drawable(key): _drawable(item) for key, item in value.items()}
    return [_drawable(item) for item in value] if isinstance(value, list | tuple) else value


class Explorable:
    """An interactive chart that contains its data and needs no kernel.

    - ``spec``: the specification as plain JSON: `Vega-Lite <https://vega.github.io/vega-lite>`_ 5,
      or Vega 5 for charts that play by themselves. It can be edited, or opened with
      ``altair.Chart.from_dict``.
    - ``kind``: ``vega-lite`` or ``vega``.
    - ``alt``: alternative text.
    - ``twin``: function that computes the chart's numbers in Python. Its keywords are the controls;
      their defaults are the chart's initial values.
    - ``title``: title of a saved page.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        alt: str,
        twin: Callable[..., Any],
        *,
        title: str,
        kind: str = "vega-lite",
    ):
        self.spec = _drawable(spec)
        self.alt, self.twin, self.title, self.kind = alt, twin, title, kind

    def __repr__(self) -> str:
        return f"Explorable({self.title!r}, {len(self.to_json()) / 1e3:.0f} kB)"

    @property
    def mime(self) -> str:
        """MIME type under which a notebook stores the chart."""
        return MIMES[self.kind]

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        # The image is for viewers that cannot draw the chart, such as GitHub.
        image = base64.b64encode(self.to_png()).decode()
        bundle = {self.mime: self.spec, "image/png": image, "text/plain": self.alt}
        if "google.colab" in sys.modules:
            # Colab is not known to draw such a type, and isolates each output in a frame.
            # Elsewhere, HTML would take precedence over the chart and add 0.9 MB. The image moves
            # into the HTML, so that Colab cannot choose it over the interactive chart.
            html = fragment(self.spec, self.alt, bundle.pop("image/png"))
            bundle["text/html"] = f"<style>{STYLE}</style>{html}<script>{script()}</script>"
        return bundle, {self.mime: {"embed_options": {"defaultStyle": CONTROLS}}}

    def with_values(self, **values: Any) -> "Explorable":
        """Return a copy of the chart with other initial values for its controls.

        Raises InputError if the chart has no such control.
        """
        spec = copy.deepcopy(self.spec)
        params = spec.get("params", spec.get("signals", []))
        known = {param["name"]: param for param in params if "bind" in param}
        for name, value in values.items():
            if name not in known:
                raise InputError(
                    f"this chart has no control '{name}': it has {', '.join(known) or 'none'}"
                )
            known[name]["value"] = value
        return Explorable(spec, self.alt, self.twin, title=self.title, kind=self.kind)

    def to_json(self) -> str:
        """Return the specification as compact JSON."""
        return json.dumps(self.spec, separators=(",", ":"))

    def to_png(self, scale: float = SHARPNESS) -> bytes:
        """Render the chart's initial state as PNG bytes."""
        import vl_convert

        if self.kind == "vega":
            drawn = vl_convert.vega_to_png(self.to_json(), scale=scale)
        else:
            drawn = vl_convert.vegalite_to_png(self.to_json(), vl_version=VEGA_LITE, scale=scale)
        # Recompressed to a third of the size, for the notebooks that store it.
        file = io.BytesIO()
        Image.open(io.BytesIO(drawn)).convert("RGB").save(file, "PNG", optimize=True)
        return file.getvalue()

    def to_html(self) -> str:
        """Return an HTML fragment: the chart, or its image where scripts are off.

        The page must include :func:`script` once, after all charts.
        """
        return fragment(self.spec, self.alt, base64.b64encode(self.to_png()).decode())

    def save(self, path: Path | str) -> Path:
        """Save the chart as a self-contained HTML page.

        Raises InputError if the name does not end in ``.html``, or the file cannot be written.
        """
        path = Path(os.path.expanduser(path))
        if path.suffix.lower() != ".html":
            raise InputError(f"file '{path}' does not end in .html: give such a name")
        page = PAGE.format(
            title=html.escape(self.title), style=STYLE, fragment=self.to_html(), script=script()
        )
        return write_file(path, page.encode(), folders=True)


def fragment(spec: Mapping[str, Any], alt: str, image: str) -> str:
    """Return an HTML fragment of a specification and its PNG, given in base64."""
    # In an attribute: on Colab, scripts reportedly cannot find other script elements.
    data = html.escape(json.dumps(spec, separators=(",", ":")), quote=False).replace("'", "&#39;")
    return (
        f'<div class="bl-explorable" data-spec=\'{data}\'><div class="bl-stage" tabindex="-1">'
        f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{image}"></div></div>'
    )


def script() -> str:
    """Return the script that draws all charts of a page: Vega with its dependencies, 0.9 MB."""
    import vl_convert

    # Wrapped in a function: other scripts on a page, such as Sphinx's, also define "_".
    return f"(() => {{\n{vl_convert.javascript_bundle(SCRIPT, vl_version=VEGA_LITE)}\n}})();"


def specification(
    title: Any, alt: str, *, fits: Mapping[str, str] | None = None, **parts: Any
) -> dict[str, Any]:
    """Return a Vega-Lite specification in the kit's style: opaque, readable on any theme.

    ``fits`` adapts it to the page's width, the signal ``room``: expressions by JSON path in the
    compiled Vega. Renderers that ignore these patches draw the chart at full width.
    """
    patch = [{"op": "add", "path": path, "value": {"signal": expression}}
             for path, expression in (fits or {}).items()]  # fmt: skip
    options: dict[str, Any] = {"actions": False}
    if patch:
        options["patch"] = [{"op": "add", "path": "/signals/-", "value": ROOM}, *patch]
    return {
        "$schema": SCHEMAS["vega-lite"],
        "background": "white",
        "padding": 8,
        "title": title,
        "description": alt,
        "config": LOOK,
        "usermeta": {"embedOptions": options},
        **parts,
    }


def wrapped(narrow: int, columns: Mapping[str, int]) -> dict[str, str]:
    """Return patches that stack rows of views, given by path, below a width of ``narrow``.

    The padding changes too: Vega does not redo the layout when only the columns change.
    """
    fits = {f"{path}/layout/columns": f"room < {narrow} ? 1 : {n}" for path, n in columns.items()}
    return fits | {"/padding": f"room < {narrow} ? 7 : 8"}


def wrap_title(text: str, letters: int = TITLE_LETTERS) -> str:
    """Wrap a title or subtitle to fit a narrow window, without breaking inside parentheses."""
    kept = re.sub(r"\([^()]*\)", lambda found: found[0].replace(" ", "\xa0"), text)
    return textwrap.fill(kept, letters, break_long_words=False).replace("\xa0", " ")


def axis(field: str, title: str | None = None, **more: Any) -> dict[str, Any]:
    """Encode a quantitative field; with ``zero=False``, the scale need not include 0."""
    scale = {"scale": {"zero": more.pop("zero")}} if "zero" in more else {}
    return {"field": field, "type": "quantitative", "title": title} | scale | more


def mark(kind: str, **look: Any) -> dict[str, Any]:
    """Build a mark; no ARIA labels on single marks, as the chart has a description."""
    filled = {"filled": True} if kind == "point" else {}
    return {"type": kind, "aria": False} | filled | look


def words(expression: str, **look: Any) -> dict[str, Any]:
    """Build a line of text that is updated as the controls change."""
    usual = {"align": "left", "baseline": "top", "fontSize": 12, "x": 0, "y": 0, "color": style.INK}
    return {"mark": mark("text", **usual | look, text={"expr": expression})}


def hover(fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """Build tooltip entries from a mapping of column to label."""
    return [{"field": field, "title": title} for field, title in fields.items()]


def slider(
    name: str, label: str, value: float, low: float, high: float, step: float
) -> dict[str, Any]:
    """Build a parameter with a slider below the chart."""
    bind = {"input": "range", "min": low, "max": high, "step": step, "name": f"{label} "}
    return {"name": name, "value": value, "bind": bind}


def select(name: str, label: str, options: Mapping[str, Any], value: Any = None) -> dict[str, Any]:
    """Build a parameter with a dropdown below the chart; ``options`` maps labels to values."""
    chosen = next(iter(options.values())) if value is None else value
    bind = {"input": "select", "options": list(options.values()), "labels": list(options),
            "name": f"{label} "}  # fmt: skip
    return {"name": name, "value": chosen, "bind": bind}


def checkbox(name: str, label: str, value: bool) -> dict[str, Any]:
    """Build a parameter with a checkbox below the chart."""
    return {"name": name, "value": value, "bind": {"input": "checkbox", "name": f"{label} "}}


def distinct_values(table: pd.DataFrame, columns: Iterable[str]) -> dict[str, list[Any]]:
    """Return the distinct values of each column, in order of appearance."""
    return {key: list(dict.fromkeys(table[key].tolist())) for key in columns}


def rows_of(
    table: pd.DataFrame, options: Mapping[str, Sequence[Any]], chosen: Mapping[str, Sequence[Any]]
) -> pd.DataFrame:
    """Select the rows that have one of the chosen values in every column."""
    for key, values in chosen.items():
        if key not in options:
            raise unknown("control", key, options)
        for value in values:
            if value not in options[key]:
                raise unknown(key, str(value), [str(one) for one in options[key]])
        table = table[table[key].isin(values)]
    return table.reset_index(drop=True)


def style_encodings(
    names: Sequence[Hashable], field: str, legend: dict[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Encode a field by colour, shape and dash, with the styles used in all figures."""
    looks = style.style_by_name(list(map(str, names)))
    ranges = {"color": [look.colour for look in looks.values()],
              "shape": [SYMBOLS[look.marker] for look in looks.values()],
              "strokeDash": [DASHES[look.line] if isinstance(look.line, str) else
                             list(look.line[1]) for look in looks.values()]}  # fmt: skip
    return {
        channel: {"field": field, "type": "nominal", "title": None,
                  "scale": {"domain": list(looks), "range": values},
                  "legend": legend}
        for channel, values in ranges.items()
    }  # fmt: skip
