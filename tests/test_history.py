"""The history against values worked out by hand, and who gets the credit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from budgetlab.errors import InputError
from budgetlab.history import Credit, History, Measures, assign_credit, measure


def visit(history: History, samples: list[int], p_y: list[float], weights=None) -> None:
    """One step in which these samples had these probabilities of their labels."""
    p = torch.tensor(p_y)
    share = torch.ones(len(samples)) if weights is None else torch.tensor(weights)
    credit = Credit(torch.arange(len(samples)), torch.tensor(samples), share)
    history.update(credit, Measures(-p.log(), p, (p > 0.5).float(), 2 * p - 1, 1 - p))


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

SIZE = 4
# Of one epoch, a step: rows of a sample, its probability of the label, and its share of a visit.
ROWS = st.lists(
    st.tuples(
        st.integers(0, SIZE - 1),
        st.integers(1, 99).map(lambda percent: percent / 100),
        st.sampled_from([0.0, 0.25, 1.0]),
    ),
    min_size=1,
    max_size=8,
)


@given(st.lists(ROWS, min_size=1, max_size=8))
def test_whatever_is_seen_the_history_is_that_of_a_loop_over_the_rows(epochs):
    """Samples come twice in a batch, or with nothing of a visit, which is none."""
    history, visits = History(SIZE), [[] for _ in range(SIZE)]
    newest, forgotten, last_epoch = [None] * SIZE, [0] * SIZE, [0] * SIZE
    for number, rows in enumerate(epochs, 1):
        history.start_epoch(number)
        visit(history, *map(list, zip(*rows, strict=True)))
        shown = {sample: p for sample, p, share in rows if share}
        for sample, p, share in rows:
            visits[sample] += [(p, share)] * (share > 0)
        for sample, p in shown.items():
            # Once a batch, by the newest row of the sample.
            forgotten[sample] += newest[sample] is not None and newest[sample] > 0.5 >= p
            newest[sample], last_epoch[sample] = p, number
    assert history.forgotten.tolist() == forgotten
    assert history.last_epoch.tolist() == last_epoch
    assert history.seen.tolist() == [bool(one) for one in visits]
    left = history.epoch_arrays()
    for sample, told in enumerate(visits):
        assert (last_epoch[sample] == len(epochs)) == (left["correct"][sample] >= 0)
        if not told:
            assert history.error[sample].isnan()
            assert history.last_p_y[sample].isnan()
            continue
        p, share = np.array(told).T
        mean = np.average(p, weights=share)
        spread = np.sqrt(np.average((p - mean) ** 2, weights=share))
        expected = {"visits": share.sum(), "error": 1 - mean, "confidence": mean, "el2n": 1 - mean,
                    "mean_margin": 2 * mean - 1, "variability": spread, "last_p_y": p[-1],
                    "mean_loss": np.average(-np.log(p), weights=share), "last_el2n": 1 - p[-1],
                    "last_loss": -np.log(p[-1]), "last_correct": float(p[-1] > 0.5)}  # fmt: skip
        for name, value in expected.items():
            # Rounding may leave a variance a little off zero, which has a large root.
            off = 2e-3 if name == "variability" else 1e-5
            assert getattr(history, name)[sample].item() == pytest.approx(value, abs=off), name


def test_an_epoch_leaves_only_what_it_saw_and_a_saved_history_comes_back():
    history, other = History(4), History(4)
    for epoch, drawn, p_y in ((1, [0, 1, 1], [0.9, 0.2, 0.3]), (2, [1, 3, 3], [0.4, 0.5, 0.8])):
        history.start_epoch(epoch)
        history.count(torch.tensor(drawn))
        visit(history, drawn, p_y)
    assert history.times_trained.tolist() == [1, 3, 0, 2]
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
