"""Build the book, a static site of the course as last run and the API reference.

``make docs`` writes ``build/docs/index.html``; ``python docs/book.py --students --out
build/students-site`` writes a site without solutions and hidden tests, for a server. Neither
building nor reading it trains or downloads anything; warnings are errors.
"""

import argparse
import importlib
import importlib.util
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import nbformat

from budgetlab.explore.chart import MIMES, STYLE, fragment, script

ROOT = Path(__file__).parents[1]
OWN = Path(__file__).parent / "book"

# In reading order.
PARTS = ("training", "config", "data", "models", "augment", "methods", "samplers",
         "history", "budget", "custom_loop", "sweeps", "records", "analysis",
         "estimators", "plots", "explore", "report", "widgets", "course", "errors")  # fmt: skip
LOADED = (
    '<link rel="stylesheet" href="../_static/explorables.css">\n'
    '<script defer src="../_static/explorables.js"></script>'
)
# Accessibility fixes that the theme and Sphinx lack: heading levels, landmark names, keyboard
# scrolling, empty header cells.
MENDED = (
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="All pages">'),
    ('<aside class="toc-drawer', '<aside aria-label="On this page" class="toc-drawer'),
    ("<pre>", '<pre tabindex="0">'),
    ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
    ('<div class="math-wrapper', '<div tabindex="0" class="math-wrapper'),
)
EMPTY_HEAD = re.compile(r"<th[^>]*>\s*(<p></p>)?\s*</th>")
TO_TOP = re.compile(r'<a href="#" class="back-to-top.*?</a>', re.S)
MAIN = '<article role="main" id="furo-main-content">'
CAPTION = re.compile(r"^\*Figure: (.*?)\*$", re.M | re.S)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def collect(
    source: Path, notebooks: Sequence[str], parts: Sequence[str], students: bool = False
) -> None:
    """Copy Sphinx's sources; for students, without solutions, hidden tests and lecturers' pages."""
    shutil.copytree(OWN, source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "notebooks").mkdir()
    (source / "reference").mkdir()
    shutil.copytree(ROOT / "docs" / "images", source / "docs" / "images")
    for path in (ROOT / "docs").glob("*.md"):
        shutil.copy(path, source / "docs")
    for page in ("README.md", "TEACHING.md", "GLOSSARY.md", "HANDOUT.md", "TABLES.md"):
        shutil.copy(ROOT / "notebooks" / page, source / "notebooks")
    for name in notebooks:
        path = ROOT / "notebooks" / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        if students:
            notebook = course().for_students(notebook, name)
        nbformat.write(as_page(notebook), source / "notebooks" / path.name)
    index = source / "index.md"
    contents = index.read_text().replace("NOTEBOOKS\n", "".join(map(listing, notebooks)))
    if students:
        shutil.copy(ROOT / "notebooks" / "STUDENTS.md", source / "notebooks" / "README.md")
        (source / "notebooks" / "TEACHING.md").unlink()
        lines = contents.splitlines(keepends=True)
        contents = "".join(line for line in lines if "TEACHING" not in line)
    index.write_text(contents)
    (source / "_static").mkdir()
    (source / "pages.css").rename(source / "_static" / "pages.css")
    (source / "_static" / "explorables.js").write_text(script())
    (source / "_static" / "explorables.css").write_text(STYLE)
    write_reference(source / "reference", parts)
    for page in source.rglob("*.md"):
        page.write_text(without_dead_links(page.read_text(), page.parent))
    for path in source.rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = without_dead_links(cell.source, path.parent)
        nbformat.write(notebook, path)


def listing(name: str) -> str:
    """Return the line of a notebook in the contents: its number, by which others refer to it."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    title = re.search(r"^# (.+)$", notebook.cells[0].source, re.M)[1]
    return f"{name[:2]}. {title} <notebooks/{name}>\n"


def course() -> ModuleType:
    """Import the module that writes the students' copy."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "notebooks" / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_page(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Add alternative text and charts, collapse solutions, drop the installation cell."""
    charts = False
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.setdefault("tags", [])
        if "setup" in tags:
            tags.append("remove-cell")
        if {"exercise", "parameters"} & set(tags):
            tags.append("hide-input")
        if cell.cell_type == "code" and has_figure(cell):
            text = describe(cell, notebook.cells[number + 1 : number + 3])
            cell.metadata["mystnb"] = {"image": {"alt": text}}
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            for mime in set(MIMES.values()) & set(data):
                charts = True
                spec = data.pop(mime)  # Sphinx warns about unknown types
                data["text/html"] = fragment(spec, data["text/plain"], data["image/png"])
    if charts:
        notebook.cells.append(nbformat.v4.new_markdown_cell(LOADED))
    return notebook


def has_figure(cell: nbformat.NotebookNode) -> bool:
    """Return whether a cell shows a figure."""
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def describe(cell: nbformat.NotebookNode, following: Sequence[nbformat.NotebookNode]) -> str:
    """Return the caption of a cell's figures (in italics below, printed, or stored), or ""."""
    for other in following:
        if other.cell_type == "code" and has_figure(other):
            break  # captions below describe that figure
        found = CAPTION.search(other.source) if other.cell_type == "markdown" else None
        if found:
            return " ".join(found[1].split())
    stored = [output.data.get("text/plain", "") for output in cell.outputs if "data" in output]
    own = [text for text in stored if text and text[0] != "<" and has_figure(cell)]
    printed = [output.text for output in cell.outputs if output.output_type == "stream"]
    return " ".join(" ".join(own or printed).split())


def without_dead_links(text: str, folder: Path) -> str:
    """Turn links to files outside the book into plain text."""

    def keep(link: re.Match) -> str:
        return link[0] if (folder / link[2]).exists() else link[1]

    return LINK.sub(keep, text)


def write_reference(folder: Path, parts: Sequence[str]) -> None:
    """Write one page per module, and an index."""
    rows = ["# Reference", "", "`import budgetlab as bl` gives these modules, and the names that",
            "are used most: `bl.train` is `bl.training.train`, and so on.", ""]  # fmt: skip
    for part in parts:
        module = importlib.import_module(f"budgetlab.{part}")
        summary = (module.__doc__ or "").strip().splitlines()[0]
        rows.append(f"- [`bl.{part}`]({part}.md): {summary}")
        page = [f"# bl.{part}", "", "```{eval-rst}", f".. automodule:: budgetlab.{part}",
                "   :members:", "   :show-inheritance:", "```", ""]  # fmt: skip
        (folder / f"{part}.md").write_text("\n".join(page))
    rows += ["", "```{toctree}", ":hidden:", "", *parts, "```", ""]
    (folder / "index.md").write_text("\n".join(rows))


def build(out: Path, notebooks: Sequence[str], parts: Sequence[str], students: bool = False) -> int:
    """Collect the sources and build; return Sphinx's exit code."""
    from sphinx.cmd.build import main as sphinx

    source = out.with_name(f"{out.name}-source")
    for folder in (source, out):
        shutil.rmtree(folder, ignore_errors=True)
    collect(source, notebooks, parts, students)
    code = sphinx(["-b", "html", "-W", "--keep-going", "-q", "-d", f"{source}/.doctrees",
                   str(source), str(out)])  # fmt: skip
    for page in out.rglob("*.html"):
        page.write_text(mended(page.read_text()))
    return code


def mended(page: str) -> str:
    """Return a page with accessibility fixes for keyboard and screen reader."""
    for before, after in MENDED:
        page = page.replace(before, after)
    page = TO_TOP.sub(r'<nav aria-label="Back to top">\g<0></nav>', page)
    if "<h1" not in page:  # the search page
        page = page.replace(MAIN, f"{MAIN}<h1>Search</h1>")
    return EMPTY_HEAD.sub("<td></td>", page)


def main() -> int:
    """Build the book; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    every = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    parser.add_argument("--notebooks", nargs="*", default=every, help="all by default")
    parser.add_argument("--parts", nargs="*", default=PARTS, help="of the reference; all")
    parser.add_argument("--students", action="store_true", help="leave out solutions and tests")
    asked = parser.parse_args()
    code = build(asked.out, asked.notebooks, asked.parts, asked.students)
    if code == 0:
        print(f"open {asked.out / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
