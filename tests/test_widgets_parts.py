"""What all widgets share: figures, controls, the status line; and the explorer."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from budgetlab import augment
from budgetlab.augment import augmented
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.plots.samples import histogram
from budgetlab.widgets import AugmentationExplorer
from budgetlab.widgets.controls import (
    FigurePanel,
    Number,
    StatusLine,
    choice,
    data_uri,
    ready,
    table_markup,
)
from budgetlab.widgets.explorer import MIXING


def decode(markup):
    address = re.search(r"base64,([^\"]+)", markup)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address))))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_an_image_survives_its_address(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decode(data_uri(pixels) + '"'), pixels.squeeze())


def test_a_picture_has_the_size_of_its_figure_on_white_and_says_what_it_shows():
    panel = FigurePanel(300, 120)
    panel.axes[0].axis("off")
    panel.show('a < b & "c"')
    first = decode(panel.value)
    assert first.shape == (120, 300, 3)
    assert (first == 255).all()
    assert 'alt="a &lt; b &amp; &quot;c&quot;"' in panel.value
    panel.axes[0].plot([0, 1], [1, 0])
    panel.show("a line")
    assert not np.array_equal(decode(panel.value), first)
    assert panel.alt == "a line"


def test_axes_made_ready_hold_nothing_of_the_picture_before():
    ax, fresh = (FigurePanel(300, 120).axes[0] for _ in range(2))
    style.empty(ax, "nothing yet")
    histogram(np.arange(9.0), x="loss", weights=np.ones(9), ax=ready(ax))  # with a legend
    ready(ax).imshow(np.zeros((4, 4), np.uint8))
    for one in (ready(ax), ready(fresh)):
        histogram(np.arange(2000.0), x="loss", ax=one)
    assert [len(ax.get_children()), ax.get_xlim(), ax.get_ylim(), ax.get_legend()] == [
        len(fresh.get_children()), fresh.get_xlim(), fresh.get_ylim(), None]  # fmt: skip
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        text.get_text() for text in fresh.get_xticklabels()]  # fmt: skip
    assert ax.xaxis.get_visible()


def test_a_number_keeps_its_range_and_tells_once_of_each_change():
    number, heard = Number("Budget", 0.5, 0.1, 1.0, 0.01), []
    number.observe(lambda change: heard.append(change["new"]), "value")
    number.value = 7
    number.box.value = 0.7
    number.slider.value = 0.1 + 0.2  # a slider adds up its steps
    assert heard == [1.0, 0.7, 0.3]
    assert number.box.value == number.value == 0.3
    assert number.slider.value == 0.1 + 0.2  # a correction would undo the keys pressed meanwhile
    number.value = -1
    assert number.value == 0.1
    assert number.box.description == "Budget"
    assert choice("Method", ["a", "b"], "b").value == "b"


@pytest.mark.parametrize(("low", "high", "after"), [(1, 3, 3), (7, 20, 7), (1, 9, 5), (5, 5, 5)])
def test_the_range_of_a_number_can_change(low, high, after):
    number = Number("Epoch", 5, 1, 9, 1)
    number.limit(low, high)
    for part in (number.box, number.slider):
        assert (part.min, part.max, part.value) == (low, high, after)
    assert (number.value, type(number.value)) == (after, int)


def test_the_status_line_is_announced_and_says_in_words_what_went_wrong():
    status = StatusLine("Ready.")
    assert (status.text, status.is_problem) == ("Ready.", False)
    assert "bl-status" in status._dom_classes
    status.say("<b>loss</b>")
    assert 'role="status"' in status.value
    assert "&lt;b&gt;" in status.value
    for error, said in ((InputError("budget 2 is not allowed"), "budget 2 is not allowed"),
                        (KeyError("row"), "KeyError: 'row'")):  # fmt: skip
        with status.showing_errors():
            raise error
        assert (status.text, status.is_problem) == (said, True)
    status.say("done")
    assert not status.is_problem


def test_a_table_shows_text_as_text_and_whole():
    long = "a" * 200
    made = table_markup(pd.DataFrame({"<b>": [long]}, index=["<i>row</i>"]))
    assert long in made
    assert "&lt;b&gt;" in made
    assert "<i>" not in made


# ---- the explorer: what mixtures are made of, and what gets the credit ----


@pytest.fixture
def digits(load_once):
    return load_once("digits", limit=64)


@pytest.mark.parametrize("name", augment.names())
def test_parts_and_credit_of_every_augmentation(digits, name):
    indices = [10, 11, 12, 13]
    made, again = (augmented(digits.train, indices, name, seed=5) for _ in range(2))
    for index, one, same in zip(indices, made, again, strict=True):
        assert np.array_equal(one.image, same.image)
        assert one.parts == same.parts
        assert sum(one.parts.values()) == pytest.approx(1)
        assert set(one.parts) <= set(indices)
        assert list(one.parts.values()) == sorted(one.parts.values(), reverse=True)
        assert one.credit["row"] == {index: 1.0}
        assert one.credit["weighted"] == pytest.approx(one.parts)
        (best,) = one.credit["dominant"]
        assert best in one.parts
        if name == "none":
            assert np.array_equal(one.image, digits.train.x[index].permute(1, 2, 0).numpy())
            assert one.parts == one.credit["weighted"] == {index: 1.0}


def test_the_published_rule_can_credit_what_is_not_there(digits):
    absent = 0
    for seed in range(30):
        for one in augmented(digits.train, list(range(6)), "ricap", seed=seed):
            absent += not set(one.credit["row"]) <= set(one.parts)
            assert set(one.credit["dominant"]) <= set(one.parts)
    # Each of at most four patches is the row's own with chance 1/6.
    assert absent > 180 * (5 / 6) ** 4 * 0.8


def test_the_explorer_shows_what_the_function_gives_at_every_end(digits, load_once):
    with pytest.raises(InputError, match="points cannot be augmented"):
        AugmentationExplorer(load_once("points", limit=128))
    explorer = AugmentationExplorer(digits.train)
    before = explorer.sheet.value
    for name in ("first", "seed", "alpha", "operations", "magnitude"):
        control = getattr(explorer, name)
        for end in (control.box.max, control.box.min):
            control.value = end
            assert not explorer.status.is_problem, explorer.status.text
            assert explorer.sheet.value.count("<img alt=") == 6 * len(augment.names())
    assert explorer.sheet.value != before
    explorer.first.value, explorer.seed.value, explorer.alpha.value = 4, 9, 1.0
    by_hand = augmented(digits.train, list(range(4, 10)), "ricap", seed=9, alpha=1.0)
    assert [one.parts for one in explorer.mixtures["ricap"]] == [one.parts for one in by_hand]
    assert explorer.status.text.startswith("Samples 4 to 9 as one batch, draw 9: ")
    sample, share = next(iter(by_hand[0].parts.items()))
    assert f"{100 * share:.0f}% #{sample} " in explorer.credit.value
    explorer.again.click()
    assert explorer.seed.value == 10
    rows = explorer.mixtures["ricap"]
    assert [one.parts for one in rows] != [one.parts for one in by_hand]
    absent = [not set(one.credit["row"]) <= set(one.parts) for one in rows]
    assert explorer.credit.value.count("which is not in the image") == sum(absent) > 0


def test_the_credit_is_that_of_the_augmentation_that_is_chosen(digits):
    explorer, said = AugmentationExplorer(digits), {}
    for name in explorer.detail.options:
        explorer.detail.value = name
        said[name] = explorer.credit.value
        assert said[name].count("<tr") == 7
    assert len({said[name] for name in MIXING}) == len(MIXING)
    # The others leave each image its own credit.
    assert {said[name] for name in set(said) - set(MIXING)} == {said["none"]}
    assert said["none"] not in {said[name] for name in MIXING}
