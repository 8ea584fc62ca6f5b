"""Write the course for a class: a students' copy without solutions, an instructors' with them.

``make course`` writes both from the notebooks of this folder, which stay as they are:

- ``build/course/students``: solutions and hidden tests are taken out, and with them what the
  exercises printed; everything else can be read without running it.
- ``build/course/instructors``: solutions, hidden tests, and what nbgrader needs. An exercise is
  a solution cell, the check after it gives one point for each function that it checks;
  ``nbgrader_config.py`` grades at the small scale and leaves a cell five minutes.

Beside each lies ``handout.html``, one page to print, made of HANDOUT.md. Both copies carry the
same cell ids, so that nbgrader can grade what is handed in from either its own release or this
students' copy.
"""

import argparse
import ast
import copy
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbconvert.filters import markdown2html

HERE = Path(__file__).parent
SOLUTION, HIDDEN = "SOLUTION", "HIDDEN TESTS"
# What nbgrader itself puts in the place of a solution.
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
SCHEMA_VERSION = 3
# What lies beside the notebooks, and under which name.
ALIKE = ("records", "GLOSSARY.md", "TABLES.md")
BESIDE = {
    "students": {"STUDENTS.md": "README.md"} | {name: name for name in ALIKE},
    "instructors": {name: name for name in (*ALIKE, "README.md", "TEACHING.md", "HANDOUT.md")},
}
# What the copies do not have is named, and not linked.
DOCS = re.compile(r"\[([^\]]*)\]\(\.\./docs/[^)]*\)")
# Without it nbgrader runs everything at full size, and stops a cell after 30 seconds.
GRADING = """\
import os

os.environ.setdefault("BUDGETLAB_SCALE", "smoke")
c = get_config()
c.ExecutePreprocessor.timeout = 300
"""
PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Handout: budgeted training</title>
<style>@page {{ size: A4; margin: 15mm }} body {{ font: 10.5pt/1.35 sans-serif; max-width: 46em;
margin: auto }} table {{ border-collapse: collapse }} td, th {{ border: 1px solid #888;
padding: 2pt 6pt; text-align: left; vertical-align: top }} h1 {{ font-size: 16pt }}
h2 {{ font-size: 12pt; margin-bottom: 2pt }} ul {{ margin-top: 2pt }}
.anchor-link {{ display: none }}</style>
{}
</html>
"""


class CourseError(ValueError):
    """An exercise that cannot be handed out; names the notebook and what is missing."""


def has_tag(cell: nbformat.NotebookNode, tag: str) -> bool:
    """Tell whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def without(source: str, region: str, instead: tuple[str, ...] = ()) -> str:
    """Take out what lies between ``### BEGIN region`` and ``### END region``.

    The lines that come instead are indented as the first marker is. Without markers the
    source is returned as it is.
    """
    lines, inside = [], False
    for line in source.split("\n"):
        if f"### BEGIN {region}" in line:
            inside = True
            lines += [re.match(r"\s*", line)[0] + one for one in instead]
        elif f"### END {region}" in line:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines).rstrip()


def marked(source: str, region: str) -> bool:
    """Tell whether a source has both markers of a region, each once and in order."""
    begins = [m.start() for m in re.finditer(f"### BEGIN {region}", source)]
    ends = [m.start() for m in re.finditer(f"### END {region}", source)]
    return len(begins) == len(ends) == 1 and begins[0] < ends[0]


def exercises(
    notebook: nbformat.NotebookNode, name: str
) -> Iterator[tuple[nbformat.NotebookNode, nbformat.NotebookNode]]:
    """Yield each exercise of a notebook with its check, the next code cell.

    Raises
    ------
    CourseError
        If a solution has no markers, or an exercise no check.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, (cell, after) in enumerate(zip(code, [*code[1:], None], strict=True)):
        if has_tag(cell, "check") and not (number and has_tag(code[number - 1], "exercise")):
            raise CourseError(f"{name}: a check follows no exercise: {cell.source[:60]!r}")
        if not has_tag(cell, "exercise"):
            continue
        if not marked(cell.source, SOLUTION):
            raise CourseError(
                f"{name}: the exercise {cell.source.splitlines()[0]!r} needs one "
                "'### BEGIN SOLUTION' and one '### END SOLUTION' around its answer"
            )
        if after is None or not has_tag(after, "check") or not checked(after.source):
            raise CourseError(
                f"{name}: after the exercise {cell.source.splitlines()[0]!r} comes no cell "
                "tagged 'check' that calls bl.course.check"
            )
        yield cell, after


def checked(source: str) -> list[str]:
    """Names of the functions that a cell gives to ``bl.course.check``."""
    return [
        ast.unparse(node.args[0])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("course.check")
        and node.args
    ]


def for_students(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Return a copy with empty exercises, unfolded, and without hidden tests."""
    ours = graded(notebook, name)
    for exercise, check in exercises(ours, name):
        exercise.source = without(exercise.source, SOLUTION, STUB)
        check.source = without(check.source, HIDDEN)
        exercise.metadata.pop("jupyter", None)
        for cell in (exercise, check):
            cell.outputs, cell.execution_count = [], None
    return ours


def for_instructors(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Return a copy with solutions, where a wrong answer costs the points of its check."""
    ours = graded(notebook, name)
    for _, check in exercises(ours, name):
        # The check only prints; nbgrader counts exceptions.
        lines = [f"assert bl.course.passed({one!r})" for one in checked(check.source)]
        if HIDDEN not in check.source:
            check.source += f"\n### BEGIN {HIDDEN}\n### END {HIDDEN}"
        check.source = check.source.replace(
            f"### END {HIDDEN}", "\n".join([*lines, f"### END {HIDDEN}"])
        )
    return ours


def graded(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Return a copy whose exercises and checks carry nbgrader's metadata."""
    ours = copy.deepcopy(notebook)
    stem = name.split("_")[0]
    for number, (exercise, check) in enumerate(exercises(ours, name), start=1):
        common = {"schema_version": SCHEMA_VERSION, "task": False}
        exercise.metadata["nbgrader"] = nbformat.from_dict(
            common
            | {"grade": False, "solution": True, "locked": False}
            | {"grade_id": f"n{stem}-exercise-{number}"}
        )
        check.metadata["nbgrader"] = nbformat.from_dict(
            common
            | {"grade": True, "solution": False, "locked": True}
            | {"grade_id": f"n{stem}-check-{number}", "points": len(checked(check.source))}
        )
    return ours


def write(source: Path, out: Path) -> int:
    """Write both copies of all notebooks; returns the number of exercises."""
    found = 0
    for audience, made in (("students", for_students), ("instructors", for_instructors)):
        folder = out / audience
        # Nothing of an earlier build may survive: it might hold a solution.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in sorted(source.glob("*.ipynb")):
            notebook = nbformat.read(path, as_version=4)
            found += len(list(exercises(notebook, path.stem)))
            ours = made(notebook, path.stem)
            for cell in ours.cells:
                if cell.cell_type == "markdown":
                    cell.source = DOCS.sub(r"\1", cell.source)
            nbformat.write(ours, folder / path.name)
        for name, as_name in BESIDE[audience].items():
            if (source / name).is_dir():
                shutil.copytree(source / name, folder / as_name)
            elif (source / name).is_file():
                shutil.copy(source / name, folder / as_name)
        handout = markdown2html((source / "HANDOUT.md").read_text(encoding="utf-8"))
        (folder / "handout.html").write_text(PAGE.format(handout), encoding="utf-8")
        if audience == "instructors":
            (folder / "nbgrader_config.py").write_text(GRADING)
    return found // 2


def main() -> int:
    """Write the course; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "course")
    out = parser.parse_args().out
    try:
        found = write(HERE, out)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{found} exercises: {out / 'students'} has them empty, {out / 'instructors'} solved")
    return 0


if __name__ == "__main__":
    sys.exit(main())
