"""Tables that notebooks read: where they are looked for, and what is said if they are not there."""

import pytest

from budgetlab import course
from budgetlab.errors import InputError


def test_the_first_folder_that_holds_the_table_wins(tmp_path):
    near, far = tmp_path / "near", tmp_path / "far"
    for folder, value in ((near, 1), (far, 2)):
        folder.mkdir()
        (folder / "both.csv").write_text(f"method,value\np-SGD,{value}\n")
    (far / "one.csv").write_text("value\n3\n")
    places = (tmp_path / "missing", near, far)
    assert course.results("both", places).to_dict("records") == [{"method": "p-SGD", "value": 1}]
    assert list(course.results("one", places)["value"]) == [3]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="table 'x' is not here, nor any other"):
        course.results("x", (tmp_path,))
    (tmp_path / "departures.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="unknown table of results 'departure': did you mean 'dep"):
        course.results("departure", (tmp_path,))


def test_the_checkout_ships_the_departures():
    frame = course.results("departures")
    assert {"departure", "code", "seed", "test_accuracy", "flops"} <= set(frame)
    assert len(frame) > 30
