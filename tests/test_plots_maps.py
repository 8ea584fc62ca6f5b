"""The importance map and the crossing curve: what is drawn is what the frame says."""

import numpy as np
import pandas as pd
import pytest

from budgetlab import plots
from budgetlab.errors import InputError
from budgetlab.plots import style


def cell(method, redundancy, noise, difference, half, verdict, **more):
    return {"method": method, "redundancy": redundancy, "label_noise": noise,
            "difference": difference, "ci_low": difference - half,
            "ci_high": difference + half, "n": 5, "verdict": verdict} | more  # fmt: skip


@pytest.fixture
def frame():
    return pd.DataFrame(
        [
            cell("p-SGD", 0.0, 0.0, 0.001, 0.004, "equivalent"),
            cell("p-SGD", 0.9, 0.0, 0.021, 0.005, "better"),
            cell("p-SGD", 0.0, 0.4, -0.012, 0.003, "worse"),
            cell("p-SGD", 0.9, 0.4, 0.004, 0.03, "undecided"),
            cell("c-SGD", 0.0, 0.0, 0.005, 0.002, "better"),
        ]
    )


def texts(ax):
    return {t.get_text(): t.get_position() for t in ax.texts}


def test_each_cell_stands_at_its_place_with_its_marks(frame):
    ax = plots.importance_map(frame)
    first, second = ax.child_axes
    assert [panel.get_title() for panel in (first, second)] == ["p-SGD", "c-SGD"]
    # Noise to the right, redundancy upwards: 0.9 is the first line of the image.
    assert texts(first) == {"+0.1\n≈": (0, 1), "+2.1\n●": (0, 0), "-1.2\n●": (1, 1),
                            "+0.4": (1, 0)}  # fmt: skip
    cells = first.images[0].get_array()
    np.testing.assert_allclose(cells, [[2.1, 0.4], [0.1, -1.2]])
    assert first.images[0].get_clim() == (-2.1, 2.1)
    assert [label.get_text() for label in first.get_yticklabels()] == ["0.9", "0"]
    # Both marks: a difference that is there and does not matter; the rest was not run.
    assert texts(second) == {"+0.5\n●≈": (0, 1)}
    assert np.isnan(np.ma.filled(second.images[0].get_array(), np.nan)).sum() == 3
    assert ax.get_title("left") == (
        "Of 5 comparisons: 2 better, 1 worse, 1 equivalent, 1 undecided"
    )
    said = plots.alt_text(ax)
    assert "3 intervals leave out zero and 2 lie within 1" in said
    assert "Highest: p-SGD at redundancy 0.9, label noise 0, +2.1 percentage points" in said


def test_imbalance_and_data_sets_have_rows_of_their_own(frame):
    both = pd.concat([frame.assign(imbalance=1), frame.assign(imbalance=10, redundancy=0.0)])
    both = both.drop_duplicates(["method", "redundancy", "imbalance", "label_noise"])
    two = pd.concat([both.assign(dataset=name) for name in ("shapes", "digits")])
    ax = plots.importance_map(two)
    assert len(ax.child_axes) == 4
    panel = ax.child_axes[0]
    assert panel.get_ylabel() == "digits"
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "redundancy 0.9", "imbalance 10", "neither"
    ]  # fmt: skip
    with pytest.raises(InputError, match="has several rows where label_noise is 0"):
        plots.importance_map(both, y="redundancy")
    with pytest.raises(InputError, match="lacks the column verdict"):
        plots.importance_map(frame.drop(columns="verdict"))


def test_a_wider_margin_marks_more(frame):
    ax = plots.importance_map(frame, margin=0.05)
    assert sum("≈" in text.get_text() for panel in ax.child_axes for text in panel.texts) == 5


def test_the_crossing_names_who_leads_where():
    rows = [
        {"epochs": e, "augmentation": a, "mean": m, "ci_low": m - 0.01, "ci_high": m + 0.01, "n": n}
        for a, levels in {"ricap": (0.4, 0.6), "none": (0.5, 0.55)}.items()
        for e, m, n in zip((100, 10), levels[::-1], (5, 10), strict=True)
    ]
    ax = plots.crossing(pd.DataFrame(rows), line_kws={"linewidth": 4})
    assert ax.get_title("left") == "None leads at 10 epochs, ricap at 100"
    line = next(line for line in ax.lines if line.get_label().startswith("ricap"))
    np.testing.assert_allclose(line.get_xdata(), [10, 100])
    np.testing.assert_allclose(line.get_ydata(), [40, 60])
    assert line.get_linewidth() == 4
    assert line.get_label() == "ricap (n = 5 to 10)"
    assert line.get_color() == style.looks(["ricap", "mixup"])["ricap"].colour
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.ymin, band.ymax) == pytest.approx((39, 61))
    assert "none goes from 50.0 at 10 epochs to 55.0 at 100" in plots.alt_text(ax)
