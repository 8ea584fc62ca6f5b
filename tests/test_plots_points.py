"""Points in the plane: sizes say the chance, edges who was picked, colours the decision."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from budgetlab import plots
from budgetlab.errors import InputError
from budgetlab.plots import style
from budgetlab.plots.points import CLASSES, extent_of, sizes, surface_colours

X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
Y = np.array([0, 0, 1, 1])


@pytest.fixture
def ax():
    return Figure().subplots()


def test_the_diameter_is_in_proportion_to_the_chance():
    area = sizes(np.array([1.0, 2.0, 0.5]))
    np.testing.assert_allclose(np.sqrt(area / area[0]), [1, 2, 0.5])
    # Neither invisible nor as large as the figure.
    assert sizes(np.array([0.0]))[0] > 0
    assert sizes(np.array([1e6]))[0] == sizes(np.array([1e3]))[0]


def test_each_class_has_a_colour_and_a_marker_of_its_own(ax):
    plots.points_map(X, Y, chance=[1, 2, 1, 0.5], ax=ax)
    first, second = ax.collections
    np.testing.assert_array_equal(first.get_offsets(), X[:2])
    np.testing.assert_allclose(second.get_sizes(), sizes(np.array([1, 0.5])))
    paths = [collection.get_paths()[0].vertices for collection in (first, second)]
    assert paths[0].shape != paths[1].shape
    np.testing.assert_allclose(first.get_facecolor()[0, :3], to_rgb(CLASSES[0]))


def test_picked_points_have_a_dark_edge_and_others_do_not(ax):
    plots.points_map(X, Y, picked=[True, False, False, True], ax=ax)
    dark = [
        np.allclose(edge[:3], to_rgb(style.INK))
        for collection in ax.collections
        for edge in collection.get_edgecolor()
    ]
    assert dark == [True, False, False, True]
    assert "2 picked" in plots.alt_text(ax)


def test_without_a_chance_all_points_are_alike(ax):
    plots.points_map(X, Y, chance=[np.nan, 1, 1, 1], ax=ax)
    assert len(set(ax.collections[0].get_sizes())) == 1


def test_places_have_the_colour_of_their_class_and_are_pale_where_it_is_unsure():
    winner, sure = np.array([[0, 1], [0, 1]]), np.array([[1.0, 1.0], [0.6, 0.5]])
    colours = surface_colours(winner, sure).astype(int)
    towards = 255 * np.array([to_rgb(colour) for colour in CLASSES[:2]])
    for k in (0, 1):
        strong, pale = (np.abs(colours[row, k] - 255).sum() for row in (0, 1))
        assert strong > pale
        # The colour lies on the line from white to that of the class.
        np.testing.assert_allclose(255 - colours[0, k], 0.4 * (255 - towards[k]), atol=1)
    assert (colours[1, 1] == 255).all()  # half and half says nothing


def test_the_surface_lies_under_the_points_it_was_made_for(ax):
    grid = np.zeros((3, 3), int)
    grid[0, 0] = 1  # the lowest row comes first, as in the frames of the playground
    plots.points_map(X, Y, surface=(grid, np.ones((3, 3))), ax=ax)
    (image,) = ax.images
    assert image.get_extent() == pytest.approx(extent_of(X))
    assert image.origin == "lower"
    left, right, bottom, top = extent_of(X)
    assert left < 0 < 1 < right
    assert bottom < 0 < 2 < top
    assert (right - left) == pytest.approx(1.12)


def test_numbered_points_are_named(ax):
    plots.points_map(X, Y, numbered=[2], ax=ax)
    assert [text.get_text() for text in ax.texts] == ["2"]
    assert ax.texts[0].xy == pytest.approx(X[2])


@pytest.mark.parametrize(
    ("x", "y", "more"),
    [
        (X, Y[:3], {}),
        (X[:, :1], Y, {}),
        (X[:0], Y[:0], {}),
        (X, Y, {"chance": [1, 2]}),
        (X, Y, {"picked": [[True] * 4]}),
    ],
)
def test_what_does_not_fit_is_said(x, y, more, ax):
    with pytest.raises(InputError, match="do not fit"):
        plots.points_map(x, y, ax=ax, **more)
