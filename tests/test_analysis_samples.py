"""Per-sample measures, agreement and selection: hand-made cases and a known truth."""

import math

import numpy as np
import pandas as pd
import pytest
from fake_records import make_tags, write_arrays, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

import budgetlab as bl
from budgetlab import analysis
from budgetlab.analysis import per_sample
from budgetlab.analysis.per_sample import pruning_scores
from budgetlab.errors import InputError

NAN = np.nan


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Four epochs of four samples: forgotten once, never right, never seen, always right.

    All values are short binary fractions, so that storing them loses nothing.
    """
    seen = np.array([[1, 1, 0, 1], [1, 1, 0, 0], [0, 1, 0, 2], [1, 1, 0, 1]])
    correct = np.array([[0, 0, -1, 1], [1, 0, -1, -1], [-1, 0, -1, 1], [0, 0, -1, 1]])
    p_y = np.array([[0.25, 0.125, NAN, 0.5], [0.75, 0.125, NAN, NAN],
                    [NAN, 0.25, NAN, 0.75], [0.5, 0.5, NAN, 1.0]])  # fmt: skip
    margin = np.array([[-1, -2, NAN, 1], [1, -2, NAN, NAN], [NAN, -1, NAN, 2], [-0.5, -3, NAN, 3]])
    loss = np.array([[2, 3, NAN, 1], [0.5, 4, NAN, NAN], [NAN, 5, NAN, 0.5], [1, 4, NAN, 0]])
    arrays = {"times_trained": seen, "correct": correct, "p_y": p_y, "margin": margin,
              "loss": loss, "el2n": 1 - p_y,
              "probability": np.array([[0.25] * 4] * 3 + [[0.5, 0.5, 0, 0]])}  # fmt: skip
    return write_arrays(tmp_path_factory.mktemp("tiny"), arrays, [0, 0, 1, 1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return write_run(out, method="p-SGD", budget=0.5, epochs=20)


EXPECTED = {
    "times_trained": [3, 4, 0, 4],
    "visits": [3, 4, 0, 3],
    "last_loss": [1, 4, NAN, 0],
    "mean_loss": [3.5 / 3, 4, NAN, 0.5],
    "confidence": [0.5, 0.25, NAN, 0.75],
    "variability": [np.sqrt(0.125 / 3), np.sqrt(0.09375 / 4), NAN, np.sqrt(0.125 / 3)],
    "correctness": [1 / 3, 0, NAN, 1],
    "forgetting": [1, np.inf, NAN, 0],
    "aum": [-0.5 / 3, -2, NAN, 2],
    "el2n": [0.5, 0.75, NAN, 0.25],
    "first_learned": [2, np.inf, NAN, 1],
}


def test_each_measure_by_hand_and_described(tiny):
    frame = analysis.measures(tiny)
    for name, expected in EXPECTED.items():
        np.testing.assert_allclose(frame[name], expected, atol=1e-12, err_msg=name)
    table = analysis.described().set_index("measure")
    found = analysis.hardness(frame)
    assert set(found) <= set(table.index) - {"variability", "times_trained", "visits", "label"}
    assert found["forgetting"].idxmax() == 1
    assert found.loc[2].isna().all()
    assert (table.loc["aum", "hard"], table.loc["variability", "hard"]) == ("low", "")
    assert table["meaning"].str.len().min() > 5


def test_strata_of_margins_by_hand():
    aum = np.array([3.0, NAN, -1.0, 1.0, 2.999])
    np.testing.assert_array_equal(analysis.aum_strata(aum, 4), [0, NAN, 3, 2, 0])
    assert np.isnan(analysis.aum_strata(np.array([NAN, NAN]))).all()
    assert analysis.aum_strata(np.array([1.0, 1.0])).tolist() == [0, 0]


def test_how_learning_went_by_hand(tmp_path):
    right = np.array(
        #     early late unst forg never unseen lapse
        [[0,    0,   1,   1,   0,   -1,   1],
         [1,    0,   0,   0,   0,   -1,   0],
         [1,   -1,   1,   1,   0,   -1,   1],
         [-1,   0,   0,  -1,  -1,   -1,   1],
         [1,    1,   1,   0,   0,   -1,   1],
         [1,    1,   1,   0,   0,   -1,   1]]
    )  # fmt: skip
    nothing = np.where(right >= 0, 0.5, np.nan)
    arrays = {name: nothing for name in ("loss", "p_y", "margin", "el2n")}
    arrays |= {"correct": right, "times_trained": (right >= 0).astype(int)}
    frame = analysis.measures(write_arrays(tmp_path, arrays, [0] * 7))
    assert frame["learning"].tolist() == [
        "early", "late", "unstable", "forgotten", "never", "not seen", "early"
    ]  # fmt: skip
    assert frame["learned_for_good"].tolist() == pytest.approx(
        [2, 5, 5, math.inf, math.inf, math.nan, 3], nan_ok=True
    )
    assert set(frame["learning"]) | {"late"} == set(analysis.LEARNING)


def test_measures_can_stop_early_and_blocks_of_epochs_change_nothing(tiny, monkeypatch):
    early = analysis.measures(tiny, el2n_epochs=2)["el2n_early"]
    np.testing.assert_allclose(early, [0.5, 0.875, NAN, 0.5])
    first = analysis.measures(tiny, epochs=2)
    np.testing.assert_allclose(first["forgetting"], [0, np.inf, NAN, 0])
    assert list(first["visits"]) == [2, 2, 0, 1]
    with pytest.raises(InputError, match="epochs 0 is not allowed: give a whole number from 1"):
        analysis.measures(tiny, epochs=0)
    whole = analysis.measures(tiny)
    monkeypatch.setattr(per_sample, "BLOCK", 4)  # one epoch of four samples at a time
    assert [epoch for epoch, _ in per_sample.read_epochs(tiny, ["loss"])] == [1, 2, 3, 4]
    pd.testing.assert_frame_equal(analysis.measures(tiny), whole)
    monkeypatch.undo()


def test_every_direction_of_hard_agrees_with_the_difficulty_that_was_drawn(run):
    frame = analysis.measures(run)
    assert next(iter(frame)) == "label"
    np.testing.assert_array_equal(frame["is_noisy"], make_tags(len(frame))["is_noisy"])
    for name, values in analysis.hardness(frame).items():
        found = analysis.agreement(values, frame["difficulty"])
        assert found["spearman_ci_low"] > 0.15, name
    with pytest.raises(InputError, match="holds no measure of hardness: give one from measures"):
        analysis.hardness(frame[["label"]])


# Agreement


def test_agreement_and_its_interval():
    a = pd.Series([1.0, 2, 3, 4, 5, 6, 7, 8, 9, NAN])
    b = pd.Series([1.0, 2, 3, 4, 5, 6, 9, 8, 7, 1])
    found = analysis.agreement(a, b, top=0.25)
    # Two swapped ranks three apart: rho = 1 - 6 (4 + 4) / (9 * 80).
    assert found["n"] == 9
    assert found["spearman"] == pytest.approx(1 - 48 / 720)
    # Its standard error on Fisher's scale is sqrt((1 + rho^2 / 2) / 6) = 0.489.
    assert found["spearman_ci_low"] == pytest.approx(0.6200, abs=1e-4)
    assert found["spearman_ci_high"] == pytest.approx(0.9899, abs=1e-4)
    # The top two are {8, 9} and {7, 8} by number: one in common.
    assert (found["top"], found["overlap"]) == (2, 0.5)
    assert found["overlap_ci_low"] == pytest.approx(0.0945, abs=1e-4)  # Wilson, 1 of 2
    assert found["overlap_by_chance"] == pytest.approx(2 / 9)
    with pytest.raises(InputError, match="at least 4"):
        analysis.agreement(a[:3], b[:3])
    for top in (0, 1, 1.5):
        with pytest.raises(InputError, match=f"top {top} is not allowed"):
            analysis.agreement(a, b, top=top)
    assert math.isnan(analysis.agreement(a[:4], b[:4] * 0)["spearman"])
    # The interval covers what it should: of a normal pair with r = 0.6.
    rng, truth, hits = np.random.default_rng(0), 6 / math.pi * math.asin(0.6 / 2), 0
    for _ in range(200):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 60).T
        found = analysis.agreement(pd.Series(x), pd.Series(y))
        hits += found["spearman_ci_low"] <= truth <= found["spearman_ci_high"]
    assert 0.90 <= hits / 200 <= 0.99


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=5, max_size=30), st.integers(0, 10**6))
def test_overlap_of_ties_does_not_depend_on_the_order_of_samples(values, seed):
    rng = np.random.default_rng(seed)
    a, b = pd.Series(values, dtype=float), pd.Series(rng.permutation(values), dtype=float)
    order = rng.permutation(len(values))
    one = analysis.agreement(a, b, top=0.3)
    other = analysis.agreement(*(v.iloc[order].reset_index(drop=True) for v in (a, b)), top=0.3)
    assert one["overlap"] == pytest.approx(other["overlap"])
    assert 0 <= one["overlap"] <= 1 + 1e-12
    if len(set(values)) > 1:
        assert one["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic)


def test_measures_of_one_run_are_turned_before_they_are_compared(run):
    frame = analysis.measures(run)
    table = analysis.measure_agreement(frame, ["confidence", "mean_loss"])
    assert table["spearman"].iloc[0] > 0.9
    assert table[["a", "b"]].to_numpy().tolist() == [["confidence", "mean_loss"]]
    table = analysis.measure_agreement(frame, top=0.25)
    assert len(table) == math.comb(len(list(analysis.hardness(frame))), 2)
    assert (table["top"] == round(0.25 * table["n"])).all()
    with pytest.raises(InputError, match="unknown measure 'amu': did you mean 'aum'"):
        analysis.measure_agreement(frame, ["amu"])


def test_runs_on_the_same_data_agree_and_others_are_refused(tmp_path, run):
    other = write_run(tmp_path, method="unif-SGD", budget=0.5, epochs=20, seed=5)
    table = analysis.run_agreement([run, other], "aum")
    assert table["spearman_ci_low"].item() > 0.5
    assert (table["a"].item(), table["b"].item()) == (str(run.path), str(other.path))
    stranger = write_run(tmp_path, method="SGD", fingerprint="else")
    with pytest.raises(InputError, match="other data"):
        analysis.run_agreement([run, stranger])


# Selection


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_how_uneven_counts_are(values):
    counts = np.array(values)
    found = [analysis.entropy(counts), analysis.effective_sample_size(counts),
             analysis.gini(counts)]  # fmt: skip
    assert analysis.coverage(counts) == pytest.approx((counts > 0).mean())
    if not counts.any():
        assert np.isnan(found).all()
        return
    # Mean absolute difference over twice the mean; entropy of the shares as scipy has it.
    pairs = np.abs(counts[:, None] - counts[None]).mean() / (2 * counts.mean())
    size = counts.sum() ** 2 / (counts**2).sum()
    assert found == pytest.approx([stats.entropy(counts), size, pairs], abs=1e-9)
    with pytest.raises(InputError, match="counts have to be a list of at least one number, none"):
        analysis.gini(-counts)


def test_selection_by_epoch(tiny, run):
    frame = analysis.selection(tiny)
    assert list(frame["trained"]) == [3, 2, 3, 3]
    assert list(frame["distinct"]) == [3, 2, 2, 3]
    np.testing.assert_allclose(frame["coverage"], 0.75)
    np.testing.assert_allclose(frame["q_effective_samples"], [4, 4, 4, 2])
    for name in ("entropy", "gini"):
        assert frame[name].iloc[-1] == pytest.approx(getattr(analysis, name)([3, 4, 0, 4]))
    frame = analysis.selection(run)
    first = run.samples["times_trained"].isel(epoch=0).to_numpy()
    noisy = run.samples["is_noisy"].to_numpy().astype(bool)
    assert frame["noisy_share"].iloc[0] == pytest.approx(first[noisy].sum() / first.sum())
    assert frame.attrs["noisy_base"] == pytest.approx(0.1)
    # What is hard to learn is drawn more often: the truth of the simulation.
    assert frame["noisy_share"].tail(10).mean() > 0.12


def test_class_shares_and_ranked_counts(tiny, tmp_path):
    frame = analysis.class_share(tiny)
    np.testing.assert_allclose(frame.groupby("epoch")["share"].sum(), 1)
    assert frame.query("epoch == 3 and `class` == 'b'")["share"].item() == pytest.approx(2 / 3)
    assert set(frame["class"]) == {"a", "b"}
    np.testing.assert_allclose(frame["base"], 0.5)
    frame = analysis.ranked_counts(tiny)
    assert frame.to_numpy().T.tolist() == [[1, 2, 3, 4], [1, 3, 0, 2], [4, 4, 3, 0]]
    # Classes without a name are numbered, and an idle epoch has no shares.
    arrays = {"times_trained": np.array([[1, 1, 2], [0, 0, 0]]), "correct": np.zeros((2, 3), int)}
    frame = analysis.class_share(write_arrays(tmp_path, arrays, [0, 0, 3]))
    assert frame["class"].tolist() == ["a", "b", "2", "3"] * 2
    np.testing.assert_allclose(frame["share"], [0.5, 0, 0, 0.5] + [NAN] * 4)
    np.testing.assert_allclose(frame["base"], [2 / 3, 0, 0, 1 / 3] * 2)


def test_picks_by_counts_places_over_those_of_a_uniform_draw(tmp_path, run):
    # Six samples, trained on 4, 0, 1, 1, 0 and 0 times in two epochs.
    trained = np.array([[2, 0, 1, 1, 0, 0], [2, 0, 0, 0, 0, 0]])
    arrays = {"times_trained": trained, "correct": np.where(trained > 0, 1, -1)}
    frame = analysis.picks_by(write_arrays(tmp_path, arrays, [5, 5, 1, 1, 3, 3]), "label", groups=3)
    # Labels 1, 3 and 5 hold 2, 0 and 4 of the 6 places; uniform would be 2 each.
    np.testing.assert_allclose(frame[["middle", "picked", "never", "samples"]],
                               [[1, 1, 0, 2], [3, 0, 1, 2], [5, 2, 0.5, 2]])  # fmt: skip
    hard = analysis.picks_by(run, groups=5)["picked"]  # of p-SGD, by difficulty
    assert hard.iloc[-1] > 1.1 > 0.95 > hard.iloc[0]
    for column, groups, reason in (
        ("hardness", 5, "unknown column 'hardness': choose one of difficulty, index, label"),
        ("is_noisy", 5, "unknown column 'is_noisy'"),
        ("difficulty", 201, "groups 201 is not allowed: give a whole number from 1 to 200"),
    ):
        with pytest.raises(InputError, match=reason):
            analysis.picks_by(run, column, groups=groups)


# Epochs, samples, calibration


def test_quantiles_epochs_and_lives_leave_out_what_was_not_visited(tiny):
    frame = analysis.quantiles(tiny, "loss", (0.0, 0.5, 1.0))
    assert list(frame.loc[1]) == [1, 2, 3, 3]
    assert list(frame.loc[2, [0.0, 1.0]]) == [0.5, 4]
    assert set(analysis.quantiles(tiny, "probability")["kind"]) == {"draw"}
    # Sample 0 is visited and right in epoch 2; -1 for no visit is no value.
    frame = analysis.quantiles(tiny, "correct", (0.0, 1.0))
    assert frame.loc[2].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="unknown array 'losses': did you mean 'loss'"):
        analysis.quantiles(tiny, "losses")
    frame = analysis.one_epoch(tiny, 3)
    np.testing.assert_allclose(frame["last_loss"], [0.5, 4, NAN, 1])
    assert analysis.one_epoch(tiny, 1)["last_loss"].isna().all()
    pd.testing.assert_frame_equal(frame, analysis.one_epoch(tiny, -2))
    for wrong in (5, 0, -5):
        with pytest.raises(InputError, match=f"epoch {wrong} does not exist.*it has 1 to 4"):
            analysis.one_epoch(tiny, wrong)
    np.testing.assert_allclose(analysis.sample_life(tiny, 0)["p_y"], [0.25, 0.75, NAN, 0.5])
    with pytest.raises(InputError, match="from 0 to 3"):
        analysis.sample_life(tiny, 4)
    # Below 0.5: 0.25, 0.125, 0.125, 0.25, all wrong; from 0.5: six visits, four right.
    bins = analysis.calibration(tiny, bins=2)
    assert list(bins["visits"]) == [4, 6]
    np.testing.assert_allclose(bins[["right", "p_y"]], [[0, 0.1875], [4 / 6, 4 / 6]])


def test_credit_that_finds_its_sample_rises_with_the_reference(tmp_path, tiny, run):
    right = write_run(tmp_path, method="unif-SGD", budget=0.5, epochs=20, seed=5)
    frame = analysis.credit_by_reference(right, run, 5)
    assert (np.diff(frame["reference"]) > 0).all()
    assert frame["credited"].iloc[-1] > frame["credited"].iloc[0] + 0.2
    assert frame.attrs["spearman"] > 0.5
    assert frame["samples"].max() - frame["samples"].min() <= 1
    shuffled = np.random.default_rng(0).permutation(200)
    p_y = right.samples["p_y"].to_numpy()[:, shuffled]
    correct = np.where(np.isnan(p_y), -1, p_y > 0.5)
    wrong = write_arrays(tmp_path, {"p_y": p_y, "correct": correct}, [0] * 200)
    wrong.about["data"]["fingerprint"] = run.fingerprint
    assert abs(analysis.credit_by_reference(wrong, run, 5).attrs["spearman"]) < 0.2
    with pytest.raises(InputError, match="other data"):
        analysis.credit_by_reference(tiny, run)


# What core sets are chosen by


def visits(epochs: int, size: int = 30, seen: float = 0.6):
    """Probabilities of the label among two classes; NaN where a sample was not visited."""
    rng = np.random.default_rng(0)
    p_y = rng.uniform(0.02, 0.98, (epochs, size)).astype(np.float32)
    p_y[rng.random((epochs, size)) > seen] = np.nan
    p_y[:, 0], p_y[1:, 1] = np.nan, np.nan  # never visited, and once at most
    return p_y


@pytest.mark.parametrize("epochs", [1, 2, 6, 10, 13, 34])
def test_a_record_gives_the_scores_that_core_sets_compute_from_a_scoring_run(epochs):
    import torch

    from budgetlab import samplers
    from budgetlab.history import Credit, Trajectory, measure

    rows = visits(epochs)
    trajectory = Trajectory(rows.shape[1])
    for epoch, p_y in enumerate(rows, 1):
        trajectory.start_epoch(epoch)
        seen = torch.from_numpy(np.flatnonzero(~np.isnan(p_y)))
        p = torch.from_numpy(p_y)[seen].double()
        labels = torch.zeros(len(seen), dtype=torch.int64)
        logits = torch.stack([p.log(), (1 - p).log()], 1)
        credit = Credit(torch.arange(len(seen)), seen, torch.ones(len(seen)))
        if len(seen):
            trajectory.update(credit, measure(logits, labels))
    found = pruning_scores(rows)
    for method in ("dyn-unc", "dual", "tdds"):
        kind = samplers.lookup(method)
        expected = kind.score(kind.__new__(kind), trajectory)
        np.testing.assert_allclose(
            found[method.replace("-", "_")], expected, rtol=2e-3, atol=1e-5, err_msg=method
        )


# Groups and classes of test samples

LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
SAID = np.array([0, 0, 0, 0, 0, 2, 0, 1, 0, 0])
NAMES = ["cat", "dog", "eel", "fox"]
DATA = pd.DataFrame({"label": LABELS, "predicted": SAID, "camera": ["a", "b"] * 5})


def test_by_class_worst_first():
    table = analysis.group_accuracy(DATA, classes=NAMES)
    assert table["group"].tolist() == ["eel", "dog", "cat"]
    assert table["accuracy"].tolist() == pytest.approx([0, 1 / 2, 5 / 6])
    assert table["n"].tolist() == [2, 2, 6]
    assert table["mistaken_for"].tolist() == ["cat", "cat", "eel"]
    # Wilson at 5 of 6.
    assert table.loc[2, ["ci_low", "ci_high"]].tolist() == pytest.approx([0.4365, 0.9699], abs=1e-4)
    wider = analysis.group_accuracy(DATA, classes=NAMES, confidence=0.99)
    assert (wider["ci_low"] <= table["ci_low"]).all()


def test_by_any_column_and_as_means():
    table = analysis.group_accuracy(DATA, "camera").set_index("group")
    assert table.loc["a", "accuracy"] == pytest.approx((LABELS == SAID)[::2].mean())
    assert table.loc["b", "mistaken_for"] in ("0", "2")
    assert len(analysis.group_accuracy(DATA.rename(columns={"camera": 0}), 0)) == 2
    found = analysis.mean_accuracies(DATA)
    assert found["over_samples"] == pytest.approx(0.6)
    assert found["over_classes"] == pytest.approx(balanced_accuracy_score(LABELS, SAID))
    assert analysis.group_accuracy(DATA).attrs == found | {"left_out": 0}
    # Where label, prediction or group is not known, a row counts nowhere but here.
    gaps = pd.DataFrame({"label": [None, 1], "predicted": [1, None], "camera": ["a", "b"]})
    gappy = pd.concat([DATA, gaps, DATA[:3].assign(camera=None)])
    table = analysis.group_accuracy(gappy, "camera")
    assert (table["n"].sum(), table.attrs["left_out"]) == (10, 5)
    assert analysis.group_accuracy(gappy)["mistaken_for"].tolist() == ["0", "0", "2"]
    assert analysis.confusion(gappy).to_numpy().sum() == 13


def test_the_confusion_is_that_of_scikit_learn_with_every_class():
    table = analysis.confusion(DATA, classes=NAMES)
    expected = confusion_matrix(LABELS, SAID, labels=range(4))
    np.testing.assert_array_equal(table, expected)
    assert list(table) == NAMES
    assert table.loc["eel", "cat"] == 2
    assert analysis.confusion(DATA).shape == (3, 3)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match="give the columns label and predicted"):
        analysis.confusion(DATA[["label"]])
    with pytest.raises(InputError, match="class 2 has no name: classes has 2 entries"):
        analysis.group_accuracy(DATA, classes=NAMES[:2])
    with pytest.raises(InputError, match=r"unknown group 'colour': .*choose one of label, camera"):
        analysis.group_accuracy(DATA, "colour")
    with pytest.raises(InputError, match="holds no predictions for the test samples"):
        analysis.confusion(write_run(tmp_path, status="stopped"))


def test_groups_of_a_record_follow_what_it_holds(tmp_path):
    record = write_run(tmp_path, method="unif-SGD", budget=0.5, epochs=8)
    by_label = analysis.groups_of_record(record)
    assert set(by_label["group"]) == {"circle", "square", "<b>star</b>", "ring"}
    assert by_label["n"].sum() == 200
    frame = analysis.measures(record)
    seen = frame[(frame["visits"] > 0) & frame["is_noisy"]]
    noisy = analysis.groups_of_record(record, "is_noisy").set_index("group")
    never = (seen["correctness"] == 0).mean()
    assert noisy.loc[True, "never_learned"] == pytest.approx(never)
    assert noisy.loc[True, "right"] < noisy.loc[False, "right"]
    assert (by_label["right"].diff().dropna() >= 0).all()
    with pytest.raises(InputError, match="unknown group 'colour'"):
        analysis.groups_of_record(record, "colour")


def test_a_run_keeps_what_it_predicted_for_its_test_samples(tmp_path):
    """The last epoch's, so that the means are those it was evaluated with."""
    x = np.random.default_rng(0).integers(0, 256, (90, 8, 8), np.uint8)
    y = np.arange(90) % 3
    x[y == 0, :4] = 255
    samples = bl.Dataset.from_dataset(list(zip(x, y, strict=True)))
    splits = bl.Splits.of(samples.select(range(60)), samples.select([*range(60, 90)] * 2))
    splits.test.metadata["camera"] = ["Pentax", "Écran"] * 30
    record = bl.train("unif-SGD", splits=splits, epochs=2, batch_size=10, budget=1.0,
                      device="cpu", out=tmp_path, progress=False)  # fmt: skip
    kept, given = record.predictions, splits.test.metadata.reset_index(drop=True)
    assert kept["label"].tolist() == splits.test.y.tolist()
    for name in ("index", "origin", "camera"):
        assert kept[name].tolist() == given[name].tolist()
    assert kept["predicted"].tolist()[:30] == kept["predicted"].tolist()[30:]
    means = analysis.mean_accuracies(record)
    assert means["over_samples"] == pytest.approx(record.summary["test_accuracy"], abs=1e-6)
    assert means["over_classes"] == record.summary["test_class_accuracy"]
    assert set(analysis.group_accuracy(record, "camera")["group"]) == {"Pentax", "Écran"}
