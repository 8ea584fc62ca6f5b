"""What all widgets share: pictures, controls, the status line."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from budgetlab import plots
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.plots.samples import histogram
from budgetlab.widgets.controls import (
    Number,
    PicturePanel,
    StatusLine,
    choice,
    data_uri,
    ready,
    table_markup,
)


def decode(markup):
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", markup)[1])))
    )


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_an_image_survives_its_address(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decode(data_uri(pixels) + '"'), pixels.squeeze())


def test_a_picture_has_the_size_of_its_figure_and_says_what_it_shows():
    panel = PicturePanel(300, 120)
    (line,) = panel.axes[0].plot([0, 1], [0, 1])
    panel.show('a < b & "c"')
    first = decode(panel.value)
    assert first.shape == (120, 300, 3)
    assert 'alt="a &lt; b &amp; &quot;c&quot;"' in panel.value
    line.set_data([0, 1], [1, 0])
    panel.show("turned")
    assert not np.array_equal(decode(panel.value), first)
    assert panel.alt == "turned"


def test_the_background_of_a_picture_is_white():
    panel = PicturePanel(60, 40)
    panel.axes[0].axis("off")
    panel.show("nothing")
    assert (decode(panel.value) == 255).all()


def test_axes_made_ready_hold_nothing_of_the_picture_before():
    ax, fresh = (PicturePanel(300, 120).axes[0] for _ in range(2))
    style.empty(ax, "nothing yet")
    plots.sample_life(LIFE, image=np.zeros((4, 4), np.uint8), ax=ready(ax))
    for one in (ready(ax), ready(fresh)):
        histogram(np.arange(2000.0), x="loss", ax=one)
    assert [len(ax.get_children()), ax.get_xlim(), ax.get_ylim(), ax.get_legend()] == [
        len(fresh.get_children()), fresh.get_xlim(), fresh.get_ylim(), None]  # fmt: skip
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        text.get_text() for text in fresh.get_xticklabels()]  # fmt: skip
    assert ax.xaxis.get_visible()


LIFE = pd.DataFrame(
    {"epoch": [1, 2], "p_y": [0.2, 0.9], "correct": [0, 1], "times_trained": [1, 1]}
)


def test_a_number_typed_out_of_range_becomes_the_nearest_end():
    number = Number("Budget", 0.5, 0.1, 1.0, 0.1)
    heard = []
    number.on_change(lambda: heard.append(number.value))
    number.value = 7
    assert (number.value, number.slider.value, heard) == (1.0, 1.0, [1.0])
    number.value = -1
    assert number.value == 0.1


def test_slider_and_field_of_a_number_agree_and_tell_once():
    number = Number("Epoch", 3, 1, 9, 1)
    heard = []
    number.on_change(lambda: heard.append(number.value))
    number.slider.value = 5
    number.box.value = 6
    assert number.slider.value == 6
    assert heard == [5, 6]
    assert isinstance(number.value, int)


def test_what_a_slider_adds_up_is_rounded():
    number = Number("Budget", 0.5, 0.0, 1.0, 0.01)
    number.slider.value = 0.1 + 0.2
    assert number.value == 0.3
    assert number.slider.value == 0.3


@pytest.mark.parametrize(("low", "high", "after"), [(1, 3, 3), (7, 20, 7), (1, 9, 5), (5, 5, 5)])
def test_the_range_of_a_number_can_change(low, high, after):
    number = Number("Epoch", 5, 1, 9, 1)
    number.limit(low, high)
    assert (number.box.min, number.box.max, number.slider.min, number.slider.max) == (
        low, high, low, high,
    )  # fmt: skip
    assert number.value == number.slider.value == after


def test_a_number_has_a_name_that_can_be_seen():
    assert Number("Budget", 1, 0, 2, 1).box.description == "Budget"
    assert choice("Method", ["a", "b"], "b").value == "b"


def test_the_status_line_is_announced_and_shows_text_as_text():
    status = StatusLine()
    status.say("<b>loss</b>")
    assert 'role="status"' in status.value
    assert "&lt;b&gt;" in status.value
    assert not status.is_problem


def test_what_goes_wrong_is_said():
    status = StatusLine()
    with status.catching():
        raise InputError("budget 2 is not allowed")
    assert status.is_problem
    assert status.text == "budget 2 is not allowed"
    with status.catching():
        raise KeyError("row")
    assert status.text.startswith("KeyError")
    status.say("done")
    assert not status.is_problem


def test_a_status_line_begins_with_what_it_is_given():
    line = StatusLine("Ready.")
    assert (line.text, line.is_problem) == ("Ready.", False)
    assert ">Ready.</div>" in line.value
    assert "bl-status" in line._dom_classes


def test_a_table_shows_text_as_text_and_whole():
    long = "a" * 200
    made = table_markup(pd.DataFrame({"<b>": [long]}, index=["<i>row</i>"]))
    assert long in made
    assert "&lt;b&gt;" in made
    assert "<i>" not in made
