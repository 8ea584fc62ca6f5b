"""A prediction is locked before its result shows, once, and a page needs no widget."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import budgetlab as bl
from budgetlab.course import predicting

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def guess(monkeypatch):
    monkeypatch.setattr(predicting, "_locked", {})
    return bl.course.predict("Which loses <more>?", ["the subset", "the redrawn part"])


def bundle(shown) -> dict:
    return shown._repr_mimebundle_()


def test_a_result_waits_for_the_prediction_and_then_says_both(guess):
    shown = guess.reveal("The subset loses 11 points.", answer="the subset")
    assert "11 points" not in shown.widget.value
    assert guess.button.disabled
    guess.radio.value = "the redrawn part"
    assert not guess.button.disabled
    guess.button.click()
    assert "11 points" in shown.widget.value
    assert "you predicted: the redrawn part" in shown.widget.value
    assert guess.radio.disabled
    assert "as you predicted" not in shown.widget.value


def test_what_was_locked_stays_locked_where_the_cell_is_run_again(guess):
    guess.lock("the subset")
    guess.lock("the redrawn part")
    again = bl.course.predict("Which loses <more>?", ["the subset", "the redrawn part"])
    assert again.locked == again.radio.value == "the subset"
    assert again.radio.disabled
    assert "as you predicted" in again.reveal("so", answer="the subset").widget.value
    other = bl.course.predict("Which loses <more>?", ["another", "choice"])
    assert other.locked is None


def test_a_page_shows_question_and_result_without_a_widget(guess):
    asked = bundle(guess)
    assert WIDGET in asked
    assert "Which loses &lt;more&gt;?" in asked["text/html"]
    assert "<li>the redrawn part</li>" in asked["text/html"]
    assert "11" in bundle(guess.reveal("11 points", "the subset"))["text/html"]


def test_figures_and_tables_wait_as_well(guess):
    figure, ax = plt.subplots()
    ax.plot([0, 1])
    shown = guess.reveal(ax, "the subset", alt="a line that rises")
    assert not plt.fignum_exists(figure.number)
    assert bundle(shown)["text/plain"] == "a line that rises"
    assert bundle(shown)["image/png"]
    table = guess.reveal(pd.DataFrame({"lost": [11.0]}), "the subset")
    assert "<img" not in shown.widget.value
    guess.lock("the subset")
    assert 'alt="a line that rises"' in shown.widget.value
    assert "11.0" in table.widget.value


def test_what_cannot_be_predicted_is_refused(guess):
    with pytest.raises(bl.InputError, match="two different"):
        bl.course.predict("?", ["one", "one"])
    with pytest.raises(bl.InputError, match="the subset"):
        guess.reveal("so", answer="a subset")
    with pytest.raises(bl.InputError, match="nothing"):
        guess.lock("nothing")
