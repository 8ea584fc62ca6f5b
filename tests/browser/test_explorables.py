"""The charts that the course stores: drawn, and answering, where no kernel was ever started.

In JupyterLab, in the built site opened from disk without a network, and in Voila, which needs a
kernel to show a page and then is cut off from it; by mouse and by keyboard, light and dark, in a
narrow window and at 200%.
"""

import html
import json
import re
import secrets
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from lab import Lab, free_port, serving
from opened import Opened, Tab

from budgetlab.explore.chart import MIMES

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
KINDS = ("learning", "probabilities", "playground", "crossing", "importance_map", "atlas")
USUAL = {"viewport": {"width": 1280, "height": 1000}}
NARROW = {"viewport": {"width": 900, "height": 900}}
# What a zoom of 200% makes of a window of 1,280 x 1,000 pixels.
ZOOMED = {"viewport": {"width": 640, "height": 500}, "device_scale_factor": 2}

PICTURE = "canvas => canvas.toDataURL()"
CHANGED = "([canvas, before]) => canvas.toDataURL() !== before"
# Up and down go from cell to cell in JupyterLab; these keys reach sliders and lists, and leave
# them as they were.
AT_ITS_END = "control => control.type === 'range' && +control.value >= +control.max"


# What JupyterLab asks, and what nbgrader adds, where nobody switches them off.
OTHERS = re.compile("Jupyter news|Validate|Create Assignment|Formgrader")


def stored() -> dict[str, tuple[str, dict, dict]]:
    """For each kind of chart, a notebook of the course and what one of its cells stores."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            kinds = re.findall(r"bl\.explore\.(\w+)\(", cell.source)
            for output in cell.get("outputs", ()):
                if kinds and set(MIMES.values()) & set(output.get("data", {})):
                    kept = path.stem, dict(output.data), dict(output.metadata)
                    found.setdefault(kinds[-1], kept)
    return {kind: found[kind] for kind in KINDS}


def changes(tab, canvas, act) -> bool:
    """Whether the picture becomes another one within some seconds of an act."""
    from playwright.sync_api import TimeoutError

    before = canvas.evaluate(PICTURE)
    act()
    try:
        tab.page.wait_for_function(CHANGED, arg=[canvas.element_handle(), before], timeout=4_000)
    except TimeoutError:
        return False
    return True


WIDER = """place => [place, ...place.querySelectorAll('*')].filter(
  one => one.scrollWidth > one.clientWidth + 1
  && ['auto', 'scroll'].includes(getComputedStyle(one).overflowX) && !one.closest('.jp-InputArea')
).length"""


def fits(tab, place) -> None:
    """No bar to scroll sideways, once the chart has seen how much room there is."""
    tab.page.wait_for_function(f"place => ({WIDER})(place) === 0", arg=place.element_handle())


def answers_to_keys(tab, place) -> None:
    """Every slider changes the picture, and each chart has a control that does."""
    canvas, moved = place.locator("canvas").first, []
    for control in place.locator(".vega-bindings input, .vega-bindings select").all():
        kind = control.get_attribute("type") or ""
        control.focus()
        keys = ["Home", "End"] if control.evaluate(AT_ITS_END) else ["End", "Home"]
        keys = ["Space", "Space"] if kind == "checkbox" else keys
        moved.append(max(changes(tab, canvas, lambda k=k, c=control: c.press(k)) for k in keys))
        assert moved[-1] or kind != "range", control.get_attribute("name")
    assert any(moved)


def answers_to_the_mouse(tab, place, kind: str) -> None:
    """A rectangle over points selects; a click on a name beside the lines fades all others."""
    canvas = place.locator("canvas").first
    # A chart may be higher than the window, and then any part of it would do.
    canvas.evaluate("canvas => canvas.scrollIntoView({block: 'start', behavior: 'instant'})")
    box = canvas.bounding_box()
    assert box is not None

    def drag() -> None:
        tab.page.mouse.move(box["x"] + 120, box["y"] + 200)
        tab.page.mouse.down()
        tab.page.mouse.move(box["x"] + 260, box["y"] + 330, steps=5)
        tab.page.mouse.up()

    if kind == "atlas":
        assert changes(tab, canvas, drag)
    if kind in ("learning", "crossing"):
        x, y = name_of_a_line(tab, canvas)
        assert changes(tab, canvas, lambda: tab.page.mouse.click(x, y))


def name_of_a_line(tab, canvas) -> tuple[float, float]:
    """Where the pointer says that a name can be clicked on: beside the lines, or below them."""
    canvas.evaluate("canvas => canvas.scrollIntoView({block: 'end', behavior: 'instant'})")
    box = canvas.bounding_box()
    for across in (box["width"] - 60, 90):
        for down in range(int(box["height"]) - 4, 0, -6):
            x, y = box["x"] + across, box["y"] + down
            tab.page.mouse.move(x, y)
            if canvas.evaluate("canvas => canvas.parentElement.style.cursor") == "pointer":
                return x, y
    raise AssertionError("no name can be clicked on")


def accessible(tab, part: str = "") -> None:
    from axe_playwright_python.base import AXE_SCRIPT

    tab.page.evaluate(AXE_SCRIPT)
    # Its look at style sheets would be a request of its own.
    found = tab.page.evaluate("part => axe.run(part || document, {preload: false})", part)
    said = [[one["id"], [n["html"][:200] for n in one["nodes"][:3]]] for one in found["violations"]]
    assert said == []
    assert len(found["passes"]) > 5


# ---- JupyterLab ----


def with_charts(path: Path) -> Path:
    """Write a notebook with one chart of each kind, for a kernel that no machine has."""
    notebook = nbformat.v4.new_notebook()
    for kind, (_, bundle, about) in stored().items():
        cell = nbformat.v4.new_code_cell(f"bl.explore.{kind}(...)", execution_count=1)
        output = nbformat.v4.new_output("execute_result", bundle, metadata=about, execution_count=1)
        cell.outputs = [output]
        notebook.cells.append(cell)
    # Nothing can start by itself.
    notebook.metadata["kernelspec"] = {"name": "nowhere", "display_name": "Nowhere"}
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize(
    ("theme", "window"), [("Light", USUAL), ("Dark", NARROW), ("Light", ZOOMED)]
)
def test_jupyterlab_draws_what_is_stored_and_starts_no_kernel(lab, browser, shot, theme, window):
    path = with_charts(lab.root / f"stored{window['viewport']['width']}.ipynb")
    tab = Opened(browser, lab, path, kernel=False, **window)
    assert tab.page.get_by_text(OTHERS).count() == 0
    dialog = tab.page.locator(".jp-Dialog")
    dialog.get_by_role("button", name="No Kernel").click()
    dialog.wait_for(state="detached")
    tab.command("application:toggle-left-area")
    tab.command("apputils:change-theme", theme=f"JupyterLab {theme}")
    for number, kind in enumerate(KINDS):
        tab.scroll_to(number)
        place = tab.page.locator(".jp-Cell").filter(has_text=f"bl.explore.{kind}(")
        place.locator("canvas").first.wait_for()
        fits(tab, place)
        tab.screenshot(f"{shot}_{kind}")
        answers_to_keys(tab, place)
        answers_to_the_mouse(tab, place, kind)
        accessible(tab, ".jp-OutputArea-output")
    tab.command("apputils:change-theme", theme="JupyterLab Light")
    assert lab.api("kernels") == lab.api("sessions") == []
    assert tab.faults == []
    tab.close()


# ---- Notebook 7 ----

# Notebook 7.6 says so of a notebook with nothing in it too, while it loads its settings.
OF_NOTEBOOK_7 = "error in the page: Cannot read properties of undefined (reading 'schema')"


def test_notebook_7_draws_what_is_stored_and_starts_no_kernel(chromium, browser, tmp_path, shot):
    pytest.importorskip("notebook", minversion="7", reason="pip install 'notebook>=7'")
    (tmp_path / "root").mkdir()
    with_charts(tmp_path / "root" / "charts.ipynb")
    token, port = secrets.token_hex(16), free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["notebook", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path / 'root'}",
               "--allow-root"]  # fmt: skip
    with serving(command, tmp_path / "server", f"{url}/api"):
        server = Lab(url, token, tmp_path / "root")
        tab = Tab(browser, url)
        tab.page.goto(f"{url}/notebooks/charts.ipynb?token={token}")
        dialog = tab.page.locator(".jp-Dialog")
        dialog.get_by_role("button", name="No Kernel").click()
        dialog.wait_for(state="detached")
        for kind in KINDS:
            place = tab.page.locator(".jp-Cell").filter(has_text=f"bl.explore.{kind}(")
            place.scroll_into_view_if_needed()
            place.locator("canvas").first.wait_for()
            tab.screenshot(f"{shot}_{kind}")
            answers_to_keys(tab, place)
            answers_to_the_mouse(tab, place, kind)
        assert server.api("kernels") == server.api("sessions") == []
        assert [fault for fault in tab.faults if fault != OF_NOTEBOOK_7] == []
        tab.close()


# ---- the built site, from disk ----


@pytest.fixture(scope="module")
def site(chromium, tmp_path_factory) -> Path:
    """The book with the notebooks that hold one chart of each kind."""
    out = tmp_path_factory.mktemp("book") / "site"
    names = dict.fromkeys(name for name, *_ in stored().values())
    command = [sys.executable, str(ROOT / "docs/book.py"), "--out", str(out), "--parts", "errors"]
    subprocess.run([*command, "--notebooks", *names], check=True, capture_output=True, timeout=580)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_the_site_answers_from_disk_with_the_network_off(site, browser, shot, kind):
    page = site / "notebooks" / f"{stored()[kind][0]}.html"
    tab = Tab(browser, site.as_uri(), **(ZOOMED if kind == "atlas" else NARROW))
    tab.page.context.set_offline(True)
    tab.page.goto(page.as_uri())
    place = tab.page.locator(".bl-explorable[data-drawn=yes]").first
    place.locator("canvas").wait_for()
    place.scroll_into_view_if_needed()
    fits(tab, place)
    tab.screenshot(shot)
    answers_to_keys(tab, place)
    answers_to_the_mouse(tab, place, kind)
    accessible(tab)
    assert tab.faults == []
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_other_pages_of_the_site_are_for_everybody(site, browser, scheme):
    charts = {name for name, *_ in stored().values()}
    pages = [page for page in sorted(site.rglob("*.html")) if page.stem not in charts]
    assert len(pages) > 15
    tab = Tab(browser, site.as_uri(), **NARROW, color_scheme=scheme)
    for page in pages:
        tab.page.goto(page.as_uri())
        accessible(tab)
    assert tab.faults == []
    tab.close()


def test_no_title_is_cut_in_a_window_of_420_pixels(browser, tmp_path, shot):
    from fake_records import write_run

    import budgetlab as bl

    record = write_run(tmp_path, method="p-SGD", budget=0.3, size=300)
    for chart in (bl.explore.probabilities(record), bl.explore.atlas(record)):
        tab = Tab(browser, tmp_path.as_uri(), viewport={"width": 420, "height": 900})
        tab.page.goto(chart.save(tmp_path / "page.html").as_uri())
        fits(tab, tab.page.locator(".bl-explorable[data-drawn=yes]"))
        tab.screenshot(f"{shot}_{chart.title}")
        tab.close()


# ---- the life of a sample ----

# The samples of a kind of mark and where they lie on the canvas, and the heading of the life.
MARKS = """kind => {
  const {view} = document.querySelector('.bl-explorable'), padding = view.padding(), found = {};
  const walk = (marks, x, y) => marks.forEach(mark => mark.items.forEach(item => {
    if (mark.marktype === 'group') walk(item.items, x + (item.x || 0), y + (item.y || 0));
    else if (mark.name?.includes(kind)) found[item.datum.sample] = [x + item.x, y + item.y];
    else if (String(item.text).startsWith('Sample ')) found.life = item.text;
  }));
  walk([view.scenegraph().root], view.origin()[0] + padding.left, view.origin()[1] + padding.top);
  return found;
}"""


# How much of what is drawn lies beyond the right and the lower edge of the canvas.
CUT = """() => {
  const {view} = document.querySelector('.bl-explorable'), padding = view.padding();
  const {x2, y2} = view.scenegraph().root.bounds, [x, y] = view.origin();
  const canvas = document.querySelector('canvas').getBoundingClientRect();
  return Math.max(x + padding.left + x2 - canvas.width, y + padding.top + y2 - canvas.height);
}"""


def test_a_click_opens_the_life_of_a_sample_until_a_key_goes_on(browser, tmp_path):
    from fake_records import write_run

    import budgetlab as bl

    chart = bl.explore.atlas(write_run(tmp_path, method="p-SGD", budget=0.3, size=300))
    tab = Tab(browser, tmp_path.as_uri())
    tab.page.goto(chart.save(tmp_path / "page.html").as_uri())
    tab.page.wait_for_selector(".bl-explorable[data-drawn=yes]")
    canvas = tab.page.locator("canvas").first

    def life(kind: str) -> str:
        return tab.page.evaluate(MARKS, kind)["life"]

    first = life("images_marks")
    # The last of the images, which it does not begin with, and a point without one.
    for kind in ("images_marks", "points_marks"):
        places = tab.page.evaluate(MARKS, kind)
        sample = next(s for s in reversed(places) if s != "life" and f"Sample {s}:" not in first)
        x, y = places[sample]
        canvas.click(position={"x": x, "y": y})
        tab.page.wait_for_timeout(300)
        assert life(kind).startswith(f"Sample {sample}:")
        said = tab.page.locator("#vg-tooltip-element").inner_text()
        assert sample in said.split()
        assert not {"null", "undefined"} & set(said.split())
    tab.page.locator("input[name=nth]").press("End")
    tab.page.wait_for_timeout(300)
    assert tab.page.evaluate(CUT) <= 0
    tab.page.locator("input[name=nth]").press("Home")
    tab.page.locator("input[name=nth]").press("ArrowRight")
    tab.page.wait_for_timeout(300)
    order = chart.twin().index
    pictured = [
        s for s in order if chart.spec["data"]["values"][list(sorted(order)).index(s)]["image"]
    ]
    assert life("images_marks").startswith(f"Sample {pictured[1]}:")
    assert tab.faults == []
    tab.close()


# ---- VS Code and Colab, as far as they can be had here ----


@pytest.mark.parametrize("kind", KINDS)
def test_vega_embed_alone_draws_what_is_stored(browser, tmp_path, kind):
    """What a notebook renderer does: nothing of the kit is in the page, and no network."""
    import vl_convert

    _, bundle, _ = stored()[kind]
    (spec,) = (bundle[mime] for mime in MIMES.values() if mime in bundle)
    made = vl_convert.javascript_bundle("window.draw = vegaEmbed")
    (tmp_path / "page.html").write_text(
        f'<!DOCTYPE html><link rel="icon" href="data:,"><div id="place"></div>'
        f"<script>(() => {{ {made} }})()</script>"
    )
    tab = Tab(browser, tmp_path.as_uri())
    tab.page.context.set_offline(True)
    tab.page.goto((tmp_path / "page.html").as_uri())
    go = "async spec => { await draw('#place', spec, {renderer: 'canvas'}) }"
    tab.page.evaluate(go, spec)
    place = tab.page.locator("#place")
    answers_to_keys(tab, place)
    assert tab.faults == []
    tab.close()


# The output first and then its scripts, none of which finds another: Colab is reported to do so.
APART = """(output => {
  const made = document.createElement('template');
  made.innerHTML = output;
  const scripts = [...made.content.querySelectorAll('script')];
  scripts.forEach(script => script.remove());
  document.body.append(made.content);
  for (const {textContent} of scripts) {
    const script = Object.assign(document.createElement('script'), {textContent});
    document.body.append(script);
    script.remove();
  }
})"""


def test_a_frame_without_rights_or_network_draws_what_colab_is_given(
    browser, tmp_path, monkeypatch
):
    from fake_records import write_run

    import budgetlab as bl

    monkeypatch.setitem(sys.modules, "google.colab", object())
    chart = bl.explore.probabilities(write_run(tmp_path, method="p-SGD", budget=0.3, size=300))
    output = json.dumps(chart._repr_mimebundle_()[0]["text/html"]).replace("<", "\\u003c")
    page = html.escape(f"<body><script>{APART}({output})</script>")
    (tmp_path / "page.html").write_text(
        f'<link rel="icon" href="data:,"><iframe sandbox="allow-scripts" width="900" height="700" '
        f'srcdoc="{page}"></iframe>'
    )
    tab = Tab(browser, tmp_path.as_uri())
    tab.page.context.set_offline(True)
    tab.page.goto((tmp_path / "page.html").as_uri())
    frame = tab.page.frame_locator("iframe")
    slider = frame.locator(".bl-explorable[data-drawn=yes] .vega-bindings input").first
    canvas = frame.locator("canvas").first
    before = canvas.evaluate(PICTURE)
    slider.press("Home")
    slider.press("End")
    tab.page.wait_for_timeout(500)
    assert canvas.evaluate(PICTURE) != before
    assert tab.faults == []
    tab.close()


# ---- Voila ----

SHOW = """
import json
from IPython.display import display

for bundle, about in json.load(open("charts.json")):
    display(bundle, metadata=about, raw=True)
"""


def test_a_page_of_voila_answers_once_it_is_cut_off_from_its_kernel(app, browser, shot):
    (app.root / "charts.json").write_text(json.dumps([one for _, *one in stored().values()]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOW.strip())])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, app.root / "charts.ipynb")
    tab = Tab(browser, app.url)
    tab.page.goto(f"{app.url}/voila/render/charts.ipynb?token={app.token}")
    places = tab.page.locator(".jp-OutputArea-output:has(canvas)")
    places.nth(len(KINDS) - 1).wait_for()
    assert tab.faults == []
    tab.page.context.set_offline(True)  # no kernel can hear of it
    for number, kind in enumerate(KINDS):
        place = places.nth(number)
        place.scroll_into_view_if_needed()
        tab.screenshot(f"{shot}_{kind}")
        answers_to_keys(tab, place)
        answers_to_the_mouse(tab, place, kind)
    accessible(tab, ".jp-OutputArea-output")
    tab.close()
