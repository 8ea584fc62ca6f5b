"""Names from a stranger - of classes, files, folders - are only ever names on a page."""

import html
import os
from collections.abc import Iterator
from pathlib import Path

import ipywidgets as W
import numpy as np
import pytest
from PIL import Image

import budgetlab as bl
from budgetlab import data, widgets
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, one_line
from budgetlab.records import open_record
from budgetlab.training import Run

TAG = "<img src=x onerror=alert(1)>"
DOLLARS = "\\frac{$ & $x^"
NASTY = (TAG, DOLLARS, '"><script>alert(1)<', "a\x1b[31m\nb")
pytestmark = pytest.mark.filterwarnings("ignore:skipped in")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Class folders with such names, and a file that cannot be read with another."""
    top = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in NASTY:
        (top / name).mkdir()
        for number in range(8):
            pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(top / name / f"{number}.png")
    (top / TAG / f"{TAG}.png").write_bytes(b"nothing")
    return top


@pytest.fixture(scope="module")
def record(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    config = RunConfig(
        dataset=f"folder:{images}", method="p-SGD", augmentation="mixup", budget=0.5, epochs=2,
        batch_size=4, model="small", precision="float32", device="cpu", out=str(folder / "runs"),
        data_root=str(folder),
    )  # fmt: skip
    run = Run(config)
    list(run)
    return run.writer.path


def small_set(top: Path, *names: str) -> Path:
    """Six images a class."""
    for name in names:
        (top / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((8, 8, 3), 40 * number, np.uint8)
            Image.fromarray(pixels).save(top / name / f"{number}.png")
    return top


def harmless(page: str) -> None:
    """No name has become a part of the page."""
    assert TAG not in page
    assert "<script>alert" not in page
    # In words it is escaped; in the data of a chart it is a string of JSON.
    for known in (html.escape(TAG), TAG.replace("<", "\\u003c")):
        page = page.replace(known, "")
    assert "onerror=alert" not in page


def all_inside(widget: W.Widget) -> Iterator[W.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from all_inside(child)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_come_through_and_are_only_ever_names(record, images, tmp_path):
    opened = open_record(record)
    assert {*opened.classes} == {*NASTY}
    assert any(TAG in one for one in opened.about["data"]["skipped"])
    harmless(Path(bl.report.write([record], tmp_path / "page.html")).read_text())
    splits = data.load(f"folder:{images}", root=tmp_path, progress=False)
    for made in (
        widgets.AugmentationExplorer(splits),
        widgets.TrainingBench(records=[record], name="hostile"),
        widgets.ProbabilityMicroscope(record),
    ):
        pages = [one.value for one in all_inside(made) if isinstance(one, W.HTML)]
        assert pages
        for page in pages:
            harmless(page)
    # A dollar sign begins a formula in matplotlib; half of one is an error when drawn.
    for draw, given in (
        (bl.plots.class_share, bl.analysis.class_share(opened)),
        (bl.plots.learning_curves, record),
        (bl.plots.image_grid, opened),
    ):
        ax = draw(given)
        ax.figure.canvas.draw()
        assert bl.plots.alt_text(ax)


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are a matter of POSIX")
def test_names_that_are_no_text_are_shown_as_well_as_can_be(images, tmp_path):
    top = tmp_path / "images"
    for name in (b"caf\xe9", b"dog"):
        folder = os.fsencode(top) + b"/" + name
        os.makedirs(folder)
        for number in range(6):
            with open(folder + b"/%d\xff.png" % number, "wb") as file:
                Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(file, "png")
    splits = data.load(f"folder:{top}", root=tmp_path / "data", progress=False)
    assert splits.train.classes == ("caf\ufffd", "dog")
    for name in splits.train.classes:
        name.encode()


def test_folders_deeper_than_python_can_follow_and_pipes_are_passed_over(tmp_path):
    top = small_set(tmp_path / "images", "a", "b")
    os.mkfifo(top / "a" / "pipe.png")
    here = os.open(top / "a", os.O_RDONLY)
    try:
        for _ in range(1200):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    try:
        with pytest.warns(UserWarning, match=r"a/pipe.png: no file, or too large a one"):
            splits = data.load(f"folder:{top}", root=tmp_path / "data", progress=False)
    finally:
        # Nor can pytest follow them when it clears up after a later run.
        outer = top / "a/d"
        while (outer / "d").is_dir():
            inner = (outer / "d").rename(top / "a/inner")
            outer.rmdir()
            outer = inner.rename(outer)
        outer.rmdir()
    assert len(splits.train) + len(splits.test) == 12


# In the sentences with which something is refused


@pytest.mark.parametrize("name", ["a\nb", "a\r\x1b[2Jb", "a\u2028b", "\ud800"])
def test_a_name_does_not_break_the_line(name):
    with pytest.raises(InputError) as error:
        RunConfig.from_dict({name: 1})
    message = str(error.value)
    assert message.isprintable()
    assert f"unknown setting '{one_line(name)}'" in message
    assert one_line(message) == message


def test_a_sentence_does_not_grow_with_what_a_file_says(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, x=np.zeros((20, 8, 8, 3), np.uint8), y=np.arange(20) % 2)
    # The directory of the archive says another name than the entry, which is kilobytes long.
    content = bytearray(file.read_bytes())
    content[26:28] = (3000).to_bytes(2, "little")
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as error:
        data.load(f"npz:{file}", root=tmp_path)
    assert len(str(error.value)) < 500
    assert one_line("größer als \\n", 12) == "größer als \\..."
    assert one_line("größer als \\n") == "größer als \\n"
