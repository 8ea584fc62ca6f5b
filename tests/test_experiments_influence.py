"""Leaving out: every sample once, and a table that says what it rests on."""

import numpy as np
import pandas as pd

from experiments import influence


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
