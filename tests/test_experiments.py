"""Plans, the table they fill, what a sitting leaves that is cut off, and what pages say of it."""

import collections
import functools
import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest

from budgetlab import config
from budgetlab.course.results import DEFAULTS, select
from experiments import card, fit_probe, influence, maps, pages, plans, ship, tables
from experiments.__main__ import ROUND, main, ordered
from experiments.tables import FEWEST, RESULTS, SEEDS, against, interval, read


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


# The pages say what the table holds, and no more


@functools.lru_cache
def plan(part: str, dataset: str) -> list[dict]:
    """Settings of every run of a part, for one seed."""
    return [
        {"entry": plans.entry(run), "key": tables.key(run), "dataset": dataset,
         **{name: getattr(run, name) for name in tables.SETTINGS}}
        for run in plans.runs(part, dataset, 0)
    ]  # fmt: skip


def rows_of(part: str, gains: dict[str, float], seeds: int = SEEDS, dataset: str = "shapes"):
    """Make rows of a part whose accuracy is 0.5, plus what its entry gains, plus a seed's own."""
    rng = np.random.default_rng(0)
    level = rng.normal(0, 0.02, seeds)
    about = {"train_accuracy": 1.0, "entropy": 6.9, "hardware": "a machine",
             "precision": "float32", "threads": 1, "torch": "2.14"}  # fmt: skip
    rows = []
    for seed, run in itertools.product(range(seeds), plan(part, dataset)):
        accuracy = 0.5 + level[seed] + gains.get(run["entry"], 0.0) + rng.normal(0, 0.001)
        own = {"seed": seed, "key": f"{run['key']}-{seed}", "test_accuracy": accuracy}
        rows.append(run | about | own)
    return pd.DataFrame(rows)


EMPTY = pd.DataFrame(columns=list(rows_of("a", {}, 1)))


def test_a_gain_is_found_where_it_was_put_and_nowhere_else():
    gains = {"p-SGD": 0.02, "c-SGD": -0.03}
    table = maps.map_table(rows_of("map", gains)).set_index("entry")
    assert set(table.loc["p-SGD", "verdict"]) == {"better"}
    assert set(table.loc["c-SGD", "verdict"]) == {"worse"}
    # Among so many cells one may be called by chance.
    assert (table.loc["loss", "verdict"] == "equivalent").sum() >= 22
    assert table.loc["p-SGD", "difference"].to_numpy() == pytest.approx(0.02, abs=0.003)
    assert "unif-SGD" not in table.index
    assert len(table) == 24 * (len(plans.ENTRIES) - 1)
    # Pairs are of the same seed, wherever their rows stand, and other conditions are apart.
    rows = pd.concat([rows_of("map", gains), rows_of("newer", {"loss, balanced": 0.2})])
    again = maps.map_table(rows.sample(frac=1, random_state=1)).set_index("entry")
    assert again.loc["p-SGD", "difference"].mean() == pytest.approx(0.02, abs=0.001)
    assert again.loc["loss", "difference"].abs().max() < 0.01


def test_over_the_rows_of_the_map_each_seed_has_one_difference():
    rows = rows_of("map", {"c-SGD": 0.01}, SEEDS + 1)
    noisy = rows["entry"].eq("loss") & rows["label_noise"].eq(0.4)
    rows.loc[noisy, "test_accuracy"] -= 0.05
    rows = rows[~(rows["seed"].eq(3) & rows["redundancy"].eq(0.5))]  # all but one are whole
    table = maps.pooled(rows).set_index(["entry", "label_noise"])
    assert set(table["n"]) == {SEEDS}
    assert table.loc["c-SGD", "difference"].to_numpy() == pytest.approx([0.01] * 4, abs=0.001)
    assert table.loc["loss", "verdict"].to_dict() == {
        0.0: "equivalent", 0.1: "equivalent", 0.2: "equivalent", 0.4: "worse"
    }  # fmt: skip
    assert "What label noise does" in maps.importance_map(rows)


def test_a_verdict_takes_ten_seeds():
    few, enough = (rows_of("b", {"p-SGD": 0.02}, n) for n in (SEEDS - 1, SEEDS))
    assert "p-SGD (budget 20%) is better than unif-SGD" in pages.findings(enough)
    text = pages.findings(few)
    assert not re.search(r"is (better|worse|equivalent)", text.split("## (b)")[1])
    assert re.search(r"p-SGD against unif-SGD: \+2\.0 \(.*\), n = 9: too few seeds", text)
    table = maps.map_table(rows_of("map", {"p-SGD": 0.02}, SEEDS - 1))
    assert set(table["verdict"]) == {""}
    assert maps.map_table(rows_of("map", {}, seeds=FEWEST - 1)).empty
    assert "fewer than ten seeds" in maps.importance_map(rows_of("map", {}, SEEDS - 1))


def test_every_finding_has_its_section_and_what_was_not_run_says_so():
    rows = pd.concat([rows_of(part, {"random-subset": -0.1}) for part in plans.FINDINGS])
    text = pages.findings(rows.drop_duplicates("key"))
    for letter in plans.FINDINGS:
        assert f"## ({letter})" in text
    assert "Not run yet" not in text
    assert text.count("random-subset (budget 20%) is worse than unif-SGD") == 1
    text = pages.findings(rows_of("b", {}, 3))
    assert "Not run yet" in text.split("## (d)")[1].split("## (e)")[0]
    assert "Not run yet" in maps.importance_map(EMPTY)
    assert pages.league(EMPTY).count("Not run yet") == 3


def test_columns_and_sentences_stand_in_one_order_whatever_that_of_the_runs():
    both = ("shapes", "cifar10-jpeg")
    rows = pd.concat([rows_of(part, {}, dataset=name) for part in "ab" for name in both])
    part = pages.findings(rows.drop_duplicates("key")).split("## (b)")[0].split("## (a)")[1]
    columns = [f" {name}, budget {b}% " for name in both for b in (20, 30, 100)]
    assert columns == next(line for line in part.splitlines() if "|" in line).split("|")[2:-1]
    said = re.findall(r"random-subset \((.*?)\)", part)
    assert said == [f"{name}, budget {b}%" for name in both for b in (20, 30)]


def test_the_card_says_what_was_published_and_what_was_run():
    rows = pd.concat([rows_of(p, {"random-subset": -0.1}, dataset="cifar10-jpeg") for p in "abcde"])
    rows = rows.drop_duplicates("key")
    text = card.page({"paper": EMPTY, "small": rows})
    assert text.count("not run yet") >= sum(len(claim.lines) for claim in card.CLAIMS)
    assert "fixed subset (budget 0.3) is worse than unif-SGD (budget 0.3): -" in text
    entropy = next(claim for claim in card.CLAIMS if claim.metric == "entropy")
    lines = card.card(entropy, {"paper": EMPTY, "small": rows}).set_index("condition")
    assert lines.loc["unif-SGD", "published"] == "no number"
    assert lines.loc["p-SGD with RICAP", "published"] == "10.81"


def test_lines_of_the_card_are_read_off_once():
    run = next(plans.runs("b", "shapes", 0)).replace(budget=0.3)
    assert {name: getattr(run, name) for name in DEFAULTS} == DEFAULTS
    for claim in card.CLAIMS:
        settings = [tuple(sorted((DEFAULTS | own).items())) for own in claim.lines.values()]
        assert len(set(settings)) == len(settings), claim.title
        assert set(claim.numbers) <= set(claim.lines)
        assert set(itertools.chain.from_iterable(claim.pairs)) <= set(claim.lines)


def test_newer_methods_stand_in_the_corners_and_what_is_missing_says_so():
    newer, base = rows_of("newer", {"seta": 0.03}), rows_of("map", {})
    table = maps.corner_table(pd.concat([newer, base])).set_index("method")
    corner = "imbalance 100"
    assert list(table.columns[1:]) == ["clean", "redundancy 0.9", "label noise 0.4", corner]
    assert set(table.index) == set(plans.NEWER)
    assert table.loc["seta", corner].startswith("+")
    assert table.loc["seta", corner].endswith(", better (n = 10)")
    assert not table.eq("not run yet").any(axis=None)
    part = newer[newer["entry"].ne("dual, equal flops") & newer["imbalance"].eq(1)]
    table = maps.corner_table(pd.concat([part, base])).set_index("method")
    assert table[corner].eq("not run yet").all()
    assert table.loc["dual, equal flops", "clean"] == "not run yet"
    assert "## Newer methods, in the corners of the map" in maps.importance_map(EMPTY)


def test_the_league_says_which_of_its_methods_were_not_run():
    rows = pd.concat([rows_of("league", {}), rows_of("b", {})])
    missing = [line for line in pages.league(rows).splitlines() if line.startswith("Not run yet")]
    assert missing == [
        f"Not run yet on shapes at budget {budget}: `random-subset`." for budget in ("20%", "30%")
    ]
    no_top = rows[~(rows["method"].eq("top-k") & rows["budget_unit"].eq("flops"))]
    missing = [line for line in pages.league(no_top).splitlines() if line.startswith("Not run yet")]
    assert [line.split(": ")[1] for line in missing] == ["`random-subset`."] * 2 + ["`top-k`."] * 2
    assert "| loss |" not in pages.league(rows).split("## At equal flops")[1]


@pytest.mark.parametrize(
    ("seeds", "said"), [(1, r"-\d+\.\d \(one pair\)"), (2, r"-\d+\.\d and -\d+\.\d \(two pairs\)")]
)
def test_one_or_two_pairs_have_no_interval_and_no_verdict(seeds, said):
    rows = pd.concat([rows_of("a", {"random-subset": -0.1}, seeds), rows_of("b", {}, seeds)])
    found = against(select(rows, "method"), "method", "unif-SGD").set_index("method")
    assert re.fullmatch(said, interval(found.loc["random-subset"]))
