"""The bench and the playground as pages: what ``make app`` starts."""

import urllib.error
import urllib.request

import pytest
from lab import ROOT, command_of_make
from opened import Tab

# On a busy machine a kernel alone takes a minute to start.
pytestmark = pytest.mark.timeout(900)

PAGES = ROOT / "notebooks" / "app"


def get(url: str) -> tuple[int, str]:
    """Status and text of a reply, whatever it is."""
    try:
        with urllib.request.urlopen(url, timeout=120) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("page", ["", "voila/render/bench.ipynb", "api/kernels/1"])
@pytest.mark.parametrize("query", ["", "?token=wrong"])
def test_nothing_is_shown_without_the_token(app, page, query):
    status, shown = get(f"{app.url}/{page}{query}")
    assert status in (403, 404) or 'name="password"' in shown
    assert "Two methods choose among points" not in shown
    assert "Train within a budget" not in shown


def test_with_the_token_both_pages_are_listed(app):
    status, shown = get(f"{app.url}/?token={app.token}")
    assert status == 200
    assert "Train within a budget" in shown
    assert "Two methods choose among points" in shown
    status, shown = get(f"{app.url}/voila/tree?token={app.token}")
    assert status == 200


def test_the_start_page_asks_nobody_and_leads_to_the_pages(app, browser):
    tab = Tab(browser, app.url)
    tab.page.goto(f"{app.url}/?token={app.token}")
    assert tab.page.title() == "budgetlab"
    tab.screenshot("app_start")
    tab.page.get_by_role("link", name="Two methods choose among points").click()
    tab.wait_for_status(".bl-playground", "Ready")
    assert tab.faults == []
    tab.close()


def test_it_is_there_for_this_machine_only():
    assert "--Voila.ip=127.0.0.1" in command_of_make("app")


@pytest.mark.parametrize(
    ("name", "widget", "begun"),
    [("bench", ".bl-bench", "Training"), ("playground", ".bl-playground", "Training: ")],
)
def test_a_page_trains_and_stops(app, browser, name, widget, begun):
    tab = Tab(browser, app.url)
    tab.page.goto(f"{app.url}/voila/render/{name}.ipynb?token={app.token}")
    tab.wait_for_status(widget, "Ready")
    tab.type_into(f"{widget} .bl-epochs", "500" if name == "bench" else "200")
    if name == "bench":
        tab.type_into(f"{widget} .bl-dataset", "points")
    tab.click(f"{widget} .bl-train")
    tab.wait_for_status(widget, begun)
    tab.click(f"{widget} .bl-stop")
    tab.wait_for_status(widget, "Stopped")
    tab.screenshot(f"app_{name}")
    assert "import budgetlab" not in tab.page.inner_text("body")  # a page shows no code
    assert tab.faults == []
    tab.close()


def test_the_bench_fits_a_projector(app, browser):
    tab = Tab(browser, app.url, viewport={"width": 1280, "height": 800})
    tab.page.goto(f"{app.url}/voila/render/bench.ipynb?token={app.token}")
    tab.wait_for_status(".bl-bench", "Ready")
    for method in ("p-SGD", "unif-SGD", "selective-backprop"):
        tab.choose(".bl-bench .bl-method", method)
        tab.click(".bl-bench .bl-train")
        tab.wait_for_status(".bl-bench", "Training.")
        tab.wait_for_status(".bl-bench", "Finished")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 1280
    boxes = [image.bounding_box() for image in tab.page.locator(".bl-bench .bl-fig img").all()]
    tab.screenshot("bench")
    left, right = min(b["x"] for b in boxes), max(b["x"] + b["width"] for b in boxes)
    assert right - left > 0.85 * 1280
    assert max(b["y"] + b["height"] for b in boxes) <= 800
    # Where the list does not fit, its third row is half hidden: there is more to scroll to.
    tab.page.set_viewport_size({"width": 500, "height": 800})
    shown, third = (tab.page.locator(one).last.bounding_box() for one in (".bl-runs", ".bl-remove"))
    end = shown["y"] + shown["height"]
    assert third["y"] + 8 < end < third["y"] + third["height"] - 8
    assert tab.faults == []
    tab.close()


def test_pages_are_committed_without_outputs():
    for path in PAGES.glob("*.ipynb"):
        assert '"outputs": []' in path.read_text()
