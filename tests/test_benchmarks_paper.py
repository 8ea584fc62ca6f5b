"""The paper's claims: every sweep file runs, adds up over sittings, and its card says no more."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import sittings
from benchmarks.paper import (
    a_budgets,
    b_methods,
    c_augmentations,
    card,
    d_credit,
    e_entropy,
    scales,
    verdicts,
)
from budgetlab.config import RunConfig

FILES = {"a": a_budgets, "b": b_methods, "c": c_augmentations, "d": d_credit, "e": e_entropy}


@pytest.fixture
def smoke(tmp_path: Path, data_root: Path):
    """Run a sweep file on a few digits."""

    def go(file, *more: str) -> pd.DataFrame:
        arguments = ["--scale", "smoke", "--dataset", "digits", "--limit", "128"]
        arguments += ["--results", str(tmp_path), "--out", str(tmp_path / "runs")]
        arguments += ["--seeds", "0", *more]
        return scales.main(file.CLAIM, file.PARTS, arguments)

    return go


@pytest.mark.parametrize("name", FILES)
def test_every_claim_runs_to_a_row_a_run(smoke, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = smoke(FILES[name])
    wanted = {"a": 9, "b": 10, "c": 9, "d": 3, "e": 5}[name]
    assert len(rows) == wanted
    assert rows["test_accuracy"].between(0, 1).all()
    assert (rows["steps"] > 0).all()
    assert rows["entropy"].between(0, 4.86).all()  # ln 128


def test_a_run_that_has_its_row_is_never_run_again(smoke, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = smoke(d_credit)
    table = scales.table_of("smoke", tmp_path)
    before = table.read_bytes()
    shutil.rmtree(tmp_path / "runs")
    again = smoke(d_credit)
    assert not (tmp_path / "runs").exists()
    assert table.read_bytes() == before
    assert list(again["key"]) == list(first["key"])
    assert "3 of 3 runs" in capsys.readouterr().out


def test_a_sitting_that_is_over_keeps_what_it_finished(smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(smoke(d_credit, "--minutes", "0")) == 1
    assert len(smoke(d_credit)) == 3


def test_a_plan_trains_nothing(smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert smoke(d_credit, "--plan").empty
    assert not (tmp_path / "runs").exists()


def test_the_key_is_what_is_computed_not_where():
    run = RunConfig(dataset="folder:here/photos", device="cpu", out="a")
    same = RunConfig(dataset="folder:/there/photos", precision="float32", evaluate_every=5)
    assert sittings.key(run) == sittings.key(same)
    other = RunConfig(dataset="folder:here/photographs")
    assert len({sittings.key(c) for c in (run, other, RunConfig(), run.replace(seed=1))}) == 4


def test_runs_of_the_paper_scale_are_the_recipe():
    assert scales.SCALES["paper"]["model"] == "resnet18"
    assert scales.SCALES["paper"]["epochs"] == 200


def rows(**columns: object) -> pd.DataFrame:
    defaults = {"dataset": "cifar10", "train_size": 50_000, "model": "resnet18",
                "augmentation": "standard", "credit": "dominant", "fidelity": "default",
                "budget_unit": "iterations", "epochs": 200, "batch_size": 128, "budget": 0.3,
                "other_settings": "", "steps": 10, "flops": 1e12, "trained_samples": 10,
                "looked_samples": 0, "seconds": 1.0, "test_loss": 1.0}  # fmt: skip
    frame = pd.DataFrame(columns)
    return frame.assign(**{k: v for k, v in defaults.items() if k not in frame})


def test_an_empty_table_gives_a_card_of_not_run_yet_and_no_numbers():
    empty = sittings.read(Path("there is none"))
    lines = card.card(card.CLAIMS, {"paper": empty, "cpu": empty})
    assert set(lines["paper"]) == set(lines["cpu"]) == {"not run yet"}
    assert all(claim.verdict(empty) == "not run yet." for claim in card.CLAIMS)
    assert lines["published"].str.contains("94.6").sum() == 2


def test_the_card_shows_mean_spread_and_n_of_the_right_rows():
    table = rows(method=["unif-SGD"] * 3 + ["p-SGD"], seed=[0, 1, 2, 0],
                 test_accuracy=[0.5, 0.6, 0.7, 0.9], entropy=[9.0] * 4)  # fmt: skip
    lines = card.card(card.CLAIMS, {"paper": table})
    shown = lines.set_index("condition")["paper"]
    assert shown["p-SGD, budget 0.3"] == "90.00 (n = 1)"
    assert set(shown["unif-SGD, budget 0.3"]) == {"60.00 ± 10.00 (n = 3)"}
    assert shown["p-SGD, budget 0.2"] == "not run yet"


def methods(p_sgd: list[float]) -> pd.DataFrame:
    uniform = [0.50, 0.52, 0.54, 0.53]
    return rows(method=["unif-SGD"] * 4 + ["p-SGD"] * 4, seed=[0, 1, 2, 3] * 2,
                test_accuracy=uniform + p_sgd, entropy=[9.0] * 8)  # fmt: skip


def test_the_verdict_on_methods_follows_the_numbers():
    same = verdicts.importance(methods([0.51, 0.51, 0.53, 0.54]))
    assert same.startswith("of 1 comparisons with unif-SGD, 0 show an improvement and 0 a loss")
    better = verdicts.importance(methods([0.60, 0.621, 0.64, 0.629]))
    assert "1 show an improvement and 0 a loss (Holm-corrected, n = 4)" in better
    assert "p-SGD at 0.3 with +10.00 points (95% CI +9.8" in better
    worse = verdicts.importance(methods([0.40, 0.421, 0.44, 0.429]))
    assert "0 show an improvement and 1 a loss" in worse
    assert verdicts.importance(methods([0.60] * 4)[lambda f: f["seed"] == 0]).startswith("too few")


def test_the_verdict_on_credit_pairs_by_seed():
    credit = ["row", "row", "dominant", "dominant"]
    measured = {"test_accuracy": [0.1, 0.3, 0.32, 0.11], "entropy": [9.2, 9.2, 9.0, 9.1]}
    table = rows(
        method=["p-SGD"] * 4,
        augmentation=["ricap"] * 4,
        credit=credit,
        seed=[0, 1, 1, 0],
        **measured,
    )
    said = verdicts.credit(table)
    assert "dominant against row, accuracy: +1.50 points" in said
    assert "dominant against row, entropy of the counts: -0.1500" in said
    assert "weighted" not in said


def test_the_page_holds_every_claim_and_every_verdict():
    empty = sittings.read(Path("there is none"))
    text = card.page(card.CLAIMS, {"paper": empty, "cpu": empty})
    assert text.count("## (") == 5
    assert text.count("**Verdict") == 10
    # A number from elsewhere than its claim says so.
    assert "| 94.6 (figure in the README of the official code" in text
