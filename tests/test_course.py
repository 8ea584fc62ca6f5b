"""What notebooks need beside the kit: checks of exercises, predictions, tables and records."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import budgetlab as bl
from budgetlab import course
from budgetlab.course import predicting
from budgetlab.course.results import DEFAULTS
from budgetlab.records import find_records
from experiments import ship
from experiments.tables import RESULTS, read

RECORDS = Path(__file__).parents[1] / "notebooks/records"
WIDGET = "application/vnd.jupyter.widget-view+json"

SCORES = torch.tensor([1.0, 2.0, 3.0])
SHARES = SCORES / 6


def stub(scores):
    raise NotImplementedError


def share(scores):
    return scores / scores.sum()


def in_place(scores):
    scores /= scores.sum()
    return scores


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


def yields(scores):
    raise NotImplementedError
    yield


@pytest.mark.parametrize("empty", [stub, yields, gives(None), gives(...), None, ...])
def test_an_empty_answer_is_no_mistake(said, empty):
    text = said(empty, lambda result: list(result) == [1], hint="divide by the sum")
    assert "nothing here yet" in text
    assert "Hint" not in text
    assert "not right" not in text


@pytest.mark.parametrize(
    ("value", "expected", "words"),
    [
        (SCORES, SHARES, "3 of 3 values are off; the first one (at 0, counted from 0) is 1 "),
        (SCORES, SHARES, "All are 6 times what they should be"),
        (SCORES, SHARES, "given:    scores = Tensor [1., 2., 3.]"),
        (SCORES, SHARES, "returned: Tensor [1., 2., 3.]"),
        (SCORES, SHARES, "expected: Tensor [0.1667, 0.3333, 0.5 ]"),
        (SHARES.flip(0), SHARES, "The values are right, their order is not"),
        (SHARES[:2], SHARES, "The shape is (2,) instead of (3,)"),
        (torch.tensor([0.0, torch.nan]), [0.0, 1.0], "NaN (at 1, counted from 0)"),
        (SHARES.numpy(), SHARES, "of type ndarray instead of Tensor"),
        ("a third", 1 / 3, "of type str instead of float"),
        (0.25, 1 / 3, "It is 0.25 instead of 0.333333"),
        (torch.tensor([0.5]), 0.5, "The shape is (1,) instead of that of a single number"),
        (torch.tensor([0.0, 2.0]), torch.tensor([0, 2]), "numbers with a fraction (float32)"),
        (True, 1, "True and False (bool) instead of whole numbers"),
        (torch.tensor([True, False]), torch.tensor([False, True]), "the other way round"),
        (iter([1]), [1], "of type list_iterator instead of list"),
    ],
)
def test_what_is_wrong_is_said_in_words(said, value, expected, words):
    text = said(gives(value), expected, hint="divide by the sum")
    assert words in text
    assert "not right yet (0 of 1 checks pass so far)" in text
    assert text.endswith("Hint: divide by the sum\n")
    assert not bl.course.passed("answer")


def test_an_exception_is_told_with_its_line_and_a_changed_argument_does_no_harm(said):
    def divides(scores):
        nothing = 0
        return scores[0].item() / nothing

    def in_place(scores):
        scores /= scores.sum()
        return scores

    text = said(divides, 1.0)
    assert "It stopped with ZeroDivisionError: " in text
    assert "in the line: return scores[0].item() / nothing" in text
    assert "TypeError" in said(share, 1.0, given=(SCORES, 2))
    assert "changes its argument 1 in place" in said(in_place, SHARES)
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
        (torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0])),
    ],
)
def test_the_same_in_another_coat_or_within_the_tolerance_is_right(said, value, expected):
    assert "right, 1 check passed" in said(gives(value), expected)
    assert "right" in said(gives(1.001), 1.0, tolerance=0.01)
    assert "It is 1.001 instead of 1" in said(gives(1.001), 1.0)


def test_a_predicate_says_it_in_its_own_words_and_random_answers_get_the_same_stream(said):
    def sums_to_one(result):
        return bool(abs(result.sum() - 1) < 1e-6) or f"The sum is {result.sum():g}, not 1."

    def draw(generator):
        return torch.randperm(5, generator=generator)

    assert "right" in said(share, sums_to_one)
    assert "The sum is 6, not 1." in said(gives(SCORES), sums_to_one)
    assert "A str cannot be checked here" in said(gives("six"), sums_to_one)
    assert "not what was asked for" in said(gives(2), lambda result: result == 3)
    generator = torch.Generator().manual_seed(3)
    expected = torch.randperm(5, generator=torch.Generator().manual_seed(3))
    for _ in range(2):
        assert "right" in said(draw, expected, given=(generator,))


@pytest.mark.parametrize("cases", [[], [(1,)], [((1,), None)], [((1,), "text")], ["ab c"]])
def test_cases_that_check_nothing_are_the_fault_of_their_author(cases):
    with pytest.raises(bl.InputError):
        bl.course.check(abs, cases)


def test_the_first_case_that_fails_is_shown_and_the_latest_check_counts(capsys):
    bl.course.check(abs, [((-1,), 1)], hint="not needed")
    assert capsys.readouterr().out == "abs: right, 1 check passed.\n"
    assert bl.course.passed("abs")
    bl.course.check(abs, [((1,), 1), ((-2,), -2), ((-3,), 0)])
    text = capsys.readouterr().out
    assert "1 of 3 checks pass so far" in text
    assert "returned: 2" in text
    assert not bl.course.passed("abs")
    assert not bl.course.passed("never checked")


# -- predictions -----------------------------------------------------------------------

ASKED = ("Which loses <more>?", ["the subset", "the redrawn part"])


@pytest.fixture
def guess(monkeypatch, tmp_path):
    monkeypatch.setattr(predicting, "_locked", {})
    monkeypatch.setattr(predicting, "PREDICTIONS_FILE", tmp_path / "predictions.json")
    return course.predict(*ASKED)


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
    assert guess.button.disabled


def test_what_was_locked_stays_locked_over_cells_and_kernels(guess, monkeypatch):
    guess.lock("the subset")
    guess.lock("the redrawn part")
    assert "as you predicted" in guess.reveal("so", answer="the subset").widget.value
    for kernel in (predicting._locked, {}):
        monkeypatch.setattr(predicting, "_locked", kernel)
        again = course.predict(*ASKED)
        assert again.locked == again.radio.value == "the subset"
        assert again.radio.disabled
    other = course.predict(ASKED[0], ["another", "choice"])
    assert other.locked is None
    other.lock("choice")
    assert "as you predicted" in other.reveal("so", answer="choice").widget.value


@pytest.mark.parametrize("damaged", ["", "[1]", "no json", '{"Which loses <more>?": 3}'])
def test_a_damaged_file_of_predictions_holds_none(guess, damaged):
    predicting.PREDICTIONS_FILE.write_text(damaged)
    again = course.predict(*ASKED)
    assert again.locked is None
    again.lock("the subset")
    assert again.locked == "the subset"


def test_a_page_shows_question_and_result_without_a_widget_and_figures_wait_as_well(guess):
    asked = bundle(guess)
    assert WIDGET in asked
    assert "Which loses &lt;more&gt;?" in asked["text/html"]
    assert "<li>the redrawn part</li>" in asked["text/html"]
    assert "11" in bundle(guess.reveal("11 points", "the subset"))["text/html"]
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
        course.predict("?", ["one", "one"])
    with pytest.raises(bl.InputError, match="the subset"):
        guess.reveal("so", answer="a subset")
    with pytest.raises(bl.InputError, match="nothing"):
        guess.lock("nothing")


# -- tables and records that ship ------------------------------------------------------


def test_the_first_folder_that_holds_the_table_wins_and_none_is_said(tmp_path):
    near, far = tmp_path / "near", tmp_path / "far"
    for folder, value in ((near, 1), (far, 2)):
        folder.mkdir()
        (folder / "both.csv").write_text(f"method,value\np-SGD,{value}\n")
    (far / "departures.csv").write_text("value\n3\n")
    places = (tmp_path / "missing", near, far)
    assert course.results("both", places).to_dict("records") == [{"method": "p-SGD", "value": 1}]
    assert list(course.results("departures", places)["value"]) == [3]
    with pytest.raises(bl.InputError, match="unknown table of results 'departure': did you mean"):
        course.results("departure", places)
    for find in (course.results, course.record):
        with pytest.raises(bl.InputError, match="'x' is not here, nor any other"):
            find("x", (tmp_path / "missing",))
    with pytest.raises(bl.InputError, match="did you mean 'cifar10-jpeg-p-SGD'"):
        course.record("cifar10-p-SGD", (RECORDS,))


def test_what_ships_is_what_was_measured():
    table = read(RESULTS / "scale_model.csv")
    theirs = course.results(folders=(RECORDS,))
    pd.testing.assert_frame_equal(theirs, ship.shipped(table), check_dtype=False)
    assert table["key"].is_unique
    assert (table["data_seed"] == table["seed"]).all()
    settings = ship.COLUMNS[: ship.COLUMNS.index("test_accuracy")]
    assert not theirs.duplicated(settings).any()
    for name in ship.COPIED:
        assert (RECORDS / name).read_bytes() == (RESULTS / name).read_bytes()


def test_the_record_that_ships_is_one_of_the_runs_in_the_table():
    (name,) = [path.name for path in find_records(RECORDS)]
    record = course.record(name, (RECORDS,))
    assert (name, record.config["method"]) == (f"cifar10-jpeg-{ship.RECORDED}", ship.RECORDED)
    assert not record.thumbnails, "images of this data set are not ours to pass on"
    table = course.select(course.results(), method=ship.RECORDED, seed=record.config["seed"])
    (run,) = table[table["dataset"] == "cifar10-jpeg"].to_dict("records")
    assert run["test_accuracy"] == pytest.approx(record.summary["test_accuracy"], rel=1e-5)
    assert record.config["budget"] == run["budget"]
    # Most epochs are left out; the last is kept.
    assert record.samples["probability"].to_numpy()[-1].sum() == pytest.approx(1, abs=0.02)
    assert not any(str(record.config[name]).startswith("/") for name in ("data_root", "out"))


def test_select_takes_what_varies_what_is_asked_for_and_the_rest_as_usual():
    rows = pd.DataFrame({name: [value] * 5 for name, value in DEFAULTS.items()}
                        | {"epochs": [100, 100, 100, 30, 100]})  # fmt: skip
    rows["method"] = ["unif-SGD", "p-SGD", "c-SGD", "unif-SGD", "unif-SGD"]
    rows["budget"] = [0.3, 0.3, 0.3, 0.3, 0.2]
    assert list(course.select(rows).index) == [0]
    assert list(course.select(rows, "method").index) == [0, 1, 2]
    assert list(course.select(rows, "epochs").index) == [0, 3]
    assert list(course.select(rows, method=["p-SGD", "c-SGD"]).index) == [1, 2]
    assert list(course.select(rows, "budget", method="unif-SGD").index) == [0, 4]
