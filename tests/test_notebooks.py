"""Every notebook runs without a front end, solved and unsolved, and reads as the others do."""

import asyncio
import copy
import functools
import itertools
import json
import queue
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
import vl_convert
import zmq.asyncio
from jupyter_client.session import Session
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from scripts import NOTEBOOKS, ROOT, load

from budgetlab.explore.chart import VEGA_LITE

FOLDER = ROOT / "notebooks"
DRAWN = {"application/vnd.vegalite.v5+json": r"/vega-lite/v5(\.\d+)*\.json$",
         "application/vnd.vega.v5+json": r"/vega/v5(\.\d+)*\.json$"}  # fmt: skip
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


book, build, course = (
    load(place) for place in ("docs/book.py", "notebooks/build.py", "notebooks/course.py")
)


@functools.cache
def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def source_digest(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


# -- running ---------------------------------------------------------------------------


def solved_then_empty(path: Path) -> nbformat.NotebookNode:
    """Put an empty exercise and its check after each solved one.

    So one run shows that the solution passes, that the empty answer does not, and that
    the rest of the notebook runs with the empty one, as it does for a student.
    """
    notebook = copy.deepcopy(read(path))
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


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory, data_root) -> Iterator[Callable[[Path], list]]:
    """Run a copy of a notebook at the smoke scale; its code cells.

    All share one kernel, as imports take longest, and each begins without the names of others.
    """
    folder = tmp_path_factory.mktemp("smoke")
    kernel = build.Manager(kernel_name="python3")

    def run(path: Path) -> list[nbformat.NotebookNode]:
        place = folder / path.stem
        place.mkdir()
        (place / "data").symlink_to(data_root)
        (place / "records").symlink_to(FOLDER / "records")
        notebook = solved_then_empty(path)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {place}"))
        client = NotebookClient(notebook, km=kernel, timeout=500)
        client.execute()
        client.kc.stop_channels()
        return [cell for cell in notebook.cells[1:] if cell.cell_type == "code"]

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BUDGETLAB_SCALE", "smoke")
        yield run
    run_sync(kernel.shutdown_kernel)(now=True)


@pytest.mark.timeout(600)
@every
def test_runs_at_the_smoke_scale(path, smoke_run):
    """Solutions are right, empty answers are told, and neither stops the notebook."""
    ran = smoke_run(path)
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


@every
def test_is_committed_with_outputs_and_nothing_else(path):
    notebook, code = read(path), source_digest(path)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    outputs = [output for cell in code for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "image/png" in kinds
    assert not any("widget" in kind for kind in kinds)
    assert not any(output.output_type == "error" for output in outputs)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < 1_000_000
    # A browser writes 1.0 as 1, so that opening a notebook would change it.
    whole = re.search(r'^ *("[^"]*": )?-?\d+\.0,?$', path.read_text(encoding="utf-8"), re.M)
    assert not whole, whole
    text = json.dumps([output for output in outputs if "png" not in str(output)[:200]])
    assert not re.search(r"/(home|root|work|Users)/", text), "names a place of the machine"


def controls_of(vega):
    return {signal["name"]: signal["bind"] for signal in vega["signals"] if "bind" in signal}


def test_a_stored_chart_holds_what_each_reader_takes_and_asks_for_nothing():
    # JupyterLab, Notebook 7 and the renderers of VS Code draw these two types, and no later
    # version; VS Code prefers them to an image, as its own list of types lacks them. Whatever
    # draws neither, such as GitHub, shows the image.
    kept = [output for path in NOTEBOOKS for cell in source_digest(path) for output in cell.outputs]
    bundles = [output.data for output in kept if "data" in output]
    charts = [(kind, bundle) for bundle in bundles for kind in set(bundle) & DRAWN.keys()]
    assert {kind for kind, _ in charts} == set(DRAWN)
    assert len(charts) > 10
    for kind, bundle in charts:
        assert set(bundle) == {kind, "image/png", "text/plain"}
        assert re.search(DRAWN[kind], bundle[kind]["$schema"])
        text = json.dumps(bundle[kind])
        assert re.findall("https?://[^/]*", text) == ["https://vega.github.io"]  # the schema's name
        if "lite" in kind:  # VS Code draws with 5.5, JupyterLab with 5.6; this is the oldest here
            old, new = (vl_convert.vegalite_to_vega(bundle[kind], vl_version=version)
                        for version in ("5.8", VEGA_LITE))  # fmt: skip
            assert controls_of(old) == controls_of(new)
            assert len(controls_of(new)) > 0
    for bundle in bundles:
        assert not re.search(r"<script|require\(|application/javascript", json.dumps(bundle)[:9999])


@every
def test_scaffolding_is_tagged_and_folded(path):
    code = source_digest(path)
    assert code[0].source == build.SETUP
    assert not code[0].outputs
    (scale,) = [cell for cell in code if course.has_tag(cell, "parameters")]
    assert 'os.environ.get("BUDGETLAB_SCALE", "full")' in scale.source
    for cell in code:
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert folded == any(course.has_tag(cell, tag) for tag in build.FOLDED), cell.source
        if re.search(r"^\s+assert ", cell.source, re.M):
            assert course.has_tag(cell, "hide-input") or course.has_tag(cell, "setup"), cell.source


# -- how it reads ----------------------------------------------------------------------

ANSWER = "<details><summary>Answer</summary>\n\n"


def text_of(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def source_of(path: Path) -> str:
    return "\n".join(cell.source for cell in source_digest(path))


def asked(path: Path) -> list[tuple[str, str]]:
    """Name and question of each prediction."""
    pattern = r'^(\w+) = bl\.course\.predict\(\s*((?:"[^"]*"\s*)+),'
    return [(name, "".join(re.findall(r'"([^"]*)"', said)))
            for name, said in re.findall(pattern, source_of(path), re.M)]  # fmt: skip


@every
def test_opens_and_closes_as_the_others_do(path):
    found = re.findall(r"^#+ .*", text_of(path), re.M)
    levels = [len(line.split(" ")[0]) for line in found]
    assert levels.count(1) == levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), found
    opening = read(path).cells[0].source
    assert "?" in found[0] or "?" in opening.split("After this notebook you can")[0]
    assert len(re.findall(r"^- ", opening.split("After this notebook you can")[1], re.M)) >= 2
    assert re.search(r"\*\*Takes\*\*.*(minute|second)s? to run", opening)
    assert found[-3:] == ["## Quiz", "## What we found", "## References"]
    lines = text_of(path).split("## What we found")[1].split("## References")[0]
    assert len(re.findall(r"^- ", lines, re.M)) == 3
    cells = read(path).cells
    start = next(i for i, cell in enumerate(cells) if "## What we found" in cell.source)
    asserted = [cell for cell in cells[start:] if cell.cell_type == "code"]
    assert any(re.search(r"^\s*assert ", cell.source, re.M) for cell in asserted)


@every
def test_every_prediction_is_asked_once_and_resolved_once(path):
    names = [name for name, _ in asked(path)]
    source = source_of(path)
    assert 2 <= len(names) == len(set(names)) <= 3
    assert source.count(".predict(") == source.count(".reveal(") == len(names)
    for name in names:
        assert len(re.findall(rf"^{name}$", source, re.M)) == 1, f"{name} is not shown, or twice"
        assert source.count(f"{name}.reveal(") == 1
        assert source.index(f"\n{name}\n") < source.index(f"{name}.reveal(")


@every
def test_every_question_has_exactly_one_answer_under_a_toggle(path):
    text = text_of(path)
    quiz = text.split("## Quiz")[1].split("## What we found")[0]
    questions = re.split(r"^\*\*(\d)\.\*\* ", quiz, flags=re.M)[1:]
    assert questions[::2] == list("12345")
    assert [part.count(ANSWER) for part in questions[1::2]] == [1] * 5
    thoughts = re.split(r"^> \*\*Think!\*\* ", text, flags=re.M)[1:]
    assert thoughts
    assert all(re.match(r"(?:.*\n(?:>.*\n)*)\n" + re.escape(ANSWER), part) for part in thoughts)
    exercises = len(list(course.exercises(read(path), path.stem)))
    assert text.count("<details>") == text.count(ANSWER) == text.count("</details>")
    assert text.count(ANSWER) == 5 + len(thoughts) + exercises


@every
def test_an_exercise_asks_for_a_prediction_and_stands_alone(path):
    cells = read(path).cells
    for exercise, check in course.exercises(read(path), path.stem):
        assert re.search(r'^def \w+\(.*\n {4}"""', exercise.source, re.M), exercise.source
        here, there = (next(i for i, cell in enumerate(cells) if cell.id == one.id)
                       for one in (exercise, check))  # fmt: skip
        assert "**Predict" in cells[here - 1].source
        answer = next(cell for cell in cells[there + 1 :] if cell.cell_type == "markdown")
        assert answer.source.startswith(ANSWER), "no answer after the check"
        # The kit's own function may have the same name.
        (name,) = re.findall(r"^def (\w+)", exercise.source, re.M)
        called = re.compile(rf"(?<!bl\.samplers\.)\b{name}\(")
        later = [cell.source for cell in cells[there + 1 :] if cell.cell_type == "code"]
        assert not any(called.search(source) for source in later), f"{name} is needed later"


@every
def test_has_a_demo_with_a_question_before_and_a_finding_after(path):
    cells = read(path).cells
    starts = [i for i, cell in enumerate(cells) if re.search(r"^#+ .*Demo", cell.source, re.M)]
    assert starts
    for start in starts:
        after = cells[start + 1 : start + 10]
        assert "?" in cells[start].source.split("Demo", 1)[1]
        assert any(re.search(r"\b(bl\.widgets|bl\.explore|W)\.", cell.source) for cell in after)
        # For a reader without a kernel, and for a run without a front end.
        shown = [i for i, cell in enumerate(after) if cell.cell_type == "code" and cell.outputs]
        assert shown, "no cell after the widget shows anything"
        assert any(cell.cell_type == "markdown" for cell in after[shown[0] + 1 :])


@every
def test_is_short_and_says_how_hard_and_how_long_a_section_is(path):
    text, code = text_of(path), source_digest(path)[1:]
    assert len(text.split()) <= 1350
    sections = re.split(r"^## ", text, flags=re.M)[1:-3]
    marks = [re.search(r"^\*Level [123] of 3, \d+ minutes\*$", part, re.M) for part in sections]
    assert all(marks), [part.splitlines()[0] for part in sections]
    assert max(len(cell.source.splitlines()) for cell in code) <= 15
    # Imports, scaffolding and exercises have lines that are not for reading on.
    others = {"parameters", "exercise", "check", "hide-input"}
    lesson = [cell.source for cell in code[1:] if not others & set(cell.metadata.get("tags", []))]
    lengths = [sum(bool(line.strip()) for line in source.splitlines()) for source in lesson]
    assert statistics.median(lengths) <= 5, lengths
    for source in re.findall(r"(?:^@.*\n)?^class ", source_of(path), re.M):
        assert source.startswith("@bl.sampler("), "defines a class that is not a method"


@every
def test_every_figure_is_described(path):
    cells = read(path).cells
    for number, cell in enumerate(cells):
        if cell.cell_type == "code" and book.has_figure(cell):
            text = book.describe(cell, cells[number + 1 : number + 3])
            assert len(text) > 30, f"no words for the figure of: {cell.source}"


# -- the course as a whole -------------------------------------------------------------


def test_the_course_is_complete_and_the_index_names_every_notebook():
    numbers = [path.stem.split("_")[0] for path in NOTEBOOKS]
    assert numbers == [f"{number:02d}" for number in range(len(numbers))]
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\]\((\w+)\.ipynb\) \| (.+?) \|", index)
    titles = [read(path).cells[0].source.splitlines()[0] for path in NOTEBOOKS]
    assert [name for name, _ in rows] == [path.stem for path in NOTEBOOKS]
    assert [f"# {said}" for _, said in rows] == titles
    assert sum(len(text_of(path).split()) for path in NOTEBOOKS) <= 18_000


def test_nothing_is_asked_twice():
    questions = [said for path in NOTEBOOKS for _, said in asked(path)]
    functions, quiz = [], []
    for path in NOTEBOOKS:
        quiz += re.findall(r"^\*\*\d\.\*\* (.*)", text_of(path), re.M)
        for exercise, _ in course.exercises(read(path), path.stem):
            functions += re.findall(r"^def (\w+)", exercise.source, re.M)
    for found in (questions, functions, quiz):
        assert len(found) == len(set(found))
    assert len(quiz) == 5 * len(NOTEBOOKS)


def test_terms_are_linked_where_they_are_first_used():
    """A link to a heading that is not there leads to the top of the page, and nobody notices."""
    glossary = (FOLDER / "GLOSSARY.md").read_text(encoding="utf-8")
    terms = re.findall(r"^## (.+)$", glossary, re.M)
    left = {term.lower().replace(" ", "-"): term for term in terms}
    known = set(left)
    for path in NOTEBOOKS:
        text = text_of(path).split("## References")[0]
        text = re.sub(r"^#.*$|<details>(.|\n)*?</details>", "", text, flags=re.M)
        linked = re.findall(r"\(GLOSSARY\.md#([\w-]+)\)", text)
        assert linked, path.stem
        assert set(linked) <= known, path.stem
        for anchor, term in list(left.items()):
            word = rf"(?<![\w`-]){term}(?:s|es)?(?![\w-])"
            first = re.search(rf"\[[^\]]*\]\(GLOSSARY\.md#{anchor}\)|{word}", text, re.I)
            if first:
                assert "GLOSSARY" in first[0], f"{path.stem} uses '{term}' first, without a link"
                del left[anchor]
    assert not left, "terms that no notebook uses"
