"""Plans, the table they fill, what a sitting leaves when it is cut off, and README of today."""

import collections
import json
import re

import numpy as np
import pandas as pd
import pytest

from budgetlab import config
from experiments import fit_probe, influence, maps, plans, ship, tables
from experiments.__main__ import ROUND, main, ordered
from experiments.tables import RESULTS, read


def test_every_part_is_paired_with_uniform_draws_on_the_same_data():
    for part in plans.FINDINGS:
        if part in ("a", "d", "e"):
            continue
        methods = {run.method for run in plans.runs(part, "digits", 0)}
        assert "unif-SGD" in methods, part
    cells = collections.defaultdict(set)
    for run in plans.runs("map", "digits", 3):
        cells[run.redundancy, run.imbalance, run.label_noise].add(plans.entry(run))
    assert len(cells) == 4 * 4 + 2 * 4
    assert all(found == set(plans.ENTRIES) for found in cells.values())


def test_other_networks_are_compared_as_in_the_map_and_keep_a_table_of_their_own(capsys):
    cells = collections.defaultdict(set)
    for run in plans.runs("networks", "digits", 0):
        cells[run.model, run.redundancy, run.imbalance, run.label_noise].add(plans.entry(run))
    assert len(cells) == len(plans.NETWORKS) * 6
    assert all(found == set(plans.ENTRIES) for found in cells.values())
    assert {cell[1:] for cell in cells} <= {
        (run.redundancy, run.imbalance, run.label_noise) for run in plans.runs("map", "digits", 0)
    }
    assert not list(plans.runs("networks", "digits", plans.NETWORK_SEEDS))
    assert not list(plans.runs("networks", "cifar10", 0, preset="paper"))
    main(["--datasets", "digits", "--parts", "d", "networks", "--seeds", "0", "--plan"])
    said = capsys.readouterr().out.splitlines()
    assert said == ["0 of 3 runs are in scale_model.csv", "0 of 84 runs are in networks.csv"]


def test_the_key_of_a_run_does_not_depend_on_where_it_is_and_seeds_come_in_rounds(tmp_path):
    one, two = (next(plans.runs("b", f"folder:{place}/flowers", 0, data_root=root))
                for place, root in (("here", "data"), ("/there", "elsewhere")))  # fmt: skip
    assert tables.key(one) == tables.key(two) != tables.key(one.replace(seed=1))
    plan = ordered(["b", "map"], ["digits"], range(10))
    assert {run.seed for run in plan[: len(plan) * ROUND // 10]} == set(range(ROUND))
    assert tables.key(plan[0]) in {tables.key(run) for run in plans.runs("b", "digits", 0)}
    # A setting younger than a row has its default there.
    (tmp_path / "a.csv").write_text("key,class_shares,seed\n0011223344,,0\n1122334455,kept,1\n")
    rows = tables.read(tmp_path / "a.csv")
    assert rows["class_shares"].tolist() == ["free", "kept"]
    assert rows["key"].tolist() == ["0011223344", "1122334455"]


@pytest.fixture
def tiny(monkeypatch):
    """Three runs of a second in place of the plan."""
    short = {"epochs": 6, "limit": 128, "batch_size": 16, "model": "tiny"}
    monkeypatch.setitem(config.PRESETS, "scale-model", ("short", short))
    settings = [{"method": m, "budget": 0.5} for m in ("unif-SGD", "p-SGD", "selective-backprop")]
    monkeypatch.setitem(plans.PARTS, "b", settings)


def test_a_sitting_adds_up_trains_nothing_twice_and_outlives_what_fails(
    tiny, tmp_path, monkeypatch, capsys
):
    plans.PARTS["b"].insert(0, {"method": "p-SGD", "budget": 0.001})
    table = tmp_path / "table.csv"
    given = ["--datasets", "digits", "--parts", "b", "--workers", "1", "--table", str(table),
             "--out", str(tmp_path / "runs"), "--data-root", str(tmp_path)]  # fmt: skip
    main([*given, "--seeds", "0", "--keep", str(tmp_path / "kept")])
    assert "less than one batch" in capsys.readouterr().err
    rows = pd.read_csv(table)
    assert sorted(rows["method"]) == ["p-SGD", "selective-backprop", "unif-SGD"]
    assert rows["test_accuracy"].between(0.05, 1).all()
    assert (rows["looked_samples"] > 0).equals(rows["method"] == "selective-backprop")
    # Only runs of full length are worth keeping.
    assert not (tmp_path / "kept").exists()
    trained = []
    nothing = {"key": "-", "failed": "not trained"}
    monkeypatch.setattr(tables, "_train", lambda run, kept: trained.append(run) or nothing)
    assert main([*given, "--seeds", "0", "--plan"]) == 0
    assert "3 of 4 runs" in capsys.readouterr().out
    main([*given, "--seeds", "0"])
    assert [run.budget for run in trained] == [0.001]


# Leaving out: every sample once, and a table that says what it rests on


def test_every_sample_is_left_out_once():
    parts = list(influence.folds(23, 4, seed=1))
    assert sorted(np.concatenate(parts)) == list(range(23))
    assert {len(part) for part in parts} == {5, 6}


def test_the_table_has_every_measure_beside_the_influence(tmp_path, monkeypatch, data_root):
    monkeypatch.setitem(influence.DATA, "points", {"limit": 40, "label_noise": 0.1})
    monkeypatch.setitem(influence.RUN, "points", {"model": "mlp", "epochs": 3})
    table = tmp_path / "influence.csv"
    given = ["--datasets", "points", "--seeds", "1", "--folds", "4", "--data-root", str(data_root)]
    assert influence.main([*given, "--table", str(table)]) == 0
    rows = pd.read_csv(table)
    own = rows[rows["effect"] == "own margin"]
    assert {"influence", *influence.MEASURES} <= set(own["measure"])
    assert (rows["ci_low"] <= rows["spearman"]).all()
    assert (rows["spearman"] <= rows["ci_high"]).all()
    assert set(rows["trainings"]) == {5}
    assert set(rows["left_out"]) == {10}
    assert rows["hardware"].notna().all()


# What README says of the results is what the tables say today

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
