"""What README says of the results is what the tables say today."""

import json
import re

import pytest

from experiments import fit_probe, maps, ship
from experiments.tables import RESULTS, read

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
