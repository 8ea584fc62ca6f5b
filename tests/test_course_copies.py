"""What the two copies of the course hold, what nbgrader makes of them, and the first cell."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_server.services.contents.filemanager import FileContentsManager
from scripts import NOTEBOOKS, ROOT, load, python
from traitlets.config.loader import PyFileConfigLoader

build, course = load("notebooks/build.py"), load("notebooks/course.py")

# -- the two copies --------------------------------------------------------------------

EXERCISE = '''def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION'''
CHECK = """bl.course.check(double, [((2,), 4)], hint="Multiply by two.")
### BEGIN HIDDEN TESTS
assert double(5) == 10
### END HIDDEN TESTS"""


def notebook(*cells: tuple[str, str]) -> nbformat.NotebookNode:
    made = [
        nbformat.v4.new_code_cell(source, metadata={"tags": [tag] if tag else []})
        for tag, source in cells
    ]
    return nbformat.v4.new_notebook(cells=made)


def small() -> nbformat.NotebookNode:
    ours = notebook(
        ("", "import budgetlab as bl"), ("exercise", EXERCISE), ("check", CHECK), ("", "print(1)")
    )
    build.put_setup_first(ours)
    return build.clean(ours)


def test_students_get_the_question_and_instructors_the_answer():
    ours = small()
    before = copy.deepcopy(ours)
    theirs = course.for_students(ours, "01_small")
    exercise, check = theirs.cells[2], theirs.cells[3]
    assert exercise.source == (
        'def double(x):\n    """Twice x."""\n    # YOUR CODE HERE\n    raise NotImplementedError()'
    )
    assert check.source == CHECK.splitlines()[0]
    assert "jupyter" not in exercise.metadata
    assert "2 * x" not in json.dumps(theirs)
    exercise, check = course.for_instructors(ours, "01_small").cells[2:4]
    assert exercise.source == EXERCISE
    assert check.metadata.nbgrader.points == 1
    assert check.source.index("passed('double')") < check.source.index("### END HIDDEN TESTS")
    assert exercise.metadata.nbgrader.grade_id == "n01-exercise-1"
    assert ours == before


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([("exercise", "def f(): pass"), ("check", CHECK)], "BEGIN SOLUTION"),
        ([("exercise", EXERCISE.replace("### END", "### End")), ("check", CHECK)], "END SOLUTION"),
        ([("exercise", EXERCISE)], "no cell tagged 'check'"),
        ([("exercise", EXERCISE), ("", "1"), ("check", CHECK)], "no cell tagged 'check'"),
        ([("exercise", EXERCISE), ("check", "print(double(2))")], "bl.course.check"),
        ([("", "1"), ("check", CHECK)], "follows no exercise"),
    ],
)
def test_an_exercise_that_cannot_be_handed_out_is_named(cells, words):
    with pytest.raises(course.CourseError, match=re.escape(words)) as caught:
        course.for_students(notebook(*cells), "01_small")
    assert "01_small" in str(caught.value)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("course")
    course.write(ROOT / "notebooks", out)
    return out


def test_the_whole_course_is_written_for_both(written):
    names = [path.name for path in NOTEBOOKS]
    for audience in ("students", "instructors"):
        assert sorted(path.name for path in (written / audience).glob("*.ipynb")) == names
        assert "Before you run" in (written / audience / "handout.html").read_text(encoding="utf-8")
    page = (written / "students" / "README.md").read_text(encoding="utf-8")
    assert "pip install" in page
    assert "records/" in page
    assert not re.search(r"make |lecturers|TEACHING", page)
    assert not list((written / "students").rglob("TEACHING.md"))
    linked = re.compile(r"\]\(([\w./-]+\.(?:md|ipynb))[#)]")
    for path in written.rglob("*.ipynb"):
        for name in linked.findall(path.read_text(encoding="utf-8")):
            assert (path.parent / name).is_file(), f"{path.name} links to {name}"
    assert "TEACHING.md" in (written / "instructors" / "README.md").read_text(encoding="utf-8")


def test_no_solution_is_left_for_students(written, tmp_path):
    for path in (written / "students").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        assert not re.search("BEGIN SOLUTION|HIDDEN TESTS", text)
        solved = nbformat.read(written / "instructors" / path.name, as_version=4)
        exercises = sum(course.has_tag(cell, "exercise") for cell in solved.cells)
        assert text.count("raise NotImplementedError()") >= exercises
    (tmp_path / "students").mkdir()
    (tmp_path / "students" / "solved.ipynb").write_text("{}")
    course.write(ROOT / "notebooks", tmp_path)
    assert not (tmp_path / "students" / "solved.ipynb").exists(), "one of an earlier build"


def test_grading_runs_at_the_small_scale_and_waits_for_slow_cells(written, monkeypatch):
    monkeypatch.setenv("BUDGETLAB_SCALE", "unset")
    monkeypatch.delenv("BUDGETLAB_SCALE")
    config = PyFileConfigLoader("nbgrader_config.py", path=str(written / "instructors"))
    assert config.load_config().ExecutePreprocessor.timeout >= 120
    assert os.environ["BUDGETLAB_SCALE"] == "smoke"
    assert not (written / "students" / "nbgrader_config.py").exists()


@pytest.mark.filterwarnings("ignore:Overriding existing pre_save_hook")
def test_opening_a_notebook_in_the_lab_changes_no_file(tmp_path):
    """JupyterLab puts its kernel and version into a notebook, and saves it by itself."""
    shutil.copy(NOTEBOOKS[2], tmp_path)
    config = PyFileConfigLoader("jupyter_server_config.py", path=str(ROOT / "notebooks/lab"))
    manager = FileContentsManager(root_dir=str(tmp_path), config=config.load_config())
    opened = manager.get(NOTEBOOKS[2].name)
    opened["content"]["metadata"]["language_info"] = {"name": "python", "version": "3.99"}
    opened["content"]["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    manager.save(opened, NOTEBOOKS[2].name)
    assert (tmp_path / NOTEBOOKS[2].name).read_bytes() == NOTEBOOKS[2].read_bytes()


# nbgrader runs beside the tests: its own warnings are not ours.
VALIDATE = """
import sys, nbformat
from nbgrader.nbgraderformat import MetadataValidator
for path in sys.argv[1:]:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    MetadataValidator().validate_nb(notebook)
    ids = [c.metadata.nbgrader.grade_id for c in notebook.cells if "nbgrader" in c.metadata]
    assert len(ids) == len(set(ids)), ids
"""


def test_what_is_written_is_valid_for_nbgrader(written):
    paths = [str(path) for path in written.rglob("*.ipynb")]
    done = python("-c", VALIDATE, *paths)
    assert done.returncode == 0, done.stderr[-2000:]


GRADES = """
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db") as book:
    for one in book.assignment_submissions("week1"):
        print(one.student.id, one.score, one.max_score)
"""


def test_nbgrader_grades_what_is_handed_in(tmp_path):
    """Its own release equals our students' copy; solved gets all points, what is wrong none."""
    solved, empty = course.for_instructors(small(), "01_a"), course.for_students(small(), "01_a")
    wrong = copy.deepcopy(empty)
    wrong.cells[2].source = "def double(x):\n    return x * x"
    place = tmp_path / "source" / "week1"
    place.mkdir(parents=True)
    nbformat.write(solved, place / "01_a.ipynb")
    handed_in = {"solved": solved, "wrong": wrong}
    for student, theirs in handed_in.items():
        folder = tmp_path / "submitted" / student / "week1"
        folder.mkdir(parents=True)
        nbformat.write(theirs, folder / "01_a.ipynb")
    grade(tmp_path, "generate_assignment", "week1")
    released = nbformat.read(tmp_path / "release" / "week1" / "01_a.ipynb", as_version=4)
    assert [c.source.rstrip() for c in released.cells] == [c.source.rstrip() for c in empty.cells]
    grade(tmp_path, "autograde", "week1")
    done = python("-c", GRADES, cwd=tmp_path)
    grades = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert grades == {"solved": ["1.0", "1.0"], "wrong": ["0.0", "1.0"]}


def grade(folder: Path, command: str, assignment: str) -> None:
    away = {name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    # It calls alembic by its name, which lies beside the interpreter.
    away["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    where = f"--course-dir={folder}"
    done = python("-m", "nbgrader", command, assignment, where, cwd=folder, **away)
    assert done.returncode == 0, done.stderr[-3000:]


# -- the first cell --------------------------------------------------------------------

FIRST_CELL = """
import importlib.util, os, sys
from IPython.core.interactiveshell import InteractiveShell
find, asked, shell = importlib.util.find_spec, [], InteractiveShell.instance()
importlib.util.find_spec = lambda name: None if name == sys.argv[2] else find(name)
shell.register_magic_function(asked.append, magic_name="pip")
result = shell.run_cell(sys.argv[1])
print("asked", asked[0] if asked else "nothing")
print("now in", os.getcwd())
sys.exit(not result.success)
"""


def first_cell(folder: Path, missing: str = "budgetlab") -> subprocess.CompletedProcess:
    """Run the cell where a package is missing and pip only takes notes."""
    away = {"IPYTHONDIR": str(folder / "ipython")}
    return python("-c", FIRST_CELL, build.SETUP, missing, cwd=folder, **away)


@pytest.mark.parametrize("opened", [".", "deep/course", "project/notebooks"])
def test_the_first_cell_installs_a_copy_that_lies_near(tmp_path, opened):
    place = "notebooks" if opened == "deep/course" else "project/notebooks"
    project = tmp_path / place
    project.mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/build.py", project)
    (tmp_path / opened).mkdir(parents=True, exist_ok=True)
    done = first_cell(tmp_path / opened)
    assert done.returncode == 0, done.stderr
    assert f'asked install -q "{project.parent}"' in done.stdout
    assert f"now in {project}" in done.stdout


def test_the_first_cell_says_what_to_do_where_there_is_no_copy_and_nothing_where_the_kit_is(
    tmp_path,
):
    done = first_cell(tmp_path)
    assert done.returncode != 0
    assert "clone the project, or upload and unpack a copy of it" in done.stdout
    done = first_cell(tmp_path, missing="nothing")
    assert done.returncode == 0, done.stderr
    assert "asked nothing" in done.stdout
    assert f"now in {tmp_path}" in done.stdout


def test_the_first_cell_is_put_once_and_without_a_run(tmp_path):
    ours = small()
    build.put_setup_first(ours)
    assert [course.has_tag(cell, "setup") for cell in ours.cells] == [True] + [False] * 4
    ours.cells = ours.cells[1:]
    ours.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="1\n")]
    nbformat.write(ours, tmp_path / "01_a.ipynb")
    build.put_setup_in(tmp_path / "01_a.ipynb")
    theirs = nbformat.read(tmp_path / "01_a.ipynb", as_version=4)
    assert theirs.cells[0].source == build.SETUP
    assert [cell.execution_count for cell in theirs.cells] == [1, 2, 3, 4, 5]
    assert theirs.cells[-1].outputs == ours.cells[-1].outputs
