"""The bench and the playground as pages: what ``make app`` starts."""

import re
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, free_port, serving
from opened import Tab

# On a busy machine a kernel alone takes a minute to start.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "notebooks" / "app"


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[Lab]:
    """The app as the Makefile starts it, on copies, at a port of its own."""
    folder, port = tmp_path_factory.mktemp("app"), free_port()
    setting, _, _, module, pages, *options = command_of_make(port)
    assert (module, pages) == ("voila", "notebooks/app")
    name, _, place = setting.partition("=")
    # What it trains is written beside the pages.
    root = folder / "notebooks" / "app"
    shutil.copytree(PAGES, root)
    url = f"http://127.0.0.1:{port}"
    command = ["voila", str(root), *options, "--no-browser"]
    with serving(command, folder / "server", f"{url}/login", **{name: str(ROOT / place)}):
        said = (folder / "server" / "server.log").read_text()
        found = re.search(rf"{url}/\?token=(\w+)", said)
        assert found, said
        yield Lab(url, found[1], root)


def command_of_make(port: int) -> list[str]:
    """What ``make app`` would run."""
    command = ["make", "-n", "-o", ".venv/.installed", "app", f"PORT={port}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = made.stdout.replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if "voila" in line]
    return shlex.split(line)


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
    assert "--Voila.ip=127.0.0.1" in command_of_make(8866)


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


def test_pages_are_committed_without_outputs():
    for path in PAGES.glob("*.ipynb"):
        assert '"outputs": []' in path.read_text()
