"""Saved explorables, opened from disk: drawn and answering with no kernel and no network."""

import sys
from pathlib import Path

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
