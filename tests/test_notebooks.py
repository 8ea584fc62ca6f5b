"""Every notebook runs without a front end, solved and unsolved, and reads as the others do."""

import asyncio
import importlib.util
import itertools
import json
import os
import queue
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import zmq.asyncio
from jupyter_client.session import Session

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def load(file: Path):
    spec = importlib.util.spec_from_file_location(f"own_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


book, build, course = (
    load(ROOT / "docs/book.py"), load(FOLDER / "build.py"), load(FOLDER / "course.py")
)  # fmt: skip


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


# -- running ---------------------------------------------------------------------------


def solved_then_empty(path: Path) -> nbformat.NotebookNode:
    """Put an empty exercise and its check after each solved one.

    So one run shows that the solution passes, that the empty answer does not, and that
    the rest of the notebook runs with the empty one, as it does for a student.
    """
    notebook = read(path)
    empty = course.for_students(notebook, path.stem).cells
    cells = []
    for number, cell in enumerate(notebook.cells):
        cells.append(cell)
        if course.has_tag(cell, "check"):
            cells += [find_exercise(empty, number), empty[number]]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    notebook.cells = cells
    return notebook


def find_exercise(cells: list, check: int) -> nbformat.NotebookNode:
    """Return the last exercise before a check."""
    return next(cell for cell in reversed(cells[:check]) if course.has_tag(cell, "exercise"))


def smoke(path: Path, folder: Path, data: Path) -> nbformat.NotebookNode:
    """Run a copy at the smoke scale, so that a test never changes what is committed."""
    place = folder / path.stem / "notebooks"
    place.mkdir(parents=True)
    nbformat.write(solved_then_empty(path), place / path.name)
    shutil.copy(FOLDER / "build.py", place)
    (place / "data").symlink_to(data)
    if (FOLDER / "records").is_dir():
        (place / "records").symlink_to(FOLDER / "records")
    done = subprocess.run(
        [sys.executable, "build.py", path.stem], cwd=place, capture_output=True, text=True,
        env=os.environ | {"BUDGETLAB_SCALE": "smoke"}, timeout=560,
    )  # fmt: skip
    assert done.returncode == 0, f"{path.stem}: {done.stderr[-3000:]}"
    return read(place / path.name)


@pytest.fixture(scope="session")
def smoke_runs(request, tmp_path_factory, data_root) -> Iterator:
    """Call it with a path. Two run at a time, unless the tests themselves are spread."""
    folder = tmp_path_factory.mktemp("smoke")
    if "PYTEST_XDIST_WORKER" in os.environ:
        yield lambda path: smoke(path, folder, data_root)
        return
    name = "test_runs_at_the_smoke_scale"
    asked = [item.callspec.params["path"] for item in request.session.items
             if getattr(item, "originalname", "") == name]  # fmt: skip
    pool = ThreadPoolExecutor(2)
    runs = {path: pool.submit(smoke, path, folder, data_root) for path in asked}
    yield lambda path: runs[path].result()
    pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(600)
@every
def test_runs_at_the_smoke_scale(path, smoke_runs):
    """Solutions are right, empty answers are told, and neither stops the notebook."""
    ran = [cell for cell in smoke_runs(path).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in ran)
    checks = [cell for cell in ran if course.has_tag(cell, "check")]
    for solved, empty in zip(checks[::2], checks[1::2], strict=True):
        for name in course.checked(solved.source):
            assert f"{name}: right, " in printed(solved), printed(solved)
            assert f"{name}: nothing here yet" in printed(empty), printed(empty)


async def reply_that_a_send_hides(timeout: float, replies: bool = True) -> tuple[dict, float]:
    """Wait for a reply; when it has come, and before the loop sees it, send something.

    Returns the reply and the seconds that it lay there.
    """
    session, context = Session(key=b"of this test"), zmq.asyncio.Context()
    kernel, socket = zmq.Context(context).socket(zmq.ROUTER), context.socket(zmq.DEALER)
    socket.connect(f"tcp://127.0.0.1:{kernel.bind_to_random_port('tcp://127.0.0.1')}")
    channel = build.Replies(socket, session, asyncio.get_running_loop())
    try:
        channel.send(session.msg("execute_request"))
        asked_by, *_ = kernel.recv_multipart()
        waits = asyncio.create_task(channel.get_msg(timeout=timeout))
        await asyncio.sleep(0.1)
        if replies:
            session.send(kernel, "execute_reply", ident=asked_by)
        time.sleep(0.2)
        channel.send(session.msg("comm_msg"))
        came = time.monotonic()
        return await waits, time.monotonic() - came
    finally:
        kernel.close(0)
        socket.close(0)
        context.term()


def test_a_reply_is_seen_where_a_widget_sends_its_state_meanwhile():
    reply, seconds = asyncio.run(reply_that_a_send_hides(timeout=20))
    assert reply["header"]["msg_type"] == "execute_reply"
    assert seconds < 10
    with pytest.raises(queue.Empty):
        asyncio.run(reply_that_a_send_hides(timeout=1.5, replies=False))


# What Jupyter warns of, as where its parts are of different ages, is not ours.
@pytest.mark.filterwarnings("default")
def test_replies_are_looked_at_in_this_way_wherever_a_notebook_is_run(tmp_path, monkeypatch):
    cell = nbformat.v4.new_code_cell("6 * 7")
    read_one, read = build.Replies.get_msg, []

    async def get_msg(channel, timeout=None):
        read.append(await read_one(channel, timeout))
        return read[-1]

    monkeypatch.setattr(build.Replies, "get_msg", get_msg)
    build.execute(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    assert "execute_reply" in [reply["header"]["msg_type"] for reply in read]


# -- what is committed -----------------------------------------------------------------


def test_the_course_is_complete():
    numbers = [path.stem.split("_")[0] for path in NOTEBOOKS]
    assert len(numbers) == len(set(numbers))
    assert numbers == [f"{number:02d}" for number in range(len(numbers))]


@every
def test_is_committed_with_outputs_and_nothing_else(path):
    notebook, code = read(path), code_of(path)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    outputs = [output for cell in code for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "image/png" in kinds
    assert not any("widget" in kind for kind in kinds)
    assert not any(output.output_type == "error" for output in outputs)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < 1_000_000


@every
def test_names_no_place_of_the_machine_that_ran_it(path):
    for cell in code_of(path):
        text = json.dumps([output for output in cell.outputs if "png" not in str(output)[:200]])
        assert not re.search(r"/(home|root|work|Users)/", text), text[:300]


@every
def test_begins_with_the_cell_that_installs_the_kit(path):
    first = code_of(path)[0]
    assert first.source == build.SETUP
    assert not first.outputs


@every
def test_exercises_and_scaffolding_are_folded(path):
    for cell in code_of(path):
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert folded == any(course.has_tag(cell, tag) for tag in build.FOLDED), cell.source


# -- how it reads ----------------------------------------------------------------------


def headings(path: Path) -> list[str]:
    text = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    return [line for part in text for line in part.splitlines() if re.match(r"#+ ", line)]


@every
def test_has_one_title_and_headings_in_order(path):
    found = headings(path)
    assert found[0].startswith("# ")
    assert sum(line.startswith("# ") for line in found) == 1
    levels = [len(line.split(" ")[0]) for line in found]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), found


@every
def test_opens_with_a_question_and_what_it_takes(path):
    opening = read(path).cells[0].source
    assert "?" in opening
    assert "After this notebook you can" in opening
    assert len(re.findall(r"^- ", opening, re.M)) >= 2
    assert re.search(r"\*\*Takes\*\*.*(minute|second)", opening)


@every
def test_closes_with_what_was_found_and_references(path):
    found = headings(path)
    assert "## What we found" in found
    assert found[-1] == "## References"
    cells = read(path).cells
    start = next(i for i, cell in enumerate(cells) if "## What we found" in cell.source)
    asserted = [cell for cell in cells[start:] if cell.cell_type == "code"]
    assert any(re.search(r"^\s*assert ", cell.source, re.M) for cell in asserted)


@every
def test_has_a_demo_with_a_question_before_and_a_finding_after(path):
    cells = read(path).cells
    starts = [
        i for i, cell in enumerate(cells)
        if cell.cell_type == "markdown" and re.search(r"^#+ .*Demo", cell.source, re.M)
    ]  # fmt: skip
    assert starts
    for start in starts:
        before = cells[start].source.split("Demo", 1)[1]
        after = cells[start + 1 : start + 10]
        assert "?" in before, before
        assert any(re.search(r"\b(bl\.widgets|bl\.explore|W)\.", cell.source) for cell in after)
        # For a reader without a kernel, and for a run without a front end.
        shown = [i for i, cell in enumerate(after) if cell.cell_type == "code" and cell.outputs]
        assert shown, "no cell after the widget shows anything"
        assert any(cell.cell_type == "markdown" for cell in after[shown[0] + 1 :])


@every
def test_asks_before_it_shows_and_asks_again_at_the_end(path):
    """Two or more predictions, each resolved; five questions with answers; three lines."""
    cells = read(path).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    asked = re.findall(r"^(\w+) = bl\.course\.predict\(", code, re.M)
    assert 2 <= len(asked) <= 4
    assert [f"{name}.reveal(" in code for name in asked] == [True] * len(asked)
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    quiz, found = text.split("## Quiz")[1].split("## What we found")
    assert re.findall(r"^\*\*(\d)\.\*\*", quiz, re.M) == list("12345")
    assert quiz.count("<details><summary>Answer</summary>\n\n") == 5
    assert len(re.findall(r"^- ", found.split("## References")[0], re.M)) == 3
    thoughts = text.count("> **Think!**")
    assert text.count("<details>") == text.count("</details>") >= thoughts + 5


@every
def test_is_short_and_says_how_hard_and_how_long_a_section_is(path):
    text = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    assert sum(len(part.split()) for part in text) <= 1300
    sections = re.split(r"^## ", "\n".join(text), flags=re.M)[1:]
    plain = ("Quiz", "What we found", "References")
    lessons = [part for part in sections if not part.startswith(plain)]
    marks = [re.search(r"^\*Level [123] of 3, \d+ minutes\*$", part, re.M) for part in lessons]
    assert all(marks), [part.splitlines()[0] for part in lessons]


@every
def test_links_to_terms_that_the_glossary_has(path):
    """A link to a heading that is not there leads to the top of the page, and nobody notices."""
    terms = re.findall(r"^## (.+)$", (FOLDER / "GLOSSARY.md").read_text(), re.M)
    anchors = {term.lower().replace(" ", "-") for term in terms}
    text = "\n".join(cell.source for cell in read(path).cells)
    linked = re.findall(r"\(GLOSSARY\.md#([\w-]+)\)", text)
    assert linked
    assert set(linked) <= anchors


@every
def test_asserts_are_scaffolding(path):
    for cell in code_of(path):
        if re.search(r"^\s+assert ", cell.source, re.M) and not course.has_tag(cell, "setup"):
            assert course.has_tag(cell, "hide-input"), cell.source


@every
def test_makes_the_reader_think(path):
    assert any("> **Think!**" in cell.source for cell in read(path).cells)


@every
def test_has_an_exercise_and_a_check(path):
    found = list(course.exercises(read(path), path.stem))
    assert found
    for exercise, _ in found:
        assert re.search(r'^def \w+\(.*\n {4}"""', exercise.source, re.M), exercise.source


@every
def test_no_later_cell_needs_the_answer_to_an_exercise(path):
    code = code_of(path)
    for exercise, check in course.exercises(read(path), path.stem):
        (name,) = re.findall(r"^def (\w+)", exercise.source, re.M)
        place = next(i for i, cell in enumerate(code) if cell.id == check.id)
        # The kit's own function may have the same name.
        called = re.compile(rf"(?<!bl\.samplers\.)\b{name}\(")
        users = [cell.source for cell in code[place + 1 :] if called.search(cell.source)]
        assert users == []


@every
def test_cells_are_short(path):
    code = code_of(path)[1:]
    lengths = [len(cell.source.splitlines()) for cell in code]
    assert max(lengths) <= 15, code[lengths.index(max(lengths))].source
    # Imports, scaffolding and exercises have lines that are not for reading on.
    others = {"parameters", "exercise", "check", "hide-input"}
    lesson = [cell.source for cell in code[1:] if not others & set(cell.metadata.get("tags", []))]
    lengths = [sum(bool(line.strip()) for line in text.splitlines()) for text in lesson]
    assert statistics.median(lengths) <= 5, lengths


@every
def test_defines_no_class_but_a_method(path):
    for cell in code_of(path):
        if re.search(r"^class ", cell.source, re.M):
            assert re.search(r"^@bl\.sampler\(.*\nclass ", cell.source, re.M), cell.source


@every
def test_one_cell_sets_the_scale(path):
    (cell,) = [cell for cell in code_of(path) if course.has_tag(cell, "parameters")]
    assert 'os.environ.get("BUDGETLAB_SCALE", "full")' in cell.source


@every
def test_every_figure_is_described(path):
    cells = read(path).cells
    for number, cell in enumerate(cells):
        if cell.cell_type == "code" and book.has_figure(cell):
            text = book.describe(cell, cells[number + 1 : number + 3])
            assert len(text) > 30, f"no words for the figure of: {cell.source}"


def test_the_index_names_every_notebook():
    index = (FOLDER / "README.md").read_text()
    linked = re.findall(r"\]\((\w+)\.ipynb\) \|", index)
    assert linked == [path.stem for path in NOTEBOOKS]
