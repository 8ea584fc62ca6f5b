"""One JupyterLab, one app and one browser for all tests in this folder."""

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import (
    ROOT,
    Lab,
    browser_path,
    command_of_make,
    free_port,
    running_lab,
    serving,
    write_notebook,
)

if TYPE_CHECKING:
    from opened import Opened
    from playwright.sync_api import Browser

FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


def missing() -> str:
    """What the tests need and is not installed, as a sentence."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install -e '.[test]'"
    if browser_path() is None:
        return (
            "no Chromium is installed: on Debian apt-get install --no-install-recommends "
            "chromium fonts-dejavu-core, or name one in BUDGETLAB_BROWSER"
        )
    return ""


@pytest.fixture(scope="package")
def chromium() -> str:
    """Where Chromium is; without it, tests are skipped unless they are required."""
    reason = missing()
    if reason and os.environ.get("BUDGETLAB_REQUIRE_BROWSER"):
        pytest.fail(f"BUDGETLAB_REQUIRE_BROWSER is set, and {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)
    path = browser_path()
    assert path is not None
    return path


@pytest.fixture(scope="package")
def lab(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab of its own."""
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="package")
def app(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The app as the Makefile starts it, on copies, at a port of its own."""
    folder, port = tmp_path_factory.mktemp("app"), free_port()
    setting, _, _, module, pages, *options = command_of_make("app", port)
    assert (module, pages) == ("voila", "notebooks/app")
    name, _, place = setting.partition("=")
    # What it trains is written beside the pages.
    root = folder / "notebooks" / "app"
    shutil.copytree(ROOT / "notebooks" / "app", root)
    url = f"http://127.0.0.1:{port}"
    command = ["voila", str(root), *options, "--no-browser"]
    with serving(command, folder / "server", f"{url}/login", **{name: str(ROOT / place)}):
        said = (folder / "server" / "server.log").read_text()
        found = re.search(rf"{url}/\?token=(\w+)", said)
        assert found, said
        yield Lab(url, found[1], root)


@pytest.fixture(scope="package")
def browser(chromium: str) -> "Iterator[Browser]":
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield made
        made.close()


@pytest.fixture(scope="package")
def open_notebook(lab: Lab, browser: "Browser") -> "Callable[..., Opened]":
    """Write a notebook of some cells and open it."""

    def go(name: str, *cells: str) -> "Opened":
        from opened import Opened

        folder = lab.root / name
        folder.mkdir()
        return Opened(browser, lab, write_notebook(folder / f"{name}.ipynb", cells))

    return go


@pytest.fixture
def shot(request: pytest.FixtureRequest) -> str:
    """Name of the screenshot of a test."""
    return Path(request.node.name).stem.removeprefix("test_")
