"""The grid of the paper's methods and augmentations: what is run, compared and said."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import grid
from benchmarks.sittings import key, provenance, read
from budgetlab import augment


def test_every_cell_that_is_promised_is_planned():
    runs = grid.plan("shapes", grid.SEEDS)
    assert len({key(run) for run in runs}) == len(runs) == 372
    cells = {(r.method, r.augmentation, r.budget, r.budget_unit, r.seed) for r in runs}
    for budget in (0.1, 0.2, 0.3, 0.5):
        for seed in (0, 1, 2):
            for method in ("SGD", "unif-SGD", "p-SGD", "c-SGD", "selective-backprop"):
                assert (method, "standard", budget, "iterations", seed) in cells
            for augmentation in augment.names():
                for method in ("unif-SGD", "p-SGD", "selective-backprop"):
                    assert (method, augmentation, budget, "iterations", seed) in cells
                assert ("selective-backprop", augmentation, budget, "flops", seed) in cells
    assert {(r.epochs, r.model) for r in runs} == {(20, "small")}


def rows(
    accuracy: dict[str, float], seeds: int = 3, scatter: float = 0.001, **settings: object
) -> pd.DataFrame:
    """A table in which accuracy[method] holds at every budget, a tenth less at equal flops."""
    rng = np.random.default_rng(0)
    common = {"dataset": "shapes", "model": "small", "augmentation": "standard", "epochs": 20,
              "batch_size": 128, "status": "finished", "hardware": "a processor", "torch": "2",
              "flops": 1e9, "steps": 10} | settings  # fmt: skip
    return pd.DataFrame(
        common
        | {"method": method, "budget": budget, "budget_unit": unit, "seed": seed,
           "test_accuracy": value - 0.1 * (unit == "flops") + scatter * rng.standard_normal()}
        for method, value in accuracy.items()
        for budget in (0.1, 0.2)
        for unit in ("iterations", "flops")[: 1 + (method == grid.LOOKING)]
        for seed in range(seeds)
    )  # fmt: skip


CLEAR = {"unif-SGD": 0.6, "p-SGD": 0.6, grid.LOOKING: 0.65}


def test_who_only_trains_counts_for_both_units():
    table = rows(CLEAR)
    flops = grid.at_equal(table, "flops").groupby("method")["test_accuracy"].mean()
    assert flops[grid.LOOKING] == pytest.approx(0.55, abs=2e-3)
    assert flops["p-SGD"] == pytest.approx(0.6, abs=2e-3)
    iterations = grid.at_equal(table, "iterations")
    assert len(iterations) == 3 * 2 * 3
    assert iterations.groupby("method")["test_accuracy"].mean()[grid.LOOKING] == pytest.approx(
        0.65, abs=2e-3
    )


def test_what_is_averaged_over_budgets_is_paired_by_seed():
    table = rows({"unif-SGD": 0.6, "p-SGD": 0.61}, scatter=1e-6)
    # Whatever a seed adds to both does not count.
    table["test_accuracy"] += 0.02 * table["seed"]
    found = grid.over_budgets(table).iloc[0]
    assert found["points above unif-SGD (95%)"] == "+1.00 (+1.00 to +1.00)"
    assert (found["budgets"], found["seeds"]) == ("0.1, 0.2", 3)


def test_a_budget_that_one_method_lacks_is_left_out_of_the_average():
    table = rows({"unif-SGD": 0.6, "p-SGD": 0.61}, scatter=0)
    table.loc[table["budget"] == 0.2, "test_accuracy"] += 0.1
    lacking = table[(table["budget"] == 0.1) | (table["method"] == "unif-SGD")]
    found = grid.over_budgets(lacking).iloc[0]
    assert found["points above unif-SGD (95%)"].startswith("+1.00")
    assert found["budgets"] == "0.1"


def test_seeds_are_averaged_over_the_same_budgets():
    """A budget that only some seeds have would pass for scatter between seeds."""
    table = rows({"unif-SGD": 0.6, "p-SGD": 0.61}, scatter=1e-6)
    table.loc[(table["budget"] == 0.2) & (table["method"] == "p-SGD"), "test_accuracy"] += 0.1
    still_filled = table[(table["budget"] == 0.1) | (table["seed"] < 2)]
    found = grid.over_budgets(still_filled).iloc[0]
    assert found["points above unif-SGD (95%)"] == "+1.00 (+1.00 to +1.00)"
    assert (found["budgets"], found["seeds"]) == ("0.1", 3)


def test_the_page_in_the_project_is_that_of_its_table():
    frame = read(grid.RESULTS / grid.TABLE)
    said = (grid.DOCS / "grid.md").read_text()
    assert said.rstrip().endswith(provenance(frame))
    for dataset, of_dataset in frame.groupby("dataset"):
        assert f"## {dataset}, at equal flops" in said
        whole = len(of_dataset) == 372
        assert whole or f"{dataset}: {len(of_dataset)} of 372 runs are in so far." in said


def test_a_clear_difference_is_said_and_noise_is_not():
    clear = grid.said(rows(CLEAR))
    assert clear[0].startswith("Of 4 comparisons with unif-SGD")
    assert "2 show a difference" in clear[0]
    assert all(grid.LOOKING in line for line in clear[1:])
    noise = grid.said(rows(dict.fromkeys(CLEAR, 0.6), scatter=0.02))
    assert "0 show a difference" in noise[0]
    assert len(noise) == 1


def test_what_holds_over_budgets_is_named_before_and_after_correction():
    said = grid.summed_up(grid.at_equal(rows(CLEAR, scatter=1e-4), "iterations"))
    assert f"Wholly above zero: {grid.LOOKING} with standard. Wholly below: none." in said
    assert said.endswith(f"for all 2 (Holm): {grid.LOOKING} with standard.")
    # With noise as large as the difference it is not called one after correction.
    said = grid.summed_up(grid.at_equal(rows(CLEAR, scatter=0.05), "iterations"))
    assert said.endswith("(Holm): none.")


def test_the_average_over_all_augmentations_weighs_them_alike():
    one = rows({"unif-SGD": 0.6, "p-SGD": 0.61}, scatter=1e-6)
    other = rows({"unif-SGD": 0.5, "p-SGD": 0.53}, scatter=1e-6, augmentation="ricap")
    said = grid.summed_up(pd.concat([one, other]))
    assert said.startswith(
        "Points above unif-SGD over all augmentations and budgets: p-SGD +2.00 (+2.00 to +2.00)."
    )


def test_one_seed_tells_nothing():
    assert grid.said(rows(CLEAR, seeds=1)) == [
        "One seed so far: no difference can be told from chance."
    ]
    assert grid.summed_up(rows(CLEAR, seeds=1)) == "Averaged over budgets:"
    assert grid.over_budgets(rows(CLEAR, seeds=1))["points above unif-SGD (95%)"].str.fullmatch(
        r"[+-]\d\.\d\d"
    ).all()  # fmt: skip


def test_the_page_says_what_is_missing(tmp_path):
    table = pd.concat([rows(CLEAR), rows(CLEAR, augmentation="ricap").query("budget < 0.2")])
    grid.write(table, tmp_path)
    said = (tmp_path / "grid.md").read_text()
    assert f"shapes: {len(table)} of 372 runs are in so far." in said
    assert "| ricap | p-SGD | 60." in said
    assert "| not run yet |" in said
    assert "## shapes, at equal iterations" in said
    assert "## shapes, at equal flops" in said
    assert f"{len(table)} runs; hardware: a processor; torch 2." in said
    assert (tmp_path / "images/grid.png").stat().st_size > 10_000


def test_a_page_can_be_written_before_the_baseline_has_run():
    said = grid.page(rows({"p-SGD": 0.6}))
    assert "unif-SGD has not been run yet: there is nothing to compare with." in said
    assert "Averaged over budgets:" in said
    assert "| standard | p-SGD | 60." in said


def test_a_table_without_rows_says_so(tmp_path, capsys):
    assert grid.main(["--page", "--results", str(tmp_path)]) == 1
    assert "holds no run yet" in capsys.readouterr().err
