"""The widgets in JupyterLab, as a user meets them: with a mouse, keys and a screen."""

import json
from pathlib import Path

import pytest
from opened import ERRORS
from same_results import same_results
from waiting import until

from budgetlab.records import open_record

# On a busy machine a kernel alone takes a minute to start.
pytestmark = pytest.mark.timeout(900)

ALL = ("imports", "broken", "bench", "twin", "images", "microscope", "playground", "explorer")
WIDGETS = (".bl-bench", ".bl-microscope", ".bl-playground", ".bl-explorer")
BENCH_CELL, TWIN_CELL, FOLLOW_CELL = 2, 3, 4


@pytest.fixture(scope="module")
def all_opened(open_notebook):
    """A notebook of all four widgets, all of it run; tests leave it usable."""
    opened = open_notebook("all", *ALL)
    opened.run_all()
    assert opened.errors() == []
    yield opened
    opened.end()


@pytest.fixture
def everything(all_opened, shot):
    yield all_opened
    all_opened.screenshot(shot)
    assert all_opened.faults == []
    assert all_opened.errors() == []


@pytest.fixture(scope="module")
def bench_opened(open_notebook):
    """A notebook of a bench whose run lasts until it is let go, of its twin and a microscope."""
    opened = open_notebook("bench", "imports", "held", "held bench", "twin", "follow")
    yield opened
    opened.end()


@pytest.fixture
def bench(bench_opened, shot):
    """The bench as its cell makes it, ready to train."""
    hold(bench_opened)
    for cell in range(BENCH_CELL + 1):
        bench_opened.run_cell(cell)
    bench_opened.wait_for_status(".bl-bench", "Ready")
    yield bench_opened
    bench_opened.screenshot(shot)
    assert bench_opened.faults == []


def hold(opened) -> None:
    """Let the runs of this notebook last."""
    (opened.folder / "hold").touch()


def let_go(opened) -> None:
    """Let them hurry to their end."""
    (opened.folder / "hold").unlink()


def records(opened) -> list[Path]:
    """Records of the runs on points, the oldest first."""
    found = (opened.folder / "runs").glob("points-*/record.json")
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_ctime)]


def begin(opened) -> Path:
    """Train, and wait until some of it is done; returns the record."""
    before = set(records(opened))
    opened.click(".bl-bench .bl-train")
    opened.wait_for_status(".bl-bench", "Training.")
    opened.wait_for_alt(".bl-bench .bl-accuracy img", "after epoch")
    (new,) = set(records(opened)) - before
    return new


# ---- all four ----


def test_run_all_shows_all_four(everything):
    assert everything.errors() == []
    for widget in WIDGETS:
        everything.find(widget).scroll_into_view_if_needed()
        assert everything.find(widget).is_visible()
    pictures = everything.page.locator(".jp-Notebook img").evaluate_all(
        "all => all.map(one => [one.alt, one.naturalWidth, one.getBoundingClientRect().width])"
    )
    assert len(pictures) > 20  # of which most are images
    shown = [(alt, width) for alt, width, across in pictures if across > 1]
    assert all(alt and width for alt, width in shown)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_narrow_window_in_both_themes(everything, theme, shot):
    from axe_playwright_python.base import AXE_SCRIPT

    everything.command("apputils:change-theme", theme=f"JupyterLab {theme}")
    everything.page.set_viewport_size({"width": 900, "height": 900})
    try:
        everything.page.wait_for_function(
            "theme => document.body.dataset.jpThemeName === `JupyterLab ${theme}`", arg=theme
        )
        for widget in WIDGETS:
            everything.find(widget).scroll_into_view_if_needed()
            everything.screenshot(f"{shot}{widget}")
        assert everything.page.evaluate(WIDER_THAN_ITS_PLACE) == []
        assert everything.page.evaluate(BROKEN_WORDS) == []
        everything.page.evaluate(AXE_SCRIPT)
        # Only what cells show: JupyterLab around it is not ours to mend.
        found = everything.page.evaluate("axe.run('.jp-OutputArea-output')")
        assert [show_violation(one) for one in found["violations"]] == []
        assert len(found["passes"]) > 10
    finally:
        everything.page.set_viewport_size({"width": 1280, "height": 1000})
        everything.command("apputils:change-theme", theme="JupyterLab Light")


WIDER_THAN_ITS_PLACE = """() => [
  document.documentElement, ...document.querySelectorAll('.jp-Notebook, .jp-Notebook *')
].filter(one => one.scrollWidth > one.clientWidth + 1
  && ['auto', 'scroll'].includes(getComputedStyle(one).overflowX)
  && !one.closest('.jp-InputArea')
).map(one => `${one.className}: ${one.scrollWidth} in ${one.clientWidth}`)"""

BROKEN_WORDS = """() => [...document.querySelectorAll('.bl-bench :is(td, th)')].filter(cell => {
  const range = document.createRange();
  return [...cell.textContent.matchAll(/[^\\s-]+/g)].some(({0: word, index}) => {
    range.setStart(cell.firstChild, index);
    range.setEnd(cell.firstChild, index + word.length);
    return range.getClientRects().length > 1;
  });
}).map(cell => cell.textContent)"""


def show_violation(one: dict) -> str:
    return json.dumps([one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:5]]])


def test_sliders_take_keys_mouse_and_typed_values(everything):
    picture = ".bl-microscope .bl-fig img"
    handle = everything.find(".bl-microscope .bl-epoch .noUi-handle")
    assert handle.get_attribute("aria-label") == "Epoch"
    everything.wait_for_alt(picture, "Epoch 3:")
    handle.focus()
    handle.press("ArrowLeft")
    everything.wait_for_alt(picture, "Epoch 2:")
    bar = everything.find(".bl-microscope .bl-epoch .noUi-base").bounding_box()
    assert bar is not None
    handle.hover()
    everything.page.mouse.down()
    everything.page.mouse.move(bar["x"] - 5, bar["y"] + bar["height"] / 2, steps=5)
    everything.page.mouse.up()
    everything.wait_for_alt(picture, "Epoch 1:")
    everything.type_into(".bl-microscope .bl-epoch", "3")
    everything.wait_for_alt(picture, "Epoch 3:")
    assert handle.get_attribute("aria-valuetext") == "3"
    # Of keys pressed in quick succession, none is lost.
    everything.find(".bl-bench .bl-budget .noUi-handle").focus()
    for arrow, budget in (("ArrowRight", "0.59"), ("ArrowLeft", "0.5")):
        for _ in range(9):
            everything.page.keyboard.press(arrow)
        everything.page.wait_for_function(
            "budget => document.querySelector('.bl-bench .bl-budget input').value === budget",
            arg=budget,
        )
    # Out of its range: the nearest end.
    everything.type_into(".bl-microscope .bl-epoch", "99")
    everything.page.wait_for_function(
        "() => document.querySelector('.bl-microscope .bl-epoch input').value === '3'"
    )


def test_button_and_twin_give_the_same_record(everything):
    (twin,) = records(everything)
    everything.click(".bl-bench .bl-train")
    everything.wait_for_status(".bl-bench", f"{twin.name}-2.")
    assert everything.status(".bl-bench").startswith("Finished")
    same_results(twin, twin.with_name(f"{twin.name}-2"))


def test_what_goes_wrong_is_said_and_the_bench_stays_usable(everything):
    everything.type_into(".bl-bench .bl-dataset", "pionts")
    everything.click(".bl-bench .bl-train")
    said = everything.wait_for_status(".bl-bench", "Problem:")
    assert "pionts" in said
    assert "points" in said
    everything.type_into(".bl-bench .bl-dataset", "points")
    everything.choose(".bl-bench .bl-method", "broken")
    everything.click(".bl-bench .bl-train")
    wrong = "Problem: ValueError: no scores today"
    everything.wait_for_status(".bl-bench", wrong, after_problem=True)
    everything.choose(".bl-bench .bl-method", "unif-SGD")
    everything.page.wait_for_function(
        "() => document.querySelector('.bl-explanation').innerText.startsWith('unif-SGD: ')"
    )
    everything.click(".bl-bench .bl-train")
    everything.wait_for_status(".bl-bench", "Finished", after_problem=True)
    everything.choose(".bl-bench .bl-method", "p-SGD")


def test_playground_trains_plays_pauses_and_steps(everything):
    picture = ".bl-playground .bl-fig img"
    everything.click(".bl-playground .bl-train")
    everything.wait_for_status(".bl-playground", "Finished: 4 epochs")
    everything.type_into(".bl-playground .bl-epoch", "1")
    everything.wait_for_alt(picture, "Epoch 1 of two runs")
    everything.choose(".bl-playground .bl-speed", "slow")
    play = everything.find(".bl-playground .bl-play")
    seen = everything.watch(".bl-playground .bl-fig")
    play.click()
    everything.wait_for_alt(picture, "Epoch 2 of two runs")
    play.click()
    everything.page.wait_for_function(
        "() => document.querySelector('.bl-playground .bl-play').innerText === 'Play'"
    )
    everything.click(".bl-playground .bl-forth")
    everything.page.wait_for_function(
        "() => document.querySelector('.bl-playground .bl-epoch input').value >= 3"
    )
    everything.choose(".bl-playground .bl-way", "colour")
    found = seen()
    assert len(found["heights"]) == 1
    assert found["blank"] == 0


def test_the_explorer_draws_again(everything):
    sheet = everything.find(".bl-explorer table").first
    before = sheet.inner_html()
    everything.click(".bl-explorer .bl-again")
    everything.page.wait_for_function(
        "before => document.querySelector('.bl-explorer table').innerHTML !== before", arg=before
    )
    everything.choose(".bl-explorer .bl-detail", "mixup")
    assert everything.find(".bl-explorer table").count() == 2


# ---- a run that takes a while ----


def test_train_watch_stop_resume(bench):
    seen = bench.watch(".bl-bench .bl-accuracy")
    begin(bench)
    stopping = [bench.seconds_until(lambda: bench.click(".bl-bench .bl-stop"), ".bl-bench", "Stop")]
    said = bench.wait_for_status(".bl-bench", "Stopped.")
    assert "Resume goes on" in said
    path = records(bench)[-1]
    assert open_record(path).status == "stopped"
    for _ in range(2):
        bench.click(".bl-bench .bl-resume")
        bench.wait_for_status(".bl-bench", "Training.")
        if min(stopping) < 1.5:
            break
        # Another program may have had the processor: once more.
        stop = lambda: bench.click(".bl-bench .bl-stop")  # noqa: E731
        stopping.append(bench.seconds_until(stop, ".bl-bench", "Stop"))
        bench.wait_for_status(".bl-bench", "Stopped.")
    assert min(stopping) < 1.5
    let_go(bench)
    bench.wait_for_status(".bl-bench", "Finished")
    found = seen()
    assert len(found["heights"]) == 1
    assert found["blank"] == 0
    assert len(found["pictures"]) >= 3
    record = open_record(path)
    assert record.status == "finished"
    assert len(record.epochs) == 15  # full passes, until half of 30 epochs is spent
    assert bench.errors() == []


def test_the_microscope_follows_a_run(bench):
    path, picture = begin(bench), ".bl-microscope .bl-fig img"
    until(lambda: len(open_record(path).epochs))
    bench.run_cell(FOLLOW_CELL)
    bench.scroll_to(FOLLOW_CELL)
    bench.choose(".bl-microscope .bl-method", "p-SGD")
    bench.wait_for_alt(picture, ": p-SGD at budget")
    seen = bench.watch(".bl-microscope .bl-fig")
    follow = bench.find(".bl-microscope .bl-follow")
    follow.click()
    bench.page.get_by_role("button", name="Stop following").wait_for()
    let_go(bench)
    bench.wait_for_alt(picture, "Epoch 15: p-SGD")
    bench.wait_for_status(".bl-microscope", "This run has ended")
    assert follow.inner_text() == "Follow"
    found = seen()
    assert len(found["heights"]) == 1
    assert found["blank"] == 0
    assert bench.errors() == []


def test_the_cell_is_run_again_during_training(bench):
    path = begin(bench)
    bench.run_cell(BENCH_CELL)
    bench.wait_for_status(".bl-bench", "Ready")
    bench.page.wait_for_function("() => document.querySelectorAll('.bl-bench').length === 1")
    second = begin(bench)
    assert second != path
    assert open_record(path).status == "stopped"
    bench.click(".bl-bench .bl-stop")
    bench.wait_for_status(".bl-bench", "Stopped.")
    assert bench.errors() == []


def test_the_tab_is_loaded_again_during_training(bench):
    path = begin(bench)
    bench.command("docmanager:save")
    bench.page.reload()
    bench.wait_for_kernel()
    bench.wait_for_status(".bl-bench", "Training.")
    bench.click(".bl-bench .bl-stop")
    bench.wait_for_status(".bl-bench", "Stopped.")
    assert open_record(path).status == "stopped"
    assert bench.errors() == []


def test_the_notebook_is_closed_and_opened_again(bench):
    bench.command("docmanager:save")
    bench.command("application:close")
    bench.page.wait_for_function("() => !jupyterapp.shell.currentWidget?.sessionContext")
    bench.command("docmanager:open", path=str(bench.path.relative_to(bench.lab.root)))
    bench.wait_for_kernel()
    bench.wait_for_status(".bl-bench", "Ready")
    begin(bench)
    bench.click(".bl-bench .bl-stop")
    bench.wait_for_status(".bl-bench", "Stopped.")
    assert bench.errors() == []


def test_the_twin_is_interrupted(bench):
    before = set(records(bench))
    bench.run_cell(TWIN_CELL, wait=False)
    bench.wait_for_alt(".bl-bench .bl-accuracy img", "after epoch")
    bench.command("notebook:interrupt-kernel")
    bench.wait_for_status(".bl-bench", "Stopped.")
    (path,) = set(records(bench)) - before
    assert open_record(path).status == "stopped"
    bench.page.wait_for_function(f"() => ({ERRORS})().length === 1")
    assert bench.errors()[0].startswith("KeyboardInterrupt")
    let_go(bench)
    bench.click(".bl-bench .bl-resume")
    bench.wait_for_status(".bl-bench", "Finished")
    assert open_record(path).status == "finished"


def test_restart_and_run_all(bench):
    begin(bench)
    let_go(bench)
    # The command waits for the cells, and they for the answer to its question.
    bench.page.evaluate(
        "() => { window.done = false;"
        "jupyterapp.commands.execute('notebook:restart-run-all').then(() => { done = true }) }"
    )
    bench.page.locator(".jp-Dialog .jp-mod-accept").click()
    bench.page.wait_for_function("() => done")
    bench.wait_for_status(".bl-bench", "Finished")
    bench.page.wait_for_function("() => document.querySelectorAll('.bl-bench').length === 1")
    hold(bench)
    begin(bench)
    bench.click(".bl-bench .bl-stop")
    bench.wait_for_status(".bl-bench", "Stopped.")
    assert bench.errors() == []


# ---- a prediction ----


def test_a_result_shows_once_the_prediction_is_locked(open_notebook, shot):
    opened = open_notebook("predict", "imports", "predict", "reveal", "predict", "reveal")
    opened.run_all()
    waiting = opened.page.locator(".bl-reveal")
    waiting.nth(1).wait_for()
    assert "eleven" not in waiting.first.inner_text()
    opened.page.get_by_label("the redrawn part").first.check()
    opened.page.get_by_role("button", name="Lock my prediction").first.click()
    opened.page.get_by_text("you predicted: the redrawn part").first.wait_for()
    assert "eleven points" in waiting.first.inner_text()
    opened.run_cell(3)
    opened.page.locator(".bl-predict").nth(1).get_by_text("Locked.").wait_for()
    opened.screenshot(shot)
    assert opened.errors() == []
    assert opened.faults == []
    opened.end()
