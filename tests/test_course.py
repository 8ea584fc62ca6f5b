"""Exercises: what a check says, and what the two copies of the course hold."""

import copy
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from traitlets.config.loader import PyFileConfigLoader

import budgetlab as bl

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def load(name: str):
    spec = importlib.util.spec_from_file_location(
        f"notebooks_{name}", ROOT / f"notebooks/{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, course = load("build"), load("course")

SCORES = torch.tensor([1.0, 2.0, 3.0])
SHARES = SCORES / 6


def stub(scores):
    raise NotImplementedError


def share(scores):
    return scores / scores.sum()


def in_place(scores):
    scores /= scores.sum()
    return scores


def divides(scores):
    nothing = 0
    return scores[0].item() / nothing


def gives(value):
    def answer(scores):
        return value

    return answer


@pytest.fixture
def said(capsys):
    """Check an answer and return what was printed."""

    def check(answer, expected, *, given=(SCORES,), **options):
        capsys.readouterr()
        assert bl.course.check(answer, [(given, expected)], **options) is None
        return capsys.readouterr().out

    return check


def test_a_right_answer_is_called_right(said):
    text = said(share, SHARES, hint="not needed")
    assert text == "share: right, 1 check passed.\n"
    assert bl.course.passed("share")


@pytest.mark.parametrize("empty", [stub, gives(None), gives(...), None, ...])
def test_an_empty_answer_is_no_mistake(said, empty):
    text = said(empty, SHARES, hint="divide by the sum")
    assert "nothing here yet" in text
    assert "Hint" not in text
    assert "not right" not in text


def test_a_generator_without_a_body_is_empty(said):
    def batches(scores):
        raise NotImplementedError
        yield

    assert "nothing here yet" in said(batches, lambda result: list(result) == [1])


@pytest.mark.parametrize(
    ("value", "expected", "words"),
    [
        (SCORES, SHARES, "3 of 3 values are off; the first one (at 0, counted from 0) is 1 "),
        (SCORES, SHARES, "All are 6 times what they should be"),
        (SHARES.flip(0), SHARES, "The values are right, their order is not"),
        (SHARES[:2], SHARES, "The shape is (2,) instead of (3,)"),
        (SHARES[:, None], SHARES, "The shape is (3, 1) instead of (3,)"),
        (SHARES * torch.nan, SHARES, "There is a NaN (at 0, counted from 0)"),
        (torch.tensor([0.0, torch.nan]), [0.0, 1.0], "NaN (at 1, counted from 0)"),
        (SHARES.numpy(), SHARES, "of type ndarray instead of Tensor"),
        (SHARES.tolist(), SHARES, "of type list instead of Tensor"),
        ("a third", 1 / 3, "of type str instead of float"),
        (0.25, 1 / 3, "It is 0.25 instead of 0.333333"),
        (torch.tensor([0.5]), 0.5, "The shape is (1,) instead of that of a single number"),
        (torch.tensor([0.0, 2.0]), torch.tensor([0, 2]), "numbers with a fraction (float32)"),
        (True, 1, "True and False (bool) instead of whole numbers"),
        (torch.tensor([True, False]), torch.tensor([False, True]), "the other way round"),
        ({"mean": 1.0}, {"mean": 1.0, "n": 2}, "The dict lacks ['n']"),
        ({"mean": 1.0, "n": 3}, {"mean": 1.0, "n": 2}, "Under 'n': It is 3 instead of 2"),
        ((SHARES, 1), (SHARES, 2), "Part 2: It is 1 instead of 2"),
        ((SHARES,), (SHARES, 2), "It has 1 part instead of 2"),
        ([[1], [2, 3]], [[1], [2, 4]], "Part 2: 1 of 2 values is off"),
        ("hardest", "easiest", "They differ"),
        (divides, SHARES, "of type function instead of Tensor"),
        (iter([1]), [1], "of type list_iterator instead of list"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words(said, value, expected, words):
    text = said(gives(value), expected, hint="divide by the sum")
    assert words in text
    assert "not right yet (0 of 1 checks pass so far)" in text
    assert text.endswith("Hint: divide by the sum\n")
    assert not bl.course.passed("answer")


def test_what_was_given_returned_and_expected_is_shown(said):
    text = said(gives(SCORES), SHARES)
    assert "given:    scores = Tensor [1., 2., 3.]" in text
    assert "returned: Tensor [1., 2., 3.]" in text
    assert "expected: Tensor [0.1667, 0.3333, 0.5 ]" in text


def test_an_exception_is_told_with_its_line(said):
    text = said(divides, 1.0)
    assert "It stopped with ZeroDivisionError: " in text
    assert "in the line: return scores[0].item() / nothing" in text


def test_too_many_arguments_are_told(said):
    assert "TypeError" in said(share, 1.0, given=(SCORES, 2))


def test_a_change_to_what_was_given_is_told_and_does_no_harm(said):
    text = said(in_place, SHARES)
    assert "changes its argument 1 in place" in text
    assert SCORES.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1 + 0.2, 0.3),
        (3, 3.0),
        (np.float32(0.5), 0.5),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor([0.5], dtype=torch.bfloat16), [0.5]),
        ((1, 2), [1, 2]),
        (np.array([1, 2]), [1.0, 2.0]),
        (torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0])),
        ({"b": 2, "a": [1]}, {"a": [1], "b": 2.0}),
        ([torch.tensor([1]), torch.tensor([2, 3])], [torch.tensor([1]), torch.tensor([2, 3])]),
        (float("inf"), float("inf")),
    ],
)  # fmt: skip
def test_the_same_in_another_coat_is_right(said, value, expected):
    assert "right, 1 check passed" in said(gives(value), expected)


def test_the_tolerance_is_what_decides(said):
    assert "right" in said(gives(1.001), 1.0, tolerance=0.01)
    assert "It is 1.001 instead of 1" in said(gives(1.001), 1.0)


def test_a_predicate_says_it_in_its_own_words(said):
    def sums_to_one(result):
        return bool(abs(result.sum() - 1) < 1e-6) or f"The sum is {result.sum():g}, not 1."

    assert "right" in said(share, sums_to_one)
    assert "The sum is 6, not 1." in said(gives(SCORES), sums_to_one)
    assert "A str cannot be checked here" in said(gives("six"), sums_to_one)
    assert "not what was asked for" in said(gives(2), lambda result: result == 3)


def test_random_answers_get_the_same_stream_each_time(said):
    def draw(generator):
        return torch.randperm(5, generator=generator)

    generator = torch.Generator().manual_seed(3)
    expected = torch.randperm(5, generator=torch.Generator().manual_seed(3))
    for _ in range(2):
        assert "right" in said(draw, expected, given=(generator,))


def test_the_first_case_that_fails_is_shown(capsys):
    bl.course.check(abs, [((1,), 1), ((-2,), -2), ((-3,), 0)])
    text = capsys.readouterr().out
    assert "1 of 3 checks pass so far" in text
    assert "returned: 2" in text


@pytest.mark.parametrize("cases", [[], [(1,)], [((1,), None)], ["ab c"]])
def test_cases_that_check_nothing_are_the_fault_of_their_author(cases):
    with pytest.raises(bl.InputError):
        bl.course.check(abs, cases)


def test_a_verdict_is_that_of_the_latest_check(capsys):
    bl.course.check(abs, [((-1,), 1)])
    assert bl.course.passed("abs")
    bl.course.check(abs, [((-1,), 2)])
    assert not bl.course.passed("abs")
    assert not bl.course.passed("never checked")


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


def test_students_get_the_question_and_not_the_answer():
    theirs = course.for_students(small(), "01_small")
    exercise, check = theirs.cells[2], theirs.cells[3]
    assert exercise.source == (
        'def double(x):\n    """Twice x."""\n    # YOUR CODE HERE\n    raise NotImplementedError()'
    )
    assert check.source == CHECK.splitlines()[0]
    assert "jupyter" not in exercise.metadata
    assert "2 * x" not in json.dumps(theirs)


def test_instructors_keep_the_answer_and_give_points():
    theirs = course.for_instructors(small(), "01_small")
    exercise, check = theirs.cells[2], theirs.cells[3]
    assert exercise.source == EXERCISE
    assert check.metadata.nbgrader.points == 1
    assert check.source.index("passed('double')") < check.source.index("### END HIDDEN TESTS")
    assert exercise.metadata.nbgrader.grade_id == "n01-exercise-1"


def test_making_copies_changes_nothing():
    ours = small()
    before = copy.deepcopy(ours)
    course.for_students(ours, "01_small")
    course.for_instructors(ours, "01_small")
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
    assert not list((written / "students").rglob("TEACHING.md"))
    page = (written / "students" / "README.md").read_text()
    assert "pip install" in page
    assert "records/" in page
    assert "make " not in page
    assert "lecturers" not in page
    assert "TEACHING.md" in (written / "instructors" / "README.md").read_text()


def test_grading_runs_at_the_small_scale_and_waits_for_slow_cells(written, monkeypatch):
    monkeypatch.setenv("BUDGETLAB_SCALE", "unset")
    monkeypatch.delenv("BUDGETLAB_SCALE")
    config = PyFileConfigLoader("nbgrader_config.py", path=str(written / "instructors"))
    assert config.load_config().ExecutePreprocessor.timeout >= 120
    assert os.environ["BUDGETLAB_SCALE"] == "smoke"
    assert not (written / "students" / "nbgrader_config.py").exists()


def test_no_solution_is_left_for_students(written):
    for path in (written / "students").glob("*.ipynb"):
        text = path.read_text()
        assert "BEGIN SOLUTION" not in text
        assert "HIDDEN TESTS" not in text
        solved = nbformat.read(written / "instructors" / path.name, as_version=4)
        assert text.count("raise NotImplementedError()") >= sum(
            course.has_tag(cell, "exercise") for cell in solved.cells
        )


def test_an_old_solution_does_not_survive_in_the_students_folder(tmp_path):
    (tmp_path / "students").mkdir()
    (tmp_path / "students" / "solved.ipynb").write_text("{}")
    course.write(ROOT / "notebooks", tmp_path)
    assert not (tmp_path / "students" / "solved.ipynb").exists()


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
    done = subprocess.run([sys.executable, "-c", VALIDATE, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


GRADES = """
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db") as book:
    for one in book.assignment_submissions("week1"):
        print(one.student.id, one.score, one.max_score)
"""


def test_nbgrader_grades_what_is_handed_in(tmp_path):
    """Its own release equals our students' copy; solved gets all points, empty and wrong none."""
    solved, empty = course.for_instructors(small(), "01_a"), course.for_students(small(), "01_a")
    wrong = copy.deepcopy(empty)
    wrong.cells[2].source = "def double(x):\n    return x * x"
    place = tmp_path / "source" / "week1"
    place.mkdir(parents=True)
    nbformat.write(solved, place / "01_a.ipynb")
    handed_in = {"solved": solved, "empty": empty, "wrong": wrong}
    for student, theirs in handed_in.items():
        folder = tmp_path / "submitted" / student / "week1"
        folder.mkdir(parents=True)
        nbformat.write(theirs, folder / "01_a.ipynb")
    grade(tmp_path, "generate_assignment", "week1")
    released = nbformat.read(tmp_path / "release" / "week1" / "01_a.ipynb", as_version=4)
    assert [c.source.rstrip() for c in released.cells] == [c.source.rstrip() for c in empty.cells]
    grade(tmp_path, "autograde", "week1")
    done = subprocess.run(
        [sys.executable, "-c", GRADES], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    grades = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert grades == {"solved": ["1.0", "1.0"], "empty": ["0.0", "1.0"], "wrong": ["0.0", "1.0"]}


def grade(folder: Path, command: str, assignment: str) -> None:
    away = {name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    # It calls alembic by its name, which lies beside the interpreter.
    away["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", command, assignment, f"--course-dir={folder}"],
        cwd=folder, env=os.environ | away, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


# -- the first cell --------------------------------------------------------------------

FIRST_CELL = """
import importlib.util, os, sys
from IPython.core.interactiveshell import InteractiveShell
find, asked, shell = importlib.util.find_spec, [], InteractiveShell.instance()
importlib.util.find_spec = lambda name: None if name == "budgetlab" else find(name)
shell.register_magic_function(asked.append, magic_name="pip")
result = shell.run_cell(sys.argv[1])
print("asked", asked[0] if asked else "nothing")
print("now in", os.getcwd())
sys.exit(not result.success)
"""


def first_cell(folder: Path) -> subprocess.CompletedProcess:
    """Run the cell where the kit is missing and pip only takes notes."""
    command = [sys.executable, "-c", FIRST_CELL, build.SETUP]
    away = os.environ | {"IPYTHONDIR": str(folder / "ipython")}
    return subprocess.run(command, cwd=folder, env=away, capture_output=True, text=True)


@pytest.mark.parametrize("opened", [".", "deep/course", "project/notebooks"])
def test_the_first_cell_installs_a_copy_that_lies_near(tmp_path, opened):
    project = tmp_path / "project" / "notebooks"
    if opened == "deep/course":
        project = tmp_path / "notebooks"
    project.mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/build.py", project)
    (tmp_path / opened).mkdir(parents=True, exist_ok=True)
    done = first_cell(tmp_path / opened)
    assert done.returncode == 0, done.stderr
    assert f'asked install -q "{project.parent}"' in done.stdout
    assert f"now in {project}" in done.stdout


def test_the_first_cell_says_what_to_do_where_there_is_no_copy(tmp_path):
    done = first_cell(tmp_path)
    assert done.returncode != 0
    assert "clone the project, or upload and unpack a copy of it" in done.stdout
    assert "asked nothing" in done.stdout


def test_the_first_cell_does_nothing_where_the_kit_is():
    before = os.getcwd()
    names: dict = {}
    exec(compile(build.SETUP.replace("%pip", "raise SystemExit  # "), "setup", "exec"), names)
    assert os.getcwd() == before
    assert "copies" not in names


def test_the_first_cell_is_put_once():
    ours = small()
    build.put_setup_first(ours)
    assert [course.has_tag(cell, "setup") for cell in ours.cells].count(True) == 1
    assert ours.cells[0].source == build.SETUP


def test_the_first_cell_can_be_put_in_without_a_run(tmp_path):
    ours = small()
    ours.cells = ours.cells[1:]
    ours.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="1\n")]
    nbformat.write(ours, tmp_path / "01_a.ipynb")
    build.put_setup_in(tmp_path / "01_a.ipynb")
    theirs = nbformat.read(tmp_path / "01_a.ipynb", as_version=4)
    assert theirs.cells[0].source == build.SETUP
    assert [cell.execution_count for cell in theirs.cells] == [1, 2, 3, 4, 5]
    assert theirs.cells[-1].outputs == ours.cells[-1].outputs
