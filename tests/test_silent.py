"""What came out wrong without a word: each of these has a right answer, or is refused."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_records import write_run
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import budgetlab as bl
from budgetlab import analysis, explore
from budgetlab.analysis import RecordWarning
from budgetlab.analysis.gradients import _features
from budgetlab.custom_loop import measure_batch
from budgetlab.data import images
from budgetlab.data.changes import Edits
from budgetlab.errors import InputError, RunError
from budgetlab.forecast import Replay, forecast
from budgetlab.records.thin import thin
from budgetlab.samplers import SamplerContext, build
from budgetlab.training import Run
from budgetlab.training.resume import trained_network

X, Y = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3


def network(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


# Lists of samples


@pytest.fixture
def repeated(train: Any) -> bl.Record:
    """Half of the 128 points are copies of others."""
    return train(redundancy=0.5, copies=3, budget=1.0, epochs=4).record


def test_planted_copies_leave_their_originals(repeated: bl.Record) -> None:
    copy_of = analysis.measures(repeated)["copy_of"]
    copies = {*copy_of.index[copy_of != copy_of.index]}
    ranked = analysis.triage(repeated)
    assert {*ranked.index[ranked["copy_of"] >= 0]} == copies
    known = ranked.loc[sorted({*ranked.index} - copies), "verdict"]
    assert {*known} - {"redundant"}
    assert {*ranked.loc[[*copies], "verdict"]} <= {"redundant", "check the label"}


def test_copies_in_a_part_of_a_record_are_numbered_as_in_the_whole(
    repeated: bl.Record, tmp_path: Path
) -> None:
    part = thin(repeated, tmp_path / "part", samples=80)
    frame = analysis.measures(part)
    right = (frame["copy_of"] != frame["recorded_as"]).mean()
    assert analysis.pay_features(part)["copies"] == pytest.approx(right)
    assert 0.3 < right < 0.7
    few = thin(repeated, tmp_path / "few", samples=None, epochs=2)
    for needs_every_epoch in (analysis.pay_features, Replay, explore.probabilities):
        with pytest.raises(InputError, match="thinned to 2 of 4 epochs"):
            needs_every_epoch(few)


def test_what_is_given_beside_measures_belongs_to_samples_and_not_to_places(train: Any) -> None:
    record = train(budget=1.0, epochs=4).record
    frame = analysis.measures(record)
    rng = np.random.default_rng(0)
    wrong = rng.permutation(len(frame))[:10]
    chance = np.full((len(frame), 2), 0.1)
    labels = frame["label"].to_numpy()
    chance[np.arange(len(frame)), labels] = 0.9
    chance[wrong] = chance[wrong, ::-1]
    quality = analysis.label_quality(labels, chance)
    copies = np.arange(len(frame))
    copies[100] = 3
    want = analysis.triage(frame, quality=quality, copies=copies)
    for given, judged in (
        (frame.sample(frac=1, random_state=1), quality),
        (frame, quality.sort_values("p_wrong")),
        (frame, quality.sample(frac=1, random_state=2)),
    ):
        ranked = analysis.triage(given, quality=judged, copies=copies)
        pd.testing.assert_series_equal(ranked["verdict"].sort_index(), want["verdict"].sort_index())
        assert ranked.loc[100, "copy_of"] == 3
    with pytest.raises(InputError, match="quality is of other samples"):
        analysis.triage(frame, quality=quality.set_axis(quality.index + 1))
    points = bl.data.load("points", limit=100, progress=False)
    with pytest.raises(InputError, match="128 entries for 100 samples"):
        analysis.suspects(quality, points)


def test_every_measure_is_a_mean_over_the_runs(train: Any) -> None:
    records = [train(seed=seed, budget=1.0, epochs=4).record for seed in range(2)]
    both = [analysis.measures(record) for record in records]
    ranked = analysis.triage(records).sort_index()
    for name in ("last_loss", "el2n_early", "dyn_unc", "aum"):
        mean = pd.concat([one[name] for one in both], axis=1).mean(axis=1)
        np.testing.assert_allclose(ranked[name], mean)
    assert "learning" not in ranked
    assert "learning" in analysis.triage(records[0])


def test_groups_hold_the_samples_of_which_nobody_knows(tmp_path: Path) -> None:
    data = bl.Dataset.from_dataset(TensorDataset(X, Y), true_label=[0] * 20 + [None] * 40)
    record = bl.train(splits=bl.Splits.of(data, data), epochs=2, budget=1.0, batch_size=16,
                      out=str(tmp_path), progress=False)  # fmt: skip
    table = analysis.groups_of_record(record, "true_label").set_index("group")["n"]
    assert table.to_dict() == {"0": 20, "unknown": 40}
    assert analysis.picks_by(record, "true_label", groups=2)["samples"].tolist() == [10, 10]


# Comparisons


def test_a_run_counts_once_wherever_runs_are_averaged(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, seed=seed) for seed in (0, 1, 0)]
    runs.append(write_run(tmp_path, seed=2, status="stopped"))
    for average in (analysis.results, analysis.frontier, analysis.curves):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = average(runs)
        assert any("repeated later" in str(one.message) for one in said)
        assert set(found["n"]) == {2}, average


def test_a_cost_that_was_measured_late_is_said_to_be_too_high(train: Any) -> None:
    late, each = (train(evaluate_every=every).record for every in (0, 1))
    with pytest.warns(RecordWarning, match=r"every epoch in 1 of 1 run: .* evaluate_every=1"):
        found = analysis.cost_to_reach(late, 0.0)
    assert found["cost"].item() == late.summary["flops"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert analysis.cost_to_reach(each, 0.0)["cost"].item() < found["cost"].item()


def test_clean_runs_are_of_one_kind_of_noise(train: Any) -> None:
    runs = [train(noise_kind=kind, label_noise=noise).record
            for kind in ("symmetric", "pair") for noise in (0.0, 0.2)]  # fmt: skip
    with pytest.warns(RecordWarning, match="repeated later"):
        table = analysis.noise_cost(runs)
    assert table.set_index("noise_kind")["pairs"].to_dict() == {
        "symmetric": 1,
        "pair": 1,
        "none": 1,
    }


# Data


def test_a_true_label_is_written_as_the_labels_are() -> None:
    far = bl.Dataset.from_dataset(TensorDataset(X, Y + 1_234_567), true_label=[1_234_567.0] * 60)
    assert far.metadata["true_label"].tolist() == [0] * 60
    one_on = TensorDataset(X, Y + 1)
    given = [None, 2, "3", *[None] * 57]
    known = bl.Dataset.from_dataset(one_on, true_label=given).metadata
    assert known["true_label"].iloc[:3].tolist() == [pd.NA, 1, 2]
    assert not known["is_noisy"].any()
    named = bl.Dataset.from_dataset(
        one_on, classes=["0", "a", "b", "c"], true_label=[*given[:2], 3, *given[3:]]
    )
    assert not named.metadata["is_noisy"].any()
    with pytest.raises(InputError, match="class in true_label '9'"):
        bl.Dataset.from_dataset(one_on, true_label=[9, *[None] * 59])


def as_read(image: Image.Image) -> np.ndarray:
    items = [(image, 0), (image, 1)]
    return bl.Dataset.from_dataset(items).x[0].numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["P", "PA", "HSV", "YCbCr", "LAB", "CMYK", "RGBA", "RGBX"])
def test_images_of_other_modes_are_read_in_colour(mode: str) -> None:
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[:4] = 255, 0, 0
    image = Image.fromarray(colours).convert(mode)
    off = 5 if mode == "LAB" else 3  # in 8 bits, it is the coarsest
    np.testing.assert_allclose(as_read(image), colours.transpose(2, 0, 1), atol=off)


def test_images_of_other_modes_are_read_as_those_of_a_folder_or_refused_by_name(
    tmp_path: Path,
) -> None:
    """Transparent is white, a bitmap is grey, and no 16 bits are taken for 8."""
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert as_read(palette)[:, 0, 0].tolist() == [255, 0, 0]
    palette.info["transparency"] = 1
    assert as_read(palette)[:, 0, 0].tolist() == [255, 255, 255]
    for mode in ("LA", "La"):
        half = Image.new("LA", (4, 4), (0, 51)).convert(mode)
        assert as_read(half)[:, 0, 0].tolist() == [204] * 3
    assert as_read(Image.new("1", (4, 4), 1))[:, 0, 0].tolist() == [255]
    for mode, key in (("L", 5), ("RGB", (1, 2, 3)), ("1", 0)):
        image = Image.new(mode, (2, 1))
        image.putpixel((0, 0), key)
        image.save(tmp_path / "key.png", transparency=key)
        with Image.open(tmp_path / "key.png") as opened:
            assert opened.mode == mode
            read = as_read(opened)
        assert read.shape[0] == (3 if mode == "RGB" else 1)
        shared = np.broadcast_to(read, (3, 1, 2))
        np.testing.assert_array_equal(shared, images.decode(tmp_path / "key.png", None))
        assert shared[0, 0, 0] == 255
    for mode in ("I;16", "I", "F"):
        with pytest.raises(InputError, match=f"item 0, of Pillow's mode {mode}, is .*: give uint8"):
            as_read(Image.new(mode, (4, 4), 300))


def test_an_edit_of_built_in_data_is_of_one_sample(tmp_path: Path) -> None:
    before = bl.data.load("points", progress=False)
    edits = Edits(tmp_path / "edits.csv").drop(["17", "test/5"]).mark(["18"])
    splits = bl.data.load("points", edits=edits, progress=False)
    assert 17 not in splits.train.metadata["index"].tolist()
    assert len(splits.train) == len(before.train) - 1
    assert splits.test.metadata["index"].tolist() == [n for n in range(1000) if n != 5]
    assert splits.train.metadata["marked"].sum() == 1
    assert splits.test.metadata.get("marked", pd.Series([0])).sum() == 0


def test_data_changed_under_its_splits_is_refused(tmp_path: Path) -> None:
    splits = bl.data.load("points", limit=128, progress=False)
    splits.train.y[:10] = 1 - splits.train.y[:10]
    with pytest.raises(InputError, match="changed after the splits were made"):
        bl.train(splits=splits, out=str(tmp_path), progress=False)
    run = Run(bl.RunConfig(dataset="points", limit=128, out=str(tmp_path), batch_size=16))
    with pytest.raises(InputError, match="changed after the splits were made"):
        Run.resume(run.writer.path, splits=splits)
    again = bl.Splits.of(splits.train, splits.test, name="mended")
    bl.train(splits=again, out=str(tmp_path), progress=False, epochs=1, batch_size=16)


# Loops of one's own


def test_labels_of_items_count_and_not_those_before_a_transform() -> None:
    class Halves(TensorDataset):
        """Two classes made of three."""

        targets, target_transform = Y, None

        def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
            return X[number], int(Y[number] > 1)

    data = Halves(X)
    model = network(2)
    sampler = bl.BudgetSampler(data, "p-SGD", model=model, batch_size=8)
    x, y = next(iter(DataLoader(data, batch_sampler=sampler)))
    with pytest.warns(UserWarning, match="its label was known as"):
        sampler.history.update(model(x), y)
    data.target_transform = lambda label: int(label > 1)
    assert bl.BudgetSampler(data, "p-SGD", batch_size=8).labels is None


def test_a_column_of_other_labels_is_refused() -> None:
    table = pd.DataFrame({"label": ["a"] * 60})
    with pytest.raises(InputError, match="metadata has a column 'label'"):
        bl.BudgetSampler(TensorDataset(X, Y), "p-SGD", metadata=table, batch_size=8)
    table["label"] = Y.tolist()
    bl.BudgetSampler(TensorDataset(X, Y), "p-SGD", metadata=table, batch_size=8)


def test_a_batch_may_be_reported_in_any_order_with_its_weights() -> None:
    found = []
    for turn in (False, True):
        torch.manual_seed(0)
        sampler = bl.BudgetSampler(
            60, "p-SGD", weights="unbiased", batch_size=8, epochs=6, budget=0.5
        )
        weights: dict[int, float] = {}
        for _ in range(3):
            for batch in sampler:
                numbers = torch.tensor(batch[::-1] if turn else batch)
                logits = torch.stack([numbers / 20, 1 - numbers / 20, numbers * 0.0], 1)
                given = sampler.history.update(logits, Y[numbers], numbers)
                weights |= dict(zip(numbers.tolist(), given.tolist(), strict=True))
        assert not sampler.history._pending
        assert len({*weights.values()}) > 5
        found.append((weights, sampler.ledger.steps))
    assert found[0] == found[1]
    next(iter(sampler))
    with pytest.raises(InputError, match="report each batch whole"):
        sampler.history.update(logits[:4], Y[numbers[:4]], numbers[:4])


# Runs


def test_every_class_has_a_chance_where_class_shares_are_kept_or_balanced(config: Any) -> None:
    labels = torch.tensor([0] * 270 + [1] * 127 + [2] * 3)

    def make(**settings: Any) -> Any:
        own = config.replace(batch_size=4, **settings)
        return build(own.method, SamplerContext(400, own, torch.Generator(), torch.device("cpu"),
                                                labels=labels))  # fmt: skip

    for method in ("p-SGD", "random-subset"):
        with pytest.raises(
            InputError, match=r"never train on 1 of 3 classes, of 40 samples .* balanced or free"
        ):
            make(method=method, class_shares="kept", budget=0.1)
        make(method=method, class_shares="balanced", budget=0.1)
        make(method=method, class_shares="kept", budget=0.5)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_a_network_with_dropout_gives_the_same_again_and_after_a_pause(config: Any) -> None:
    losses = []
    for pause in (False, False, True):
        torch.manual_seed(len(losses))
        run = Run(config, model=Dropping)
        if pause:
            rows = iter(run)
            next(rows)
            rows.close()
            torch.rand(9)
            run = Run.resume(run.writer.path, model=Dropping)
        before = torch.random.get_rng_state()
        list(run)
        assert torch.equal(torch.random.get_rng_state(), before)
        losses.append(run.record.epochs["train_loss"].tolist())
    assert losses[0] == losses[1] == losses[2]


def test_a_moment_is_as_far_into_the_budget_as_its_run(config: Any) -> None:
    run = Run(config.replace(method="curriculum", budget=0.25, epochs=8))
    list(run)
    for moment in (bl.estimators.Moment.of_run(run),
                   bl.estimators.Moment.of_record(run.record)):  # fmt: skip
        sampler = moment._sampler("curriculum", torch.Generator(), {})
        assert len(sampler.easiest(moment.history)) == 128


@pytest.mark.parametrize(("found", "caveat"), [
    ({"none": [0.60, 0.50, 0.70], "flip": [0.50, 0.55, 0.60]}, True),
    ({"none": [0.60, 0.61, 0.62], "flip": [0.40, 0.42, 0.41]}, False),
    ({"none": [0.40, 0.42, 0.41], "flip": [0.60, 0.61, 0.62]}, False),
])  # fmt: skip
def test_no_augmentation_is_advised_with_the_same_caution(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, list[float]], caveat: bool
) -> None:
    from contextlib import contextmanager

    from budgetlab.analysis import own_data

    @contextmanager
    def trained(splits: Any, seed: int, **settings: Any) -> Any:
        name = "flip" if settings["augmentation"] == "flip" else "none"
        worse = 0.3 * (settings["augmentation"] == "standard")

        class Made:
            def summary(self) -> dict[str, float]:
                return {"test_accuracy": found[name][seed] - worse + 0.001 * seed * (worse > 0)}

        yield Made()

    monkeypatch.setattr(own_data, "temporary_run", trained)
    data = bl.Dataset.from_dataset(TensorDataset(X, Y))
    advice = analysis.compare_augmentations(data, seeds=3).attrs["advice"]
    assert ("holds zero" in advice) == caveat


def test_shares_of_wrong_labels_have_one_level_to_compare_with(train: Any) -> None:
    runs = [train(label_noise=share).record for share in (0.1, 0.4)]
    bl.plots.flagged_share(runs[:1])
    with pytest.raises(InputError, match=r"10\.2% of the data of one run and 39\.8% of that"):
        bl.plots.flagged_share(runs)


def test_a_share_of_wrong_labels_is_of_all_that_was_trained_on(train: Any) -> None:
    record = train(method="selective-backprop", label_noise=0.2, epochs=6).record
    trained, wrong = record.samples["times_trained"].sum("epoch"), record.samples["is_noisy"] == 1
    share = 100 * float(trained[wrong].sum() / trained.sum())
    assert f"picks {share:.1f}%" in bl.plots.flagged_share(record).get_title(loc="left")


def test_a_run_that_failed_before_its_first_epoch_is_left_out(train: Any) -> None:
    out = train(label_noise=0.2).record.path.parent
    with pytest.raises(RunError, match="too rarely"):
        train(label_noise=0.2, method="dyn-unc")
    with pytest.warns(RecordWarning, match="not finished"):
        assert analysis.noise_cost(out)["n"].tolist() == [1]
    for plot in (bl.plots.noisy_picks, bl.plots.coverage, bl.plots.picks_by):
        with pytest.warns(RecordWarning, match="no epoch is finished"):
            assert "dyn-unc" not in bl.plots.alt_text(plot(out))
    with pytest.raises(InputError, match="holds no finished epoch: train for longer"):
        analysis.noisy_picks(out)


def test_operations_that_a_loop_does_not_count_are_missing_and_not_zero(tmp_path: Path) -> None:
    data, model = TensorDataset(X, Y), network()
    for unit, known in (("iterations", False), ("flops", True)):
        sampler = bl.BudgetSampler(data, "p-SGD", model=model, budget_unit=unit, batch_size=8,
                                   out=str(tmp_path))  # fmt: skip
        for x, y in DataLoader(data, batch_sampler=sampler):
            sampler.history.update(model(x), y)
        frame = bl.summaries(record := sampler.record(0.5))
        bl.plots.frontier(record)
        bl.plots.learning_curves(record, cost="flops")
        assert (frame["flops"].item() > 0) == known
        assert frame["flops"].isna().item() != known


def test_several_processes_are_not_given_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = bl.BudgetSampler(60, "p-SGD", batch_size=8)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(InputError, match="2 processes train together"):
        next(iter(sampler))


def test_a_label_of_which_nobody_knows_is_not_said_to_be_right(train: Any) -> None:
    frame = analysis.measures(train(label_noise=0.2).record).astype({"is_noisy": "boolean"})
    for truth, said in ((frame["is_noisy"], "as it should be"), (pd.NA, "not known to be wrong")):
        frame.loc[frame.index[~frame["is_noisy"].fillna(True)][:5], "is_noisy"] = truth
        names = bl.plots.measure_vs_measure(frame).get_legend_handles_labels()[1]
        assert f"label {said}" in names


def test_the_surest_of_a_rare_class_are_not_taken_for_wrong_labels_of_it() -> None:
    """Of classes of 900, 100, 10 and 3, half of the list was wrong where 85% were expected."""
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(4), [900, 100, 10, 3])
    x = 3 * np.eye(4)[true] + rng.normal(size=(len(true), 4))
    chance = np.exp(3 * x) * np.bincount(true)
    chance /= chance.sum(axis=1, keepdims=True)
    labels = true.copy()
    assert not analysis.label_quality(labels, chance)["suspect"].any()
    planted = rng.random(len(true)) < 0.1
    labels[planted] = (labels[planted] + rng.integers(1, 4, planted.sum())) % 4
    quality = analysis.label_quality(labels, chance)
    listed = quality["suspect"].to_numpy()
    assert listed.sum() > 0.5 * planted.sum()
    expected = quality["p_wrong"][listed].mean()
    assert (labels != true)[listed].mean() == pytest.approx(expected, abs=0.1)


def test_the_only_sample_of_a_class_is_not_judged_by_a_network_that_never_saw_one() -> None:
    labels = np.array([*np.repeat([0, 1], 40), 2])
    chance = np.full((81, 3), 0.01)
    chance[np.arange(81), np.minimum(labels, 1)] = 0.98
    quality = analysis.label_quality(labels, chance)
    assert not quality["suspect"].any()
    assert quality.index[quality["p_wrong"].isna()].tolist() == [80]
    assert analysis.suspects(quality).attrs["note"] == "no label is a suspect"


def test_a_frozen_network_is_another_model_and_is_gone_on_with(config: Any) -> None:
    free, frozen = Dropping(), Dropping()
    frozen.layers[0].requires_grad_(False)
    runs = [Run(config, model=model) for model in (free, frozen)]
    names = [run.config.model for run in runs]
    assert names[0] != names[1]
    for run, model in zip(runs, (free, frozen), strict=True):
        list(Run.resume(run.writer.path, model=model))
    assert bl.models._custom(names[0]).parameters > bl.models._custom(names[1]).parameters


# Estimates from parts, and what is left out


def test_a_thinned_record_says_of_the_run_what_the_whole_one_says(
    train: Any, tmp_path: Path
) -> None:
    whole = train(method="p-SGD", smoothing=0.1, limit=1000, budget=0.3, epochs=6).record
    columns = ["entropy", "effective_samples", "q_entropy", "q_effective_samples"]
    right = analysis.selection(whole)[columns].iloc[-1]
    part = thin(whole, tmp_path / "part", samples=600)
    again = thin(part, tmp_path / "again", samples=500)
    for some in (part, again):
        found = analysis.selection(some)[columns].iloc[-1]
        np.testing.assert_allclose(found, right, rtol=0.05)
    few = thin(whole, tmp_path / "few", samples=None, epochs=[2, 4, 6])
    known, kept = (analysis.one_epoch(one)["last_loss"] for one in (whole, few))
    late = whole.samples["times_trained"][4].to_numpy() > 0
    assert late.any()
    assert kept[late].isna().all()  # their last visit was in an epoch that was left out
    told = kept.notna()
    assert 100 < told.sum() < known.notna().sum()
    np.testing.assert_array_equal(kept[told], known[told])
    # A part of a part lacks what either of them lacks.
    with pytest.raises(InputError, match="thinned to 3 of 6 epochs"):
        Replay(thin(few, tmp_path / "fewer", samples=500))


@pytest.mark.parametrize("shares", ["kept", "balanced"])
def test_what_would_be_drawn_is_foreseen_class_by_class(train: Any, shares: str) -> None:
    record = train(method="p-SGD", class_shares=shares, budget=0.25, epochs=4, imbalance=3).record
    replay, config = Replay(record), bl.RunConfig.from_dict(record.config)
    chances = forecast(replay.before(4), config, labels=replay.labels).inclusion
    sizes = np.bincount(replay.labels)
    wanted = 32 * sizes / 128 if shares == "kept" else np.full(2, 16)
    np.testing.assert_allclose(np.bincount(replay.labels, chances), wanted, rtol=1e-6)
    title = explore.probabilities(record).spec["title"]["text"]
    assert "from all classes together, which" in title.replace("\n", " ")


def test_a_run_on_parts_put_together_says_which_classes_are_never_tested(config: Any) -> None:
    data = bl.Dataset.from_dataset(TensorDataset(X, Y), classes=["a", "b", "c"])
    for test, said in ((data, []), (data.select([0, 1, 3]), ["c"])):
        own = config.replace(limit=0, dataset="shapes")
        run = Run(own, splits=bl.Splits.of(data, test), model=network)
        assert [note for note in run.notes if "no test samples" in note] == [
            f"no test samples of {name}: the accuracy says nothing of them" for name in said
        ]


def test_what_is_known_to_be_true_stays_known_whatever_is_changed(tmp_path: Path) -> None:
    first = int((bl.data.load("points", progress=False).train.y == 0).nonzero()[0])
    edits = Edits(tmp_path / "edits.csv").relabel({str(first): "moon 1"}).save()
    for noise in (0.0, 0.3):
        known = bl.data.load("points", edits=edits, label_noise=noise, progress=False).train
        wrong = known.y.numpy() != known.metadata["true_label"].to_numpy()
        np.testing.assert_array_equal(known.metadata["is_noisy"], wrong)
        assert noise or wrong[first]
    np.savez(tmp_path / "own.npz", x=X[:, 0].numpy(), y=Y.numpy())
    before = bl.data.load(f"npz:{tmp_path}/own.npz", progress=False).train
    origin, label = before.metadata["origin"][0], str((int(before.y[0]) + 1) % 3)
    edits = Edits(tmp_path / "true.csv").true_label({origin: label}).save()
    known = bl.data.load(
        f"npz:{tmp_path}/own.npz", edits=edits, label_noise=0.5, progress=False
    ).train
    assert known.metadata["true_label"][0] == int(label)
    assert known.metadata["is_noisy"][0] == (int(known.y[0]) != int(label))


def test_names_of_classes_are_as_good_as_numbers() -> None:
    numbers = pd.DataFrame({"label": [0, 1, 2, 2, 1], "predicted": [0, 2, 2, 0, 1]})
    names = ["ant", "bee", "cat"]
    texts = numbers.map(names.__getitem__)
    for table in (analysis.group_accuracy, analysis.confusion):
        wanted = table(numbers, classes=names)
        pd.testing.assert_frame_equal(table(texts), wanted)
        pd.testing.assert_frame_equal(table(texts, classes=names), wanted)
    assert analysis.mean_accuracies(texts) == analysis.mean_accuracies(numbers)


def test_networks_given_with_other_weights_are_other_conditions(config: Any) -> None:
    """Unless each run has weights of its own, which makes them replicates like any other."""

    def shown(models: list[Any]) -> pd.DataFrame:
        runs = [Run(config.replace(seed=n, epochs=1), model=m) for n, m in enumerate(models)]
        for run in runs:
            list(run)
        assert len({run.config.model for run in runs}) == 1
        return pd.DataFrame(analysis.results([run.record for run in runs]))

    one, other, *many = (Dropping() for _ in range(5))
    assert shown([one, one, other, other])["n"].tolist() == [2, 2]
    assert shown(many)["n"].tolist() == shown([Dropping] * 3)["n"].tolist() == [3]


def test_a_schedule_over_the_full_run_is_that_of_what_is_spent(config: Any) -> None:
    own = config.replace(method="SGD", fidelity="published", budget=0.25, epochs=4)
    rates = []
    for horizon in ("budget", "full"):
        run = Run(own.replace(schedule_horizon=horizon))
        rates.append([row["lr"] for row in run])
    assert rates[0] == rates[1]  # it spends the full run whatever its budget


@pytest.mark.parametrize("budget", [0.29, 0.145])
def test_shares_of_samples_lose_none_to_rounding(config: Any, budget: float) -> None:
    own = config.replace(method="seta", budget=budget, batch_size=1)
    context = SamplerContext(50_000, own, torch.Generator().manual_seed(0), torch.device("cpu"))
    sampler = build("seta", context)
    count = sum(1 for _ in sampler.batches(1, bl.history.History(50_000), lambda _: None))
    assert count == round(100_000 * budget)


def test_curves_of_runs_that_differ_in_a_row_of_numbers(train: Any) -> None:
    runs = [train(schedule="step", milestones=at, seed=seed).record
            for at in ((0.5,), (0.25, 0.75)) for seed in range(2)]  # fmt: skip
    table = analysis.curves(runs, points=5)
    assert table.groupby("milestones", sort=False)["n"].agg(["size", "first"]).to_dict("list") == {
        "size": [5, 5], "first": [2, 2]}  # fmt: skip


def test_a_loop_whose_last_look_was_all_it_could_pay_is_finished(tmp_path: Path) -> None:
    data, model = TensorDataset(X, Y), network()
    sampler = bl.BudgetSampler(data, "top-k", model=model, budget_unit="samples", batch_size=8,
                               epochs=5, budget=0.5, out=str(tmp_path))  # fmt: skip
    while not sampler.finished:
        for batch in sampler:
            sampler.history.update(model(X[batch]), Y[batch])
        record = sampler.record(0.5)
    assert record.status == "finished"
    assert record.summary["looked_samples"] == sampler.ledger.looked_samples
    with pytest.raises(InputError, match="is recorded already and the budget is spent"):
        sampler.record(0.5)


class Tied(Dropping):
    """Two layers of one weight, and a buffer that is a view."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(2, 2)
        self.again = nn.Linear(2, 2)
        self.again.weight = self.more.weight
        self.register_buffer("view", torch.ones(2, 3).T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.again(self.more(x)))


def test_a_network_whose_layers_share_weights_keeps_them(config: Any) -> None:
    for model in (Tied(), Tied):
        run = Run(config, model=model)
        list(run)
        again = trained_network(run.record, run.splits, model)
        for name, value in run.loop.engine.network.state_dict().items():
            assert torch.equal(value, again.state_dict()[name])


def test_a_method_without_probabilities_leaves_a_record_however_many_epochs_it_takes(
    train: Any,
) -> None:
    @bl.sampler("one at a time")
    class OneAtATime(bl.Sampler):
        def batches(self, epoch: int, history: Any, look: Any) -> Any:
            yield bl.samplers.Batch(self.shuffled()[: self.batch_size])

    bl.sampler("learned")(lambda history: torch.ones(history.size, requires_grad=True))
    record = train(method="one at a time", epochs=2).record
    assert record.samples.sizes["epoch"] == len(record.epochs) > 2
    assert record.samples["probability"].isnull().all()
    assert train(method="learned").record.status == "finished"


def test_a_pass_that_was_broken_off_is_recorded_with_what_it_trained_on(tmp_path: Path) -> None:
    data, model = TensorDataset(X, Y), network()
    sampler = bl.BudgetSampler(data, "p-SGD", batch_size=8, epochs=4, budget=0.6, out=str(tmp_path))
    ahead = iter(sampler)
    batches = [next(ahead) for _ in range(4)]  # as a loader with worker processes asks
    for batch in batches[:2]:
        sampler.history.update(model(X[batch]), Y[batch])
    record = sampler.record(0.5)
    while not sampler.finished:
        for batch in sampler:
            sampler.history.update(model(X[batch]), Y[batch])
        record = sampler.record(0.5)
    trained = record.samples["times_trained"].to_numpy().sum(axis=1).cumsum()
    assert record.epochs["trained_samples"].tolist() == trained.tolist()
    assert record.epochs["steps"].tolist() == (trained // 8).tolist() == [2, 6, 10, 14, 16]


class Backwards(nn.Module):
    """A network that names its head first, and a layer that it never runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.first, self.spare = nn.Linear(4, 2), nn.Linear(2, 4), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x).relu())


# A warning of torch's compiler under Python 3.13.0 alone.
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")
def test_features_are_the_inputs_of_the_layer_that_runs_last(config: Any, compiled: bool) -> None:
    given = torch.compile(Backwards(), backend="eager") if compiled else Backwards()
    run = Run(config, model=given)
    list(run)
    x = run.splits.train.normalised()
    first = getattr(run.loop.engine.network, "_orig_mod", run.loop.engine.network).first
    found = _features(run.record, run.splits, given)
    np.testing.assert_allclose(found, first(x).relu().detach(), atol=1e-6)


def test_a_look_leaves_each_layer_in_its_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 3))
    model[1].eval()  # frozen, as when a network is fine-tuned
    sampler = bl.BudgetSampler(TensorDataset(X, Y), "top-k", model=model, batch_size=4)
    next(iter(sampler))
    assert sampler.ledger.looked_samples
    assert [layer.training for layer in model] == [True, False, True, True]


def test_a_batch_that_is_reported_in_parts_is_charged_once() -> None:
    sampler = bl.BudgetSampler(60, "p-SGD", batch_size=8, epochs=4, budget=0.5)
    for epoch in range(1, 5):
        for batch in sampler:
            for numbers in (torch.tensor(batch[5:]), torch.tensor(batch[:5])):
                sampler.history.update(torch.zeros(len(numbers), 3), Y[numbers], numbers)
        assert (sampler.ledger.steps, sampler.ledger.trained_samples) == (3 * epoch, 24 * epoch)
    assert sampler.finished
    assert sampler.history.visits.sum() == 96


def test_probabilities_are_not_taken_for_logits() -> None:
    """Their cross-entropy is that of a network that is never sure."""
    data = bl.Dataset.from_dataset(TensorDataset(X, Y))
    unsure = nn.Sequential(network(), nn.Softmax(1))
    with pytest.raises(InputError, match="outputs of model 'Sequential' are probabilities"):
        bl.train(splits=bl.Splits.of(data), model=unsure, progress=False)
    with pytest.raises(InputError, match="logits that were reported are probabilities"):
        measure_batch(unsure(X), Y)
    measure_batch(unsure(X).log(), Y)
    measure_batch(unsure(X)[:1], Y[:1])  # which one row may be by chance


def test_all_parts_are_seen_on_the_scale_of_the_training_set() -> None:
    dark, bright = (bl.Dataset.from_dataset(TensorDataset(x, Y)) for x in (X / 2, X))
    splits = bl.Splits.of(dark, bright, val=bright)
    assert splits.val is not None
    shown = bright.x[:5] / 255
    right = (shown - torch.tensor(dark.mean)) / torch.tensor(dark.std)
    for part in (splits.test, splits.val):
        torch.testing.assert_close(part.normalised(slice(5)), right)


def test_a_tilde_is_the_home_folder_to_those_who_write_and_to_those_who_read(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    record = train(out="~/own").record
    given = f"~/own/{record.path.name}"
    assert bl.compare("~/own")["n"].tolist() == [1]
    analysis.export(analysis.measures(given), "~/table.csv")
    explore.learning(given).save("~/chart.html")
    thin(given, "~/part", samples=20)
    longer = Run.resume(given, epochs=9).record
    assert longer.path.parent == tmp_path / "own"
    assert {"table.csv", "chart.html", "part"} <= {path.name for path in tmp_path.iterdir()}
    assert not list((tmp_path / "here").iterdir())
