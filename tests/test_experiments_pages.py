"""The pages say what the table holds, and no more."""

import itertools
import re
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from budgetlab.course.results import USUAL, select
from experiments import card, maps, pages, plans, tables
from experiments.tables import FEWEST, SEEDS, against, interval


@lru_cache
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
    assert re.search(r"p-SGD against unif-SGD: \+2\.0 \(.*\), n = 9, too few seeds", text)
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


def test_the_card_says_what_was_published_and_what_was_run():
    rows = pd.concat([rows_of(p, {"random-subset": -0.1}, dataset="cifar10-jpeg") for p in "abcde"])
    rows = rows.drop_duplicates("key")
    text = card.page({"paper": EMPTY, "small": rows})
    assert text.count("not run yet") >= sum(len(claim.lines) for claim in card.CLAIMS)
    assert "fixed subset, budget 0.3 is worse than unif-SGD, budget 0.3: -" in text
    entropy = next(claim for claim in card.CLAIMS if claim.metric == "entropy")
    lines = card.card(entropy, {"paper": EMPTY, "small": rows}).set_index("condition")
    assert lines.loc["unif-SGD", "published"] == "no number"
    assert lines.loc["p-SGD with RICAP", "published"] == "10.81"


def test_lines_of_the_card_are_read_off_once():
    run = next(plans.runs("b", "shapes", 0)).replace(budget=0.3)
    assert {name: getattr(run, name) for name in USUAL} == USUAL
    for claim in card.CLAIMS:
        settings = [tuple(sorted((USUAL | own).items())) for own in claim.lines.values()]
        assert len(set(settings)) == len(settings), claim.title
        assert set(claim.numbers) <= set(claim.lines)
        assert set(itertools.chain.from_iterable(claim.pairs)) <= set(claim.lines)


CORNER = "imbalance 100"


def test_newer_methods_stand_in_the_corners_and_what_is_missing_says_so():
    newer, base = rows_of("newer", {"seta": 0.03}), rows_of("map", {})
    table = maps.corner_table(pd.concat([newer, base])).set_index("method")
    assert list(table.columns[1:]) == [
        "clean", "redundancy 0.9", "label noise 0.4", CORNER
    ]  # fmt: skip
    assert set(table.index) == set(plans.NEWER)
    assert table.loc["seta", CORNER].startswith("+")
    assert table.loc["seta", CORNER].endswith(", better (n = 10)")
    assert not table.eq("not run yet").any(axis=None)
    part = newer[newer["entry"].ne("dual, equal flops") & newer["imbalance"].eq(1)]
    table = maps.corner_table(pd.concat([part, base])).set_index("method")
    assert table[CORNER].eq("not run yet").all()
    assert table.loc["dual, equal flops", "clean"] == "not run yet"
    assert "## Newer methods, in the corners of the map" in maps.importance_map(EMPTY)


def test_the_league_says_which_of_its_methods_were_not_run():
    rows = pd.concat([rows_of("league", {}), rows_of("b", {})])
    missing = [line for line in pages.league(rows).splitlines() if line.startswith("Not run yet")]
    assert missing == [
        f"Not run yet on shapes at budget {budget}: `random-subset`." for budget in (0.2, 0.3)
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
