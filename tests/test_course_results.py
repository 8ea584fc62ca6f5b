"""Tables that notebooks read: where they are looked for, and that they are those measured."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from budgetlab import course
from budgetlab.course.results import USUAL
from budgetlab.errors import InputError
from experiments import fit_probe, maps, ship
from experiments.tables import RESULTS, read

RECORDS = Path(__file__).parents[1] / "notebooks/records"


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
    with pytest.raises(InputError, match="table 'x' is not here, nor any other: the folder rec"):
        course.results("x", (tmp_path,))
    (tmp_path / "departures.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="unknown table of results 'departure': did you mean 'dep"):
        course.results("departure", (tmp_path,))


def test_the_course_reads_the_rows_that_the_experiments_wrote():
    measured = ship.shipped(read(RESULTS / "scale_model.csv"))
    pd.testing.assert_frame_equal(course.results(folders=(RECORDS,)), measured, check_dtype=False)


@pytest.mark.parametrize("name", ship.COPIED)
def test_other_tables_are_copied_as_they_are(name):
    assert (RECORDS / name).read_bytes() == (RESULTS / name).read_bytes()


def test_no_run_occurs_twice_and_the_seed_draws_the_images():
    table = read(RESULTS / "scale_model.csv")
    assert table["key"].is_unique
    assert (table["data_seed"] == table["seed"]).all()
    settings = ship.COLUMNS[: ship.COLUMNS.index("test_accuracy")]
    assert not course.results(folders=(RECORDS,)).duplicated(settings).any()


def test_select_takes_what_varies_what_is_asked_for_and_the_rest_as_usual():
    rows = pd.DataFrame({name: [value] * 5 for name, value in USUAL.items()}
                        | {"epochs": [100, 100, 100, 30, 100]})  # fmt: skip
    rows["method"] = ["unif-SGD", "p-SGD", "c-SGD", "unif-SGD", "unif-SGD"]
    rows["budget"] = [0.3, 0.3, 0.3, 0.3, 0.2]
    assert list(course.select(rows).index) == [0]
    assert list(course.select(rows, "method").index) == [0, 1, 2]
    assert list(course.select(rows, "epochs").index) == [0, 3]
    assert list(course.select(rows, method=["p-SGD", "c-SGD"]).index) == [1, 2]
    assert list(course.select(rows, "budget", method="unif-SGD").index) == [0, 4]


README = RESULTS.parents[1] / "README.md"


@pytest.fixture(scope="module")
def today():
    return read(RESULTS / "scale_model.csv")


def test_readme_says_what_the_tables_say_today(today, tmp_path):
    anew = tmp_path / "README.md"
    anew.write_text(README.read_text("utf-8"), "utf-8")
    ship.write_readme(today, json.loads(fit_probe.OUT.read_text("utf-8")), anew)
    assert anew.read_text("utf-8") == README.read_text("utf-8"), "run python -m experiments.ship"


def test_the_headlines_of_readme_hold(today):
    lines = {line.split("|")[1].strip(): line for line in ship.readme_table(today).splitlines()}
    assert lines["a fixed random subset"].count("worse") == len(ship.NAMES)
    assert lines["selective backprop, equal flops"].count("worse") == len(ship.NAMES)
    for method in ("`p-SGD`", "`c-SGD`"):
        assert not re.search("better|worse", lines[method])
    pooled = maps.pooled(today)
    noisy = pooled[pooled["entry"].isin(ship.SEEKING) & pooled["label_noise"].gt(0)]
    assert (noisy["difference"] < 0).mean() > 0.8
