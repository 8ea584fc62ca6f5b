"""Explorables saved as pages or stored in a notebook: drawn and answering with no kernel."""

import sys
from pathlib import Path

import nbformat
import pytest
from opened import Tab

import budgetlab as bl

sys.path.insert(0, str(Path(__file__).parents[1]))
from fake_records import write_run

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind of control: sliders, a brush, a legend."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [write_run(folder / "runs", method=method, budget=0.3) for method in ("SGD", "p-SGD")]
    charts = {
        "probabilities": bl.explore.probabilities(runs[1]),
        "atlas": bl.explore.atlas(runs[1]),
        "learning": bl.explore.learning(runs),
    }
    return {name: (chart, chart.save(folder / f"{name}.html")) for name, chart in charts.items()}


def opened(browser, path):
    tab = Tab(browser, path.as_uri())
    tab.page.set_viewport_size({"width": 900, "height": 900})
    tab.page.goto(path.as_uri())
    tab.page.wait_for_selector(".bl-explorable[data-drawn=yes] canvas")
    return tab


def value_of(tab, signal):
    return tab.page.evaluate(
        "name => document.querySelector('.bl-explorable').view.signal(name)", signal
    )


@pytest.mark.parametrize("name", ["probabilities", "atlas", "learning"])
def test_a_page_draws_itself_and_anybody_can_use_it(browser, pages, name):
    from axe_playwright_python.base import AXE_SCRIPT

    _, path = pages[name]
    tab = opened(browser, path)
    tab.page.evaluate(AXE_SCRIPT)
    found = tab.page.evaluate("axe.run()")
    assert [one["id"] for one in found["violations"]] == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 900
    tab.screenshot(f"explore_{name}")
    assert tab.faults == []
    tab.close()


def test_a_slider_answers_to_keys(browser, pages):
    chart, path = pages["probabilities"]
    tab = opened(browser, path)
    slider = tab.find("input[name=smoothing]")
    assert value_of(tab, "smoothing") == 1
    slider.focus()
    slider.press("Home")
    tab.page.wait_for_function(
        "() => document.querySelector('.bl-explorable').view.signal('smoothing') === 0"
    )
    shown = tab.page.evaluate(
        """async () => {
            const view = document.querySelector('.bl-explorable').view;
            await view.runAsync();
            const names = Object.keys(view.getState({data: () => true}).data);
            const sums = names.map(name => view.data(name)).find(
                rows => rows?.length === 1 && 'effective' in rows[0]);
            return sums[0];
        }"""
    )
    twin = chart.twin(smoothing=0)
    assert shown["effective"] == pytest.approx(twin["effective_samples"])
    assert shown["entropy"] == pytest.approx(twin["entropy"])
    tab.screenshot("explore_probabilities_moved")
    assert tab.faults == []
    tab.close()


def test_a_brush_selects_with_the_mouse_and_limits_with_the_keyboard(browser, pages):
    _, path = pages["atlas"]
    tab = opened(browser, path)
    box = tab.find("canvas").bounding_box()
    tab.page.mouse.move(box["x"] + 120, box["y"] + 120)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 260, box["y"] + 260, steps=5)
    tab.page.mouse.up()
    tab.page.wait_for_function(
        "() => Object.keys(document.querySelector('.bl-explorable').view.signal('brush')).length"
    )
    tab.find("input[name=y_low]").focus()
    tab.page.keyboard.press("End")
    assert value_of(tab, "y_low") == value_of(tab, "y_high")
    tab.screenshot("explore_atlas_brushed")
    assert tab.faults == []
    tab.close()


# ---- stored in a notebook ----


CHARTS = 4


@pytest.fixture(scope="module")
def stored(lab, browser, tmp_path_factory):
    """A notebook of charts as it is committed, opened with no kernel."""
    out = tmp_path_factory.mktemp("stored")
    runs = [write_run(out, method=method, budget=0.3) for method in ("SGD", "p-SGD")]
    on_points = [
        bl.explore.watch(bl.RunConfig(dataset="points", method=method, limit=200, epochs=4,
                                      batch_size=16, device="cpu"))
        for method in ("unif-SGD", "p-SGD")
    ]  # fmt: skip
    charts = [bl.explore.probabilities(runs[1]), bl.explore.learning(runs),
              bl.explore.atlas(runs[1]), bl.explore.playground(*on_points)]  # fmt: skip
    assert len(charts) == CHARTS
    notebook = nbformat.v4.new_notebook()
    for chart in charts:
        output = nbformat.v4.new_output("display_data", data=chart._repr_mimebundle_())
        notebook.cells.append(nbformat.v4.new_code_cell("chart", outputs=[output]))
    notebook.metadata["kernelspec"] = {"name": "nowhere", "display_name": "Nowhere"}
    folder = lab.root / "stored"
    folder.mkdir()
    nbformat.write(notebook, folder / "stored.ipynb")
    tab = Tab(browser, lab.url)
    place = "stored/stored.ipynb"
    tab.page.goto(f"{lab.url}/lab/workspaces/stored/tree/{place}?token={lab.token}")
    tab.page.get_by_role("button", name="No Kernel", exact=True).click()
    tab.page.wait_for_selector(".jp-Notebook .vega-embed")
    yield tab
    tab.close()


def chart_of(tab, number):
    """The chart of a cell, brought into the window: JupyterLab draws no cell far from it."""
    tab.page.evaluate(
        "number => jupyterapp.shell.currentWidget.content.scrollToItem(number, 'start')", number
    )
    chart = tab.page.locator(f"[data-windowed-list-index='{number}'] .vega-embed")
    chart.locator("canvas, svg").first.wait_for()
    return chart


@pytest.mark.parametrize(
    ("number", "control", "place"), [(0, "smoothing", 0.9), (2, "x_low", 0.5), (3, "epoch", 0.1)]
)
def test_a_stored_chart_answers_to_the_mouse_before_any_kernel(stored, lab, number, control, place):
    chart = chart_of(stored, number)
    before = chart.screenshot()
    slider = chart.locator(f".vega-bind input[name={control}]")
    box = slider.bounding_box()
    slider.click(position={"x": place * box["width"], "y": box["height"] / 2})
    stored.page.wait_for_timeout(500)
    assert chart.screenshot() != before
    assert lab.api("kernels") == []
    assert stored.faults == []


@pytest.mark.parametrize(
    ("look", "theme", "width", "height"),
    # 200% of a window of 1280 pixels leaves 640.
    [("narrow", "Light", 900, 900), ("dark", "Dark", 900, 900), ("zoomed", "Light", 640, 500)],
)
def test_stored_charts_can_be_read_by_anybody(stored, lab, look, theme, width, height):
    from axe_playwright_python.base import AXE_SCRIPT

    stored.page.evaluate(
        "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})",
        f"JupyterLab {theme}",
    )
    stored.page.set_viewport_size({"width": width, "height": height})
    try:
        for number in range(CHARTS):
            chart_of(stored, number)
            stored.screenshot(f"stored_{look}_{number}")
            stored.page.evaluate(AXE_SCRIPT)
            found = stored.page.evaluate("axe.run('.jp-OutputArea-output')")
            assert [one["id"] for one in found["violations"]] == []
        assert lab.api("kernels") == []
        assert stored.faults == []
    finally:
        stored.page.set_viewport_size({"width": 1280, "height": 1000})
