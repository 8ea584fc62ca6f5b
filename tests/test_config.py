"""What a run may be, what its errors say, and what its id depends on."""

import ast
import dataclasses
import inspect
import json
from pathlib import Path
from typing import get_type_hints

import jedi
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import budgetlab as bl
from budgetlab.config import ALLOWED, PLACES, RunConfig, Settings
from budgetlab.errors import InputError, known, unknown


def test_the_defaults_are_the_recipe_of_the_paper():
    recipe = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 128, "alpha": 0.3,
              "randaugment_n": 2, "randaugment_m": 4, "schedule": "linear"}  # fmt: skip
    assert {name: getattr(RunConfig(), name) for name in recipe} == recipe


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget", 0), ("budget", 1.0001), ("budget", -0.2), ("budget", float("nan")),
        ("budget", "0.3"), ("budget", True), ("budget", None),
        ("epochs", 0), ("epochs", 2.5), ("epochs", float("inf")),
        ("batch_size", 0), ("lr", 0), ("lr", float("inf")), ("momentum", 1), ("momentum", -0.1),
        ("weight_decay", -1e-9), ("alpha", 0), ("randaugment_n", 17), ("randaugment_m", 31),
        ("sb_beta", -1), ("sb_beta", "automatic"), ("sb_staleness", 0),
        ("smoothing", -0.1), ("power", 101), ("weights", "biased"), ("keep_fraction", 0),
        ("presample", 0), ("prune_fraction", 1), ("subset_fraction", "some"), ("proxy_share", 1),
        ("holdout_fraction", 0), ("label_noise", 1), ("imbalance", 0.9), ("val_fraction", 1),
        ("limit", -1),
        ("seed", -1), ("seed", 2**63), ("data_seed", 1.5), ("milestones", (0.5, 1.0)),
        ("milestones", (float("nan"),)), ("milestones", 3), ("method", 3),
        ("budget_unit", "iteration"), ("credit", "rows"), ("fidelity", "paper"),
        ("noise_kind", "pairs"), ("precision", "float16"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(InputError) as error:
        RunConfig(**{field: value})
    message = str(error.value)
    assert "\n" not in message
    shown = value[-1] if isinstance(value, tuple) else value
    assert str(shown) in message
    assert "give " in message or "choose one of" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget", 1), ("budget", 1e-6), ("budget", np.float32(0.5)), ("epochs", np.int64(3)),
        ("epochs", 4.0), ("momentum", 0), ("sb_beta", 0), ("sb_beta", "auto"), ("label_noise", 0),
        ("seed", 2**63 - 1), ("milestones", []), ("data_root", Path("data")), ("randaugment_m", 30),
    ],
)  # fmt: skip
def test_the_ends_of_a_range_are_allowed(field, value):
    kept = getattr(RunConfig(**{field: value}), field)
    plain = str(value) if isinstance(value, Path) else value
    assert kept == (tuple(value) if isinstance(value, list) else plain)
    assert type(kept) in (int, float, str, tuple)


def test_it_cannot_be_changed_only_copied():
    config = RunConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0
    assert (config.replace(lr=1).lr, config.lr) == (1.0, 0.1)
    with pytest.raises(InputError, match="lr -1"):
        config.replace(lr=-1)


OTHER_VALUES = {
    "dataset": "points", "model": "mlp", "method": "SGD", "augmentation": "none", "budget": 0.31,
    "budget_unit": "samples", "epochs": 31, "batch_size": 127, "lr": 0.2, "momentum": 0.8,
    "weight_decay": 0.0, "schedule": "cosine", "milestones": (0.5,), "alpha": 0.2,
    "randaugment_n": 1, "randaugment_m": 5, "sb_beta": 2.0, "sb_staleness": 2, "credit": "row",
    "fidelity": "published", "label_noise": 0.1, "noise_kind": "pair", "imbalance": 2.0,
    "val_fraction": 0.1, "limit": 10, "data_seed": 1, "seed": 1, "device": "cpu",
    "precision": "float32", "evaluate_every": 2, "averaging": "last",
    "copies": 3, "extended": "10",
    "redundancy": 0.5, "redundancy_kind": "varied", "schedule_horizon": "full",
    "smoothing": 0.5, "power": 2.0, "weights": "unbiased", "keep_fraction": 0.2,
    "presample": 4, "grad_norm_threshold": 2.0, "prune_fraction": 0.5, "subset_fraction": 0.5,
    "proxy_share": 0.3, "proxy_model": "mlp", "holdout_fraction": 0.2,
    "class_shares": "kept", "hard_cutoff": 0.2, "optimiser": "adamw", "warmup": 0.1,
    "image_size": 64, "flip": "no", "drop_copies": "near", "edits": "edits.csv",
    "data_name": "mine", "data_root": "elsewhere", "out": "elsewhere",
}  # fmt: skip


def test_the_id_depends_on_every_field_but_the_places():
    assert set(OTHER_VALUES) == {field.name for field in dataclasses.fields(RunConfig)}
    before = RunConfig().id
    changed = {name: RunConfig(**{name: value}).id for name, value in OTHER_VALUES.items()}
    assert {name for name, id in changed.items() if id == before} == set(PLACES)
    different = [id for name, id in changed.items() if name not in PLACES]
    assert len(set(different)) == len(different)
    # Not on how a value was given, nor, for settings of before, on a field that came later.
    config = RunConfig(**OTHER_VALUES)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert RunConfig(lr=np.float64(1), epochs=3.0).id == RunConfig(lr=1, epochs=np.int32(3)).id
    assert RunConfig(budget=0.29, seed=7).id == "eb1f96e9bc"


@settings(max_examples=40)
@example("鳥" * 100)
@given(st.text(min_size=1, max_size=200))
def test_a_folder_name_is_safe_whatever_the_data_is_called(text):
    name = RunConfig(dataset=f"folder:{text}").folder_name
    assert not set(name) & set('/\\:*?"<>|\0\n ')
    assert len(name.encode()) < 200
    assert not name.startswith("..")


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("shapes", "shapes"), ("folder:/a/birds/", "birds"), ("npz:x/y.npz", "y"),
     ("points:moons", "points:moons"), ("folder:", "folder:"), ("folder:/a/birds.v2", "birds.v2"),
     ("folder:/a/birds/Dataset", "birds/Dataset"), ("npz:flowers/train.npz", "flowers/train"),
     ("folder:Dataset", "Dataset")],
)  # fmt: skip
def test_a_data_set_has_a_short_name(dataset, name):
    assert RunConfig(dataset=dataset).dataset_name == name
    # One can be given, and is no part of the id.
    named = RunConfig(dataset=dataset, data_name="mine")
    assert (named.dataset_name, named.id) == ("mine", RunConfig(dataset=dataset).id)
    assert named.folder_name == f"mine-unif-SGD-standard-b{named.budget}-s0-{named.id}"


@pytest.mark.parametrize(
    ("given_name", "near"), [("sgd", "SGD"), ("p-SDG", "p-SGD"), ("rs-2", "RS2")]
)
def test_a_wrong_name_meets_its_nearest(given_name, near):
    assert "did you mean" not in str(unknown("method", "zzz", ["SGD", "p-SGD"]))
    assert known("method", "mine", ["Mine", "mine"]) == "mine"  # two that differ in case alone
    with pytest.raises(InputError, match=r"unknown setting 'batchsize': did you mean 'batch_size'"):
        RunConfig.from_dict({"batchsize": 3})
    error = unknown("method", given_name, ["SGD", "p-SGD", "RS2"])
    assert f"unknown method '{given_name}': did you mean '{near}'? choose one of" in str(error)


def test_names_of_choices_are_matched_in_any_case():
    for name, values in ALLOWED.items():
        for value in values if isinstance(values, tuple) else ():
            config = RunConfig(**{name: value.upper()})
            assert getattr(config, name) == value
            assert config.id == RunConfig(**{name: value}).id


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    config = RunConfig(out="~/runs", data_root=Path("~"))
    assert (Path(config.out), Path(config.data_root)) == (tmp_path / "runs", tmp_path)
    assert config.id == RunConfig().id


@pytest.mark.parametrize("call", [bl.train, bl.BudgetSampler])
def test_a_call_shows_every_setting(call):
    # Method and model are arguments of their own.
    fields = {name: kind for name, kind in get_type_hints(RunConfig).items()
              if name not in ("method", "model")}  # fmt: skip
    assert Settings.__annotations__ == fields
    shown, defaults = inspect.signature(call).parameters, RunConfig()
    for name in fields:
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert shown[name].default == getattr(defaults, name)
    assert {"method", "model"} < set(shown)
    assert "settings" not in shown
    offered = {done.name for done in jedi.Interpreter("call(", [{"call": call}]).complete()}
    assert {"budget=", "credit=", "label_noise=", "method="} <= offered


def test_names_of_the_package_resolve_and_editors_know_them():
    stub = ast.parse((Path(bl.__file__).parent / "__init__.pyi").read_text())
    names = {
        alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert names == set(bl.__all__)
    for name in (*names, "training", "history"):
        assert getattr(bl, name) is not None
    modules = {p.stem for p in Path(bl.__file__).parent.glob("*") if p.suffix != ".pyi"}
    private = {"__init__", "__main__", "__pycache__", "py", "cli", "demo"}
    assert modules - private <= names
