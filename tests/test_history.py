"""The history against values worked out by hand, and who gets the credit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from budgetlab.errors import InputError
from budgetlab.history import Credit, History, Measures, assign_credit, measure


def visit(history: History, samples: list[int], p_y: list[float], weights=None, **also) -> None:
    """One step in which these samples had these probabilities of their labels."""
    p = torch.tensor(p_y)
    seen = {"loss": -p.log(), "p_y": p, "correct": (p > 0.5).float(), "margin": 2 * p - 1,
            "el2n": 1 - p}  # fmt: skip
    seen |= {name: torch.tensor(values) for name, values in also.items()}
    share = torch.ones(len(samples)) if weights is None else torch.tensor(weights)
    credit = Credit(torch.arange(len(samples)), torch.tensor(samples), share)
    history.update(credit, Measures(**seen))


# One forward


def test_measures_by_hand():
    # Softmax of [ln 1, ln 2, ln 5] is [1/8, 2/8, 5/8].
    logits = torch.log(torch.tensor([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]))
    seen = measure(logits, torch.tensor([2, 0]))
    assert seen.p_y.tolist() == pytest.approx([5 / 8, 1 / 8])
    assert seen.loss.tolist() == pytest.approx([math.log(8 / 5), math.log(8)])
    assert seen.correct.tolist() == [1, 0]
    assert seen.margin.tolist() == pytest.approx([math.log(5 / 2), math.log(1 / 5)])
    # ||(1, 2, -3)|| / 8 and ||(-7, 2, 5)|| / 8.
    assert seen.el2n.tolist() == pytest.approx([math.sqrt(14) / 8, math.sqrt(78) / 8], abs=1e-6)


def test_measures_stay_finite_at_huge_logits_and_a_tie_is_not_correct():
    assert measure(torch.zeros(1, 3), torch.tensor([0])).correct.tolist() == [0]
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]])
    seen = measure(logits, torch.tensor([0, 1]))
    assert seen.loss.tolist() == [0, 2e4]
    assert seen.el2n.tolist() == pytest.approx([0, math.sqrt(2)])
    halves = measure(logits.bfloat16(), torch.tensor([0, 1]))
    assert {getattr(halves, name).dtype for name in seen.__dataclass_fields__} == {torch.float32}


# Many visits


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.05, 1)), min_size=1, max_size=30))
def test_every_mean_is_that_over_the_visits_and_the_error_is_that_of_the_paper(visits):
    history, m, n = History(3), 0.0, 0.0
    for epoch, (p, share) in enumerate(visits, 1):
        history.start_epoch(epoch)
        visit(history, [1], [p], weights=[share])
        m, n = (n * m + share * (1 - p)) / (n + share), n + share
    p, share = np.array(visits).T
    mean = np.average(p, weights=share)
    spread = np.sqrt(np.average((p - mean) ** 2, weights=share))
    expected = {"error": m, "confidence": mean, "variability": spread, "mean_margin": 2 * mean - 1,
                "mean_loss": np.average(-np.log(p), weights=share), "el2n": 1 - mean,
                "last_p_y": p[-1], "last_loss": -np.log(p[-1])}  # fmt: skip
    for name, value in expected.items():
        off = 2e-3 if name == "variability" else 1e-5
        assert getattr(history, name)[1].item() == pytest.approx(value, abs=off), name
        assert getattr(history, name)[[0, 2]].isnan().all()
    assert history.visits.tolist() == pytest.approx([0, share.sum(), 0])
    assert history.seen.tolist() == [False, True, False]


def test_a_probability_that_never_changes_does_not_vary():
    """Rounding may leave a variance a little below zero, which has no root."""
    p_y = torch.linspace(0.01, 0.99, 99)
    history = History(99)
    for _ in range(3):
        visit(history, list(range(99)), p_y.tolist())
    mean_square = history._sum("p_y_squared") / history.visits
    assert (mean_square < history.confidence**2).any(), "the case is not met"
    assert history.variability.tolist() == pytest.approx([0] * 99, abs=1e-3)


@pytest.mark.parametrize(
    ("right", "events"),
    [([1, 0, 1, 0], 2), ([0, 0, 0], 0), ([0, 1, 1], 0), ([1], 0), ([0], 0), ([1, 0], 1),
     ([0, 1, 0, 0, 1, 0], 2)],
)  # fmt: skip
def test_forgetting_counts_from_right_to_wrong(right, events):
    history = History(2)
    for value in right:
        visit(history, [1], [0.5], correct=[float(value)])
        visit(history, [0], [0.9])
    assert history.forgotten.tolist() == [0, events]
    assert history.last_correct[1].item() == right[-1]


# Duplicates in a batch


@pytest.mark.parametrize(("p_y", "forgotten"), [([0.1, 0.2], 1), ([0.1, 0.8], 0)])
def test_a_sample_twice_in_a_batch_is_forgotten_once_by_its_newest_row(p_y, forgotten):
    history = History(1)
    visit(history, [0], [0.9])
    visit(history, [0, 0], p_y)
    assert (history.forgotten.item(), history.last_correct.item()) == (forgotten, 1 - forgotten)


def test_an_epoch_leaves_only_what_it_saw_and_a_saved_history_comes_back():
    history, other = History(4), History(4)
    for epoch, drawn, p_y in ((1, [0, 1, 1], [0.9, 0.2, 0.3]), (2, [1, 3, 3], [0.4, 0.5, 0.8])):
        history.start_epoch(epoch)
        history.count(torch.tensor(drawn))
        visit(history, drawn, p_y)
    assert history.times_trained.tolist() == [1, 3, 0, 2]
    # A sample twice in a batch has two visits, and the last row as its newest.
    assert history.visits.tolist() == [1, 3, 0, 2]
    assert history.confidence[3].item() == pytest.approx(0.65)
    assert history.last_epoch.tolist() == [1, 2, 0, 2]
    other.load_state_dict(history.state_dict())
    assert other.epoch == 2
    for name in ("visits", "error", "last_p_y", "last_epoch", "times_trained", "forgotten"):
        ours, theirs = getattr(history, name), getattr(other, name)
        assert torch.equal(ours.nan_to_num(-7), theirs.nan_to_num(-7)), name
    left = {name: values.numpy() for name, values in history.epoch_arrays().items()}
    expected = np.float32([np.nan, 0.4, np.nan, 0.8])
    assert np.array_equal(left["p_y"], expected, equal_nan=True)
    assert left["correct"].tolist() == [-1, 0, -1, 1]
    assert left["times_trained"].tolist() == [0, 1, 0, 2]


# Who gets the credit. Rows 0, 1, 2 drew samples 10, 20, 30.

DRAWN = torch.tensor([10, 20, 30])
SOURCES = torch.tensor([[10, 20], [20, 30], [30, 10]])
WEIGHTS = torch.tensor([[0.7, 0.3], [0.25, 0.75], [1.0, 0.0]])


def pairs(credit: Credit) -> list[tuple[int, int, float]]:
    weights = [round(weight, 6) for weight in credit.weights.tolist()]
    return list(zip(credit.rows.tolist(), credit.samples.tolist(), weights, strict=True))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("row", [(0, 10, 1), (1, 20, 1), (2, 30, 1)]),
        ("dominant", [(0, 10, 1), (1, 30, 1), (2, 30, 1)]),
        ("weighted", [(0, 10, 0.7), (0, 20, 0.3), (1, 20, 0.25), (1, 30, 0.75), (2, 30, 1),
                      (2, 10, 0)]),
    ],
)  # fmt: skip
def test_who_is_credited(rule, expected):
    assert pairs(assign_credit(rule, DRAWN, SOURCES, WEIGHTS)) == expected
    # Without mixing all rules agree, and the row counts even where nothing of it is seen.
    drawn = [(0, 10, 1), (1, 20, 1), (2, 30, 1)]
    assert pairs(assign_credit(rule, DRAWN, DRAWN[:, None], torch.ones(3, 1))) == drawn
    assert pairs(assign_credit("row", DRAWN, SOURCES.roll(1, 0), WEIGHTS)) == drawn
    with pytest.raises(InputError, match="unknown credit rule 'rows': did you mean 'row'"):
        assign_credit("rows", DRAWN, SOURCES, WEIGHTS)


def test_a_visit_of_weight_zero_is_none():
    history = History(2)
    history.start_epoch(1)
    visit(history, [0], [0.9])
    history.start_epoch(2)
    visit(history, [0, 1], [0.1, 0.1], weights=[0.0, 0.0])
    assert history.seen.tolist() == [True, False]
    assert history.last_p_y[0].item() == pytest.approx(0.9)
    assert history.forgotten.tolist() == [0, 0]
    assert history.last_epoch.tolist() == [1, 0]
    assert history.epoch_arrays()["p_y"].isnan().all()


def test_a_row_of_weight_zero_does_not_hide_a_real_one():
    """Row 2 shows nothing of sample 10, after row 0 showed most of it."""
    history = History(40)
    history.start_epoch(1)
    credit = assign_credit("weighted", DRAWN, SOURCES, WEIGHTS)
    logits = torch.log(torch.tensor([[8.0, 2.0], [6.0, 4.0], [1.0, 9.0]]))
    history.update(credit, measure(logits[credit.rows], torch.zeros(6, dtype=torch.int64)))
    assert history.last_p_y[10].item() == pytest.approx(0.8)
    assert history.visits[[10, 20, 30]].tolist() == pytest.approx([0.7, 0.55, 1.75])
    assert history.confidence[20].item() == pytest.approx((0.3 * 0.8 + 0.25 * 0.6) / 0.55)


@pytest.mark.parametrize("rule", ["row", "dominant", "weighted"])
@pytest.mark.parametrize("parts", [1, 2])
def test_everything_stays_on_the_device_of_the_run(rule, parts):
    """The meta device stands in for a GPU: it computes shapes, and mixes with no other."""
    history, drawn = History(4, "meta"), torch.zeros(3, dtype=torch.int64, device="meta")
    sources = torch.zeros(3, parts, dtype=torch.int64, device="meta")
    credit = assign_credit(rule, drawn, sources, torch.ones(3, parts, device="meta"))
    seen = measure(torch.ones(len(credit.rows), 5, device="meta"), credit.samples)
    history.count(drawn)
    history.update(credit, seen)
    held = [vars(thing) for thing in (history, credit, seen)] + [history.epoch_arrays()]
    tensors = [one for values in held for one in values.values() if isinstance(one, Tensor)]
    assert len(tensors) == 6 + 3 + 6 + 6
    assert {one.device.type for one in tensors} == {"meta"}


def test_a_batch_is_its_rows_one_by_one():
    """Without duplicates a batch and its rows in turn must say the same."""
    generator = torch.Generator().manual_seed(0)
    whole, single = History(20), History(20)
    for epoch in range(1, 6):
        batch = torch.randperm(20, generator=generator)[:8]
        p_y = torch.rand(8, generator=generator)
        whole.start_epoch(epoch)
        single.start_epoch(epoch)
        visit(whole, batch.tolist(), p_y.tolist())
        for sample, p in zip(batch.tolist(), p_y.tolist(), strict=True):
            visit(single, [sample], [p])
    for name in ("visits", "error", "variability", "forgotten", "last_loss", "last_epoch"):
        ours, theirs = getattr(whole, name), getattr(single, name)
        assert torch.equal(ours.nan_to_num(-1), theirs.nan_to_num(-1)), name
