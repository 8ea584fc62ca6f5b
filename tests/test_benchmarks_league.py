"""The league: who runs where, who is ranked against whom, and what is said of it."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import league, standings
from benchmarks.sittings import key
from budgetlab import samplers
from budgetlab.config import RunConfig
from budgetlab.training import Run


def test_every_method_plays():
    entries = {*league.SAME_AT_FLOPS, *league.OTHER_AT_FLOPS}
    assert entries | {"rs2"} == set(samplers.names())


@pytest.mark.parametrize("seconds", [False, True])
def test_no_run_is_planned_twice(seconds):
    runs = [r for stage in league.plan(["shapes"], [0, 1], seconds=seconds) for r in stage]
    assert len({key(run) for run in runs}) == len(runs)
    # With one data set and seed, as many entries at every budget.
    entries = len(league.SAME_AT_FLOPS) + len(league.WEIGHTED) + len(league.OTHER_AT_FLOPS)
    of_one = [r for r in runs if r.seed == 0 and r.augmentation == "standard" and r.budget == 0.2]
    assert len(of_one) == entries + (0 if seconds else len(league.OTHER_AT_FLOPS))


def reached(config: RunConfig, **settings: object) -> tuple[float, ...]:
    small = {"limit": 96, "batch_size": 8, "budget": 0.5, "epochs": 4}
    run = Run(config.replace(**small | settings))
    for _ in run:
        pass
    return tuple(run.record.summary[name] for name in ("test_loss", "steps", "flops"))


@pytest.mark.parametrize("method", league.SAME_AT_FLOPS)
def test_one_run_counts_for_both_units(config, method):
    assert reached(config, method=method) == reached(config, method=method, budget_unit="flops")


@pytest.mark.parametrize("method", ["selective-backprop", "top-k", "rho-loss"])
def test_who_looks_takes_fewer_steps_at_equal_flops(config, method):
    iterations, flops = (
        reached(config, method=method, budget_unit=unit, epochs=16)
        for unit in ("iterations", "flops")
    )
    assert iterations[1] > flops[1]
    assert iterations[2] > flops[2]


@pytest.mark.parametrize("budget", league.BUDGETS)
def test_plain_passes_are_also_what_rs2_takes(config, budget):
    small = config.replace(limit=320, batch_size=8, epochs=4)
    runs = [Run(small.replace(method=method, budget=budget)) for method in ("SGD", "rs2")]
    for run in runs:
        for _ in run:
            pass
    sgd, rs2 = (run.record.summary for run in runs)
    assert (sgd["test_loss"], sgd["steps"]) == (rs2["test_loss"], rs2["steps"])


def test_timed_runs_are_never_run_side_by_side(capsys):
    with pytest.raises(SystemExit):
        league.main(["--seconds", "--workers", "2", "--plan"])
    assert "--workers 2 would disturb runs that are timed" in capsys.readouterr().err


def rows(accuracy: dict[str, list[float]], budgets: tuple[float, ...] = (0.1, 0.3)) -> pd.DataFrame:
    """A table in which accuracy[entry][seed] holds at every budget."""
    made = []
    for entry, values in accuracy.items():
        method, _, weights = entry.partition(", ")
        for seed, value in enumerate(values):
            for budget in budgets:
                for unit in ("iterations", "flops"):
                    if unit == "flops" and method not in league.OTHER_AT_FLOPS:
                        continue
                    made.append(
                        {"dataset": "shapes", "augmentation": "standard", "method": method,
                         "budget": budget, "budget_unit": unit, "seed": seed,
                         "other_settings": "weights=unbiased" if weights else "lr=0.1",
                         "test_accuracy": value - (0.1 if unit == "flops" else 0.0),
                         "looked_samples": 0, "hardware": "a processor", "torch": "2"}
                    )  # fmt: skip
    return pd.DataFrame(made)


NOISE = np.array([0.001, -0.002, 0.003, 0.0, -0.001])
CLEAR = {
    "unif-SGD": list(0.60 + NOISE),
    "top-k": list(0.70 - NOISE),
    "loss, unbiased": list(0.50 + 2 * NOISE),
}


def test_who_only_trains_counts_at_both_units_and_who_looks_by_its_own_runs():
    table = standings.labelled(rows(CLEAR))
    equal = standings.at_equal(table, "flops").groupby("entry")["test_accuracy"].mean()
    assert equal["top-k"] == pytest.approx(0.6, abs=2e-3)
    assert equal["unif-SGD"] == pytest.approx(0.6, abs=2e-3)
    iterations = standings.at_equal(table, "iterations")
    assert set(iterations["budget_unit"]) == {"iterations"}
    assert iterations.groupby("entry").size().nunique() == 1


def test_ranks_and_differences_are_those_of_the_table():
    wide, seeds = standings.complete(
        standings.at_equal(standings.labelled(rows(CLEAR)), "iterations")
    )
    assert seeds == [0, 1, 2, 3, 4]
    ranks = standings.ranks(wide).set_index("entry")
    assert ranks["rank"].to_dict() == {"top-k": 1, "unif-SGD": 2, "loss, unbiased": 3}
    found = standings.differences(wide).set_index("entry")
    assert found.loc["top-k", "difference"] == pytest.approx(10, abs=0.1)
    assert found.loc["loss, unbiased", "difference"] == pytest.approx(-10, abs=0.1)
    assert (found["p_corrected"] < 0.05).all()
    assert (found["p_corrected"] >= found["p"]).all()


def test_a_seed_that_is_not_whole_is_left_out():
    six = {entry: [*values, values[0]] for entry, values in CLEAR.items()}
    table = standings.labelled(rows(six))
    lost = table.index[(table["seed"] == 3) & (table["entry"] == "top-k")][0]
    wide, seeds = standings.complete(standings.at_equal(table.drop(lost), "iterations"))
    assert seeds == [0, 1, 2, 4, 5]
    assert not wide.isna().any(axis=None)


def test_a_budget_that_is_still_being_run_spoils_nothing():
    table = standings.labelled(rows(CLEAR, budgets=(0.1, 0.3, 0.5)))
    begun = table[(table["budget"] < 0.5) | (table["seed"] < 2)]
    wide, seeds = standings.complete(standings.at_equal(begun, "iterations"))
    assert seeds == [0, 1, 2, 3, 4]
    assert set(wide.index.get_level_values("budget")) == {0.1, 0.3}


def test_too_few_seeds_make_no_table():
    few = {entry: values[:4] for entry, values in CLEAR.items()}
    _, seeds = standings.complete(standings.at_equal(standings.labelled(rows(few)), "iterations"))
    assert seeds == []
    assert "can be called" not in standings.page(rows(few))


def test_equal_methods_are_called_undecided():
    rng = np.random.default_rng(0)
    same = {name: list(0.6 + 0.01 * rng.standard_normal(5)) for name in ("unif-SGD", "rs2", "SGD")}
    said = standings.page(rows(same))
    assert "no method can be called better than unif-SGD, and no method worse" in said
    assert "For the other 2 the data decide nothing" in said


def test_the_page_names_who_is_better_and_who_is_worse(tmp_path):
    standings.write(rows(CLEAR), tmp_path)
    said = (tmp_path / "league.md").read_text()
    assert "`top-k` can be called better than unif-SGD, and `loss, unbiased` worse" in said
    # Its looks are charged: at equal flops it is no better.
    at_flops = said.split("standard, at equal flops")[1]
    assert "`top-k` can be called better" not in at_flops
    assert (tmp_path / "images/league.png").stat().st_size > 10_000


def test_when_grad_norm_began_to_choose_is_said():
    table = rows({**CLEAR, "grad-norm": list(0.6 + NOISE)})
    assert "choosing pays,\nwhich it never did here.\n" in standings.page(table)
    one = (table.method == "grad-norm") & (table.seed == 3) & (table.budget == 0.3)
    table.loc[one, "looked_samples"] = 640
    said = "\nwhich it did in 2 of 20 runs here (shapes, standard, budget 0.3).\n"
    assert said in standings.page(table)


def test_what_was_left_out_is_listed():
    said = standings.page(rows(CLEAR))
    assert "- shapes, standard: budget 0.05, 0.2, 0.5\n- shapes, ricap: budget 0.05, 0.1" in said
    everything = pd.concat(
        [rows(CLEAR, standings.BUDGETS).assign(augmentation=a) for a in standings.AUGMENTATIONS]
    )
    assert standings.left_out(standings.labelled(everything)) == ""
