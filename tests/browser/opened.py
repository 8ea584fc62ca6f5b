"""A notebook that is open in a browser: what a user does with it, and what must not happen."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import Lab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


WAIT = 240_000  # milliseconds; long, for a busy machine, and only ever waited for in a failure
SCREENSHOTS = Path(__file__).parents[2] / "screenshots"

READY = """async () => {
  const shown = jupyterapp.shell.currentWidget;
  await shown.context.ready;
  await shown.sessionContext.ready;
  await shown.sessionContext.session.kernel.info;
}"""
ERRORS = """() => [...jupyterapp.shell.currentWidget.content.model.cells].flatMap(
  cell => cell.outputs ? cell.outputs.toJSON() : []
).filter(one => one.output_type === 'error').map(one => `${one.ename}: ${one.evalue}`)"""
WATCH = """(panel) => {
  const seen = window.seen = {frames: 0, blank: 0, heights: [], pictures: []};
  const look = () => {
    const image = panel.querySelector('img');
    const height = panel.getBoundingClientRect().height;
    seen.frames += 1;
    if (!image || !image.complete || !image.naturalWidth) seen.blank += 1;
    if (!seen.heights.includes(height)) seen.heights.push(height);
    if (image && !seen.pictures.includes(image.src)) seen.pictures.push(image.src);
    if (window.seen === seen) requestAnimationFrame(look);
  };
  look();
}"""


class Tab:
    """A tab of the browser, and what a user does with the widgets in it.

    Attributes
    ----------
    page
        The tab itself.
    faults
        Errors in the console of the browser, and requests to anything but the server.
    """

    def __init__(self, browser: "Browser", server: str, **window: Any):
        self.server = server
        self.faults: list[str] = []
        usual = {"viewport": {"width": 1280, "height": 1000}}
        self.page: Page = browser.new_context(**usual | window).new_page()
        self.page.set_default_timeout(WAIT)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(f"error in the page: {error}"))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("websocket", lambda socket: self._asked(socket.url))

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text}")

    def _asked(self, url: str) -> None:
        here = (self.server, self.server.replace("http", "ws", 1), "data:", "blob:")
        if not url.startswith(here):
            self.faults.append(f"request to {url}")

    def close(self) -> None:
        """Close the tab."""
        self.page.context.close()

    def screenshot(self, name: str) -> None:
        """Keep a picture of the window."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def find(self, selector: str) -> "Locator":
        """The one element that fits."""
        return self.page.locator(selector)

    def click(self, selector: str) -> None:
        """Click as a user does, once it is there and enabled."""
        self.find(selector).click()

    def type_into(self, selector: str, text: str) -> None:
        """Type a value into the field of a control, and Enter."""
        field = self.find(f"{selector} input").first
        field.fill(text)
        field.press("Enter")

    def choose(self, selector: str, text: str) -> None:
        """Choose from a list."""
        self.find(f"{selector} select").select_option(label=text)

    def status(self, widget: str) -> str:
        """What the status line of a widget says."""
        return self.find(f"{widget} > .bl-status [role=status]").last.inner_text()

    def wait_for_status(self, widget: str, *words: str, after_problem: bool = False) -> str:
        """Wait until the status line says one of some words; returns all that it says.

        Another problem than the one waited for ends the waiting, unless it stood there before.
        """
        ends = list(words) if after_problem else [*words, "Problem:"]
        self.page.wait_for_function(
            """([selector, words]) => {
                const lines = document.querySelectorAll(selector);
                const said = lines.length ? lines[lines.length - 1].innerText : '';
                return words.some(word => said.includes(word));
            }""",
            arg=[f"{widget} > .bl-status [role=status]", ends],
        )
        said = self.status(widget)
        assert any(word in said for word in words) or "Problem:" not in said, said
        return said

    def wait_for_alt(self, selector: str, words: str) -> str:
        """Wait until a picture says some words; returns all that it says."""
        self.page.wait_for_function(
            """([selector, words]) =>
                document.querySelector(selector)?.getAttribute('alt')?.includes(words)""",
            arg=[selector, words],
        )
        return self.find(selector).get_attribute("alt") or ""

    def watch(self, selector: str) -> Callable[[], dict]:
        """Look at a picture in every frame of the screen, until the result is called for."""
        self.find(selector).evaluate(WATCH)

        def seen() -> dict:
            return self.page.evaluate("() => { const all = seen; window.seen = null; return all }")

        return seen

    def seconds_until(self, act: Callable[[], None], widget: str, *words: str) -> float:
        """Seconds from an act of the user until the status line says some words."""
        began = time.perf_counter()
        act()
        self.wait_for_status(widget, *words)
        return time.perf_counter() - began


class Opened(Tab):
    """A notebook that is open in JupyterLab.

    Attributes
    ----------
    path, folder
        The notebook, and the folder where its kernel works.
    lab
        The server.
    """

    def __init__(
        self, browser: "Browser", lab: Lab, path: Path, *, kernel: bool = True, **window: Any
    ):
        super().__init__(browser, lab.url, **window)
        self.lab, self.path, self.folder = lab, path, path.parent
        place = path.relative_to(lab.root)
        # A workspace of its own, or it would open what the last test had open too.
        self.page.goto(f"{lab.url}/lab/workspaces/{path.stem}/tree/{place}?token={lab.token}")
        if kernel:
            self.wait_for_kernel()

    def end(self) -> None:
        """Close the tab and end the kernel."""
        self.close()
        self.lab.end_sessions()

    def wait_for_kernel(self) -> None:
        """Wait until the kernel answers; its idle light comes too early."""
        self.page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext")
        self.page.evaluate(READY)

    def command(self, name: str, **arguments: Any) -> None:
        """Execute a command of JupyterLab, to its end."""
        self.page.evaluate(
            "([name, given]) => jupyterapp.commands.execute(name, given)", [name, arguments]
        )

    def run_all(self) -> None:
        """Run all cells, one after the other."""
        self.command("notebook:run-all-cells")

    def run_cell(self, number: int, *, wait: bool = True) -> None:
        """Run one cell, counted from 0."""
        self.page.evaluate(
            "number => jupyterapp.shell.currentWidget.content.activeCellIndex = number", number
        )
        if wait:
            self.command("notebook:run-cell")
        else:
            self.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-cell') }")

    def scroll_to(self, number: int) -> None:
        """Bring a cell to the top of the window: one that is far from it is not in the page."""
        self.page.evaluate(
            "number => jupyterapp.shell.currentWidget.content.scrollToItem(number, 'start')", number
        )

    def errors(self) -> list[str]:
        """Errors that cells show."""
        return self.page.evaluate(ERRORS)
