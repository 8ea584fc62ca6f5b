"""The book: it builds without a warning, needs no network, and says what figures show."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from scripts import ROOT, load, python

book, mathml = load("docs/book.py"), load("docs/book/mathml.py")

# Of the package, but for nobody to call: how the kit is used is documented by its notebooks.
NOT_FOR_READERS = {"__main__", "cli", "demo", "devices", "memory", "seeds", "forecast", "settings"}
# One with figures, one with a formula and exercises.
NOTEBOOKS = ("05_variety", "12_workshop")


class Page(HTMLParser):
    """What a page fetches, links to and shows."""

    def __init__(self, path: Path):
        super().__init__()
        self.fetched: list[str] = []
        self.alts: list[str | None] = []
        self.tags: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        self.tags.add(tag)
        if tag == "img":
            self.alts.append(about.get("alt"))
        if tag != "a":
            self.fetched += [about[name] for name in ("src", "href", "data") if about.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("book") / "site"
    done = python(ROOT / "docs/book.py", "--out", out, "--notebooks", *NOTEBOOKS)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"open {out / 'index.html'}" in done.stdout
    return out


@pytest.mark.timeout(600)
def test_every_page_is_there(site):
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert {"index.html", "notebooks/README.html", "notebooks/TEACHING.html"} <= pages
    assert {f"notebooks/{name}.html" for name in NOTEBOOKS} <= pages
    assert {f"reference/{part}.html" for part in book.PARTS} <= pages
    assert {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= pages
    # Notebooks are listed by the numbers with which they refer to each other.
    for name in NOTEBOOKS:
        assert f'notebooks/{name}.html">{name[:2]}. ' in (site / "index.html").read_text()
    shared = (site / "reference" / "analysis.html").read_text()
    assert "<strong>baseline</strong> – Methods to compare with" in shared
    for page, said in (("course", "Largest difference allowed"),
                       ("samplers", "budgetlab.samplers.draw_without_replacement")):  # fmt: skip
        assert said in (site / "reference" / f"{page}.html").read_text()
    # Formulas need no script.
    assert "math" in Page(site / "notebooks" / "12_workshop.html").tags


def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        asked = [place for place in Page(path).fetched if not place.startswith("data:")]
        outside = [place for place in asked if "//" in place.split("?")[0]]
        assert outside == [], f"{path.name} asks for {outside}"
    for path in site.rglob("*.css"):
        style = path.read_text()
        assert "@import" not in style, path
        assert "url(http" not in style.replace('"', ""), path


def test_figures_are_described(site):
    (start, *_) = [site / "notebooks" / f"{name}.html" for name in NOTEBOOKS]
    alts = [alt for alt in Page(start).alts if alt is not None]
    assert len(alts) >= 5
    assert all(len(alt) > 30 for alt in alts), alts
    for path in site.rglob("*.html"):
        assert None not in Page(path).alts, path


def test_solutions_are_folded_and_the_first_cell_is_left_out(site):
    text = (site / "notebooks" / "12_workshop.html").read_text()
    assert "find_spec" not in text
    solution = text.index("BEGIN SOLUTION")
    # The last fold that opens before the solution is not closed before it.
    fold = text.rindex("<details", 0, solution)
    assert "</details>" not in text[fold:solution]


def test_every_module_that_is_public_is_in_the_reference():
    package = ROOT / "budgetlab"
    rooms = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert set(book.PARTS) == rooms - {"__init__"} - NOT_FOR_READERS


def cell(output: dict | None, source: str = "draw()") -> nbformat.NotebookNode:
    made = nbformat.v4.new_code_cell(source)
    made.outputs = [nbformat.from_dict(output)] if output else []
    return made


FIGURE = {"output_type": "display_data", "data": {"image/png": "aGk="}, "metadata": {}}
PRINTED = {"output_type": "stream", "name": "stdout", "text": "Two lines\nthat cross.\n"}


def test_a_description_comes_from_below_the_figure_or_from_the_cell():
    caption = nbformat.v4.new_markdown_cell("*Figure: one line,\nfalling.*\n\nThen more.")
    drawn = cell(FIGURE)
    drawn.outputs.append(nbformat.from_dict(PRINTED))
    assert book.describe(drawn, [caption]) == "one line, falling."
    assert book.describe(drawn, [nbformat.v4.new_markdown_cell("text")]) == "Two lines that cross."
    assert book.describe(cell(FIGURE), []) == ""
    assert book.describe(cell(FIGURE), [cell(PRINTED), caption]) == "one line, falling."
    assert book.describe(cell(FIGURE), [cell(FIGURE), caption]) == ""
    assert book.has_figure(drawn)
    assert not book.has_figure(cell(PRINTED))


def test_links_to_what_is_no_part_of_the_book_become_text(tmp_path):
    (tmp_path / "here.md").write_text("")
    text = "[a](here.md) [b](../gone.py) [c](https://x.org) [d](#part) ![e](gone.png)"
    kept = "[a](here.md) b [c](https://x.org) [d](#part) ![e](gone.png)"
    assert book.without_dead_links(text, tmp_path) == kept


def test_the_setup_cell_is_no_part_of_a_page():
    page = book.as_page(nbformat.read(ROOT / "notebooks" / f"{NOTEBOOKS[1]}.ipynb", as_version=4))
    tags = [cell.metadata.get("tags", []) for cell in page.cells]
    assert [tag for tag in tags if "setup" in tag] == [["setup", "remove-cell"]]
    assert all("hide-input" in tag for tag in tags if "exercise" in tag)
    assert json.dumps(page)


FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![$\\])\$([^$\n]+?)\$(?!\$)", re.S)


def test_every_formula_of_the_course_can_be_drawn():
    found = 0
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for one in nbformat.read(path, as_version=4).cells:
            if one.cell_type == "markdown":
                for block, inline in FORMULA.findall(one.source):
                    found += 1
                    assert "<math" in mathml.convert((block or inline).strip(), bool(block))
    assert found
    assert "<mfrac>" in mathml.convert(r"\frac12", False)
    with pytest.raises(ValueError, match="nosuchthing"):
        mathml.convert(r"\nosuchthing{x}", False)
